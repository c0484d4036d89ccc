"""What every runtime promises, with real processes; with control groups and without."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from runtime_watched import Watched, alive, await_file, order

from hyperion.adapters.runtime import tree
from hyperion.control.messages import Peer, ReplicaExited, ReplicaStarted
from hyperion.model.ids import AllocationId
from hyperion.model.job import Checkpoint, Secret


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
def settings(request):
    return {"use_cgroups": request.param}


def test_it_runs_a_command_and_tells_of_its_start_and_end(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            ended = await w.run(command=("sh", "-c", "echo out; echo err >&2; exit 7"))
            (started,) = w.said("job.1-1.0", ReplicaStarted)
            assert started.pid > 1
            assert started.started_at_ms > 1_600_000_000_000
            assert (ended.exit_code, ended.by_itself, ended.never_ran) == (7, True, False)
            assert ended.reason == "exit code 7"
            assert await w.output() == "out\nerr\n"
            assert len(w.events) == 2

    asyncio.run(story())


def test_the_command_is_run_as_it_is_and_not_by_a_shell(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            await w.run("a.1-1.0", command=("printf", "%s|", "$HOME", "a b", "", "*", "--"))
            assert await w.output("a.1-1.0") == "$HOME|a b||*|--|"
            ended = await w.run("b.1-1.0", command=("exit", "3"))  # no such program anywhere
            assert ended.exit_code == 127
            assert "not found" in ended.reason

    asyncio.run(story())


def test_a_replica_finds_its_surroundings(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            await w.run(
                run='echo "$RANK $MASTER_PORT $GREETING $TOKEN"; cat "$HERE/hostfile"; pwd\n',
                envs={"GREETING": "hi"},
                secrets={"TOKEN": Secret("s3cret")},
                peers=(Peer(rank=0, node="n", address="127.0.0.1", port=4711),),
            )
            lines = (await w.output()).splitlines()
            assert lines[:2] == ["0 4711 hi s3cret", "node-1 slots=1"]
            assert lines[2] == str(tmp_path / "replicas/job.1-1.0/work")

    asyncio.run(story())


def test_secrets_are_in_no_file_and_on_no_command_line(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            ready = tmp_path / "ready"
            secrets = {"TOKEN": Secret("hunter2hunter2")}
            await w.runtime.launch(
                order(run=f"echo up > {ready}; sleep 60; true", secrets=secrets, setup="true")
            )
            await await_file(ready)
            (pids,) = tree.marked(w.runtime.id).values()
            assert len(pids) >= 2
            seen = [Path(f"/proc/{pid}/cmdline") for pid in pids]
            seen += [path for path in tmp_path.rglob("*") if path.is_file()]
            assert [path for path in seen if b"hunter2" in path.read_bytes()] == []
            assert "hunter2" not in repr(w.events)

    asyncio.run(story())


def test_the_agents_own_secrets_stay_with_the_agent(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERION_AGENT_KEY", "mine")

    async def story():
        async with Watched(tmp_path) as w:
            await w.run(command=("env",))
            assert "HYPERION_AGENT_KEY" not in await w.output()

    asyncio.run(story())


def test_launching_again_runs_nothing_again(tmp_path, settings):
    async def story():
        runs = tmp_path / "runs"
        async with Watched(tmp_path / "state", **settings) as w:
            job = {"command": ("sh", "-c", f"echo x >> {runs}; sleep 0.1; exit 4")}
            for _ in range(3):
                await w.runtime.launch(order(**job))
            await w.exited("job.1-1.0")
            await w.runtime.launch(order(**job))
            assert [e.exit_code for e in w.said("job.1-1.0", ReplicaExited)] == [4, 4]
            await w.runtime.drop(AllocationId("job.1-1.0"))
            await w.runtime.launch(order(**job))
            assert (await w.exited("job.1-1.0", 3)).exit_code == 4
        assert runs.read_text() == "x\n"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("kill -9 $$", 137, "ended by SIGKILL"),
        ("kill -SEGV $$", 139, "ended by SIGSEGV"),
        ("exit 0", 0, ""),
        ("exit 255", 255, "exit code 255"),
        ("no-such-program", 127, "exit code 127 (command not found)"),
    ],
)
def test_an_end_has_its_code_and_its_reason(tmp_path, script, code, reason):
    async def story():
        async with Watched(tmp_path) as w:
            ended = await w.run(run=script)
            assert (ended.exit_code, ended.reason) == (code, reason)

    asyncio.run(story())


def test_setup_comes_first_and_its_failure_is_the_replicas(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            await w.run("a.1-1.0", setup="echo one", command=("echo", "two"))
            assert await w.output("a.1-1.0") == "one\ntwo\n"
            ended = await w.run("b.1-1.0", setup="exit 5", command=("echo", "two"))
            assert (ended.exit_code, ended.reason) == (5, "setup failed: exit code 5")
            assert await w.output("b.1-1.0") == ""

    asyncio.run(story())


def test_stop_gives_the_replica_its_grace(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            ready = tmp_path / "ready"
            script = (
                f"trap 'echo bye; exit 0' TERM; echo up > {ready}; while :; do sleep 0.01; done"
            )
            await w.runtime.launch(order(run=script))
            await await_file(ready)
            await w.runtime.kill(AllocationId("job.1-1.0"), 15_000)
            ended = await w.exited("job.1-1.0")
            assert (ended.exit_code, ended.by_itself) == (0, False)
            assert "bye" in await w.output()

    asyncio.run(story())


def test_what_a_script_has_started_has_its_grace_too(tmp_path, settings):
    """The shell ends at once when it is told to, and runs nothing more of its script."""
    saver = f"""
