"""Free ports for gangs to meet on, none given out twice within minutes."""

import errno
import socket
import time
from collections import OrderedDict

_QUARANTINE_S = 300.0
_TRIES = 200
_MOST_REMEMBERED = 8192


class FreePorts:
    """The kernel picks; we remember what we gave out, since the gang binds it only later."""

    def __init__(self, quarantine_s: float = _QUARANTINE_S) -> None:
        self._quarantine_s = quarantine_s
        self._given: OrderedDict[int, float] = OrderedDict()

    def take(self) -> int:
        """A TCP port that nobody listens on; ``OSError`` when none is to be found."""
        now = time.monotonic()
        while self._given and (
            now - next(iter(self._given.values())) > self._quarantine_s
            or len(self._given) > _MOST_REMEMBERED
        ):
            self._given.popitem(last=False)
        for _ in range(_TRIES):
            port = _any_free()
            if port not in self._given:
                self._given[port] = now
                return port
        raise OSError(errno.EADDRNOTAVAIL, "no free TCP port is left for the gang's rendezvous")


def _any_free() -> int:
    try:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port
