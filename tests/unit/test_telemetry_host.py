"""What a node says of itself, held against the machine it is on; and the quotas it is under."""

import os
import time
from pathlib import Path

import pytest

from hyperion.adapters.telemetry import quota
from hyperion.adapters.telemetry.host import HostTelemetry

V2 = "30 23 0:27 / {mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
V1 = "31 23 0:28 / {mount}/{name} rw shared:10 - cgroup cgroup rw,{name}\n"


@pytest.fixture
def host(tmp_path):
    telemetry = HostTelemetry(tmp_path)
    yield telemetry
    telemetry.close()


def test_capacity_is_what_this_process_may_use(host, tmp_path):
    capacity = host.capacity()
    assert 0 < capacity.cpus_milli <= 1000 * len(os.sched_getaffinity(0))
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    assert 0 < capacity.memory_mib <= total
    assert (
        0 < capacity.disk_mib <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize >> 20
    )


def test_capacity_respects_cpu_affinity(host):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert host.capacity().cpus_milli <= 1000
    finally:
        os.sched_setaffinity(0, before)


def test_a_busy_cpu_shows(host):
    host.read(0)
    until = time.process_time() + 0.15
    while time.process_time() < until:
        sum(range(1000))
    reading = host.read(5)
    assert reading.at_ms == 5
    assert 100 / (2 * os.cpu_count()) < reading.cpu_utilization_percent <= 100
    assert 0 < reading.memory_used_mb < reading.memory_total_mb
    assert reading.disk_free_mb > 0
    assert min(reading.network_tx_gbps, reading.network_rx_gbps, reading.load_1m) >= 0


def test_a_reading_is_cheap_enough_for_every_second(host):
    began = time.process_time()
    for _ in range(50):
        host.read(0)
    assert (time.process_time() - began) / 50 < 0.01


def proc(tmp_path, groups, mounts):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cgroup").write_text(groups)
    (tmp_path / "proc/mountinfo").write_text(mounts)
    return tmp_path / "proc"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_quota_of_all_ancestors_counts(tmp_path):
    mount = tmp_path / "cg"
    self = proc(tmp_path, "0::/a.slice/b.scope\n", V2.format(mount=mount))
    put(mount / "a.slice/b.scope/cpu.max", "max 100000\n")
    put(mount / "a.slice/cpu.max", "150000 100000\n")
    put(mount / "a.slice/b.scope/memory.max", f"{3 << 30}\n")
    put(mount / "a.slice/memory.max", "max\n")
    assert quota.cpus_milli(self) == 1500
    assert quota.memory_bytes(self) == 3 << 30


def test_v1_has_its_own_files_and_its_own_word_for_none(tmp_path):
    mount = tmp_path / "cg"
    mounts = "".join(V1.format(mount=mount, name=name) for name in ("cpu", "memory"))
    self = proc(tmp_path, "4:memory:/job\n3:cpu:/job\n", mounts)
    put(mount / "cpu/job/cpu.cfs_quota_us", "50000\n")
    put(mount / "cpu/job/cpu.cfs_period_us", "100000\n")
    put(mount / "cpu/cpu.cfs_quota_us", "-1\n")
    put(mount / "cpu/cpu.cfs_period_us", "100000\n")
    put(mount / "memory/job/memory.limit_in_bytes", "9223372036854771712\n")
    assert quota.cpus_milli(self) == 500
    assert quota.memory_bytes(self) is None


def test_a_container_sees_its_group_at_the_root_of_the_mount(tmp_path):
    mount = tmp_path / "cg"
    line = V2.format(mount=mount).replace(" / ", " /docker/x ", 1)
    self = proc(tmp_path, "0::/docker/x\n", line)
    put(mount / "cpu.max", "200000 100000\n")
    assert quota.cpus_milli(self) == 2000


def test_without_groups_there_is_no_quota(tmp_path):
    assert quota.cpus_milli(tmp_path) is None
    assert quota.memory_bytes(proc(tmp_path, "", "")) is None
