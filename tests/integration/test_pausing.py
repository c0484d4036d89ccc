"""A job stands still for an urgent one, with the real daemons, whatever of them dies meanwhile."""

import os
import signal
import subprocess
import time

import pytest
from daemons import World, until

COUNT = """
import sys, time
n = 0
with open(sys.argv[1], "a", buffering=1) as out:
    while True:
        print(n, time.time_ns(), file=out)
        n += 1
        time.sleep(0.005)
"""


@pytest.fixture
def world(tmp_path):
    with World(tmp_path / "w") as made:
        [node] = made.client.nodes()
        if "pause" not in node.abilities:
            pytest.skip(f"this host lets nobody stand still: {node.abilities}")
        made.cpus = int(node.cpus)
        yield made
        for job in made.client.list():
            made.client.cancel(job.id)
        until(lambda: not made.replicas(), "the last replica to go")


class Counting:
    """A batch job on all CPUs that counts, and says when."""

    def __init__(self, world, tmp_path, **more):
        self.world, self.file = world, tmp_path / "count"
        self.id = world.client.submit({
            "name": "count",
            "run": ["python3", "-c", COUNT, str(self.file)],
            "resources": {"cpus": world.cpus},
            **more,
        })  # fmt: skip
        until(lambda: len(self.lines()) > 10, "the batch job to count")

    def lines(self):
        text = self.file.read_text() if self.file.exists() else ""
        return [tuple(map(int, line.split())) for line in text.splitlines() if line.count(" ") == 1]

    def goes_on(self):
        before = len(self.lines())
        until(lambda: len(self.lines()) > before + 5, "the batch job to count on")

    def stands(self):
        before = len(self.lines())
        time.sleep(0.3)
        return len(self.lines()) <= before + 1  # what it had begun to write may come

    def checked(self):
        """Nothing was counted twice or left out: it is the same process still."""
        lines = self.lines()
        assert [n for n, _ in lines] == list(range(len(lines)))
        job = self.world.client.get(self.id)
        assert (job.phase, job.restarts, job.preemptions) == ("running", 0, 0), job

    def ran_between(self, from_ns, to_ns):
        return [n for n, at in self.lines() if from_ns < at < to_ns]


def urgent(world, command="date +%s%N; sleep 1; date +%s%N"):
    return world.client.submit({
        "name": "urgent",
        "run": command,
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": world.cpus},
    })  # fmt: skip


def running(world, id):
    until(lambda: world.client.get(id).phase == "running", f"job {id} to run")


def test_it_stands_still_as_long_as_the_urgent_job_runs_and_loses_nothing(world, tmp_path):
    counting = Counting(world, tmp_path)
    for _ in range(3):
        job = world.client.wait(urgent(world), 30)
        assert job.phase == "succeeded", job.reason
        said = "".join(chunk.text for chunk in world.client.logs(job.id))
        began_ns, ended_ns = map(int, said.split())
        assert counting.ran_between(began_ns, ended_ns) == []
        counting.goes_on()
        time.sleep(2.5)  # nobody stands still for more than half of its time
    counting.checked()
    rows = {row.step: row for row in world.client.slo() if not row.node}
    assert rows["ordered → free"].took.count == 3
    assert any(row.node and row.took.max for row in world.client.slo())


def test_it_goes_on_when_the_urgent_job_is_cancelled(world, tmp_path):
    counting = Counting(world, tmp_path)
    id = urgent(world, "sleep 60")
    running(world, id)
    assert counting.stands()
    reason = world.client.get(counting.id).reason
    assert reason == f"paused for job {id}"
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_an_agent_that_dies_finds_it_standing_and_lets_it_go_on(world, tmp_path):
    counting = Counting(world, tmp_path)
    id = urgent(world, "sleep 60")
    running(world, id)
    world.agent.restart().ready()
    assert counting.stands(), "the urgent job still runs"
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_a_scheduler_that_dies_knows_who_stands_still(world, tmp_path):
    counting = Counting(world, tmp_path)
    id = urgent(world, "sleep 60")
    running(world, id)
    world.scheduler.restart().ready()
    assert counting.stands()
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_a_fast_path_that_dies_is_replaced(world, tmp_path):
    counting = Counting(world, tmp_path)
    id = urgent(world, "sleep 60")
    running(world, id)
    for pid in fast_paths(world):
        os.kill(pid, signal.SIGKILL)
    assert counting.stands(), "who stood still stands still"
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_after_its_hold_it_is_stopped_like_any_other(world, tmp_path):
    counting = Counting(world, tmp_path, pausing={"hold": "1s"}, checkpoint={"grace": "1s"})
    id = urgent(world, "sleep 60")
    running(world, id)
    until(lambda: world.client.get(counting.id).preemptions == 1, "the hold to end", 15)
    world.client.cancel(id)
    until(lambda: world.client.get(counting.id).phase == "running", "the batch job to start anew")


def test_one_that_stands_still_can_be_cancelled(world, tmp_path):
    counting = Counting(world, tmp_path)
    id = urgent(world, "sleep 60")
    running(world, id)
    world.client.cancel(counting.id)
    assert world.client.wait(counting.id, 30).phase == "cancelled"
    assert world.client.get(id).phase == "running"


def fast_paths(world):
    """Those of this world, by their command lines."""
    found = subprocess.run(
        ["pgrep", "-f", f"fastpath.py {world.state}"], capture_output=True, text=True, check=False
    )
    pids = [int(pid) for pid in found.stdout.split()]
    assert pids, "no fast path runs"
    return pids
