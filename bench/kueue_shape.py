"""The shape of Kueue's large-scale performance test: 50,000 jobs in 1,000 queues in 10 cohorts.

Run: ``python bench/kueue_shape.py [--queues 1000] [--repeat 3] [--json] [--without-quotas]``

The numbers are those of kubernetes-sigs/kueue, test/performance/scheduler/configs/large-scale/
generator.yaml at commit f6517b0c466b (2026): per queue 35 small, 11 medium and 4 large workloads,
created every 60, 300 and 700 ms; quota 20, borrowing limit 100, reclaim within the cohort, and
preemption of lower priorities within the queue. Its runner plays executions by timers; so do we.
"""

import asyncio
import gc
import heapq
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from measure import median, parser, progress, report

from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.daemon.clock import WallClock
from hyperion.daemon.driver import Driver, Pace
from hyperion.model.allocation import AllocationState
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, ClusterId, JobId, NodeId, QueueName
from hyperion.model.job import Job, JobPhase
from hyperion.model.node import Node
from hyperion.model.queue import Queue
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import kernels, ranking

METHOD = (
    "one process: driver and cluster machine as in production, SQLite with fsync; {queues} queues "
    "in {cohorts} cohorts, quota 20 CPUs and borrowing up to 100 each; {nodes} nodes of 64 CPUs, "
    "so that every job gets a node too, which Kueue's test leaves out; {jobs} jobs created by its "
    "timetable (35 of 1 CPU for 0.15 s, 11 of 5 for 0.35 s, 4 of 20 for 0.7 s a queue); timers "
    "play what runs, a displaced job starts anew; from the first submission until the last job has "
    "ended and that is durable. Kueue's own run of it: 1,179 s"
)
QUEUES_PER_COHORT = 100
BEAT_S = 10.0
"""How often a node asks for its lease to be renewed, as agents do."""


class Kind(msgspec.Struct, frozen=True):
    name: str
    count: int
    every_s: float
    runs_s: float
    nice: int
    cpus: int


KINDS = (
    Kind("small", 35, 0.060, 0.150, 0, 1),
    Kind("medium", 11, 0.300, 0.350, -1, 5),
    Kind("large", 4, 0.700, 0.700, -2, 20),
)
PER_QUEUE = sum(kind.count for kind in KINDS)


