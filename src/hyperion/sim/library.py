"""Datasets in a seeded world: jobs read and write them, somebody adds and drops copies."""

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.job import DatasetRead, DatasetWrite
from hyperion.sim.geography import REGIONS
from hyperion.sim.network import FAULTS_END_MS
from hyperion.sim.workload import Arrival

if TYPE_CHECKING:
    from hyperion.sim.world import World

NAMES = ("books", "films", "songs")
EVERY_MS = 1500
LARGEST_GIB = 3.0
"""26 s on the way: some copies arrive before the world ends, and some later."""


def reading(arrivals: Iterable[Arrival], seed: int) -> Iterator[Arrival]:
    """The same arrivals, most of which read or write datasets."""
    dice = random.Random(seed + 4)
    for arrival in arrivals:
        names = dice.sample(NAMES, dice.randrange(len(NAMES)))
        reads = tuple(DatasetRead(name, dice.choice((0.2, 1.0, 3.0))) for name in names)
        writes = (DatasetWrite(dice.choice(NAMES), dice.random()),) if dice.random() < 0.2 else ()
        yield replace(arrival, job=replace(arrival.job, reads=reads, writes=writes))


class Library:
    """Acts from the beginning of the world until the faults have ended."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed + 5)
        for name in NAMES:
            self._add(name, REGIONS[0])
        world.after(0, self._turn)

    def _turn(self) -> None:
        world, dice = self._world, self._dice
        name, region = dice.choice(NAMES), dice.choice(REGIONS)
        if dice.random() < 0.5:
            self._add(name, region)
        else:
            which = "" if dice.random() < 0.2 else region
            world.deliver(world.processes["federation"], m.DatasetDropAsked(name, which))
        if world.now_ms < FAULTS_END_MS:
            world.after(EVERY_MS, self._turn)

    def haul(self, wish: m.HaulCopy) -> None:
        """The site's hook: slow, and now and then it fails, or reports twice."""
        error = "no space left" if self._dice.random() < 0.3 else ""
        said = m.CopyReported(wish.dataset, wish.region, wish.wanted, error)
        federation = self._world.processes["federation"]
        for _ in range(self._dice.choice((1, 1, 2))):
            self._world.after(
                self._dice.randrange(1, 8000), lambda: self._world.deliver(federation, said)
            )

    def _add(self, name: str, region: str) -> None:
        size_gib = self._dice.uniform(0.1, LARGEST_GIB)
        dataset = Dataset(name=name, size_gib=size_gib, copies=(Copy(region),))
        self._world.deliver(self._world.processes["federation"], m.DatasetApplied(dataset))
