"""What can go wrong, how often; named mixtures of it. All are drawn from the world's seed."""

from msgspec import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """Probabilities per message or per step; mean times between failures in seconds (0: never)."""

    drop: float = 0.0
    """A message of a living session is lost."""
    double: float = 0.0
    delay_ms_max: int = 5
    """Messages of a session may overtake each other within this."""
    crash_in_step: float = 0.0
    """A process dies between deciding and keeping, or between keeping and acting."""
    kill_mean_s: float = 0.0
    """Any one of the daemons is killed this often, and comes back."""
    down_s_max: float = 3.0
    partition_mean_s: float = 0.0
    """A link between two processes is cut this often."""
    partition_s_max: float = 40.0
    node_death_mean_s: float = 0.0
    """A machine loses power this often; it comes back after ten times ``down_s_max`` at most."""
    wave: int = 1
    """How many machines lose power together."""
    unpausable: float = 0.0
    """With this probability a replica does not stand still when it is told to."""
    late: float = 0.0
    """With this probability a program does not come to a stand by itself in time: what it says of
    it is lost, or its step takes longer."""
    drift: float = 0.0
    """Clocks run up to this fraction too fast or too slow."""
    disk_loss: float = 0.0
    """With this probability a machine that lost power comes back with an empty disk."""


CALM = Faults()
STORM = Faults(
    drop=0.05,
    double=0.05,
    delay_ms_max=300,
    crash_in_step=0.002,
    kill_mean_s=6.0,
    drift=0.02,
    unpausable=0.1,
    late=0.3,
)
PARTITION = Faults(drop=0.01, delay_ms_max=50, partition_mean_s=6.0, kill_mean_s=30.0)
SPOT = Faults(late=0.1, delay_ms_max=50, node_death_mean_s=15.0, wave=2, disk_loss=0.3)
DRIFT = Faults(drift=0.05, delay_ms_max=100, partition_mean_s=10.0)

PROFILES = {"calm": CALM, "storm": STORM, "partition": PARTITION, "spot": SPOT, "drift": DRIFT}
