"""From submission to durable placement: batches as fast as they go, and a steady 1,000 a second.

Run: ``python bench/submit.py [--nodes 10000] [--jobs 20000] [--rate 1000] [--repeat 3] [--json]``
"""

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from measure import median, parser, percentile, progress, report

from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.daemon.clock import WallClock
from hyperion.daemon.driver import Driver, Pace
from hyperion.model.allocation import AllocationState
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, ClusterId, JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import kernels, ranking

METHOD = (
    "one process: driver and cluster machine as in production, SQLite with fsync, {nodes} nodes of "
    "8 GPUs attached by their Hellos; every job asks for a GPU and a CPU. Batches: {jobs} jobs "
    "put into the inbox as fast as it takes them, until the last Run order is handed out, its "
    "records being durable by then. Steady: {rate} jobs/s by a timetable, late or not; from when a "
    "job was due until its Run order is handed out; each is said to run and to have ended, so "
    "three more events a job are in it. Sync: fdatasync of 8 KiB on the same disk at the same "
    "time, for comparison"
)
SIZES = ((1000, 4000), (2000, 8000), (1000, 2000), (4000, 4000))


class Scheduler:
    """Driver, machine and store, with nodes that run nothing and say that all went well."""

    def __init__(self, directory: str, nodes: int, policy: str) -> None:
        cluster = Cluster(id=ClusterId("home"), region="local", version="bench")
        self.machine = ClusterMachine(cluster, ranking.policy(policy), ClusterTimes())
        self.store = SqliteStore(Path(directory) / "scheduler.db")
        self.driver = Driver(
            self.machine, self.store, WallClock(), self.perform, Pace(inbox_limit=1_000_000)
        )
        self.driver.recover()
        self.placed: dict[str, float] = {}
        self.ending = False
        self.held: list[tuple[NodeId, AllocationId, int]] = []
        self.enough: asyncio.Future[None] | None = None
        self.wanted = 0
        for n in range(nodes):
            self.driver.note(m.NodeAttached(hello=m.NodeHello(node=node(n))))

    def perform(self, command: Any) -> None:
        if type(command) is not m.SendToNode or type(command.message) is not m.Run:
            return
        order = command.message
        if str(order.job.id) in self.placed:
            return  # sent again, since it was not answered
        self.placed[str(order.job.id)] = time.perf_counter()
        if self.ending:
            self.end(command.node, order.allocation, order.generation)
        else:
            self.held.append((command.node, order.allocation, order.generation))
        if len(self.placed) >= self.wanted and self.enough and not self.enough.done():
            self.enough.set_result(None)

    def end(self, node: NodeId, allocation: AllocationId, generation: int) -> None:
        for state in (AllocationState.RUNNING, AllocationState.SUCCEEDED):
            exit_code = 0 if state.is_terminal else None
            said = m.AllocationReport(allocation, generation, state, exit_code=exit_code)
            self.driver.note(m.NodeReported(node=node, report=said))

    async def until_placed(self, jobs: int) -> None:
        self.wanted = jobs
        self.enough = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(300):
            await self.enough


def node(n: int) -> Node:
    labels = {"zone": f"z{n % 3}", "rack": f"r{n // 32}"}
    capacity = Capacity(gpus=8, gpu_type="H100", cpus_milli=64_000, memory_mib=512_000)
    return Node(id=NodeId(f"node-{n:05d}"), capacity=capacity, labels=labels)


def job(name: str, n: int) -> Job:
    cpus, memory = SIZES[n % len(SIZES)]
    request = ResourceRequest(gpus_milli=1000, cpus_milli=cpus, memory_mib=memory)
    return Job(id=JobId(name), alternatives=(request,), command=("python", "train.py"))


async def idle(scheduler: Scheduler) -> None:
    while scheduler.driver.waiting_events:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def batches(scheduler: Scheduler, jobs: int) -> dict[str, float]:
    made = [m.JobSubmitted(job(f"batch-{n}", n), 0) for n in range(jobs)]
    before = msgspec.structs.asdict(scheduler.driver.counters)
    cpu, began = time.process_time(), time.perf_counter()
    for event in made:
        scheduler.driver.post(event)
    await scheduler.until_placed(jobs)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    spent = since(before, scheduler)
    return {
        "rate": jobs / took,
        "cpu_us": 1e6 * cpu / jobs,
        "commits": spent["commits"],
        "step_ms": spent["step_ms"],
        "commit_ms": spent["commit_ms"],
        "round_ms": spent["round_ms"],
    }


