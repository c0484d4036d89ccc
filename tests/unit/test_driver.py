"""The driver keeps, then acts: in order, in batches, bounded, and never on a batch it lost."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest
from msgspec import Struct, json

from hyperion.adapters.store.memory import MemoryStore
from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.control.machine import Outcome
from hyperion.control.messages import Answer, Tick
from hyperion.control.records import SecretsKept
from hyperion.daemon.application import Exhausted, Unavailable
from hyperion.daemon.clock import WallClock
from hyperion.daemon.driver import Driver, NotKept, Pace
from hyperion.model.ids import JobId
from hyperion.model.job import Secret


class Added(Struct, frozen=True, tag=True):
    amount: int


class Planned(Struct, frozen=True, tag=True):
    total: int


class Add(Struct, frozen=True):
    amount: int
    token: int = 0


class Hide(Struct, frozen=True):
    value: str


class Look(Struct, frozen=True):
    """Changes nothing."""


class Say(Struct, frozen=True):
    total: int


class Adder:
    """The smallest machine: adds up, and plans a round for every sum that changed."""

    def __init__(self):
        self.total = 0
        self.hidden = ""
        self.ticks = 0
        self.wants_round = False
        self.touched = set()

    def handle(self, event, now_ms):
        match event:
            case Add(amount, token):
                self.total += amount
                self.touched.add("/total")
                self.wants_round = True
                return Outcome([Added(amount)], [Answer(token, JobId(str(amount)))])
            case Hide(value):
                self.hidden = value
                self.touched.add("/hidden")
                return Outcome([SecretsKept(JobId("j"), {"k": Secret(value)})], [])
            case Tick():
                self.ticks += 1
                return Outcome([], [])
            case Look():
                return Outcome([], [Say(-1)])
        raise AssertionError(event)

    def round(self, now_ms):
        self.wants_round = False
        return Outcome([Planned(self.total)], [Say(self.total)])

    def writes(self):
        values = {"/total": self.total, "/hidden": self.hidden}
        touched, self.touched = self.touched, set()
        return {key: json.encode(values[key]) for key in touched}

    def restore(self, items, now_ms):
        for key, value in items:
            if key == "/total":
                self.total = json.decode(value)

    def resume(self, now_ms):
        return Outcome([], [Say(self.total)])


@asynccontextmanager
async def driven(store=None, pace=None, perform=None):
    said = []
    driver = Driver(
        Adder(), store or MemoryStore(), WallClock(), perform or said.append, pace or Pace()
    )
    driver.said = said
    driver.recover()
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        driver.stop()
        await asyncio.wait_for(task, 5)


def play(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


def test_an_answer_comes_when_its_wish_is_durable(tmp_path):
    async def scenario():
        store = SqliteStore(tmp_path / "s.sqlite")
        async with driven(store) as driver:
            for n in range(1, 4):
                answer = await driver.ask(lambda token, n=n: Add(n, token))
                assert answer.job == str(n)
                kept = dict(store.load())
                assert int(kept["/total"]) == sum(range(n + 1))
        store.close()

    play(scenario())


def test_everything_is_there_after_a_restart(tmp_path):
    async def scenario():
        for start in range(3):
            store = SqliteStore(tmp_path / "s.sqlite")
            async with driven(store) as driver:
                await asyncio.sleep(0)
                assert driver.said[0] == Say(start * 3), "resume's commands go out first"
                await driver.ask_all([lambda t: Add(1, t), lambda t: Add(2, t)])
            store.close()

    play(scenario())


def test_a_burst_costs_few_commits_and_rounds_and_keeps_its_order():
    async def scenario():
        seen = []
        async with driven() as driver:
            driver.subscribe(lambda first, at_ms, records: seen.append((first, records)))
            await driver.ask_all([lambda t, n=n: Add(n, t) for n in range(2000)])
            counters = driver.counters
            assert counters.events >= 2000
            assert counters.commits <= 6
            assert counters.rounds <= counters.batches
            assert counters.batch_max == 512
        added = [r.amount for _, records in seen for r in records if type(r) is Added]
        assert added == list(range(2000))
        expected = 1
        for first, records in seen:
            assert first == expected
            expected += len(records)

    play(scenario())


def test_a_round_comes_at_once_when_nothing_else_waits():
    async def scenario():
        said = asyncio.Queue()
        async with driven(pace=Pace(round_ms=5), perform=said.put_nowait) as driver:
            await said.get()
            for n in range(1, 4):
                driver.post(Add(1))
                assert await asyncio.wait_for(said.get(), 1) == Say(n)
            assert driver.counters.rounds == 3

    play(scenario())


def test_rounds_are_never_closer_than_told():
    async def scenario():
        async with driven(pace=Pace(round_ms=50)) as driver:
            started = time.monotonic()
            while time.monotonic() - started < 0.3:
                await driver.ask(lambda token: Add(1, token))
            assert driver.counters.batches > 20
            assert 3 <= driver.counters.rounds <= 7

    play(scenario())


def test_what_is_decided_just_before_a_round_is_kept_with_it():
    async def scenario():
        store = SlowStore()
        async with driven(store, Pace(tick_ms=60_000)) as driver:
            driver._round_after = time.monotonic() + 0.002
            driver.post(Add(1))
            await store.began()
            assert store.staged == [2], "what was added, and what was planned"
            store.allowed.release()

    play(scenario())


def test_what_a_round_has_decided_does_not_wait_for_the_next_one():
    class Restless(Adder):
        """Wants one round after the other."""

        def round(self, now_ms):
            return Outcome([Planned(self.total)], [Say(self.total)])

    async def scenario():
        said = asyncio.Queue()
        pace = Pace(round_ms=1.5, tick_ms=60_000)
        driver = Driver(Restless(), MemoryStore(), WallClock(), said.put_nowait, pace)
        running = asyncio.create_task(driver.run())
        driver.post(Add(1))
        for _ in range(3):
            assert await said.get() == Say(1)
        driver.stop()
        await running

    play(scenario())


def test_commands_of_a_lost_batch_are_never_performed():
    async def scenario():
        store = MemoryStore()
        said = []
        driver = Driver(Adder(), store, WallClock(), said.append)
        driver.recover()
        running = asyncio.create_task(driver.run())
        await driver.ask(lambda token: Add(1, token))
        store.close()
        before = len(said)
        asked = asyncio.create_task(driver.ask(lambda token: Add(1, token)))
        with pytest.raises(NotKept, match=r"did not keep a batch of 1 entities.*closed"):
            await running
        with pytest.raises(Unavailable, match="stopping"):
            await asked
        assert len(said) == before
        with pytest.raises(Unavailable):
            driver.post(Look())

    play(scenario())


def test_a_machine_that_breaks_ends_the_driver():
    async def scenario():
        driver = Driver(Adder(), MemoryStore(), WallClock(), lambda command: None)
        driver.note("no event")
        with pytest.raises(AssertionError, match="no event"):
            await driver.run()

    play(scenario())


def test_callers_are_turned_away_and_streams_wait_when_the_inbox_is_full():
    async def scenario():
        said = []
        driver = Driver(
            Adder(), MemoryStore(), WallClock(), said.append, Pace(inbox_limit=10, batch=5)
        )
        for _ in range(8):
            driver.post(Look())
        with pytest.raises(Exhausted, match="8 events wait already, at most 10"):
            await driver.ask_all([lambda t: Add(1, t)] * 3)
        assert driver.waiting_events == 8, "all or nothing"
        streams = [asyncio.create_task(driver.put(Look())) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(Exhausted):
            driver.post(Look())
        driver.note(Look())
        assert driver.waiting_events == 11
        assert driver.counters.refused == 4
        running = asyncio.create_task(driver.run())
        await asyncio.gather(*streams)
        driver.stop()
        await running
        assert said == [Say(-1)] * 19

    play(scenario())


def test_our_own_notes_have_a_bound_too():
    async def scenario():
        driver = Driver(Adder(), MemoryStore(), WallClock(), print, Pace(inbox_limit=2))
        for _ in range(32):
            driver.note(Look())
        with pytest.raises(RuntimeError, match="stalled"):
            driver.note(Look())

    play(scenario())


def test_a_caller_waits_only_so_long():
    async def scenario():
        async with driven() as driver:
            with pytest.raises(Unavailable, match=r"no answer within 0\.01 s.*same"):
                await driver.ask(lambda token: Look(), timeout_s=0.01)

    play(scenario())


def test_secrets_reach_entities_but_neither_journal_nor_listeners():
    async def scenario():
        store = MemoryStore()
        seen = []
        async with driven(store) as driver:
            driver.subscribe(lambda first, at_ms, records: seen.extend(records))
            driver.post(Hide("hunter2"))
            await driver.ask(lambda token: Add(1, token))
        assert dict(store.load())["/hidden"] == b'"hunter2"'
        assert b"hunter2" not in b"".join(e.record for e in store.journal())
        assert [type(record).__name__ for record in seen] == ["Added", "Planned"]

    play(scenario())


def test_what_changes_nothing_is_performed_without_a_commit():
    async def scenario():
        async with driven() as driver:
            driver.post(Look())
        assert driver.said == [Say(0), Say(-1)]
        assert driver.counters.commits == 0

    play(scenario())


def test_ticks_come_but_never_pile_up():
    async def scenario():
        async with driven(pace=Pace(tick_ms=10)) as driver:
            async with asyncio.timeout(5):
                while driver._machine.ticks < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert driver.waiting_events <= 1

    play(scenario())


def test_a_listener_can_leave():
    async def scenario():
        seen = []
        async with driven() as driver:
            leave = driver.subscribe(lambda *batch: seen.append(batch))
            leave()
            leave()
            await driver.ask(lambda token: Add(1, token))
        assert seen == []

    play(scenario())


def test_the_clock_tells_the_time_and_does_not_go_back():
    clock = WallClock()
    readings = [clock.now_ms() for _ in range(100)]
    assert readings == sorted(readings)
    assert abs(readings[0] - time.time_ns() // 1_000_000) < 5000


class SlowStore(MemoryStore):
    """Syncs when the test says so; or fails, as a disk may."""

    def __init__(self):
        super().__init__()
        self.syncing = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.staged = []
        self.broken = False

    def stage(self, writes, journal, at_ms):
        keep = super().stage(writes, journal, at_ms)
        self.staged.append(len(journal))

        def sync():
            self.syncing.release()
            assert self.allowed.acquire(timeout=10)
            if self.broken:
                raise OSError("the disk is gone")
            keep()

        return sync

    async def began(self):
        assert await asyncio.to_thread(self.syncing.acquire, timeout=10)


async def decided(driver, events):
    while driver.counters.events < events:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_the_next_batch_is_decided_while_one_syncs_and_leaves_after_it():
    async def scenario():
        store = SlowStore()
        async with driven(store, Pace(round_ms=10_000, tick_ms=60_000)) as driver:
            driver.post(Add(1))
            await store.began()
            later = [asyncio.create_task(driver.ask(lambda t: Add(2, t))) for _ in range(2)]
            await decided(driver, 3)
            driver.post(Look())
            await decided(driver, 4)
            assert driver._machine.total == 5, "decided already"
            assert dict(store.load()) == {}
            assert driver.said == [Say(0)], "nothing has left, not even what changes nothing"
            store.allowed.release()
            await store.began()
            assert int(dict(store.load())["/total"]) == 1
            assert driver.said == [Say(0), Say(1)], "the first batch has left, with its round"
            assert not any(asked.done() for asked in later)
            store.allowed.release()
            assert [answer.job for answer in await asyncio.gather(*later)] == ["2", "2"]
            assert driver.said == [Say(0), Say(1), Say(-1)]
            assert store.staged == [2, 2], "what was decided meanwhile is one commit"

    play(scenario())


def test_when_a_sync_fails_nothing_leaves_that_was_decided_meanwhile():
    async def scenario():
        store = SlowStore()
        said = []
        driver = Driver(Adder(), store, WallClock(), said.append, Pace(tick_ms=60_000))
        driver.recover()
        running = asyncio.create_task(driver.run())
        asked = [asyncio.create_task(driver.ask(lambda t: Add(1, t)))]
        await store.began()
        asked.append(asyncio.create_task(driver.ask(lambda t: Add(1, t))))
        driver.post(Look())
        await decided(driver, 3)
        store.broken = True
        store.allowed.release()
        with pytest.raises(NotKept, match=r"did not keep a batch of 1 entities.*disk is gone"):
            await running
        assert said == [Say(0)]
        for lost in asked:
            with pytest.raises(Unavailable, match="stopping"):
                await lost

    play(scenario())


def test_what_is_decided_ahead_of_the_store_is_bounded():
    async def scenario():
        store = SlowStore()
        pace = Pace(batch=5, tick_ms=60_000, round_ms=60_000)
        async with driven(store, pace) as driver:
            driver.post(Add(1))
            await store.began()
            for _ in range(1000):
                driver.post(Add(1))
            await decided(driver, 41)
            await asyncio.sleep(0.05)
            assert driver.counters.events == 41, "eight batches of five beyond the first event"
            for _ in range(1000):
                store.allowed.release()
            await driver.ask(lambda token: Add(0, token))
            assert driver._machine.total == 1001

    play(scenario())


def test_a_driver_that_stops_keeps_what_it_has_decided():
    async def scenario():
        store = SlowStore()
        async with driven(store) as driver:
            driver.post(Add(1))
            await store.began()
            driver.post(Add(2))
            await decided(driver, 2)
            driver.stop()
            for _ in range(3):
                store.allowed.release()
        assert int(dict(store.load())["/total"]) == 3

    play(scenario())
