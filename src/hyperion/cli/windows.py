"""``reserve`` and ``maintenance``: spans of time in which nodes are kept free."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import Failure
from hyperion.cli.output import Column, age, emit, when
from hyperion.cli.queues import CLUSTER, only_home

if TYPE_CHECKING:
    from hyperion.wire.api import WindowView

FEW_NODES = 6
"""So many are named in a table; the rest is counted."""
DAY = timedelta(days=1)


def _nodes(window: "WindowView") -> str:
    more = len(window.nodes) - FEW_NODES
    named = ",".join(window.nodes[:FEW_NODES])
    return f"{named} and {more} more" if more > 0 else named


WINDOW_COLUMNS: list[Column["WindowView"]] = [
    Column("WINDOW", lambda window: f"{window.cluster}/{window.id}"),
    Column("STATE", lambda window: window.state),
    Column("BEGINS", lambda window: when(window.begins_at_ms)),
    Column("LASTS", lambda w: age(w.ends_at_ms - w.begins_at_ms), right=True),
    Column("QUEUES", lambda window: ",".join(window.queues), shrink=True),
    Column("USERS", lambda window: ",".join(window.users), shrink=True),
    Column("NODES", _nodes, shrink=True),
    Column("REASON", lambda window: window.reason, shrink=True),
    Column("ENDS", lambda window: when(window.ends_at_ms), wide=True),
    Column("KIND", lambda window: window.kind, wide=True),
]


def moment_ms(text: str, now_ms: int, zone: tzinfo | None = None) -> int:
    """The moment in ``now``, ``+2h``, ``22:00`` (the next one), ``2026-03-01T08:00`` (local unless
    it says otherwise). Raises UsageError."""
    from hyperion.wire.units import duration_s

    wanted = text.strip()
    now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone)
    if wanted == "now":
        return now_ms
    if wanted.startswith("+"):
        seconds = duration_s(wanted[1:])
        if seconds is not None and seconds >= 0:
            return now_ms + int(seconds * 1000)
    try:
        if len(wanted) <= 5 and ":" in wanted:
            hour, minute = (int(part) for part in wanted.split(":"))
            found = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return _ms(found if found > now else found + DAY)
        found = datetime.fromisoformat(wanted)
        return _ms(found if found.tzinfo else found.replace(tzinfo=now.tzinfo))
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"--start {text!r}: expected now, +2h, 22:00 or a time such as 2026-03-01T08:00"
        ) from None


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _emit(found: "Sequence[WindowView]", output: str, none: str) -> None:
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(WINDOW_COLUMNS, found, wide))
    else:
        click.echo(none, err=True)


def _create(
    window: str,
    cluster: str,
    nodes: Sequence[str],
    count: int,
    gpu_type: str,
    start: str,
    duration: str,
    queues: Sequence[str],
    users: Sequence[str],
    reason: str,
    output: str,
) -> None:
    from hyperion.cli.jobs import duration_s
    from hyperion.wire.rest import WindowRequest

    names = [name for text in nodes for name in text.split(",") if name]
    if bool(names) == bool(count):
        raise click.UsageError("give either --nodes n1,n2 or --count 4")
    homes = {name.rpartition("/")[0] for name in names} - {""}
    if len(homes | ({cluster} - {""})) > 1:
        raise click.UsageError("the nodes of a window are all in one cluster")
    begins_ms = moment_ms(start, out.now_ms())
    asked = WindowRequest(
        cluster=cluster or next(iter(homes), ""),
        id=window,
        begins_at_ms=begins_ms,
        ends_at_ms=begins_ms + int(duration_s(duration) * 1000),
        nodes=tuple(name.rpartition("/")[2] for name in names),
        count=count,
        gpu_type=gpu_type,
        queues=tuple(queues),
        users=tuple(users),
        reason=reason,
    )
    with client() as connection:
        made = connection.add_window(asked)
    emit(made, output, lambda wide: out.table(WINDOW_COLUMNS, [made], wide))


def _list(kind: str, cluster: str, output: str) -> None:
    with client() as connection:
        found = [w for w in connection.windows(cluster) if w.kind == kind]
    _emit(found, output, f"no {kind} is planned")


def _remove(window: str, kind: str, output: str) -> None:
    cluster, _, name = window.rpartition("/")
    with client() as connection:
        there = [w for w in connection.windows(cluster) if w.id == name]
        home = cluster or only_home(name, {w.cluster for w in there}, "window")
        wrong = next((w for w in there if w.cluster == home and w.kind != kind), None)
        if wrong is not None:
            command = "maintenance" if wrong.kind == "maintenance" else "reserve"
            raise Failure(f"{name} is a {wrong.kind}", f"hyperion {command} rm {home}/{name}")
        gone = connection.drop_window(home, name)
    emit(gone, output, lambda wide: out.table(WINDOW_COLUMNS, [gone], wide))


_SHARED = (
    CLUSTER,
    click.option("--nodes", multiple=True, metavar="NODE,…", help="These nodes."),
    click.option("--count", default=0, type=click.IntRange(0), help="Any so many nodes."),
    click.option("--gpu-type", default="", help="Of those that --count may choose."),
    click.option(
        "--start", default="now", metavar="TIME", help="now, +2h, 22:00, 2026-03-01T08:00."
    ),
    click.option("--duration", required=True, metavar="TIME", help="Such as 90m or 2h30m."),
    click.option("--reason", default="", help="For those who read the list."),
    output_option,
    server_option,
)


def _creating(function: "click.decorators.FC") -> "click.decorators.FC":
    for option in reversed(_SHARED):
        function = option(function)
    return function


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion reserve",
        "hyperion reserve create demo --count 4 --start 14:00 --duration 2h --queue research",
        "hyperion reserve rm demo",
        "hyperion run --reservation demo -- python train.py",
    ),
)
@CLUSTER
@output_option
@server_option
@click.pass_context
def reserve(ctx: click.Context, cluster: str, output: str) -> None:
    """Keep nodes for some queues or users in a span of time; without a command list them.

    Others' jobs are not started there if they would still run when it begins, and are queued again
    when it does.
    """
    if ctx.invoked_subcommand is None:
        _list("reservation", cluster, output)


@reserve.command(
    "create",
    epilog=examples(
        "hyperion reserve create demo --nodes n1,n2 --start 14:00 --duration 2h --queue research",
        "hyperion reserve create night --count 8 --gpu-type A100 --duration 10h --user ann",
    ),
)
@click.argument("window")
@click.option("--queue", "queues", multiple=True, help="Jobs of this queue may use it.")
@click.option("--user", "users", multiple=True, help="Jobs of this user may use it.")
@_creating
def reserve_create(
    window: str, queues: tuple[str, ...], users: tuple[str, ...], **rest: str
) -> None:
    """Make the reservation WINDOW, or another one of that name in its place."""
    if not queues and not users:
        raise click.UsageError(
            "say for whom: --queue or --user; for nobody: hyperion maintenance create"
        )
    _create(window, queues=queues, users=users, **rest)  # type: ignore[arg-type]


@reserve.command("ls", epilog=examples("hyperion reserve ls -o wide"))
@CLUSTER
@output_option
@server_option
def reserve_ls(cluster: str, output: str) -> None:
    """List reservations that are not over yet."""
    _list("reservation", cluster, output)


@reserve.command("rm", epilog=examples("hyperion reserve rm demo", "hyperion reserve rm lab/demo"))
@click.argument("window")
@output_option
@server_option
def reserve_rm(window: str, output: str) -> None:
    """End the reservation WINDOW, begun or not."""
    _remove(window, "reservation", output)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion maintenance",
        "hyperion maintenance create disks --nodes n1,n2 --start 22:00 --duration 4h",
        "hyperion maintenance rm disks",
    ),
)
@CLUSTER
@output_option
@server_option
@click.pass_context
def maintenance(ctx: click.Context, cluster: str, output: str) -> None:
    """Keep nodes free of all jobs in a span of time; without a command list them.

    Jobs are not started there if they would still run when it begins, and are queued again when it
    does. Unlike a drain it empties the nodes by itself, and gives them back.
    """
    if ctx.invoked_subcommand is None:
        _list("maintenance", cluster, output)


@maintenance.command(
    "create",
    epilog=examples(
        "hyperion maintenance create disks --nodes n1,n2 --start 22:00 --duration 4h",
        "hyperion maintenance create kernel --count 10 --start +1h --duration 30m --reason 6.12",
    ),
)
@click.argument("window")
@_creating
def maintenance_create(window: str, **rest: str) -> None:
    """Plan the maintenance WINDOW, or another one of that name in its place."""
    _create(window, queues=(), users=(), **rest)  # type: ignore[arg-type]


@maintenance.command("ls", epilog=examples("hyperion maintenance ls -o wide"))
@CLUSTER
@output_option
@server_option
def maintenance_ls(cluster: str, output: str) -> None:
    """List maintenance that is not over yet."""
    _list("maintenance", cluster, output)


@maintenance.command("rm", epilog=examples("hyperion maintenance rm lab/disks"))
@click.argument("window")
@output_option
@server_option
def maintenance_rm(window: str, output: str) -> None:
    """End the maintenance WINDOW: its nodes are used again at once."""
    _remove(window, "maintenance", output)
