"""``nodes``, ``clusters``, ``offers``, ``cordon``, ``uncordon`` and ``drain``."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import Failure
from hyperion.cli.output import Column, age, counted, emit, gib, number
from hyperion.cli.policies import tell_replaced

if TYPE_CHECKING:
    from hyperion.client.sync import Client
    from hyperion.wire.api import ClusterView, NodeView, OfferView


def _gpus(node: "NodeView") -> str:
    if not node.gpus:
        return ""
    return f"{node.gpu_type or 'GPU'}:{counted(node.gpus_free)}/{node.gpus}"


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


NODE_COLUMNS: list[Column["NodeView"]] = [
    Column("NODE", lambda node: f"{node.cluster}/{node.id}"),
    Column("REGION", lambda node: node.region),
    Column("STATE", lambda node: node.state),
    Column("GPUS FREE", _gpus),
    Column("CPUS FREE", lambda n: f"{counted(n.cpus_free)}/{counted(n.cpus)}", right=True),
    Column("MEMORY FREE", lambda n: f"{gib(n.memory_free_mib)}/{gib(n.memory_mib)}", right=True),
    Column("REPLICAS", lambda node: node.replicas, right=True),
    Column("HEARD", lambda node: f"{age(node.heard_ms_ago)} ago", right=True),
    Column("DECLARED", lambda node: ",".join(node.declared)),
    Column("INSTANCE", lambda node: node.instance_type, wide=True),
    Column("MARKET", lambda node: node.market, wide=True),
    Column("$/h", lambda node: number(node.usd_per_hour, 3), wide=True, right=True),
    Column("ADDRESS", lambda node: node.address, wide=True),
    Column("VERSION", lambda node: node.version, wide=True),
    Column("LABELS", lambda node: _labels(node.labels), wide=True),
    Column("TAINTS", lambda node: ",".join(node.taints), wide=True),
    Column("ABILITIES", lambda node: _labels(node.abilities), wide=True),
]
CLUSTER_COLUMNS: list[Column["ClusterView"]] = [
    Column("CLUSTER", lambda cluster: cluster.id),
    Column("REGION", lambda cluster: cluster.region),
    Column("STATE", lambda cluster: cluster.state),
    Column("NODES", lambda cluster: cluster.nodes, right=True),
    Column("GPUS", lambda cluster: cluster.gpus, shrink=True),
    Column("GPUS FREE", lambda cluster: cluster.gpus_free, shrink=True),
    Column("CPUS FREE", lambda c: f"{counted(c.cpus_free)}/{counted(c.cpus)}", right=True),
    Column("WAITING", lambda cluster: cluster.waiting, right=True),
    Column("RUNNING", lambda cluster: cluster.running, right=True),
    Column("$/h", lambda cluster: number(cluster.usd_per_hour), right=True),
    Column("gCO2e/kWh", lambda cluster: number(cluster.gco2e_per_kwh, 0), right=True),
    Column("HEARD", lambda cluster: f"{age(cluster.heard_ms_ago)} ago", right=True),
    Column("DECLARED", lambda cluster: "yes" if cluster.declared else ""),
    Column("VERSION", lambda cluster: cluster.version, wide=True),
]
OFFER_COLUMNS: list[Column["OfferView"]] = [
    Column("REGION", lambda offer: offer.region),
    Column("INSTANCE", lambda offer: offer.instance_type),
    Column("ACCELERATORS", lambda offer: offer.accelerators),
    Column("CPUS", lambda offer: counted(offer.cpus), right=True),
    Column("MEMORY", lambda offer: f"{counted(offer.memory_gib)}Gi", right=True),
    Column("MARKET", lambda offer: offer.market),
    Column("$/h", lambda offer: number(offer.usd_per_hour, 3), right=True),
    Column("$/GPU/h", lambda offer: number(offer.usd_per_gpu_hour, 3), right=True),
    Column("gCO2e/kWh", lambda offer: number(offer.gco2e_per_kwh, 0), right=True),
    Column("AS OF", lambda offer: offer.as_of),
    Column("SOURCE", lambda offer: offer.source, wide=True),
]


@click.command(epilog=examples("hyperion nodes", "hyperion nodes --cluster home -o wide"))
@click.option("--cluster", default="", help="Only this cluster's.")
@output_option
@server_option
def nodes(cluster: str, output: str) -> None:
    """List nodes. DECLARED names resources that are declared for rehearsal, not really there."""
    with client() as connection:
        found = connection.nodes(cluster)
        _emit_rows(found, output, lambda wide: out.table(NODE_COLUMNS, found, wide), "no nodes")
        if output not in {"json", "yaml"}:
            tell_replaced(connection)


@click.command(epilog=examples("hyperion clusters", "hyperion clusters -o json"))
@output_option
@server_option
def clusters(output: str) -> None:
    """List clusters that have joined."""
    with client() as connection:
        found = connection.clusters()
    none = "no cluster has joined; on this machine: hyperion up"
    _emit_rows(found, output, lambda wide: out.table(CLUSTER_COLUMNS, found, wide), none)


@click.command(
    epilog=examples("hyperion offers --gpus A100", "hyperion offers --region aws --market spot")
)
@click.option("--gpus", "--accelerators", "gpus", default="", metavar="TYPE", help="Such as A100.")
@click.option("--region", default="", help="A region, or the beginning of one, such as aws/.")
@click.option("--market", default="", type=click.Choice(["", "on-demand", "spot"]), help="One.")
@click.option("--limit", default=50, type=click.IntRange(1, 10_000), show_default=True)
@output_option
@server_option
def offers(gpus: str, region: str, market: str, limit: int, output: str) -> None:
    """List what the catalogue says can be had, cheapest per GPU first."""
    with client() as connection:
        found = connection.offers(gpus, region, market, limit)
    _emit_rows(found, output, lambda wide: out.table(OFFER_COLUMNS, found, wide), "no such offers")


@click.command(epilog=examples("hyperion cordon home/n1"))
@click.argument("node")
@output_option
@server_option
def cordon(node: str, output: str) -> None:
    """Place nothing new on NODE (cluster/node); what runs there runs on."""
    _change(node, output, lambda connection: connection.cordon(node))


@click.command(epilog=examples("hyperion uncordon home/n1"))
@click.argument("node")
@output_option
@server_option
def uncordon(node: str, output: str) -> None:
    """Use NODE again after a cordon or a drain."""
    _change(node, output, lambda connection: connection.uncordon(node))


@click.command(epilog=examples("hyperion drain home/n1", "hyperion nodes   # shows its progress"))
@click.argument("node")
@output_option
@server_option
def drain(node: str, output: str) -> None:
    """Place nothing new on NODE, and start elsewhere what runs there."""
    _change(node, output, lambda connection: connection.drain(node))


def _change(node: str, output: str, change: "Callable[[Client], NodeView]") -> None:
    from hyperion.cli.main import nearest
    from hyperion.client.errors import NotFound

    with client() as connection:
        try:
            view = change(connection)
        except NotFound:
            known = [f"{n.cluster}/{n.id}" for n in connection.nodes()]
            near = nearest(node, known)
            hint = f"did you mean {near}? " if near else ""
            raise Failure(f"no node {node}", f"{hint}hyperion nodes lists them") from None
    emit(view, output, lambda wide: out.table(NODE_COLUMNS, [view], wide))


def _emit_rows(
    found: Sequence[object], output: str, table: Callable[[bool], str], none: str
) -> None:
    if found or output in {"json", "yaml"}:
        emit(found, output, table)
    else:
        click.echo(none, err=True)
