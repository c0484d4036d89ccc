"""Why a call was refused, in words that know nothing of gRPC; each maps to one status code."""

from collections.abc import Mapping


class LinkError(Exception):
    """The message is shown to the caller: it says what is wrong and what would be right."""


class Invalid(LinkError):
    """The caller's message is malformed or contradicts itself. INVALID_ARGUMENT."""


class NotFound(LinkError):
    """There is no such job, node, cluster or method; the message names it. NOT_FOUND."""


class Conflict(LinkError):
    """The wish contradicts what already is. FAILED_PRECONDITION."""


class Exhausted(LinkError):
    """A bound has been reached; try again later. RESOURCE_EXHAUSTED."""


class Unavailable(LinkError):
    """The part that would answer cannot be reached now. UNAVAILABLE."""


class Denied(LinkError):
    """This caller may not do this. PERMISSION_DENIED."""


class TimedOut(LinkError):
    """No answer came within the time given. DEADLINE_EXCEEDED."""


class Failed(LinkError):
    """The other side broke while it answered; its log says more. INTERNAL."""


CODES: dict[type[LinkError], str] = {
    Invalid: "invalid",
    NotFound: "not_found",
    Conflict: "conflict",
    Exhausted: "exhausted",
    Unavailable: "unavailable",
    Denied: "denied",
    TimedOut: "timed_out",
    Failed: "failed",
}
"""What a relayed call's last chunk says in ``code``."""

KINDS: dict[str, type[LinkError]] = {code: kind for kind, code in CODES.items()}
"""The other way round; an unknown code is read as ``Failed``."""

Translation = Mapping[type[Exception], type[LinkError]]
STANDARD: Translation = {
    TimeoutError: TimedOut,
    OSError: Unavailable,
    LookupError: NotFound,
    ValueError: Invalid,
}
"""What callables may raise besides LinkErrors; whoever makes a server or a link may add to it."""


def translated(error: Exception, translation: Translation) -> LinkError | None:
    """The refusal an exception stands for; None when it is a fault of our own."""
    if isinstance(error, LinkError):
        return error
    if getattr(error, "problems", None):  # a spec's faults, which wire.spec_* collect
        return Invalid(str(error))
    for parent in type(error).__mro__:
        if kind := translation.get(parent):
            # The text of a KeyError is the repr of its key.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            return kind(str(text))
    return None
