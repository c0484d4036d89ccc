"""What the machines decide. State is the fold of these; each names everything that it changes."""

from msgspec import Struct

from hyperion.control.messages import Prepare, Run
from hyperion.model.allocation import Allocation, AllocationState, Freeze
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, ClusterId, JobId, NodeId, WindowId
from hyperion.model.job import (
    Job,
    JobPhase,
    ReplicaStatus,
    SavedCheckpoint,
    Secret,
    TaskProgress,
)
from hyperion.model.node import Node
from hyperion.model.queue import Queue
from hyperion.model.window import Window
from hyperion.placement.explain import Row
from hyperion.placement.objective import Price

# -- shared by federation and cluster -----------------------------------------------------------


class SecretsKept(Struct, frozen=True, tag=True):
    """A job's secrets; the one record that the journal never shows."""

    job: JobId
    secrets: dict[str, Secret]


# -- federation ---------------------------------------------------------------------------------


class FederatedStatus(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The part of a job that changes, as the federation knows it."""

    phase: JobPhase = JobPhase.QUEUED
    generation: int = 0
    """Counts the orders given about the job."""
    answered: int = 0
    """The newest generation that the cluster has answered."""
    placed: int = 0
    """The generation of the newest PlaceJob."""
    version: int = 0
    """Of the newest report taken in from this placement."""
    cluster: ClusterId = ClusterId("")
    region: str = ""
    place: str = ""
    """Instance type and market of the chosen place, in words."""
    price: Price | None = None
    spent_usd: float = 0.0
    """In earlier placements, and for egress in this one."""
    spent_gco2e: float = 0.0
    spent_hours: float = 0.0
    """In earlier attempts; what runs now is not in it."""
    held: str = ""
    """The tenant whose budget keeps it from being placed, or is stopping it for that."""
    leaving: str = ""
    """Why it is being stopped where it is, to go on elsewhere."""
    left: ClusterId = ClusterId("")
    """The cluster that it was moved from, and does not go back to while another has room."""
    moves: int = 0
    """How often it has been moved while it ran."""
    spot: bool = False
    """The newest chosen place is on spot machines. Where it is not, a job whose deadline is watched
    is told to take none."""
    saved_s: float = 0.0
    """Work that earlier attempts have left in checkpoints."""
    wanted: JobPhase | None = None
    """The end it is being stopped for."""
    reason: str = ""
    exit_code: int | None = None
    restarts: int = 0
    """Starts after the first one, in this placement."""
    losses: int = 0
    """How often a cluster lost it."""
    excluded: tuple[ClusterId, ...] = ()
    """Clusters that refused it."""
    not_before_ms: int = 0
    """It waits for a cheaper hour, or until it is looked at whether that still is one."""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    replicas: tuple[ReplicaStatus, ...] = ()
    awaits: tuple[JobId, ...] = ()
    """Jobs that it depends on and that have not ended yet."""
    width: int = 0
    preemptions: int = 0
    tasks: TaskProgress | None = None
    tasks_running: int = 0
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """From which it can go on, in whatever cluster; the newest last."""

    @property
    def comes_back(self) -> bool:
        """Whether the end that it is being stopped for is one of this placement only."""
        return bool(self.held or self.leaving)


class FederatedJob(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    job: Job
    submitted_at_ms: int
    order: int
    """Counts submissions; the queue's order among equals."""
    status: FederatedStatus = FederatedStatus()


class FederatedJobAccepted(Struct, frozen=True, tag=True, gc=False):
    job: Job
    """Without its secrets."""
    order: int
    at_ms: int


class FederatedJobMoved(Struct, frozen=True, tag=True, gc=False):
    job: JobId
    status: FederatedStatus
    at_ms: int


class Decided(Struct, frozen=True, tag=True):
    """The comparison behind a placement, kept for ``why``."""

    job: JobId
    generation: int
    policy: str
    sentence: str
    rows: tuple[Row, ...]
    arithmetic: tuple[str, ...]
    market_as_of: str
    at_ms: int


class FederatedJobPruned(Struct, frozen=True, tag=True):
    """Long ended; only the journal and bills remember it."""

    job: JobId


class ClusterEntry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    cluster: Cluster
    lost: bool = False


class ClusterAdmitted(Struct, frozen=True, tag=True):
    cluster: Cluster
    at_ms: int


class ClusterLost(Struct, frozen=True, tag=True):
    """Its lease has surely ended; its jobs are placed anew."""

    cluster: ClusterId
    at_ms: int


# -- cluster ------------------------------------------------------------------------------------


class Claim(Struct, frozen=True, omit_defaults=True, gc=False):
    """A place that is being cleared for a job: nobody else gets it meanwhile."""

    rank: int
    node: NodeId
    devices: tuple[int, ...] = ()


class JobStatus(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The part of a job that changes, as its cluster knows it."""

    phase: JobPhase = JobPhase.QUEUED
    generation: int = 0
    version: int = 1
    """Counts changes; reports carry it."""
    attempt: int = 0
    alternative: int = 0
    failures: int = 0
    losses: int = 0
    not_before_ms: int = 0
    after_stop: JobPhase | None = None
    reason: str = ""
    exit_code: int | None = None
    refused: bool = False
    fenced: bool = False
    """Stopped since the federation's lease ended: not an end of the job, only of its stay here."""
    comes_back: bool = False
    """Stopped since its federation wants it back: not an end of the job either."""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    width: int = 0
    """How many replicas this attempt has, where that is not ``Job.replicas``; 0: all of them."""
    resizes: int = 0
    """How often it has grown or shrunk without being started anew, in all attempts."""
    awaits: tuple[JobId, ...] = ()
    """Jobs that it depends on and that have not ended yet."""
    claim: tuple[Claim, ...] = ()
    claimed_until_ms: int = 0
    claims_over: bool = False
    """Those that hold the claimed places stand still there, instead of leaving them."""
    preemptions: int = 0
    paused_for: JobId = JobId("")
    """The more urgent job for which it stands still."""
    paused_at_ms: int = 0
    resumed_at_ms: int = 0
    paused_ms: int = 0
    """How long this attempt has stood still, all together."""
    attained_ms: int = 0
    """How long its earlier attempts ran, all together."""
    tasks: TaskProgress | None = None
    """Of an array."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Those that are whole, the newest last."""
    saved_at_ms: int = 0
    """When the newest was heard of, by the scheduler's clock."""


class ClusterJob(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    job: Job
    federated: bool
    submitted_at_ms: int
    order: int
    status: JobStatus


class JobAccepted(Struct, frozen=True, tag=True, gc=False):
    job: Job
    """Without its secrets."""
    federated: bool
    generation: int
    version: int
    submitted_at_ms: int
    order: int
    at_ms: int
    tasks: TaskProgress | None = None
    checkpoints: tuple[SavedCheckpoint, ...] = ()


class JobMoved(Struct, frozen=True, tag=True, gc=False):
    job: JobId
    status: JobStatus
    at_ms: int


class JobForgotten(Struct, frozen=True, tag=True):
    """The federation has kept its end. A mark stays, so that no late order revives it."""

    job: JobId
    generation: int
    at_ms: int


class MarkDropped(Struct, frozen=True, tag=True):
    """The mark of a forgotten job or replica is older than any order can be."""

    name: str


class AllocationPlaced(Struct, frozen=True, tag=True, gc=False):
    allocation: Allocation


class AllocationMoved(Struct, frozen=True, tag=True, gc=False):
    allocation: Allocation


class TaskEnded(Struct, frozen=True, tag=True, gc=False):
    """A task of an array is over; nothing but the count in the job's status remembers it."""

    allocation: Allocation
    status: JobStatus
    at_ms: int


class QueuesKept(Struct, frozen=True, tag=True):
    """The whole tree, in place of the one before."""

    queues: tuple[Queue, ...]
    at_ms: int


class WindowKept(Struct, frozen=True, tag=True):
    window: Window
    at_ms: int


class WindowDropped(Struct, frozen=True, tag=True):
    window: WindowId
    at_ms: int


class HistoryKept(Struct, frozen=True, tag=True):
    """Decayed use of the queues and run times learned, as of then: what no entity tells."""

    shares: bytes
    forecast: bytes
    at_ms: int


class NodeEntry(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    node: Node
    cordoned: bool = False
    draining: bool = False
    lost: bool = False


class NodeAdmitted(Struct, frozen=True, tag=True):
    node: Node
    at_ms: int


class NodeMarked(Struct, frozen=True, tag=True):
    node: NodeId
    cordoned: bool
    draining: bool
    lost: bool
    at_ms: int


class NodeForgotten(Struct, frozen=True, tag=True):
    """Lost for so long that nobody asks."""

    node: NodeId


# -- agent --------------------------------------------------------------------------------------


class Replica(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One allocation as its node knows it."""

    id: AllocationId
    generation: int
    """Of the newest order taken."""
    order: Prepare | Run | None = None
    """None when only a Stop ever came."""
    state: AllocationState = AllocationState.PLACED
    fenced: bool = False
    address: str = ""
    port: int = 0
    pid: int = 0
    exit_code: int | None = None
    reason: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    forgotten_at_ms: int = 0
    freeze: Freeze | None = None
    turn: int = 0
    stands_for: AllocationId = AllocationId("")
    """The standby on this node for which it stands still, if for one."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()


class ReplicaOrdered(Struct, frozen=True, tag=True):
    """An order was taken in. The journal shows it without environment and secrets."""

    replica: Replica


class ReplicaMoved(Struct, frozen=True, tag=True, omit_defaults=True, kw_only=True):
    id: AllocationId
    generation: int
    state: AllocationState
    at_ms: int
    fenced: bool = False
    address: str = ""
    port: int = 0
    pid: int = 0
    exit_code: int | None = None
    reason: str = ""
    freeze: Freeze | None = None
    turn: int = 0
    stands_for: AllocationId = AllocationId("")


class ReplicaSaved(Struct, frozen=True, tag=True):
    """It has written a checkpoint; these are its newest."""

    id: AllocationId
    checkpoints: tuple[SavedCheckpoint, ...]


class ReplicaForgotten(Struct, frozen=True, tag=True):
    id: AllocationId
    generation: int
    at_ms: int


class Mark(Struct, frozen=True, gc=False):
    """What stays of something forgotten: orders up to this generation are void."""

    generation: int
    at_ms: int


#: The first two carry secrets: entities hold them (in files only the daemon's user reads), journals
#: do not. The third is derived from what the journal holds already.
UNJOURNALED = (SecretsKept, ReplicaOrdered, HistoryKept)
