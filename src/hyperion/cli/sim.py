"""``sim``: a cluster in simulated time, from a trace or a generator, under one or more policies."""

import gc
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from hyperion.cli import output as out
from hyperion.cli.asking import examples, output_option
from hyperion.cli.exits import BAD_USAGE, INTERRUPTED, OK, Failure
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.model.node import Node
    from hyperion.sim.cluster_world import ClusterWorld, Moment
    from hyperion.sim.results import Run
    from hyperion.sim.score import Score
    from hyperion.sim.trace import Trace

FAULTS = ("calm", "storm", "partition", "spot", "drift")
ESTIMATES = ("none", "rounded", "exact")
TELL_S = 0.1
COMPILED_FROM = 2000
"""Jobs from which on it pays to load the compiled loops, where there are any: half a second."""


class SimView(Struct, frozen=True, kw_only=True):
    """What ``sim -o json`` and ``replay -o json`` print."""

    trace: str
    jobs: int
    bad_rows: int
    notes: tuple[str, ...]
    nodes: int
    gpus: int
    seed: int
    faults: str
    scores: "tuple[Score, ...]"
    events: tuple[int, ...]
    """Steps of the machine, by policy."""
    cpu_s: tuple[float, ...]
    """CPU time of each run."""
    broken_off: bool
    files: tuple[str, ...]


@click.command(
    epilog=examples(
        "hyperion sim --generator training --jobs 2000 --nodes 64 --load 0.9",
        "hyperion sim --trace philly --data DIR --nodes 100 --compare pack spread --out results",
        "hyperion sim --trace sacct.txt --policy pack --out results -o json",
    )
)
@click.option("--trace", metavar="NAME|FILE", help="A published trace, or a file of rows.")
@click.option("--generator", metavar="NAME", help="A made workload.  [default: training]")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
              envvar="HYPERION_DATA", help="Where published traces lie.")  # fmt: skip
@click.option("--policy", default="balanced", show_default=True, help="Who decides.")
@click.option("--compare", multiple=True, metavar="POLICY …", help="Several, one after another.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--nodes", default="", metavar="N|FILE", help="How many, or a list.  [default: 64]")
@click.option("--gpus-per-node", type=click.IntRange(0, 1024), default=8, show_default=True)
@click.option("--gpu-type", default="A100", show_default=True)
@click.option("--usd-per-gpu-hour", type=click.FloatRange(0), help="[default: the catalogue's]")
@click.option("--jobs", type=click.IntRange(1), help="Only the first so many.  [generator: 1000]")
@click.option("--since", metavar="TIME", help="Only so long before the last arrival, as 7d.")
@click.option("--every", type=click.IntRange(1), default=1, metavar="N",
              help="Only every N-th job of the trace.")  # fmt: skip
@click.option("--load", type=click.FloatRange(0, min_open=True), metavar="X",
              help="Arrivals so fast that X times the cluster is wanted.")  # fmt: skip
@click.option("--queues/--no-queues", default=True, show_default=True,
              help="The trace's queues, or all jobs in one.")  # fmt: skip
@click.option("--estimates", type=click.Choice(ESTIMATES), default="rounded", show_default=True,
              help="What users say of run times.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--faults", type=click.Choice(FAULTS), default="calm", show_default=True)
@click.option("--out", "directory", type=click.Path(file_okay=False, path_type=Path),
              help="Tables and a report are written there.")  # fmt: skip
@output_option
def sim(
    trace: str | None,
    generator: str | None,
    data: Path | None,
    policy: str,
    compare: tuple[str, ...],
    more: tuple[str, ...],
    nodes: str,
    gpus_per_node: int,
    gpu_type: str,
    usd_per_gpu_hour: float | None,
    jobs: int | None,
    since: str | None,
    every: int,
    load: float | None,
    queues: bool,
    estimates: str,
    seed: int,
    faults: str,
    directory: Path | None,
    output: str,
) -> int:
    """Run a cluster in simulated time: the production scheduler, its nodes played."""
    from hyperion.cli import workloads
    from hyperion.cli.jobs import duration_s

    if trace and generator:
        raise Failure("--trace and --generator are both given", "name one", BAD_USAGE)
    if more and not compare:
        raise Failure(f"what is {more[0]!r}?", "to compare policies: --compare A B C", BAD_USAGE)
    wish = workloads.Wish(
        trace=trace or "",
        generator=generator or ("" if trace else "training"),
        data=data,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        gpu_type=gpu_type,
        usd_per_gpu_hour=usd_per_gpu_hour,
        jobs=jobs,
        load=load,
        estimates=estimates,
        seed=seed,
        queues=queues,
        every=every,
        since_s=duration_s(since) if since else 0.0,
    )
    workload, machines = workloads.prepared(wish)
    policies = policy_names((*compare, *more)) or [policy]
    return simulate(workload, machines, policies, seed, faults, directory, output)


