"""The federation's choice: prices by hand, refusals, queues, offers, and the words for all that."""

import re
import time

import msgspec
import numpy as np
import pytest

from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Array, Budget, DataSource, Elastic, Job, Objective, Role
from hyperion.model.market import Market, MarketView, Offer, Region
from hyperion.model.power import replica_watts
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.catalogue import catalogue
from hyperion.placement.choice import (
    MAX_BACKLOG,
    FleetCluster,
    asked_in_all,
    choose,
    rank,
    shape_key,
)
from hyperion.placement.explain import Row, arithmetic, decision
from hyperion.placement.feasibility import VARIOUS, Reason
from hyperion.placement.objective import Price, price
from hyperion.placement.ranking import BUILT_IN, policy

BALANCED = policy("balanced")
US, EU, HOME = "aws/us-east-1", "gcp/europe-west1", "edge/home"


def offer(region, instance_type, usd, gpus=0, gpu_type="A100", market=Market.ON_DEMAND, cpus=32):
    return Offer(
        region=region,
        instance_type=instance_type,
        market=market,
        usd_per_hour=usd,
        gpu_type=gpu_type if gpus else "",
        gpus=gpus,
        cpus_milli=1000 * cpus,
        memory_mib=262_144,
    )


MARKET = MarketView(
    as_of="2026-01-01",
    regions={
        US: Region(name=US, cloud="aws", latitude=39, longitude=-77, carbon_g_per_kwh=400, pue=1.2),
        EU: Region(name=EU, cloud="gcp", latitude=50, longitude=4, carbon_g_per_kwh=100, pue=1.1),
    },
    offers=(
        offer(US, "p4d", 32.0, 8),
        offer(US, "p4d", 12.0, 8, market=Market.SPOT),
        offer(US, "a1", 5.0, 1),
        offer(US, "m5", 1.6),
        offer(EU, "a2", 30.0, 8),
        offer(EU, "a2", 10.0, 8, market=Market.SPOT),
        offer(EU, "h1", 90.0, 8, "H100"),
        offer("azure/far", "nd", 25.0, 8),
    ),
    egress={(US, EU): 0.02},
    internet_egress={"aws": 0.09, "gcp": 0.12},
    latency={(US, EU): 90.0},
)


def shape(nodes=2, gpus=8, gpu_type="A100", cpus=64, free=1.0, **more):
    return Shape(
        capacity=Capacity(
            gpus=gpus,
            gpu_type=gpu_type if gpus else "",
            cpus_milli=1000 * cpus,
            memory_mib=262_144,
            disk_mib=1_000_000,
        ),
        nodes=nodes,
        free_cpus_milli=int(1000 * cpus * nodes * free),
        free_gpus_milli=int(1000 * gpus * nodes * free),
        free_memory_mib=int(262_144 * nodes * free),
        **more,
    )


def member(id, region, *shapes, waiting=0, running=0, **more):
    load = ClusterLoad(shapes=shapes, waiting_jobs=waiting, running_jobs=running)
    return FleetCluster(cluster=Cluster(id=ClusterId(id), region=region), load=load, **more)


def job(gpus=8, gpu_type="A100", **more):
    more.setdefault(
        "alternatives", (ResourceRequest(gpus_milli=int(1000 * gpus), gpu_type=gpu_type),)
    )
    return Job(id=JobId("j"), **more)


# -- the price -------------------------------------------------------------------------------------


def test_the_price_by_hand():
    request = ResourceRequest(gpus_milli=2000, gpu_type="A100", cpus_milli=4000)
    j = job(
        alternatives=(request,),
        replicas=3,
        expected_s=7200,
        data=(DataSource("s3://a", 100, US), DataSource("gs://b", 50, EU)),
        users_in=(US, EU),
        objective=Objective(cost=2.0, latency=1.0, egress=0.5, carbon=4.0),
    )
    p = price(j, request, EU, 5.0, MARKET)
    kilowatts = 3 * replica_watts(request) / 1000 * 1.1
    assert p.usd_per_hour == 15.0
    assert p.egress_usd == pytest.approx(2.0)
    assert p.gco2e_per_hour == pytest.approx(kilowatts * 100)
    assert p.latency_ms == pytest.approx((90 + 1) / 2)
    assert p.hours == 2.0
    assert p.usd == pytest.approx(32.0)
    assert p.gco2e == pytest.approx(2 * kilowatts * 100)
    carbon_usd = 0.1 * p.gco2e / 1000
    assert p.score == pytest.approx(2 * 30 + 0.5 * 2 + 4 * carbon_usd + 0.001 * 45.5 * 2)


