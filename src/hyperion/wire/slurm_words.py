"""Slurm's notations for arrays, dependencies and starts, for specs and batch scripts alike.

From sbatch 25.05 (https://slurm.schedmd.com/sbatch.html). Each reader raises ValueError with what
it expected, for a message that begins with what was found.
"""

import re
from itertools import pairwise

from hyperion.model.bounds import ID_PATTERN, MAX_DEPENDENCIES
from hyperion.model.ids import JobId
from hyperion.model.job import Array, Condition, Dependency

ARRAY_PATTERN = r"\d+(-\d+(:\d+)?)?(,\d+)*(%\d+)?"
_range = re.compile(r"(\d{1,10})-(\d{1,10})(?::(\d{1,10}))?", re.ASCII).fullmatch
_listed = re.compile(r"\d{1,10}(?:,\d{1,10})*", re.ASCII).fullmatch
_digits = re.compile(r"\d{1,10}", re.ASCII).fullmatch
_id = re.compile(ID_PATTERN).fullmatch
_begin = re.compile(r"now(?:\+(\d{1,9})(?:(second|minute|hour|day|week)s?)?)?", re.ASCII).fullmatch
_UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_MAX_LISTED_CHARS = 10_000

_CONDITIONS = {condition.value: condition for condition in Condition}
_OTHER_CONDITIONS = {
    "singleton": "the ids of the jobs to wait for: jobs of one name are not kept apart here",
    "after": "afterany, afterok or afternotok: a start cannot be waited for",
    "aftercorr": "afterok, which waits for all tasks of the other array",
    "afterburstbuffer": "afterok: burst buffers are not supported",
}


def array_of(text: str) -> Array:
    """The array in ``0-99``, ``0-99%10``, ``1-15:2`` or ``1,3,5`` (indices of equal distance)."""
    indices, percent, limit = text.strip().partition("%")
    if percent and not (_digits(limit) and int(limit)):
        raise ValueError("how many tasks may run at once behind %, such as 0-99%10")
    most = int(limit or 0)
    match = _range(indices)
    if match:
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if last < first or not step:
            raise ValueError("a range that goes up, such as 0-99 or 0-98:2")
        return Array(size=(last - first) // step + 1, first=first, step=step, limit=most)
    if len(indices) > _MAX_LISTED_CHARS or not _listed(indices):
        raise ValueError("a range of indices such as 0-99, 0-99%10 or 1-15:2")
    numbers = [int(number) for number in indices.split(",")]
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step < 1 or any(b - a != step for a, b in pairwise(numbers)):
        raise ValueError(
            "indices in order and of equal distance, such as 1,3,5; submit one array for each part"
        )
    return Array(size=len(numbers), first=numbers[0], step=step, limit=most)


def dependencies_of(text: str) -> tuple[Dependency, ...]:
    """The jobs in ``ID`` (afterok), ``afterany:ID:ID`` or several of these with commas between."""
    if "?" in text:
        raise ValueError("jobs that must all have ended; any one of several cannot be waited for")
    found: list[Dependency] = []
    for part in text.split(","):
        word, *ids = [piece.strip() for piece in part.split(":")]
        if word in _OTHER_CONDITIONS:
            raise ValueError(_OTHER_CONDITIONS[word])
        if not ids:
            word, ids = Condition.OK.value, [word]
        condition = _CONDITIONS.get(word)
        if condition is None:
            raise ValueError(f"one of {', '.join(_CONDITIONS)} before the colon")
        for job in ids:
            if not _id(job):
                raise ValueError("the id of a job, as hyperion run shows it")
            found.append(Dependency(job=JobId(job), condition=condition))
    if len(found) > MAX_DEPENDENCIES:
        raise ValueError(f"at most {MAX_DEPENDENCIES} jobs")
    return tuple(found)


def begin_s(text: str) -> float:
    """Seconds from submission in ``now``, ``now+90``, ``now+1hour`` or ``now+2days``."""
    match = _begin(text.strip().lower())
    if match is None:
        raise ValueError(
            "now+1hour or the like; for a time of day use a spec, which says its zone:"
            " begin: 2026-03-31T18:00:00Z"
        )
    return float(int(match[1] or 0) * _UNITS_S[match[2] or "second"])
