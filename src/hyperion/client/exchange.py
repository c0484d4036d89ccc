"""One HTTP/1.1 connection without its I/O: bytes in, answers out; both clients drive it."""

from collections.abc import Iterator
from typing import NamedTuple

import h11

from hyperion import __version__
from hyperion.client.address import Address
from hyperion.client.errors import ServerFault

MAX_HEADER_BYTES = 64 << 10
MAX_ANSWER_BYTES = 256 << 20
"""Of one answer that is read as a whole."""


class Request(NamedTuple):
    """What is asked, as HTTP. ``body`` is sent with its length."""

    method: str
    target: str
    body: bytes = b""
    content_type: str = ""
    accept: str = "application/json"
    last_event_id: str = ""


class Head(NamedTuple):
    status: int
    content_type: str
    retry_after_s: float | None


class Broken(Exception):
    """The connection ended, or spoke no HTTP, before the answer was complete."""


class Exchange:
    """Requests and answers of one connection, one after the other."""

    def __init__(self, address: Address, user: str) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._address = address
        self._user = user

    def begin(self, request: Request) -> bytes:
        """The bytes of a request, to be sent at once."""
        headers = [
            ("Host", self._address.authority),
            ("User-Agent", f"hyperion/{__version__}"),
            ("Accept", request.accept),
        ]
        if self._address.token:
            headers.append(("Authorization", f"Bearer {self._address.token}"))
        if self._user:
            headers.append(("Hyperion-User", self._user))
        if request.last_event_id:
            headers.append(("Last-Event-ID", request.last_event_id))
        if request.body or request.method in {"POST", "PUT"}:
            headers.append(("Content-Length", str(len(request.body))))
        if request.content_type:
            headers.append(("Content-Type", request.content_type))
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        parts = [self._h11.send(head)]
        if request.body:
            parts.append(self._h11.send(h11.Data(data=request.body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    def feed(self, received: bytes) -> None:
        """Bytes from the server; none means that it closed."""
        self._h11.receive_data(received)

    def pieces(self) -> Iterator[Head | bytes | None]:
        """What has come: the head, pieces of the body, and None once at the answer's end.

        Stops where more must be fed. Raises Broken.
        """
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise Broken(str(error)) from None
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.ConnectionClosed):
                raise Broken("the server closed the connection")
            if isinstance(event, h11.Response):
                yield _head(event)
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                yield None
                return

    def renew(self) -> bool:
        """Make ready for a further request; False where the connection must be given up."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False


class Whole:
    """Collects one answer, within its bound."""

    def __init__(self) -> None:
        self.head = Head(0, "", None)
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, piece: Head | bytes | None) -> bool:
        """True once complete."""
        if piece is None:
            return True
        if isinstance(piece, Head):
            self.head = piece
            return False
        self._size += len(piece)
        if self._size > MAX_ANSWER_BYTES:
            raise ServerFault(
                f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB", "ask for less at once"
            )
        self._parts.append(piece)
        return False

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)


def _head(response: h11.Response) -> Head:
    content_type = ""
    retry_after_s = None
    for name, value in response.headers:
        if name == b"content-type":
            content_type = value.decode("latin-1").partition(";")[0].strip().lower()
        elif name == b"retry-after" and value.isdigit():
            retry_after_s = min(60.0, float(value))
    return Head(response.status_code, content_type, retry_after_s)
