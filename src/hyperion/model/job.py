"""What a user asks for."""

from enum import Enum, IntEnum

from msgspec import Struct, field

from hyperion.model.constraints import Packing, ReplicaTerm, Spread
from hyperion.model.ids import JobId, QueueName, UserId, WindowId
from hyperion.model.resources import ResourceRequest


class Framework(Enum):
    """What the replicas speak; decides which rendezvous variables matter. All get all of them."""

    CUSTOM = "custom"
    PYTORCH = "pytorch"
    JAX = "jax"
    TENSORFLOW = "tensorflow"
    MPI = "mpi"


class Priority(IntEnum):
    """Urgency. A higher one is placed first, and may take the place of a lower one."""

    BATCH = 1
    LATENCY_CRITICAL = 2
    ULTRA_LOW_LATENCY = 3


class Secret(Struct, frozen=True, gc=False):
    """A value that no table, log, error or ``repr`` may show."""

    value: str

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class DataSource(Struct, frozen=True, omit_defaults=True, gc=False):
    """A dataset the job reads, and where it lies. Reading it from elsewhere costs egress."""

    uri: str
    size_gib: float = 0.0
    region: str = ""


class DatasetRead(Struct, frozen=True, omit_defaults=True, gc=False):
    """The job reads a dataset that the federation knows by name."""

    dataset: str
    fraction: float = 2.0
    """How much of it, all passes together: a tenth is 0.1, three times over is 3. Who does not say
    is taken to read it more than once."""


