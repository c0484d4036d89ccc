"""The fast path as it is: a process of its own, real control groups, real processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from standstill import FORKER, PROGRAM, FastPath, Tree, Wire, made_groups, until

from hyperion.adapters.checkpoint import held
from hyperion.adapters.checkpoint.freezer import BOOSTED, Freezer, Group

CHURN = """
import os, sys
base = sys.argv[1]
while True:
    os.mkdir(base + "/churn"); os.rmdir(base + "/churn")
"""


@pytest.fixture(scope="module")
def groups():
    found, why_not = made_groups(f"hyperion-still-{os.getpid()}")
    if found is None:
        pytest.skip(f"control groups: {why_not}")
    yield found
    found.close()


@pytest.fixture
def group(groups, request):
    name = f"g{abs(hash(request.node.name))}"
    (path, *_) = groups.create(name, 0, 0)
    yield path
    groups.kill(name)
    until(lambda: groups.remove(name), "the group to go")


@pytest.fixture
def fast(tmp_path):
    made = FastPath(tmp_path / "fast")
    yield made
    made.end()


@pytest.fixture
def tree(tmp_path, group):
    made = Tree(tmp_path / "trace", [group])
    yield made
    made.end()


@pytest.fixture
def loose(tmp_path):
    made = Tree(tmp_path / "trace", count=4)
    yield made
    made.end()


def policies(tree):
    return {
        tid: (os.sched_getscheduler(tid), os.getpriority(os.PRIO_PROCESS, tid))
        for tid in tree.threads()
    }


def freeze(fast, hold_ms=60_000, name="x"):
    said = fast.ask(do="freeze", set=name, hold_ms=hold_ms)
    assert "error" not in said, said
    return said


# -- what it is for -------------------------------------------------------------------------------


def test_a_tree_stands_still_and_goes_on(fast, tree, group):
    assert fast.ask(do="arm", set="x", groups=[group]) | {"received_ns": 0} == {
        "held": False,
        "received_ns": 0,
    }
    for _ in range(3):
        said = freeze(fast)
        assert said["called_ns"] <= said["stopped_ns"] <= said["confirmed_ns"], said
        assert tree.stands()
        assert fast.ask(do="status", set="x")["still"]
        assert fast.ask(do="status")["held"] == ["x"]
        assert "resumed_ns" in fast.ask(do="thaw", set="x")
        assert tree.goes_on()
        assert not fast.ask(do="status", set="x")["held"]


def test_it_is_what_it_was_before_while_it_still_stands(tmp_path, fast, group):
    tree = Tree(tmp_path / "trace", [group], nice=7)
    try:
        os.sched_setscheduler(tree.process.pid, os.SCHED_BATCH, os.sched_param(0))
        before = policies(tree)
        assert before[tree.process.pid] == (os.SCHED_BATCH, 7)
        assert len(before) == 16
        fast.ask(do="arm", set="x", groups=[group])
        for _ in range(5):
            freeze(fast)
            until(lambda: policies(tree) == before, "the boost to end")
            fast.ask(do="thaw", set="x")
            assert policies(tree) == before
    finally:
        tree.end()


def test_what_forks_all_the_time_stands_still(tmp_path, fast, group):
    tree = Tree(tmp_path / "trace", [group], program=FORKER)
    try:
        fast.ask(do="arm", set="x", groups=[group])
        for _ in range(20):
            assert freeze(fast)["confirmed_ns"]
            assert tree.stands(0.02)
            fast.ask(do="thaw", set="x")
            assert tree.goes_on()
    finally:
        tree.end()


def test_a_group_with_groups_below_it(tmp_path, fast, group):
    inner = f"{group}/inner"
    os.mkdir(inner)
    tree = Tree(tmp_path / "trace", [inner], count=2)
    try:
        fast.ask(do="arm", set="x", groups=[group])
        assert freeze(fast)["confirmed_ns"]
        assert tree.stands()
        fast.ask(do="thaw", set="x")
        assert tree.goes_on()
    finally:
        tree.end()


def test_an_empty_group_and_one_that_is_gone(groups, fast):
    (path, *_) = groups.create("gone", 0, 0)
    fast.ask(do="arm", set="x", groups=[path])
    assert freeze(fast, name="x")["confirmed_ns"] is not None
    fast.ask(do="thaw", set="x")
    assert groups.remove("gone")
    for _ in range(2):
        assert freeze(fast)["confirmed_ns"]
        assert "error" not in fast.ask(do="thaw", set="x")
    assert "error" in fast.ask(do="arm", set="y", groups=[path])
    assert "error" not in fast.ask(do="disarm", set="x")


# -- the lock of the hierarchy is taken ------------------------------


class Late(Group):
    """Its order reaches the kernel only when it may."""

    gate: threading.Event

    def _write(self, still):
        self.gate.wait(20)
        return super()._write(still)


@pytest.fixture
def late(tree, group):
    made = Late(group)
    made.gate = threading.Event()
    yield made
    made.gate.set()


def test_signals_do_it_when_the_write_is_late(tree, late):
    freezer = Freezer()
    stop = freezer.freeze([late])
    assert (stop.how, bool(stop.confirmed_ns)) == ("hedged", True), stop
    assert tree.stands()
    late.gate.set()
    until(lambda: Group(late.path).stands(), "the write to come true")
    late.calm()
    freezer.go_on([late])
    assert tree.goes_on()
    freezer.close()


def test_a_write_that_comes_after_it_was_let_go_on_does_no_harm(tree, late):
    freezer = Freezer()
    freezer.freeze([late])
    freezer.go_on([late])
    assert tree.goes_on()
    late.gate.set()
    freezer.close()
    assert tree.goes_on()
    assert not Group(late.path).stands()


def test_others_are_stopped_while_a_write_is_late(tree, late, loose_group, tmp_path):
    other = Tree(tmp_path / "other", [loose_group], count=2)
    freezer = Freezer()
    try:
        freezer.freeze([late])
        stop = freezer.freeze([Group(loose_group)])
        assert stop.how == "hedged"
        assert other.stands()
    finally:
        late.gate.set()
        freezer.close()
        other.end()


@pytest.fixture
def loose_group(groups):
    (path, *_) = groups.create("other", 0, 0)
    yield path
    groups.kill("other")
    until(lambda: groups.remove("other"), "the group to go")


def test_it_stands_still_while_others_make_groups_all_the_time(fast, tree, group, groups):
    base = groups.create("churn", 0, 0)[0]
    churn = subprocess.Popen([sys.executable, "-c", CHURN, base])
    try:
        fast.ask(do="arm", set="x", groups=[group])
        for _ in range(50):
            assert freeze(fast)["confirmed_ns"]
            assert tree.stands(0.005)
            fast.ask(do="thaw", set="x")
            assert tree.goes_on()
    finally:
        churn.kill()
        churn.wait()
        with contextlib.suppress(OSError):
            os.rmdir(f"{base}/churn")
        until(lambda: groups.remove("churn"), "the group to go")


# -- nothing stands still for ever ------------------------------


def test_the_end_of_its_hold(fast, tree, group):
    fast.ask(do="arm", set="x", groups=[group])
    freeze(fast, 300)
    assert tree.goes_on()
    assert not fast.ask(do="status", set="x")["held"]
    freeze(fast, 300)
    freeze(fast, 60_000)
    assert tree.stands(0.6), "a later order has another hold"
    fast.ask(do="thaw", set="x")


def test_disarming_lets_it_go(fast, tree, group):
    fast.ask(do="arm", set="x", groups=[group])
    freeze(fast)
    fast.ask(do="disarm", set="x")
    assert tree.goes_on()


def test_a_new_process_holds_on_and_lets_go_in_time(fast, tree, group):
    fast.ask(do="arm", set="x", groups=[group])
    before = policies(tree)
    freeze(fast, 4000)
    fast.kill()
    fast.start()
    assert fast.ask(do="status")["held_count"] == 1
    assert tree.stands()
    assert fast.ask(do="arm", set="x", groups=[group])["held"]
    assert fast.ask(do="status")["held"] == ["x"]
    assert tree.goes_on()
    assert policies(tree) == before


def test_a_new_process_is_told_to_let_go(fast, tree, group):
    fast.ask(do="arm", set="x", groups=[group])
    freeze(fast)
    fast.kill()
    fast.start()
    fast.ask(do="arm", set="x", groups=[group])
    fast.ask(do="thaw", set="x")
    assert tree.goes_on()


@pytest.mark.parametrize("by", ["group", "pids"])
def test_with_nobody_left_the_script_lets_go(fast, tmp_path, by, request):
    groups = [request.getfixturevalue("group")] if by == "group" else []
    tree = Tree(tmp_path / "trace", groups, count=4)
    try:
        pids = [] if groups else [tree.process.pid]  # its children are found
        fast.ask(do="arm", set="x", groups=groups, pids=pids)
        freeze(fast, 2000)
        fast.kill()
        assert tree.stands()
        assert tree.goes_on()
        until(lambda: not any(stopped(pid) for pid in tree.pids()), "all to go on")
    finally:
        tree.end()


def stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "Tt"


def test_threads_that_died_boosted_with_the_process_are_calmed(fast, tree, group):
    """As if it had been killed between the boost and its end."""
    try:
        for tid in tree.threads():
            flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(tid, flags, BOOSTED)
    except PermissionError as error:
        pytest.skip(f"real-time: {error}")
    fast.ask(do="arm", set="x", groups=[group])
    freeze(fast)
    fast.kill()
    fast.start()
    ordinary = {os.SCHED_OTHER}
    until(lambda: {x for x, _ in policies(tree).values()} == ordinary, "them to be calmed")


# -- without control groups ------------------------------


def test_signals_only(fast, loose):
    pids = loose.pids()
    fast.ask(do="arm", set="x", pids=pids)
    said = freeze(fast)
    assert said["how"] == "signals"
    assert said["confirmed_ns"]
    assert loose.stands()
    fast.ask(do="thaw", set="x")
    assert loose.goes_on()
    freeze(fast)
    fast.kill()
    fast.start()
    assert fast.ask(do="arm", set="x", pids=pids)["held"]
    assert loose.stands()
    fast.ask(do="thaw", set="x")
    assert loose.goes_on()


def test_signals_reach_what_forks_all_the_time(tmp_path, fast):
    tree = Tree(tmp_path / "trace", program=FORKER)
    try:
        fast.ask(do="arm", set="x", pids=[tree.process.pid])
        for _ in range(20):
            freeze(fast)
            until(lambda: fast.ask(do="status", set="x")["still"], "it to stand still")
            assert tree.stands(0.02)
            fast.ask(do="thaw", set="x")
            assert tree.goes_on()
    finally:
        tree.end()


# -- orders that are none ------------------------------

NONSENSE = [
    b"\xff\xfe",
    b"[]",
    b"1",
    b"null",
    b"{",
    b"[" * 15_000,
    b'{"do": 1}',
    b'{"do": []}',
    b'{"do": {}}',
    b'{"do": "burn"}',
    b'{"do": "arm"}',
    b'{"do": "status", "set": 1}',
    b'{"do": "status", "set": "nobody"}',
    b'{"seq": 1e400, "do": "thaw", "set": "nobody"}',
    b'{"seq": ' + b"9" * 5000 + b"}",
    b"x" * 20_000,
    b'{"do": "status", "pad": "' + b"x" * 40_000 + b'"}',
    *(
        json.dumps({"do": "arm", "set": "x", **more}).encode()
        for more in (
            {},
            {"groups": "/x"},
            {"groups": [1]},
            {"groups": ["relative"]},
            {"groups": ["/no/such/group"]},
            {"groups": ["/tmp"]},
            {"groups": ["/tmp\0x"]},
            {"groups": ["/tmp\n1 2 /x"]},
            {"groups": ["/\ud800"]},
            {"groups": ["/" + "x" * 5000]},
            {"groups": ["/tmp"] * 65},
            {"pids": {}},
            {"pids": [1]},
            {"pids": [-1]},
            {"pids": [0]},
            {"pids": [True]},
            {"pids": [2.5]},
            {"pids": ["7"]},
            {"pids": [2**70]},
            {"pids": [4_000_000] * 1500},
        )
    ),
    *(
        json.dumps({"do": "arm", "pids": [4_000_000], "set": name}).encode()
        for name in ("", "x" * 129, None, 7, ["x"], "\ud800", "a\nb", "left:/x")
    ),
]


@pytest.mark.parametrize("packet", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_answered_with_an_error(fast_for_all, packet):
    assert isinstance(fast_for_all.wire.send(packet)["error"], str)
    assert "rights" in fast_for_all.ask(do="status")


@pytest.fixture(scope="module")
def fast_for_all(tmp_path_factory):
    made = FastPath(tmp_path_factory.mktemp("all") / "fast")
    yield made
    made.end()


@pytest.mark.parametrize("hold_ms", [0, -1, 3_600_001, 1.5, "1", None, True, [], 2**80])
def test_a_hold_is_a_time_that_makes_sense(fast_for_all, hold_ms):
    fast_for_all.ask(do="arm", set="h", pids=[4_000_000])
    fast_for_all.ask(do="arm", set="g", pids=[4_000_000])
    for order in (
        {"do": "freeze", "set": "h", "hold_ms": hold_ms},
        {"do": "guard", "set": "g", "victims": [["h", hold_ms]]},
    ):
        assert "hold_ms" in fast_for_all.ask(**order, seq=5)["error"]
        assert fast_for_all.ask(**order, seq=5)["seq"] == 5


def test_there_is_an_end_to_what_can_be_armed(fast):
    last = [fast.ask(do="arm", set=f"s{n}", pids=[4_000_000]) for n in range(4097)]
    assert [x for x in last if "error" in x] == last[-1:]
    for n in range(60):
        freeze(fast, name=f"s{n}")
    said = fast.ask(do="status")
    assert (said["sets"], said["held_count"], len(said["held"])) == (4096, 60, 48)


def test_too_many_and_rude_clients(fast):
    packet = socket.SOCK_SEQPACKET
    others = [Wire(fast.directory) for _ in range(15)]
    with socket.socket(socket.AF_UNIX, packet) as one_too_many:
        one_too_many.settimeout(10)
        one_too_many.connect(f"{fast.directory}/socket")
        assert one_too_many.recv(10) == b""
    for rude in others:
        rude.socket.send(b'{"do": "status"}')
        rude.close()  # without waiting for the answer
    assert "rights" in fast.ask(do="status")
    silent = Wire(fast.directory)
    silent.ask(do="status")
    silent.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(5000):  # and never reads an answer
            silent.socket.send(b'{"do": "status"}')
    assert "rights" in fast.ask(do="status")
    silent.close()


def test_others_are_not_listened_to(fast, tmp_path):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    for path in [fast.directory, *tmp_path.parents][: len(tmp_path.parts)]:
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o111)
    tmp_path.chmod(0o755)
    os.chmod(fast.directory / "socket", 0o777)  # even then
    script = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.send(b'{"do": "status"}')
    print(s.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""
    command = [sys.executable, "-I", "-S", "-c", script, str(fast.directory / "socket")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert said.stdout == "b''\n", said
    assert "rights" in fast.ask(do="status")


# -- its own life ----------------------------------------------------------------------------------


def test_there_is_one_for_a_directory(fast):
    second = subprocess.run(fast.process.args, capture_output=True, timeout=30, check=False)
    assert second.returncode == 75
    assert b"another fast path" in second.stderr


def test_it_ends_with_its_agent_once_nothing_stands_still(tmp_path, tree, group):
    """The shell in between is the agent, which ends at once."""
    directory = tmp_path / "fast"
    directory.mkdir()
    program = f"{sys.executable} -I -S {PROGRAM} {directory} & while :; do sleep 0.1; done"
    agent = subprocess.Popen(["sh", "-c", program], start_new_session=True)
    wire = Wire(directory)
    wire.ask(do="arm", set="x", groups=[group])
    assert wire.ask(do="freeze", set="x", hold_ms=2000)["confirmed_ns"]
    agent.kill()
    agent.wait()
    wire.close()
    assert tree.stands()
    assert tree.goes_on()
    until(lambda: not (directory / "held").exists(), "it to end")
    assert held.read(str(directory / "held")) == []


def test_sigint_and_sighup_are_none_of_its_business(fast):
    for number in (signal.SIGINT, signal.SIGHUP):
        fast.process.send_signal(number)
        time.sleep(0.05)
        assert "rights" in fast.ask(do="status")
