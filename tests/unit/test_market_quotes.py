"""Quotes: what is quarantined and why, which of two counts, and the market that follows."""

import pytest

from hyperion.adapters.market.aws_signing import AwsKey, key_from_environment, signed
from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.adapters.market.feeds import (
    FEEDS,
    KeyMissing,
    find_key,
    grid_zones,
    key_variable,
    make_feed,
)
from hyperion.model.job import Secret
from hyperion.model.market import Market
from hyperion.model.quotes import UNITS, Kind, Quote
from hyperion.placement import quotes as q

NOW = 1_800_000_000_000
HOUR = 3_600_000
VIEW = read_catalogue()
WANTED = q.wanted(VIEW, grid_zones())
YARDSTICKS = q.yardsticks(VIEW, WANTED.machines)
PLACE, MACHINE = "aws/us-east-1", "p4d.24xlarge"


def quote(value=12.0, kind=Kind.SPOT, place=PLACE, subject=MACHINE, **more):
    given = {"unit": UNITS[kind], "as_of_ms": NOW, "ttl_ms": HOUR, "source": "test"} | more
    return Quote(kind=kind, place=place, subject=subject, value=value, **given)


def carbon(value, **more):
    return quote(value, Kind.CARBON, subject="", **more)


def judge(*quotes, book=(), now=NOW):
    return q.judge(quotes, dict(book), now, YARDSTICKS, WANTED.machines)


@pytest.mark.parametrize(
    ("bad", "reason", "says"),
    [
        (quote(-1.0), "out-of-range", "found -1 USD/h"),
        (quote(0.0), "out-of-range", "found 0 USD/h"),
        (quote(float("nan")), "not-a-number", "nan"),
        (quote(float("inf")), "not-a-number", "inf"),
        (quote(confidence=1.5), "not-a-number", "confidence 1.5"),
        (quote(12_000.0), "off-median", "would be usual in aws/us-east-1"),
        (quote(12.0 / 720), "off-median", "wrong by 100 times"),
        (quote(unit="USD/month"), "unit", "'USD/month', expected USD/h"),
        (quote(as_of_ms=NOW - 3 * HOUR), "stale", "as of 3 h ago, and good for 1 h"),
        (quote(as_of_ms=NOW + HOUR), "future", "is a clock wrong?"),
        (carbon(9000.0), "out-of-range", "expected 0 to 3000"),
        (carbon(0.4), "off-median", "gCO2e/kWh would be usual"),
        (carbon(400.0, unit="lbs_co2_per_mwh"), "unit", "expected gCO2e/kWh"),
        (quote(1.2, Kind.OBTAINABILITY), "out-of-range", "expected 0 to 1"),
        (quote(40.0, Kind.EGRESS, subject=""), "off-median", "USD/GiB would be usual"),
    ],
)
def test_what_cannot_be_is_quarantined_with_what_was_expected(bad, reason, says):
    found = judge(bad)
    assert not found.book
    (quarantined,) = found.quarantined
    assert quarantined.reason == reason
    assert says in quarantined.why


def test_the_last_good_one_stays_until_a_better_one_comes():
    first = judge(quote(12.0))
    bad = judge(quote(-3.0, as_of_ms=NOW + 1), book=first.book)
    assert bad.book == first.book
    better = judge(quote(13.0, as_of_ms=NOW + 2), book=bad.book)
    assert [x.value for x in better.book.values()] == [13.0]
    older = judge(quote(11.0, as_of_ms=NOW + 1), book=better.book)
    assert [x.reason for x in older.quarantined] == ["stale"]
    assert older.book == better.book


def test_a_batch_whose_unit_is_wrong_throughout_cannot_vouch_for_itself():
    offers = [o for o in VIEW.offers if o.region == PLACE and o.market is Market.SPOT]
    wrong = [quote(o.usd_per_hour * 1000, subject=o.instance_type) for o in offers]
    assert len(wrong) > 10
    found = judge(*wrong)
    assert not found.accepted


def test_every_price_that_ships_is_within_reason():
    kinds = {Market.SPOT: Kind.SPOT, Market.ON_DEMAND: Kind.ON_DEMAND}
    own = [
        quote(o.usd_per_hour, kinds[o.market], o.region, o.instance_type)
        for o in VIEW.offers
        if o.market in kinds
    ]
    grids = [quote(r.carbon_g_per_kwh, Kind.CARBON, r.name, "") for r in VIEW.regions.values()]
    assert not judge(*own, *grids).quarantined


