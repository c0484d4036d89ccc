"""Shows what Hyperion-X does, with real processes: ``make demo``. Cleans up whatever happens.

A world of three clusters comes up in a directory of its own, takes the jobs of this directory,
trains a network on two replicas, explains itself, and is gone again. Every command is echoed as
``$ …``, so all of it can be typed by hand.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKPOINTS = Path("/tmp/hyperion-checkpoints")  # noqa: S108 - as train.yaml says
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PORT = 18085
"""Of examples/answer.yaml."""
COMMAND_TIMEOUT_S = 180.0
LONGEST_SOCKET_PATH = 80
"""Linux takes 107 bytes for a unix socket, and ours lies a little deeper."""


class Failed(Exception):
    """The demo cannot go on; the message says why."""


class Stopped(BaseException):
    """Somebody sent a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Demo:
    """One directory, one environment, and the commands run in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.jobs: list[str] = []
        """Those that may have left a checkpoint outside of our directory."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION_")}
        path = f"{BIN}{os.pathsep}{own.get('PATH', os.defpath)}"
        self.environ = {**own, "HYPERION_HOME": str(home), "PATH": path}

    def run(self, *words: str, may_end_with: tuple[int, ...] = (0,)) -> None:
        """Echo ``hyperion …`` and run it; its output is ours."""
        print(f"\n{bold('$ hyperion ' + ' '.join(words))}", flush=True)
        command = [str(BIN / "hyperion"), *words]
        try:
            done = subprocess.run(
                command, env=self.environ, cwd=ROOT, timeout=COMMAND_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"'hyperion {words[0]}' took more than {COMMAND_TIMEOUT_S:g} s") from None
        if done.returncode not in may_end_with:
            raise Failed(f"'hyperion {' '.join(words)}' ended with {done.returncode}")

    def ask(self, *words: str) -> list[dict[str, object]]:
        """What a list says, without showing it; empty when nobody answers."""
        command = [str(BIN / "hyperion"), *words, "-o", "json"]
        with contextlib.suppress(subprocess.SubprocessError, OSError, ValueError):
            done = subprocess.run(
                command, env=self.environ, cwd=ROOT, timeout=20, check=True, capture_output=True
            )
            found = json.loads(done.stdout)
            return found if isinstance(found, list) else []
        return []

    def text(self, *words: str) -> str:
        """What a command prints, without showing it; empty when it fails."""
        command = [str(BIN / "hyperion"), *words]
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            return subprocess.run(
                command, env=self.environ, cwd=ROOT, timeout=20, check=True,
                capture_output=True, text=True,
            ).stdout  # fmt: skip
        return ""

    def until(self, true: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
        """Ask until it is true."""
        ends = time.monotonic() + within_s
        while not true():
            if time.monotonic() > ends:
                raise Failed(f"waited {within_s:g} s in vain for {what}")
            time.sleep(0.1)


def main() -> int:
    started = time.monotonic()
    watch_signals()
    code, demo = 1, None
    try:
        demo = Demo(make_home())
        show(demo)
        code = 0
    except Failed as failure:
        tell(f"\nThe demo failed: {failure}")
        if demo is not None:
            last_words(demo.home)
    except Stopped as stop:
        tell(f"\n{stop}: cleaning up …")
        code = 128 + stop.number
    except BrokenPipeError:
        # Whoever read this has gone; what is left to say goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        be_deaf()
        left = clean_up(demo) if demo is not None else []
    if left:
        tell("had to be killed: " + "; ".join(left))
        code = code or 1
    if code == 0:
        took = time.monotonic() - started
        say(f"That took {took:.0f} s. Nothing is left of it: no process, no file.")
        print("Now by hand:  . .venv/bin/activate && hyperion up", flush=True)
    return code


def show(demo: Demo) -> None:
    """The story, in the order of a first day."""
    if not (BIN / "hyperion").exists():
        raise Failed(f"there is no hyperion beside {sys.executable}; run: make demo")
    say("A federation and three clusters on this machine; they talk gRPC over mutual TLS.")
    demo.run("up", "--detach", "--world", "three-regions")
    demo.until(lambda: len(nodes_that_can_run(demo)) == 3, "three nodes to be ready")
    demo.run("clusters")
    print(
        "Their machines are declared: a rehearsal with the prices and distances of real regions.\n"
        "The processes that run there are real."
    )

    say("Where would this training run go, and why not elsewhere? Planning changes nothing.")
    demo.run("plan", "examples/train.yaml")

    say("Work of other kinds: a service near its users, and a batch whose data is dear to move.")
    demo.run("run", "--detach", "examples/serve.yaml")
    demo.run("run", "--detach", "examples/cheap-batch.yaml")
    demo.run("run", "examples/gang.yaml")

    say("Now train: two replicas, gradients all-reduced over TCP, until 95 % of unseen digits.")
    demo.run("run", "--detach", "examples/train.yaml")
    demo.jobs = [str(job["id"]) for job in demo.ask("ps", "--all", "--name", "train")]
    demo.run("logs", "--follow", "train")
    demo.run("wait", "train")

    say("Why there? The decision with its arithmetic, as it was taken.")
    demo.run("why", "train")

    urgent(demo)

    say("What ran, where, and what it would have cost.")
    demo.run("cancel", "serve")
    demo.run("wait", "serve", "cheap-batch", may_end_with=(0, 1))  # 1: one was cancelled
    demo.run("ps", "--all")
    bill(demo)

    say("And away with it all.")
    demo.run("down")


def urgent(demo: Demo) -> None:
    """A training run stands still while a standby answers, and loses no step."""
    say("A service that is there before it is asked lends its CPUs to a training run until then.")
    demo.run("run", "--detach", "examples/answer.yaml")
    demo.until(lambda: "lent" in reason(demo, "answer"), "the service to wait to be asked")
    demo.run("run", "--detach", "examples/steps.yaml")
    demo.until(lambda: len(steps(demo)) > 20, "the training run to do some steps")
    demo.run("ps")
    answer, took_ms = ask_for_it()
    print(f"\nAsked by a connection to its port, it said after {took_ms:.1f} ms: {answer}")
    before = len(steps(demo))
    demo.until(lambda: len(steps(demo)) > before + 5, "the training run to go on")
    done = steps(demo)
    paused_ms, step = max((later - at, n) for (at, n), (later, _) in pairwise(done))
    if [n for _, n in done] != list(range(len(done))):
        raise Failed("the training run has lost a step")
    print(
        f"The training run did step {step}, stood still for {paused_ms:.0f} ms, and went on with"
        f" step {step + 1}.\nEach of its {len(done)} steps was done once. What its node says:"
    )
    demo.run("slo")
    demo.run("cancel", "steps", "answer")
    demo.run("wait", "steps", "answer", may_end_with=(0, 1))


def ask_for_it() -> tuple[str, float]:
    """(what the service says, after how many ms)."""
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=30) as connection:
            connection.sendall(b"picture")
            answer = connection.recv(100).decode().strip()
    except OSError as error:
        raise Failed(f"the service at port {PORT} does not answer: {error}") from None
    return answer, 1e3 * (time.perf_counter() - began)


