"""Budgets set and dropped at random in worlds where all else goes wrong: all ends well."""

import pytest

from hyperion.control import bill_records as b
from hyperion.model.job import JobPhase
from hyperion.sim.faults import PROFILES
from hyperion.sim.purses import Purses
from hyperion.sim.workload import size_of
from hyperion.sim.world import World

SEEDS = 8
"""Of each mixture of faults."""


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_jobs_are_held_and_paused_and_all_end(profile):
    """The laws of the state, with those of the bill, are looked at every 25 steps; at the end
    everything has ended, a restart finds what was held, and no replica ran twice."""
    held = paused = reached = 0
    for seed in range(SEEDS):
        world = World(seed, PROFILES[profile], size_of(seed))
        Purses(world, seed)
        federation = world.processes["federation"]
        apply = type(federation.machine).apply

        def counted(machine, record, apply=apply):
            nonlocal held, paused, reached
            status = getattr(record, "status", None)
            if status is not None and getattr(status, "held", ""):
                held += status.phase is JobPhase.QUEUED
                paused += status.phase is JobPhase.STOPPING
            reached += isinstance(record, b.BudgetReached)
            apply(machine, record)

        type(federation.machine).apply = counted
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"profile {profile}, seed {seed}: {broken}") from broken
        finally:
            type(federation.machine).apply = apply
        world.federation.state.check()
        assert not world.federation.state.budgets.held
    assert min(held, paused, reached) > 0, "worlds in which nobody waited prove little"
