"""Whom to stop so that a waiting job can start: the least regret, and nobody in vain."""

from collections.abc import Sequence
from enum import Enum

import numpy as np
from msgspec import Struct

from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job, Priority
from hyperion.placement import gang_victims
from hyperion.placement.bounds import ROOM, ROUNDING, Bool, Bounds, Kept
from hyperion.placement.case import Case, Part
from hyperion.placement.cheapest import cheapest
from hyperion.placement.ground import WHOLE, Ground, Share
from hyperion.placement.ledger import Float
from hyperion.placement.planner import Plan, Seat, View, Wish
from hyperion.placement.ranking import Policy
from hyperion.placement.regret import regret_usd
from hyperion.placement.repayment import eligible, repayment
from hyperion.placement.rights import Rights
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot

__all__ = ["Eviction", "NoVictims", "Obstacle", "Rights", "Spared", "regret_usd", "victims"]


class Eviction(Struct, frozen=True):
    """Who has to stop, and what the job then gets."""

    job: JobId
    victims: tuple[JobId, ...]
    """Each with all its replicas, wherever they are."""
    plan: Plan
    """Its places are free once the victims, and all that is being stopped already, have gone."""
    regret_usd: float
    shrink: tuple[tuple[JobId, int], ...] = ()
    """Elastic jobs that go on with so many replicas, the last ranks stopped."""
    tasks: tuple[tuple[JobId, int], ...] = ()
    """Tasks of arrays, by rank; the others go on."""
    moves: tuple[Plan, ...] = ()
    """Where the victims go on, in their order; of a consolidation only."""


class Obstacle(Enum):
    """Why nobody is stopped for a job."""

    FITS = "there is room without stopping anybody"
    WAIT = "what is being stopped already will do"
    RIGHTS = "there is nobody it may take places from"
    NOWHERE = "stopping all it may take places from would not make room"


class Spared(Enum):
    """Why jobs that hold places are no victims; completes ``12 jobs: …``."""

    RIGHTS = "not of a lower class, nor on its own queue's quota"
    EARLY = "have not run for long enough yet"
    STOPPING = "are being stopped already"
    USELESS = "could be stopped, but that would not make room"


class NoVictims(Struct, frozen=True):
    """Nobody is to stop, and why."""

    job: JobId
    reason: Obstacle
    counts: dict[Spared, int] = {}
    """Jobs that hold places, by why they are left alone; only when it could not be helped."""
    plan: Plan | None = None
    """What it waits for, if it does: worth a claim, or the next job counts on the same places."""


def victims(
    snapshot: Snapshot,
    running: Running,
    wish: Job | Wish,
    policy: Policy,
    rights: Rights,
    view: View | None = None,
    now_ms: int = 0,
    *,
    counted: bool = True,
    spared: frozenset[JobId] = frozenset(),
) -> Eviction | NoVictims:
    """The least regretted victims that let the wish start, none of them ``spared``. The snapshot
    is left as it was.

    For a single replica no cheaper set exists. For a gang the set is built greedily and then
    pruned: without any one of them the job would not fit. ``counted``: if there are none, look at
    all jobs once more to tell why.
    """
    case = Case(snapshot, running, wish, policy, rights, view, now_ms)
    case.spared = set(spared)
    found = cheapest_victims(case)
    if found is None:
        return _nobody(case) if counted else NoVictims(case.job.id, Obstacle.NOWHERE)
    shares, seated = found
    if not shares:
        fits = case.plan_now() is not None
        reason = Obstacle.FITS if fits else Obstacle.WAIT
        return NoVictims(case.job.id, reason, plan=None if fits else seated)
    return _eviction(case, shares, seated)


def cheapest_victims(case: Case) -> gang_victims.Found | None:
    """The shares to give up, and the plan that follows."""
    if case.rights.owed:
        paid = repayment(case, case.ground())
        if paid is None:
            return None
        plan = case.plan_now()
        found = (tuple(paid), plan) if plan is not None else gang_victims.pruned(case, paid)
        if found is not None:
            return found
    if case.least > 1 or case.job.roles:
        return gang_victims.for_gang(case)
    found = _for_one(case)
    return found if found is not None or case.plain else gang_victims.for_gang(case)


MOST_TRIES = 16
"""Cheapest nodes that the planner is asked about where more than amounts decides."""


def _for_one(case: Case) -> gang_victims.Found | None:
    """The cheapest node for a single replica."""
    ground = case.ground()
    simple = case.plain and not case.rights.owed
    for _, _, alternative, row, shares in _cheapest(case, ground, 1 if simple else MOST_TRIES):
        # A job that costs nothing may be among the cheapest without need: it is on other nodes too.
        free_of_charge = len(shares) > 1 and any(not s.regret_usd for s in shares)
        if simple and not free_of_charge:
            return shares, _seated(case.job, ground, shares, alternative, row)
        paid = repayment(case, ground, shares)
        found = None if paid is None else gang_victims.pruned(case, paid)
        if found is not None:
            return found
    return None


