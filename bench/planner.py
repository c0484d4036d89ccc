"""How long a placement decision takes: µs per decision by number of nodes, wall and CPU.

Each line is the median of several repetitions. No I/O is involved: this is the planner alone.
Run: ``python bench/planner.py [--nodes 1000 10000] [--repeat 5] [--kernels numpy] [--json]``
"""

import argparse
import gc
import itertools
import json
import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from hyperion.model.allocation import Allocation
from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import DataSource, Job, Toleration
from hyperion.model.market import Market, MarketView, Offer, Region
from hyperion.model.node import Node, Taint
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import catalogue, choice, explain, kernels, snapshot
from hyperion.placement.planner import Plan, demand_key, plan, plan_round
from hyperion.placement.ranking import policy

METHOD = (
    "Clusters of 12 kinds of node (GPUs of 2 types, 3 prices, a countable, labels, a taint; racks "
    "of 16 nodes, blocks of 8 racks), random fill, one node in 20 with a replica of an app that "
    "others ask about. exact: plan() of one replica that asks for GPU type and count, CPU, memory, "
    "disk, a countable, a label, node affinity, a toleration, and to be away from that app's "
    "hosts, with spread; every node is filtered, those with room are scored, and nothing is "
    "remembered but what the shape asks of empty nodes; 50 shapes in turn. single: the same with "
    "amounts only. new shape: each one never seen before. round: one plan_round over identical "
    "one-replica jobs, each held as it is planned (not counted); mixed: over 50 shapes in turn. "
    "gang: plan() of so many replicas; packed: 64 replicas of 8 GPUs each within a block. hold: "
    "hold and drop of one allocation; key: demand_key; refusal: plan() of what fits nowhere, "
    "counted by reason; rank: choice.rank over 3 and 100 clusters; catalogue: choice.catalogue "
    "over 10,000 offers."
)
GOALS = {
    ("exact, all filters", 10_000): 100.0,
    ("exact, all filters", 100_000): 1000.0,
    ("gang of 1,000", 10_000): 1000.0,
    ("512 GPUs packed into a block", 10_000): 1000.0,
    ("round, per job", 10_000): 15.0,
}
"""CPU in µs: the 99th percentile of decisions, else the median."""


