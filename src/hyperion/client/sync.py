"""The blocking client: sockets and h11, nothing that a quick command would have to wait for."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

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

if TYPE_CHECKING:
    import ssl

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


class Client:
    """Talks to one federation. Threads may share it. Every method raises HyperionError.

    ``server`` is ``http(s)://…`` or ``unix:PATH``; without it see ``client.address.find``.
    ``timeout_s`` bounds each call with all its attempts.
    """

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

    def ask(self, call: calls.Call[T]) -> T:
        """The answer to a call that has no method here."""
        return self._call(call)

    def submit(self, spec: calls.Spec) -> str:
        """Keep one job; its id. Raises SpecRefused with every fault of the spec."""
        (answer,) = self.submit_all([spec])
        return answer.id

    def submit_all(self, specs: Sequence[calls.Spec]) -> Submissions:
        """Keep up to 1000 jobs, all or none where a spec has a fault."""
        return self._call(calls.submit([calls.as_job(spec) for spec in specs]))

    def plan(self, spec: calls.Spec) -> PlanView:
        """Where it would go. Changes nothing."""
        return self._call(calls.plan(calls.as_job(spec)))

    def get(self, job_id: str) -> JobView:
        """``job_id`` may be a unique prefix or a job's name, here and below."""
        return self._call(calls.job(job_id))

    def spec(self, job_id: str) -> Job:
        """The job as submitted; secrets are ``***``."""
        return self._call(calls.spec(job_id))

    def why(self, job_id: str) -> WhyView:
        return self._call(calls.why(job_id))

    def list(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> JobViews:
        """Newest first; ended ones only with ``ended`` or where ``phases`` names theirs."""
        return self._call(calls.jobs(phases, user, name, cluster, ended, limit))

    def cancel(self, job_id: str) -> JobView:
        return self._call(calls.cancel(job_id))

    def activate(self, job_id: str, any_one: bool = False) -> ActivationViews:
        """A standby is wanted: those on whose CPUs it sits stand still. With ``any_one`` the first
        of its replicas that answers will do."""
        return self._call(calls.activate(job_id, release=False, any_one=any_one))

    def release(self, job_id: str) -> ActivationViews:
        """It is wanted no more, without waiting until it is quiet."""
        return self._call(calls.activate(job_id, release=True))

    def nodes(self, cluster: str = "") -> NodeViews:
        return self._call(calls.nodes(cluster))

    def cordon(self, node: str) -> NodeView:
        """Nothing new is placed on the node (``cluster/node``, or its name where unique)."""
        return self._call(calls.cordon(self._node(node), "cordon"))

    def uncordon(self, node: str) -> NodeView:
        return self._call(calls.cordon(self._node(node), "uncordon"))

    def drain(self, node: str) -> NodeView:
        """Cordon, and move away what runs there."""
        return self._call(calls.cordon(self._node(node), "drain"))

    def clusters(self) -> ClusterViews:
        return self._call(calls.clusters())

    def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> OfferViews:
        return self._call(calls.offers(accelerators, region, market, limit))

    def market(self) -> MarketStatusView:
        """The feeds that are asked for quotes, and what of their answers is not believed."""
        return self._call(calls.market())

    def quotes(
        self, kind: str = "", place: str = "", source: str = "", limit: int = 1000
    ) -> QuoteViews:
        """The last good quote of each source: prices, egress, carbon, obtainability."""
        return self._call(calls.quotes(kind, place, source, limit))

    def policies(self) -> PolicyViews:
        """Ranking policies: where each comes from, where it decides, what it did wrong last."""
        return self._call(calls.policies())

    def slo(self) -> PromiseViews:
        """What it took to let jobs stand still for more urgent ones, by step and node."""
        return self._call(calls.slo())

    def queues(self, cluster: str = "") -> QueueViews:
        """Of one cluster or of all; parents before their children."""
        return self._call(calls.queues(cluster))

    def apply_queues(self, queues: Sequence[Queue], cluster: str = "") -> QueueViews:
        """Make this the whole tree of a cluster (empty: of the only one that has joined)."""
        return self._call(calls.apply_queues(cluster, queues))

    def drop_queue(self, cluster: str, queue: str) -> QueueViews:
        """Take one leaf out of the tree; the queues that are left."""
        return self._call(calls.drop_queue(cluster, queue))

    def windows(self, cluster: str = "") -> WindowViews:
        """Maintenance and reservations that are not over yet."""
        return self._call(calls.windows(cluster))

    def add_window(self, asked: WindowRequest) -> WindowView:
        """Keep nodes free for a while; a window of the same id is replaced."""
        return self._call(calls.add_window(asked))

    def drop_window(self, cluster: str, window: str) -> WindowView:
        return self._call(calls.drop_window(cluster, window))

    def cost(
        self, by: str = "user", since_ms: int = 0, until_ms: int = 0, limit: int = 1000
    ) -> CostView:
        """The bill by user, queue, job, cluster or month; with it what runs has cost so far."""
        return self._call(calls.cost(by, since_ms, until_ms, limit))

    def budgets(self) -> BudgetViews:
        return self._call(calls.budgets())

    def set_budget(
        self, tenant: str, usd: float, per: str = "month", then: str = "warn"
    ) -> BudgetViews:
        """What ``user:NAME`` or ``queue:NAME`` may spend; ``then`` is warn, hold or pause."""
        asked = BudgetRequest(tenant=tenant, usd=usd, per=per, then=then)
        return self._call(calls.set_budget(asked))

    def drop_budget(self, tenant: str) -> BudgetViews:
        return self._call(calls.drop_budget(tenant))

    def datasets(self) -> DatasetViews:
        """Each with the regions in which it lies, or to which it is on its way."""
        return self._call(calls.datasets())

    def add_dataset(
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
        return self._call(calls.add_dataset(asked))

    def drop_dataset(self, name: str, region: str = "") -> DatasetViews:
        """Forget it, or with ``region`` the copy there; its files are left alone."""
        return self._call(calls.drop_dataset(name, region))

    def dataset_advice(self) -> AdviceViews:
        """Copies that would pay for themselves, and copies that do not."""
        return self._call(calls.dataset_advice())

    def version(self) -> VersionView:
        return self._call(calls.version())

    def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]:
        """(certificate, authority), both PEM. Not tried again: the token works once."""
        answer = self._call(calls.join(token, request_pem))
        return answer.certificate_pem.encode(), answer.ca_pem.encode()

    def new_join_token(self, role: str, name: str, ttl_s: int = 3600) -> str:
        return self._call(calls.new_join_token(role, name, ttl_s)).token

    def upload_bundle(self, archive: bytes) -> str:
        """Keep a tar.gz; the answer is for a spec's ``workdir``."""
        return self._call(calls.upload(archive)).workdir

    def watch(self, job_id: str = "", after: int = 0) -> Iterator[JobChange]:
        """Changes as they are kept, over broken connections. With ``after`` 0 the present first."""
        yield from self._follow(WatchPlace(job_id, after))

    def wait(self, job_id: str, timeout_s: float | None = None) -> JobView:
        """The job once it has ended. Raises TimedOut."""
        patience = Patience(timeout_s)
        for change in self._follow(WatchPlace(job_id, 0), patience):
            if JobPhase(change.job.phase).is_terminal:
                return change.job
        return self.get(job_id)

    def logs(
        self,
        job_id: str,
        rank: int | None = None,
        follow: bool = True,
        tail_lines: int | None = None,
    ) -> Iterator[LogChunk]:
        """Output so far and, with ``follow``, as it comes until the job has ended."""
        if follow:
            yield from self._follow(LogPlace(job_id, rank, tail_lines))
            return
        for piece in self.log_bytes(job_id, rank, tail_lines):
            yield LogChunk(rank=rank or 0, text=piece.decode("utf-8", "replace"))

    def log_bytes(
        self, job_id: str, rank: int | None = None, tail_lines: int | None = None
    ) -> Iterator[bytes]:
        """Output so far: of one rank as it was written, of several as lines ``RANK| …``."""
        connection = self._connected(Patience(self._timeout_s))
        with contextlib.closing(connection):
            yield from connection.stream(calls.logs(job_id, rank, tail_lines))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _node(self, node: str) -> str:
        return node if "/" in node else calls.only_node(node, self.nodes())

    def _call(self, call: calls.Call[T]) -> T:
        patience = Patience(self._timeout_s)
        while True:
            retry_after_s = None
            try:
                head, body = self._attempt(call.request, patience)
                retry_after_s = head.retry_after_s
                return calls.result(call, head, body)
            except HyperionError as error:
                if not call.again or not self._reached:
                    raise
                time.sleep(patience.pause_s(error, retry_after_s))

    def _attempt(self, request: Request, patience: Patience) -> tuple[Head, bytes]:
        connection = self._idle.pop() if self._idle else self._connected(patience)
        try:
            whole = connection.ask(request, patience)
        except BaseException:
            connection.close()
            raise
        if connection.renew() and len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()
        return whole.head, whole.body

    def _connected(self, patience: Patience) -> "_Connection":
        connection = _Connection(self.address, self._user, patience.left_s(CONNECT_S) or CONNECT_S)
        self._reached = True
        return connection

    def _follow(self, place: Place[T], patience: Patience | None = None) -> Iterator[T]:
        patience = patience or Patience(None)
        while not place.ended:
            try:
                with contextlib.closing(self._connected(patience)) as connection:
                    for item in connection.events(place, patience):
                        patience.progress()
                        yield item
                    if not place.ended:
                        raise broken(self.address, "the stream ended early")
            except HyperionError as error:
                if not (self._reached and place.may_resume):
                    raise
                time.sleep(patience.pause_s(error))


class _Connection:
    """A socket with its exchange."""

    def __init__(self, address: Address, user: str, timeout_s: float) -> None:
        self._address = address
        self._exchange = Exchange(address, user)
        try:
            self._socket = _open(address, timeout_s)
        except OSError as error:
            raise not_up(address, error) from None

    def ask(self, request: Request, patience: Patience) -> Whole:
        """One request with its whole answer."""
        whole = Whole()
        for piece in self._pieces(request, patience, None):
            if whole.add(piece):
                break
        return whole

    def stream(self, request: Request, patience: Patience | None = None) -> Iterator[bytes]:
        """The body in pieces; an answer that is an error is raised."""
        failed: Whole | None = None
        for piece in self._pieces(request, patience or Patience(None), SILENCE_S):
            if isinstance(piece, Head) and piece.status != 200:
                failed = Whole()
            if failed is not None:
                if failed.add(piece):
                    calls.raise_for(failed.head, failed.body)
            elif isinstance(piece, bytes):
                yield piece
            elif piece is None:
                return

    def events(self, place: Place[T], patience: Patience) -> Iterator[T]:
        reader = EventReader()
        for piece in self.stream(place.request(), patience):
            for event in reader.feed(piece):
                item = place.take(event)
                if item is not None:
                    yield item
                if place.ended:
                    return

    def renew(self) -> bool:
        return self._exchange.renew()

    def close(self) -> None:
        self._socket.close()

    def _pieces(
        self, request: Request, patience: Patience, silence_s: float | None
    ) -> Iterator[Head | bytes | None]:
        try:
            self._socket.settimeout(patience.left_s(silence_s))
            self._socket.sendall(self._exchange.begin(request))
            while True:
                for piece in self._exchange.pieces():
                    yield piece
                    if piece is None:
                        return
                self._socket.settimeout(patience.left_s(silence_s))
                self._exchange.feed(self._socket.recv(RECEIVE_BYTES))
        except TimeoutError:
            patience.left_s()  # TimedOut, where it was the caller's time that ran out
            raise broken(self._address, f"silent for {silence_s:g} s") from None
        except (OSError, Broken) as error:
            raise broken(self._address, error) from None


def _open(address: Address, timeout_s: float) -> socket.socket:
    if address.path:
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            local.settimeout(timeout_s)
            local.connect(address.path)
        except OSError:
            local.close()
            raise
        return local
    plain = socket.create_connection((address.host, address.port), timeout_s)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return plain
    secured: ssl.SSLSocket | None = None
    try:
        secured = tls_context(address).wrap_socket(plain, server_hostname=address.host)
        check_name(address, secured.getpeercert())
    except BaseException:
        (secured or plain).close()
        raise
    return secured
