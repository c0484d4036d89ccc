"""At the end of its hold a job is set aside on disk by CRIU, with the real daemons."""

import pytest
from counting import Counting, world
from daemons import until

from hyperion.adapters.runtime import aside

__all__ = ["world"]

pytestmark = pytest.mark.skipif(
    not aside.version(), reason=f"no CRIU {aside.NEEDED} on PATH that works"
)


def lies_aside(world, tmp_path):
    """A batch job that counts, and the urgent one for which it has been set aside."""
    counting = Counting(world, tmp_path, pausing={"hold": "1s", "criu": True})
    id = world.client.submit({
        "name": "urgent",
        "run": "sleep 60",
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": world.cpus},
    })  # fmt: skip
    until(lambda: "set aside on disk" in world.client.get(counting.id).reason, "it to lie aside")
    return counting, id


def test_it_comes_back_where_it_was_and_has_lost_nothing(world, tmp_path):
    counting, id = lies_aside(world, tmp_path)
    assert "MiB given back" in world.client.get(counting.id).reason
    assert counting.stands()
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()
    world.client.cancel(counting.id)
    assert world.client.wait(counting.id, 30).phase == "cancelled"


def test_a_new_agent_finds_it_on_disk(world, tmp_path):
    counting, id = lies_aside(world, tmp_path)
    world.agent.restart().ready()
    assert counting.stands()
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_a_new_scheduler_knows_where_it_is(world, tmp_path):
    counting, id = lies_aside(world, tmp_path)
    world.scheduler.restart().ready()
    assert counting.stands()
    world.client.cancel(id)
    counting.goes_on()
    counting.checked()


def test_it_can_be_cancelled_there(world, tmp_path):
    counting, id = lies_aside(world, tmp_path)
    world.client.cancel(counting.id)
    assert world.client.wait(counting.id, 30).phase == "cancelled"
    assert world.client.get(id).phase == "running"


TALKS = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
print("talks", flush=True)
time.sleep(600)
"""


def test_what_criu_cannot_write_is_stopped_instead(world, tmp_path):
    (tmp_path / "talks.py").write_text(TALKS)
    talks = world.client.submit({
        "run": f"exec python3 {tmp_path}/talks.py >{tmp_path}/said",
        "resources": {"cpus": world.cpus},
        "pausing": {"hold": "1s", "criu": True},
        "checkpoint": {"grace": "1s"},
    })  # fmt: skip
    said = tmp_path / "said"
    until(lambda: said.exists() and "talks" in said.read_text(), "it to talk")
    until(lambda: world.client.get(talks).phase == "running", "it to be known to run")
    id = world.client.submit({
        "run": "sleep 60",
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": world.cpus},
    })  # fmt: skip
    until(lambda: world.client.get(talks).preemptions == 1, "it to be stopped", 20)
    assert world.client.get(id).phase == "running"
