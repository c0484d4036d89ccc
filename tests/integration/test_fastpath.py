"""The fast path with real processes in control groups: who stands still, what outlives it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hyperion.adapters.checkpoint import freezer, held
from hyperion.adapters.checkpoint.fastpath import FastPath
from hyperion.adapters.checkpoint.freezer import Freezer, Group
from hyperion.adapters.checkpoint.pauser import FastPathPauser
from hyperion.adapters.runtime.cgroup import Cgroups

TREE = """
import os, sys, threading, time
def spin(path):
    while True:
        with open(path, "w") as beat:
            beat.write(str(time.monotonic_ns()))
n = 0
for k in range(1, int(sys.argv[2])):
    if os.fork() == 0:
        n = k
        break
threading.Thread(target=spin, args=(f"{sys.argv[1]}/{n}-thread",), daemon=True).start()
spin(f"{sys.argv[1]}/{n}")
"""


class Tree:
    """Processes with two threads each, that write down the time as long as they run."""

    def __init__(self, place, groups, count=3):
        place.mkdir()
        self.place, self.count = place, count
        join = 'for g in "$@"; do case $g in --) break;; esac; echo 0 >"$g/cgroup.procs"; done'
        script = f'{join}; while [ $1 != -- ]; do shift; done; shift; exec "$@"'
        command = ["sh", "-c", script, "sh", *groups, "--"]
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", TREE, str(place), str(count)], start_new_session=True
        )
        assert eventually(lambda: len(list(place.iterdir())) == 2 * count)

    def runs(self):
        """Whether any of them does anything soon."""
        before = self._beats()
        return eventually(lambda: self._beats() != before, 3.0)

    def stands(self):
        """Whether none of them does anything for a fifth of a second."""
        before = self._beats()
        time.sleep(0.2)
        return self._beats() == before

    def pids(self):
        return [int(p) for p in subprocess.check_output(
            ["ps", "-o", "pid=", "-g", str(self.process.pid)], text=True).split()]  # fmt: skip

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def _beats(self):
        return {path.name: path.read_bytes() for path in self.place.iterdir()}


def eventually(true, within_s=10.0):
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(params=["as it is", "v1 only"])
def groups(request, tmp_path):
    """``v1 only`` hides the v2 mount from the reader; the groups that it makes are real."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
    if request.param == "v1 only":
        lines = [line for line in lines if " - cgroup2 " not in line]
    (tmp_path / "mountinfo").write_text("".join(lines))
    (tmp_path / "cgroup").write_text(Path("/proc/self/cgroup").read_text())
    made = Cgroups(f"hyperion-fast-{os.getpid()}", proc=tmp_path)
    if not made.holds:
        pytest.skip(f"cgroup: {made.abilities()['cgroup']}")
    yield made
    for name in made.replicas():
        made.kill(name)
        assert eventually(lambda name=name: made.remove(name))
    made.close()


@pytest.fixture
def tree(groups, tmp_path):
    made = Tree(tmp_path / "beats", groups.create("r.1-1.0", cpus_milli=1000, memory_mib=0))
    yield made
    for group in Path("/sys/fs/cgroup").glob(f"*/hyperion-fast-{os.getpid()}/r.1-1.0"):
        with contextlib.suppress(OSError):
            (group / "cgroup.freeze").write_text("0")
    made.end()


# -- the freezer -----------------------------------------------------------------------------------


def test_a_tree_stands_still_and_goes_on(groups, tree):
    group, made = Group(groups.group("r.1-1.0")), Freezer()
    for _ in range(5):
        stop = made.freeze([group])
        assert stop.how in (("freezer", "hedged") if group.is_v2 else ("signals",)), stop
        assert stop.confirmed_ns >= stop.stopped_ns >= stop.called_ns, stop
        assert group.stands()
        assert tree.stands()
        made.go_on([group])
        assert tree.runs()
    group.close()
    made.close()


def test_whoever_was_boosted_is_afterwards_what_it_was(groups, tree):
    nice = tree.pids()[0]
    os.setpriority(os.PRIO_PROCESS, nice, 7)
    group, made = Group(groups.group("r.1-1.0")), Freezer()
    made.freeze([group])
    made.go_on([group])
    assert os.getpriority(os.PRIO_PROCESS, nice) == 7
    assert {os.sched_getscheduler(tid) for tid in group.threads()} == {os.SCHED_OTHER}
    group.close()
    made.close()


def test_a_write_that_hangs_is_hedged_by_signals(groups, tree):
    class Late(Group):
        """Another holds the lock of the hierarchy for a fifth of a second."""

        def _write(self, still):
            if still:
                time.sleep(0.2)
            return super()._write(still)

    group, made = Late(groups.group("r.1-1.0")), Freezer()
    if not group.is_v2:
        pytest.skip("control groups of v1 have no freezer that we use")
    stop = made.freeze([group])
    assert stop.how.startswith("hedged"), stop
    assert tree.stands()
    made.go_on([group])
    assert tree.runs(), "neither the signal nor the write that came late may hold it"
    group.close()
    made.close()


