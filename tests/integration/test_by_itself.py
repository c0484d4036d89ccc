"""A training that comes to a stand by itself, at the end of its step, with the real daemons."""

import sys
from pathlib import Path

from counting import world
from daemons import until

import hyperion.workload

__all__ = ["world"]

SOURCE = Path(hyperion.workload.__file__).parents[2]
TRAIN = """
import random, sys, time, hyperion
state = {"w": [0.0] * 2000, "step": 0}
state = hyperion.restore(state)
while True:
    state["w"] = [0.9 * w + random.random() for w in state["w"]]
    state["step"] += 1
    print(state["step"], sum(state["w"]).hex(), flush=True)
    time.sleep(float(sys.argv[1]))
    hyperion.step(state, step=state["step"])
"""


class Training:
    """A batch job on all CPUs that says each step, once; it begins from one seed."""

    def __init__(self, world, tmp_path, step_s=0.02, **pausing):
        self.world, self.out = world, tmp_path / "out"
        (tmp_path / "train.py").write_text(TRAIN.replace("\nstate", "\nrandom.seed(1)\nstate", 1))
        self.out.touch()
        self.id = world.client.submit({
            "name": "train",
            "run": f"exec {sys.executable} {tmp_path}/train.py {step_s} >>{self.out}",
            "resources": {"cpus": world.cpus},
            "envs": {"PYTHONPATH": str(SOURCE)},
            "checkpoint": {"dir": str(tmp_path / "ck"), "grace": "10s"},
            "pausing": {"at": "step", "within": "5s", **pausing},
        })  # fmt: skip
        until(lambda: len(self.steps()) > 5, "the training to make steps")

    def steps(self):
        return [int(line.split()[0]) for line in self.out.read_text().splitlines()]

    def reason(self):
        return self.world.client.get(self.id).reason

    def goes_on(self):
        before = len(self.steps())
        until(lambda: len(self.steps()) > before + 5, "the training to go on")

    def checked(self, tmp_path):
        """Each step once, and with the same bits as alone."""
        assert self.steps() == list(range(1, len(self.steps()) + 1))


def urgent(world):
    id = world.client.submit({
        "name": "urgent",
        "run": "sleep 60",
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": world.cpus},
    })  # fmt: skip
    until(lambda: world.client.get(id).phase == "running", "the urgent job to run")
    return id


def hows(world):
    return {row.step for row in world.client.slo() if row.node}


def test_it_stands_at_the_end_of_a_step_that_is_saved_and_goes_on_in_place(world, tmp_path):
    training = Training(world, tmp_path)
    for _ in range(2):
        id = urgent(world)
        until(lambda: "is saved" in training.reason(), "its step to be saved")
        stands_at = training.steps()[-1]
        assert f"step {stands_at} is saved" in training.reason()
        newest = world.client.get(training.id).checkpoints[-1]
        assert newest.step == stands_at
        world.client.cancel(id)
        training.goes_on()
    training.checked(tmp_path)
    job = world.client.get(training.id)
    assert (job.phase, job.restarts, job.preemptions) == ("running", 0, 0)
    assert {"called → stopped (step)", "called → saved (step)"} <= hows(world)


def test_when_its_hold_ends_it_is_stopped_and_loses_no_step(world, tmp_path):
    training = Training(world, tmp_path, hold="1s")
    id = urgent(world)
    until(lambda: world.client.get(training.id).preemptions == 1, "its hold to end", 20)
    world.client.cancel(id)
    training.goes_on()
    training.checked(tmp_path)


def test_one_that_does_not_come_to_its_step_in_time_is_frozen_where_it_is(world, tmp_path):
    training = Training(world, tmp_path, step_s=0.3, within="20ms")
    for _ in range(3):  # now and then it is near enough
        id = urgent(world)
        world.client.cancel(id)
        training.goes_on()
    assert any("not at its step" in step for step in hows(world)), hows(world)
    training.checked(tmp_path)


def test_an_agent_that_dies_lets_go_on_who_stands_by_itself(world, tmp_path):
    training = Training(world, tmp_path)
    id = urgent(world)
    until(lambda: "is saved" in training.reason(), "its step to be saved")
    world.agent.restart().ready()
    stands_at = training.steps()[-1]
    world.client.cancel(id)
    training.goes_on()
    training.checked(tmp_path)
    assert training.steps()[-1] > stands_at
