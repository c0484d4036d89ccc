"""What ``hyperion bench`` needs around a measurement: a world of its own, and how it is told."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperion.cli import output as out
from hyperion.cli.exits import FAILED, Failure
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.client.sync import Client
    from hyperion.wire.api import PromiseView

PROMISED_MS = 50.0
_SYS_NICE = 23
_DROP = 24
"""Of ``prctl``: PR_CAPBSET_DROP (linux/prctl.h); the capability is in linux/capability.h."""
PATIENCE_S = 60.0
BATCH = """
import os, sys, threading, time
def spin(path):
    x = 1.0
    while True:
        for _ in range(20000):
            x = x * 1.0000001 % 7.0
        with open(path, "w") as beat:
            beat.write(str(time.time_ns()))
victims, threads, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for n in range(victims - 1):
    if os.fork() == 0:
        break
else:
    n = victims - 1
for k in range(threads - 1):
    threading.Thread(target=spin, args=(f"{place}/beat-{n}-{k + 1}",), daemon=True).start()
spin(f"{place}/beat-{n}-0")
"""


def progress(text: str) -> None:
    """On a terminal, in place."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", err=True, nl=False)


def wait_until(is_so: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until:
            raise Failure(f"waited {PATIENCE_S:g} s in vain for {what}", "", FAILED)
        time.sleep(0.002)


@dataclass(frozen=True)
class Scene:
    """What goes on while it is measured."""

    victims: int
    """Processes of the batch job."""
    threads: int
    """Of each of them."""
    overload: int
    """Strangers that spin."""
    churn: bool
    """Others make and remove control groups all the time."""
    realtime: bool
    """The daemons have the rights that the promise asks for."""

    def told(self, method: str, **more: str) -> str:
        """The method, with what is special here."""
        text = method.format(
            victims=self.victims, threads=self.threads, overload=self.overload, **more
        )
        if self.churn:
            text += "; two processes that make and remove control groups without a pause"
        if not self.realtime:
            text += "; without the right to real-time priority (CAP_SYS_NICE) for all daemons"
        return text


def _without_rights() -> None:
    """In a child that is about to become ``hyperion``: it can never have CAP_SYS_NICE again."""
    ctypes.CDLL(None).prctl(_DROP, _SYS_NICE, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))


@contextlib.contextmanager
def world(scene: Scene) -> "Iterator[tuple[Client, Path]]":
    """A client of a federation in a directory of its own, a place for jobs to write down times, and
    around them what the scene has."""
    with (
        _federation(scene) as client,
        in_memory() as place,
        strangers(scene.overload),
        churning(scene.churn),
    ):
        yield client, place


@contextlib.contextmanager
def _federation(scene: Scene) -> "Iterator[Client]":
    from hyperion.client.sync import Client

    hyperion = [sys.executable, "-c", "from hyperion.cli.main import main; main()"]
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION")}
        environment = {**kept, "HYPERION_HOME": home}
        quiet = subprocess.DEVNULL
        up = [*hyperion, "up", "--detach", "--rest-listen", ""]
        started = subprocess.run(  # noqa: S603 - ourselves
            up, env=environment, stdout=quiet, timeout=90, check=False,
            preexec_fn=None if scene.realtime else _without_rights,
        )  # fmt: skip
        if started.returncode:
            raise Failure("no federation could be started", "see above", FAILED)
        try:
            with Client(f"unix:{home}/federation.sock") as client:
                yield client
        finally:
            down = [*hyperion, "down"]
            subprocess.run(  # noqa: S603
                down, env=environment, stdout=quiet, timeout=90, check=False
            )


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """Where the jobs write down the time: not on the disk, which the daemons wait for."""
    memory = "/dev/shm"  # noqa: S108 - only a directory of our own in it
    with tempfile.TemporaryDirectory(
        prefix="hyperion-bench-", dir=memory if os.path.isdir(memory) else None
    ) as place:
        yield Path(place)


@contextlib.contextmanager
def strangers(count: int) -> Iterator[None]:
    """Processes that take all the CPU time they can get."""
    spin = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def churning(wanted: bool) -> Iterator[None]:
    """Two processes that make and remove control groups, as a busy kubelet does, but more."""
    if not wanted:
        yield
        return
    top = next((x for x in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if _is_v2(x)), "")
    groups = [f"{top}/hyperion-bench-{os.getpid()}-{n}" for n in range(2)]
    if not top or not os.access(top, os.W_OK):
        raise Failure("no control groups of version 2 can be made here", "run it as root", FAILED)
    churn = "import os, sys\nwhile True:\n    os.mkdir(sys.argv[1])\n    os.rmdir(sys.argv[1])"
    running = [
        subprocess.Popen([sys.executable, "-c", churn, group])  # noqa: S603 - ourselves
        for group in groups
    ]
    try:
        yield
    finally:
        for process, group in zip(running, groups, strict=True):
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                os.rmdir(group)


