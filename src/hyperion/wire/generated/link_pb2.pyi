from hyperion.wire.generated import job_pb2 as _job_pb2
from hyperion.wire.generated import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AllocationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALLOCATION_STATE_UNSPECIFIED: _ClassVar[AllocationState]
    ALLOCATION_STATE_PLACED: _ClassVar[AllocationState]
    ALLOCATION_STATE_READY: _ClassVar[AllocationState]
    ALLOCATION_STATE_RUNNING: _ClassVar[AllocationState]
    ALLOCATION_STATE_STOPPING: _ClassVar[AllocationState]
    ALLOCATION_STATE_SUCCEEDED: _ClassVar[AllocationState]
    ALLOCATION_STATE_FAILED: _ClassVar[AllocationState]
    ALLOCATION_STATE_STOPPED: _ClassVar[AllocationState]
    ALLOCATION_STATE_LOST: _ClassVar[AllocationState]
    ALLOCATION_STATE_PAUSING: _ClassVar[AllocationState]
    ALLOCATION_STATE_PAUSED: _ClassVar[AllocationState]
    ALLOCATION_STATE_RESUMING: _ClassVar[AllocationState]
    ALLOCATION_STATE_WARM: _ClassVar[AllocationState]
ALLOCATION_STATE_UNSPECIFIED: AllocationState
ALLOCATION_STATE_PLACED: AllocationState
ALLOCATION_STATE_READY: AllocationState
ALLOCATION_STATE_RUNNING: AllocationState
ALLOCATION_STATE_STOPPING: AllocationState
ALLOCATION_STATE_SUCCEEDED: AllocationState
ALLOCATION_STATE_FAILED: AllocationState
ALLOCATION_STATE_STOPPED: AllocationState
ALLOCATION_STATE_LOST: AllocationState
ALLOCATION_STATE_PAUSING: AllocationState
ALLOCATION_STATE_PAUSED: AllocationState
ALLOCATION_STATE_RESUMING: AllocationState
ALLOCATION_STATE_WARM: AllocationState

class PlaceJob(_message.Message):
    __slots__ = ("job", "generation", "submitted_at_ms", "known", "tasks", "checkpoints")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.AIJob
    generation: int
    submitted_at_ms: int
    known: bool
    tasks: _job_pb2.TaskProgress
    checkpoints: _containers.RepeatedCompositeFieldContainer[_job_pb2.SavedCheckpoint]
    def __init__(self, job: _Optional[_Union[_job_pb2.AIJob, _Mapping]] = ..., generation: _Optional[int] = ..., submitted_at_ms: _Optional[int] = ..., known: _Optional[bool] = ..., tasks: _Optional[_Union[_job_pb2.TaskProgress, _Mapping]] = ..., checkpoints: _Optional[_Iterable[_Union[_job_pb2.SavedCheckpoint, _Mapping]]] = ...) -> None: ...

class StopJob(_message.Message):
    __slots__ = ("job", "generation", "phase", "reason", "comes_back")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMES_BACK_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    phase: _job_pb2.JobPhase
    reason: str
    comes_back: bool
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., phase: _Optional[_Union[_job_pb2.JobPhase, str]] = ..., reason: _Optional[str] = ..., comes_back: _Optional[bool] = ...) -> None: ...

