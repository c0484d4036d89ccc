"""How long jobs run: what users say of them, blended with how long the like of them has run.

Runtimes are counted in classes, each an eighth of a doubling wide, in counts that fade: by jobs of
one (user, name), of one (user, shape), of a queue, and of all. A class is answered for by its upper
end, so "ended by then" errs by a class at most, and on the late side. The memory is bounded and
does not grow with the number of jobs that have ended.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.placement.running import Occupant
from hyperion.placement.timeline import UNKNOWN_MS

CLASSES_PER_DOUBLING = 8
CLASSES = 36 * CLASSES_PER_DOUBLING
"""From a hundredth of a second to two decades."""
SHORTEST_MS = 10.0
HALF_LIFE = 64
"""So many later jobs make an ended one count half."""
PRIOR_WEIGHT = 4.0
"""So many jobs' worth is what is known of the wider circle: of a user's jobs of any name against
those of one name, of the queue's against the user's, and of an estimate against none."""
PRIOR_RATIOS = (0.05, 0.15, 0.3, 0.5, 0.8, 1.0, 1.2, 2.0)
"""Runtime over estimate before anything is known, all equally likely: an assumption. Three of four
have ended when their estimate is over, which makes it the expected runtime."""
EXPECTED_QUANTILE = 0.75
MOST_NAMES = 2048
MOST_SHAPES = 1024
MOST_QUEUES = 512
MOST_USERS = 512
_FADE = 0.5 ** (1 / HALF_LIFE)
_LEAST = 1e-3
"""Counts below this are forgotten."""
Counts = NDArray[np.float64]


class Sketch(Struct, frozen=True):
    """A kept sketch: whose it is, and its counts by class."""

    circle: str
    key: tuple[str, ...]
    counts: dict[int, float]


class Forecast:
    """Learns from ended jobs; pure, so that the same jobs in the same order teach the same."""

    def __init__(self, sketches: Iterable[Sketch] = ()) -> None:
        self._circles = {
            "name": _Circle(MOST_NAMES),
            "shape": _Circle(MOST_SHAPES),
            "queue": _Circle(MOST_QUEUES),
            "all": _Circle(1),
            "estimate": _Circle(MOST_USERS),
        }
        for sketch in sketches:
            circle = self._circles.get(sketch.circle)
            if circle is not None:
                circle.put(sketch.key, sketch.counts)

    def state(self) -> tuple[Sketch, ...]:
        """All that was learnt; ``Forecast(state)`` knows the same."""
        return tuple(
            Sketch(name, key, _told(counts))
            for name, circle in self._circles.items()
            for key, counts in circle.counts.items()
        )

    def learn(self, job: Job, ran_ms: int) -> None:
        """A job that ended by itself after so long. Those that were stopped teach nothing."""
        at = _class_of(ran_ms)
        for name, key in _keys(job):
            self._circles[name].add(key, at)
        if job.expected_s > 0:
            ratio = ran_ms / (job.expected_s * 1000)
            self._circles["estimate"].add((job.user,), _class_of(ratio * _RATIO_ONE_MS))

    def expected(self, job: Job) -> tuple[int, float]:
        """(ms, confidence): how long it will run, and the probability that it has ended by then.

        The shortest time by which three of four such jobs have ended. Without a history it is
        the user's own estimate, and an hour without one.
        """
        if not self._knows(job):
            return _told_ms(job), EXPECTED_QUANTILE
        ended = self._ended(job)
        at = int(np.searchsorted(ended, EXPECTED_QUANTILE))
        return _ms_of(at), min(1.0, float(ended[at]))

    def quantile(self, job: Job, q: float) -> int:
        """The time in ms by which such a job has ended with probability ``q``, 0 to 1."""
        assert 0.0 <= q <= 1.0, "a probability"
        ended = self._ended(job)
        return _ms_of(min(int(np.searchsorted(ended, q)), CLASSES - 1))

    def chance(self, job: Job, ran_ms: int, by_ms: int) -> float:
        """The probability that a job that has run for ``ran_ms`` and still runs will have ended
        when it has run for ``by_ms``; between the ends of classes, chances are interpolated.

        A job that has outlived all that is known has each further doubling as an even chance.
        """
        if by_ms <= ran_ms:
            return 0.0
        ended = self._ended(job)
        before, after = _at(ended, ran_ms), _at(ended, by_ms)
        if 1.0 - before < _LEAST:
            return 1.0 - max(ran_ms, 1) / by_ms
        return min(1.0, max(0.0, (after - before) / (1.0 - before)))

    def of(self, jobs: Mapping[JobId, Job]) -> "Chances":
        """The same for running jobs; of one that ``jobs`` does not have, only queue and estimate
        are known."""
        return Chances(self, jobs)

    def _knows(self, job: Job) -> bool:
        circles = self._circles
        if job.expected_s > 0:
            name, key = _keys(job)[0]
            return (job.user,) in circles["estimate"].counts or key in circles[name].counts
        return bool(circles["all"].counts)

    def _ended(self, job: Job) -> Counts:
        """By class: the probability that the job has ended at its upper end.

        What is known of each circle, from wide to narrow, counts against the next wider one as its
        number of jobs against ``PRIOR_WEIGHT``. An estimate takes the place of the wide circles.
        """
        name, *wider = _keys(job)
        if job.expected_s > 0:
            known = self._circles["estimate"].of((job.user,))
            ratios = _blend(known, _PRIOR)
            shares = _shifted(ratios, _class_of(_told_ms(job)) - _RATIO_ONE)
            circles = [name]
        else:
            shares = _shifted(_PRIOR, _class_of(_told_ms(job)) - _RATIO_ONE)
            circles = [*reversed(wider), name]
        for circle, key in circles:
            shares = _blend(self._circles[circle].of(key), shares)
        ended: Counts = np.minimum(np.cumsum(shares), 1.0)
        ended[-1] = 1.0
        return ended


class Chances:
    """How likely occupants have ended by a time."""

    def __init__(self, forecast: Forecast, jobs: Mapping[JobId, Job]) -> None:
        self._forecast = forecast
        self._jobs = jobs

    def ended_by(self, occupant: Occupant, by_ms: int, now_ms: int) -> float:
        """One that is being stopped surely has."""
        if occupant.stopping:
            return 1.0
        started_ms = occupant.started_at_ms
        told_s = max(0, occupant.ends_at_ms - started_ms) / 1000
        job = self._jobs.get(occupant.job)
        if job is None:
            job = Job(id=occupant.job, queue=occupant.queue, expected_s=told_s)
        elif job.expected_s <= 0:
            job = replace(job, expected_s=told_s)
        return self._forecast.chance(job, max(0, now_ms - started_ms), by_ms - started_ms)


class _Circle:
    """Counts of a bounded number of keys; the one that learnt longest ago makes way."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.counts: dict[tuple[str, ...], Counts] = {}

    def of(self, key: tuple[str, ...]) -> Counts | None:
        return self.counts.get(key)

    def put(self, key: tuple[str, ...], counts: dict[int, float]) -> None:
        made = np.zeros(CLASSES)
        for at, count in counts.items():
            made[min(max(at, 0), CLASSES - 1)] = count
        self._keep(key, made)

    def add(self, key: tuple[str, ...], at: int) -> None:
        counts = self.counts.pop(key, None)
        if counts is None:
            counts = np.zeros(CLASSES)
        else:
            counts *= _FADE
            counts *= counts >= _LEAST
        counts[at] += 1.0
        self._keep(key, counts)

    def _keep(self, key: tuple[str, ...], counts: Counts) -> None:
        if len(self.counts) >= self.most:
            del self.counts[next(iter(self.counts))]
        self.counts[key] = counts


