"""Each method of the API as a request and the type of its answer; both clients send these."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import structs

from hyperion.client.errors import (
    Busy,
    Conflict,
    HyperionError,
    NotFound,
    Refused,
    ServerFault,
    SpecRefused,
    Unauthorized,
    Unavailable,
)
from hyperion.client.exchange import Head, Request
from hyperion.model.job import Job
from hyperion.model.queue import Queue
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
from hyperion.wire.datasets_api import AdviceView, DatasetRequest, DatasetView
from hyperion.wire.market_api import MarketStatusView, QuoteView
from hyperion.wire.money import BudgetRequest, BudgetView, CostView
from hyperion.wire.rest import (
    API_PREFIX,
    JOBS_TYPE,
    PROBLEM_TYPE,
    AuthorityAnswer,
    BundleAnswer,
    JoinAnswer,
    JoinRequest,
    ProblemDetails,
    TokenAnswer,
    TokenRequest,
    WindowRequest,
    new_job_id,
)

T = TypeVar("T")
Spec = Mapping[str, Any] | Job | Path | str | Sequence[str]
"""A mapping as in YAML, a Job, a YAML file (Path), YAML text (str), or an argument vector."""
MAX_SPEC_BYTES = 1 << 20
EVENT_STREAM = "text/event-stream"


class Call(NamedTuple, Generic[T]):
    """A request that may be sent again if ``again`` (it changes nothing the second time)."""

    request: Request
    answer: Any
    """The type of the answer, as msgspec takes it."""
    again: bool = True


def submit(jobs: Sequence[Job]) -> Call[list[Submitted]]:
    """Safe to send again: every job has its id."""
    return Call(_post("/jobs", jobs, JOBS_TYPE), list[Submitted])


def plan(job: Job) -> Call[PlanView]:
    return Call(_post("/plan", [job], JOBS_TYPE), PlanView)


def job(job_id: str) -> Call[JobView]:
    return Call(_get(f"/jobs/{_part(job_id)}"), JobView)


def spec(job_id: str) -> Call[Job]:
    return Call(_get(f"/jobs/{_part(job_id)}/spec"), Job)


def why(job_id: str) -> Call[WhyView]:
    return Call(_get(f"/jobs/{_part(job_id)}/why"), WhyView)


def jobs(
    phases: Sequence[str], user: str, name: str, cluster: str, ended: bool, limit: int
) -> Call[list[JobView]]:
    query: list[tuple[str, object]] = [("phase", phase) for phase in phases]
    query += [("user", user), ("name", name), ("cluster", cluster)]
    query += [("ended", "true" if ended else ""), ("limit", limit)]
    return Call(_get("/jobs", query), list[JobView])


def cancel(job_id: str) -> Call[JobView]:
    return Call(Request("DELETE", f"{API_PREFIX}/jobs/{_part(job_id)}"), JobView)


def activate(job_id: str, release: bool, any_one: bool = False) -> Call[list[ActivationView]]:
    action = "release" if release else "activate"
    query = "?any=true" if any_one else ""
    request = Request("POST", f"{API_PREFIX}/jobs/{_part(job_id)}/{action}{query}")
    return Call(request, list[ActivationView])


def logs(job_id: str, rank: int | None, tail_lines: int | None) -> Request:
    query = [("rank", rank), ("tail", tail_lines)]
    request = _get(f"/jobs/{_part(job_id)}/logs", query)
    return request._replace(accept="text/plain")


def follow(job_id: str, rank: int | None, tail_lines: int | None) -> Request:
    query = [("rank", rank), ("tail", tail_lines), ("follow", "true")]
    return _get(f"/jobs/{_part(job_id)}/logs", query)._replace(accept=EVENT_STREAM)


def watch(job_id: str, after: int) -> Request:
    request = _get("/watch", [("job", job_id)])
    return request._replace(accept=EVENT_STREAM, last_event_id=str(after) if after else "")


def nodes(cluster: str) -> Call[list[NodeView]]:
    return Call(_get("/nodes", [("cluster", cluster)]), list[NodeView])


def cordon(node: str, action: str) -> Call[NodeView]:
    """``node`` is ``cluster/node``; ``action`` is cordon, uncordon or drain."""
    cluster, _, name = node.rpartition("/")
    target = f"{API_PREFIX}/nodes/{_part(cluster)}/{_part(name)}/{action}"
    return Call(Request("POST", target), NodeView)


def clusters() -> Call[list[ClusterView]]:
    return Call(_get("/clusters"), list[ClusterView])


def offers(accelerators: str, region: str, market: str, limit: int) -> Call[list[OfferView]]:
    query = [("accelerators", accelerators), ("region", region), ("market", market)]
    return Call(_get("/offers", [*query, ("limit", limit)]), list[OfferView])


def market() -> Call[MarketStatusView]:
    return Call(_get("/market"), MarketStatusView)


def quotes(kind: str, place: str, source: str, limit: int) -> Call[list[QuoteView]]:
    query = [("kind", kind), ("place", place), ("source", source)]
    return Call(_get("/market/quotes", [*query, ("limit", limit)]), list[QuoteView])


def policies() -> Call[list[PolicyView]]:
    return Call(_get("/policies"), list[PolicyView])


def slo() -> Call[list[PromiseView]]:
    return Call(_get("/slo"), list[PromiseView])


def queues(cluster: str) -> Call[list[QueueView]]:
    return Call(_get("/queues", [("cluster", cluster)]), list[QueueView])


def apply_queues(cluster: str, tree: Sequence[Queue]) -> Call[list[QueueView]]:
    request = _post(f"/queues{_query([('cluster', cluster)])}", tree)._replace(method="PUT")
    return Call(request, list[QueueView])


def drop_queue(cluster: str, queue: str) -> Call[list[QueueView]]:
    target = f"{API_PREFIX}/queues/{_part(cluster)}/{_part(queue)}"
    return Call(Request("DELETE", target), list[QueueView], again=False)


def windows(cluster: str) -> Call[list[WindowView]]:
    return Call(_get("/windows", [("cluster", cluster)]), list[WindowView])


def add_window(asked: WindowRequest) -> Call[WindowView]:
    return Call(_post("/windows", asked), WindowView)


def drop_window(cluster: str, window: str) -> Call[WindowView]:
    target = f"{API_PREFIX}/windows/{_part(cluster)}/{_part(window)}"
    return Call(Request("DELETE", target), WindowView, again=False)


def cost(by: str, since_ms: int, until_ms: int, limit: int) -> Call[CostView]:
    query = [("by", by), ("since_ms", since_ms or ""), ("until_ms", until_ms or "")]
    return Call(_get("/cost", [*query, ("limit", limit)]), CostView)


def budgets() -> Call[list[BudgetView]]:
    return Call(_get("/budgets"), list[BudgetView])


def set_budget(asked: BudgetRequest) -> Call[list[BudgetView]]:
    return Call(_post("/budgets", asked)._replace(method="PUT"), list[BudgetView])


def drop_budget(tenant: str) -> Call[list[BudgetView]]:
    target = f"{API_PREFIX}/budgets/{_part(tenant)}"
    return Call(Request("DELETE", target), list[BudgetView], again=False)


def datasets() -> Call[list[DatasetView]]:
    return Call(_get("/datasets"), list[DatasetView])


def add_dataset(asked: DatasetRequest) -> Call[DatasetView]:
    return Call(_post("/datasets", asked)._replace(method="PUT"), DatasetView)


def drop_dataset(name: str, region: str) -> Call[list[DatasetView]]:
    found = _get(f"/datasets/{_part(name)}", [("region", region)])
    return Call(found._replace(method="DELETE"), list[DatasetView], again=False)


def dataset_advice() -> Call[list[AdviceView]]:
    return Call(_get("/datasets/advice"), list[AdviceView])


def version() -> Call[VersionView]:
    return Call(_get("/version"), VersionView)


def join(token: str, request_pem: bytes) -> Call[JoinAnswer]:
    body = JoinRequest(token=token, request_pem=request_pem.decode("ascii"))
    return Call(_post("/join", body), JoinAnswer, again=False)


def new_join_token(role: str, name: str, ttl_s: int) -> Call[TokenAnswer]:
    body = TokenRequest(role=role, name=name, ttl_s=ttl_s)
    return Call(_post("/join-tokens", body), TokenAnswer, again=False)


def authority() -> Call[AuthorityAnswer]:
    return Call(_get("/ca"), AuthorityAnswer)


def upload(archive: bytes) -> Call[BundleAnswer]:
    request = Request("PUT", f"{API_PREFIX}/bundles", archive, "application/gzip")
    return Call(request, BundleAnswer)


def as_job(given: Spec, job_id: str = "") -> Job:
    """A spec in any of its forms as a checked job with an id. Raises SpecRefused.

    A relative ``workdir`` of a YAML file is taken from the file's own directory, of a text or a
    mapping from the current one. Null ``envs`` and ``secrets`` come from this process's own.
    """
    if isinstance(given, Job):
        return given
    from hyperion.wire import spec

    name = job_id or new_job_id()
    try:
        if isinstance(given, Path):
            job = _from_yaml(_text_of(given), name, str(given))
            return _placed(job, given.resolve().parent)
        if isinstance(given, str):
            return _placed(_from_yaml(given, name, "spec"), Path.cwd())
        if isinstance(given, Mapping):
            return spec.job_from_mapping(
                given, job_id=name, environ=os.environ, now_ms=time.time_ns() // 1_000_000
            )
        return spec.job_from_command(given, job_id=name)
    except spec.SpecError as error:
        raise SpecRefused(str(error), "correct the spec", error.problems) from None


def only_node(name: str, nodes: Sequence[NodeView]) -> str:
    """``cluster/name`` of the one node with that name."""
    found = [f"{node.cluster}/{node.id}" for node in nodes if node.id == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise Conflict(f"{name} is in several clusters", f"say which: {', '.join(found)}")
    raise NotFound(f"no node {name}", "hyperion nodes lists them")


def result(call: Call[T], head: Head, body: bytes) -> T:
    """The answer as its type, or the error it stands for."""
    if not 200 <= head.status < 300:
        raise_for(head, body)
    try:
        answer: T = msgspec.json.decode(body, type=call.answer)
    except msgspec.DecodeError as error:
        raise ServerFault(
            f"the federation's answer is not understood: {error}",
            "compare 'hyperion version' here and there",
        ) from None
    return answer


def raise_for(head: Head, body: bytes) -> NoReturn:
    """Raise the error that an answer stands for."""
    if head.content_type != PROBLEM_TYPE:
        raise _error_of(head.status)(
            f"HTTP {head.status} came from something that is no federation",
            "look at the server's address (HYPERION_SERVER)",
        )
    try:
        details = msgspec.json.decode(body, type=ProblemDetails)
    except msgspec.DecodeError:
        raise ServerFault(f"HTTP {head.status} without an explanation") from None
    raise error_of(details)


def error_of(details: ProblemDetails) -> HyperionError:
    """The exception for a problem."""
    kind = _error_of(details.status)
    if kind is SpecRefused:
        return SpecRefused(details.detail, details.remedy, details.problems)
    return kind(details.detail, details.remedy)


_ERRORS: dict[int, type[HyperionError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    422: SpecRefused,
    429: Busy,
    503: Unavailable,
    504: Unavailable,
}


def _error_of(status: int) -> type[HyperionError]:
    return _ERRORS.get(status, ServerFault if status >= 500 else Refused)


def _get(path: str, query: Sequence[tuple[str, object]] = ()) -> Request:
    return Request("GET", API_PREFIX + path + _query(query))


def _query(query: Sequence[tuple[str, object]]) -> str:
    given = urlencode([(name, value) for name, value in query if value not in {"", None}])
    return "?" + given if given else ""


def _post(path: str, body: object, content_type: str = "application/json") -> Request:
    return Request("POST", API_PREFIX + path, msgspec.json.encode(body), content_type)


def _part(name: str) -> str:
    if not name or name in {".", ".."}:
        raise NotFound(f"there is no job, node or cluster {name!r}", "give its name or id")
    return quote(name, safe="")


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SPEC_BYTES + 1)
        return content.decode()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", "give the spec's file") from None
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text", "save it as UTF-8") from None


def _from_yaml(text: str, job_id: str, source: str) -> Job:
    from hyperion.wire.spec import job_from_yaml

    now_ms = time.time_ns() // 1_000_000
    return job_from_yaml(text, source=source, job_id=job_id, environ=os.environ, now_ms=now_ms)


def _placed(job: Job, directory: Path) -> Job:
    if not job.workdir or job.workdir.startswith(("/", "bundle:")):
        return job
    return structs.replace(job, workdir=str((directory / job.workdir).resolve()))
