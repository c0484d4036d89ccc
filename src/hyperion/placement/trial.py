"""Nodes as a round would leave them: free amounts in plain numbers, and the choice of GPUs."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.snapshot import Snapshot, count_devices, fullness


class Amounts:
    """What is free, in columns: the snapshot's own, until ``part_from`` makes private copies."""

    __slots__ = ("cpus", "disk", "fullness", "memory", "part", "private", "whole")

    def __init__(self, snapshot: Snapshot) -> None:
        n = snapshot.rows
        self.private = False
        self.cpus: NDArray[np.int64] = snapshot.free_cpus[:n]
        self.memory: NDArray[np.int64] = snapshot.free_memory[:n]
        self.disk: NDArray[np.int64] = snapshot.free_disk[:n]
        self.whole: NDArray[np.int64] = snapshot.whole[:n]
        self.part: NDArray[np.int64] = snapshot.part[:n]
        self.fullness: NDArray[np.float64] = snapshot.fullness[:n]

    def part_from(self, trial: Mapping[int, "TrialRow"]) -> None:
        """Copy the columns and write the trial rows into the copies."""
        if not self.private:
            self.private = True
            for name in ("cpus", "memory", "disk", "whole", "part", "fullness"):
                setattr(self, name, getattr(self, name).copy())
            for row, values in trial.items():
                self.write(row, values)

    def write(self, row: int, t: "TrialRow") -> None:
        self.cpus[row] = t.cpus
        self.memory[row] = t.memory
        self.disk[row] = t.disk
        self.whole[row] = t.whole
        self.part[row] = t.part
        self.fullness[row] = t.fullness


class TrialRow:
    """Starts as the snapshot's row; ``take`` seats a replica in it and nowhere else."""

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
