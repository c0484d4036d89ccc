"""Stories of constraints: labels, neighbours, spread, topology, roles, time; how they refuse."""

import numpy as np
import pytest

from hyperion.model.allocation import Allocation
from hyperion.model.cluster import Shape
from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Elastic, Job, Role
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import kernels
from hyperion.placement import snapshot as columns
from hyperion.placement.explain import refusal
from hyperion.placement.feasibility import VARIOUS, kind_of_shape
from hyperion.placement.feasibility import refusal as kind_refusal
from hyperion.placement.labels import KINDS_PER_KEY, MOST_COLUMNS
from hyperion.placement.planner import Plan, Unplaceable, Wish, Withheld, plan, plan_round
from hyperion.placement.ranking import policy

BALANCED = policy("balanced")


def node(id, gpus=0, cpus=4, custom=(), usd_per_hour=0.0, **labels):
    capacity = Capacity(
        gpus=gpus,
        gpu_type="A100" if gpus else "",
        cpus_milli=1000 * cpus,
        memory_mib=65_536,
        custom=custom,
    )
    return Node(id=NodeId(id), capacity=capacity, labels=labels, usd_per_hour=usd_per_hour)


def ask(gpus=0, cpus=1, **more):
    return ResourceRequest(gpus_milli=1000 * gpus, cpus_milli=1000 * cpus, **more)


def job(request=None, id="j", **more):
    return Job(id=JobId(id), alternatives=(request or ask(),), **more)


def cluster(*nodes):
    return columns.rebuild(nodes, ())


def put(snapshot, job, on, rank=0):
    request = job.request(rank, 0)
    a = Allocation(
        id=AllocationId(f"{job.id}.{rank}"),
        job=job.id,
        rank=rank,
        node=NodeId(on),
        request=request,
        devices=tuple(range(request.whole_gpus)),
    )
    snapshot.hold(a, job)


def where(result):
    assert isinstance(result, Plan), result
    return [s.node for s in result.seats]


def rejected(result):
    assert isinstance(result, Unplaceable), result
    return {reason.name: count for reason, count in result.rejected.items()}


WEB = (("app", "web"),)
near = ReplicaTerm(WEB, "rack")
away = ReplicaTerm(WEB, "rack", anti=True)
web = job(id="web", metadata={"app": "web"})


# -- nodes -----------------------------------------------------------------------------------------


def test_preferred_terms_outweigh_the_price_as_strongly_as_they_say():
    c = cluster(node("cheap", cpus=8), node("ssd", cpus=8, usd_per_hour=1.0, disk="ssd"))
    weak, strong = (
        job(ask(affinity=(NodeTerm("disk", Operator.IN, ("ssd",), weight=w),))) for w in (1, 100)
    )
    assert where(plan(c, weak, BALANCED)) == ["cheap"]
    assert where(plan(c, strong, BALANCED)) == ["ssd"]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (NodeTerm("cores", Operator.GREATER, ("9",)), ["n12"]),
        (NodeTerm("cores", Operator.LESS, ("9",)), ["n-3"]),
        (NodeTerm("cores", Operator.ABSENT), ["bare"]),
        (NodeTerm("cores", Operator.IN, ("many", "12x")), ["nmany"]),
    ],
)
def test_terms_read_labels_as_text_or_as_numbers(term, expected):
    nodes = [node(f"n{text}", cores=text) for text in ("12", "-3", "9", "many")]
    c = cluster(node("bare"), *nodes)
    assert where(plan(c, job(ask(affinity=(term,))), BALANCED)) == expected


def test_a_countable_of_the_site_runs_out_like_any_other():
    c = cluster(node("n1", custom=(("fpga", 2),)), node("n2"))
    one, two, three = plan_round(c, [job(ask(custom=(("fpga", 1),)))] * 3, BALANCED)
    assert where(one) == where(two) == ["n1"]
    assert rejected(three) == {"CUSTOM": 2}
    assert three.ever
    too_many = plan(c, job(ask(custom=(("fpga", 3),))), BALANCED)
    assert "only 2 of 3 fpga free" in refusal(too_many)
    assert not too_many.ever
    assert not plan(c, job(ask(custom=(("tpu", 1),))), BALANCED).ever


