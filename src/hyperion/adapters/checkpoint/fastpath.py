"""The process beside the agent that stops and continues replicas: real-time, in locked memory.

    python -I -S fastpath.py DIRECTORY

It listens on ``DIRECTORY/socket`` (packets of JSON, at most 16 KiB, its own user only) and knows
nothing of jobs: an agent *arms* it with the control groups of a replica under a name, and orders
``freeze``, ``thaw``, ``status``, ``disarm``; ``guard`` says who stands still as soon as a standby
is wanted, ``activate`` and ``rest`` when it is and is not. Every freeze has a hold, after which the
group goes on by itself. ``DIRECTORY/held`` says what stands still and until when, so that a new
process, or the dead-man's script, knows what to let go.

Standard library only, so that it is small and started at once: all of its memory is locked.
"""

import contextlib
import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

if __package__:
    from hyperion.adapters.checkpoint import guards, held
    from hyperion.adapters.checkpoint.freezer import Freezer, Group, Stop
    from hyperion.adapters.checkpoint.held import boot_ms
    from hyperion.adapters.checkpoint.rights import claim_rights, watch
else:  # started by its path
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import guards  # type: ignore[import-not-found,no-redef]
    import held  # type: ignore[import-not-found,no-redef]
    from freezer import Freezer, Group, Stop  # type: ignore[import-not-found,no-redef]
    from held import boot_ms  # type: ignore[no-redef]
    from rights import claim_rights, watch  # type: ignore[import-not-found,no-redef]

MAX_PACKET = 16 << 10
MAX_SETS = 4096
MAX_GROUPS = 64
MAX_NAME = 128
MAX_HOLD_MS = 3_600_000
MAX_PID = 1 << 22
HELD_SHOWN = 48
"""Names in the answer to ``status``, which has to fit into a packet."""
MAX_CLIENTS = 16
IDLE_S = 1.0
CALM_AGAIN_MS = 2
WATCH_AGAIN_MS = 60_000
"""So often it is seen to that the dead-man's script is there."""
SWITCH_S = 0.00005
"""So long at most the thread that writes waits for the one that looks meanwhile."""
LOCK_TRIES = 40
LOCK_PAUSE_S = 0.025
"""The dead-man's script takes the lock for an instant when it looks."""
_LEFT = "left:"
"""Names of what an earlier process has left standing begin so."""
_ROOM = socket.CMSG_SPACE(4)


class Refused(Exception):
    """An order that cannot be taken; its text goes to whoever sent it."""


class Set:
    """What is armed under one name."""

    def __init__(self, groups: list[Group], lines: list[int]) -> None:
        self.groups = groups
        self.lines = lines
        """Of the file that tells what is held."""
        self.until_ms = 0
        """On the clock since boot; 0: it runs."""

    def close(self) -> None:
        for group in self.groups:
            group.close()


