"""Turns what goes wrong behind REST into RFC 9457 problems that name a remedy."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec

from hyperion.daemon.application import Conflict, Exhausted, NotFound, Unavailable
from hyperion.wire.api import Problem
from hyperion.wire.rest import PROBLEM_TYPE, ProblemDetails
from hyperion.wire.spec_tree import SpecError

log = logging.getLogger("hyperion.gateway")

#: status → (word for programs, title for people, what to do about it)
KINDS: dict[int, tuple[str, str, str]] = {
    400: ("bad-request", "Bad request", "see /v1/openapi.json for what this route takes"),
    401: ("unauthorized", "A token is needed", "send 'Authorization: Bearer TOKEN'"),
    403: ("forbidden", "Not allowed", "ask the federation's operator"),
    404: ("not-found", "Not found", "list what there is: GET /v1/jobs?ended=true, GET /v1/nodes"),
    405: ("method-not-allowed", "Method not allowed", "see /v1/openapi.json for the methods"),
    408: ("too-slow", "The request took too long", "send the body without pauses"),
    409: ("conflict", "Conflict", "look at its present state, then decide"),
    411: ("length", "Length required", "send Content-Length"),
    413: ("too-large", "Too large", "send less at once"),
    415: ("media-type", "Media type not understood", "see /v1/openapi.json for the media types"),
    422: ("bad-spec", "The spec is not right", "correct what 'problems' names and send it again"),
    429: ("exhausted", "Too much at once", "try again later"),
    500: ("internal", "A fault of ours", "the federation's log has the details; please report it"),
    503: ("unavailable", "Cannot be reached now", "try again shortly"),
}

_STATUS_OF_ERROR = ((NotFound, 404), (Conflict, 409), (Exhausted, 429), (Unavailable, 503))


class Refusal(Exception):
    """A request that gets this problem as its answer."""

    def __init__(
        self, status: int, detail: str, remedy: str = "", problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(detail)
        self.details = problem(status, detail, remedy, problems)


def problem(
    status: int, detail: str, remedy: str = "", problems: Sequence[Problem] = ()
) -> ProblemDetails:
    """The problem document for a status, with the usual remedy unless a better one is known."""
    word, title, usual = KINDS.get(status, KINDS[500 if status >= 500 else 400])
    return ProblemDetails(
        type=f"urn:hyperion:problem:{word}",
        title=title,
        status=status,
        detail=detail or title,
        remedy=remedy or usual,
        problems=tuple(problems),
    )


def encoded(details: ProblemDetails) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body, for answers given before the router is reached."""
    body = msgspec.json.encode(details)
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if details.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="hyperion"'))
    if details.status in {429, 503}:
        headers.append((b"retry-after", b"1"))
    return headers, body


def details_of(error: Exception) -> ProblemDetails:
    """What a caller may know of an error. Unknown ones are logged and say nothing of the inside."""
    match error:
        case Refusal():
            return error.details
        case SpecError():
            return problem(422, str(error), problems=error.problems)
        case HTTPException():
            return problem(error.status_code, _http_detail(error))
    for kind, status in _STATUS_OF_ERROR:
        if isinstance(error, kind):
            return problem(status, str(error))
    log.error("the gateway met an error it does not know", exc_info=error)
    return problem(500, "the request could not be finished")


def answer(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    details = details_of(error)
    headers, body = encoded(details)
    named = {k.decode(): v.decode() for k, v in headers if k != b"content-length"}
    if isinstance(error, HTTPException) and error.headers:
        named |= {k.lower(): v for k, v in error.headers.items()}  # such as Allow with 405
    named.pop("content-type", None)
    return Response(body, status_code=details.status, headers=named, media_type=PROBLEM_TYPE)


def declared(*statuses: int) -> Mapping[int, ResponseSpec]:
    """The problems a route may answer with, for OpenAPI; some any route may."""
    return {
        status: ResponseSpec(
            ProblemDetails,
            generate_examples=False,
            description=KINDS[status][1],
            media_type=PROBLEM_TYPE,
        )
        for status in sorted({400, 401, 403, 408, 429, 500, 503, *statuses})
    }


def _http_detail(error: HTTPException) -> str:
    extra = error.extra
    if not isinstance(extra, list):
        return error.detail
    faults = (f"{x.get('key', '')}: {x.get('message', '')}" for x in extra if isinstance(x, dict))
    return f"{error.detail} ({'; '.join(faults)})"
