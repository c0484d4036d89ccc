"""Laws of quotes: what is quarantined moves nothing, the last good one stays, doubt only grows."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.model.quotes import UNITS, Kind, Point, Quote
from hyperion.placement import quotes as q
from hyperion.placement.dates import day_of

NOW = 1_800_000_000_000
DAY = 86_400_000
VIEW = read_catalogue()
WANTED = q.wanted(VIEW, {})
YARDSTICKS = q.yardsticks(VIEW, WANTED.machines)
PLACES = ["aws/us-east-1", "aws/eu-west-1", "gcp/us-central1", "nowhere/else"]
SUBJECTS = ["p4d.24xlarge", "m6i.large", "a2-highgpu-1g", "unheard-of", ""]

values = st.one_of(
    st.floats(),
    st.floats(1e-4, 1e3),
    st.sampled_from([0.0, -1.0, math.nan, math.inf, 0.05, 12.0, 350.0]),
)
quotes = st.builds(
    Quote,
    kind=st.sampled_from(list(Kind)),
    place=st.sampled_from(PLACES),
    subject=st.sampled_from(SUBJECTS),
    value=values,
    unit=st.sampled_from([*sorted(set(UNITS.values())), "USD/month"]),
    as_of_ms=st.integers(NOW - 3 * DAY, NOW + DAY),
    ttl_ms=st.integers(1, 3 * DAY),
    source=st.sampled_from(["a", "b"]),
    confidence=st.one_of(st.floats(0, 1), st.floats()),
    forecast=st.lists(st.builds(Point, at_ms=st.integers(0, NOW), value=values), max_size=2).map(
        tuple
    ),
)


def judge(batch, book, now=NOW):
    return q.judge(batch, book, now, YARDSTICKS, WANTED.machines)


@given(st.lists(st.lists(quotes, max_size=8), max_size=4))
def test_a_quarantined_quote_never_enters_the_book_nor_the_view(batches):
    book, refused = {}, []
    for n, batch in enumerate(batches):
        found = judge(batch, book, NOW + n)
        assert len(found.accepted) + len(found.quarantined) == len(batch)
        book = found.book
        refused += [x.quote for x in found.quarantined]
    assert not any(held is bad for held in book.values() for bad in refused)
    for held in book.values():
        low, high = q.RANGES[held.kind]
        assert held.unit == UNITS[held.kind]
        assert low <= held.value <= high
    best = q.best(book, NOW + len(batches))
    laid = q.lay_quotes(VIEW, best, WANTED)
    known = {id(o) for o in VIEW.offers}
    told = {(x.place, x.subject, x.value) for x in best.values() if x.kind.is_price}
    for offer in laid.offers:
        assert id(offer) in known or (
            (offer.region, offer.instance_type, offer.usd_per_hour) in told
        )


@given(st.lists(quotes, max_size=10), st.lists(quotes, max_size=10))
def test_the_last_good_one_stays(before, after):
    held = judge(before, {}).book
    found = judge(after, held)
    assert set(held) <= set(found.book)
    for key, quote in found.book.items():
        if quote is not held.get(key):
            assert any(quote is x for x in found.accepted)
        assert key not in held or quote.as_of_ms >= held[key].as_of_ms


@given(
    st.integers(0, NOW), st.integers(1, 100 * DAY), st.floats(0, 1), st.integers(0, 10**12),
    st.integers(0, 10**12),
)  # fmt: skip
def test_uncertainty_grows_with_age_and_stays_between_0_and_1(as_of, ttl, confidence, a, b):
    quote = Quote(
        kind=Kind.SPOT, place="x/y", value=1.0, unit="USD/h", as_of_ms=as_of, ttl_ms=ttl,
        source="s", confidence=confidence,
    )  # fmt: skip
    early, late = sorted((a, b))
    first, second = q.uncertainty(quote, as_of + early), q.uncertainty(quote, as_of + late)
    assert 0 <= first <= second <= 1
    if late <= ttl:
        assert first == second == 1 - confidence


@given(st.integers(-(10**13), 10**14))
def test_days_are_those_of_the_calendar(at_ms):
    from datetime import UTC, datetime, timedelta

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    assert day_of(at_ms) == moment.strftime("%Y-%m-%d").rjust(10, "0")
