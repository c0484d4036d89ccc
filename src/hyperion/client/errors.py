"""What a client can meet, each with a remedy. Programs catch classes, people read the text."""

from collections.abc import Sequence

from hyperion.wire.api import Problem


class HyperionError(Exception):
    """``str()`` is one sentence; ``remedy`` says what to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class NotFound(HyperionError):
    """There is no such job, node or cluster."""


class SpecRefused(HyperionError):
    """The spec has faults; nothing of it was kept. ``problems`` names each of them."""

    def __init__(self, message: str, remedy: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, remedy)
        self.problems = tuple(problems)


class Unauthorized(HyperionError):
    """The token is missing or wrong, or does not allow this."""


class Conflict(HyperionError):
    """The wish contradicts what already is."""


class Refused(HyperionError):
    """The federation does not take the request as it is: too large, malformed."""


class Busy(HyperionError):
    """A bound has been reached; again later."""


class Unavailable(HyperionError):
    """The federation, or the part of it that would answer, cannot be reached now."""


class TimedOut(HyperionError):
    """It took longer than it was given."""


class ServerFault(HyperionError):
    """The federation failed at the request, or answered what this client does not understand."""
