"""``run``: submit a job, follow its output, end with its exit code."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import FAILED, INTERRUPTED, OK, REFUSED, Failure
from hyperion.cli.logs import LineWriter
from hyperion.cli.output import emit
from hyperion.cli.spec_options import SpecCommand, job_options, job_to_run

if TYPE_CHECKING:
    from hyperion.client.sync import Client
    from hyperion.model.job import Job
    from hyperion.wire.api import JobView, TasksView

WAITING = frozenset({"queued", "assigned"})
ENDED = frozenset({"succeeded", "failed", "cancelled"})


@click.command(
    cls=SpecCommand,
    epilog=examples(
        "hyperion run train.yaml",
        "hyperion run --gpus A100:8 --infra aws train.yaml -d",
        "hyperion run --replicas 4 --env EPOCHS=3 -- python train.py --lr 0.1",
        "hyperion run batch.sh        # a script with #SBATCH lines",
        "generate-spec | hyperion run -",
    ),
)
@job_options
@click.option("-d", "--detach", is_flag=True, help="Print the job's id and return at once.")
@output_option
@server_option
def run(spec: Path | None, detach: bool, output: str, **flags: object) -> int:
    """Submit a job: a SPEC in YAML ('-' is standard input), a batch script, or -- COMMAND.

    Then follow its output and end with its exit code (1 if it failed without one); of an array only
    how far it has come. Ctrl-C leaves the job running, or cancels it where asked to.
    """
    job = job_to_run(spec, flags)
    with client() as connection:
        job = _with_workdir(connection, job)
        (answer,) = connection.submit_all([job])
        if answer.error:
            raise Failure(answer.error, "hyperion why tells more about a job that waits", REFUSED)
        if answer.warning:
            _say(answer.warning)
        if detach:
            emit(answer, output, lambda _: answer.id)
            _say(f"follow it: hyperion logs -f {answer.id}   end it: hyperion cancel {answer.id}")
            return OK
        _say(f"job {answer.id}{f' ({job.name})' if job.name else ''} submitted")
        try:
            view = _followed(connection, answer.id)
        except KeyboardInterrupt:
            _leave(connection, answer.id)
            return INTERRUPTED
        if output in {"json", "yaml"}:
            click.echo(out.serialized(view, output))
        return _ended(view)


def _with_workdir(connection: "Client", job: "Job") -> "Job":
    """As it is where the server sees this machine's files, else as an uploaded bundle."""
    from msgspec import structs

    if not job.workdir.startswith("/") or connection.address.is_local:
        return job
    from hyperion.client.bundle import pack

    archive = pack(Path(job.workdir))
    _say(f"uploading {job.workdir} ({len(archive) / (1 << 20):.1f} MiB)")
    return structs.replace(job, workdir=connection.upload_bundle(archive))


def _followed(connection: "Client", job_id: str) -> "JobView":
    """Wait for it to start, pass on its output, and again after each restart, until it ended."""
    shown_attempt = -1
    status = _Status()
    for change in connection.watch(job_id):
        job = change.job
        if job.phase in ENDED:
            if job.tasks is None and shown_attempt != job.restarts and job.started_at_ms:
                _pass_on(connection, job)
            status.clear()
            return job
        if job.tasks is not None and job.phase not in WAITING:
            status.show(_progress(job.tasks))
        elif job.phase == "running" and shown_attempt != job.restarts:
            status.clear()
            if job.restarts:
                why = f": {out.printable(job.reason)}" if job.reason else ""
                _say(f"restart {job.restarts}{why}")
            shown_attempt = job.restarts
            _pass_on(connection, job)
        elif job.phase in WAITING:
            status.show(_waiting(job))
    return connection.get(job_id)


def _pass_on(connection: "Client", job: "JobView") -> None:
    writer = LineWriter(prefixed=job.replicas > 1)
    for chunk in connection.logs(job.id):
        writer.write(chunk.rank, chunk.text)
    writer.finish()


def _ended(job: "JobView") -> int:
    span = out.age(job.ended_at_ms - job.started_at_ms) if job.started_at_ms else "no time"
    where = f" on {job.cluster}" if job.cluster else ""
    reason = f": {out.printable(job.reason)}" if job.reason else ""
    _say(f"job {job.id} {job.phase}{where} after {span}{reason}")
    if job.phase == "succeeded":
        return OK
    code = job.exit_code or 0
    return code if 0 < code < 256 else FAILED


def _leave(connection: "Client", job_id: str) -> None:
    """After Ctrl-C: cancel if a person at a terminal says so, else detach."""
    _say("")
    if sys.stdin.isatty() and sys.stderr.isatty():
        with contextlib.suppress(click.Abort):
            if click.confirm(f"Cancel job {job_id}? (else it runs on)", default=False, err=True):
                connection.cancel(job_id)
                _say(f"job {job_id} is being cancelled")
                return
    _say(f"job {job_id} runs on")
    _say(f"  follow it: hyperion logs -f {job_id}\n  end it:    hyperion cancel {job_id}")


class _Status:
    """One line on a terminal that says what is being waited for; lines in a log elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""

    def show(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        if self._live:
            click.echo(f"\r\x1b[K{text[: max(20, out.room() - 1)]}", nl=False, err=True)
        else:
            click.echo(text, err=True)

    def clear(self) -> None:
        if self._live and self._last:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._last = ""


def _progress(tasks: "TasksView") -> str:
    ended = tasks.succeeded + tasks.failed
    failed = f", {tasks.failed} failed" if tasks.failed else ""
    return f"{ended} of {tasks.size} tasks ended{failed}; {tasks.running} run"


def _waiting(job: "JobView") -> str:
    where = f" to {job.cluster}" if job.cluster else ""
    why = f": {out.printable(job.reason)}" if job.reason else ""
    return f"{job.phase}{where}{why}"


def _say(text: str) -> None:
    click.echo(text, err=True)