class FastPath:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._held = held.Held(f"{directory}/held")
        self.sets: dict[str, Set] = {}
        self.rights: dict[str, Any] = {}
        self._freezer = Freezer()
        self._clients: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._next_ms = 0
        self._parent = os.getppid()
        self._watched_ms = boot_ms()
        self.guards = guards.Guards(self._stop, self._threads, self._tell)
        self._boosted: list[Group] = []
        """Groups whose threads are to be what they were before; once the answer is sent."""
        self.over = False

    def close(self) -> None:
        self._freezer.close()
        self._held.close()

    # -- orders ---------------------------------------------------------------------------------

    def answer(self, packet: bytes, client: int = -1, gate: int = -1) -> bytes:
        """What is answered to one packet; never raises. ``gate`` came with it, if anything did."""
        received_ns = time.monotonic_ns()
        order: Any = None
        try:
            order = json.loads(packet)
            if not isinstance(order, dict):
                raise Refused("an order is an object")
            do = order.get("do")
            act = _ORDERS.get(do) if isinstance(do, str) else None
            if act is None:
                raise Refused("no such order")
            if do == "guard":
                order["client"], order["gate"], gate = client, gate, -1
            said = act(self, order)
        except (Refused, ValueError, OSError, RecursionError) as error:
            said = {"error": str(error)[:500] or type(error).__name__}
        if gate >= 0:
            os.close(gate)
        said["received_ns"] = received_ns
        if isinstance(order, dict) and isinstance(order.get("seq"), int):
            said["seq"] = order["seq"]
        return json.dumps(said).encode()

    def _arm(self, order: dict[str, Any]) -> dict[str, Any]:
        name = _name(order)
        paths, pids = order.get("groups", []), order.get("pids", [])
        if not isinstance(paths, list) or not isinstance(pids, list):
            raise Refused("groups and pids are lists")
        if len(paths) > MAX_GROUPS or len(pids) > MAX_SETS or not (paths or pids):
            raise Refused(f"1 to {MAX_GROUPS} groups, or some pids")
        if not all(isinstance(x, str) and x.startswith("/") and x.isprintable() for x in paths):
            raise Refused("a group is an absolute path")
        if not all(isinstance(x, int) and 1 < x <= MAX_PID for x in pids):
            raise Refused(f"a pid is a number from 2 to {MAX_PID}")
        known = self.sets.get(name)
        if known is None and len(self.sets) >= MAX_SETS:
            raise Refused(f"{MAX_SETS} sets are armed already")
        groups: list[Group] = []
        try:
            groups += [Group(path) for path in paths]
            if pids:
                groups.append(Group("", tuple(pids)))
        except OSError:
            for group in groups:
                group.close()
            raise
        fresh = self._set(groups)
        left = [
            other
            for other, x in self.sets.items()
            if other.startswith(_LEFT) and any(g.shares(paths, pids) for g in x.groups)
        ]
        for old in (name, *left):
            before = self.sets.pop(old, None)
            if before is not None:
                if before.until_ms:
                    for group in groups:
                        group.adopt()
                    self._hold(fresh, max(fresh.until_ms, before.until_ms))
                self._drop(before)
        self.sets[name] = fresh
        return {"held": bool(fresh.until_ms)}

    def _set(self, groups: list[Group]) -> Set:
        lines: list[int] = []
        try:
            for group in groups:
                members = group.path or " ".join(map(str, group.pids))
                lines.append(self._held.add(group.version, members))
        except OSError:
            self._drop(Set(groups, lines))
            raise
        return Set(groups, lines)

    def _drop(self, known: Set) -> None:
        for line in known.lines:
            self._held.drop(line)
        self._boosted = [group for group in self._boosted if group not in known.groups]
        for group in known.groups:
            group.calm()
        self._freezer.retire(known.groups)

    def _disarm(self, order: dict[str, Any]) -> dict[str, Any]:
        name = _name(order)
        self.guards.drop(name)
        known = self.sets.pop(name, None)
        if known is not None:
            if known.until_ms:
                self._let_go(known)
            self._drop(known)
        return {}

    def _freeze(self, order: dict[str, Any]) -> dict[str, Any]:
        hold_ms, known = _hold_ms(order), self._known(order)
        self._hold(known, boot_ms() + hold_ms)  # first, so that a death in between orphans nobody
        stop = self._freezer.freeze(known.groups)
        self._boosted += [group for group in known.groups if group.is_boosted]
        return _told(stop)

    def _thaw(self, order: dict[str, Any]) -> dict[str, Any]:
        known = self._known(order)
        self._let_go(known)
        return {"resumed_ns": time.monotonic_ns()}

    def _guard(self, order: dict[str, Any]) -> dict[str, Any]:
        name, gate = _name(order), order["gate"]
        try:
            victims = order.get("victims")
            if not isinstance(victims, list) or len(victims) > guards.MAX_VICTIMS:
                raise Refused(f"victims is a list of at most {guards.MAX_VICTIMS}")
            pairs = [x for x in victims if isinstance(x, list) and len(x) == 2]
            named = [(_name({"set": x[0]}), _hold_ms({"hold_ms": x[1]})) for x in pairs]
            if len(named) != len(victims):
                raise Refused("each victim is [set, hold_ms]")
            self._known(order)
        except Refused:
            if gate >= 0:
                os.close(gate)
            raise
        self.guards.put(name, named, gate, order["client"])
        return {}

    def _activate(self, order: dict[str, Any]) -> dict[str, Any]:
        self._known(order)
        return self.guards.activate(_name(order))

    def _rest(self, order: dict[str, Any]) -> dict[str, Any]:
        self._known(order)
        return {"realtime": self.guards.rest(_name(order))}

    def _stop(self, victims: list[tuple[str, int]]) -> tuple[dict[str, Any], list[str]]:
        """Let those of them that run stand still, all at the same time."""
        now_ms = boot_ms()
        running = [(name, self.sets[name], hold) for name, hold in victims if name in self.sets]
        running = [(name, known, hold) for name, known, hold in running if not known.until_ms]
        for _, known, hold_ms in running:
            self._hold(known, now_ms + hold_ms)
        groups = [group for _, known, _ in running for group in known.groups]
        stop = self._freezer.freeze(groups)
        self._boosted += [group for group in groups if group.is_boosted]
        return _told(stop), [name for name, _, _ in running]

    def _threads(self, name: str) -> list[int]:
        known = self.sets.get(name)
        return [tid for group in known.groups for tid in group.threads()] if known else []

    def _tell(self, client: int, packet: bytes) -> None:
        """Nobody is waited for: an agent that does not read sees for itself what has happened."""
        with contextlib.suppress(KeyError, OSError):
            self._clients[client].send(packet)

    def _status(self, order: dict[str, Any]) -> dict[str, Any]:
        if "set" in order:
            known = self._known(order)
            still = all(group.stands() for group in known.groups)
            return {"still": still, "held": bool(known.until_ms)}
        names = [name[:MAX_NAME] for name, x in self.sets.items() if x.until_ms]
        return {
            "sets": len(self.sets),
            "held": names[:HELD_SHOWN],
            "held_count": len(names),
            "rights": self.rights,
        }

    def _leave(self, order: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Its agent ends: unless something stands still, this process is of no more use."""
        if any(known.until_ms for known in self.sets.values()):
            raise Refused("something stands still")
        self.over = True
        return {}

    def _known(self, order: dict[str, Any]) -> Set:
        known = self.sets.get(_name(order))
        if known is None:
            raise Refused("no such set")
        return known

    def _hold(self, known: Set, until_ms: int) -> None:
        known.until_ms = until_ms
        self._next_ms = min(self._next_ms or until_ms, until_ms)
        for line in known.lines:
            self._held.mark(line, until_ms)

    def _let_go(self, known: Set) -> None:
        self._freezer.go_on(known.groups)
        known.until_ms = 0
        for line in known.lines:
            self._held.mark(line, 0)

    # -- what outlives it -----------------------------------------------------------------------

    def take_over(self, left: list[tuple[int, int, str]]) -> None:
        """What an earlier process left standing is held on, until its time."""
        for until_ms, version, members in left:
            with contextlib.suppress(OSError, ValueError):
                pids = () if version else tuple(map(int, members.split()))
                group = Group(members if version else "", pids)
                group.adopt()
                known = self.sets[f"{_LEFT}{members}"] = self._set([group])
                self._hold(known, until_ms)
        self._held.publish()

    def expire(self) -> None:
        """Let go on what has stood still for its whole hold."""
        now_ms, left = boot_ms(), []
        for name, known in list(self.sets.items()):
            if not known.until_ms:
                continue
            if known.until_ms > now_ms:
                left.append(known.until_ms)
                continue
            self._let_go(known)
            if name.startswith(_LEFT):
                self._drop(self.sets.pop(name))
        self._next_ms = min(left, default=0)

    def calm(self) -> None:
        """What has come to a stand is real-time no more: nobody has to remember that it was."""
        for group in self._boosted:
            if group.stands():
                group.calm()
        self._boosted = [group for group in self._boosted if group.is_boosted]

    # -- the loop -------------------------------------------------------------------------------

    def serve(self, server: socket.socket) -> None:
        self._poll.register(server, select.POLLIN)
        while True:
            ready = self._poll.poll(self._wait_ms())
            for fd, _ in ready:
                if fd == self.guards.fd:
                    self.guards.answer_knocks()
                elif fd == server.fileno():
                    self._admit(server)
                else:
                    self._take(fd)
            if self.guards.calm_at_ms:
                self.guards.calm()
            if self._boosted:
                self.calm()
            if self._next_ms and boot_ms() >= self._next_ms:
                self.expire()
            if boot_ms() - self._watched_ms > WATCH_AGAIN_MS:
                watch(self._directory)  # it ends at once where one is there
                self._watched_ms = boot_ms()
            alone = not ready and not self._clients and self._is_left()
            if self.over or (alone and not self._next_ms):
                self._held.unpublish()
                return  # its agent has gone, and nothing stands still

    def _wait_ms(self) -> float:
        """Until something is to be done even if nobody asks for it."""
        now_ms = boot_ms()
        wait_ms = 1000 * IDLE_S
        for at_ms in (self._next_ms, self.guards.calm_at_ms):
            if at_ms:
                wait_ms = min(wait_ms, max(0, at_ms - now_ms))
        return min(wait_ms, CALM_AGAIN_MS) if self._boosted else wait_ms

    def _is_left(self) -> bool:
        return os.getppid() != self._parent or not os.path.isdir(self._directory)

    def _admit(self, server: socket.socket) -> None:
        try:
            client, _ = server.accept()
        except OSError:  # too many open files, say: never a loop without a breath
            time.sleep(0.01)
            return
        _, uid, _ = struct.unpack(
            "3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        if uid not in (os.getuid(), 0) or len(self._clients) >= MAX_CLIENTS:
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._poll.register(client, select.POLLIN)

    def _take(self, fd: int) -> None:
        """Answer one packet."""
        client = self._clients[fd]
        try:
            packet, with_it, flags, _ = client.recvmsg(MAX_PACKET, _ROOM)
            gate = guards.descriptor(with_it)
            if packet and flags & socket.MSG_TRUNC:
                packet = b'"too long"'
            if packet:
                client.send(self.answer(packet, fd, gate))
                self.calm()
                if gate >= 0 and self.guards.fd >= 0:
                    self._poll.register(self.guards.fd, select.POLLIN)
                return
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return
        self._poll.unregister(fd)
        del self._clients[fd]
        client.close()


def _told(stop: Stop) -> dict[str, Any]:
    return {
        "called_ns": stop.called_ns,
        "stopped_ns": stop.stopped_ns,
        "confirmed_ns": stop.confirmed_ns,
        "how": stop.how,
        "threads": stop.threads,
        "boosted": stop.boosted,
        "stragglers": stop.stragglers,
    }


def _name(order: dict[str, Any]) -> str:
    name = order.get("set")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not _is_plain(name):
        raise Refused(f"set is a name of at most {MAX_NAME} characters")
    return name


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and not name.startswith(_LEFT)


def _hold_ms(order: dict[str, Any]) -> int:
    hold_ms = order.get("hold_ms")
    if type(hold_ms) is not int or not 0 < hold_ms <= MAX_HOLD_MS:
        raise Refused(f"hold_ms is a whole number from 1 to {MAX_HOLD_MS}")
    return hold_ms


def main(directory: str) -> int:
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(lock):
        print(f"another fast path serves {directory}", file=sys.stderr)
        return 75
    path = f"{directory}/socket"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o077)
    server.bind(path)
    server.listen(MAX_CLIENTS)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the script is nobody's zombie
    guards.block()
    left = held.read(f"{directory}/held")
    rights = claim_rights()  # before there is a second thread, which inherits them
    made = FastPath(directory)
    made.rights = rights
    made.take_over(left)
    script = -1
    with contextlib.suppress(OSError):  # it has ended already, for an older one is there
        script = os.pidfd_open(watch(directory))
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.disable()  # reference counts do: nothing here makes circles
    made.serve(server)
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(script, signal.SIGTERM)
    return 0


def _locked(lock: int) -> bool:
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_PAUSE_S)
    return False


_ORDERS = {
    "arm": FastPath._arm,
    "disarm": FastPath._disarm,
    "freeze": FastPath._freeze,
    "thaw": FastPath._thaw,
    "guard": FastPath._guard,
    "activate": FastPath._activate,
    "rest": FastPath._rest,
    "status": FastPath._status,
    "leave": FastPath._leave,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
