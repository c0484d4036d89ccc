"""Places for jobs that wait together: whoever would lose most elsewhere is served first.

One by one, in the order of their turns, an earlier job may take the last room of a cluster that it
hardly gains from, and leave a later one to a far dearer place. A batch holds the jobs that would
find room one by one, and no others; it gives the same rooms so that the sum of their costs is less,
or exactly as one by one if it finds nothing better.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.placement.choice import Ask, FleetCluster, Place, asked_in_all
from hyperion.placement.rooms import Amounts, RoomColumns, Rooms

Places = tuple[Place, ...]
Assigned = list[list[int]]
"""By likes: the option of each of its jobs, the best first."""
LEAST_GAIN = 1e-9
"""Part of the sum of costs that another assignment must save, or all stay as one by one."""


class Option(NamedTuple):
    """A cluster where a job could run, in one of the ways in which it can."""

    cluster: int
    way: int
    """Of the rooms."""
    cost: float
    place: int
    """Which of the ranked places."""


class Likes:
    """Jobs of a batch that no ranking can tell apart."""

    __slots__ = ("asked", "count", "first", "options", "places")

    def __init__(self, job: Job, places: Places, rooms: Rooms, columns: dict[str, int]) -> None:
        self.places = places
        self.options = _options(places, rooms, columns)
        """Of those that have room when the batch begins, best first."""
        asked = asked_in_all(job)
        self.asked: Amounts = (asked.gpus, asked.cpus_milli, asked.memory_mib)
        self.count = 0
        self.first = 0
        """The first option with room, one by one."""


class Seat(NamedTuple):
    """What a job of the batch gets."""

    ranked: Places
    places: Places
    """The same; those that it does not get for want of room say so."""
    chosen: Place


Assign = Callable[["Contest"], Assigned]


class Contest(NamedTuple):
    """What an exact policy is asked: everybody's options, and the answer to do better than."""

    likes: Sequence[Likes]
    rooms: Rooms
    """As the batch began."""
    start: Assigned


class Batch:
    """Jobs drawn in the order of their turns, as long as each still finds room after the others."""

    def __init__(self, fleet: Sequence[FleetCluster]) -> None:
        self._rooms = Rooms(fleet)
        self._began = list(self._rooms.ahead)
        self._columns = {str(member.cluster.id): n for n, member in enumerate(fleet)}
        self._likes: dict[Hashable, Likes] = {}
        self._drawn: list[tuple[Likes, int]] = []
        """(likes, option one by one) of each member."""
        self.contested = False
        """Somebody does not get the best place that had room."""

    def __len__(self) -> int:
        return len(self._drawn)

    def knows(self, key: Hashable) -> bool:
        return key in self._likes

    def places(self, key: Hashable) -> Places:
        return self._likes[key].places

    def meet(self, key: Hashable, job: Job, places: Places) -> None:
        """Jobs with this key are ranked so. Only while the fleet is as the batch began with it."""
        self._likes[key] = Likes(job, places, self._rooms, self._columns)

    def take(self, key: Hashable) -> bool:
        """Draw a job that has been met; False, and nothing changes, if there is no room for it."""
        likes = self._likes[key]
        options, at = likes.options, likes.first
        while at < len(options) and not self._rooms.has_room(options[at].way, options[at].cluster):
            at += 1
        likes.first = at
        if at == len(options):
            return False
        self._rooms.take(options[at].cluster, likes.asked)
        likes.count += 1
        self._drawn.append((likes, at))
        self.contested |= at > 0
        return True

    def settle(self, exact: Assign | None = None) -> Iterator[Seat]:
        """A seat for each that was drawn, in that order. ``exact`` may find what is better yet."""
        given = self._assign(exact)
        shown: dict[tuple[int, int], tuple[Places, Place]] = {}
        for likes, alone in self._drawn:
            chosen = alone if given is None else given[id(likes)].pop(0)
            key = (id(likes), chosen)
            if key not in shown:
                shown[key] = _shown(likes, chosen, yielded=given is not None)
            yield Seat(likes.places, *shown[key])

    def _assign(self, exact: Assign | None) -> dict[int, list[int]] | None:
        """The options by likes; None: as one by one."""
        if not self.contested or len(self._drawn) < 2:
            return None
        likes = [each for each in self._likes.values() if each.count]
        self._rooms.ahead = self._began
        alone: Assigned = [[] for _ in likes]
        number = {id(each): n for n, each in enumerate(likes)}
        for each, option in self._drawn:
            alone[number[id(each)]].append(option)
        best = alone
        regretful = by_regret(likes, self._rooms)
        if regretful is not None and _saves(likes, regretful, alone):
            best = regretful
        if exact is not None:
            start = [list(given) for given in best]  # it may write on what it is given
            found = exact(Contest(likes, self._rooms.copy(), start))
            if _saves(likes, found, best) and holds(likes, self._rooms, found):
                best = found
        if best is alone:
            return None
        return {id(each): sorted(given) for each, given in zip(likes, best, strict=True)}


