"""Where a reader of a stream is, so that a broken one is taken up without gap or repetition."""

from typing import Protocol, TypeVar

import msgspec

from hyperion.client import calls
from hyperion.client.errors import ServerFault
from hyperion.client.events import ServerEvent
from hyperion.client.exchange import Request
from hyperion.wire.api import JobChange
from hyperion.wire.rest import LogChunk, ProblemDetails

T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)


class Place(Protocol[Item_co]):
    """How far a reader of one stream has come."""

    @property
    def ended(self) -> bool: ...

    @property
    def may_resume(self) -> bool: ...

    def request(self) -> Request:
        """What to ask for, to go on from here."""

    def take(self, event: ServerEvent) -> Item_co | None:
        """What an event holds, if anything new. Raises what the federation reports."""


class WatchPlace:
    """The sequence of the last change seen."""

    def __init__(self, job_id: str, after: int) -> None:
        self._job_id = job_id
        self._after = after
        self.ended = False
        self.may_resume = True

    def request(self) -> Request:
        return calls.watch(self._job_id, self._after)

    def take(self, event: ServerEvent) -> JobChange | None:
        """The change in an event, if there is one. Raises what the federation reports."""
        self.ended = _is_end(event)
        if event.name != "job":
            return None
        change = _decode(event.content, JobChange)
        self._after = max(self._after, change.sequence)
        return change


class LogPlace:
    """How much of each rank's output was seen; the rest of it is what follows.

    A log that was cut short (``tail``) cannot be taken up by counting, so it is not.
    """

    def __init__(self, job_id: str, rank: int | None, tail_lines: int | None) -> None:
        self._request = calls.follow(job_id, rank, tail_lines)
        self.may_resume = tail_lines is None
        self.ended = False
        self._seen: dict[int, int] = {}
        self._skip: dict[int, int] = {}

    def request(self) -> Request:
        self._skip = dict(self._seen)
        return self._request

    def take(self, event: ServerEvent) -> LogChunk | None:
        self.ended = _is_end(event)
        if event.name != "log":
            return None
        chunk = _decode(event.content, LogChunk)
        skipped = min(self._skip.get(chunk.rank, 0), len(chunk.text))
        if skipped:
            self._skip[chunk.rank] -= skipped
        text = chunk.text[skipped:]
        if not text:
            return None
        self._seen[chunk.rank] = self._seen.get(chunk.rank, 0) + len(text)
        return LogChunk(rank=chunk.rank, text=text)


def _is_end(event: ServerEvent) -> bool:
    if event.name == "error":
        raise calls.error_of(_decode(event.content, ProblemDetails))
    return event.name == "end"


def _decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ServerFault(
            f"the federation's stream is not understood: {error}",
            "compare 'hyperion version' here and there",
        ) from None
