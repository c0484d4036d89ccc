"""The REST routes: each reads its request, asks the Application once, and answers with its view."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import (
    FromPath,
    FromQuery,
    HeaderParameter,
    JSONBody,
    PathParameter,
    QueryParameter,
)
from litestar.response import Stream

from hyperion.daemon.application import Application
from hyperion.daemon.gateway_openapi import (
    BundleUpload,
    QueueTree,
    SpecQuestion,
    SpecsSubmission,
    document,
)
from hyperion.daemon.gateway_problems import Refusal, declared
from hyperion.daemon.gateway_specs import (
    jobs_of,
    one_job_of,
    queues_of,
    refuse_if_all_failed,
)
from hyperion.daemon.gateway_streams import (
    Streams,
    as_bytes,
    as_chunks,
    as_lines,
    change_event,
    log_event,
)
from hyperion.model.job import Job
from hyperion.wire.api import (
    ActivationView,
    ClusterView,
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
from hyperion.wire.market_api import MarketStatusView, QuoteView
from hyperion.wire.rest import (
    USER_HEADER,
    AuthorityAnswer,
    BundleAnswer,
    Health,
    JoinAnswer,
    JoinRequest,
    TokenAnswer,
    TokenRequest,
    WindowRequest,
)

MAX_BUNDLE_BYTES = 256 << 20
MAX_WINDOW_NODES = 20_000
"""In one request, which must fit into one call to the cluster."""
EVENT_STREAM = "text/event-stream"

Req = Request[Any, Any, Any]
Text = Annotated[str, QueryParameter(max_length=253)]
Name = Annotated[str, PathParameter(max_length=253)]
JobRef = Annotated[
    str,
    PathParameter(
        max_length=253, description="A job's id, a unique prefix of it, or a job's name."
    ),
]
Caller = Annotated[
    str, HeaderParameter(name=USER_HEADER, pattern=r"^[A-Za-z0-9._@-]{0,64}$", required=False)
]


def application_of(request: Req) -> Application:
    application: Application = request.app.state["application"]
    return application


def streams_of(request: Req) -> Streams:
    streams: Streams = request.app.state["streams"]
    return streams


@post(
    "/jobs",
    status_code=201,
    operation_class=SpecsSubmission,
    responses=declared(409, 413, 415, 422),
    summary="Submit a spec, or a list of specs; returns when they are durable",
)
async def submit(request: Req, user: Caller = "") -> list[Submitted]:
    jobs = await jobs_of(request, user)
    answers = await application_of(request).submit(jobs)
    refuse_if_all_failed(answers)
    return answers


@post(
    "/plan",
    status_code=200,
    operation_class=SpecQuestion,
    responses=declared(409, 413, 415, 422),
    summary="Where would this spec go, at what cost, and why not elsewhere; changes nothing",
)
async def plan(request: Req, user: Caller = "") -> PlanView:
    return await application_of(request).plan(await one_job_of(request, user))


@get("/jobs", responses=declared(), summary="Jobs, newest first")
async def list_jobs(
    request: Req,
    phase: Annotated[list[str] | None, QueryParameter(max_items=8)] = None,
    user: Text = "",
    name: Text = "",
    cluster: Text = "",
    ended: FromQuery[bool] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=10_000)] = 1000,
) -> list[JobView]:
    return await application_of(request).jobs(phase or (), user, name, cluster, ended, limit)


@get("/jobs/{job:str}", responses=declared(404), summary="One job")
async def show(request: Req, job: JobRef) -> JobView:
    return await application_of(request).job(job)


@get(
    "/jobs/{job:str}/spec", responses=declared(404), summary="The job as submitted, secrets hidden"
)
async def spec(request: Req, job: JobRef) -> Job:
    return await application_of(request).spec(job)


@get("/jobs/{job:str}/why", responses=declared(404), summary="Why it is where it is, or waits")
async def why(request: Req, job: JobRef) -> WhyView:
    return await application_of(request).why(job)


@delete(
    "/jobs/{job:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="Cancel; doing it again changes nothing",
)
async def cancel(request: Req, job: JobRef, user: Caller = "") -> JobView:
    return await application_of(request).cancel(job, user)


@post(
    "/jobs/{job:str}/{action:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="A standby is wanted: others stand still for it. Or it is wanted no more",
)
async def activate(
    request: Req,
    job: JobRef,
    action: FromPath[Literal["activate", "release"]],
    any: FromQuery[bool] = False,
) -> list[ActivationView]:
    release = action == "release"
    return await application_of(request).activate(job, release=release, any_one=any)


@get(
    "/jobs/{job:str}/logs",
    media_type="text/plain",
    responses={
        **declared(404),
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type="text/plain",
            description="The output; lines of several ranks begin with 'RANK| '. With follow=true "
            "server-sent events named log, error and end.",
        ),
    },
    summary="Output so far, or followed as it comes",
)
async def logs(
    request: Req,
    job: JobRef,
    rank: Annotated[int | None, QueryParameter(ge=0, le=100_000)] = None,
    follow: FromQuery[bool] = False,
    tail: Annotated[int | None, QueryParameter(ge=0, le=1_000_000)] = None,
) -> Stream:
    application, streams = application_of(request), streams_of(request)
    streams.check()
    view = await application.job(job)  # a job that is not there is a 404, not a broken stream
    pieces = application.logs(view.id, rank, follow, tail)
    if follow:
        return _event_stream(streams.events(as_chunks(pieces), log_event))
    single = rank is not None or (view.replicas == 1 and view.tasks is None)
    body = streams.text(await _begun(as_bytes(pieces) if single else as_lines(pieces)))
    return Stream(body, media_type="text/plain; charset=utf-8")


@get(
    "/watch",
    media_type=EVENT_STREAM,
    responses={
        **declared(404),
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type=EVENT_STREAM,
            description="Server-sent events named job (a JobChange; its id is the sequence), "
            "error (a problem) and end.",
        ),
    },
    summary="Changes of jobs as they are kept; Last-Event-ID takes up where a reader was",
)
async def watch(
    request: Req,
    job: Text = "",
    after: Annotated[int, QueryParameter(ge=0, le=1 << 62)] = 0,
    last_event_id: Annotated[
        str, HeaderParameter(name="last-event-id", pattern=r"^[0-9]{0,18}$", required=False)
    ] = "",
) -> Stream:
    application, streams = application_of(request), streams_of(request)
    streams.check()
    job_id = (await application.job(job)).id if job else None
    changes = application.watch(job_id, int(last_event_id) if last_event_id else after)
    return _event_stream(streams.events(changes, change_event))


@get("/nodes", responses=declared(), summary="Nodes with their last measurements")
async def nodes(request: Req, cluster: Text = "") -> list[NodeView]:
    return await application_of(request).nodes(cluster)


@post(
    "/nodes/{cluster:str}/{node:str}/{action:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="Keep new replicas off a node, let them back, or empty it",
)
async def cordon(
    request: Req,
    cluster: Name,
    node: Name,
    action: FromPath[Literal["cordon", "uncordon", "drain"]],
) -> NodeView:
    return await application_of(request).cordon(
        f"{cluster}/{node}", cordon=action != "uncordon", drain=action == "drain"
    )


@get("/clusters", responses=declared(), summary="Clusters that have joined")
async def clusters(request: Req) -> list[ClusterView]:
    return await application_of(request).clusters()


@get(
    "/policies",
    responses=declared(),
    summary="Ranking policies: where each comes from, where it decides, what it did wrong last",
)
async def policies(request: Req) -> list[PolicyView]:
    return await application_of(request).policies()


@get(
    "/slo",
    responses=declared(),
    summary="What it took to let jobs stand still for more urgent ones: quantiles, by step",
)
async def slo(request: Req) -> list[PromiseView]:
    return await application_of(request).promise()


@get("/offers", responses=declared(), summary="What the catalogue says can be had, cheapest first")
async def offers(
    request: Req,
    accelerators: Text = "",
    region: Text = "",
    market: Text = "",
    limit: Annotated[int, QueryParameter(ge=1, le=10_000)] = 200,
) -> list[OfferView]:
    return await application_of(request).offers(accelerators, region, market, limit)


@get("/market", responses=declared(), summary="Feeds of quotes, and what of them is quarantined")
async def market(request: Req) -> MarketStatusView:
    return await application_of(request).market()


@get("/market/quotes", responses=declared(), summary="The last good quotes: prices, egress, carbon")
async def quotes(
    request: Req,
    kind: Text = "",
    place: Text = "",
    source: Text = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100_000)] = 1000,
) -> list[QuoteView]:
    return await application_of(request).quotes(kind, place, source, limit)


@get("/queues", responses=declared(404), summary="Queues with quota, use and share")
async def queues(request: Req, cluster: Text = "") -> list[QueueView]:
    return await application_of(request).queues(cluster)


@put(
    "/queues",
    status_code=200,
    operation_class=QueueTree,
    responses=declared(404, 409, 413, 415, 422),
    summary="Make this the whole tree of a cluster's queues",
)
async def apply_queues(request: Req, cluster: Text = "") -> list[QueueView]:
    return await application_of(request).apply_queues(cluster, await queues_of(request))


@delete(
    "/queues/{cluster:str}/{queue:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="Take a queue without queues in it out of the tree; the queues that are left",
)
async def drop_queue(request: Req, cluster: Name, queue: Name) -> list[QueueView]:
    return await application_of(request).drop_queue(cluster, queue)


@get("/windows", responses=declared(404), summary="Maintenance and reservations, by their begin")
async def windows(request: Req, cluster: Text = "") -> list[WindowView]:
    return await application_of(request).windows(cluster)


@post(
    "/windows",
    status_code=201,
    responses=declared(404, 409, 413, 422),
    summary="Keep nodes free for a while, for maintenance or for some queues and users",
)
async def add_window(request: Req, data: JSONBody[WindowRequest]) -> WindowView:
    if bool(data.nodes) == bool(data.count):
        raise Refusal(422, "give either nodes or a count", "name the nodes, or say how many")
    if not 0 <= data.count <= MAX_WINDOW_NODES or len(data.nodes) > MAX_WINDOW_NODES:
        raise Refusal(422, "too many nodes for one window", f"at most {MAX_WINDOW_NODES}")
    return await application_of(request).add_window(data)


@delete(
    "/windows/{cluster:str}/{window:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="Give the nodes of a window back",
)
async def drop_window(request: Req, cluster: Name, window: Name) -> WindowView:
    return await application_of(request).drop_window(cluster, window)


@get("/version", responses=declared(), summary="Which release answers")
async def version(request: Req) -> VersionView:
    return await application_of(request).version()


@get("/healthz", responses=declared(), summary="Answers while the federation's loop turns")
async def healthz() -> Health:
    return Health(status="ok")


@get("/ca", responses=declared(404), summary="The authority, to compare with a join token's pin")
async def authority(request: Req) -> AuthorityAnswer:
    pem: str = request.app.state["ca_pem"]
    if not pem:
        raise Refusal(404, "this federation has no authority", "join where it listens with TLS")
    return AuthorityAnswer(ca_pem=pem)


@post(
    "/join",
    status_code=200,
    responses=declared(404, 409, 413),
    summary="Fetch a certificate for a one-time token",
)
async def join(request: Req, data: JSONBody[JoinRequest]) -> JoinAnswer:
    certificate, ca = await application_of(request).join(data.token, data.request_pem.encode())
    return JoinAnswer(certificate_pem=certificate.decode(), ca_pem=ca.decode())


@post(
    "/join-tokens",
    status_code=201,
    responses=declared(409, 413, 422),
    summary="Make a one-time token for 'hyperion join'",
)
async def new_join_token(request: Req, data: JSONBody[TokenRequest]) -> TokenAnswer:
    if data.role not in {"agent", "scheduler", "client"}:
        raise Refusal(422, f"role is {data.role!r}", "use agent, scheduler or client")
    if not 1 <= data.ttl_s <= 30 * 86_400:
        raise Refusal(422, f"ttl_s is {data.ttl_s}", "use 1 to 2592000 seconds (30 days)")
    if not 1 <= len(data.name) <= 253:
        raise Refusal(422, "name must have 1 to 253 characters", "use the node's or cluster's name")
    token = await application_of(request).new_join_token(data.role, data.name, data.ttl_s)
    return TokenAnswer(token=token)


@put(
    "/bundles",
    status_code=200,
    request_max_body_size=MAX_BUNDLE_BYTES,
    operation_class=BundleUpload,
    responses=declared(409, 413, 415),
    summary="Keep a workdir (tar.gz); the answer names it for a spec",
)
async def upload(request: Req) -> BundleAnswer:
    kind = request.content_type[0]
    if kind not in {"application/gzip", "application/x-gzip", "application/octet-stream"}:
        raise Refusal(415, f"the bundle came as {kind or 'nothing'}", "send application/gzip")
    return BundleAnswer(workdir=await application_of(request).upload_bundle(request.stream()))


@get("/openapi.json", include_in_schema=False)
async def openapi(request: Req) -> Response[bytes]:
    return Response(msgspec.json.encode(document(request.app)), media_type="application/json")


ROUTES = [
    openapi,
    submit, plan, list_jobs, show, spec, why, cancel, activate, logs, watch, nodes, cordon,
    queues, apply_queues, drop_queue, windows, add_window, drop_window,
    clusters, policies, slo, offers, market, quotes, version, healthz, authority, join,
    new_join_token, upload,
]  # fmt: skip


def _event_stream(events: AsyncGenerator[bytes, None]) -> Stream:
    return Stream(
        events,
        media_type=EVENT_STREAM,
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _begun(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same source, its first piece fetched now, so that an early error gets its status."""
    first = await anext(source, None)

    async def whole() -> AsyncGenerator[bytes, None]:
        if first is not None:
            yield first
            async for piece in source:
                yield piece

    return whole()
