"""What a federation offers its callers; REST and gRPC are two thin skins over this one page."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from hyperion.model.job import Job
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
from hyperion.wire.rest import WindowRequest


class NotFound(Exception):
    """There is no such job, node or cluster; the message names it."""


class Conflict(Exception):
    """The wish contradicts what already is; the message says how."""


class Exhausted(Exception):
    """A bound has been reached (queue full, too many streams); try again later."""


class Unavailable(Exception):
    """The part that would answer (a cluster, an agent) cannot be reached now."""


class Application(Protocol):
    """All methods raise the errors above, and nothing else that a caller could cause."""

    async def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Keep these jobs; returns once they are durable. A job id that is known already is no
        second job: the answer is the same as the first time (a retry is safe)."""

    async def plan(self, job: Job) -> PlanView:
        """Where would it go, at what cost, and why not elsewhere."""

    async def job(self, job_id: str) -> JobView:
        """``job_id`` may be a unique prefix or the newest job of that name, here and below."""

    async def spec(self, job_id: str) -> Job:
        """The job as submitted, secrets' values replaced by ``***``."""

    async def jobs(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> list[JobView]:
        """Newest first. Ended ones only with ``ended`` or where ``phases`` names their phase."""

    async def why(self, job_id: str) -> WhyView: ...

    async def cancel(self, job_id: str, by: str) -> JobView: ...

    def logs(
        self, job_id: str, rank: int | None, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(rank, chunk) of output; every rank where None."""

    def watch(self, job_id: str | None = None, after: int = 0) -> AsyncIterator[JobChange]:
        """Changes as they are kept, from sequence ``after`` as far as they are still held. First,
        with ``after`` 0, the present state of each job asked for."""

    async def nodes(self, cluster: str = "") -> list[NodeView]: ...

    async def clusters(self) -> list[ClusterView]: ...

    async def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> list[OfferView]:
        """Cheapest per GPU first; a prefix of the region will do."""

    async def market(self) -> MarketStatusView:
        """The feeds that are asked for quotes, and what of their answers is not believed."""

    async def quotes(self, kind: str, place: str, source: str, limit: int) -> list[QuoteView]:
        """The last good quote of each source; a prefix of the place will do."""

    async def policies(self) -> list[PolicyView]:
        """Those known to the federation, then those in force or broken in each cluster."""

    async def promise(self) -> list[PromiseView]:
        """What it took to let jobs stand still for others, by cluster, step and node."""

    async def activate(
        self, job_id: str, release: bool, any_one: bool = False
    ) -> list[ActivationView]:
        """Want a standby, or want it no more: NotFound, or Conflict for one that is none.
        ``any_one``: one replica will do, the first that answers."""

    async def cordon(self, node: str, cordon: bool, drain: bool) -> NodeView:
        """``node`` is ``cluster/node``, or a node's name where it is unique."""

    async def queues(self, cluster: str = "") -> list[QueueView]:
        """Of one cluster or of all; parents before their children."""

    async def apply_queues(self, cluster: str, queues: Sequence[Queue]) -> list[QueueView]:
        """Make this the whole tree of a cluster (empty: of the only one that has joined)."""

    async def drop_queue(self, cluster: str, queue: str) -> list[QueueView]:
        """Take one leaf out of the tree; the queues that are left."""

    async def windows(self, cluster: str = "") -> list[WindowView]:
        """Those that are not over yet, by their begin."""

    async def add_window(self, asked: WindowRequest) -> WindowView:
        """A window of the same id is replaced."""

    async def drop_window(self, cluster: str, window: str) -> WindowView:
        """The window as it was."""

    async def cost(self, by: str, since_ms: int, until_ms: int, limit: int) -> CostView:
        """The bill of a span; ``until_ms`` 0 is now."""

    async def budgets(self) -> list[BudgetView]: ...

    async def apply_budget(self, asked: BudgetRequest) -> list[BudgetView]:
        """One of the same tenant is replaced; the budgets as they are then."""

    async def drop_budget(self, tenant: str) -> list[BudgetView]: ...

    async def datasets(self) -> list[DatasetView]: ...

    async def apply_dataset(self, asked: DatasetRequest) -> DatasetView:
        """One of the same name gets what is said anew, and keeps the rest."""

    async def drop_dataset(self, name: str, region: str) -> list[DatasetView]:
        """All of it, or with ``region`` the copy there; the datasets that are left."""

    async def dataset_advice(self) -> list[AdviceView]: ...

    async def version(self) -> VersionView: ...

    async def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]:
        """(certificate PEM, CA PEM) for a one-time token; the token says which identity it is."""

    async def new_join_token(self, role: str, name: str, ttl_s: int) -> str:
        """A one-time token for ``hyperion join``; role is agent, scheduler or client."""

    async def upload_bundle(self, chunks: AsyncIterator[bytes]) -> str:
        """Keep a workdir archive (tar.gz); returns ``bundle:sha256:…``."""
