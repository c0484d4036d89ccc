"""The watch over the feeds: what reaches the machine, what a failing feed costs, what is shown."""

import asyncio

import pytest

from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.daemon.market_watch import MarketWatch, Watched
from hyperion.model.market import Market
from hyperion.model.quotes import Fetched, Kind, Quote
from hyperion.placement import quotes as q

VIEW = read_catalogue()
PLACE, MACHINE = "aws/us-east-1", "p4d.24xlarge"
HOUR = 3_600_000


class Clock:
    def __init__(self):
        self.at_ms = 1_800_000_000_000

    def now_ms(self):
        return self.at_ms


class Feed:
    """Says what the test has it say next; an exception is raised, and None waits for ever."""

    def __init__(self, name, clock):
        self.name, self.clock, self.next, self.closed = name, clock, [], False

    async def fetch(self, wanted, now_ms):
        said = self.next.pop(0) if self.next else None
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self):
        self.closed = True

    def says(self, value, kind=Kind.SPOT, unit="USD/h", subject=MACHINE, **more):
        quote = Quote(
            kind=kind, place=PLACE, subject=subject, value=value, unit=unit, source=self.name,
            as_of_ms=self.clock.at_ms, ttl_ms=HOUR, confidence=0.9, **more,
        )  # fmt: skip
        self.next.append(Fetched((quote,), ("a part of it: status 500",)))


@pytest.fixture
def clock():
    return Clock()


def watching(clock, *feeds):
    told = []
    watched = [Watched(feed, "a feed", "https://example.org", 60.0) for feed in feeds]
    watch = MarketWatch(VIEW, q.wanted(VIEW, {}), watched, clock, told.append)
    return watch, watched, told


def price(view):
    return next(
        o.usd_per_hour
        for o in view.offers
        if (o.region, o.instance_type, o.market) == (PLACE, MACHINE, Market.SPOT)
    )


def test_only_what_has_changed_is_told(clock):
    feed = Feed("a", clock)
    watch, (watched,), told = watching(clock, feed)

    async def story():
        for value in (9.0, 9.0, 9.5, -1.0):
            feed.says(value)
            await watch.poll(watched)
            clock.at_ms += 1000

    asyncio.run(story())
    assert [price(view) for view in told] == [9.0, 9.5]
    (shown,) = watch.status().feeds
    assert (shown.polls, shown.quotes, shown.in_force, shown.quarantined) == (4, 1, 1, 1)
    assert shown.failed == ("a part of it: status 500",)
    (bad,) = watch.status().quarantined
    assert (bad.reason, bad.value) == ("out-of-range", -1.0)
    assert watch.status().views_told == 2


def test_a_failing_feed_keeps_its_last_good_quotes_and_another_takes_over_with_age(clock):
    first, second = Feed("a", clock), Feed("b", clock)
    watch, (a, b), told = watching(clock, first, second)

    async def story():
        first.says(9.0)
        await watch.poll(a)
        for fault in (OSError("a: status 503"), TimeoutError(), KeyError("a bug")):
            first.next.append(fault)
            await watch.poll(a)
            assert watch.status().feeds[0].fault
        clock.at_ms += 2 * HOUR
        second.says(10.0)
        await watch.poll(b)

    asyncio.run(story())
    assert [price(view) for view in told] == [9.0, 10.0]
    shown = {x.source: x for x in watch.quotes("spot", "aws/", "", 10)}
    assert shown["a"].stale
    assert not shown["a"].in_force
    assert shown["a"].uncertainty > shown["b"].uncertainty
    assert shown["b"].in_force
    assert watch.quotes("carbon", "", "", 10) == []
    assert [x.source for x in watch.quotes("", "", "b", 10)] == ["b"]


def test_it_runs_until_it_is_cancelled_and_closes_its_feeds(clock):
    feed = Feed("a", clock)
    heard = asyncio.Event()
    watched = [Watched(feed, "a feed", "https://example.org", 60.0)]
    watch = MarketWatch(VIEW, q.wanted(VIEW, {}), watched, clock, lambda _: heard.set())
    feed.says(9.0)

    async def story():
        running = asyncio.create_task(watch.run())
        await asyncio.wait_for(heard.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(story())
    assert feed.closed


def test_without_feeds_it_waits_and_says_nothing(clock):
    watch, _, told = watching(clock)

    async def story():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await watch.run()

    asyncio.run(story())
    assert not told
    assert watch.status().feeds == ()
