"""Why a local server is not there."""

from __future__ import annotations

from steelyard.errors import SteelyardError


class ServerError(SteelyardError):
    """A local server could not be laid out or started."""

    exit_code = 4


class MissingProgramError(ServerError):
    """A program that a local server needs is not on this machine."""

    exit_code = 5
