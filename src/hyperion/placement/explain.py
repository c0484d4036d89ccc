"""Decisions and refusals in sentences, with the numbers that decided. Pure text; no numpy here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, structs
from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.gravity import NO_LOAD, Load
from hyperion.placement.gravity_words import brought, data_lines, moved_grams
from hyperion.placement.objective import (
    LATENCY_USD_PER_MS_HOUR,
    Price,
    dollars,
    shares,
)

if TYPE_CHECKING:  # values of these come in; agents, which explain nothing, need no numpy
    from hyperion.placement.choice import Place
    from hyperion.placement.later import Later
    from hyperion.placement.refused import Unplaceable


class Row(Struct, frozen=True, kw_only=True):
    """One candidate place as ``plan`` and ``why`` show it (the fields of the API's plan row)."""

    rank: int
    cluster: str
    region: str
    accelerators: str
    instance_type: str
    market: str
    usd_per_hour: float | None
    egress_usd: float | None
    gco2e_per_hour: float | None
    latency_ms: float | None
    score: float | None
    chosen: bool
    reason: str
    joined: bool
    declared: bool
    best: tuple[str, ...] = ()
    """Of the joined places that could take the job it is the cheapest, greenest, nearest (to its
    users) or soonest."""
    undominated: bool = False
    """No other of them is at least as good in all four, and better in one: the Pareto frontier."""


def refusal(u: Unplaceable) -> str:
    """``0 of 40 nodes fit: 18: GPU type; 22: only 6 of 8 GPUs free``, most frequent first."""
    if not u.nodes:
        return "the cluster has no nodes"
    fit = sum(count for reason, count in u.rejected.items() if reason.name in _FIT_ALONE)
    parts = [
        f"{count}: {u.details.get(reason, reason.value)}"
        for reason, count in sorted(u.rejected.items(), key=lambda item: -item[1])
    ]
    never = "" if u.ever else " (would not fit even if all were empty)"
    return f"{fit} of {_count(u.nodes, 'node')} {_fits(u.nodes)}: {'; '.join(parts)}{never}"


class Planned(Struct, frozen=True):
    """What a round would do with a job, and on what grounds."""

    policy: str
    chosen: Place | None
    places: tuple[Place, ...]
    sentence: str
    rows: tuple[Row, ...]
    arithmetic: tuple[str, ...]
    off_spot: bool = False
    """Its deadline leaves no time for spot machines."""
    later: Later | None = None
    """A later start that pays, before which it is not placed."""


_FIT_ALONE = ("GANG", "TOPOLOGY")
"""Reasons of nodes that would take one replica."""


def decision(
    job: Job, places: Sequence[Place], chosen: Place | None, policy: str
) -> tuple[str, tuple[Row, ...]]:
    """(one sentence, a row for each place with the reason for or against it in one phrase)."""
    marks = frontier(job, places)
    others = [p for p in places if p is not chosen]
    next_best = next((p for p in others if p.joined and p.refusal is None), None)
    rows = []
    for n, place in enumerate(places, start=1):
        if place is chosen:
            phrase = _wins_by(job, place, next_best, policy)
        else:
            phrase = _loses_by(job, place, chosen, policy)
        row = _row(job, n, place, place is chosen, phrase)
        if n - 1 in marks:
            row = replace(row, best=marks[n - 1], undominated=True)
        rows.append(row)
    if chosen is None:
        return _waits(places), tuple(rows)
    return _sentence(job, chosen, next_best, policy), tuple(rows)


def frontier(job: Job, places: Sequence[Place]) -> dict[int, tuple[str, ...]]:
    """The places that no other beats in every respect, by their position: what each is best in.

    Respects are USD and g CO2e of the expected run, mean round trip to its users (if it names any),
    and how soon: room now, else how many wait there. Only joined places that could take it count;
    of equal ones the first is the best.
    """
    figures = [
        (n, (p.price.usd, p.price.gco2e, p.price.latency_ms if job.users_in else 0.0, _wait(p)))
        for n, p in enumerate(places)
        if p.joined and p.refusal is None and p.price is not None
    ]
    best = _undominated(figures)
    found: dict[int, tuple[str, ...]] = dict.fromkeys(sorted(best), ())
    for index, name in enumerate(_RESPECTS):
        if found and (job.users_in or name != "nearest"):
            least = min(found, key=lambda n: (best[n][index], n))
            found[least] = (*found[least], name)
    return found


_Figures = tuple[float, float, float, float]


def _undominated(figures: Sequence[tuple[int, _Figures]]) -> dict[int, _Figures]:
    """Whoever beats a place comes before it when they are sorted, and is one of the best itself or
    beaten by one; so it is enough to look at the best so far."""
    best: dict[int, _Figures] = {}
    for n, own in sorted(figures, key=lambda item: item[1]):
        a, b, c, d = own
        for e, f, g, h in best.values():
            if e <= a and f <= b and g <= c and h <= d and (e, f, g, h) != own:
                break
        else:
            best[n] = own
    return best


_RESPECTS = ("cheapest", "greenest", "nearest", "soonest")


def _wait(place: Place) -> float:
    return 0.0 if place.has_room else 1.0 + place.backlog


def arithmetic(job: Job, place: Place, there: Load = NO_LOAD) -> tuple[str, ...]:
    """How the score came about, a sentence a term. The terms add up to the score exactly as shown,
    in hundredths of a cent; so do those of the datasets, to what bringing them costs."""
    p = place.price
    if p is None:
        return (f"{_name(place)} has no price: {place.refusal_text}",)
    w = job.objective
    parts = shares(w, p)
    cost, egress, carbon, latency, interruption, waiting = _units(structs.astuple(parts))
    listed_usd = p.egress_usd - there.usd
    *hauled, _ = _units((*(haul.usd for haul in there.hauls), listed_usd))
    lines = [
        f"compute: {_machines(job, p)} x {p.hours:.4g} h{_weight(w.cost)} = {cost}",
        *data_lines(there, hauled),
        f"egress: {brought(job, there, place.region)} for {dollars(p.egress_usd)}"
        f"{_weight(w.egress)} = {egress}"
        if job.data or there.hauls
        else f"egress: no data to bring = {egress}",
        f"carbon: {p.gco2e_per_hour:,.1f} g CO2e/h x {p.hours:.4g} h{moved_grams(there)}"
        f" x ${w.carbon_usd_per_tonne:,.7g}/t{_weight(w.carbon)} = {carbon}",
        f"latency: {_late(job, p)} x {p.hours:.4g} h"
        f" x ${LATENCY_USD_PER_MS_HOUR:g}/(ms h){_weight(w.latency)} = {latency}"
        if job.users_in
        else f"latency: no users named = {latency}",
        f"interruption: {p.interruptions_per_hour:.3g}/h x {p.hours:.4g} h, each {p.lost_h:.4g} h"
        f" lost x {dollars(p.usd_per_hour)}/h{_weight(w.interruption)} = {interruption}"
        if p.interruptions_per_hour
        else f"interruption: not a spot machine = {interruption}",
        f"waiting: {_waiting(p)} x {dollars(w.waiting_usd_per_hour)}/h = {waiting}"
        if p.wait_h or p.move_h
        else f"waiting: there is room now = {waiting}",
        f"score: {cost} + {egress} + {carbon} + {latency} + {interruption} + {waiting}"
        f" = {dollars(p.score)}",
    ]
    if not job.expected_s:
        lines.insert(0, "the job does not say how long it runs (expected_s): taken as one hour")
    return tuple(lines)


def _waiting(p: Price) -> str:
    parts = [f"{p.wait_h:.4g} h for room"] if p.wait_h else []
    parts += [f"{p.move_h:.4g} h for its datasets"] if p.move_h else []
    return f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]


