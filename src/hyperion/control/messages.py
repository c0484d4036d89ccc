"""Every message that a state machine knows. Events and records are past tense, commands imperative.

Those that travel between two machines are in ``control/link``, and can be had from here as well.
"""

from msgspec import Struct

from hyperion.control.bill_records import Budget
from hyperion.control.link import (
    AllocationReport,
    ClusterHeartbeat,
    ClusterHello,
    Forget,
    ForgetJob,
    Guard,
    JobReport,
    Lease,
    NodeHeartbeat,
    NodeHello,
    Pause,
    Peer,
    PlaceJob,
    Prepare,
    Resume,
    Run,
    Stop,
    StopJob,
    Yielding,
)
from hyperion.model.allocation import Freeze
from hyperion.model.dataset import Dataset
from hyperion.model.ids import AllocationId, ClusterId, JobId, NodeId, WindowId
from hyperion.model.job import Job, SavedCheckpoint
from hyperion.model.market import MarketView
from hyperion.model.queue import Queue
from hyperion.model.window import Window

__all__ = [
    "AllocationReport",
    "ClusterHeartbeat",
    "ClusterHello",
    "Forget",
    "ForgetJob",
    "Guard",
    "JobReport",
    "Lease",
    "NodeHeartbeat",
    "NodeHello",
    "Pause",
    "Peer",
    "PlaceJob",
    "Prepare",
    "Resume",
    "Run",
    "Stop",
    "StopJob",
    "Yielding",
]
"""What is handed on from ``control/link``."""

# -- events -------------------------------------------------------------------------------------


class JobSubmitted(Struct, frozen=True, tag=True):
    """A checked job came in at the API. ``token`` names the caller that waits for the answer."""

    job: Job
    token: int = 0


class JobCancelRequested(Struct, frozen=True, tag=True):
    job: JobId
    by: str = ""
    token: int = 0


class BudgetApplied(Struct, frozen=True, tag=True):
    """A user or queue may spend this; a budget of the same tenant is replaced."""

    budget: Budget
    token: int = 0


class BudgetDropAsked(Struct, frozen=True, tag=True):
    tenant: str
    token: int = 0


class DatasetApplied(Struct, frozen=True, tag=True):
    """A dataset of that size lies in these regions; of one that is known, in these too."""

    dataset: Dataset
    token: int = 0


class DatasetDropAsked(Struct, frozen=True, tag=True):
    name: str
    region: str = ""
    """Only the copy there; empty: all of it."""
    token: int = 0


class CopyReported(Struct, frozen=True, tag=True):
    """The hook has done what a HaulCopy asked for, or has failed for good."""

    dataset: str
    region: str
    wanted: str
    error: str = ""


class ClusterAttached(Struct, frozen=True, tag=True):
    hello: ClusterHello


class ClusterReported(Struct, frozen=True, tag=True):
    cluster: ClusterId
    report: JobReport


class ClusterHeard(Struct, frozen=True, tag=True):
    cluster: ClusterId
    heartbeat: ClusterHeartbeat


class ClusterDetached(Struct, frozen=True, tag=True):
    """Its stream ended. It may be back at once, and it may be running all the while."""

    cluster: ClusterId


class MarketQuoted(Struct, frozen=True, tag=True):
    view: MarketView


class FederationAttached(Struct, frozen=True, tag=True):
    """The cluster's stream to its federation is open."""


class NodeAttached(Struct, frozen=True, tag=True):
    hello: NodeHello


class NodeReported(Struct, frozen=True, tag=True):
    node: NodeId
    report: AllocationReport


class NodeHeard(Struct, frozen=True, tag=True):
    node: NodeId
    heartbeat: NodeHeartbeat


class NodesHeard(Struct, frozen=True, tag=True):
    """The newest heartbeat of each node that has sent any since the last of these."""

    heartbeats: tuple[NodeHeard, ...]


class NodeDetached(Struct, frozen=True, tag=True):
    node: NodeId


class CordonRequested(Struct, frozen=True, tag=True):
    """No new replicas on the node (``cordon``), and, with ``drain``, move away those there."""

    node: NodeId
    cordon: bool
    drain: bool = False
    token: int = 0


