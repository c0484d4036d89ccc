"""The federation's API over its machine: asks the driver, reads the state, relays to clusters."""

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from hyperion import __version__
from hyperion.adapters.link.errors import LinkError
from hyperion.control.federation import Federation
from hyperion.control.messages import (
    JobCancelRequested,
    JobSubmitted,
)
from hyperion.control.records import FederatedJob, FederatedJobAccepted, FederatedJobMoved
from hyperion.daemon import plugins, views
from hyperion.daemon import questions as q
from hyperion.daemon.application import Conflict, Exhausted, NotFound, Unavailable
from hyperion.daemon.billing import Billing, raise_refusal
from hyperion.daemon.bundles import Bundles
from hyperion.daemon.cluster_calls import Clusters, merged, relayed
from hyperion.daemon.dataset_calls import DatasetCalls
from hyperion.daemon.driver import Driver
from hyperion.daemon.history import History
from hyperion.daemon.market_watch import MarketWatch
from hyperion.model.checks import check
from hyperion.model.cluster import ClusterLoad
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job, JobPhase, Secret
from hyperion.model.market import Offer
from hyperion.model.queue import Queue
from hyperion.placement import explain, ranking
from hyperion.placement.catalogue import catalogue
from hyperion.placement.deadline import off_spot
from hyperion.ports import Clock
from hyperion.wire import spec
from hyperion.wire.api import (
    ActivationView,
    ClusterView,
    JobChange,
    JobView,
    NodeView,
    OfferView,
    OutlookView,
    PlanView,
    PolicyView,
    PromiseView,
    QueueView,
    Submitted,
    VersionView,
    WhyView,
    WindowView,
)
from hyperion.wire.market_api import MarketStatusView, QuoteView
from hyperion.wire.rest import WindowRequest

T = TypeVar("T")
CATALOGUE_ROWS = 12
RANKS_TOGETHER = 48
"""Ranks whose output is read at once; of more, the first ones. A link carries 64 calls."""
ASK_S = 3.0
"""How long a cluster may take to answer a question; the others' answers are shown all the same."""
WATCHERS_MAX = 512
RECALLED = 1000
"""Records of the last process that are read again, for watchers who come back after a restart."""


class Enrolment(Protocol):
    """Who signs certificates."""

    def new_token(self, role: str, name: str, ttl_s: int) -> str: ...

    def redeem(self, token: str, csr_pem: bytes) -> tuple[bytes, bytes]: ...