def queues(count: int) -> tuple[Queue, ...]:
    cohorts = tuple(
        Queue(name=QueueName(f"cohort-{c}")) for c in range(-(-count // QUEUES_PER_COHORT))
    )
    return cohorts + tuple(
        Queue(
            name=QueueName(f"queue-{n}"),
            parent=QueueName(f"cohort-{n // QUEUES_PER_COHORT}"),
            quota={"cpus_milli": 20_000},
            borrow={"cpus_milli": 100_000},
            preempt_within=True,
        )
        for n in range(count)
    )


def timetable(count: int, with_queues: bool) -> list[tuple[float, Kind, Job]]:
    """(seconds from the start, kind, job), in order of time."""
    made = []
    for n in range(count):
        for kind in KINDS:
            request = ResourceRequest(cpus_milli=1000 * kind.cpus)
            for k in range(kind.count):
                job = Job(
                    id=JobId(f"{kind.name}-{n}-{k}"),
                    queue=QueueName(f"queue-{n}" if with_queues else ""),
                    nice=kind.nice,
                    alternatives=(request,),
                    command=("true",),
                )
                made.append(((k + 1) * kind.every_s, kind, job))
    made.sort(key=lambda entry: entry[0])
    return made


class Stage:
    """The cluster, and nodes whose replicas are timers."""

    def __init__(self, directory: str, nodes: int) -> None:
        cluster = Cluster(id=ClusterId("home"), region="local", version="bench")
        self.machine = ClusterMachine(cluster, ranking.policy("pack"), ClusterTimes())
        self.store = SqliteStore(Path(directory) / "scheduler.db")
        self.driver = Driver(
            self.machine, self.store, WallClock(), self.perform, Pace(inbox_limit=1_000_000)
        )
        self.driver.recover()
        self.driver.subscribe(self.look)
        self.commands: Counter[str] = Counter()
        self.kinds: dict[str, Kind] = {}
        self.due: dict[str, float] = {}
        self.admitted_s: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
        self.ended = 0
        self.displaced = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._nodes = [NodeId(f"node-{n:05d}") for n in range(nodes)]
        self._running: dict[AllocationId, tuple[NodeId, int]] = {}
        self._ended: dict[AllocationId, tuple[AllocationState, int]] = {}
        """Until the cluster says that it knows; then a mark is kept."""
        self._marks: dict[AllocationId, int] = {}
        self._timers: list[tuple[float, AllocationId]] = []
        for id in self._nodes:
            capacity = Capacity(cpus_milli=64_000, memory_mib=256_000)
            node = Node(id=id, capacity=capacity)
            self.driver.note(m.NodeAttached(hello=m.NodeHello(node=node)))

    def perform(self, command: Any) -> None:
        if type(command) is not m.SendToNode:
            return
        order = command.message
        self.commands[type(order).__name__] += 1
        if type(order) is m.Run:
            if not self._answered(command.node, order):
                self._start(command.node, order)
        elif type(order) is m.Stop:
            self._running.pop(order.allocation, None)
            if not self._answered(command.node, order):
                self.say(command.node, order.allocation, order.generation, AllocationState.STOPPED)
        elif type(order) is m.Forget:
            self._ended.pop(order.allocation, None)
            self._marks[order.allocation] = order.generation

    def _start(self, node: NodeId, order: m.Run) -> None:
        kind = self.kinds[order.job.id]
        now = time.perf_counter()
        if order.job.id in self.due:
            self.admitted_s[kind.name].append(now - self.due.pop(order.job.id))
        self._running[order.allocation] = (node, order.generation)
        heapq.heappush(self._timers, (now + kind.runs_s, order.allocation))
        self.say(node, order.allocation, order.generation, AllocationState.RUNNING)

    def _answered(self, node: NodeId, order: m.Run | m.Stop) -> bool:
        """As an agent does it, an order that comes again, before the answer has been read, is
        answered again and changes nothing; one that its own end has overtaken is passed over."""
        id, generation = order.allocation, order.generation
        if id in self._ended:
            state, before = self._ended[id]
            self.say(node, id, max(before, generation), state)
        elif id in self._running:
            generation = max(generation, self._running[id][1])
            self._running[id] = node, generation
            self.say(node, id, generation, AllocationState.RUNNING)
        else:
            return generation <= self._marks.get(id, 0)
        return True

    def say(
        self, node: NodeId, allocation: AllocationId, generation: int, state: AllocationState
    ) -> None:
        code = 0 if state is AllocationState.SUCCEEDED else None
        said = m.AllocationReport(allocation, generation, state, exit_code=code)
        if state.is_terminal:
            self._ended[allocation] = state, generation
        self.driver.note(m.NodeReported(node=node, report=said))

    def look(self, _first: int, _at_ms: int, records: Any) -> None:
        for record in records:
            if type(record) is r.JobMoved and record.status.phase.is_terminal:
                assert record.status.phase is JobPhase.SUCCEEDED, record
                self.ended += 1
                self.displaced += record.status.preemptions
                if self.ended == len(self.kinds) and not self.over.done():
                    self.over.set_result(None)

    async def play(self) -> None:
        """End what has run its time, and keep the nodes' leases."""
        beat_s, beats = time.perf_counter() + BEAT_S, 0
        while True:
            now = time.perf_counter()
            if now >= beat_s:
                beat_s, beats = now + BEAT_S, beats + 1
                for node in self._nodes:
                    self.driver.note(m.NodeHeard(node, m.NodeHeartbeat(beats)))
            while self._timers and self._timers[0][0] <= now:
                _, allocation = heapq.heappop(self._timers)
                held = self._running.pop(allocation, None)
                if held is not None:
                    self.say(held[0], allocation, held[1], AllocationState.SUCCEEDED)
            await asyncio.sleep(0.001)

    async def submit(self, jobs: list[tuple[float, Kind, Job]], begun: float) -> None:
        """Each at its time, late or not."""
        n = 0
        while n < len(jobs):
            now = time.perf_counter() - begun
            while n < len(jobs) and jobs[n][0] <= now:
                due_s, _, job = jobs[n]
                self.due[job.id] = begun + due_s
                self.driver.post(m.JobSubmitted(job, 0))
                n += 1
            await asyncio.sleep(0.001)


async def one_run(options: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="hyperion-kueue-") as directory:
        stage = Stage(directory, options.nodes)
        running = asyncio.create_task(stage.driver.run())
        if not options.without_quotas:
            wanted = queues(options.queues)
            answer = await stage.driver.ask(lambda token: m.QueuesApplied(wanted, token))
            assert not answer.error, answer.error
        while stage.driver.waiting_events:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        jobs = timetable(options.queues, not options.without_quotas)
        stage.kinds = {str(job.id): kind for _, kind, job in jobs}
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        began, cpu = time.perf_counter(), time.process_time()
        works = [
            asyncio.create_task(stage.submit(jobs, began)),
            asyncio.create_task(stage.play()),
        ]
        done, _ = await asyncio.wait(
            {stage.over, running}, timeout=options.limit, return_when=asyncio.FIRST_COMPLETED
        )
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        for work in works:
            work.cancel()
        if running in done:
            running.result()
        assert stage.over in done, f"{stage.ended} of {len(jobs)} jobs ended in {took:.0f} s"
        counters = stage.driver.counters
        stage.driver.stop()
        await running
        stage.store.close()
    admitted = {
        f"{name}_s": sum(waits) / max(1, len(waits)) for name, waits in stage.admitted_s.items()
    }
    return {
        "wall_s": took,
        "cpu_s": cpu,
        "rate": len(jobs) / took,
        "us": 1e6 * cpu / len(jobs),
        "displaced": stage.displaced,
        "commits": counters.commits,
        "rounds": counters.rounds,
        "round_s": counters.round_ms / 1e3,
        "step_s": counters.step_ms / 1e3,
        **admitted,
    }


def rows_of(runs: list[dict[str, float]]) -> Iterator[dict[str, object]]:
    def row(figure: str, key: str, unit: str, digits: int = 1, **goal: float) -> dict[str, object]:
        value = median([run[key] for run in runs], digits)
        return {"figure": figure, "value": value, "unit": unit, **goal}

    yield row("all jobs created, run and ended", "wall_s", "s", goal=60.0)
    yield row("CPU, all threads", "cpu_s", "s")
    yield row("CPU of a job, its reports included", "us", "µs", 0)
    yield row("jobs per second", "rate", "1/s", 0)
    yield row("times that a job was displaced", "displaced", "", 0)
    for kind in KINDS:
        yield row(f"created → first started, mean, {kind.name}", f"{kind.name}_s", "s", 2)
    yield row("rounds", "rounds", "", 0)
    yield row("in rounds", "round_s", "s")
    yield row("in the machine, rounds included", "step_s", "s")
    yield row("commits", "commits", "", 0)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--queues", type=int, default=1000)
    arguments.add_argument("--nodes", type=int, default=500)
    arguments.add_argument("--limit", type=float, default=600.0, help="seconds to give up after")
    arguments.add_argument("--without-quotas", action="store_true", help="one queue for all")
    options = arguments.parse_args()
    kernels.warm()
    runs = []
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        runs.append(asyncio.run(one_run(options)))
    method = METHOD.format(
        queues=options.queues,
        cohorts=-(-options.queues // QUEUES_PER_COHORT),
        nodes=options.nodes,
        jobs=options.queues * PER_QUEUE,
    )
    report("kueue_shape", method, list(rows_of(runs)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
