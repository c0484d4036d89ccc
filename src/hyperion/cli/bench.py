"""``bench``: measures on this machine what is promised of preemption, with the real daemons."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperion.cli import bench_world as lab
from hyperion.cli.asking import examples
from hyperion.cli.exits import FAILED, Failure

if TYPE_CHECKING:
    from hyperion.client.sync import Client

METHOD = (
    "`hyperion up` on this machine: federation, scheduler and agent as processes of their own,"
    " mutual TLS between them, SQLite with fsync. A batch job of {victims} processes with {threads}"
    " threads each asks for all CPUs and computes all the time. Each trial submits a"
    " LATENCY_CRITICAL job through the API; its first act is to write down the time. The batch job"
    " stands still meanwhile and goes on afterwards. Overload: {overload} further processes that"
    " spin, outside of hyperion"
)
WARM_UP = 5
REST_S = 0.15
"""Between two trials, longer than what they take, so that nobody stands still for half the time."""


_OPTIONS = (
    click.option("--trials", type=click.IntRange(10, 1_000_000), default=200, help="How many."),
    click.option(
        "--victims", type=click.IntRange(1, 256), default=8, help="Processes that compute."
    ),
    click.option("--threads", type=click.IntRange(1, 64), default=2, help="Of each of them."),
    click.option("--overload", type=click.IntRange(0, 256), default=0, help="Spinning strangers."),
    click.option("--churn", is_flag=True, help="Control groups come and go all the time."),
    click.option(
        "--realtime/--no-realtime",
        default=True,
        help="Let the daemons have real-time rights, where this host gives any.",
    ),
    click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="A page of HTML."),
    click.option("-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table"),
)


def _options(command: Callable[..., int]) -> Callable[..., int]:
    """What both have in common."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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
@_options
def preempt(trials: int, plot: Path | None, output: str, **scene: Any) -> int:
    """How long until an urgent job has the CPUs of a batch job that stands still for it.

    Starts a federation of its own in a temporary directory and removes it afterwards. Ends with 1
    when it ever took longer than 50 ms from the order until all of the batch job stood still.
    """
    around = lab.Scene(**scene)
    with lab.world(around) as (client, place):
        took = _run(client, place, trials, around)
        slo = client.slo()
    return lab.finish(took, slo, around.told(METHOD), plot, output)


@bench.command(
    epilog=examples(
        "hyperion bench standby",
        "hyperion bench standby --trials 10000 --overload 20 -o json",
        "hyperion bench standby --churn --no-realtime",
        "hyperion bench standby --plot standby.html",
    )
)
@click.option(
    "--python",
    default=sys.executable,
    help="Runs the standby; with torch it serves a torch net, else a NumPy one.",
)
@_options
def standby(python: str, trials: int, plot: Path | None, output: str, **scene: Any) -> int:
    """How long until a warm standby answers, on CPUs that a batch job has borrowed.

    One trial connects to its port, and the next one asks for it by the API. Starts a federation of
    its own in a temporary directory and removes it afterwards. Ends with 1 when it ever took longer
    than 50 ms from when it was wanted until all of the batch job stood still.
    """
    from hyperion.cli import bench_standby

    around = lab.Scene(**scene)
    with lab.world(around) as (client, place):
        took, what = bench_standby.run(client, place, python, trials, around)
        slo = client.slo()
    method = around.told(bench_standby.METHOD, what=what)
    return lab.finish(took, slo, method, plot, output)


# -- the trials -----------------------------------------------------------------------------------


def _run(client: "Client", place: Path, trials: int, scene: lab.Scene) -> dict[str, list[float]]:
    """Durations in ms, by step."""
    [node] = client.nodes()
    cpus = int(node.cpus)
    batch, _ = lab.batch(client, place, cpus, scene)
    took: dict[str, list[float]] = {"submit → durable": [], "submit → urgent job's first act": []}
    told = time.monotonic()
    for n in range(trials + WARM_UP):
        began_ns = time.time_ns()
        id, durable_ns, first_ns = _trial(client, place / f"first-{n}", cpus)
        if n >= WARM_UP:
            took["submit → durable"].append((durable_ns - began_ns) / 1e6)
            took["submit → urgent job's first act"].append((first_ns - began_ns) / 1e6)
        client.wait(id, lab.PATIENCE_S)
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            lab.progress(f"{max(0, n + 1 - WARM_UP):,} of {trials:,} trials")
        time.sleep(REST_S)
    lab.progress("")
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
    lab.wait_until(file.exists, f"job {id} to run")
    first_ns = int(file.read_text())
    file.unlink()
    return id, durable_ns, first_ns
