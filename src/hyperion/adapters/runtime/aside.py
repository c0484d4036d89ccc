"""Sets a replica that stands still aside on disk, by CRIU, and brings it back where it was.

The whole tree goes, shim included; so the claim stays true, and it is the same replica with the
same pids when it comes back. ``aside`` in the replica's directory is there once all of it is
written. It is of this boot only, and of no use to anybody else.
"""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hyperion.adapters.runtime.cgroup import Cgroups
from hyperion.adapters.runtime.ledger import Claim, claimed_at_ms, write_stop
from hyperion.adapters.runtime.replica import Replica
from hyperion.control.messages import ReplicaExited, ReplicaStarted
from hyperion.model.ids import AllocationId
from hyperion.model.node import CRIU

_T = TypeVar("_T")
NEEDED = (4, 1)
"""Older ones cannot restore on kernels from 6.13 on."""
WITHIN_S = 600.0
"""To write or read an image: some 300 GiB at 0.5 GiB/s."""
_ASK_WITHIN_S = 20.0
_REAP_WITHIN_S = 10.0
_JOIN = 'for group in "$@"; do [ "$group" = -- ] && break; echo 0 >"$group/cgroup.procs"; done; '
_JOIN += 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'


class SetsAside:
    """What ``ProcessRuntime`` has for it."""

    _replicas: dict[str, Replica]
    _cgroups: Cgroups
    _boot: str
    _loop: asyncio.AbstractEventLoop

    def _with_criu(self, abilities: Mapping[str, str]) -> Mapping[str, str]:
        criu = version()
        return {**abilities, CRIU: criu} if criu else abilities

    async def set_aside(self, allocation: AllocationId) -> int:
        replica = self._replicas.get(str(allocation))
        if replica is None:
            raise OSError("it does not run")
        return await _to_its_end(self._set_aside(replica))

    async def _set_aside(self, replica: Replica) -> int:
        async with replica.moving:
            if replica.exited is None and is_there(replica.directory):
                return _size_bytes(image(replica.directory))  # the order came again
            if replica.pidfd < 0 or replica.exited is not None:
                raise OSError("it does not run")
            return await self._write(replica)

    async def _write(self, replica: Replica) -> int:
        self._loop.remove_reader(replica.pidfd)  # that it ends now is no end of it
        try:
            size = await write(replica.pid, await self._members(replica), replica.directory)
        except OSError:
            self._loop.add_reader(replica.pidfd, self._on_end, replica)
            raise
        self._unwatch(replica)
        if replica.is_child:
            await reap(replica.pid)
        if replica.kill_at is not None:  # it was told to end meanwhile
            drop(replica.directory)
            await self._take_over(replica, Claim(replica.pid, self._boot))
            raise OSError("it is to end")
        return size

    async def bring_back(self, allocation: AllocationId) -> None:
        await _to_its_end(self._bring_back(self._replicas[str(allocation)]))

    async def _bring_back(self, replica: Replica) -> None:
        async with replica.moving:
            if not is_there(replica.directory):
                return  # it has come back, or ended, since that was ordered
            try:
                await read(replica.directory, self._cgroups.places(replica.name))
            finally:
                drop(replica.directory)
                await self._take_over(replica, Claim(replica.pid, self._boot))

    def is_aside(self, allocation: AllocationId) -> bool:
        replica = self._replicas.get(str(allocation))
        return replica is not None and replica.exited is None and is_there(replica.directory)

    async def _settled(self, allocation: AllocationId) -> Replica | None:
        """That replica, once it is on its way neither to disk nor back: CRIU, which has joined its
        groups, must not be taken for it. None: it does not run."""
        replica = self._replicas.get(str(allocation))
        if replica is None:
            return None
        async with replica.moving:
            return replica if replica.pid and replica.exited is None else None

    def _lies_aside(self, replica: Replica, claim: Claim) -> bool:
        """Found so by a new agent: it has begun, and is there."""
        if not claim.pid or claim.boot != self._boot or not is_there(replica.directory):
            return False
        if replica.kill_at is not None:  # it is to end, and has nothing to end but this
            drop(replica.directory)
            return False
        replica.pid, replica.started_at_ms = claim.pid, claimed_at_ms(replica.directory)
        self._say(replica, replica.started())
        return True

    def _drop_aside(self, replica: Replica) -> bool:
        """It is to end: nothing of it runs, and nothing comes back."""
        if not is_there(replica.directory):
            return False
        drop(replica.directory)
        write_stop(replica.directory, "")
        return True

    async def _members(self, replica: Replica) -> list[int]:
        raise NotImplementedError

    def _on_end(self, replica: Replica) -> None:
        raise NotImplementedError

    def _unwatch(self, replica: Replica) -> None:
        raise NotImplementedError

    def _say(self, replica: Replica, event: ReplicaStarted | ReplicaExited) -> None:
        raise NotImplementedError

    async def _take_over(self, replica: Replica, claim: Claim) -> None:
        raise NotImplementedError


