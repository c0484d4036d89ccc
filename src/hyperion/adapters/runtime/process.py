"""Runs replicas as plain processes of this machine: exactly once each, whatever dies in between.

How: a shim claims the replica's directory exclusively before it runs anything, and writes the exit
code there; both outlive the agent. The agent watches shims by pidfd, its own and adopted ones
alike, so it never needs to be the parent. What a replica leaves behind is found by its control
group, or by the marks in its environment where there are no groups.
"""

import asyncio
import hashlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperion.adapters.runtime import deadman, launch, ledger, logs, retention, tree, workdir
from hyperion.adapters.runtime.aside import SetsAside, drop
from hyperion.adapters.runtime.cgroup import Cgroups
from hyperion.adapters.runtime.gates import Gates
from hyperion.adapters.runtime.rendezvous import FreePorts
from hyperion.adapters.runtime.replica import Replica, ending
from hyperion.adapters.runtime.upkeep import Upkeep
from hyperion.control.messages import Prepare, ReplicaExited, ReplicaPrepared, ReplicaStarted, Run
from hyperion.model.ids import AllocationId
from hyperion.ports import Surround

Emit = Callable[[ReplicaPrepared | ReplicaStarted | ReplicaExited], None]

_STUCK_S = 30.0
"""After this long a process that SIGKILL does not end is reported instead of waited for."""
_CLAIM_S = 2.0
"""How long a shim may take between creating its claim and having written it."""
_KEEP = retention.Bounds()