class QueuesApplied(Struct, frozen=True, tag=True):
    """The tree of queues is to be this one. Queues in which jobs wait or run must stay."""

    queues: tuple[Queue, ...]
    token: int = 0


class WindowApplied(Struct, frozen=True, tag=True):
    """Keep these nodes free in this span of time; a window of the same id is replaced."""

    window: Window
    token: int = 0


class WindowCancelled(Struct, frozen=True, tag=True):
    window: WindowId
    token: int = 0


class SchedulerAttached(Struct, frozen=True, tag=True):
    """The agent's stream to its scheduler is open."""


class SchedulerDetached(Struct, frozen=True, tag=True):
    """The agent's stream to its scheduler has ended."""


class ReplicaPrepared(Struct, frozen=True, tag=True):
    allocation: AllocationId
    address: str
    port: int


class ReplicaStarted(Struct, frozen=True, tag=True):
    """It runs, whether launched now or found running after a restart of the agent."""

    allocation: AllocationId
    pid: int
    started_at_ms: int


class ReplicaExited(Struct, frozen=True, tag=True):
    """It is gone, with all its processes. No exit code: it was killed, or nobody saw it end."""

    allocation: AllocationId
    exit_code: int | None = None
    reason: str = ""
    never_ran: bool = False
    """It could not be launched at all, or had not been when it was stopped."""
    by_itself: bool = False
    """It had ended before anybody told it to: its exit code is its own."""


class ReplicaPaused(Struct, frozen=True, tag=True):
    """None of its processes runs, and none will before it is resumed or its hold ends."""

    allocation: AllocationId
    freeze: Freeze | None = None


class ReplicaSettled(Struct, frozen=True, tag=True):
    """It stands where it came to by itself, and has done what was left to do: ``freeze`` says how
    much memory it has given back, and whether its step is written."""

    allocation: AllocationId
    freeze: Freeze


class ReplicaResumed(Struct, frozen=True, tag=True):
    """It runs: it was told to, its hold has ended, or it could not be made to stand still."""

    allocation: AllocationId
    reason: str = ""
    """Why it runs though nobody told it to."""


class ReplicaWarm(Struct, frozen=True, tag=True):
    """A standby has become quiet: it waits to be wanted."""

    allocation: AllocationId


class ReplicaActivated(Struct, frozen=True, tag=True):
    """A standby is wanted, and those on its guard stand still."""

    allocation: AllocationId
    frozen: tuple[AllocationId, ...] = ()
    freeze: Freeze | None = None
    """How long it took for all of them."""


class CheckpointWritten(Struct, frozen=True, tag=True):
    """A replica has written a checkpoint, all of it."""

    allocation: AllocationId
    checkpoint: SavedCheckpoint


class LeaseRecovered(Struct, frozen=True, tag=True):
    """After a restart: the lease that was last kept has this long to go (negative: has ended)."""

    remaining_ms: int


class Tick(Struct, frozen=True, tag=True):
    """Time has passed."""


FederationEvent = (
    JobSubmitted
    | JobCancelRequested
    | ClusterAttached
    | ClusterReported
    | ClusterHeard
    | ClusterDetached
    | MarketQuoted
    | BudgetApplied
    | BudgetDropAsked
    | DatasetApplied
    | DatasetDropAsked
    | CopyReported
    | Tick
)
ClusterEvent = (
    JobSubmitted
    | JobCancelRequested
    | FederationAttached
    | PlaceJob
    | StopJob
    | ForgetJob
    | Lease
    | LeaseRecovered
    | NodeAttached
    | NodeReported
    | NodeHeard
    | NodesHeard
    | NodeDetached
    | CordonRequested
    | QueuesApplied
    | WindowApplied
    | WindowCancelled
    | Tick
)
AgentEvent = (
    SchedulerAttached
    | SchedulerDetached
    | Prepare
    | Run
    | Stop
    | Pause
    | Resume
    | Guard
    | Forget
    | Lease
    | LeaseRecovered
    | ReplicaPrepared
    | ReplicaStarted
    | ReplicaWarm
    | ReplicaActivated
    | ReplicaPaused
    | ReplicaSettled
    | ReplicaResumed
    | CheckpointWritten
    | ReplicaExited
    | Tick
)

