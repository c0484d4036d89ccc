"""What the federation's choice must never break, and what its frontier is, over random fleets."""

from math import isclose

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import (
    Budget,
    Checkpoint,
    DatasetRead,
    DatasetWrite,
    DataSource,
    Job,
    Objective,
    Residency,
)
from hyperion.model.market import Market, MarketView, Offer, Region
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.catalogue import catalogue
from hyperion.placement.choice import FleetCluster, choose, rank
from hyperion.placement.explain import frontier
from hyperion.placement.feasibility import residence_refusal
from hyperion.placement.gravity import DataView
from hyperion.placement.interruption import per_hour, struck
from hyperion.placement.objective import Outlook, price, shares
from hyperion.placement.ranking import BUILT_IN, policy

CLOUDS = ("aws", "gcp", "edge")
REGIONS = tuple(f"{cloud}/{zone}" for cloud in CLOUDS for zone in ("eu-1", "us-1"))
CAPACITY = Capacity(gpus=8, gpu_type="A100", cpus_milli=64_000, memory_mib=262_144)
amounts = st.floats(0.01, 100.0)
patterns = st.sampled_from((*CLOUDS, *REGIONS, "*/eu-*", "c1", "a*", "*", "nowhere"))
residencies = st.builds(
    Residency,
    st.lists(patterns, max_size=2).map(tuple),
    st.lists(patterns, max_size=2).map(tuple),
)
weights = st.floats(0.0, 10.0)
jobs = st.builds(
    Job,
    id=st.just(JobId("j")),
    command=st.just(("true",)),
    alternatives=st.just((ResourceRequest(gpus_milli=8000, gpu_type="A100"),)),
    replicas=st.integers(1, 3),
    expected_s=st.sampled_from((0.0, 1800.0, 36_000.0)),
    users_in=st.sampled_from(((), ("aws/eu-1",))),
    data=st.sampled_from(((), (DataSource("s3://a", 500, "aws/us-1"),))),
    reads=st.lists(
        st.builds(DatasetRead, st.sampled_from("abc"), st.sampled_from((0.1, 1.0, 3.0))),
        max_size=2,
    ).map(tuple),
    writes=st.sampled_from(((), (DatasetWrite("a", 40.0), DatasetWrite("gone", 1.0)))),
    latency_target_s=st.sampled_from((0.0, 0.08)),
    checkpoint=st.builds(
        Checkpoint, every_s=st.sampled_from((0.0, 600.0)), restore_s=st.sampled_from((0.0, 60.0))
    ),
    objective=st.builds(
        Objective, weights, weights, weights, weights, weights, st.floats(0.0, 1000.0), weights
    ),
    budget=st.builds(
        Budget,
        st.just(0.0) | st.floats(1.0, 500.0),
        st.just(0.0) | st.floats(1.0, 100.0),
        st.just(0.0) | st.floats(0.1, 20.0),
    ),
    regions=residencies,
    policy=st.sampled_from(sorted(BUILT_IN)),
)


@st.composite
def fleets(draw):
    found = []
    for n in range(draw(st.integers(1, 5))):
        free = draw(st.sampled_from((0, 8, 16)))
        shape = Shape(
            capacity=CAPACITY,
            nodes=3,
            instance_type="a8",
            market=draw(st.sampled_from((Market.OWNED, Market.SPOT))),
            usd_per_hour=draw(amounts),
            free_gpus_milli=1000 * free,
            free_cpus_milli=8000 * free,
            free_memory_mib=32_768 * free,
        )
        cluster = Cluster(id=ClusterId(f"c{n}"), region=draw(st.sampled_from(REGIONS)))
        load = ClusterLoad(shapes=(shape,), waiting_jobs=draw(st.integers(0, 5)))
        found.append(FleetCluster(cluster=cluster, load=load))
    return tuple(found)


copies = st.builds(
    Copy,
    st.sampled_from(REGIONS),
    st.booleans(),
    ready_at_ms=st.integers(0, 40 * 3_600_000),
    source=st.sampled_from(REGIONS),
) | st.builds(Copy, st.sampled_from(REGIONS), st.just(False), going=st.just(True))
views = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        Dataset,
        name=st.just("d"),
        size_gib=st.floats(0.0, 5000.0),
        growth_gib_per_day=st.sampled_from((0.0, 10.0)),
        keep_h=st.sampled_from((0.0, 100.0)),
        copies=st.lists(copies, max_size=3, unique_by=lambda copy: copy.region).map(
            lambda found: (Copy(REGIONS[0]), *(c for c in found if c.region != REGIONS[0]))
        ),
    ),
).map(lambda found: DataView(found, 20 * 3_600_000))


@st.composite
def markets(draw):
    return MarketView(
        as_of="2026-01-01",
        regions={
            name: Region(
                name=name,
                cloud=name.partition("/")[0],
                carbon_g_per_kwh=draw(st.floats(0.0, 900.0)),
            )
            for name in REGIONS
        },
        offers=tuple(
            Offer(
                region=name,
                instance_type="big",
                market=bought,
                usd_per_hour=draw(amounts),
                gpus=8,
                gpu_type="A100",
                cpus_milli=64_000,
                memory_mib=262_144,
            )
            for name in REGIONS
            for bought in (Market.ON_DEMAND, Market.SPOT)
        ),
        left_alone=draw(
            st.dictionaries(
                st.tuples(st.sampled_from(REGIONS), st.sampled_from(("big", "more0"))),
                st.floats(0.0, 1.0),
            )
        ),
        internet_egress={"aws": 0.09, "gcp": 0.12},
    )


