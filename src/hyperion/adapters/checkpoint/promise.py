"""Which promises of preemption this host can keep: everything is tried, on throw-away processes."""

import ctypes
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from hyperion.adapters.checkpoint.freezer import Freezer, Group, Stop

CRIU_NEEDED = (4, 1)
"""Older ones cannot restore on kernels from 6.13 on."""
_SPIN = 'for group in "$@"; do echo 0 >"$group/cgroup.procs"; done; while :; do :; done'
_UNBOOSTED = "replicas cannot be real-time (where an agent runs already, it has all of that)"
_TRIES = 20
_WAIT_S = 5.0
_JOINS_S = 0.05


class Finding(Struct, frozen=True):
    """One thing that was tried."""

    what: str
    works: bool
    found: str
    """What is there, or why it does not work."""
    grant: str = ""
    """What to give the agent, so that it would."""


class Tier(Struct, frozen=True):
    """One way to make room, and what is promised of it on this host."""

    tier: str
    kept: bool
    promise: str
    why: str = ""
    """Why it is not kept, or not fully."""


class Promises(Struct, frozen=True):
    host: dict[str, str]
    findings: list[Finding]
    tiers: list[Tier]


class Groups(Protocol):
    """Control groups, as the agent makes them for its replicas."""

    @property
    def holds(self) -> bool: ...
    def create(self, replica: str, cpus_milli: int, memory_mib: int) -> list[str]: ...
    def group(self, replica: str) -> str: ...
    def remove(self, replica: str) -> bool: ...
    def close(self) -> None: ...


def probe(groups: Groups) -> Promises:
    """Try all of it; takes about a second."""
    freezing, boost, stop_ms = _freezing(groups)
    findings = [freezing, _realtime(), boost, _locked(), _throttling(), _criu()]
    return Promises(host=_host(), findings=findings, tiers=tiers(findings, stop_ms))


def tiers(findings: list[Finding], stop_ms: float) -> list[Tier]:
    """What follows from what was found."""
    by = {finding.what: finding for finding in findings}
    freezer, real = by["freezer"], by["real-time"]
    lacking = [f"{x.what}: {x.found}" for x in (freezer, real, by["boost"]) if not x.works]
    return [
        Tier(
            tier="stand still, CPUs at once",
            kept=not lacking,
            promise=f"50 ms from the order until the CPUs are free (here, now: {stop_ms:.2f} ms)",
            why="; ".join(lacking),
        ),
        Tier(
            tier="stand still, as soon as possible",
            kept=stop_ms > 0,
            promise="no work is lost; how soon depends on the load",
            why="" if stop_ms > 0 else "a throw-away process could not be made to stand still",
        ),
        Tier(
            tier="set aside on disk",
            kept=by["CRIU"].works and stop_ms > 0,
            promise="after the hold of jobs with `pausing.criu`; some 0.7 s per GiB",
            why="" if by["CRIU"].works else f"CRIU: {by['CRIU'].found}",
        ),
        Tier(
            tier="GPUs",
            kept=stop_ms > 0,
            promise="jobs with `pausing.gpu_queue` stand still, other jobs with GPUs are stopped",
            why="how little waits there is the job's word; its memory stays full",
        ),
        Tier(
            tier="stop, with a grace",
            kept=True,
            promise="SIGTERM, the job's grace, then SIGKILL; work since its checkpoint is lost",
        ),
    ]


def _host() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "user": str(os.geteuid()),
        "load": " ".join(f"{x:.1f}" for x in os.getloadavg()),
    }


def _freezing(groups: Groups) -> tuple[Finding, Finding, float]:
    """Of a busy child in a group of its own, several times; the longest that it took, in ms."""
    with ExitStack() as stack:
        stack.callback(groups.close)
        paths = groups.create("try", 1000, 0) if groups.holds else []
        stack.callback(_removed, groups)
        child = stack.enter_context(_busy(paths))
        group = Group(groups.group("try")) if paths else Group("", (child,))
        stack.callback(group.close)
        stops = _stops(group)
    longest_ms = max((s.confirmed_ns - s.called_ns for s in stops), default=0) / 1e6
    if not all(stop.confirmed_ns for stop in stops):
        longest_ms = 0.0
    version = f"cgroup v{group.version}" if group.version else "no control groups"
    freezer = Finding(
        what="freezer",
        works=group.is_v2 and longest_ms > 0,
        found=f"{version}, by {stops[0].how}",
        grant="" if group.is_v2 else "a control group v2 that it may write (root, or Delegate=yes)",
    )
    boosted = all(stop.boosted for stop in stops)
    boost = Finding(
        what="boost",
        works=boosted,
        found="others are real-time for an instant" if boosted else _UNBOOSTED,
        grant="" if boosted else "CAP_SYS_NICE; cgroup v1: a part of cpu.rt_runtime_us",
    )
    return freezer, boost, longest_ms


