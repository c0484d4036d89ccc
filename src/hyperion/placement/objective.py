"""The one price: what running a job somewhere costs in USD, egress, carbon, latency, work lost to
interruptions, and waiting. docs/objective.md has the formula.

The ranker, ``plan``, ``why``, the simulator's score and the bill all call this module.
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.job import Job, Objective
from hyperion.model.market import MarketView
from hyperion.model.power import replica_watts
from hyperion.model.resources import ResourceRequest
from hyperion.placement import gravity
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.interruption import lost_hours

LATENCY_USD_PER_MS_HOUR = 0.001
"""What a user's millisecond is worth for an hour: 100 ms farther away weighs 0.10 USD/h, about the
price of a small machine. A choice of ours; ``objective.latency`` scales it."""
G_PER_KG = 1000.0
G_PER_TONNE = 1e6
MS_PER_HOUR = 3_600_000
UNKNOWN_DURATION_HOURS = 1.0


class Price(Struct, frozen=True):
    """One job at one place, all replicas together."""

    usd_per_hour: float
    egress_usd: float
    """Once, for bringing the data: egress, and storage of what a move leaves there."""
    gco2e_per_hour: float
    latency_ms: float
    """Mean round trip to the regions of ``users_in``."""
    hours: float
    """How long it is expected to run."""
    usd: float
    """Compute for the expected hours, and egress."""
    gco2e: float
    score: float
    """USD with the job's weights on the terms; lower is better."""
    move_h: float = 0.0
    """What the run waits for its datasets, or is slower for them; not in ``hours``."""
    move_gco2e: float = 0.0
    """Of ``gco2e``, for carrying datasets, once."""
    late_ms: float = 0.0
    """Mean of what the round trips are longer than the job's target."""
    interruptions_per_hour: float = 0.0
    """That cost the whole job ``lost_h`` each; 0 on machines that are not spot."""
    lost_h: float = 0.0
    wait_h: float = 0.0
    """Until there is room, besides ``move_h``."""


class Terms(Struct, frozen=True):
    """The part of a price that a region decides, whatever the machine costs there."""

    egress_usd: float
    gco2e_per_hour: float
    latency_ms: float
    late_ms: float
    """Beyond the job's target."""
    move_h: float = 0.0
    move_gco2e: float = 0.0


class Outlook(Struct, frozen=True):
    """What may come between a job and its end at a place."""

    interruptions_per_hour: float = 0.0
    """Of all machines that matter to it, see ``interruption``."""
    wait_h: float = 0.0


UNDISTURBED = Outlook()


class Extent(Struct, frozen=True):
    """How much of a job runs at once, and how long all of it takes."""

    width: int
    """Replicas, or tasks of an array."""
    hours: float
    known_hours: float
    """The hours that the user has promised; 0 when none."""


class Shares(Struct, frozen=True):
    """What each term adds to the score, in USD."""

    cost: float
    egress: float
    carbon: float
    latency: float
    interruption: float
    waiting: float


def price(
    job: Job,
    request: ResourceRequest,
    region: str,
    usd_per_hour_per_replica: float,
    market: MarketView,
    gpu_type: str = "",
    data: DataView = NO_DATASETS,
    outlook: Outlook = UNDISTURBED,
) -> Price:
    """What the job costs in a region when each replica's share of a machine costs so much.

    ``gpu_type`` is what it would really get, where the request leaves that open.
    """
    terms = region_terms(job, request, region, market, gpu_type, data)
    return price_from(job, terms, usd_per_hour_per_replica * job.replicas, outlook=outlook)


def price_from(
    job: Job,
    terms: Terms,
    usd_per_hour: float,
    hours: float | None = None,
    outlook: Outlook = UNDISTURBED,
) -> Price:
    """The same from ready terms; ``usd_per_hour`` is for all that runs at once.

    ``hours`` where the job as a whole takes longer than is expected of one replica: an array.
    """
    hours = expected_hours(job) if hours is None else hours
    per_hour = outlook.interruptions_per_hour
    lost_h = lost_hours(job, expected_hours(job)) if per_hour else 0.0
    score = machine_score(job.objective, usd_per_hour, hours, per_hour, lost_h)
    score += fixed_score(job, terms, hours)
    score += job.objective.waiting_usd_per_hour * outlook.wait_h
    return Price(
        usd_per_hour=usd_per_hour,
        egress_usd=terms.egress_usd,
        gco2e_per_hour=terms.gco2e_per_hour,
        latency_ms=terms.latency_ms,
        hours=hours,
        usd=usd_per_hour * hours + terms.egress_usd,
        gco2e=terms.gco2e_per_hour * hours + terms.move_gco2e,
        score=score,
        move_h=terms.move_h,
        move_gco2e=terms.move_gco2e,
        late_ms=terms.late_ms,
        interruptions_per_hour=per_hour,
        lost_h=lost_h,
        wait_h=outlook.wait_h,
    )


def region_terms(
    job: Job,
    request: ResourceRequest,
    region: str,
    market: MarketView,
    gpu_type: str = "",
    data: DataView = NO_DATASETS,
) -> Terms:
    """What the region decides, for all replicas; of an array for one task."""
    kilowatts = job_watts(job, request, gpu_type) / 1000.0 * market.pue(region)
    egress = sum(
        (d.size_gib * market.egress_usd_per_gib(d.region, region) for d in job.data), start=0.0
    )
    carried = gravity.load(job, region, market, data, expected_hours(job))
    trips = [market.latency_ms(region, user) for user in job.users_in]
    target_ms = 1000.0 * job.latency_target_s
    users = max(1, len(trips))
    return Terms(
        egress_usd=egress + carried.usd,
        gco2e_per_hour=kilowatts * market.carbon_g_per_kwh(region),
        latency_ms=sum(trips, start=0.0) / users,
        late_ms=sum((max(0.0, trip - target_ms) for trip in trips), start=0.0) / users,
        move_h=carried.move_h,
        move_gco2e=carried.gco2e,
    )


