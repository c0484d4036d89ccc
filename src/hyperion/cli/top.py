"""``top``: how busy the nodes are, live on a terminal, once elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.output import Column, age, emit

if TYPE_CHECKING:
    from hyperion.wire.api import NodeView

BAR_WIDTH = 10


def _cpu(node: "NodeView") -> str:
    return _bar(node.metrics.get("cpu_percent"))


def _memory(node: "NodeView") -> str:
    used, total = node.metrics.get("memory_used_mb"), node.memory_mib
    return _bar(100 * used / total if used is not None and total else None)


def _gpus(node: "NodeView") -> str:
    """One figure per GPU; without measurements nothing, never something invented."""
    found = (node.metrics.get(f"gpu{index}_percent") for index in range(node.gpus))
    return " ".join(f"{percent:.0f}%" for percent in found if percent is not None)


def _bar(percent: float | None) -> str:
    if percent is None:
        return ""
    filled = max(0, min(BAR_WIDTH, round(percent / 100 * BAR_WIDTH)))
    return f"{'█' * filled}{'·' * (BAR_WIDTH - filled)} {percent:3.0f}%"


TOP_COLUMNS: list[Column["NodeView"]] = [
    Column("NODE", lambda node: f"{node.cluster}/{node.id}"),
    Column("STATE", lambda node: node.state),
    Column("CPU", _cpu),
    Column("MEMORY", _memory),
    Column("GPUS", _gpus, shrink=True),
    Column("REPLICAS", lambda node: node.replicas, right=True),
    Column("HEARD", lambda node: f"{age(node.heard_ms_ago)} ago", right=True),
    Column("REGION", lambda node: node.region, wide=True),
    Column("INSTANCE", lambda node: node.instance_type, wide=True),
]


@click.command(epilog=examples("hyperion top", "hyperion top --cluster home", "hyperion top | cat"))
@click.option("--cluster", default="", help="Only this cluster's nodes.")
@click.option(
    "--every", default=2.0, type=click.FloatRange(0.5, 3600), show_default=True, help="Seconds."
)
@output_option
@server_option
def top(cluster: str, every: float, output: str) -> None:
    """How busy the nodes are. On a terminal it refreshes until Ctrl-C; elsewhere it prints once."""
    with client() as connection:
        if not sys.stdout.isatty() or output in {"json", "yaml"}:
            found = connection.nodes(cluster)
            emit(found, output, lambda wide: out.table(TOP_COLUMNS, found, wide))
            return
        try:
            while True:
                found = connection.nodes(cluster)
                text = out.table(TOP_COLUMNS, found, output == "wide") if found else "no nodes"
                noun = "node" if len(found) == 1 else "nodes"
                click.echo(f"\x1b[H\x1b[2J{text}\n\n{len(found)} {noun}; Ctrl-C ends this")
                time.sleep(every)
        except KeyboardInterrupt:
            return