def _late(job: Job, p: Price) -> str:
    if not job.latency_target_s:
        return f"{p.latency_ms:,.1f} ms to users"
    return (
        f"{p.late_ms:,.1f} ms beyond the target of {1000 * job.latency_target_s:,.4g} ms"
        f" (of {p.latency_ms:,.1f} ms to users)"
    )


def _machines(job: Job, p: Price) -> str:
    """What all that runs at once costs in an hour."""
    if job.array is not None:
        tasks = _count(job.array.size, "task")
        return f"those of {tasks} that run at once, for {dollars(p.usd_per_hour)}/h"
    if job.roles:
        return f"{len(job.roles)} roles, for {dollars(p.usd_per_hour)}/h"
    each = p.usd_per_hour / max(1, job.replicas)
    return f"{_count(job.replicas, 'replica')} x {dollars(each)}/h"


def accelerators(request: ResourceRequest, gpu_type: str = "") -> str:
    """``A100:8`` or ``A100:0.5`` for one replica; empty without GPUs."""
    if not request.gpus_milli:
        return ""
    return f"{request.gpu_type or gpu_type or 'GPU'}:{request.gpus_milli / MILLI:g}"


def _row(job: Job, rank: int, place: Place, chosen: bool, phrase: str) -> Row:
    p = place.price
    shape = place.shape
    return Row(
        rank=rank,
        cluster=place.cluster,
        region=place.region,
        accelerators=accelerators(
            job.alternatives[place.alternative], shape.capacity.gpu_type if shape else ""
        ),
        instance_type=place.instance_type,
        market=place.market.value,
        usd_per_hour=p.usd_per_hour if p else None,
        egress_usd=p.egress_usd if p else None,
        gco2e_per_hour=p.gco2e_per_hour if p else None,
        latency_ms=p.latency_ms if p else None,
        score=p.score if p and place.refusal is None else None,
        chosen=chosen,
        reason=phrase,
        joined=place.joined,
        declared=place.declared,
    )


