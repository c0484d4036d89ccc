"""A user's own facts laid over the shipped catalogue: on-prem regions, negotiated prices, links."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from hyperion.model import accelerators
from hyperion.model.market import (
    UNKNOWN_CARBON_G_PER_KWH,
    UNKNOWN_PUE,
    Market,
    MarketView,
    Offer,
    Region,
    Source,
)

LONGEST_FILE_BYTES = 4 * 1024 * 1024
MOST_ENTRIES = 20_000
"""Of one kind, so that a wrong file cannot fill the memory of a daemon."""
OVERLAY_KEY = "overlay"

_Strict = TypeVar("_Strict", bound=Struct)


class OverlayError(ValueError):
    """The overlay file is wrong: says where, what was found, what was expected."""


class RegionFacts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new region, or what is different in a known one; what is not given stays as it is."""

    location: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    carbon_g_per_kwh: float | None = None
    pue: float | None = None
    egress_usd_per_gib: float | None = None
    """Out of the region to anywhere that no link or rule prices."""


class OfferFacts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    region: str
    instance_type: str
    usd_per_hour: float
    market: Literal["on-demand", "spot", "owned"] = "on-demand"
    gpu_type: str = ""
    gpus: int = 0
    cpus: float = 0.0
    memory_gib: float = 0.0


class LinkFacts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Traffic from one region to another: its price, its round trip (both directions), or both."""

    source: str
    target: str
    egress_usd_per_gib: float | None = None
    latency_ms: float | None = None


class Overlay(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    as_of: str
    source: str
    """In words: where these figures are from."""
    gpu_types: tuple[str, ...] = ()
    """Accelerators that Hyperion does not know by name, so that they are no typos."""
    regions: dict[str, RegionFacts] = {}
    offers: tuple[OfferFacts, ...] = ()
    links: tuple[LinkFacts, ...] = ()


def read_overlay(path: Path) -> Overlay:
    """Parse and check a file: ``.json`` is JSON, anything else TOML. Raises ``OverlayError``."""
    with path.open("rb") as file:
        raw = file.read(LONGEST_FILE_BYTES + 1)
    if len(raw) > LONGEST_FILE_BYTES:
        raise OverlayError(
            f"{path}: larger than {LONGEST_FILE_BYTES:,} bytes; split off old entries"
        )
    try:
        content = _parse(path, raw)
        _convert_regions(content)
        overlay = _convert(content, Overlay)
        _check(overlay)
    except _FoundError as wrong:
        raise OverlayError(f"{path}: {wrong}") from None
    return overlay


def lay_over(view: MarketView, overlay: Overlay) -> MarketView:
    """The view with the overlay's facts in it; an offer replaces the one it has the key of."""
    key = OVERLAY_KEY
    source = Source(key=key, title=overlay.source, as_of=overlay.as_of)
    regions = dict(view.regions)
    names = [*overlay.regions, *(o.region for o in overlay.offers)]
    for name in names:
        facts = overlay.regions.get(name, RegionFacts())
        regions[name] = _region(name, facts, regions.get(name), overlay.as_of)
    offers = {(o.region, o.instance_type, o.market): o for o in view.offers}
    offers |= {(o.region, o.instance_type, o.market): o for o in _offers(overlay)}
    paid = {(k.source, k.target): k.egress_usd_per_gib for k in overlay.links}
    egress = {pair: usd for pair, usd in paid.items() if usd is not None}
    trips = {_undirected(k.source, k.target): k.latency_ms for k in overlay.links}
    latency = {pair: ms for pair, ms in trips.items() if ms is not None}
    internet = {
        name: facts.egress_usd_per_gib
        for name, facts in overlay.regions.items()
        if facts.egress_usd_per_gib is not None
    }
    return msgspec.structs.replace(
        view,
        as_of=max(view.as_of, overlay.as_of) if overlay.offers else view.as_of,
        regions=regions,
        offers=tuple(offers.values()),
        egress={**view.egress, **egress},
        internet_egress={**view.internet_egress, **internet},
        latency={**view.latency, **latency},
        sources={**view.sources, key: source},
        egress_origin={**view.egress_origin, **dict.fromkeys(egress, key)},
        internet_origin={**view.internet_origin, **dict.fromkeys(internet, key)},
        latency_origin={**view.latency_origin, **dict.fromkeys(latency, key)},
    )


