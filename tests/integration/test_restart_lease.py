"""Cut off is not dead: whoever cannot be reached ends its replicas before others may begin."""

import os
import re
import signal
import time
from collections import defaultdict
from contextlib import suppress
from itertools import pairwise

import pytest
from daemons import World, until

from hyperion.control.gang import LOSSES_MAX

SHORT = {"node_lease_ms": 3000}
LONG = {"node_lease_ms": 60_000}
BEAT = """
while :; do
    echo "$HYPERION_ALLOCATION $(date +%s%N) $$" >>"$TRACE"
    sleep 0.05
done
"""


def beating(trace, **more):
    """A job that says every 50 ms that it runs, until it is stopped."""
    spec = {"run": BEAT, "envs": {"TRACE": str(trace)}, "resources": {"cpus": 1}}
    return spec | {"checkpoint": {"grace": 0.5}} | more


def beats(trace):
    """Allocation → when it beat, in ns; in the order of their first beats."""
    found = defaultdict(list)
    for line in trace.read_text().splitlines() if trace.exists() else ():
        allocation, at_ns, _ = line.split()
        found[allocation].append(int(at_ns))
    return found


def await_allocations(trace, count, within_s=30.0):
    until(lambda: len(beats(trace)) >= count, f"{count} allocations to run", within_s)
    return list(beats(trace))


def assert_never_two(trace):
    """No two allocations of the one job ever ran at the same time."""
    spans = sorted((min(b), max(b), name) for name, b in beats(trace).items())
    for (_, ended, one), (began, _, other) in pairwise(spans):
        assert ended < began, f"{other} began {(ended - began) / 1e6:.0f} ms before {one} ended"


def node_of(world, job):
    view = until(lambda: (v := world.client.get(job)).phase == "running" and v, f"{job} to run", 20)
    return world.agents[f"{view.cluster}/{view.nodes[0]}"]


def cancelled(world, job):
    world.client.cancel(job)
    view = world.client.wait(job, 20)
    assert view.phase == "cancelled", view
    until(lambda: not world.replicas(), "its processes to go")
    return view


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One node whose lease nothing here outlasts."""
    with World(tmp_path_factory.mktemp("lease") / "w", federation=LONG, scheduler=LONG) as it:
        yield it


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "killed"])
def test_an_agent_out_of_reach_loses_its_replicas_before_others_begin(tmp_path, number):
    trace = tmp_path / "trace"
    with World(tmp_path / "w", ("n1", "n2"), federation=SHORT, scheduler=SHORT) as world:
        job = world.client.submit(beating(trace))
        agent = node_of(world, job)
        (first,) = await_allocations(trace, 1)
        agent.signal(number)
        _, second = await_allocations(trace, 2)
        assert node_of(world, job) is not agent
        if number == signal.SIGSTOP:
            agent.signal(signal.SIGCONT)
        else:
            agent.process.wait(10)
            agent.start()
        world.settled()
        seen = len(beats(trace)[second])
        until(lambda: len(beats(trace)[second]) > seen + 5, "the second to run on")
        view = cancelled(world, job)
        assert view.restarts == 1, view
        assert list(beats(trace)) == [first, second]
        assert_never_two(trace)


def test_agents_fence_themselves_while_their_scheduler_is_away(tmp_path):
    trace = tmp_path / "trace"
    with World(tmp_path / "w", federation=SHORT, scheduler=SHORT) as world:
        job = world.client.submit(beating(trace))
        node_of(world, job)
        await_allocations(trace, 1)
        world.scheduler.kill()
        until(lambda: not world.replicas(), "the replica to be fenced", 10)
        world.scheduler.start()
        await_allocations(trace, 2)
        assert node_of(world, job)
        assert cancelled(world, job).restarts == 1
        assert len(beats(trace)) == 2
        assert_never_two(trace)


def test_a_restarted_agent_of_a_short_lease_keeps_its_replicas(tmp_path):
    trace = tmp_path / "trace"
    with World(tmp_path / "w", federation=SHORT, scheduler=SHORT) as world:
        job = world.client.submit(beating(trace))
        node_of(world, job)
        (only,) = await_allocations(trace, 1)
        for daemon in (world.agent, world.scheduler, world.federation):
            daemon.restart().ready()
            seen = len(beats(trace)[only])
            until(lambda seen=seen: len(beats(trace)[only]) > seen + 5, "it to run on")
        world.settled()
        assert cancelled(world, job).restarts == 0
        assert len(beats(trace)) == 1


@pytest.mark.parametrize("boot", ["same", "other"])
def test_a_machine_that_loses_power_runs_what_ran_once_more(tmp_path, boot):
    trace, gang = tmp_path / "trace", tmp_path / "gang"
    with World(tmp_path / "w", federation=LONG, scheduler=LONG) as world:
        done = world.client.submit({"run": "true"})
        ended = world.client.wait(done, 20)
        job = world.client.submit(beating(trace))
        pair = world.client.submit(beating(gang, replicas=2))
        await_allocations(trace, 1)
        await_allocations(gang, 2)
        kill_all(world)
        assert not world.processes()
        if boot == "other":
            forge_boot(world)
        for daemon in world.daemons:
            daemon.start()
        world.settled()
        await_allocations(trace, 2)
        await_allocations(gang, 4)
        assert world.client.get(done) == ended
        assert cancelled_both(world, job, pair) == [1, 1]
        assert len(beats(trace)) == 2
        assert len(beats(gang)) == 4
        assert_never_two(trace)


def cancelled_both(world, *jobs):
    for job in jobs:
        world.client.cancel(job)
    views = [world.client.wait(job, 20) for job in jobs]
    assert {view.phase for view in views} == {"cancelled"}
    return [view.restarts for view in views]


def kill_all(world):
    """What a power cut does: every process of the world ends in the same moment."""
    while found := world.processes():
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in world.daemons:
            daemon.process.wait(10)


def forge_boot(world):
    """Make everything written down so far look as if it was written before the last boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        here = file.read().strip()
    before = re.sub("[0-9a-f]", "0", here)
    changed = 0
    for path in world.state.rglob("*"):
        if path.name in ("claim", "lease", "agent"):
            text = path.read_text()
            path.write_text(text.replace(here, before))
            changed += here in text
    assert changed >= 4, "claims and leases name the boot they are of"


