"""The page between a workload and its agent, with real processes on both sides."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.workload import memory, page
from hyperion.workload.channel import Channel

PROGRAM = """
import hyperion, time
while True:
    hyperion.point()
    time.sleep(0.001)
    hyperion.step()
"""


def soon(seconds: float = 30) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


@pytest.fixture
def workload(tmp_path: Path) -> Iterator[Cooperative]:
    path = str(tmp_path / "page")
    agent = Cooperative(path)
    environment = {**os.environ, "HYPERION_WORKLOAD_PAGE": path}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)
    while not agent.read().capabilities & page.STEPS:
        assert process.poll() is None
        time.sleep(0.01)
    yield agent
    process.kill()
    process.wait()
    agent.close()


def test_a_process_pauses_when_asked_stays_and_goes_on(workload: Cooperative) -> None:
    for _ in range(20):
        assert workload.wait(workload.ask(page.PAUSE, soon()), 10)
        paused = workload.read()
        assert paused.state in (page.AT_POINT, page.AT_STEP)
        time.sleep(0.01)
        assert workload.read() == paused
        assert workload.wait(workload.resume(), 10)
        while workload.read().committed_step == paused.committed_step:
            time.sleep(0.001)


def test_a_pause_ends_by_itself_at_its_deadline(workload: Cooperative) -> None:
    assert workload.wait(workload.ask(page.PAUSE, soon(0.5)), 10)
    step = workload.read().committed_step
    while workload.read().committed_step == step:
        time.sleep(0.01)


def test_a_snapshot_waits_for_the_end_of_the_step(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    channel.able(page.POINTS | page.STEPS, lambda: lambda: 107)
    request = agent.ask(page.SNAPSHOT, soon())
    channel.point()
    assert agent.read().acknowledged == 0
    channel.step(7)
    answer = agent.read()
    assert (answer.acknowledged, answer.snapshot_step, answer.snapshot_bytes) == (request, 7, 107)
    assert answer.state == page.RUNNING


def test_a_snapshot_that_fails_does_not_fail_the_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, channel = pair(tmp_path)
    channel.able(page.STEPS, lambda: 1 // 0)
    agent.ask(page.SNAPSHOT, soon())
    channel.step()
    assert agent.read().snapshot_bytes == 0
    assert agent.read().state == page.RUNNING
    assert "no snapshot of step 1" in capsys.readouterr().err


def test_at_the_end_of_its_step_it_stands_first_and_saves_aside(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    may_write, states = threading.Event(), []

    def snapshot() -> Callable[[], int]:
        states.append(agent.read().acknowledged)

        def write() -> int:
            assert may_write.wait(20)
            return 107

        return write

    channel.able(page.POINTS | page.STEPS, snapshot)
    request = agent.ask(page.STEP_PAUSE, soon())
    channel.point()
    assert agent.read().acknowledged == 0, "not inside a step"
    training = threading.Thread(target=channel.step, args=(7,))
    training.start()
    assert agent.wait(request, 20)
    until(lambda: bool(states))
    assert states == [request], "compute was free before the state was copied"
    assert (agent.read().state, agent.read().snapshot_bytes) == (page.SETTLING, 0)
    agent.resume()
    training.join(20)
    assert not training.is_alive(), "it goes on though its step is not written yet"
    assert (agent.read().state, agent.read().snapshot_bytes) == (page.RUNNING, 0)
    assert channel.settles
    may_write.set()
    channel.settle()
    assert (agent.read().snapshot_step, agent.read().snapshot_bytes) == (7, 107)
    assert agent.read().state == page.RUNNING


def test_it_says_when_its_step_is_written_and_stands_on(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    channel.able(page.STEPS, lambda: lambda: 107)
    request = agent.ask(page.STEP_PAUSE, soon())
    training = threading.Thread(target=channel.step, args=(7,))
    training.start()
    assert agent.wait(request, 20)
    until(lambda: agent.read().state == page.AT_STEP)
    assert agent.read().snapshot_step == 7
    assert training.is_alive()
    agent.resume()
    training.join(20)
    assert agent.read().state == page.RUNNING


def test_what_an_earlier_pause_has_left_to_write_is_not_taken_for_the_later(
    tmp_path: Path,
) -> None:
    agent, channel = pair(tmp_path)
    may_write = [threading.Event(), threading.Event()]
    steps = iter(may_write)

    def snapshot() -> Callable[[], int]:
        mine = next(steps)
        return lambda: 107 if mine.wait(20) else 0

    channel.able(page.STEPS, snapshot)
    for step, wait in enumerate(may_write, 1):
        request = agent.ask(page.STEP_PAUSE, soon())
        training = threading.Thread(target=channel.step, args=(step,))
        training.start()
        assert agent.wait(request, 20)
        if step == 2:
            may_write[0].set()
            until(lambda: agent.read().snapshot_step == 1)
            assert agent.read().state == page.SETTLING, "step 2 is not written yet"
            wait.set()
            until(lambda: agent.read().state == page.AT_STEP)
            assert agent.read().snapshot_step == 2
        agent.resume()
        training.join(20)


def test_memory_that_nobody_uses_is_given_back() -> None:
    blocks = [bytearray(1000) for _ in range(200_000)]
    keeps = blocks[-1]
    del blocks
    assert memory.give_back() > 20 << 20
    assert len(keeps) == 1000
    assert memory.give_back() < 20 << 20


def test_a_forked_child_neither_answers_nor_counts(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    agent.ask(page.PAUSE, soon())
    child = os.fork()
    if not child:
        channel.point()
        channel.step()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (agent.read().acknowledged, agent.read().committed_step) == (0, 0)


def test_a_second_process_reads_the_page_and_does_not_answer(
    tmp_path: Path, workload: Cooperative
) -> None:
    second = Channel(str(tmp_path / "page"))
    assert not second.answers
    request = workload.ask(page.PAUSE, soon())
    second.step(99)
    assert workload.wait(request, 10)
    assert workload.read().committed_step != 99
    workload.notice(soon())
    assert second.notice_ns > 0


def test_a_new_process_obeys_no_order_that_was_carried_out(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    channel.able(page.STEPS, lambda: lambda: 1)
    agent.ask(page.SNAPSHOT, soon())
    channel.step(1)
    taken: list[int] = []
    later = Channel(str(tmp_path / "page"))
    later.able(page.STEPS, lambda: lambda: len(taken) or taken.append(1) or 1)
    later.step(2)
    assert taken == []
    request = agent.ask(page.SNAPSHOT, soon())
    later.step(3)
    assert taken == [1]
    assert agent.read().acknowledged == request


def test_an_agent_takes_over_the_page_of_an_earlier_one(tmp_path: Path) -> None:
    agent, channel = pair(tmp_path)
    channel.able(page.STEPS)
    channel.step(5)
    assert Cooperative(str(tmp_path / "page")).read() == agent.read()


def test_a_file_that_is_no_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "other").write_bytes(bytes(page.SIZE))
    for name in ("short", "other"):
        with pytest.raises(ValueError, match="no page"):
            Channel(str(tmp_path / name))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def pair(tmp_path: Path) -> tuple[Cooperative, Channel]:
    path = str(tmp_path / "page")
    return Cooperative(path), Channel(path)
