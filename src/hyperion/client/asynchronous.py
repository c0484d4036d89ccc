"""The same client for asyncio: streams and h11."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from hyperion.client import calls
from hyperion.client.address import Address, find
from hyperion.client.errors import HyperionError
from hyperion.client.events import EventReader
from hyperion.client.exchange import Broken, Exchange, Head, Request, Whole
from hyperion.client.follow import LogPlace, Place, WatchPlace
from hyperion.client.patience import Patience
from hyperion.client.reach import (
    CALL_S,
    CONNECT_S,
    SILENCE_S,
    broken,
    caller,
    check_name,
    not_up,
    tls_context,
)
from hyperion.model.job import Job, JobPhase
from hyperion.model.queue import Queue
from hyperion.wire.api import (
    ActivationView,
    ClusterView,
    JobChange,
    JobView,
    NodeView,
    OfferView,
    PlanView,
    PolicyView,
    PromiseView,
    QueueView,
    Submitted,
    VersionView,
    WhyView,
    WindowView,
)
from hyperion.wire.datasets_api import AdviceView, DatasetRequest, DatasetView
from hyperion.wire.market_api import MarketStatusView, QuoteView
from hyperion.wire.money import BudgetRequest, BudgetView, CostView
from hyperion.wire.rest import LogChunk, WindowRequest

T = TypeVar("T")
RECEIVE_BYTES = 1 << 16
MAX_IDLE_CONNECTIONS = 8
# The method ``list`` hides the built-in one inside the class.
Submissions = list[Submitted]
JobViews = list[JobView]
NodeViews = list[NodeView]
ActivationViews = list[ActivationView]
ClusterViews = list[ClusterView]
OfferViews = list[OfferView]
PolicyViews = list[PolicyView]
PromiseViews = list[PromiseView]
QueueViews = list[QueueView]
QuoteViews = list[QuoteView]
WindowViews = list[WindowView]
BudgetViews = list[BudgetView]
DatasetViews = list[DatasetView]
AdviceViews = list[AdviceView]


class AsyncClient:
    """Talks to one federation from one event loop; see ``Client``, whose methods these are."""

    def __init__(
        self, server: str = "", token: str = "", user: str = "", timeout_s: float = CALL_S
    ) -> None:
        self.address = find(server, token)
        self._user = user or caller()
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._reached = False

    @classmethod
    def at(cls, address: Address) -> Self:
        """A client of an address that is known in full."""
        client = cls(str(address))
        client.address = address
        return client

    async def ask(self, call: calls.Call[T]) -> T:
        """The answer to a call that has no method here."""
        return await self._call(call)

    async def submit(self, spec: calls.Spec) -> str:
        """Keep one job; its id. Raises SpecRefused with every fault of the spec."""
        (answer,) = await self.submit_all([spec])
        return answer.id

    async def submit_all(self, specs: Sequence[calls.Spec]) -> Submissions:
        """Keep up to 1000 jobs, all or none where a spec has a fault."""
        return await self._call(calls.submit([calls.as_job(spec) for spec in specs]))

    async def plan(self, spec: calls.Spec) -> PlanView:
        """Where it would go. Changes nothing."""
        return await self._call(calls.plan(calls.as_job(spec)))

    async def get(self, job_id: str) -> JobView:
        """``job_id`` may be a unique prefix or a job's name, here and below."""
        return await self._call(calls.job(job_id))

    async def spec(self, job_id: str) -> Job:
        """The job as submitted; secrets are ``***``."""
        return await self._call(calls.spec(job_id))

    async def why(self, job_id: str) -> WhyView:
        return await self._call(calls.why(job_id))

    async def list(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> JobViews:
        """Newest first; ended ones only with ``ended`` or where ``phases`` names theirs."""
        return await self._call(calls.jobs(phases, user, name, cluster, ended, limit))

    async def cancel(self, job_id: str) -> JobView:
        return await self._call(calls.cancel(job_id))

    async def activate(self, job_id: str, any_one: bool = False) -> ActivationViews:
        """A standby is wanted: those on whose CPUs it sits stand still. With ``any_one`` the first
        of its replicas that answers will do."""
        return await self._call(calls.activate(job_id, release=False, any_one=any_one))

    async def release(self, job_id: str) -> ActivationViews:
        """It is wanted no more, without waiting until it is quiet."""
        return await self._call(calls.activate(job_id, release=True))

    async def nodes(self, cluster: str = "") -> NodeViews:
        return await self._call(calls.nodes(cluster))

    async def cordon(self, node: str) -> NodeView:
        """Nothing new is placed on the node (``cluster/node``, or its name where unique)."""
        return await self._call(calls.cordon(await self._node(node), "cordon"))

    async def uncordon(self, node: str) -> NodeView:
        return await self._call(calls.cordon(await self._node(node), "uncordon"))

    async def drain(self, node: str) -> NodeView:
        """Cordon, and move away what runs there."""
        return await self._call(calls.cordon(await self._node(node), "drain"))

    async def clusters(self) -> ClusterViews:
        return await self._call(calls.clusters())

    async def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> OfferViews:
        return await self._call(calls.offers(accelerators, region, market, limit))

    async def market(self) -> MarketStatusView:
        """The feeds that are asked for quotes, and what of their answers is not believed."""
        return await self._call(calls.market())

    async def quotes(
        self, kind: str = "", place: str = "", source: str = "", limit: int = 1000
    ) -> QuoteViews:
        """The last good quote of each source: prices, egress, carbon, obtainability."""
        return await self._call(calls.quotes(kind, place, source, limit))

    async def policies(self) -> PolicyViews:
        """Ranking policies: where each comes from, where it decides, what it did wrong last."""
        return await self._call(calls.policies())

    async def slo(self) -> PromiseViews:
        """What it took to let jobs stand still for more urgent ones, by step and node."""
        return await self._call(calls.slo())

    async def queues(self, cluster: str = "") -> QueueViews:
        """Of one cluster or of all; parents before their children."""
        return await self._call(calls.queues(cluster))

    async def apply_queues(self, queues: Sequence[Queue], cluster: str = "") -> QueueViews:
        """Make this the whole tree of a cluster (empty: of the only one that has joined)."""
        return await self._call(calls.apply_queues(cluster, queues))

    async def drop_queue(self, cluster: str, queue: str) -> QueueViews:
        """Take one leaf out of the tree; the queues that are left."""
        return await self._call(calls.drop_queue(cluster, queue))

    async def windows(self, cluster: str = "") -> WindowViews:
        """Maintenance and reservations that are not over yet."""
        return await self._call(calls.windows(cluster))

    async def add_window(self, asked: WindowRequest) -> WindowView:
        """Keep nodes free for a while; a window of the same id is replaced."""
        return await self._call(calls.add_window(asked))

    async def drop_window(self, cluster: str, window: str) -> WindowView:
        return await self._call(calls.drop_window(cluster, window))

    async def cost(
        self, by: str = "user", since_ms: int = 0, until_ms: int = 0, limit: int = 1000
    ) -> CostView:
        """The bill by user, queue, job, cluster or month; with it what runs has cost so far."""
        return await self._call(calls.cost(by, since_ms, until_ms, limit))

    async def budgets(self) -> BudgetViews:
        return await self._call(calls.budgets())

    async def set_budget(
        self, tenant: str, usd: float, per: str = "month", then: str = "warn"
    ) -> BudgetViews:
        """What ``user:NAME`` or ``queue:NAME`` may spend; ``then`` is warn, hold or pause."""
        asked = BudgetRequest(tenant=tenant, usd=usd, per=per, then=then)
        return await self._call(calls.set_budget(asked))

    async def drop_budget(self, tenant: str) -> BudgetViews:
        return await self._call(calls.drop_budget(tenant))

    async def datasets(self) -> DatasetViews:
        """Each with the regions in which it lies, or to which it is on its way."""
        return await self._call(calls.datasets())

    async def add_dataset(
        self,
        name: str,
        size_gib: float | None = None,
        regions: Sequence[str] = (),
        growth_gib_per_day: float | None = None,
        keep_h: float | None = None,
    ) -> DatasetView:
        """Say where a dataset lies; of a known one, also there. None leaves what is known."""
        asked = DatasetRequest(
            name=name,
            size_gib=size_gib,
            growth_gib_per_day=growth_gib_per_day,
            keep_h=keep_h,
            regions=tuple(regions),
        )
        return await self._call(calls.add_dataset(asked))

    async def drop_dataset(self, name: str, region: str = "") -> DatasetViews:
        """Forget it, or with ``region`` the copy there; its files are left alone."""
        return await self._call(calls.drop_dataset(name, region))

    async def dataset_advice(self) -> AdviceViews:
        """Copies that would pay for themselves, and copies that do not."""
        return await self._call(calls.dataset_advice())

    async def version(self) -> VersionView:
        return await self._call(calls.version())

    async def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]:
        """(certificate, authority), both PEM. Not tried again: the token works once."""
        answer = await self._call(calls.join(token, request_pem))
        return answer.certificate_pem.encode(), answer.ca_pem.encode()

    async def new_join_token(self, role: str, name: str, ttl_s: int = 3600) -> str:
        return (await self._call(calls.new_join_token(role, name, ttl_s))).token

    async def upload_bundle(self, archive: bytes) -> str:
        """Keep a tar.gz; the answer is for a spec's ``workdir``."""
        return (await self._call(calls.upload(archive))).workdir

    async def watch(self, job_id: str = "", after: int = 0) -> AsyncGenerator[JobChange, None]:
        """Changes as they are kept, over broken connections. With ``after`` 0 the present first."""
        async with contextlib.aclosing(self._follow(WatchPlace(job_id, after))) as changes:
            async for change in changes:
                yield change

    async def wait(self, job_id: str, timeout_s: float | None = None) -> JobView:
        """The job once it has ended. Raises TimedOut."""
        following = self._follow(WatchPlace(job_id, 0), Patience(timeout_s))
        async with contextlib.aclosing(following) as changes:
            async for change in changes:
                if JobPhase(change.job.phase).is_terminal:
                    return change.job
        return await self.get(job_id)

    async def logs(
        self,
        job_id: str,
        rank: int | None = None,
        follow: bool = True,
        tail_lines: int | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        """Output so far and, with ``follow``, as it comes until the job has ended."""
        if follow:
            place = LogPlace(job_id, rank, tail_lines)
            async with contextlib.aclosing(self._follow(place)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        async for piece in self.log_bytes(job_id, rank, tail_lines):
            yield LogChunk(rank=rank or 0, text=piece.decode("utf-8", "replace"))

    async def log_bytes(
        self, job_id: str, rank: int | None = None, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Output so far: of one rank as it was written, of several as lines ``RANK| …``."""
        patience = Patience(None)
        connection = await self._connected(patience)
        try:
            async for piece in connection.stream(calls.logs(job_id, rank, tail_lines), patience):
                yield piece
        finally:
            connection.close()

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _node(self, node: str) -> str:
        return node if "/" in node else calls.only_node(node, await self.nodes())

    async def _call(self, call: calls.Call[T]) -> T:
        patience = Patience(self._timeout_s)
        while True:
            retry_after_s = None
            try:
                head, body = await self._attempt(call.request, patience)
                retry_after_s = head.retry_after_s
                return calls.result(call, head, body)
            except HyperionError as error:
                if not call.again or not self._reached:
                    raise
                await asyncio.sleep(patience.pause_s(error, retry_after_s))

    async def _attempt(self, request: Request, patience: Patience) -> tuple[Head, bytes]:
        connection = self._idle.pop() if self._idle else await self._connected(patience)
        try:
            whole = await connection.ask(request, patience)
        except BaseException:
            connection.close()
            raise
        if connection.renew() and len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()
        return whole.head, whole.body

    async def _connected(self, patience: Patience) -> "_Connection":
        connection = _Connection(self.address, self._user)
        await connection.open(patience.left_s(CONNECT_S))
        self._reached = True
        return connection

    async def _follow(
        self, place: Place[T], patience: Patience | None = None
    ) -> AsyncGenerator[T, None]:
        patience = patience or Patience(None)
        while not place.ended:
            try:
                connection = await self._connected(patience)
                with contextlib.closing(connection):
                    async with contextlib.aclosing(connection.events(place, patience)) as items:
                        async for item in items:
                            patience.progress()
                            yield item
                    if not place.ended:
                        raise broken(self.address, "the stream ended early")
            except HyperionError as error:
                if not (self._reached and place.may_resume):
                    raise
                await asyncio.sleep(patience.pause_s(error))


class _Connection:
    """A pair of streams with its exchange."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter | None = None

    def __init__(self, address: Address, user: str) -> None:
        self._address = address
        self._exchange = Exchange(address, user)

    async def open(self, timeout_s: float | None) -> None:
        address = self._address
        try:
            async with asyncio.timeout(timeout_s):
                if address.path:
                    self._reader, self._writer = await asyncio.open_unix_connection(address.path)
                else:
                    self._reader, self._writer = await asyncio.open_connection(
                        address.host,
                        address.port,
                        ssl=tls_context(address) if address.tls else None,
                    )
        except OSError as error:
            raise not_up(address, error) from None
        try:
            check_name(address, self._writer.get_extra_info("peercert"))
        except HyperionError:
            self._writer.close()
            raise

    async def ask(self, request: Request, patience: Patience) -> Whole:
        """One request with its whole answer."""
        whole = Whole()
        async with contextlib.aclosing(self._pieces(request, patience, None)) as pieces:
            async for piece in pieces:
                if whole.add(piece):
                    break
        return whole

    async def stream(self, request: Request, patience: Patience) -> AsyncGenerator[bytes, None]:
        """The body in pieces; an answer that is an error is raised."""
        failed: Whole | None = None
        async with contextlib.aclosing(self._pieces(request, patience, SILENCE_S)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Head) and piece.status != 200:
                    failed = Whole()
                if failed is not None:
                    if failed.add(piece):
                        calls.raise_for(failed.head, failed.body)
                elif isinstance(piece, bytes):
                    yield piece
                elif piece is None:
                    return

    async def events(self, place: Place[T], patience: Patience) -> AsyncGenerator[T, None]:
        reader = EventReader()
        async with contextlib.aclosing(self.stream(place.request(), patience)) as pieces:
            async for piece in pieces:
                for event in reader.feed(piece):
                    item = place.take(event)
                    if item is not None:
                        yield item
                    if place.ended:
                        return

    def renew(self) -> bool:
        return self._exchange.renew()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _pieces(
        self, request: Request, patience: Patience, silence_s: float | None
    ) -> AsyncGenerator[Head | bytes | None, None]:
        assert self._writer is not None
        try:
            self._writer.write(self._exchange.begin(request))
            async with asyncio.timeout(patience.left_s(silence_s)):
                await self._writer.drain()
            while True:
                for piece in self._exchange.pieces():
                    yield piece
                    if piece is None:
                        return
                async with asyncio.timeout(patience.left_s(silence_s)):
                    received = await self._reader.read(RECEIVE_BYTES)
                self._exchange.feed(received)
        except TimeoutError:
            patience.left_s()  # TimedOut, where it was the caller's time that ran out
            raise broken(self._address, f"silent for {silence_s:g} s") from None
        except (OSError, Broken) as error:
            raise broken(self._address, error) from None