class ProcessRuntime(SetsAside):
    """Satisfies ``ports.Runtime``. One per directory; a second one is refused by ``start``."""

    def __init__(
        self,
        directory: Path,
        surround: Surround,
        address: str,
        *,
        node: str = "",
        fetch: workdir.Fetch | None = None,
        log_limit_bytes: int = 64 << 20,
        log_files: int = 3,
        keep: retention.Bounds = _KEEP,
        use_cgroups: bool = True,
    ) -> None:
        """``address`` is where gangs find this node. A log keeps between ``log_files - 1`` and
        ``log_files`` times ``log_limit_bytes`` of its newest output."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self.id = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        """Marks every process that is ours."""
        self._surround = surround
        self._address = address
        self._node = node or socket.gethostname()
        self._fetch = fetch
        self._use_cgroups = use_cgroups
        self._live = str(self.directory / "replicas")
        self._ended = str(self.directory / "ended")
        self._boot = ledger.boot_id()
        self._inherit = launch.inherited()
        self._upkeep = Upkeep(self.directory, self.id, self._boot, log_limit_bytes, log_files, keep)
        self._ports = FreePorts()
        self._gates = Gates(address)
        self._census = tree.Census(self.id)
        self._replicas: dict[str, Replica] = {}
        self._prepared: dict[str, int] = {}
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = -1

    # -- the port -------------------------------------------------------------------------------

    async def start(self, emit: Emit) -> None:
        """Take the directory, find out what the host lets us do, start the dead-man's switch."""
        self._lock = await deadman.own(self.directory)
        for path in (self._live, self._ended):
            os.makedirs(path, mode=0o700, exist_ok=True)
        self._loop = asyncio.get_running_loop()
        self._emit = emit
        self._cgroups = Cgroups(f"hyperion-{self.id}", enabled=self._use_cgroups)
        deadman.sign(self.directory)
        self._upkeep.watch_lease()
        self._do(self._upkeep.run(lambda: tuple(self._running)))

    async def prepare(self, order: Prepare) -> None:
        name = str(order.allocation)
        if self._answered(name):
            return
        replica = Replica(name, self._place(name), signal=order.job.checkpoint.signal)
        if not ledger.is_name(name):
            self._refuse(replica, f"allocation {name!r} has a name that no directory can have")
        elif self._was_dropped(replica):
            return
        elif not self._make(replica) and (claim := ledger.read_claim(replica.directory)):
            self._replicas[name] = replica
            await self._take_over(replica, claim)
        else:
            await self._get_ready(replica, order)

    async def launch(self, order: Run) -> None:
        name = str(order.allocation)
        if self._answered(name):
            return
        replica = Replica(name, self._place(name), signal=order.job.checkpoint.signal)
        if not ledger.is_name(name):
            self._refuse(replica, f"allocation {name!r} has a name that no directory can have")
            return
        if self._was_dropped(replica):
            return
        self._replicas[name] = replica
        try:
            if not self._make(replica) and (claim := ledger.read_claim(replica.directory)):
                await self._take_over(replica, claim)
                return
            cwd = await self._work(replica, order)
            if replica.exited is None:  # else it was stopped while its bundle was fetched
                self._spawn(replica, order, cwd)
        except (workdir.Unusable, OSError, ValueError) as error:
            await self._never(replica, str(error))

    async def kill(self, allocation: AllocationId, grace_ms: int) -> None:
        """Begin to end it; a later call may shorten the grace. Returns before it has ended."""
        name = str(allocation)
        self._prepared.pop(name, None)
        replica = self._replicas.get(name)
        if replica is None:
            replica = Replica(name, self._place(name))
            if not ledger.is_name(name):
                self._refuse(replica, "it was never here")
            elif not self._was_dropped(replica):
                await self._end_unknown(replica, grace_ms)
        elif replica.exited is not None:
            self._emit(replica.exited)
        elif self._drop_aside(replica):
            self._do(self._clear(replica))
        elif replica.pid == 0 and ledger.fence(replica.directory, self._boot):
            ledger.write_stop(replica.directory, "stopped before it started")
            self._finish(replica)
        else:
            self._begin_stop(replica, grace_ms)

    async def drop(self, allocation: AllocationId) -> None:
        name = str(allocation)
        self._prepared.pop(name, None)
        if (replica := self._replicas.get(name)) is not None and replica.exited is None:
            return  # it lives: nobody can have been told of its end
        self._replicas.pop(name, None)
        if ledger.is_name(name):
            self._upkeep.put_away(self._place(name), f"{self._ended}/{name}")

    async def members(self, allocation: AllocationId) -> tuple[list[str], list[int]] | None:
        if (replica := await self._settled(allocation)) is None:
            return None
        group = self._cgroups.group(replica.name)
        return ([group], []) if group else ([], sorted(await self._census.of(replica.name)))

    def gate(self, allocation: AllocationId, port: int) -> int:
        replica = self._replicas.get(str(allocation))
        return -1 if replica is None else self._gates.of(replica.name, replica.pidfd, port)

    async def sweep(self, known: Iterable[AllocationId]) -> list[AllocationId]:
        """Also puts away what is left of replicas that have ended and are not known."""
        wanted = {str(x) for x in known} | self._replicas.keys()
        marked = await self._census.all()
        found = {*os.listdir(self._live), *self._cgroups.replicas(), *marked} - wanted - {""}
        alive = {x for x in found if marked.get(x) or self._cgroups.members(x)}
        strangers = [Replica(name, self._place(name), quiet=True) for name in sorted(found)]
        for replica in strangers:
            self._replicas[replica.name] = replica
            if ledger.is_there(replica.directory):
                await self._end_unknown(replica, 0, "not known to this node's agent")
            else:
                replica.is_adopted = True
                self._do(self._clear(replica))
        for replica in strangers:
            await replica.over.wait()
            await self.drop(AllocationId(replica.name))
        return [AllocationId(name) for name in sorted(alive)]

    def logs(
        self, allocation: AllocationId, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[bytes]:
        name = str(allocation)
        if not ledger.is_name(name):
            raise FileNotFoundError(f"no output of {name!r} on node {self._node}")

        def has_ended() -> bool:
            replica = self._replicas.get(name)
            return name not in self._prepared if replica is None else replica.over.is_set()

        places = (f"{self._live}/{name}/log", f"{self._ended}/{name}/log")
        return logs.read(lambda: logs.first(places), has_ended, follow, tail_lines)

    def keep_lease(self, remaining_ms: int) -> None:
        deadman.keep_lease(self.directory, self._boot, remaining_ms)

    def recover_lease(self) -> int | None:
        return deadman.recover_lease(self.directory, self._boot)

    def abilities(self) -> Mapping[str, str]:
        return self._with_criu(self._cgroups.abilities())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._census.close()
        for replica in self._replicas.values():
            self._unwatch(replica)
        self._cgroups.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- starting -------------------------------------------------------------------------------

    def _answered(self, name: str) -> bool:
        """Say again where a replica stands that we hold; False when we do not."""
        replica = self._replicas.get(name)
        if replica is None:
            return False
        if replica.exited is not None:
            self._emit(replica.exited)
        elif replica.pid:
            self._emit(replica.started())
        return True

    def _make(self, replica: Replica) -> bool:
        """Make the replica's directory; whether it is new."""
        try:
            os.mkdir(replica.directory, 0o700)
        except FileExistsError:
            return False
        return True

    async def _get_ready(self, replica: Replica, order: Prepare) -> None:
        try:
            await self._work(replica, order)
            port = self._prepared.get(replica.name) or self._ports.take()
        except (workdir.Unusable, OSError) as error:
            self._replicas[replica.name] = replica
            await self._never(replica, str(error))
            return
        if replica.name not in self._replicas:  # else it was stopped meanwhile
            self._prepared[replica.name] = port
            self._emit(ReplicaPrepared(order.allocation, self._address, port))

    async def _work(self, replica: Replica, order: Prepare | Run) -> str:
        own = Path(replica.directory, "work")
        return await workdir.ready(order.job, own, self._fetch, self._node)

    def _spawn(self, replica: Replica, order: Run, cwd: str) -> None:
        port = next((p.port for p in order.peers if p.rank == order.rank), 0)
        port = port or self._prepared.pop(replica.name, 0) or self._ports.take()
        surroundings = self._surround(order, replica.directory, port)
        launch.write_files(replica.directory, surroundings.files)
        standby, request = order.job.standby, order.request
        groups = self._cgroups.create(
            replica.name, request.cpus_milli, request.memory_mib, standby=standby is not None
        )
        variables = launch.environment(self._inherit, order, surroundings.variables, self.id)
        gate = self._gates.open(replica.name, standby.port if standby is not None else 0)
        replica.pid = launch.spawn(
            replica.directory, self._boot, cwd, groups, order, variables, gate
        )
        replica.is_child = True
        replica.started_at_ms = time.time_ns() // 1_000_000
        self._prepared.pop(replica.name, None)
        self._watch(replica, os.pidfd_open(replica.pid))

    def _watch(self, replica: Replica, pidfd: int) -> None:
        replica.pidfd = pidfd
        self._running.add(replica.name)
        self._loop.add_reader(pidfd, self._on_end, replica)
        self._say(replica, replica.started())

    def _unwatch(self, replica: Replica) -> None:
        if replica.pidfd >= 0:
            self._loop.remove_reader(replica.pidfd)
            os.close(replica.pidfd)
            replica.pidfd = -1

    # -- taking over what an earlier agent or another shim began ----------------------------------

    async def _take_over(self, replica: Replica, claim: ledger.Claim) -> None:
        """Adopt the replica if it lives, else see how it ended."""
        if claim.pid is None:
            claim = await self._await_claim(replica)
        if self._lies_aside(replica, claim):
            return
        pid, pidfd = claim.pid or 0, None
        if pid and claim.boot == self._boot:
            pidfd = tree.watch(pid, replica.name)
        replica.is_child, replica.is_adopted = False, True
        if pidfd is not None:
            replica.pid = pid
            replica.started_at_ms = ledger.claimed_at_ms(replica.directory)
            self._watch(replica, pidfd)
            if replica.kill_at is not None:
                self._do(self._stop(replica))
        elif claim.is_fence or claim.boot != self._boot:
            replica.rebooted = not claim.is_fence
            self._finish(replica)
        else:
            self._do(self._clear(replica))

    async def _await_claim(self, replica: Replica) -> ledger.Claim:
        """A claim without content: its shim is about to write it, or has died doing so."""
        until = self._loop.time() + _CLAIM_S
        while True:
            alive = await self._census.of(replica.name)
            claim = ledger.read_claim(replica.directory) or ledger.Claim(None)
            if claim.pid is not None or not alive or self._loop.time() > until:
                return ledger.Claim(0 if claim.is_fence else claim.pid, claim.boot or self._boot)
            await asyncio.sleep(0.02)

    def _was_dropped(self, replica: Replica) -> bool:
        """If it was dropped before, say again how it ended."""
        ended = f"{self._ended}/{replica.name}"
        if not ledger.is_there(ended):
            return False
        replica.directory = ended
        self._emit(ending(replica))
        return True

    # -- ending ---------------------------------------------------------------------------------

    async def _end_unknown(self, replica: Replica, grace_ms: int, reason: str = "") -> None:
        """End, or fence, what is known by its directory only."""
        self._replicas[replica.name] = replica
        self._make(replica)
        if ledger.fence(replica.directory, self._boot):
            ledger.write_stop(replica.directory, reason or "stopped before it started")
        elif ledger.read_exit(replica.directory) is None:
            ledger.write_stop(replica.directory, reason)
            replica.kill_at = self._loop.time() + grace_ms / 1000
        await self._take_over(replica, ledger.read_claim(replica.directory) or ledger.Claim(None))

    def _begin_stop(self, replica: Replica, grace_ms: int) -> None:
        at = self._loop.time() + grace_ms / 1000
        if replica.kill_at is not None:
            replica.kill_at = min(replica.kill_at, at)
            replica.changed.set()
            return
        if ledger.read_exit(replica.directory) is None:
            ledger.write_stop(replica.directory, "")
        replica.kill_at = at
        if replica.pid:
            self._do(self._stop(replica))

    async def _stop(self, replica: Replica) -> None:
        """The signal, grace, then SIGKILL until it is gone or has proven stuck."""
        if replica.kill_at is not None and replica.kill_at > self._loop.time():
            await replica.begin_end(lambda: self._members(replica))
        while replica.kill_at is not None and self._loop.time() < replica.kill_at:
            if await replica.is_over_within(replica.kill_at - self._loop.time()):
                return
        until, pause = self._loop.time() + _STUCK_S, 0.05
        while not replica.over.is_set():
            if replica.pidfd >= 0:
                self._cgroups.kill(replica.name)
                tree.signal_group(replica.pid, signal.SIGKILL)
            if self._loop.time() > until:
                self._give_up(replica, [replica.pid])
            elif await replica.is_over_within(pause):
                return
            pause = min(1.0, 2 * pause)

    def _on_end(self, replica: Replica) -> None:
        """The shim is gone."""
        self._unwatch(replica)
        if replica.kill_at is None or replica.kill_at <= self._loop.time():
            self._clear_away(replica)
        else:
            self._do(self._outlast(replica))

    async def _outlast(self, replica: Replica) -> None:
        """A shell ends at once when it is told to; what it had started has the grace as well."""
        await replica.outlast(lambda: self._members(replica))
        self._clear_away(replica)

    async def _members(self, replica: Replica) -> list[int]:
        if self._cgroups.holds and not replica.is_adopted:
            return self._cgroups.members(replica.name)
        return await self._census.of(replica.name)

    def _clear_away(self, replica: Replica) -> None:
        """What the shim has left ends, and it is said once nothing is left."""
        status = self._reap(replica) if replica.is_child else 0
        if status != 0:
            claim = ledger.read_claim(replica.directory)
            if claim is None or claim.pid != replica.pid:
                self._do(self._lose(replica, claim))
                return
        self._note_memory(replica)
        if replica.is_child and self._cgroups.holds and self._cgroups.remove(replica.name):
            self._finish(replica)
        else:
            self._do(self._clear(replica))

    def _reap(self, replica: Replica) -> int:
        # Until it is reaped nobody else can have its number, so the group is surely ours.
        tree.signal_group(replica.pid, signal.SIGKILL)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(replica.pid, os.WNOHANG)[1])
        except ChildProcessError:
            return -1

    async def _lose(self, replica: Replica, claim: ledger.Claim | None) -> None:
        """Our shim has no claim: another one has it, it is fenced, or could not be made."""
        replica.pid = 0
        if claim is None:
            await self._never(replica, "its launcher could not claim its directory; see its log")
        else:
            await self._take_over(replica, claim)

    async def _never(self, replica: Replica, reason: str) -> None:
        """It shall not run. ``OSError`` when even that cannot be written down."""
        if replica.exited is not None:
            return
        try:
            fenced = ledger.fence(replica.directory, self._boot)
        except OSError:
            self._replicas.pop(replica.name, None)
            raise
        if fenced:
            ledger.write_stop(replica.directory, reason)
            self._cgroups.remove(replica.name)
        claim = ledger.read_claim(replica.directory) or ledger.Claim(None)
        await self._take_over(replica, claim)

    async def _clear(self, replica: Replica) -> None:
        """Kill what the replica has left running, until nothing is left or it has proven stuck."""
        self._note_memory(replica)
        until, pause = self._loop.time() + _STUCK_S, 0.001
        while left := await self._kill_rest(replica):
            if self._loop.time() > until:
                self._give_up(replica, left)
                return
            await asyncio.sleep(pause)
            pause = min(0.25, 2 * pause)
        self._finish(replica)

    async def _kill_rest(self, replica: Replica) -> list[int]:
        if not self._cgroups.remove(replica.name):
            self._cgroups.kill(replica.name)
            if not self._cgroups.remove(replica.name):
                return self._cgroups.members(replica.name) or [0]
        if self._cgroups.holds and not replica.is_adopted:
            return []
        left = await self._census.of(replica.name)
        tree.signal_all(left, signal.SIGKILL)
        return left

    def _note_memory(self, replica: Replica) -> None:
        ended = ledger.read_exit(replica.directory)
        if ended is not None and ended.code == 128 + signal.SIGKILL:
            replica.out_of_memory |= self._cgroups.ran_out_of_memory(replica.name)

    def _give_up(self, replica: Replica, left: list[int]) -> None:
        replica.stuck = tuple(pid for pid in left if pid)
        self._finish(replica)

    def _finish(self, replica: Replica) -> None:
        if replica.exited is not None:
            return
        self._unwatch(replica)
        replica.exited = ending(replica)
        self._running.discard(replica.name)
        self._gates.close(replica.name)
        drop(replica.directory)
        replica.over.set()
        replica.changed.set()
        self._say(replica, replica.exited)

    def _refuse(self, replica: Replica, reason: str) -> None:
        id = AllocationId(replica.name)
        self._emit(ReplicaExited(allocation=id, never_ran=True, reason=reason))

    def _say(self, replica: Replica, event: ReplicaStarted | ReplicaExited) -> None:
        if not replica.quiet:
            self._emit(event)

    # -- housekeeping ---------------------------------------------------------------------------

    def _place(self, name: str) -> str:
        return f"{self._live}/{name}"

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(task := self._loop.create_task(work))
        task.add_done_callback(self._tasks.discard)
