"""The cells of one row of a trace, checked: what is wrong is told with its line and column."""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from hyperion.sim.trace import BadRow, TraceError

Row = Mapping[str, object]
Rows = Iterable[tuple[int, Row]]
"""With their line numbers; the header of a table is line 1."""
_WANTED = object()


class Reading(Struct, frozen=True, kw_only=True):
    """What a trace does not say and its reader must know: the machines that it is to run on."""

    gpus_per_node: int = 8
    gpu_type: str = ""
    """What jobs ask for by name that came without a type; empty: any."""
    cpus_milli_per_gpu: int = 4000
    memory_mib_per_gpu: int = 16_384


class BadCell(TraceError):
    """This row is no job; the reader counts it and goes on."""

    def __init__(self, line: int, column: str, message: str) -> None:
        where = f", column {column}" if column else ""
        super().__init__(f"line {line}{where}: {message}")
        self.row = BadRow(line, column, message)


class Cells:
    """One row. Every question raises ``BadCell`` when the answer makes no sense."""

    __slots__ = ("line", "row")

    def __init__(self, line: int, row: Row) -> None:
        self.line = line
        self.row = row
        more: object = row.get(None)  # type: ignore[call-overload]  # csv's key for the rest
        if isinstance(more, list):
            raise self.wrong("", f"has {len(more)} cells more than the header has names")

    def text(self, column: str, default: object = _WANTED) -> str:
        value = self.row.get(column)
        if value is None or str(value).strip() == "":
            if default is _WANTED:
                raise self.wrong(column, "is empty, expected a value")
            return str(default)
        return str(value).strip()

    def number(self, column: str, least: float = 0.0, default: object = _WANTED) -> float:
        value = self.row.get(column)
        if isinstance(value, str):
            value = value.strip() or None
        if value is None or (isinstance(value, float) and math.isnan(value)):
            if default is _WANTED:
                raise self.wrong(column, "is empty, expected a number")
            return float(str(default))
        try:
            number = float(str(value))
        except ValueError:
            raise self.wrong(column, f"found {short(value)}, expected a number") from None
        if not math.isfinite(number) or number < least:
            raise self.wrong(column, f"found {short(value)}, expected a number from {least:g} up")
        return number

    def whole(self, column: str, least: int = 0, default: object = _WANTED) -> int:
        number = self.number(column, least, default)
        if number != int(number):
            raise self.wrong(column, f"found {number:g}, expected a whole number")
        return int(number)

    def wrong(self, column: str, message: str) -> BadCell:
        return BadCell(self.line, column, message)


def short(value: object) -> str:
    """A value as it may stand in a message."""
    text = str(value)
    shown = "".join(c if c.isprintable() else "?" for c in text[:40])
    return f'"{shown}{"…" if len(text) > 40 else ""}"'


def check_columns(source: str, found: Iterable[str], wanted: Iterable[str]) -> None:
    """``TraceError`` that names the missing columns and those that are there."""
    there = list(found)
    missing = [column for column in wanted if column not in there]
    if missing:
        raise TraceError(
            f"{source}: no column {', '.join(missing)}; the columns are: {', '.join(there[:40])}"
        )
