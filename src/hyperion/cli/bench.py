"""``bench``: measures on this machine what is promised of preemption, with the real daemons."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperion.cli import output as out
from hyperion.cli.asking import examples
from hyperion.cli.exits import FAILED, Failure
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.client.sync import Client

PROMISED_MS = 50.0
METHOD = (
    "`hyperion up` on this machine: federation, scheduler and agent as processes of their own,"
    " mutual TLS between them, SQLite with fsync. A batch job of {victims} processes with {threads}"
    " threads each asks for all CPUs and computes all the time. Each trial submits a"
    " LATENCY_CRITICAL job through the API; its first act is to write down the time. The batch job"
    " stands still meanwhile and goes on afterwards. Overload: {overload} further processes that"
    " spin, outside of hyperion"
)
WARM_UP = 5
TRIAL_S = 60.0
REST_S = 0.15
"""Between two trials, longer than what they take, so that nobody stands still for half the time."""

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


@click.group(epilog=examples("hyperion bench preempt"))
def bench() -> None:
    """Measure on this machine what is promised elsewhere."""


@bench.command(
    epilog=examples(
        "hyperion bench preempt",
        "hyperion bench preempt --trials 10000 --overload 20 -o json",
        "hyperion bench preempt --plot preempt.html",
    )
)
@click.option("--trials", type=click.IntRange(10, 1_000_000), default=200, help="How many.")
@click.option("--victims", type=click.IntRange(1, 256), default=8, help="Processes that compute.")
@click.option("--threads", type=click.IntRange(1, 64), default=2, help="Of each of them.")
@click.option("--overload", type=click.IntRange(0, 256), default=0, help="Spinning strangers.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="A page of HTML.")
@click.option("-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table")
def preempt(
    trials: int, victims: int, threads: int, overload: int, plot: Path | None, output: str
) -> int:
    """How long until an urgent job has the CPUs of a batch job that stands still for it.

    Starts a federation of its own in a temporary directory and removes it afterwards. Ends with 1
    when it ever took longer than 50 ms from the order until all of the batch job stood still.
    """
    with _world() as client, _in_memory() as place, _strangers(overload):
        took = _run(client, place, trials, victims, threads)
        slo = [row for row in client.slo() if row.took.count]
    rows = _rows(took)
    for row in slo:
        q = row.took
        where = f"node {row.node}" if row.node else "scheduler"
        rows.append(
            {"step": f"{row.step}, by the {where}", "trials": q.count, "p50_ms": q.p50,
             "p99_ms": q.p99, "p999_ms": q.p999, "max_ms": q.max, "missed": row.missed}
        )  # fmt: skip
    method = METHOD.format(victims=victims, threads=threads, overload=overload)
    answer: dict[str, Any] = {"method": method, "machine": _machine(), "rows": rows}
    if plot is not None:
        plot.write_text(_page(took, answer), encoding="utf-8")
    emit(answer, output, lambda _: _told(answer))
    missed = sum(int(row.get("missed", 0)) for row in rows)
    if missed:
        click.echo(f"{missed} of {trials} broke the promise of {PROMISED_MS:g} ms", err=True)
    return FAILED if missed else 0


# -- the trials -----------------------------------------------------------------------------------


def _run(
    client: "Client", place: Path, trials: int, victims: int, threads: int
) -> dict[str, list[float]]:
    """Durations in ms, by step."""
    [node] = client.nodes()
    cpus = int(node.cpus)
    batch = client.submit({
        "name": "batch",
        "run": [sys.executable, "-c", BATCH, str(victims), str(threads), str(place)],
        "resources": {"cpus": cpus},
        "pausing": {"hold": "10m"},
    })  # fmt: skip
    _await(lambda: len(list(place.glob("beat-*"))) >= victims * threads, "the batch job to compute")
    took: dict[str, list[float]] = {"submit → durable": [], "submit → urgent job's first act": []}
    told = time.monotonic()
    for n in range(trials + WARM_UP):
        began_ns = time.time_ns()
        id, durable_ns, first_ns = _trial(client, place / f"first-{n}", cpus)
        if n >= WARM_UP:
            took["submit → durable"].append((durable_ns - began_ns) / 1e6)
            took["submit → urgent job's first act"].append((first_ns - began_ns) / 1e6)
        client.wait(id, TRIAL_S)
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            _progress(f"{max(0, n + 1 - WARM_UP):,} of {trials:,} trials")
        time.sleep(REST_S)
    _progress("")
    job = client.get(batch)
    if job.phase != "running" or job.preemptions or job.restarts:
        raise Failure(
            f"the batch job was stopped instead of paused: {job.phase}, {job.reason}",
            "can this node pause? hyperion nodes -o wide",
            FAILED,
        )
    client.cancel(batch)
    return took


def _trial(client: "Client", file: Path, cpus: int) -> tuple[str, int, int]:
    """(the urgent job, when it was durable, when it did its first act)."""
    id = client.submit({
        "name": "urgent",
        "run": f"date +%s%N > {file}.new; mv {file}.new {file}",
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": cpus},
    })  # fmt: skip
    durable_ns = time.time_ns()
    _await(file.exists, f"job {id} to run")
    first_ns = int(file.read_text())
    file.unlink()
    return id, durable_ns, first_ns


def _progress(text: str) -> None:
    """On a terminal, in place."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", err=True, nl=False)


