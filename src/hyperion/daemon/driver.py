"""The one loop: take events, step the machine, keep what it decided, then act on its commands."""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from hyperion.control.machine import Outcome
from hyperion.control.messages import Answer, Tick
from hyperion.control.records import UNJOURNALED
from hyperion.daemon.application import Exhausted, Unavailable
from hyperion.ports import Clock, JournalEntry, Store

_AHEAD = 8
"""How many full batches of records may be decided while one is being kept."""
_NEAR_S = 0.002
"""How long what is decided may wait for the records of a round that is due."""
_BURST = 16
"""How many times ``inbox_limit`` our own notes may fill: beyond that something is wrong."""
_STOPPING = "this daemon is stopping; try again"
_NEVER_JOURNALED = frozenset(UNJOURNALED)


class Machine(Protocol):
    """What the driver needs of a state machine; see ``control``."""

    @property
    def wants_round(self) -> bool:
        """Something waits that a round could settle."""

    def handle(self, event: Any, now_ms: int) -> Outcome: ...

    def round(self, now_ms: int) -> Outcome: ...

    def writes(self) -> dict[str, bytes | None]:
        """Entities touched since last asked, as JSON; None for those that are gone."""

    def restore(self, items: Iterable[tuple[str, bytes]], now_ms: int) -> None: ...

    def resume(self, now_ms: int) -> Outcome:
        """After ``restore``: what unfinished orders need to go on."""


class Pace(Struct, frozen=True, kw_only=True):
    """The driver's bounds."""

    batch: int = 512
    """Events taken at once, kept by one commit."""
    inbox_limit: int = 20_000
    """Events waiting, above which callers are turned away and streams wait."""
    round_ms: float = 2.0
    """Between the ends of two rounds, or as long as a round takes, whichever is longer."""
    tick_ms: int = 200
    answer_timeout_s: float = 30.0


class Counters(Struct):
    """What the driver has done so far; plain numbers, cheap to keep."""

    events: int = 0
    rounds: int = 0
    batches: int = 0
    batch_max: int = 0
    commits: int = 0
    records: int = 0
    commands: int = 0
    refused: int = 0
    """Events turned away because the inbox was full."""
    inbox_max: int = 0
    step_ms: float = 0.0
    """Time in the machine, rounds included, all together."""
    round_ms: float = 0.0
    commit_ms: float = 0.0
    commit_ms_max: float = 0.0


class NotKept(Exception):
    """A batch could not be kept: memory is ahead of the store, so the process must end now."""


class _Batch(Struct):
    """What has been decided and must be kept before anybody hears of it."""

    records: list[Any] = []
    commands: list[Any] = []
    at_ms: int = 0
    has_round: bool = False


Listener = Callable[[int, int, Sequence[Any]], None]
"""(sequence number of the first record, ms since the epoch, records), after they are durable."""


