"""One cluster under faults, days long: everything ends, and no machine holds more than it has."""

from functools import cache

import pytest

from hyperion.model.job import JobPhase
from hyperion.placement import ranking
from hyperion.sim import machines
from hyperion.sim.agent_nodes import faulty_world
from hyperion.sim.faults import PROFILES
from hyperion.sim.generators import generate
from hyperion.sim.trace import at_load
from hyperion.sim.traces.cells import Reading

NODES = machines.uniform(8, 8, "A100")


@cache
def played(profile, seed):
    return play(profile, seed)


def play(profile, seed):
    trace = at_load(generate("training", 100, seed, Reading()), NODES, 0.7)
    world = faulty_world(trace, NODES, ranking.policy("pack"), PROFILES[profile], seed)
    for _ in world.play():
        pass
    world.machine.state.check()
    return world


@pytest.mark.parametrize("profile", ["drift", "partition", "spot", "storm"])
def test_every_job_ends_and_every_place_is_given_back(profile):
    world = played(profile, seed=3)
    stories = world.recorder.stories.values()
    assert world.never_ran == []
    assert all(s.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED) for s in stories)
    assert (world.recorder.devices == 1000).all()
    assert sum(s.restarts for s in stories) > 0, "a world in which nothing went wrong proves little"


def test_one_seed_is_one_history():
    first, second = played("storm", 3), play("storm", 3)
    assert first.events == second.events
    assert {i: s.ended_ms for i, s in first.recorder.stories.items()} == {
        i: s.ended_ms for i, s in second.recorder.stories.items()
    }


def test_a_lost_node_takes_the_work_of_its_jobs_with_it():
    lost = sum(s.lost_ms for s in played("spot", 3).recorder.stories.values())
    assert lost > 0
