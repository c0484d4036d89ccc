from hyperion.wire.generated import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobView(_message.Message):
    __slots__ = ("id", "name", "user", "phase", "reason", "priority", "framework", "replicas", "resources", "cluster", "region", "nodes", "exit_code", "restarts", "generation", "submitted_at_ms", "started_at_ms", "ended_at_ms", "usd_per_hour", "usd", "gco2e", "ranks", "queue", "nice", "width", "roles", "preemptions", "awaits", "tasks", "checkpoints", "held")
    class RolesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    USD_FIELD_NUMBER: _ClassVar[int]
    GCO2E_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NICE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    AWAITS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    user: str
    phase: str
    reason: str
    priority: str
    framework: str
    replicas: int
    resources: str
    cluster: str
    region: str
    nodes: _containers.RepeatedScalarFieldContainer[str]
    exit_code: int
    restarts: int
    generation: int
    submitted_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    usd_per_hour: float
    usd: float
    gco2e: float
    ranks: _containers.RepeatedCompositeFieldContainer[_job_pb2.ReplicaStatus]
    queue: str
    nice: int
    width: int
    roles: _containers.ScalarMap[str, int]
    preemptions: int
    awaits: _containers.RepeatedScalarFieldContainer[str]
    tasks: TasksView
    checkpoints: _containers.RepeatedCompositeFieldContainer[_job_pb2.SavedCheckpoint]
    held: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., user: _Optional[str] = ..., phase: _Optional[str] = ..., reason: _Optional[str] = ..., priority: _Optional[str] = ..., framework: _Optional[str] = ..., replicas: _Optional[int] = ..., resources: _Optional[str] = ..., cluster: _Optional[str] = ..., region: _Optional[str] = ..., nodes: _Optional[_Iterable[str]] = ..., exit_code: _Optional[int] = ..., restarts: _Optional[int] = ..., generation: _Optional[int] = ..., submitted_at_ms: _Optional[int] = ..., started_at_ms: _Optional[int] = ..., ended_at_ms: _Optional[int] = ..., usd_per_hour: _Optional[float] = ..., usd: _Optional[float] = ..., gco2e: _Optional[float] = ..., ranks: _Optional[_Iterable[_Union[_job_pb2.ReplicaStatus, _Mapping]]] = ..., queue: _Optional[str] = ..., nice: _Optional[int] = ..., width: _Optional[int] = ..., roles: _Optional[_Mapping[str, int]] = ..., preemptions: _Optional[int] = ..., awaits: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Union[TasksView, _Mapping]] = ..., checkpoints: _Optional[_Iterable[_Union[_job_pb2.SavedCheckpoint, _Mapping]]] = ..., held: _Optional[str] = ...) -> None: ...

class TasksView(_message.Message):
    __slots__ = ("size", "limit", "waiting", "running", "succeeded", "failed", "failures")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    size: int
    limit: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    failures: _containers.RepeatedCompositeFieldContainer[_job_pb2.TaskFailure]
    def __init__(self, size: _Optional[int] = ..., limit: _Optional[int] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[_job_pb2.TaskFailure, _Mapping]]] = ...) -> None: ...

