"""What every feed of quotes owes, tried over real HTTP on the replay server, faults included."""

import asyncio
import logging
import time

import msgspec
import pytest
from market_replay import replaying

from hyperion.adapters.market import fetch
from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.adapters.market.feeds import FEEDS, grid_zones, make_feed
from hyperion.adapters.market.fetch import FeedError, Fetcher, Limits
from hyperion.daemon.market_replay.server import MAKERS
from hyperion.model.job import Secret
from hyperion.model.quotes import UNITS, Kind
from hyperion.placement import quotes as q

KEY = "AKIDTEST:very-secret-word"
PLACES = ("aws/us-east-1", "aws/eu-west-2", "azure/westeurope", "gcp/us-central1", "edge/home")
SOME = {
    "aws-spot": (Kind.SPOT, "aws/us-east-1", "p4d.24xlarge"),
    "aws-prices": (Kind.ON_DEMAND, "aws/us-east-1", "p4d.24xlarge"),
    "aws-advisor": (Kind.OBTAINABILITY, "aws/us-east-1", "p4d.24xlarge"),
    "azure": (Kind.SPOT, "azure/westeurope", "Standard_NC24ads_A100_v4"),
    "gcp": (Kind.SPOT, "gcp/us-central1", "a2-highgpu-1g"),
    "skypilot": (Kind.SPOT, "aws/us-east-1", "p4d.24xlarge"),
    "electricity-maps": (Kind.CARBON, "aws/eu-west-2", ""),
    "watttime": (Kind.CARBON, "aws/eu-west-2", ""),
    "uk-carbon": (Kind.CARBON, "aws/eu-west-2", ""),
}
"""One thing that each feed must know."""
VIEW = read_catalogue()
ALL = q.wanted(VIEW, grid_zones())
WANTED = msgspec.structs.replace(
    ALL,
    places={p: ALL.places[p] for p in PLACES},
    machines={
        name: shape
        for name, shape in ALL.machines.items()
        if name in {s for _, _, s in SOME.values()} | {"m6i.large", "n2-standard-4"}
    },
)
YARDSTICKS = q.yardsticks(VIEW, ALL.machines)
feeds = pytest.mark.parametrize("name", FEEDS)


@pytest.fixture(scope="module")
def server():
    with replaying() as running:
        yield running


@pytest.fixture(autouse=True)
def healed(server):
    server.heal()
    yield
    server.heal()


def ask(server, name, times=1, between=lambda: None):
    """What the feed says, asked so often; its cache is emptied in between."""

    async def asked():
        feed = make_feed(name, server.url(name), Secret(KEY))
        try:
            found = [await feed.fetch(WANTED, now_ms())]
            for _ in range(times - 1):
                between()
                await asyncio.sleep(0)
                found.append(await feed.fetch(WANTED, now_ms()))
            return found
        finally:
            await feed.close()

    return asyncio.run(asked())


def now_ms():
    return int(time.time() * 1000)  # noqa: TID251 - the server dates its answers by it


def judged(fetched, book=()):
    return q.judge(fetched.quotes, dict(book), now_ms(), YARDSTICKS, WANTED.machines)


def test_each_feed_can_be_rehearsed():
    assert set(MAKERS) == set(FEEDS) == set(SOME)


@feeds
def test_quotes_are_dated_sourced_in_the_right_unit_and_believed(server, name):
    (fetched,) = ask(server, name)
    assert not fetched.failed
    found = judged(fetched)
    assert not found.quarantined
    assert SOME[name] in {quote.slot for quote in found.accepted}
    for quote in fetched.quotes:
        assert quote.source == name
        assert quote.unit == UNITS[quote.kind]
        assert quote.place in WANTED.places
        assert quote.ttl_ms > 0
        assert 0 < quote.confidence <= 1
        assert quote.as_of_ms <= now_ms() + 1000
        assert list(quote.forecast) == sorted(quote.forecast, key=lambda p: p.at_ms)
    if UNITS[SOME[name][0]] == "gCO2e/kWh":
        assert all(len(quote.forecast) > 20 for quote in fetched.quotes)