def test_labels_of_single_nodes_make_no_kinds_and_are_still_found():
    many = KINDS_PER_KEY + 8
    c = cluster(*(node(f"n{i}", serial=f"s{i}", rack=f"r{i}") for i in range(many)))
    assert len(c.shapes()) == 1
    assert c.shapes()[0].labels == {"serial": VARIOUS, "rack": VARIOUS}
    assert where(plan(c, job(ask(labels={"serial": "s7"})), BALANCED)) == ["n7"]
    for i in range(many - KINDS_PER_KEY):
        c.remove_node(NodeId(f"n{i}"))
    assert len(c.shapes()) == KINDS_PER_KEY, "few values tell kinds apart again"
    kept = [n for n in c.nodes if n is not None]
    assert c == columns.rebuild(kept, ())


def test_only_keys_that_are_asked_for_become_columns_and_not_too_many():
    c = cluster(node("n1", **{f"k{i}": "x" for i in range(MOST_COLUMNS + 5)}))
    for i in range(MOST_COLUMNS + 5):
        assert where(plan(c, job(ask(labels={f"k{i}": "x"})), BALANCED))
    assert len(c.labels._columns) == MOST_COLUMNS


def test_a_shape_with_various_labels_refuses_nobody_for_them():
    shape = Shape(capacity=node("n").capacity, nodes=3, labels={"rack": VARIOUS, "disk": "hdd"})
    kind = kind_of_shape(shape)
    assert kind_refusal(job(), ask(labels={"rack": "r1"}), kind) is None
    assert kind_refusal(job(), ask(labels={"disk": "ssd"}), kind).name == "LABEL"
    needs_ssd = ask(affinity=(NodeTerm("disk", Operator.IN, ("ssd",)),))
    assert kind_refusal(job(), needs_ssd, kind).name == "AFFINITY"


# -- replicas --------------------------------------------------------------------------------------


def racks():
    return cluster(node("a1", rack="a"), node("a2", rack="a"), node("b1", rack="b"), node("alone"))


def test_near_to_and_away_from_others():
    c = racks()
    put(c, web, "a1")
    assert where(plan(c, job(replica_affinity=(near,)), BALANCED)) == ["a1"]
    assert where(plan(c, job(replica_affinity=(away,)), BALANCED)) == ["b1"]
    c.drop(next(iter(c.held(NodeId("a1")))))
    assert rejected(plan(c, job(replica_affinity=(near,)), BALANCED)) == {"REPLICA_AFFINITY": 4}


def test_who_wants_to_be_away_from_others_keeps_them_away_too():
    c = racks()
    put(c, job(id="shy", replica_affinity=(away,)), "a1")
    assert where(plan(c, web, BALANCED)) == ["b1"]
    c.set_schedulable(NodeId("b1"), cordoned=True, silent=False)
    c.set_schedulable(NodeId("alone"), cordoned=True, silent=False)
    assert rejected(plan(c, web, BALANCED)) == {"ANTI_AFFINITY": 2, "CORDONED": 2}


def test_a_gang_that_wants_its_own_near_finds_the_rack_that_takes_all():
    c = cluster(node("a1", cpus=2, rack="a"), node("b1", cpus=2, rack="b"), node("b2", rack="b"))
    together = job(replicas=5, metadata={"app": "web"}, replica_affinity=(near,))
    assert {n[0] for n in where(plan(c, together, BALANCED))} == {"b"}
    result = plan(c, job(replicas=7, metadata={"app": "web"}, replica_affinity=(near,)), BALANCED)
    assert "the largest rack has room for 6 of 7 replicas" in refusal(result)


