"""What will be free for one request at a time to come, row by row, and when it first is enough."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.promises import Kept
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.timeline import (
    CPUS,
    DEVICE,
    DISK,
    GPUS,
    MEMORY,
    SHARE,
    Ends,
    Ints,
    Timeline,
)

Mask = NDArray[np.bool_]


class _Track:
    """One amount: what is free of it by key (a row, or a GPU), and what comes back when."""

    __slots__ = ("ample", "base", "done", "ends", "key", "need", "place", "weights")

    def __init__(
        self, place: int, need: int, base: Ints, ends: Ints, key: Ints, weights: Ints
    ) -> None:
        self.place = place
        self.need = need
        self.base = base
        self.ends = ends
        self.key = key
        self.weights = weights
        self.done = 0
        self.ample = False
        """There is enough for all anywhere, now already."""

    def at(self, when_ms: int) -> Ints:
        """The free amounts; the caller may write into them."""
        end = int(np.searchsorted(self.ends, when_ms, "right"))
        if end <= self.done:
            return self.base.copy()
        weights = self.weights[self.done : end]
        back = np.bincount(self.key[self.done : end], weights, len(self.base))
        found: Ints = self.base + back.astype(np.int64)
        return found

    def settle(self, when_ms: int) -> None:
        """Nothing before this time will be asked for again."""
        end = int(np.searchsorted(self.ends, when_ms, "right"))
        if end > self.done:
            self.base = self.at(when_ms)
            self.done = end


class Horizon:
    """The rows that could take a replica of one request were they empty, and their future."""

    def __init__(
        self, snapshot: Snapshot, timeline: Timeline, request: ResourceRequest, open: Mask,
        now_ms: int, most: int,
    ) -> None:  # fmt: skip
        self.open = open
        self.most = most
        """Counting the replicas of a row stops at so many."""
        self.rows = snapshot.rows
        seats = timeline.seats(snapshot, now_ms)
        here = seats.on(open)
        ends, row = seats.ends_ms[here], seats.row[here]
        self.times: Ints = ends
        """When something becomes free on these rows, in order."""
        self._tracks = []
        for place, need, free in (
            (CPUS, request.cpus_milli, snapshot.free_cpus),
            (MEMORY, request.memory_mib, snapshot.free_memory),
            (DISK, request.disk_mib, snapshot.free_disk),
        ):
            base = free[: self.rows].astype(np.int64)
            if need:
                weights = seats.column(place, here)
                track = _Track(place, need, base, ends, row, weights)
                track.ample = bool((base >= need * most)[open].all())
                self._tracks.append(track)
        self._each = 0
        """How many of its shares a whole GPU takes; 0 where it wants whole ones, or none."""
        if request.whole_gpus:
            whole = snapshot.whole[: self.rows].astype(np.int64)
            back = timeline.whole_again(snapshot, open, now_ms)
            self._tracks.append(_Track(GPUS, request.whole_gpus, whole, *back))
        elif request.gpus_milli:
            self._each = MILLI // request.gpus_milli
            whole = snapshot.whole[: self.rows].astype(np.int64)
            back = timeline.whole_gpus(snapshot, open, now_ms)
            self._whole = _Track(GPUS, 1, whole, *back)
            self._parts = self._shared(snapshot, timeline, request.gpus_milli, now_ms)

    def slots(self, when_ms: int, closed: Mask | None, kept: Kept | None) -> Ints:
        """How many replicas each row takes at that time."""
        most = self.most
        room: Ints = np.where(self.open, most, 0)
        if closed is not None:
            room[closed] = 0
        for track in self._tracks:
            if kept is None and track.ample:
                continue
            free = track.at(when_ms)
            if kept is not None:
                free[kept.rows] -= kept.amounts[track.place]
            fits = free >= track.need if most == 1 else free // track.need
            np.minimum(room, fits, out=room)
        if self._each:
            shares = self._shares(when_ms, kept)
            np.minimum(room, shares, out=room)
        return np.maximum(room, 0, out=room)

    def _shares(self, when_ms: int, kept: Kept | None) -> Ints:
        """How many shares of GPUs each row takes."""
        whole, parts = self._whole.at(when_ms), self._parts.at(when_ms)
        again = parts >= MILLI
        whole += np.bincount(self._part_row[again], None, self.rows)
        of_parts = np.where(again, 0, np.maximum(parts, 0) // self._parts.need)
        shared = np.bincount(self._part_row, of_parts, self.rows).astype(np.int64)
        if kept is not None:
            shared[kept.rows[kept.shared > whole[kept.rows]]] = 0
            whole[kept.rows] = np.where(
                kept.shared > whole[kept.rows], 0, whole[kept.rows] - kept.amounts[GPUS]
            )
        found: Ints = shared + np.maximum(whole, 0) * self._each
        return found

    def settle(self, when_ms: int) -> None:
        for track in self._tracks:
            track.settle(when_ms)
        if self._each:
            self._whole.settle(when_ms)
            self._parts.settle(when_ms)

    def _shared(self, snapshot: Snapshot, timeline: Timeline, share: int, now_ms: int) -> _Track:
        """The GPUs of which shares are held now, each for itself."""
        width = snapshot.devices.shape[1]
        shares = timeline.shares(snapshot, now_ms)
        here = shares.on(self.open)
        key = shares.row[here] * width + shares.column(DEVICE, here)
        free = snapshot.devices[: self.rows].reshape(-1)
        begun = np.flatnonzero((free > 0) & (free < MILLI))
        numbers = np.union1d(begun, key)
        self._part_row: Ints = numbers // width
        places = np.searchsorted(numbers, key)
        base = free[numbers].astype(np.int64)
        return _Track(GPUS, share, base, shares.ends_ms[here], places, shares.column(SHARE, here))


def first_time(
    times: Ints, begins_ms: int, until_ms: int, enough: Callable[[int], bool],
    settle: Callable[[int], object],
) -> int | None:  # fmt: skip
    """The first of ``begins_ms`` and the times after it, up to ``until_ms``, that is enough.

    Enough at one time must be enough at each later one. ``settle`` hears of times that were not.
    """
    low = int(np.searchsorted(times, begins_ms, "right"))
    high = int(np.searchsorted(times, until_ms, "right"))
    if enough(begins_ms):
        return begins_ms
    settle(begins_ms)
    if low == high or not enough(int(times[high - 1])):
        return None
    high -= 1
    while low < high:
        middle = (low + high) // 2
        when_ms = int(times[middle])
        if enough(when_ms):
            high = middle
        else:
            settle(when_ms)
            low = int(np.searchsorted(times, when_ms, "right"))
    return int(times[high])


def ends_on(seats: Ends, rows: Ints, size: int, until_ms: int) -> NDArray[np.intp]:
    """Which of the seats, by place in the columns, will have left these rows by then."""
    wanted = np.zeros(size, np.bool_)
    wanted[rows] = True
    here = seats.on(wanted)
    return here[: int(np.searchsorted(seats.ends_ms[here], until_ms, "right"))]
