"""What becomes of a contender that cannot be measured: the others go on."""

from __future__ import annotations

from steelyard.errors import MissingExtraError, first_line


def trouble(error: Exception) -> dict[str, str]:
    """``missing``: a package that is not installed; ``failed``: anything else, on one line."""
    cause = error.__cause__ if isinstance(error, MissingExtraError) else error
    if isinstance(cause, ModuleNotFoundError):
        return {"missing": cause.name or first_line(cause)}
    return {"failed": f"{type(error).__name__}: {first_line(error)}"}
