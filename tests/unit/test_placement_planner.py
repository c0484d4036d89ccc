"""Stories of single decisions: who goes where, on which GPUs, and why not."""

import numpy as np
import pytest
from msgspec.structs import replace

from hyperion.model.allocation import Allocation
from hyperion.model.constraints import ReplicaTerm
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Budget, Job, Toleration
from hyperion.model.market import Market
from hyperion.model.node import Node, Taint
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import snapshot as columns
from hyperion.placement.explain import refusal
from hyperion.placement.feasibility import Reason, slots
from hyperion.placement.planner import Plan, Unplaceable, plan, plan_round
from hyperion.placement.ranking import Guarded, policy
from hyperion.placement.snapshot import Free

BALANCED = policy("balanced")


def node(id="n1", gpus=0, cpus=16, gpu_type="A100", memory_gib=64, **more):
    capacity = Capacity(
        gpus=gpus,
        gpu_type=gpu_type if gpus else "",
        cpus_milli=1000 * cpus,
        memory_mib=1024 * memory_gib,
        disk_mib=100_000,
    )
    return Node(id=NodeId(id), capacity=capacity, **more)


def ask(gpus=0.0, gpu_type="", cpus=1, **more):
    return ResourceRequest(
        gpus_milli=round(1000 * gpus), gpu_type=gpu_type, cpus_milli=1000 * cpus, **more
    )


def job(*alternatives, id="j", **more):
    return Job(id=JobId(id), alternatives=alternatives or (ask(),), **more)


def cluster(*nodes, held=()):
    return columns.rebuild(nodes, held)


def held(on="n1", id="a", devices=(), request=None):
    return Allocation(
        id=AllocationId(id),
        job=JobId("other"),
        rank=0,
        node=NodeId(on),
        request=request or ask(gpus=len(devices)),
        devices=devices,
    )


def seats(result):
    assert isinstance(result, Plan), result
    return [(s.node, s.devices) for s in result.seats]


def rejected(result):
    assert isinstance(result, Unplaceable), result
    return {reason.name: count for reason, count in result.rejected.items()}


# -- seats -----------------------------------------------------------------------------------------


def test_whole_gpus_are_free_ones():
    c = cluster(node(gpus=4), held=[held(devices=(0, 2))])
    assert seats(plan(c, job(ask(gpus=2)), BALANCED)) == [("n1", (1, 3))]


def test_a_share_goes_to_the_tightest_gpu_and_breaks_no_whole_one():
    c = cluster(
        node("whole", gpus=2),
        node("broken", gpus=2),
        held=[
            held("broken", "a", (0,), ask(gpus=0.5)),
            held("broken", "b", (1,), ask(gpus=0.7)),
        ],
    )
    assert seats(plan(c, job(ask(gpus=0.3)), BALANCED)) == [("broken", (1,))]
    assert seats(plan(c, job(ask(gpus=0.4)), BALANCED)) == [("broken", (0,))]
    assert seats(plan(c, job(ask(gpus=0.6)), BALANCED)) == [("whole", (0,))]


def test_work_without_gpus_keeps_off_gpu_nodes_while_others_have_room():
    c = cluster(node("gpu", gpus=8, cpus=16), node("cpu", cpus=4))
    results = list(plan_round(c, [job(ask(cpus=2), id=f"j{n}") for n in range(3)], BALANCED))
    assert [seats(r)[0][0] for r in results] == ["cpu", "cpu", "gpu"]


def test_a_gang_is_all_or_nothing():
    c = cluster(node("n1", cpus=3), node("n2", cpus=4))
    assert len(seats(plan(c, job(replicas=7), BALANCED))) == 7
    result = plan(c, job(replicas=8), BALANCED)
    assert rejected(result) == {"GANG": 2}
    assert refusal(result).startswith("2 of 2 nodes fit: 2: together only room for 7 of 8 replicas")
    assert not result.ever


def test_the_cheaper_alternative_is_tried_first():
    c = cluster(
        node("dear", gpus=8, gpu_type="H100", usd_per_hour=80.0),
        node("cheap", gpus=8, gpu_type="A100", usd_per_hour=20.0),
    )
    either = job(ask(gpus=8, gpu_type="H100"), ask(gpus=8, gpu_type="A100"))
    first, second, third = plan_round(c, [either, either, either], BALANCED)
    assert (first.alternative, first.seats[0].node) == (1, "cheap")
    assert (second.alternative, second.seats[0].node) == (0, "dear")
    assert isinstance(third, Unplaceable)
    assert third.ever


@pytest.mark.parametrize(
    ("name", "expected"), [("pack", ["n1", "n1", "n1"]), ("spread", ["n1", "n2", "n3"])]
)
def test_pack_fills_and_spread_spreads(name, expected):
    c = cluster(node("n1"), node("n2"), node("n3"))
    assert [n for n, _ in seats(plan(c, job(replicas=3), policy(name)))] == expected