def test_without_a_duration_an_hour_is_priced():
    p = price(job(), ResourceRequest(), US, 5.0, MARKET)
    assert (p.hours, p.usd) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("what", "region", "usd"),
    [
        (shape(usd_per_hour=7.0, instance_type="p4d", market=Market.SPOT), US, 7.0),
        (shape(instance_type="p4d", market=Market.SPOT), US, 12.0),
        (shape(instance_type="p4d", market=Market.ON_DEMAND), US, 32.0),
        (shape(instance_type="unheard", market=Market.ON_DEMAND), US, 32.0),
        (shape(), US, 32.0),
        (shape(), HOME, 0.0),
    ],
    ids=["owner", "offer-spot", "offer-on-demand", "per-gpu", "owned-in-cloud", "owned-at-home"],
)
def test_where_the_price_of_a_node_comes_from(what, region, usd):
    [place] = rank(job(gpus=8), [member("c", region, what)], MARKET, BALANCED)
    assert place.price.usd_per_hour == pytest.approx(usd)


def test_a_replica_pays_its_dominant_share():
    [place] = rank(job(gpus=2), [member("c", US, shape(usd_per_hour=32.0))], MARKET, BALANCED)
    assert place.price.usd_per_hour == pytest.approx(8.0)
    cpus = job(alternatives=(ResourceRequest(cpus_milli=32_000),))
    [place] = rank(cpus, [member("c", US, shape(usd_per_hour=32.0))], MARKET, BALANCED)
    assert place.price.usd_per_hour == pytest.approx(16.0)


# -- ranking ---------------------------------------------------------------------------------------

FLEET = (
    member("us", US, shape(usd_per_hour=20.0)),
    member("eu", EU, shape(usd_per_hour=21.0)),
    member("home", HOME, shape(gpus=0, cpus=8)),
    member("gone", US, shape(), reachable=False),
)


def test_data_gravity_decides():
    near_us = rank(job(data=(DataSource("s3://d", 2000, US),)), FLEET, MARKET, BALANCED)
    near_eu = rank(job(data=(DataSource("gs://d", 2000, EU),)), FLEET, MARKET, BALANCED)
    assert near_us[0].cluster == "us"
    assert near_eu[0].cluster == "eu"
    assert [p.refusal for p in near_us] == [None, None, Reason.SILENT, Reason.GPU_TYPE]


@pytest.mark.parametrize(
    ("name", "first"),
    [("cheapest", "us"), ("greenest", "eu"), ("lowest-latency", "eu"), ("nearest-data", "eu")],
)
def test_each_policy_has_its_own_term(name, first):
    j = job(users_in=(EU,), data=(DataSource("gs://d", 1, EU),))
    assert rank(j, FLEET, MARKET, policy(name))[0].cluster == first


def test_unknown_policies_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'cheapest'"):
        policy("cheapst")
    assert policy("").name == "balanced"
    assert set(BUILT_IN) > {"balanced", "cheapest", "greenest", "fragmentation", "pack", "spread"}


def test_one_row_for_each_kind_and_market_of_a_cluster():
    alike = [shape(usd_per_hour=20.0, labels={"host": str(n)}) for n in range(5)]
    spot = shape(usd_per_hour=6.0, market=Market.SPOT)
    places = rank(job(), [member("c", US, *alike, spot)], MARKET, BALANCED)
    assert [p.market for p in places] == [Market.SPOT, Market.OWNED]


