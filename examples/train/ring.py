"""All-reduce over TCP, in plain sockets: each replica talks to its two neighbours only.

The ring moves 2 (N - 1) / N of the array over each link, whatever N is. Every replica ends with the
very same bits, because each part is summed by one of them and then passed round.
"""

import os
import socket
import struct
import threading
import time
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
TIMEOUT_S = 60.0
_FRAME = struct.Struct("!I")
_MAX_FRAME_BYTES = 1 << 16


class Ring:
    """The gang as this replica sees it. Addresses come from MASTER_ADDR and MASTER_PORT."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._next: socket.socket | None = None
        self._previous: socket.socket | None = None

    def __enter__(self) -> "Ring":
        if self.size > 1:
            self._join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for link in (self._next, self._previous):
            if link is not None:
                link.close()

    def sum(self, array: Array) -> Array:
        """The sum of all replicas' arrays of one shape, the same bits everywhere."""
        if self.size == 1:
            return array
        flat = array.ravel().copy()
        parts = np.array_split(flat, self.size)  # views: what is added there is added to flat
        for step in range(self.size - 1):
            mine, theirs = (self.rank - step) % self.size, (self.rank - step - 1) % self.size
            parts[theirs] += self._pass_on(parts[mine], len(parts[theirs]))
        for step in range(self.size - 1):
            mine, theirs = (self.rank - step + 1) % self.size, (self.rank - step) % self.size
            parts[theirs][:] = self._pass_on(parts[mine], len(parts[theirs]))
        return flat.reshape(array.shape)

    def from_first(self, array: Array) -> Array:
        """Rank 0's array, for everybody."""
        return self.sum(array if self.rank == 0 else np.zeros_like(array))

    def _pass_on(self, out: Array, length: int) -> Array:
        """Send to the next while receiving from the previous; both at once, or the ring locks."""
        assert self._next is not None
        assert self._previous is not None
        sender = threading.Thread(target=self._next.sendall, args=(out.tobytes(),))
        sender.start()
        incoming = _receive(self._previous, length * out.itemsize)
        sender.join(TIMEOUT_S)
        return np.frombuffer(incoming, dtype=np.float32)

    def _join(self) -> None:
        """Meet at rank 0, learn where everybody listens, link up with the neighbours."""
        with socket.create_server(("", 0)) as listener:
            listener.settimeout(TIMEOUT_S)
            port = listener.getsockname()[1]
            places = self._meet(port) if self.rank else self._host(port)
            host, _, at = places[(self.rank + 1) % self.size].rpartition(":")
            self._next = socket.create_connection((host, int(at)), timeout=TIMEOUT_S)
            self._previous, _ = listener.accept()
        for link in (self._next, self._previous):
            link.settimeout(TIMEOUT_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _host(self, port: int) -> list[str]:
        """Rank 0: hear from all others, then tell them all."""
        places = {0: f"{os.environ['MASTER_ADDR']}:{port}"}
        guests = []
        with socket.create_server(("", int(os.environ["MASTER_PORT"]))) as door:
            door.settimeout(TIMEOUT_S)
            while len(places) < self.size:
                guest, (host, *_) = door.accept()
                guest.settimeout(TIMEOUT_S)
                rank, at = _frame(guest).split()
                places[int(rank)] = f"{host}:{at}"
                guests.append(guest)
        ordered = [places[rank] for rank in range(self.size)]
        for guest in guests:
            _send_frame(guest, " ".join(ordered))
            guest.close()
        return ordered

    def _meet(self, port: int) -> list[str]:
        """Others: rank 0 may not be there yet, so knock until it is."""
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        until = time.monotonic() + TIMEOUT_S
        while True:
            try:
                with socket.create_connection(address, timeout=TIMEOUT_S) as link:
                    _send_frame(link, f"{self.rank} {port}")
                    return _frame(link).split()
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _send_frame(link: socket.socket, text: str) -> None:
    link.sendall(_FRAME.pack(len(text)) + text.encode("ascii"))


def _frame(link: socket.socket) -> str:
    (length,) = _FRAME.unpack(_receive(link, _FRAME.size))
    if length > _MAX_FRAME_BYTES:
        raise ConnectionError(f"a peer announced {length} bytes; this is none of our replicas")
    return _receive(link, length).decode("ascii")


def _receive(link: socket.socket, length: int) -> bytearray:
    whole = bytearray(length)
    view = memoryview(whole)
    while view:
        got = link.recv_into(view)
        if not got:
            raise ConnectionError("a neighbour in the ring has gone")
        view = view[got:]
    return whole