def test_a_gang_may_not_share_hosts_with_its_own():
    apart = job(
        replicas=3,
        metadata={"app": "web"},
        replica_affinity=(ReplicaTerm(WEB, "host", anti=True),),
    )
    assert sorted(where(plan(racks(), apart, BALANCED))) == ["a1", "a2", "b1"]
    c = cluster(node("n1"), node("n2"))
    result = plan(c, apart, BALANCED)
    assert rejected(result) == {"ANTI_AFFINITY": 2} or rejected(result) == {"GANG": 2}
    assert all(c.free(NodeId(n)).cpus_milli == 4000 for n in ("n1", "n2"))


def test_preferences_about_replicas_bend():
    c = cluster(node("a1", cpus=1, rack="a"), node("b1", rack="b"))
    put(c, web, "b1")
    wish = job(ask(cpus=2), replica_affinity=(ReplicaTerm(WEB, "rack", anti=True, weight=50),))
    assert where(plan(c, wish, BALANCED)) == ["b1"]
    assert where(plan(racks(), wish, BALANCED)) == ["a1"]


def test_spread_is_even_over_the_parts_that_could_take_one():
    even = job(replicas=4, spread=(Spread("rack", max_skew=1),))
    c = cluster(node("a1", rack="a"), node("b1", rack="b"), node("full", cpus=0, rack="c"))
    assert sorted(where(plan(c, even, BALANCED))) == ["a1", "a1", "b1", "b1"]
    put(c, job(id="j", spread=even.spread), "a1", rank=0)
    grown = plan(c, Wish(even, at_least=1, first_rank=1), BALANCED)
    assert where(grown) == ["b1"], "what it holds already counts"
    c.set_schedulable(NodeId("b1"), cordoned=True, silent=False)
    assert where(plan(c, Wish(even, at_least=1, first_rank=1), BALANCED)) == ["a1"]


# -- topology --------------------------------------------------------------------------------------


def blocks():
    return cluster(
        *(node(f"{b}{r}{n}", gpus=8, cpus=64, block=b, rack=b + r)
          for b in "xy" for r in "12" for n in range(2))
    )  # fmt: skip


def test_packed_gangs_take_the_tightest_part():
    c = blocks()
    put(c, job(ask(cpus=60), id="old"), "y10")
    small = job(ask(cpus=32), replicas=2, packing=Packing("rack"))
    assert {n[:2] for n in where(plan(c, small, BALANCED))} == {"y1"}
    large = job(ask(gpus=8), replicas=4, packing=Packing("block"))
    assert {n[:1] for n in where(plan(c, large, BALANCED))} == {"x"}
    result = plan(c, job(ask(gpus=8), replicas=3, packing=Packing("rack")), BALANCED)
    assert rejected(result) == {"TOPOLOGY": 8}
    assert "8 of 8 nodes fit: 8: the largest rack has room for 2 of 3 replicas" in refusal(result)
    assert not result.ever


def test_preferred_packing_widens_until_it_fits():
    c = blocks()
    three = plan(c, job(ask(gpus=8), replicas=3, packing=Packing("rack", required=False)), BALANCED)
    assert len({n[0] for n in where(three)}) == 1
    five = plan(c, job(ask(gpus=8), replicas=5, packing=Packing("rack", required=False)), BALANCED)
    assert len(where(five)) == 5


def test_growth_of_a_packed_job_stays_in_its_part():
    c = blocks()
    elastic = job(ask(gpus=8), replicas=3, elastic=Elastic(1), packing=Packing("rack"))
    put(c, elastic, "y20")
    grown = plan(c, Wish(elastic, at_least=1, at_most=2, first_rank=1), BALANCED)
    assert where(grown) == ["y21"]


