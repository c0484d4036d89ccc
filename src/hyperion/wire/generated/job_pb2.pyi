from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATOR_UNSPECIFIED: _ClassVar[Operator]
    OPERATOR_IN: _ClassVar[Operator]
    OPERATOR_NOT_IN: _ClassVar[Operator]
    OPERATOR_EXISTS: _ClassVar[Operator]
    OPERATOR_ABSENT: _ClassVar[Operator]
    OPERATOR_GREATER: _ClassVar[Operator]
    OPERATOR_LESS: _ClassVar[Operator]

class Condition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_UNSPECIFIED: _ClassVar[Condition]
    CONDITION_OK: _ClassVar[Condition]
    CONDITION_ANY: _ClassVar[Condition]
    CONDITION_NOT_OK: _ClassVar[Condition]

class JobPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_PHASE_UNSPECIFIED: _ClassVar[JobPhase]
    JOB_PHASE_QUEUED: _ClassVar[JobPhase]
    JOB_PHASE_ASSIGNED: _ClassVar[JobPhase]
    JOB_PHASE_STARTING: _ClassVar[JobPhase]
    JOB_PHASE_RUNNING: _ClassVar[JobPhase]
    JOB_PHASE_STOPPING: _ClassVar[JobPhase]
    JOB_PHASE_SUCCEEDED: _ClassVar[JobPhase]
    JOB_PHASE_FAILED: _ClassVar[JobPhase]
    JOB_PHASE_CANCELLED: _ClassVar[JobPhase]
OPERATOR_UNSPECIFIED: Operator
OPERATOR_IN: Operator
OPERATOR_NOT_IN: Operator
OPERATOR_EXISTS: Operator
OPERATOR_ABSENT: Operator
OPERATOR_GREATER: Operator
OPERATOR_LESS: Operator
CONDITION_UNSPECIFIED: Condition
CONDITION_OK: Condition
CONDITION_ANY: Condition
CONDITION_NOT_OK: Condition
JOB_PHASE_UNSPECIFIED: JobPhase
JOB_PHASE_QUEUED: JobPhase
JOB_PHASE_ASSIGNED: JobPhase
JOB_PHASE_STARTING: JobPhase
JOB_PHASE_RUNNING: JobPhase
JOB_PHASE_STOPPING: JobPhase
JOB_PHASE_SUCCEEDED: JobPhase
JOB_PHASE_FAILED: JobPhase
JOB_PHASE_CANCELLED: JobPhase