def test_replicas_killed_from_outside_run_again_but_not_for_ever(world, tmp_path):
    trace = tmp_path / "trace"
    job = world.client.submit(beating(trace))
    for count in range(1, LOSSES_MAX + 2):
        name = await_allocations(trace, count)[-1]
        shim = shim_of(world, name)
        if count % 2:
            os.killpg(shim, signal.SIGKILL)
        else:
            os.kill(shim, signal.SIGKILL)  # what it had started is left for us to end
    view = world.client.wait(job, 20)
    assert (view.phase, view.restarts) == ("failed", LOSSES_MAX), view
    assert f"lost {LOSSES_MAX + 1} times" in view.reason
    until(lambda: not world.replicas(), "the last process to go")
    assert len(beats(trace)) == LOSSES_MAX + 1
    assert_never_two(trace)


def shim_of(world, allocation):
    claim = world.agent.state_dir / "runtime" / "replicas" / allocation / "claim"
    return int(claim.read_text().split()[0])


def test_a_command_that_is_killed_has_failed_by_itself(world, tmp_path):
    view = world.client.wait(world.client.submit({"run": "kill -KILL $$"}), 20)
    assert (view.phase, view.exit_code, view.restarts) == ("failed", 137, 0), view


def test_cut_off_and_back_within_the_lease_nothing_happens(world, tmp_path):
    trace = tmp_path / "trace"
    job = world.client.submit(beating(trace))
    node_of(world, job)
    (only,) = await_allocations(trace, 1)
    for daemon in world.daemons:
        daemon.signal(signal.SIGSTOP)
    seen, began = len(beats(trace)[only]), time.monotonic()
    until(lambda: len(beats(trace)[only]) > seen + 10, "it to run while all are frozen")
    for daemon in reversed(world.daemons):
        daemon.signal(signal.SIGCONT)
    world.settled()
    assert time.monotonic() - began < 30
    assert cancelled(world, job).restarts == 0
    assert len(beats(trace)) == 1