@given(jobs, fleets(), markets())
def test_no_choice_breaks_a_hard_limit(job, fleet, market):
    places = rank(job, fleet, market, policy(job.policy))
    offered = catalogue(job, market, policy(job.policy), 50)
    chosen = choose(places)
    for place in (*([chosen] if chosen else ()), *(p for p in offered if p.refusal is None)):
        assert residence_refusal(job, place.cluster, place.region) == ""
        p, hours = place.price, job.expected_s / 3600
        assert (
            job.budget.max_usd == 0 or p.usd_per_hour * hours + p.egress_usd <= job.budget.max_usd
        )
        assert job.budget.max_usd_per_hour == 0 or p.usd_per_hour <= job.budget.max_usd_per_hour
        kg = p.gco2e_per_hour * hours / 1000
        assert job.budget.max_kg_co2e == 0 or kg <= job.budget.max_kg_co2e * (1 + 1e-12)


@given(jobs, fleets(), markets())
def test_a_place_is_refused_only_where_the_job_may_not_be(job, fleet, market):
    """Without budgets, of clusters that could hold it empty, those it may be in are all open."""
    job = replace(job, budget=Budget())
    open_to = {p.cluster for p in rank(job, fleet, market, policy("")) if p.refusal is None}
    may = {
        c.cluster.id for c in fleet if not residence_refusal(job, c.cluster.id, c.cluster.region)
    }
    assert open_to == may


@given(jobs, fleets(), markets())
def test_the_frontier_is_what_nothing_beats_and_has_the_best_of_each(job, fleet, market):
    places = rank(job, fleet, market, policy(job.policy))
    marks = frontier(job, places)
    figures = {
        n: (
            p.price.usd,
            p.price.gco2e,
            p.price.latency_ms if job.users_in else 0.0,
            0 if p.has_room else 1 + p.backlog,
        )
        for n, p in enumerate(places)
        if p.refusal is None
    }
    assert set(marks) <= set(figures)
    for n, own in figures.items():
        beaten = any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in figures.values()
        )
        assert beaten == (n not in marks)
    names = ("cheapest", "greenest", "nearest", "soonest")
    wanted = [name for name in names if job.users_in or name != "nearest"] if figures else []
    assert sorted(name for best in marks.values() for name in best) == sorted(wanted)
    for n, best in marks.items():
        for name in best:
            at = names.index(name)
            assert figures[n][at] == min(f[at] for f in figures.values())


@given(jobs, markets(), st.sampled_from(REGIONS), amounts, st.floats(0.0, 50.0))
def test_the_price_grows_with_each_of_its_terms(job, market, region, usd, more):
    """Dearer, dirtier, farther or with more to bring: the score is never lower."""
    request = job.alternatives[0]
    base = price(job, request, region, usd, market).score
    slack = 1e-9 * (1 + abs(base))
    assert price(job, request, region, usd + more, market).score >= base - slack
    here = market.regions[region]
    dirty = replace(here, carbon_g_per_kwh=here.carbon_g_per_kwh + more)
    dirtier = replace(market, regions={**market.regions, region: dirty})
    assert price(job, request, region, usd, dirtier).score >= base - slack
    for user in job.users_in:
        far = replace(market, latency={(region, user): market.latency_ms(region, user) + more})
        if user != region:
            assert price(job, request, region, usd, far).score >= base - slack
    often = Outlook(interruptions_per_hour=more, wait_h=0.0)
    assert price(job, request, region, usd, market, outlook=often).score >= base - slack
    later = Outlook(interruptions_per_hour=0.0, wait_h=more)
    assert price(job, request, region, usd, market, outlook=later).score >= base - slack
    strict = replace(job, latency_target_s=0.0)
    assert price(strict, request, region, usd, market).score >= base - slack
    heavier = tuple(replace(d, size_gib=d.size_gib + more) for d in job.data)
    assert price(replace(job, data=heavier), request, region, usd, market).score >= base - slack


@given(jobs, markets(), fleets(), views)
def test_every_score_is_the_sum_of_its_shares(job, market, fleet, data):
    job = replace(job, budget=Budget())
    places = [
        *rank(job, fleet, market, policy(""), data),
        *catalogue(job, market, policy(""), 50, data=data),
    ]
    for place in places:
        if place.price is not None:
            parts = structs.astuple(shares(job.objective, place.price))
            assert all(part >= 0 for part in parts)
            assert isclose(sum(parts), place.price.score, rel_tol=1e-9, abs_tol=1e-12)


def outlook(job, offer, market):
    often = per_hour(offer.region, offer.instance_type, offer.market, market)
    return Outlook(often * struck(job, job.replicas))


@given(jobs, markets(), st.lists(st.tuples(st.sampled_from(REGIONS), amounts), max_size=8), views)
def test_offers_ranked_at_once_are_what_one_by_one_would_be(job, market, more, data):
    """Also where several of one size in a region differ only by their price."""
    extra = (
        replace(market.offers[0], region=region, usd_per_hour=usd, instance_type=f"more{n}")
        for n, (region, usd) in enumerate(more)
    )
    market = replace(market, offers=(*market.offers, *extra))
    job = replace(job, policy="", budget=Budget())
    request = job.alternatives[0]
    alone = {
        o: price(
            job,
            request,
            o.region,
            o.usd_per_hour,
            market,
            o.gpu_type,
            data,
            outlook(job, o, market),
        )
        for o in market.offers
        if not residence_refusal(job, "", o.region)
    }
    found = catalogue(job, market, policy(""), 100, data=data)
    assert {p.region for p in found} == {o.region for o in alone}
    for place in found:
        own = [p for o, p in alone.items() if o.region == place.region and o.market is place.market]
        assert place.price in own
        assert place.price.score == min(p.score for p in own)
    assert [p.price.score for p in found] == sorted(p.price.score for p in found)
