"""What it costs to find when a blocked job could start: CPU ms of ``earliest``, by kind of wish.

A full cluster: nodes of 8 GPUs and 64 CPUs in racks of 16 and blocks of 16 racks, each node held by
as many replicas as asked for (one to four GPUs each), with ends spread over a day. The wishes fit
nowhere now. Each figure is the median over repetitions; before each, one running job gets a new
estimate, so that the columns are brought up to date as in operation. No I/O is involved.
Run: ``python bench/backfill.py [--nodes 1000 10000] [--replicas 5] [--repeat 15] [--json]``
"""

import argparse
import gc
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Iterator

from msgspec.structs import replace

from hyperion.model.allocation import Allocation
from hyperion.model.constraints import Packing
from hyperion.model.ids import JobId, NodeId, QueueName, WindowId, allocation_id
from hyperion.model.job import Job, Priority, Role
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.model.window import Window
from hyperion.placement import snapshot as columns
from hyperion.placement.calendar import Calendar
from hyperion.placement.earliest import earliest
from hyperion.placement.forecast import Forecast
from hyperion.placement.outlook import outlook
from hyperion.placement.planner import Wish
from hyperion.placement.ranking import BUILT_IN
from hyperion.placement.running import Occupant, Running
from hyperion.placement.snapshot import Snapshot

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
RACK, BLOCK = 16, 256
GPUS = ((2, 2, 2, 1, 1), (4, 4), (2, 2, 2, 2), (4, 1, 1, 1, 1))


