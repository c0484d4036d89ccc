"""The standbys of this node: when each is wanted, and when it is quiet again.

Wanted is a standby to whose gate somebody connects (the fast path sees that), one that an order
names, and one that computes though nobody told of it: a client may have been connected all along.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from hyperion.adapters.telemetry.busy import Busy
from hyperion.control import messages as m
from hyperion.daemon.running import Tasks
from hyperion.daemon.standing import freeze
from hyperion.model.ids import AllocationId
from hyperion.model.job import Standby
from hyperion.ports import Pauser, Runtime, Woken

_log = logging.getLogger("hyperion.agent")
LOOK_S = 0.02
QUIET = 0.05
"""Of one CPU: who takes less does next to nothing."""
READY_S = 2.0
"""Nothing tells when a program has loaded what it needs: once it has been quiet for so long, at the
most. If it was not ready then it wakes by its own load."""
BUSY = 0.15
"""Of one CPU, for two looks on end: who takes more while it waits to be wanted is at work. A busy
machine may not give it much more."""
ARM_AGAIN_S = (0.5, 2.0, 10.0, 30.0)
"""When it is tried anew to have the fast path know a standby; it may just be starting again."""


class Post:
    """One standby at its post."""

    def __init__(self, standby: Standby) -> None:
        self.standby = standby
        self.guard: m.Guard | None = None
        self.is_warm = False
        self.active_from = time.monotonic()
        self.quiet_s = min(standby.quiet_s, READY_S)
        self.hot = 0


class Standbys:
    def __init__(
        self,
        pauser: Pauser,
        runtime: Runtime,
        emit: Callable[[m.ReplicaWarm | m.ReplicaActivated], None],
        stands: Callable[[AllocationId, int], None],
        tasks: Tasks,
    ) -> None:
        """``stands`` is told who stands still now, and for how many ms at most."""
        self._pauser = pauser
        self._runtime = runtime
        self._emit = emit
        self._stands = stands
        self._tasks = tasks
        self._posts: dict[AllocationId, Post] = {}
        self._runs: set[AllocationId] = set()

    def ordered(self, order: m.Run) -> None:
        """A replica is to run; it may do so already."""
        if order.job.standby is not None and order.allocation not in self._posts:
            self._posts[order.allocation] = Post(order.job.standby)

    def begun(self, id: AllocationId) -> None:
        if id in self._posts and id not in self._runs:
            self._runs.add(id)
            self._tasks.begin(self._attend(id), f"watching standby {id}")

    def ended(self, id: AllocationId) -> None:
        self._posts.pop(id, None)
        self._runs.discard(id)

    async def guard(self, order: m.Guard) -> None:
        post = self._posts.get(order.allocation)
        if post is not None:
            post.guard = order
            if order.allocation in self._runs:
                await self._tell(order.allocation, post)

    async def activate(self, id: AllocationId) -> Woken:
        """It is wanted. ``LookupError`` when it is none of this node's."""
        post = self._posts.get(id)
        if post is None or id not in self._runs:
            raise LookupError(f"{id} is no standby that runs on this node")
        woken = await self._pauser.activate(id)
        self.woken(id, woken)
        return woken

    async def release(self, id: AllocationId) -> None:
        """It is wanted no more. ``LookupError`` as for ``activate``."""
        post = self._posts.get(id)
        if post is None or id not in self._runs:
            raise LookupError(f"{id} is no standby that runs on this node")
        await self._rest(id, post)

    def woken(self, name: str, woken: Woken) -> None:
        """It has been activated, by whomever: tell of it."""
        id = AllocationId(name)
        post = self._posts.get(id)
        if post is None:
            return
        was_warm, post.is_warm = post.is_warm, False
        post.quiet_s = post.standby.quiet_s
        post.active_from, post.hot = time.monotonic(), 0
        victims = post.guard.victims if post.guard is not None else ()
        for victim in victims:
            if victim.allocation in woken.frozen:
                self._stands(victim.allocation, victim.hold_ms)
        if was_warm or woken.frozen:
            frozen = tuple(map(AllocationId, woken.frozen))
            took = freeze(woken.paused, woken.asked_ns) if frozen else None
            self._emit(m.ReplicaActivated(id, frozen, took))
        if woken.paused.stragglers:
            _log.warning("%s: slow to stand still: %s", id, "; ".join(woken.paused.stragglers))

    # -- one standby ----------------------------------------------------------------------------

    async def _attend(self, id: AllocationId) -> None:
        members = await self._armed(id)
        if members is None or id not in self._posts:
            return
        post = self._posts[id]
        gate = self._runtime.gate(id, post.standby.port) if post.standby.port else -1
        await self._tell(id, post, gate)
        busy = Busy(*members)
        try:
            await self._look(id, busy)
        finally:
            busy.close()

    async def _armed(self, id: AllocationId) -> tuple[list[str], list[int]] | None:
        """Its processes, once the fast path knows them; None where that cannot be had."""
        for wait_s in (*ARM_AGAIN_S, 0.0):
            members = await self._runtime.members(id)
            if members is None:
                return None
            try:
                await self._pauser.arm(id, *members)
                return members
            except OSError as error:
                fault = error
            await asyncio.sleep(wait_s)
        _log.error("%s cannot be watched, and runs like any other job: %s", id, fault)
        return None

    async def _tell(self, id: AllocationId, post: Post, gate: int = -1) -> None:
        victims = post.guard.victims if post.guard is not None else ()
        pairs = [(victim.allocation, victim.hold_ms) for victim in victims]
        try:
            await self._pauser.guard(id, pairs, gate)
        except OSError as error:
            _log.warning("nobody stands still for %s: %s", id, error)

    async def _look(self, id: AllocationId, busy: Busy) -> None:
        before_us, before = busy.read_us(), time.monotonic()
        spent_us, since = before_us, before
        """Where the stretch of time began that is looked at for quiet."""
        while (post := self._posts.get(id)) is not None:
            await asyncio.sleep(LOOK_S)
            now_us, now = busy.read_us(), time.monotonic()
            part = (now_us - before_us) / 1e6 / max(now - before, 1e-3)
            before_us, before = now_us, now
            if post.is_warm:
                post.hot = post.hot + 1 if part > BUSY else 0
                if post.hot >= 2:
                    await self.activate(id)
                spent_us, since = now_us, now
                continue
            since = max(since, post.active_from)
            if (now_us - spent_us) / 1e6 > QUIET * max(now - since, post.quiet_s):
                spent_us, since = now_us, now
            elif now - since >= post.quiet_s:
                await self._rest(id, post)
                spent_us, since = now_us, now

    async def _rest(self, id: AllocationId, post: Post) -> None:
        post.is_warm = True  # first, for it may be wanted again before the answer has been read
        try:
            await self._pauser.rest(id)
        except OSError as error:
            _log.warning("%s cannot lend its CPUs: %s", id, error)
            post.is_warm = False
        if post.is_warm:
            self._emit(m.ReplicaWarm(id))