def reason(demo: Demo, name: str) -> str:
    return " ".join(str(job["reason"]) for job in demo.ask("ps", "--name", name))


def steps(demo: Demo) -> list[tuple[float, int]]:
    """(when, which) of the steps that the job has told of, in ms."""
    found = []
    for line in demo.text("logs", "steps").splitlines():
        at_ns, _, rest = line.partition(" step ")
        if at_ns.isdigit() and rest.isdigit():
            found.append((int(at_ns) / 1e6, int(rest)))
    return found


def nodes_that_can_run(demo: Demo) -> list[str]:
    return [str(node["id"]) for node in demo.ask("nodes") if node["state"] == "ready"]


def bill(demo: Demo) -> None:
    jobs = demo.ask("ps", "--all")
    usd, grams = (sum(float(str(job[key])) for job in jobs) for key in ("usd", "gco2e"))
    print(
        f"together: {usd:.4f} $ and {grams:.2f} g CO2e at catalogue prices; columns: ps -a -o wide"
    )


# -- around it ------------------------------------------------------------------------------------


def watch_signals() -> None:
    def stop(number: int, _: FrameType | None) -> NoReturn:
        be_deaf()  # people press twice, and the clean-up is to be whole
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)


def be_deaf() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def make_home() -> Path:
    """A directory of our own, short enough for a socket in it."""
    home = Path(tempfile.mkdtemp(prefix="hyperion-demo-"))
    if len(os.fsencode(home)) <= LONGEST_SOCKET_PATH:
        return home
    home.rmdir()
    return Path(tempfile.mkdtemp(prefix="hyperion-demo-", dir="/tmp"))


def clean_up(demo: Demo) -> list[str]:
    """End everything and remove every file; what would not end by itself."""
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run(
            [str(BIN / "hyperion"), "down"],
            env=demo.environ,
            timeout=60,
            check=False,
            capture_output=True,
            start_new_session=True,  # a second Ctrl-C is not for it
        )
    left = end_rest(demo.home)
    shutil.rmtree(demo.home, ignore_errors=True)
    for job in demo.jobs:
        shutil.rmtree(CHECKPOINTS / job, ignore_errors=True)
    with contextlib.suppress(OSError):
        CHECKPOINTS.rmdir()  # only when no one else has anything there
    return left


def end_rest(home: Path) -> list[str]:
    """Wait for what is just ending; kill what is not, again and again for what it started."""
    ends = time.monotonic() + 5.0
    killed: dict[int, str] = {}
    while living := dict(processes_of(home)):
        if time.monotonic() > ends + 5.0:
            break
        if time.monotonic() > ends:
            for pid, line in living.items():
                killed[pid] = line
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return [f"{pid} {line}" for pid, line in killed.items()]


def processes_of(home: Path) -> list[tuple[int, str]]:
    """Every other process of this world: daemons and replicas have its directory in a variable of
    ours, the dead-man's switches in their arguments."""
    mark, found = os.fsencode(home), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            names = (entry / "environ").read_bytes().split(b"\0")
            marked = any(name.startswith(b"HYPERION_") and mark in name for name in names)
            if line and (marked or (b"deadman.sh" in line and mark in line)):
                words = line.replace(b"\0", b" ").decode(errors="replace")
                found.append((int(entry.name), words[:120].strip()))
    return found


def last_words(home: Path) -> None:
    """The end of each daemon's log, since the directory is about to go."""
    for log in sorted((home / "logs").glob("*.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        tell("\n".join([f"-- {log.name}", *lines]))


def say(text: str) -> None:
    print(f"\n{rule()}\n{bold(text)}", flush=True)


def tell(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def rule() -> str:
    return "─" * min(78, shutil.get_terminal_size().columns - 1)


def bold(text: str) -> str:
    plain = (
        not sys.stdout.isatty()
        or os.environ.get("NO_COLOR")
        or os.environ.get("TERM", "dumb") == "dumb"
    )
    return text if plain else f"\x1b[1m{text}\x1b[0m"


if __name__ == "__main__":
    # The few characters beyond ASCII must not break a terminal that has none.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # both are text streams
    sys.exit(main())
