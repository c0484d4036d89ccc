"""Standbys with the real daemons: a connection wakes them, and a batch job stands still."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from counting import COUNT, Counting, able_to_pause, fast_paths, world
from daemons import free_ports, until

from hyperion.client.errors import HyperionError

__all__ = ["world"]

SERVER = """
import os, socket, sys, time
assert os.environ["LISTEN_PID"] == str(os.getpid()), "the socket is meant for another process"
listener = socket.socket(fileno=3)
hold_s = float(sys.argv[1])
while True:
    connection, _ = listener.accept()
    began = time.time_ns()
    until = time.monotonic() + hold_s
    while time.monotonic() < until:  # at work, and not only waiting
        pass
    connection.sendall(f"{began} {time.time_ns()}".encode())
    connection.close()
"""


class Serving:
    """A standby, and a client of it."""

    def __init__(self, world, hold_s=0.3, **more):
        self.world = world
        [self.port] = free_ports(1)
        self.id = world.client.submit({
            "name": "serve",
            "run": ["python3", "-c", SERVER, str(hold_s)],
            "priority": "LATENCY_CRITICAL",
            "resources": {"cpus": world.cpus},
            "standby": {"port": self.port, "quiet": "200ms"},
            **more,
        })  # fmt: skip
        self.is_warm()

    def is_warm(self):
        def waits():
            return self.world.client.get(self.id).reason.startswith("waits to be wanted")

        until(waits, "the standby to wait", 20)

    def ask(self):
        """(from when, until when it was at work)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            return tuple(map(int, connection.recv(100).split()))


def settled(counting, serving):
    counting.goes_on()
    serving.is_warm()


def test_a_connection_wakes_it_and_the_borrower_loses_nothing(world, tmp_path):
    serving = Serving(world)
    counting = Counting(world, tmp_path)
    for _ in range(3):
        began_ns, ended_ns = serving.ask()
        late = 50_000_000  # a busy machine may be slow; the promise is measured elsewhere
        assert counting.ran_between(began_ns + late, ended_ns) == []
        settled(counting, serving)
    counting.checked()
    rows = {row.step: row for row in world.client.slo() if row.node}
    [frozen] = [row for step, row in rows.items() if step.startswith("wanted → frozen")]
    assert frozen.took.count == 3
    assert frozen.promised_ms == 50


def test_who_shares_its_gpu_stands_still_though_there_are_cpus_for_both(tmp_path):
    agent = {"declare": "accelerators=A100:1"}
    with able_to_pause(tmp_path / "w", scheduler={"allow_declared": True}, agent=agent) as world:
        half = {"cpus": 0.5, "accelerators": 0.5}
        serving = Serving(world, resources=half)
        told = "import os; print(os.environ['HYPERION_GPU_QUEUE_MS'], flush=True)\n"
        command = ["python3", "-c", told + COUNT, str(tmp_path / "count")]
        counting = Counting(
            world, tmp_path, run=command, resources=half, pausing={"gpu_queue": "6ms"}
        )
        assert "6" in "".join(x.text for x in world.client.logs(counting.id, follow=False)).split()
        began_ns, ended_ns = serving.ask()
        assert counting.ran_between(began_ns + 50_000_000, ended_ns) == []
        settled(counting, serving)
        counting.checked()


def test_an_order_wakes_it_and_releases_it(world, tmp_path):
    serving = Serving(world, standby={"quiet": "60s"}, run="exec sleep 600")
    counting = Counting(world, tmp_path)
    [row] = world.client.activate(serving.id)
    assert row.stands_still == (counting.id,)
    assert row.stopped_ms is not None
    assert row.frozen_ms is not None
    assert counting.stands()
    until(lambda: world.client.get(counting.id).reason.startswith("paused for"), "it to be told")
    [again] = world.client.activate(serving.id)
    assert again.stands_still == (), "it is active already"
    world.client.release(serving.id)
    settled(counting, serving)
    counting.checked()


def test_a_client_that_stays_connected_wakes_it_by_its_load(world, tmp_path):
    talks = """
import socket
listener = socket.socket(fileno=3)
connection, _ = listener.accept()
while connection.recv(1):
    n = 0
    while n < 30_000_000:
        n += 1
    connection.sendall(b"done")
"""
    serving = Serving(world, run=["python3", "-c", talks])
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as connection:
        time.sleep(1.0)
        serving.is_warm()
        counting = Counting(world, tmp_path)
        connection.sendall(b"?")
        time.sleep(0.3)
        assert counting.stands()
        assert connection.recv(10) == b"done"
        settled(counting, serving)
    counting.checked()


@pytest.mark.parametrize("who", ["agent", "scheduler", "fast path"])
def test_whoever_dies_it_is_woken_all_the_same(world, tmp_path, who):
    serving = Serving(world)
    counting = Counting(world, tmp_path)
    if who == "fast path":
        for pid in fast_paths(world):
            os.kill(pid, signal.SIGKILL)
        until(lambda: fast_paths_are_there(world), "another fast path")
        time.sleep(0.5)
    elif who == "agent":
        world.agent.restart().ready()
        time.sleep(0.5)
    else:
        world.scheduler.kill()
    began_ns, ended_ns = serving.ask()
    assert counting.ran_between(began_ns + 100_000_000, ended_ns) == []
    counting.goes_on()
    if who == "scheduler":
        world.scheduler.start().ready()
    settled(counting, serving)
    counting.checked()


def test_when_it_dies_the_borrower_goes_on(world, tmp_path):
    serving = Serving(world, standby={"quiet": "60s"}, run="echo $$; exec sleep 600")
    counting = Counting(world, tmp_path)
    world.client.activate(serving.id)
    assert counting.stands()
    said = "".join(chunk.text for chunk in world.client.logs(serving.id, follow=False))
    os.kill(int(said), signal.SIGKILL)
    counting.goes_on()
    assert world.client.wait(serving.id, 20).phase == "failed"
    counting.checked()


def test_a_port_that_is_taken_is_named(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        id = world.client.submit({
            "run": "sleep 60",
            "priority": "LATENCY_CRITICAL",
            "standby": {"port": port},
        })  # fmt: skip
        job = world.client.wait(id, 20)
    assert job.phase == "failed"
    assert f"standby.port {port}" in job.reason


def test_the_command_line_tells_of_it(world, tmp_path):
    Serving(world)
    counting = Counting(world, tmp_path)

    def hyperion(*words):
        program = "from hyperion.cli.main import cli, execute; import sys\n"
        program += "sys.exit(execute(cli, sys.argv[1:], 'hyperion'))"
        return subprocess.run(
            [sys.executable, "-c", program, *words, "--server", f"unix:{world.socket}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = hyperion("activate", "serve", "-o", "json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert row["stands_still"] == [counting.id]
    table = hyperion("activate", "serve", "--release")
    assert table.stdout.split("\n")[0].split()[:2] == ["RANK", "NODE"]
    refused = hyperion("activate", "count")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "no standby" in refused.stderr
    with pytest.raises(HyperionError, match="no job"):
        world.client.activate("nosuch")


def fast_paths_are_there(world):
    try:
        return fast_paths(world)
    except AssertionError:
        return []