def job_watts(job: Job, request: ResourceRequest, gpu_type: str) -> float:
    """Of all replicas together; of an array of one task."""
    if not job.roles:
        return job.replicas * replica_watts(request, gpu_type)
    each = [
        role.replicas * replica_watts(role.resources, role.resources.gpu_type or gpu_type)
        for role in job.roles
    ]
    return sum(each)


def extent(job: Job, most: int) -> Extent:
    """Of a job where so many of its replicas find places at once.

    An array runs as wide as its limit and the places allow, in as many turns as it then needs.
    """
    array = job.array
    if array is None:
        return Extent(job.replicas, expected_hours(job), known_hours(job))
    width = max(1, min(array.limit or array.size, array.size, most))
    turns = -(-array.size // width)
    return Extent(width, turns * expected_hours(job), turns * known_hours(job))


def widened(terms: Terms, job: Job, width: int) -> Terms:
    """The terms of so many tasks of an array at once; of another job unchanged."""
    if job.array is None or width == 1:
        return terms
    return replace(terms, gco2e_per_hour=terms.gco2e_per_hour * width)


def fixed_score(job: Job, terms: Terms, hours: float | None = None) -> float:
    """All of the score that depends on the region alone, in USD."""
    hours = expected_hours(job) if hours is None else hours
    fixed: float = fixed_of(
        job.objective,
        terms.egress_usd,
        terms.gco2e_per_hour,
        terms.late_ms,
        hours,
        terms.move_gco2e,
        terms.move_h,
    )
    return fixed


def fixed_of(
    weights: Objective,
    egress_usd: Any,
    gco2e_per_hour: Any,
    late_ms: Any,
    hours: float,
    move_gco2e: Any = 0.0,
    move_h: Any = 0.0,
) -> Any:
    """The same of one place (floats), or of many at once (NumPy columns)."""
    usd_per_g = weights.carbon * weights.carbon_usd_per_tonne / G_PER_TONNE
    return (
        weights.egress * egress_usd
        + usd_per_g * (gco2e_per_hour * hours + move_gco2e)
        + weights.latency * LATENCY_USD_PER_MS_HOUR * late_ms * hours
        + weights.waiting_usd_per_hour * move_h
    )


def machine_score(
    weights: Objective, usd_per_hour: Any, hours: float, interruptions_per_hour: Any, lost_h: float
) -> Any:
    """What the machines add to the score, with those hours that are expected to be lost on them."""
    lost_of_each_hour = interruptions_per_hour * (lost_h * weights.interruption)
    return usd_per_hour * (hours * weights.cost + hours * lost_of_each_hour)


def shares(weights: Objective, p: Price) -> Shares:
    """The score taken apart; the parts add up to it."""
    lost_h = p.hours * p.interruptions_per_hour * p.lost_h
    return Shares(
        cost=weights.cost * p.usd_per_hour * p.hours,
        egress=weights.egress * p.egress_usd,
        carbon=weights.carbon * weights.carbon_usd_per_tonne * p.gco2e / G_PER_TONNE,
        latency=weights.latency * LATENCY_USD_PER_MS_HOUR * p.late_ms * p.hours,
        interruption=weights.interruption * p.usd_per_hour * lost_h,
        waiting=weights.waiting_usd_per_hour * (p.wait_h + p.move_h),
    )


def expected_hours(job: Job) -> float:
    return job.expected_s / 3600.0 if job.expected_s > 0 else UNKNOWN_DURATION_HOURS


def over_budget(
    job: Job,
    usd_per_hour: float,
    egress_usd: float,
    gco2e_per_hour: float = 0.0,
    hours: float | None = None,
    move_gco2e: float = 0.0,
) -> bool:
    """Whether the job's hard limits forbid a place. ``hours``: of the whole job, where known.

    While nobody knows how long it runs, only the egress counts against the total; the run is ended
    when the rest is spent.
    """
    b = job.budget
    known = known_hours(job) if hours is None else hours
    usd = usd_per_hour * known + egress_usd
    return (
        (0 < b.max_usd_per_hour < usd_per_hour)
        or (0 < b.max_usd < usd)
        or (0 < b.max_kg_co2e * G_PER_KG < gco2e_per_hour * known + move_gco2e)
    )


def known_hours(job: Job) -> float:
    """The hours that the user has promised; 0 when none."""
    return max(0.0, job.expected_s) / 3600.0


def spent(price: Price, started_ms: int, now_ms: int) -> tuple[float, float]:
    """(USD, g CO2e) since the start: compute and carbon by elapsed time, what moves once.

    Nothing before it has started (``started_ms`` 0).
    """
    if started_ms <= 0:
        return 0.0, 0.0
    hours = max(0, now_ms - started_ms) / MS_PER_HOUR
    usd = price.usd_per_hour * hours + price.egress_usd
    return usd, price.gco2e_per_hour * hours + price.move_gco2e


def dollars(amount: float, digits: int = 4) -> str:
    """``$1,234.50``; more digits where fewer would show nothing."""
    if digits == 2 and 0 < abs(amount) < 0.005:
        digits = 4
    return f"${amount:,.{digits}f}" if amount >= 0 else f"-${-amount:,.{digits}f}"