def simulate(
    trace: "Trace",
    nodes: "Sequence[Node]",
    policies: Sequence[str],
    seed: int,
    faults: str,
    directory: Path | None,
    output: str,
) -> int:
    """Run the policies one after another and tell what came of it; the exit code."""
    makers = [_world_maker(trace, nodes, name, seed, faults) for name in policies]
    for message in _remarks(trace):
        click.echo(message, err=True)
    if len(trace.jobs) >= COMPILED_FROM:
        from hyperion.placement import kernels

        kernels.warm()
    gc.freeze()  # as the daemons do: what is loaded stays, and little of what follows is garbage
    gc.set_threshold(50_000, 20, 50)
    runs: list[Run] = []
    spent: list[float] = []
    with _interruptible() as stopped:
        for name, make in zip(policies, makers, strict=True):
            began = time.process_time()
            runs.append(_run(make(), name, stopped))
            spent.append(round(time.process_time() - began, 2))
            if stopped():
                break
    files = _write(runs, trace, nodes, seed, faults, directory)
    view = SimView(
        trace=trace.name,
        jobs=len(trace.jobs),
        bad_rows=trace.bad_rows,
        notes=trace.notes,
        nodes=len(nodes),
        gpus=sum(n.capacity.gpus for n in nodes),
        seed=seed,
        faults=faults,
        scores=tuple(run.score for run in runs),
        events=tuple(run.events for run in runs),
        cpu_s=tuple(spent),
        broken_off=any(run.broken_off for run in runs),
        files=tuple(str(f) for f in files),
    )
    emit(view, output, lambda wide: score_table(view.scores, wide))
    return _closing(view, runs)


def policy_names(given: Sequence[str]) -> list[str]:
    """``pack,spread`` counts as two; each once."""
    return list(dict.fromkeys(name for part in given for name in part.split(",") if name))


def _world_maker(
    trace: "Trace", nodes: "Sequence[Node]", policy: str, seed: int, faults: str
) -> "Callable[[], ClusterWorld]":
    from hyperion.placement import ranking
    from hyperion.sim.cluster_world import ClusterWorld

    try:
        chosen = ranking.policy(policy)
    except ValueError as error:
        raise Failure(str(error), "", BAD_USAGE) from None
    if faults == "calm":
        return lambda: ClusterWorld(trace, nodes, chosen)
    from hyperion.sim.agent_nodes import faulty_world
    from hyperion.sim.faults import PROFILES

    return lambda: faulty_world(trace, nodes, chosen, PROFILES[faults], seed)


def _run(world: "ClusterWorld", policy: str, stopped: Callable[[], bool]) -> "Run":
    from hyperion.sim.results import run_of

    bar = _Bar(policy, len(world.trace.jobs))
    for moment in world.play():
        bar.show(moment)
        if stopped():
            break
    bar.clear()
    return run_of(world, policy, broken_off=stopped())


