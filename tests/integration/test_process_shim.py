"""The claim that decides who runs a replica, tried where two shims really meet over it."""

import asyncio
import os
import signal

import pytest

from hyperion.adapters.runtime import launch, ledger, tree
from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.control.messages import ReplicaExited, ReplicaStarted, Run
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Surroundings

NAME = "job.1-1.0"


def shim(directory, *command):
    """Start a shim as an agent does; what it claims and runs is its own affair."""
    marks = {tree.ALLOCATION: NAME, tree.RUNTIME: "test", "PATH": os.defpath}
    job = Job(id=JobId("job"), command=command)
    order = Run(AllocationId(NAME), 1, job, 0, 1, ResourceRequest())
    return launch.spawn(str(directory), ledger.boot_id(), "/", [], order, marks)


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_of_many_shims_one_runs(tmp_path):
    for attempt in range(20):
        place = tmp_path / str(attempt)
        place.mkdir()
        pids = [shim(place, "sh", "-c", f"echo $PPID >>{place}/runs; exit 3") for _ in range(6)]
        codes = [exit_code(pid) for pid in pids]
        assert sorted(codes) == [0] + [75] * 5
        winner = pids[codes.index(0)]
        assert (place / "runs").read_text() == f"{winner}\n"
        assert ledger.read_claim(str(place)) == ledger.Claim(winner, ledger.boot_id())
        assert ledger.read_exit(str(place)) == ledger.Exit(3)
        assert (place / "log").read_text() == ""


def late_shim(place, ran):
    """A shim held up before its claim, as when its agent died at that very instant."""
    for attempt in range(50):
        # A file of its own for each attempt: what an earlier one had forked may still be at it.
        touched = ran.with_name(f"{ran.name}-{attempt}")
        pid = shim(place, "touch", str(touched))
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        if ledger.read_claim(str(place)) is None:
            return pid, touched
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for path in (place / "claim", place / "exit"):
            path.unlink(missing_ok=True)
    return pytest.fail("in 50 attempts no shim could be stopped before its claim")


async def told(directory, story):
    """Play the story on a runtime; what it said until the replica had ended."""
    heard, over = [], asyncio.Event()

    def hear(event):
        heard.append(event)
        if isinstance(event, ReplicaExited):
            over.set()

    held = ProcessRuntime(directory, lambda *_: Surroundings(variables={}, files={}), "127.0.0.1")
    await held.start(hear)
    await story(held)
    async with asyncio.timeout(20):
        await over.wait()
    await held.close()
    return heard


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "replicas" / NAME
    path.mkdir(parents=True)
    return path


def order(command):
    return Run(
        allocation=AllocationId(NAME),
        generation=1,
        job=Job(id=JobId("job"), command=command),
        rank=0,
        attempt=1,
        request=ResourceRequest(),
    )


def test_a_late_shim_does_not_run_what_another_has_run(tmp_path, place):
    late, touched = late_shim(place, tmp_path / "late")
    heard = asyncio.run(told(tmp_path, lambda held: held.launch(order(("sh", "-c", "exit 4")))))
    assert [type(e) for e in heard] == [ReplicaStarted, ReplicaExited]
    assert heard[-1].exit_code == 4
    os.kill(late, signal.SIGCONT)
    assert exit_code(late) == 75
    assert not touched.exists()
    assert ledger.read_exit(str(place)) == ledger.Exit(4)


def test_a_late_shim_does_not_run_what_was_stopped_meanwhile(tmp_path, place):
    late, touched = late_shim(place, tmp_path / "late")
    heard = asyncio.run(told(tmp_path, lambda held: held.kill(AllocationId(NAME), 1000)))
    assert [(type(e), e.never_ran) for e in heard] == [(ReplicaExited, True)]
    os.kill(late, signal.SIGCONT)
    assert exit_code(late) == 75
    assert not touched.exists()


def test_a_late_shim_that_comes_first_is_the_one_that_is_adopted(tmp_path, place):
    """The new agent's shim finds the claim taken: its agent follows the winner."""

    async def story(held):
        winner = shim(place, "sh", "-c", "sleep 0.2; exit 6")
        pids.append(winner)
        await held.launch(order(("touch", str(tmp_path / "second"))))

    pids: list[int] = []
    heard = asyncio.run(told(tmp_path, story))
    started = [e.pid for e in heard if isinstance(e, ReplicaStarted)]
    ended = [e for e in heard if isinstance(e, ReplicaExited)]
    assert len(ended) == 1
    if ledger.read_claim(str(place)).pid == pids[0]:
        assert started[-1] == pids[0]
        assert ended[0].exit_code == 6
        assert not (tmp_path / "second").exists()
    else:  # the second was quicker after all: then the first has run nothing
        assert ended[0].exit_code == 0
    os.waitpid(pids[0], 0)


def test_a_shim_without_its_directory_runs_nothing(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    late, touched = late_shim(gone, tmp_path / "ran")
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    os.kill(late, signal.SIGCONT)
    assert exit_code(late) == 75
    assert not touched.exists()
