"""Control groups as this host has them, and as a host with only the old hierarchies would."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hyperion.adapters.runtime.cgroup import Cgroups

FAMILY = 'for g in "$@"; do echo 0 >"$g/cgroup.procs"; done; setsid sleep 300 & sleep 300 & wait'


@pytest.fixture(params=["as it is", "v1 only"])
def groups(request, tmp_path):
    """``v1 only`` hides the v2 mount from the reader; the groups that it makes are real."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
    if request.param == "v1 only":
        lines = [line for line in lines if " - cgroup2 " not in line]
    (tmp_path / "mountinfo").write_text("".join(lines))
    (tmp_path / "cgroup").write_text(Path("/proc/self/cgroup").read_text())
    made = Cgroups(f"hyperion-test-{os.getpid()}", proc=tmp_path)
    yield made if made.holds else pytest.skip(f"cgroup: {made.abilities()['cgroup']}")
    made.close()
    assert list(Path("/sys/fs/cgroup").glob(f"*/hyperion-test-{os.getpid()}")) == []


def eventually(condition):
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)  # the kernel announces nothing here
    return condition()


def test_a_group_holds_all_kills_all_and_goes(groups):
    paths = groups.create("r.1-1.0", cpus_milli=500, memory_mib=64)
    with subprocess.Popen(["sh", "-c", FAMILY, "sh", *paths], start_new_session=True) as process:
        assert eventually(lambda: len(groups.members("r.1-1.0")) == 3)
        assert groups.replicas() == ["r.1-1.0"]
        assert not groups.remove("r.1-1.0")
        groups.kill("r.1-1.0")
        assert process.wait(10) == -signal.SIGKILL
    assert eventually(lambda: groups.remove("r.1-1.0"))
    assert (groups.replicas(), groups.members("r.1-1.0")) == ([], [])
    groups.kill("r.1-1.0")  # nothing there, nothing wrong
    assert groups.remove("r.1-1.0")


def test_groups_that_a_replica_made_below_its_own_go_too(groups):
    path = groups.create("r.1-1.0", cpus_milli=1000, memory_mib=0)[0]
    inner = f"{path}/inner"
    os.mkdir(inner)
    with subprocess.Popen(["sh", "-c", FAMILY, "sh", inner], start_new_session=True) as process:
        assert eventually(lambda: len(groups.members("r.1-1.0")) == 3)
        groups.kill("r.1-1.0")
        assert process.wait(10) == -signal.SIGKILL
    assert eventually(lambda: groups.remove("r.1-1.0"))


def test_limits_are_written_where_the_host_has_them(groups):
    paths = groups.create("r.1-1.0", cpus_milli=250, memory_mib=64)
    try:
        said = {f.name: f.read_text().strip() for p in paths for f in files(p)}
        if not groups.abilities()["cpu_limit"].startswith("no"):
            assert said.get("cpu.shares") == "256" or said.get("cpu.weight") == "25"
        if not groups.abilities()["memory_limit"].startswith("no"):
            limit = said.get("memory.max") or said.get("memory.limit_in_bytes")
            assert limit == str(64 << 20)
    finally:
        assert groups.remove("r.1-1.0")


def files(group):
    names = ("cpu.shares", "cpu.weight", "memory.max", "memory.limit_in_bytes")
    return [path for name in names if (path := Path(group, name)).exists()]


def test_what_killed_agents_had_of_real_time_is_taken_back():
    """On kernels that count it by v1 group: each agent takes a part of what there is."""
    made = []
    try:
        for n in range(5):  # more than there are parts
            groups = Cgroups(f"hyperion-killed-{os.getpid()}-{n}")
            made.append((groups, groups.create("r", 2000, 0)))
            parts = [p for p in map(rt_part, made[-1][1]) if p is not None]
            if not parts:
                pytest.skip("this kernel does not count real-time by group")
            assert all(parts), f"agent {n} got none"
    finally:
        for groups, _ in made:
            groups.remove("r")
            groups.close()


def rt_part(group):
    try:
        return int(Path(f"{group}/cpu.rt_runtime_us").read_text())
    except OSError:
        return None
