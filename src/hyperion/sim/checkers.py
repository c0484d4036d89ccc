"""The laws, checked against what really ran. Each returns nothing or raises AssertionError."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from hyperion.control.records import FederatedJob
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.sim.fleet import Execution
from hyperion.sim.workload import Arrival


def never_twice(executions: Iterable[Execution]) -> None:
    """No replica ran in two places at once, and no allocation ran twice."""
    runs: dict[tuple[JobId, int], list[Execution]] = {}
    seen: set[tuple[str, int]] = set()
    for x in executions:
        assert (x.allocation, x.disk) not in seen, f"{x.allocation} ran twice"
        seen.add((x.allocation, x.disk))
        runs.setdefault((x.job, x.rank), []).append(x)
    for (job, rank), found in runs.items():
        found.sort(key=lambda x: x.started_ms)
        for before, after in pairwise(found):
            assert before.ended_ms is not None, f"{job} rank {rank}: {before} never ended"
            assert before.ended_ms <= after.started_ms, (
                f"{job} rank {rank} ran twice at once: {before} and {after}"
            )


def every_job_ended(jobs: Mapping[JobId, FederatedJob], asked: Mapping[JobId, Arrival]) -> None:
    """Each submitted job is known, and has ended in a way that its fate allows."""
    for id, arrival in asked.items():
        assert id in jobs, f"{id} was lost"
        status = jobs[id].status
        assert status.phase.is_terminal, f"{id} is still {status.phase}: {status.reason}"
        if status.phase is JobPhase.CANCELLED:
            assert arrival.cancel_at_ms is not None, f"{id} was cancelled, and nobody asked"
        if status.phase is JobPhase.FAILED:
            assert 1 in arrival.exit_codes, f"{id} failed without cause: {status.reason}"


def success_ran_whole(jobs: Mapping[JobId, FederatedJob], executions: Iterable[Execution]) -> None:
    """A job that succeeded had, on every rank, one run to its own end with exit code 0; at most."""
    good: dict[tuple[JobId, int], int] = {}
    for x in executions:
        if not x.killed and x.exit_code == 0:
            good[(x.job, x.rank)] = good.get((x.job, x.rank), 0) + 1
    for id, known in jobs.items():
        if known.status.phase is JobPhase.SUCCEEDED:
            for rank in range(known.job.replicas):
                assert good.get((id, rank), 0) >= 1, f"{id} rank {rank} never ran to its end"


def nothing_left_running(executions: Iterable[Execution]) -> None:
    for x in executions:
        assert x.ended_ms is not None, f"{x} still runs after its job has ended"