def test_a_round_may_be_given_up_half_way():
    c = cluster(node(cpus=2))
    round_ = plan_round(c, (job(id=f"j{n}") for n in range(9)), BALANCED)
    next(round_)
    round_.close()
    assert c.free(NodeId("n1")).cpus_milli == 2000


def test_who_must_be_near_to_somebody_is_tried_again_once_he_is_there():
    near = (ReplicaTerm((("app", "db"),)),)
    jobs = [
        replace(job(ask(), id="early"), replica_affinity=near),
        replace(job(ask(), id="db"), metadata={"app": "db"}),
        replace(job(ask(), id="late"), replica_affinity=near),
    ]
    found = list(plan_round(cluster(node()), jobs, policy("pack")))
    assert [type(each) for each in found] == [Unplaceable, Plan, Plan]


def test_a_demand_that_did_not_fit_is_not_tried_again():
    c = cluster(node(cpus=2))
    results = list(plan_round(c, [job(ask(cpus=4), id=f"j{n}") for n in range(3)], BALANCED))
    assert [r.job for r in results] == ["j0", "j1", "j2"]
    assert results[0].rejected is results[2].rejected


# -- refusals --------------------------------------------------------------------------------------

GPU8 = node(gpus=8)


@pytest.mark.parametrize(
    ("where", "what", "reason", "words"),
    [
        (GPU8, job(ask(gpus=1, gpu_type="H100")), "GPU_TYPE", "GPU type"),
        (GPU8, job(ask(gpus=9)), "GPU_COUNT", "only 8 of 9 GPUs free"),
        (node(), job(ask(gpus=0.5)), "GPU_COUNT", "not enough GPUs free"),
        (GPU8, job(ask(gpus=1.5)), "GPU_FRACTION", "at most"),
        (GPU8, job(ask(cpus=17)), "CPU", "only 16 of 17 CPUs free"),
        (GPU8, job(ask(memory_mib=66_560)), "MEMORY", "only 64 of 65 GiB memory free"),
        (GPU8, job(ask(disk_mib=200_000)), "DISK", "of 195.3 GiB disk free"),
        (GPU8, job(ask(labels={"zone": "a"})), "LABEL", "labels"),
        (node(taints=(Taint("gpu", "x"),)), job(), "TAINT", "taint"),
        (GPU8, job(ask(use_spot=True)), "MARKET", "use_spot"),
        (node(market=Market.SPOT), job(ask(use_spot=False)), "MARKET", "use_spot"),
        (GPU8, job(image="debian"), "RUNTIME", "image"),
        (
            node(usd_per_hour=16.0),
            job(ask(cpus=8), budget=Budget(max_usd_per_hour=7.9)),
            "BUDGET",
            "budget",
        ),
    ],
)
def test_every_refusal_has_its_type(where, what, reason, words):
    result = plan(cluster(where), what, BALANCED)
    assert rejected(result) == {reason: 1}
    assert result.nodes == 1
    assert not result.ever
    assert words in refusal(result)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (node(taints=(Taint("gpu", "x"),)), job(tolerations=(Toleration("gpu"),))),
        (node(runtimes=("docker", "process")), job(image="debian")),
        (node(labels={"zone": "a", "rack": "1"}), job(ask(labels={"zone": "a"}))),
        (node(gpus=1, gpu_type="A100-80GB"), job(ask(gpus=1, gpu_type="a100-80gb"))),
        (node(usd_per_hour=16.0), job(ask(cpus=8), budget=Budget(max_usd_per_hour=8.0))),
        (node(usd_per_hour=16.0), job(ask(cpus=8), budget=Budget(max_usd=1.0))),
    ],
)
def test_what_is_met_is_no_objection(where, what):
    assert seats(plan(cluster(where), what, BALANCED))


def test_shut_nodes_are_refused_as_such_but_may_come_back():
    c = cluster(node("n1"), node("n2"), node("n3"))
    c.set_schedulable(NodeId("n1"), cordoned=True, silent=False)
    c.set_schedulable(NodeId("n2"), cordoned=True, silent=True)
    result = plan(c, job(ask(cpus=16), replicas=2), BALANCED)
    assert rejected(result) == {"CORDONED": 1, "SILENT": 1, "GANG": 1}
    assert result.ever


def test_the_example_of_the_book():
    few = [held(f"a{n}", f"h{n}-{d}", (d,)) for n in range(22) for d in range(2 if n == 0 else 3)]
    c = cluster(
        *(node(f"h{n}", gpus=8, gpu_type="H100") for n in range(18)),
        *(node(f"a{n}", gpus=8) for n in range(22)),
        held=few,
    )
    result = plan(c, job(ask(gpus=8, gpu_type="A100")), BALANCED)
    assert refusal(result) == "0 of 40 nodes fit: 22: only 6 of 8 GPUs free; 18: GPU type"
    assert result.ever


