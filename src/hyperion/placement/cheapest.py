"""The cheapest shares to give up on one node so that one more replica fits there."""

from collections.abc import Callable, Sequence

from hyperion.model.allocation import Allocation
from hyperion.model.ids import NodeId
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.ground import Share
from hyperion.placement.plot import Plot

MOST_GROUPS = 48
"""Up to so many jobs on a node the answer is exact; with more the cheapest are tried first and
those not needed are left alone."""
MOST_STEPS = 4_000
"""Branches looked at for one node; a bound that random nodes do not come near."""
_INF = float("inf")
_ROUNDING = 1.0 - 1e-12
"""Sums in another order may differ in their last bits; a bound must not exceed them for that."""

Group = list[Share]
Found = tuple[float, tuple[Share, ...]]


def cheapest(
    row: Plot,
    node: NodeId,
    asked: ResourceRequest,
    groups: Sequence[Group],
    allows: Callable[[Sequence[Share]], bool],
    bound_usd: float = 0.0,
) -> Found | None:
    """(what it costs, what to give up): the least sum, and of equal ones the fewest shares; None
    if nothing helps. The row is left as it was found. ``bound_usd`` is known to be the least."""
    if row.has_room(asked):
        return 0.0, ()
    alone = _alone(row, node, asked, groups, allows)
    if alone is not None and alone.regret_usd * _ROUNDING <= bound_usd:
        return alone.regret_usd, (alone,)
    return _Search(row, node, asked, groups, allows, alone).best()


def _alone(
    row: Plot,
    node: NodeId,
    asked: ResourceRequest,
    groups: Sequence[Group],
    allows: Callable[[Sequence[Share]], bool],
) -> Share | None:
    """The cheapest share that is enough by itself."""
    best: Share | None = None
    for ways in groups:
        for way in ways:
            if best is None or way.regret_usd < best.regret_usd:
                here = _here(way, node)
                row.give(here)
                if row.has_room(asked) and allows((way,)):
                    best = way
                row.give(here, -1)
    return best


def _here(share: Share, node: NodeId) -> Sequence[Allocation]:
    """Its seats on this node."""
    seats = share.seats
    return seats if len(seats) == 1 else [seat for seat in seats if seat.node == node]


class _Search:
    def __init__(
        self,
        row: Plot,
        node: NodeId,
        asked: ResourceRequest,
        groups: Sequence[Group],
        allows: Callable[[Sequence[Share]], bool],
        alone: Share | None,
    ) -> None:
        self.row = row
        self.asked = asked
        self.allows = allows
        self.cost = _INF if alone is None else alone.regret_usd
        self.chosen: tuple[Share, ...] = () if alone is None else (alone,)
        self.steps = 0
        self.lack = _lack(row, asked)
        self.seats = {id(way): _here(way, node) for ways in groups for way in ways}
        self.dimension = next(d for d, lack in enumerate(self.lack) if lack > 0)
        """Branches are bounded by the first thing that is short: GPUs, if they are."""
        ranked = []
        for ways in groups:
            gains = [min(self._gain(way), self.lack[self.dimension]) for way in ways]
            useful = [(w.regret_usd / g if g else _INF) for w, g in zip(ways, gains, strict=True)]
            ranked.append((min(useful), max(gains), ways))
        ranked.sort(key=lambda entry: (entry[0], entry[2][0].key))
        self.ranked = ranked
        self.most_gain = [max(g for _, g, _ in ranked[i:]) for i in range(len(ranked))]

    def best(self) -> Found | None:
        if not self._pare():
            return None
        if len(self.ranked) <= MOST_GROUPS:
            self._branch(0, 0.0, [])
        return None if self.cost == _INF else (self.cost, self.chosen)

    def _pare(self) -> bool:
        """All that can be had, less what is not needed, dearest first: a first answer, if no
        queue's quota stands against it. False: even all of it is not enough."""
        kept = [max(ways, key=lambda way: len(way.seats)) for _, _, ways in self.ranked]
        for way in kept:
            self.row.give(self.seats[id(way)])
        fits = self.row.has_room(self.asked)
        dearest = sorted(kept, key=lambda way: way.key, reverse=True)
        dearest.sort(key=lambda way: -way.regret_usd)
        for way in dearest if fits else ():
            self.row.give(self.seats[id(way)], -1)
            if self.row.has_room(self.asked):
                kept.remove(way)
            else:
                self.row.give(self.seats[id(way)])
        for way in kept:
            self.row.give(self.seats[id(way)], -1)
        if fits and self.allows(kept):
            self._note(sum(way.regret_usd for way in kept), kept)
        return fits

    def _branch(self, at: int, cost: float, chosen: list[Share]) -> None:
        if self.row.has_room(self.asked):
            self._note(cost, chosen)
            return
        self.steps += 1
        if at == len(self.ranked) or self.steps > MOST_STEPS:
            return
        more_usd, more = self._bound(at)
        if cost + more_usd >= self.cost * _ROUNDING and (
            cost + more_usd > self.cost or len(chosen) + more >= len(self.chosen)
        ):
            return
        for way in self.ranked[at][2]:
            chosen.append(way)
            if self.allows(chosen):
                self.row.give(self.seats[id(way)])
                self._branch(at + 1, cost + way.regret_usd, chosen)
                self.row.give(self.seats[id(way)], -1)
            chosen.pop()
        self._branch(at + 1, cost, chosen)

    def _note(self, cost: float, chosen: list[Share]) -> None:
        if (cost, len(chosen)) < (self.cost, len(self.chosen)):
            self.cost, self.chosen = cost, tuple(chosen)

    def _bound(self, at: int) -> tuple[float, int]:
        """(what the rest must cost at least, were parts of a share to be had; how many shares)."""
        lack = _lack(self.row, self.asked)[self.dimension]
        if lack <= 0:
            return 0.0, 1
        if self.most_gain[at] == 0:
            return _INF, 1
        cost, shares = 0.0, -(-lack // self.most_gain[at])
        for density, gain, _ in self.ranked[at:]:
            if lack <= 0 or not gain:
                break
            cost += density * min(gain, lack)
            lack -= gain
        return (cost if lack <= 0 else _INF), shares

    def _gain(self, way: Share) -> int:
        """How much less would be short of the dimension, at most."""
        seats = self.seats[id(way)]
        match self.dimension:
            case 0:
                if self.asked.gpus_milli < MILLI:
                    return int(any(seat.devices for seat in seats))
                return len({device for seat in seats for device in seat.devices})
            case 1:
                return sum(seat.request.cpus_milli for seat in seats)
            case 2:
                return sum(seat.request.memory_mib for seat in seats)
            case 3:
                return sum(seat.request.disk_mib for seat in seats)
        name = self.asked.custom[self.dimension - 4][0]
        return sum(n for seat in seats for other, n in seat.request.custom if other == name)


def _lack(row: Plot, asked: ResourceRequest) -> list[int]:
    """How much is short of GPUs (of a fraction: of one GPU with room), CPUs, memory, disk, and
    countables of the site; of what is not asked for, nothing."""
    if asked.gpus_milli >= MILLI:
        gpus = asked.whole_gpus - (row.whole - row.kept)
    else:
        gpus = int(asked.gpus_milli > 0 and row.part < asked.gpus_milli and row.whole <= row.kept)
    return [
        gpus,
        asked.cpus_milli - row.cpus if asked.cpus_milli else 0,
        asked.memory_mib - row.memory if asked.memory_mib else 0,
        asked.disk_mib - row.disk if asked.disk_mib else 0,
        *(need - row.custom.get(name, 0) if need else 0 for name, need in asked.custom),
    ]
