"""Control groups of replicas on v2, v1 and hybrid hosts: as much as the host lets us, and in words.

One group of the v2 hierarchy (or, where there is none, of the v1 freezer) holds all processes of a
replica, whatever they do, so that none escapes a kill; removing it tells in one system call
whether any is left. On v1 hosts ``cpu`` and ``memory`` are further groups beside it.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from hyperion.adapters.runtime import tree

PREFIX = "hyperion-"
"""Of the directories of agents in each hierarchy."""
_RT_ALL_US, _RT_EACH_US = 300_000, 15_000
"""Of each second, what all replicas and one of them may run as real-time at most, on v1 hosts whose
kernel counts that by group. None of them does, but for the moment in which it is paused. One that
has used up its part would stand in the queue for the rest of the second, so it is not small: some
five pauses a second. Others on the machine, three agents in a rehearsal too, have theirs; of more
than 20 replicas the further ones get none."""
_RT_STANDBY_US = 120_000
"""Likewise of a standby, which is real-time for as long as it waits to be wanted."""
_SWEEPS = 8
"""How often the members of a v1 group are listed and killed in one go."""


class _Parent(Struct, frozen=True):
    """A directory in which groups of replicas can be made."""

    path: str
    version: int
    controllers: frozenset[str] = frozenset()


class Cgroups:
    """Makes, fills in, kills and removes the groups of replicas; none where the host refuses."""

    def __init__(self, name: str, *, enabled: bool = True, proc: Path = Path("/proc/self")) -> None:
        """``name`` is that of our own directory in each hierarchy. Not ``enabled``: no groups."""
        mounts = _mounts(proc) if enabled else {}
        v2 = _v2_base(mounts, name)
        v1_wanted = ("cpu", "memory") if v2 else ("cpu", "memory", "freezer")
        v1 = {c: b for c in v1_wanted if (b := _v1_base(mounts, c, name))}
        self._hybrid = v2 is not None and any(key for key in mounts if key)
        self._why_not = "not permitted" if mounts else "none found" if enabled else "switched off"
        self._track = v2 or v1.get("freezer")
        self._limits: dict[str, _Parent] = {}
        for controller in ("cpu", "memory"):
            if v2 and controller in v2.controllers:
                self._limits[controller] = v2
            elif controller in v1:
                self._limits[controller] = v1[controller]
        bases = [self._track, *self._limits.values()]
        self._bases = list(dict.fromkeys(b.path for b in bases if b is not None))

    @property
    def holds(self) -> bool:
        """Whether every process of a replica can be found by its group."""
        return self._track is not None

    def create(
        self, replica: str, cpus_milli: int, memory_mib: int, *, standby: bool = False
    ) -> list[str]:
        """Make the groups and set the limits; the paths to join, the one to kill by first.

        CPU is given by weight, not by quota: idle CPUs may be used by anyone, and under contention
        each gets by its request. Memory is limited only where the replica asked for some.
        """
        wanted = [self._track]
        cpu, memory = self._limits.get("cpu"), self._limits.get("memory")
        if cpus_milli > 0:
            wanted.append(cpu)
        if memory_mib > 0:
            wanted.append(memory)
        paths = list(dict.fromkeys(f"{base.path}/{replica}" for base in wanted if base))
        for path in paths:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
        if cpu and cpus_milli > 0:
            if cpus_milli != 1000:
                _limit_cpu(f"{cpu.path}/{replica}", cpu.version, cpus_milli)
            if cpu.version == 1:
                if not _allow_realtime(cpu.path, _RT_ALL_US):
                    _take_back(os.path.dirname(cpu.path), cpu.path)
                    _allow_realtime(cpu.path, _RT_ALL_US)
                runtime_us = _RT_STANDBY_US if standby else _RT_EACH_US
                _allow_realtime(f"{cpu.path}/{replica}", runtime_us)
        if memory and memory_mib > 0:
            _limit_memory(f"{memory.path}/{replica}", memory.version, memory_mib << 20)
        return paths

    def group(self, replica: str) -> str:
        """The group that holds all processes of the replica; empty where there is none."""
        return f"{self._track.path}/{replica}" if self._track else ""

    def places(self, replica: str) -> list[str]:
        """All groups that it has, the one to kill by first."""
        bases = (self._track, *self._limits.values())
        paths = dict.fromkeys(f"{base.path}/{replica}" for base in bases if base)
        return [path for path in paths if os.path.isdir(path)]

    def members(self, replica: str) -> list[int]:
        """Processes in the replica's group and the groups below it."""
        if self._track is None:
            return []
        found: list[int] = []
        for path in _subtree(f"{self._track.path}/{replica}"):
            with contextlib.suppress(OSError), open(f"{path}/cgroup.procs") as procs:
                found += map(int, procs)
        return found

    def kill(self, replica: str) -> None:
        """SIGKILL to every process of the replica, forks in progress included."""
        if self._track is None:
            return
        group = f"{self._track.path}/{replica}"
        if self._track.version == 2:
            try:
                _write(f"{group}/cgroup.kill", "1")
            except FileNotFoundError:
                if os.path.isdir(group):  # a kernel before 5.14 has no cgroup.kill
                    self._kill_members(replica)
        else:
            with _frozen(group):
                self._kill_members(replica)

    def remove(self, replica: str) -> bool:
        """Remove the replica's groups. False: a process is still in one of them."""
        gone = True
        for base in self._bases:
            self._give_back(f"{base}/{replica}", base)
            try:
                os.rmdir(f"{base}/{replica}")
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                gone = _remove_subtree(f"{base}/{replica}") and gone
        return gone

    def ran_out_of_memory(self, replica: str) -> bool:
        """Whether the kernel has killed a process of it for exceeding its memory limit."""
        base = self._limits.get("memory")
        if base is None:
            return False
        name = "memory.events" if base.version == 2 else "memory.oom_control"
        try:
            lines = Path(f"{base.path}/{replica}/{name}").read_text().splitlines()
        except OSError:
            return False
        return any(x.startswith("oom_kill ") and not x.endswith(" 0") for x in lines)

    def replicas(self) -> list[str]:
        """Names of all groups that are there."""
        if self._track is None:
            return []
        with contextlib.suppress(OSError):
            return [
                x.name for x in os.scandir(self._track.path) if x.is_dir() and x.name != ".probe"
            ]
        return []

    def abilities(self) -> dict[str, str]:
        def how(controller: str, word: str) -> str:
            base = self._limits.get(controller)
            return f"{word} (cgroup v{base.version})" if base else f"no ({self._why_not})"

        if self._track is None:
            said = {"cgroup": f"no ({self._why_not})", "freeze": "signals only"}
        else:
            said = {
                "cgroup": f"v{self._track.version}" + (" (hybrid)" if self._hybrid else ""),
                "freeze": f"cgroup v{self._track.version}",
            }
        return said | {
            "cpu_limit": how("cpu", "by weight"),
            "memory_limit": how("memory", "yes"),
        }

    def close(self) -> None:
        """Remove our directories where no replica is left in them."""
        for base in self._bases:
            self._give_back(base, base)
            with contextlib.suppress(OSError):
                os.rmdir(base)

    def _give_back(self, group: str, base: str) -> None:
        """The kernel counts what a group may run as real-time for some ms after it is removed."""
        cpu = self._limits.get("cpu")
        if cpu is not None and cpu.version == 1 and cpu.path == base:
            _allow_realtime(group, 0)

    def _kill_members(self, replica: str) -> None:
        for _ in range(_SWEEPS):
            members = self.members(replica)
            if not members:
                return
            tree.signal_all(members, signal.SIGKILL)