class DatasetWrite(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the job writes is brought to where that dataset lies, and part of it once the job has
    succeeded."""

    dataset: str
    size_gib: float = 0.0


CARBON_USD_PER_TONNE = 100.0
"""A round number between the EU allowance (about 65-75 EUR/t in 2024) and the social cost of carbon
of the US EPA (190 USD/t for 2020, report of November 2023)."""
WAITING_USD_PER_HOUR = 0.05
"""What an hour of waiting is worth where the job does not say: about half of what the smallest
machine costs. A choice of ours: it decides between places that cost nearly the same."""


class Objective(Struct, frozen=True, gc=False):
    """Weights on the terms of the price (1 is the normal weight, 0 ignores the term), and what the
    user gives for a tonne less of carbon and an hour less of waiting."""

    cost: float = 1.0
    latency: float = 1.0
    egress: float = 1.0
    carbon: float = 1.0
    interruption: float = 1.0
    """Of what is expected to be lost when a spot machine is taken back."""
    carbon_usd_per_tonne: float = CARBON_USD_PER_TONNE
    waiting_usd_per_hour: float = WAITING_USD_PER_HOUR


class Budget(Struct, frozen=True, omit_defaults=True, gc=False):
    """Hard limits; 0 is no limit."""

    max_usd: float = 0.0
    max_usd_per_hour: float = 0.0
    max_kg_co2e: float = 0.0
    """Of greenhouse gases that its power causes, in kg of CO2 equivalent."""


class Residency(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where the job, and so its data, may be. A pattern is a cloud, ``cloud/region`` or a cluster's
    name, with ``*`` for any characters: ``aws/eu-*``."""

    allow: tuple[str, ...] = ()
    """Only there; empty: anywhere."""
    deny: tuple[str, ...] = ()
    """Not there, whatever ``allow`` says."""


class Restart(Struct, frozen=True, omit_defaults=True, gc=False):
    """How often a failed job is tried again. A job that lost its node is always tried again."""

    max: int = 0
    backoff_s: float = 10.0
    """Before the first retry; doubled for each further one, at most 10 minutes."""


SIGNALS = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2")


class Checkpoint(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where the job keeps its own checkpoints, and how long it may take to write the last one."""

    dir: str = ""
    grace_s: float = 10.0
    """Between SIGTERM and SIGKILL."""
    every_s: float = 0.0
    """How often the job writes one; 0: only when told to end, if ``dir`` is set."""
    restore_s: float = 0.0
    """How long it takes to get back to where the checkpoint was."""
    signal: str = ""
    """What it hears when its grace begins: one of ``SIGNALS``; empty: TERM. After ``B:`` only its
    first process hears it, such as the shell of its script."""
    notice: str = ""
    """A URL on its own node that is told of it, too (``model/notice``); empty: none is."""


class SavedCheckpoint(Struct, frozen=True, omit_defaults=True, gc=False):
    """A checkpoint that was written: from there the job can go on."""

    step: int
    """As the job counts them."""
    path: str
    at_ms: int = 0
    size_bytes: int = 0
    """Of all its parts that are known."""
    whole: bool = False
    """One replica wrote it for all of them; otherwise each replica writes its own part."""


PLACES_TO_STAND = ("point", "step")
"""Of a program with the workload library: at its next point, or at the end of its step."""


class Pausing(Struct, frozen=True, omit_defaults=True, gc=False):
    """Whether it may be made to stand still for a more urgent job, instead of being stopped."""

    forbidden: bool = False
    hold_s: float = 30.0
    """At a stretch no longer than this; then it is stopped, and goes on from its checkpoint."""
    at: str = ""
    """Where it comes to a stand by itself: one of ``PLACES_TO_STAND``; empty: it is frozen wherever
    it is. At the end of its step it also writes its state, so that stopping it loses nothing."""
    within_s: float = 1.0
    """It is frozen all the same, wherever it is, when it has not come there by then."""
    gpu_queue_s: float = 0.0
    """It may stand still with its GPUs too: no more work than this waits on one of them when it is
    frozen. Torch programs are kept to that; for others it is their word. 0: with GPUs it is stopped
    instead."""

    criu: bool = False
    """At the end of its hold it is set aside on its node's disk by CRIU, where that can be, and
    comes back from there; only where it cannot be is it stopped."""

    @property
    def asked_ms(self) -> int:
        """How long it may take until it is known to stand, beyond what freezing takes."""
        return int(1000 * self.within_s) if self.at else 0


class Standby(Struct, frozen=True, omit_defaults=True, gc=False):
    """The job is there before it is wanted: started, its memory its own, quiet. Until then its CPUs
    are lent to jobs that can stand still, and do so the moment that it has something to do."""

    port: int = 0
    """TCP, on each of its nodes: a connection activates it. 0: only an order and load do."""
    quiet_s: float = 1.0
    """Having done next to nothing for so long, it lends its CPUs again."""


class Toleration(Struct, frozen=True, gc=False):
    """Lets the job onto nodes with this taint; an empty value tolerates any value of the key."""

    key: str
    value: str = ""


class Role(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Some replicas of a gang that differ from the others in what they need or do."""

    name: str
    replicas: int = 1
    resources: ResourceRequest = ResourceRequest()
    command: tuple[str, ...] = ()
    """Empty, with ``run`` empty too: the job's own."""
    run: str = ""


class Elastic(Struct, frozen=True, omit_defaults=True, gc=False):
    """The job runs with any number of replicas from ``min`` up to its ``replicas``."""

    min: int
    restart: bool = True
    """A change of their number starts all of them anew, from the checkpoint. Otherwise replicas
    are added and stopped one by one, the last ranks first, and the others run on."""


class Array(Struct, frozen=True, omit_defaults=True, gc=False):
    """One job, many tasks: each a single replica of its own, with its index in the environment."""

    size: int
    first: int = 0
    step: int = 1
    limit: int = 0
    """How many run at once at most; 0: as many as fit."""

    def index(self, rank: int) -> int:
        """What the task of this rank (0 to size - 1) finds as its index."""
        return self.first + rank * self.step


class Condition(Enum):
    """How the other job must have ended."""

    OK = "afterok"
    ANY = "afterany"
    NOT_OK = "afternotok"


class Dependency(Struct, frozen=True, omit_defaults=True, gc=False):
    job: JobId
    condition: Condition = Condition.OK


class Job(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A gang of replicas, identical but for their roles: all of them run, or none."""

    id: JobId
    user: UserId = UserId("")
    name: str = ""
    framework: Framework = Framework.CUSTOM
    priority: Priority = Priority.BATCH
    queue: QueueName = QueueName("")
    """Empty: the default queue."""
    nice: int = 0
    """Among the jobs of one queue and priority the least nice comes first; -1000 to 1000."""
    replicas: int = 1
    """With ``roles`` the sum of theirs, with ``elastic`` the most, with ``array`` always 1."""
    alternatives: tuple[ResourceRequest, ...] = (ResourceRequest(),)
    """Any one of these will do for all replicas; the objective picks (``any_of``)."""
    roles: tuple[Role, ...] = ()
    """Ranks are dealt to the roles in this order. ``alternatives`` is then the first role's."""
    elastic: Elastic | None = None
    array: Array | None = None
    packing: Packing | None = None
    replica_affinity: tuple[ReplicaTerm, ...] = ()
    spread: tuple[Spread, ...] = ()
    command: tuple[str, ...] = ()
    """An argument vector, run as it is. Exactly one of ``command`` and ``run`` is set."""
    run: str = ""
    """A shell script."""
    setup: str = ""
    """A shell script run once per replica before ``run``; its failure fails the replica."""
    image: str = ""
    workdir: str = ""
    """An absolute directory on the node, or ``bundle:sha256:…`` for an uploaded one."""
    envs: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    data: tuple[DataSource, ...] = ()
    reads: tuple[DatasetRead, ...] = ()
    writes: tuple[DatasetWrite, ...] = ()
    objective: Objective = Objective()
    policy: str = ""
    """The ranking policy; empty is the federation's default."""
    users_in: tuple[str, ...] = ()
    """Regions the job's users are in; latency is counted to them."""
    latency_target_s: float = 0.0
    """A round trip to them up to which nothing is counted."""
    expected_s: float = 0.0
    """How long the user expects it to run; 0 is unknown and is priced as one hour."""
    deadline_s: float = 0.0
    """Seconds from submission after which the job is stopped as failed; 0 is no deadline."""
    begin_s: float = 0.0
    """Seconds from submission before which it is not started."""
    start_now: bool = False
    """It does not wait for a cheaper hour, though its deadline leaves the time."""
    after: tuple[Dependency, ...] = ()
    """Other jobs that must have ended first."""
    reservation: WindowId = WindowId("")
    """Runs inside this window, on its nodes."""
    min_runtime_s: float = 0.0
    """Not preempted before it has run so long."""
    budget: Budget = Budget()
    regions: Residency = Residency()
    restart: Restart = Restart()
    checkpoint: Checkpoint = Checkpoint()
    migrate: bool = False
    """While it runs it may be moved to where the rest of its work costs less."""
    pausing: Pausing = Pausing()
    standby: Standby | None = None
    tolerations: tuple[Toleration, ...] = ()
    metadata: dict[str, str] = {}

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of those that it reads, then of those that it writes."""
        return *(read.dataset for read in self.reads), *(write.dataset for write in self.writes)

    @property
    def yields_gpus(self) -> bool:
        """Whether its GPUs compute nothing of it any more soon after it stands still."""
        return self.pausing.gpu_queue_s > 0

    @property
    def can_stand_still(self) -> bool:
        """Tasks of an array are stopped instead, and so are standbys, which must answer at once."""
        return not self.pausing.forbidden and self.array is None and self.standby is None

    @property
    def least_replicas(self) -> int:
        """How many must find a place together, or none starts."""
        return self.elastic.min if self.elastic is not None else self.replicas

    def role_of(self, rank: int) -> Role | None:
        """None for a job without roles."""
        for role in self.roles:
            if rank < role.replicas:
                return role
            rank -= role.replicas
        return None

    def work(self, rank: int) -> tuple[str, tuple[str, ...]]:
        """(script, argument vector) of the replica of this rank, one of them empty."""
        role = self.role_of(rank) if self.roles else None
        if role is not None and (role.run or role.command):
            return role.run, role.command
        return self.run, self.command

    def request(self, rank: int, alternative: int) -> ResourceRequest:
        """What the replica of this rank needs."""
        role = self.role_of(rank) if self.roles else None
        return self.alternatives[alternative] if role is None else role.resources


class JobPhase(Enum):
    """Where a job stands, in one word; the same words at the federation and in a cluster."""

    QUEUED = "queued"
    """Waits for a place: at the federation for a cluster, in a cluster for nodes."""
    ASSIGNED = "assigned"
    """A cluster has been chosen; the job waits there."""
    STARTING = "starting"
    """Its replicas have nodes and are being started."""
    RUNNING = "running"
    """All its replicas have been started."""
    STOPPING = "stopping"
    """It is to end or to be started anew, and its replicas are being stopped."""
    SUCCEEDED = "succeeded"
    """Every replica ended with exit code 0."""
    FAILED = "failed"
    """It failed by itself, or ran out of retries, time or budget."""
    CANCELLED = "cancelled"
    """Somebody asked for its end; in a cluster also: it was ordered away."""

    __hash__ = (
        object.__hash__
    )  # there is one of each; the hash of their name takes ten times as long

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_P = JobPhase
_ENDS = frozenset({_P.SUCCEEDED, _P.FAILED, _P.CANCELLED})

#: The life of a job. What is not written here cannot happen; the diagram in docs is drawn from it.
TRANSITIONS: dict[JobPhase, frozenset[JobPhase]] = {
    _P.QUEUED: _ENDS | {_P.ASSIGNED, _P.STARTING},
    _P.ASSIGNED: _ENDS | {_P.QUEUED, _P.STARTING, _P.RUNNING, _P.STOPPING},
    _P.STARTING: _ENDS | {_P.QUEUED, _P.ASSIGNED, _P.RUNNING, _P.STOPPING},
    _P.RUNNING: _ENDS | {_P.QUEUED, _P.ASSIGNED, _P.STARTING, _P.STOPPING},
    _P.STOPPING: _ENDS | {_P.QUEUED, _P.ASSIGNED, _P.STARTING, _P.RUNNING},
    _P.SUCCEEDED: frozenset(),
    _P.FAILED: frozenset(),
    _P.CANCELLED: frozenset(),
}


class TaskRetry(Struct, frozen=True, omit_defaults=True, gc=False):
    """A task of an array that is to be started again."""

    rank: int
    failures: int = 0
    not_before_ms: int = 0
    losses: int = 0
    """How often its node was lost."""


class TaskFailure(Struct, frozen=True, omit_defaults=True, gc=False):
    rank: int
    exit_code: int | None = None
    reason: str = ""


class TaskProgress(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """How far an array has come. Tasks are started in the order of their ranks."""

    next: int = 0
    """Tasks of this rank and above have not been started yet."""
    succeeded: int = 0
    failed: int = 0
    again: tuple[TaskRetry, ...] = ()
    """Started once, ended without an end of their own or failed with retries left."""
    retried: tuple[TaskRetry, ...] = ()
    """Those started again after failures, and still running."""
    starts: int = 0
    """Counts the times a task was put back, so that no two runs of a task share a name."""
    failures: tuple[TaskFailure, ...] = ()
    """The first few, for people to look at."""
    dropped: int = 0
    """Stopped when the whole array was, not to be started again."""

    def waiting(self, size: int) -> int:
        return size - self.next + len(self.again)

    def running(self) -> int:
        return self.next - self.succeeded - self.failed - len(self.again) - self.dropped


class ReplicaStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known of one replica of a job, for ``show`` and ``logs``."""

    rank: int
    allocation: str
    node: str
    state: str
    exit_code: int | None = None
    reason: str = ""
    devices: tuple[int, ...] = field(default=())
