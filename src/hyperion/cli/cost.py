"""``cost`` and ``budgets``: what jobs have cost, what home would have, and who may spend what."""

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import FORMATS, client, examples, output_option, server_option
from hyperion.cli.output import Column, emit, number

if TYPE_CHECKING:
    from hyperion.wire.money import BudgetView, CostRow, CostView

BYS = ("user", "queue", "job", "cluster", "month")


def money(usd: float) -> str:
    """Cents, and more digits where cents would show nothing."""
    from hyperion.placement.objective import dollars

    return dollars(usd, 2)


def moment_ms(text: str, now_ms: int) -> int:
    """``7d`` (so long ago), ``2026-11``, ``2026-11-01``, ``2026-11-01T08:00`` (UTC)."""
    from hyperion.wire.units import duration_s

    wanted = text.strip()
    try:
        if len(wanted) == len("2026-11") and wanted[4] == "-":
            wanted += "-01"
        found = datetime.fromisoformat(wanted)
        moment = found if found.tzinfo else found.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        seconds = duration_s(wanted)
    if seconds is None or seconds < 0:
        raise click.UsageError(
            f"{text!r} is no time; write such as 7d (ago), 2026-11, or 2026-11-01T08:00 (UTC)"
        )
    return max(1, now_ms - int(1000 * seconds))


def _home(row: "CostRow") -> str:
    """What home would have cost, ``?`` beside it where that is not all."""
    if row.unknown_usd >= row.usd > 0:
        return "?"
    return money(row.home_usd) + (" + ?" if row.unknown_usd > 0 else "")


def _columns(by: str) -> "list[Column[CostRow]]":
    return [
        Column(by.upper(), lambda row: row.name, shrink=True),
        Column("PLACEMENTS", lambda row: row.lines, right=True),
        Column("RUNNING", lambda row: row.running or "", right=True),
        Column("HOURS", lambda row: number(row.hours), right=True),
        Column("USD", lambda row: money(row.usd), right=True),
        Column("EGRESS", lambda row: money(row.egress_usd), right=True),
        Column("kWh", lambda row: number(row.kwh, 3), right=True),
        Column("gCO2e", lambda row: number(row.gco2e, 1), right=True),
        Column("AT HOME", _home, right=True),
        Column("SAVED", lambda row: money(row.saved_usd) if _home(row) != "?" else "?", right=True),
        Column("HOME UNKNOWN", lambda row: money(row.unknown_usd), wide=True, right=True),
    ]


def _bill(view: "CostView", wide: bool) -> str:
    rows = (*view.rows, view.total) if len(view.rows) != 1 or view.left_out else view.rows
    parts = [out.table(_columns(view.by), rows, wide)]
    if view.left_out:
        parts.append(f"{view.left_out} further rows; -o json --limit shows up to 10000")
    notes = []
    if view.total.running:
        notes.append(f"{view.total.running} run now; what they have cost so far is in the sums")
    if view.homes:
        notes.append(f"at home: the same hours on demand in {', '.join(view.homes)}")
    if view.total.unknown_usd > 0:
        notes.append(
            f"{money(view.total.unknown_usd)} were paid where nobody knows what home would have"
            " cost; the federation's setting home names another"
        )
    notes += [_told(budget) for budget in view.budgets]
    return "\n".join([*parts, *([""] if notes else []), *notes])


def _told(budget: "BudgetView") -> str:
    kind, _, name = budget.tenant.partition(":")
    follows = {
        "warn": "",
        "hold": f"; {budget.held} of its jobs wait",
        "pause": f"; {budget.held} of its jobs are stopped or wait",
    }[budget.then]
    return (
        f"{kind} {name} has spent {money(budget.spent_usd)} of {money(budget.usd)} for this"
        f" {budget.per}{follows}"
    )


