"""Errors of commands: one sentence on standard error and an exit code of `sysexits.h`."""

import os
import sys
import traceback

from relay.model import errors

#: The first class that matches decides.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.ConfigError, os.EX_CONFIG),
    (errors.SubmissionRefused, os.EX_DATAERR),
    (errors.IdempotencyConflict, os.EX_DATAERR),
    (errors.StateConflict, os.EX_DATAERR),
    (errors.NotFound, os.EX_NOINPUT),
    (errors.ScriptMismatch, os.EX_CONFIG),
    (errors.StoreError, os.EX_TEMPFAIL),
    (FileNotFoundError, os.EX_NOINPUT),
    (PermissionError, os.EX_NOPERM),
    (OSError, os.EX_IOERR),
)


class CommandFailed(errors.RelayError):
    """Raised when a command cannot do what was asked; carries the exit code."""

    def __init__(self, sentence: str, exit_code: int = os.EX_UNAVAILABLE) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return " ".join(str(error).split()) or type(error).__name__


def report(error: BaseException) -> int:
    """Say what is wrong on standard error; answers the exit code."""
    sentence = _sentence(error)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), os.EX_SOFTWARE)
    if isinstance(error, CommandFailed):
        code = error.exit_code
    if code == os.EX_SOFTWARE:
        sentence = (
            f"internal error: {type(error).__name__}: {sentence} "
            "(RELAY_TRACEBACK=1 shows where; please report it)"
        )
    if os.environ.get("RELAY_TRACEBACK"):
        traceback.print_exception(error)
    print(f"relay: {sentence}", file=sys.stderr)
    return code