def test_the_best_alternative_is_shown_for_each_cluster():
    either = job(
        alternatives=(
            ResourceRequest(gpus_milli=8000, gpu_type="H100"),
            ResourceRequest(gpus_milli=8000, gpu_type="A100"),
        )
    )
    places = rank(either, [member("c", US, shape(), shape(gpu_type="H100"))], MARKET, BALANCED)
    assert {(p.shape.capacity.gpu_type, p.alternative) for p in places} == {
        ("A100", 1),
        ("H100", 0),
    }


@pytest.mark.parametrize(
    ("what", "reason", "words"),
    [
        (job(alternatives=(ResourceRequest(infra="azure"),)), Reason.INFRA, "not azure"),
        (job(gpu_type="H100"), Reason.GPU_TYPE, "no H100 (has A100)"),
        (job(gpus=9), Reason.GPU_COUNT, "9 GPUs on one node asked, at most 8 there"),
        (job(replicas=3), Reason.GANG, "even when empty, room for 2 of 3 replicas"),
        (job(budget=Budget(max_usd_per_hour=19.0)), Reason.BUDGET, "over the budget of $19.00/h"),
        (
            job(budget=Budget(max_usd=50.0), expected_s=3 * 3600),
            Reason.BUDGET,
            "$60.00 is over the budget of $50.00",
        ),
        (
            job(alternatives=(ResourceRequest(cpus_milli=65_000),)),
            Reason.CPU,
            "65 CPUs asked, at most 64",
        ),
    ],
)
def test_a_cluster_that_cannot_says_why(what, reason, words):
    places = rank(what, FLEET[:1], MARKET, BALANCED)
    [place] = places
    assert place.refusal is reason
    assert words in place.refusal_text
    assert choose(places) is None
    sentence, rows = decision(what, places, None, "balanced")
    assert sentence.startswith("no cluster can run it: us: ")
    assert words in sentence
    assert words in rows[0].reason
    assert rows[0].score is None


def test_a_budget_does_not_refuse_what_has_no_known_duration():
    [place] = rank(job(budget=Budget(max_usd=1.0)), FLEET[:1], MARKET, BALANCED)
    assert place.refusal is None


# -- room and queues -------------------------------------------------------------------------------


def test_promises_count_until_the_load_shows_them():
    def room(free, committed):
        m = member("c", US, shape(free=free), committed_gpus_milli=committed)
        [place] = rank(job(gpus=8), [m], MARKET, BALANCED)
        return place.has_room

    assert room(1.0, 0)
    assert room(1.0, 8000), "one node is promised, one is left"
    assert not room(1.0, 16_000), "both are promised"
    assert room(0.5, 8000), "the load counts the promise already"
    assert not room(0.0, 16_000)


def test_room_before_price_then_the_shortest_queue_then_none():
    full = member("full", US, shape(usd_per_hour=1.0, free=0.0), waiting=7)
    free = member("free", US, shape(usd_per_hour=50.0))
    places = rank(job(), [full, free], MARKET, BALANCED)
    assert [p.cluster for p in places] == ["full", "free"]
    assert choose(places).cluster == "free"
    longer = member("longer", US, shape(usd_per_hour=0.5, free=0.0), backlog_jobs=30, running=10)
    places = rank(job(), [full, longer], MARKET, BALANCED)
    assert [p.backlog for p in places] == [20, 7]
    assert choose(places).cluster == "full"
    stuffed = member("c", US, shape(free=0.0), waiting=MAX_BACKLOG)
    places = rank(job(), [stuffed], MARKET, BALANCED)
    assert choose(places) is None
    sentence, rows = decision(job(), places, None, "balanced")
    assert sentence == "1 cluster could run it, but the queues there are full"
    assert rows[0].reason == f"no room now, {MAX_BACKLOG} jobs waiting"


def test_jobs_that_rank_alike_have_one_key():
    assert shape_key(job()) == shape_key(msgspec.structs.replace(job(), id=JobId("other")))
    labelled = job(alternatives=(ResourceRequest(labels={"a": "b"}),))
    assert hash(shape_key(labelled)) is not None
    keys = {
        shape_key(j)
        for j in (
            job(),
            job(gpus=4),
            job(replicas=2),
            job(image="x"),
            job(users_in=(US,)),
            job(data=(DataSource("s3://d", 1, US),)),
            job(budget=Budget(max_usd=1)),
            job(expected_s=9),
            job(policy="pack"),
            job(objective=Objective(cost=0)),
        )
    }
    assert len(keys) == 10


