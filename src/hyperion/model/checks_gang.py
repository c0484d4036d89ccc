"""What is wrong with the form of a job: roles, width if elastic, tasks if an array, a standby."""

import re
from collections.abc import Iterator

from hyperion.model.bounds import (
    MAX_ARRAY_INDEX,
    MAX_ARRAY_TASKS,
    MAX_HOLD_S,
    MAX_NAME_CHARS,
    MAX_REPLICAS,
    MAX_ROLES,
    MAX_SCRIPTS_BYTES,
    NAME_PATTERN,
)
from hyperion.model.checks_resources import request_faults
from hyperion.model.checks_work import work_faults
from hyperion.model.faults import Fault, number_faults, pointer_part, quoted, range_faults
from hyperion.model.job import Array, Elastic, Job, Priority, Role, Standby

_name = re.compile(NAME_PATTERN).fullmatch


def gang_faults(job: Job) -> Iterator[Fault]:
    """Of ``replicas``, ``roles``, ``elastic``, ``array``, ``standby``, and of them together."""
    yield from range_faults("/replicas", job.replicas, 1, MAX_REPLICAS)
    if job.roles:
        yield from _roles(job)
    if job.elastic is not None:
        yield from _elastic(job, job.elastic)
    if job.array is not None:
        yield from _array(job, job.array)
    if job.standby is not None:
        yield from _standby(job, job.standby)


def _roles(job: Job) -> Iterator[Fault]:
    roles = job.roles
    if len(roles) > MAX_ROLES:
        yield Fault("/roles", f"found {len(roles)} roles, expected at most {MAX_ROLES}")
        return
    seen: set[str] = set()
    for index, role in enumerate(roles):
        at = f"/roles/{pointer_part(role.name) or index}"
        if not _name(role.name):
            yield Fault(
                at,
                f"found the name {quoted(role.name)}, expected up to {MAX_NAME_CHARS} letters,"
                " digits, '.', '_' or '-', starting with a letter or digit",
            )
        elif role.name in seen:
            yield Fault(at, "is there twice; give each role a name of its own")
        seen.add(role.name)
        yield from range_faults(at + "/replicas", role.replicas, 1, MAX_REPLICAS)
        yield from request_faults(at + "/resources", role.resources)
        yield from work_faults(at + "/run", role.run, role.command)
    yield from _together(job)


def _together(job: Job) -> Iterator[Fault]:
    total = sum(role.replicas for role in job.roles)
    if total != job.replicas and 1 <= job.replicas <= MAX_REPLICAS:
        yield Fault(
            "/replicas",
            f"found {job.replicas}, but the roles have {total} replicas together; leave it out",
        )
    if job.alternatives != (job.roles[0].resources,):
        yield Fault(
            "/resources",
            "is not what the first role asks for; with roles, each has resources of its own and"
            " there are no alternatives",
        )
    size = sum(_size(role) for role in job.roles)
    if size > MAX_SCRIPTS_BYTES:
        yield Fault(
            "/roles",
            f"found {size} bytes of scripts, expected at most {MAX_SCRIPTS_BYTES} together; put"
            " them into workdir and run them from there",
        )
    if job.elastic is not None:
        yield Fault("/elastic", "cannot be combined with roles; remove one of the two")


def _size(role: Role) -> int:
    return len(role.run) + sum(len(argument) for argument in role.command)


def _elastic(job: Job, elastic: Elastic) -> Iterator[Fault]:
    if not 1 <= elastic.min <= job.replicas:
        yield Fault(
            "/elastic/min",
            f"found {elastic.min}, expected 1 to the most replicas, which are {job.replicas}",
        )


def _array(job: Job, array: Array) -> Iterator[Fault]:
    yield from range_faults("/array/size", array.size, 1, MAX_ARRAY_TASKS)
    yield from range_faults("/array/first", array.first, 0, MAX_ARRAY_INDEX)
    yield from range_faults("/array/step", array.step, 1, MAX_ARRAY_INDEX)
    yield from range_faults("/array/limit", array.limit, 0, MAX_ARRAY_TASKS)
    if 1 <= array.size <= MAX_ARRAY_TASKS and array.index(array.size - 1) > MAX_ARRAY_INDEX:
        yield Fault(
            "/array",
            f"found the last index {array.index(array.size - 1)}, expected at most"
            f" {MAX_ARRAY_INDEX}",
        )
    if job.roles:
        yield Fault("/array", "cannot be combined with roles; submit one array for each role")
    elif job.elastic is not None:
        yield Fault("/array", "cannot be combined with elastic; use its limit instead")
    elif job.replicas != 1:
        yield Fault(
            "/array",
            f"found {job.replicas} replicas beside it, but each task is one replica; leave replicas"
            " out, or submit one job for each index",
        )
    if job.packing is not None:
        yield Fault(
            "/array",
            "cannot be combined with topology; leave that out, its tasks need not be together",
        )


def _standby(job: Job, standby: Standby) -> Iterator[Fault]:
    if standby.port:
        yield from range_faults("/standby/port", standby.port, 1, 65535)
    yield from number_faults("/standby/quiet", standby.quiet_s, MAX_HOLD_S, "s")
    if job.priority < Priority.LATENCY_CRITICAL:
        yield Fault(
            "/standby",
            f"is for jobs for which others stand still, and priority is {job.priority.name};"
            " say priority: LATENCY_CRITICAL",
        )
    for name, value in (("array", job.array), ("elastic", job.elastic)):
        if value is not None:
            yield Fault("/standby", f"cannot be combined with {name}; remove one of the two")