class Driver:
    """Drives ``machine``: ``recover``, then ``run`` until ``stop`` or a fault that must end us.

    ``perform`` carries out one command; it is synchronous, quick, must not raise, and leaves slow
    work to others. Everything here is called on one event loop.
    """

    def __init__(
        self,
        machine: Machine,
        store: Store,
        clock: Clock,
        perform: Callable[[Any], None],
        pace: Pace | None = None,
    ) -> None:
        self.counters = Counters()
        self._machine = machine
        self._store = store
        self._clock = clock
        self._perform = perform
        self._pace = pace or Pace()
        self._inbox: deque[Struct] = deque()
        self._senders: deque[asyncio.Future[None]] = deque()
        self._sleeper: asyncio.Future[None] | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._tokens = count(1)
        self._listeners: list[Listener] = []
        self._encode = msgspec.json.Encoder().encode
        self._unsent: list[Any] = []
        self._decided = _Batch()
        """Not given to the store yet."""
        self._kept = _Batch()
        """Given to the store, which ``_keeping`` waits for."""
        self._keeping: asyncio.Future[float] | None = None
        self._round_after = 0.0
        self._ticked = False
        self._stopping = False

    # -- giving it events ---------------------------------------------------------------------

    def post(self, event: Struct) -> None:
        """Take in a wish from outside, or raise ``Exhausted`` when too much waits already."""
        self._make_sure_of_room(1)
        self._take_in(event)

    async def put(self, event: Struct) -> None:
        """Take in an event of a peer's stream, as soon as there is room: slows the peer down."""
        while len(self._inbox) >= self._pace.inbox_limit and not self._stopping:
            sender = asyncio.get_running_loop().create_future()
            self._senders.append(sender)
            await sender
        if self._stopping:
            raise Unavailable(_STOPPING)
        self._take_in(event)

    def note(self, event: Struct) -> None:
        """Take in something that happened here and cannot wait, such as the end of a replica."""
        if len(self._inbox) >= _BURST * self._pace.inbox_limit:
            raise RuntimeError(f"{len(self._inbox)} events wait for the machine: it has stalled")
        self._take_in(event)

    async def ask(self, make: Callable[[int], Struct], timeout_s: float | None = None) -> Answer:
        """Post ``make(token)``; return the machine's answer once what led to it is durable.

        Raises ``Exhausted`` when nothing was posted, ``Unavailable`` when no answer came in time
        (the wish may yet be kept).
        """
        return (await self.ask_all((make,), timeout_s))[0]

    async def ask_all(
        self, makes: Sequence[Callable[[int], Struct]], timeout_s: float | None = None
    ) -> list[Answer]:
        """Like ``ask`` for many wishes, which all go into the inbox or none."""
        self._make_sure_of_room(len(makes))
        limit_s = self._pace.answer_timeout_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        asked: dict[int, asyncio.Future[Answer]] = {}
        for make in makes:
            token = next(self._tokens)
            asked[token] = self._waiting[token] = loop.create_future()
            self._take_in(make(token))
        try:
            async with asyncio.timeout(limit_s):
                return [await answer for answer in asked.values()]
        except TimeoutError:
            raise Unavailable(
                f"no answer within {limit_s:g} s; the wish may yet be kept, so ask again with the"
                " same id"
            ) from None
        finally:
            for token, answer in asked.items():
                self._waiting.pop(token, None)
                answer.cancel()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Show ``listener`` every durable batch of records; returns how to end that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    @property
    def waiting_events(self) -> int:
        """Events in the inbox now."""
        return len(self._inbox)

    @property
    def last_sequence(self) -> int:
        """The number of the newest record that is durable."""
        return self._store.last_sequence

    def recent(self, limit: int) -> list[JournalEntry]:
        """The newest records kept, oldest first. To be asked before ``run`` only."""
        return list(self._store.journal(max(0, self._store.last_sequence - limit), limit))

    # -- running ------------------------------------------------------------------------------

    def recover(self) -> None:
        """Bring the machine to where the store left it. Its commands go out when ``run`` begins."""
        now_ms = self._clock.now_ms()
        self._machine.restore(self._store.load(), now_ms)
        outcome = self._machine.resume(now_ms)
        records = _journaled(outcome.records)
        writes = self._machine.writes()
        if records or writes:
            self._store.commit(writes, [self._encode(r) for r in records], now_ms)
        self._unsent = [*outcome.early, *outcome.commands]
        gc.freeze()  # what was restored mostly stays; collections need not look at it again

    async def run(self) -> None:
        """Until ``stop``. Raises ``NotKept``, or whatever the machine raised: both must end us."""
        tick = asyncio.create_task(self._tick())
        with ThreadPoolExecutor(1, "store") as keeper:
            try:
                unsent, self._unsent = self._unsent, []
                self._act(unsent)
                while not (self._stopping and not self._inbox and self._keeping is None):
                    await self._wait_for_work()
                    await self._batch(keeper)
            finally:
                tick.cancel()
                self._end()

    def stop(self) -> None:
        """Take no more wishes from outside, finish what is in the inbox, and let ``run`` return."""
        self._stopping = True
        self._let_in(len(self._senders))
        self._wake()

    async def _batch(self, keeper: ThreadPoolExecutor) -> None:
        """Take in what waits, decide, keep it, and only then act.

        While the disk syncs one batch the next is decided: it goes to the store, as one, once the
        disk is done. Whatever is decided leaves after all that was decided before it is kept.
        """
        self._step(self._clock.now_ms())
        if self._senders:
            self._let_in(self._pace.inbox_limit - len(self._inbox))
        if self._keeping is not None:
            if not self._keeping.done() and len(self._decided.records) < _AHEAD * self._pace.batch:
                return
            await self._settle(self._keeping)
        if not self._round_is_near():
            self._keep(keeper)

    def _round_is_near(self) -> bool:
        """What a round is about to decide goes to the store with what led to it: a commit costs as
        much as several jobs do, and that of the round would have to wait for it. What a round has
        decided waits for no other."""
        if self._stopping or self._decided.has_round or not self._machine.wants_round:
            return False
        return 0.0 < self._round_after - time.monotonic() <= _NEAR_S

    def _step(self, now_ms: int) -> None:
        """Feed a batch of events, and perhaps one round, to the machine."""
        started = time.perf_counter()
        machine, inbox, counters, decided = self._machine, self._inbox, self.counters, self._decided
        size = min(len(inbox), self._pace.batch)
        for _ in range(size):
            event = inbox.popleft()
            if type(event) is Tick:
                self._ticked = False
            outcome = machine.handle(event, now_ms)
            decided.records += outcome.records
            decided.commands += outcome.commands
            if outcome.early:
                self._act(outcome.early)
        if machine.wants_round and self._round_after <= time.monotonic():
            self._round(now_ms)
        decided.at_ms = now_ms
        counters.events += size
        counters.batches += 1
        counters.batch_max = max(counters.batch_max, size)
        counters.step_ms += (time.perf_counter() - started) * 1e3

    def _round(self, now_ms: int) -> None:
        started = time.monotonic()
        outcome = self._machine.round(now_ms)
        self._act(outcome.early)
        self._decided.records += outcome.records
        self._decided.commands += outcome.commands
        self._decided.has_round = True
        ended = time.monotonic()
        self._round_after = ended + max(self._pace.round_ms / 1e3, ended - started)
        self.counters.rounds += 1
        self.counters.round_ms += (ended - started) * 1e3

    def _keep(self, keeper: ThreadPoolExecutor) -> None:
        """Give what is decided to the store: one commit, whose sync a thread waits for."""
        batch, self._decided = self._decided, _Batch()
        writes = self._machine.writes()
        batch.records = _journaled(batch.records)
        if not writes and not batch.records:
            self._act(batch.commands)
            return
        journal = [self._encode(record) for record in batch.records]
        what = f"{len(writes)} entities and {len(journal)} records"
        with _kept(what):
            sync = self._store.stage(writes, journal, batch.at_ms)
        self._kept = batch
        loop = asyncio.get_running_loop()
        self._keeping = loop.run_in_executor(keeper, _timed, sync, what)
        self._keeping.add_done_callback(lambda _: self._wake())

    async def _settle(self, keeping: "asyncio.Future[float]") -> None:
        """Wait until the batch is kept, then act on it."""
        elapsed_ms = await asyncio.shield(keeping)
        self._keeping, batch = None, self._kept
        counters = self.counters
        counters.commits += 1
        counters.records += len(batch.records)
        counters.commit_ms += elapsed_ms
        counters.commit_ms_max = max(counters.commit_ms_max, elapsed_ms)
        self._act(batch.commands)
        if batch.records and self._listeners:
            self._show(batch.records, batch.at_ms)

    def _act(self, commands: Sequence[Any]) -> None:
        self.counters.commands += len(commands)
        perform = self._perform
        for command in commands:
            if type(command) is Answer:
                waiting = self._waiting.pop(command.token, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(command)
            else:
                perform(command)

    def _show(self, records: list[Any], now_ms: int) -> None:
        first = self._store.last_sequence - len(records) + 1
        for listener in tuple(self._listeners):
            listener(first, now_ms, records)

    # -- waiting ------------------------------------------------------------------------------

    def _take_in(self, event: Struct) -> None:
        self._inbox.append(event)
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            if not sleeper.done():
                sleeper.set_result(None)

    def _make_sure_of_room(self, events: int) -> None:
        if self._stopping:
            raise Unavailable(_STOPPING)
        if len(self._inbox) + events > self._pace.inbox_limit:
            self.counters.refused += events
            raise Exhausted(
                f"{len(self._inbox)} events wait already, at most {self._pace.inbox_limit} may;"
                " try again in a moment"
            )

    async def _wait_for_work(self) -> None:
        """Until there is an event, or a round is due."""
        self.counters.inbox_max = max(self.counters.inbox_max, len(self._inbox))
        keeping = self._keeping
        if self._inbox or (self._stopping if keeping is None else keeping.done()):
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        sleeper = self._sleeper = loop.create_future()
        timer = None
        if self._machine.wants_round:
            timer = loop.call_later(max(0.0, self._round_after - time.monotonic()), self._wake)
        try:
            await sleeper
        finally:
            self._sleeper = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _let_in(self, events: int) -> None:
        """Wake so many of the streams that wait for room."""
        while self._senders and events > 0:
            sender = self._senders.popleft()
            if not sender.done():
                sender.set_result(None)
                events -= 1

    async def _tick(self) -> None:
        """Tell the machine that time has passed, unless it has not yet heard the last one."""
        while True:
            await asyncio.sleep(self._pace.tick_ms / 1e3)
            if not self._ticked:
                self._ticked = True
                self._take_in(Tick())

    def _end(self) -> None:
        self._stopping = True
        if self._keeping is not None:
            self._keeping.add_done_callback(_seen)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable(_STOPPING))
                waiting.exception()
        self._let_in(len(self._senders))


@contextmanager
def _kept(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        raise NotKept(f"the store did not keep a batch of {what}: {fault}") from fault


def _timed(sync: Callable[[], None], what: str) -> float:
    """In the store's thread: sync, and how many ms that took."""
    started = time.perf_counter()
    with _kept(what):
        sync()
    return (time.perf_counter() - started) * 1e3


def _seen(keeping: "asyncio.Future[float]") -> None:
    """We end before it is known whether it was kept; nothing has been told of it."""
    if not keeping.cancelled():
        keeping.exception()


def _journaled(records: list[Any]) -> list[Any]:
    """Those that may be shown and journaled; the others carry secrets, which only entities hold."""
    return [record for record in records if type(record) not in _NEVER_JOURNALED]
