"""Which replicas of this node stand still: orders of the agent's machine, carried out."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from hyperion.control import messages as m
from hyperion.daemon.running import Tasks
from hyperion.model.allocation import Freeze
from hyperion.model.ids import AllocationId
from hyperion.ports import Paused, Pauser, Runtime, Woken

_log = logging.getLogger("hyperion.agent")
STRAGGLERS_TOLD = 8
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


class Standing:
    def __init__(
        self,
        pauser: Pauser,
        runtime: Runtime,
        emit: Callable[[m.ReplicaPaused | m.ReplicaResumed], None],
        tasks: Tasks,
    ) -> None:
        self._pauser = pauser
        self._runtime = runtime
        self._emit = emit
        self._tasks = tasks
        self._held: dict[AllocationId, asyncio.TimerHandle] = {}
        """What stands still, and who looks when its hold has ended."""
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

    async def pause(self, id: AllocationId, hold_ms: int) -> None:
        """Ends in ReplicaPaused, or in ReplicaResumed with the reason."""
        try:
            members = await self._runtime.members(id)
            if members is None or not self._works:
                raise OSError("it does not run" if self._works else "this node cannot pause")
            if members[1] or id not in self._held:  # pids change; a group is what it was
                await self._pauser.arm(id, *members)
            paused = await self._pauser.freeze(id, hold_ms)
        except OSError as error:
            self._emit(m.ReplicaResumed(id, f"it could not be paused: {error}"))
            return
        if not paused.confirmed_ns:
            _log.warning("%s is slow to stand still: %s", id, "; ".join(paused.stragglers))
        self.watch(id, hold_ms)
        self._emit(m.ReplicaPaused(id, freeze(paused, paused.called_ns)))

    async def resume(self, id: AllocationId) -> None:
        self._unwatch(id)
        await self._thaw(id)
        self._emit(m.ReplicaResumed(id))

    async def inspect(self, id: AllocationId) -> None:
        """After a restart of the agent, or the end of a hold: what is true?"""
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
            self._emit(m.ReplicaResumed(id, "its hold has ended"))

    async def let_go(self, id: AllocationId) -> None:
        """It is to be stopped, and must hear of it: what stands still hears nothing."""
        if id in self._held:
            self._unwatch(id)
            await self._thaw(id)

    def ended(self, id: AllocationId) -> None:
        self._unwatch(id)
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
