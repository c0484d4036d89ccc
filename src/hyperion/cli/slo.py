"""``slo``: how well the promise is kept that urgent jobs get their CPUs at once."""

from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.wire.api import PromiseView

SHOWN = 5
"""Of each row; `-o json` has them all."""
COLUMNS: list[Column["PromiseView"]] = [
    Column("CLUSTER", lambda row: row.cluster),
    Column("NODE", lambda row: row.node or "all"),
    Column("STEP", lambda row: row.step),
    Column("COUNT", lambda row: row.took.count, right=True),
    Column("P50 ms", lambda row: _ms(row.took.p50), right=True),
    Column("P99 ms", lambda row: _ms(row.took.p99), right=True),
    Column("P99.9 ms", lambda row: _ms(row.took.p999), right=True),
    Column("MAX ms", lambda row: _ms(row.took.max), right=True),
    Column("PROMISED ms", lambda row: _ms(row.promised_ms) if row.promised_ms else "", right=True),
    Column("MISSED", lambda row: row.missed if row.promised_ms else "", right=True),
]


@click.command(epilog=examples("hyperion slo", "hyperion slo -o json"))
@output_option
@server_option
def slo(output: str) -> None:
    """How long it took to let jobs stand still for more urgent ones.

    Steps of the whole cluster are by its scheduler's clock; those of a node, from the agent's call
    until its processes stood, by the node's. Of the last 10,000 pauses since the scheduler began.
    """
    with client() as connection:
        found = connection.slo()
    if not found and output == "table":
        click.echo("No job has stood still for another since the schedulers were started.")
        return
    emit(found, output, lambda wide: out.table(COLUMNS, found, wide) + _misses(found))


def _misses(rows: "list[PromiseView]") -> str:
    """What is known of the newest ones that were late, below the table."""
    lines = []
    for row in rows:
        where = f"{row.cluster}/{row.node}" if row.node else row.cluster
        for miss in row.misses[:SHOWN]:
            took = f"{_ms(miss.took_ms)} ms" if miss.took_ms else "never"
            lines.append(f"{out.when(miss.at_ms)}  {where}  for job {miss.job}: {took}, {miss.why}")
            lines += [f"    thread {out.printable(x)}" for x in miss.stragglers]
    return "\n\nMissed:\n" + "\n".join(lines) if lines else ""


def _ms(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
