"""The federation's bounds in time and number."""

from msgspec import Struct


class FederationTimes(Struct, frozen=True, kw_only=True):
    """The machine's own bounds; see the settings of the same names."""

    cluster_lease_ms: int = 300_000
    node_lease_ms: int = 30_000
    """What the clusters grant their nodes: a cut-off cluster may leave that much behind."""
    resend_ms: int = 2000
    silent_ms: int = 100_000
    """A placed job not reported for this long (clusters do so every 30 s) is asked about."""
    reconsider_ms: int = 30_000
    """A cluster that refused a job is asked again after this long."""
    retention_ms: int = 7 * 24 * 3_600_000
    ended_kept: int = 100_000
    bills_kept: int = 100_000
    """Lines of bills; older ones of jobs that are forgotten become parts of months."""
    advise_ms: int = 60_000
    """How often it is looked at which copies of datasets pay, where the advisor may act."""
    migrate_ms: int = 60_000
    """How often it is looked at whether a running job should go on elsewhere."""
    least_stay_ms: int = 1_800_000
    """A job is not moved before; twice as long after each move."""
    queue_max: int = 1_000_000
    placements_per_round: int = 1000