def since(before: dict[str, Any], scheduler: Scheduler) -> dict[str, Any]:
    after = msgspec.structs.asdict(scheduler.driver.counters)
    return {name: value - before[name] for name, value in after.items()}


async def steady(scheduler: Scheduler, jobs: int, rate: float) -> dict[str, float]:
    scheduler.placed.clear()
    scheduler.ending = True
    due: dict[str, float] = {}
    before = msgspec.structs.asdict(scheduler.driver.counters)
    cpu, begun = time.process_time(), time.perf_counter()
    placing = asyncio.ensure_future(scheduler.until_placed(jobs))
    while len(due) < jobs:
        now = time.perf_counter()
        while len(due) < jobs and begun + len(due) / rate <= now:
            name = f"steady-{len(due)}"
            due[name] = begun + len(due) / rate
            scheduler.driver.post(m.JobSubmitted(job(name, len(due)), 0))
        await asyncio.sleep(0.0005)
    await placing
    cpu = time.process_time() - cpu
    spent = since(before, scheduler)
    waits = [1e3 * (scheduler.placed[name] - at) for name, at in due.items()]
    return {
        "p50": percentile(waits, 0.5),
        "p99": percentile(waits, 0.99),
        "steady_cpu_us": 1e6 * cpu / jobs,
        "steady_step_us": 1e3 * spent["step_ms"] / jobs,
        "steady_round_us": 1e3 * spent["round_ms"] / jobs,
        "steady_commits": spent["commits"],
        "steady_rounds": spent["rounds"],
        "steady_commit_ms": spent["commit_ms"] / spent["commits"],
    }


def syncs(directory: str) -> dict[str, float]:
    """What the disk needs by itself."""
    took = []
    file = os.open(Path(directory) / "sync", os.O_RDWR | os.O_CREAT)
    for n in range(200):
        os.pwrite(file, b"x" * 8192, 8192 * n)
        began = time.perf_counter()
        os.fdatasync(file)
        took.append(1e3 * (time.perf_counter() - began))
    os.close(file)
    return {"sync_p50": statistics.median(took), "sync_p99": percentile(took, 0.99)}


async def one_run(options: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="hyperion-submit-") as directory:
        kernels.warm()
        scheduler = Scheduler(directory, options.nodes, options.policy)
        running = asyncio.create_task(scheduler.driver.run())
        await idle(scheduler)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        found = await batches(scheduler, options.jobs)
        for held in scheduler.held:
            scheduler.end(*held)
        await idle(scheduler)
        found |= syncs(directory)
        found |= await steady(scheduler, int(options.rate * options.seconds), options.rate)
        scheduler.driver.stop()
        await running
        scheduler.store.close()
    return found


def rows_of(runs: list[dict[str, float]], options: Any) -> Iterator[dict[str, object]]:
    def row(figure: str, key: str, unit: str, digits: int = 2, **goal: Any) -> dict[str, object]:
        value = median([run[key] for run in runs], digits)
        return {"figure": figure, "value": value, "unit": unit, **goal}

    yield row("batches: durably placed", "rate", "jobs/s", 0, goal=10_000, more=True)
    yield row("batches: CPU of a job, all threads", "cpu_us", "µs", 1)
    yield row("batches: commits", "commits", "", 0)
    yield row("batches: in the machine", "step_ms", "ms", 0)
    yield row("batches: of that in rounds", "round_ms", "ms", 0)
    yield row("batches: in commits, beside other work", "commit_ms", "ms", 0)
    at = f"at {options.rate:g} jobs/s"
    yield row(f"{at}: submit → durably placed, p50", "p50", "ms", 1, goal=5.0)
    yield row(f"{at}: submit → durably placed, p99", "p99", "ms", 1, goal=20.0)
    yield row(f"{at}: CPU of a job with its two reports", "steady_cpu_us", "µs", 1)
    yield row("sync of the disk alone, p50", "sync_p50", "ms", 1)
    yield row("sync of the disk alone, p99", "sync_p99", "ms", 1)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--nodes", type=int, default=10_000)
    arguments.add_argument("--jobs", type=int, default=20_000)
    arguments.add_argument("--rate", type=float, default=1000.0)
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--policy", default="pack")
    options = arguments.parse_args()
    runs = []
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        runs.append(asyncio.run(one_run(options)))
    method = METHOD.format(nodes=options.nodes, jobs=options.jobs, rate=options.rate)
    report("submit", method, list(rows_of(runs, options)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
