"""What placement would have saved: a past cluster's jobs, priced at home and where they best went.

Changes nothing and asks nobody: a fold over a trace and a market.
"""

from collections.abc import Iterable

from msgspec import Struct

from hyperion.model.market import Market
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.model.resources import ResourceRequest
from hyperion.placement.advice import Adviser, Assumed, Chosen
from hyperion.placement.objective import MS_PER_HOUR
from hyperion.sim.trace import Trace, TraceJob

WITHIN = {
    "region": "same region",
    "continent": "same continent",
    "anywhere": "anywhere",
}
PLACES_TOLD = 8
QUEUES_TOLD = 20
UNPRICED_TOLD = 8


class PlaceAdvice(Struct, kw_only=True):
    """A region and market to which jobs would have gone."""

    region: str
    market: str
    jobs: int = 0
    usd: float = 0.0
    saved_usd: float = 0.0


class Scenario(Struct, kw_only=True):
    """The best placement under one constraint."""

    name: str
    usd: float = 0.0
    """Egress, and what is done again on spot machines, included."""
    egress_usd: float = 0.0
    gco2e: float = 0.0
    saved_usd: float = 0.0
    saved_percent: float = 0.0
    moved: int = 0
    """Jobs that leave home."""
    spot: int = 0
    """Jobs on spot machines."""
    redone_usd: float = 0.0
    """Of ``usd``, the allowance for what spot machines lose."""
    dearer: int = 0
    """Jobs that cost more USD than at home, for the carbon's sake."""
    dearer_usd: float = 0.0
    places: tuple[PlaceAdvice, ...] = ()


class QueueAdvice(Struct, kw_only=True):
    """A queue (partition, namespace) of the past."""

    name: str
    jobs: int = 0
    home_usd: float = 0.0
    best_usd: float = 0.0
    """Anywhere."""


class Advice(Struct, kw_only=True):
    """The whole report. USD, hours, g CO2e."""

    source: str
    home: str
    jobs: int = 0
    hours: float = 0.0
    gpu_hours: float = 0.0
    home_usd: float = 0.0
    """What was paid, by on-demand prices at home."""
    home_gco2e: float = 0.0
    failed: int = 0
    failed_usd: float = 0.0
    """Of ``home_usd``, what went into jobs that failed."""
    unpriced: int = 0
    """Jobs for which home offers nothing on demand; they are in no sum."""
    unpriced_gpu_hours: float = 0.0
    unpriced_kinds: tuple[str, ...] = ()
    untyped: int = 0
    """Jobs with GPUs of no named type: any type counts as good."""
    scenarios: tuple[Scenario, ...] = ()
    queues: tuple[QueueAdvice, ...] = ()
    assumptions: tuple[str, ...] = ()


def advise(trace: Trace, adviser: Adviser) -> Advice:
    """The report of a trace."""
    out = Advice(source=trace.name, home=adviser.assumed.home)
    found = {within: Scenario(name=name) for within, name in WITHIN.items()}
    places: dict[str, dict[tuple[str, Market], PlaceAdvice]] = {within: {} for within in found}
    queues: dict[str, QueueAdvice] = {}
    kinds: dict[str, int] = {}
    for past in trace.jobs:
        if past.cancel_after_ms > 0:
            continue  # it never ran
        hours = past.whole_runs_ms / MS_PER_HOUR
        home = adviser.at_home(past.job, hours)
        if home is None:
            out.unpriced += 1
            out.unpriced_gpu_hours += past.gpus_milli / 1000 * hours
            kinds[_kind(past)] = kinds.get(_kind(past), 0) + 1
            continue
        _count(out, past, home, hours)
        name = past.job.queue or DEFAULT_QUEUE
        queue = queues.setdefault(name, QueueAdvice(name=name))
        queue.jobs += 1
        queue.home_usd += home.price.usd
        for within, scenario in found.items():
            best = adviser.best(past.job, hours, within) or home
            _add(scenario, places[within], home, best, adviser.assumed)
            if within == "anywhere":
                queue.best_usd += best.price.usd
    for within, scenario in found.items():
        scenario.saved_usd = out.home_usd - scenario.usd
        scenario.saved_percent = 100 * scenario.saved_usd / out.home_usd if out.home_usd else 0.0
        ranked = sorted(places[within].values(), key=lambda p: (-p.usd, p.region, p.market))
        scenario.places = tuple(ranked[:PLACES_TOLD])
    out.scenarios = tuple(found.values())
    out.queues = tuple(sorted(queues.values(), key=lambda q: (-q.home_usd, q.name))[:QUEUES_TOLD])
    out.unpriced_kinds = _largest(kinds)
    out.assumptions = tuple(_assumptions(trace, adviser, out))
    return out