def _limit_cpu(group: str, version: int, cpus_milli: int) -> None:
    """One CPU is the kernel's default weight: 100 on v2, 1024 on v1."""
    if version == 2:
        _write(f"{group}/cpu.weight", str(min(10_000, max(1, cpus_milli // 10))))
    else:
        _write(f"{group}/cpu.shares", str(max(2, cpus_milli * 1024 // 1000)))


def _allow_realtime(group: str, runtime_us: int) -> bool:
    """Without it no thread of the group can be real-time, which pausing makes it for an instant.

    False: the parts that others have got leave too little.
    """
    try:
        _write(f"{group}/cpu.rt_runtime_us", str(runtime_us))
    except FileNotFoundError:  # not every kernel counts this
        return True
    except OSError:
        return False
    return True


def _take_back(parent: str, own: str) -> None:
    """From groups of agents that have been killed. A living one without replicas loses its part
    too, and takes it anew with its next replica."""
    for entry in os.scandir(parent):
        if entry.path == own or not entry.name.startswith(PREFIX) or not entry.is_dir():
            continue
        groups = _subtree(entry.path)
        if not any(_holds_processes(group) for group in groups):
            for group in reversed(groups):  # no group may have more than the one around it
                _allow_realtime(group, 0)


def _holds_processes(group: str) -> bool:
    try:
        with open(f"{group}/cgroup.procs") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _limit_memory(group: str, version: int, limit_bytes: int) -> None:
    """Swap counts too. The kernel kills the largest process, so that the shim can tell of it."""
    main, swap, swap_bytes = (
        ("memory.max", "memory.swap.max", 0)
        if version == 2
        else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", limit_bytes)
    )
    _write(f"{group}/{main}", str(limit_bytes))
    with contextlib.suppress(OSError):  # a kernel may account no swap
        _write(f"{group}/{swap}", str(swap_bytes))


@contextlib.contextmanager
def _frozen(group: str) -> Iterator[None]:
    """A v1 freezer group stands still, so that nothing forks between listing and killing."""
    try:
        with contextlib.suppress(OSError):
            _write(f"{group}/freezer.state", "FROZEN")
        yield
    finally:
        with contextlib.suppress(OSError):
            _write(f"{group}/freezer.state", "THAWED")


def _subtree(group: str) -> list[str]:
    """The group and all below it, deepest last."""
    return [path for path, _, _ in os.walk(group)]


def _remove_subtree(group: str) -> bool:
    for path in reversed(_subtree(group)):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# -- where this process may make groups ---------------------------------------------------------


class _Mount(Struct, frozen=True):
    path: str
    root: str
    own: str
    """The path of this process's group within the hierarchy, as seen under ``path``."""


def _mounts(proc: Path) -> dict[str, _Mount]:
    """Hierarchies by controller; the v2 one under the empty name. See cgroups(7), proc(5)."""
    try:
        own = dict(_own_groups((proc / "cgroup").read_text()))
        lines = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return {}
    mounts: dict[str, _Mount] = {}
    for line in lines:
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, path = left.split(" ")[3:5]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        for name in names:
            if name in own and name not in mounts:
                inside = own[name].removeprefix(root.rstrip("/")).rstrip("/")
                mounts[name] = _Mount(path=path, root=root, own=inside)
    return mounts


def _own_groups(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _v1_base(mounts: dict[str, _Mount], controller: str, name: str) -> _Parent | None:
    mount = mounts.get(controller)
    if mount is None:
        return None
    base = _usable(f"{mount.path}{mount.own}/{name}")
    return _Parent(base, 1) if base else None


def _v2_base(mounts: dict[str, _Mount], name: str) -> _Parent | None:
    """Below our own group or the nearest ancestor that lets us, best with both controllers.

    A group with processes of its own cannot hand controllers down, so with limits the place is
    usually an ancestor, such as the root for root or ``app.slice`` in a user's session.
    """
    mount = mounts.get("")
    if mount is None:
        return None
    best: _Parent | None = None
    place = mount.own
    while True:
        base = _usable(f"{mount.path}{place}/{name}")
        if base:
            found = _Parent(base, 2, _hand_down(f"{mount.path}{place}", base))
            if best is None or len(found.controllers) > len(best.controllers):
                worse, best = best, found
            else:
                worse = found
            if worse is not None:
                with contextlib.suppress(OSError):  # replicas of an earlier agent may be in it
                    os.rmdir(worse.path)
        if not place or (best and len(best.controllers) == 2):
            return best
        place = place.rpartition("/")[0]


def _hand_down(parent: str, base: str) -> frozenset[str]:
    """Which of cpu and memory the groups below ``base`` get."""
    for group in (parent, base):
        for controller in ("cpu", "memory"):
            with contextlib.suppress(OSError):
                _write(f"{group}/cgroup.subtree_control", f"+{controller}")
    with contextlib.suppress(OSError):
        return frozenset(Path(f"{base}/cgroup.subtree_control").read_text().split()) & {
            "cpu",
            "memory",
        }
    return frozenset()


def _usable(base: str) -> str | None:
    """Make ``base`` and see with a real process whether it can be moved below it."""
    probe = f"{base}/.probe"  # no replica can have this name
    try:
        os.makedirs(probe, exist_ok=True)
    except OSError:
        return None
    script = 'echo 0 >"$0/cgroup.procs"'
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", script, probe],
        {},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)],
    )
    moved = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with contextlib.suppress(OSError):
        os.rmdir(probe)
    if moved:
        return base
    with contextlib.suppress(OSError):
        os.rmdir(base)
    return None
