"""What a runtime refuses, limits, and leaves behind: reasons, names, memory, descriptors."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from runtime_watched import Watched, order

from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.control.messages import Prepare, ReplicaPrepared
from hyperion.model.ids import AllocationId
from hyperion.model.resources import ResourceRequest


def test_prepare_gives_an_address_and_a_port_of_its_own(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            for i in range(50):
                await w.runtime.prepare(order(f"job.1-1.{i}", kind=Prepare, command=("true",)))
            ports = [e.port for e in w.events if isinstance(e, ReplicaPrepared)]
            assert len(set(ports)) == 50
            await w.runtime.prepare(order("job.1-1.0", kind=Prepare, command=("true",)))
            assert w.said("job.1-1.0", ReplicaPrepared)[1].port == ports[0]
            assert {e.address for e in w.events} == {"127.0.0.1"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"workdir": "/no/such/place"}, ["/no/such/place", "node-1"]),
        ({"workdir": "relative"}, ["relative", "absolute"]),
        ({"workdir": "bundle:sha256:00"}, ["bundle:sha256:00", "no way to fetch"]),
        ({"image": "docker.io/x"}, ["docker.io/x", "node-1"]),
    ],
)
@pytest.mark.parametrize("step", ["prepare", "launch"])
def test_what_cannot_run_is_refused_with_a_reason(tmp_path, job, words, step):
    async def story():
        async with Watched(tmp_path) as w:
            if step == "prepare":
                await w.runtime.prepare(order(kind=Prepare, command=("true",), **job))
            else:
                await w.runtime.launch(order(command=("true",), **job))
            ended = await w.exited("job.1-1.0")
            assert ended.never_ran
            assert ended.exit_code is None
            for word in words:
                assert word in ended.reason
            assert len(w.events) == 1

    asyncio.run(story())


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "x" * 300, "a\nb", "ä.1-1.0"])
def test_a_name_that_no_directory_can_have_is_refused(tmp_path, name):
    async def story():
        async with Watched(tmp_path) as w:
            await w.runtime.launch(order(name, command=("true",)))
            await w.runtime.prepare(order(name, kind=Prepare, command=("true",)))
            await w.runtime.kill(AllocationId(name), 0)
            await w.runtime.drop(AllocationId(name))
            assert [e.never_ran for e in w.events] == [True] * 3
            with pytest.raises(FileNotFoundError):
                await w.output(name)

    asyncio.run(story())


def test_too_long_a_command_is_refused_and_a_long_script_is_not(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            ended = await w.run("a.1-1.0", command=("true", "x" * 3_000_000))
            assert ended.never_ran
            assert "too long" in ended.reason
            ended = await w.run("b.1-1.0", run="# " + "x" * 3_000_000 + "\nexit 8")
            assert ended.exit_code == 8

    asyncio.run(story())


def test_an_absolute_workdir_is_where_it_runs(tmp_path):
    async def story():
        (tmp_path / "here").mkdir()
        async with Watched(tmp_path / "state") as w:
            await w.run(command=("pwd",), workdir=str(tmp_path / "here"))
            assert (await w.output()).strip() == str(tmp_path / "here")

    asyncio.run(story())


def test_one_directory_has_one_agent(tmp_path):
    async def story():
        async with Watched(tmp_path):
            with pytest.raises(OSError, match="belongs to another agent"):
                await ProcessRuntime(tmp_path, Watched.surround, "x").start(print)

    asyncio.run(story())


def test_a_replica_that_takes_too_much_memory_is_ended_and_the_reason_said(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            if not w.runtime.abilities()["memory_limit"].startswith("yes"):
                pytest.skip(f"memory_limit: {w.runtime.abilities()['memory_limit']}")
            program = "x = bytearray(200 << 20); print(len(x))"
            ended = await w.run(
                command=(sys.executable, "-c", program), request=ResourceRequest(memory_mib=64)
            )
            assert ended.exit_code == 137
            assert "out of memory" in ended.reason
            fine = await w.run(
                "fine.1-1.0",
                command=(sys.executable, "-c", program),
                request=ResourceRequest(memory_mib=400, cpus_milli=250),
            )
            assert fine.exit_code == 0

    asyncio.run(story())


def test_no_group_and_no_descriptor_is_left_behind(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            await w.run("first.1-1.0", command=("true",))
            before = len(os.listdir("/proc/self/fd"))
            for i in range(20):
                await w.runtime.launch(order(f"job.1-1.{i}", command=("true",)))
            for i in range(20):
                await w.exited(f"job.1-1.{i}")
            assert len(os.listdir("/proc/self/fd")) == before
            name = f"hyperion-{w.runtime.id}"
        return name

    name = asyncio.run(story())
    assert list(Path("/sys/fs/cgroup").glob(f"*/{name}")) == []
