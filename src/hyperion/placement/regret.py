"""What stopping a running job costs, in USD: the work that is lost, and the way back to it."""

from hyperion.model.resources import MILLI
from hyperion.placement.running import Occupant, Width

USD_PER_GPU_HOUR = 1.0
USD_PER_CPU_HOUR = 0.04
"""What an unpriced machine is worth: about what a small datacentre GPU and a CPU of a
general-purpose instance cost on demand (2025). Only their ratio decides between unpriced jobs;
their size keeps them comparable with priced ones."""
_MS_PER_HOUR = 3_600_000
NEVER = float("inf")


def regret_usd(occupant: Occupant, width: Width, now_ms: int) -> float:
    """What stopping the whole job now costs; infinite while it must not be stopped."""
    if occupant.stopping or now_ms < occupant.preemptible_at_ms:
        return NEVER
    lost_ms = unsaved_ms(occupant, occupant.started_at_ms, now_ms) + occupant.restore_ms
    return usd_per_ms(occupant, width) * lost_ms + occupant.egress_usd


def unsaved_ms(occupant: Occupant, started_at_ms: int, now_ms: int) -> int:
    """Work since its last checkpoint, in time."""
    if occupant.saves_on_stop:
        return 0
    ran_ms = max(0, now_ms - started_at_ms)
    return ran_ms % occupant.saves_every_ms if occupant.saves_every_ms else ran_ms


def usd_per_ms(occupant: Occupant, width: Width) -> float:
    """Its price, or what it would be if its machines had one."""
    hourly = occupant.usd_per_hour
    if not hourly:
        hourly = (width.gpus_milli * USD_PER_GPU_HOUR + width.cpus_milli * USD_PER_CPU_HOUR) / MILLI
    return hourly / _MS_PER_HOUR
