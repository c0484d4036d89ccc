"""From submission to the order that makes room: urgent jobs at a steady rate, on a full cluster.

Run: ``python bench/pauses.py [--nodes 10000] [--rate 100] [--seconds 20] [--repeat 3] [--json]``
"""

import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path

from measure import median, parser, percentile, progress, report

from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.daemon.clock import WallClock
from hyperion.daemon.driver import Driver, Pace
from hyperion.daemon.urgency import hurry
from hyperion.model.allocation import AllocationState as S
from hyperion.model.allocation import Freeze
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId, JobId, NodeId
from hyperion.model.job import Job, Priority
from hyperion.model.node import PAUSE, Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import kernels, ranking

METHOD = (
    "one process: driver and cluster machine as in production, SQLite with fsync, {nodes} nodes of "
    "64 CPUs, each with a batch job on all of them; {rate} LATENCY_CRITICAL jobs/s by a timetable, "
    "late or not, each for 64 CPUs: one batch job stands still for each. Nodes answer at once that "
    "it stands still, and that the urgent job runs; that ends after 0.2 s, and the batch job goes "
    "on. From when a job was due until the order to stand still is handed to its node's stream, "
    "its records being durable by then, and until the order to run. Real-time priority where this "
    "host gives it"
)
RUNS_S = 0.2


class Scheduler:
    """Driver, machine and store, with nodes that do at once as they are told."""

    def __init__(self, directory, nodes):
        cluster = Cluster(id=ClusterId("home"), region="local", version="bench")
        times = ClusterTimes(node_lease_ms=3_600_000)  # nobody beats here
        self.machine = ClusterMachine(cluster, ranking.policy("pack"), times)
        self.store = SqliteStore(Path(directory) / "scheduler.db")
        pace = Pace(inbox_limit=1_000_000)
        self.driver = Driver(self.machine, self.store, WallClock(), self.perform, pace)
        self.driver.recover()
        self.stood, self.ran, self.batch = {}, {}, 0
        self.others = 0
        """Orders to stop: a batch job that did not stand still, but was pushed out."""
        for n in range(nodes):
            self.driver.note(m.NodeAttached(hello=m.NodeHello(node=node(n))))

    def perform(self, command):
        if type(command) is not m.SendToNode:
            return
        order, now = command.message, time.perf_counter()
        if type(order) is m.Run:
            if order.job.priority is Priority.LATENCY_CRITICAL:
                self.ran.setdefault(order.job.id, now)
                loop = asyncio.get_running_loop()
                loop.call_later(RUNS_S, self.say, command.node, order, S.SUCCEEDED)
            else:
                self.batch += 1
            self.say(command.node, order, S.RUNNING)
        elif type(order) is m.Pause:
            status = self.machine.state.jobs[self.machine.state.allocations[order.allocation].job]
            self.stood.setdefault(status.status.paused_for, now)
            self.say(command.node, order, S.PAUSED)
        elif type(order) is m.Resume:
            self.say(command.node, order, S.RUNNING)
        elif type(order) is m.Stop:
            self.others += 1
            self.say(command.node, order, S.STOPPED)

    def say(self, node, order, state):
        report = m.AllocationReport(
            order.allocation,
            order.generation,
            state,
            exit_code=0 if state is S.SUCCEEDED else None,
            started_at_ms=WallClock().now_ms() if state is S.RUNNING else 0,
            freeze=Freeze(stopped_us=100, confirmed_us=200) if state is S.PAUSED else None,
        )
        self.driver.note(m.NodeReported(node=node, report=report))


def node(n):
    capacity = Capacity(cpus_milli=64_000, memory_mib=512_000)
    return Node(id=NodeId(f"node-{n:05d}"), capacity=capacity, abilities={PAUSE: "freezer"})


def job(name, cpus, priority):
    request = ResourceRequest(cpus_milli=1000 * cpus, memory_mib=1000)
    return Job(
        id=JobId(name), alternatives=(request,), command=("python", "x.py"), priority=priority
    )


async def until(is_so, what):
    async with asyncio.timeout(120):
        while not is_so():
            progress(what())
            await asyncio.sleep(0.02)


async def one_run(options):
    with tempfile.TemporaryDirectory(prefix="hyperion-pauses-") as directory:
        kernels.warm()
        scheduler = Scheduler(directory, options.nodes)
        driver = scheduler.driver
        running = asyncio.create_task(driver.run())
        for n in range(options.nodes):
            driver.post(m.JobSubmitted(job(f"batch-{n}", 64, Priority.BATCH), 0))
        await until(
            lambda: scheduler.batch == options.nodes, lambda: f"{scheduler.batch} batch jobs run"
        )
        await until(lambda: not driver.waiting_events, lambda: "settling")
        await asyncio.sleep(2.5)  # nobody is preempted in the moment of its start
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        found = await steady(scheduler, int(options.rate * options.seconds), options.rate)
        driver.stop()
        await running
        scheduler.store.close()
    return found


async def steady(scheduler, jobs, rate):
    due, cpu, begun = {}, time.process_time(), time.perf_counter()
    while len(due) < jobs:
        now = time.perf_counter()
        while len(due) < jobs and begun + len(due) / rate <= now:
            name = f"urgent-{len(due)}"
            due[name] = begun + len(due) / rate
            urgent = job(name, 64, Priority.LATENCY_CRITICAL)
            scheduler.driver.post(m.JobSubmitted(urgent, 0))
        await asyncio.sleep(0.0005)
    await until(lambda: len(scheduler.ran) >= jobs, lambda: f"{len(scheduler.ran)} of {jobs}")
    cpu = time.process_time() - cpu
    stood = [
        1e3 * (scheduler.stood[name] - at) for name, at in due.items() if name in scheduler.stood
    ]
    ran = [1e3 * (scheduler.ran[name] - at) for name, at in due.items()]
    return {
        "stood_p50": percentile(stood, 0.5),
        "stood_p99": percentile(stood, 0.99),
        "stood_max": max(stood),
        "ran_p50": percentile(ran, 0.5),
        "ran_p99": percentile(ran, 0.99),
        "cpu_ms": 1e3 * cpu / jobs,
        "others": scheduler.others,
        "none": jobs - len(stood),
    }


def rows_of(runs):
    def row(figure, key, unit="ms", digits=1, **goal):
        value = median([run[key] for run in runs], digits)
        return {"figure": figure, "value": value, "unit": unit, **goal}

    yield row("submit → order to stand still, p50", "stood_p50")
    yield row("submit → order to stand still, p99", "stood_p99", goal=10.0)
    yield row("submit → order to stand still, max", "stood_max")
    yield row("submit → order to run, p50", "ran_p50")
    yield row("submit → order to run, p99", "ran_p99")
    yield row("CPU of a preemption, from the job's submission to its end", "cpu_ms", "ms", 2)
    yield row("urgent jobs that found room already made", "none", "", 0)
    yield row("batch jobs stopped instead", "others", "", 0, goal=0)


def main():
    asked = parser(__doc__)
    asked.add_argument("--nodes", type=int, default=10_000)
    asked.add_argument("--rate", type=float, default=100.0)
    asked.add_argument("--seconds", type=float, default=20.0)
    options = asked.parse_args()
    hurry()
    runs = []
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        runs.append(asyncio.run(one_run(options)))
    method = METHOD.format(nodes=f"{options.nodes:,}", rate=f"{options.rate:g}")
    report("pauses", method, list(rows_of(runs)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
