"""A job's terms about replicas, its own and others', against what is held and what is planned."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperion.model.constraints import HOST
from hyperion.model.job import Job
from hyperion.placement.feasibility import Reason
from hyperion.placement.neighbours import Apart, Neighbours, Pairs, has_pairs
from hyperion.placement.ranking import Column
from hyperion.placement.snapshot import Snapshot

_UNEVEN = 0.5
"""The weight of each replica more than a preferred spread wants."""
_MOST_PENALTIES = 100


class Nearness:
    """By row, where a job may be for the sake of replicas; asked anew after each seat."""

    def __init__(
        self, snapshot: Snapshot, planned: Neighbours, job: Job, kept_from: tuple[Apart, ...]
    ) -> None:
        self._snapshot = snapshot
        self._planned = planned
        self._job = job
        self._kept_from = kept_from
        """Which replicas want such a job away from them."""

    @property
    def matters(self) -> bool:
        return bool(self._job.replica_affinity or self._kept_from)

    @property
    def follows_own(self) -> bool:
        """Whether a seat for one of its replicas changes where the next may be."""
        job = self._job
        return bool(job.spread) or any(
            has_pairs(job.metadata, term.labels) for term in job.replica_affinity
        )

    @property
    def is_placed(self) -> bool:
        """Whether some of its replicas have places already."""
        return bool(self._own())

    def gathers(self) -> list[str]:
        """Levels at which its replicas must be together, while none of their like is anywhere."""
        return [
            t.level
            for t in self._job.replica_affinity
            if not t.anti
            and not t.weight
            and has_pairs(self._job.metadata, t.labels)
            and not self._knowing(t.labels)
        ]

    def allowed(self) -> NDArray[np.bool_] | None:
        """By row, where it may be; None for anywhere. Not to be written to."""
        found: NDArray[np.bool_] | None = None
        for _, mask in self._required():
            found = mask if found is None else found & mask
        return found

    def penalties(self, unit: float) -> Column | None:
        """By row, a part of ``unit`` for each preference that is not met; None for nothing."""
        cost: Column | None = None
        for term in self._job.replica_affinity:
            if term.weight:
                known = self._knowing(term.labels)
                near, parts = self._near(term.labels, term.level, known)
                misses = np.minimum(near, _MOST_PENALTIES) if term.anti else near == 0
                more: Column = misses * (unit * term.weight / 100)
                more = more if parts is None else more[parts]
                cost = more if cost is None else cost + more
        return cost

    def _required(self) -> Iterator[tuple[Reason, NDArray[np.bool_]]]:
        """By reason, the rows that a term leaves."""
        for term in self._job.replica_affinity:
            if term.weight:
                continue
            reason = Reason.ANTI_AFFINITY if term.anti else Reason.REPLICA_AFFINITY
            known = self._knowing(term.labels)
            if known:
                near, parts = self._near(term.labels, term.level, known)
                fits = near == 0 if term.anti else near > 0
                yield reason, fits if parts is None else fits[parts]
            elif not term.anti and not has_pairs(self._job.metadata, term.labels):
                yield reason, np.zeros(self._snapshot.rows, np.bool_)
        for apart in self._kept_from:
            near, parts = self._apart(apart)
            yield Reason.ANTI_AFFINITY, (near == 0)[parts]

    def uneven(self, cost: Column, unit: float) -> Column | None:
        """What its spread adds to these costs; None for nothing."""
        if not self._job.spread or not self._own():
            return None
        more = np.zeros(len(cost))
        for spread in self._job.spread:
            skew, parts = self._skew(spread.level, cost < np.inf)
            over = np.maximum(skew - spread.max_skew, 0)
            table = np.where(over > 0, np.inf, 0.0) if spread.required else over * (unit * _UNEVEN)
            more += table[parts]
        return more

    def objections(self, fits: NDArray[np.bool_]) -> list[tuple[Reason, NDArray[np.bool_]]]:
        """For a refusal: by reason, the rows that it forbids; ``fits`` are those with room."""
        found = [(reason, ~mask) for reason, mask in self._required()]
        for spread in self._job.spread if self._own() else ():
            if spread.required:
                skew, parts = self._skew(spread.level, fits)
                found.append((Reason.SPREAD, (skew > spread.max_skew)[parts]))
        return found

    def _skew(
        self, level: str, fits: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """By part, how many replicas it would have more than the emptiest that could take one."""
        parts, count = self._snapshot.labels.parts(level, self._snapshot.rows)
        own = np.bincount(parts[self._own()], minlength=count)
        possible = own[parts[fits]]
        return own + 1 - int(possible.min(initial=_MANY)), parts

    def _own(self) -> list[int]:
        """The rows of its replicas, held or planned."""
        job = self._job.id
        return [*self._snapshot.neighbours.own(job), *self._planned.own(job)]

    def own_parts(self, level: str) -> set[int]:
        """The parts in which it has replicas."""
        parts, _ = self._snapshot.labels.parts(level, self._snapshot.rows)
        return {int(p) for p in parts[self._own()]}

    def _knowing(self, pairs: Pairs) -> list[Neighbours]:
        """Those of the held and the planned that have such a replica."""
        rows = self._snapshot.rows
        both = (self._snapshot.neighbours, self._planned)
        known = [n for n in both if n and n.has(pairs)]
        if len(pairs) > 1:
            known = [n for n in known if n.count(pairs, rows).any()]
        return known

    def _near(
        self, pairs: Pairs, level: str, known: list[Neighbours]
    ) -> tuple[NDArray[Any], NDArray[np.int32] | None]:
        """(how many such replicas each part has, the part of each row: None where each is one)."""
        rows = self._snapshot.rows
        if level == HOST and known:
            counts = [n.count(pairs, rows) for n in known]
            return counts[0] if len(counts) == 1 else counts[0] + counts[1], None
        parts, count = self._snapshot.labels.parts(level, rows)
        near = np.zeros(count, np.int64)
        for neighbours in known:
            by_row = neighbours.count(pairs, rows)
            at = np.flatnonzero(by_row)
            near += np.bincount(parts[at], weights=by_row[at], minlength=count).astype(np.int64)
        return near, parts

    def _apart(self, term: Apart) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        parts, count = self._snapshot.labels.parts(term[1], self._snapshot.rows)
        both = (self._snapshot.neighbours, self._planned)
        at = [row for n in both for row in n.apart_rows(term)]
        return np.bincount(parts[at], minlength=count), parts


_MANY = 2**31
