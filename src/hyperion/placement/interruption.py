"""How often spot machines are taken back, and what a job then loses. Pure.

A machine is taken at a constant rate: of those left alone for a month with probability p, so many
as ``-ln(p) / 730`` an hour. What differs from source to source is only how p is stated.
"""

import math
from collections.abc import Mapping
from typing import Any

from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView

HOURS_A_MONTH = 730.0
LEAST_LEFT_ALONE = 0.001
"""No source can tell a smaller share from none."""
SPOT_PER_HOUR: Mapping[str, float] = {
    "aws": 0.0005,
    "azure": 0.025,
    "gcp": 0.0044,
}
"""Where no quote says more, by cloud. AWS: 30 % a month, the share that ``aws-advisor`` takes for
the Spot Advisor's highest band (> 20 %), in which many GPU machines are. Azure: 2.5 % an hour, the
middle of the lowest band (0-5 %) of its eviction rates, which are stated per hour. Google: 10 % a
day, the middle of the 5-15 % that its documentation of preemptible machines reported. All
documents as of 2024; a day in a busy zone can be far worse."""
UNKNOWN_SPOT_PER_HOUR = 0.0044
"""Spot machines elsewhere: as Google's."""


def per_hour(region: str, instance_type: str, bought: Market, market: MarketView) -> float:
    """How often one machine is taken back in an hour; never, where it is not spot."""
    if bought is not Market.SPOT:
        return 0.0
    left = market.left_alone.get((region, instance_type)) if market.left_alone else None
    if left is None:
        return SPOT_PER_HOUR.get(region.partition("/")[0], UNKNOWN_SPOT_PER_HOUR)
    return -math.log(min(1.0, max(LEAST_LEFT_ALONE, left))) / HOURS_A_MONTH


def lost_hours(job: Job, hours: float) -> float:
    """What one interruption takes from a run of so many hours, on average: the way back, and half
    of what lies between two checkpoints, or half of the run where there are none before its end."""
    kept = job.checkpoint
    between = hours if kept.every_s <= 0 else min(hours, kept.every_s / 3600.0)
    return between / 2.0 + kept.restore_s / 3600.0


def struck(job: Job, machines: Any) -> Any:
    """How many machines count: when one of a gang is taken, all of it starts again; of an array
    only the task that ran there."""
    return 1.0 if job.array is not None else machines