async def _to_its_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Whoever waits for it may be cancelled, as an agent that ends is; the work goes on, and that
    is waited for: CRIU ended halfway leaves a program that is neither here nor there."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else asks for it
        raise


def program() -> str:
    return shutil.which("criu") or ""


def version() -> str:
    """Of a CRIU that works on this host; empty: there is none."""
    own = program()
    try:
        said = _asked(own, "--version") if own and os.geteuid() == 0 else ""
        found = re.search(r"(\d+)\.(\d+)[\d.]*", said)
        if found is None or (int(found[1]), int(found[2])) < NEEDED:
            return ""
        return found[0] if "Looks good" in _asked(own, "check") else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def _asked(*command: str) -> str:
    done = subprocess.run(  # noqa: S603 - what the host's administrator has put there
        command, capture_output=True, text=True, timeout=_ASK_WITHIN_S, check=False
    )
    return done.stdout + done.stderr


def image(directory: str) -> str:
    return f"{directory}/aside"


def is_there(directory: str) -> bool:
    return os.path.isdir(image(directory))


def drop(directory: str) -> None:
    for name in (image(directory), f"{image(directory)}.part"):
        shutil.rmtree(name, ignore_errors=True)


async def write(pid: int, members: Sequence[int], directory: str) -> int:
    """Write the tree of that process, and end it; the bytes. ``OSError``: it runs on. ``members``:
    all that should be in the tree."""
    if stray := _stray(pid, members):
        raise OSError(f"its process {stray} has left its parents, and would run on")
    draft = f"{image(directory)}.part"
    drop(directory)
    os.mkdir(draft, 0o700)
    words = ["dump", "--tree", str(pid), "--images-dir", draft, "--log-file", "log", "-v1"]
    try:
        await _run([program(), *words, "--manage-cgroups=ignore", "--file-locks"], f"{draft}/log")
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    pids = " ".join(map(str, {pid, *members}))
    Path(draft, "pids").write_text(pids, encoding="ascii")  # noqa: ASYNC240 - a few bytes
    os.rename(draft, image(directory))
    return _size_bytes(image(directory))


def _size_bytes(own: str) -> int:
    return sum(x.stat().st_size for x in Path(own).glob("pages-*.img"))


async def read(directory: str, groups: Sequence[str]) -> None:
    """Let it go on, in these control groups. ``OSError``: it cannot."""
    own = image(directory)
    await _gone(own)
    words = ["restore", "--images-dir", own, "--log-file", "back.log", "-v1", "--restore-detached"]
    criu = [program(), *words, "--manage-cgroups=ignore"]
    await _run(["/bin/sh", "-c", _JOIN, "sh", *groups, "--", *criu], f"{own}/back.log")
    drop(directory)


async def _gone(own: str) -> None:
    """What was ended is a zombie until whoever is its parent now has looked; until then its number
    is not free."""
    pids = Path(own, "pids").read_text(encoding="ascii").split()  # noqa: ASYNC240 - a few bytes
    until = time.monotonic() + _REAP_WITHIN_S
    while _any_alive(pids) and time.monotonic() < until:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


def _any_alive(pids: Sequence[str]) -> bool:
    return any(os.path.exists(f"/proc/{pid}") for pid in pids)


def _stray(root: int, members: Sequence[int]) -> int:
    """One of them that does not descend from ``root`` any more; 0: all do."""
    for member in members:
        at = member
        while at not in (root, 0, 1):
            at = _parent(at)
        if at != root and os.path.exists(f"/proc/{member}"):
            return member
    return 0


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


async def reap(pid: int) -> None:
    """Of our own child that has been written nothing stays, so that its number is free."""
    until = time.monotonic() + _REAP_WITHIN_S
    while time.monotonic() < until:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:  # noqa: ASYNC222 - it does not wait
                return
        except ChildProcessError:
            return
        await asyncio.sleep(0.005)
    raise OSError(f"process {pid} has not ended")


async def _run(command: Sequence[str], log: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            code = await process.wait()
    except TimeoutError:
        raise OSError(f"CRIU has not done it within {WITHIN_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise OSError(f"CRIU ends with {code}: {_last_error(log)}")


def _last_error(log: str) -> str:
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError:
        return "it says nothing"
    errors = [x for x in lines if "Error" in x and "RLIMIT_NOFILE" not in x]
    return (errors or lines or ["it says nothing"])[0][:200]
