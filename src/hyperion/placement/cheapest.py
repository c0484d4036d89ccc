"""The cheapest shares to give up on one node so that one more replica fits there."""

from collections.abc import Callable, Sequence

from hyperion.model.ids import NodeId
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.ground import Share, give
from hyperion.placement.trial import TrialRow

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
    row: TrialRow,
    node: NodeId,
    asked: ResourceRequest,
    groups: Sequence[Group],
    allows: Callable[[Sequence[Share]], bool],
) -> Found | None:
    """(what it costs, what to give up): the least sum, and of equal ones the fewest shares; None
    if nothing helps. The row is left as it was found."""
    if row.has_room(asked):
        return 0.0, ()
    return _Search(row, node, asked, groups, allows).best()


class _Search:
    def __init__(
        self,
        row: TrialRow,
        node: NodeId,
        asked: ResourceRequest,
        groups: Sequence[Group],
        allows: Callable[[Sequence[Share]], bool],
    ) -> None:
        self.row = row
        self.asked = asked
        self.allows = allows
        self.cost = _INF
        self.chosen: tuple[Share, ...] = ()
        self.steps = 0
        self.lack = _lack(row, asked)
        self.seats = {
            id(way): [s for s in way.seats if s.node == node] for ways in groups for way in ways
        }
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
            give(self.row, self.seats[id(way)], 1)
        fits = self.row.has_room(self.asked)
        dearest = sorted(kept, key=lambda way: way.key, reverse=True)
        dearest.sort(key=lambda way: -way.regret_usd)
        for way in dearest if fits else ():
            give(self.row, self.seats[id(way)], -1)
            if self.row.has_room(self.asked):
                kept.remove(way)
            else:
                give(self.row, self.seats[id(way)], 1)
        for way in kept:
            give(self.row, self.seats[id(way)], -1)
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
                give(self.row, self.seats[id(way)], 1)
                self._branch(at + 1, cost + way.regret_usd, chosen)
                give(self.row, self.seats[id(way)], -1)
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
        return sum(seat.request.disk_mib for seat in seats)


def _lack(row: TrialRow, asked: ResourceRequest) -> tuple[int, int, int, int]:
    """How much is short of GPUs (of a fraction: of one GPU with room), CPUs, memory, disk."""
    if asked.gpus_milli >= MILLI:
        gpus = asked.whole_gpus - row.whole
    else:
        short = asked.gpus_milli and row.part < asked.gpus_milli and row.whole <= 0
        gpus = int(bool(short))
    return (
        gpus,
        asked.cpus_milli - row.cpus,
        asked.memory_mib - row.memory,
        asked.disk_mib - row.disk,
    )