@feeds
def test_an_outage_of_two_answers_passes_unnoticed(server, name):
    for kind in ("503", "429"):
        server.fault(name, kind, times=1, delay_s=0.05)
    (fetched,) = ask(server, name)
    assert SOME[name] in {quote.slot for quote in fetched.quotes}


@feeds
@pytest.mark.parametrize("kind", ["truncated", "401", "wrong-sku"])
def test_what_cannot_be_trusted_is_an_error_with_its_place_and_no_key(server, name, kind):
    server.fault(name, kind)
    try:
        (fetched,) = ask(server, name)
        said = " ".join(fetched.failed)
        # Lists of all there is just do not have what was asked for; nothing wrong comes of it.
        assert kind == "wrong-sku"
        assert name in {"aws-prices", "aws-advisor", "gcp"}
        assert not fetched.quotes
    except FeedError as error:
        said = str(error)
        assert name in said
        assert "127.0.0.1" in said
    assert "very-secret-word" not in said


@feeds
def test_a_dead_server_is_an_error_within_the_time_allowed(name):
    async def asked():
        feed = make_feed(name, "http://127.0.0.1:9/{region}", Secret(KEY))
        try:
            with pytest.raises(OSError, match="ConnectError"):
                await feed.fetch(WANTED, now_ms())
        finally:
            await feed.close()

    began = time.monotonic()
    asyncio.run(asked())
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("aws-spot", "stale", "stale"),
        ("aws-spot", "negative", "out-of-range"),
        ("aws-spot", "absurd", "off-median"),
        ("aws-spot", "wrong-unit", "off-median"),
        ("aws-prices", "stale", "stale"),
        ("aws-prices", "wrong-unit", "unit"),
        ("azure", "negative", "out-of-range"),
        ("azure", "wrong-unit", "unit"),
        ("gcp", "absurd", "off-median"),
        ("gcp", "negative", "out-of-range"),
        ("gcp", "wrong-unit", "unit"),
        ("skypilot", "absurd", "off-median"),
        ("aws-advisor", "absurd", "not-a-number"),
        ("electricity-maps", "stale", "stale"),
        ("electricity-maps", "absurd", "out-of-range"),
        ("electricity-maps", "wrong-unit", "off-median"),
        ("watttime", "stale", "stale"),
        ("watttime", "wrong-unit", "unit"),
        ("uk-carbon", "stale", "stale"),
        ("uk-carbon", "negative", "out-of-range"),
    ],
)
def test_what_is_absurd_is_quarantined_and_the_last_good_one_stays(server, name, kind, reason):
    good = judged(ask(server, name)[0])
    server.fault(name, kind, delay_s=80 * 86_400.0)
    (fetched,) = ask(server, name)
    bad = judged(fetched, good.book)
    assert not bad.accepted
    assert {quote.reason for quote in bad.quarantined} == {reason}
    assert bad.book == good.book


def test_what_changes_at_the_server_changes_in_the_quotes(server):
    slot = SOME["aws-spot"]
    before = {x.slot: x.value for x in ask(server, "aws-spot")[0].quotes}[slot]
    server.value("spot", "aws/us-east-1", round(before * 2, 4), "p4d.24xlarge")
    after = {x.slot: x.value for x in ask(server, "aws-spot")[0].quotes}[slot]
    assert after == pytest.approx(before * 2, rel=1e-4)
    server.heal()
    server.clock(by_s=5 * 3600, speed=0)
    assert {x.slot: x.value for x in ask(server, "aws-spot")[0].quotes}[slot] != before


def test_a_fast_replay_never_says_a_later_price_with_an_earlier_time(server):
    server.clock(speed=3600)
    try:
        book = {}
        for _ in range(5):
            found = judged(ask(server, "aws-spot")[0], book)
            assert not found.quarantined
            book = found.book
            time.sleep(0.3)
    finally:
        server.clock(speed=1)


# -- asking the outside ----------------------------------------------------------------------------


