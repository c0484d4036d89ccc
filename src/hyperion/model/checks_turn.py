"""What is wrong with when a job is to run: its queue, what it waits for, its reservation."""

import re
from collections.abc import Iterator

from hyperion.model.bounds import (
    ID_PATTERN,
    MAX_DEPENDENCIES,
    MAX_NAME_CHARS,
    MAX_NICE,
    MAX_SECONDS,
    NAME_PATTERN,
)
from hyperion.model.faults import Fault, number_faults, quoted, range_faults
from hyperion.model.job import Job

_name = re.compile(NAME_PATTERN).fullmatch
_id = re.compile(ID_PATTERN).fullmatch


def turn_faults(job: Job) -> Iterator[Fault]:
    """Of ``queue``, ``nice``, ``after``, ``begin``, ``deadline``, ``reservation``, and others."""
    if job.queue:
        yield from _named("/queue", job.queue)
    if job.nice:
        yield from range_faults("/nice", job.nice, -MAX_NICE, MAX_NICE)
    if job.after:
        yield from _after(job)
    if job.expected_s or job.deadline_s or job.begin_s or job.min_runtime_s:
        yield from _times(job)
    if job.reservation:
        yield from _named("/reservation", job.reservation)


def _times(job: Job) -> Iterator[Fault]:
    yield from number_faults("/expected", job.expected_s, MAX_SECONDS, "s")
    yield from number_faults("/deadline", job.deadline_s, MAX_SECONDS, "s")
    yield from number_faults("/begin", job.begin_s, MAX_SECONDS, "s")
    if 0 < job.deadline_s <= job.begin_s <= MAX_SECONDS:
        yield Fault(
            "/begin",
            f"found {job.begin_s:.12g} s, expected less than the deadline of"
            f" {job.deadline_s:.12g} s, when the job is stopped",
        )
    yield from number_faults("/min_runtime", job.min_runtime_s, MAX_SECONDS, "s")


def _named(at: str, name: str) -> Iterator[Fault]:
    if not _name(name):
        yield Fault(
            at,
            f"found {quoted(name)}, expected up to {MAX_NAME_CHARS} letters, digits, '.', '_'"
            " or '-', starting with a letter or digit",
        )


def _after(job: Job) -> Iterator[Fault]:
    if len(job.after) > MAX_DEPENDENCIES:
        yield Fault("/after", f"found {len(job.after)} jobs, expected at most {MAX_DEPENDENCIES}")
        return
    seen: set[str] = set()
    for index, dependency in enumerate(job.after):
        at = f"/after/{index}"
        other = dependency.job
        if not _id(other):
            yield Fault(
                at,
                f"found {quoted(other)}, expected the id of a job, as hyperion run shows it",
            )
        elif other == job.id:
            yield Fault(at, "names the job itself, which would wait for ever; remove it")
        elif other in seen:
            yield Fault(at, f"names the job {quoted(other)} twice; keep one of them")
        seen.add(other)