def cluster(nodes: int, replicas: int, seed: int = 1) -> tuple[Snapshot, Running]:
    dice = random.Random(seed)
    made, running = columns.empty(), Running()
    capacity = Capacity(gpus=8, gpu_type="H100", cpus_milli=64_000, memory_mib=524_288)
    for n in range(nodes):
        labels = {"rack": f"r{n // RACK}", "block": f"b{n // BLOCK}"}
        made.add_node(Node(id=NodeId(f"n{n}"), capacity=capacity, labels=labels))
    each = max(1, replicas // nodes)
    for n in range(nodes):
        free = 8
        for k in range(each):
            gpus = free if k == each - 1 else min(free, GPUS[n % len(GPUS)][k % 2])
            seat(made, running, n, k, range(8 - free, 8 - free + gpus), dice)
            free -= gpus
    return made, running


def seat(
    made: Snapshot, running: Running, n: int, k: int, devices: range, dice: random.Random
) -> None:
    id = JobId(f"j{n}-{k}")
    running.put(
        Occupant(
            job=id,
            queue=QueueName("default"),
            priority=Priority.BATCH,
            started_at_ms=NOW_MS - dice.randrange(24 * HOUR_MS),
            ends_at_ms=NOW_MS + dice.randrange(1, 24 * HOUR_MS),
        )
    )
    request = ResourceRequest(
        gpus_milli=1000 * len(devices), cpus_milli=8000 if len(devices) else 4000, memory_mib=8192
    )
    held = Allocation(
        id=allocation_id(id, 1, 1, 0),
        job=id,
        rank=0,
        node=NodeId(f"n{n}"),
        request=request,
        devices=tuple(devices),
    )
    made.hold(held)
    running.seat(held)


def wishes() -> Iterator[tuple[str, Wish]]:
    def wish(title: str, gpus: int, replicas: int, **more: object) -> tuple[str, Wish]:
        request = ResourceRequest(gpus_milli=1000 * gpus, cpus_milli=4000, memory_mib=1024)
        more.setdefault("alternatives", (request,))
        job = Job(id=JobId(title.replace(" ", "-")), replicas=replicas, **more)  # type: ignore[arg-type]
        return title, Wish(job, at_least=replicas, ends_at_ms=NOW_MS + 4 * HOUR_MS)

    yield wish("one replica, 1 GPU", 1, 1)
    yield wish("one replica, 8 GPUs", 8, 1)
    half = (ResourceRequest(gpus_milli=500, cpus_milli=1000),)
    yield wish("one replica, half a GPU", 0, 1, alternatives=half)
    yield wish("gang of 64 x 8 GPUs", 8, 64)
    yield wish("gang of 1000 x 8 GPUs", 8, 1000)
    yield wish("gang of 64 x 8 GPUs in a block", 8, 64, packing=Packing("block"))
    roles = (
        Role(name="leader", replicas=1, resources=ResourceRequest(cpus_milli=16_000)),
        Role(name="worker", replicas=16, resources=ResourceRequest(gpus_milli=8000)),
    )
    yield wish("gang with roles, 1 + 16 x 8 GPUs", 8, 17, roles=roles)


def measured(
    made: Snapshot, running: Running, calendar: Calendar, wish: Wish, repeat: int
) -> dict[str, object]:
    policy = BUILT_IN["balanced"]
    cpus, walls = [], []
    found = None
    touched = list(running.occupants.values())[: repeat + 1]
    earliest(made, running, calendar, wish, policy, NOW_MS)
    for occupant in touched[1:]:
        running.put(replace(occupant, ends_at_ms=occupant.ends_at_ms + 1))
        gc.collect()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        found = earliest(made, running, calendar, wish, policy, NOW_MS)
        cpus.append((time.process_time_ns() - cpu) / 1e6)
        walls.append((time.perf_counter_ns() - wall) / 1e6)
    return {
        "cpu_ms": round(statistics.median(cpus), 3),
        "wall_ms": round(statistics.median(walls), 3),
        "worst_cpu_ms": round(max(cpus), 3),
        "waits_s": None if found is None else (found.at_ms - NOW_MS) // 1000,
    }


def with_promises(made: Snapshot, running: Running, count: int) -> Calendar:
    calendar = Calendar(running)
    for n in range(4):
        begins = NOW_MS + (2 + 6 * n) * HOUR_MS
        nodes = tuple(NodeId(f"n{at}") for at in range(BLOCK * n, BLOCK * (n + 1)))
        calendar.put_window(
            Window(
                id=WindowId(f"w{n}"), begins_at_ms=begins, ends_at_ms=begins + HOUR_MS, nodes=nodes
            )
        )
    for n in range(count):
        request = ResourceRequest(gpus_milli=8000, cpus_milli=4000)
        job = Job(id=JobId(f"p{n}"), alternatives=(request,), replicas=16)
        wish = Wish(job, at_least=16, ends_at_ms=NOW_MS + 4 * HOUR_MS)
        found = earliest(made, running, calendar, wish, BUILT_IN["balanced"], NOW_MS)
        assert found is not None
        calendar.promise(found)
    return calendar


def rows(nodes: int, replicas: int, repeat: int) -> Iterator[dict[str, object]]:
    made, running = cluster(nodes, replicas)
    at = {"nodes": nodes, "replicas": sum(1 for j in running.occupants for _ in running.seats(j))}
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    calendar = Calendar(running)
    calendar.timeline.seats(made, NOW_MS)
    yield {
        "what": "all columns made anew", **at,
        "cpu_ms": round((time.process_time_ns() - cpu) / 1e6, 3),
        "wall_ms": round((time.perf_counter_ns() - wall) / 1e6, 3),
    }  # fmt: skip
    for title, wish in wishes():
        yield {"what": title, **at, **measured(made, running, calendar, wish, repeat)}
    busy = with_promises(made, running, 32)
    for title, wish in wishes():
        row = measured(made, running, busy, wish, max(3, repeat // 3))
        yield {"what": f"{title}; 32 promises, 4 windows", **at, **row}
    yield {"what": "withheld and closed, 32 promises", **at, **view(made, running, busy, repeat)}
    yield {"what": "outlook, 16 ahead", **at, **ahead(made, running, calendar)}


def view(made: Snapshot, running: Running, calendar: Calendar, repeat: int) -> dict[str, object]:
    """What a round pays once for each kind of wish, and what it pays for each wish."""
    job = Job(id=JobId("x"), alternatives=(ResourceRequest(gpus_milli=1000),))
    first, again = [], []
    for n, occupant in enumerate(list(running.occupants.values())[:repeat]):
        running.put(replace(occupant, ends_at_ms=occupant.ends_at_ms + 1))
        cpu = time.process_time_ns()
        calendar.closed(made, job, NOW_MS + 4 * HOUR_MS, NOW_MS + n)
        calendar.withheld(made, job, NOW_MS + 4 * HOUR_MS, NOW_MS + n)
        first.append((time.process_time_ns() - cpu) / 1e6)
        cpu = time.process_time_ns()
        for _ in range(1000):
            calendar.mark(job, NOW_MS + 4 * HOUR_MS, NOW_MS + n)
        again.append((time.process_time_ns() - cpu) / 1e6)
    return {"cpu_ms": round(statistics.median(first), 3),
            "mark_us": round(statistics.median(again), 3)}  # fmt: skip


def ahead(made: Snapshot, running: Running, calendar: Calendar) -> dict[str, object]:
    waiting = [
        Job(id=JobId(f"a{n}"), alternatives=(ResourceRequest(gpus_milli=8000),)) for n in range(16)
    ]
    job = Job(id=JobId("asked"), alternatives=(ResourceRequest(gpus_milli=8000),), replicas=4)
    cpu = time.process_time_ns()
    found = outlook(
        made, running, calendar, Forecast(), job, BUILT_IN["balanced"], NOW_MS, ahead=waiting
    )
    assert found.starts_at_ms is not None
    return {"cpu_ms": round((time.process_time_ns() - cpu) / 1e6, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--replicas", type=int, default=5, help="running on each node")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = [row for n in asked.nodes for row in rows(n, n * asked.replicas, asked.repeat)]
    if asked.json:
        machine = {
            "cores": os.cpu_count(), "python": platform.python_version(),
            "load": os.getloadavg(),
        }  # fmt: skip
        print(json.dumps({"machine": machine, "rows": found}, indent=1))
        return
    for row in found:
        figures = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("what", "nodes"))
        print(f"{row['nodes']:>6} nodes  {row['what']:<58} {figures}")


if __name__ == "__main__":
    main()
