"""A cluster as it would be once those that are being stopped, and victims, have gone.

What may be given up is cut into *shares*: a whole job, one task of an array, or the last ranks
of an elastic job. Nothing here changes the snapshot.
"""

from collections.abc import Container, Iterable, Iterator, Mapping

from msgspec import Struct

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId, NodeId, QueueName
from hyperion.placement.occupant import Occupant
from hyperion.placement.plot import Plot
from hyperion.placement.quota import need_of
from hyperion.placement.regret import NEVER, regret_usd, task_terms
from hyperion.placement.rights import Rights, Title
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.wishes import Withheld

Key = tuple[JobId, int]
"""Of two shares with the same key at most one is given up: a job, or a task of an array."""
WHOLE = -1


class Share(Struct, frozen=True, eq=False):
    """Something that can be given up, what that costs, and the seats that it frees."""

    key: Key
    regret_usd: float
    seats: tuple[Allocation, ...]
    to_width: int = 0
    """An elastic job goes on with so many replicas; 0: with none."""
    reclaims: bool = False
    """Its queue must keep its own quota."""


class Ground:
    """Rows are made when they are asked for, and follow what is taken away and brought back."""

    def __init__(
        self,
        snapshot: Snapshot,
        running: Running,
        rights: Rights,
        now_ms: int,
        withheld: Mapping[int, Withheld],
    ) -> None:
        self.snapshot = snapshot
        self.running = running
        self.rights = rights
        self.now_ms = now_ms
        self.withheld = withheld
        """By row, what must stay free."""
        self.spared: Container[JobId] = ()
        """Jobs that are left alone, whatever the rights."""
        self.gone: dict[Key, Share] = {}
        self._rows: dict[int, Plot] = {}
        self._shares: dict[JobId, tuple[Title | None, float]] = {}
        self._whole: dict[JobId, Share] = {}
        self._surplus = {queue: dict(need) for queue, need in rights.borrowed}

    def row(self, row: int) -> Plot:
        found = self._rows.get(row)
        if found is None:
            found = self._rows[row] = Plot(self.snapshot, row, self.withheld.get(row))
            node = self.snapshot.nodes[row]
            assert node is not None
            for seat in self.running.on(node.id):
                share = None if self.running.leaves(seat) else self._gone(seat)
                if self.running.leaves(seat) or (share is not None and seat in share.seats):
                    found.give((seat,))
        return found

    @property
    def seen(self) -> Iterable[int]:
        """The rows that may differ from what the snapshot makes of them."""
        return list(self._rows)

    def take_away(self, share: Share) -> None:
        """Count all its seats as free, wherever they are."""
        self.gone[share.key] = share
        self._give(share, 1)

    def bring_back(self, share: Share) -> None:
        del self.gone[share.key]
        self._give(share, -1)

    def shares_on(self, node: NodeId) -> list[list[Share]]:
        """What may be given up here: for each job or task its ways, at most one of which counts;
        in order of the ids."""
        found: dict[Key, list[Share]] = {}
        for seat in self.running.on(node):
            if self.running.leaves(seat):
                continue
            occupant = self.running.occupants[seat.job]
            title, regret = self._standing(occupant)
            if title is None:
                continue
            if occupant.array:
                self._add_task(found, occupant, seat, title)
            elif regret < NEVER:
                self._add_job(found, occupant, seat, title, regret)
        return [found[key] for key in sorted(found)]

    def shares_of(self, job: JobId) -> Iterator[Share]:
        """The whole job, or each task of an array, as far as it may be given up."""
        occupant = self.running.occupants[job]
        title, regret = self._standing(occupant)
        if title is None:
            return
        if not occupant.array:
            if regret < NEVER and (job, WHOLE) not in self.gone:
                yield self._whole_of(occupant, title, regret)
            return
        tasks: dict[Key, list[Share]] = {}
        for seat in self.running.seats(job):
            if not self.running.leaves(seat):
                self._add_task(tasks, occupant, seat, title)
        for ways in tasks.values():
            yield ways[0]

    def allows(self, shares: Iterable[Share]) -> bool:
        """Whether no queue would be pushed below its own quota; if not, more of them would not."""
        if not self._surplus:
            return True
        taken: dict[tuple[QueueName, str], int] = {}
        for share in shares:
            if share.reclaims:
                queue = self.running.occupants[share.key[0]].queue
                for name, amount in self.amounts(share.seats).items():
                    taken[queue, name] = taken.get((queue, name), 0) + amount
        return all(
            amount <= self._surplus[queue].get(name, amount)
            for (queue, name), amount in taken.items()
        )

    def amounts(self, seats: Iterable[Allocation]) -> dict[str, int]:
        """What seats take of quotas, by resource."""
        total: dict[str, int] = {}
        for seat in seats:
            r = seat.request
            gpu_type = r.gpu_type
            if r.gpus_milli and seat.node in self.snapshot.row:
                row = self.snapshot.row[seat.node]
                gpu_type = self.snapshot.groups[self.snapshot.group[row]].capacity.gpu_type
            need = need_of(r, gpu_type)
            if not total:
                total = dict(need)
                continue
            for name, amount in need:
                total[name] = total.get(name, 0) + amount
        return total

    def repays(self, shares: Iterable[Share]) -> bool:
        """Whether the quota that is owed would be free again."""
        if not self.rights.owed:
            return True
        creditors = {*self.rights.holders, self.rights.queue}
        back = self.amounts(
            seat
            for share in shares
            if self.running.occupants[share.key[0]].queue in creditors
            for seat in share.seats
        )
        return all(back.get(name, 0) >= amount for name, amount in self.rights.owed)

    # -- shares ---------------------------------------------------------------------------------

    def _standing(self, occupant: Occupant) -> tuple[Title | None, float]:
        found = self._shares.get(occupant.job)
        if found is None:
            spared = occupant.job in self.spared
            title = None if spared else self.rights.title(occupant)
            regret = NEVER
            if title is not None:
                width = self.running.width(occupant.job)
                regret = regret_usd(occupant, width, self.now_ms)
            found = self._shares[occupant.job] = title, regret
        return found

    def _add_task(
        self, found: dict[Key, list[Share]], occupant: Occupant, seat: Allocation, title: Title
    ) -> None:
        regret = task_terms(occupant, seat).at(self.now_ms)
        if regret == NEVER:
            return
        key = occupant.job, seat.rank
        if key not in self.gone:
            reclaims = title is Title.RECLAIM
            found[key] = [Share(key, regret, (seat,), reclaims=reclaims)]

    def _add_job(
        self,
        found: dict[Key, list[Share]],
        occupant: Occupant,
        seat: Allocation,
        title: Title,
        regret: float,
    ) -> None:
        key = occupant.job, WHOLE
        if key in self.gone:
            return
        ways = found.get(key)
        if ways is None:
            ways = found[key] = [self._whole_of(occupant, title, regret)]
        if 0 < occupant.least <= seat.rank and title is not Title.MOVE:
            all_seats = list(self.running.seats(occupant.job))
            last = tuple(s for s in all_seats if s.rank >= seat.rank)
            part = regret * len(last) / len(all_seats)
            ways.append(Share(key, part, last, seat.rank, title is Title.RECLAIM))

    def _whole_of(self, occupant: Occupant, title: Title, regret: float) -> Share:
        found = self._whole.get(occupant.job)
        if found is None:
            seats = tuple(self.running.seats(occupant.job))
            found = Share((occupant.job, WHOLE), regret, seats, reclaims=title is Title.RECLAIM)
            self._whole[occupant.job] = found
        return found

    # -- rows -----------------------------------------------------------------------------------

    def _gone(self, seat: Allocation) -> Share | None:
        return self.gone.get((seat.job, WHOLE)) or self.gone.get((seat.job, seat.rank))

    def _give(self, share: Share, sign: int) -> None:
        for seat in share.seats:
            row = self.snapshot.row.get(seat.node)
            found = None if row is None else self._rows.get(row)
            if found is not None and not self.running.leaves(seat):
                found.give((seat,), sign)
