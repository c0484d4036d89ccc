"""``hyperion up`` over stand-in daemons: start, restart, give up, detach, and leave nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperion.daemon import processes
from hyperion.daemon.premises import CannotStart, Ports, own, trim
from hyperion.daemon.readiness import read_ready, say_ready
from hyperion.daemon.settings import UpSettings
from hyperion.daemon.supervised import SLOW_S, Supervised
from hyperion.daemon.supervisor import down
from hyperion.daemon.world import WORLDS, ProcessMark, plan, read_world

LAUNCH = """
import json, os, signal, socket, subprocess, sys, time
from hyperion.daemon.readiness import say_ready
from hyperion.daemon.settings import UpSettings
from hyperion.daemon.supervisor import up

def serve(settings):
    print("serving", type(settings).__name__, flush=True)
    ours = socket.create_server(("127.0.0.1", int(settings.listen.rpartition(":")[2])))
    say_ready(settings.state_dir, port=ours.getsockname()[1])
    signal.sigwait({signal.SIGTERM})
    print("told to stop", flush=True)
    return 0

def dial(settings):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if os.environ.get("LEAVE"):
        subprocess.Popen(["sleep", os.environ["LEAVE"]], start_new_session=True)
    say_ready(settings.state_dir, attached=False)
    say_ready(settings.state_dir, attached=True)
    signal.sigwait({signal.SIGTERM})
    return 0

def refuse(settings):
    print("the disk is on fire", flush=True)
    return 78

def die(settings):
    print("I cannot", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def mute(settings):
    print("still thinking", flush=True)
    time.sleep(60)

def lonely(settings):
    say_ready(settings.state_dir, attached=False)
    time.sleep(60)

def deaf(settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say_ready(settings.state_dir)
    while True:
        time.sleep(1)

mains = {"federation": serve, "scheduler": serve, "agent": dial}
for kind, main in json.loads(os.environ.get("MAINS", "{}")).items():
    mains[kind] = globals()[main]
settings = UpSettings(**json.loads(sys.argv[1]))
raise SystemExit(up(settings, mains))
"""


class Launched:
    """A supervisor in a process of its own."""

    def __init__(self, state_dir: Path, mains=None, environment=None, **settings):
        self.state_dir = state_dir
        self.settings = {"state_dir": str(state_dir), "stop_timeout_s": 5.0} | settings
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, json.dumps(self.settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MAINS": json.dumps(mains or {}), **(environment or {})},
        )

    def await_ready(self):
        return self.await_world(lambda world: world.ready)

    def await_world(self, wanted, limit_s=20.0):
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            world = read_world(self.state_dir)
            if world is not None and wanted(world):
                return world
            if self.process.poll() is not None and not self.settings.get("detach"):
                raise AssertionError(f"it ended: {self.process.communicate()}")
            time.sleep(0.01)
        raise AssertionError(f"not within {limit_s} s: {read_world(self.state_dir)}")

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.finish()

    def finish(self):
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def log(self, name):
        return (self.state_dir / "logs" / f"{name}.log").read_text()


@pytest.fixture
def launch(tmp_path):
    started = []

    def begin(*arguments, **settings):
        launched = Launched(tmp_path / "state", *arguments, **settings)
        started.append(launched)
        return launched

    yield begin
    for launched in started:
        world = read_world(launched.state_dir)
        if launched.process.poll() is None:
            launched.process.kill()
            launched.process.communicate()
        if world is not None:
            down(UpSettings(state_dir=str(launched.state_dir), stop_timeout_s=1.0))


def marks(world):
    return [world.supervisor, *(d.process for d in world.daemons if d.process)]


def assert_all_gone(world):
    assert not [mark for mark in marks(world) if processes.is_alive(mark)]


def test_a_world_starts_in_order_and_stops_in_order_on_ctrl_c(launch):
    supervisor = launch()
    world = supervisor.await_ready()
    assert [d.name for d in world.daemons] == ["federation", "scheduler-local", "agent-local"]
    assert world.address == world.daemons[0].address
    assert all(processes.is_alive(mark) for mark in marks(world))
    for daemon in world.daemons:
        arguments = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        assert arguments.startswith(f"hyperion\0{daemon.kind}\0".encode())
        assert os.getsid(daemon.process.pid) == daemon.process.pid
    code, out, err = supervisor.stop()
    assert (code, err) == (0, "")
    assert "Hyperion-X is up: federation, local" in out
    assert out.index(world.address) < out.index("is down")
    assert_all_gone(world)
    assert read_world(supervisor.state_dir) is None
    assert "told to stop" not in supervisor.log("agent-local")
    assert supervisor.log("federation").startswith("serving FederationSettings\n")


def test_three_regions_are_three_schedulers_with_an_agent_each(launch):
    supervisor = launch(world="three-regions")
    world = supervisor.await_ready()
    assert len(world.daemons) == 7
    assert (
        sorted(d.kind for d in world.daemons) == ["agent"] * 3 + ["federation"] + ["scheduler"] * 3
    )
    code, out, _ = supervisor.stop(signal.SIGTERM)
    assert code == 0
    assert "aws-us-east-1, gcp-europe-west1, edge-home" in out
    assert_all_gone(world)


@pytest.mark.parametrize("kind", ["federation", "scheduler", "agent"])
def test_what_is_killed_lives_again_at_the_same_address(launch, kind):
    supervisor = launch()
    before = supervisor.await_ready()
    victim = next(d for d in before.daemons if d.kind == kind)
    for life in range(1, 4):
        os.kill(victim.process.pid, signal.SIGKILL)
        after = supervisor.await_world(
            lambda w, life=life: w.ready and any(d.restarts == life for d in w.daemons)
        )
        again = next(d for d in after.daemons if d.kind == kind)
        assert again.process != victim.process
        assert again.address == victim.address
        victim = again
    others = [d.process for d in before.daemons if d.kind != kind]
    assert all(processes.is_alive(mark) for mark in others)
    code, out, _ = supervisor.stop()
    assert code == 0
    assert f"{victim.name} ended (signal SIGKILL); starting it again in 0." in out
    assert_all_gone(after)


def test_whoever_dies_too_often_is_slowed_and_said_to_be(launch):
    supervisor = launch(restarts_per_minute=2)
    world = supervisor.await_ready()
    for life in range(3):
        world = supervisor.await_world(
            lambda w, life=life: w.ready and w.daemons[2].restarts == life
        )
        os.kill(world.daemons[2].process.pid, signal.SIGKILL)
    supervisor.await_world(lambda w: w.daemons[2].process is None)
    code, out, _ = supervisor.stop()
    assert code == 0
    assert "2 times within a minute: from now on every 10 s; see " in out


def test_pauses_between_lives_grow_and_end():
    daemon = Supervised(plan(UpSettings(state_dir="/nowhere"), lambda a: a)[0], Path("/nowhere"))
    pauses = []
    now = 0.0
    for _ in range(12):
        daemon.born = now
        daemon.died(now + 0.1, limit=11)
        pauses.append(round(daemon.next_birth - now - 0.1, 3))
        now = daemon.next_birth
    assert pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert pauses[6:11] == [5.0] * 5
    assert pauses[11] == SLOW_S
    daemon.born = now
    daemon.died(now + 100, limit=11)
    assert daemon.next_birth == pytest.approx(now + 100.1)


@pytest.mark.parametrize(
    ("mains", "expected", "shown"),
    [
        (
            {"scheduler": "refuse"},
            "scheduler-local did not start (exit code 78)",
            "disk is on fire",
        ),
        ({"agent": "die"}, "agent-local did not start (signal SIGSEGV)", "I cannot"),
        (
            {"federation": "mute"},
            "not ready within 1 s: federation, scheduler-local (not started",
            "still thinking",
        ),
        (
            {"agent": "lonely"},
            "agent-local (serves, but has not reached the peer above it)",
            "the end of",
        ),
    ],
)
@pytest.mark.parametrize("detach", [False, True])
def test_a_world_that_cannot_start_says_why_and_leaves_nothing(
    launch, mains, expected, shown, detach
):
    supervisor = launch(mains, ready_timeout_s=1.0, stop_timeout_s=0.5, detach=detach)
    code, out, err = supervisor.finish()
    assert code == 1
    assert "is up" not in out
    assert err.startswith("error: ")
    assert expected in err
    assert shown in err
    assert read_world(supervisor.state_dir) is None
    assert not _named_after(supervisor.state_dir)


def _named_after(state_dir):
    """Processes that still have an open file in the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(state_dir)) for link in links):
            found.append(entry.name)
    return found


