"""Labels of nodes as columns of small numbers, so that a term is answered for all nodes at once.

A column is made when somebody first asks about its key, and kept up to date from then on. The
levels of the topology are columns too: equal numbers are one part, and a node without the label is
a part of its own. A part has one name in the whole cluster: two racks must not share theirs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.constraints import HOST, LEVELS, NodeTerm, Operator
from hyperion.model.node import Node
from hyperion.placement.feasibility import VARIOUS, beyond

KINDS_PER_KEY = 32
"""A key with more values than this does not tell kinds of nodes apart."""
MOST_COLUMNS = 128
"""Keys that are kept as columns; the one made first makes way for another."""
_ALIASES = {"zone": "topology.kubernetes.io/zone"}
_PARTS_OF_KINDS = frozenset(LEVELS[1:])
"""Every cluster has many of these; a zone is ordinary."""

Parts = tuple[NDArray[np.int32], int]
"""(the part of each row, how many numbers of parts there are)."""


class LabelColumn:
    """One key: a code for each row, 0 where the label is absent."""

    __slots__ = ("_spare", "_uses", "code_of", "codes", "names")

    def __init__(self, rows: int) -> None:
        self.codes: NDArray[np.int32] = np.zeros(rows, np.int32)
        self.code_of: dict[str, int] = {}
        self.names: list[str] = [""]
        """By code; what is unused is used again."""
        self._uses = [0]
        self._spare: list[int] = []

    def put(self, row: int, value: str | None) -> None:
        if row >= len(self.codes):
            more = np.zeros(max(16, row), np.int32)
            self.codes = np.concatenate([self.codes, more])
        if value is not None:
            code = self.code_of.get(value)
            if code is None:
                code = self._new(value)
            self._uses[code] += 1
            self.codes[row] = code

    def drop(self, row: int) -> None:
        code = int(self.codes[row]) if row < len(self.codes) else 0
        if code:
            self.codes[row] = 0
            self._uses[code] -= 1
            if not self._uses[code]:
                del self.code_of[self.names[code]]
                self._spare.append(code)

    def mask(self, holds: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
        """From codes to rows."""
        if len(self.codes) < rows:
            self.codes = np.concatenate([self.codes, np.zeros(rows, np.int32)])
        return holds.take(self.codes[:rows])

    def _new(self, value: str) -> int:
        if self._spare:
            code = self._spare.pop()
            self.names[code] = value
        else:
            code = len(self.names)
            self.names.append(value)
            self._uses.append(0)
        self.code_of[value] = code
        return code


class Labels:
    """All labels of a cluster's nodes; rows are the snapshot's."""

    __slots__ = ("_columns", "_counts", "_levels", "_parts")

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        """By key and value, on how many nodes."""
        self._columns: dict[str, LabelColumn] = {}
        self._levels = {level: LabelColumn(0) for level in LEVELS if level != HOST}
        self._parts: dict[str, Parts] = {}

    def add(self, row: int, labels: dict[str, str]) -> bool:
        """Whether this changes which keys tell kinds apart."""
        changed = False
        for key, value in labels.items():
            values = self._counts.setdefault(key, {})
            values[value] = values.get(value, 0) + 1
            changed |= values[value] == 1 and len(values) == KINDS_PER_KEY + 1
        for key, column in self._columns.items():
            column.put(row, labels.get(key))
        for level, column in self._levels.items():
            column.put(row, _level_value(labels, level))
        self._parts.clear()
        return changed

    def remove(self, row: int, labels: dict[str, str]) -> bool:
        """As ``add``."""
        changed = False
        for key, value in labels.items():
            values = self._counts[key]
            values[value] -= 1
            if not values[value]:
                del values[value]
                changed |= len(values) == KINDS_PER_KEY
                if not values:
                    del self._counts[key]
        for column in (*self._columns.values(), *self._levels.values()):
            column.drop(row)
        self._parts.clear()
        return changed

    def of_kind(self, labels: dict[str, str]) -> dict[str, str]:
        """A node's labels as its kind has them."""
        if not labels:
            return labels
        return {k: VARIOUS if self._is_various(k) else v for k, v in labels.items()}

    def _is_various(self, key: str) -> bool:
        return key in _PARTS_OF_KINDS or len(self._counts.get(key, ())) > KINDS_PER_KEY

    def parts(self, level: str, rows: int) -> Parts:
        """Of the host level each row is one."""
        found = self._parts.get(level)
        if found is None or len(found[0]) != rows:
            if level == HOST:
                found = np.arange(rows, dtype=np.int32), rows
            else:
                column = self._levels[level]
                parts = column.codes[:rows].copy()
                alone = np.flatnonzero(parts == 0)
                named = len(column.names)
                parts[alone] = np.arange(named, named + len(alone))
                found = parts, named + len(alone)
            self._parts[level] = found
        return found

    def level_of(self, row: int, level: str) -> str:
        """The name of a row's part; empty where it is a part of its own."""
        if level == HOST:
            return ""
        column = self._levels[level]
        return column.names[int(column.codes[row])]

    def equal(self, key: str, value: str, nodes: Sequence[Node | None]) -> NDArray[np.bool_]:
        """By row: whether the label is there with this very value."""
        column = self._column(key, nodes)
        holds = np.zeros(len(column.names), np.bool_)
        holds[column.code_of.get(value, 0)] = value in column.code_of
        return column.mask(holds, len(nodes))

    def holds(self, term: NodeTerm, nodes: Sequence[Node | None]) -> NDArray[np.bool_]:
        """By row: whether the label is as the term wants it."""
        column = self._column(term.key, nodes)
        among = np.zeros(len(column.names), np.bool_)
        match term.operator:
            case Operator.EXISTS | Operator.ABSENT:
                among[1:] = True
            case Operator.IN | Operator.NOT_IN:
                among[[column.code_of.get(v, 0) for v in term.values]] = True
                among[0] = False
            case _:
                among[1:] = [beyond(name, term) for name in column.names[1:]]
        if term.operator in (Operator.ABSENT, Operator.NOT_IN):
            among = ~among
        return column.mask(among, len(nodes))

    def _column(self, key: str, nodes: Sequence[Node | None]) -> LabelColumn:
        column = self._columns.get(key)
        if column is None:
            if len(self._columns) >= MOST_COLUMNS:
                del self._columns[next(iter(self._columns))]
            column = self._columns[key] = LabelColumn(len(nodes))
            for row, node in enumerate(nodes):
                if node is not None:
                    column.put(row, node.labels.get(key))
        return column


def _level_value(labels: dict[str, str], level: str) -> str | None:
    own = labels.get(level)
    return labels.get(_ALIASES[level]) if own is None and level in _ALIASES else own