def test_of_two_sources_the_less_uncertain_counts_and_age_changes_who_that_is():
    sure = quote(10.0, source="a", confidence=0.9, ttl_ms=HOUR)
    long = quote(11.0, source="b", confidence=0.7, ttl_ms=48 * HOUR)
    book = judge(sure, long).book
    assert q.best(book, NOW)[sure.slot].source == "a"
    assert q.best(book, NOW + 10 * HOUR)[sure.slot].source == "b"
    assert q.best(book, NOW + 1000 * HOUR) == {}, "then the catalogue's price counts again"


def test_the_view_has_the_quotes_and_their_source_in_it():
    new_kind = next(
        name
        for name, shape in sorted(WANTED.machines.items())
        if shape.cloud == "aws"
        and not any(o.instance_type == name and o.region == "aws/eu-south-2" for o in VIEW.offers)
    )
    found = judge(
        quote(9.5),
        quote(1.0, kind=Kind.SPOT, place="aws/eu-south-2", subject=new_kind),
        carbon(123.0),
        quote(0.05, Kind.EGRESS, subject="gcp/us-central1"),
        quote(0.08, Kind.EGRESS, subject=""),
        quote(0.9, Kind.OBTAINABILITY),
        quote(5.0, subject="a-machine-nobody-knows"),
    )
    laid = q.lay_quotes(VIEW, q.best(found.book, NOW), WANTED)
    offers = {(o.region, o.instance_type, o.market): o for o in laid.offers}
    assert offers[PLACE, MACHINE, Market.SPOT].usd_per_hour == 9.5
    assert offers[PLACE, MACHINE, Market.SPOT].as_of == "2027-01-15"
    assert laid.sources[offers[PLACE, MACHINE, Market.SPOT].source].as_of == "2027-01-15"
    added = offers["aws/eu-south-2", new_kind, Market.SPOT]
    assert (added.gpus, added.cpus_milli) == (
        WANTED.machines[new_kind].gpus,
        WANTED.machines[new_kind].cpus_milli,
    )
    assert laid.carbon_g_per_kwh(PLACE) == 123.0
    assert laid.egress_usd_per_gib(PLACE, "gcp/us-central1") == 0.05
    assert laid.egress_usd_per_gib(PLACE, "nowhere/at-all") == 0.08
    assert laid.egress_source(PLACE, "gcp/us-central1").key == "quote-test"
    assert not any(o.instance_type == "a-machine-nobody-knows" for o in laid.offers)
    assert len(laid.offers) == len(VIEW.offers) + 1


def test_of_zones_the_cheapest_counts_as_of_the_last_change_in_any():
    from hyperion.adapters.market.aws_spot import _cheapest

    zones = [quote(9.0, as_of_ms=5), quote(8.0, as_of_ms=3), quote(float("nan"), as_of_ms=4)]
    for order in (zones, zones[::-1]):
        assert [(x.value, x.as_of_ms) for x in _cheapest(order)] == [(8.0, 5)]


# -- keys ------------------------------------------------------------------------------------------


def test_amazons_own_example_of_a_signature():
    """``get-vanilla`` of the Signature Version 4 test suite."""
    key = AwsKey(Secret("AKIDEXAMPLE"), Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
    headers = signed("https://example.amazonaws.com/", key, "us-east-1", "service", 1440938160)
    assert headers["x-amz-date"] == "20150830T123600Z"
    assert headers["authorization"].endswith(
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


def test_keys_come_from_a_private_file_or_a_variable_and_show_nowhere(tmp_path):
    file = tmp_path / "key"
    file.write_text("word\n")
    file.chmod(0o644)
    with pytest.raises(OSError, match="others may read it"):
        find_key("gcp", str(file), {})
    file.chmod(0o600)
    assert find_key("gcp", str(file), {}).value == "word"
    found = find_key("electricity-maps", "", {"HYPERION_MARKET_KEY_ELECTRICITY_MAPS": "word"})
    assert found.value == "word"
    assert "word" not in repr(found)
    assert find_key("gcp", "", {}) is None
    key = key_from_environment({"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word"})
    assert "word" not in repr(key)
    assert key_from_environment({}) is None


@pytest.mark.parametrize("name", [kind.name for kind in FEEDS.values() if kind.needs])
def test_a_feed_without_its_key_says_where_it_looks(name, monkeypatch):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(KeyMissing, match=key_variable(name)):
        make_feed(name, "", None)


def test_the_zone_of_every_region_is_of_a_region_that_ships():
    assert set(grid_zones()) <= set(VIEW.regions)