def _csv(view: "CostView") -> str:
    import msgspec

    fields = [field.name for field in msgspec.structs.fields(view.total)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([view.by, *fields[1:]])
    writer.writerows([getattr(row, name) for name in fields] for row in view.rows)
    return text.getvalue().rstrip("\n")


@click.command(
    epilog=examples(
        "hyperion cost",
        "hyperion cost --by month",
        "hyperion cost --by job --since 7d",
        "hyperion cost --by queue --since 2026-11 --until 2026-12 -o csv",
    )
)
@click.option("--by", type=click.Choice(BYS), default="user", show_default=True, help="A row each.")
@click.option("--since", metavar="TIME", help="From then on: 7d (ago), 2026-11, 2026-11-01T08:00.")
@click.option("--until", metavar="TIME", help="Before then.")
@click.option("--limit", default=1000, type=click.IntRange(1, 10_000), show_default=True)
@click.option("-o", "--output", type=click.Choice((*FORMATS, "csv")), default="table",
              help="How to print it.")  # fmt: skip
@server_option
def cost(by: str, since: str | None, until: str | None, limit: int, output: str) -> None:
    """What jobs have cost, ended or running, and what home would have cost on demand.

    USD has machines and egress by the prices that placed the job; kWh and gCO2e are estimates from
    rated power. Where a job ran over the ends of the span, its hours are parted evenly.
    """
    now_ms = out.now_ms()
    since_ms = moment_ms(since, now_ms) if since else 0
    until_ms = moment_ms(until, now_ms) if until else 0
    if until_ms and until_ms <= since_ms:
        raise click.UsageError(f"--until {until!r} is not after --since {since!r}")
    with client() as connection:
        view = connection.cost(by, since_ms, until_ms, limit)
    if output == "csv":
        click.echo(_csv(view))
    elif view.rows or output in {"json", "yaml"}:
        emit(view, output, lambda wide: _bill(view, wide))
    else:
        click.echo("nothing was billed in that time", err=True)


BUDGET_COLUMNS: "list[Column[BudgetView]]" = [
    Column("TENANT", lambda budget: budget.tenant),
    Column("BUDGET", lambda budget: f"{money(budget.usd)}/{budget.per}", right=True),
    Column("PERIOD", lambda budget: budget.period),
    Column("SPENT", lambda budget: money(budget.spent_usd), right=True),
    Column("THEN", lambda budget: budget.then),
    Column("STATE", lambda budget: "spent" if budget.over else ""),
    Column("HELD", lambda budget: budget.held or "", right=True),
]


def tenant(name: str) -> str:
    """``user:ann`` of ``ann``; other kinds are named."""
    return name if name.startswith(("user:", "queue:")) else f"user:{name}"


def _emit(found: "list[BudgetView]", output: str) -> None:
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(BUDGET_COLUMNS, found, wide))
    else:
        click.echo("no budgets; hyperion budgets set NAME --usd N sets one", err=True)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion budgets",
        "hyperion budgets set ann --usd 500",
        "hyperion budgets set queue:vision --usd 200 --per day --then hold",
        "hyperion budgets rm queue:vision",
    ),
)
@output_option
@server_option
@click.pass_context
def budgets(ctx: click.Context, output: str) -> None:
    """What users and queues may spend in a day or month (UTC), and what they have spent of it."""
    if ctx.invoked_subcommand is None:
        _list(output)


def _list(output: str) -> None:
    with client() as connection:
        found = connection.budgets()
    _emit(found, output)


@budgets.command("ls", epilog=examples("hyperion budgets ls -o json"))
@output_option
@server_option
def ls(output: str) -> None:
    """List budgets."""
    _list(output)


@budgets.command(
    "set",
    epilog=examples(
        "hyperion budgets set ann --usd 500 --per month --then hold",
        "hyperion budgets set queue:vision --usd 200 --per day --then pause",
    ),
)
@click.argument("name")
@click.option("--usd", type=click.FloatRange(min=0), required=True, help="How much.")
@click.option("--per", type=click.Choice(("day", "month")), default="month", show_default=True)
@click.option("--then", type=click.Choice(("warn", "hold", "pause")), default="warn",
              show_default=True, help="What follows when it is spent.")  # fmt: skip
@output_option
@server_option
def set_budget(name: str, usd: float, per: str, then: str, output: str) -> None:
    """Set what NAME may spend: a user, or queue:QUEUE. One of the same NAME is replaced.

    \b
    warn    it is said by 'cost' and to whoever submits a job
    hold    jobs that are not placed yet wait until the next day or month, or for more money
    pause   also, what is placed is stopped with its grace and waits; it starts anew from its
            newest checkpoint

    It is looked at every 5 s, so a little more than the budget may be spent.
    """
    with client() as connection:
        found = connection.set_budget(tenant(name), usd, per, then)
    _emit(found, output)


@budgets.command("rm", epilog=examples("hyperion budgets rm ann"))
@click.argument("name")
@output_option
@server_option
def rm(name: str, output: str) -> None:
    """Drop the budget of NAME; jobs that wait for it go on."""
    with client() as connection:
        found = connection.drop_budget(tenant(name))
    _emit(found, output)
