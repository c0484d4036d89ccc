"""What the runtime holds of one replica, and what it says of its end."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from hyperion.adapters.runtime import ledger, tree
from hyperion.control.messages import ReplicaExited, ReplicaStarted
from hyperion.model.ids import AllocationId

_LOOK_AGAIN_S = 0.02
_STARTING_S = (0.05, 0.2, 1.0)
"""When it is looked again for what was just about to start as it was told to end."""


class Replica:
    """One replica on this machine, from the order to its being dropped."""

    __slots__ = (
        "changed",
        "directory",
        "exited",
        "is_adopted",
        "is_child",
        "kill_at",
        "moving",
        "name",
        "out_of_memory",
        "over",
        "pid",
        "pidfd",
        "quiet",
        "rebooted",
        "signal",
        "started_at_ms",
        "stuck",
        "told",
    )

    def __init__(self, name: str, directory: str, *, quiet: bool = False, signal: str = "") -> None:
        self.name = name
        self.directory = directory
        self.quiet = quiet
        """Nobody is told of it."""
        self.pid = 0
        """Of its shim; 0 before that is known."""
        self.pidfd = -1
        self.is_child = False
        self.is_adopted = False
        self.started_at_ms = 0
        self.signal = signal
        """What it hears first, as its job's spec has it; empty: SIGTERM."""
        self.told: dict[int, str] = {}
        """Processes of it that have heard that, and which program each was then."""
        self.kill_at: float | None = None
        """On the loop's clock, once somebody wants it ended."""
        self.moving = asyncio.Lock()
        """To disk or back: one after the other."""
        self.out_of_memory = False
        self.rebooted = False
        self.stuck: tuple[int, ...] = ()
        """Processes that would not die."""
        self.exited: ReplicaExited | None = None
        self.over = asyncio.Event()
        self.changed = asyncio.Event()
        """It is over, or its grace has been shortened."""

    def started(self) -> ReplicaStarted:
        return ReplicaStarted(
            allocation=AllocationId(self.name), pid=self.pid, started_at_ms=self.started_at_ms
        )

    async def begin_end(self, members: Callable[[], Awaitable[list[int]]]) -> None:
        """Its first signal. The shim hears SIGTERM, and starts nothing after that; what it was just
        about to start hears of it a moment later."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        for wait_s in (0.0, *_STARTING_S):
            left_s = (self.kill_at or 0.0) - loop.time()
            if left_s <= 0 or await self.is_over_within(min(wait_s, left_s)):
                return
            if self.told:
                tree.ask_again(self.signal, self.told)
            else:
                self.ask_to_end(await members())

    def ask_to_end(self, members: list[int]) -> None:
        """Its first signal, to those of its processes that have not heard it yet."""
        tree.ask_to_end(members, self.pid, self.signal, self.told)

    async def outlast(self, members: Callable[[], Awaitable[list[int]]]) -> None:
        """Its shim has ended, and its grace has not: wait for what else it has started. Those whose
        parents have gone hear the signal, too."""
        loop = asyncio.get_running_loop()
        while self.kill_at is not None and loop.time() < self.kill_at:
            left = [pid for pid in await members() if pid != self.pid]
            if not left:
                return
            self.ask_to_end(left)
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def is_over_within(self, timeout_s: float) -> bool:
        """Wait until it is over or its grace has changed; whether it is over."""
        self.changed.clear()
        if self.over.is_set():
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        return self.over.is_set()


def ending(replica: Replica) -> ReplicaExited:
    """How a replica without processes ended, by what stands in its directory."""
    ended = ledger.read_exit(replica.directory)
    stop = ledger.read_stop(replica.directory)
    never_ran = False
    if ended is None:
        claim = ledger.read_claim(replica.directory)
        never_ran = claim is None or claim.is_fence
    return ReplicaExited(
        allocation=AllocationId(replica.name),
        exit_code=None if ended is None else ended.code,
        reason=_reason(replica, ended, stop, never_ran),
        never_ran=never_ran,
        by_itself=stop is None,
    )


def _reason(replica: Replica, ended: ledger.Exit | None, stop: str | None, never_ran: bool) -> str:
    if replica.stuck:
        pids = ", ".join(map(str, replica.stuck))
        return f"processes {pids} do not react to SIGKILL (they wait in the kernel)"
    if stop:
        return stop
    if ended is not None:
        return _exit_reason(ended, replica.out_of_memory)
    if replica.rebooted:
        return "the machine was restarted while it ran"
    if never_ran or stop is not None:
        return ""
    return "its processes vanished without an exit code; was its supervising shell killed?"


def _exit_reason(ended: ledger.Exit, out_of_memory: bool) -> str:
    if ended.code == 0:
        return ""
    phase = {"setup": "setup failed: ", "cwd": "its workdir could not be entered: "}
    said = phase.get(ended.phase, "")
    if ended.phase == "group":
        said = "its control group could not be joined: "
    if out_of_memory:
        return said + "out of memory: it exceeded its memory limit and the kernel killed it"
    if ended.code > 128:
        try:
            return f"{said}ended by {signal.Signals(ended.code - 128).name}"
        except ValueError:
            pass
    words = {127: " (command not found)", 126: " (command cannot be executed)"}
    return f"{said}exit code {ended.code}{words.get(ended.code, '')}"
