"""A small real Application for tests of the API: one machine, jobs one after the other.

As a program it serves itself: ``fifo_application.py '{"socket_path": …}' [--dry]`` prints the URL
once it listens. With ``--dry`` nothing that is submitted is ever run.
"""

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hyperion.control import bill_records as b
from hyperion.control import dataset_records as d
from hyperion.control.federation_state import FederationState
from hyperion.daemon import dataset_calls, money
from hyperion.daemon.application import Conflict, NotFound
from hyperion.daemon.clock import WallClock
from hyperion.daemon.gateway import Gateway, GatewaySettings
from hyperion.model.ids import JobId
from hyperion.model.job import Job, JobPhase, Secret, TaskFailure
from hyperion.model.queue import Queue
from hyperion.wire.api import (
    ActivationView,
    ClusterView,
    JobChange,
    JobView,
    NodeReason,
    NodeView,
    OfferView,
    OutlookView,
    PlanRow,
    PlanView,
    PolicyView,
    PromiseView,
    Quantiles,
    QueueView,
    Submitted,
    TasksView,
    VersionView,
    WhyView,
    WindowView,
)
from hyperion.wire.datasets_api import AdviceView, DatasetRequest, DatasetView
from hyperion.wire.market_api import FeedView, MarketStatusView, QuarantinedView, QuoteView
from hyperion.wire.money import BudgetRequest, BudgetView, CostView
from hyperion.wire.rest import WindowRequest

MAX_LOG_BYTES = 1 << 20


ADVICE = AdviceView(
    dataset="imagenet",
    action="copy",
    region="gcp/us-west1",
    source="aws/us-east-1",
    size_gib=150.0,
    cost_usd=16.5,
    worth_usd=40.0,
    gain_usd=23.5,
)
OUTLOOK = OutlookView(
    cluster="home",
    queue="default",
    nodes=40,
    nodes_with_room=0,
    reasons=(
        NodeReason(reason="GPU_COUNT", nodes=22, text="only 6 of 8 GPUs free"),
        NodeReason(reason="GPU_TYPE", nodes=18, text="no GPUs of that type"),
    ),
    starts_at_ms=4_000_000_000_000,
    confidence=0.8,
    because=("17",),
    replicas=8,
    replicas_now=6,
)
"""Of any job that is only planned."""


