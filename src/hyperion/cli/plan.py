"""``plan``: where a job would go, as a table of places with their price."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import FAILED, OK
from hyperion.cli.output import Column, emit, number
from hyperion.cli.spec_options import SpecCommand, job_options, job_to_run

if TYPE_CHECKING:
    from hyperion.wire.api import PlanRow, PlanView


def _cluster(row: "PlanRow") -> str:
    if row.joined:
        return f"{row.cluster} (declared)" if row.declared else row.cluster
    return f"{row.cluster} (not joined)".strip()


def _best(row: "PlanRow") -> str:
    """What it is best in; of those that are best in nothing the ones that nothing beats in all."""
    return ", ".join(row.best) or ("a trade-off" if row.undominated else "")


PLAN_COLUMNS: list[Column["PlanRow"]] = [
    Column("#", lambda row: row.rank, right=True),
    Column("CLUSTER", _cluster),
    Column("REGION", lambda row: row.region),
    Column("INSTANCE", lambda row: row.instance_type, wide=True),
    Column("ACCELERATORS", lambda row: row.accelerators),
    Column("MARKET", lambda row: row.market),
    Column("$/h", lambda row: number(row.usd_per_hour, 3), right=True),
    Column("EGRESS$", lambda row: number(row.egress_usd), right=True),
    Column("gCO2e/h", lambda row: number(row.gco2e_per_hour, 0), right=True),
    Column("LATENCY_MS", lambda row: number(row.latency_ms, 0), right=True),
    Column("SCORE", lambda row: number(row.score, 4), right=True),
    Column("CHOSEN", lambda row: "*" if row.chosen else ""),
    Column("BEST", _best),
    Column("REASON", lambda row: row.reason, shrink=True),
]


def plan_table(view: "PlanView", wide: bool) -> str:
    """Joined clusters first, then what the catalogue offers where nobody has joined."""
    rows = sorted(view.rows, key=lambda row: (not row.joined, row.rank))
    lines = [out.table(PLAN_COLUMNS, rows, wide), ""]
    if view.sentence:
        lines.append(out.printable(view.sentence))
    lines += [out.printable(line) for line in view.arithmetic if line.startswith("data:")]
    if view.outlook is not None:
        from hyperion.wire.outlook_text import outlook_sentences

        said = outlook_sentences(view.outlook, out.now_ms())
        lines += [out.printable(f"In {view.outlook.cluster}: {text}") for text in said]
    if view.market_as_of:
        lines.append(f"prices as of {view.market_as_of}; policy {view.policy}")
    return "\n".join(lines)


@click.command(
    cls=SpecCommand,
    epilog=examples(
        "hyperion plan train.yaml",
        "hyperion plan train.yaml --policy greenest",
        "hyperion plan --gpus A100:8 -- python train.py",
    ),
)
@job_options
@output_option
@server_option
def plan(spec: Path | None, output: str, **flags: object) -> int:
    """Where would a job go, what does it cost there, and why not elsewhere? Changes nothing.

    The chosen cluster also tells when it would start there, by the same round on a trial copy.

    Joined clusters come first, then offers of the catalogue, marked (not joined). Exit code 1 when
    no joined cluster can take the job.
    """
    job = job_to_run(spec, flags)
    with client() as connection:
        view = connection.plan(job)
    emit(view, output, lambda wide: plan_table(view, wide))
    return OK if view.feasible else FAILED