def test_whatever_a_planner_looks_at_is_in_the_key():
    near = ReplicaTerm((("app", "web"),))
    several = (
        job(),
        job(queue="research"),
        job(elastic=Elastic(1)),
        job(array=Array(9)),
        job(packing=Packing("rack")),
        job(spread=(Spread("rack"),)),
        job(replica_affinity=(near,)),
        job(replica_affinity=(near,), metadata={"app": "web"}),
        job(reservation="w"),
        job(roles=(Role(name="a"),)),
        job(roles=(Role(name="a", replicas=2),)),
        job(alternatives=(ResourceRequest(custom=(("fpga", 1),)),)),
        job(alternatives=(ResourceRequest(affinity=(NodeTerm("a"),)),)),
    )
    assert len({shape_key(j) for j in several}) == len(several)
    assert shape_key(job(metadata={"note": "1"})) == shape_key(job())
    renamed = (job(roles=(Role(name="b"),)), job(roles=(Role(name="a", run="x"),)))
    assert {shape_key(j) for j in renamed} == {shape_key(job(roles=(Role(name="a"),)))}


# -- roles, widths, tasks --------------------------------------------------------------------------


def test_roles_must_all_suit_and_pay_together():
    trainer = Role(name="trainer", replicas=2, resources=ResourceRequest(gpus_milli=8000))
    server = Role(name="server", resources=ResourceRequest(cpus_milli=32_000))
    gang = job(replicas=3, roles=(trainer, server), alternatives=(trainer.resources,))
    gpus, cpus = shape(usd_per_hour=40.0), shape(gpus=0, usd_per_hour=2.0)
    (place, *_) = rank(gang, [member("c", US, gpus, cpus)], MARKET, BALANCED)
    assert place.price.usd_per_hour == pytest.approx(2 * 40.0 + 0.5 * 2.0)
    assert place.has_room
    watts = 2 * replica_watts(trainer.resources, "A100") + replica_watts(server.resources)
    assert place.price.gco2e_per_hour == pytest.approx(watts / 1000 * 1.2 * 400)
    assert arithmetic(gang, place)[1].startswith("compute: 2 roles, for $81.0000/h x 1 h")
    few = msgspec.structs.replace(server, replicas=5, resources=ResourceRequest(cpus_milli=64_000))
    wide = msgspec.structs.replace(gang, roles=(trainer, few), replicas=7)
    (place,) = rank(wide, [member("c", US, gpus, cpus)], MARKET, BALANCED)
    assert place.refusal is Reason.GANG
    assert place.refusal_text == "role server: even when empty, room for 4 of 5 replicas"
    assert catalogue(gang, MARKET, BALANCED, 10) == ()
    assert asked_in_all(gang) == Capacity(gpus=16_000, cpus_milli=34_000)


def test_an_elastic_job_needs_room_for_its_least():
    elastic = job(replicas=8, elastic=Elastic(2))
    (place,) = rank(elastic, [member("c", US, shape(nodes=2))], MARKET, BALANCED)
    assert place.has_room
    (place,) = rank(elastic, [member("c", US, shape(nodes=1))], MARKET, BALANCED)
    assert place.refusal_text == "even when empty, room for 1 of 2 replicas"


def test_an_array_needs_room_for_one_task_and_pays_for_all_of_them():
    tasks = job(gpus=4, array=Array(100, limit=6), expected_s=3600)
    busy = member("c", US, shape(nodes=2, free=0.5, usd_per_hour=10.0))
    (place,) = rank(tasks, [busy], MARKET, BALANCED)
    assert place.has_room
    assert place.price.usd_per_hour == 4 * 5.0, "four fit at once, fewer than the limit"
    assert place.price.hours == 25
    assert place.price.usd == pytest.approx(500.0)
    alone = price(tasks, tasks.alternatives[0], US, 5.0, MARKET, "A100")
    assert place.price.gco2e == pytest.approx(100 * alone.gco2e)
    told = arithmetic(tasks, place)[0]
    assert told.startswith("compute: those of 100 tasks that run at once, for $20.0000/h x 25 h")
    strict = msgspec.structs.replace(tasks, budget=Budget(max_usd=499))
    (place,) = rank(strict, [busy], MARKET, BALANCED)
    assert place.refusal_text == "$500.00 is over the budget of $499.00"
    (offered, *_) = catalogue(tasks, MARKET, BALANCED, 1)
    assert offered.price.usd_per_hour == 30.0, "six tasks of four GPUs need three machines"
    assert offered.price.hours == 17