class Fifo:
    """Runs one job at a time, in the order of submission, and tells of it."""

    def __init__(self, dry: bool = False) -> None:
        self._dry = dry
        self._clock = WallClock()
        self._jobs: dict[str, Job] = {}
        self._views: dict[str, JobView] = {}
        self._outputs: dict[str, bytes] = {}
        self._changes: list[JobChange] = []
        self._news = asyncio.Condition()
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._current = ""
        self._tokens: set[str] = set()
        self._states = {"n1": "ready", "n2": "ready"}
        self._queues: dict[str, Queue] = {}
        self._windows: dict[str, WindowView] = {}
        self._money = FederationState()

    async def work(self) -> None:
        while True:
            await self._run(await self._queue.get())

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    # -- jobs -----------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        answers = []
        for job in jobs:
            if job.metadata.get("refuse"):
                answers.append(
                    Submitted(id=job.id, error="the queue is full", code="RESOURCE_EXHAUSTED")
                )
                continue
            if job.id not in self._jobs:
                self._jobs[job.id] = job
                self._outputs[job.id] = b""
                await self._tell(_view(job, self._clock.now_ms()))
                self._queue.put_nowait(job.id)
            answers.append(Submitted(id=job.id))
        return answers

    async def plan(self, job: Job) -> PlanView:
        def row(rank: int, cluster: str, **kw: Any) -> PlanRow:
            fixed = {
                "accelerators": "", "instance_type": "", "market": "owned", "usd_per_hour": 0.1,
                "egress_usd": 0.0, "gco2e_per_hour": 12.5, "latency_ms": 1.0, "score": 0.1 * rank,
                "chosen": rank == 1, "declared": False, "reason": "cheapest", "joined": True,
            }  # fmt: skip
            return PlanRow(rank=rank, cluster=cluster, **{**fixed, **kw})

        return PlanView(
            job=job.name,
            policy=job.policy or "balanced",
            feasible=True,
            chosen="home",
            sentence="home wins: it costs least.",
            rows=(
                row(1, "home", region="edge/home"),
                row(2, "", region="aws/us-east-1", instance_type="m6i.large", joined=False,
                    market="spot", reason="not joined"),
                row(3, "away", region="gcp/europe-west1", score=None, usd_per_hour=None,
                    reason="no A100"),
            ),
            market_as_of="2025-08-01",
            outlook=OUTLOOK,
        )  # fmt: skip

    async def job(self, job_id: str) -> JobView:
        return self._views[self._found(job_id)]

    async def spec(self, job_id: str) -> Job:
        job = self._jobs[self._found(job_id)]
        return msgspec.structs.replace(job, secrets=dict.fromkeys(job.secrets, Secret("***")))

    async def jobs(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> list[JobView]:
        def wanted(view: JobView) -> bool:
            over = JobPhase(view.phase).is_terminal
            return (
                (view.phase in phases if phases else ended or not over)
                and user in {"", view.user}
                and name in {"", view.name}
                and cluster in {"", view.cluster}
            )

        return [v for v in reversed(self._views.values()) if wanted(v)][:limit]

    async def why(self, job_id: str) -> WhyView:
        view = await self.job(job_id)
        return WhyView(
            id=view.id,
            phase=view.phase,
            sentences=("home was the cheapest of 2 places.",),
            plan=await self.plan(self._jobs[view.id]),
            refusals={"no A100": 1},
            queue_position=None,
        )

    async def cancel(self, job_id: str, by: str) -> JobView:
        view = await self.job(job_id)
        if JobPhase(view.phase).is_terminal:
            return view
        if self._current == view.id and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return await self._change(view.id, phase="cancelled", reason=f"cancelled by {by or '?'}")

    async def logs(
        self, job_id: str, rank: int | None, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[tuple[int, bytes]]:
        name = self._found(job_id)
        ranks = range(self._views[name].replicas) if rank is None else [rank]
        output = self._outputs[name]
        if tail_lines is not None:
            output = b"".join(output.splitlines(keepends=True)[-tail_lines:] if tail_lines else [])
        sent = len(self._outputs[name])
        for each in ranks:
            yield each, output
        while follow:
            async with self._news:
                while len(self._outputs[name]) <= sent and not self._is_over(name):
                    await self._news.wait()
                output, sent = self._outputs[name][sent:], len(self._outputs[name])
            if not output:
                return
            for each in ranks:
                yield each, output

    async def watch(self, job_id: str | None = None, after: int = 0) -> AsyncIterator[JobChange]:
        only = self._found(job_id) if job_id else None
        if not after:
            after = len(self._changes)
            for view in list(self._views.values()):
                if only in {None, view.id}:
                    yield JobChange(sequence=after, at_ms=0, job=view)
        while True:
            async with self._news:
                while len(self._changes) <= after:
                    await self._news.wait()
            for change in self._changes[after:]:
                after = change.sequence
                if only in {None, change.job.id}:
                    yield change

    # -- the rest -------------------------------------------------------------------------------

    async def nodes(self, cluster: str = "") -> list[NodeView]:
        return [self._node(name) for name in self._states] if cluster in {"", "home"} else []

    async def clusters(self) -> list[ClusterView]:
        return [
            ClusterView(
                id="home", region="edge/home", state="ready", nodes=2, gpus="", gpus_free="",
                cpus=4, cpus_free=3, waiting=self._queue.qsize(), running=1 if self._current else 0,
                usd_per_hour=0.1, gco2e_per_kwh=300, declared=False, version="0", heard_ms_ago=10,
            )
        ]  # fmt: skip

    async def activate(self, job_id, release, any_one=False) -> list[ActivationView]:
        view = await self.job(job_id)
        if view.phase != "running":
            raise Conflict(f"job {view.id} is {view.phase}, not running")
        frozen = () if release else ("job-b",)
        return [ActivationView(cluster="home", node="n1", rank=0, stands_still=frozen)]

    async def promise(self) -> list[PromiseView]:
        took = Quantiles(count=3, p50=2.0, p99=4.5, p999=4.5, max=4.5)
        return [
            PromiseView(
                cluster="home",
                node="",
                step="ordered → free",
                promised_ms=50.0,
                missed=0,
                took=took,
            )
        ]

    async def market(self) -> MarketStatusView:
        feed = FeedView(
            name="aws-spot", about="AWS spot prices", base_url="https://ec2.{region}.amazonaws.com",
            interval_s=300.0, polls=3, good_ms_ago=1000, quotes=1, in_force=1, quarantined=1,
            fault="",
        )  # fmt: skip
        bad = QuarantinedView(
            kind="spot", place="aws/us-east-1", subject="p4d.24xlarge", value=-1.0, unit="USD/h",
            source="aws-spot", reason="out-of-range", why="found -1 USD/h", at_ms=1_700_000_000_000,
        )  # fmt: skip
        return MarketStatusView(feeds=(feed,), quarantined=(bad,), views_told=1)

    async def quotes(self, kind: str, place: str, source: str, limit: int) -> list[QuoteView]:
        held = QuoteView(
            kind="spot", place="aws/us-east-1", subject="p4d.24xlarge", value=12.5, unit="USD/h",
            source="aws-spot", as_of_ms=1_700_000_000_000, age_ms=1000, ttl_ms=60_000, stale=False,
            confidence=0.95, uncertainty=0.05, in_force=True,
        )  # fmt: skip
        wanted = kind in ("", held.kind) and source in ("", held.source)
        return [held][:limit] if wanted and held.place.startswith(place) else []

    async def policies(self) -> list[PolicyView]:
        return [
            PolicyView(name="balanced", where="federation", in_force=True, origin="built in"),
            PolicyView(
                name="greedy", where="home", in_force=True, origin="acme 1.2 (acme:Greedy)",
                rounds_replaced=3, fault="raised KeyError: 'gpus'",
            ),
        ]  # fmt: skip

    async def queues(self, cluster: str = "") -> list[QueueView]:
        if cluster not in {"", "home"}:
            raise NotFound(f"no cluster {cluster}; hyperion clusters lists them")
        return [_queue_view(queue) for queue in self._queues.values()]

    async def apply_queues(self, cluster: str, queues: Sequence[Queue]) -> list[QueueView]:
        if any(queue.name == "refused" for queue in queues):
            raise Conflict('queue "busy" has jobs; let them end or cancel them first')
        self._queues = {queue.name: queue for queue in queues}
        return await self.queues(cluster)

    async def drop_queue(self, cluster: str, queue: str) -> list[QueueView]:
        if queue not in self._queues:
            raise NotFound(f"no queue {queue}; hyperion queues lists them")
        del self._queues[queue]
        return await self.queues(cluster)

    async def windows(self, cluster: str = "") -> list[WindowView]:
        return [w for w in self._windows.values() if cluster in {"", w.cluster}]

    async def add_window(self, asked: WindowRequest) -> WindowView:
        nodes = asked.nodes or tuple(self._states)[: asked.count]
        if asked.ends_at_ms <= asked.begins_at_ms:
            raise Conflict("/ends: found an end before the begin")
        kind = "reservation" if asked.queues or asked.users else "maintenance"
        self._windows[asked.id] = WindowView(
            cluster=asked.cluster or "home", id=asked.id, kind=kind, state="planned",
            begins_at_ms=asked.begins_at_ms, ends_at_ms=asked.ends_at_ms, nodes=nodes,
            queues=asked.queues, users=asked.users, reason=asked.reason,
        )  # fmt: skip
        return self._windows[asked.id]

    async def drop_window(self, cluster: str, window: str) -> WindowView:
        if window not in self._windows:
            raise NotFound(f"no window {window}")
        return self._windows.pop(window)

    async def cost(self, by: str, since_ms: int, until_ms: int, limit: int) -> CostView:
        seen = money.picture(self._money, self._clock.now_ms())
        return money.cost_view(seen, by, since_ms, until_ms, limit)

    async def budgets(self) -> list[BudgetView]:
        return money.budget_views(self._money, self._clock.now_ms())

    async def apply_budget(self, asked: BudgetRequest) -> list[BudgetView]:
        self._money.apply(b.BudgetKept(money.budget_of(asked), 1))
        return await self.budgets()

    async def datasets(self) -> list[DatasetView]:
        return dataset_calls.dataset_views(self._money.datasets, self._clock.now_ms())

    async def apply_dataset(self, asked: DatasetRequest) -> DatasetView:
        kept = self._money.datasets
        dataset = dataset_calls.dataset_of(asked, kept, self._clock.now_ms())
        if not dataset.copies and asked.name not in kept.entries:
            raise Conflict(f"say where {asked.name} lies")
        self._money.apply(d.DatasetKept(dataset, 1))
        return next(view for view in await self.datasets() if view.name == asked.name)

    async def drop_dataset(self, name: str, region: str) -> list[DatasetView]:
        entry = self._money.datasets.entries.get(name)
        if entry is None or (region and entry.dataset.copy(region) is None):
            raise NotFound(f"no dataset {name}; hyperion datasets lists them")
        if region and len(entry.dataset.copies) == 1:
            raise Conflict(f"{region} has the last copy of {name}")
        gone = d.CopyDropped(name, region, 1) if region else d.DatasetDropped(name, 1)
        self._money.apply(gone)
        return await self.datasets()

    async def dataset_advice(self) -> list[AdviceView]:
        return [ADVICE]

    async def drop_budget(self, tenant: str) -> list[BudgetView]:
        if tenant not in self._money.budgets.entries:
            raise NotFound(f"no budget of {tenant}; hyperion budgets ls lists them")
        self._money.apply(b.BudgetDropped(tenant, 1))
        return await self.budgets()

    async def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> list[OfferView]:
        all_of_them = [
            OfferView(
                region=place, instance_type="p4d.24xlarge", accelerators="A100:8", cpus=96,
                memory_gib=1152, market=kind, usd_per_hour=price, usd_per_gpu_hour=price / 8,
                gco2e_per_kwh=380, as_of="2025-08-01", source="test",
            )
            for place, kind, price in (
                ("aws/us-east-1", "spot", 9.8), ("aws/us-east-1", "on-demand", 32.77),
                ("aws/eu-west-1", "on-demand", 35.4),
            )
        ]  # fmt: skip
        return [
            offer
            for offer in all_of_them
            if offer.region.startswith(region)
            and market in {"", offer.market}
            and offer.accelerators.startswith(accelerators)
        ][:limit]

    async def cordon(self, node: str, cordon: bool, drain: bool) -> NodeView:
        name = node.removeprefix("home/")
        if name not in self._states:
            raise NotFound(f"no node {node}")
        self._states[name] = "draining" if drain else "cordoned" if cordon else "ready"
        return self._node(name)

    async def version(self) -> VersionView:
        return VersionView(
            version="0.1.0", api="v1", python="3", started_at_ms=1, trust_domain="test"
        )

    async def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]:
        if token not in self._tokens:
            raise Conflict("this token is unknown or was used")
        self._tokens.remove(token)
        return b"CERTIFICATE " + hashlib.sha256(request_pem).hexdigest().encode(), b"CA"

    async def new_join_token(self, role: str, name: str, ttl_s: int) -> str:
        token = hashlib.sha256(f"{role}/{name}/{len(self._tokens)}".encode()).hexdigest()
        self._tokens.add(token)
        return token

    async def upload_bundle(self, chunks: AsyncIterator[bytes]) -> str:
        digest = hashlib.sha256()
        async for chunk in chunks:
            digest.update(chunk)
        return f"bundle:sha256:{digest.hexdigest()}"

    # -- inside ---------------------------------------------------------------------------------

    async def _run(self, name: str) -> None:
        if self._views[name].phase != "queued":
            return
        job = self._jobs[name]
        self._current = name
        await self._change(
            name, phase="running", cluster="home", region="edge/home", nodes=("n1",),
            started_at_ms=self._clock.now_ms(),
        )  # fmt: skip
        code = 0 if self._dry else await self._execute(job)
        self._current = ""
        if self._views[name].phase == "running":
            await self._change(
                name,
                phase="failed" if code else "succeeded",
                reason=f"exit code {code}" if code else "",
                exit_code=code,
            )

    async def _execute(self, job: Job) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *(job.command or ("sh", "-c", job.run)),
            cwd=job.workdir if job.workdir.startswith("/") else None,
            env={**os.environ, **job.envs, **{k: s.value for k, s in job.secrets.items()}},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(4096):
            async with self._news:
                self._outputs[job.id] = (self._outputs[job.id] + chunk)[-MAX_LOG_BYTES:]
                self._news.notify_all()
        return await self._process.wait()

    async def _change(self, name: str, **changes: Any) -> JobView:
        view = msgspec.structs.replace(self._views[name], **changes)
        if JobPhase(view.phase).is_terminal:
            view = msgspec.structs.replace(view, ended_at_ms=self._clock.now_ms())
        await self._tell(view)
        return view

    async def _tell(self, view: JobView) -> None:
        async with self._news:
            self._views[view.id] = view
            now_ms = self._clock.now_ms()
            self._changes.append(JobChange(sequence=len(self._changes) + 1, at_ms=now_ms, job=view))
            self._news.notify_all()

    def _is_over(self, name: str) -> bool:
        return JobPhase(self._views[name].phase).is_terminal

    def _found(self, wanted: str) -> JobId:
        if wanted in self._jobs:
            return JobId(wanted)
        named = [n for n, job in self._jobs.items() if job.name == wanted]
        if named:
            return JobId(named[-1])
        prefixed = [n for n in self._jobs if wanted and n.startswith(wanted)]
        if len(prefixed) == 1:
            return JobId(prefixed[0])
        raise NotFound(f"no job {wanted}")

    def _node(self, name: str) -> NodeView:
        return NodeView(
            id=name, cluster="home", region="edge/home", state=self._states[name], gpu_type="",
            gpus=0, gpus_free=0, cpus=2, cpus_free=1.5, memory_mib=4096, memory_free_mib=2048,
            replicas=1, declared=("accelerators",) if name == "n2" else (), instance_type="",
            market="owned", usd_per_hour=0.05, labels={"zone": "attic"}, taints=(),
            abilities={"cgroup": "v2"}, version="0.1.0", address="127.0.0.1", heard_ms_ago=900,
            metrics={"cpu_percent": 12.5, "memory_used_mb": 2048.0, "memory_total_mb": 4096.0},
        )  # fmt: skip


def _view(job: Job, now_ms: int) -> JobView:
    return JobView(
        id=job.id, name=job.name, user=job.user, phase="queued", reason="waits for its turn",
        priority=job.priority.name, framework=job.framework.value, replicas=job.replicas,
        resources="cpus:1", cluster="", region="", nodes=(), exit_code=None, restarts=0,
        generation=1, submitted_at_ms=now_ms, started_at_ms=0, ended_at_ms=0, usd_per_hour=0.1,
        usd=0.01, gco2e=1.5, queue=job.queue or "default", nice=job.nice,
        width=2 if job.elastic else 0, roles={r.name: r.replicas for r in job.roles},
        awaits=tuple(d.job for d in job.after), tasks=_tasks(job),
    )  # fmt: skip


def _tasks(job: Job) -> TasksView | None:
    if job.array is None:
        return None
    return TasksView(
        size=job.array.size, limit=job.array.limit, waiting=job.array.size - 30, running=10,
        succeeded=18, failed=2, failures=(TaskFailure(7, 1), TaskFailure(9, 137, "out of memory")),
    )  # fmt: skip


def _queue_view(queue: Queue) -> QueueView:
    return QueueView(
        cluster="home", name=queue.name, parent=queue.parent, weight=queue.weight,
        quota=queue.quota, borrow=queue.borrow, lend=queue.lend, used={"gpus_milli": 2500},
        borrowed={}, share=0.25, waiting=3, reclaim=queue.reclaim,
        preempt_within=queue.preempt_within, users=queue.users, stopped=queue.stopped,
    )  # fmt: skip


def _memory() -> list[str]:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return [line for line in rollup.splitlines() if line.startswith(("Pss:", "Rss:"))]


async def main(settings: GatewaySettings, dry: bool) -> None:
    application = Fifo(dry)
    gateway = Gateway(application, settings)
    await gateway.start()
    worker = asyncio.create_task(application.work())
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    if os.environ.get("FIFO_PSS"):
        print(_memory(), file=sys.stderr)
    print(gateway.url or settings.socket_path, flush=True)
    await stopped.wait()
    worker.cancel()
    await gateway.close()
    await application.close()


if __name__ == "__main__":
    asyncio.run(
        main(msgspec.json.decode(sys.argv[1], type=GatewaySettings), "--dry" in sys.argv[2:])
    )