class _FoundError(Exception):
    """A fault inside the file, told without the file's name."""


def _parse(path: Path, content: bytes) -> object:
    import tomllib  # read only when there is an overlay

    try:
        if path.suffix == ".json":
            return msgspec.json.decode(content)
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as wrong:
        raise _FoundError(f"byte {wrong.start} is not UTF-8; save the file as UTF-8") from None
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, RecursionError) as wrong:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise _FoundError(f"not {kind}: {wrong}") from None


def _convert_regions(content: object) -> None:
    """Each region by itself first: msgspec does not say the key of a table that is wrong."""
    regions = content.get("regions") if isinstance(content, dict) else None
    for name, facts in regions.items() if isinstance(regions, dict) else ():
        _convert(facts, RegionFacts, f"regions.{name!r}")


def _convert(content: object, kind: type[_Strict], place: str = "") -> _Strict:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as wrong:
        raise _FoundError(_explained(str(wrong), place)) from None


def _explained(message: str, place: str) -> str:
    """msgspec's sentence with the place first, and the nearest field for a misspelt one."""
    what, _, where = message.partition(" - at `")
    place = (place + where.rstrip("`").removeprefix("$")).lstrip(".") or "top level"
    unknown = re.search(r"unknown field `([^`]*)`", what)
    if unknown:
        import difflib  # read only when something is wrong

        known = sorted(_fields(place))
        close = difflib.get_close_matches(unknown[1][:100], known, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"
        what = f"unknown field {unknown[1]!r}; {advice}"
    return f"{place}: {what}"


def _fields(place: str) -> list[str]:
    kinds: dict[str, type[Struct]] = {
        "regions": RegionFacts,
        "offers": OfferFacts,
        "links": LinkFacts,
    }
    kind = next((k for start, k in kinds.items() if place.startswith(start)), Overlay)
    return [f.name for f in msgspec.structs.fields(kind)]


def _check(overlay: Overlay) -> None:
    if not re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", overlay.as_of):
        raise _FoundError(f"as_of: found {overlay.as_of!r}, expected a date such as '2026-07-31'")
    if not overlay.source.strip():
        raise _FoundError("source: empty; say in words where the figures are from")
    for name, entries in (
        ("regions", overlay.regions),
        ("offers", overlay.offers),
        ("links", overlay.links),
    ):
        if len(entries) > MOST_ENTRIES:
            raise _FoundError(f"{name}: {len(entries):,} entries, at most {MOST_ENTRIES:,}")
    for name, facts in overlay.regions.items():
        _check_region(f"regions.{name!r}", name, facts)
    for i, offer in enumerate(overlay.offers):
        _check_offer(f"offers[{i}]", offer, overlay.gpu_types)
    for i, link in enumerate(overlay.links):
        _check_link(f"links[{i}]", link)


def _check_region(place: str, name: str, facts: RegionFacts) -> None:
    _check_name(place, name)
    _check_range(f"{place}.latitude", facts.latitude, -90, 90)
    _check_range(f"{place}.longitude", facts.longitude, -180, 180)
    _check_range(f"{place}.carbon_g_per_kwh", facts.carbon_g_per_kwh, 0, 3000)
    _check_range(f"{place}.pue", facts.pue, 1, 10)
    _check_range(f"{place}.egress_usd_per_gib", facts.egress_usd_per_gib, 0, 1000)
    if (facts.latitude is None) != (facts.longitude is None):
        raise _FoundError(f"{place}: latitude and longitude are given together or not at all")


def _check_offer(place: str, offer: OfferFacts, own_types: tuple[str, ...]) -> None:
    _check_name(f"{place}.region", offer.region)
    if not offer.instance_type:
        raise _FoundError(f"{place}.instance_type: empty; give the machine a name")
    _check_range(f"{place}.usd_per_hour", offer.usd_per_hour, 0, 100_000)
    if offer.usd_per_hour == 0 and offer.market != "owned":
        raise _FoundError(f"{place}.usd_per_hour: 0 is a price only on the market 'owned'")
    _check_range(f"{place}.gpus", offer.gpus, 0, 1024)
    _check_range(f"{place}.cpus", offer.cpus, 0, 100_000)
    _check_range(f"{place}.memory_gib", offer.memory_gib, 0, 1_000_000)
    if bool(offer.gpu_type) != bool(offer.gpus):
        raise _FoundError(
            f"{place}: found gpu_type {offer.gpu_type!r} with gpus {offer.gpus}; "
            "expected both, or neither for a machine without GPUs"
        )
    if offer.gpu_type and offer.gpu_type not in (*accelerators.ACCELERATORS, *own_types):
        meant = accelerators.nearest(offer.gpu_type)
        advice = f"did you mean {meant!r}? If not" if meant else "If it is right"
        raise _FoundError(
            f"{place}.gpu_type: {offer.gpu_type!r} is not known; {advice}, list it in gpu_types"
        )


def _check_link(place: str, link: LinkFacts) -> None:
    _check_name(f"{place}.source", link.source)
    _check_name(f"{place}.target", link.target)
    if link.source == link.target:
        raise _FoundError(f"{place}: source and target are both {link.source!r}")
    if link.egress_usd_per_gib is None and link.latency_ms is None:
        raise _FoundError(f"{place}: expected egress_usd_per_gib, latency_ms or both")
    _check_range(f"{place}.egress_usd_per_gib", link.egress_usd_per_gib, 0, 1000)
    _check_range(f"{place}.latency_ms", link.latency_ms, 0.001, 10_000)


def _check_name(place: str, name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", name):
        raise _FoundError(f"{place}: found {name!r}, expected cloud/region such as 'onprem/berlin'")


def _check_range(place: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise _FoundError(f"{place}: found {value}, expected {low:,} to {high:,}")


def _region(name: str, facts: RegionFacts, known: Region | None, as_of: str) -> Region:
    given = {
        field: value
        for field in ("location", "latitude", "longitude", "carbon_g_per_kwh", "pue")
        if (value := getattr(facts, field)) is not None
    }
    if facts.carbon_g_per_kwh is not None:
        given |= {"carbon_as_of": as_of, "carbon_source": OVERLAY_KEY}
    if facts.pue is not None:
        given["pue_source"] = OVERLAY_KEY
    if facts.latitude is not None or facts.location is not None:
        given["location_source"] = OVERLAY_KEY
    region = known or Region(
        name=name,
        cloud=name.partition("/")[0],
        carbon_g_per_kwh=UNKNOWN_CARBON_G_PER_KWH,
        pue=UNKNOWN_PUE,
    )
    return msgspec.structs.replace(region, **given)


def _offers(overlay: Overlay) -> Iterable[Offer]:
    for facts in overlay.offers:
        yield Offer(
            region=facts.region,
            instance_type=facts.instance_type,
            market=Market(facts.market),
            usd_per_hour=facts.usd_per_hour,
            gpu_type=facts.gpu_type,
            gpus=facts.gpus,
            cpus_milli=round(facts.cpus * 1000),
            memory_mib=round(facts.memory_gib * 1024),
            as_of=overlay.as_of,
            source=OVERLAY_KEY,
        )


def _undirected(a: str, b: str) -> tuple[str, str]:
    return max(a, b), min(a, b)
