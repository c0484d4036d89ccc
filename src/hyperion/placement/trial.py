"""What is free as a round would leave it: copies of a snapshot's columns, kept between rounds."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from hyperion.placement.snapshot import Snapshot


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
        "spare",
        "structure",
        "used",
    )

    def __init__(self, snapshot: Snapshot) -> None:
        self.used: set[int] = set()
        """Rows that may differ from the snapshot's."""
        self.spare: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        """Columns of costs that no demand uses now."""
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
        del self.spare[MOST_SPARE:]
        if len(snapshot.trials) < MOST_KEPT:
            snapshot.trials.append(self)

    def copy_rows(self, snapshot: Snapshot, rows: Collection[int]) -> None:
        """What the snapshot has in them now."""
        if len(rows) <= _FEW:
            for row in rows:
                self.amounts[:, row] = snapshot.amounts[:, row]
                self.devices[row] = snapshot.devices[row]
                self.fullness[row] = snapshot.fullness[row]
                if len(self.custom):
                    self.custom[:, row] = snapshot.custom[:, row]
            return
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
        self.spare.clear()
        self.used.clear()


_FEW = 4
MOST_SPARE = 16
MOST_KEPT = 2
"""Rounds within a round are rare; two copies serve them all without a new one."""
