"""Draws line charts, bar charts and their axes as SVG text, for pages that fetch nothing."""

import math
from collections.abc import Callable, Sequence
from html import escape

from msgspec import Struct

WIDTH, HEIGHT = 640, 290
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 46
COLOURS = 10
"""Classes ``s0`` … of the style sheet; further series begin again, with dashes."""

Points = Sequence[tuple[float, float]]
Format = Callable[[float], str]
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


class Line(Struct, frozen=True):
    """One series of a chart."""

    series: int
    """Decides colour and dash; the same in every chart of a page."""
    name: str
    points: Points
    steps: bool = False
    """Holds its value until the next point."""


class Axis(Struct, frozen=True, kw_only=True):
    title: str
    least: float
    most: float
    ticks: Sequence[float]
    format: Format
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.log:
            low, high = math.log10(self.least), math.log10(self.most)
            return (math.log10(max(value, self.least)) - low) / (high - low or 1)
        return (value - self.least) / (self.most - self.least or 1)


class Bars(Struct, frozen=True):
    """One group of bars: its label, and (series, name, value, lesser value within) of each."""

    label: str
    bars: Sequence[tuple[int, str, float, float]]


def line_chart(x: Axis, y: Axis, lines: Sequence[Line], about: str) -> str:
    """The drawing; ``about`` says in words what is seen."""
    parts = [_frame(about, x, y), _grid(x, y)]
    for line in lines:
        points = _stepped(line.points) if line.steps else list(line.points)
        drawn = " ".join(_thinned(points, x, y))
        dash = "" if line.series < COLOURS else ' stroke-dasharray="6 3"'
        parts.append(
            f'<polyline class="line s{line.series % COLOURS}" data-series="{line.series}"'
            f' data-name="{escape(line.name)}"{dash} points="{drawn}"/>'
        )
    parts.append("</svg>")
    return "\n".join(parts)


def bar_chart(y: Axis, groups: Sequence[Bars], about: str) -> str:
    """Groups of bars side by side; of each bar the part up to the lesser value is solid."""
    x = Axis(title="", least=0, most=max(1, len(groups)), ticks=(), format=str)
    parts = [_frame(about, x, y), _grid(x, y)]
    room = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    for n, group in enumerate(groups):
        begin = LEFT + n * room + room * 0.1
        width = min(34.0, room * 0.8 / max(1, len(group.bars)))
        begin += (room * 0.8 - width * len(group.bars)) / 2
        for k, (series, name, value, lesser) in enumerate(group.bars):
            for amount, kind in ((value, "faint"), (lesser, "solid")):
                top = _y(y, amount)
                height = max(0.0, HEIGHT - BOTTOM - top)
                told = f"{group.label} · {name}: {y.format(amount)}"
                parts.append(
                    f'<rect class="bar {kind} s{series % COLOURS}" data-series="{series}"'
                    f' x="{begin + k * width:.1f}" y="{top:.1f}" width="{max(1.0, width - 2):.1f}"'
                    f' height="{height:.1f}"><title>{escape(told)}</title></rect>'
                )
        middle = LEFT + (n + 0.5) * room
        label = group.label if len(group.label) <= room / 6.5 else group.label[:9] + "…"
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}"'
            f' text-anchor="middle">{escape(label)}<title>{escape(group.label)}</title></text>'
        )
    parts.append("</svg>")
    return "\n".join(parts)


def linear(title: str, most: float, format: Format | None = None, least: float = 0.0) -> Axis:
    """From ``least`` to a round number above ``most``."""
    step = _round_step(max(most - least, 1e-12) / 5)
    top = least + step * max(1, math.ceil((most - least) / step - 1e-9))
    ticks = [least + step * n for n in range(round((top - least) / step) + 1)]
    return Axis(title=title, least=least, most=top, ticks=ticks, format=format or short_number)


def shares(title: str) -> Axis:
    """0 to 100 %."""
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Axis(title=title, least=0, most=1, ticks=ticks, format=lambda v: f"{v:.0%}")


def spans(title: str, least_s: float, most_s: float) -> Axis:
    """Times from seconds to months, on a logarithmic scale."""
    marks = (1, 10, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 365 * _DAY)
    low = max((m for m in marks if m <= max(least_s, 1)), default=1.0)
    high = min((m for m in marks if m >= most_s and m > low), default=3650 * _DAY)
    ticks = [m for m in marks if low <= m <= high]
    return Axis(title=title, least=low, most=high, ticks=ticks, format=span, log=True)


def moments(most_s: float) -> Axis:
    """The time of the simulated world, in the unit that suits its length; values in seconds."""
    units = ((2 * _DAY, _DAY, "days"), (2 * _HOUR, _HOUR, "hours"), (0, _MINUTE, "minutes"))
    unit_s, word = next((u, w) for least, u, w in units if most_s >= least)
    within = linear("", max(most_s, 1) / unit_s)
    return Axis(
        title=f"simulated time ({word})",
        least=0,
        most=max(most_s, 1),
        ticks=[t * unit_s for t in within.ticks if t * unit_s <= max(most_s, 1) * 1.0001],
        format=lambda v: short_number(v / unit_s),
    )


def short_number(value: float) -> str:
    """1,500 as 1.5k; few digits."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1000 if letter == "k" else size)
            return f"{scaled:.3g}{letter}"
    return f"{value:,.4g}"


def span(seconds: float) -> str:
    """A time with one unit."""
    for size, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1.0, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {letter}"
    return f"{seconds:.2g} s"


def _frame(about: str, x: Axis, y: Axis) -> str:
    scale = (
        f'data-x0="{x.least}" data-x1="{x.most}" data-xlog="{int(x.log)}"'
        f' data-y0="{y.least}" data-y1="{y.most}" data-ylog="{int(y.log)}"'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}" {scale}'
        f' data-box="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}">'
    )


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">'
            f"{escape(y.format(tick))}</text>"
        )
    floor = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(
            f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        )
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{floor + 17}" text-anchor="middle">'
            f"{escape(x.format(tick))}</text>"
        )
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    parts.append(
        f'<text class="title" transform="translate(14 {middle:.0f}) rotate(-90)"'
        f' text-anchor="middle">{escape(y.title)}</text>'
    )
    parts.append(
        f'<text class="title" x="{LEFT + (WIDTH - LEFT - RIGHT) / 2:.0f}" y="{HEIGHT - 8}"'
        f' text-anchor="middle">{escape(x.title)}</text>'
    )
    return "\n".join(parts)


def _x(axis: Axis, value: float) -> float:
    return LEFT + min(1.0, max(0.0, axis.at(value))) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - min(1.0, max(0.0, axis.at(value))) * (HEIGHT - TOP - BOTTOM)


def _stepped(points: Points) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for at, value in points:
        if out:
            out.append((at, out[-1][1]))
        out.append((at, value))
    return out


def _thinned(points: Points, x: Axis, y: Axis) -> list[str]:
    """Without those that nobody could tell from the one before."""
    drawn: list[str] = []
    for at, value in points:
        text = f"{_x(x, at):.1f},{_y(y, value):.1f}"
        if not drawn or text != drawn[-1]:
            drawn.append(text)
    return drawn


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step - 1e-12)