def _sentence(job: Job, chosen: Place, next_best: Place | None, policy: str) -> str:
    p = chosen.price
    assert p is not None, "a chosen place has a price"
    wins = _wins_by(job, chosen, next_best, policy)
    queue = "" if chosen.has_room else "; it has no room now, so the job waits there"
    return (
        f"{_name(chosen)} by policy {policy or 'balanced'}: {dollars(p.usd, 2)} expected for"
        f" {p.hours:.4g} h, {wins}{queue}"
    )


def _waits(places: Sequence[Place]) -> str:
    """Stable while nothing changes: it is written down as the reason of a waiting job."""
    joined = [p for p in places if p.joined]
    if not joined:
        return "no cluster has joined"
    suitable = {p.cluster for p in joined if p.refusal is None}
    if suitable:
        return f"{_count(len(suitable), 'cluster')} could run it, but the queues there are full"
    parts = [f"{p.cluster}: {p.refusal_text}" for p in joined[:_SHOWN]]
    more = f"; and {len(joined) - _SHOWN} more" if len(joined) > _SHOWN else ""
    return f"no cluster can run it: {'; '.join(parts)}{more}"


_SHOWN = 5
"""Clusters named in one sentence."""


def _wins_by(job: Job, chosen: Place, next_best: Place | None, policy: str) -> str:
    if next_best is None:
        return "the only cluster that can run it"
    if next_best.yielded:
        return f"{_name(next_best)} {_YIELDED}"
    phrase = _difference(job, next_best, chosen, policy)
    if phrase:
        return f"next is {_name(next_best)} with {phrase}"
    if not next_best.has_room and chosen.has_room:
        return f"{_name(next_best)} has no room now"
    back = _difference(job, chosen, next_best, policy)
    return f"next is {_name(next_best)}, though this one has {back}" if back else _EQUAL


_EQUAL = "equal to the next best"
_YIELDED = "goes to jobs that wait with it and would lose more elsewhere"