def test_zones_go_by_either_label():
    c = cluster(
        *(node(f"n{i}", cpus=1, **{"topology.kubernetes.io/zone": "ab"[i // 2]}) for i in range(4))
    )
    packed = plan(c, job(replicas=2, packing=Packing("zone")), BALANCED)
    assert where(packed) in (["n0", "n1"], ["n2", "n3"])
    assert isinstance(plan(c, job(replicas=3, packing=Packing("zone")), BALANCED), Unplaceable)


# -- roles -----------------------------------------------------------------------------------------


def test_roles_are_seated_whatever_order_they_come_in():
    roles = (
        Role(name="worker", replicas=2, resources=ask(cpus=1)),
        Role(name="server", replicas=1, resources=ask(cpus=4)),
    )
    gang = job(replicas=3, roles=roles)
    c = cluster(node("n1", cpus=4), node("n2", cpus=2))
    assert where(plan(c, gang, BALANCED)) == ["n2", "n2", "n1"], "by rank, the largest seated first"
    small = cluster(node("n1", cpus=3), node("n2", cpus=2))
    result = plan(small, gang, BALANCED)
    assert rejected(result) == {"CPU": 2}
    assert not result.ever


# -- time ------------------------------------------------------------------------------------------


class Kept:
    """A window over n1, and two GPUs of n2 promised to somebody."""

    def mark(self, job, ends_at_ms, now_ms):
        return ends_at_ms > 1000

    def closed(self, snapshot, job, ends_at_ms, now_ms):
        if ends_at_ms <= 1000:
            return None
        mask = np.zeros(snapshot.rows, np.bool_)
        mask[snapshot.row[NodeId("n1")]] = True
        return mask

    def withheld(self, snapshot, job, ends_at_ms, now_ms):
        return {snapshot.row[NodeId("n2")]: Withheld(gpus=2)} if ends_at_ms > 1000 else {}


def test_windows_and_promises_shut_out_those_that_would_run_into_them():
    c = cluster(node("n1", gpus=4), node("n2", gpus=4))
    short, long = (Wish(job(ask(gpus=4)), ends_at_ms=ms) for ms in (1000, 2000))
    assert where(plan(c, short, BALANCED, Kept())) == ["n1"]
    result = plan(c, long, BALANCED, Kept())
    assert rejected(result) == {"WINDOW": 1, "RESERVED": 1}
    assert result.ever
    half = Wish(job(ask(gpus=2)), ends_at_ms=2000)
    first, second = plan_round(c, [half, half], BALANCED, Kept())
    assert where(first) == ["n2"]
    assert rejected(second) == {"WINDOW": 1, "RESERVED": 1}


def test_places_may_be_claimed_before_they_are_free():
    c = cluster(node("n1", gpus=2), node("n2", gpus=2))
    full = [
        Allocation(id=AllocationId(f"{who}"), job=JobId(who), rank=0, node=NodeId("n1"),
                   request=ask(gpus=2, cpus=3), devices=(0, 1))
        for who in ("victim", "claim")
    ]  # fmt: skip
    for a in full:
        c.hold(a)
    assert c.free(NodeId("n1")).gpus_milli == -2000
    assert c.free(NodeId("n1")).cpus_milli == -2000
    assert where(plan(c, job(ask(gpus=1), replicas=2), BALANCED)) == ["n2", "n2"]
    c.drop(full[0])
    assert rejected(plan(c, job(ask(gpus=1), replicas=3), BALANCED)) == {"GPU_COUNT": 1, "GANG": 1}


# -- elastic and arrays ----------------------------------------------------------------------------


def test_as_many_as_fit_between_least_and_most():
    c = cluster(node("n1", cpus=3), node("n2", cpus=2))
    wish = Wish(job(replicas=9, elastic=Elastic(2)), at_least=2, at_most=9)
    assert len(where(plan(c, wish, BALANCED))) == 5
    assert isinstance(plan(c, Wish(wish.job, at_least=6, at_most=9), BALANCED), Unplaceable)


def test_rounds_within_a_round_and_rounds_given_up_leave_no_trace():
    c = cluster(node("n1", cpus=4))
    outer = plan_round(c, [job(id=f"j{n}") for n in range(6)], BALANCED)
    assert where(next(outer)) == ["n1"]
    assert where(plan(c, job(ask(cpus=4)), BALANCED)) == ["n1"], "the outer round holds nothing"
    assert [type(r).__name__ for r in outer] == ["Plan"] * 3 + ["Unplaceable"] * 2
    assert where(plan(c, job(ask(cpus=4)), BALANCED)) == ["n1"]


def test_kernels_are_the_ones_in_numpy_until_they_are_warm():
    assert kernels.active() is kernels.NUMPY
