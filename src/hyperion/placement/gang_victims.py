"""Victims for a gang: gathered greedily by regret for each place that they free, then pruned."""

import heapq
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import NodeId
from hyperion.placement.case import Case, Part
from hyperion.placement.cheapest import cheapest
from hyperion.placement.ground import Ground, Key, Share
from hyperion.placement.planner import Plan
from hyperion.placement.repayment import Surplus, repayment

Rows = NDArray[np.intp]
Found = tuple[tuple[Share, ...], Plan]
"""Whom to stop (nobody: no need, or enough are being stopped), and the plan that follows."""
MOST_SHARES = 4_096
"""Victims of one gang. More than any gang of which it is worth while."""
MOST_DOMAINS = 4
"""Parts of a level that are tried for a packed gang, the cheapest first."""


def for_gang(case: Case) -> Found | None:
    """The cheapest of the job's alternatives, by the regret of what had to be given up."""
    best: Found | None = None
    for alternative in case.alternatives:
        for shares, counted in _gathered(case, alternative):
            plan = case.plan_without(shares) if counted else None
            if plan is not None:
                found: Found | None = shares, plan
            else:
                paid = repayment(case, case.ground(), shares)
                found = None if paid is None else pruned(case, paid)
            if found is not None:
                if best is None or cost(found[0]) < cost(best[0]):
                    best = found
                break
    return best


def cost(shares: Iterable[Share]) -> float:
    return sum(share.regret_usd for share in shares)


def pruned(case: Case, shares: Sequence[Share]) -> Found | None:
    """Without those that the planner can do without, the dearest spared first; None if it has no
    plan even with all of them gone."""
    plan = case.plan_without(shares)
    if plan is None:
        return None
    kept, before = list(shares), -1
    ground = case.ground()
    while len(kept) != before:  # again, where fewer victims can make the planner choose better
        before = len(kept)
        for share in sorted(kept, key=lambda s: (-s.regret_usd, s.key)):
            fewer = [s for s in kept if s is not share]
            other = case.plan_without(fewer) if ground.repays(fewer) else None
            if other is not None:
                kept, plan = fewer, other
    return tuple(kept), plan


def _all_shares(case: Case, ground: Ground) -> list[Share]:
    """Every share that may be given up, whole jobs rather than ranks of them."""
    found: dict[Key, Share] = {}
    for row in sorted(case.snapshot.row.values()):
        node = case.snapshot.nodes[row]
        assert node is not None
        for ways in ground.shares_on(node.id):
            found.setdefault(ways[0].key, ways[0])
    return list(found.values())


def _gathered(case: Case, alternative: int) -> Iterable[tuple[tuple[Share, ...], bool]]:
    """(shares to try, whether each is known to be needed), the most promising first."""
    parts = case.parts(alternative)
    counted = len(parts) == 1 and case.counts
    offers: list[tuple[float, int, tuple[Share, ...]]] = []
    for rows in _domains(case, parts):
        gathering = _Gathering(case)
        if all(gathering.make_room(part, rows) for part in parts):
            paid = repayment(case, case.ground(), tuple(gathering.ground.gone.values()))
            if paid is None:
                continue
            chosen = _Count(case, parts[0]).needed(paid) if counted else tuple(paid)
            offers.append((cost(chosen), len(offers), chosen))
    for _, _, chosen in sorted(offers):
        yield chosen, counted
    if not counted:
        for shares in _more_and_more(case, offers[0][2] if offers else ()):
            yield shares, False


class _Count:
    """Counts places instead of planning them: quick, and the same where only amounts decide and
    perhaps a level of the topology."""

    def __init__(self, case: Case, part: Part) -> None:
        rows = np.flatnonzero(part.open)
        packing = case.job.packing
        self.case = case
        self.part = part
        self.domain = np.zeros(case.snapshot.rows, np.int64)
        if packing is not None and packing.required:
            self.domain[:] = case.snapshot.labels.parts(packing.level, case.snapshot.rows)[0]
        slots = part.slots(case, rows)
        self.slots = dict(zip(rows.tolist(), slots.tolist(), strict=True))
        self.total = np.bincount(self.domain[rows], slots)

    def needed(self, shares: Sequence[Share]) -> tuple[Share, ...]:
        """Those without which there would be too few places, the dearest spared first."""
        ground = self.case.ground()
        for share in shares:
            ground.take_away(share)
        for share in shares:
            self._recount(ground, share)
        kept = list(shares)
        for share in sorted(shares, key=lambda s: (-s.regret_usd, s.key)):
            fewer = [s for s in kept if s is not share]
            ground.bring_back(share)
            self._recount(ground, share)
            if self.total.max() >= self.part.replicas and ground.repays(fewer):
                kept = fewer
            else:
                ground.take_away(share)
                self._recount(ground, share)
        return tuple(kept)

    def _recount(self, ground: Ground, share: Share) -> None:
        for row in _rows_of(self.case, share):
            if row in self.slots:
                now = ground.row(row).slots(self.part.request, self.part.replicas)
                self.total[self.domain[row]] += now - self.slots[row]
                self.slots[row] = now


