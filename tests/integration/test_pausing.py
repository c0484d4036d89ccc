"""A job stands still for an urgent one, with the real daemons, whatever of them dies meanwhile."""

import os
import signal
import time

from counting import Counting, fast_paths, world
from daemons import until

__all__ = ["world"]


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
