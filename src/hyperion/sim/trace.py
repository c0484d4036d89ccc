"""A workload: which jobs arrive when, how long each runs alone, and how it ends."""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.ids import QueueName
from hyperion.model.job import Job
from hyperion.model.node import Node
from hyperion.model.queue import Queue
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.model.window import Window

BAD_ROWS_TOLD = 20
"""So many bad rows are told in words; all are counted."""
RUNGS_S = (
    600.0,
    3600.0,
    4 * 3600.0,
    12 * 3600.0,
    86_400.0,
    2 * 86_400.0,
    7 * 86_400.0,
    30 * 86_400.0,
    120 * 86_400.0,
    3660 * 86_400.0,
)
"""What people ask for when they must say how long: the next of these, as partitions offer them."""


class TraceError(ValueError):
    """The trace as a whole cannot be read; the message names the place and the remedy."""


class TraceJob(Struct, frozen=True, kw_only=True):
    """One job of a workload."""

    at_ms: int
    job: Job
    runs_ms: int
    """Alone, at full width, without interruption."""
    task_runs_ms: tuple[int, ...] = ()
    """Of an array's tasks by rank; empty: each like ``runs_ms``."""
    exit_codes: tuple[int, ...] = (0,)
    """Of its attempts, in turn; the last one is repeated."""
    cancel_after_ms: int = 0
    """Its user gives it up so long after submission; 0: never."""
    due_ms: int = 0
    """When its result is wanted, counted from submission; only scored. 0: no wish."""

    @property
    def gpus_milli(self) -> int:
        """At full width, of all replicas, in the first alternative."""
        return sum(r.gpus_milli * n for r, n in requests(self.job))

    @property
    def cpus_milli(self) -> int:
        return sum(r.cpus_milli * n for r, n in requests(self.job))

    @property
    def whole_runs_ms(self) -> int:
        """Of an array: of all tasks one after another."""
        array = self.job.array
        if array is None:
            return self.runs_ms
        return sum(self.task_runs_ms) or self.runs_ms * array.size


class BadRow(Struct, frozen=True):
    """A row that is no job of this workload, and why."""

    line: int
    column: str
    message: str


class Trace(Struct, frozen=True, kw_only=True):
    """Jobs in order of arrival, the first at 0; what was left out; what was assumed."""

    name: str
    jobs: tuple[TraceJob, ...]
    bad: tuple[BadRow, ...] = ()
    """The first ``BAD_ROWS_TOLD`` of them."""
    bad_rows: int = 0
    notes: tuple[str, ...] = ()
    """What the source does not say and the reader had to assume."""
    queues: tuple[Queue, ...] = ()
    windows: tuple[Window, ...] = ()

    @property
    def span_ms(self) -> int:
        """From the first arrival to the last."""
        return self.jobs[-1].at_ms if self.jobs else 0


def requests(job: Job) -> Iterable[tuple[ResourceRequest, int]]:
    """(what one needs, how many of them) of everything that a job runs at full width at once."""
    if job.roles:
        return [(role.resources, role.replicas) for role in job.roles]
    if job.array is not None:
        at_once = job.array.limit or job.array.size
        return [(job.alternatives[0], min(at_once, job.array.size))]
    return [(job.alternatives[0], job.replicas)]


def assembled(
    name: str,
    jobs: Iterable[TraceJob],
    bad: Sequence[BadRow] = (),
    notes: Sequence[str] = (),
) -> Trace:
    """A trace of jobs in any order: sorted, and moved so that the first arrives at 0."""
    ordered = sorted(jobs, key=lambda j: j.at_ms)
    first_ms = ordered[0].at_ms if ordered else 0
    moved = tuple(replace(j, at_ms=j.at_ms - first_ms) if first_ms else j for j in ordered)
    return Trace(
        name=name,
        jobs=moved,
        bad=tuple(bad[:BAD_ROWS_TOLD]),
        bad_rows=len(bad),
        notes=tuple(notes),
    )


def first_jobs(trace: Trace, most: int) -> Trace:
    """Only the first so many arrivals."""
    return trace if len(trace.jobs) <= most else replace(trace, jobs=trace.jobs[:most])


def every(trace: Trace, nth: int) -> Trace:
    """Only every so many-th job, so that the trace's days and bursts stay."""
    return replace(trace, jobs=trace.jobs[::nth])