def test_countables_and_labels_are_asked_of_the_shapes():
    def one(request, **more):
        capacity = Capacity(cpus_milli=8000, custom=(("fpga", 2),))
        known = Shape(capacity=capacity, nodes=2, free_cpus_milli=16_000, **more)
        (place,) = rank(job(alternatives=(request,)), [member("c", US, known)], MARKET, BALANCED)
        return place

    fpga = ResourceRequest(custom=(("fpga", 2),))
    assert one(fpga).has_room
    assert catalogue(job(alternatives=(fpga,)), MARKET, BALANCED, 10) == ()
    place = one(ResourceRequest(custom=(("fpga", 3),)))
    assert (place.refusal, place.refusal_text) == (
        Reason.CUSTOM,
        "3 fpga asked, at most 2 on a node",
    )
    near = ResourceRequest(affinity=(NodeTerm("zone", Operator.IN, ("a",)),))
    assert one(near, labels={"zone": "b"}).refusal is Reason.AFFINITY
    assert one(near, labels={"zone": VARIOUS}).refusal is None, "only the cluster can tell"
    preferred = ResourceRequest(affinity=(NodeTerm("zone", Operator.IN, ("a",), weight=1),))
    assert one(preferred, labels={"zone": "b"}).refusal is None


# -- the catalogue ---------------------------------------------------------------------------------


def test_offers_rent_whole_instances_and_keep_one_row_a_region_and_market():
    places = catalogue(job(gpus=4, replicas=3), MARKET, BALANCED, 10)
    assert not any(p.joined for p in places)
    assert not any(p.cluster for p in places)
    assert [(p.region, p.market) for p in places] == [
        (EU, Market.SPOT),
        (US, Market.SPOT),
        ("azure/far", Market.ON_DEMAND),
        (EU, Market.ON_DEMAND),
        (US, Market.ON_DEMAND),
    ]
    assert places[0].price.usd_per_hour == 20.0, "three replicas of four GPUs need two machines"
    assert choose(places) is None, "nobody can be sent where nobody has joined"


def test_offers_obey_infra_market_budget_limit_and_joined_regions():
    def found(j, limit=10, **more):
        return [(p.region, p.market.value) for p in catalogue(j, MARKET, BALANCED, limit, **more)]

    spot = job(alternatives=(ResourceRequest(gpus_milli=8000, use_spot=True, infra="aws"),))
    assert found(spot) == [(US, "spot")]
    assert found(job(gpu_type="H100")) == [(EU, "on-demand")]
    assert found(job(gpu_type="h100")) == [(EU, "on-demand")]
    assert found(job(), limit=2) == [(EU, "spot"), (US, "spot")]
    assert found(job(), joined_regions={EU, US}) == [("azure/far", "on-demand")]
    assert found(job(gpu_type="B300")) == []
    assert found(job(), limit=0) == []
    places = catalogue(job(budget=Budget(max_usd_per_hour=11.0)), MARKET, BALANCED, 10)
    assert [p.refusal for p in places] == [None, *[Reason.BUDGET] * 4]


def test_the_columns_of_offers_agree_with_the_one_price():
    j = job(
        gpu_type="",
        gpus=1,
        replicas=2,
        data=(DataSource("s3://d", 10, US),),
        users_in=(US,),
        expected_s=9000,
        objective=Objective(0.3, 2, 0.7, 5),
    )
    places = catalogue(j, MARKET, BALANCED, 10)
    assert len(places) == 5
    for p in places:
        waste_and_fullness = 1e-3
        assert p.cost == pytest.approx(p.price.score, abs=waste_and_fullness)


