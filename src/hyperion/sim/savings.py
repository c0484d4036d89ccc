"""Checkpoints of a seeded world: each replica writes its own, now and then, as it goes.

As on a real machine: what a replica has written its agent hears of in its own time, and where no
agent lives, when the next one has come, or never, if the replica ends before that.
"""

import random
from typing import TYPE_CHECKING

from hyperion.control import messages as m
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import SavedCheckpoint
from hyperion.sim.fleet import Host

if TYPE_CHECKING:
    from hyperion.sim.world import World

EVERY_MS = 400
"""All ranks of a gang come to the end of a step at once; each saves it, or not."""
TOLD_WITHIN_MS = 1000


class Savings:
    def __init__(self, world: "World", seed: int, *, calm: bool) -> None:
        self._world = world
        self._dice = random.Random(seed + 2)
        self._calm = calm
        self._next_ms = 0
        self._wrote: dict[tuple[JobId, int], set[int]] = {}
        """A job and a step of it: the ranks that have written it."""
        self._untold: dict[AllocationId, list[SavedCheckpoint]] = {}
        self._told: dict[JobId, list[tuple[int, int]]] = {}
        """Of jobs with one replica: when its agent heard of which step."""

    def turn(self) -> None:
        """Look at each replica; a world does so every 50 ms."""
        world = self._world
        writes = world.now_ms >= self._next_ms
        if writes:
            self._next_ms = world.now_ms + EVERY_MS
        for host in world.hosts.values():
            for id, execution in host.running.items():
                job = world.asked[execution.job].job
                if job.array is not None or job.standby is not None:
                    continue
                if writes and execution.still_since_ms is None and self._dice.random() < 0.7:
                    self._write(execution.job, execution.rank, id)
                self._tell(host.name, id)

    def stands(self, host: Host, id: AllocationId) -> None:
        """It stands at the end of its step, and has saved it; its agent reads of that at once."""
        execution = host.running[id]
        self._write(execution.job, execution.rank, id)
        if self._world.processes[host.name].alive:
            self._flush(host.name, id)

    def _write(self, job: JobId, rank: int, id: AllocationId) -> None:
        step = self._world.now_ms // EVERY_MS
        self._wrote.setdefault((job, step), set()).add(rank)
        saved = SavedCheckpoint(step, f"/ck/{job}/{step}", at_ms=self._world.now_ms, size_bytes=1)
        self._untold.setdefault(id, []).append(saved)

    def _tell(self, host: str, id: AllocationId) -> None:
        agent = self._world.processes[host]
        if agent.alive and id in self._untold and self._dice.random() < 0.3:
            self._flush(host, id)

    def _flush(self, host: str, id: AllocationId) -> None:
        for saved in self._untold.pop(id):
            self._world.deliver(self._world.processes[host], m.CheckpointWritten(id, saved))
            job = self._world.hosts[host].running[id].job
            if self._world.asked[job].job.replicas == 1:
                self._told.setdefault(job, []).append((self._world.now_ms, saved.step))

    def starts(self, order: m.Run) -> None:
        """The laws: a replica goes on from a step that all of its gang have written; and where
        nothing fails, from none that is older than what its agent had heard of a while before."""
        job, step = order.job, -1
        if order.resume_from:
            step = int(order.resume_from.rpartition("/")[2])
            ranks = self._wrote.get((job.id, step), set())
            assert len(ranks) >= job.least_replicas, (
                f"{job.id} goes on from step {step}, which only {sorted(ranks)} have written"
            )
        before_ms = self._world.now_ms - TOLD_WITHIN_MS
        heard = [told for at_ms, told in self._told.get(job.id, ()) if at_ms <= before_ms]
        assert not self._calm or step >= max(heard, default=-1), f"{job.id} falls back to {step}"
