"""Datasets added, moved, shared and dropped in worlds where all else goes wrong."""

import pytest

from hyperion.control import dataset_records as d
from hyperion.placement import replication
from hyperion.sim.faults import PROFILES
from hyperion.sim.workload import Size
from hyperion.sim.world import World

SEEDS = 8
"""Of each mixture of faults."""


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_no_copy_is_paid_twice_and_none_is_lost(profile, monkeypatch):
    """The laws are the world's own; here is seen that there was something to be lawful about."""
    monkeypatch.setattr(replication, "MIN_STAY_MS", 5000)  # a world lasts minutes
    seen = dict.fromkeys(d.RECORDS, 0)
    for seed in range(SEEDS):
        world = World(seed, PROFILES[profile], Size(datasets=True, varied=seed % 2 == 1))
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"profile {profile}, seed {seed}: {broken}") from broken
        for record in world.processes["federation"].records:
            if type(record) in seen:
                seen[type(record)] += 1
    assert all(seen.values()), f"worlds without some of these prove little: {seen}"
