"""``plan`` and what then happens agree when nothing changes in between, over random fleets."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stories import MARKET, Teller, job, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Budget, Checkpoint, DataSource, JobPhase, Objective, Residency
from hyperion.model.market import Market
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.ranking import BUILT_IN

REGIONS = ("aws/us-east-1", "gcp/europe-west1", "azure/westeurope")
weights = st.floats(0.0, 5.0)
requests = st.builds(
    ResourceRequest,
    gpus_milli=st.sampled_from((0, 500, 1000, 8000)),
    cpus_milli=st.sampled_from((1000, 8000)),
    use_spot=st.sampled_from((None, None, True, False)),
)
jobs = st.builds(
    lambda alternatives, **more: replace(job(), alternatives=alternatives, **more),
    st.lists(requests, min_size=1, max_size=2).map(tuple),
    replicas=st.integers(1, 4),
    expected_s=st.sampled_from((0.0, 1800.0, 36_000.0)),
    deadline_s=st.sampled_from((0.0, 3000.0, 20_000.0, 90_000.0)),
    checkpoint=st.builds(Checkpoint, every_s=st.sampled_from((0.0, 600.0))),
    users_in=st.sampled_from(((), REGIONS[:1])),
    latency_target_s=st.sampled_from((0.0, 0.08)),
    data=st.sampled_from(((), (DataSource("s3://a", 500, REGIONS[0]),))),
    objective=st.builds(Objective, weights, weights, weights, weights, weights),
    budget=st.builds(Budget, st.sampled_from((0.0, 100.0)), st.sampled_from((0.0, 20.0))),
    regions=st.builds(Residency, st.sampled_from(((), ("aws/*", "gcp")))),
    policy=st.sampled_from(("", *sorted(BUILT_IN))),
)


@st.composite
def shapes(draw):
    nodes, used = draw(st.integers(1, 3)), draw(st.integers(0, 8))
    return Shape(
        capacity=Capacity(gpus=8, gpu_type="A100", cpus_milli=64_000, memory_mib=262_144),
        nodes=nodes,
        instance_type="big",
        market=draw(st.sampled_from(Market)),
        usd_per_hour=draw(st.floats(0.1, 40.0)),
        free_gpus_milli=nodes * (8 - used) * 1000,
        free_cpus_milli=nodes * (8 - used) * 8000,
        free_memory_mib=nodes * (8 - used) * 32_768,
    )


loads = st.builds(
    ClusterLoad,
    shapes=st.lists(shapes(), max_size=2).map(tuple),
    waiting_jobs=st.integers(0, 4),
    running_jobs=st.integers(0, 4),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(REGIONS), loads), max_size=5), st.lists(jobs, max_size=3))
def test_a_job_goes_where_plan_said_for_the_price_and_the_reasons_it_said(fleet, wished):
    f = Teller(Federation(MARKET, "balanced"))
    for n, (region, load) in enumerate(fleet):
        cluster = Cluster(id=ClusterId(f"c{n}"), region=region)
        f.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load, jobs=())))
    for n, alike in enumerate(wished):
        wish = replace(alike, id=JobId(f"j{n}"))
        planned = f.machine.plan(wish)
        orders = sent(f.say(m.JobSubmitted(job=wish, token=n)), m.PlaceJob)
        status = f.machine.state.jobs[wish.id].status
        if planned.chosen is None:
            assert orders == []
            assert status.phase is JobPhase.QUEUED
            continue
        assert [order.job.id for order in orders] == [wish.id]
        assert (status.cluster, status.price) == (planned.chosen.cluster, planned.chosen.price)
        place = f"{planned.chosen.instance_type} {planned.chosen.market.value}"
        assert status.place == place.strip()
        decided = f.machine.state.decisions[wish.id]
        assert decided.sentence == planned.sentence
        assert decided.rows == planned.rows
        assert decided.arithmetic == planned.arithmetic
