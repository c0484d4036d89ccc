"""Sockets that standbys listen on: opened before they start, so that no client is ever refused.

A standby inherits its socket as descriptor 3, told of as systemd tells of it (sd_listen_fds(3)):
servers that can be activated by a socket need nothing else.
"""

import contextlib
import ctypes
import os
import socket
from collections.abc import Sequence

DESCRIPTOR = 3
_BACKLOG = 1024
_PIDFD_GETFD = 438
"""System call of Linux 5.6, the same on all architectures."""

VARIABLES = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "standby"}


class Gates:
    def __init__(self, address: str) -> None:
        self._address = address
        self._open: dict[str, socket.socket] = {}

    def open(self, name: str, port: int) -> int:
        """Listen; the descriptor. ``OSError`` names the port when it cannot be had."""
        if not port:
            return -1
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        gate = socket.socket(family, socket.SOCK_STREAM)
        try:
            gate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            gate.bind((self._address, port))
            gate.listen(_BACKLOG)
        except OSError as error:
            gate.close()
            why = os.strerror(error.errno or 0)
            raise OSError(
                f"standby.port {port} of {self._address} cannot be had: {why}; choose another "
                "port, and for several replicas a node for each"
            ) from None
        self.close(name)
        self._open[name] = gate
        return gate.fileno()

    def of(self, name: str, pidfd: int, port: int) -> int:
        """The descriptor of its socket, of one that another agent has started too; -1: none."""
        gate = self._open.get(name)
        if gate is None:
            gate = _taken(pidfd, port)
            if gate is None:
                return -1
            self._open[name] = gate
        return gate.fileno()

    def close(self, name: str) -> None:
        gate = self._open.pop(name, None)
        if gate is not None:
            gate.close()


def handing_over(command: Sequence[str]) -> list[str]:
    """The command, told by its own process id that the socket is for it."""
    return ["/bin/sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "sh", *command]


def _taken(pidfd: int, port: int) -> socket.socket | None:
    """A copy of that process's own; None where it has none, or the host does not let us."""
    with contextlib.suppress(AttributeError, OSError):
        fd = int(ctypes.CDLL(None).syscall(_PIDFD_GETFD, pidfd, DESCRIPTOR, 0))
        if fd < 0:
            return None
        try:
            gate = socket.socket(fileno=fd)
        except OSError:  # it is no socket
            os.close(fd)
            return None
        listens = gate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and gate.getsockname()[1] == port:
            return gate
        gate.close()
    return None