def test_an_empty_cluster_says_so():
    result = plan(columns.empty(), job(), BALANCED)
    assert (rejected(result), result.nodes, result.ever) == ({}, 0, False)
    assert refusal(result) == "the cluster has no nodes"


@pytest.mark.parametrize(
    ("infra", "fits"),
    [("", 1), ("aws", 1), ("aws/us-east-1", 1), ("home", 1), ("gcp", 0), ("aws/us-east-2", 0)],
)
def test_a_cluster_that_knows_where_it_is_checks_infra(infra, fits):
    c = columns.empty("home", "aws/us-east-1")
    c.add_node(node())
    result = plan(c, job(ask(infra=infra)), BALANCED)
    assert seats(result) if fits else rejected(result) == {"INFRA": 1}


# -- policies that misbehave -----------------------------------------------------------------------


class Wrong:
    name = "wrong"

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    def cost(self, job, candidates):
        self.calls += 1
        return self.answer(self.calls, candidates)


def explode(calls, candidates):
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (explode, "raised RuntimeError: boom"),
        (lambda _, c: np.full(len(c), np.nan), "finite"),
        (lambda _, c: np.full(len(c), np.inf), "finite"),
        (lambda _, c: np.zeros(len(c) + 1), "shape (4,) for 3"),
        (lambda _, c: None, "returned shape () for 3"),
        (lambda n, c: explode(n, c) if n > 1 else c.score * 0, "boom"),
    ],
)
def test_a_policy_that_raises_or_returns_nonsense_is_replaced_for_the_round(answer, fault):
    wrong = Guarded(Wrong(answer))
    jobs = [job(id=f"j{n}") for n in range(5)]
    for rounds in (1, 2):
        c = cluster(node("n1", usd_per_hour=9.0), node("n2"), node("n3"))
        found = [seats(r) for r in plan_round(c, jobs, wrong)]
        assert found[-1] == [("n2", ())], "as balanced would"
        assert wrong.replaced == rounds
        assert fault in wrong.fault
        wrong.policy.calls = 0


# -- the columns -----------------------------------------------------------------------------------


def test_free_amounts_and_shapes_follow_holds():
    c = cluster(node("n1", gpus=2), node("n2", gpus=2), node("n3"))
    c.hold(held("n1", "a", (1,), ask(gpus=0.25, cpus=3, memory_mib=1024, disk_mib=10)))
    assert c.free(NodeId("n1")) == Free(1750, 13_000, 63 * 1024, 99_990)
    gpu, cpu = sorted(c.shapes(), key=lambda s: -s.capacity.gpus)
    assert (gpu.nodes, gpu.free_gpus_milli, gpu.free_cpus_milli) == (2, 3750, 29_000)
    assert (cpu.nodes, cpu.free_gpus_milli) == (1, 0)
    c.set_schedulable(NodeId("n1"), cordoned=True, silent=False)
    gpu, _ = sorted(c.shapes(), key=lambda s: -s.capacity.gpus)
    assert (gpu.nodes, gpu.free_gpus_milli) == (1, 2000)


def test_unchanged_shapes_are_not_built_again():
    c = cluster(node("n1", gpus=2), node("n2"))
    before = c.shapes()
    c.hold(held("n2", "a"))
    after = c.shapes()
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_a_node_with_new_facts_keeps_what_it_holds_and_its_cordon():
    c = cluster(node("n1", gpus=4), held=[held("n1", "a", (0, 3))])
    c.set_schedulable(NodeId("n1"), cordoned=True, silent=False)
    c.add_node(node("n1", gpus=2, cpus=8))
    assert c.free(NodeId("n1")) == Free(1000, 7000, 64 * 1024, 100_000)
    assert rejected(plan(c, job(), BALANCED)) == {"CORDONED": 1}


def test_rows_and_kinds_of_removed_nodes_are_used_again():
    c = columns.empty()
    for n in range(300):
        c.add_node(node(f"n{n}", labels={"serial": f"s{n}"}))
        if n >= 3:
            c.remove_node(NodeId(f"n{n - 3}"))
    assert c.rows <= 5
    assert len(c.groups) <= 5
    assert len(c.shapes()) == 3


def test_slots_of_an_empty_node():
    capacity = Capacity(gpus=4, gpu_type="A100", cpus_milli=8000, memory_mib=8192)
    assert slots(ask(gpus=2), capacity) == 2
    assert slots(ask(gpus=0.4, cpus=0), capacity) == 8
    assert slots(ask(gpus=0.4), capacity) == 8
    assert slots(ask(cpus=3), capacity) == 2
    assert slots(ask(disk_mib=1), capacity) == 0


def test_reasons_complete_a_sentence():
    for reason in Reason:
        assert reason.value
        assert not reason.value.endswith(".")
