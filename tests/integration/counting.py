"""A batch job that counts, and says when: whether it stands still, and whether it lost a step."""

import subprocess
import time
from contextlib import contextmanager

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


@contextmanager
def able_to_pause(directory, **settings):
    """A world of one node that lets jobs stand still; empty again at the end."""
    with World(directory, **settings) as made:
        [node] = made.client.nodes()
        if "pause" not in node.abilities:
            pytest.skip(f"this host lets nobody stand still: {node.abilities}")
        made.cpus = int(node.cpus)
        yield made
        for job in made.client.list():
            made.client.cancel(job.id)
        until(lambda: not made.replicas(), "the last replica to go")


@pytest.fixture
def world(tmp_path):
    with able_to_pause(tmp_path / "w") as made:
        yield made


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


def fast_paths(world):
    """Those of this world, by their command lines."""
    found = subprocess.run(
        ["pgrep", "-f", f"fastpath.py {world.state}"], capture_output=True, text=True, check=False
    )
    pids = [int(pid) for pid in found.stdout.split()]
    assert pids, "no fast path runs"
    return pids