def _await(is_so: Any, what: str) -> None:
    until = time.monotonic() + TRIAL_S
    while not is_so():
        if time.monotonic() > until:
            raise Failure(f"waited {TRIAL_S:g} s in vain for {what}", "", FAILED)
        time.sleep(0.002)


@contextlib.contextmanager
def _world() -> "Iterator[Client]":
    """A client of a federation in a directory of its own."""
    from hyperion.client.sync import Client

    hyperion = [sys.executable, "-c", "from hyperion.cli.main import main; main()"]
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION")}
        environment = {**kept, "HYPERION_HOME": home}
        quiet = subprocess.DEVNULL
        up = [*hyperion, "up", "--detach", "--rest-listen", ""]
        started = subprocess.run(  # noqa: S603 - ourselves
            up, env=environment, stdout=quiet, timeout=90, check=False
        )
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
def _in_memory() -> Iterator[Path]:
    """Where the jobs write down the time: not on the disk, which the daemons wait for."""
    memory = "/dev/shm"  # noqa: S108 - only a directory of our own in it
    with tempfile.TemporaryDirectory(
        prefix="hyperion-bench-", dir=memory if os.path.isdir(memory) else None
    ) as place:
        yield Path(place)


@contextlib.contextmanager
def _strangers(count: int) -> Iterator[None]:
    """Processes that take all the CPU time they can get."""
    spin = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


# -- what is told ---------------------------------------------------------------------------------


def _rows(took: dict[str, list[float]]) -> list[dict[str, Any]]:
    from hyperion.daemon.promise_views import quantiles

    rows = []
    for step, values in took.items():
        q = quantiles(values)
        rows.append({"step": step, "trials": q.count, "p50_ms": q.p50, "p99_ms": q.p99,
                     "p999_ms": q.p999, "max_ms": q.max})  # fmt: skip
    return rows


def _machine() -> dict[str, Any]:
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


def _told(answer: dict[str, Any]) -> str:
    machine = answer["machine"]
    load = ", ".join(f"{x:.1f}" for x in machine["load"])
    about = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, load {load}"
    return "\n".join((out.table(COLUMNS, answer["rows"], wide=True), about, answer["method"]))


def _page(took: dict[str, list[float]], answer: dict[str, Any]) -> str:
    """The distribution of each step, and the table, in one page that fetches nothing."""
    from hyperion.cli import plots

    most = max((max(values) for values in took.values() if values), default=1.0)
    lines = []
    for series, (step, values) in enumerate(took.items()):
        ordered = sorted(values)
        points = [(0.0, 0.0), *((v, (n + 1) / len(ordered)) for n, v in enumerate(ordered))]
        lines.append(plots.Line(series, step, points, steps=True))
    chart = plots.line_chart(
        plots.linear("ms", most), plots.shares("of the trials"), lines, "trials by duration"
    )
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    legend = " · ".join(f'<span class="s{n}">{escape(s)}</span>' for n, s in enumerate(took))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Hyperion-X: preemption</title>'
        f"<style>{css}</style><header><h1>Room for an urgent job</h1>"
        f"<p>{escape(answer['method'])}</p><p>{legend}</p></header><main>{chart}"
        f"<pre>{escape(_told(answer))}</pre></main></html>"
    )