class ForgetJob(_message.Message):
    __slots__ = ("job", "generation")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("sequence", "duration_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    duration_ms: int
    def __init__(self, sequence: _Optional[int] = ..., duration_ms: _Optional[int] = ...) -> None: ...

class JobReport(_message.Message):
    __slots__ = ("job", "generation", "version", "phase", "reason", "refused", "lost", "exit_code", "restarts", "started_at_ms", "ended_at_ms", "replicas", "width", "preemptions", "tasks", "tasks_running", "checkpoints")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TASKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    version: int
    phase: _job_pb2.JobPhase
    reason: str
    refused: bool
    lost: bool
    exit_code: int
    restarts: int
    started_at_ms: int
    ended_at_ms: int
    replicas: _containers.RepeatedCompositeFieldContainer[_job_pb2.ReplicaStatus]
    width: int
    preemptions: int
    tasks: _job_pb2.TaskProgress
    tasks_running: int
    checkpoints: _containers.RepeatedCompositeFieldContainer[_job_pb2.SavedCheckpoint]
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., version: _Optional[int] = ..., phase: _Optional[_Union[_job_pb2.JobPhase, str]] = ..., reason: _Optional[str] = ..., refused: _Optional[bool] = ..., lost: _Optional[bool] = ..., exit_code: _Optional[int] = ..., restarts: _Optional[int] = ..., started_at_ms: _Optional[int] = ..., ended_at_ms: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[_job_pb2.ReplicaStatus, _Mapping]]] = ..., width: _Optional[int] = ..., preemptions: _Optional[int] = ..., tasks: _Optional[_Union[_job_pb2.TaskProgress, _Mapping]] = ..., tasks_running: _Optional[int] = ..., checkpoints: _Optional[_Iterable[_Union[_job_pb2.SavedCheckpoint, _Mapping]]] = ...) -> None: ...

class ClusterHello(_message.Message):
    __slots__ = ("cluster", "load", "jobs")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    cluster: _node_pb2.Cluster
    load: _node_pb2.ClusterLoad
    jobs: _containers.RepeatedCompositeFieldContainer[JobReport]
    def __init__(self, cluster: _Optional[_Union[_node_pb2.Cluster, _Mapping]] = ..., load: _Optional[_Union[_node_pb2.ClusterLoad, _Mapping]] = ..., jobs: _Optional[_Iterable[_Union[JobReport, _Mapping]]] = ...) -> None: ...