def _stops(group: Group) -> list[Stop]:
    freezer = Freezer()
    found = []
    try:
        for _ in range(_TRIES):
            found.append(freezer.freeze([group]))
            freezer.go_on([group])
            time.sleep(0.002)
    finally:
        freezer.close()
    return found


def _realtime() -> Finding:
    return _tried(
        "real-time",
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "SCHED_FIFO",
        "CAP_SYS_NICE, or LimitRTPRIO=50 in its unit",
    )


def _locked() -> Finding:
    def lock() -> None:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        with suppress(OSError, ValueError):
            unlimited = (resource.RLIM_INFINITY,) * 2
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        if ctypes.CDLL(None, use_errno=True).mlockall(1):
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}, limit {limit}")

    return _tried("locked memory", lock, "mlockall", "LimitMEMLOCK=infinity, or CAP_IPC_LOCK")


def _throttling() -> Finding:
    """What real-time processes get of each period; -1: all."""
    try:
        runtime, period = (
            int(Path(f"/proc/sys/kernel/sched_rt_{x}_us").read_text())
            for x in ("runtime", "period")
        )
    except (OSError, ValueError) as error:
        return Finding("real-time share", works=False, found=str(error))
    return Finding(
        what="real-time share",
        works=runtime != 0,
        found=f"{'all' if runtime < 0 else f'{100 * runtime / period:.0f} %'} of {period} µs",
        grant="" if runtime else "sysctl kernel.sched_rt_runtime_us=950000",
    )


def _criu() -> Finding:
    program = shutil.which("criu")
    needed = ".".join(map(str, CRIU_NEEDED))
    grant = f"criu {needed} or newer, and root"
    if program is None:
        return Finding("CRIU", works=False, found="not installed", grant=grant)
    try:
        said = _output(program, "--version")
        version = re.search(r"(\d+)\.(\d+)", said)
        if version is None or (int(version[1]), int(version[2])) < CRIU_NEEDED:
            found = f"too old: {version[0] if version else said[:40]}"
            return Finding("CRIU", works=False, found=found, grant=grant)
        checked = _output(program, "check")
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("CRIU", works=False, found=str(error)[:200], grant=grant)
    fine = "Looks good" in checked
    last = checked.strip().splitlines()[-1:] or ["says nothing"]
    found = f"{version[0]}, criu check: {last[0]}"
    return Finding("CRIU", works=fine, found=found, grant="" if fine else grant)


def _output(*command: str) -> str:
    done = subprocess.run(  # noqa: S603 - its own program, no words of others
        command, capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout + done.stderr


def _tried(what: str, act: Callable[[], None], found: str, grant: str) -> Finding:
    """Do it in a child of its own, so that this process stays what it is."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        said = b""
        try:
            act()
        except OSError as error:
            said = (error.strerror or str(error)).encode()
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        why_not = pipe.read().decode()
    os.waitpid(pid, 0)
    return Finding(what, not why_not, why_not or found, grant if why_not else "")


@contextmanager
def _busy(groups: list[str]) -> Iterator[int]:
    """A child that never sleeps; its pid."""
    command = ["/bin/sh", "-c", _SPIN, "sh", *groups]
    child = subprocess.Popen(  # noqa: S603 - see above
        command, start_new_session=True, stdin=subprocess.DEVNULL
    )
    try:
        time.sleep(_JOINS_S)
        yield child.pid
    finally:
        child.kill()
        child.wait(_WAIT_S)


def _removed(groups: Groups) -> None:
    until = time.monotonic() + _WAIT_S
    while groups.holds and not groups.remove("try") and time.monotonic() < until:
        time.sleep(0.01)