def _told(counts: Counts) -> dict[int, float]:
    """By class, where there is any."""
    at = np.flatnonzero(counts)
    return dict(zip(at.tolist(), counts[at].tolist(), strict=True))


def _keys(job: Job) -> list[tuple[str, tuple[str, ...]]]:
    """The circles that a job belongs to, the narrowest first."""
    first = job.alternatives[0]
    shape = (
        str(job.replicas), str(first.gpus_milli), first.gpu_type,
        str(first.cpus_milli), str(first.memory_mib),
    )  # fmt: skip
    return [
        ("name", (job.user, job.name or job.image or " ".join(job.command[:1]))),
        ("shape", (job.user, *shape)),
        ("queue", (job.queue or DEFAULT_QUEUE,)),
        ("all", ()),
    ]


def _told_ms(job: Job) -> int:
    return round(job.expected_s * 1000) if job.expected_s > 0 else UNKNOWN_MS


def _class_of(ms: float) -> int:
    """The class whose upper end is the first that is not below."""
    if ms <= SHORTEST_MS:
        return 0
    at = math.ceil(math.log2(ms / SHORTEST_MS) * CLASSES_PER_DOUBLING - 1e-9)
    return min(at, CLASSES - 1)


def _ms_of(at: int) -> int:
    return math.ceil(SHORTEST_MS * 2 ** (at / CLASSES_PER_DOUBLING))


def _at(ended: Counts, ms: float) -> float:
    """The probability of having ended at a time between the ends of classes."""
    place = math.log2(max(ms, SHORTEST_MS) / SHORTEST_MS) * CLASSES_PER_DOUBLING
    low = min(int(place), CLASSES - 1)
    high = min(low + 1, CLASSES - 1)
    if ms < SHORTEST_MS:
        return 0.0
    return float(ended[low] + (place - low) * (ended[high] - ended[low]))


def _blend(known: Counts | None, wider: Counts) -> Counts:
    """Shares of a circle that leans on a wider one the more the less it knows itself."""
    if known is None:
        return wider
    blended: Counts = (known + PRIOR_WEIGHT * wider) / (known.sum() + PRIOR_WEIGHT)
    return blended


def _shifted(shares: Counts, by: int) -> Counts:
    """What falls off at an end is counted there."""
    at = np.clip(np.arange(CLASSES) + by, 0, CLASSES - 1)
    found: Counts = np.bincount(at, shares, CLASSES).astype(np.float64)
    return found


_RATIO_ONE = CLASSES // 2
"""The class of a runtime that is as long as was estimated."""
_RATIO_ONE_MS = SHORTEST_MS * 2 ** (_RATIO_ONE / CLASSES_PER_DOUBLING)
_PRIOR: Counts = np.zeros(CLASSES)
for _ratio in PRIOR_RATIOS:
    _PRIOR[_class_of(_ratio * _RATIO_ONE_MS)] += 1 / len(PRIOR_RATIOS)
