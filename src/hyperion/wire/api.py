"""What the federation's API says, over REST and gRPC alike: the views that tables are made of.

Views never hold a secret. Times are ms since the epoch, 0 where it has not come to pass.
"""

from msgspec import Struct

from hyperion.model.job import ReplicaStatus


class JobView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion ps``, and the top of ``hyperion show``."""

    id: str
    name: str
    user: str
    phase: str
    reason: str
    """Why it waits, or how it ended; empty when there is nothing to say."""
    priority: str
    framework: str
    replicas: int
    resources: str
    """In words, such as ``A100:8 cpus:4``."""
    cluster: str
    region: str
    nodes: tuple[str, ...]
    exit_code: int | None
    restarts: int
    generation: int
    submitted_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    usd_per_hour: float
    usd: float
    """Spent so far, egress included, by the same objective that placed it."""
    gco2e: float
    ranks: tuple[ReplicaStatus, ...] = ()


class PlanRow(Struct, frozen=True, kw_only=True):
    """One candidate place: a cluster that has joined, or a catalogue offer (``joined`` false)."""

    rank: int
    cluster: str
    region: str
    accelerators: str
    instance_type: str
    market: str
    usd_per_hour: float | None
    egress_usd: float | None
    gco2e_per_hour: float | None
    latency_ms: float | None
    score: float | None
    """In USD for the expected run, weights applied; lower is better. None: not feasible."""
    chosen: bool
    reason: str
    """Why not chosen, in one phrase; for the chosen one, what it wins by."""
    joined: bool
    declared: bool


class PlanView(Struct, frozen=True, kw_only=True):
    """The answer of ``hyperion plan``. Nothing was changed."""

    job: str
    policy: str
    feasible: bool
    chosen: str
    """The cluster, or empty."""
    sentence: str
    rows: tuple[PlanRow, ...]
    market_as_of: str


class WhyView(Struct, frozen=True, kw_only=True):
    """The answer of ``hyperion why``: the decision with its arithmetic, then what happened."""

    id: str
    phase: str
    sentences: tuple[str, ...]
    plan: PlanView | None
    refusals: dict[str, int]
    """Nodes refused, counted by reason, when the job waits in a cluster."""
    queue_position: int | None
    """How many jobs are before it; None when it does not wait."""


class NodeView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion nodes``, with the last measurement for ``top``."""

    id: str
    cluster: str
    region: str
    state: str
    """``ready``, ``cordoned``, ``draining``, ``silent`` or ``lost``."""
    gpu_type: str
    gpus: int
    gpus_free: float
    cpus: float
    cpus_free: float
    memory_mib: int
    memory_free_mib: int
    replicas: int
    declared: tuple[str, ...]
    instance_type: str
    market: str
    usd_per_hour: float
    labels: dict[str, str]
    taints: tuple[str, ...]
    abilities: dict[str, str]
    version: str
    address: str
    heard_ms_ago: int
    metrics: dict[str, float]
    """``cpu_percent``, ``memory_used_mb``, ``gpu0_percent`` …; empty until measured."""


class ClusterView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion clusters``."""

    id: str
    region: str
    state: str
    """``ready``, ``silent`` (cut off, its lease runs) or ``lost``."""
    nodes: int
    gpus: str
    gpus_free: str
    cpus: float
    cpus_free: float
    waiting: int
    running: int
    usd_per_hour: float
    gco2e_per_kwh: float
    declared: bool
    version: str
    heard_ms_ago: int


class OfferView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion offers``: what the catalogue says can be had."""

    region: str
    instance_type: str
    accelerators: str
    cpus: float
    memory_gib: float
    market: str
    usd_per_hour: float
    usd_per_gpu_hour: float | None
    gco2e_per_kwh: float
    as_of: str
    source: str


class PolicyView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion policies``: a policy in the federation or a cluster."""

    name: str
    where: str
    """``federation``, or a cluster's name."""
    in_force: bool
    """It decides there now; at the federation a job may name another."""
    origin: str
    """``built in``, or the package and object that brings it."""
    rounds_replaced: int = 0
    """How many rounds balanced decided in its place, since the daemon was started."""
    fault: str = ""
    """What it did wrong last, or why it could not be loaded."""


class Submitted(Struct, frozen=True, kw_only=True):
    """The answer to a submission."""

    id: str
    error: str = ""
    code: str = ""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault in a spec: where it is, what is wrong, what would be right."""

    pointer: str
    """JSON pointer into the spec, such as ``/resources/accelerators``."""
    message: str
    """Names the field, what was found and what was expected; ends with the remedy."""
    line: int = 0
    column: int = 0
    """From 1; 0 where the spec was not a text."""


class VersionView(Struct, frozen=True, kw_only=True):
    version: str
    api: str
    python: str
    started_at_ms: int
    trust_domain: str


class JobChange(Struct, frozen=True, kw_only=True):
    """One step of ``watch``: the job as it is now."""

    sequence: int
    at_ms: int
    job: JobView