class ClusterHeartbeat(_message.Message):
    __slots__ = ("sequence", "load")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    load: _node_pb2.ClusterLoad
    def __init__(self, sequence: _Optional[int] = ..., load: _Optional[_Union[_node_pb2.ClusterLoad, _Mapping]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("rank", "node", "address", "port", "gpus")
    RANK_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    node: str
    address: str
    port: int
    gpus: int
    def __init__(self, rank: _Optional[int] = ..., node: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., gpus: _Optional[int] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("allocation", "generation", "job", "rank", "attempt", "request", "devices", "known")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    job: _job_pb2.AIJob
    rank: int
    attempt: int
    request: _job_pb2.AIJob.ResourceRequest
    devices: _containers.RepeatedScalarFieldContainer[int]
    known: bool
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ..., job: _Optional[_Union[_job_pb2.AIJob, _Mapping]] = ..., rank: _Optional[int] = ..., attempt: _Optional[int] = ..., request: _Optional[_Union[_job_pb2.AIJob.ResourceRequest, _Mapping]] = ..., devices: _Optional[_Iterable[int]] = ..., known: _Optional[bool] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("allocation", "generation", "job", "rank", "attempt", "request", "devices", "peers", "known", "resume_from")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    job: _job_pb2.AIJob
    rank: int
    attempt: int
    request: _job_pb2.AIJob.ResourceRequest
    devices: _containers.RepeatedScalarFieldContainer[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    known: bool
    resume_from: str
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ..., job: _Optional[_Union[_job_pb2.AIJob, _Mapping]] = ..., rank: _Optional[int] = ..., attempt: _Optional[int] = ..., request: _Optional[_Union[_job_pb2.AIJob.ResourceRequest, _Mapping]] = ..., devices: _Optional[_Iterable[int]] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., known: _Optional[bool] = ..., resume_from: _Optional[str] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("allocation", "generation", "grace_ms")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    grace_ms: int
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("allocation", "generation", "hold_ms", "at_once", "on_disk")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    hold_ms: int
    at_once: bool
    on_disk: bool
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ..., hold_ms: _Optional[int] = ..., at_once: _Optional[bool] = ..., on_disk: _Optional[bool] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("allocation", "generation")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Yielding(_message.Message):
    __slots__ = ("allocation", "hold_ms")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    hold_ms: int
    def __init__(self, allocation: _Optional[str] = ..., hold_ms: _Optional[int] = ...) -> None: ...

class Guard(_message.Message):
    __slots__ = ("allocation", "victims")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    VICTIMS_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    victims: _containers.RepeatedCompositeFieldContainer[Yielding]
    def __init__(self, allocation: _Optional[str] = ..., victims: _Optional[_Iterable[_Union[Yielding, _Mapping]]] = ...) -> None: ...

class Forget(_message.Message):
    __slots__ = ("allocation", "generation")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Freeze(_message.Message):
    __slots__ = ("stopped_us", "confirmed_us", "threads", "how", "stragglers", "at", "step", "saved_us", "freed_bytes")
    STOPPED_US_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_US_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    STRAGGLERS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SAVED_US_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stopped_us: int
    confirmed_us: int
    threads: int
    how: str
    stragglers: _containers.RepeatedScalarFieldContainer[str]
    at: str
    step: int
    saved_us: int
    freed_bytes: int
    def __init__(self, stopped_us: _Optional[int] = ..., confirmed_us: _Optional[int] = ..., threads: _Optional[int] = ..., how: _Optional[str] = ..., stragglers: _Optional[_Iterable[str]] = ..., at: _Optional[str] = ..., step: _Optional[int] = ..., saved_us: _Optional[int] = ..., freed_bytes: _Optional[int] = ...) -> None: ...

class AllocationReport(_message.Message):
    __slots__ = ("allocation", "generation", "state", "address", "port", "exit_code", "reason", "started_at_ms", "ended_at_ms", "freeze", "stands_for", "turn", "checkpoints")
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FREEZE_FIELD_NUMBER: _ClassVar[int]
    STANDS_FOR_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    allocation: str
    generation: int
    state: AllocationState
    address: str
    port: int
    exit_code: int
    reason: str
    started_at_ms: int
    ended_at_ms: int
    freeze: Freeze
    stands_for: str
    turn: int
    checkpoints: _containers.RepeatedCompositeFieldContainer[_job_pb2.SavedCheckpoint]
    def __init__(self, allocation: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[AllocationState, str]] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., exit_code: _Optional[int] = ..., reason: _Optional[str] = ..., started_at_ms: _Optional[int] = ..., ended_at_ms: _Optional[int] = ..., freeze: _Optional[_Union[Freeze, _Mapping]] = ..., stands_for: _Optional[str] = ..., turn: _Optional[int] = ..., checkpoints: _Optional[_Iterable[_Union[_job_pb2.SavedCheckpoint, _Mapping]]] = ...) -> None: ...

class NodeHello(_message.Message):
    __slots__ = ("node", "allocations")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ALLOCATIONS_FIELD_NUMBER: _ClassVar[int]
    node: _node_pb2.Node
    allocations: _containers.RepeatedCompositeFieldContainer[AllocationReport]
    def __init__(self, node: _Optional[_Union[_node_pb2.Node, _Mapping]] = ..., allocations: _Optional[_Iterable[_Union[AllocationReport, _Mapping]]] = ...) -> None: ...

class NodeHeartbeat(_message.Message):
    __slots__ = ("sequence", "fresh")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    fresh: bool
    def __init__(self, sequence: _Optional[int] = ..., fresh: _Optional[bool] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "method", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: int
    method: str
    body: bytes
    def __init__(self, id: _Optional[int] = ..., method: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("id", "body", "end", "error", "code")
    ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    id: int
    body: bytes
    end: bool
    error: str
    code: str
    def __init__(self, id: _Optional[int] = ..., body: _Optional[bytes] = ..., end: _Optional[bool] = ..., error: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class CallCancel(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class FederationMessage(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("place_job", "stop_job", "forget_job", "lease", "call", "chunk", "call_cancel")
        PLACE_JOB_FIELD_NUMBER: _ClassVar[int]
        STOP_JOB_FIELD_NUMBER: _ClassVar[int]
        FORGET_JOB_FIELD_NUMBER: _ClassVar[int]
        LEASE_FIELD_NUMBER: _ClassVar[int]
        CALL_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        CALL_CANCEL_FIELD_NUMBER: _ClassVar[int]
        place_job: PlaceJob
        stop_job: StopJob
        forget_job: ForgetJob
        lease: Lease
        call: Call
        chunk: Chunk
        call_cancel: CallCancel
        def __init__(self, place_job: _Optional[_Union[PlaceJob, _Mapping]] = ..., stop_job: _Optional[_Union[StopJob, _Mapping]] = ..., forget_job: _Optional[_Union[ForgetJob, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., call_cancel: _Optional[_Union[CallCancel, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FederationMessage.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[FederationMessage.Item, _Mapping]]] = ...) -> None: ...

class ClusterMessage(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("job_report", "cluster_hello", "cluster_heartbeat", "call", "chunk", "call_cancel")
        JOB_REPORT_FIELD_NUMBER: _ClassVar[int]
        CLUSTER_HELLO_FIELD_NUMBER: _ClassVar[int]
        CLUSTER_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
        CALL_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        CALL_CANCEL_FIELD_NUMBER: _ClassVar[int]
        job_report: JobReport
        cluster_hello: ClusterHello
        cluster_heartbeat: ClusterHeartbeat
        call: Call
        chunk: Chunk
        call_cancel: CallCancel
        def __init__(self, job_report: _Optional[_Union[JobReport, _Mapping]] = ..., cluster_hello: _Optional[_Union[ClusterHello, _Mapping]] = ..., cluster_heartbeat: _Optional[_Union[ClusterHeartbeat, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., call_cancel: _Optional[_Union[CallCancel, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ClusterMessage.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[ClusterMessage.Item, _Mapping]]] = ...) -> None: ...

class SchedulerMessage(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("prepare", "run", "stop", "lease", "call", "chunk", "call_cancel", "forget", "pause", "resume", "guard")
        PREPARE_FIELD_NUMBER: _ClassVar[int]
        RUN_FIELD_NUMBER: _ClassVar[int]
        STOP_FIELD_NUMBER: _ClassVar[int]
        LEASE_FIELD_NUMBER: _ClassVar[int]
        CALL_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        CALL_CANCEL_FIELD_NUMBER: _ClassVar[int]
        FORGET_FIELD_NUMBER: _ClassVar[int]
        PAUSE_FIELD_NUMBER: _ClassVar[int]
        RESUME_FIELD_NUMBER: _ClassVar[int]
        GUARD_FIELD_NUMBER: _ClassVar[int]
        prepare: Prepare
        run: Run
        stop: Stop
        lease: Lease
        call: Call
        chunk: Chunk
        call_cancel: CallCancel
        forget: Forget
        pause: Pause
        resume: Resume
        guard: Guard
        def __init__(self, prepare: _Optional[_Union[Prepare, _Mapping]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., call_cancel: _Optional[_Union[CallCancel, _Mapping]] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., guard: _Optional[_Union[Guard, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SchedulerMessage.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[SchedulerMessage.Item, _Mapping]]] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("allocation_report", "node_hello", "node_heartbeat", "metrics", "call", "chunk", "call_cancel")
        ALLOCATION_REPORT_FIELD_NUMBER: _ClassVar[int]
        NODE_HELLO_FIELD_NUMBER: _ClassVar[int]
        NODE_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
        METRICS_FIELD_NUMBER: _ClassVar[int]
        CALL_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        CALL_CANCEL_FIELD_NUMBER: _ClassVar[int]
        allocation_report: AllocationReport
        node_hello: NodeHello
        node_heartbeat: NodeHeartbeat
        metrics: _node_pb2.NodeMetrics
        call: Call
        chunk: Chunk
        call_cancel: CallCancel
        def __init__(self, allocation_report: _Optional[_Union[AllocationReport, _Mapping]] = ..., node_hello: _Optional[_Union[NodeHello, _Mapping]] = ..., node_heartbeat: _Optional[_Union[NodeHeartbeat, _Mapping]] = ..., metrics: _Optional[_Union[_node_pb2.NodeMetrics, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., call_cancel: _Optional[_Union[CallCancel, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[AgentMessage.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[AgentMessage.Item, _Mapping]]] = ...) -> None: ...
