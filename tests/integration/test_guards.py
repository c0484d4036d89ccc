"""Guards of the fast path: who connects to a gate lets others stand still; nobody asks us."""

import json
import os
import socket
import subprocess
import threading

import pytest
from standstill import FastPath, Tree, until


@pytest.fixture
def fast(tmp_path):
    made = FastPath(tmp_path / "fast")
    yield made
    made.end()


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path / "trace", count=2)
    yield made
    made.end()


class Gate:
    """A socket that somebody listens on, who is always faster than we are."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.taken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.close()
            self.taken += 1

    def knock(self):
        before = self.taken
        socket.create_connection(self.socket.getsockname(), timeout=5).close()
        until(lambda: self.taken > before, "the connection to be taken")

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.close()


@pytest.fixture
def standby():
    """Whoever is meant by ``serve``; it does not matter who it is."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def guarded(fast, tree, standby, gate=None, hold_ms=60_000):
    fast.ask(do="arm", set="serve", pids=[standby])
    fast.ask(do="arm", set="batch", pids=[tree.process.pid])
    order = {"do": "guard", "set": "serve", "victims": [["batch", hold_ms]]}
    wire = fast.wire.socket
    if gate is None:
        assert fast.ask(**order).get("error") is None
    else:
        socket.send_fds(wire, [json.dumps(order).encode()], [gate.socket.fileno()])
        assert "error" not in json.loads(wire.recv(1 << 16))


def told(fast):
    """What it says unasked."""
    return json.loads(fast.wire.socket.recv(1 << 16))


def test_whoever_connects_lets_the_victims_stand_still(fast, tree, standby, gate):
    guarded(fast, tree, standby, gate)
    for _ in range(20):
        gate.knock()
        said = told(fast)
        assert (said["event"], said["set"], said["frozen"]) == ("activated", "serve", ["batch"])
        assert tree.stands(0.02)
        fast.ask(do="rest", set="serve")
        fast.ask(do="thaw", set="batch")
        tree.goes_on()


def test_an_order_does_the_same_and_twice_is_once(fast, tree, standby):
    guarded(fast, tree, standby)
    first, again = (fast.ask(do="activate", set="serve") for _ in range(2))
    assert (first["frozen"], first["was"]) == (["batch"], False)
    assert (again["frozen"], again["was"]) == ([], True)
    assert tree.stands()


def test_their_hold_ends_though_it_is_still_active(fast, tree, standby, gate):
    guarded(fast, tree, standby, gate, hold_ms=300)
    gate.knock()
    assert told(fast)["frozen"] == ["batch"]
    assert tree.goes_on()


def test_of_an_active_one_further_connections_change_nothing(fast, tree, standby, gate):
    guarded(fast, tree, standby, gate)
    gate.knock()
    told(fast)
    fast.ask(do="thaw", set="batch")
    gate.knock()
    assert tree.goes_on()
    assert fast.ask(do="status")["held_count"] == 0


def test_a_client_that_comes_later_is_told_that_it_is_active(fast, tree, standby, gate):
    guarded(fast, tree, standby, gate)
    gate.knock()
    told(fast)
    other = type(fast.wire)(fast.directory)
    said = other.ask(do="guard", set="serve", victims=[["batch", 60_000]])
    events = [said] if "event" in said else [json.loads(other.socket.recv(1 << 16))]
    assert (events[0]["event"], events[0]["frozen"]) == ("activated", [])
    other.close()


def test_disarmed_its_gate_is_silent_and_goes_on_working(fast, tree, standby, gate):
    guarded(fast, tree, standby, gate)
    fast.ask(do="disarm", set="serve")
    gate.knock()
    assert not tree.stands()
    assert fast.ask(do="status")["held_count"] == 0


def test_who_is_not_armed_is_nobody(fast, tree, standby):
    fast.ask(do="arm", set="serve", pids=[standby])
    fast.ask(do="guard", set="serve", victims=[["nosuch", 1000]])
    assert fast.ask(do="activate", set="serve")["frozen"] == []
    assert not tree.stands()


def test_a_descriptor_that_is_no_socket_is_refused_and_not_kept(fast, tree, standby):
    guarded(fast, tree, standby)
    before = len(os.listdir(f"/proc/{fast.process.pid}/fd"))
    with open(os.devnull) as file:
        order = json.dumps({"do": "guard", "set": "serve", "victims": []}).encode()
        socket.send_fds(fast.wire.socket, [order], [file.fileno()])
        assert "error" in json.loads(fast.wire.socket.recv(1 << 16))
    assert len(os.listdir(f"/proc/{fast.process.pid}/fd")) == before
    assert fast.ask(do="activate", set="serve")["was"] is False