def test_only_one_may_be_up_in_a_directory(launch):
    first = launch()
    world = first.await_ready()
    code, _, err = launch().finish()
    assert code == 1
    assert f"is up already by process {world.supervisor.pid}" in err
    assert read_world(first.state_dir) == world
    assert first.stop()[0] == 0


def test_detached_it_runs_on_until_down(launch, capsys):
    supervisor = launch(detach=True)
    code, out, err = supervisor.finish()
    assert (code, err) == (0, "")
    assert "Hyperion-X is up" in out
    world = read_world(supervisor.state_dir)
    assert world.ready
    assert all(processes.is_alive(mark) for mark in marks(world))
    settings = UpSettings(**supervisor.settings)
    assert down(settings) == 0
    assert "is down; its state stays" in capsys.readouterr().out
    assert_all_gone(world)
    assert read_world(supervisor.state_dir) is None
    assert down(settings) == 0
    assert "nothing is up" in capsys.readouterr().out


def test_daemons_do_not_outlive_a_killed_supervisor(launch):
    supervisor = launch()
    world = supervisor.await_ready()
    os.kill(world.supervisor.pid, signal.SIGKILL)
    supervisor.finish()
    for daemon in world.daemons:
        assert processes.end(daemon.process, 0, 5), daemon
    again = launch()
    again.await_world(lambda w: w.ready and w.supervisor != world.supervisor)
    assert again.stop()[0] == 0


