"""What the federation's API says, over REST and gRPC alike: the views that tables are made of.

Views never hold a secret. Times are ms since the epoch, 0 where it has not come to pass.
"""

from msgspec import Struct

from hyperion.model.job import ReplicaStatus, SavedCheckpoint, TaskFailure


class TasksView(Struct, frozen=True, kw_only=True):
    """How far an array has come."""

    size: int
    limit: int
    """How many run at once at most; 0: as many as fit."""
    waiting: int
    running: int
    succeeded: int
    failed: int
    failures: tuple[TaskFailure, ...]
    """The first few that failed."""


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
    queue: str = ""
    nice: int = 0
    width: int = 0
    """How many replicas an elastic job has now; 0: it is not elastic, or not running."""
    roles: dict[str, int] = {}
    """Replicas by role."""
    preemptions: int = 0
    awaits: tuple[str, ...] = ()
    """Jobs that must end before it starts."""
    tasks: TasksView | None = None
    """Of an array."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Those from which it can go on, the newest last."""
    held: str = ""
    """The tenant whose spent budget it waits for, such as ``user:ann``."""


class NodeReason(Struct, frozen=True, kw_only=True):
    """Why so many nodes do not take a job now."""

    reason: str
    """A word that programs may rely on, such as ``GPU_TYPE`` or ``FULL``."""
    nodes: int
    text: str
    """With the numbers, such as ``only 6 of 8 GPUs free``."""


class QuotaView(Struct, frozen=True, kw_only=True):
    """The first limit, from the job's queue upwards, that does not allow it now."""

    queue: str
    resource: str
    """In the units of ``Queue``, such as ``gpus_milli``; empty: the queue is stopped."""
    used: int
    limit: int
    """With what may be borrowed."""
    asked: int


class OutlookView(Struct, frozen=True, kw_only=True):
    """What a cluster can tell of a job that waits there, or that would if it were submitted."""

    cluster: str
    queue: str
    position: int | None = None
    """Jobs before it in the cluster, if all take their turns; None: it does not wait."""
    position_in_queue: int | None = None
    nodes: int = 0
    nodes_with_room: int = 0
    reasons: tuple[NodeReason, ...] = ()
    """Most nodes first; empty while it has not been tried."""
    never: bool = False
    """It would not fit even if all nodes were empty."""
    quota: QuotaView | None = None
    awaits: tuple[str, ...] = ()
    """Jobs that must end first."""
    not_before_ms: int = 0
    starts_at_ms: int | None = None
    """The estimate; None where nothing can be told."""
    confidence: float = 0.0
    """How likely it starts by then, 0 to 1."""
    because: tuple[str, ...] = ()
    """The jobs whose ends it waits for."""
    replicas: int = 1
    replicas_now: int = 0
    """How many of its replicas would find places at once."""
    pauses: tuple[str, ...] = ()
    """Jobs that would stand still for it."""
    preempts: tuple[str, ...] = ()
    """The jobs that are being stopped for it."""


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
    best: tuple[str, ...] = ()
    """Of the joined places that could take the job it is the ``cheapest``, ``greenest``,
    ``nearest`` to its users, or ``soonest``."""
    undominated: bool = False
    """No other of them is as good in all of these and better in one: the Pareto frontier."""


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
    outlook: OutlookView | None = None
    """What the chosen cluster says of it; None where it could not be asked."""
    arithmetic: tuple[str, ...] = ()
    """How the chosen one's score comes about, a sentence a term; of ``why`` see its sentences."""


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
    outlook: OutlookView | None = None
    """What its cluster says, while it waits there."""
    held: str = ""
    """The tenant whose spent budget it waits for, such as ``user:ann``."""


class QueueView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion queues``. Amounts are by resource, in the units of ``Queue``."""

    cluster: str
    name: str
    parent: str
    weight: float
    quota: dict[str, int]
    """What it and those below it may always have."""
    borrow: dict[str, int]
    lend: dict[str, int]
    used: dict[str, int]
    """By its own jobs and those of the queues below it."""
    borrowed: dict[str, int]
    """Of ``used``, what is above its quota."""
    share: float
    """Its part of what it may have, lately: a time-decayed dominant share by its weight."""
    waiting: int
    """Jobs that wait in it, not those below it."""
    reclaim: bool
    preempt_within: bool
    users: tuple[str, ...]
    stopped: bool


class WindowView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion reserve`` and ``hyperion maintenance``."""

    cluster: str
    id: str
    kind: str
    """``maintenance``, or ``reservation`` where some may use it."""
    state: str
    """``planned`` or ``begun``."""
    begins_at_ms: int
    ends_at_ms: int
    nodes: tuple[str, ...]
    queues: tuple[str, ...]
    users: tuple[str, ...]
    reason: str


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


class Quantiles(Struct, frozen=True, kw_only=True):
    """Of some durations, in ms."""

    count: int
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0


class ActivationView(Struct, frozen=True, kw_only=True):
    """What became of one replica of a standby that was wanted, or is wanted no more."""

    cluster: str
    node: str
    rank: int
    stands_still: tuple[str, ...] = ()
    """The jobs that stand still for it since then."""
    stopped_ms: float | None = None
    """From the agent's order until they ran no more code of their own, by the node's clock."""
    frozen_ms: float | None = None
    """Until the kernel said so; None: not within 50 ms, or nobody had to."""
    how: str = ""
    error: str = ""
    """Why it could not be done."""


class MissView(Struct, frozen=True, kw_only=True):
    """A time that the promise was not kept."""

    at_ms: int
    job: str
    """Who had to wait."""
    took_ms: float
    """0: it never came."""
    why: str
    stragglers: tuple[str, ...]
    """Threads that were late: id, state, and where in the kernel they were."""


class PromiseView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion slo``: one step of pausing, in a cluster or on one of its nodes."""

    cluster: str
    node: str
    """Empty: in the whole cluster, by its scheduler's clock."""
    step: str
    """Such as ``ordered → free``; on a node ``called → frozen``, and how it was done."""
    promised_ms: float
    """0: nothing is promised."""
    missed: int
    """How many took longer than promised, or never came."""
    took: Quantiles
    misses: tuple[MissView, ...] = ()
    """The newest of them, the last one first."""


class Submitted(Struct, frozen=True, kw_only=True):
    """The answer to a submission."""

    id: str
    error: str = ""
    code: str = ""
    warning: str = ""
    """Such as that a budget is spent; the job is kept all the same."""


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
