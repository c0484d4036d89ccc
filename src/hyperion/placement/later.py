"""Whether a job with time to spare should start later: by what is forecast, or since the machines
that would be cheaper may come back. Pure.

A forecast is a line of steps: a value holds from its instant to the next one. A run is charged the
mean over its hours. What no forecast covers to its end is not judged.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.model.market import Forecast, Market, MarketView
from hyperion.placement import deadline, offers
from hyperion.placement.choice import Place
from hyperion.placement.dates import day_of
from hyperion.placement.deadline import Slack
from hyperion.placement.objective import MS_PER_HOUR, Price, dollars, shares

MARGIN = 0.05
"""Of the score at once, so much must be saved: forecasts err. A choice of ours."""
LEAST_USD = 0.01
LOOK_MS = MS_PER_HOUR
"""A job that is put off is looked at again this often: forecasts change."""
LOOK_FOR_MACHINES_MS = 120_000
"""Likewise one that waits for machines."""
LEAST_OUT_H = 0.25
MOST_PLACES = 16
"""The best by their score now."""

_Times = NDArray[np.float64]


class Later(Struct, frozen=True):
    """A start that pays."""

    start_ms: int
    saves_usd: float
    """Of the score, against the best start at once."""
    share: float
    waits_for: str = ""
    """Then ``start_ms`` is when it waits no more."""

    @property
    def look_ms(self) -> int:
        return LOOK_FOR_MACHINES_MS if self.waits_for else LOOK_MS

    @property
    def words(self) -> str:
        minutes = self.start_ms // 60_000 % (24 * 60)
        when = f"{day_of(self.start_ms)} {minutes // 60:02}:{minutes % 60:02} UTC"
        saves = f"{dollars(self.saves_usd, 2)} ({self.share:.0%})"
        if self.waits_for:
            return f"waits for {self.waits_for} until {when}: would save {saves}"
        return f"starts at {when}: saves {saves}"


def may_wait(job: Job, market: MarketView) -> bool:
    """Whether there is anything to weigh: time to spare, and a forecast."""
    return (
        job.deadline_s > 0
        and job.expected_s > 0
        and not job.start_now
        and job.array is None
        and bool(market.carbon_forecast or market.price_forecast)
    )


def best_start(
    job: Job, places: Sequence[Place], market: MarketView, now_ms: int, slack: Slack
) -> Later | None:
    """The start that costs least, if it pays to wait for it; None: start at once."""
    at_once, least, start_ms = np.inf, np.inf, 0.0
    open_to = [p for p in places if p.joined and p.refusal is None and p.has_room]
    for place in open_to[:MOST_PLACES]:
        assert place.price is not None, "a place that can take a job has a price"
        latest_ms = now_ms + 1000.0 * deadline.spare_s(job, slack, place.market)
        starts = _starts(place, market, now_ms, latest_ms)
        costs = _costs(job, place, place.price, market, starts)
        known = np.isfinite(costs[0])  # else the price of now is all that is known of a start now
        at_once = min(at_once, float(costs[0]) if known else place.price.score)
        n = int(np.argmin(costs))
        if costs[n] < least:
            least, start_ms = float(costs[n]), float(starts[n])
    saves = at_once - least
    if not np.isfinite(saves) or saves < max(LEAST_USD, MARGIN * at_once):
        return None
    return Later(int(start_ms), saves, saves / at_once)


def may_wait_for_spot(job: Job, slack: Slack) -> bool:
    return (
        not job.start_now
        and deadline.is_governed(job)
        and deadline.spare_s(job, slack, Market.SPOT) > 0
    )


def until_spot(
    job: Job, chosen: Place, gone: Iterable[tuple[Place, int]], now_ms: int, slack: Slack
) -> Later | None:
    """Instead of ``chosen``, which costs more: wait for spot machines that have gone, until there
    is only time enough for machines that nobody takes. ``gone`` says since when each has been so,
    and they are expected to be so for as long again."""
    best: Later | None = None
    assert chosen.price is not None, "a place that can take a job has a price"
    latest_ms = now_ms + int(1000 * deadline.spare_s(job, slack, Market.SPOT))
    at_once = chosen.price.score
    for place, gone_ms in gone:
        if place.refusal is not None or place.price is None or place.market is not Market.SPOT:
            continue
        out_h = max(LEAST_OUT_H, (now_ms - gone_ms) / MS_PER_HOUR)
        waits = job.objective.waiting_usd_per_hour * out_h
        saves = at_once - place.price.score - waits
        if saves < max(LEAST_USD, MARGIN * at_once) or now_ms + out_h * MS_PER_HOUR > latest_ms:
            continue
        if best is None or saves > best.saves_usd:
            share = saves / at_once if at_once else 0.0
            until_ms = min(latest_ms, max(now_ms, (latest_ms + gone_ms) // 2))
            best = Later(until_ms, saves, share, f"spot machines in {place.cluster}")
    return best


def _forecasts(place: Place, market: MarketView) -> tuple[Forecast, Forecast]:
    offered = (place.region, place.instance_type, place.market)
    return market.carbon_forecast.get(place.region, ()), market.price_forecast.get(offered, ())


def _starts(place: Place, market: MarketView, now_ms: int, latest_ms: float) -> _Times:
    """At once, and each instant until the latest at which something is forecast to change."""
    carbon, prices = _forecasts(place, market)
    found = {float(at_ms) for at_ms, _ in (*carbon, *prices) if now_ms < at_ms <= latest_ms}
    return np.array([float(now_ms), *sorted(found)])


def _costs(job: Job, place: Place, price: Price, market: MarketView, starts: _Times) -> _Times:
    """The score of each start, infinite where the forecast ends before the run does."""
    w, parts = job.objective, shares(job.objective, price)
    carbon, prices = _forecasts(place, market)
    run_ms, now_ms = price.hours * MS_PER_HOUR, float(starts[0])
    grid = market.carbon_g_per_kwh(place.region)
    moved = w.carbon * w.carbon_usd_per_tonne / 1e6 * price.move_gco2e
    grams = _means(carbon, grid, now_ms, starts, run_ms)
    offered = offers.columns(market).instance_usd(place.region, place.instance_type, place.market)
    usd = _means(prices, offered or 1.0, now_ms, starts, run_ms)
    machine = parts.cost + parts.interruption
    waits = w.waiting_usd_per_hour * (starts - now_ms) / MS_PER_HOUR
    return (
        machine * usd
        + (parts.carbon - moved) * grams
        + moved
        + (parts.egress + parts.latency + parts.waiting)
        + waits
    )


def _means(forecast: Forecast, now: float, now_ms: float, starts: _Times, run_ms: float) -> _Times:
    """The mean over a run from each start, as a multiple of what holds now."""
    if not forecast or now <= 0:
        return np.ones(len(starts))
    ahead = [(float(at_ms), value) for at_ms, value in forecast if at_ms > now_ms]
    times = np.array([now_ms, *(at_ms for at_ms, _ in ahead)])
    values = np.array([now, *(value for _, value in ahead)])
    gone = np.concatenate(([0.0], np.cumsum(np.diff(times) * values[:-1])))
    ends = starts + run_ms
    over: _Times = (np.interp(ends, times, gone) - np.interp(starts, times, gone)) / run_ms / now
    over[ends > times[-1]] = np.inf
    return over
