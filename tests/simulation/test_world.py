"""Many seeds: the laws hold after every step, and after the faults everything converges."""

import pytest

from hyperion.sim.faults import PROFILES
from hyperion.sim.workload import size_of
from hyperion.sim.world import World

SEEDS = 40
"""Of each mixture of faults; 200 worlds in all. More by ``bench/seeds.py``."""


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_laws_hold_and_all_converges(profile):
    for seed in range(SEEDS):
        world = World(seed, PROFILES[profile], size_of(seed))
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"profile {profile}, seed {seed}: {broken}") from broken
        assert len(world.executions) >= 20, "a world in which little ran proves little"


@pytest.mark.parametrize(
    ("profile", "seed"),
    [
        ("partition", 4),  # an old report of a placement given back was taken for the newest
        ("storm", 15),  # a Run kept but not acted on before a crash was not taken up again
        ("partition", 3),  # a waiting job of a lapsed lease started as soon as that was renewed
        ("spot", 7),  # a Stop for an old placement had the number of the next one
    ],
)
def test_seeds_that_taught_us(profile, seed):
    World(seed, PROFILES[profile], check_every=1).run()


@pytest.mark.parametrize(
    ("profile", "seed"),
    [
        ("storm", 103),  # a cluster whose first word was lost was never asked who it is
        ("calm", 2170),  # who was stopped for a standby on its GPU came back after 11 minutes only
        ("calm", 2282),  # a standby that was being stopped was thought to want its GPU
        ("calm", 4122),  # a claim lapsed while others, that were leaving already, took their grace
        ("spot", 277),  # tasks of an array were stopped for the next task of the same array
    ],
)
def test_varied_seeds_that_taught_us(profile, seed):
    World(seed, PROFILES[profile], size_of(seed), check_every=1).run()


def test_one_seed_is_one_history():
    first, second = World(11, PROFILES["storm"]), World(11, PROFILES["storm"])
    first.run()
    second.run()
    assert first.steps == second.steps
    assert first.executions == second.executions
    for name, process in first.processes.items():
        assert process.disk == second.processes[name].disk
