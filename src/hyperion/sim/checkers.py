"""The laws, checked against what really ran. Each returns nothing or raises AssertionError."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from hyperion.control import dataset_records as d
from hyperion.control.agent import Agent
from hyperion.control.cluster import ClusterMachine
from hyperion.control.federation import Federation
from hyperion.control.messages import Run
from hyperion.control.records import FederatedJob, FederatedJobMoved, JobMoved
from hyperion.model.ids import JobId
from hyperion.model.job import Condition, Job, JobPhase
from hyperion.model.resources import Capacity
from hyperion.placement.feasibility import residence_refusal
from hyperion.sim import varied
from hyperion.sim.fleet import Execution, Host
from hyperion.sim.process import Process
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
            asked_for = arrival.cancel_at_ms is not None or arrival.job.after
            assert asked_for, f"{id} was cancelled, and nobody asked"
        if status.phase is JobPhase.FAILED:
            assert 1 in arrival.exit_codes, f"{id} failed without cause: {status.reason}"


def ends_well(
    jobs: Mapping[JobId, FederatedJob],
    asked: Mapping[JobId, Arrival],
    executions: Iterable[Execution],
) -> None:
    """What must be so of the jobs once all have ended."""
    never_twice(executions)
    every_job_ended(jobs, asked)
    kept_at_home(jobs)
    dependencies_held(jobs, asked)
    success_ran_whole(jobs, executions)
    nothing_left_running(executions)


def data_moved_once(federation: Process, asked: Mapping[JobId, Arrival]) -> None:
    """No copy of a dataset is paid for while one is there or on its way; one that is there stays
    until it is dropped; and who reads only what is there pays nothing for it."""
    lies: dict[str, dict[str, bool]] = {}
    placed: dict[JobId, int] = {}
    for record in federation.records:
        match record:
            case d.DatasetKept(dataset):
                now = {copy.region: copy.present for copy in dataset.copies}
                gone = [
                    x for x, there in lies.get(dataset.name, {}).items() if there > now.get(x, 0)
                ]
                assert not gone, f"{dataset.name} was in {gone}, and nobody dropped it"
                lies[dataset.name] = now
            case d.DatasetDropped(name):
                del lies[name]
            case d.CopyStarted(name, copy):
                assert copy.region not in lies[name], f"{name} is moved to {copy.region} again"
                lies[name][copy.region] = False
            case d.CopyArrived(name, region):
                lies[name][region] = True
            case d.CopyGoing(name, region, going):
                lies[name][region] = not going
            case d.CopyDropped(name, region):
                del lies[name][region]
            case FederatedJobMoved(id, status):
                if status.placed > placed.get(id, 0) and id in asked and status.price is not None:
                    job, placed[id] = asked[id].job, status.placed
                    there = [lies.get(r.dataset, {}).get(status.region, False) for r in job.reads]
                    assert not all(there) or job.writes or status.price.egress_usd == 0, (
                        f"{id} pays {status.price.egress_usd} USD for what lies in {status.region}"
                    )
    machine = federation.machine
    assert isinstance(machine, Federation)
    kept = {
        name: {copy.region: copy.present for copy in entry.dataset.copies}
        for name, entry in machine.state.datasets.entries.items()
    }
    assert kept == lies, f"datasets lie in {kept}, and by the records in {lies}"


def kept_at_home(jobs: Mapping[JobId, FederatedJob]) -> None:
    """No job is, or has ended, in a region where it may not be."""
    for id, known in jobs.items():
        status = known.status
        why = residence_refusal(known.job, status.cluster, status.region) if status.cluster else ""
        assert not why, f"{id} was placed in {status.cluster}: {why}"


def dependencies_held(jobs: Mapping[JobId, FederatedJob], asked: Mapping[JobId, Arrival]) -> None:
    """Who ran had all it waited for; who was cancelled, and nobody had asked, had not."""
    for id, known in jobs.items():
        if not known.job.after or id not in asked:
            continue
        ends = {d.job: jobs[d.job].status.phase for d in known.job.after if d.job in jobs}
        good = all(_wanted(ends[d.job], d.condition) for d in known.job.after if d.job in ends)
        phase = known.status.phase
        assert good or phase is JobPhase.CANCELLED, f"{id} {phase.value} though {ends}"
        if phase is JobPhase.CANCELLED and asked[id].cancel_at_ms is None:
            assert not good, f"{id} was cancelled though {ends} is what it waited for"


def _wanted(phase: JobPhase, condition: Condition) -> bool:
    if condition is Condition.ANY:
        return True
    return (phase is JobPhase.SUCCEEDED) == (condition is Condition.OK)


def success_ran_whole(jobs: Mapping[JobId, FederatedJob], executions: Iterable[Execution]) -> None:
    """A job that succeeded had, on every rank, one run to its own end with exit code 0; at most."""
    good: dict[tuple[JobId, int], int] = {}
    for x in executions:
        if not x.killed and x.exit_code == 0:
            good[(x.job, x.rank)] = good.get((x.job, x.rank), 0) + 1
    for id, known in jobs.items():
        if known.status.phase is JobPhase.SUCCEEDED:
            array = known.job.array
            width = array.size if array is not None else known.status.width or known.job.replicas
            for rank in range(width):
                assert good.get((id, rank), 0) >= 1, f"{id} rank {rank} never ran to its end"


def nothing_left_running(executions: Iterable[Execution]) -> None:
    for x in executions:
        assert x.ended_ms is not None, f"{x} still runs after its job has ended"


def within_capacity(host: Host, capacity: Capacity) -> None:
    """What really runs on a machine fits it, GPU by GPU. What stands still needs no CPU; what went
    on by itself was forgotten by a scheduler that was away, and may crowd the others. Of standbys
    ``posts`` knows when they need theirs."""
    cpus = memory = 0
    devices: dict[int, int] = {}
    custom: dict[str, int] = {}
    for x in host.running.values():
        if x.still_since_ms is None and not x.let_go and not x.lends:
            cpus += x.request.cpus_milli
        memory += x.request.memory_mib
        for device in x.devices:
            devices[device] = devices.get(device, 0) + min(1000, x.request.gpus_milli)
        for name, count in x.request.custom:
            custom[name] = custom.get(name, 0) + count
    assert cpus <= capacity.cpus_milli, f"{host.name} runs more than its CPUs take"
    assert memory <= capacity.memory_mib, f"{host.name} runs more than its memory takes"
    for device, milli in devices.items():
        assert device < capacity.gpus, f"{host.name} has no GPU {device}"
        assert milli <= 1000, f"GPU {device} of {host.name} is given out {milli / 1000:g} times"
    for name, count in custom.items():
        assert count <= dict(capacity.custom).get(name, 0), f"{host.name} has no more {name}"


def whole_gang(order: Run) -> None:
    """A replica of a gang runs only once all of the gang are ready for it."""
    if order.peers:
        ranks = [peer.rank for peer in order.peers]
        assert ranks == list(range(len(ranks))), f"{order.allocation}: a gang of {ranks}"
        missing = [peer.rank for peer in order.peers if not peer.port]
        assert not missing, f"{order.allocation} runs before {missing} of its gang are ready"


def nobody_in_vain(processes: Iterable[Process], calm: bool) -> None:
    """Where nothing goes wrong, each job for which others were stopped starts on what they left."""
    for process in processes:
        claiming: set[JobId] = set()
        for record in process.records if calm else ():
            if isinstance(record, JobMoved):
                claiming = _claiming(claiming, record)


def only_by_right(processes: Iterable[Process], asked: Mapping[JobId, Arrival]) -> None:
    """Jobs are stopped for others only by a lower class, a borrowed place, or by being nicer."""
    for process in processes:
        for record in process.records:
            if not isinstance(record, JobMoved) or record.status.phase is not JobPhase.STOPPING:
                continue
            _, by, winner = record.status.reason.partition("preempted by job ")
            if by and record.job in asked and JobId(winner) in asked:
                loser, other = asked[record.job].job, asked[JobId(winner)].job
                assert _has_right(other, loser), (
                    f"{loser.id} was stopped for {other.id}: by no right"
                )


def _has_right(winner: Job, loser: Job) -> bool:
    if loser.priority != winner.priority:
        return loser.priority < winner.priority
    cohorts = {queue.name: queue.parent or queue.name for queue in varied.QUEUES}
    if loser.queue == winner.queue:
        return loser.nice > winner.nice
    return bool(winner.queue) and cohorts.get(loser.queue) == cohorts.get(winner.queue)


def _claiming(before: set[JobId], record: JobMoved) -> set[JobId]:
    status, job = record.status, record.job
    if status.claim:
        return before | {job}
    if job in before:
        asked_away = status.phase.is_terminal or status.phase is JobPhase.STOPPING
        starts = status.phase in (JobPhase.STARTING, JobPhase.RUNNING)
        assert starts or asked_away, f"others were stopped for {job} in vain: {status}"
    return before - {job}


def kept(machine: Any) -> tuple[Any, ...]:
    """All that a machine keeps, to compare two of them."""
    match machine:
        case Federation():
            s = machine.state
            money = s.bills.lines, s.bills.months, s.budgets.entries
            data = s.datasets.entries, s.datasets.coming, s.datasets.named, s.datasets.waiting
            return s.jobs, s.clusters, s.decisions, s.secrets, money, data
        case ClusterMachine():
            c = machine.state
            return c.jobs, c.allocations, c.nodes, c.secrets, c.marks, c.queues, c.windows
        case Agent():
            return machine.replicas, machine.marks
    raise TypeError(machine)
