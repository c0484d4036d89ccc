"""Reads the specs out of a request's body: JSON or YAML, one or several, refused whole."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request

from hyperion.daemon.gateway_openapi import MAX_SPECS, YAML_TYPES
from hyperion.daemon.gateway_problems import Refusal
from hyperion.model.checks import check
from hyperion.model.ids import UserId
from hyperion.model.job import Job
from hyperion.model.queue import Queue
from hyperion.ports import Clock
from hyperion.wire.api import Problem, Submitted
from hyperion.wire.queue_file import queues_from_mapping, queues_from_yaml
from hyperion.wire.rest import JOBS_TYPE, new_job_id
from hyperion.wire.spec import job_from_mapping, job_from_yaml, problems
from hyperion.wire.spec_tree import MAX_PROBLEMS, SpecError

T = TypeVar("T")
ANONYMOUS = "anonymous"
_jobs_decoder = msgspec.json.Decoder(list[Job])
_STATUS_OF_CODE = {
    "INVALID_ARGUMENT": 422,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "NOT_FOUND": 404,
}


async def jobs_of(request: Request[Any, Any, Any], user: str) -> list[Job]:
    """Every job of the body, or Refusal or SpecError naming each fault in any of them."""
    kind, body = await _body(request)
    if kind in YAML_TYPES:
        job_id = request.query_params.get("id") or new_job_id()
        return [
            job_from_yaml(
                body,
                source="body",
                job_id=job_id,
                environ={},  # never this process's own
                now_ms=_now_ms(request),
                user=_user(user),
            )
        ]
    if kind == JOBS_TYPE:
        return _checked(body, user)
    value, now_ms = decode_json(body), _now_ms(request)
    if not isinstance(value, list):
        return [_job(value, user, now_ms)]
    _bounded(value)
    return _each(value, lambda item: _job(item, user, now_ms))


async def one_job_of(request: Request[Any, Any, Any], user: str) -> Job:
    """The body's single job."""
    jobs = await jobs_of(request, user)
    if len(jobs) != 1:
        raise Refusal(422, f"{len(jobs)} specs came, expected one", "ask for one plan at a time")
    return jobs[0]


async def queues_of(request: Request[Any, Any, Any]) -> tuple[Queue, ...]:
    """The tree of queues in the body, or Refusal or SpecError with every fault in it."""
    kind, body = await _body(request)
    if kind in YAML_TYPES:
        return queues_from_yaml(body, "body")
    value = decode_json(body)
    if not isinstance(value, list):
        return queues_from_mapping(value, "body")
    try:
        return tuple(msgspec.convert(value, list[Queue]))
    except msgspec.ValidationError as error:
        raise Refusal(422, f"the body is no list of queues: {error}") from None


def refuse_if_all_failed(answers: Sequence[Submitted]) -> None:
    """A submission of which nothing was kept is an error; a mixed one is told item by item."""
    if not answers or not all(answer.error for answer in answers):
        return
    first = answers[0]
    raise Refusal(_STATUS_OF_CODE.get(first.code, 409), first.error)


def decode_json(body: bytes) -> object:
    """JSON of any shape, or a 400 that says where it broke."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None


async def _body(request: Request[Any, Any, Any]) -> tuple[str, bytes]:
    kind = request.content_type[0]
    if kind not in {"application/json", JOBS_TYPE, *YAML_TYPES}:
        raise Refusal(
            415,
            f"the body came as {kind or 'no media type'}",
            "send Content-Type: application/json or text/yaml",
        )
    return kind, await request.body()


def _checked(body: bytes, user: str) -> list[Job]:
    """Jobs in the model's own form; their sender has checked them, and they are checked again."""
    try:
        jobs = _jobs_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is no list of jobs: {error}") from None
    _bounded(jobs)
    return _each(jobs, lambda job: _known_good(job, user))


def _known_good(job: Job, user: str) -> Job:
    job = msgspec.structs.replace(job, user=UserId(_user(user)))
    faults = check(job)
    if faults:
        raise SpecError(problems(faults), "body")
    return job


def _bounded(specs: Sequence[object]) -> None:
    if not specs:
        raise Refusal(422, f"no specs came, expected 1 to {MAX_SPECS}", "send at least one spec")
    if len(specs) > MAX_SPECS:
        raise Refusal(413, f"{len(specs)} specs came, expected 1 to {MAX_SPECS}")


def _each(items: Sequence[T], parse: Callable[[T], Job]) -> list[Job]:
    """All or none: the problems of every item, each with the item's place in its pointer."""
    jobs: list[Job] = []
    found: list[Problem] = []
    for index, item in enumerate(items):
        try:
            jobs.append(parse(item))
        except SpecError as error:
            found += [_within(index, fault) for fault in error.problems]
        if len(found) >= MAX_PROBLEMS:
            break
    if found:
        raise SpecError(tuple(found[:MAX_PROBLEMS]), "body")
    return jobs


def _job(value: object, user: str, now_ms: int) -> Job:
    job_id = ""
    if isinstance(value, Mapping):
        value = dict(value)
        given = value.pop("id", "")
        if not isinstance(given, str):
            message = f"id: found {str(given)[:40]}, expected a text; leave it out to get one"
            raise SpecError((Problem(pointer="/id", message=message),), "body")
        job_id = given
    return job_from_mapping(
        value,
        source="body",
        job_id=job_id or new_job_id(),
        environ={},  # never this process's own
        now_ms=now_ms,
        user=_user(user),
    )


def _now_ms(request: Request[Any, Any, Any]) -> int:
    clock: Clock = request.app.state["clock"]
    return clock.now_ms()


def _user(user: str) -> str:
    return user or ANONYMOUS


def _within(index: int, fault: Problem) -> Problem:
    return msgspec.structs.replace(
        fault, pointer=f"/{index}{fault.pointer}", message=f"spec {index}: {fault.message}"
    )
