"""Thousands of agents in one lean process: the real messages over TLS sockets and bare HTTP/2.

gRPC's own client would need more of the machine than the scheduler that is to be measured.
"""

import os
import select
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.identity import Identity, Role, role_host
from hyperion.adapters.link.streams import AGENTS
from hyperion.control import messages as m
from hyperion.control.liveness import Holder
from hyperion.model.ids import NodeId
from hyperion.model.node import Node
from hyperion.model.resources import Capacity
from hyperion.ports import GpuReading, Reading
from hyperion.wire import codec
from hyperion.wire.generated import link_pb2
from hyperion.wire.relay import Measured

CAPACITY = Capacity(gpus=8, gpu_type="H100", cpus_milli=64_000, memory_mib=512_000)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4


def reading(at_ms: int) -> Reading:
    """A busy machine with eight GPUs."""
    gpus = tuple(
        GpuReading(
            index=n,
            utilization_percent=97.0 + n % 3,
            memory_used_mb=70_000.0 + at_ms % 100,
            memory_total_mb=81_559.0,
            temperature_celsius=61.0,
            power_watts=680.5,
        )
        for n in range(8)
    )
    return Reading(
        at_ms=at_ms,
        cpu_utilization_percent=12.5,
        memory_used_mb=100_000.0,
        memory_total_mb=512_000.0,
        network_rx_gbps=1.5,
        disk_free_mb=1e6,
        load_1m=8.0,
        gpus=gpus,
    )


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as it is: no table, no Huffman code (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class LeanAgent:
    """One agent: its certificate, its connection, its lease."""

    def __init__(self, number: int, port: int, authority: Authority, where: Path) -> None:
        self.name = f"node-{number:05d}"
        self.lease = Holder()
        self.leases = self.late = 0
        self.open = True
        self._received = b""
        self._socket = self._connect(port, authority, where)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + self._headers(port))
        self._socket.setblocking(False)
        self.lease.attached(now_ms())
        node = Node(id=NodeId(self.name), capacity=CAPACITY)
        self._send(codec.pack_agent([m.NodeHello(node=node)]).SerializeToString())
        measured = Measured(self.name, reading(1_790_000_000_000 + number))
        self._measured: bytes = codec.pack_agent([measured]).SerializeToString()

    def fileno(self) -> int:
        return self._socket.fileno()

    def beat(self, separately: bool) -> None:
        now = now_ms()
        self.late += not self.lease.is_valid(now)
        fresh = self.lease.is_fresh(now, 1000) and not separately
        sequence = self.lease.beat(now)
        heartbeat = codec.pack_agent([m.NodeHeartbeat(sequence, fresh)]).SerializeToString()
        if separately:
            self._send(heartbeat)
            self._send(self._measured)
        else:  # items of one envelope, which may be written one after the other
            self._send(heartbeat + self._measured)

    def take(self) -> None:
        """Read what is there: answer pings and settings, note leases."""
        try:
            while piece := self._socket.recv(65_536):
                self._received += piece
            self.open = False
        except ssl.SSLWantReadError:
            pass
        while len(self._received) >= 9:
            size, kind, flags = (
                struct.unpack(">I", b"\0" + self._received[:3])[0],
                *self._received[3:5],
            )
            if len(self._received) < 9 + size:
                break
            body, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self._take_frame(kind, flags, body)

    def _take_frame(self, kind: int, flags: int, body: bytes) -> None:
        if kind == DATA and body:
            for message in codec.unpack_scheduler(link_pb2.SchedulerMessage.FromString(body[5:])):
                if isinstance(message, m.Lease):
                    self.leases += 1
                    self.lease.granted(message.sequence, message.duration_ms)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            answer = body if kind == PING else b""
            self._socket.send(frame(kind, ACK, 0, answer))
        elif kind == GOAWAY or (kind == HEADERS and flags & END_STREAM):
            self.open = False

    def _send(self, message: bytes) -> None:
        prefixed = b"\0" + struct.pack(">I", len(message)) + message
        self._socket.send(frame(DATA, 0, 1, prefixed))

    def _connect(self, port: int, authority: Authority, where: Path) -> ssl.SSLSocket:
        name = Identity(authority.trust_domain, Role.AGENT, f"home/{self.name}")
        key, certificate = authority.issue(name)
        where.write_bytes(key + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(where)
        context.load_verify_locations(cadata=authority.ca_pem.decode())
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=role_host(Role.SCHEDULER))

    def _headers(self, port: int) -> bytes:
        fields = (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", AGENTS.path.encode()),
            (b":authority", f"127.0.0.1:{port}".encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
        return frame(HEADERS, END_HEADERS, 1, b"".join(literal(*f) for f in fields))


class Load:
    """All of them, each beating once a second from when it has attached."""

    def __init__(self, authority: Authority, port: int, count: int, separately: bool) -> None:
        self._poll = select.epoll()
        self._separately = separately
        self._by_fileno: dict[int, LeanAgent] = {}
        self._next: deque[tuple[float, LeanAgent]] = deque()
        self.agents: list[LeanAgent] = []
        self.beats = 0
        with tempfile.TemporaryDirectory() as made:
            for n in range(count):
                agent = LeanAgent(n, port, authority, Path(made) / "identity.pem")
                self.agents.append(agent)
                self._by_fileno[agent.fileno()] = agent
                self._next.append((time.monotonic() + 1.0, agent))
                self._poll.register(agent.fileno(), select.EPOLLIN)
                self.read(0)
                self.beat()
        self._spread(time.monotonic())

    def _spread(self, now: float) -> None:
        """From here on evenly over the second, whenever they had attached."""
        agents = [agent for _, agent in self._next]
        self._next = deque((now + n / len(agents), agent) for n, agent in enumerate(agents))

    def beat(self) -> None:
        """Whoever is due, a few at a time."""
        now = time.monotonic()
        for _ in range(50):
            due, agent = self._next[0]
            if due > now:
                return
            self._next.popleft()
            self._next.append((due + 1.0, agent))
            if agent.open:
                agent.beat(self._separately)
                self.beats += 1

    def read(self, timeout_s: float) -> bool:
        """Take what has come; whether the benchmark has said to stop."""
        for fileno, _ in self._poll.poll(timeout_s, 1000):
            if fileno == sys.stdin.fileno():
                return True
            agent = self._by_fileno[fileno]
            agent.take()
            if not agent.open:
                self._poll.unregister(fileno)
        return False

    def run(self) -> None:
        """Until a line comes on standard input."""
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            self.beat()
            if self.read(0.0 if self._next[0][0] <= time.monotonic() else 0.002):
                return

    def told(self) -> dict[str, float]:
        return {
            "beats": self.beats,
            "leases": sum(a.leases for a in self.agents),
            "late": sum(a.late for a in self.agents),
            "lost": sum(not a.open for a in self.agents),
            "cpu_s": time.process_time(),
        }

    @staticmethod
    def leave() -> None:
        """At once: the kernel closes thousands of sockets quicker than we do."""
        sys.stdout.flush()
        os._exit(0)
