"""Measures this machine: CPU, memory, network and disk by psutil, GPUs by NVML where there are any.

A size in MB is 2**20 bytes, as everywhere in the house. Nothing is invented: a counter that the
machine does not give is None, and a machine without a GPU has none.
"""

import os
import shutil
import time
from pathlib import Path

import psutil

from hyperion.adapters.telemetry import quota
from hyperion.adapters.telemetry.nvml import Gpus
from hyperion.model.accelerators import from_device_name
from hyperion.model.resources import Capacity
from hyperion.ports import Reading

_MIB = 1 << 20


class HostTelemetry:
    """Satisfies ``ports.Telemetry``. ``directory`` is on the disk that counts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._gpus = Gpus()
        self._cpu = _cpu_seconds()
        self._network = _network_bytes()
        self._read_at_s = time.monotonic()
        self._cpu_percent = 0.0
        self._gbps = (0.0, 0.0)

    def capacity(self) -> Capacity:
        """CPUs this process may use, memory it may have, disk that is free now, and GPUs.

        Where GPUs of several types are mixed, those like the first count, up to the first that
        differs: a node's GPUs are addressed by index and are of one type.
        """
        types = [from_device_name(name) for name in self._gpus.names()]
        alike = next((i for i, x in enumerate(types) if x != types[0]), len(types))
        memory_bytes = psutil.virtual_memory().total
        limit_bytes = quota.memory_bytes()
        return Capacity(
            gpus=alike,
            gpu_type=types[0] if types else "",
            cpus_milli=_cpus_milli(),
            memory_mib=min(memory_bytes, limit_bytes or memory_bytes) // _MIB,
            disk_mib=shutil.disk_usage(self._directory).free // _MIB,
        )

    def read(self, at_ms: int) -> Reading:
        self._update_rates()
        memory = psutil.virtual_memory()
        return Reading(
            at_ms=at_ms,
            cpu_utilization_percent=self._cpu_percent,
            memory_used_mb=(memory.total - memory.available) / _MIB,
            memory_total_mb=memory.total / _MIB,
            network_tx_gbps=self._gbps[0],
            network_rx_gbps=self._gbps[1],
            disk_free_mb=shutil.disk_usage(self._directory).free / _MIB,
            load_1m=os.getloadavg()[0],
            gpus=self._gpus.read(),
        )

    def close(self) -> None:
        self._gpus.close()

    def _update_rates(self) -> None:
        """Rates since the last read. Two reads within 10 ms give the same ones."""
        now_s = time.monotonic()
        passed_s = now_s - self._read_at_s
        if passed_s < 0.01:
            return
        cpu, network = _cpu_seconds(), _network_bytes()
        busy, whole = cpu[0] - self._cpu[0], cpu[1] - self._cpu[1]
        if whole > 0:
            self._cpu_percent = min(100.0, max(0.0, 100 * busy / whole))
        sent, received = (max(0, b - a) for a, b in zip(self._network, network, strict=True))
        self._gbps = (sent * 8 / 1e9 / passed_s, received * 8 / 1e9 / passed_s)
        self._cpu, self._network, self._read_at_s = cpu, network, now_s


def _cpus_milli() -> int:
    cpus_milli = 1000 * len(os.sched_getaffinity(0))
    return min(cpus_milli, quota.cpus_milli() or cpus_milli)


def _cpu_seconds() -> tuple[float, float]:
    """(busy, all) seconds of all CPUs since boot; guests are counted in user time already."""
    times = psutil.cpu_times()
    whole = sum(times[: 8 if len(times) >= 8 else len(times)])
    return whole - times.idle - getattr(times, "iowait", 0.0), whole


def _network_bytes() -> tuple[int, int]:
    """(sent, received) bytes of all interfaces but loopback."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    outside = [x for name, x in counters.items() if name != "lo"]
    return sum(x.bytes_sent for x in outside), sum(x.bytes_recv for x in outside)
