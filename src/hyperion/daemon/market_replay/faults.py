"""What the replay server does wrong, on demand: errors, delays, and answers that are not true."""

from msgspec import Struct

KINDS = {
    "429": "too many requests, with Retry-After",
    "500": "a fault of the server",
    "503": "not available",
    "401": "the key is refused",
    "truncated": "the answer ends in its middle",
    "slow": "the answer comes after delay_s",
    "stale": "the answer is delay_s old",
    "wrong-sku": "the answer is about another machine",
    "wrong-unit": "prices by the second or the month, carbon by the kg",
    "negative": "values below zero",
    "absurd": "values a thousand times too high",
}
LONGEST_DELAY_S = 366 * 86_400.0


class Fault(Struct, frozen=True, kw_only=True):
    """A fault of one API, or of all of them (``*``)."""

    api: str = "*"
    kind: str
    times: int = 0
    """For so many answers; 0 is until it is cleared."""
    delay_s: float = 1.0
    """``Retry-After``, how late, or how old, by the kind."""


class Tampering(Struct, kw_only=True):
    """What a maker of answers shall do wrong."""

    old_ms: int = 0
    factor: float = 1.0
    wrong_sku: bool = False
    wrong_unit: bool = False


class Faults:
    """The faults that are on, counted down as they strike."""

    def __init__(self) -> None:
        self.on: list[tuple[Fault, int]] = []

    def set(self, fault: Fault) -> None:
        """Switch one on; ``ValueError`` says what is wrong with it."""
        if fault.kind not in KINDS:
            raise ValueError(f"no fault {fault.kind!r}; there are {', '.join(KINDS)}")
        if not 0 <= fault.times <= 1_000_000 or not 0 <= fault.delay_s <= LONGEST_DELAY_S:
            raise ValueError("times from 0 to 1000000, delay_s up to a year")
        if len(self.on) >= 100:
            raise ValueError("100 faults are on; clear some")
        self.on.append((fault, fault.times))

    def clear(self) -> None:
        self.on.clear()

    def strike(self, api: str) -> list[Fault]:
        """Those that hit this answer."""
        struck: list[Fault] = []
        left: list[tuple[Fault, int]] = []
        for fault, times in self.on:
            hits = fault.api in {"*", api}
            if hits:
                struck.append(fault)
            if not (hits and times == 1):
                left.append((fault, times - 1 if hits and times else times))
        self.on = left
        return struck


def tampering(faults: list[Fault]) -> Tampering:
    """What the faults mean for the content of an answer."""
    found = Tampering()
    for fault in faults:
        match fault.kind:
            case "stale":
                found.old_ms = max(found.old_ms, int(fault.delay_s * 1000))
            case "negative":
                found.factor *= -1
            case "absurd":
                found.factor *= 1000
            case "wrong-sku":
                found.wrong_sku = True
            case "wrong-unit":
                found.wrong_unit = True
    return found
