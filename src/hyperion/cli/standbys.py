"""``activate``: a standby is wanted now, or wanted no more."""

import sys
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, naming_jobs, output_option, server_option
from hyperion.cli.exits import REFUSED
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.wire.api import ActivationView

COLUMNS: list[Column["ActivationView"]] = [
    Column("RANK", lambda row: row.rank, right=True),
    Column("NODE", lambda row: f"{row.cluster}/{row.node}"),
    Column("STANDS STILL", lambda row: ", ".join(row.stands_still) or "-"),
    Column("STOPPED ms", lambda row: _ms(row.stopped_ms), right=True),
    Column("FROZEN ms", lambda row: _ms(row.frozen_ms), right=True),
    Column("HOW", lambda row: row.error or row.how or "-"),
]


@click.command(
    epilog=examples(
        "hyperion activate serve",
        "hyperion activate serve --any",
        "hyperion activate serve --release",
    )
)
@click.argument("job")
@click.option("--release", is_flag=True, help="It is wanted no more: the others go on.")
@click.option("--any", "any_one", is_flag=True, help="One replica will do: who answers first.")
@output_option
@server_option
def activate(job: str, release: bool, any_one: bool, output: str) -> None:
    """JOB, a standby, is wanted: those on whose CPUs it sits stand still at once.

    It lends its CPUs again as soon as it has been quiet for a while (standby.quiet in its spec), or
    with --release. A connection to its port does the same as this command. Times are from the
    order at its node until the others ran no more code of their own, and until the kernel said so.
    """
    with client() as connection, naming_jobs(connection, job):
        found = connection.release(job) if release else connection.activate(job, any_one)
    emit(found, output, lambda wide: out.table(COLUMNS, found, wide))
    if any(row.error for row in found):
        sys.exit(REFUSED)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