class AIJob(_message.Message):
    __slots__ = ("job_id", "user_id", "framework", "priority", "resources", "replicas", "metadata", "name", "alternatives", "command", "run", "setup", "image", "workdir", "envs", "secrets", "data", "objective", "policy", "users_in", "expected_s", "deadline_s", "budget", "restart", "checkpoint", "tolerations", "queue", "nice", "roles", "elastic", "array", "packing", "replica_affinity", "spread", "begin_s", "after", "reservation", "min_runtime_s", "pausing", "standby", "regions", "reads", "writes", "migrate", "start_now", "latency_target_s")
    class Framework(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FRAMEWORK_UNSPECIFIED: _ClassVar[AIJob.Framework]
        PYTORCH: _ClassVar[AIJob.Framework]
        JAX: _ClassVar[AIJob.Framework]
        TENSORFLOW: _ClassVar[AIJob.Framework]
        CUSTOM_CONTAINER: _ClassVar[AIJob.Framework]
        MPI: _ClassVar[AIJob.Framework]
    FRAMEWORK_UNSPECIFIED: AIJob.Framework
    PYTORCH: AIJob.Framework
    JAX: AIJob.Framework
    TENSORFLOW: AIJob.Framework
    CUSTOM_CONTAINER: AIJob.Framework
    MPI: AIJob.Framework
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[AIJob.Priority]
        BATCH: _ClassVar[AIJob.Priority]
        LATENCY_CRITICAL: _ClassVar[AIJob.Priority]
        ULTRA_LOW_LATENCY: _ClassVar[AIJob.Priority]
    PRIORITY_UNSPECIFIED: AIJob.Priority
    BATCH: AIJob.Priority
    LATENCY_CRITICAL: AIJob.Priority
    ULTRA_LOW_LATENCY: AIJob.Priority
    class ResourceRequest(_message.Message):
        __slots__ = ("gpus", "gpu_type", "cpus_milli", "memory_mb", "gpus_milli", "no_cpus", "disk_mib", "labels", "infra", "use_spot", "custom", "affinity")
        class LabelsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        GPUS_FIELD_NUMBER: _ClassVar[int]
        GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
        CPUS_MILLI_FIELD_NUMBER: _ClassVar[int]
        MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
        GPUS_MILLI_FIELD_NUMBER: _ClassVar[int]
        NO_CPUS_FIELD_NUMBER: _ClassVar[int]
        DISK_MIB_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        INFRA_FIELD_NUMBER: _ClassVar[int]
        USE_SPOT_FIELD_NUMBER: _ClassVar[int]
        CUSTOM_FIELD_NUMBER: _ClassVar[int]
        AFFINITY_FIELD_NUMBER: _ClassVar[int]
        gpus: int
        gpu_type: str
        cpus_milli: int
        memory_mb: int
        gpus_milli: int
        no_cpus: bool
        disk_mib: int
        labels: _containers.ScalarMap[str, str]
        infra: str
        use_spot: bool
        custom: _containers.RepeatedCompositeFieldContainer[Countable]
        affinity: _containers.RepeatedCompositeFieldContainer[NodeTerm]
        def __init__(self, gpus: _Optional[int] = ..., gpu_type: _Optional[str] = ..., cpus_milli: _Optional[int] = ..., memory_mb: _Optional[int] = ..., gpus_milli: _Optional[int] = ..., no_cpus: _Optional[bool] = ..., disk_mib: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., infra: _Optional[str] = ..., use_spot: _Optional[bool] = ..., custom: _Optional[_Iterable[_Union[Countable, _Mapping]]] = ..., affinity: _Optional[_Iterable[_Union[NodeTerm, _Mapping]]] = ...) -> None: ...
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class EnvsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    SETUP_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    WORKDIR_FIELD_NUMBER: _ClassVar[int]
    ENVS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    USERS_IN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TOLERATIONS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NICE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ELASTIC_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    PACKING_FIELD_NUMBER: _ClassVar[int]
    REPLICA_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    BEGIN_S_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    MIN_RUNTIME_S_FIELD_NUMBER: _ClassVar[int]
    PAUSING_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    MIGRATE_FIELD_NUMBER: _ClassVar[int]
    START_NOW_FIELD_NUMBER: _ClassVar[int]
    LATENCY_TARGET_S_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    user_id: str
    framework: AIJob.Framework
    priority: AIJob.Priority
    resources: AIJob.ResourceRequest
    replicas: int
    metadata: _containers.ScalarMap[str, str]
    name: str
    alternatives: _containers.RepeatedCompositeFieldContainer[AIJob.ResourceRequest]
    command: _containers.RepeatedScalarFieldContainer[str]
    run: str
    setup: str
    image: str
    workdir: str
    envs: _containers.ScalarMap[str, str]
    secrets: _containers.ScalarMap[str, str]
    data: _containers.RepeatedCompositeFieldContainer[DataSource]
    objective: Objective
    policy: str
    users_in: _containers.RepeatedScalarFieldContainer[str]
    expected_s: float
    deadline_s: float
    budget: Budget
    restart: Restart
    checkpoint: Checkpoint
    tolerations: _containers.RepeatedCompositeFieldContainer[Toleration]
    queue: str
    nice: int
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    elastic: Elastic
    array: Array
    packing: Packing
    replica_affinity: _containers.RepeatedCompositeFieldContainer[ReplicaTerm]
    spread: _containers.RepeatedCompositeFieldContainer[Spread]
    begin_s: float
    after: _containers.RepeatedCompositeFieldContainer[Dependency]
    reservation: str
    min_runtime_s: float
    pausing: Pausing
    standby: Standby
    regions: Residency
    reads: _containers.RepeatedCompositeFieldContainer[DatasetRead]
    writes: _containers.RepeatedCompositeFieldContainer[DatasetWrite]
    migrate: bool
    start_now: bool
    latency_target_s: float
    def __init__(self, job_id: _Optional[str] = ..., user_id: _Optional[str] = ..., framework: _Optional[_Union[AIJob.Framework, str]] = ..., priority: _Optional[_Union[AIJob.Priority, str]] = ..., resources: _Optional[_Union[AIJob.ResourceRequest, _Mapping]] = ..., replicas: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ..., name: _Optional[str] = ..., alternatives: _Optional[_Iterable[_Union[AIJob.ResourceRequest, _Mapping]]] = ..., command: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ..., setup: _Optional[str] = ..., image: _Optional[str] = ..., workdir: _Optional[str] = ..., envs: _Optional[_Mapping[str, str]] = ..., secrets: _Optional[_Mapping[str, str]] = ..., data: _Optional[_Iterable[_Union[DataSource, _Mapping]]] = ..., objective: _Optional[_Union[Objective, _Mapping]] = ..., policy: _Optional[str] = ..., users_in: _Optional[_Iterable[str]] = ..., expected_s: _Optional[float] = ..., deadline_s: _Optional[float] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., restart: _Optional[_Union[Restart, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., tolerations: _Optional[_Iterable[_Union[Toleration, _Mapping]]] = ..., queue: _Optional[str] = ..., nice: _Optional[int] = ..., roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ..., elastic: _Optional[_Union[Elastic, _Mapping]] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., packing: _Optional[_Union[Packing, _Mapping]] = ..., replica_affinity: _Optional[_Iterable[_Union[ReplicaTerm, _Mapping]]] = ..., spread: _Optional[_Iterable[_Union[Spread, _Mapping]]] = ..., begin_s: _Optional[float] = ..., after: _Optional[_Iterable[_Union[Dependency, _Mapping]]] = ..., reservation: _Optional[str] = ..., min_runtime_s: _Optional[float] = ..., pausing: _Optional[_Union[Pausing, _Mapping]] = ..., standby: _Optional[_Union[Standby, _Mapping]] = ..., regions: _Optional[_Union[Residency, _Mapping]] = ..., reads: _Optional[_Iterable[_Union[DatasetRead, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[DatasetWrite, _Mapping]]] = ..., migrate: _Optional[bool] = ..., start_now: _Optional[bool] = ..., latency_target_s: _Optional[float] = ...) -> None: ...

class DatasetRead(_message.Message):
    __slots__ = ("dataset", "fraction")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    fraction: float
    def __init__(self, dataset: _Optional[str] = ..., fraction: _Optional[float] = ...) -> None: ...

class DatasetWrite(_message.Message):
    __slots__ = ("dataset", "size_gib")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SIZE_GIB_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    size_gib: float
    def __init__(self, dataset: _Optional[str] = ..., size_gib: _Optional[float] = ...) -> None: ...

class DataSource(_message.Message):
    __slots__ = ("uri", "size_gib", "region")
    URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_GIB_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    uri: str
    size_gib: float
    region: str
    def __init__(self, uri: _Optional[str] = ..., size_gib: _Optional[float] = ..., region: _Optional[str] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("cost", "latency", "egress", "carbon", "interruption", "carbon_usd_per_tonne", "waiting_usd_per_hour")
    COST_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    CARBON_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTION_FIELD_NUMBER: _ClassVar[int]
    CARBON_USD_PER_TONNE_FIELD_NUMBER: _ClassVar[int]
    WAITING_USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    cost: float
    latency: float
    egress: float
    carbon: float
    interruption: float
    carbon_usd_per_tonne: float
    waiting_usd_per_hour: float
    def __init__(self, cost: _Optional[float] = ..., latency: _Optional[float] = ..., egress: _Optional[float] = ..., carbon: _Optional[float] = ..., interruption: _Optional[float] = ..., carbon_usd_per_tonne: _Optional[float] = ..., waiting_usd_per_hour: _Optional[float] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("max_usd", "max_usd_per_hour", "max_kg_co2e")
    MAX_USD_FIELD_NUMBER: _ClassVar[int]
    MAX_USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    MAX_KG_CO2E_FIELD_NUMBER: _ClassVar[int]
    max_usd: float
    max_usd_per_hour: float
    max_kg_co2e: float
    def __init__(self, max_usd: _Optional[float] = ..., max_usd_per_hour: _Optional[float] = ..., max_kg_co2e: _Optional[float] = ...) -> None: ...

class Residency(_message.Message):
    __slots__ = ("allow", "deny")
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    allow: _containers.RepeatedScalarFieldContainer[str]
    deny: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allow: _Optional[_Iterable[str]] = ..., deny: _Optional[_Iterable[str]] = ...) -> None: ...

class Restart(_message.Message):
    __slots__ = ("max", "backoff_s")
    MAX_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_S_FIELD_NUMBER: _ClassVar[int]
    max: int
    backoff_s: float
    def __init__(self, max: _Optional[int] = ..., backoff_s: _Optional[float] = ...) -> None: ...

class Pausing(_message.Message):
    __slots__ = ("forbidden", "hold_s", "at", "within_s", "gpu_queue_s", "criu")
    FORBIDDEN_FIELD_NUMBER: _ClassVar[int]
    HOLD_S_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    GPU_QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    CRIU_FIELD_NUMBER: _ClassVar[int]
    forbidden: bool
    hold_s: float
    at: str
    within_s: float
    gpu_queue_s: float
    criu: bool
    def __init__(self, forbidden: _Optional[bool] = ..., hold_s: _Optional[float] = ..., at: _Optional[str] = ..., within_s: _Optional[float] = ..., gpu_queue_s: _Optional[float] = ..., criu: _Optional[bool] = ...) -> None: ...

class Standby(_message.Message):
    __slots__ = ("port", "quiet_s")
    PORT_FIELD_NUMBER: _ClassVar[int]
    QUIET_S_FIELD_NUMBER: _ClassVar[int]
    port: int
    quiet_s: float
    def __init__(self, port: _Optional[int] = ..., quiet_s: _Optional[float] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("dir", "grace_s", "every_s", "restore_s", "signal", "notice")
    DIR_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    RESTORE_S_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    dir: str
    grace_s: float
    every_s: float
    restore_s: float
    signal: str
    notice: str
    def __init__(self, dir: _Optional[str] = ..., grace_s: _Optional[float] = ..., every_s: _Optional[float] = ..., restore_s: _Optional[float] = ..., signal: _Optional[str] = ..., notice: _Optional[str] = ...) -> None: ...

class Countable(_message.Message):
    __slots__ = ("name", "amount")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    amount: int
    def __init__(self, name: _Optional[str] = ..., amount: _Optional[int] = ...) -> None: ...

class NodeTerm(_message.Message):
    __slots__ = ("key", "operator", "values", "weight")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    key: str
    operator: Operator
    values: _containers.RepeatedScalarFieldContainer[str]
    weight: int
    def __init__(self, key: _Optional[str] = ..., operator: _Optional[_Union[Operator, str]] = ..., values: _Optional[_Iterable[str]] = ..., weight: _Optional[int] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ReplicaTerm(_message.Message):
    __slots__ = ("labels", "level", "anti", "weight")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ANTI_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    level: str
    anti: bool
    weight: int
    def __init__(self, labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., level: _Optional[str] = ..., anti: _Optional[bool] = ..., weight: _Optional[int] = ...) -> None: ...

class Spread(_message.Message):
    __slots__ = ("level", "max_skew", "required")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MAX_SKEW_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    level: str
    max_skew: int
    required: bool
    def __init__(self, level: _Optional[str] = ..., max_skew: _Optional[int] = ..., required: _Optional[bool] = ...) -> None: ...

class Packing(_message.Message):
    __slots__ = ("level", "required")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    level: str
    required: bool
    def __init__(self, level: _Optional[str] = ..., required: _Optional[bool] = ...) -> None: ...

class Role(_message.Message):
    __slots__ = ("name", "replicas", "resources", "command", "run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    replicas: int
    resources: AIJob.ResourceRequest
    command: _containers.RepeatedScalarFieldContainer[str]
    run: str
    def __init__(self, name: _Optional[str] = ..., replicas: _Optional[int] = ..., resources: _Optional[_Union[AIJob.ResourceRequest, _Mapping]] = ..., command: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ...) -> None: ...

class Elastic(_message.Message):
    __slots__ = ("min", "restart")
    MIN_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    min: int
    restart: bool
    def __init__(self, min: _Optional[int] = ..., restart: _Optional[bool] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("size", "first", "step", "limit")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    size: int
    first: int
    step: int
    limit: int
    def __init__(self, size: _Optional[int] = ..., first: _Optional[int] = ..., step: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class TaskRetry(_message.Message):
    __slots__ = ("rank", "failures", "not_before_ms", "losses")
    RANK_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    failures: int
    not_before_ms: int
    losses: int
    def __init__(self, rank: _Optional[int] = ..., failures: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., losses: _Optional[int] = ...) -> None: ...

class TaskFailure(_message.Message):
    __slots__ = ("rank", "exit_code", "reason")
    RANK_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    rank: int
    exit_code: int
    reason: str
    def __init__(self, rank: _Optional[int] = ..., exit_code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class TaskProgress(_message.Message):
    __slots__ = ("next", "succeeded", "failed", "again", "retried", "starts", "failures", "dropped")
    NEXT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    next: int
    succeeded: int
    failed: int
    again: _containers.RepeatedCompositeFieldContainer[TaskRetry]
    retried: _containers.RepeatedCompositeFieldContainer[TaskRetry]
    starts: int
    failures: _containers.RepeatedCompositeFieldContainer[TaskFailure]
    dropped: int
    def __init__(self, next: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., again: _Optional[_Iterable[_Union[TaskRetry, _Mapping]]] = ..., retried: _Optional[_Iterable[_Union[TaskRetry, _Mapping]]] = ..., starts: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[TaskFailure, _Mapping]]] = ..., dropped: _Optional[int] = ...) -> None: ...

class Dependency(_message.Message):
    __slots__ = ("job", "condition")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    job: str
    condition: Condition
    def __init__(self, job: _Optional[str] = ..., condition: _Optional[_Union[Condition, str]] = ...) -> None: ...

class Toleration(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("rank", "allocation", "node", "state", "exit_code", "reason", "devices")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    allocation: str
    node: str
    state: str
    exit_code: int
    reason: str
    devices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rank: _Optional[int] = ..., allocation: _Optional[str] = ..., node: _Optional[str] = ..., state: _Optional[str] = ..., exit_code: _Optional[int] = ..., reason: _Optional[str] = ..., devices: _Optional[_Iterable[int]] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("job_id", "status_message")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    status_message: str
    def __init__(self, job_id: _Optional[str] = ..., status_message: _Optional[str] = ...) -> None: ...

class SavedCheckpoint(_message.Message):
    __slots__ = ("step", "path", "at_ms", "size_bytes", "whole")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    step: int
    path: str
    at_ms: int
    size_bytes: int
    whole: bool
    def __init__(self, step: _Optional[int] = ..., path: _Optional[str] = ..., at_ms: _Optional[int] = ..., size_bytes: _Optional[int] = ..., whole: _Optional[bool] = ...) -> None: ...
