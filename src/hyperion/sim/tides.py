"""Prices that rise and fall in a seeded world, and jobs that go where they are low."""

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.model.job import Objective
from hyperion.sim.geography import MARKET
from hyperion.sim.network import FAULTS_END_MS
from hyperion.sim.workload import Arrival

if TYPE_CHECKING:
    from hyperion.sim.world import World

EVERY_MS = 1200
EXPECTED_S = 40 * 3600.0
"""What jobs say, so that hours seem to be left to save in."""
DEAR = Objective(carbon=10.0, carbon_usd_per_tonne=1e6)
"""So that a second in the wrong place weighs as much as a move."""


def wandering(arrivals: Iterable[Arrival], seed: int) -> Iterator[Arrival]:
    """The same arrivals, most of which may be moved while they run."""
    dice = random.Random(seed + 6)
    for arrival in arrivals:
        job = arrival.job
        if job.array is None and dice.random() < 0.8:
            kept = replace(job.checkpoint, every_s=0.5)
            job = replace(job, migrate=True, expected_s=EXPECTED_S, checkpoint=kept, objective=DEAR)
        yield replace(arrival, job=job)


class Tides:
    """Tells the federation of another market now and then, until the faults have ended."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed + 7)
        world.after(0, self._turn)

    def _turn(self) -> None:
        world, dice = self._world, self._dice
        regions = {
            name: replace(region, carbon_g_per_kwh=dice.choice((1.0, 100.0, 3000.0)))
            for name, region in MARKET.regions.items()
        }
        view = replace(MARKET, regions=regions)
        world.deliver(world.processes["federation"], m.MarketQuoted(view))
        if world.now_ms < FAULTS_END_MS:
            world.after(EVERY_MS, self._turn)
