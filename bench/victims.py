"""How long it takes to find out whom to stop: µs per search over a full cluster, CPU and wall.

No I/O is involved: this is the search alone, with what the machine does between two searches
(the victims are marked, the places claimed) told separately.
Run: ``python bench/victims.py [--nodes 10000] [--searches 1000] [--json]``
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

import numpy as np
from measure import machine
from msgspec.structs import replace

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.constraints import Packing
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Job, Priority
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import bounds, kernels, snapshot
from hyperion.placement.consolidation import MoveBudget, consolidation
from hyperion.placement.preemption import Eviction, Rights, victims
from hyperion.placement.ranking import policy
from hyperion.placement.running import Occupant, Running

METHOD = (
    "Nodes of 8 GPUs and 64 CPUs, all full of batch jobs: of 1, 2, 4 and 8 GPUs, every tenth a "
    "gang of 2 to 64 replicas; prices, times of start, checkpoints (every 5 to 60 minutes, on "
    "stop, or never) and times to restore at random. "
    "search: victims() for one replica of 1, 2, 4 or 8 GPUs in turn, 10 ms of the cluster's time "
    "apart, nothing stopped between; first: the first search of its kind; "
    "busy: the same with 20 other jobs ended and placed between two searches; "
    "gang: victims() for 16 replicas of 8 GPUs, anywhere and in one rack of 32 nodes; "
    "consolidation: a gang that wants 4 more empty nodes than there are, three tenths of the jobs "
    "having ended; "
    "storm: 500 jobs of 1 to 8 GPUs one after the other, each claims its places and its victims "
    "are marked as being stopped."
)
RIGHTS = Rights(priority=Priority.LATENCY_CRITICAL)
MINUTE_MS = 60_000
NOW_MS = 24 * 60 * MINUTE_MS


def occupant(name, dice, gpus):
    every = dice.choice([0, 5, 10, 30, 60])
    return Occupant(
        job=JobId(name),
        queue=QueueName(f"q{dice.randrange(20)}"),
        priority=Priority.BATCH,
        started_at_ms=NOW_MS - dice.randrange(MINUTE_MS, 20 * 60 * MINUTE_MS),
        saves_every_ms=every * MINUTE_MS + dice.randrange(1000) if every else 0,
        saves_on_stop=not every and dice.random() < 0.5,
        restore_ms=dice.randrange(5_000, 300_000),
        usd_per_hour=gpus * dice.uniform(1.0, 4.0),
    )


class Cluster:
    """Full: every GPU is held by a batch job."""

    def __init__(self, nodes, seed=1):
        self.dice = random.Random(seed)
        self.snapshot = snapshot.empty()
        self.running = Running()
        self.nodes = nodes
        for n in range(nodes):
            capacity = Capacity(gpus=8, gpu_type="H100", cpus_milli=64 * MILLI, memory_mib=1 << 20)
            labels = {"rack": f"r{n // 32}"}
            self.snapshot.add_node(Node(id=NodeId(f"n{n}"), capacity=capacity, labels=labels))
        self.free = [list(range(8)) for _ in range(nodes)]
        self.jobs = 0
        self.fill()

    def fill(self):
        order = list(range(self.nodes))
        self.dice.shuffle(order)
        while order:
            gpus = self.dice.choice([1, 1, 2, 4, 8])
            width = self.dice.choice([2, 4, 8, 64]) if self.dice.random() < 0.1 else 1
            places = []
            for _ in range(min(width, len(order))):
                while order and not self.free[order[-1]]:
                    order.pop()
                if not order:
                    break
                at = self.dice.randrange(max(0, len(order) - 200), len(order))
                node = order[at]
                take = min(gpus, len(self.free[node]))
                if take:
                    places.append((node, tuple(self.free[node][:take])))
                    del self.free[node][:take]
                else:
                    order.pop(at)
            if places:
                self.place(places)

    def place(self, places):
        self.jobs += 1
        name = f"b{self.jobs}"
        self.running.put(occupant(name, self.dice, sum(len(d) for _, d in places)))
        for rank, (node, devices) in enumerate(places):
            request = ResourceRequest(
                gpus_milli=len(devices) * MILLI, cpus_milli=len(devices) * 7 * MILLI
            )
            a = Allocation(
                id=AllocationId(f"{name}.{rank}"),
                job=JobId(name),
                rank=rank,
                node=NodeId(f"n{node}"),
                request=request,
                devices=devices,
                state=AllocationState.RUNNING,
            )
            self.snapshot.hold(a)
            self.running.seat(a)

    def churn(self, count):
        """Jobs end, and others take their places."""
        for _ in range(count):
            job = self.dice.choice(list(self.running.occupants)[:1000])
            seats = list(self.running.seats(job))
            for a in seats:
                self.snapshot.drop(a)
            self.running.drop(job)
            self.place([(int(a.node[1:]), a.devices) for a in seats])

    def stop(self, eviction, job):
        """What a machine does with the answer; the claim stands for the job's places. It may be
        for places that are being left already."""
        for victim in getattr(eviction, "victims", ()):
            self.running.put(replace(self.running.occupants[victim], stopping=True))
        for rank, seat in enumerate(eviction.plan.seats):
            self.snapshot.hold(
                Allocation(
                    id=AllocationId(f"{job.id}.{rank}"),
                    job=job.id,
                    rank=rank,
                    node=seat.node,
                    request=job.alternatives[eviction.plan.alternative],
                    devices=seat.devices,
                )
            )


def urgent(n, gpus, replicas=1):
    request = ResourceRequest(gpus_milli=gpus * MILLI, cpus_milli=gpus * 4 * MILLI)
    return Job(
        id=JobId(f"u{n}"),
        priority=Priority.LATENCY_CRITICAL,
        alternatives=(request,),
        replicas=replicas,
    )


def timed(cluster, jobs, now_ms, step_ms, between=lambda: None):
    """(wall, CPU) in µs of each search, and the answers."""
    balanced = policy("balanced")
    walls, cpus, answers = [], [], []
    gc.collect()
    gc.disable()
    for job in jobs:
        between()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        found = victims(cluster.snapshot, cluster.running, job, balanced, RIGHTS, None, now_ms)
        cpus.append((time.process_time_ns() - cpu) / 1000)
        walls.append((time.perf_counter_ns() - wall) / 1000)
        answers.append(found)
        now_ms += step_ms
    gc.enable()
    return walls, cpus, answers


def row(what, nodes, walls, cpus, goal_us=None):
    def tail(times):
        return round(sorted(times)[int(0.99 * len(times))], 1)

    found = {
        "what": what,
        "nodes": nodes,
        "searches": len(walls),
        "wall_p50_us": round(statistics.median(walls), 1),
        "wall_p99_us": tail(walls),
        "cpu_p50_us": round(statistics.median(cpus), 1),
        "cpu_p99_us": tail(cpus),
    }
    if goal_us is not None:
        found |= {"goal_cpu_p99_us": goal_us, "met": found["cpu_p99_us"] <= goal_us}
    return found


def measure(nodes, searches):
    made = Cluster(nodes)
    kinds = [urgent(n, (1, 2, 4, 8)[n % 4]) for n in range(searches)]
    walls, cpus, _ = timed(made, kinds[:4], NOW_MS, 10)
    yield row("first of its kind", nodes, walls, cpus)
    walls, cpus, answers = timed(made, kinds, NOW_MS + 100, 10)
    assert all(isinstance(found, Eviction) for found in answers)
    yield row("search", nodes, walls, cpus, 200)
    later = NOW_MS + 100 + searches * 10
    walls, cpus, _ = timed(made, kinds, later, 10, lambda: made.churn(20))
    yield row("search, busy", nodes, walls, cpus)
    walls, cpus, _ = timed(made, kinds[: searches // 4], later + 1_000_000, 60_000)
    yield row("search, one a minute", nodes, walls, cpus)
    gangs = [urgent(n, 8, 16) for n in range(30)]
    walls, cpus, _ = timed(made, gangs, later + 20_000_000, 10)
    yield row("gang of 16 x 8 GPUs", nodes, walls, cpus)
    gangs = [replace(gang, packing=Packing("rack")) for gang in gangs[:10]]
    walls, cpus, _ = timed(made, gangs, later + 20_000_000, 10)
    yield row("gang of 16 x 8 GPUs in one rack", nodes, walls, cpus)
    yield moves(nodes)
    yield storm(nodes, min(500, nodes // 2))


def moves(nodes):
    """A cluster of which a quarter of all GPUs is free, in pieces."""
    made = Cluster(nodes, seed=3)
    for job in list(made.running.occupants):
        if made.dice.random() < 0.3:
            for a in list(made.running.seats(job)):
                made.snapshot.drop(a)
            made.running.drop(job)

    def job_of(id):
        seats = sorted(made.running.seats(id), key=lambda a: a.rank)
        return Job(id=id, replicas=len(seats), alternatives=(seats[0].request,))

    free = int((made.snapshot.whole[: made.snapshot.rows] == 8).sum())
    gangs = [replace(urgent(n, 8, free + 4), priority=Priority.BATCH) for n in range(12)]
    walls, cpus, found = [], [], 0
    for gang in gangs:
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        answer = consolidation(
            made.snapshot,
            made.running,
            gang,
            policy("balanced"),
            Rights(),
            None,
            NOW_MS,
            MoveBudget(1000.0, 16),
            job_of,
        )
        cpus.append((time.process_time_ns() - cpu) / 1000)
        walls.append((time.perf_counter_ns() - wall) / 1000)
        found += answer is not None
    return row(f"consolidation for {free + 4} x 8 GPUs", nodes, walls, cpus) | {"found": found}


def storm(nodes, preemptors):
    made = Cluster(nodes, seed=2)
    balanced = policy("balanced")
    jobs = [urgent(n, (1, 2, 4, 8)[n % 4]) for n in range(preemptors)]
    gc.collect()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for job in jobs:
        found = victims(made.snapshot, made.running, job, balanced, RIGHTS, None, NOW_MS)
        assert found.plan is not None, found
        made.stop(found, job)
    return {
        "what": f"storm of {preemptors}",
        "nodes": nodes,
        "wall_ms": round((time.perf_counter_ns() - wall) / 1e6, 1),
        "cpu_ms": round((time.process_time_ns() - cpu) / 1e6, 1),
        "goal_wall_ms": 1000,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument("--numpy", action="store_true", help="without the compiled kernels")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    wishes = parser.parse_args()
    compiled = not wishes.numpy and bounds.warm() and kernels.warm()
    result = {
        "bench": "victims",
        "method": METHOD,
        "machine": machine() | {"numpy": np.__version__, "system": platform.platform()},
        "kernels": "numba" if compiled else "numpy",
        "load_average_before": os.getloadavg(),
        "rows": [],
    }
    if compiled:
        list(measure(256, 40))  # compiled, or read from the cache, before anything is timed
    for nodes in wishes.nodes:
        result["rows"] += measure(nodes, wishes.searches)
    result["load_average_after"] = os.getloadavg()
    if wishes.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    print(METHOD)
    print(result["machine"], result["kernels"])
    for found in result["rows"]:
        print("  ", *(f"{key} {value}" for key, value in found.items()), sep="  ")


if __name__ == "__main__":
    main()
