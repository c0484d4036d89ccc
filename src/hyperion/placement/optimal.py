"""The policy `optimal`: the least sum of costs for jobs that wait together, proven by HiGHS.

Its ranking is the objective, as with ``balanced``; only who gets which room is its own. HiGHS
(Huangfu and Hall, Math. Prog. Comp. 10, 2018) is the extra ``optimal``, imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hyperion.model.job import Job
from hyperion.placement.balanced import BALANCED
from hyperion.placement.candidates import Candidates, Column
from hyperion.placement.watched import TooLate

if TYPE_CHECKING:  # they rank, and ranking knows this policy
    from hyperion.placement.assignment import Assigned, Contest, Likes
    from hyperion.placement.rooms import Amounts, Rooms

LIMIT_MS = 1000.0
"""A federation's round waits so long at most; its leases last minutes."""
GAP = 1e-6
"""Part of the sum by which the answer may miss the optimum."""
MISSING = "policy optimal is not installed: pip install 'hyperion-x[optimal]'"


@dataclass(frozen=True, slots=True)
class Optimal:
    """The objective; jobs that wait together get the rooms that cost least in sum, exactly."""

    name: str = "optimal"
    limit_ms: float = LIMIT_MS

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return BALANCED.cost(job, candidates)

    def assign(self, contest: Contest) -> Assigned:
        """Never worse than what it starts from. ``TooLate`` if there is no proof in time."""
        from hyperion.placement.assignment import holds

        for strict in (False, True):
            found = self._solved(contest, strict=strict)
            if holds(contest.likes, contest.rooms, found):
                return found
        return contest.start

    def _solved(self, contest: Contest, *, strict: bool) -> Assigned:
        highs = solver()
        model, columns = _model(contest, highs, strict=strict)
        h = highs.Highs()
        h.silent()
        h.setOptionValue("time_limit", self.limit_ms / 1000)
        h.setOptionValue("mip_rel_gap", GAP)
        h.setOptionValue("threads", 1)
        h.setOptionValue("random_seed", 0)
        h.passModel(model)
        start = highs.HighsSolution()
        start.col_value = _values(contest.start, columns)
        h.setSolution(start)
        h.run()
        status = h.getModelStatus()
        late = h.getRunTime() > self.limit_ms / 1000  # what is small it may finish all the same
        if late or status == highs.HighsModelStatus.kTimeLimit:
            raise TooLate(f"found no proof within {self.limit_ms:g} ms")
        if status != highs.HighsModelStatus.kOptimal:
            return contest.start
        found: Assigned = [[] for _ in contest.likes]
        for (likes, option), value in zip(columns, h.getSolution().col_value, strict=True):
            found[likes] += [option] * round(value)
        return found


def solver() -> Any:
    """The module ``highspy``; ValueError says how to get it."""
    try:
        return import_module("highspy")
    except ImportError:
        raise ValueError(MISSING) from None


class _Row(NamedTuple):
    """At most (or exactly, with ``equal``) so much of the columns named."""

    most: float
    equal: bool
    columns: list[int]
    weights: list[float]


Columns = list[tuple[int, int]]
"""(likes, option) of each variable: how many of the likes go there."""


def _model(contest: Contest, highs: Any, *, strict: bool) -> tuple[Any, Columns]:
    likes = contest.likes
    columns = [(n, at) for n, each in enumerate(likes) for at in range(len(each.options))]
    rows = [*_everybody(likes, columns), *_rooms(contest, columns, strict=strict)]
    model = highs.HighsLp()
    model.num_col_, model.num_row_ = len(columns), len(rows)
    model.col_cost_ = np.array([likes[n].options[at].cost for n, at in columns])
    model.col_lower_ = np.zeros(len(columns))
    model.col_upper_ = np.array([float(likes[n].count) for n, _ in columns])
    model.integrality_ = [highs.HighsVarType.kInteger] * len(columns)
    model.row_lower_ = np.array([row.most if row.equal else -highs.kHighsInf for row in rows])
    model.row_upper_ = np.array([row.most for row in rows])
    model.a_matrix_.format_ = highs.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(row.columns) for row in rows)]).astype(np.int32)
    model.a_matrix_.index_ = np.array([c for row in rows for c in row.columns], np.int32)
    model.a_matrix_.value_ = np.array([w for row in rows for w in row.weights], np.float64)
    return model, columns


def _everybody(likes: Sequence[Likes], columns: Columns) -> Iterator[_Row]:
    at: list[list[int]] = [[] for _ in likes]
    for column, (n, _) in enumerate(columns):
        at[n].append(column)
    for each, found in zip(likes, at, strict=True):
        yield _Row(float(each.count), True, found, [1.0] * len(found))


def _rooms(contest: Contest, columns: Columns, *, strict: bool) -> Iterator[_Row]:
    """What is asked for in each cluster stays within its room. Where shapes differ, within that of
    the largest; ``strict``: of the smallest, which is more than is needed."""
    there: dict[int, list[int]] = {}
    for column, (n, at) in enumerate(columns):
        there.setdefault(contest.likes[n].options[at].cluster, []).append(column)
    for cluster, found in there.items():
        for dimension, ahead in enumerate(contest.rooms.ahead[cluster]):
            weights = [float(contest.likes[columns[c][0]].asked[dimension]) for c in found]
            limits = [
                limit[dimension] + contest.likes[n].asked[dimension]
                for n, at in (columns[c] for c in found)
                for limit in _limits(contest.rooms, contest.likes[n].options[at].way, cluster)
                if contest.likes[n].asked[dimension]
            ]
            if limits:
                most = float((min if strict else max)(limits) - ahead)
                yield _Row(most, False, found, weights)


def _limits(rooms: Rooms, way: int, cluster: int) -> Sequence[Amounts]:
    limits = rooms.limits[way].get(cluster, ())
    return [limit for limit in limits if min(limit) >= 0]


def _values(start: Assigned, columns: Columns) -> list[float]:
    counted: dict[tuple[int, int], int] = {}
    for n, options in enumerate(start):
        for at in options:
            counted[n, at] = counted.get((n, at), 0) + 1
    return [float(counted.get(column, 0)) for column in columns]
