"""NVIDIA's GPUs by the driver's own library (NVML), which is loaded only where it is installed."""

import ctypes
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from hyperion.ports import GpuReading

T = TypeVar("T")

_LIBRARY = "libnvidia-ml.so.1"
_MIB = 1 << 20

#: Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference, driver 580, read 2026-11)
#: that mean the GPU is slower than it could be. Idleness and user-set clocks are no throttling.
THROTTLE_REASONS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal",
    0x040: "hardware thermal",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}


class Gpus:
    """The machine's GPUs; none where there is no driver, or it does not answer."""

    def __init__(self) -> None:
        self._nvml = _load()
        self._handles: list[Any] = []
        if self._nvml is not None:
            self._handles = _ask(self._nvml, self._open, self._nvml) or []

    def names(self) -> list[str]:
        """What the driver calls each GPU, by index; an empty name where it does not say."""
        nvml = self._nvml
        if nvml is None:
            return []
        return [_ask(nvml, nvml.nvmlDeviceGetName, x) or "" for x in self._handles]

    def read(self) -> tuple[GpuReading, ...]:
        """Every GPU now. One that has failed gives a reading without values."""
        nvml = self._nvml
        if nvml is None:
            return ()
        return tuple(_read(nvml, i, handle) for i, handle in enumerate(self._handles))

    def close(self) -> None:
        if self._nvml is not None:
            _ask(self._nvml, self._nvml.nvmlShutdown)
        self._nvml, self._handles = None, []

    @staticmethod
    def _open(nvml: ModuleType) -> list[Any]:
        nvml.nvmlInit()
        count: int = nvml.nvmlDeviceGetCount()
        # A GPU that has fallen off the bus has no handle; the others keep their indices.
        return [_ask(nvml, nvml.nvmlDeviceGetHandleByIndex, i) for i in range(count)]


def _load() -> ModuleType | None:
    """The binding, if the driver's library is there: the import alone takes 10 MiB."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    import pynvml

    module: ModuleType = pynvml
    return module


def _read(nvml: ModuleType, index: int, gpu: Any) -> GpuReading:
    rates = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, gpu)
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, gpu)
    power_mw = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, gpu)
    celsius = _ask(nvml, nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU)
    return GpuReading(
        index=index,
        name=_ask(nvml, nvml.nvmlDeviceGetName, gpu) or "",
        utilization_percent=None if rates is None else float(rates.gpu),
        memory_used_mb=None if memory is None else memory.used / _MIB,
        memory_total_mb=None if memory is None else memory.total / _MIB,
        memory_bandwidth_percent=None if rates is None else float(rates.memory),
        temperature_celsius=None if celsius is None else float(celsius),
        power_watts=None if power_mw is None else power_mw / 1000,
        throttle_reasons=_throttle_reasons(nvml, gpu),
        ecc_errors_uncorrected=_ask(
            nvml,
            nvml.nvmlDeviceGetTotalEccErrors,
            gpu,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        ),
    )


def _throttle_reasons(nvml: ModuleType, gpu: Any) -> tuple[str, ...]:
    """Drivers before 535 know the question by its older name only."""
    bits = _ask(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, gpu)
    if bits is None:
        bits = _ask(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu)
    return tuple(word for bit, word in THROTTLE_REASONS.items() if bits and bits & bit)


def _ask(nvml: ModuleType, question: Callable[..., T], *words: object) -> T | None:
    """The answer, or None where this device or driver does not give one."""
    try:
        return question(*words)
    except nvml.NVMLError:
        return None
