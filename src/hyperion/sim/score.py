"""Figures by which policies are compared; each is defined here and nowhere else.

Times are in seconds of the simulated world. JCT is the time from submission to the end, waiting
that from submission until all replicas ran for the first time. Jobs that were cancelled by their
users, or never ended, are left out of both.
"""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from hyperion.model.job import JobPhase
from hyperion.sim.recorder import Recorder, Sample, Story

MIN_RUNTIME_MS = 60_000
"""Fairness divides by the run time: shorter ones count as a minute, or they would rule it."""


class Waiting(Struct, frozen=True):
    """How long the jobs of one queue waited."""

    queue: str
    jobs: int
    mean_s: float
    p50_s: float
    p99_s: float


class Score(Struct, frozen=True, kw_only=True):
    policy: str
    jobs: int
    succeeded: int
    failed: int
    cancelled: int
    never_ran: int
    """Did not end: they fit nowhere, or the run was broken off."""
    jct_mean_s: float
    jct_p50_s: float
    jct_p99_s: float
    wait_mean_s: float
    wait_p50_s: float
    wait_p99_s: float
    waits: tuple[Waiting, ...]
    """By queue, the one with the most jobs first."""
    makespan_s: float
    """From the first submission to the last end."""
    gpu_utilisation: float
    """GPUs held, as a part of all, from the first arrival to the last; after that the cluster
    drains, and its length is that of the longest job."""
    cpu_utilisation: float
    fragmentation: float
    """Of the GPUs that are free, the part of no use to the mean job of this workload (Weng et al.,
    ATC 2023); mean over the same span, weighted by what was free."""
    rho_mean: float
    """Finish-time fairness (as in Themis and Shockwave): JCT divided by the run time alone times
    the mean contention over the job's life; contention is GPUs wanted (CPUs, where no job wants a
    GPU) by GPUs there, at least 1.
    Above 1 a job got less than an equal share."""
    rho_p99: float
    rho_max: float
    unfair: float
    """The part of the jobs with a rho above 1.05."""
    jain_users: float
    """Jain's index over the users' mean rho: 1 if all are treated alike, 1/users at worst."""
    restarts: int
    """How often a job that had been placed had to wait again, for whatever reason."""
    preemptions: int
    """How often a job, or a task of one, was stopped to make room for others."""
    lost_gpu_hours: float
    """Work that had to be done again."""
    usd: float
    """Of the GPUs held, by the price of their nodes; 0 where there are no prices."""
    late: int
    """Ended after they were due; of ``due``."""
    due: int


def score(policy: str, recorder: Recorder) -> Score:
    """What a run came to."""
    stories = list(recorder.stories.values())
    ended = [s for s in stories if s.ended_ms is not None]
    counted = [s for s in ended if s.phase is not JobPhase.CANCELLED]
    jct = sorted(_jct_s(s) for s in counted)
    waits = sorted(_wait_s(s) for s in counted)
    rhos = sorted(_rho(s) for s in counted)
    last_ms = max((s.ended_ms or 0 for s in ended), default=0)
    busy = _busy(recorder)
    with_due = [s for s in stories if s.job.due_ms]
    return Score(
        policy=policy,
        jobs=len(stories),
        succeeded=sum(s.phase is JobPhase.SUCCEEDED for s in ended),
        failed=sum(s.phase is JobPhase.FAILED for s in ended),
        cancelled=sum(s.phase is JobPhase.CANCELLED for s in ended),
        never_ran=len(stories) - len(ended),
        jct_mean_s=_mean(jct),
        jct_p50_s=percentile(jct, 0.5),
        jct_p99_s=percentile(jct, 0.99),
        wait_mean_s=_mean(waits),
        wait_p50_s=percentile(waits, 0.5),
        wait_p99_s=percentile(waits, 0.99),
        waits=_by_queue(counted),
        makespan_s=(last_ms - min((s.submitted_ms for s in stories), default=0)) / 1000,
        gpu_utilisation=busy[0],
        cpu_utilisation=busy[1],
        fragmentation=busy[2],
        rho_mean=_mean(rhos),
        rho_p99=percentile(rhos, 0.99),
        rho_max=max(rhos, default=0.0),
        unfair=sum(r > 1.05 for r in rhos) / max(1, len(rhos)),
        jain_users=_jain(counted),
        restarts=sum(s.restarts for s in stories),
        preemptions=recorder.preemptions,
        lost_gpu_hours=sum(s.lost_ms * s.job.gpus_milli for s in stories) / 3.6e9,
        usd=recorder.samples[-1].usd if recorder.samples else 0.0,
        late=sum(s.ended_ms is None or _jct_s(s) * 1000 > s.job.due_ms for s in with_due),
        due=len(with_due),
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """Of sorted values; 0 of none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _jct_s(s: Story) -> float:
    return ((s.ended_ms or 0) - s.submitted_ms) / 1000


def _wait_s(s: Story) -> float:
    """A job that ended without ever running waited all its life."""
    began_ms = s.started_ms if s.started_ms is not None else s.ended_ms or 0
    return (began_ms - s.submitted_ms) / 1000


def _rho(s: Story) -> float:
    lived_ms = max(1, (s.ended_ms or 0) - s.submitted_ms)
    contention = max(1.0, s.pressure / lived_ms)
    alone_ms = max(MIN_RUNTIME_MS, s.job.runs_ms)
    return max(lived_ms, MIN_RUNTIME_MS) / (alone_ms * contention)


def _by_queue(stories: Sequence[Story]) -> tuple[Waiting, ...]:
    found: dict[str, list[float]] = {}
    for s in stories:
        found.setdefault(s.queue, []).append(_wait_s(s))
    rows = []
    for queue, waits in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        waits.sort()
        row = Waiting(
            queue, len(waits), _mean(waits), percentile(waits, 0.5), percentile(waits, 0.99)
        )
        rows.append(row)
    return tuple(rows)


def _jain(stories: Sequence[Story]) -> float:
    users: dict[str, list[float]] = {}
    for s in stories:
        users.setdefault(s.job.job.user, []).append(_rho(s))
    means = [_mean(rhos) for rhos in users.values()]
    squares = sum(x * x for x in means)
    return sum(means) ** 2 / (len(means) * squares) if squares else 1.0


def _busy(recorder: Recorder) -> tuple[float, float, float]:
    """(GPU utilisation, CPU utilisation, fragmentation) while jobs arrived."""
    if not recorder.samples:
        return 0.0, 0.0, 0.0
    last = recorder.arrivals or recorder.samples[-1]
    if last.at_ms <= 0:  # all came at once: until the last has ended
        last = recorder.samples[-1]
    return (
        _part(last.gpu_ms, recorder.gpus_milli * last.at_ms),
        _part(last.cpu_ms, recorder.cpus_milli * last.at_ms),
        _part(last.stranded_ms, last.free_ms),
    )


def _part(value: float, whole: float) -> float:
    return value / whole if whole else 0.0


def utilisation(samples: Sequence[Sample], amount: float) -> list[tuple[float, float]]:
    """(seconds, part of the GPUs held on average since the sample before)."""
    out = []
    for a, b in pairwise(samples):
        passed = b.at_ms - a.at_ms
        if passed > 0:
            out.append((b.at_ms / 1000, _part(b.gpu_ms - a.gpu_ms, amount * passed)))
    return out