class NodeReason(_message.Message):
    __slots__ = ("reason", "nodes", "text")
    REASON_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    nodes: int
    text: str
    def __init__(self, reason: _Optional[str] = ..., nodes: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class QuotaView(_message.Message):
    __slots__ = ("queue", "resource", "used", "limit", "asked")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    queue: str
    resource: str
    used: int
    limit: int
    asked: int
    def __init__(self, queue: _Optional[str] = ..., resource: _Optional[str] = ..., used: _Optional[int] = ..., limit: _Optional[int] = ..., asked: _Optional[int] = ...) -> None: ...

class OutlookView(_message.Message):
    __slots__ = ("cluster", "queue", "position", "position_in_queue", "nodes", "nodes_with_room", "reasons", "never", "quota", "awaits", "not_before_ms", "starts_at_ms", "confidence", "because", "replicas", "replicas_now", "preempts", "pauses")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    POSITION_IN_QUEUE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_WITH_ROOM_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    AWAITS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_NOW_FIELD_NUMBER: _ClassVar[int]
    PREEMPTS_FIELD_NUMBER: _ClassVar[int]
    PAUSES_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    queue: str
    position: int
    position_in_queue: int
    nodes: int
    nodes_with_room: int
    reasons: _containers.RepeatedCompositeFieldContainer[NodeReason]
    never: bool
    quota: QuotaView
    awaits: _containers.RepeatedScalarFieldContainer[str]
    not_before_ms: int
    starts_at_ms: int
    confidence: float
    because: _containers.RepeatedScalarFieldContainer[str]
    replicas: int
    replicas_now: int
    preempts: _containers.RepeatedScalarFieldContainer[str]
    pauses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cluster: _Optional[str] = ..., queue: _Optional[str] = ..., position: _Optional[int] = ..., position_in_queue: _Optional[int] = ..., nodes: _Optional[int] = ..., nodes_with_room: _Optional[int] = ..., reasons: _Optional[_Iterable[_Union[NodeReason, _Mapping]]] = ..., never: _Optional[bool] = ..., quota: _Optional[_Union[QuotaView, _Mapping]] = ..., awaits: _Optional[_Iterable[str]] = ..., not_before_ms: _Optional[int] = ..., starts_at_ms: _Optional[int] = ..., confidence: _Optional[float] = ..., because: _Optional[_Iterable[str]] = ..., replicas: _Optional[int] = ..., replicas_now: _Optional[int] = ..., preempts: _Optional[_Iterable[str]] = ..., pauses: _Optional[_Iterable[str]] = ...) -> None: ...

class PlanRow(_message.Message):
    __slots__ = ("rank", "cluster", "region", "accelerators", "instance_type", "market", "usd_per_hour", "egress_usd", "gco2e_per_hour", "latency_ms", "score", "chosen", "reason", "joined", "declared", "best", "undominated")
    RANK_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    EGRESS_USD_FIELD_NUMBER: _ClassVar[int]
    GCO2E_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    UNDOMINATED_FIELD_NUMBER: _ClassVar[int]
    rank: int
    cluster: str
    region: str
    accelerators: str
    instance_type: str
    market: str
    usd_per_hour: float
    egress_usd: float
    gco2e_per_hour: float
    latency_ms: float
    score: float
    chosen: bool
    reason: str
    joined: bool
    declared: bool
    best: _containers.RepeatedScalarFieldContainer[str]
    undominated: bool
    def __init__(self, rank: _Optional[int] = ..., cluster: _Optional[str] = ..., region: _Optional[str] = ..., accelerators: _Optional[str] = ..., instance_type: _Optional[str] = ..., market: _Optional[str] = ..., usd_per_hour: _Optional[float] = ..., egress_usd: _Optional[float] = ..., gco2e_per_hour: _Optional[float] = ..., latency_ms: _Optional[float] = ..., score: _Optional[float] = ..., chosen: _Optional[bool] = ..., reason: _Optional[str] = ..., joined: _Optional[bool] = ..., declared: _Optional[bool] = ..., best: _Optional[_Iterable[str]] = ..., undominated: _Optional[bool] = ...) -> None: ...

class PlanView(_message.Message):
    __slots__ = ("job", "policy", "feasible", "chosen", "sentence", "rows", "market_as_of", "outlook", "arithmetic")
    JOB_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FEASIBLE_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MARKET_AS_OF_FIELD_NUMBER: _ClassVar[int]
    OUTLOOK_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_FIELD_NUMBER: _ClassVar[int]
    job: str
    policy: str
    feasible: bool
    chosen: str
    sentence: str
    rows: _containers.RepeatedCompositeFieldContainer[PlanRow]
    market_as_of: str
    outlook: OutlookView
    arithmetic: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job: _Optional[str] = ..., policy: _Optional[str] = ..., feasible: _Optional[bool] = ..., chosen: _Optional[str] = ..., sentence: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PlanRow, _Mapping]]] = ..., market_as_of: _Optional[str] = ..., outlook: _Optional[_Union[OutlookView, _Mapping]] = ..., arithmetic: _Optional[_Iterable[str]] = ...) -> None: ...

