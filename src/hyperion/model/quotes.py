"""Quotes: what a source says of a price, a grid or a market now, with its date and its weight."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from hyperion.model.market import Market

MOST_QUOTES = 200_000
"""Of one source at once, so that no feed can fill the memory of a daemon."""
MOST_POINTS = 400
"""Of one forecast: four days by quarters of an hour."""


class Kind(Enum):
    """What is quoted; the unit follows from it, see ``UNITS``."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    EGRESS = "egress"
    CARBON = "carbon"
    OBTAINABILITY = "obtainability"

    @property
    def is_price(self) -> bool:
        """Whether it is USD per hour of a machine."""
        return self in MARKETS


UNITS: Mapping[Kind, str] = {
    Kind.ON_DEMAND: "USD/h",
    Kind.SPOT: "USD/h",
    Kind.EGRESS: "USD/GiB",
    Kind.CARBON: "gCO2e/kWh",
    Kind.OBTAINABILITY: "share",
}
"""The one unit in which each kind is kept. ``share`` is 0 to 1: the share of machines that ran a
month without being interrupted."""
MARKETS: Mapping[Kind, Market] = {Kind.ON_DEMAND: Market.ON_DEMAND, Kind.SPOT: Market.SPOT}

Slot = tuple[Kind, str, str]
"""What a quote is about, whoever says it: kind, place, subject."""
Key = tuple[str, Kind, str, str]
"""Who says it about what: source and slot. A newer quote of the same key replaces an older one."""


class Point(Struct, frozen=True):
    """A forecast value for the time from ``at_ms`` on, in the unit of its quote."""

    at_ms: int
    value: float


class Quote(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value of one source. It never changes; what changed is another quote."""

    kind: Kind
    place: str
    """``cloud/region``, such as ``aws/us-east-1``."""
    subject: str = ""
    """A machine type for prices and obtainability, the region of arrival for egress (empty:
    anywhere), nothing for carbon."""
    value: float
    unit: str
    """As the source means it; anything but ``UNITS[kind]`` is quarantined."""
    as_of_ms: int
    """When the value was true at its source, ms since 1970 (UTC)."""
    ttl_ms: int
    """How long it may be taken for true after that."""
    source: str
    confidence: float = 1.0
    """0 to 1: how far the source is to be believed even when fresh."""
    forecast: tuple[Point, ...] = ()
    """What is expected next, in order of time; of the feeds that ship, carbon only."""
    note: str = ""

    @property
    def slot(self) -> Slot:
        return (self.kind, self.place, self.subject)

    @property
    def key(self) -> Key:
        return (self.source, self.kind, self.place, self.subject)


class Quarantined(Struct, frozen=True, kw_only=True):
    """A quote that is not used, and why."""

    quote: Quote
    reason: str
    """``stale``, ``future``, ``unit``, ``not-a-number``, ``out-of-range`` or ``off-median``."""
    why: str
    """In words: what was found, and what was expected."""
    at_ms: int


class Wanted(Struct, frozen=True, kw_only=True):
    """What feeds are asked for: places and machines that the catalogue knows."""

    places: Mapping[str, tuple[float, float]]
    """``cloud/region`` → latitude and longitude in degrees."""
    machines: Mapping[str, "MachineShape"]
    """Machine type → its shape. Types of other shapes are not asked for."""
    zones: Mapping[str, str] = {}
    """``cloud/region`` → grid zone, in Electricity Maps' words."""

    def regions(self, cloud: str) -> list[str]:
        """A cloud's regions in its own words, in order."""
        prefix = f"{cloud}/"
        return sorted(p.removeprefix(prefix) for p in self.places if p.startswith(prefix))


class MachineShape(Struct, frozen=True, kw_only=True):
    """What a machine type has; the same wherever it is offered."""

    cloud: str
    gpu_type: str = ""
    gpus: int = 0
    cpus_milli: int = 0
    memory_mib: int = 0


class Fetched(Struct, frozen=True):
    """What one poll of a source brought: parts of it may have failed while others came."""

    quotes: tuple[Quote, ...]
    failed: tuple[str, ...] = ()
    """One sentence for each part that did not come."""