def _is_v2(top: str) -> bool:
    return os.path.exists(f"{top}/cgroup.controllers")


# -- what is told ---------------------------------------------------------------------------------


def batch(client: "Client", place: Path, cpus: int, scene: Scene) -> tuple[str, list[Path]]:
    """A batch job that takes all CPUs, once all of its threads compute: its id, and the files in
    which they say so."""
    job = client.submit({
        "name": "batch",
        "run": [sys.executable, "-c", BATCH, str(scene.victims), str(scene.threads), str(place)],
        "resources": {"cpus": cpus},
        "pausing": {"hold": "10m"},
    })  # fmt: skip
    beats = scene.victims * scene.threads
    wait_until(lambda: len(list(place.glob("beat-*"))) >= beats, "the batch job to compute")
    return job, list(place.glob("beat-*"))


def rows(took: dict[str, list[float]]) -> list[dict[str, Any]]:
    from hyperion.daemon.promise_views import quantiles

    rows = []
    for step, values in took.items():
        q = quantiles(values)
        rows.append({"step": step, "trials": q.count, "p50_ms": q.p50, "p99_ms": q.p99,
                     "p999_ms": q.p999, "max_ms": q.max})  # fmt: skip
    return rows


def machine() -> dict[str, Any]:
    name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load": list(os.getloadavg()),
    }


COLUMNS: list[Column[dict[str, Any]]] = [
    Column("STEP", lambda row: row["step"]),
    Column("TRIALS", lambda row: row["trials"], right=True),
    Column("P50 ms", lambda row: f"{row['p50_ms']:.2f}", right=True),
    Column("P99 ms", lambda row: f"{row['p99_ms']:.2f}", right=True),
    Column("P99.9 ms", lambda row: f"{row['p999_ms']:.2f}", right=True),
    Column("MAX ms", lambda row: f"{row['max_ms']:.2f}", right=True),
]


def told(answer: dict[str, Any]) -> str:
    machine = answer["machine"]
    load = ", ".join(f"{x:.1f}" for x in machine["load"])
    about = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, load {load}"
    return "\n".join((out.table(COLUMNS, answer["rows"], wide=True), about, answer["method"]))


def page(took: dict[str, list[float]], answer: dict[str, Any]) -> str:
    """The distribution of each step, and the table, in one page that fetches nothing."""
    from hyperion.cli import plots
    from hyperion.cli.html import document

    most = max((max(values) for values in took.values() if values), default=1.0)
    lines = []
    for series, (step, values) in enumerate(took.items()):
        ordered = sorted(values)
        points = [(0.0, 0.0), *((v, (n + 1) / len(ordered)) for n, v in enumerate(ordered))]
        lines.append(plots.Line(series, step, points, steps=True))
    chart = plots.line_chart(
        plots.linear("ms", most), plots.shares("of the trials"), lines, "trials by duration"
    )
    legend = " · ".join(f'<span class="s{n}">{escape(s)}</span>' for n, s in enumerate(took))
    return document(
        "Room for an urgent job",
        f"<p>{escape(answer['method'])}</p>\n<p>{legend}</p>",
        f"{chart}<pre>{escape(told(answer))}</pre>",
    )


def finish(
    took: dict[str, list[float]],
    slo: "list[PromiseView]",
    method: str,
    plot: Path | None,
    output: str,
) -> int:
    """Tell of it, and draw it; the exit code: 1 if the promise was ever broken."""
    table = rows(took)
    for row in slo:
        q = row.took
        if not q.count:
            continue
        where = f"node {row.node}" if row.node else "scheduler"
        table.append(
            {"step": f"{row.step}, by the {where}", "trials": q.count, "p50_ms": q.p50,
             "p99_ms": q.p99, "p999_ms": q.p999, "max_ms": q.max, "missed": row.missed}
        )  # fmt: skip
    answer: dict[str, Any] = {"method": method, "machine": machine(), "rows": table}
    if plot is not None:
        plot.write_text(page(took, answer), encoding="utf-8")
    emit(answer, output, lambda _: told(answer))
    missed = sum(int(row.get("missed", 0)) for row in table)
    if missed:
        click.echo(f"{missed} broke the promise of {PROMISED_MS:g} ms", err=True)
    return FAILED if missed else 0
