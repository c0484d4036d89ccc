"""Which replicas of this node stand still: orders of the agent's machine, carried out."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.daemon.running import Tasks
from hyperion.daemon.workloads import Stood, Workloads
from hyperion.model.allocation import Freeze
from hyperion.model.ids import AllocationId
from hyperion.ports import Paused, Pauser, Runtime, Woken

_log = logging.getLogger("hyperion.agent")
STRAGGLERS_TOLD = 8
SETTLE_WITHIN_S = 30.0
"""A program that stands at the end of its step has so long to write it before it is frozen."""
_LOOK_AGAIN_S = 0.1
"""So long after the end of a hold it is looked whether the replica has gone on."""


def freeze(paused: Paused, asked_ns: int) -> Freeze:
    """In microseconds, from when it was asked for."""
    confirmed_ns = paused.confirmed_ns - asked_ns if paused.confirmed_ns else 0
    return Freeze(
        stopped_us=(paused.stopped_ns - asked_ns) // 1000,
        confirmed_us=confirmed_ns // 1000,
        threads=paused.threads,
        how=paused.how,
        stragglers=paused.stragglers[:STRAGGLERS_TOLD],
    )


def by_itself(stood: Stood, confirmed_ns: int = 0) -> Freeze:
    """Of a program that has come to a stand where it was asked to. ``confirmed_ns``: since then it
    is frozen, too; 0: that it says so has to do."""
    answer = stood.answer
    saved_ns = stood.settled_ns - stood.asked_ns if stood.is_saved else 0
    return Freeze(
        stopped_us=(answer.acknowledged_at_ns - stood.asked_ns) // 1000,
        confirmed_us=((confirmed_ns or answer.acknowledged_at_ns) - stood.asked_ns) // 1000,
        threads=1,
        how=stood.at,
        at=stood.at,
        step=answer.committed_step,
        saved_us=saved_ns // 1000,
        freed_bytes=answer.freed_bytes,
    )


class Standing:
    def __init__(
        self,
        pauser: Pauser,
        runtime: Runtime,
        workloads: Workloads,
        emit: Callable[[m.ReplicaPaused | m.ReplicaSettled | m.ReplicaResumed], None],
        tasks: Tasks,
    ) -> None:
        self._pauser = pauser
        self._runtime = runtime
        self._workloads = workloads
        self._emit = emit
        self._tasks = tasks
        self._held: dict[AllocationId, asyncio.TimerHandle] = {}
        """What stands still, and who looks when its hold has ended."""
        self._asked: dict[AllocationId, asyncio.Task[None]] = {}
        """Those that have been asked to come to a stand by themselves, or settle there."""
        self._works = False

    async def start(self, woken: Callable[[str, Woken], None]) -> None:
        """Without it replicas can be stopped, and not paused. ``woken``: see ``ports.Pauser``."""
        try:
            await self._pauser.start(woken)
            self._works = True
        except OSError as error:
            _log.warning("replicas cannot be paused on this node: %s", error)

    def abilities(self) -> Mapping[str, str]:
        return self._pauser.abilities() if self._works else {}

    def begun(self, id: AllocationId) -> None:
        """A replica runs: have all ready by the time that it has to stand still."""
        if self._works:
            self._tasks.begin(self._arm_early(id), f"arming {id}")

    async def _arm_early(self, id: AllocationId) -> None:
        """Most replicas never stand still, and short ones are over before they are armed."""
        try:
            await self._arm(id)
        except OSError as error:
            if await self._runtime.members(id) is not None:
                _log.warning("%s is armed only when it is to stand still: %s", id, error)

    async def _arm(self, id: AllocationId) -> None:
        members = await self._runtime.members(id)
        if members is not None:
            await self._pauser.arm(id, *members)

    async def pause(self, order: m.PauseReplica) -> None:
        """Ends in ReplicaPaused, or in ReplicaResumed with the reason. One that is taken back
        while it is still on its way to where it stands by itself ends in neither."""
        id, stood = order.allocation, None
        if order.on_disk:
            await self._set_aside(id)
            return
        if order.at and self._works:
            with self._asking(id):
                stood = await self._workloads.stand(id, order.at, order.asked_ms, order.hold_ms)
        if stood is not None and stood.settles:
            await self._settle(order, stood)
            return
        paused = await self._freeze(id, order.hold_ms)
        if paused is None:
            return
        took = freeze(paused, paused.called_ns)
        if stood is not None:
            took = by_itself(stood, confirmed_ns=paused.confirmed_ns)
        elif order.at:
            took = replace(took, how=f"{took.how}, not at its {order.at}")
        self._emit(m.ReplicaPaused(id, took))

    async def _settle(self, order: m.PauseReplica, stood: Stood) -> None:
        """It computes no more; it is frozen once it has written its step, or at the latest so much
        later. Processes of it that do not answer for its page run until then."""
        id = order.allocation
        self.watch(id, order.hold_ms)
        self._emit(m.ReplicaPaused(id, by_itself(stood)))
        with self._asking(id):
            stood = await self._workloads.settled(id, stood, SETTLE_WITHIN_S)
            if await self._freeze(id, order.hold_ms) is not None:
                self._emit(m.ReplicaSettled(id, by_itself(stood)))

    async def _set_aside(self, id: AllocationId) -> None:
        """It stands still, and may run for the moment that CRIU takes to get hold of it."""
        self._unwatch(id)
        self._take_back(id)
        begun_ns = time.monotonic_ns()
        try:
            await self._pauser.thaw(id)
            size = await self._runtime.set_aside(id)
        except OSError as error:
            self._emit(m.ReplicaResumed(id, f"it could not be set aside on disk: {error}"))
            return
        took_us = (time.monotonic_ns() - begun_ns) // 1000
        took = Freeze(
            stopped_us=took_us, confirmed_us=took_us, how="disk", at="disk", freed_bytes=size
        )
        self._emit(m.ReplicaPaused(id, took))

    @contextmanager
    def _asking(self, id: AllocationId) -> Iterator[None]:
        """Meanwhile ``resume`` and ``let_go`` may take it back."""
        task = asyncio.current_task()
        assert task is not None
        self._asked[id] = task
        try:
            yield
        finally:
            if self._asked.get(id) is task:
                del self._asked[id]

    def _take_back(self, id: AllocationId) -> None:
        task = self._asked.pop(id, None)
        if task is not None:
            task.cancel()
        self._workloads.go_on(id)

    async def _freeze(self, id: AllocationId, hold_ms: int) -> Paused | None:
        """Wherever it is; None: it could not be, and goes on."""
        try:
            members = await self._runtime.members(id)
            if members is None or not self._works:
                raise OSError("it does not run" if self._works else "this node cannot pause")
            if members[1] or id not in self._held:  # pids change; a group is what it was
                await self._pauser.arm(id, *members)
            paused = await self._pauser.freeze(id, hold_ms)
        except OSError as error:
            self._unwatch(id)
            self._workloads.go_on(id)
            self._emit(m.ReplicaResumed(id, f"it could not be paused: {error}"))
            return None
        if not paused.confirmed_ns:
            _log.warning("%s is slow to stand still: %s", id, "; ".join(paused.stragglers))
        self.watch(id, hold_ms)
        return paused

    async def resume(self, id: AllocationId) -> None:
        held = id in self._held
        self._unwatch(id)
        self._take_back(id)
        if self._runtime.is_aside(id):
            if held:  # its group, that is: nothing could come back into it
                await self._thaw(id)
            try:
                await self._runtime.bring_back(id)
            except OSError as error:  # its end is told by the runtime
                _log.warning("%s is lost, for it cannot be brought back from disk: %s", id, error)
                return
        else:
            await self._thaw(id)
        self._emit(m.ReplicaResumed(id))

    async def inspect(self, id: AllocationId) -> None:
        """After a restart of the agent, or the end of a hold: what is true?"""
        if self._runtime.is_aside(id):
            self._emit(m.ReplicaPaused(id))
            return
        still = False
        if self._works:
            try:
                await self._arm(id)
                still = await self._pauser.is_still(id)
            except OSError as error:
                _log.warning("cannot tell whether %s stands still: %s", id, error)
        if still:
            self.watch(id, 1000)
            self._emit(m.ReplicaPaused(id))
        else:
            self._unwatch(id)
            self._take_back(id)
            self._emit(m.ReplicaResumed(id, "its hold has ended"))

    async def let_go(self, id: AllocationId) -> None:
        """It is to be stopped, and must hear of it: what stands still hears nothing."""
        self._take_back(id)
        if id in self._held:
            self._unwatch(id)
            await self._thaw(id)

    def ended(self, id: AllocationId) -> None:
        self._unwatch(id)
        self._take_back(id)
        if self._works:
            self._tasks.begin(self._pauser.disarm(id), f"disarming {id}")

    async def close(self) -> None:
        for id in list(self._held):
            self._unwatch(id)
        await self._pauser.close()

    async def _thaw(self, id: AllocationId) -> None:
        try:
            await self._pauser.thaw(id)
        except OSError as error:
            _log.warning("%s goes on at the end of its hold only: %s", id, error)

    def watch(self, id: AllocationId, hold_ms: int) -> None:
        """It stands still: look for it when its hold has ended."""
        self._unwatch(id)
        loop = asyncio.get_running_loop()
        self._held[id] = loop.call_later(
            hold_ms / 1000 + _LOOK_AGAIN_S,
            lambda: self._tasks.begin(self.inspect(id), f"looking at {id}"),
        )

    def _unwatch(self, id: AllocationId) -> None:
        timer = self._held.pop(id, None)
        if timer is not None:
            timer.cancel()