class _Bar:
    """How far a run has come, on a terminal; nothing where nobody is looking."""

    WIDTH = 24

    def __init__(self, policy: str, jobs: int) -> None:
        self._policy = policy
        self._jobs = max(1, jobs)
        self._shown = 0.0
        self._began = time.monotonic()

    def show(self, moment: "Moment") -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._shown < TELL_S:
            return
        self._shown = now
        part = moment.ended / self._jobs
        full = int(part * self.WIDTH)
        pace = moment.events / max(0.001, now - self._began)
        line = (
            f"{self._policy:<12} {'█' * full}{'░' * (self.WIDTH - full)} {part:4.0%}"
            f"  {moment.ended:,} of {self._jobs:,} jobs  {moment.waiting:,} wait"
            f"  {out.age(moment.now_ms)}  {pace:,.0f} events/s"
        )
        click.echo(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", nl=False, err=True)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C ends the run at its next pause; a second one ends the program."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def _remarks(trace: "Trace") -> Iterator[str]:
    """What a reader of the figures must know of the workload."""
    if trace.bad_rows:
        yield f"{trace.name}: {trace.bad_rows:,} rows were left out, such as"
        for row in trace.bad[:5]:
            where = f", column {row.column}" if row.column else ""
            yield f"  line {row.line}{where}: {row.message}"
    yield from (f"{trace.name}: {note}" for note in trace.notes)


def _write(
    runs: "Sequence[Run]",
    trace: "Trace",
    nodes: "Sequence[Node]",
    seed: int,
    faults: str,
    directory: Path | None,
) -> list[Path]:
    if directory is None:
        return []
    from hyperion.cli.report import page
    from hyperion.cli.tables import write_tables

    files = write_tables(runs, directory)
    report = directory / "report.html"
    report.write_text(page(runs, trace, nodes, seed, faults), encoding="utf-8")
    return [*files, report]


class _Line(Struct, frozen=True):
    """One figure of the table: its name, and its value in each run."""

    name: str
    values: tuple[str, ...]


def score_table(scores: "Sequence[Score]", wide: bool) -> str:
    """Figures downwards, policies across."""
    lines = [
        _Line(figure.name, tuple(figure.cell(score) for score in scores))
        for figure in FIGURES
        if wide or not figure.wide
    ]
    columns: list[Column[_Line]] = [Column("FIGURE", lambda line: line.name)]
    for n, score in enumerate(scores):
        columns.append(Column(score.policy, lambda line, n=n: line.values[n], right=True))  # type: ignore[misc]
    return out.table(columns, lines, wide)


def _closing(view: SimView, runs: "Sequence[Run]") -> int:
    for run in runs:
        if run.never_ran:
            shown = ", ".join(run.never_ran[:3])
            click.echo(
                f"{run.policy}: {len(run.never_ran):,} jobs can never run here, such as {shown}",
                err=True,
            )
    for file in view.files:
        click.echo(f"wrote {file}", err=True)
    if view.broken_off:
        last = view.scores[-1]
        ended = last.jobs - last.never_ran
        click.echo(
            f"interrupted: {last.policy} had ended {ended:,} of {view.jobs:,} jobs;"
            " the figures are those so far",
            err=True,
        )
        return INTERRUPTED
    return OK


def _span(seconds: float) -> str:
    return out.age(1000 * seconds)


class Figure(Struct, frozen=True):
    """One row of the table of scores."""

    name: str
    value: "Callable[[Score], float]"
    cell: "Callable[[Score], str]"
    about: str
    better: int = -1
    """-1: less is better; 1: more; 0: neither."""
    wide: bool = False


def _time(name: str, field: str, about: str, wide: bool = False) -> Figure:
    return Figure(
        name, lambda s: getattr(s, field), lambda s: _span(getattr(s, field)), about, wide=wide
    )


def _count(name: str, field: str, about: str, better: int = -1, wide: bool = False) -> Figure:
    return Figure(
        name, lambda s: getattr(s, field), lambda s: f"{getattr(s, field):,}", about, better, wide
    )


def _share(name: str, field: str, about: str, better: int = -1, wide: bool = False) -> Figure:
    return Figure(
        name, lambda s: getattr(s, field), lambda s: f"{getattr(s, field):.1%}", about, better, wide
    )


FIGURES: tuple[Figure, ...] = (
    _count("succeeded", "succeeded", "jobs that came to their end", 1),
    _count("failed", "failed", "jobs that ended with another exit code", 0),
    _count("cancelled", "cancelled", "jobs that their users gave up", 0, wide=True),
    _count("never ran", "never_ran", "jobs that did not end", -1),
    _time("JCT mean", "jct_mean_s", "from submission to end"),
    _time("JCT p50", "jct_p50_s", "half of the jobs took at most so long"),
    _time("JCT p99", "jct_p99_s", "99 of 100 took at most so long"),
    _time("waiting mean", "wait_mean_s", "from submission until all replicas ran"),
    _time("waiting p50", "wait_p50_s", "half of the jobs waited at most so long", wide=True),
    _time("waiting p99", "wait_p99_s", "99 of 100 waited at most so long"),
    _time("makespan", "makespan_s", "from the first submission to the last end"),
    _share("GPUs in use", "gpu_utilisation", "GPUs held while jobs arrived", 1),
    _share("CPUs in use", "cpu_utilisation", "CPUs held while jobs arrived", 1, wide=True),
    _share("fragmentation", "fragmentation", "of the free GPUs, of no use to the mean job"),
    Figure("rho mean", lambda s: s.rho_mean, lambda s: f"{s.rho_mean:.2f}",
           "finish-time fairness: 1 is an equal share, more is less than that"),
    Figure("rho p99", lambda s: s.rho_p99, lambda s: f"{s.rho_p99:.2f}", "as rho mean"),
    Figure("rho max", lambda s: s.rho_max, lambda s: f"{s.rho_max:.1f}", "as rho mean", wide=True),
    _share("rho > 1.05", "unfair", "jobs that got less than an equal share"),
    Figure("Jain of users", lambda s: s.jain_users, lambda s: f"{s.jain_users:.3f}",
           "over the users' mean rho: 1 if all are treated alike", 1),
    _count("restarts", "restarts", "jobs that had been placed and had to wait again"),
    _count("preemptions", "preemptions", "stops to make room"),
    Figure("GPU-hours lost", lambda s: s.lost_gpu_hours, lambda s: f"{s.lost_gpu_hours:,.1f}",
           "work that had to be done again"),
    Figure("USD", lambda s: s.usd, lambda s: f"{s.usd:,.0f}" if s.usd else "-",
           "of the GPUs held, by the price of their nodes"),
    Figure("late", lambda s: s.late, lambda s: f"{s.late:,} of {s.due:,}" if s.due else "-",
           "ended after they were due"),
)  # fmt: skip
