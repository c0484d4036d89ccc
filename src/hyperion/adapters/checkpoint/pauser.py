"""The agent's side of the fast path: starts it, keeps it alive, and orders."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperion.ports import Paused, Woken

_PROGRAM = Path(__file__).with_name("fastpath.py")
_START_S = 5.0
_ANSWER_S = 2.0
_RESTARTS_BACKOFF_S = (0.1, 0.5, 2.0, 10.0)
_MAX_PACKET = 16 << 10


class FastPathPauser:
    """Satisfies ``ports.Pauser``. One per directory; calls from one event loop."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.rights: dict[str, Any] = {}
        self._armed: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        self._guards: dict[str, tuple[tuple[tuple[str, int], ...], int]] = {}
        """Of standbys: who stands still for each, and the gate's descriptor, or -1."""
        self._woken: Callable[[str, Woken], None] = _ignore
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        """By their numbers: orders that are not yet answered."""
        self._back: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._pid = 0
        self._one = asyncio.Lock()
        self._failures = 0
        self._sequence = 0

    # -- the port -------------------------------------------------------------------------------

    async def start(self, woken: Callable[[str, Woken], None]) -> None:
        """Start the fast path, or take over one that still runs. OSError when it cannot be."""
        self._woken = woken
        async with self._one:
            await self._connect()

    def abilities(self) -> Mapping[str, str]:
        """How replicas are stopped here, in words; empty where they cannot be."""
        if self._socket is None:
            return {}
        real = "real-time" if self.rights.get("realtime") else "not real-time"
        return {"pause": real}

    async def arm(self, name: str, groups: Sequence[str], pids: Sequence[int]) -> None:
        self._armed[name] = (tuple(groups), tuple(pids))
        await self._ask(do="arm", set=name, groups=list(groups), pids=list(pids))

    async def disarm(self, name: str) -> None:
        self._guards.pop(name, None)
        if self._armed.pop(name, None) is not None:
            await self._ask(do="disarm", set=name)

    async def freeze(self, name: str, hold_ms: int) -> Paused:
        return _paused(await self._ask(do="freeze", set=name, hold_ms=hold_ms))

    async def thaw(self, name: str) -> None:
        await self._ask(do="thaw", set=name)

    async def is_still(self, name: str) -> bool:
        said = await self._ask(do="status", set=name)
        return bool(said["held"]) and bool(said["still"])

    async def guard(self, name: str, victims: Sequence[tuple[str, int]], gate: int = -1) -> None:
        pairs = tuple(victims)
        known = self._guards.get(name, ((), -1))[1]
        self._guards[name] = (pairs, gate if gate >= 0 else known)
        await self._ask(gate=gate, do="guard", set=name, victims=[list(pair) for pair in pairs])

    async def activate(self, name: str) -> Woken:
        return _woken(await self._ask(do="activate", set=name))

    async def rest(self, name: str) -> None:
        await self._ask(do="rest", set=name)

    async def close(self) -> None:
        """It ends too, unless something stands still: then it ends by itself afterwards."""
        if self._socket is not None:
            async with self._one:
                with contextlib.suppress(OSError, TimeoutError):
                    await self._exchange({"do": "leave"})
            self._drop()

    # -- the process ----------------------------------------------------------------------------

    async def _ask(self, gate: int = -1, **order: Any) -> dict[str, Any]:
        """Send one order and wait for its answer. OSError when it is refused or nobody answers."""
        async with self._one:
            for attempt in (1, 2):
                try:
                    if self._socket is None:
                        await self._connect()
                    return await self._exchange(order, gate)
                except (ConnectionError, TimeoutError, BrokenPipeError) as error:
                    self._drop()
                    if attempt == 2:
                        raise OSError(f"the fast path does not answer: {error}") from None
        raise AssertionError("unreachable")

    async def _exchange(self, order: dict[str, Any], gate: int = -1) -> dict[str, Any]:
        assert self._socket is not None, "connected"
        self._sequence += 1
        number = self._sequence
        packet = json.dumps({**order, "seq": number}).encode()
        if len(packet) > _MAX_PACKET:
            raise OSError(f"too many processes to name them all in one order ({len(packet)} bytes)")
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._send(packet, gate)
                said: dict[str, Any] = await answer
        finally:
            self._waiting.pop(number, None)
        if "error" in said:
            raise OSError(said["error"])
        return said

    async def _send(self, packet: bytes, gate: int) -> None:
        assert self._socket is not None, "connected"
        if gate < 0:
            await asyncio.get_running_loop().sock_sendall(self._socket, packet)
            return
        try:
            socket.send_fds(self._socket, [packet], [gate])
        except BlockingIOError:
            raise TimeoutError("its queue is full") from None

    def _read(self) -> None:
        """Take in all that it has said: answers, and who has been wanted."""
        while self._socket is not None:
            try:
                packet = self._socket.recv(_MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost()
                return
            said: dict[str, Any] = json.loads(packet)
            if "event" in said:
                self._woken(said["set"], _woken(said))
            elif (waiter := self._waiting.get(said.get("seq", 0))) and not waiter.done():
                waiter.set_result(said)  # else it answers an order that was given up

    def _lost(self) -> None:
        """It has died. Where somebody relies on its gates, another one is started at once."""
        self._drop()
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("it has ended"))
        if self._guards and (self._back is None or self._back.done()):
            self._back = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        with contextlib.suppress(OSError):
            await self._ask(do="status")

    async def _connect(self) -> None:
        path = str(self.directory / "socket")
        if not await self._dial(path):
            await self._launch()
            until = asyncio.get_running_loop().time() + _START_S
            while not await self._dial(path):
                if asyncio.get_running_loop().time() > until:
                    raise OSError(f"the fast path of {self.directory} has not started")
                await asyncio.sleep(0.02)
        self._failures = 0
        self.rights = (await self._exchange({"do": "status"}))["rights"]
        # Others arm and disarm meanwhile: each of them then waits for its turn to say so itself.
        for name, (groups, pids) in tuple(self._armed.items()):
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                await self._exchange(
                    {"do": "arm", "set": name, "groups": list(groups), "pids": list(pids)}
                )
        for name, (victims, gate) in tuple(self._guards.items()):
            with contextlib.suppress(OSError):
                pairs = [list(pair) for pair in victims]
                await self._exchange({"do": "guard", "set": name, "victims": pairs}, gate)

    async def _dial(self, path: str) -> bool:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, path)
        except OSError:
            made.close()
            return False
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._read)
        return True

    async def _launch(self) -> None:
        if self._failures:
            steps = _RESTARTS_BACKOFF_S
            await asyncio.sleep(steps[min(self._failures, len(steps)) - 1])
        self._failures += 1
        self._reap()
        self._pid = os.posix_spawn(  # noqa: ASYNC221 - takes no longer than any system call
            sys.executable,
            [sys.executable, "-I", "-S", str(_PROGRAM), str(self.directory)],
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
            setsigmask=(),
        )

    def _reap(self) -> None:
        """Of one that has died no zombie is to stay."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def kill(self) -> None:
        """SIGKILL to the one that we have started, for tests of what outlives it."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0


def _ignore(name: str, woken: Woken) -> None:
    """Nobody listens yet."""


def _paused(said: dict[str, Any]) -> Paused:
    return Paused(
        called_ns=said["called_ns"],
        stopped_ns=said["stopped_ns"],
        confirmed_ns=said["confirmed_ns"],
        how=said["how"],
        threads=said["threads"],
        stragglers=tuple(said["stragglers"]),
    )


def _woken(said: dict[str, Any]) -> Woken:
    return Woken(frozen=tuple(said["frozen"]), paused=_paused(said), asked_ns=said["received_ns"])
