"""What can go wrong, in words a user can act on.

Every error says what happened (with both numbers where two disagree) and the remedy. The
command line prints the message and the hint on one line each and exits with ``exit_code``; what
the codes mean for a scheduler is in docs/operating.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals


class SteelyardError(Exception):
    """Base of every error that Steelyard raises on purpose.

    Args:
        message: what happened, with the values that disagree.
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(SteelyardError):
    """A file, an argument or a setting that cannot be used as it is."""

    exit_code = 2


class BusyError(InputError):
    """Another job is at work there: the same command may be run again later."""

    exit_code = 7


class PackError(SteelyardError):
    """A query pack that is missing, damaged, or of a format this version cannot read."""

    exit_code = 3


class PackMismatchError(PackError):
    """A query pack used with documents of another vector space."""


class EngineError(SteelyardError):
    """A search engine that refuses, cannot be reached, or holds something unexpected."""

    exit_code = 4


class TransientEngineError(EngineError):
    """An engine that is away, busy or too slow, also after all retries: later it may do."""

    exit_code = 75


class RejectedDocumentsError(SteelyardError):
    """A job is done, but some documents were rejected, and whoever called it wants to know."""

    exit_code = 6


class StorageError(SteelyardError):
    """A disk that is full, or a folder that cannot be written."""

    exit_code = 74


class InterruptedJobError(SteelyardError):
    """The user or a scheduler stopped the job.

    Args:
        number: of the signal; the exit code is 128 more, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {Signals(number).name}; what is done is kept",
            "the same command goes on from here",
        )
        self.exit_code = 128 + number


class MissingExtraError(SteelyardError):
    """A feature whose optional packages are not installed."""

    exit_code = 5

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"this needs the Python package '{module}', which is not installed",
            f'pip install "steelyard[{extra}]"',
        )


def first_line(error: Exception) -> str:
    """What a foreign library says, short enough for a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that names the install line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or extra, extra) from error
