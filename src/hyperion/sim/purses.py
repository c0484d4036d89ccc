"""Budgets in a seeded world: somebody sets, raises and drops them while all else goes wrong."""

import random
from typing import TYPE_CHECKING

from hyperion.control import messages as m
from hyperion.control.bill_records import Budget, Then
from hyperion.sim.network import FAULTS_END_MS

if TYPE_CHECKING:
    from hyperion.sim.world import World

TENANTS = ("user:sim", "user:ann", "user:bob", "queue:default")
THEN: tuple[Then, ...] = ("warn", "hold", "pause", "pause")
LARGEST_USD = 0.05
"""About what the jobs of a small world cost in half of its time."""
EVERY_MS = 2500


class Purses:
    """Acts from the beginning of the world until the faults have ended; then nothing is limited."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed + 3)
        world.after(EVERY_MS, self._turn)

    def _turn(self) -> None:
        world, dice = self._world, self._dice
        federation = world.processes["federation"]
        if world.now_ms < FAULTS_END_MS:
            tenant = dice.choice(TENANTS)
            if dice.random() < 0.25:
                world.deliver(federation, m.BudgetDropAsked(tenant))
            else:
                usd, then = dice.uniform(0, LARGEST_USD), dice.choice(THEN)
                world.deliver(
                    federation,
                    m.BudgetApplied(Budget(tenant=tenant, usd=usd, per="day", then=then)),
                )
        else:
            for tenant in TENANTS:
                world.deliver(federation, m.BudgetDropAsked(tenant))
        world.after(EVERY_MS, self._turn)
