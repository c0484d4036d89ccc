"""What happened in a simulated cluster, folded from the records that its machine decided.

Amounts held are counted here once more, apart from the machine's own columns: a node that would
hold more than it has raises ``AssertionError``.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.control import records as r
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import JobPhase
from hyperion.model.node import Node
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.model.resources import MILLI
from hyperion.sim.fragmentation import Shape, Stranded
from hyperion.sim.trace import TraceJob

SAMPLES_MAX = 400
"""Beyond it every second sample is dropped: the series stay readable and small."""
FIRST_SAMPLE_MS = 60_000


class Story(Struct):
    """What became of one job."""

    job: TraceJob
    submitted_ms: int
    started_ms: int | None = None
    """When all its replicas ran for the first time."""
    ended_ms: int | None = None
    phase: JobPhase = JobPhase.QUEUED
    attempts: int = 0
    restarts: int = 0
    """How often it had to wait again after it had been placed, for whatever reason."""
    preemptions: int = 0
    """How often it, or a task of it, was stopped to make room for others."""
    resizes: int = 0
    """How often it was made wider or narrower while it ran."""
    refused: str = ""
    """Why the scheduler did not take it."""
    lost_ms: float = 0.0
    """Work at full width that had to be done again."""
    pressure: float = 0.0
    """The integral of contention when it came; over its life, when it has ended."""

    @property
    def queue(self) -> str:
        return self.job.job.queue or DEFAULT_QUEUE


class Sample(Struct, frozen=True):
    """The state at one moment; the integrals count from the beginning."""

    at_ms: int
    waiting: int
    running: int
    waiting_gpus: float
    gpu_ms: float
    """Thousandths of GPUs held, times milliseconds."""
    cpu_ms: float
    usd: float
    preemptions: int
    stranded: float
    """GPUs that are free but of no use to the job that comes next, on average; see
    ``fragmentation``."""
    free_gpus: float
    stranded_ms: float
    """The integrals of the two, in GPUs times milliseconds."""
    free_ms: float


class Recorder:
    def __init__(self, nodes: Sequence[Node], shapes: Sequence[Shape], span_ms: int = 0) -> None:
        self.nodes = nodes
        self.shapes = shapes
        self.gpus_milli = MILLI * sum(n.capacity.gpus for n in nodes)
        self.cpus_milli = sum(n.capacity.cpus_milli for n in nodes)
        self.stories: dict[JobId, Story] = {}
        self.samples: list[Sample] = []
        self.arrivals: Sample | None = None
        """The state when the last job had just come."""
        self._span_ms = span_ms
        self.waiting = 0
        self.active = 0
        """Neither ended nor waiting."""
        self.ended = 0
        self.preemptions = 0
        self.placements = 0
        self.due: list[int] = []
        """When jobs that failed may be tried again; whoever reads it empties it."""
        self._waiting_gpus = 0
        self._wanted = 0
        """GPUs (CPUs where no job wants any) of all jobs that have not ended, at full width."""
        self._there = self.gpus_milli if shapes else self.cpus_milli
        self._held_gpus = self._held_cpus = 0
        self._held_usd_per_ms = 0.0
        self._gpu_ms = self._cpu_ms = self._usd = self._pressure = 0.0
        self._stranded_ms = self._free_ms = 0.0
        self._now_ms = self._sampled_ms = 0
        self._sample_ms = max(FIRST_SAMPLE_MS, span_ms // (SAMPLES_MAX // 2))
        self._next_sample_ms = 0
        self._known: set[JobId] = set()
        self._live: dict[AllocationId, Allocation] = {}
        self._row = {n.id: i for i, n in enumerate(nodes)}
        self._share_usd = [_usd_per_gpu_ms(n) for n in nodes]
        most = max((n.capacity.gpus for n in nodes), default=0)
        self.devices: NDArray[np.int32] = np.zeros((len(nodes), most), np.int32)
        """What is free of each device of each node, in thousandths."""
        for i, n in enumerate(nodes):
            self.devices[i, : n.capacity.gpus] = MILLI
        self._free = list(self.devices)
        """The same memory, row by row."""
        self._cpus: NDArray[np.int64] = np.array([n.capacity.cpus_milli for n in nodes], np.int64)
        self._memory: NDArray[np.int64] = np.array([n.capacity.memory_mib for n in nodes], np.int64)
        self._stranded = Stranded(nodes, self.devices, self._cpus, self._memory, shapes)
        self._touched: set[int] = set()
        """Rows that have changed since the last sample."""

    # -- the fold -------------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Time goes on; call it before anything that happens then."""
        if self.arrivals is None and now_ms >= self._span_ms:
            self._sample_until(self._span_ms)
            self._pass(self._span_ms)
            self._sample()
            self.arrivals = self.samples[-1]
        self._sample_until(now_ms)
        self._pass(now_ms)

    def arrived(self, job: TraceJob, now_ms: int) -> None:
        self.stories[job.job.id] = Story(job, now_ms, pressure=self._pressure)
        self._wanted += self._wish(job)
        self._waiting_gpus += job.gpus_milli
        self.waiting += 1

    def is_known(self, job: JobId) -> bool:
        """Whether the machine has kept it."""
        return job in self._known

    def take(self, records: Iterable[Any]) -> list[JobId]:
        """Fold what a step of the machine has decided; the jobs that have ended by it."""
        ended: list[JobId] = []
        for record in records:
            kind = type(record)
            if kind is r.AllocationMoved:
                if record.allocation.state.is_terminal:
                    self._release(record.allocation.id)
            elif kind is r.AllocationPlaced:
                self._hold(record.allocation)
            elif kind is r.JobMoved:
                self._move(record, ended)
            elif kind is r.TaskEnded:
                self._release(record.allocation.id)
            elif kind is r.JobAccepted:
                self._known.add(record.job.id)
        return ended

    def refuse(self, job: JobId, reason: str) -> None:
        """The scheduler does not take it."""
        story = self.stories.get(job)
        if story is not None and story.ended_ms is None and not story.refused:
            story.refused = reason
            self.waiting -= 1
            self._waiting_gpus -= story.job.gpus_milli
            self._wanted -= self._wish(story.job)

    def lost_work(self, job: JobId, lost_ms: float) -> None:
        self.stories[job].lost_ms += lost_ms

    def finish(self, now_ms: int) -> None:
        """The last sample."""
        self.advance(now_ms)
        self._sample()

    # -- inside ---------------------------------------------------------------------------------

    def _sample_until(self, now_ms: int) -> None:
        while self._next_sample_ms <= now_ms:
            self._pass(self._next_sample_ms)
            self._sample()

    def _pass(self, now_ms: int) -> None:
        passed = now_ms - self._now_ms
        if passed <= 0:
            return
        self._now_ms = now_ms
        self._gpu_ms += passed * self._held_gpus
        self._cpu_ms += passed * self._held_cpus
        self._usd += passed * self._held_usd_per_ms
        contention = self._wanted / self._there if self._there else 1.0
        self._pressure += passed * max(1.0, contention)

    def _wish(self, job: TraceJob) -> int:
        return job.gpus_milli if self.shapes else job.cpus_milli

    def _hold(self, a: Allocation) -> None:
        row, request = self._row[a.node], a.request
        self._live[a.id] = a
        self._touched.add(row)
        self.placements += 1
        self._held_gpus += request.gpus_milli
        self._held_cpus += request.cpus_milli
        self._held_usd_per_ms += request.gpus_milli * self._share_usd[row]
        self._cpus[row] -= request.cpus_milli
        self._memory[row] -= request.memory_mib
        # CPUs may be lent by others that stand still: the machine's own laws count those.
        assert self._memory[row] >= 0, f"{a.node} has too little memory for {a.id}"
        if request.gpus_milli:
            each, free = _of_each(a), self._free[row]
            for device in a.devices:
                free[device] -= each
                assert free[device] >= 0, f"{a.node} has too few GPUs for {a.id}"

    def _release(self, id: AllocationId) -> None:
        a = self._live.pop(id, None)
        if a is None:
            return
        row, request = self._row[a.node], a.request
        self._touched.add(row)
        self._held_gpus -= request.gpus_milli
        self._held_cpus -= request.cpus_milli
        self._held_usd_per_ms -= request.gpus_milli * self._share_usd[row]
        self._cpus[row] += request.cpus_milli
        self._memory[row] += request.memory_mib
        if request.gpus_milli:
            each, free = _of_each(a), self._free[row]
            for device in a.devices:
                free[device] += each

    def _move(self, record: r.JobMoved, ended: list[JobId]) -> None:
        story = self.stories.get(record.job)
        if story is None or story.ended_ms is not None:
            return
        status, before, after = record.status, story.phase, record.status.phase
        if status.preemptions > story.preemptions:
            self.preemptions += status.preemptions - story.preemptions
            story.preemptions = status.preemptions
        story.resizes = max(story.resizes, status.resizes)
        if after is before:
            return
        story.phase, story.attempts = after, status.attempt
        if after is JobPhase.QUEUED and status.not_before_ms > record.at_ms:
            self.due.append(status.not_before_ms)
        self._recount(story, before, after)
        if after is JobPhase.RUNNING and story.started_ms is None:
            story.started_ms = record.at_ms
        if after.is_terminal:
            story.ended_ms = record.at_ms
            story.pressure = self._pressure - story.pressure
            self._wanted -= self._wish(story.job)
            self.ended += 1
            ended.append(record.job)

    def _recount(self, story: Story, before: JobPhase, after: JobPhase) -> None:
        gpus = story.job.gpus_milli
        if before is JobPhase.QUEUED:
            self.waiting -= 1
            self._waiting_gpus -= gpus
        else:
            self.active -= 1
        if after is JobPhase.QUEUED:
            self.waiting += 1
            self._waiting_gpus += gpus
            story.restarts += 1
        elif not after.is_terminal:
            self.active += 1

    def _sample(self) -> None:
        useless, free = self._stranded.gpus(self._touched)
        self._touched.clear()
        passed = self._now_ms - self._sampled_ms
        self._sampled_ms = self._now_ms
        self._stranded_ms += passed * useless
        self._free_ms += passed * free
        self.samples.append(
            Sample(
                at_ms=self._now_ms,
                waiting=self.waiting,
                running=self.active,
                waiting_gpus=self._waiting_gpus / MILLI,
                gpu_ms=self._gpu_ms,
                cpu_ms=self._cpu_ms,
                usd=self._usd,
                preemptions=self.preemptions,
                stranded=useless,
                free_gpus=free,
                stranded_ms=self._stranded_ms,
                free_ms=self._free_ms,
            )
        )
        if len(self.samples) > SAMPLES_MAX:
            del self.samples[1::2]
            self._sample_ms *= 2
        self._next_sample_ms = self.samples[-1].at_ms + self._sample_ms


def _of_each(a: Allocation) -> int:
    """How much of each of its devices a replica holds, in thousandths."""
    return MILLI if a.request.whole_gpus else a.request.gpu_fraction_milli


def _usd_per_gpu_ms(node: Node) -> float:
    """For a thousandth of a GPU and a millisecond."""
    if not node.capacity.gpus:
        return 0.0
    return node.usd_per_hour / node.capacity.gpus / MILLI / 3_600_000
