from hyperion.wire.generated import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Market(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MARKET_UNSPECIFIED: _ClassVar[Market]
    MARKET_ON_DEMAND: _ClassVar[Market]
    MARKET_SPOT: _ClassVar[Market]
    MARKET_OWNED: _ClassVar[Market]
MARKET_UNSPECIFIED: Market
MARKET_ON_DEMAND: Market
MARKET_SPOT: Market
MARKET_OWNED: Market

class NodeMetrics(_message.Message):
    __slots__ = ("node_id", "gpu_utilization_percent", "cpu_utilization_percent", "memory_used_mb", "network_tx_gbps", "custom_metrics", "at_ms", "gpus", "memory_total_mb", "network_rx_gbps", "disk_free_mb", "load_1m")
    class CustomMetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    CPU_UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_MB_FIELD_NUMBER: _ClassVar[int]
    NETWORK_TX_GBPS_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_METRICS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RX_GBPS_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_MB_FIELD_NUMBER: _ClassVar[int]
    LOAD_1M_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    gpu_utilization_percent: float
    cpu_utilization_percent: float
    memory_used_mb: float
    network_tx_gbps: float
    custom_metrics: _containers.ScalarMap[str, float]
    at_ms: int
    gpus: _containers.RepeatedCompositeFieldContainer[GpuReading]
    memory_total_mb: float
    network_rx_gbps: float
    disk_free_mb: float
    load_1m: float
    def __init__(self, node_id: _Optional[str] = ..., gpu_utilization_percent: _Optional[float] = ..., cpu_utilization_percent: _Optional[float] = ..., memory_used_mb: _Optional[float] = ..., network_tx_gbps: _Optional[float] = ..., custom_metrics: _Optional[_Mapping[str, float]] = ..., at_ms: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[GpuReading, _Mapping]]] = ..., memory_total_mb: _Optional[float] = ..., network_rx_gbps: _Optional[float] = ..., disk_free_mb: _Optional[float] = ..., load_1m: _Optional[float] = ...) -> None: ...

class GpuReading(_message.Message):
    __slots__ = ("index", "name", "utilization_percent", "memory_used_mb", "memory_total_mb", "memory_bandwidth_percent", "temperature_celsius", "power_watts", "throttle_reasons", "ecc_errors_uncorrected")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_MB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BANDWIDTH_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_REASONS_FIELD_NUMBER: _ClassVar[int]
    ECC_ERRORS_UNCORRECTED_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    utilization_percent: float
    memory_used_mb: float
    memory_total_mb: float
    memory_bandwidth_percent: float
    temperature_celsius: float
    power_watts: float
    throttle_reasons: _containers.RepeatedScalarFieldContainer[str]
    ecc_errors_uncorrected: int
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., utilization_percent: _Optional[float] = ..., memory_used_mb: _Optional[float] = ..., memory_total_mb: _Optional[float] = ..., memory_bandwidth_percent: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., throttle_reasons: _Optional[_Iterable[str]] = ..., ecc_errors_uncorrected: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("success",)
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    def __init__(self, success: _Optional[bool] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("gpus", "gpu_type", "cpus_milli", "memory_mib", "disk_mib", "custom")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    CPUS_MILLI_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_MIB_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    gpus: int
    gpu_type: str
    cpus_milli: int
    memory_mib: int
    disk_mib: int
    custom: _containers.RepeatedCompositeFieldContainer[_job_pb2.Countable]
    def __init__(self, gpus: _Optional[int] = ..., gpu_type: _Optional[str] = ..., cpus_milli: _Optional[int] = ..., memory_mib: _Optional[int] = ..., disk_mib: _Optional[int] = ..., custom: _Optional[_Iterable[_Union[_job_pb2.Countable, _Mapping]]] = ...) -> None: ...

class Taint(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "capacity", "declared", "labels", "taints", "address", "instance_type", "market", "usd_per_hour", "runtimes", "version", "abilities")
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
    ID_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    id: str
    capacity: Capacity
    declared: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    taints: _containers.RepeatedCompositeFieldContainer[Taint]
    address: str
    instance_type: str
    market: Market
    usd_per_hour: float
    runtimes: _containers.RepeatedScalarFieldContainer[str]
    version: str
    abilities: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., declared: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., address: _Optional[str] = ..., instance_type: _Optional[str] = ..., market: _Optional[_Union[Market, str]] = ..., usd_per_hour: _Optional[float] = ..., runtimes: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., abilities: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("id", "region", "version", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    region: str
    version: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., region: _Optional[str] = ..., version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("capacity", "nodes", "instance_type", "market", "usd_per_hour", "labels", "taints", "declared", "free_cpus_milli", "free_gpus_milli", "free_memory_mib")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    USD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    FREE_CPUS_MILLI_FIELD_NUMBER: _ClassVar[int]
    FREE_GPUS_MILLI_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    capacity: Capacity
    nodes: int
    instance_type: str
    market: Market
    usd_per_hour: float
    labels: _containers.ScalarMap[str, str]
    taints: _containers.RepeatedCompositeFieldContainer[Taint]
    declared: bool
    free_cpus_milli: int
    free_gpus_milli: int
    free_memory_mib: int
    def __init__(self, capacity: _Optional[_Union[Capacity, _Mapping]] = ..., nodes: _Optional[int] = ..., instance_type: _Optional[str] = ..., market: _Optional[_Union[Market, str]] = ..., usd_per_hour: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., declared: _Optional[bool] = ..., free_cpus_milli: _Optional[int] = ..., free_gpus_milli: _Optional[int] = ..., free_memory_mib: _Optional[int] = ...) -> None: ...

class ClusterLoad(_message.Message):
    __slots__ = ("shapes", "waiting_jobs", "running_jobs")
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    WAITING_JOBS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    shapes: _containers.RepeatedCompositeFieldContainer[Shape]
    waiting_jobs: int
    running_jobs: int
    def __init__(self, shapes: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., waiting_jobs: _Optional[int] = ..., running_jobs: _Optional[int] = ...) -> None: ...
