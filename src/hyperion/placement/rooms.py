"""What the clusters of a fleet still have room for while jobs are given places one after another.

The same arithmetic as the ranking's, kept up to date without ranking again.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import Capacity
from hyperion.placement.choice import Ask, FleetCluster
from hyperion.placement.vacancy import room_in, uncounted

Amounts = tuple[int, int, int]
"""GPUs and CPUs in thousandths, MiB of memory."""
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
AMPLE = 1 << 60
NEVER = -1


class Rooms:
    """Ways to run jobs, each with what it needs in the clusters where it is possible at all."""

    def __init__(self, fleet: Sequence[FleetCluster]) -> None:
        self.fleet = fleet
        self.ahead: list[Amounts] = [uncounted(member) for member in fleet]
        """By cluster: what is asked for there and not counted as used."""
        self.limits: list[dict[int, tuple[Amounts, ...]]] = []
        """By way and cluster, a shape each: up to how much ahead there is room in that shape."""
        self.slow: list[dict[int, tuple[Ask, ...]]] = []
        """The same where one comparison a shape does not tell: several roles, or a gang over
        several shapes."""

    def copy(self) -> "Rooms":
        """The same ways; what is taken in one is not taken in the other."""
        found = Rooms(())
        found.fleet, found.limits, found.slow = self.fleet, self.limits, self.slow
        found.ahead = list(self.ahead)
        return found

    def add(self, asks: Iterable[tuple[int, tuple[Ask, ...]]]) -> int:
        """A way to run: what it asks for, by cluster. Its number."""
        limits: dict[int, tuple[Amounts, ...]] = {}
        slow: dict[int, tuple[Ask, ...]] = {}
        for cluster, parts in asks:
            first = parts[0]
            if len(parts) == 1 and (first.replicas == 1 or len(first.shapes) == 1):
                limits[cluster] = tuple(_limits(first))
            else:
                slow[cluster] = parts
        self.limits.append(limits)
        self.slow.append(slow)
        return len(self.limits) - 1

    def has_room(self, way: int, cluster: int) -> bool:
        gpus, cpus, memory = self.ahead[cluster]
        gpus, cpus, memory = max(0, gpus), max(0, cpus), max(0, memory)
        limits = self.limits[way].get(cluster)
        if limits is not None:
            return any(gpus <= g and cpus <= c and memory <= m for g, c, m in limits)
        promised = Capacity(gpus=gpus, cpus_milli=cpus, memory_mib=memory)
        return all(
            sum(room_in(ask.request, shape, promised) for shape in ask.shapes) >= ask.replicas
            for ask in self.slow[way][cluster]
        )

    def take(self, cluster: int, asked: Amounts) -> None:
        gpus, cpus, memory = self.ahead[cluster]
        self.ahead[cluster] = (gpus + asked[0], cpus + asked[1], memory + asked[2])


class RoomColumns:
    """The same rooms for all ways at once: which are open in a cluster, as one vector."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.ahead: list[Amounts] = list(rooms.ahead)
        ways, self._limits = len(rooms.limits), []
        for cluster in range(len(rooms.fleet)):
            shapes = max((len(w.get(cluster, ())) for w in rooms.limits), default=0)
            table: Ints = np.full((3, max(1, shapes), ways), NEVER, np.int64)
            for way, known in enumerate(rooms.limits):
                for n, limit in enumerate(known.get(cluster, ())):
                    table[:, n, way] = limit
            self._limits.append(table)
        self._slow: list[list[int]] = [
            [way for way, known in enumerate(rooms.slow) if cluster in known]
            for cluster in range(len(rooms.fleet))
        ]

    def open(self, cluster: int) -> Mask:
        """By way: whether there is room for one more job that runs so."""
        gpus, cpus, memory = self.ahead[cluster]
        limits = self._limits[cluster]
        fits = limits[0] >= max(0, gpus)
        fits &= limits[1] >= max(0, cpus)
        fits &= limits[2] >= max(0, memory)
        found: Mask = fits[0] if len(fits) == 1 else fits.any(axis=0)
        if self._slow[cluster]:
            kept, self._rooms.ahead = self._rooms.ahead, self.ahead
            for way in self._slow[cluster]:
                found[way] = self._rooms.has_room(way, cluster)
            self._rooms.ahead = kept
        return found

    def take(self, cluster: int, asked: Amounts) -> None:
        gpus, cpus, memory = self.ahead[cluster]
        self.ahead[cluster] = (gpus + asked[0], cpus + asked[1], memory + asked[2])


def _limits(ask: Ask) -> Iterable[Amounts]:
    """By shape: what may be ahead there while its free sums still admit the replicas."""
    request, replicas = ask.request, ask.replicas
    alone = len(ask.shapes) == 1  # then there was room, or it would not be asked
    for shape in ask.shapes:
        if not alone and room_in(request, shape, _NOTHING) < replicas:
            yield NEVER, NEVER, NEVER
            continue
        yield (
            _limit(shape.free_gpus_milli, replicas * request.gpus_milli),
            _limit(shape.free_cpus_milli, replicas * request.cpus_milli),
            _limit(shape.free_memory_mib, replicas * request.memory_mib),
        )


def _limit(free: int, need: int) -> int:
    return free - need if need else AMPLE


_NOTHING = Capacity()