import signal, sys, time
def save(*_):
    time.sleep(0.4)
    open({str(tmp_path / "saved")!r}, "w").write("all\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open({str(tmp_path / "ready")!r}, "w").write("up\\n")
while True:
    time.sleep(0.01)
"""
    (tmp_path / "saver.py").write_text(saver)

    async def story():
        async with Watched(tmp_path / "r", **settings) as w:
            script = f"{sys.executable} {tmp_path}/saver.py; echo more"
            await w.runtime.launch(order(run=script))
            await await_file(tmp_path / "ready")
            await w.runtime.kill(AllocationId("job.1-1.0"), 15_000)
            ended = await w.exited("job.1-1.0")
            assert (tmp_path / "saved").read_text() == "all\n"
            assert not ended.by_itself
            assert "more" not in await w.output()
            deaf = f"trap '' TERM; echo up >{tmp_path}/deaf; while :; do sleep 1; done"
            await w.runtime.launch(order("b.1-1.0", run=f"sh -c {deaf!r}; echo more"))
            await await_file(tmp_path / "deaf")
            await w.runtime.kill(AllocationId("b.1-1.0"), 600_000)
            await asyncio.sleep(0.2)
            assert w.said("b.1-1.0", ReplicaExited) == []
            await w.runtime.kill(AllocationId("b.1-1.0"), 100)
            await w.exited("b.1-1.0")
            assert tree.marked(w.runtime.id) == {}

    asyncio.run(story())


@pytest.mark.parametrize(("wanted", "heard"), [("USR1", "shell child"), ("B:USR2", "shell")])
def test_it_hears_the_signal_that_its_spec_names(tmp_path, settings, wanted, heard):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            name = wanted.removeprefix("B:")
            child = f"trap 'echo child; exit 0' {name}; while :; do sleep 0.01; done"
            script = (
                f"trap 'echo shell; sleep 0.2; kill -9 $!; exit 3' {name}\n"
                f'bash -c "{child}" &\n'
                f"sleep 0.2; echo up >{tmp_path}/ready\nwhile :; do sleep 0.01; done"
            )
            checkpoint = Checkpoint(signal=wanted)
            await w.runtime.launch(order(run=script, checkpoint=checkpoint))
            await await_file(tmp_path / "ready")
            await w.runtime.kill(AllocationId("job.1-1.0"), 15_000)
            ended = await w.exited("job.1-1.0")
            assert ended.exit_code == 3
            said = (await w.output()).split()
            assert [word for word in ("shell", "child") if word in said] == heard.split()

    asyncio.run(story())


LOADER = """
import os, signal, sys, time
own, out = "trainer", sys.argv[1]
def heard(*_):
    with open(out, "a") as file:
        file.write(own + "\\n")
    if own == "trainer" and sys.argv[2] == "waits":
        time.sleep(0.3)
    os._exit(0)
signal.signal(signal.SIGTERM, heard)
if os.fork() == 0:
    own = "loader"
    open(out + ".ready", "w").write("up\\n")
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("shell", ["{}", "bash -c '{}; true'", "sh -c 'bash -c \"{}; true\"'"])
def test_a_program_is_told_to_end_and_not_what_it_has_started(tmp_path, settings, shell):
    """Who loads its data must not vanish under it; once the program is gone it is told as well."""
    (tmp_path / "loader.py").write_text(LOADER)
    program = f"{sys.executable} {tmp_path}/loader.py {tmp_path}/heard waits"

    async def story():
        async with Watched(tmp_path / "r", **settings) as w:
            await w.runtime.launch(order(run=shell.format(program) + "\ntrue"))
            await await_file(tmp_path / "heard.ready")
            await w.runtime.kill(AllocationId("job.1-1.0"), 15_000)
            await asyncio.sleep(0.15)
            assert (tmp_path / "heard").read_text() == "trainer\n"
            await w.exited("job.1-1.0")
            assert (tmp_path / "heard").read_text() == "trainer\nloader\n"
            assert tree.marked(w.runtime.id) == {}

    asyncio.run(story())


def test_a_later_stop_may_shorten_the_grace(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            ready = tmp_path / "ready"
            await w.runtime.launch(
                order(run=f"trap '' TERM; echo up > {ready}; while :; do sleep 1; done")
            )
            await await_file(ready)
            await w.runtime.kill(AllocationId("job.1-1.0"), 600_000)
            assert w.said("job.1-1.0", ReplicaExited) == []
            await w.runtime.kill(AllocationId("job.1-1.0"), 0)
            ended = await w.exited("job.1-1.0")
            assert (ended.exit_code, ended.by_itself) == (None, False)

    asyncio.run(story())


#: Children that want to get away: their own session, orphaned twice, deaf to every polite signal.
ESCAPE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
def note(name):
    with open(sys.argv[1] + "." + name + ".new", "w") as f:
        f.write(f"{os.getpid()}\\n")
    os.rename(sys.argv[1] + "." + name + ".new", sys.argv[1] + "." + name)
for name in ("session", "daemon"):
    if os.fork() == 0:
        os.setsid()
        if name == "daemon" and os.fork() != 0:
            os._exit(0)
        note(name)
        time.sleep(300)
        os._exit(0)
note("main")
time.sleep(float(sys.argv[2]))
"""


async def escaped(tmp_path):
    names = ("session", "daemon", "main")
    return [int(await await_file(tmp_path / f"pid.{name}")) for name in names]


def test_stop_ends_the_whole_tree(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            argv = (sys.executable, "-c", ESCAPE, str(tmp_path / "pid"), "300")
            await w.runtime.launch(order(command=argv))
            pids = await escaped(tmp_path)
            await w.runtime.kill(AllocationId("job.1-1.0"), 50)
            await w.exited("job.1-1.0")
            assert [pid for pid in pids if alive(pid)] == []
            assert tree.marked(w.runtime.id) == {}

    asyncio.run(story())


def test_what_a_replica_leaves_running_ends_with_it(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            argv = (sys.executable, "-c", ESCAPE, str(tmp_path / "pid"), "0.2")
            ended = await w.run(command=argv)
            assert (ended.exit_code, ended.by_itself) == (0, True)
            assert [pid for pid in await escaped(tmp_path) if alive(pid)] == []

    asyncio.run(story())


@pytest.mark.parametrize("victim", ["shim", "child", "all"])
def test_however_it_is_killed_it_ends_once(tmp_path, settings, victim):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            child = tmp_path / "child"
            await w.runtime.launch(
                order(
                    run=f"echo $$ > {child}.new; mv {child}.new {child}; cat <&-; sleep 300 & wait"
                )
            )
            shim = (await w.heard("job.1-1.0", ReplicaStarted)).pid
            pid = int(await await_file(child))
            match victim:
                case "shim":
                    os.kill(shim, signal.SIGKILL)
                case "child":
                    os.kill(pid, signal.SIGKILL)
                case "all":
                    os.killpg(shim, signal.SIGKILL)
            ended = await w.exited("job.1-1.0")
            assert ended.exit_code == (137 if victim == "child" else None)
            assert not alive(pid)
            assert tree.marked(w.runtime.id) == {}
            assert len(w.said("job.1-1.0", ReplicaExited)) == 1

    asyncio.run(story())


def test_stopped_before_it_came_it_never_starts(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.kill(AllocationId("job.1-1.0"), 1000)
            ended = await w.exited("job.1-1.0")
            assert (ended.never_ran, ended.reason) == (True, "stopped before it started")
            await w.runtime.launch(order(command=("touch", str(tmp_path / "ran"))))
            assert (await w.exited("job.1-1.0", 2)).never_ran
            assert w.said("job.1-1.0", ReplicaStarted) == []
        async with Watched(tmp_path, **settings) as w:  # and nor does it after a restart
            await w.runtime.launch(order(command=("touch", str(tmp_path / "ran"))))
            assert (await w.exited("job.1-1.0")).never_ran
        assert not (tmp_path / "ran").exists()

    asyncio.run(story())


def test_stop_right_after_launch_ends_it_too(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            names = [f"job.1-1.{i}" for i in range(20)]
            for name in names:
                await w.runtime.launch(order(name, command=("sleep", "300")))
                await w.runtime.kill(AllocationId(name), 200)
            for name in names:
                ended = await w.exited(name)
                assert not ended.by_itself
                assert len(w.said(name, ReplicaExited)) == 1
            assert tree.marked(w.runtime.id) == {}

    asyncio.run(story())


def test_a_restarted_agent_adopts_what_runs_and_learns_how_the_rest_ended(tmp_path, settings):
    async def story():
        go = tmp_path / "go"
        async with Watched(tmp_path / "state", **settings) as first:
            script = f"while [ ! -e {go} ]; do sleep 0.01; done; echo done; exit 6"
            await first.runtime.launch(order("a.1-1.0", run=script))
            await first.run("b.1-1.0", run="exit 9")
            await first.runtime.launch(order("c.1-1.0", run="sleep 300"))
            await first.runtime.close()
            first.events.clear()
        async with Watched(tmp_path / "state", **settings) as second:
            await second.runtime.launch(order("a.1-1.0", run=script))
            await second.runtime.launch(order("b.1-1.0", run="exit 9"))
            assert (await second.exited("b.1-1.0")).exit_code == 9
            assert second.said("a.1-1.0", ReplicaStarted)
            await second.runtime.kill(AllocationId("c.1-1.0"), 100)
            assert (await second.exited("c.1-1.0")).by_itself is False
            go.touch()
            ended = await second.exited("a.1-1.0")
            assert (ended.exit_code, ended.by_itself) == (6, True)
            assert await second.output("a.1-1.0", follow=True) == "done\n"

    asyncio.run(story())


def test_sweep_ends_what_nobody_knows(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as first:
            for name in ("known.1-1.0", "stray.1-1.0"):
                await first.runtime.launch(order(name, command=("sleep", "300")))
            await first.run("over.1-1.0", command=("true",))
            await first.runtime.close()
            pids = {e.allocation: e.pid for e in first.events if isinstance(e, ReplicaStarted)}
            first.events.clear()
        async with Watched(tmp_path, **settings) as second:
            known = [AllocationId("known.1-1.0")]
            assert await second.runtime.sweep(known) == ["stray.1-1.0"]
            assert second.events == []
            assert not alive(pids["stray.1-1.0"])
            assert alive(pids["known.1-1.0"])
            assert os.listdir(tmp_path / "replicas") == ["known.1-1.0"]
            assert await second.runtime.sweep(known) == []
            await second.runtime.launch(order("known.1-1.0", command=("sleep", "300")))
            await second.heard("known.1-1.0", ReplicaStarted)

    asyncio.run(story())