class WhyView(_message.Message):
    __slots__ = ("id", "phase", "sentences", "plan", "refusals", "queue_position", "outlook", "held")
    class RefusalsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    OUTLOOK_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    id: str
    phase: str
    sentences: _containers.RepeatedScalarFieldContainer[str]
    plan: PlanView
    refusals: _containers.ScalarMap[str, int]
    queue_position: int
    outlook: OutlookView
    held: str
    def __init__(self, id: _Optional[str] = ..., phase: _Optional[str] = ..., sentences: _Optional[_Iterable[str]] = ..., plan: _Optional[_Union[PlanView, _Mapping]] = ..., refusals: _Optional[_Mapping[str, int]] = ..., queue_position: _Optional[int] = ..., outlook: _Optional[_Union[OutlookView, _Mapping]] = ..., held: _Optional[str] = ...) -> None: ...

class NodeView(_message.Message):
    __slots__ = ("id", "cluster", "region", "state", "gpu_type", "gpus", "gpus_free", "cpus", "cpus_free", "memory_mib", "memory_free_mib", "replicas", "declared", "instance_type", "market", "usd_per_hour", "labels", "taints", "abilities", "version", "address", "heard_ms_ago", "metrics")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AbilitiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_MIB_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    id: str
    cluster: str
    region: str
    state: str
    gpu_type: str
    gpus: int
    gpus_free: float
    cpus: float
    cpus_free: float
    memory_mib: int
    memory_free_mib: int
    replicas: int
    declared: _containers.RepeatedScalarFieldContainer[str]
    instance_type: str
    market: str
    usd_per_hour: float
    labels: _containers.ScalarMap[str, str]
    taints: _containers.RepeatedScalarFieldContainer[str]
    abilities: _containers.ScalarMap[str, str]
    version: str
    address: str
    heard_ms_ago: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, id: _Optional[str] = ..., cluster: _Optional[str] = ..., region: _Optional[str] = ..., state: _Optional[str] = ..., gpu_type: _Optional[str] = ..., gpus: _Optional[int] = ..., gpus_free: _Optional[float] = ..., cpus: _Optional[float] = ..., cpus_free: _Optional[float] = ..., memory_mib: _Optional[int] = ..., memory_free_mib: _Optional[int] = ..., replicas: _Optional[int] = ..., declared: _Optional[_Iterable[str]] = ..., instance_type: _Optional[str] = ..., market: _Optional[str] = ..., usd_per_hour: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., taints: _Optional[_Iterable[str]] = ..., abilities: _Optional[_Mapping[str, str]] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., heard_ms_ago: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ClusterView(_message.Message):
    __slots__ = ("id", "region", "state", "nodes", "gpus", "gpus_free", "cpus", "cpus_free", "waiting", "running", "usd_per_hour", "gco2e_per_kwh", "declared", "version", "heard_ms_ago")
    ID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    GCO2E_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    id: str
    region: str
    state: str
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
    def __init__(self, id: _Optional[str] = ..., region: _Optional[str] = ..., state: _Optional[str] = ..., nodes: _Optional[int] = ..., gpus: _Optional[str] = ..., gpus_free: _Optional[str] = ..., cpus: _Optional[float] = ..., cpus_free: _Optional[float] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., usd_per_hour: _Optional[float] = ..., gco2e_per_kwh: _Optional[float] = ..., declared: _Optional[bool] = ..., version: _Optional[str] = ..., heard_ms_ago: _Optional[int] = ...) -> None: ...

