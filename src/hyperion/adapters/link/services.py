"""The contract's services over plain Python objects that know nothing of gRPC."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc
from msgspec import structs

from hyperion.adapters.link.dataset_methods import DatasetOperations, dataset_methods
from hyperion.adapters.link.errors import KINDS, Conflict, Denied, Invalid
from hyperion.adapters.link.gate import Gate, Handler
from hyperion.adapters.link.identity import Identity, Role, parse_role
from hyperion.model.ids import UserId
from hyperion.model.job import Job
from hyperion.ports import Reading
from hyperion.wire import codec
from hyperion.wire.api import (
    ClusterView,
    JobChange,
    JobView,
    NodeView,
    OfferView,
    PlanView,
    Submitted,
    VersionView,
    WhyView,
)
from hyperion.wire.generated import federation_pb2 as api
from hyperion.wire.generated import job_pb2, node_pb2

T = TypeVar("T")
PEOPLE = frozenset({Role.CLIENT, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})
SUBMITTERS = frozenset({Role.FEDERATION, Role.CLIENT, Role.ADMIN})
EVERYBODY = frozenset(Role)
JOINABLE = frozenset({Role.AGENT, Role.SCHEDULER, Role.CLIENT})
"""Roles that a join token may give. An admin is made on the federation's own machine only."""
TOKEN_TTL_S = 3600
LIST_LIMIT = 1000
OFFER_LIMIT = 200

Submit = Callable[[Sequence[Job]], Awaitable[Sequence[Submitted]]]


class Operations(Protocol):
    """What a scheduler offers its operators."""

    async def nodes(self, cluster: str = "") -> list[NodeView]: ...

    async def cordon(self, node: str, cordon: bool, drain: bool) -> NodeView: ...


