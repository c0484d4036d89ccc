"""One thing wrong with a job, and the sentences that all checks of jobs share."""

import math
import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from hyperion.model.bounds import KEY_PATTERN, MAX_PATH_BYTES, REGION_PATTERN

_key = re.compile(KEY_PATTERN).fullmatch
_region = re.compile(REGION_PATTERN).fullmatch
_unprintable = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_surrogate = re.compile(r"[\ud800-\udfff]").search


class Fault(Struct, frozen=True):
    """One thing wrong with a job."""

    pointer: str
    """JSON pointer into the job's spec form, such as ``/resources/accelerators``."""
    message: str
    """What was found, what was expected, and the remedy; it does not repeat the field's name."""


def quoted(text: str) -> str:
    """The text as it may stand in a message: one line, printable, short."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut) + '"'


def pointer_part(key: str) -> str:
    """A key as it stands in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def pair_faults(at: str, pairs: Mapping[str, str], most: int, value_bytes: int) -> Iterator[Fault]:
    if len(pairs) > most:
        yield Fault(at, f"found {len(pairs)} entries, expected at most {most}")
        return
    for key, value in pairs.items():
        place = f"{at}/{pointer_part(key)}"
        if not _key(key):
            yield Fault(place, bad_key(key))
        size = len(value.encode(errors="surrogatepass"))
        if size > value_bytes:
            yield Fault(place, f"found {size} bytes, expected at most {value_bytes}")
        yield from text_faults(place, value)


def bad_key(key: str) -> str:
    return (
        f"found the key {quoted(key)}, expected letters, digits, '.', '_', '/' or '-', at most 253"
    )


def region_faults(at: str, region: str) -> Iterator[Fault]:
    if not _region(region):
        yield Fault(
            at, f"found {quoted(region)}, expected cloud/region, such as aws/us-east-1 or edge/home"
        )


def range_faults(at: str, value: int, least: int, most: int) -> Iterator[Fault]:
    if not least <= value <= most:
        yield Fault(at, f"found {short(value)}, expected {least} to {most}")


def number_faults(at: str, value: float, most: float, unit: str = "") -> Iterator[Fault]:
    if not (math.isfinite(value) and 0 <= value <= most):
        unit = unit and " " + unit
        yield Fault(at, f"found {short(value)}{unit}, expected 0 to {most:.12g}{unit}")


def path_faults(at: str, path: str) -> Iterator[Fault]:
    yield from line_faults(at, path, MAX_PATH_BYTES)


def line_faults(at: str, text: str, most_bytes: int) -> Iterator[Fault]:
    size = len(text.encode(errors="surrogatepass"))
    if size > most_bytes:
        yield Fault(at, f"found {size} bytes, expected at most {most_bytes}")
    if _unprintable(text):
        yield Fault(at, "holds a control character; expected one line of plain text")


def text_faults(at: str, text: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(at, "holds a NUL character, which no process can be given; remove it")
    if not text.isascii() and _surrogate(text):
        yield Fault(at, "holds half of a surrogate pair, which is not Unicode text; remove it")


def short(value: float) -> str:
    return f"{value:.12g}"
