"""Exit codes, and how an error is told."""

import sys

OK = 0
FAILED = 1
BAD_USAGE = 2
UNREACHABLE = 3
REFUSED = 4
TIMED_OUT = 5
INTERRUPTED = 130


class Failure(Exception):
    """Ends the command with this message, remedy and exit code."""

    def __init__(self, message: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = code


def code_of(error: Exception) -> int | None:
    """The exit code an error stands for; None for one that is a bug of ours."""
    if isinstance(error, Failure):
        return error.code
    if "hyperion.client.errors" not in sys.modules:
        return None
    from hyperion.client import errors

    for kind, code in (
        (errors.SpecRefused, BAD_USAGE),
        (errors.NotFound, FAILED),
        (errors.Unavailable, UNREACHABLE),
        (errors.TimedOut, TIMED_OUT),
        (errors.HyperionError, REFUSED),
    ):
        if isinstance(error, kind):
            return code
    return None


def told(error: Exception) -> str:
    """The lines for the terminal: each fault of a spec, or the error and its remedy."""
    lines = [f"error: {error}"]
    problems = getattr(error, "problems", ())
    if problems:
        lines = str(error).splitlines() or lines
    remedy = getattr(error, "remedy", "")
    if remedy and not problems:
        lines.append(f"  {remedy}")
    return "\n".join(lines)