def _loses_by(job: Job, place: Place, chosen: Place | None, policy: str) -> str:
    if place.refusal is not None:
        return place.refusal_text or str(place.refusal.value)
    if place.yielded:
        return _YIELDED
    if place.joined and not place.has_room and (chosen is None or chosen.has_room):
        waiting = f", {_count(place.backlog, 'job')} waiting" if place.backlog else ""
        return f"no room now{waiting}"
    if chosen is None:
        return "" if place.joined else "nobody has joined there"
    phrase = _difference(job, place, chosen, policy)
    if not phrase:
        back = _difference(job, chosen, place, policy)
        phrase = f"better (the chosen one has {back})" if back else "equal"
    return phrase if place.joined else f"{phrase}; nobody has joined there"


def _difference(job: Job, worse: Place, better: Place, policy: str) -> str:
    """The term by which the first place loses most against the second; empty when by none."""
    a, b = worse.price, better.price
    if a is None or b is None:
        return ""
    own = _OWN_TERM.get(policy)
    if own is not None:
        phrase = _PHRASES[own](a, b)
        if phrase:
            return phrase
    if policy in ("pack", "spread") and worse.fullness != better.fullness:
        return f"{worse.fullness:.0%} in use, not {better.fullness:.0%}"
    s, t = shares(job.objective, a), shares(job.objective, b)
    gains = {name: getattr(s, name) - getattr(t, name) for name in _PHRASES}
    if sum(gains.values()) <= 0:
        return ""
    for name in sorted(gains, key=lambda n: -gains[n]):
        phrase = _PHRASES[name](a, b)
        if gains[name] > 0 and phrase:
            return phrase
    return ""


def _more_usd(a: Price, b: Price) -> str:
    more = a.usd_per_hour - b.usd_per_hour
    return f"+{dollars(more, 2)}/h" if more > _NEGLIGIBLE else ""


def _more_egress(a: Price, b: Price) -> str:
    more = a.egress_usd - b.egress_usd
    return f"egress {dollars(more, 2)} more" if more > _NEGLIGIBLE else ""


def _more_carbon(a: Price, b: Price) -> str:
    more = a.gco2e_per_hour - b.gco2e_per_hour
    return f"+{more:,.4g} g CO2e/h" if more > _NEGLIGIBLE else ""


def _more_latency(a: Price, b: Price) -> str:
    more = a.latency_ms - b.latency_ms
    return f"+{more:,.4g} ms to users" if more > _NEGLIGIBLE else ""


def _more_interruption(a: Price, b: Price) -> str:
    more = _lost_usd(a) - _lost_usd(b)
    return (
        f"{dollars(more, 2)} more expected to be lost to interruptions"
        if more > _NEGLIGIBLE
        else ""
    )


def _lost_usd(p: Price) -> float:
    return p.usd_per_hour * p.hours * p.interruptions_per_hour * p.lost_h


def _more_waiting(a: Price, b: Price) -> str:
    more = a.wait_h + a.move_h - b.wait_h - b.move_h
    return f"+{more:,.3g} h expected to wait" if more > _NEGLIGIBLE else ""


_NEGLIGIBLE = 1e-9
_PHRASES = {
    "cost": _more_usd,
    "egress": _more_egress,
    "carbon": _more_carbon,
    "latency": _more_latency,
    "interruption": _more_interruption,
    "waiting": _more_waiting,
}
_OWN_TERM = {
    "greenest": "carbon",
    "nearest-data": "egress",
    "lowest-latency": "latency",
}


def _units(amounts: tuple[float, ...]) -> list[str]:
    """Amounts as USD with four digits, rounded so that they add up to their rounded sum."""
    exact = [a * _SCALE for a in amounts]
    units = [math.floor(x) for x in exact]
    missing = round(math.fsum(exact)) - sum(units)
    by_rest = sorted(range(len(units)), key=lambda i: units[i] - exact[i])
    for i in by_rest[:missing]:
        units[i] += 1
    return [dollars(u / _SCALE) for u in units]


_SCALE = 10_000


def _weight(weight: float) -> str:
    return "" if weight == 1 else f" x weight {weight:g}"


def _name(place: Place) -> str:
    if not place.cluster:
        return f"{place.instance_type} in {place.region}"
    return f"{place.cluster} ({place.region})" if place.region else place.cluster


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _fits(n: int) -> str:
    return "fits" if n == 1 else "fit"
