"""``checkpoints``: what a job has written, and from where it would go on."""

from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, naming_jobs, output_option, server_option
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.model.job import SavedCheckpoint

COLUMNS: list[Column["SavedCheckpoint"]] = [
    Column("STEP", lambda row: f"{row.step:,}", right=True),
    Column("WRITTEN", lambda row: f"{out.age(out.now_ms() - row.at_ms)} ago"),
    Column("SIZE", lambda row: _size(row.size_bytes), right=True),
    Column("PATH", lambda row: row.path, shrink=True),
]


@click.command(epilog=examples("hyperion checkpoints train", "hyperion checkpoints train -o json"))
@click.argument("job")
@output_option
@server_option
def checkpoints(job: str, output: str) -> None:
    """The newest checkpoints of JOB that are whole, the last one first: its next start goes on
    from there (HYPERION_RESUME_FROM).

    A program writes them by hyperion.step(state) or hyperion.loop, or tells of its own by
    hyperion.checkpointed(path, step=n).
    """
    with client() as connection, naming_jobs(connection, job):
        found = connection.get(job).checkpoints[::-1]
    emit(found, output, lambda wide: out.table(COLUMNS, found, wide) if found else _none(job))


def _size(size_bytes: int) -> str:
    """As `ls -h` has it: three digits at least, the unit that fits."""
    size, unit = float(size_bytes), "B"
    for larger in ("Ki", "Mi", "Gi", "Ti"):
        if size < 1000:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"


def _none(job: str) -> str:
    return f"no checkpoint of {job} is known: see `hyperion checkpoints --help`"
