"""A finished run as tables of columns, for Parquet or CSV; nothing here opens a file."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from hyperion.model.ids import JobId
from hyperion.model.resources import MILLI
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.recorder import Recorder
from hyperion.sim.score import Score, score

Columns = dict[str, list[Any]]


class Run(Struct, kw_only=True):
    """One policy on one trace."""

    policy: str
    score: Score
    recorder: Recorder
    never_ran: tuple[JobId, ...] = ()
    broken_off: bool = False
    """Somebody did not want to wait for the end: the figures are those so far."""
    events: int = 0
    span_ms: int = 0


def run_of(world: ClusterWorld, policy: str, broken_off: bool) -> Run:
    if broken_off:
        world.recorder.finish(world.now_ms)
    return Run(
        policy=policy,
        score=score(policy, world.recorder),
        recorder=world.recorder,
        never_ran=tuple(world.never_ran),
        broken_off=broken_off,
        events=world.events,
        span_ms=world.trace.span_ms,
    )


def job_columns(runs: Sequence[Run]) -> Columns:
    """One row for each job and policy."""
    out: Columns = {name: [] for name in _JOB_COLUMNS}
    for run in runs:
        for id, s in run.recorder.stories.items():
            row = (
                run.policy,
                str(id),
                s.queue,
                str(s.job.job.user),
                s.job.job.priority.name.lower(),
                s.job.job.replicas,
                s.job.gpus_milli / MILLI,
                s.job.cpus_milli / MILLI,
                s.job.runs_ms / 1000,
                s.submitted_ms / 1000,
                None if s.started_ms is None else s.started_ms / 1000,
                None if s.ended_ms is None else s.ended_ms / 1000,
                s.phase.value,
                s.attempts,
                s.restarts,
                s.preemptions,
                s.lost_ms / 1000,
            )
            for name, value in zip(_JOB_COLUMNS, row, strict=True):
                out[name].append(value)
    return out


def sample_columns(runs: Sequence[Run]) -> Columns:
    """One row for each sample and policy; integrals count from the beginning."""
    out: Columns = {name: [] for name in _SAMPLE_COLUMNS}
    for run in runs:
        for x in run.recorder.samples:
            row = (
                run.policy,
                x.at_ms / 1000,
                x.waiting,
                x.running,
                x.waiting_gpus,
                x.gpu_ms / MILLI / 3.6e6,
                x.cpu_ms / MILLI / 3.6e6,
                x.usd,
                x.preemptions,
                x.stranded,
                x.free_gpus,
            )
            for name, value in zip(_SAMPLE_COLUMNS, row, strict=True):
                out[name].append(value)
    return out


def score_columns(runs: Sequence[Run]) -> Columns:
    """One row for each policy; waiting by queue has a table of its own."""
    names = [name for name in Score.__struct_fields__ if name != "waits"]
    return {name: [getattr(run.score, name) for run in runs] for name in names}


def wait_columns(runs: Sequence[Run]) -> Columns:
    """One row for each queue and policy."""
    rows = [(run.policy, w) for run in runs for w in run.score.waits]
    return {
        "policy": [policy for policy, _ in rows],
        "queue": [w.queue for _, w in rows],
        "jobs": [w.jobs for _, w in rows],
        "wait_mean_s": [w.mean_s for _, w in rows],
        "wait_p50_s": [w.p50_s for _, w in rows],
        "wait_p99_s": [w.p99_s for _, w in rows],
    }


_JOB_COLUMNS = (
    "policy",
    "job",
    "queue",
    "user",
    "priority",
    "replicas",
    "gpus",
    "cpus",
    "runs_s",
    "submitted_s",
    "started_s",
    "ended_s",
    "phase",
    "attempts",
    "restarts",
    "preemptions",
    "lost_s",
)
_SAMPLE_COLUMNS = (
    "policy",
    "at_s",
    "waiting_jobs",
    "running_jobs",
    "waiting_gpus",
    "gpu_hours",
    "cpu_hours",
    "usd",
    "preemptions",
    "stranded_gpus",
    "free_gpus",
)
