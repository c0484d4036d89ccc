"""One node in plain numbers: what is free, given and taken at will without touching a snapshot."""

from collections.abc import Iterable

from hyperion.model.allocation import Allocation
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.snapshot import Snapshot, count_devices
from hyperion.placement.wishes import Withheld


class Plot:
    """Starts as the snapshot's row. Amounts may be less than nothing where places are claimed
    that others have not left yet; what a request does not ask for is not asked about."""

    __slots__ = ("cpus", "custom", "devices", "disk", "kept", "memory", "part", "whole")

    def __init__(self, snapshot: Snapshot, row: int, withheld: Withheld | None) -> None:
        self.cpus, self.memory, self.disk, self.whole, self.part = snapshot.amounts[:, row].tolist()
        gpus = snapshot.groups[snapshot.group[row]].capacity.gpus
        self.devices: list[int] = snapshot.devices[row].tolist()[:gpus]
        self.custom: dict[str, int] = {}
        if snapshot.custom_row:
            column = snapshot.custom[:, row].tolist()
            self.custom = {name: column[line] for name, line in snapshot.custom_row.items()}
        self.kept = 0
        """Whole GPUs that must stay free; of the rest only what may be used is counted."""
        if withheld is not None:
            self.kept = withheld.gpus
            self.cpus -= withheld.cpus_milli
            self.memory -= withheld.memory_mib
            self.disk -= withheld.disk_mib
            for name, amount in withheld.custom:
                self.custom[name] = self.custom.get(name, 0) - amount

    def has_room(self, r: ResourceRequest) -> bool:
        """For one more replica; amounts only, since the kind of node was checked before."""
        gpus = r.gpus_milli
        if gpus:
            if gpus >= MILLI:
                if self.whole - self.kept < gpus // MILLI:
                    return False
            elif self.part < gpus and self.whole <= self.kept:
                return False
        return (
            (self.cpus >= r.cpus_milli or not r.cpus_milli)
            and (self.memory >= r.memory_mib or not r.memory_mib)
            and (self.disk >= r.disk_mib or not r.disk_mib)
            and (not r.custom or all(self.custom.get(n, 0) >= need for n, need in r.custom if need))
        )

    def slots(self, r: ResourceRequest, most: int) -> int:
        """For how many more identical replicas; counting stops at ``most``."""
        if r.gpus_milli >= MILLI:
            most = min(most, (self.whole - self.kept) // r.whole_gpus)
        elif r.gpus_milli:
            parts = sum(max(0, m) // r.gpus_milli for m in self.devices if m != MILLI)
            whole = max(0, self.whole - self.kept)
            most = min(most, parts + whole * (MILLI // r.gpus_milli))
        for need, free in (
            (r.cpus_milli, self.cpus),
            (r.memory_mib, self.memory),
            (r.disk_mib, self.disk),
            *((need, self.custom.get(name, 0)) for name, need in r.custom),
        ):
            if need:
                most = min(most, free // need)
        return max(0, most)

    def take(self, r: ResourceRequest) -> tuple[int, ...]:
        """Seat one replica; which GPUs it gets, as the planner would choose. There must be room."""
        self._add(r, -1)
        if not r.gpus_milli:
            return ()
        if r.gpus_milli >= MILLI:
            free = [i for i, milli in enumerate(self.devices) if milli == MILLI]
            chosen = tuple(free[: r.whole_gpus])
            for i in chosen:
                self.devices[i] = 0
        else:
            fitting = (i for i, milli in enumerate(self.devices) if milli >= r.gpus_milli)
            chosen = (min(fitting, key=lambda i: self.devices[i]),)
            self.devices[chosen[0]] -= r.gpus_milli
        self.whole, self.part = count_devices(self.devices)
        return chosen

    def give(self, seats: Iterable[Allocation], sign: int = 1) -> None:
        """Add what seats of this node hold to what is free; with -1 take it away again."""
        counted = False
        for seat in seats:
            self._add(seat.request, sign)
            if seat.devices:
                counted = True
                share = sign * min(seat.request.gpus_milli, MILLI)
                for device in seat.devices:
                    if device < len(self.devices):
                        self.devices[device] += share
        if counted:
            self.whole, self.part = count_devices(self.devices)

    def _add(self, r: ResourceRequest, sign: int) -> None:
        self.cpus += sign * r.cpus_milli
        self.memory += sign * r.memory_mib
        self.disk += sign * r.disk_mib
        for name, amount in r.custom:
            self.custom[name] = self.custom.get(name, 0) + sign * amount