class FederationCalls(Operations, DatasetOperations, Protocol):
    """What a federation offers its callers; the daemon's application has this shape."""

    async def submit(self, jobs: Sequence[Job]) -> list[Submitted]: ...

    async def plan(self, job: Job) -> PlanView: ...

    async def job(self, job_id: str) -> JobView: ...

    async def spec(self, job_id: str) -> Job: ...

    async def jobs(
        self,
        phases: Sequence[str] = (),
        user: str = "",
        name: str = "",
        cluster: str = "",
        ended: bool = False,
        limit: int = 1000,
    ) -> list[JobView]: ...

    async def why(self, job_id: str) -> WhyView: ...

    async def cancel(self, job_id: str, by: str) -> JobView: ...

    def logs(
        self, job_id: str, rank: int | None, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[tuple[int, bytes]]: ...

    def watch(self, job_id: str | None = None, after: int = 0) -> AsyncIterator[JobChange]: ...

    async def clusters(self) -> list[ClusterView]: ...

    async def offers(
        self, accelerators: str = "", region: str = "", market: str = "", limit: int = 200
    ) -> list[OfferView]: ...

    async def version(self) -> VersionView: ...

    async def join(self, token: str, request_pem: bytes) -> tuple[bytes, bytes]: ...

    async def new_join_token(self, role: str, name: str, ttl_s: int) -> str: ...

    async def upload_bundle(self, chunks: AsyncIterator[bytes]) -> str: ...


def node_observer(
    gate: Gate, cluster: str, measured: Callable[[str, Reading], None]
) -> grpc.GenericRpcHandler:
    """The blueprint's NodeObserver: an agent reports on its own node and on no other."""

    async def report(identity: Identity, messages: AsyncIterator[Any]) -> Any:
        async for message in messages:
            node, reading = codec.metrics_from_proto(message)
            if identity.name != f"{cluster}/{node}":
                raise Denied(f"{identity} may not report for node {node[:200]!r} of {cluster}")
            measured(node, reading)
        return node_pb2.Ack(success=True)

    method = gate.on_stream(node_pb2.NodeMetrics, {Role.AGENT}, report)
    return _service("hyperion.v1.NodeObserver", {"ReportMetrics": method})


def federation_scheduler(gate: Gate, submit: Submit) -> grpc.GenericRpcHandler:
    """The blueprint's FederationScheduler, at a cluster or at the federation alike."""

    async def submit_job(identity: Identity, message: Any) -> Any:
        submitted = (await submit([_job(identity, message)]))[0]
        if submitted.error:
            raise KINDS.get(submitted.code, Conflict)(submitted.error)
        return job_pb2.JobStatus(job_id=submitted.id, status_message="accepted")

    method = gate.unary(job_pb2.AIJob, SUBMITTERS, submit_job)
    return _service("hyperion.v1.FederationScheduler", {"SubmitJob": method})


def scheduler(gate: Gate, operations: Operations) -> grpc.GenericRpcHandler:
    """A cluster's own API, for its operators while the federation is away."""
    return _service("hyperion.v1.Scheduler", _node_methods(gate, operations))


def federation(gate: Gate, calls: FederationCalls) -> grpc.GenericRpcHandler:
    """The federation's API: what REST offers, in gRPC."""
    return _service(
        "hyperion.v1.Federation",
        {
            **_node_methods(gate, calls),
            **_job_methods(gate, calls),
            **_stream_methods(gate, calls),
            **_place_methods(gate, calls),
            **dataset_methods(gate, calls),
            **_join_methods(gate, calls),
        },
    )


def _job_methods(gate: Gate, calls: FederationCalls) -> dict[str, Handler]:
    async def submit(who: Identity, asked: Any) -> Any:
        if not asked.jobs:
            raise Invalid("jobs: found none, expected at least one")
        submitted = await calls.submit([_job(who, job) for job in asked.jobs])
        return api.SubmitJobsResponse(jobs=map(codec.view_to_proto, submitted))

    async def plan(who: Identity, asked: Any) -> Any:
        return codec.view_to_proto(await calls.plan(_job(who, asked.job)))

    async def get(_: Identity, asked: Any) -> Any:
        return codec.view_to_proto(await calls.job(asked.job_id))

    async def spec(_: Identity, asked: Any) -> Any:
        return codec.job_to_proto(await calls.spec(asked.job_id))

    async def jobs(_: Identity, asked: Any) -> Any:
        limit = _limit(asked.limit, LIST_LIMIT)
        found = await calls.jobs(
            tuple(asked.phases), asked.user, asked.name, asked.cluster, asked.ended, limit
        )
        return api.ListJobsResponse(jobs=map(codec.view_to_proto, found))

    async def cancel(who: Identity, asked: Any) -> Any:
        by = f"{who.role.value}/{who.name}"
        return codec.view_to_proto(await calls.cancel(asked.job_id, by))

    async def why(_: Identity, asked: Any) -> Any:
        return codec.view_to_proto(await calls.why(asked.job_id))

    return {
        "SubmitJobs": gate.unary(api.SubmitJobsRequest, PEOPLE, submit),
        "Plan": gate.unary(api.PlanRequest, PEOPLE, plan),
        "GetJob": gate.unary(api.GetJobRequest, PEOPLE, get),
        "GetSpec": gate.unary(api.GetSpecRequest, PEOPLE, spec),
        "ListJobs": gate.unary(api.ListJobsRequest, PEOPLE, jobs),
        "CancelJob": gate.unary(api.CancelJobRequest, PEOPLE, cancel),
        "ExplainJob": gate.unary(api.ExplainJobRequest, PEOPLE, why),
    }


def _stream_methods(gate: Gate, calls: FederationCalls) -> dict[str, Handler]:
    async def watch(_: Identity, asked: Any) -> AsyncGenerator[Any]:
        async with aclosing(_closable(calls.watch(asked.job_id or None, asked.after))) as changes:
            async for change in changes:
                yield codec.view_to_proto(change)

    async def logs(_: Identity, asked: Any) -> AsyncGenerator[Any]:
        rank = asked.rank if asked.HasField("rank") else None
        tail = asked.tail_lines if asked.HasField("tail_lines") else None
        pieces = _closable(calls.logs(asked.job_id, rank, asked.follow, tail))
        async with aclosing(pieces):
            async for number, body in pieces:
                yield api.LogChunk(rank=number, body=body)

    async def upload(_: Identity, messages: AsyncIterator[Any]) -> Any:
        bodies = (message.body async for message in messages)
        return api.UploadBundleResponse(workdir=await calls.upload_bundle(bodies))

    return {
        "WatchJobs": gate.streaming(api.WatchJobsRequest, PEOPLE, watch),
        "StreamLogs": gate.streaming(api.StreamLogsRequest, PEOPLE, logs),
        "UploadBundle": gate.on_stream(api.BundleChunk, PEOPLE, upload),
    }


def _node_methods(gate: Gate, operations: Operations) -> dict[str, Handler]:
    async def nodes(_: Identity, asked: Any) -> Any:
        found = await operations.nodes(asked.cluster)
        return api.ListNodesResponse(nodes=map(codec.view_to_proto, found))

    async def cordon(_: Identity, asked: Any) -> Any:
        return codec.view_to_proto(await operations.cordon(asked.node, asked.cordon, asked.drain))

    return {
        "ListNodes": gate.unary(api.ListNodesRequest, PEOPLE, nodes),
        "CordonNode": gate.unary(api.CordonNodeRequest, ADMINS, cordon),
    }


def _place_methods(gate: Gate, calls: FederationCalls) -> dict[str, Handler]:
    async def clusters(_: Identity, __: Any) -> Any:
        return api.ListClustersResponse(clusters=map(codec.view_to_proto, await calls.clusters()))

    async def offers(_: Identity, asked: Any) -> Any:
        limit = _limit(asked.limit, OFFER_LIMIT)
        found = await calls.offers(asked.accelerators, asked.region, asked.market, limit)
        return api.ListOffersResponse(offers=map(codec.view_to_proto, found))

    async def version(_: Identity, __: Any) -> Any:
        return codec.view_to_proto(await calls.version())

    return {
        "ListClusters": gate.unary(api.ListClustersRequest, PEOPLE, clusters),
        "ListOffers": gate.unary(api.ListOffersRequest, PEOPLE, offers),
        "GetVersion": gate.unary(api.GetVersionRequest, EVERYBODY, version),
    }


def _join_methods(gate: Gate, calls: FederationCalls) -> dict[str, Handler]:
    async def token(_: Identity, asked: Any) -> Any:
        if parse_role(asked.role) not in JOINABLE:
            expected = ", ".join(sorted(role.value for role in JOINABLE))
            raise Invalid(f"role: found {asked.role!r}, expected one of {expected}")
        ttl_s = asked.ttl_s or TOKEN_TTL_S
        made = await calls.new_join_token(asked.role, asked.name, ttl_s)
        return api.CreateJoinTokenResponse(token=made)

    async def join(_: Identity, asked: Any) -> Any:
        certificate, authority = await calls.join(asked.token, asked.request_pem)
        return api.JoinResponse(certificate_pem=certificate, authority_pem=authority)

    return {
        "CreateJoinToken": gate.unary(api.CreateJoinTokenRequest, ADMINS, token),
        "Join": gate.unary(api.JoinRequest, EVERYBODY, join),
    }


def _job(who: Identity, message: Any) -> Job:
    """The job as sent; a caller who names no user is the user."""
    job = codec.job_from_proto(message)
    return job if job.user else structs.replace(job, user=UserId(who.name))


def _limit(asked: int, default: int) -> int:
    if not 0 <= asked <= 10 * LIST_LIMIT:
        raise Invalid(f"limit: found {asked}, expected 0 to {10 * LIST_LIMIT}")
    return asked or default


async def _closable(items: AsyncIterator[T]) -> AsyncGenerator[T]:
    """The same items; closing it closes their source, so that a caller who goes stops the work."""
    try:
        async for item in items:
            yield item
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


def _service(name: str, methods: dict[str, Handler]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(name, methods)