# -- commands -----------------------------------------------------------------------------------

ClusterOrder = PlaceJob | StopJob | ForgetJob | Lease
NodeOrder = Prepare | Run | Stop | Pause | Resume | Guard | Forget | Lease
ClusterUpward = ClusterHello | ClusterHeartbeat | JobReport
AgentUpward = NodeHello | NodeHeartbeat | AllocationReport


class SendToCluster(Struct, frozen=True, tag=True):
    cluster: ClusterId
    message: ClusterOrder


class SendToNode(Struct, frozen=True, tag=True):
    node: NodeId
    message: NodeOrder


class SendToFederation(Struct, frozen=True, tag=True):
    message: ClusterUpward


class SendToScheduler(Struct, frozen=True, tag=True):
    message: AgentUpward


class DisconnectNode(Struct, frozen=True, tag=True):
    """Close the agent's session: what it still has to say was said to a world that is gone."""

    node: NodeId


class DisconnectCluster(Struct, frozen=True, tag=True):
    cluster: ClusterId


class Answer(Struct, frozen=True, tag=True, omit_defaults=True):
    """Tell the caller behind ``token`` that its wish has been kept, or why it was refused."""

    token: int
    job: JobId = JobId("")
    error: str = ""
    """Empty: it was kept."""
    code: str = ""
    """``not_found``, ``conflict`` or ``exhausted`` with an error."""


class HaulCopy(Struct, frozen=True, tag=True):
    """Have the site's hook bring a copy of a dataset, or drop one; it may have been asked before.
    A ``CopyReported`` answers."""

    dataset: str
    wanted: str
    """``copy`` or ``drop``."""
    source: str
    region: str
    gib: float


class PrepareReplica(Struct, frozen=True, tag=True):
    order: Prepare


class LaunchReplica(Struct, frozen=True, tag=True):
    """See to it that this replica runs: launch it unless it runs or has run. Answered by event."""

    order: Run


class KillReplica(Struct, frozen=True, tag=True):
    """See to it that no process of it is left, and that none can start. Answered by event."""

    allocation: AllocationId
    grace_ms: int


class PauseReplica(Struct, frozen=True, tag=True):
    """See to it that none of its processes runs, for at most ``hold_ms``; it keeps its memory.
    Answered by ReplicaPaused, or by ReplicaResumed where that cannot be."""

    allocation: AllocationId
    hold_ms: int
    at: str = ""
    """Let it come there by itself first (``Pausing.at``), for at most ``asked_ms``."""
    asked_ms: int = 0
    on_disk: bool = False
    """Set it aside by CRIU; there is no end of its hold then."""


class ResumeReplica(Struct, frozen=True, tag=True):
    """See to it that it goes on. Answered by ReplicaResumed."""

    allocation: AllocationId


class InspectReplica(Struct, frozen=True, tag=True):
    """Say whether it stands still: ReplicaPaused or ReplicaResumed."""

    allocation: AllocationId


class GuardReplica(Struct, frozen=True, tag=True):
    """See to it that these stand still as soon as the standby is wanted. Answered by
    ReplicaActivated each time that it is, and by ReplicaWarm each time that it is quiet."""

    order: Guard


class DropReplica(Struct, frozen=True, tag=True):
    """Nobody will ask for this replica again; its logs stay until their own time is up."""

    allocation: AllocationId


class KeepLease(Struct, frozen=True, tag=True):
    """Write down, outside the machine, when the lease ends, for the dead-man and for restarts."""

    remaining_ms: int


FederationCommand = SendToCluster | DisconnectCluster | HaulCopy | Answer
ClusterCommand = SendToFederation | SendToNode | DisconnectNode | Answer | KeepLease
AgentCommand = (
    SendToScheduler
    | PrepareReplica
    | LaunchReplica
    | PauseReplica
    | ResumeReplica
    | InspectReplica
    | GuardReplica
    | KillReplica
    | DropReplica
    | KeepLease
)