def test_without_a_group_signals_do(tmp_path):
    tree = Tree(tmp_path / "beats", [])
    group, made = Group("", tuple(tree.pids())), Freezer()
    try:
        stop = made.freeze([group])
        assert stop.how.startswith("signals"), stop
        assert tree.stands()
        made.go_on([group])
        assert tree.runs()
    finally:
        tree.end()
        made.close()


def test_a_group_that_forks_all_the_time_stands_still(groups, tmp_path):
    paths = groups.create("r.1-1.1", cpus_milli=1000, memory_mib=0)
    script = 'for g in "$@"; do echo 0 >"$g/cgroup.procs"; done; while :; do /bin/true; done'
    process = subprocess.Popen(["sh", "-c", script, "sh", *paths], start_new_session=True)
    group, made = Group(groups.group("r.1-1.1")), Freezer()
    try:
        assert eventually(group.processes)
        for _ in range(50):
            made.freeze([group])
            assert eventually(group.stands, 1.0)
            before = group.processes()
            time.sleep(0.002)
            assert group.processes() == before
            made.go_on([group])
    finally:
        made.go_on([group])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        group.close()
        made.close()


# -- the process ----------------------------------------------------------------------------------


@pytest.fixture
def directory():
    """One that another user could reach, if only the rights of the socket let him."""
    with tempfile.TemporaryDirectory(prefix="hyperion-fastpath-") as made:
        yield Path(made) / "fastpath"


def play(directory, story):
    """Run a story with a pauser of this directory; its process is killed afterwards."""

    async def telling():
        pauser = FastPathPauser(directory)
        await pauser.start(lambda name, woken: None)
        try:
            return await story(pauser)
        finally:
            await pauser.close()
            pauser.kill()

    return asyncio.run(telling())


def test_it_freezes_and_thaws_by_name(directory, groups, tree):
    async def story(pauser):
        await pauser.arm("train", [groups.group("r.1-1.0")], [])
        paused = await pauser.freeze("train", 10_000)
        assert paused.confirmed_ns, paused
        assert await pauser.is_still("train")
        assert tree.stands()
        await pauser.thaw("train")
        assert not await pauser.is_still("train")
        assert tree.runs()
        await pauser.freeze("train", 10_000)
        await pauser.disarm("train")
        assert tree.runs(), "whoever is disarmed goes on"
        with pytest.raises(OSError, match="no such set"):
            await pauser.freeze("train", 10_000)

    play(directory, story)


def test_a_hold_ends_by_itself(directory, groups, tree):
    async def story(pauser):
        await pauser.arm("train", [groups.group("r.1-1.0")], [])
        await pauser.freeze("train", 300)
        assert tree.stands()
        await asyncio.sleep(0.4)
        assert tree.runs()

    play(directory, story)


def test_a_new_fast_path_holds_on_and_lets_go_in_time(directory, groups, tree):
    async def story(pauser):
        path = groups.group("r.1-1.0")
        await pauser.arm("train", [path], [])
        await pauser.freeze("train", 3000)
        pauser.kill()
        await asyncio.sleep(0.1)
        assert tree.stands(), "it stands still though nobody lives who stopped it"
        assert await pauser.is_still("train"), "asking starts a new one, which knows"
        assert tree.stands()
        await asyncio.sleep(3.0)
        assert tree.runs()

    play(directory, story)


def test_what_is_armed_while_a_new_fast_path_takes_over_is_armed(directory, groups, tree):
    async def story(pauser):
        members = [], tree.pids()
        for n in range(20):
            await pauser.arm(f"early.{n}", *members)
        pauser.kill()
        late = [asyncio.create_task(pauser.arm("late.0", *members))]
        for n in range(1, 2000):  # while the new one is told of the early ones
            late.append(asyncio.create_task(pauser.arm(f"late.{n}", *members)))
            await asyncio.sleep(0.0005)
            if late[0].done():
                break
        await asyncio.gather(*late)
        for name in ("early.0", "early.19", "late.0", f"late.{len(late) - 1}"):
            assert not await pauser.is_still(name)

    play(directory, story)


def test_the_dead_man_lets_go_when_nobody_comes_back(directory, groups, tree):
    async def story(pauser):
        await pauser.arm("train", [groups.group("r.1-1.0")], [])
        await pauser.freeze("train", 1000)
        pauser.kill()
        assert tree.stands()

    play(directory, story)
    assert eventually(tree.runs, 5.0), "no process may stand still past its hold"


def test_the_dead_man_lets_go_of_processes_without_a_group(directory, tmp_path):
    tree = Tree(tmp_path / "beats", [])

    async def story(pauser):
        await pauser.arm("train", [], tree.pids())
        await pauser.freeze("train", 1000)
        pauser.kill()
        assert tree.stands()

    try:
        play(directory, story)
        assert eventually(tree.runs, 5.0)
    finally:
        tree.end()


