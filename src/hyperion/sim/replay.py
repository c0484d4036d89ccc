"""Makes a workload of what a scheduler has kept: its journal, and the entities beside it.

What a job ran is what it is taken to need; when it came is kept; where it was placed is not used.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import records as r
from hyperion.control.machine import split
from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId
from hyperion.model.job import Job, JobPhase
from hyperion.model.node import Node
from hyperion.sim.trace import BadRow, Trace, TraceJob, assembled


class Past(Struct):
    """What is known of one job, as its records come by."""

    job: Job
    submitted_ms: int
    phase: JobPhase = JobPhase.QUEUED
    exit_code: int = 0
    ended_ms: int = 0
    ran_ms: dict[int, int] = {}
    """By rank, of the newest attempt that ended by itself or was stopped."""


class Kept(Struct):
    """A replayable past: the workload, the machines, and what could not be used."""

    trace: Trace
    nodes: list[Node]


class _Kind(Struct):
    type: str


def kept(entities: Iterable[tuple[str, bytes]], journal: Iterable[tuple[int, bytes]]) -> Kept:
    """From entities (path, value), jobs before allocations, and the journal (number, record)."""
    jobs: dict[JobId, Past] = {}
    nodes: dict[str, Node] = {}
    for path, value in entities:
        kind, name = split(path)
        if kind == "node":
            nodes[name] = _ENTRY.decode(value).node
        elif kind == "job":
            known = _CLUSTER_JOB.decode(value)
            jobs[known.job.id] = Past(known.job, known.submitted_at_ms, ran_ms={})
            _move(jobs[known.job.id], known.status)
        elif kind == "allocation":
            _ran(jobs, _ALLOCATION.decode(value))
    bad: list[BadRow] = []
    for number, record in journal:
        try:
            _fold(jobs, nodes, record)
        except msgspec.DecodeError as error:
            bad.append(BadRow(number, "record", str(error)[:200]))
    return Kept(_trace(jobs, bad), [nodes[name] for name in sorted(nodes)])


def _fold(jobs: dict[JobId, Past], nodes: dict[str, Node], record: bytes) -> None:
    kind = _KIND.decode(record).type
    if kind == "JobAccepted":
        accepted = _ACCEPTED.decode(record)
        known = jobs.get(accepted.job.id)
        if known is None or known.submitted_ms != accepted.submitted_at_ms:
            jobs[accepted.job.id] = Past(accepted.job, accepted.submitted_at_ms, ran_ms={})
    elif kind == "JobMoved":
        moved = _MOVED.decode(record)
        if moved.job in jobs:
            _move(jobs[moved.job], moved.status)
    elif kind in ("AllocationMoved", "TaskEnded"):
        _ran(jobs, _WITH_ALLOCATION.decode(record).allocation)
    elif kind == "NodeAdmitted":
        node = _ADMITTED.decode(record).node
        nodes[node.id] = node


def _move(past: Past, status: r.JobStatus) -> None:
    past.phase = status.phase
    past.exit_code = status.exit_code or 0
    past.ended_ms = status.ended_at_ms


def _ran(jobs: dict[JobId, Past], a: Allocation) -> None:
    past = jobs.get(a.job)
    if past is not None and a.started_at_ms and a.ended_at_ms > a.started_at_ms:
        past.ran_ms[a.rank] = a.ended_at_ms - a.started_at_ms


def _trace(jobs: dict[JobId, Past], bad: list[BadRow]) -> Trace:
    found = []
    for n, past in enumerate(jobs.values(), 1):
        job = _job(past)
        if isinstance(job, str):
            bad.append(BadRow(n, "job", f"{past.job.id} {job}"))
        else:
            found.append(job)
    notes = ("what a job ran is what it is taken to need, wherever it ran",)
    return assembled("journal", found, bad, notes)


def _job(past: Past) -> TraceJob | str:
    """The job as it would come again, or why it cannot."""
    if not past.phase.is_terminal:
        return f"had not ended ({past.phase.value}), so nobody knows how long it runs"
    if not past.ran_ms and past.phase is not JobPhase.CANCELLED:
        return "ended without ever having run"
    array = past.job.array
    longest_ms = max(past.ran_ms.values(), default=3_600_000)
    tasks: tuple[int, ...] = ()
    if array is not None:
        tasks = tuple(past.ran_ms.get(rank, longest_ms) for rank in range(array.size))
    code = (past.exit_code or 1) if past.phase is JobPhase.FAILED else 0
    given_up = past.phase is JobPhase.CANCELLED and not past.ran_ms
    return TraceJob(
        at_ms=past.submitted_ms,
        job=replace(past.job, secrets={}, after=(), reservation=type(past.job.reservation)("")),
        runs_ms=longest_ms,
        task_runs_ms=tasks,
        exit_codes=(code,),
        cancel_after_ms=max(1, past.ended_ms - past.submitted_ms) if given_up else 0,
    )


_KIND = msgspec.json.Decoder(_Kind)
_ENTRY = msgspec.json.Decoder(r.NodeEntry)
_CLUSTER_JOB = msgspec.json.Decoder(r.ClusterJob)
_ALLOCATION = msgspec.json.Decoder(Allocation)
_ACCEPTED = msgspec.json.Decoder(r.JobAccepted)
_MOVED = msgspec.json.Decoder(r.JobMoved)
_ADMITTED = msgspec.json.Decoder(r.NodeAdmitted)


class _WithAllocation(Struct):
    allocation: Allocation


_WITH_ALLOCATION = msgspec.json.Decoder(_WithAllocation)