_Choice = tuple[float, int, int, int, tuple[Share, ...]]
"""Regret, number of victims, alternative, row, victims: the least one is the best."""


def _cheapest(case: Case, ground: Ground, most: int) -> list[_Choice]:
    """The best choices, at most one a node; the answer does not depend on how tight bounds are."""
    found: list[_Choice] = []
    bounds = Bounds.of(case.snapshot, case.running)
    for alternative in case.alternatives:
        part = case.parts(alternative)[0]
        floor, kept = _floor(case, ground, bounds, part)
        while floor.size:
            row = _next(floor, alternative, found[-1] if len(found) == most else None)
            if row < 0:
                break
            node = case.snapshot.nodes[row]
            assert node is not None
            groups = ground.shares_on(node.id)
            plot, bound = ground.row(row), float(floor[row])
            least = cheapest(plot, node.id, part.request, groups, ground.allows, bound)
            own = case.rights.borrowed or part.request.custom or row in ground.withheld
            own = own or any(seat.job in case.spared for seat in case.running.on(node.id))
            if kept is not None and bound != ROOM and not own:  # else it holds for this job only
                kept.learn(row, least[0] if least else np.inf, case.now_ms)
            floor[row] = np.inf
            if least is not None:
                found.append((least[0], len(least[1]), alternative, row, least[1]))
                found.sort(key=lambda choice: choice[:4])
                del found[most:]
                if most == 1 and not least[1]:
                    return found
    return found


def _but_spared(case: Case, open: Bool) -> Bool:
    """Without the nodes where all that runs is spared. Bounds know nothing of that, and would take
    those nodes for the best."""
    if not case.spared:
        return open
    running, row, left = case.running, case.snapshot.row, open.copy()
    for job in case.spared:
        for seat in running.seats(job):
            at = row.get(seat.node)
            if at is not None and all(x.job in case.spared for x in running.on(seat.node)):
                left[at] = False
    return left


MOST_SEATS = 128
"""Seats of the few queues it may take from, up to which only their nodes are looked at."""


def _floor(case: Case, ground: Ground, bounds: Bounds, part: Part) -> tuple[Float, Kept | None]:
    """By row the least that a place can cost, and where to note better knowledge."""
    rights, snapshot = case.rights, case.snapshot
    if rights.priority is Priority.BATCH and not rights.moves:
        nodes: set[NodeId] = set()
        for share in eligible(ground):
            nodes.update(seat.node for seat in share.seats)
            if len(nodes) > MOST_SEATS:
                break
        else:
            floor = np.full(snapshot.rows, np.inf)
            rows = [snapshot.row[node] for node in nodes if node in snapshot.row]
            floor[rows] = 0.0
            floor[part.slots(case, np.arange(snapshot.rows)) > 0] = ROOM
            floor[~part.open] = np.inf
            return floor, None
    return bounds.least(part.request, _but_spared(case, part.open), rights, case.now_ms)


def _next(floor: Float, alternative: int, worst: _Choice | None) -> int:
    """The row to look at next, the one of the least bound; -1 when none can be better."""
    row = int(floor.argmin())
    least = floor[row]
    if worst is None or least == np.inf:
        return -1 if least == np.inf else row
    if least > worst[0]:
        return -1
    rows = np.flatnonzero(floor <= worst[0])
    earlier = (rows < worst[3]) if alternative == worst[2] else alternative < worst[2]
    rows = rows[(floor[rows] < worst[0] * ROUNDING * ROUNDING) | earlier]
    return int(rows[floor[rows].argmin()]) if len(rows) else -1


def _seated(job: Job, ground: Ground, shares: Sequence[Share], alternative: int, row: int) -> Plan:
    """The plan on a node whose victims have gone."""
    for share in shares:
        ground.take_away(share)
    node = ground.snapshot.nodes[row]
    assert node is not None
    devices = ground.row(row).take(job.alternatives[alternative])
    return Plan(job.id, alternative, (Seat(node.id, devices),))


def _eviction(case: Case, shares: Sequence[Share], seated: Plan) -> Eviction:
    return Eviction(
        job=case.job.id,
        victims=tuple(s.key[0] for s in shares if s.key[1] == WHOLE and not s.to_width),
        plan=seated,
        regret_usd=sum(share.regret_usd for share in shares),
        shrink=tuple((s.key[0], s.to_width) for s in shares if s.to_width),
        tasks=tuple(s.key for s in shares if s.key[1] != WHOLE),
    )


def _nobody(case: Case) -> NoVictims:
    counts = dict.fromkeys(Spared, 0)
    for occupant in case.running.occupants.values():
        if occupant.stopping:
            counts[Spared.STOPPING] += 1
        elif case.rights.title(occupant) is None:
            counts[Spared.RIGHTS] += 1
        elif case.now_ms < occupant.preemptible_at_ms:
            counts[Spared.EARLY] += 1
        else:
            counts[Spared.USELESS] += 1
    reason = Obstacle.NOWHERE if counts[Spared.USELESS] else Obstacle.RIGHTS
    return NoVictims(case.job.id, reason, {k: n for k, n in counts.items() if n})