def fetched(server, limits, does, api="azure"):
    async def run():
        fetcher = Fetcher(api, server.url(api), limits)
        try:
            return await does(fetcher)
        finally:
            await fetcher.close()

    return asyncio.run(run())


def served(server, api="azure"):
    return server.app.served.get(api, 0)


PATH, QUERY = "/api/retail/prices", {"$filter": "armSkuName eq 'Standard_D2s_v5'"}


def test_a_young_answer_is_used_again_and_an_old_one_is_asked_for_by_its_tag(server):
    async def thrice(fetcher):
        return [await fetcher.get(PATH, QUERY) for _ in range(3)]

    server.clock(speed=0)
    before = served(server)
    assert len(set(fetched(server, Limits(reuse_s=60), thrice))) == 1
    assert served(server) == before + 1
    assert len(set(fetched(server, Limits(reuse_s=0), thrice))) == 1
    assert served(server) == before + 4


def test_retries_are_counted_over_all_requests(server):
    server.fault("azure", "503")

    async def ten(fetcher):
        for n in range(10):
            with pytest.raises(FeedError):
                await fetcher.get(PATH, {"n": str(n)})

    before = served(server)
    fetched(server, Limits(retries_per_minute=0.001, requests_per_s=1000, burst=1000), ten)
    assert 10 < served(server) - before <= 10 + 2 * fetch.TRIES


def test_a_server_that_asks_for_a_long_pause_gets_it(server):
    server.fault("azure", "429", delay_s=3600)
    before = served(server)

    async def once(fetcher):
        with pytest.raises(FeedError, match="429, and asks to wait 3600 s"):
            await fetcher.get(PATH, QUERY)

    fetched(server, Limits(), once)
    assert served(server) == before + 1


def test_requests_keep_their_rate(server):
    async def five(fetcher):
        await asyncio.gather(*(fetcher.get(PATH, {"n": str(n)}) for n in range(5)))

    began = time.monotonic()
    fetched(server, Limits(requests_per_s=10, burst=1), five)
    assert time.monotonic() - began > 0.35


def test_answers_have_a_bound_and_waits_an_end(server):
    async def get(fetcher):
        with pytest.raises(FeedError, match="more than 100 bytes"):
            await fetcher.get(PATH, QUERY)

    fetched(server, Limits(answer_bytes=100), get)
    server.fault("azure", "slow", delay_s=30, times=1)

    async def wait(fetcher):
        with pytest.raises(FeedError, match="no answer within"):
            await fetcher.get(PATH, QUERY)

    fetched(server, Limits(total_s=0.3), wait)


def test_a_key_does_not_follow_to_another_host(server):
    async def away(fetcher):
        with pytest.raises(FeedError, match="another host"):
            await fetcher.get("http://localhost:1/api", None)

    fetched(server, Limits(), away)


@feeds
def test_no_key_is_ever_logged(server, name, caplog):
    caplog.set_level(logging.DEBUG)
    server.fault(name, "503", times=2)
    ask(server, name)
    for secret in ("very-secret-word", "AKIDTEST", "a-token-of-the-replay-server"):
        assert secret not in caplog.text


@pytest.mark.parametrize("name", ["aws-prices", "azure", "aws-spot", "gcp"])
def test_what_is_sold_beside_the_plain_machine_is_not_taken_for_it(server, name):
    """Windows, blocks of capacity, Cloud Services, Low Priority, dearer zones."""
    server.clock(speed=0)
    (fetched,) = ask(server, name)
    slots = [quote.slot for quote in fetched.quotes]
    assert len(slots) == len(set(slots))
    at_ms = server.app.clock.at_ms
    series = server.app.series
    checked = [
        (quote.value, series.price(quote.slot, at_ms)[0])
        for quote in fetched.quotes
        if quote.subject in {SOME[name][2], "m6i.large"}
    ]
    assert checked
    for found, wanted in checked:
        assert found == pytest.approx(wanted, rel=1e-4)
    server.clock(speed=1)