def one_queue(trace: Trace) -> Trace:
    """The same jobs, all in the default queue."""
    jobs = tuple(replace(j, job=replace(j.job, queue=QueueName(""))) for j in trace.jobs)
    return replace(trace, jobs=jobs, queues=())


def queues_of(trace: Trace) -> tuple[Queue, ...]:
    """Those that the trace brings, and for each other name in it a queue without limits."""
    known = {queue.name for queue in trace.queues}
    named = {j.job.queue for j in trace.jobs if j.job.queue} - known
    return (*trace.queues, *(Queue(name=name) for name in sorted(named)))


def queue_name(text: str) -> QueueName:
    """A name from elsewhere as a queue here may have it."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", text)
    return QueueName(re.sub(r"^[^A-Za-z0-9]+", "", plain)[:63])


def since(trace: Trace, last_ms: int) -> Trace:
    """Only what arrived within so long before the last arrival, the first of it at 0."""
    first_ms = max(0, trace.span_ms - last_ms)
    jobs = tuple(replace(j, at_ms=j.at_ms - first_ms) for j in trace.jobs if j.at_ms >= first_ms)
    return replace(trace, jobs=jobs)


def busy(trace: Trace, gpus: bool, factor: float = 1.0) -> float:
    """GPUs (or CPUs), in thousandths, that are in use on average from the first arrival to the
    last, were nobody to wait; with ``factor`` as the stretch of the times of arrival."""
    span_ms = trace.span_ms * factor
    if span_ms <= 0:
        return 0.0
    work = 0.0
    for j in trace.jobs:
        amount = j.gpus_milli if gpus else j.cpus_milli
        runs_ms = j.whole_runs_ms / _at_once(j.job)
        work += amount * min(runs_ms, span_ms - j.at_ms * factor)
    return work / span_ms


def at_load(trace: Trace, nodes: Sequence[Node], load: float) -> Trace:
    """The same jobs arriving faster or slower, so that while they arrive they would keep ``load``
    times busy what the nodes have, were nobody to wait. Of GPUs; of CPUs where no job wants a GPU.
    ``TraceError`` when that cannot be."""
    gpus = any(j.gpus_milli for j in trace.jobs)
    kind = "GPUs" if gpus else "CPUs"
    has = sum(n.capacity.gpus * MILLI if gpus else n.capacity.cpus_milli for n in nodes)
    slow, quick = 1e6, 1e-6
    if not has or not busy(trace, gpus, slow) < load * has < busy(trace, gpus, quick):
        raise TraceError(
            f"{trace.name}: its {len(trace.jobs)} jobs cannot keep {load:g} times {has / MILLI:g}"
            f" {kind} busy, however fast they arrive; take more jobs, fewer nodes, or leave --load"
            " out"
        )
    for _ in range(60):
        middle = (slow * quick) ** 0.5
        if busy(trace, gpus, middle) > load * has:
            quick = middle
        else:
            slow = middle
    jobs = tuple(replace(j, at_ms=int(j.at_ms * slow)) for j in trace.jobs)
    return replace(trace, jobs=jobs)


def with_estimates(trace: Trace, kind: str) -> Trace:
    """What users say beforehand of how long their jobs run: ``none``; ``rounded``, up to the next
    of ``RUNGS_S``; ``exact``. Jobs that bring an estimate of their own keep it."""
    if kind == "none":
        return trace
    jobs = []
    for j in trace.jobs:
        longest_s = max(j.task_runs_ms, default=j.runs_ms) / 1000
        said = longest_s if kind == "exact" else next(r for r in RUNGS_S if longest_s <= r)
        job = j.job if j.job.expected_s else replace(j.job, expected_s=max(1.0, said))
        jobs.append(replace(j, job=job))
    return replace(trace, jobs=tuple(jobs))


def gang(gpus: int, per_node: int) -> tuple[int, int]:
    """(replicas, GPUs of each): as few equal replicas as nodes of ``per_node`` GPUs can hold."""
    per_node = max(1, per_node)
    replicas = -(-gpus // per_node)
    while replicas and gpus % replicas:
        replicas += 1
    return (replicas, gpus // replicas) if replicas else (1, 0)


def _at_once(job: Job) -> int:
    """By how much ``requests`` exceeds one task of an array."""
    if job.array is None:
        return 1
    return min(job.array.limit or job.array.size, job.array.size)
