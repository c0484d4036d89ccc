"""Quantities as people write them: durations, sizes and counts, to and from plain numbers."""

import math
import re

MAX_DIGITS = 24
"""Longer numbers are refused unread: no quantity of ours needs them."""

DURATION_PATTERN = r"(\d+(\.\d+)?(ms|s|m|h|d|w))+"
SIZE_PATTERN = r"\d+(\.\d+)?\s*([KkMmGgTtPp]([Ii]?[Bb]|[Ii])?|[Bb])?\+?"

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 1 << 30, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

_number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?").fullmatch
_duration = re.compile(DURATION_PATTERN).fullmatch
_part = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)").findall
_size = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b|i)?|(b))?\+?", re.IGNORECASE | re.ASCII
).fullmatch


def number(text: str) -> float | None:
    """A finite decimal number, or None when it is none (or far too long to be meant)."""
    if len(text) > 2 * MAX_DIGITS or not _number(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def duration_s(text: str) -> float | None:
    """Seconds in ``90``, ``2h30m``, ``1.5d``, ``500ms``; None when it is no duration."""
    text = text.strip()
    plain = number(text)
    if plain is not None:
        return plain
    if len(text) > 100 or not text.isascii() or not _duration(text):
        return None
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _part(text))


def size_mib(text: str) -> int | None:
    """MiB in ``16`` (GiB), ``16+``, ``16Gi``, ``512Mi``, ``1.5TB``; None when it is no size.

    All suffixes count in powers of two, as SkyPilot's and Slurm's do. Rounded up to a whole MiB.
    """
    text = text.strip()
    plain = number(text)
    if plain is not None:
        return math.ceil(plain * 1024 - 1e-9) if 0 <= plain < 1e15 else None
    if len(text) > 2 * MAX_DIGITS or not text.isascii():
        return None
    match = _size(text)
    if match is None:
        return None
    unit = (match[2] or match[3] or "").lower()
    return math.ceil(float(match[1]) * _BYTES[unit] / (1 << 20) - 1e-9)


def size_text(mib: int) -> int | str:
    """The shortest form that ``size_mib`` reads back: GiB as a number where whole."""
    return f"{mib}Mi" if mib % 1024 else mib // 1024


def tidy(value: float) -> int | float:
    """Whole numbers as int, so that they print without a trailing ``.0``."""
    return int(value) if value == int(value) and abs(value) < 1e15 else value
