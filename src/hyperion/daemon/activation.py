"""Activates standbys: asks their nodes, which know whom to let stand still.

Neither a decision of the machine nor the disk is on the way. What has happened the nodes report,
and then it is kept.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from hyperion.adapters.link.errors import LinkError
from hyperion.control.cluster import ClusterMachine
from hyperion.daemon import questions as q
from hyperion.daemon.application import Conflict, NotFound
from hyperion.daemon.running import Tasks
from hyperion.model.allocation import Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId, JobId
from hyperion.wire.api import ActivationView

ANSWER_S = 3.0
"""How long an agent may take to say that it is done."""
HEDGE_S = 0.004
"""An agent that has not answered by then may be one of the few that take long."""
_PRESENT = (S.RUNNING, S.WARM)


class Agents(Protocol):
    def call(
        self, peer: str, method: str, body: bytes = b"", quiet_s: float | None = ...
    ) -> AsyncIterator[bytes]: ...


class Activation:
    def __init__(self, machine: ClusterMachine, agents: Agents) -> None:
        self._machine = machine
        self._agents = agents
        self._tasks = Tasks()

    async def answer(self, body: bytes) -> AsyncIterator[bytes]:
        """To the federation's question. NotFound and Conflict as there."""
        asked = msgspec.json.decode(body, type=q.ActivateJob)
        there = self._there(JobId(asked.job))
        if asked.any and not asked.release:
            done = [await self._first(there)]
        else:
            done = list(await asyncio.gather(*(self._one(a, asked.release) for a in there)))
        yield msgspec.json.encode(done)

    def _there(self, job: JobId) -> list[Allocation]:
        known = self._machine.state.jobs.get(job)
        if known is None:
            raise NotFound(f"no job {job} in cluster {self._machine.cluster.id}")
        if known.job.standby is None:
            raise Conflict(f"job {job} is no standby; give it the field standby: in its spec")
        there = [a for a in self._machine.state.live_of(job) if a.state in _PRESENT]
        if not there:
            raise Conflict(f"job {job} is {known.status.phase.value}: none of it runs yet")
        return there

    async def _first(self, there: list[Allocation]) -> ActivationView:
        """One of them: if a node does not answer at once the next one is asked too, and the first
        that has done it wins. Those that come later are wanted no more."""
        trials: dict[asyncio.Task[ActivationView], Allocation] = {}
        waits = sorted(there, key=lambda a: (a.state is not S.WARM, a.rank))
        while True:
            if waits:
                a = waits.pop(0)
                trials[asyncio.create_task(self._one(a, release=False))] = a
            open_trials = [trial for trial in trials if not trial.done()]
            if open_trials:
                within_s = HEDGE_S if waits else None  # each ends by itself
                await asyncio.wait(
                    open_trials, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
                )
            won = next((t for t in trials if t.done() and not t.result().error), None)
            if won is not None:
                for trial, a in trials.items():
                    if trial is not won:
                        self._tasks.begin(self._call_off(trial, a), f"calling off {a.id}")
                return won.result()
            if not waits and all(trial.done() for trial in trials):
                return next(iter(trials)).result()

    async def _call_off(self, trial: "asyncio.Task[ActivationView]", a: Allocation) -> None:
        if not (await trial).error:
            await self._one(a, release=True)

    async def _one(self, a: Allocation, release: bool) -> ActivationView:
        cluster, body = self._machine.cluster.id, msgspec.json.encode(q.Activate(a.id, release))
        try:
            pieces = [x async for x in self._agents.call(a.node, q.ACTIVATE, body, ANSWER_S)]
            done = msgspec.json.decode(b"".join(pieces), type=q.Activated)
        except LinkError as error:
            return ActivationView(cluster=cluster, node=a.node, rank=a.rank, error=str(error))
        took = done.took if done.frozen else None
        return ActivationView(
            cluster=cluster,
            node=a.node,
            rank=a.rank,
            stands_still=tuple(self._jobs(done.frozen)),
            stopped_ms=took.stopped_us / 1000 if took is not None else None,
            frozen_ms=took.confirmed_us / 1000 if took is not None and took.confirmed_us else None,
            how=took.how if took is not None else "",
        )

    def _jobs(self, frozen: tuple[str, ...]) -> list[str]:
        allocations = self._machine.state.allocations
        found = [allocations.get(AllocationId(id)) for id in frozen]
        return sorted({a.job for a in found if a is not None})