def _rows_of(case: Case, share: Share) -> set[int]:
    row = case.snapshot.row
    return {row[seat.node] for seat in share.seats if seat.node in row}


def _more_and_more(case: Case, chosen: tuple[Share, ...]) -> Iterable[tuple[Share, ...]]:
    """Where amounts did not decide: twice as many victims each time, in order of regret."""
    ground = case.ground()
    surplus = Surplus(ground)
    for share in chosen:
        surplus.take(share, ground.amounts(share.seats))
    taken = {share.key for share in chosen}
    rest = []
    for share in sorted(_all_shares(case, ground), key=lambda s: (s.regret_usd, s.key)):
        amounts = ground.amounts(share.seats)
        if share.key not in taken and surplus.allows(share, amounts):
            surplus.take(share, amounts)
            rest.append(share)
    more = 1
    while more < 2 * len(rest) and more <= MOST_SHARES:
        yield (*chosen, *rest[:more])
        more *= 2


def _domains(case: Case, parts: Sequence[Part]) -> Iterable[Rows]:
    """The rows that must be enough, one set after the other: all, or the parts of a level, those
    first that seem cheapest by the bounds of their nodes."""
    rows = np.flatnonzero(np.logical_or.reduce([part.open for part in parts]))
    packing = case.job.packing
    if packing is None or not packing.required or not len(rows):
        return [rows] if len(rows) else []
    of_row, count = case.snapshot.labels.parts(packing.level, case.snapshot.rows)
    part = max(parts, key=lambda p: p.replicas)
    most = part.most(case)[rows]
    short = part.replicas - np.bincount(of_row[rows], part.slots(case, rows), count)
    possible = np.bincount(of_row[rows], most, count) >= part.replicas
    floor = part.floor(case)[rows]
    order = np.lexsort((floor, of_row[rows]))
    gained = np.cumsum(most[order])
    starts = np.searchsorted(of_row[rows][order], np.arange(count))
    before = np.concatenate([[0.0], gained])[starts]
    needed = gained - most[order] - before[of_row[rows][order]] < short[of_row[rows][order]]
    usd = np.where(np.isfinite(floor), np.maximum(floor, 0.0), 0.0)[order] * needed
    estimate = np.where(possible, np.bincount(of_row[rows][order], usd, count), np.inf)
    cheapest = np.argsort(estimate, kind="stable")[:MOST_DOMAINS]
    return [rows[of_row[rows] == d] for d in cheapest.tolist() if estimate[d] < np.inf]


