"""``queues``: the tree of a cluster's queues, with what each may have, has, and what waits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.output import Column, emit, number
from hyperion.cli.spec_options import STDIN, text_of

if TYPE_CHECKING:
    from hyperion.wire.api import QueueView

CLUSTER = click.option("--cluster", default="", help="This cluster's; needed where there are many.")


def amounts(found: Mapping[str, float]) -> str:
    """``gpus:8 memory:512Gi``, in the order of the names."""
    from hyperion.placement.quota import amount_text
    from hyperion.wire.queue_file import resource_text

    words = [f"{resource_text(name)}:{amount_text(name, found[name])}" for name in sorted(found)]
    return " ".join(words)


def _columns(found: Sequence["QueueView"]) -> "list[Column[QueueView]]":
    above = {(queue.cluster, queue.name): queue.parent for queue in found}

    def indented(queue: "QueueView") -> str:
        depth, parent = 0, queue.parent
        while parent and depth < len(above):
            depth, parent = depth + 1, above.get((queue.cluster, parent), "")
        return "  " * depth + queue.name

    return [
        Column("CLUSTER", lambda queue: queue.cluster),
        Column("QUEUE", indented),
        Column("WAITING", lambda queue: queue.waiting, right=True),
        Column("SHARE", lambda queue: number(queue.share, 3), right=True),
        Column("QUOTA", lambda queue: amounts(queue.quota), shrink=True),
        Column("USED", lambda queue: amounts(queue.used), shrink=True),
        Column("BORROWED", lambda queue: amounts(queue.borrowed), shrink=True),
        Column("STATE", lambda queue: "stopped" if queue.stopped else ""),
        Column("WEIGHT", lambda queue: f"{queue.weight:g}", wide=True, right=True),
        Column("MAY BORROW", lambda queue: amounts(queue.borrow), wide=True),
        Column("LENDS", lambda queue: amounts(queue.lend), wide=True),
        Column("RECLAIMS", lambda queue: "yes" if queue.reclaim else "no", wide=True),
        Column("PREEMPTS WITHIN", lambda q: "yes" if q.preempt_within else "no", wide=True),
        Column("USERS", lambda queue: ",".join(queue.users), wide=True),
    ]


def _emit(found: Sequence["QueueView"], output: str) -> None:
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(_columns(found), found, wide))
    else:
        click.echo("no queues; no cluster answers: hyperion clusters", err=True)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion queues",
        "hyperion queues apply queues.yaml",
        "hyperion queues apply queues.yaml --cluster lab",
        "hyperion queues rm nightly",
        "hyperion queues -o json",
    ),
)
@CLUSTER
@output_option
@server_option
@click.pass_context
def queues(ctx: click.Context, cluster: str, output: str) -> None:
    """List and change queues: their quotas, what they use and borrow, and who waits.

    SHARE is what a queue had lately of what it may have, by its weight: the smallest goes first.
    Jobs that name no queue wait in 'default', which is always there.
    """
    if ctx.invoked_subcommand is None:
        _list(cluster, output)


@queues.command("ls", epilog=examples("hyperion queues ls --cluster lab -o wide"))
@CLUSTER
@output_option
@server_option
def ls(cluster: str, output: str) -> None:
    """List queues as a tree."""
    _list(cluster, output)


def _list(cluster: str, output: str) -> None:
    with client() as connection:
        found = connection.queues(cluster)
    _emit(found, output)


@queues.command(
    "apply",
    epilog=examples(
        "hyperion queues apply queues.yaml",
        "hyperion queues apply - < queues.yaml",
        "hyperion queues apply queues.yaml --cluster lab",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@CLUSTER
@output_option
@server_option
def apply(file: Path, cluster: str, output: str) -> None:
    """Make FILE the whole tree of a cluster's queues. Queues with jobs cannot be left out.

    \b
    research:
      quota: {gpus: 64, gpus/A100: 32, cpus: 512, memory: 4096}
      queues:
        vision: {quota: {gpus: 32}, users: [ann, bob]}
        speech: {quota: {gpus: 32}, weight: 2, borrow: {gpus: 8}}
    nightly: {stopped: true}

    Sizes are GiB, or such as 512Mi. A resource that a queue does not name is not limited there.
    Queues within one lend each other what they leave idle; docs/queues.md tells all.
    """
    from hyperion.wire.queue_file import queues_from_yaml
    from hyperion.wire.spec_tree import SpecError

    source = "standard input" if file == STDIN else str(file)
    try:
        tree = queues_from_yaml(text_of(file), source)
    except SpecError as error:
        raise Failure(str(error), "correct the file", BAD_USAGE) from None
    with client() as connection:
        found = connection.apply_queues(tree, cluster)
    _emit(found, output)


@queues.command("rm", epilog=examples("hyperion queues rm nightly", "hyperion queues rm lab/old"))
@click.argument("queue")
@output_option
@server_option
def rm(queue: str, output: str) -> None:
    """Remove QUEUE (CLUSTER/QUEUE where there are many clusters). It must be empty."""
    cluster, _, name = queue.rpartition("/")
    with client() as connection:
        if not cluster:
            cluster = only_home(name, {q.cluster for q in connection.queues() if q.name == name})
        found = connection.drop_queue(cluster, name)
    _emit(found, output)


def only_home(name: str, clusters: "set[str]", what: str = "queue") -> str:
    """The one cluster that has it. Raises Failure."""
    if len(clusters) == 1:
        return next(iter(clusters))
    command = {"queue": "queues", "window": "maintenance"}[what]
    if not clusters:
        raise Failure(f"no {what} {name}", f"hyperion {command} lists them")
    named = sorted(clusters)
    raise Failure(f"{name} is in {', '.join(named)}", f"say {named[0]}/{name}", BAD_USAGE)