class FederationApplication(Billing, DatasetCalls):
    """See ``application.Application``, whose shape this has."""

    def __init__(
        self,
        machine: Federation,
        driver: Driver,
        clusters: Clusters,
        bundles: Bundles,
        enrolment: Callable[[], Enrolment],
        clock: Clock,
        trust_domain: str,
        market: MarketWatch,
    ) -> None:
        self._machine = machine
        self._driver = driver
        self._clusters = clusters
        self._bundles = bundles
        self._enrolment = enrolment
        self._clock = clock
        self._trust_domain = trust_domain
        self._market = market
        self._started_at_ms = clock.now_ms()
        self._history = History()
        self._recall(driver)
        driver.subscribe(self._note)

    # -- jobs -----------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        for job in jobs:
            faults = check(job)
            if faults:
                raise spec.refusal(job, faults)
        makes = [lambda token, job=job: JobSubmitted(job, token) for job in jobs]
        answers = await self._driver.ask_all(makes)
        spent, now_ms = self._machine.state.budgets, self._clock.now_ms()
        return [
            Submitted(id=a.job, error=a.error, code=a.code, warning=spent.warning(job, now_ms))
            for a, job in zip(answers, jobs, strict=True)
        ]

    async def plan(self, job: Job) -> PlanView:
        faults = check(job)
        if faults:
            raise spec.refusal(job, faults)
        machine = self._machine
        refusal = machine.hauling.refusal(job)
        if refusal:
            raise Conflict(refusal)
        planned = machine.plan(job)
        if planned.off_spot:
            job = off_spot(job)
        policy = machine.rankers.of(planned.policy)
        regions = {c.cluster.region for c in machine.fleet if c.reachable}
        offers = catalogue(job, machine.market, policy, CATALOGUE_ROWS, regions, machine.data)
        chosen = planned.chosen
        _, rows = explain.decision(job, (*planned.places, *offers), chosen, planned.policy)
        joined = len(planned.places)
        shown = replace(planned, rows=rows[:joined])
        view = views.plan_view(job.id, shown, rows[joined:], machine.market.as_of)
        if not view.chosen or planned.later is not None:
            return view
        try:
            bare = replace(job, secrets={}, envs={})
            body = await self._ask(view.chosen, q.TRIAL, bare)
            return replace(view, outlook=msgspec.json.decode(body, type=OutlookView))
        except Conflict as refused:  # it would not take the job in at all
            return replace(view, chosen="", sentence=f"{view.chosen} would refuse it: {refused}")
        except (NotFound, Unavailable, Exhausted):
            return view  # it is told without, then

    async def job(self, job_id: str) -> JobView:
        return views.job_view(self._find(job_id), self._clock.now_ms())

    async def spec(self, job_id: str) -> Job:
        job = self._find(job_id).job
        names = self._machine.state.secrets.get(job.id, {})
        return replace(job, secrets={name: Secret("***") for name in names})

    async def jobs(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> list[JobView]:
        found: list[FederatedJob] = []
        for known in reversed(self._machine.state.jobs.values()):
            status = known.status
            phase = status.phase.value
            if phase not in phases if phases else status.phase.is_terminal and not ended:
                continue
            if (user and known.job.user != user) or (name and known.job.name != name):
                continue
            if cluster and status.cluster != cluster:
                continue
            found.append(known)
            if len(found) >= limit:
                break
        now_ms = self._clock.now_ms()
        found.sort(key=lambda k: -k.order)
        return [views.job_view(known, now_ms) for known in found]

    async def why(self, job_id: str) -> WhyView:
        known = self._find(job_id)
        view = views.why_view(self._machine, known, self._machine.state.decisions.get(known.job.id))
        status = known.status
        if status.cluster and not status.phase.is_terminal:
            with suppress(NotFound, Unavailable, TimeoutError):
                body = await self._ask(status.cluster, q.EXPLAIN, q.Explain(known.job.id))
                more = msgspec.json.decode(body, type=q.Explanation)
                view = replace(
                    view,
                    sentences=(*view.sentences, *more.sentences),
                    refusals=more.refusals,
                    queue_position=more.queue_position,
                    outlook=more.outlook,
                )
        return view

    async def cancel(self, job_id: str, by: str) -> JobView:
        id = self._find(job_id).job.id
        raise_refusal(await self._driver.ask(lambda token: JobCancelRequested(id, by, token)))
        return await self.job(id)

    async def activate(
        self, job_id: str, release: bool, any_one: bool = False
    ) -> list[ActivationView]:
        known = self._find(job_id)
        if known.job.standby is None:
            raise Conflict(f"job {known.job.id} is no standby; standby: in its spec makes it one")
        if known.status.phase is not JobPhase.RUNNING:
            raise Conflict(f"job {known.job.id} is {known.status.phase.value}, not running")
        question = q.ActivateJob(known.job.id, release, any_one)
        body = await self._ask(known.status.cluster, q.ACTIVATE, question)
        return msgspec.json.decode(body, type=list[ActivationView])

    async def logs(
        self, job_id: str, rank: int | None, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[tuple[int, bytes]]:
        known = self._find(job_id)
        size = known.job.array.size if known.job.array is not None else known.job.replicas
        if rank is not None and not 0 <= rank < size:
            raise NotFound(f"job {known.job.id} has ranks 0 to {size - 1}, not {rank}")
        ranks = range(min(size, RANKS_TOGETHER)) if rank is None else (rank,)
        known = await self._once_placed(known, follow)
        if not known.status.cluster:
            return
        pieces = merged(self._clusters, known, ranks, follow, tail_lines)
        async with aclosing(pieces):  # type: ignore[type-var] # has aclose
            async for piece in pieces:
                yield piece

    async def watch(self, job_id: str | None = None, after: int = 0) -> AsyncIterator[JobChange]:
        if self._history.watchers >= WATCHERS_MAX:
            raise Exhausted(f"{WATCHERS_MAX} watchers are connected; try again later")
        only = self._find(job_id).job.id if job_id else None
        missed = after < self._history.begins
        if after == 0 or missed:
            with_ended = only or (after and missed)
            after = self._history.newest
            now_ms = self._clock.now_ms()
            for known in list(self._machine.state.jobs.values()):
                if only in (None, known.job.id) and (
                    with_ended or not known.status.phase.is_terminal
                ):
                    view = views.job_view(known, now_ms)
                    yield JobChange(sequence=after, at_ms=now_ms, job=view)
        async for change in self._history.follow(after, lambda job: only in (None, job.id)):
            yield change

    # -- places ---------------------------------------------------------------------------------

    async def nodes(self, cluster: str = "") -> list[NodeView]:
        self._known_cluster(cluster)
        found = await self._of_clusters(q.NODES, NodeView, cluster)
        return sorted(found, key=lambda n: (n.cluster, n.id))

    async def clusters(self) -> list[ClusterView]:
        machine, now_ms = self._machine, self._clock.now_ms()
        return [
            views.cluster_view(
                entry.cluster,
                machine.loads.get(id, _NO_LOAD),
                machine.peers.get(id),
                entry.lost,
                machine.market,
                now_ms,
            )
            for id, entry in sorted(machine.state.clusters.items())
        ]

    async def policies(self) -> list[PolicyView]:
        machine = self._machine
        here = "federation"
        found = [
            views.policy_view(machine.rankers.of(name), here, in_force=name == machine.policy)
            for name in sorted({*ranking.known(), *machine.rankers.watched})
        ]
        found += views.broken_policies(plugins.discover(), here)
        return found + await self._of_clusters(q.POLICIES, PolicyView)

    async def promise(self) -> list[PromiseView]:
        return await self._of_clusters(q.PROMISE, PromiseView)

    async def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> list[OfferView]:
        kind, _, count = accelerators.partition(":")

        def wanted(o: Offer) -> bool:
            return (
                (not kind or o.gpu_type.lower() == kind.lower())
                and (not count or str(o.gpus) == count)
                and o.region.startswith(region)
                and market in ("", o.market.value)
            )

        view = self._machine.market
        found = sorted((o for o in view.offers if wanted(o)), key=_per_gpu)
        return [views.offer_view(o, view) for o in found[:limit]]

    async def market(self) -> MarketStatusView:
        return await asyncio.to_thread(self._market.status)  # over thousands of quotes

    async def quotes(self, kind: str, place: str, source: str, limit: int) -> list[QuoteView]:
        return await asyncio.to_thread(self._market.quotes, kind, place, source, limit)

    async def cordon(self, node: str, cordon: bool, drain: bool) -> NodeView:
        cluster, _, name = node.rpartition("/")
        if not cluster:
            homes = [n.cluster for n in await self.nodes() if n.id == name]
            if len(homes) > 1:
                raise Conflict(f"{name} is in {', '.join(homes)}: say {homes[0]}/{name}")
            if not homes:
                raise NotFound(f"no node {name}; hyperion nodes lists them")
            cluster = homes[0]
        body = await self._ask(cluster, q.CORDON, q.Cordon(name, cordon, drain))
        return msgspec.json.decode(body, type=NodeView)

    async def queues(self, cluster: str = "") -> list[QueueView]:
        self._known_cluster(cluster)
        return await self._of_clusters(q.QUEUES, QueueView, cluster)

    async def apply_queues(self, cluster: str, queues: Sequence[Queue]) -> list[QueueView]:
        body = await self._ask(self._one_cluster(cluster), q.APPLY_QUEUES, tuple(queues))
        return msgspec.json.decode(body, type=list[QueueView])

    async def drop_queue(self, cluster: str, queue: str) -> list[QueueView]:
        body = await self._ask(self._one_cluster(cluster), q.DROP_QUEUE, q.Named(queue))
        return msgspec.json.decode(body, type=list[QueueView])

    async def windows(self, cluster: str = "") -> list[WindowView]:
        self._known_cluster(cluster)
        found = await self._of_clusters(q.WINDOWS, WindowView, cluster)
        return sorted(found, key=lambda w: (w.begins_at_ms, w.cluster, w.id))

    async def add_window(self, asked: WindowRequest) -> WindowView:
        body = await self._ask(self._one_cluster(asked.cluster), q.ADD_WINDOW, asked)
        return msgspec.json.decode(body, type=WindowView)

    async def drop_window(self, cluster: str, window: str) -> WindowView:
        body = await self._ask(self._one_cluster(cluster), q.DROP_WINDOW, q.Named(window))
        return msgspec.json.decode(body, type=WindowView)

    # -- the rest -------------------------------------------------------------------------------

    async def version(self) -> VersionView:
        return VersionView(
            version=__version__,
            api="v1",
            python=platform.python_version(),
            started_at_ms=self._started_at_ms,
            trust_domain=self._trust_domain,
        )

    async def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]:
        try:
            return await asyncio.to_thread(lambda: self._enrolment().redeem(token, request_pem))
        except LinkError as error:
            raise Conflict(str(error)) from None

    async def new_join_token(self, role: str, name: str, ttl_s: int) -> str:
        try:
            return await asyncio.to_thread(lambda: self._enrolment().new_token(role, name, ttl_s))
        except LinkError as error:
            raise Conflict(str(error)) from None

    async def upload_bundle(self, chunks: AsyncIterator[bytes]) -> str:
        return f"bundle:sha256:{await self._bundles.keep(chunks)}"

    # -- within ---------------------------------------------------------------------------------

    def _find(self, job_id: str) -> FederatedJob:
        """By id, by name (the newest), or by the beginning of an id if only one has it."""
        jobs = self._machine.state.jobs
        known = jobs.get(JobId(job_id))
        if known is not None:
            return known
        named = [k for k in jobs.values() if k.job.name == job_id]
        if named:
            return max(named, key=lambda k: k.order)
        begun = [k for id, k in jobs.items() if id.startswith(job_id)] if job_id else []
        if len(begun) > 1:
            raise Conflict(f"{len(begun)} jobs begin with {job_id!r}; give more of the id")
        if not begun:
            raise NotFound(f"no job {job_id}; hyperion ps -a lists them")
        return begun[0]

    def _note(self, sequence: int, at_ms: int, records: Sequence[Any]) -> None:
        for n, record in enumerate(records):
            match record:
                case FederatedJobMoved(job) | FederatedJobAccepted(Job(id=job)):
                    known = self._machine.state.jobs.get(job)
                    if known is not None:
                        view = views.job_view(known, at_ms)
                        self._history.add(JobChange(sequence=sequence + n, at_ms=at_ms, job=view))

    def _recall(self, driver: Driver) -> None:
        """What was kept just before this process began, so that watchers can resume across it."""
        entries = driver.recent(RECALLED)
        self._history.begins = entries[0].sequence - 1 if entries else 0
        newest: dict[JobId, tuple[int, int]] = {}
        for entry in entries:
            said = _ABOUT.decode(entry.record)
            job = said.job.id if isinstance(said.job, _Named) else said.job
            if said.type in _CHANGES and job:
                newest.pop(JobId(job), None)
                newest[JobId(job)] = entry.sequence, entry.at_ms
        for job_id, (sequence, at_ms) in newest.items():
            known = self._machine.state.jobs.get(job_id)
            if known is not None:
                view = views.job_view(known, at_ms)
                self._history.add(JobChange(sequence=sequence, at_ms=at_ms, job=view))

    def _known_cluster(self, cluster: str) -> None:
        if cluster and ClusterId(cluster) not in self._machine.state.clusters:
            raise NotFound(f"no cluster {cluster}; hyperion clusters lists them")

    def _one_cluster(self, cluster: str) -> str:
        """The one named; none named is right while only one is here."""
        self._known_cluster(cluster)
        if cluster:
            return cluster
        here = sorted(self._clusters.peers)
        if len(here) == 1:
            return here[0]
        if not here:
            raise Unavailable("no cluster is attached; hyperion clusters lists them")
        raise Conflict(f"there are {len(here)} clusters ({', '.join(here[:10])}): say which")

    async def _of_clusters(self, method: str, row: type[T], cluster: str = "") -> list[T]:
        """The rows that the clusters answer, of all or of one; who is cut off answers none."""
        asked = sorted(c for c in self._clusters.peers if cluster in ("", c))
        bodies = await asyncio.gather(
            *(self._ask(c, method, None) for c in asked), return_exceptions=True
        )
        found: list[T] = []
        for body in bodies:
            if isinstance(body, bytes):
                found += msgspec.json.decode(body, type=list[row])  # type: ignore[valid-type] # a value
        return found

    async def _ask(self, cluster: str, method: str, body: Any) -> bytes:
        raw = msgspec.json.encode(body) if body is not None else b""
        try:
            async with asyncio.timeout(ASK_S):
                return b"".join([x async for x in self._clusters.call(cluster, method, raw)])
        except TimeoutError:
            raise Unavailable(f"{cluster} has not answered within {ASK_S:g} s") from None
        except LinkError as error:
            raise relayed(error) from error

    async def _once_placed(self, known: FederatedJob, follow: bool) -> FederatedJob:
        """The job as soon as a replica of it has been started, or it has ended."""
        id = known.job.id
        while follow and not known.status.phase.is_terminal and not known.status.started_at_ms:
            mark = self._history.newest
            known = self._machine.state.jobs.get(id, known)
            if known.status.started_at_ms or known.status.phase.is_terminal:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for _ in self._history.follow(mark, lambda job: job.id == id):
                        break
            known = self._machine.state.jobs.get(id, known)
        return known


class _Named(msgspec.Struct, frozen=True):
    id: str


class _About(msgspec.Struct, frozen=True):
    """As much of a kept record as says which job it is about."""

    type: str
    job: str | _Named | None = None


_ABOUT = msgspec.json.Decoder(_About)
_CHANGES = (FederatedJobAccepted.__name__, FederatedJobMoved.__name__)
_NO_LOAD = ClusterLoad()


def _per_gpu(offer: Offer) -> tuple[bool, float]:
    return (not offer.gpus, offer.usd_per_hour / (offer.gpus or 1))
