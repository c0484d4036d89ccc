"""What travels between two machines: orders go down (federation to cluster to agent), reports up.

An order names its generation; a report names the generation it answers. Each may be lost, late,
doubled or overtaken; nothing here relies on more.
"""

from msgspec import Struct

from hyperion.model.allocation import AllocationState, Freeze
from hyperion.model.cluster import Cluster, ClusterLoad
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job, JobPhase, ReplicaStatus, SavedCheckpoint, TaskProgress
from hyperion.model.node import Node
from hyperion.model.resources import ResourceRequest

# -- link: federation to cluster ----------------------------------------------------------------


class PlaceJob(Struct, frozen=True, tag=True, omit_defaults=True):
    """Run this job in your cluster. Doubling it changes nothing."""

    job: Job
    generation: int
    submitted_at_ms: int
    known: bool = False
    """The cluster has answered this before: if it no longer knows the job, the job is lost."""
    tasks: TaskProgress | None = None
    """Of an array that has come so far in another cluster."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Written in other clusters, the newest last."""


class StopJob(Struct, frozen=True, tag=True, omit_defaults=True):
    """End this job; it was cancelled, timed out, or belongs elsewhere now."""

    job: JobId
    generation: int
    phase: JobPhase
    """What it becomes: CANCELLED or FAILED."""
    reason: str = ""
    comes_back: bool = False
    """It ends only its stay: it is reported as lost, so that it can go on later, here or elsewhere.
    Its tasks that are stopped are to be started again."""


class ForgetJob(Struct, frozen=True, tag=True):
    """Your final report has been kept; it need not be sent again."""

    job: JobId
    generation: int


class Lease(Struct, frozen=True, tag=True):
    """Go on running what you run for this long, counted from when you *sent* the heartbeat."""

    sequence: int
    duration_ms: int


# -- link: cluster to federation ----------------------------------------------------------------


class JobReport(Struct, frozen=True, tag=True, omit_defaults=True):
    """Where a job stands in the cluster. A higher version overrides a lower one."""

    job: JobId
    generation: int
    version: int
    phase: JobPhase
    reason: str = ""
    refused: bool = False
    """The cluster can never run it (QUEUED with this set): place it elsewhere."""
    lost: bool = False
    """The cluster does not know the job although the order says it should."""
    exit_code: int | None = None
    restarts: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    replicas: tuple[ReplicaStatus, ...] = ()
    width: int = 0
    """How many replicas an elastic job has now; 0: all of them."""
    preemptions: int = 0
    tasks: TaskProgress | None = None
    """Of an array: what would be left to do if this cluster were lost now."""
    tasks_running: int = 0
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """Those that all of its replicas have written, the newest last."""


class ClusterHello(Struct, frozen=True, tag=True, omit_defaults=True):
    """The first message of a cluster's session: what it is, and every job it holds."""

    cluster: Cluster
    load: ClusterLoad
    jobs: tuple[JobReport, ...] = ()


class ClusterHeartbeat(Struct, frozen=True, tag=True, omit_defaults=True):
    sequence: int
    load: ClusterLoad | None = None
    """None when nothing changed since the last one."""


# -- link: cluster to agent ---------------------------------------------------------------------


class Peer(Struct, frozen=True, omit_defaults=True):
    """One member of a gang, as the others see it."""

    rank: int
    node: str
    address: str
    port: int
    gpus: int = 0


class Prepare(Struct, frozen=True, tag=True, omit_defaults=True):
    """Get ready to run this replica and say under which address and port its gang finds it."""

    allocation: AllocationId
    generation: int
    job: Job
    rank: int
    attempt: int
    request: ResourceRequest
    devices: tuple[int, ...] = ()
    known: bool = False


class Run(Struct, frozen=True, tag=True, omit_defaults=True):
    """Run this replica. Complete in itself, so a Prepare that never came is no harm."""

    allocation: AllocationId
    generation: int
    job: Job
    rank: int
    attempt: int
    request: ResourceRequest
    devices: tuple[int, ...] = ()
    peers: tuple[Peer, ...] = ()
    """By rank; empty for a gang of one."""
    known: bool = False
    """The agent has answered this before: if it no longer knows the replica, it is lost."""
    resume_from: str = ""
    """The newest checkpoint of an earlier attempt; empty: there is none."""


class Stop(Struct, frozen=True, tag=True, omit_defaults=True):
    """End this replica with its whole tree of processes: SIGTERM, grace, SIGKILL."""

    allocation: AllocationId
    generation: int
    grace_ms: int = 10_000


class Pause(Struct, frozen=True, tag=True, omit_defaults=True):
    """Let all processes of this replica stand still, for at most ``hold_ms``."""

    allocation: AllocationId
    generation: int
    hold_ms: int = 30_000
    on_disk: bool = False
    """It stands still already, and is to be set aside on its node's disk: until it is told to go
    on, however long that takes."""
    at_once: bool = False
    """A standby is wanted: it is frozen wherever it is, whatever its job would rather have."""


class Resume(Struct, frozen=True, tag=True):
    """Let it go on where it was."""

    allocation: AllocationId
    generation: int


class Yielding(Struct, frozen=True):
    """Who stands still when a standby is activated, and for how long at most."""

    allocation: AllocationId
    hold_ms: int


class Guard(Struct, frozen=True, tag=True, omit_defaults=True):
    """From now on these stand still as soon as this standby is wanted: the node does not ask. Each
    of them replaces the one before; without any the standby has its CPUs to itself."""

    allocation: AllocationId
    victims: tuple[Yielding, ...] = ()


class Forget(Struct, frozen=True, tag=True):
    """The final report has been kept."""

    allocation: AllocationId
    generation: int


# -- link: agent to cluster ---------------------------------------------------------------------


class AllocationReport(Struct, frozen=True, tag=True, omit_defaults=True):
    """Where a replica stands on its node, answering the newest order the agent has seen."""

    allocation: AllocationId
    generation: int
    state: AllocationState
    address: str = ""
    port: int = 0
    exit_code: int | None = None
    reason: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    freeze: Freeze | None = None
    """While it stands still."""
    turn: int = 0
    """Counts what the node did unasked; a report with a lower one has been overtaken."""
    stands_for: AllocationId = AllocationId("")
    """The standby on its node that was activated, where that is why it stands still."""
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """The newest that this replica has written, the newest last."""


class NodeHello(Struct, frozen=True, tag=True, omit_defaults=True):
    """The first message of an agent's session: the machine, and every replica it holds."""

    node: Node
    allocations: tuple[AllocationReport, ...] = ()


class NodeHeartbeat(Struct, frozen=True, tag=True, omit_defaults=True):
    """I live. The Hello counts as number 0 of its session."""

    sequence: int
    fresh: bool = False
    """Most of my lease is still to come: no answer is wanted."""
