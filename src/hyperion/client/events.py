"""Server-sent events from bytes, and what the federation's streams say in them."""

from typing import NamedTuple

from hyperion.client.errors import ServerFault

MAX_EVENT_BYTES = 8 << 20


class ServerEvent(NamedTuple):
    name: str
    content: bytes
    id: str


class EventReader:
    """Feed bytes as they come; complete events come out. Comments and ``retry`` are dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._content: list[bytes] = []
        self._id = ""
        self._size = 0

    def feed(self, received: bytes) -> list[ServerEvent]:
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ServerFault(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")
        events = []
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                events.append(event)
        return events

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > MAX_EVENT_BYTES:
                raise ServerFault(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")
            self._content.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id":
            self._id = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        if not self._content:
            self._name = ""
            return None
        event = ServerEvent(self._name or "message", b"\n".join(self._content), self._id)
        self._name, self._content, self._size = "", [], 0
        return event
