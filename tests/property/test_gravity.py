"""What a job pays for its data: the least of the ways, never more with more copies, never twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hyperion.model.bounds import MAX_COPIES
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import JobId
from hyperion.model.job import DatasetRead, DatasetWrite, Job, Objective
from hyperion.model.market import MarketView, Region
from hyperion.placement import gravity
from hyperion.placement.gravity import DataView, Way, load, ways_to
from hyperion.placement.gravity_columns import Roads

REGIONS = ("aws/us-1", "aws/eu-1", "gcp/us-1", "edge/home")
WEIGHTS = Objective()
NOW = 50 * 3_600_000
rates = st.floats(0.0, 0.2)
hours = st.sampled_from((0.1, 1.0, 24.0, 500.0))
fractions = st.sampled_from((0.0, 0.1, 1.0, 4.0))
others = st.builds(
    Copy,
    st.sampled_from(REGIONS),
    st.booleans(),
    ready_at_ms=st.integers(0, 100 * 3_600_000),
    by=st.just("job other"),
) | st.builds(Copy, st.sampled_from(REGIONS), st.just(False), going=st.just(True))
datasets = st.builds(
    Dataset,
    name=st.just("d"),
    size_gib=st.floats(0.0, 100_000.0),
    growth_gib_per_day=st.floats(0.0, 100.0),
    keep_h=st.floats(0.0, 1000.0),
    copies=st.lists(others, max_size=3, unique_by=lambda copy: copy.region).map(
        lambda found: (Copy(REGIONS[0]), *(c for c in found if c.region != REGIONS[0]))
    ),
)
places = st.sampled_from(REGIONS)
markets = st.fixed_dictionaries({(a, b): rates for a in REGIONS for b in REGIONS if a != b}).map(
    lambda egress: MarketView(
        as_of="2026-01-01",
        regions={n: Region(name=n, cloud="x", carbon_g_per_kwh=300.0) for n in REGIONS},
        egress=egress,
    )
)


def reading(fraction=2.0, write_gib=0.0):
    writes = (DatasetWrite("d", write_gib),) if write_gib else ()
    return Job(id=JobId("j"), reads=(DatasetRead("d", fraction),), writes=writes)


def carried(job, dataset, region, market, run_h=1.0):
    return load(job, region, market, DataView({"d": dataset}, NOW), run_h)


@given(datasets, places, markets, fractions, hours)
def test_the_way_taken_is_the_cheapest_of_all(dataset, region, market, fraction, run_h):
    ways = ways_to(dataset, DatasetRead("d", fraction), region, market, NOW, run_h)
    (taken,) = carried(reading(fraction), dataset, region, market, run_h).hauls
    assert taken.weighed_usd(WEIGHTS) == min(way.weighed_usd(WEIGHTS) for way in ways)
    there = dataset.copy(region)
    if there is not None and there.present:
        assert (taken.way, taken.usd, taken.delay_h, taken.gco2e) == (Way.HERE, 0.0, 0.0, 0.0)


@given(datasets, places, markets, fractions, hours, st.floats(0.0, 1000.0))
def test_a_larger_dataset_never_costs_less(dataset, region, market, fraction, run_h, more):
    larger = replace(dataset, size_gib=dataset.size_gib + more)
    was = carried(reading(fraction), dataset, region, market, run_h)
    now = carried(reading(fraction), larger, region, market, run_h)
    weighed = [sum(haul.weighed_usd(WEIGHTS) for haul in found.hauls) for found in (was, now)]
    assert weighed[1] >= weighed[0] - 1e-9 * (1 + weighed[0])
    if was.hauls[0].way is now.hauls[0].way is not Way.COMING:
        assert now.usd >= was.usd - 1e-9 * (1 + was.usd)


@given(datasets, places, markets, fractions, hours, places)
def test_one_more_copy_never_makes_it_dearer(dataset, region, market, fraction, run_h, where):
    job = reading(fraction, write_gib=5.0)
    without = replace(dataset, copies=tuple(c for c in dataset.copies if c.region != where))
    if not without.present:
        return
    shared = replace(without, copies=(*without.copies, Copy(where)))
    was = carried(job, without, region, market, run_h)
    now = carried(job, shared, region, market, run_h)
    weighed = [sum(haul.weighed_usd(WEIGHTS) for haul in found.hauls) for found in (was, now)]
    assert weighed[1] <= weighed[0] + 1e-9 * (1 + weighed[0])


@given(datasets, places, markets, hours)
def test_nobody_pays_again_for_what_is_on_its_way(dataset, region, market, run_h):
    coming = Copy(region, present=False, ready_at_ms=NOW + 3_600_000, by="job first")
    if region == REGIONS[0]:
        return
    elsewhere = tuple(c for c in dataset.copies if c.region != region)
    dataset = replace(dataset, copies=(*elsewhere, coming))
    (haul,) = carried(reading(4.0), dataset, region, market, run_h).hauls
    assert haul.way in (Way.COMING, Way.AFAR), "never a second move"
    if haul.way is Way.COMING:
        assert (haul.usd, haul.delay_h, haul.by) == (0.0, 1.0, "job first")


weights = st.builds(
    Objective,
    egress=st.sampled_from((0.0, 1.0, 3.0)),
    carbon=st.sampled_from((0.0, 1.0, 50.0)),
    waiting_usd_per_hour=st.sampled_from((0.0, 0.05, 40.0)),
)


@given(datasets, datasets, markets, fractions, hours, weights, st.floats(0.0, 500.0))
def test_all_regions_at_once_are_what_each_alone_is(one, two, market, fraction, run_h, w, gib):
    data = DataView({"d": one, "e": two}, NOW)
    reads = (DatasetRead("d", fraction), DatasetRead("e"), DatasetRead("gone"))
    job = Job(id=JobId("j"), reads=reads, writes=(DatasetWrite("e", gib),), objective=w)
    carbon = np.array([market.carbon_g_per_kwh(region) for region in REGIONS])
    usd, wait_h, grams = Roads(REGIONS, carbon, market).loads(job, data, run_h)
    for n, region in enumerate(REGIONS):
        alone = load(job, region, market, data, run_h)
        assert (usd[n], wait_h[n], grams[n]) == (alone.usd, alone.move_h, alone.gco2e)


def test_a_dataset_in_very_many_regions_is_read_from_afar_only():
    """Who keeps it would have one copy more than there may be."""
    market = MarketView(as_of="", regions={}, internet_egress={"aws": 0.09})
    copies = tuple(Copy(f"aws/r-{n}") for n in range(MAX_COPIES))
    for few, way in ((copies[:-1], Way.MOVED), (copies, Way.AFAR)):
        dataset = Dataset(name="d", size_gib=1.0, copies=few)
        (haul,) = carried(reading(), dataset, "aws/eu-1", market).hauls
        assert haul.way is way
        roads = Roads(["aws/eu-1"], np.array([market.carbon_g_per_kwh("aws/eu-1")]), market)
        assert roads.loads(reading(), DataView({"d": dataset}, NOW), 1.0)[0] == haul.usd


def test_150_gib_cost_3_dollars_and_take_0_36_hours():
    """The arithmetic by hand: 150 GiB x $0.02, and 150 / 420 h; storage for one hour beside it."""
    market = MarketView(as_of="", regions={}, egress={("aws/us-1", "aws/eu-1"): 0.02})
    dataset = Dataset(name="d", size_gib=150.0, copies=(Copy("aws/us-1"),))
    found = carried(reading(), dataset, "aws/eu-1", market)
    (haul,) = found.hauls
    assert haul.way is Way.MOVED
    assert haul.egress_usd == 3.0
    assert haul.storage_usd == 150 * 0.023 / 730
    assert found.move_h == 150 / gravity.MOVE_GIB_PER_H
    tenth = carried(reading(0.1), dataset, "aws/eu-1", market)
    assert (tenth.hauls[0].way, tenth.usd, tenth.move_h) == (Way.AFAR, 0.3, 0.0)
    kept = replace(dataset, keep_h=730.0)
    assert carried(reading(9.0), kept, "aws/eu-1", market).usd == pytest.approx(6.45)


def test_what_is_written_goes_to_the_copy_that_costs_least():
    market = MarketView(
        as_of="",
        regions={},
        egress={("aws/eu-1", "aws/us-1"): 0.02, ("aws/eu-1", "gcp/us-1"): 0.09},
    )
    dataset = Dataset(name="d", size_gib=1.0, copies=(Copy("gcp/us-1"), Copy("aws/us-1")))
    job = Job(id=JobId("j"), writes=(DatasetWrite("d", 50.0),))
    found = carried(job, dataset, "aws/eu-1", market)
    assert (found.usd, found.hauls[0].source, found.hauls[0].way) == (1.0, "aws/us-1", Way.BACK)
    assert carried(job, dataset, "aws/us-1", market).usd == 0.0


def test_a_dataset_grows():
    dataset = Dataset(name="d", size_gib=500.0, growth_gib_per_day=10.0, sized_at_ms=1000)
    assert dataset.gib(1000) == 500.0
    assert dataset.gib(1000 + 3 * 86_400_000) == 530.0
