"""What is free as a round would leave it: copies of a snapshot's columns, kept between rounds."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.snapshot import Snapshot, count_devices, fullness


class Trial:
    """The amounts of a snapshot, for one round at a time to write in.

    ``borrow`` brings a copy up to date by the rows that have changed since it was used last, so a
    round costs what it and its callers change, and not what the cluster measures.
    """

    __slots__ = (
        "amounts",
        "custom",
        "devices",
        "fullness",
        "position",
        "rows",
        "structure",
        "used",
    )

    def __init__(self, snapshot: Snapshot) -> None:
        self.used: set[int] = set()
        """Rows that may differ from the snapshot's."""
        self.position = 0
        """How much of the snapshot's log of changes it has taken over."""
        self._copy(snapshot)

    @staticmethod
    def borrow(snapshot: Snapshot) -> "Trial":
        """One that nobody uses. A round within a round gets another one."""
        if not snapshot.trials:
            return Trial(snapshot)
        trial: Trial = snapshot.trials.pop()
        trial._catch_up(snapshot)
        return trial

    def give_back(self, snapshot: Snapshot) -> None:
        if len(snapshot.trials) < MOST_KEPT:
            snapshot.trials.append(self)

    def copy_rows(self, snapshot: Snapshot, rows: Iterable[int]) -> None:
        """What the snapshot has in them now."""
        at = np.fromiter(rows, np.intp)
        self.amounts[:, at] = snapshot.amounts[:, at]
        self.devices[at] = snapshot.devices[at]
        self.fullness[at] = snapshot.fullness[at]
        if len(self.custom):
            self.custom[:, at] = snapshot.custom[:, at]

    def _catch_up(self, snapshot: Snapshot) -> None:
        behind = self.position - snapshot.changed_from
        resized = (
            self.amounts.shape != snapshot.amounts.shape
            or self.devices.shape != snapshot.devices.shape
            or self.custom.shape != snapshot.custom.shape
        )
        if behind < 0 or resized or self.structure != snapshot.structure:
            self._copy(snapshot)
            return
        self.used.update(snapshot.changed[behind:])
        if self.used:
            self.copy_rows(snapshot, self.used)
            self.used.clear()
        self.position = snapshot.changed_from + len(snapshot.changed)

    def _copy(self, snapshot: Snapshot) -> None:
        self.amounts: NDArray[np.int32] = snapshot.amounts.copy()
        self.custom: NDArray[np.int64] = snapshot.custom.copy()
        self.devices: NDArray[np.int32] = snapshot.devices.copy()
        self.fullness: NDArray[np.float64] = snapshot.fullness.copy()
        self.structure = snapshot.structure
        self.position = snapshot.changed_from + len(snapshot.changed)
        self.used.clear()


MOST_KEPT = 2
"""Rounds within a round are rare; two copies serve them all without a new one."""


class TrialRow:
    """One node in plain numbers. Starts as the snapshot's row; ``take`` seats a replica in it."""

    __slots__ = ("capacity", "cpus", "devices", "disk", "fullness", "memory", "part", "whole")

    def __init__(self, snapshot: Snapshot, row: int) -> None:
        self.capacity = snapshot.groups[snapshot.group[row]].kind.capacity
        self.cpus = int(snapshot.free_cpus[row])
        self.memory = int(snapshot.free_memory[row])
        self.disk = int(snapshot.free_disk[row])
        gpus = self.capacity.gpus
        self.devices: list[int] = snapshot.devices[row, :gpus].tolist() if gpus else []
        self.whole = int(snapshot.whole[row])
        self.part = int(snapshot.part[row])
        self.fullness = float(snapshot.fullness[row])

    def has_room(self, r: ResourceRequest) -> bool:
        """For one more replica; amounts only, since the kind of node was checked before."""
        if self.cpus < r.cpus_milli or self.memory < r.memory_mib or self.disk < r.disk_mib:
            return False
        if r.gpus_milli >= MILLI:
            return self.whole >= r.whole_gpus
        return not r.gpus_milli or self.part >= r.gpus_milli or self.whole > 0

    def slots(self, r: ResourceRequest, most: int) -> int:
        """For how many more identical replicas; counting stops at ``most``."""
        if r.gpus_milli >= MILLI:
            most = min(most, self.whole // r.whole_gpus)
        elif r.gpus_milli:
            most = min(most, sum(max(0, free) // r.gpus_milli for free in self.devices))
        for need, free in (
            (r.cpus_milli, self.cpus),
            (r.memory_mib, self.memory),
            (r.disk_mib, self.disk),
        ):
            if need:
                most = min(most, free // need)
        return max(0, most)

    def take(self, r: ResourceRequest) -> tuple[int, ...]:
        """Seat one replica; which GPUs it gets. There must be room."""
        self.cpus -= r.cpus_milli
        self.memory -= r.memory_mib
        self.disk -= r.disk_mib
        devices: tuple[int, ...] = ()
        if r.gpus_milli:
            devices = self._take_gpus(r)
            self.whole, self.part = count_devices(self.devices)
        self.fullness = fullness(self.capacity, sum(self.devices), self.cpus, self.memory)
        return devices

    def _take_gpus(self, r: ResourceRequest) -> tuple[int, ...]:
        if r.gpus_milli >= MILLI:
            free = [i for i, milli in enumerate(self.devices) if milli == MILLI]
            chosen = tuple(free[: r.whole_gpus])
            assert len(chosen) == r.whole_gpus, "fewer whole GPUs than counted"
            for i in chosen:
                self.devices[i] = 0
            return chosen
        # The tightest fit keeps large shares, and whole GPUs most of all, for others.
        tight = min(
            (i for i, milli in enumerate(self.devices) if milli >= r.gpus_milli),
            key=lambda i: self.devices[i],
        )
        self.devices[tight] -= r.gpus_milli
        return (tight,)