def _count(out: Advice, past: TraceJob, home: Chosen, hours: float) -> None:
    gpus = 0.0
    for request, n in _needs(past):
        gpus += request.gpus_milli / 1000 * n
        if request.gpus_milli and not request.gpu_type:
            out.untyped += 1
            break
    gpus = past.gpus_milli / 1000 if past.job.array is None else gpus
    out.jobs += 1
    out.hours += hours
    out.gpu_hours += gpus * hours
    out.home_usd += home.price.usd
    out.home_gco2e += home.price.gco2e
    if past.exit_codes[0]:
        out.failed += 1
        out.failed_usd += home.price.usd


def _needs(past: TraceJob) -> Iterable[tuple[ResourceRequest, int]]:
    job = past.job
    if job.roles:
        return [(role.resources, role.replicas) for role in job.roles]
    return [(job.alternatives[0], job.replicas)]


def _add(
    scenario: Scenario,
    places: dict[tuple[str, Market], PlaceAdvice],
    home: Chosen,
    best: Chosen,
    assumed: Assumed,
) -> None:
    option, price = best.option, best.price
    scenario.usd += price.usd
    scenario.egress_usd += price.egress_usd
    scenario.gco2e += price.gco2e
    scenario.moved += option.region != assumed.home
    if option.market is Market.SPOT:
        scenario.spot += 1
        computed_usd = price.usd - price.egress_usd
        scenario.redone_usd += computed_usd * assumed.spot_loss / (1.0 + assumed.spot_loss)
    if price.usd > home.price.usd * (1 + 1e-9):
        scenario.dearer += 1
        scenario.dearer_usd += price.usd - home.price.usd
    key = option.region, option.market
    place = places.setdefault(key, PlaceAdvice(region=key[0], market=key[1].value))
    place.jobs += 1
    place.usd += price.usd
    place.saved_usd += home.price.usd - price.usd


def _kind(past: TraceJob) -> str:
    request = past.job.alternatives[0]
    if request.gpus_milli:
        return f"{request.gpu_type or 'GPU'}:{request.gpus_milli / 1000:g}"
    return f"cpus:{request.cpus_milli / 1000:g} mem:{request.memory_mib / 1024:.0f}Gi"


def _largest(kinds: dict[str, int]) -> tuple[str, ...]:
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return tuple(f"{kind} ({n} jobs)" for kind, n in ranked[:UNPRICED_TOLD])


def _assumptions(trace: Trace, adviser: Adviser, out: Advice) -> Iterable[str]:
    a, market = adviser.assumed, adviser.market
    yield (
        f"what was paid is reckoned from on-demand list prices in {a.home} as of {market.as_of};"
        " discounts, commitments and idle machines are not in it"
    )
    if a.whole:
        yield "a job pays for whole machines of its own"
    else:
        yield (
            "a job pays for the largest share that it takes of a machine's GPUs, CPUs or memory, as"
            " on machines that others fill up (--whole: for whole machines)"
        )
    yield "a job runs as long elsewhere as it did, on the same type and number of GPUs"
    if out.untyped:
        yield (
            f"{out.untyped} jobs name no type of GPU: the cheapest of any type counts, at home too"
            " (--gpu-type names one)"
        )
    if a.data_gib:
        yield f"each job reads {a.data_gib:g} GiB from {a.home} and pays their egress each time"
    else:
        yield (
            "nobody knows how much data the jobs read: egress is taken as 0, which flatters moving"
            " (--data-gib N: what each job reads)"
        )
    if a.spot:
        yield (
            f"on spot machines {a.spot_loss:.0%} of the hours are done again (--spot-loss); jobs go"
            " on from checkpoints; --no-spot leaves spot out"
        )
    else:
        yield "spot machines are left out"
    yield (
        f"a tonne of CO2e weighs {a.usd_per_tonne:g} USD in the choice (--carbon-price) and is in"
        " no sum of money; power is rated power, grids are annual means"
    )
    yield from trace.notes
    if trace.bad_rows:
        yield f"{trace.bad_rows} rows could not be read as jobs and were left out"
