"""What stopping a running job costs, in USD: the work that is lost, and the way back to it; also
the wait until it yields, where it comes to a stand by itself.

Between two checkpoints that is a straight line in time, kept as its terms.
"""

from msgspec import Struct

from hyperion.model.allocation import Allocation
from hyperion.model.resources import MILLI
from hyperion.placement.occupant import Occupant, Width

USD_PER_GPU_HOUR = 1.0
USD_PER_CPU_HOUR = 0.04
"""What an unpriced machine is worth: about what a small datacentre GPU and a CPU of a
general-purpose instance cost on demand (2025). Only their ratio decides between unpriced jobs;
their size keeps them comparable with priced ones."""
NEVER = float("inf")
NEVER_MS = 2**62
_MS_PER_HOUR = 3_600_000


class Terms(Struct, frozen=True):
    """``fixed + slope * time since the last checkpoint``."""

    fixed_usd: float
    slope_usd: float
    """For each millisecond."""
    began_ms: int
    every_ms: int
    """How often it writes a checkpoint; 0: never."""
    from_ms: int
    """It must not be stopped before."""
    standing: int = 0
    """A number for its queue, class and niceness, on which rights depend."""
    parts: int = 1
    """Into how many parts it may be broken: an elastic job can stop its ranks one by one."""

    def at(self, now_ms: int) -> float:
        if now_ms < self.from_ms:
            return NEVER
        unsaved_ms = max(0, now_ms - self.began_ms)
        if self.every_ms:
            unsaved_ms %= self.every_ms
        return self.fixed_usd + self.slope_usd * unsaved_ms


def regret_usd(occupant: Occupant, width: Width, now_ms: int) -> float:
    """What stopping the whole job now costs, or a task of an array as wide as one replica;
    infinite while it must not be stopped."""
    return terms(occupant, width).at(now_ms)


def terms(occupant: Occupant, width: Width, standing: int = 0) -> Terms:
    """Of a job as a whole."""
    o = occupant
    parts = max(1, width.replicas) if o.least else 1
    from_ms = NEVER_MS if o.stopping else o.preemptible_at_ms
    return _terms(o, width, o.started_at_ms, from_ms, standing, parts)


def task_terms(occupant: Occupant, seat: Allocation, standing: int = 0) -> Terms:
    """Of one task of an array."""
    o, r = occupant, seat.request
    began_ms = seat.started_at_ms or seat.placed_at_ms or o.started_at_ms
    from_ms = max(o.preemptible_at_ms, began_ms + o.min_runtime_ms)
    if o.stopping:
        from_ms = NEVER_MS
    return _terms(o, Width(1, r.gpus_milli, r.cpus_milli), began_ms, from_ms, standing, 1)


def _terms(
    o: Occupant, width: Width, began_ms: int, from_ms: int, standing: int, parts: int
) -> Terms:
    slope = _usd_per_ms(o, width)
    fixed = slope * (o.restore_ms + o.yields_ms) + o.egress_usd
    if o.saves_on_stop:
        return Terms(fixed, 0.0, began_ms, 0, from_ms, standing, parts)
    began_ms = max(began_ms, o.saved_at_ms)
    return Terms(fixed, slope, began_ms, o.saves_every_ms, from_ms, standing, parts)


def _usd_per_ms(o: Occupant, width: Width) -> float:
    hourly = o.usd_per_hour
    if not hourly:
        gpus, cpus = width.gpus_milli / MILLI, width.cpus_milli / MILLI
        hourly = gpus * USD_PER_GPU_HOUR + cpus * USD_PER_CPU_HOUR
    return hourly / _MS_PER_HOUR
