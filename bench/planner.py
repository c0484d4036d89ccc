"""How long a placement decision takes: µs per decision by number of nodes, wall and CPU.

Each line is the median of several repetitions. No I/O is involved: this is the planner alone.
Run: ``python bench/planner.py [--nodes 1000 10000] [--repeat 5] [--json]``
"""

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import DataSource, Job
from hyperion.model.market import Market, MarketView, Offer, Region
from hyperion.model.node import Node, Taint
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import catalogue, choice, explain, snapshot
from hyperion.placement.planner import Plan, plan, plan_round
from hyperion.placement.ranking import policy

METHOD = (
    "Clusters of 12 kinds of node (GPUs of 3 types, 3 prices, labels, a taint), random fill. "
    "single: plan() again and again, every node filtered and scored each time; "
    "mixed: the same over 50 different demands; "
    "round: one plan_round over identical one-replica jobs; "
    "mixed round: one plan_round over 50 demands in turn; "
    "gang: plan() of 64 replicas; "
    "hold: hold and drop of one allocation; "
    "refusal: plan() of what fits nowhere, counted by reason; "
    "rank: choice.rank over 3 and 100 clusters; catalogue: catalogue.catalogue over 10,000 offers."
)


def cluster(nodes, seed=1):
    dice = random.Random(seed)
    made = snapshot.empty()
    for n in range(nodes):
        kind = n % 12
        gpus = (0, 4, 8)[kind % 3]
        made.add_node(
            Node(
                id=NodeId(f"n{n}"),
                capacity=Capacity(
                    gpus=gpus,
                    gpu_type=("A100", "H100", "L4")[kind % 3] if gpus else "",
                    cpus_milli=64_000 + 32_000 * (kind % 2),
                    memory_mib=262_144,
                    disk_mib=1_000_000,
                ),
                labels={"zone": "abc"[kind % 3]},
                taints=(Taint("gpu"),) if kind == 11 else (),
                usd_per_hour=(1.0, 2.5, 10.0)[kind % 3],
            )
        )
    rows = made.rows
    used = np.array([dice.randrange(0, 48_000, 1000) for _ in range(rows)], np.int64)
    made.free_cpus[:rows] -= used
    made.fullness[:rows] = used / 96_000
    return made


def demand(n, gpus_milli=0, replicas=1, cpus_milli=100):
    request = ResourceRequest(gpus_milli=gpus_milli, cpus_milli=cpus_milli, memory_mib=64)
    return Job(id=JobId(f"j{n}"), alternatives=(request,), replicas=replicas)


def demands(count):
    return [
        demand(n, gpus_milli=(0, 250, 1000, 2000)[n % 4], cpus_milli=20 + n) for n in range(count)
    ]


def timed(action, decisions, repeat):
    """(wall, CPU, worst wall) in µs a decision: medians over repetitions of ``action()``."""
    walls, cpus = [], []
    gc.collect()
    for _ in range(repeat):
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        action()
        walls.append((time.perf_counter_ns() - wall) / 1000 / decisions)
        cpus.append((time.process_time_ns() - cpu) / 1000 / decisions)
    return statistics.median(walls), statistics.median(cpus)


def p99(action, jobs):
    times = []
    for job in jobs:
        start = time.perf_counter_ns()
        action(job)
        times.append((time.perf_counter_ns() - start) / 1000)
    return sorted(times)[int(0.99 * len(times))]


def measure_cluster(nodes, repeat, decisions):
    balanced = policy("balanced")
    made = cluster(nodes)
    same = [demand(n) for n in range(decisions)]
    fifty = demands(50)
    mixed = [fifty[n % 50] for n in range(decisions)]
    gang = [demand(n, replicas=64, cpus_milli=100) for n in range(10)]

    def singles(jobs):
        return lambda: [plan(made, job, balanced) for job in jobs]

    def rounds(jobs):
        return lambda: list(plan_round(made, jobs, balanced))

    few, few_mixed = same[:200], mixed[:200]
    placed = sum(isinstance(r, Plan) for r in plan_round(made, same, balanced))
    for title, action, count in (
        ("single", singles(few), len(few)),
        ("single, mixed", singles(few_mixed), len(few_mixed)),
        ("round", rounds(same), len(same)),
        ("round, mixed", rounds(mixed), len(mixed)),
        ("gang of 64", singles(gang), len(gang)),
    ):
        wall, cpu = timed(action, count, repeat)
        row = {"what": title, "nodes": nodes, "wall_us": wall, "cpu_us": cpu}
        if title.startswith("single"):
            row["p99_us"] = p99(
                lambda j: plan(made, j, balanced), few if title == "single" else few_mixed
            )
        if title == "round":
            row["placed"] = placed
        yield row
    hopeless = [demand(n, gpus_milli=64_000) for n in range(50)]
    wall, cpu = timed(singles(hopeless), len(hopeless), repeat)
    yield {"what": "refusal with reasons", "nodes": nodes, "wall_us": wall, "cpu_us": cpu}
    yield measure_hold(made, nodes, repeat)


def measure_hold(made, nodes, repeat):
    from hyperion.model.allocation import Allocation
    from hyperion.model.ids import AllocationId

    job = demand(0, gpus_milli=1000)
    found = plan(made, job, policy("balanced"))
    assert isinstance(found, Plan)
    seat = found.seats[0]
    a = Allocation(
        id=AllocationId("a"),
        job=job.id,
        rank=0,
        node=seat.node,
        request=job.alternatives[0],
        devices=seat.devices,
    )

    def action():
        for _ in range(500):
            made.hold(a)
            made.drop(a)

    wall, cpu = timed(action, 1000, repeat)
    return {"what": "hold or drop", "nodes": nodes, "wall_us": wall, "cpu_us": cpu}


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
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; the median counts")
    parser.add_argument("--decisions", type=int, default=1000, help="jobs in a round")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    wishes = parser.parse_args()
    if wishes.repeat < 3:
        parser.error("--repeat must be at least 3, or the median says nothing")
    result = {"bench": "planner", "method": METHOD, "machine": machine(), "rows": []}
    for nodes in wishes.nodes:
        result["rows"] += measure_cluster(nodes, wishes.repeat, wishes.decisions)
    result["rows"] += measure_choice(wishes.repeat)
    result["repeat"] = wishes.repeat
    result["load_average_after"] = os.getloadavg()
    if wishes.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    print(METHOD)
    print(*(f"{key}: {value}" for key, value in result["machine"].items()), sep="; ")
    print(f"{'nodes':>8}  {'what':<30}{'wall µs':>10}{'CPU µs':>10}{'p99 µs':>10}")
    for row in result["rows"]:
        tail = f"{row['p99_us']:>10.1f}" if "p99_us" in row else ""
        nodes = row["nodes"] or ""
        print(f"{nodes:>8}  {row['what']:<30}{row['wall_us']:>10.1f}{row['cpu_us']:>10.1f}{tail}")


if __name__ == "__main__":
    main()
