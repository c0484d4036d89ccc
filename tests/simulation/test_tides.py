"""Running jobs that go where prices are low, in worlds where all else goes wrong."""

import pytest

from hyperion.sim.faults import PROFILES
from hyperion.sim.workload import Size
from hyperion.sim.world import World

SEEDS = 6
"""Of each mixture of faults."""


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_jobs_are_moved_run_never_twice_and_end(profile):
    """The laws are the world's own; here is seen that there was something to be lawful about."""
    moved = 0
    for seed in range(SEEDS):
        world = World(seed, PROFILES[profile], Size(tides=True, varied=seed % 2 == 1))
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"profile {profile}, seed {seed}: {broken}") from broken
        moved += sum(known.status.moves for known in world.federation.state.jobs.values())
    assert moved >= SEEDS, "worlds in which nobody was moved prove little"
