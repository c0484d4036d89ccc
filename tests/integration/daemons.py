"""Real daemons for tests: separate processes on free ports, with certificates, logs and an end.

A ``World`` is a federation, schedulers and agents below one directory. Each may be killed, frozen
and started again on the same port and state; ``end`` proves that no process of the world is left.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hyperion.adapters.link.credentials import Credentials
from hyperion.adapters.link.identity import Role
from hyperion.adapters.link.streams import channel_options
from hyperion.client.errors import HyperionError
from hyperion.client.sync import Client
from hyperion.daemon.enrolment import enrol
from hyperion.daemon.readiness import read_ready

DOMAIN = "hyperion.local"
_WATCHES = ("deadman.sh", "letgo.sh", "fastpath.py")
"""What agents start beside themselves, and which ends after them."""
READY_S = 30.0
PORTS = range(20_000, 32_000)
"""Below what Linux gives to outgoing connections, so that a port is still free after a restart."""
QUICK = {"resend_ms": 300, "heartbeat_ms": 250, "tick_ms": 50, "log_level": "info"}
"""Times that suit tests: what is lost is noticed within a second."""


class Daemon:
    """One daemon of a world: its process now, if there is one, and how to start the next."""

    def __init__(self, world, kind, name, settings):
        self.world, self.kind, self.name = world, kind, name
        self.state_dir = world.state / name
        self.log = world.directory / f"{name}.log"
        self.settings = {**QUICK, **settings, "state_dir": str(self.state_dir)}
        self.starts = 0
        self.process = None

    def __repr__(self):
        return f"<{self.name}>"

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        """Begin a process; ``ready`` waits until it serves."""
        assert not self.alive, f"{self.name} runs already"
        self.starts += 1
        command = [sys.executable, "-c", _MAIN, self.kind]
        for name, value in self.settings.items():
            command += ["--" + name.replace("_", "-")]
            if value is not True:
                command += [str(value)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.world.environ
            )
        return self

    def said(self):
        """What its living process has said of itself, None before."""
        return read_ready(self.state_dir, self.process.pid) if self.alive else None

    def ready(self, attached=True, within_s=READY_S):
        """Wait until it serves and, where it has a peer above, is attached to it."""

        def is_ready():
            if not self.alive:
                raise AssertionError(
                    f"{self.name} ended with {self.process.returncode}:\n{self.tail()}"
                )
            said = self.said()
            return said is not None and not (attached and said.attached is False)

        until(is_ready, f"{self.name} to be ready", within_s)
        return self

    def signal(self, number):
        if self.alive:
            self.process.send_signal(number)

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(20)

    def restart(self):
        self.kill()
        return self.start()

    def tail(self, lines=30):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class World:
    """A federation, a scheduler per cluster and an agent per node, as processes of their own.

    ``nodes`` are ``cluster/node`` or, in cluster ``local``, a plain name.
    """

    def __init__(self, directory, nodes=("n1",), *, federation=None, scheduler=None, agent=None):
        self.directory = Path(directory)
        self.state = self.directory / "state"
        self.state.mkdir(mode=0o700, parents=True)
        places = [node if "/" in node else f"local/{node}" for node in nodes]
        clusters = list(dict.fromkeys(place.partition("/")[0] for place in places))
        self.environ = self._environ()
        ports = free_ports(2 + len(clusters))
        self.rest_port = ports[1]
        self.federation = Daemon(
            self,
            "federation",
            "federation",
            {
                "listen": f"127.0.0.1:{ports[0]}",
                "rest_listen": f"127.0.0.1:{ports[1]}",
                **(federation or {}),
            },
        )
        self.schedulers = {
            cluster: self._scheduler(cluster, ports[0], port, scheduler or {})
            for cluster, port in zip(clusters, ports[2:], strict=True)
        }
        self.agents = {place: self._agent(place, agent or {}) for place in places}
        self._enrol(places, clusters)
        self.client = Client(f"unix:{self.socket}", timeout_s=60)

    # -- parts ----------------------------------------------------------------------------------

    @property
    def socket(self):
        return self.federation.state_dir / "federation.sock"

    @property
    def scheduler(self):
        (only,) = self.schedulers.values()
        return only

    @property
    def agent(self):
        (only,) = self.agents.values()
        return only

    @property
    def daemons(self):
        return [self.federation, *self.schedulers.values(), *self.agents.values()]

    def address(self, daemon):
        return daemon.settings["listen"]

    def credentials(self, name="client"):
        """Of ``client``, ``admin``, or of a daemon by its name."""
        directory = self.state / name / "credentials"
        return Credentials.load(directory, int(time.time()))  # noqa: TID251 - dated by nature

    def channel(self, grpc, daemon, name="client"):
        """A gRPC channel with a client's certificate to one of the daemons."""
        role = Role.FEDERATION if daemon is self.federation else Role.SCHEDULER
        return grpc.secure_channel(
            self.address(daemon), self.credentials(name).channel(), channel_options(role)
        )

    # -- life -----------------------------------------------------------------------------------

    def __enter__(self):
        try:
            for daemon in self.daemons:
                daemon.start()
            self.settled()
        except BaseException:
            self.end(check=False)
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(self.logs())
        self.end(check=kind is None)

    def settled(self, within_s=READY_S):
        """Wait until every daemon serves and is attached, and every node is there."""
        for daemon in self.daemons:
            daemon.ready(within_s=within_s)

        def all_there():
            with suppress(HyperionError):
                ready = {f"{n.cluster}/{n.id}" for n in self.client.nodes() if n.state == "ready"}
                return ready >= self.agents.keys()
            return False

        until(all_there, "all nodes to be ready", within_s)

    def logs(self, lines=40):
        return "\n".join(f"== {d.name}\n{d.tail(lines)}" for d in self.daemons)

    def processes(self):
        """Every process of this world: pid → command line, found by our directory."""
        return processes_of(self.directory)

    def replicas(self):
        """Those that are no daemons of ours, nor watch over them: replicas and their shims."""
        ours = {d.process.pid for d in self.daemons if d.process is not None}
        return {
            pid: line
            for pid, line in self.processes().items()
            if pid not in ours and not any(name in line for name in _WATCHES)
        }

    def end(self, check=True):
        """SIGTERM for all, then look whether anything is left but the dead-man's switches.

        Those end when their directory is gone, which is waited for too. Whatever else is found
        is killed, and with ``check`` it is a failure.
        """
        codes = {}
        for daemon in reversed(self.daemons):
            if daemon.alive:
                daemon.signal(signal.SIGCONT)
                codes[daemon.name] = daemon.stop() if check else daemon.kill()
        self.client.close()
        left = self.replicas() if check else {}
        for agent in self.agents.values():
            with suppress(FileNotFoundError):
                (agent.state_dir / "runtime").rename(agent.state_dir / "runtime.ended")
        try:
            until(lambda: check and not self.processes(), "the last process to end", 5 * check)
        except AssertionError:
            left |= self.processes()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if check:
            assert not left, f"left behind: {left}"
            assert not any(codes.values()), f"exit codes {codes}\n{self.logs()}"

    # -- making ---------------------------------------------------------------------------------

    def _environ(self):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION_")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPYCACHEPREFIX"] = str(_CACHE)  # or each start would compile everything
        environ["HYPERION_HOME"] = str(self.state)  # marks our processes, too
        return environ

    def _scheduler(self, cluster, federation, port, settings):
        name = "scheduler" if cluster == "local" else f"scheduler-{cluster}"
        return Daemon(
            self,
            "scheduler",
            name,
            {
                "cluster": cluster,
                "listen": f"127.0.0.1:{port}",
                "federation": f"127.0.0.1:{federation}",
                "allow_declared": True,
                **settings,
            },
        )

    def _agent(self, place, settings):
        cluster, _, node = place.partition("/")
        return Daemon(
            self,
            "agent",
            f"agent-{cluster}-{node}",
            {
                "node": node,
                "cluster": cluster,
                "scheduler": self.schedulers[cluster].settings["listen"],
                "declare": "cpus=64,memory=64",
                **settings,
            },
        )

    def _enrol(self, places, clusters):
        wanted = [("federation", "main", self.federation), ("client", "tester", "client")]
        wanted += [("admin", "tester", "admin")]
        wanted += [("scheduler", name, self.schedulers[name]) for name in clusters]
        wanted += [("agent", place, self.agents[place]) for place in places]
        enrol(
            self.federation.state_dir / "authority",
            DOMAIN,
            [
                (role, name, self.state / getattr(who, "name", who) / "credentials")
                for role, name, who in wanted
            ],
        )


def until(condition, what, within_s=READY_S, pause_s=0.02):
    """Ask until the answer is true, and give it; AssertionError says what did not come."""
    ends = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > ends:
            raise AssertionError(f"waited {within_s:g} s in vain for {what}")
        time.sleep(pause_s)
    return answer


def free_ports(count):
    """Ports of loopback that nobody listens on now."""
    found = set()
    for port in random.SystemRandom().sample(PORTS, 500):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
        if len(found) == count:
            return sorted(found)
    raise AssertionError(f"no {count} free ports in {PORTS}")


def processes_of(directory):
    """Every process, ourselves excepted, that has the directory in its environment or command."""
    mark, found = os.fsencode(directory), {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            line = Path(f"/proc/{entry.name}/cmdline").read_bytes()
            if line and (mark in line or mark in Path(f"/proc/{entry.name}/environ").read_bytes()):
                found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


_MAIN = "import sys; from hyperion.cli.main import main; sys.exit(main())"
_CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "daemon-bytecode"
