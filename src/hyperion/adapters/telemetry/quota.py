"""The CPU and memory that control groups leave to this process, v1 and v2 alike."""

from collections.abc import Iterator
from pathlib import Path

_NO_LIMIT_BYTES = 1 << 60
"""A v1 group without a limit says a number near 2**63."""


def cpus_milli(proc: Path = Path("/proc/self")) -> int | None:
    """The tightest CPU quota above this process in thousandths of a CPU; None without one."""
    found = []
    for group in _groups(proc, "cpu"):
        words = _words(group / "cpu.max") or [
            *_words(group / "cpu.cfs_quota_us"),
            *_words(group / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            found.append(max(1, int(words[0]) * 1000 // int(words[1])))
    return min(found, default=None)


def memory_bytes(proc: Path = Path("/proc/self")) -> int | None:
    """The tightest memory limit above this process; None without one."""
    found = []
    for group in _groups(proc, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        if len(words) == 1 and words[0].isdigit() and int(words[0]) < _NO_LIMIT_BYTES:
            found.append(int(words[0]))
    return min(found, default=None)


def _groups(proc: Path, controller: str) -> Iterator[Path]:
    """Our group of the controller in either hierarchy, then its ancestors."""
    try:
        own = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return
    paths = {name: path for _, names, path in own for name in names.split(",")}
    for line in mounts:
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        name = "" if kind == "cgroup2" else controller
        if kind not in ("cgroup", "cgroup2") or name not in paths:
            continue
        if kind == "cgroup" and controller not in options.split(","):
            continue
        root, place = left.split(" ")[3:5]
        mount = Path(place)
        inside = Path(paths[name].removeprefix(root.rstrip("/")).strip("/"))
        yield from (mount / part for part in (inside, *inside.parents))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
