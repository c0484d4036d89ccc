"""Who sits near whom: the replicas held, by what their jobs' metadata says and by topology.

Counts are made when a term first asks for them and kept up to date from then on, by row. What a
round has planned and nobody holds yet is counted in an object of its own, beside the snapshot's.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperion.model.ids import JobId
from hyperion.model.job import Job

Pairs = tuple[tuple[str, str], ...]
Apart = tuple[Pairs, str]
"""(who must stay away, at which level)."""
Rows = NDArray[np.int32]
MOST_TERMS = 64
"""Sets of pairs whose counts are kept; the one asked for first makes way for another."""


class Neighbours:
    """Replicas by what others may want of them. Those of jobs that say nothing are not kept."""

    __slots__ = ("_by_pair", "_counts", "_own", "_seats", "apart")

    def __init__(self) -> None:
        self._seats: dict[Hashable, tuple[int, Job]] = {}
        self._by_pair: dict[tuple[str, str], dict[Hashable, None]] = {}
        self._own: dict[JobId, dict[Hashable, int]] = {}
        """The rows of jobs that spread or pack their own replicas."""
        self._counts: dict[Pairs, Rows] = {}
        self.apart: dict[Apart, dict[Hashable, int]] = {}
        """The rows of replicas that want others away from them."""

    def __bool__(self) -> bool:
        return bool(self._seats)

    def put(self, id: Hashable, row: int, job: Job) -> None:
        """A replica that now sits in a row; ``is_social`` must be true of its job."""
        self._seats[id] = row, job
        for pair in job.metadata.items():
            self._by_pair.setdefault(pair, {})[id] = None
        for term in job.replica_affinity:
            if term.anti and not term.weight:
                self.apart.setdefault((term.labels, term.level), {})[id] = row
        if job.spread or job.packing is not None:
            self._own.setdefault(job.id, {})[id] = row
        self._count(row, job.metadata, 1)

    def drop(self, id: Hashable) -> None:
        """Nothing when it is not known (any more)."""
        found = self._seats.pop(id, None)
        if found is None:
            return
        row, job = found
        for pair in job.metadata.items():
            _discard(self._by_pair, pair, id)
        for term in job.replica_affinity:
            if term.anti and not term.weight:
                _discard(self.apart, (term.labels, term.level), id)
        if job.spread or job.packing is not None:
            _discard(self._own, job.id, id)
        self._count(row, job.metadata, -1)

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def job_of(self, id: Hashable) -> Job | None:
        found = self._seats.get(id)
        return None if found is None else found[1]

    def own(self, job: JobId) -> Iterable[int]:
        """The rows of its replicas, one entry a replica."""
        return self._own.get(job, _NOBODY).values()

    def count(self, pairs: Pairs, rows: int) -> Rows:
        """By row, how many replicas are of jobs with all these pairs. Not to be written to."""
        found = self._counts.get(pairs)
        if found is None or len(found) < rows:
            if len(self._counts) >= MOST_TERMS:
                del self._counts[next(iter(self._counts))]
            found = np.zeros(rows + rows // 4, np.int32)
            fewest = min((self._by_pair.get(p, _NONE) for p in pairs), key=len, default=_NONE)
            for id in fewest:
                row, job = self._seats[id]
                if has_pairs(job.metadata, pairs):
                    found[row] += 1
            self._counts[pairs] = found
        return found[:rows]

    def has(self, pairs: Pairs) -> bool:
        """Whether anybody might be counted by them."""
        return all(pair in self._by_pair for pair in pairs)

    def kept_from(self, metadata: Mapping[str, str]) -> tuple[Apart, ...]:
        """What replicas with this metadata must stay away from."""
        if not self.apart or not metadata:
            return ()
        return tuple(term for term in self.apart if has_pairs(metadata, term[0]))

    def apart_rows(self, term: Apart) -> Iterable[int]:
        return self.apart.get(term, _NOBODY).values()

    def _count(self, row: int, metadata: Mapping[str, str], sign: int) -> None:
        for pairs, counts in self._counts.items():
            if has_pairs(metadata, pairs):
                if row < len(counts):
                    counts[row] += sign
                else:  # nodes have come since: it is counted anew when asked for
                    self._counts = {p: c for p, c in self._counts.items() if p != pairs}


def is_social(job: Job) -> bool:
    """Whether others, or its own later replicas, may ask where its replicas are."""
    return bool(job.metadata or job.replica_affinity or job.spread or job.packing is not None)


def has_pairs(metadata: Mapping[str, str], pairs: Pairs) -> bool:
    return all(metadata.get(key) == value for key, value in pairs)


_NOBODY: dict[Hashable, int] = {}
_NONE: dict[Hashable, None] = {}


def _discard(index: dict[Any, dict[Hashable, Any]], key: object, id: Hashable) -> None:
    """Nothing when it is not there: a job may say the same twice."""
    entries = index.get(key)
    if entries is not None:
        entries.pop(id, None)
        if not entries:
            del index[key]