def test_thousands_of_offers_are_ranked_in_milliseconds():
    many = MarketView(
        as_of="",
        regions=MARKET.regions,
        offers=tuple(
            offer(f"aws/r{n % 60}", f"t{n}", 1.0 + n % 97, 8, market=list(Market)[n % 2])
            for n in range(10_000)
        ),
    )
    catalogue(job(), many, BALANCED, 20)
    best_s = 9.0
    for _ in range(5):
        start = time.process_time()
        catalogue(job(), many, BALANCED, 20)
        best_s = min(best_s, time.process_time() - start)
    assert best_s < 0.05, "the goal is 5 ms; ten times that on a machine under load"


# -- in words --------------------------------------------------------------------------------------


def test_each_rejected_candidate_has_its_reason_with_the_difference():
    j = job(data=(DataSource("s3://d", 2000, US),))
    places = (
        *rank(j, FLEET, MARKET, BALANCED),
        *catalogue(j, MARKET, BALANCED, 2, joined_regions={EU, US}),
    )
    chosen = choose(places)
    sentence, rows = decision(j, places, chosen, "balanced")
    assert [r.rank for r in rows] == [1, 2, 3, 4, 5]
    assert [r.chosen for r in rows] == [True, False, False, False, False]
    assert rows[0].reason == "next is eu (gcp/europe-west1) with egress $40.00 more"
    assert rows[1].reason == "egress $40.00 more"
    assert rows[2].reason == "not heard from"
    assert rows[3].reason == "no A100 (has no GPUs)"
    assert rows[4].reason == "egress $180.00 more; nobody has joined there"
    assert rows[0].accelerators == "A100:8"
    assert sentence.startswith("us (aws/us-east-1) by policy balanced: $20.00 expected for 1 h, ")


def test_reasons_speak_of_the_policy_s_own_term():
    j = job(users_in=(EU,))
    for name, words in (
        ("greenest", "g CO2e/h"),
        ("lowest-latency", "+89 ms to users"),
        ("cheapest", "+$1.00/h"),
    ):
        places = rank(j, FLEET[:2], MARKET, policy(name))
        _, rows = decision(j, places, choose(places), name)
        assert words in rows[1].reason, name


def test_nothing_joined_is_said_plainly():
    assert decision(job(), (), None, "balanced") == ("no cluster has joined", ())


@pytest.mark.parametrize("expected_s", [0.0, 7.0, 5400.0, 1e7])
@pytest.mark.parametrize("weights", [Objective(), Objective(0.5, 3, 0, 7)])
def test_the_arithmetic_adds_up_to_the_cent(expected_s, weights):
    j = job(
        gpus=3,
        replicas=2,
        expected_s=expected_s,
        objective=weights,
        data=(DataSource("s3://d", 123.4, US),),
        users_in=(US, HOME),
    )
    places = rank(j, FLEET, MARKET, BALANCED)
    for place in places[:2]:
        lines = arithmetic(j, place)
        terms = [line for line in lines if re.match("compute|egress|carbon|latency", line)]
        amounts = [line.rpartition("$")[2].replace(",", "") for line in terms]
        total = lines[-1].rpartition("$")[2].replace(",", "")
        assert len(amounts) == 4
        assert round(1e4 * sum(map(float, amounts))) == round(1e4 * float(total))
        assert f"{float(total):.2f}" == f"{place.price.score:.2f}"


def test_rows_and_prices_survive_the_store():
    j = job()
    places = rank(j, FLEET, MARKET, BALANCED)
    _, rows = decision(j, places, choose(places), "balanced")
    assert msgspec.json.decode(msgspec.json.encode(rows), type=tuple[Row, ...]) == rows
    p = places[0].price
    assert msgspec.json.decode(msgspec.json.encode(p), type=Price) == p
    assert not any(isinstance(v, np.generic) for v in (*_fields(p), *_fields(rows[0])))


def _fields(struct):
    return [getattr(struct, name) for name in struct.__struct_fields__]
