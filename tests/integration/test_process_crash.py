"""The agent is killed at random instants; every replica still runs once and its end is told.

The agents are forks of one small process (this file run as a program), so that a start takes
milliseconds and the instants fall all over the work.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hyperion.adapters.runtime import deadman, ledger, tree
from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.control.messages import ReplicaExited, Run
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Surroundings

KILLS = 40
REPLICAS = 120
SEED = 20261124


def wanted_code(number):
    return number % 5


def script(directory, number):
    nap_s = (number * 37 % 100) / 500
    return f"echo {number} >>{directory}/runs; sleep {nap_s}; exit {wanted_code(number)}"


def order(number, run):
    return Run(
        allocation=AllocationId(f"job.1-1.{number}"),
        generation=1,
        job=Job(id=JobId("job"), run=run),
        rank=0,
        attempt=1,
        request=ResourceRequest(),
    )


def runtime(directory, use_cgroups=True):
    def surround(*_):
        return Surroundings(variables={}, files={})

    return ProcessRuntime(directory / "state", surround, "127.0.0.1", use_cgroups=use_cgroups)


async def agent(directory, use_cgroups, ready=None):
    """One life of the agent: launch all, in the order given, and wait until all have ended."""
    ends, over = {}, asyncio.Event()

    def hear(event):
        if isinstance(event, ReplicaExited):
            ends.setdefault(event.allocation, []).append(event)
            if len(ends) == REPLICAS:
                over.set()

    held = runtime(directory, use_cgroups)
    await held.start(hear)
    if ready is not None:
        os.write(ready, b"x")
    for number in range(REPLICAS):
        await held.launch(order(number, script(directory, number)))
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await over.wait()
    left = tree.marked(held.id)
    await held.close()
    return ends, left


def storm(directory, use_cgroups, seed):
    """Kill agent after agent; then let one live, and print how each replica ended."""
    dice = random.Random(seed)
    for life in range(KILLS):
        if (pid := os.fork()) == 0:
            asyncio.run(agent(directory, use_cgroups))
            os._exit(0)
        # The first lives end around the very first launches, the later ones further on.
        time.sleep(0.02 + dice.random() * 0.04 * (1 + life / 10))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ends, left = asyncio.run(agent(directory, use_cgroups))
    print(json.dumps([left, {x: [(e.exit_code, e.by_itself) for e in y] for x, y in ends.items()}]))


def alone(directory, lease_ms):
    """An agent that keeps a lease, starts two replicas and is then killed by the test."""

    async def life():
        held = runtime(directory, use_cgroups=lease_ms > 0)
        await held.start(lambda _: None)
        held.keep_lease(abs(lease_ms))
        for number in range(2):
            await held.launch(order(number, "setsid sleep 300 & echo $$; wait"))
        print("ready", flush=True)
        await asyncio.sleep(300)

    asyncio.run(life())


def as_program(*words, **settings):
    return [sys.executable, __file__, *map(str, words)], {"stdout": subprocess.PIPE} | settings


# -- tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_cgroups", [1, 0], ids=["cgroups", "no-cgroups"])
def test_every_replica_runs_once_however_often_the_agent_is_killed(tmp_path, use_cgroups):
    argv, settings = as_program("storm", tmp_path, use_cgroups, SEED)
    output = subprocess.run(argv, check=True, timeout=120, **settings).stdout
    left, ends = json.loads(output)
    runs = (tmp_path / "runs").read_text().split()
    assert sorted(map(int, runs)) == list(range(REPLICAS)), f"seed {SEED}"
    wanted = {f"job.1-1.{n}": [[wanted_code(n), True]] for n in range(REPLICAS)}
    assert ends == wanted, f"seed {SEED}"
    assert left == {}
    assert list(Path("/sys/fs/cgroup").glob(f"*/hyperion-{runtime(tmp_path).id}")) == []


def wait_until(condition, what):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, f"waited 20 s for: {what}"
        time.sleep(0.02)  # foreign processes announce nothing


def test_the_dead_man_ends_replicas_when_the_lease_of_a_dead_agent_has(tmp_path):
    """With control groups and without, side by side because the switch takes its seconds."""
    began, lease_s = time.monotonic(), 1.5
    places = [tmp_path / "cgroups", tmp_path / "no-cgroups"]
    for place in places:
        place.mkdir()
        sign = 1 if place.name == "cgroups" else -1
        argv, settings = as_program("alone", place, sign * round(1000 * lease_s))
        with subprocess.Popen(argv, **settings) as process:
            assert process.stdout.readline() == b"ready\n"
            process.kill()
        assert len(tree.marked(runtime(place).id)) == 2  # both live on while the lease runs
    for place in places:
        name = runtime(place).id
        wait_until(lambda name=name: tree.marked(name) == {}, "the dead-man's switch")
        assert time.monotonic() - began >= lease_s  # not before it has ended
    for place in places:
        wait_until(lambda place=place: switches(place) == [], "the switch to end itself")
        (ended,) = asyncio.run(take_up(place))
        assert isinstance(ended, ReplicaExited)
        assert (ended.exit_code, ended.by_itself, ended.never_ran) == (None, False, False)
        assert "lease" in ended.reason


async def take_up(directory):
    """What a new agent learns of the first replica."""
    heard, over = [], asyncio.Event()
    held = runtime(directory)
    await held.start(lambda event: (heard.append(event), over.set()))
    await held.launch(order(0, f"touch {directory}/ran"))
    async with asyncio.timeout(20):
        await over.wait()
    assert await held.sweep([AllocationId("job.1-1.0")]) == []
    await held.close()
    return heard


def switches(directory):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            any(x.endswith(b"deadman.sh") for x in words)
            and os.fsencode(directory / "state") in words
        ):
            found.append(int(path.parent.name))
    return found


def pss_kib(pid):
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("\nPss:")[1].split()[0])


def test_the_switch_is_single_light_and_replaced_when_it_dies(tmp_path):
    async def story():
        first = runtime(tmp_path)
        await first.start(lambda _: None)
        async with asyncio.timeout(20):
            while not switches(tmp_path):  # noqa: ASYNC110  # its words come just after its exec
                await asyncio.sleep(0.01)
        (pid,) = switches(tmp_path)
        await first.close()
        second = runtime(tmp_path)
        await second.start(lambda _: None)
        assert switches(tmp_path) == [pid]
        assert pss_kib(pid) < 1024
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while switches(tmp_path) in ([], [pid]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        second.keep_lease(60_000)
        await second.close()

    asyncio.run(story())
    for pid in switches(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_a_lease_is_kept_on_a_clock_that_survives(tmp_path):
    boot = ledger.boot_id()
    assert deadman.recover_lease(tmp_path, boot) is None
    deadman.keep_lease(tmp_path, boot, 5000)
    assert 4000 < deadman.recover_lease(tmp_path, boot) <= 5000
    deadman.keep_lease(tmp_path, boot, -5000)
    assert deadman.recover_lease(tmp_path, boot) <= -5000
    assert deadman.recover_lease(tmp_path, "another boot") == 0
    (tmp_path / "lease").write_text("torn")
    assert deadman.recover_lease(tmp_path, boot) == 0


def test_after_a_reboot_nothing_is_taken_for_alive(tmp_path):
    """The pid in the claim belongs to somebody else by then: here, to this very test."""
    place = tmp_path / "state/replicas/job.1-1.0"
    place.mkdir(parents=True)
    (place / "claim").write_text(f"{os.getpid()} an-earlier-boot \n")

    async def story():
        heard = []
        held = runtime(tmp_path)
        await held.start(heard.append)
        await held.launch(order(0, "true"))
        await held.kill(AllocationId("job.1-1.0"), 0)
        await held.close()
        return heard

    first, again = asyncio.run(story())
    assert first == again
    assert first.exit_code is None
    assert "restarted" in first.reason


def test_a_claim_whose_pid_is_used_anew_is_not_taken_for_alive(tmp_path):
    place = tmp_path / "state/replicas/job.1-1.0"
    place.mkdir(parents=True)
    (place / "claim").write_text(f"{os.getpid()} {ledger.boot_id()} \n")
    (ended,) = asyncio.run(take_up(tmp_path))
    assert (ended.exit_code, ended.never_ran) == (None, False)


def test_a_claim_that_was_never_written_to_its_end(tmp_path):
    place = tmp_path / "state/replicas/job.1-1.0"
    place.mkdir(parents=True)
    (place / "claim").touch()
    (ended,) = asyncio.run(take_up(tmp_path))
    assert ended.exit_code is None
    assert not (tmp_path / "ran").exists()


# -- without root -------------------------------------------------------------------------------

NOBODY = 65534


async def rootless(directory):
    """A replica that leaves something behind, and one that is stopped; as JSON values."""
    ends, news = {}, asyncio.Event()

    def hear(event):
        if isinstance(event, ReplicaExited):
            ends[event.allocation] = event
            news.set()

    held = runtime(directory)
    await held.start(hear)
    await held.launch(order(0, f"id -u >{directory}/uid; setsid sleep 300 & exit 3"))
    await held.launch(order(1, "setsid sleep 300 & sleep 300"))
    await held.kill(AllocationId("job.1-1.1"), 100)
    async with asyncio.timeout(20):
        while len(ends) < 2:
            news.clear()
            await news.wait()
    left = tree.marked(held.id)
    await held.close()
    first, second = ends["job.1-1.0"], ends["job.1-1.1"]
    return [first.exit_code, second.by_itself, left, dict(held.abilities())]


def as_nobody(directory):
    """Once as we are, which also loads every module, then again without privileges."""
    asyncio.run(rootless(directory / "first"))
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    print(json.dumps(asyncio.run(rootless(directory / "second"))))


def test_it_works_without_root_and_says_what_that_leaves():
    if os.getuid() != 0:
        pytest.skip("not root: every other test of this file has shown it already")
    # Not below pytest's own directory, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="hyperion-test-") as name:
        directory = Path(name)
        for part in (directory, directory / "first", directory / "second"):
            part.mkdir(exist_ok=True)
            part.chmod(0o777)
        argv, settings = as_program("nobody", directory, cwd="/", stderr=subprocess.PIPE)
        done = subprocess.run(argv, timeout=60, check=False, **settings)
        assert done.returncode == 0, done.stderr.decode()
        code, by_itself, left, abilities = json.loads(done.stdout)
        assert (code, by_itself, left) == (3, False, {})
        assert (directory / "second/uid").read_text() == f"{NOBODY}\n"
        assert abilities["memory_limit"] == "no (not permitted)"
        assert abilities["cgroup"] == "no (not permitted)"


if __name__ == "__main__":
    where = Path(sys.argv[2])
    if sys.argv[1] == "storm":
        storm(where, sys.argv[3] == "1", int(sys.argv[4]))
    elif sys.argv[1] == "nobody":
        as_nobody(where)
    else:
        alone(where, int(sys.argv[3]))