class _Gathering:
    """Places of the gang that are free are taken on the ground at once, so that what counts as
    free is free for one more."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.ground = case.ground()
        self.gains: dict[Key, int] = {}
        """Places gained by whole jobs, while nothing changes on their nodes."""
        self.gaining: dict[int, set[Key]] = {}

    def make_room(self, part: Part, rows: Rows) -> bool:
        """Give up shares until all replicas of the part have places in these rows."""
        self.part = part
        self.gains.clear()
        rows = rows[part.open[rows]]
        self.rows = set(rows.tolist())
        self.short = part.replicas
        free = part.slots(self.case, rows) > 0
        for row in rows[free].tolist() + [r for r in self.ground.seen if r in self.rows]:
            self._occupy(row)
        tried: set[int] = set()
        more = max(32, 2 * self.short)
        while self.short > 0 and len(self.ground.gone) < MOST_SHARES:
            ranked = self._ranked(rows, more) - tried
            if not ranked:
                break
            self._take_cheapest(sorted(ranked))
            tried |= ranked
            more *= 4
        return self.short <= 0

    def _ranked(self, rows: Rows, most: int) -> set[int]:
        """The rows where one place can cost least, and those where it can if the node has as many
        as it could have."""
        floor = self.part.floor(self.case)[rows]
        rows, floor = rows[floor < np.inf], floor[floor < np.inf]
        if len(rows) <= most:
            return set(rows.tolist())
        each = floor / np.maximum(1, self.part.most(self.case)[rows])
        found = set(rows[np.argpartition(floor, most)[:most]].tolist())
        return found | set(rows[np.argpartition(each, most)[:most]].tolist())

    def _take_cheapest(self, rows: Sequence[int]) -> None:
        """Of what these rows offer, the cheapest for each place, until there are enough. A row is
        looked at when its bound comes first."""
        heap = [(self._bound(row), row) for row in rows]
        heapq.heapify(heap)
        untouched = set(rows)
        while self.short > 0 and heap and len(self.ground.gone) < MOST_SHARES:
            density, row = heapq.heappop(heap)
            best = self._best(row)
            untouched.discard(row)
            if best is None:
                continue
            if heap and best[0] > heap[0][0] and best[0] > density:
                heapq.heappush(heap, (best[0], row))
                continue
            for touched in (self._take(best[1]) | {row}) - untouched:
                heapq.heappush(heap, (self._bound(touched), touched))

    def _bound(self, row: int) -> float:
        """About the least regret for each place there, were the node to have all it can have."""
        floor, most = self.part.floor(self.case)[row], self.part.most(self.case)[row]
        return max(0.0, float(floor)) / max(1, min(self.short, int(most)))

    def _best(self, row: int) -> tuple[float, tuple[Share, ...]] | None:
        """(regret for each place gained anywhere, shares): the cheapest way to one more place
        here, or any one share that gains places."""
        node = self._node(row)
        groups = self.ground.shares_on(node)
        if not groups:
            return None
        gone = list(self.ground.gone.values())
        ways: list[tuple[Share, ...]] = [
            (share,) for ways in groups for share in ways if self.ground.allows([*gone, share])
        ]
        least = cheapest(
            self.ground.row(row),
            node,
            self.part.request,
            groups,
            lambda shares: self.ground.allows([*gone, *shares]),
            float(self.part.floor(self.case)[row]),
        )
        if least is not None and len(least[1]) > 1:
            ways.append(least[1])
        each = int(self.part.most(self.case)[row])
        ranked = sorted((cost(way) / self._hope(way, each), n) for n, way in enumerate(ways))
        best: tuple[float, tuple[Share, ...]] | None = None
        for hoped, n in ranked:
            if best is not None and hoped >= best[0]:
                break
            gained = self._gain(ways[n])
            if gained:
                density = cost(ways[n]) / gained
                if best is None or density < best[0]:
                    best = density, ways[n]
        return best

    def _hope(self, shares: Sequence[Share], each: int) -> int:
        """Places that giving them up could gain at most: on each node as many as on this one."""
        seats = sum(len(share.seats) for share in shares)
        return max(1, min(self.short, seats * each))

    def _gain(self, shares: Sequence[Share]) -> int:
        """Places for which there would be room, at most as many as are short."""
        key = shares[0].key
        whole = len(shares) == 1 and not shares[0].to_width
        if whole and key in self.gains:
            return min(self.gains[key], self.short)
        gained = 0
        touched = self._touched(shares)
        for row, seats in touched.items():
            trial = self.ground.row(row)
            trial.give(seats)
            gained += trial.slots(self.part.request, self.short)
            trial.give(seats, -1)
        if whole:
            self.gains[key] = gained
            for row in touched:
                self.gaining.setdefault(row, set()).add(key)
        return min(gained, self.short)

    def _take(self, shares: Sequence[Share]) -> set[int]:
        touched = set(self._touched(shares))
        for share in shares:
            self.ground.take_away(share)
        for row in sorted(touched):
            self._occupy(row)
            for key in self.gaining.pop(row, ()):
                self.gains.pop(key, None)
        return touched

    def _occupy(self, row: int) -> None:
        trial = self.ground.row(row)
        while self.short > 0 and trial.has_room(self.part.request):
            trial.take(self.part.request)
            self.short -= 1

    def _touched(self, shares: Sequence[Share]) -> dict[int, list[Allocation]]:
        found: dict[int, list[Allocation]] = {}
        for share in shares:
            for seat in share.seats:
                row = self.case.snapshot.row.get(seat.node)
                if row is not None and row in self.rows and not self.case.running.leaves(seat):
                    found.setdefault(row, []).append(seat)
        return found

    def _node(self, row: int) -> NodeId:
        node = self.case.snapshot.nodes[row]
        assert node is not None
        return node.id