def cluster(nodes, seed=1):
    dice = random.Random(seed)
    made = snapshot.empty()
    app = job_of(ResourceRequest(), id="app", metadata={"app": "cache"})
    for n in range(nodes):
        kind = n % 12
        gpus = (0, 8, 8)[kind % 3]
        node = Node(
            id=NodeId(f"n{n}"),
            capacity=Capacity(
                gpus=gpus,
                gpu_type=("", "H100", "A100")[kind % 3],
                cpus_milli=64_000 + 32_000 * (kind % 2),
                memory_mib=262_144,
                disk_mib=1_000_000,
                custom=(("fpga", 4),) if kind % 2 else (),
            ),
            labels={
                "zone": "abc"[n * 3 // nodes],
                "block": f"b{n // 128}",
                "rack": f"r{n // 16}",
                "disk": ("ssd", "hdd")[kind % 4 > 2],
                "serial": f"s{n}",
            },
            taints=(Taint("gpu"),) if kind == 11 else (),
            usd_per_hour=(1.0, 2.5, 10.0)[kind % 3],
        )
        made.add_node(node)
        used = ResourceRequest(cpus_milli=dice.randrange(0, 48_000, 1000))
        made.hold(allocation(f"used{n}", app.id, node.id, used), None if n % 20 else app)
    return made


def allocation(id, job, node, request, devices=()):
    return Allocation(
        id=AllocationId(id), job=job, rank=0, node=node, request=request, devices=devices
    )


def job_of(request, id="j", **more):
    return Job(id=JobId(id), alternatives=(request,), **more)


def demand(n, gpus_milli=0, replicas=1, cpus_milli=100, **more):
    request = ResourceRequest(gpus_milli=gpus_milli, cpus_milli=cpus_milli, memory_mib=64)
    return job_of(request, f"j{n}", replicas=replicas, **more)


def demands(count):
    return [
        demand(n, gpus_milli=(0, 250, 1000, 2000)[n % 4], cpus_milli=20 + n) for n in range(count)
    ]


def all_filters(n):
    """One replica that asks for everything at once."""
    request = ResourceRequest(
        gpus_milli=1000 * (1 + n % 4),
        gpu_type="H100",
        cpus_milli=1000 + n,
        memory_mib=1024,
        disk_mib=1000,
        custom=(("fpga", 1),),
        labels={"disk": "ssd"},
        affinity=(NodeTerm("zone", Operator.IN, ("a", "b")), NodeTerm("block", Operator.EXISTS)),
    )
    return job_of(
        request,
        f"all{n}",
        metadata={"app": f"app{n}"},
        replica_affinity=(ReplicaTerm((("app", "cache"),), "host", anti=True),),
        spread=(Spread("rack", 1),),
        tolerations=(Toleration("gpu"),),
    )


def timed(action, decisions, repeat):
    """(wall, CPU) in µs a decision: medians over repetitions of ``action()``."""
    walls, cpus = [], []
    gc.collect()
    for _ in range(repeat):
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        action()
        walls.append((time.perf_counter_ns() - wall) / 1000 / decisions)
        cpus.append((time.process_time_ns() - cpu) / 1000 / decisions)
    return statistics.median(walls), statistics.median(cpus)


def each(action, jobs, repeat):
    """Percentiles of single decisions in µs: medians over repetitions."""
    found = []
    gc.collect()
    for _ in range(repeat):
        walls, cpus = [], []
        for job in jobs:
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            action(job)
            walls.append((time.perf_counter_ns() - wall) / 1000)
            cpus.append((time.process_time_ns() - cpu) / 1000)
        walls.sort()
        cpus.sort()
        at = int(0.99 * len(jobs))
        found.append((walls[len(walls) // 2], cpus[len(cpus) // 2], walls[at], cpus[at]))
    names = ("wall_us", "cpu_us", "p99_wall_us", "p99_cpu_us")
    return dict(zip(names, map(statistics.median, zip(*found, strict=True)), strict=True))


def measure_cluster(nodes, repeat, decisions):
    made = cluster(nodes)
    for row in (*_decisions(made, repeat), *_rounds(made, repeat, decisions)):
        goal = GOALS.get((row["what"], nodes))
        if goal is not None:
            row["goal_us"] = goal
            row["met"] = row.get("p99_cpu_us", row["cpu_us"]) <= goal
        yield {**row, "nodes": nodes}


def _decisions(made, repeat):
    balanced = policy("balanced")

    def decide(job):
        return plan(made, job, balanced)

    several = [all_filters(n % 50) for n in range(300)]
    assert made.rows < 1000 or all(isinstance(decide(job), Plan) for job in several)
    yield {"what": "exact, all filters", **each(decide, several, repeat)}
    plain = [demands(50)[n % 50] for n in range(300)]
    yield {"what": "single, amounts only", **each(decide, plain, repeat)}
    counter = itertools.count()

    def new_shape(_):
        return decide(all_filters(1000 + next(counter)))

    yield {"what": "exact, a new shape", **each(new_shape, range(100), repeat)}
    for title, job in (
        ("gang of 64", demand(0, replicas=64)),
        ("gang of 1,000", demand(0, replicas=1000, cpus_milli=1000)),
        ("512 GPUs packed into a block", demand(0, 8000, 64, packing=Packing("block"))),
        ("refusal with reasons", demand(0, gpus_milli=64_000)),
    ):
        if isinstance(decide(job), Plan) != (title == "refusal with reasons"):
            wall, cpu = timed(lambda j=job: [decide(j) for _ in range(10)], 10, repeat)
            yield {"what": title, "wall_us": wall, "cpu_us": cpu}


def _rounds(made, repeat, decisions):
    balanced = policy("balanced")
    fifty = demands(50)
    for title, jobs in (
        ("round, per job", [demand(n) for n in range(decisions)]),
        ("round, mixed, per job", [fifty[n % 50] for n in range(decisions)]),
    ):
        times = [_round(made, jobs, balanced) for _ in range(repeat)]
        wall, cpu = map(statistics.median, zip(*times, strict=True))
        yield {"what": title, "wall_us": wall, "cpu_us": cpu}
    job = demand(0, gpus_milli=1000)
    seat = plan(made, job, balanced).seats[0]
    a = allocation("a", job.id, seat.node, job.alternatives[0], seat.devices)

    def hold_and_drop():
        for _ in range(500):
            made.hold(a, job)
            made.drop(a)

    wall, cpu = timed(hold_and_drop, 1000, repeat)
    yield {"what": "hold or drop", "wall_us": wall, "cpu_us": cpu}
    wall, cpu = timed(lambda: [demand_key(job) for _ in range(1000)], 1000, repeat)
    yield {"what": "demand key", "wall_us": wall, "cpu_us": cpu}


def _round(made, jobs, ranking):
    """(wall, CPU) in µs a job, without what the caller does between two results."""
    gc.collect()
    held, own_wall, own_cpu = [], 0, 0
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for n, result in enumerate(plan_round(made, jobs, ranking)):
        begun_wall, begun_cpu = time.perf_counter_ns(), time.process_time_ns()
        seat, request = result.seats[0], jobs[n].alternatives[0]
        held.append(allocation(f"a{n}", result.job, seat.node, request, seat.devices))
        made.hold(held[-1])
        own_cpu += time.process_time_ns() - begun_cpu
        own_wall += time.perf_counter_ns() - begun_wall
    wall = time.perf_counter_ns() - wall - own_wall
    cpu = time.process_time_ns() - cpu - own_cpu
    for a in held:
        made.drop(a)
    return wall / 1000 / len(jobs), cpu / 1000 / len(jobs)


def world(regions=60, offers=10_000):
    dice = random.Random(2)
    names = [f"{('aws', 'gcp', 'azure')[n % 3]}/r{n}" for n in range(regions)]
    places = {
        name: Region(
            name=name,
            cloud=name.partition("/")[0],
            latitude=dice.uniform(-60, 60),
            longitude=dice.uniform(-180, 180),
            carbon_g_per_kwh=dice.uniform(20, 800),
        )
        for name in names
    }
    listed = tuple(
        Offer(
            region=names[n % regions],
            instance_type=f"t{n // regions}",
            market=(Market.ON_DEMAND, Market.SPOT)[n % 2],
            usd_per_hour=dice.uniform(0.1, 40),
            gpu_type=("", "A100", "H100", "L4")[dice.randrange(4)],
            gpus=dice.choice((1, 4, 8)),
            cpus_milli=dice.choice((8000, 64_000)),
            memory_mib=65_536,
        )
        for n in range(offers)
    )
    return MarketView(
        as_of="", regions=places, offers=listed, internet_egress={"aws": 0.09, "gcp": 0.12}
    )


def measure_choice(repeat):
    from hyperion.model.cluster import Cluster, ClusterLoad, Shape
    from hyperion.model.ids import ClusterId

    market, balanced = world(), policy("balanced")
    regions = list(market.regions)
    shapes = tuple(
        Shape(
            capacity=Capacity(gpus=8, gpu_type=t, cpus_milli=64_000, memory_mib=262_144),
            nodes=10,
            free_cpus_milli=640_000,
            free_gpus_milli=80_000,
            free_memory_mib=2_621_440,
        )
        for t in ("A100", "H100")
    )
    fleet = [
        choice.FleetCluster(
            cluster=Cluster(id=ClusterId(f"c{n}"), region=regions[n % len(regions)]),
            load=ClusterLoad(shapes=shapes),
        )
        for n in range(100)
    ]
    job = Job(
        id=JobId("j"),
        alternatives=(ResourceRequest(gpus_milli=4000, gpu_type="A100"),),
        data=(DataSource("s3://d", 100.0, regions[0]),),
        users_in=(regions[1], regions[2]),
    )

    def explained():
        places = choice.rank(job, fleet[:3], market, balanced)
        chosen = choice.choose(places)
        explain.decision(job, places, chosen, "balanced")
        explain.arithmetic(job, chosen)

    for title, count, action in (
        ("rank and explain, 3 clusters", 50, explained),
        ("rank, 3 clusters", 50, lambda: choice.rank(job, fleet[:3], market, balanced)),
        ("rank, 100 clusters", 10, lambda: choice.rank(job, fleet, market, balanced)),
        ("catalogue, 10,000 offers", 10, lambda: catalogue.catalogue(job, market, balanced, 20)),
    ):
        action()
        wall, cpu = timed(lambda a=action, c=count: [a() for _ in range(c)], count, repeat)
        yield {"what": title, "nodes": 0, "wall_us": wall, "cpu_us": cpu}


def machine():
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "load_average_before": os.getloadavg(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; the median counts")
    parser.add_argument("--decisions", type=int, default=1000, help="jobs in a round")
    parser.add_argument("--kernels", nargs="+", default=["numba", "numpy"])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    wishes = parser.parse_args()
    if wishes.repeat < 3:
        parser.error("--repeat must be at least 3, or the median says nothing")
    result = {"bench": "planner", "method": METHOD, "machine": machine(), "rows": []}
    for name in wishes.kernels:
        begun = time.process_time()
        if name == "numpy":
            kernels.use(kernels.NUMPY)
        elif kernels.warm():
            result["warm_cpu_s"] = time.process_time() - begun
        else:
            result["numba"] = "not installed (the extra fast)"
            continue
        for nodes in wishes.nodes:
            for row in measure_cluster(nodes, wishes.repeat, wishes.decisions):
                result["rows"].append({"kernels": name, **row})
    result["rows"] += [{"kernels": "", **row} for row in measure_choice(wishes.repeat)]
    result["repeat"] = wishes.repeat
    result["load_average_after"] = os.getloadavg()
    if wishes.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    print(METHOD)
    print(*(f"{key}: {value}" for key, value in result["machine"].items()), sep="; ")
    print(f"{'':<7}{'nodes':>8}  {'what':<30}{'wall µs':>10}{'CPU µs':>10}{'p99 CPU':>10}  goal")
    for row in result["rows"]:
        p99 = f"{row['p99_cpu_us']:>10.1f}" if "p99_cpu_us" in row else f"{'':>10}"
        goal = f"  ≤ {row['goal_us']:g}: {('MISSED', 'met')[row['met']]}" if "met" in row else ""
        where = f"{row['kernels']:<7}{row['nodes'] or '':>8}  {row['what']:<30}"
        print(f"{where}{row['wall_us']:>10.1f}{row['cpu_us']:>10.1f}{p99}{goal}")


if __name__ == "__main__":
    main()