class OfferView(_message.Message):
    __slots__ = ("region", "instance_type", "accelerators", "cpus", "memory_gib", "market", "usd_per_hour", "usd_per_gpu_hour", "gco2e_per_kwh", "as_of", "source")
    REGION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_GIB_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    USD_PER_GPU_HOUR_FIELD_NUMBER: _ClassVar[int]
    GCO2E_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    region: str
    instance_type: str
    accelerators: str
    cpus: float
    memory_gib: float
    market: str
    usd_per_hour: float
    usd_per_gpu_hour: float
    gco2e_per_kwh: float
    as_of: str
    source: str
    def __init__(self, region: _Optional[str] = ..., instance_type: _Optional[str] = ..., accelerators: _Optional[str] = ..., cpus: _Optional[float] = ..., memory_gib: _Optional[float] = ..., market: _Optional[str] = ..., usd_per_hour: _Optional[float] = ..., usd_per_gpu_hour: _Optional[float] = ..., gco2e_per_kwh: _Optional[float] = ..., as_of: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class Submitted(_message.Message):
    __slots__ = ("id", "error", "code", "warning")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    id: str
    error: str
    code: str
    warning: str
    def __init__(self, id: _Optional[str] = ..., error: _Optional[str] = ..., code: _Optional[str] = ..., warning: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("pointer", "message", "line", "column")
    POINTER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    pointer: str
    message: str
    line: int
    column: int
    def __init__(self, pointer: _Optional[str] = ..., message: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...

class Problems(_message.Message):
    __slots__ = ("problems",)
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    def __init__(self, problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ...) -> None: ...

class VersionView(_message.Message):
    __slots__ = ("version", "api", "python", "started_at_ms", "trust_domain")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    version: str
    api: str
    python: str
    started_at_ms: int
    trust_domain: str
    def __init__(self, version: _Optional[str] = ..., api: _Optional[str] = ..., python: _Optional[str] = ..., started_at_ms: _Optional[int] = ..., trust_domain: _Optional[str] = ...) -> None: ...

class JobChange(_message.Message):
    __slots__ = ("sequence", "at_ms", "job")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at_ms: int
    job: JobView
    def __init__(self, sequence: _Optional[int] = ..., at_ms: _Optional[int] = ..., job: _Optional[_Union[JobView, _Mapping]] = ...) -> None: ...

class SubmitJobsRequest(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[_job_pb2.AIJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[_job_pb2.AIJob, _Mapping]]] = ...) -> None: ...

class SubmitJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Submitted]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Submitted, _Mapping]]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.AIJob
    def __init__(self, job: _Optional[_Union[_job_pb2.AIJob, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetSpecRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("phases", "user", "name", "cluster", "ended", "limit")
    PHASES_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    phases: _containers.RepeatedScalarFieldContainer[str]
    user: str
    name: str
    cluster: str
    ended: bool
    limit: int
    def __init__(self, phases: _Optional[_Iterable[str]] = ..., user: _Optional[str] = ..., name: _Optional[str] = ..., cluster: _Optional[str] = ..., ended: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobView]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobView, _Mapping]]] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("job_id", "after")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    after: int
    def __init__(self, job_id: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ExplainJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("job_id", "rank", "follow", "tail_lines")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    rank: int
    follow: bool
    tail_lines: int
    def __init__(self, job_id: _Optional[str] = ..., rank: _Optional[int] = ..., follow: _Optional[bool] = ..., tail_lines: _Optional[int] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("rank", "body")
    RANK_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    rank: int
    body: bytes
    def __init__(self, rank: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("cluster",)
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    def __init__(self, cluster: _Optional[str] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeView]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeView, _Mapping]]] = ...) -> None: ...

class ListClustersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListClustersResponse(_message.Message):
    __slots__ = ("clusters",)
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterView]
    def __init__(self, clusters: _Optional[_Iterable[_Union[ClusterView, _Mapping]]] = ...) -> None: ...

