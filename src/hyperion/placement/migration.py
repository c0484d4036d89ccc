"""Whether a running job should go on elsewhere: what it saves, what it costs, how often. Pure.

Three brakes keep a job from going to and fro. A move must save more than it costs by ``MARGIN``;
the job must have paid as much too much, where it is, as the move costs (the rule of the ski rental:
a price that comes and goes fast never adds up to that); and each stay is at least twice as long as
the one before, up to ``MOST_MOVES``.
"""

from msgspec import Struct

from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.placement.deadline import RESTART_S
from hyperion.placement.objective import G_PER_TONNE, MS_PER_HOUR, Price, dollars, shares

MARGIN = 0.2
MOST_MOVES = 5
"""Of one job, whatever happens."""
GIB = 2**30


class Worth(Struct, frozen=True):
    """A move, weighed; in USD of the job's objective."""

    gain_usd: float
    """Over the hours that are left, by prices as they are now."""
    cost_usd: float
    """Work done again, the turn, the data and the checkpoint."""
    excess_usd_per_hour: float
    """What it pays more where it is than it would there."""

    def pays(self, regret_usd: float) -> bool:
        """``regret_usd``: what it has paid too much in this stay, see ``regret``."""
        enough = self.cost_usd * (1.0 + MARGIN)
        return self.gain_usd > enough and regret_usd >= self.cost_usd


def regret(before_usd: float, worth: Worth, hours: float) -> float:
    """What has been paid too much, after so many hours more; what was cheaper here counts against
    it, and it is never less than nothing."""
    return max(0.0, before_usd + worth.excess_usd_per_hour * hours)


def may_move(moves: int, stayed_ms: int, least_stay_ms: int) -> bool:
    """``moves``: how often it has been moved."""
    return moves < MOST_MOVES and stayed_ms >= least_stay_ms << moves


def hourly(job: Job, price: Price) -> float:
    """What an hour there weighs, without what is paid once."""
    w, parts = job.objective, shares(job.objective, price)
    moved = w.carbon * w.carbon_usd_per_tonne / G_PER_TONNE * price.move_gco2e
    running = parts.cost + parts.carbon - moved + parts.latency + parts.interruption
    return running / price.hours


def weigh(
    job: Job, here: Price, there: Price, left_h: float, unsaved_h: float, carry_usd: float
) -> Worth:
    """``left_h``: work that no checkpoint holds; ``unsaved_h``: what of it is done already and
    would be done again; ``carry_usd``: for bringing the checkpoint."""
    w, parts = job.objective, shares(job.objective, there)
    now, then = hourly(job, here), hourly(job, there)
    turn_h = (job.checkpoint.grace_s + RESTART_S + job.checkpoint.restore_s) / 3600.0
    ahead_h = max(0.0, left_h - unsaved_h)
    moved = w.carbon * w.carbon_usd_per_tonne / G_PER_TONNE * there.move_gco2e
    cost = (
        then * (unsaved_h + turn_h)
        + w.egress * carry_usd
        + parts.egress
        + moved
        + parts.waiting
        + w.waiting_usd_per_hour * turn_h
    )
    return Worth((now - then) * ahead_h, cost, now - then)


def carry_usd(size_bytes: int, source: str, target: str, market: MarketView) -> float:
    """For a checkpoint of that size."""
    return size_bytes / GIB * market.egress_usd_per_gib(source, target)


def words(worth: Worth, region: str) -> str:
    return (
        f"goes on in {region}: saves {dollars(worth.gain_usd, 2)} in what is left to do,"
        f" for {dollars(worth.cost_usd, 2)} of moving"
    )


def hours(ms: int) -> float:
    return ms / MS_PER_HOUR
