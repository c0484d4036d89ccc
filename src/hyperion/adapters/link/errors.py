"""Why a call was refused, in words that know nothing of gRPC; each maps to one status code."""

# ruff: noqa: N818 (they read as answers, "NotFound", as in the application's own list)


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
