"""``ps``, ``show``, ``why``, ``wait`` and ``cancel``."""

import sys
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, naming_jobs, output_option, server_option
from hyperion.cli.exits import FAILED, OK, TIMED_OUT, Failure
from hyperion.cli.output import Column, age, emit, number, when

if TYPE_CHECKING:
    from hyperion.client.sync import Client
    from hyperion.model.job import TaskFailure
    from hyperion.wire.api import JobView, WhyView

MAX_KNOWN = 10_000
"""Jobs of which a watch remembers the last row, to leave out repetitions."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
PHASES = ("queued", "assigned", "starting", "running", "stopping", *sorted(ENDED))


def elapsed_ms(job: "JobView") -> int:
    """Running time; while it waits, since it was submitted."""
    begin = job.started_at_ms or job.submitted_at_ms
    return (job.ended_at_ms or out.now_ms()) - begin


def replicas(job: "JobView") -> str:
    """``8``; of an elastic job such as ``6/8``; of an array its ended tasks, such as ``70/100``."""
    if job.tasks is not None:
        return f"{job.tasks.succeeded + job.tasks.failed}/{job.tasks.size}"
    return f"{job.width}/{job.replicas}" if job.width else str(job.replicas)


JOB_COLUMNS: list[Column["JobView"]] = [
    Column("ID", lambda job: job.id),
    Column("NAME", lambda job: job.name, shrink=True),
    Column("USER", lambda job: job.user, shrink=True),
    Column("PHASE", lambda job: job.phase),
    Column("CLUSTER", lambda job: job.cluster, shrink=True),
    Column("REPLICAS", replicas, right=True),
    Column("RESOURCES", lambda job: job.resources, shrink=True),
    Column("TIME", lambda job: age(elapsed_ms(job)), right=True),
    Column("EXIT", lambda job: job.exit_code, right=True),
    Column("REGION", lambda job: job.region, wide=True),
    Column("QUEUE", lambda job: job.queue, wide=True),
    Column("PRIORITY", lambda job: job.priority, wide=True),
    Column("NICE", lambda job: job.nice, wide=True, right=True),
    Column("RESTARTS", lambda job: job.restarts, wide=True, right=True),
    Column("PREEMPTED", lambda job: job.preemptions, wide=True, right=True),
    Column("$/h", lambda job: number(job.usd_per_hour), wide=True, right=True),
    Column("$", lambda job: number(job.usd), wide=True, right=True),
    Column("gCO2e", lambda job: number(job.gco2e, 0), wide=True, right=True),
    Column("NODES", lambda job: ",".join(job.nodes), wide=True),
    Column("REASON", lambda job: job.reason, shrink=True),
]


@click.command(
    epilog=examples("hyperion ps", "hyperion ps -a -o wide", "hyperion ps --phase queued --watch")
)
@click.option("-a", "--all", "ended", is_flag=True, help="Ended jobs too.")
@click.option("-u", "--user", default="", help="Only this user's.")
@click.option("--name", default="", help="Only jobs of this name.")
@click.option("--cluster", default="", help="Only jobs in this cluster.")
@click.option("--phase", "phases", multiple=True, type=click.Choice(PHASES), help="Only these.")
@click.option("--limit", default=1000, type=click.IntRange(1, 10_000), show_default=True)
@click.option("-w", "--watch", is_flag=True, help="Then a row for each change, until Ctrl-C.")
@output_option
@server_option
def ps(
    ended: bool,
    user: str,
    name: str,
    cluster: str,
    phases: tuple[str, ...],
    limit: int,
    watch: bool,
    output: str,
) -> None:
    """List jobs, newest first. REASON says why a job waits, or how it ended."""
    with client() as connection:
        found = connection.list(phases, user, name, cluster, ended, limit)
        widths: list[int] = []
        if found or output in {"json", "yaml"}:
            emit(found, output, lambda wide: out.table(JOB_COLUMNS, found, wide, widths=widths))
        else:
            click.echo("no jobs" if ended else "no jobs; ended ones: hyperion ps -a", err=True)
        if watch:
            known = {job.id: job for job in found}
            _watch(connection, known, _Filter(user, name, cluster), output, widths)


class _Filter(NamedTuple):
    user: str
    name: str
    cluster: str

    def wants(self, job: "JobView") -> bool:
        return (
            self.user in {"", job.user}
            and self.name in {"", job.name}
            and self.cluster in {"", job.cluster}
        )


def _watch(
    connection: "Client",
    known: "dict[str, JobView]",
    wanted: _Filter,
    output: str,
    widths: list[int],
) -> None:
    for change in connection.watch():
        job = change.job
        if not wanted.wants(job):
            continue
        if job.id in known and _state_of(known[job.id]) == _state_of(job):
            continue
        known[job.id] = job
        if len(known) > MAX_KNOWN:
            known.clear()
        _print_row(job, output, widths)


def _state_of(job: "JobView") -> tuple[object, ...]:
    """What makes a new row worth printing; the bill, which grows all the time, does not."""
    return (job.phase, job.reason, job.cluster, job.nodes, job.restarts, job.exit_code)


def _print_row(job: "JobView", output: str, widths: list[int]) -> None:
    def row(wide: bool) -> str:
        return out.table(JOB_COLUMNS, [job], wide, header=False, widths=widths)

    emit(job, output, row)
    sys.stdout.flush()


@click.command(epilog=examples("hyperion show train", "hyperion show k3 -o json"))
@click.argument("job")
@click.option("--spec", is_flag=True, help="The spec as it was submitted, secrets hidden.")
@output_option
@server_option
def show(job: str, spec: bool, output: str) -> None:
    """Everything about one JOB: its id, a unique prefix of it, or its name (the newest)."""
    with client() as connection, naming_jobs(connection, job):
        if spec:
            from hyperion.wire.spec import job_to_mapping

            submitted = connection.spec(job)
            mapping = job_to_mapping(submitted)
            emit(mapping, output, lambda _: out.serialized(mapping, "yaml"))
            return
        view = connection.get(job)
        emit(view, output, lambda _: _described(view))


@click.command(epilog=examples("hyperion why train"))
@click.argument("job")
@output_option
@server_option
def why(job: str, output: str) -> None:
    """Why JOB runs where it does, or why it waits: the decision with its arithmetic."""
    with client() as connection, naming_jobs(connection, job):
        answer = connection.why(job)
    emit(answer, output, lambda wide: _explained(answer, wide))


@click.command(
    epilog=examples("hyperion wait train", "hyperion wait j1 j2 --timeout 10m && echo both done")
)
@click.argument("jobs", nargs=-1, required=True)
@click.option("--timeout", metavar="TIME", help="Give up after this long, such as 90s or 2h.")
@output_option
@server_option
def wait(jobs: tuple[str, ...], timeout: str | None, output: str) -> int:
    """Wait until all JOBS have ended. Exit code 0 if all succeeded, 1 if not, 5 at the timeout."""
    from hyperion.client.errors import TimedOut

    deadline_ms = out.now_ms() + duration_s(timeout) * 1000 if timeout else None
    ended = []
    with client() as connection:
        for job in jobs:
            left = None if deadline_ms is None else max(0.001, (deadline_ms - out.now_ms()) / 1000)
            try:
                with naming_jobs(connection, job):
                    ended.append(connection.wait(job, left))
            except TimedOut:
                raise Failure(
                    f"{job} has not ended within {timeout}", f"hyperion why {job}", TIMED_OUT
                ) from None
    emit(ended, output, lambda wide: out.table(JOB_COLUMNS, ended, wide))
    return OK if all(view.phase == "succeeded" for view in ended) else FAILED


@click.command(epilog=examples("hyperion cancel train", "hyperion cancel j1 j2"))
@click.argument("jobs", nargs=-1, required=True)
@output_option
@server_option
def cancel(jobs: tuple[str, ...], output: str) -> None:
    """End JOBS. Their replicas get SIGTERM, and SIGKILL after their grace."""
    views = []
    with client() as connection:
        for job in jobs:
            with naming_jobs(connection, job):
                views.append(connection.cancel(job))
    emit(views, output, lambda wide: out.table(JOB_COLUMNS, views, wide))


def duration_s(text: str) -> float:
    """Seconds of ``90``, ``15m``, ``2h30m``."""
    from hyperion.wire.units import duration_s as parsed

    seconds = parsed(text)
    if seconds is None or seconds < 0:
        raise click.UsageError(f"{text!r} is no duration; write such as 90s, 15m or 2h30m")
    return seconds


def _times(count: int) -> str:
    return f"{count} time{'s' * (count != 1)}" if count else ""


def _replicas(job: "JobView") -> str:
    if job.tasks is not None:
        return ""
    if job.roles:
        return ", ".join(f"{count} {name}" for name, count in job.roles.items())
    return f"{job.width} now, {job.replicas} at most" if job.width else str(job.replicas)


def _tasks(job: "JobView") -> str:
    tasks = job.tasks
    if tasks is None:
        return ""
    states = ("waiting", "running", "succeeded", "failed")
    counts = [f"{getattr(tasks, state)} {state}" for state in states if getattr(tasks, state)]
    limit = f", at most {tasks.limit} at once" if tasks.limit else ""
    return f"{tasks.size}: {', '.join(counts)}{limit}"


FAILURE_COLUMNS: "list[Column[TaskFailure]]" = [
    Column("FAILED TASK", lambda failure: failure.rank, right=True),
    Column("EXIT", lambda failure: failure.exit_code, right=True),
    Column("REASON", lambda failure: failure.reason, shrink=True),
]


def _checkpoint(job: "JobView") -> str:
    return f"step {job.checkpoints[-1].step:,}" if job.checkpoints else ""


def _described(job: "JobView") -> str:
    lines = out.facts(
        [
            ("id", job.id),
            ("name", job.name),
            ("user", job.user),
            ("phase", job.phase),
            ("reason", job.reason),
            ("exit code", job.exit_code),
            ("priority", job.priority),
            ("framework", job.framework),
            ("queue", f"{job.queue}, nice {job.nice}" if job.nice else job.queue),
            ("replicas", _replicas(job)),
            ("tasks", _tasks(job)),
            ("resources", job.resources),
            ("cluster", job.cluster),
            ("region", job.region),
            ("nodes", ", ".join(job.nodes)),
            ("restarts", job.restarts),
            ("preempted", _times(job.preemptions)),
            ("checkpoint", _checkpoint(job)),
            ("waits for", ", ".join(job.awaits)),
            ("submitted", when(job.submitted_at_ms)),
            ("started", when(job.started_at_ms)),
            ("ended", when(job.ended_at_ms)),
            ("time", age(elapsed_ms(job))),
            ("price", f"{job.usd_per_hour:.4f} $/h, {job.usd:.4f} $ so far"),
            ("carbon", f"{job.gco2e:.3f} gCO2e so far"),
        ]
    )
    if job.tasks is not None and job.tasks.failures:
        lines += "\n\n" + out.table(FAILURE_COLUMNS, job.tasks.failures)
    if not job.ranks:
        return lines
    ranks = out.table(
        [
            Column("RANK", lambda r: r.rank, right=True),
            Column("NODE", lambda r: r.node),
            Column("STATE", lambda r: r.state),
            Column("EXIT", lambda r: r.exit_code, right=True),
            Column("DEVICES", lambda r: ",".join(map(str, r.devices))),
            Column("REASON", lambda r: r.reason, shrink=True),
        ],
        job.ranks,
    )
    return f"{lines}\n\n{ranks}"


def _explained(answer: "WhyView", wide: bool) -> str:
    from hyperion.cli.plan import plan_table

    parts = [f"{answer.id} is {answer.phase}."]
    parts += [out.printable(sentence) for sentence in answer.sentences]
    if answer.queue_position is not None and answer.phase == "queued":  # else a sentence says it
        parts.append(f"Jobs before it in the queue: {answer.queue_position}.")
    if answer.plan is not None:
        said = msgspec.structs.replace(answer.plan, sentence="")  # the first sentence above
        parts += ["", plan_table(said, wide)]
    return "\n".join(parts)


__all__ = ["JOB_COLUMNS", "cancel", "duration_s", "ps", "show", "wait", "why"]
