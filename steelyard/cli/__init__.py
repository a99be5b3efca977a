"""The command line. ``main`` is the entry point of ``steelyard``."""

from __future__ import annotations

import errno
import os
import sys

from steelyard.errors import InterruptedJobError, SteelyardError, StorageError, needs_extra

UNEXPECTED = 70
"""Exit code of an error nobody planned for (EX_SOFTWARE)."""

_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main() -> None:
    """Run a command; every error is one clear line and an exit code, never a traceback."""
    try:
        with needs_extra("cli"):
            from steelyard.cli.app import app
        app()
    except SteelyardError as error:
        _fail(error.message, error.hint, error.exit_code)
    except BrokenPipeError:
        os._exit(141)
    except KeyboardInterrupt:
        interrupted = InterruptedJobError(2)
        _fail(interrupted.message, "", interrupted.exit_code)
    except OSError as error:
        full = error.errno in _STORAGE
        _fail(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            "make room or mend the folder, then run the same command again" if full else "",
            StorageError.exit_code if full else 1,
        )
    except Exception as error:
        if os.environ.get("STEELYARD_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "set STEELYARD_DEBUG=1 for the traceback, and please report it",
            UNEXPECTED,
        )


def _fail(message: str, hint: str, code: int) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"  fix: {hint}", file=sys.stderr)
    sys.exit(code)
