"""Where a job could go if somebody joined there: the market's offers, ranked like places."""

from collections.abc import Collection, Hashable

import numpy as np

from hyperion.model.job import Job
from hyperion.model.market import MarketView, Offer
from hyperion.model.resources import ResourceRequest
from hyperion.placement import offers
from hyperion.placement.choice import Place
from hyperion.placement.choice_words import why_over
from hyperion.placement.feasibility import Reason
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.objective import Price, extent, over_budget, price_from
from hyperion.placement.ranking import Candidates, Policy, guarded

MAX_RENTED = 1000
"""Tasks of an array that are reckoned to run at once where nobody has joined yet."""


def catalogue(
    job: Job,
    market: MarketView,
    policy: Policy,
    limit: int,
    joined_regions: Collection[str] = (),
    data: DataView = NO_DATASETS,
) -> tuple[Place, ...]:
    """Offers where nobody has joined, best first: whole instances, one row per region and market.

    Labels are not asked for (who joins sets them). Offers over the budget come last, refused. Jobs
    with roles get none: they may need several kinds of instances at once.
    """
    if limit <= 0 or not market.offers:
        return ()
    columns = offers.columns(market)
    found: list[Place] = []
    for alternative, request in enumerate(job.alternatives if not job.roles else ()):
        wish = job, alternative, request
        found += _offered(*wish, columns, policy, limit, joined_regions, data)
    best: dict[Hashable, Place] = {}
    for place in sorted(found, key=_refused_last):
        best.setdefault((place.region, place.market), place)
    return tuple(best.values())[:limit]


def _offered(
    job: Job,
    alternative: int,
    request: ResourceRequest,
    columns: offers.Columns,
    policy: Policy,
    limit: int,
    joined_regions: Collection[str],
    data: DataView,
) -> list[Place]:
    """The best offers for one alternative, by region and market."""
    rows, per_instance = columns.suitable(request, joined_regions)
    kept = columns.may_be(job.regions)[columns.region[rows]]
    rows, per_instance = rows[kept], per_instance[kept]
    if not len(rows):
        return []
    widest = extent(job, MAX_RENTED)
    instances = -(-widest.width // per_instance)
    usd_per_hour = instances * columns.usd_per_hour[rows]
    terms = columns.terms(job, request, rows, widest, instances, data)
    candidates = Candidates(
        usd_per_hour=usd_per_hour,
        egress_usd=terms.egress_usd,
        gco2e_per_hour=terms.gco2e_per_hour,
        latency_ms=terms.latency_ms,
        score=terms.score(job, usd_per_hour, widest.hours),
        fullness=np.zeros(len(rows)),
        waste=((columns.gpus[rows] > 0) & (request.gpus_milli == 0)).astype(np.float64),
    )
    costs = guarded(policy).cost(job, candidates)
    over = terms.over_budget(job, usd_per_hour, widest.known_hours)
    order = np.lexsort((costs, over))
    picked = columns.first_of_each_place(rows[order], limit)
    return [
        _offer_place(
            job,
            alternative,
            columns.market.offers[int(rows[i])],
            price_from(job, terms.of(i), float(usd_per_hour[i]), widest.hours, terms.outlook(i)),
            widest.known_hours,
            float(costs[i]),
        )
        for i in order[picked].tolist()
    ]


def _offer_place(
    job: Job,
    alternative: int,
    offer: Offer,
    price: Price,
    known_hours: float,
    cost: float,
) -> Place:
    over = over_budget(
        job,
        price.usd_per_hour,
        price.egress_usd,
        price.gco2e_per_hour,
        known_hours,
        price.move_gco2e,
    )
    return Place(
        cluster="",
        region=offer.region,
        alternative=alternative,
        shape=offers.as_shape(offer),
        market=offer.market,
        instance_type=offer.instance_type,
        price=price,
        joined=False,
        refusal=Reason.BUDGET if over else None,
        refusal_text=why_over(job, price, known_hours) if over else "",
        cost=cost,
    )


def _refused_last(place: Place) -> tuple[bool, float]:
    return place.refusal is not None, place.cost