def by_regret(likes: Sequence[Likes], rooms: Rooms) -> Assigned | None:
    """Greedy: next is always who would pay most for its second best. None if somebody is left
    without room. Of equals the one that was drawn first."""
    return _Regret(likes, rooms).assigned()


class _Regret:
    """The best and second best option with room of all likes, kept up to date."""

    def __init__(self, likes: Sequence[Likes], rooms: Rooms) -> None:
        self.likes = likes
        self.rooms = RoomColumns(rooms)
        self.open = [self.rooms.open(cluster) for cluster in range(len(rooms.fleet))]
        self.best = [0] * len(likes)
        self.second = [1] * len(likes)
        self.left = [each.count for each in likes]
        self.regret = np.zeros(len(likes))
        self.of_way = _by_way(likes, len(rooms.limits))
        for n in range(len(likes)):
            self._look(n)

    def assigned(self) -> Assigned | None:
        given: Assigned = [[] for _ in self.likes]
        for _ in range(sum(self.left)):
            n = int(self.regret.argmax())
            each, at = self.likes[n], self.best[n]
            if at == len(each.options):
                return None
            given[n].append(at)
            self.left[n] -= 1
            if not self.left[n]:
                self.regret[n] = -np.inf
            self._take(each.options[at].cluster, each.asked)
        return given

    def _take(self, cluster: int, asked: Amounts) -> None:
        self.rooms.take(cluster, asked)
        now = self.rooms.open(cluster)
        closed = np.flatnonzero(self.open[cluster] & ~now)
        if len(closed):
            self.open[cluster] = now
            for way in closed.tolist():
                n = self.of_way[way]
                if self.left[n]:
                    self._look(n)

    def _look(self, n: int) -> None:
        """Its best and second best once more: what is closed stays closed."""
        options = self.likes[n].options
        best = self._next(options, self.best[n])
        second = self._next(options, max(self.second[n], best + 1))
        self.best[n], self.second[n] = best, second
        if second < len(options):
            self.regret[n] = options[second].cost - options[best].cost
        else:
            self.regret[n] = np.inf

    def _next(self, options: Sequence[Option], at: int) -> int:
        while at < len(options) and not self.open[options[at].cluster][options[at].way]:
            at += 1
        return at


def holds(likes: Sequence[Likes], rooms: Rooms, given: Assigned) -> bool:
    """Whether each has room when its turn comes, in the order given here. Where all clusters have
    nodes of one shape the order does not matter."""
    left = rooms.copy()
    for each, options in zip(likes, given, strict=True):
        if len(options) != each.count:
            return False
        for at in options:
            option = each.options[at]
            if not left.has_room(option.way, option.cluster):
                return False
            left.take(option.cluster, each.asked)
    return True


def cost(likes: Sequence[Likes], given: Assigned) -> float:
    """Of all of them together, in the policy's unit."""
    return sum(each.options[at].cost for each, ats in zip(likes, given, strict=True) for at in ats)


def _saves(likes: Sequence[Likes], given: Assigned, before: Assigned) -> bool:
    was = cost(likes, before)
    return cost(likes, given) < was - LEAST_GAIN * max(1.0, abs(was))


def _options(places: Places, rooms: Rooms, columns: dict[str, int]) -> list[Option]:
    """One for each cluster and alternative: its first place that has room as the batch begins."""
    seen: set[tuple[str, int]] = set()
    found: list[tuple[int, Place]] = []
    asks: dict[int, list[tuple[int, tuple[Ask, ...]]]] = {}
    for n, place in enumerate(places):
        key = (place.cluster, place.alternative)
        if place.refusal is None and place.joined and place.has_room and key not in seen:
            seen.add(key)
            found.append((n, place))
            asks.setdefault(place.alternative, []).append((columns[place.cluster], place.asks))
    ways = {alternative: rooms.add(each) for alternative, each in asks.items()}
    return [Option(columns[p.cluster], ways[p.alternative], p.cost, n) for n, p in found]


def _by_way(likes: Sequence[Likes], ways: int) -> list[int]:
    """Whose each way is."""
    found = [0] * ways
    for n, each in enumerate(likes):
        for option in each.options:
            found[option.way] = n
    return found


def _shown(likes: Likes, chosen: int, *, yielded: bool) -> tuple[Places, Place]:
    """The places, with what became of the better ones, and the chosen one."""
    option = likes.options[chosen]
    place = likes.places[option.place]
    if not chosen:
        return likes.places, place
    passed = [likes.places[o.place] for o in likes.options[:chosen]]
    better = {(p.cluster, p.alternative) for p in passed}
    places = tuple(
        replace(p, has_room=False, yielded=yielded) if (p.cluster, p.alternative) in better else p
        for p in likes.places
    )
    return places, place