def test_only_one_serves_a_directory(directory):
    async def story(pauser):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", freezer.__file__.replace("freezer", "fastpath"),
            str(directory), stderr=subprocess.PIPE,
        )  # fmt: skip
        _, said = await second.communicate()
        assert second.returncode == 75
        assert b"another fast path" in said

    play(directory, story)


# -- what it refuses -------------------------------------------------------------------------------

WRONG = [
    b"",
    b"{",
    b"[]",
    b'"freeze"',
    b"\xff\xfe",
    b"[" * 5000,
    json.dumps({"do": "explode"}).encode(),
    json.dumps({"do": "arm"}).encode(),
    json.dumps({"do": "arm", "set": "x"}).encode(),
    json.dumps({"do": "arm", "set": "x" * 200, "pids": [99999]}).encode(),
    json.dumps({"do": "arm", "set": "x", "groups": ["relative"]}).encode(),
    json.dumps({"do": "arm", "set": "x", "groups": ["/no/such/group"]}).encode(),
    json.dumps({"do": "arm", "set": "x", "groups": "/"}).encode(),
    json.dumps({"do": "arm", "set": "x", "pids": [1]}).encode(),
    json.dumps({"do": "arm", "set": "x", "pids": ["7"]}).encode(),
    json.dumps({"do": "freeze", "set": "unknown", "hold_ms": 10}).encode(),
    json.dumps({"do": "freeze", "set": "unknown"}).encode(),
    json.dumps({"do": "freeze", "set": "unknown", "hold_ms": 10**9}).encode(),
    json.dumps({"do": "freeze", "set": "unknown", "hold_ms": "10"}).encode(),
    json.dumps({"do": "guard", "set": "unknown", "victims": []}).encode(),
    json.dumps({"do": "guard", "set": "unknown", "victims": "all"}).encode(),
    json.dumps({"do": "guard", "set": "unknown", "victims": [["a"]]}).encode(),
    json.dumps({"do": "guard", "set": "unknown", "victims": [["a", 5]] * 600}).encode(),
    json.dumps({"do": "activate", "set": "unknown"}).encode(),
    json.dumps({"do": "rest", "set": "unknown"}).encode(),
    json.dumps({"do": "thaw", "set": None}).encode(),
]


@pytest.mark.parametrize("packet", WRONG, ids=range(len(WRONG)))
def test_a_wrong_order_is_answered_with_what_is_wrong(tmp_path, packet):
    made = FastPath(str(tmp_path))
    said = json.loads(made.answer(packet))
    made.close()
    assert said["error"]


def test_a_stranger_who_talks_nonsense_harms_nobody(directory, groups, tree):
    async def story(pauser):
        await pauser.arm("train", [groups.group("r.1-1.0")], [])
        for packet in WRONG:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(str(directory / "socket"))
                if packet:
                    stranger.send(packet)
        await pauser.freeze("train", 5000)
        assert tree.stands()
        await pauser.thaw("train")

    play(directory, story)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_turned_away(directory):
    async def story(pauser):
        os.chmod(directory, 0o755)
        os.chmod(directory / "socket", 0o666)
        script = (
            "import os, socket, sys; os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]);"
            's.send(b\'{"do": "status"}\'); sys.exit(0 if s.recv(99) else 7)'
        )
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(directory / "socket"), stderr=subprocess.DEVNULL
        )
        assert await other.wait() != 0

    os.chmod(directory.parent, 0o755)
    play(directory, story)


def test_what_is_held_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "held")
    file = held.Held(path)
    file.publish()
    first, second = file.add(2, "/a/group with spaces"), file.add(0, "11 12")
    file.mark(first, 5000)
    assert held.read(path) == [(5000, 2, "/a/group with spaces")]
    file.mark(second, 7000)
    file.mark(first, 0)
    assert held.read(path) == [(7000, 0, "11 12")]
    file.drop(second)
    assert held.read(path) == []
    assert file.add(1, "/b") == second, "lines are used again"
    with pytest.raises(OSError, match="too long"):
        file.add(2, "/" + "x" * 2000)
    file.close()
    (tmp_path / "held").write_text("another boot".ljust(1023) + "\n" + "5 2 /a".ljust(1023) + "\n")
    assert held.read(path) == [], "what stood before this boot does not stand now"


def test_many_threads_ask_at_once(directory, groups, tree):
    """Answers find whoever asked, though a whole agent uses one connection."""

    async def story(pauser):
        for n in range(8):
            await pauser.arm(f"set-{n}", [groups.group("r.1-1.0")], [])
        await asyncio.gather(*(pauser.freeze(f"set-{n}", 5000) for n in range(8)))
        await asyncio.gather(*(pauser.thaw(f"set-{n}") for n in range(8)))
        assert tree.runs()

    play(directory, story)