class ListOffersRequest(_message.Message):
    __slots__ = ("accelerators", "region", "market", "limit")
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    accelerators: str
    region: str
    market: str
    limit: int
    def __init__(self, accelerators: _Optional[str] = ..., region: _Optional[str] = ..., market: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListOffersResponse(_message.Message):
    __slots__ = ("offers",)
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    offers: _containers.RepeatedCompositeFieldContainer[OfferView]
    def __init__(self, offers: _Optional[_Iterable[_Union[OfferView, _Mapping]]] = ...) -> None: ...

class CopyView(_message.Message):
    __slots__ = ("region", "state", "ready_at_ms", "source", "by")
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    READY_AT_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    region: str
    state: str
    ready_at_ms: int
    source: str
    by: str
    def __init__(self, region: _Optional[str] = ..., state: _Optional[str] = ..., ready_at_ms: _Optional[int] = ..., source: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class DatasetView(_message.Message):
    __slots__ = ("name", "size_gib", "growth_gib_per_day", "keep_h", "copies", "jobs", "storage_usd_per_month")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_GIB_FIELD_NUMBER: _ClassVar[int]
    GROWTH_GIB_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    KEEP_H_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    STORAGE_USD_PER_MONTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_gib: float
    growth_gib_per_day: float
    keep_h: float
    copies: _containers.RepeatedCompositeFieldContainer[CopyView]
    jobs: int
    storage_usd_per_month: float
    def __init__(self, name: _Optional[str] = ..., size_gib: _Optional[float] = ..., growth_gib_per_day: _Optional[float] = ..., keep_h: _Optional[float] = ..., copies: _Optional[_Iterable[_Union[CopyView, _Mapping]]] = ..., jobs: _Optional[int] = ..., storage_usd_per_month: _Optional[float] = ...) -> None: ...

class DatasetRequest(_message.Message):
    __slots__ = ("name", "size_gib", "growth_gib_per_day", "keep_h", "regions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_GIB_FIELD_NUMBER: _ClassVar[int]
    GROWTH_GIB_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    KEEP_H_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_gib: float
    growth_gib_per_day: float
    keep_h: float
    regions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., size_gib: _Optional[float] = ..., growth_gib_per_day: _Optional[float] = ..., keep_h: _Optional[float] = ..., regions: _Optional[_Iterable[str]] = ...) -> None: ...

class DropDatasetRequest(_message.Message):
    __slots__ = ("name", "region")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    name: str
    region: str
    def __init__(self, name: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetView]
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetView, _Mapping]]] = ...) -> None: ...

class AdviseDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AdviceView(_message.Message):
    __slots__ = ("dataset", "action", "region", "source", "size_gib", "cost_usd", "worth_usd", "gain_usd")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_GIB_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    WORTH_USD_FIELD_NUMBER: _ClassVar[int]
    GAIN_USD_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    action: str
    region: str
    source: str
    size_gib: float
    cost_usd: float
    worth_usd: float
    gain_usd: float
    def __init__(self, dataset: _Optional[str] = ..., action: _Optional[str] = ..., region: _Optional[str] = ..., source: _Optional[str] = ..., size_gib: _Optional[float] = ..., cost_usd: _Optional[float] = ..., worth_usd: _Optional[float] = ..., gain_usd: _Optional[float] = ...) -> None: ...

class AdviseDatasetsResponse(_message.Message):
    __slots__ = ("advice",)
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    advice: _containers.RepeatedCompositeFieldContainer[AdviceView]
    def __init__(self, advice: _Optional[_Iterable[_Union[AdviceView, _Mapping]]] = ...) -> None: ...

class CordonNodeRequest(_message.Message):
    __slots__ = ("node", "cordon", "drain")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CORDON_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    node: str
    cordon: bool
    drain: bool
    def __init__(self, node: _Optional[str] = ..., cordon: _Optional[bool] = ..., drain: _Optional[bool] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateJoinTokenRequest(_message.Message):
    __slots__ = ("role", "name", "ttl_s")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    ttl_s: int
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class CreateJoinTokenResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("token", "request_pem")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    token: str
    request_pem: bytes
    def __init__(self, token: _Optional[str] = ..., request_pem: _Optional[bytes] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("certificate_pem", "authority_pem")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    authority_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ..., authority_pem: _Optional[bytes] = ...) -> None: ...

class BundleChunk(_message.Message):
    __slots__ = ("body",)
    BODY_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    def __init__(self, body: _Optional[bytes] = ...) -> None: ...

class UploadBundleResponse(_message.Message):
    __slots__ = ("workdir",)
    WORKDIR_FIELD_NUMBER: _ClassVar[int]
    workdir: str
    def __init__(self, workdir: _Optional[str] = ...) -> None: ...
