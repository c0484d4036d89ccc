"""``hyperion up``: starts the daemons of a world, restarts those that die, and ends them all.

It forks the daemons from itself after loading what they share, so that its pages are theirs too:
that halves the memory of a world. For that it stays a plain process: one thread, no event loop.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from hyperion.daemon import processes
from hyperion.daemon.premises import CannotStart, Ports, own, trim
from hyperion.daemon.settings import UpSettings
from hyperion.daemon.supervised import SLOW_S, Supervised
from hyperion.daemon.world import (
    WORLD_FILE,
    DaemonPlan,
    RunningDaemon,
    World,
    dialled,
    plan,
    read_world,
    write_world,
)

Mains = Mapping[str, Callable[[Any], int]]
"""Kind of daemon → its blocking main, which takes its settings and returns an exit code."""
Plans = Callable[[UpSettings, Callable[[str], str]], tuple[DaemonPlan, ...]]

CANNOT_START = 78
"""A daemon's exit code for what no restart would mend."""
_FIRST_TRIES = 3
_LOOK_S = 0.02
_LOGS_S = 10.0


class Supervisor:
    """Runs the daemons of ``plans`` until told to stop. One at a time per state directory."""

    def __init__(
        self,
        settings: UpSettings,
        plans: Sequence[DaemonPlan],
        mains: Mains,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._mains = mains
        self._say = say
        self._directory = Path(settings.state_dir)
        logs = self._directory / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._daemons = [Supervised(plan, logs / f"{plan.name}.log") for plan in plans]
        self._by_pid: dict[int, Supervised] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._asked_to_stop = False
        self._is_up = False
        self._logs_seen = 0.0
        self.inherited: list[int] = []
        """Descriptors of ours that children have no use for."""

    def run(self, on_ready: Callable[[World], None]) -> None:
        """Start everything, call ``on_ready``, supervise until SIGTERM, SIGINT or SIGHUP; end all.

        Raises ``CannotStart`` when the world does not come up in time; nothing runs on then.
        """
        before = self._listen_to_signals()
        processes.adopt_orphans()
        processes.share_memory()
        try:
            self._start_up()
            if not self._asked_to_stop:
                self._is_up = True
                on_ready(self._write())
            while not self._asked_to_stop:
                self._step()
        finally:
            self._end()
            signal.set_wakeup_fd(-1)
            for number, action in before.items():
                signal.signal(number, action)
            os.close(self._wake_read)
            os.close(self._wake_write)

    # -- living -------------------------------------------------------------------------------

    def _start_up(self) -> None:
        until = time.monotonic() + self._settings.ready_timeout_s
        while not self._asked_to_stop and not all(d.is_settled for d in self._daemons):
            if time.monotonic() >= until:
                raise CannotStart(self._who_is_late())
            self._step()

    def _step(self) -> None:
        now = time.monotonic()
        tier = min((d.plan.tier for d in self._daemons if not d.was_ready), default=99)
        for daemon in self._daemons:
            if daemon.mark is None and daemon.next_birth <= now and daemon.plan.tier <= tier:
                self._start(daemon)
        changed = [daemon for daemon in self._daemons if daemon.look()]
        if self._reap(now) or changed:
            self._write()
        if now - self._logs_seen > _LOGS_S:
            self._logs_seen = now
            for daemon in self._daemons:
                trim(daemon.log, self._settings.log_limit_mib << 20)
        if not changed:
            self._wait()

    def _start(self, daemon: Supervised) -> None:
        plan = daemon.plan
        Path(plan.settings.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        main, settings = self._mains[plan.kind], plan.settings
        daemon.mark = processes.fork(
            lambda: main(settings),
            title=("hyperion", plan.kind, plan.identity),
            log=daemon.log,
            close=(*self.inherited, self._wake_read, self._wake_write),
        )
        daemon.born = time.monotonic()
        daemon.lives += 1
        self._by_pid[daemon.mark.pid] = daemon
        self._write()

    def _reap(self, now: float) -> bool:
        """Take note of the dead; whether one of them was ours."""
        any_of_ours = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return any_of_ours
            if pid == 0:
                return any_of_ours
            daemon = self._by_pid.pop(pid, None)
            if daemon is not None:
                any_of_ours = True
                self._note_death(daemon, os.waitstatus_to_exitcode(status), now)

    def _note_death(self, daemon: Supervised, code: int, now: float) -> None:
        daemon.died(now, self._settings.restarts_per_minute)
        if self._asked_to_stop:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if (
            not self._is_up
            and not daemon.was_ready
            and (code == CANNOT_START or daemon.failures >= _FIRST_TRIES)
        ):
            raise CannotStart(
                f"{daemon.plan.name} did not start ({how}); the end of {daemon.log}:\n"
                + daemon.tail()
            )
        pace = (
            f"{self._settings.restarts_per_minute} times within a minute: from now on every"
            f" {SLOW_S:g} s; see {daemon.log}"
            if daemon.is_slowed
            else f"starting it again in {max(0.0, daemon.next_birth - now):.1f} s"
        )
        self._say(f"{daemon.plan.name} ended ({how}); {pace}")

    def _wait(self) -> None:
        """Until a child dies, a signal comes, or the next thing is due."""
        now = time.monotonic()
        wait_s = _LOGS_S
        for daemon in self._daemons:
            if daemon.mark is None:
                wait_s = min(wait_s, max(0.0, daemon.next_birth - now) + 0.001)
            if not daemon.is_settled:
                wait_s = min(wait_s, _LOOK_S if now - daemon.born < 30 else 1.0)
        if select.select([self._wake_read], [], [], wait_s)[0]:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    # -- ending -------------------------------------------------------------------------------

    def _end(self) -> None:
        """Agents first, so that their replicas end in good order; the federation last."""
        self._asked_to_stop = True
        for tier in sorted({d.plan.tier for d in self._daemons}, reverse=True):
            living = [d for d in self._daemons if d.plan.tier == tier and d.mark is not None]
            for daemon in living:
                with suppress(ProcessLookupError):
                    os.kill(daemon.mark.pid, signal.SIGTERM)  # type: ignore[union-attr] # living
            until = time.monotonic() + self._settings.stop_timeout_s
            while any(d.mark for d in living) and time.monotonic() < until:
                if not self._reap(time.monotonic()):
                    select.select([self._wake_read], [], [], 0.05)
                    with suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
            for daemon in living:
                if daemon.mark is not None:
                    self._say(
                        f"{daemon.plan.name} did not end within"
                        f" {self._settings.stop_timeout_s:g} s; it is killed"
                    )
                    os.kill(daemon.mark.pid, signal.SIGKILL)
        processes.end_all_children(grace_s=1.0)

    def _who_is_late(self) -> str:
        late = [d for d in self._daemons if not d.is_settled]
        words = ", ".join(
            d.plan.name
            + (" (not started: it waits for the others)" if not d.lives else "")
            + (" (serves, but has not reached the peer above it)" if d.serves else "")
            for d in late
        )
        first = next((d for d in late if d.lives), late[0])
        return (
            f"not ready within {self._settings.ready_timeout_s:g} s: {words}; the end of"
            f" {first.log}:\n{first.tail()}"
        )

    # -- telling ------------------------------------------------------------------------------

    def _write(self) -> World:
        mark = processes.mark_of(os.getpid())
        assert mark is not None
        federation = self._daemons[0]
        daemons = tuple(_shown(daemon) for daemon in self._daemons)
        world = World(
            world=self._settings.world,
            state_dir=str(self._directory),
            supervisor=mark,
            ready=self._is_up and all(d.is_settled for d in self._daemons),
            address=daemons[0].address,
            rest=federation.ready.rest if federation.ready else "",
            daemons=daemons,
        )
        write_world(world)
        return world

    def _listen_to_signals(self) -> dict[int, signal.Handlers | Callable[..., object] | int | None]:
        def ask_to_stop(*_: object) -> None:
            self._asked_to_stop = True

        before: dict[int, signal.Handlers | Callable[..., object] | int | None] = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                before[number] = signal.signal(number, ask_to_stop)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        return before


def _shown(daemon: Supervised) -> RunningDaemon:
    listen = getattr(daemon.plan.settings, "listen", "")
    return RunningDaemon(
        name=daemon.plan.name,
        kind=daemon.plan.kind,
        process=daemon.mark,
        address=dialled(listen) if listen else "",
        rest=daemon.ready.rest if daemon.ready else "",
        restarts=max(0, daemon.lives - 1),
        log=str(daemon.log),
    )


# -- the two commands -----------------------------------------------------------------------------


def up(settings: UpSettings, mains: Mains | None = None, plans: Plans = plan) -> int:
    """Bring the world up and supervise it until Ctrl-C, or with ``detach`` until ``down``.

    Says on stdout how it goes; returns an exit code. ``mains`` are the real ones by default.
    """
    if settings.detach:
        return _detached(settings, mains, plans)
    return _supervise(settings, mains, plans, print, lambda world: _welcome(world, print))


def down(settings: UpSettings) -> int:
    """End what ``up`` started in this state directory; returns an exit code."""
    directory = Path(settings.state_dir)
    world = read_world(directory)
    if world is None:
        print(f"nothing is up in {directory}")
        return 0
    allowed_s = 3 * settings.stop_timeout_s + 5
    was_alive = processes.is_alive(world.supervisor)
    gone = processes.end(world.supervisor, signal.SIGTERM, allowed_s)
    if not gone:
        processes.end(world.supervisor, signal.SIGKILL, 5)
    ended, stubborn = _end_leftovers(directory, settings.stop_timeout_s)
    if stubborn:
        print(f"could not end: {', '.join(stubborn)}", file=sys.stderr)
        return 1
    (directory / WORLD_FILE).unlink(missing_ok=True)
    if was_alive or ended:
        print(f"{world.world} in {directory} is down; its state stays, `hyperion up` resumes it")
    else:
        print(f"nothing was up any more in {directory}")
    return 0


def _supervise(
    settings: UpSettings,
    mains: Mains | None,
    plans: Plans,
    say: Callable[[str], None],
    on_ready: Callable[[World], None],
    inherited: Sequence[int] = (),
) -> int:
    directory = Path(settings.state_dir)
    ports = Ports()
    lock = -1
    try:
        lock = own(directory)
        _end_leftovers(directory, settings.stop_timeout_s)
        daemons = plans(settings, ports.reserve)
        supervisor = Supervisor(settings, daemons, mains or _load(settings, daemons), say)
        supervisor.inherited = [lock, *inherited, *ports.descriptors()]
        supervisor.run(on_ready)
        say(f"{settings.world} in {directory} is down; its state stays, `hyperion up` resumes it")
    except (CannotStart, OSError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    finally:
        ports.close()
        if lock >= 0:
            (directory / WORLD_FILE).unlink(missing_ok=True)
            os.close(lock)
    return 0


def _load(settings: UpSettings, daemons: Sequence[DaemonPlan]) -> Mains:
    """Make the certificates that are missing, and load what the daemons share, once for all."""
    from hyperion.daemon import enrolment

    wanted = [(d.kind, d.identity, Path(d.settings.credentials)) for d in daemons]
    authority = Path(daemons[0].settings.state_dir) / "authority"
    for where in (authority, *(place for _, _, place in wanted)):
        where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        enrolment.enrol(authority, settings.trust_domain, wanted)
    except Exception as fault:
        raise CannotStart(str(fault)) from None
    with _one_thread():
        from hyperion.daemon import agent, federation, scheduler
    return {"federation": federation.main, "scheduler": scheduler.main, "agent": agent.main}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Numpy's linear algebra starts a thread per core when loaded; a fork must not find any."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _detached(settings: UpSettings, mains: Mains | None, plans: Plans) -> int:
    """Supervise in a process of its own; return when the world is up, or with why it is not."""
    logs = Path(settings.state_dir) / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    heard, told = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(heard)
            os.setsid()
            code = _supervise_quietly(settings, mains, plans, logs / "supervisor.log", told)
        finally:
            os._exit(code)
    os.close(told)
    with os.fdopen(heard) as words:
        said = words.read()
    if said.startswith("{"):
        _welcome(msgspec.json.decode(said, type=World), print)
        return 0
    print(said.strip() or f"error: see {logs / 'supervisor.log'}", file=sys.stderr)
    os.waitpid(pid, 0)
    return 1


def _supervise_quietly(
    settings: UpSettings, mains: Mains | None, plans: Plans, log: Path, told: int
) -> int:
    trim(log, settings.log_limit_mib << 20)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(told, 2)  # a fault on the way up is for whoever waits for us

    def on_ready(world: World) -> None:
        os.write(told, msgspec.json.encode(world))
        os.close(told)
        os.dup2(output, 2)

    def say(text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f"{stamp} {text}", flush=True)

    return _supervise(settings, mains, plans, say, on_ready, (told,))


def _end_leftovers(directory: Path, wait_s: float) -> tuple[int, list[str]]:
    """End daemons whose supervisor was killed: how many lived, and which could not be ended."""
    world = read_world(directory)
    if world is None or processes.is_alive(world.supervisor):
        return 0, []
    living = [d for d in reversed(world.daemons) if d.process and processes.is_alive(d.process)]
    stubborn = []
    for daemon in living:
        assert daemon.process is not None
        if processes.end(daemon.process, signal.SIGTERM, wait_s):
            continue
        if not processes.end(daemon.process, signal.SIGKILL, 5):
            stubborn.append(daemon.name)
    return len(living), stubborn


def _welcome(world: World, say: Callable[[str], None]) -> None:
    clusters = [d.name.removeprefix("scheduler-") for d in world.daemons if d.kind == "scheduler"]
    say(f"Hyperion-X is up: federation, {', '.join(clusters)}")
    say(f"  gRPC    {world.address} (mutual TLS)")
    if world.rest:
        say(f"  REST    {world.rest}")
    say(f"  state   {world.state_dir}")
    say(f"  logs    {Path(world.state_dir) / 'logs'}")
    say("Next:     hyperion run -- echo hello")
