"""Moving cheap jobs together, when a job would fit in what is free were that not in pieces."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job
from hyperion.placement import planner
from hyperion.placement.case import Case, without
from hyperion.placement.gang_victims import cost
from hyperion.placement.ground import Share
from hyperion.placement.planner import Plan, View, Wish
from hyperion.placement.preemption import Eviction, cheapest_victims
from hyperion.placement.ranking import Policy
from hyperion.placement.rights import Rights
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot

MOST_TRIES = 12
"""Searches for one job: after each, those that found no new place are left alone."""


class MoveBudget(Struct, frozen=True):
    gain_usd: float
    """What it is worth that the job need not wait: its price for as long as it would."""
    moves: int = 8
    """Jobs that may be moved for it."""


def consolidation(
    snapshot: Snapshot,
    running: Running,
    wish: Job | Wish,
    policy: Policy,
    rights: Rights,
    view: View | None,
    now_ms: int,
    budget: MoveBudget,
    job_of: Callable[[JobId], Job | None],
) -> Eviction | None:
    """Jobs of the wish's class, or a lower one, that go on elsewhere so that it can start; None
    if it is not worth its while, is not possible, or needs no moves.

    The new places were found by the planner with the wish seated, and each with those before it:
    they are free once all victims have gone. The snapshot is left as it was.
    """
    case = Case(snapshot, running, wish, policy, _movers(rights), view, now_ms)
    if not _fits_in_sum(case):
        return None
    case.spared = _too_large(snapshot, running)
    for _ in range(MOST_TRIES):
        found = cheapest_victims(case)
        if found is None:
            return None
        shares, plan = found
        regret_usd = cost(shares)
        if not shares or len(shares) > budget.moves or regret_usd >= budget.gain_usd:
            return None
        moved = _moved(case, shares, plan, job_of)
        if not isinstance(moved, set):
            victims = tuple(share.key[0] for share in shares)
            return Eviction(case.job.id, victims, plan, regret_usd, moves=moved)
        case.spared |= moved
    return None


def _movers(rights: Rights) -> Rights:
    return replace(rights, moves=True, within=False, borrowed=(), owed=())


def _fits_in_sum(case: Case) -> bool:
    """Whether so much is free at all, on the nodes that could take a part of it."""
    snapshot = case.snapshot
    for alternative in case.alternatives:
        parts = case.parts(alternative)
        open = np.logical_or.reduce([part.open for part in parts])
        free = np.maximum(0, snapshot.amounts[:, : snapshot.rows]).sum(axis=1, where=open)
        gpus_milli = np.maximum(0, snapshot.devices[: snapshot.rows]).sum(
            where=open[:, np.newaxis], initial=0
        )
        sums = (int(gpus_milli), *(int(amount) for amount in free[:3]))
        asked = [0, 0, 0, 0]
        for part in parts:
            r, n = part.request, part.replicas
            needs = (r.gpus_milli, r.cpus_milli, r.memory_mib, r.disk_mib)
            asked = [total + n * need for total, need in zip(asked, needs, strict=True)]
        if all(need <= has for need, has in zip(asked, sums, strict=True)):
            return True
    return False


def _too_large(snapshot: Snapshot, running: Running) -> set[JobId]:
    """Jobs with a replica for which no node has enough GPUs free: they would rarely find a place,
    and there may be many of them."""
    usable = snapshot.shut[: snapshot.rows] == 0
    most = int(snapshot.whole[: snapshot.rows].max(initial=0, where=usable))
    found = set()
    for job in running.occupants:
        first = next(iter(running.seats(job)), None)
        if first is not None and first.request.whole_gpus > most:
            found.add(job)
    return found


def _moved(
    case: Case, shares: Sequence[Share], plan: Plan, job_of: Callable[[JobId], Job | None]
) -> tuple[Plan, ...] | set[JobId]:
    """New places for all victims, or those that have none."""
    snapshot = case.snapshot
    seats = [seat for share in shares for seat in share.seats]
    largest = sorted(sorted(shares, key=lambda share: share.key), key=_size, reverse=True)
    plans: dict[JobId, Plan] = {}
    homeless: set[JobId] = set()
    held: list[Allocation] = []
    with without(snapshot, [*case.running.leaving, *seats]):
        try:
            _hold(snapshot, held, case.job, plan, case.wish.first_rank)
            for share in largest:
                job = job_of(share.key[0])
                found = None if job is None else _replanned(case, share, job)
                if job is None or not isinstance(found, Plan):
                    homeless.add(share.key[0])
                    continue
                plans[job.id] = found
                _hold(snapshot, held, job, found, 0)
        finally:
            for a in reversed(held):
                snapshot.drop(a)
    return homeless or tuple(plans[share.key[0]] for share in shares)


def _replanned(case: Case, share: Share, job: Job) -> Plan | planner.Unplaceable:
    """Where a victim could go on, as wide as it is."""
    ends_at_ms = case.running.occupants[job.id].ends_at_ms
    wish = Wish(job, at_least=len(share.seats), ends_at_ms=ends_at_ms)
    return planner.plan(case.snapshot, wish, case.policy, case.view, case.now_ms)


def _hold(
    snapshot: Snapshot, held: list[Allocation], job: Job, plan: Plan, first_rank: int
) -> None:
    for rank, seat in enumerate(plan.seats, first_rank):
        a = Allocation(
            id=AllocationId(f"{job.id}/moved/{rank}"),
            job=job.id,
            rank=rank,
            node=seat.node,
            request=job.request(rank, plan.alternative),
            devices=seat.devices,
        )
        held.append(a)
        snapshot.hold(a, job)


def _size(share: Share) -> tuple[int, int]:
    gpus = sum(seat.request.gpus_milli for seat in share.seats)
    return gpus, sum(seat.request.cpus_milli for seat in share.seats)
