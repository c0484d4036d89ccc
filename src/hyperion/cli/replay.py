"""``replay``: what would another policy have done with what a scheduler has lived through?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli.asking import examples, output_option
from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.sim import policy_names, simulate

if TYPE_CHECKING:
    from hyperion.model.node import Node
    from hyperion.sim.trace import Trace

STORE = "scheduler.db"


@click.command(
    epilog=examples(
        "hyperion replay --journal /var/lib/hyperion --policy fair",
        "hyperion replay --journal scheduler.db --since 7d --compare balanced fair --out results",
    )
)
@click.option("--journal", "place", required=True, type=click.Path(path_type=Path),
              metavar="FILE|DIR", help="A scheduler's store, or its state directory.")  # fmt: skip
@click.option("--policy", default="balanced", show_default=True, help="Who decides.")
@click.option("--compare", multiple=True, metavar="POLICY …", help="Several, one after another.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--since", metavar="TIME", help="Only jobs of so long before the newest, as 7d.")
@click.option("--nodes", type=click.IntRange(1), help="So many like the first, instead.")
@click.option("--out", "directory", type=click.Path(file_okay=False, path_type=Path),
              help="Tables and a report are written there.")  # fmt: skip
@output_option
def replay(
    place: Path,
    policy: str,
    compare: tuple[str, ...],
    more: tuple[str, ...],
    since: str | None,
    nodes: int | None,
    directory: Path | None,
    output: str,
) -> int:
    """Run a scheduler's own past again, under another policy. Its store is only read."""
    if more and not compare:
        raise Failure(f"what is {more[0]!r}?", "to compare policies: --compare A B C", BAD_USAGE)
    trace, machines = past(place, since)
    if nodes:
        machines = _like(machines[0], nodes)
    policies = policy_names((*compare, *more)) or [policy]
    return simulate(trace, machines, policies, 0, "calm", directory, output)


def past(place: Path, since: str | None) -> "tuple[Trace, list[Node]]":
    """The workload and the machines that a store remembers."""
    from hyperion.adapters.store.reading import StoreReader
    from hyperion.cli.jobs import duration_s
    from hyperion.sim.replay import kept
    from hyperion.sim.trace import since as newest

    path = place / STORE if place.is_dir() else place
    try:
        with StoreReader(path) as store:
            found = kept(store.entities(), store.journal())
    except OSError as error:
        remedy = f"name {STORE} of a scheduler, or the directory where it lies"
        raise Failure(str(error), remedy, BAD_USAGE) from None
    trace = found.trace if since is None else newest(found.trace, int(1000 * duration_s(since)))
    if not trace.jobs or not found.nodes:
        what = "no job that ended" if found.nodes else "no node"
        raise Failure(f"{path} remembers {what}", "replay one that has run jobs", BAD_USAGE)
    return trace, found.nodes


def _like(node: "Node", count: int) -> "list[Node]":
    from msgspec.structs import replace

    from hyperion.model.ids import NodeId

    return [replace(node, id=NodeId(f"n{n:04}")) for n in range(count)]
