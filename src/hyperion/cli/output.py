"""Prints what the API answers: as an aligned table that fits the terminal, as JSON, as YAML."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import click
import msgspec

T = TypeVar("T")
GAP = "  "
SHORTEST = 8
"""To which a column that may shrink is cut at most."""
INDENT = "    "
"""Before what is left of a row that is folded."""
LONG_ENOUGH = 24
"""A column that may shrink is not moved to the next line of a folded row for more than that."""
COLOURS = {
    "running": "green", "ready": "green", "succeeded": "green", "starting": "cyan",
    "assigned": "cyan", "queued": "yellow", "stopping": "yellow", "cordoned": "yellow",
    "draining": "yellow", "silent": "yellow", "failed": "red", "lost": "red", "cancelled": "red",
}  # fmt: skip


class Column(Generic[T]):
    """A title, and how its cell is made of a row."""

    def __init__(
        self,
        title: str,
        cell: Callable[[T], object],
        *,
        wide: bool = False,
        right: bool = False,
        shrink: bool = False,
    ) -> None:
        self.title = title
        self.cell = cell
        self.wide = wide
        self.right = right
        self.shrink = shrink


def emit(
    answer: object, output: str, table: Callable[[bool], str], *, structured: object = None
) -> None:
    """Print in the format asked for; ``table`` gets whether it may be wide."""
    if output in {"json", "yaml"}:
        click.echo(serialized(answer if structured is None else structured, output))
        return
    text = table(output == "wide")
    if text:
        click.echo(text)


def serialized(answer: object, output: str) -> str:
    """Exactly the API's structs, with two spaces of indentation."""
    if output == "json":
        return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
    import yaml

    plain = msgspec.to_builtins(answer)
    written: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return written.rstrip("\n")


def table(
    columns: Sequence[Column[T]],
    rows: Iterable[T],
    wide: bool = False,
    header: bool = True,
    widths: list[int] | None = None,
) -> str:
    """Aligned columns. On a terminal, columns that may shrink are cut until a line fits; where that
    is not enough, each row is folded into several lines, and so are the titles.

    ``widths`` are those of an earlier table that this one goes on, and are brought up to date.
    """
    chosen = [column for column in columns if wide or not column.wide]
    cells = [[printable(column.cell(row)) for column in chosen] for row in rows]
    if header:
        cells.insert(0, [column.title for column in chosen])
    if not cells:
        return ""
    before = widths or [0] * len(chosen)
    needed = [max(before[i], *(len(line[i]) for line in cells)) for i in range(len(chosen))]
    parts = [list(range(len(chosen)))]
    if not wide:
        fitted = _fit(needed, chosen, room())
        if fitted:
            needed = fitted
        else:
            parts = _fold(needed, chosen, room())
    if widths is not None:
        widths[:] = needed
    return "\n".join(_line(line, needed, chosen, parts) for line in cells)


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """``name: value`` lines, values aligned; empty values are left out."""
    shown = [(name, printable(value)) for name, value in pairs]
    shown = [(name, value) for name, value in shown if value not in {"", "-"}]
    width = max((len(name) for name, _ in shown), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {coloured(value)}" for name, value in shown)


def printable(value: object) -> str:
    """One line without control characters: what a job says must not drive the terminal."""
    if value is None or value == "":
        return "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text)


def age(ms: float) -> str:
    """A span for people, two units at most: ``45s``, ``3m12s``, ``2h05m``, ``4d03h``."""
    seconds = max(0, int(ms / 1000))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02}h"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def when(ms: int) -> str:
    """A moment in UTC, or nothing."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ms / 1000)) if ms else ""


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def counted(value: float) -> str:
    """2 rather than 2.0, 1.5 as it is."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def gib(mib: float) -> str:
    return f"{mib / 1024:.1f}Gi"


def coloured(word: str) -> str:
    """A state in its colour, on a terminal that wants colours."""
    colour = COLOURS.get(word.strip())
    return click.style(word, fg=colour) if colour and wants_colour() else word


def wants_colour() -> bool:
    """Only on a terminal, and not with NO_COLOR (https://no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )


def room() -> int:
    """Columns of the terminal; without one, as many as needed."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _fit(widths: Sequence[int], columns: Sequence[Column[Any]], most: int) -> list[int]:
    """Widths with which a row fits into one line; empty when there are none."""
    fitted = list(widths)
    excess = sum(fitted) + len(GAP) * (len(fitted) - 1) - most
    while excess > 0:
        candidates = [i for i, c in enumerate(columns) if c.shrink and fitted[i] > SHORTEST]
        if not candidates:
            return []
        longest = max(candidates, key=fitted.__getitem__)
        cut = min(excess, fitted[longest] - SHORTEST)
        fitted[longest] -= cut
        excess -= cut
    return fitted


def _fold(widths: list[int], columns: Sequence[Column[Any]], most: int) -> list[list[int]]:
    """The columns of each line of a row that one line cannot hold; may cut ``widths``."""
    parts: list[list[int]] = [[]]
    left = most
    for i, column in enumerate(columns):
        needed = min(widths[i], LONG_ENOUGH) if column.shrink else widths[i]
        if parts[-1] and needed > left:
            parts.append([])
            left = most - len(INDENT)
        widths[i] = max(1, min(widths[i], left))
        parts[-1].append(i)
        left -= widths[i] + len(GAP)
    return parts


def _line(
    cells: Sequence[str],
    widths: Sequence[int],
    columns: Sequence[Column[Any]],
    parts: Sequence[Sequence[int]],
) -> str:
    lines = []
    for part in parts:
        words = []
        for i in part:
            text = cells[i] if len(cells[i]) <= widths[i] else cells[i][: widths[i] - 1] + "…"
            last = i == part[-1] and not columns[i].right
            padded = text.rjust(widths[i]) if columns[i].right else text.ljust(widths[i])
            words.append(coloured(text if last else padded))
        lines.append(GAP.join(words).rstrip())
    return f"\n{INDENT}".join(lines)
