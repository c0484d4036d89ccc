"""What a runtime promises of replicas set aside on disk; with control groups and without."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from runtime_watched import Watched, order

from hyperion.adapters.runtime import aside
from hyperion.control.messages import ReplicaExited, ReplicaStarted
from hyperion.model.ids import AllocationId

pytestmark = pytest.mark.skipif(
    not aside.version(), reason=f"no CRIU {aside.NEEDED} on PATH that works"
)
ID = AllocationId("job.1-1.0")
COUNT = ("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done")


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
def settings(request):
    return {"use_cgroups": request.param}


async def counts(w, beyond):
    """Until the replica has counted further; all it has counted."""
    async with asyncio.timeout(20):
        while len(lines := (await w.output()).split()) <= beyond:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return [int(line) for line in lines]


def test_it_comes_back_with_the_same_pid_and_counts_on(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.launch(order(command=COUNT))
            await counts(w, 5)
            for times in (1, 2):
                assert await w.runtime.set_aside(ID) > 0
                assert w.runtime.is_aside(ID)
                before = await counts(w, 0)
                await w.runtime.bring_back(ID)
                assert not w.runtime.is_aside(ID)
                lines = await counts(w, len(before) + 5)
                assert lines == list(range(1, len(lines) + 1))
                assert len({x.pid for x in w.said(ID, ReplicaStarted)}) == 1
                assert len(w.said(ID, ReplicaStarted)) == 1 + times
            assert w.said(ID, ReplicaExited) == []

    asyncio.run(story())


def test_the_order_may_come_again_before_and_after_a_new_agent(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.launch(order(command=COUNT))
            await counts(w, 5)
            both = w.runtime.set_aside(ID), w.runtime.set_aside(ID)
            first, second = await asyncio.gather(*both)
            assert first == second > 0
            await w.runtime.close()
            later = Watched(tmp_path, **settings)
            await later.runtime.start(later._hear)
            await later.runtime.launch(order(command=COUNT))
            assert await later.runtime.set_aside(ID) == first
            assert later.runtime.is_aside(ID)
            await later.runtime.kill(ID, 0)
            await later.exited(ID)
            await later.runtime.close()
            w.events.clear()

    asyncio.run(story())


def test_an_agent_that_ends_lets_it_be_written_and_read_to_the_end(tmp_path, settings):
    async def cancelled(work):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.launch(order(command=COUNT))
            await counts(w, 5)
            await cancelled(w.runtime.set_aside(ID))
            assert w.runtime.is_aside(ID)
            before = await counts(w, 0)
            await cancelled(w.runtime.bring_back(ID))
            assert not w.runtime.is_aside(ID)
            lines = await counts(w, len(before) + 5)
            assert lines == list(range(1, len(lines) + 1))
            assert w.said(ID, ReplicaExited) == []

    asyncio.run(story())


def test_it_comes_back_once_and_is_not_counted_before_it_has(tmp_path, settings):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.launch(order(command=COUNT))
            await counts(w, 5)
            await w.runtime.set_aside(ID)
            before = await counts(w, 0)
            coming = [asyncio.ensure_future(w.runtime.bring_back(ID)) for _ in range(2)]
            await asyncio.sleep(0.01)
            (groups, pids) = await w.runtime.members(ID)
            assert groups or pids
            assert not w.runtime.is_aside(ID)
            await asyncio.gather(*coming)
            lines = await counts(w, len(before) + 5)
            assert lines == list(range(1, len(lines) + 1))
            assert w.said(ID, ReplicaExited) == []

    asyncio.run(story())


@pytest.mark.parametrize("how", ["killed", "unknown"])
def test_a_new_agent_can_end_what_lies_aside(tmp_path, settings, how):
    async def story():
        w = Watched(tmp_path, **settings)
        await w.runtime.start(w._hear)
        await w.runtime.launch(order(command=COUNT))
        await counts(w, 5)
        await w.runtime.set_aside(ID)
        await w.runtime.close()
        async with Watched(tmp_path, **settings) as later:
            async with asyncio.timeout(20):
                if how == "killed":
                    await later.runtime.kill(ID, 0)
                    await later.exited(ID)
                else:
                    await later.runtime.sweep([])
            assert not list(tmp_path.rglob("aside"))
            assert later.said(ID, ReplicaStarted) == []

    asyncio.run(story())


def alive_pids():
    return {int(x.name) for x in Path("/proc").iterdir() if x.name.isdigit()}


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2])
def test_killed_while_it_is_written_it_is_gone_for_good(tmp_path, settings, delay_s):
    async def story():
        async with Watched(tmp_path, **settings) as w:
            await w.runtime.launch(order(command=COUNT))
            await counts(w, 5)
            writing = asyncio.ensure_future(w.runtime.set_aside(ID))
            await asyncio.sleep(delay_s)  # before, while or after it is written: all the same
            await w.runtime.kill(ID, 0)
            await w.exited(ID)
            with contextlib.suppress(OSError):
                await writing
            assert not w.runtime.is_aside(ID)
            [started, *_] = w.said(ID, ReplicaStarted)
            assert started.pid not in alive_pids()

    asyncio.run(story())