def test_down_ends_what_a_killed_supervisor_left_deaf(launch, capsys):
    supervisor = launch({"scheduler": "deaf"})
    world = supervisor.await_ready()
    os.kill(world.supervisor.pid, signal.SIGKILL)
    supervisor.finish()
    assert processes.is_alive(world.daemons[1].process)
    assert down(UpSettings(state_dir=str(supervisor.state_dir), stop_timeout_s=0.2)) == 0
    assert "is down" in capsys.readouterr().out
    assert_all_gone(world)


def test_down_never_ends_a_stranger_that_has_the_pid_now(launch, capsys):
    supervisor = launch()
    world = supervisor.await_ready()
    assert supervisor.stop()[0] == 0
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        path = supervisor.state_dir / "world.json"
        text = json.dumps(
            {
                "world": "one",
                "state_dir": str(supervisor.state_dir),
                "supervisor": {"pid": stranger.pid, "started": 1, "boot": world.supervisor.boot},
                "ready": True,
                "address": "",
                "daemons": [],
            }
        )
        path.write_text(text)
        assert down(UpSettings(state_dir=str(supervisor.state_dir))) == 0
        assert "nothing was up any more" in capsys.readouterr().out
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_deaf_daemons_are_killed_and_their_orphans_too(launch):
    supervisor = launch({"scheduler": "deaf"}, {"LEAVE": "1234.5"}, stop_timeout_s=0.3)
    world = supervisor.await_ready()
    orphans = _sleepers("1234.5")
    assert len(orphans) == 1
    code, out, _ = supervisor.stop()
    assert code == 0
    assert "scheduler-local did not end within 0.3 s; it is killed" in out
    assert_all_gone(world)
    assert _sleepers("1234.5") == []


def _sleepers(argument):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes() == f"sleep\0{argument}\0".encode():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_an_idle_supervisor_costs_next_to_nothing(launch):
    supervisor = launch()
    world = supervisor.await_ready()
    used = [_cpu_ticks(world.supervisor.pid)]
    time.sleep(1.0)
    used.append(_cpu_ticks(world.supervisor.pid))
    assert used[1] - used[0] <= 1
    assert supervisor.stop()[0] == 0


def _cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_log_keeps_its_bound_and_its_writer(tmp_path):
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 1000)
        writer.write(b"new\n" * 10)
        trim(log, 100)
        writer.write(b"after\n")
        trim(log, 100)
    assert log.read_bytes() == b"after\n"
    older = (tmp_path / "a.log.1").read_bytes()
    assert len(older) == 100
    assert older.endswith(b"new\n" * 10)
    trim(tmp_path / "none.log", 100)


def test_a_reserved_port_can_be_listened_on_again_and_again():
    import socket

    ports = Ports()
    address = ports.reserve("127.0.0.1:0")
    port = int(address.rpartition(":")[2])
    for _ in range(3):
        with socket.create_server(("127.0.0.1", port)):
            pass
    assert ports.reserve("0.0.0.0:7070") == "0.0.0.0:7070"
    assert len(ports.descriptors()) == 1
    ports.close()


def test_a_directory_has_one_owner(tmp_path):
    held = own(tmp_path / "x")
    with pytest.raises(CannotStart, match="is up already; end it with `hyperion down`"):
        own(tmp_path / "x")
    os.close(held)
    os.close(own(tmp_path / "x"))


def test_readiness_is_believed_of_the_right_process_only(tmp_path):
    assert read_ready(tmp_path, os.getpid()) is None
    say_ready(tmp_path, port=7070, rest="http://x", attached=False)
    said = read_ready(tmp_path, os.getpid())
    assert (said.port, said.rest, said.attached) == (7070, "http://x", False)
    assert read_ready(tmp_path, 1) is None
    (tmp_path / "ready.json").write_text("{")
    assert read_ready(tmp_path, os.getpid()) is None


def test_systemd_is_told_too(tmp_path, monkeypatch):
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        say_ready(tmp_path, port=1)
        assert systemd.recv(100).startswith(b"READY=1\n")


def test_a_mark_fits_one_process_only():
    mark = processes.mark_of(os.getpid())
    assert processes.is_alive(mark)
    assert not processes.is_alive(ProcessMark(mark.pid, mark.started - 1, mark.boot))
    assert not processes.is_alive(ProcessMark(mark.pid, mark.started, "another boot"))


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_made_of_settings_that_agree(name):
    up = UpSettings(state_dir="/srv/x", world=name)
    daemons = plan(up, lambda address: address.replace(":0", ":7"))
    schedulers = {d.settings.cluster: d.settings for d in daemons if d.kind == "scheduler"}
    agents = [d.settings for d in daemons if d.kind == "agent"]
    assert [d.tier for d in daemons] == sorted(d.tier for d in daemons)
    assert len({d.settings.state_dir for d in daemons}) == len(daemons)
    assert {a.cluster for a in agents} == set(schedulers)
    for agent in agents:
        scheduler = schedulers[agent.cluster]
        assert agent.scheduler == scheduler.listen
        assert agent.region == scheduler.region
        assert scheduler.federation == daemons[0].settings.listen
        assert scheduler.allow_declared
        assert agent.stop_replicas
