"""``datasets``: what lies where, what is on its way, and which copies would pay."""

from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import FAILED, Failure
from hyperion.cli.output import Column, emit, number

if TYPE_CHECKING:
    from hyperion.wire.datasets_api import AdviceView, CopyView, DatasetView


def money(usd: float) -> str:
    """Cents, and more digits where cents would show nothing."""
    from hyperion.placement.objective import dollars

    return dollars(usd, 2)


def amount_gib(text: str) -> float:
    """``500Gi``, ``1.5TB``, ``150`` (GiB)."""
    from hyperion.wire.units import size_mib

    mib = size_mib(text)
    if mib is None:
        raise click.UsageError(f"{text!r} is no size; write such as 500Gi, 1.5Ti, or 150 (GiB)")
    return mib / 1024


def growth_gib_per_day(text: str) -> float:
    """``10Gi/day``."""
    size, slash, per = text.partition("/")
    if slash and per.strip() not in {"day", "d"}:
        raise click.UsageError(f"{text!r} is no growth; write such as 10Gi/day")
    return amount_gib(size.strip())


def span_h(text: str) -> float:
    """``7d``, ``36h``."""
    from hyperion.wire.units import duration_s

    seconds = duration_s(text)
    if seconds is None:
        raise click.UsageError(f"{text!r} is no duration; write such as 7d or 36h")
    return seconds / 3600


def _where(dataset: "DatasetView") -> str:
    return " ".join(
        copy.region if copy.state == "present" else f"({copy.region})" for copy in dataset.copies
    )


DATASET_COLUMNS: "list[Column[DatasetView]]" = [
    Column("DATASET", lambda dataset: dataset.name),
    Column("GiB", lambda dataset: number(dataset.size_gib, 1), right=True),
    Column("GROWTH/day", lambda d: number(d.growth_gib_per_day, 1), right=True, wide=True),
    Column("KEEP", lambda d: out.age(d.keep_h * 3_600_000) if d.keep_h else "", wide=True),
    Column("JOBS", lambda dataset: dataset.jobs or "", right=True),
    Column("STORAGE/month", lambda dataset: money(dataset.storage_usd_per_month), right=True),
    Column("IN", _where, shrink=True),
]
COPY_COLUMNS: "list[Column[CopyView]]" = [
    Column("REGION", lambda copy: copy.region),
    Column("STATE", lambda copy: copy.state),
    Column("SINCE OR EXPECTED", lambda copy: out.when(copy.ready_at_ms)),
    Column("FROM", lambda copy: copy.source),
    Column("BY", lambda copy: copy.by, shrink=True),
]
ADVICE_COLUMNS: "list[Column[AdviceView]]" = [
    Column("ACTION", lambda advice: advice.action),
    Column("DATASET", lambda advice: advice.dataset),
    Column("REGION", lambda advice: advice.region),
    Column("FROM", lambda advice: advice.source),
    Column("GiB", lambda advice: number(advice.size_gib, 1), right=True),
    Column("COSTS", lambda advice: money(advice.cost_usd), right=True),
    Column("WORTH", lambda advice: money(advice.worth_usd), right=True),
    Column("GAIN", lambda advice: money(advice.gain_usd), right=True),
]


def _emit(found: "list[DatasetView]", output: str) -> None:
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(DATASET_COLUMNS, found, wide))
    else:
        click.echo(
            "no datasets; hyperion datasets add NAME --size SIZE --in REGION adds one", err=True
        )


def _emit_one(view: "DatasetView", output: str) -> None:
    emit(view, output, lambda wide: _one(view, wide))


def _one(view: "DatasetView", wide: bool) -> str:
    facts = out.facts(
        [
            ("dataset", view.name),
            ("size", f"{number(view.size_gib, 1)} GiB"),
            ("growth", f"{view.growth_gib_per_day:g} GiB/day" if view.growth_gib_per_day else ""),
            ("keep", out.age(view.keep_h * 3_600_000) if view.keep_h else ""),
            ("jobs", view.jobs or ""),
            ("storage", f"{money(view.storage_usd_per_month)}/month"),
        ]
    )
    return f"{facts}\n\n{out.table(COPY_COLUMNS, view.copies, wide)}"


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion datasets",
        "hyperion datasets add imagenet --size 150Gi --in aws/us-east-1",
        "hyperion datasets show imagenet",
        "hyperion datasets advise",
    ),
)
@output_option
@server_option
@click.pass_context
def datasets(ctx: click.Context, output: str) -> None:
    """Datasets that jobs name in 'reads' and 'writes', and the regions in which they lie.

    A region in brackets: a copy is on its way there, or is being dropped.
    """
    if ctx.invoked_subcommand is None:
        _list(output)


def _list(output: str) -> None:
    with client() as connection:
        found = connection.datasets()
    _emit(found, output)


@datasets.command("ls", epilog=examples("hyperion datasets ls -o json"))
@output_option
@server_option
def ls(output: str) -> None:
    """List datasets."""
    _list(output)


@datasets.command("show", epilog=examples("hyperion datasets show imagenet"))
@click.argument("name")
@output_option
@server_option
def show(name: str, output: str) -> None:
    """Where the copies of NAME lie, and who brings those that are on their way."""
    with client() as connection:
        found = {view.name: view for view in connection.datasets()}
    if name not in found:
        raise Failure(f"no dataset {name}", "hyperion datasets lists them", FAILED)
    _emit_one(found[name], output)


@datasets.command(
    "add",
    epilog=examples(
        "hyperion datasets add imagenet --size 150Gi --in aws/us-east-1",
        "hyperion datasets add logs --size 2Ti --growth 10Gi/day --in aws/us-east-1",
        "hyperion datasets add imagenet --in gcp/us-west1",
    ),
)
@click.argument("name")
@click.option("--size", metavar="SIZE", help="How large it is: 500Gi, 1.5Ti, or 150 (GiB).")
@click.option("--in", "regions", metavar="REGION", multiple=True, help="Where it lies.")
@click.option("--growth", metavar="SIZE/day", help="By how much it grows each day: 10Gi/day.")
@click.option("--keep", metavar="TIME",
              help="So long who moves it pays for storage; else for the job's time.")  # fmt: skip
@output_option
@server_option
def add(
    name: str,
    size: str | None,
    regions: tuple[str, ...],
    growth: str | None,
    keep: str | None,
    output: str,
) -> None:
    """Tell of the dataset NAME and the regions in which it lies.

    Of one that is known, what is said is changed and the regions are added. Nothing is moved: this
    is how the federation hears of what is there.
    """
    with client() as connection:
        view = connection.add_dataset(
            name,
            size_gib=None if size is None else amount_gib(size),
            regions=regions,
            growth_gib_per_day=None if growth is None else growth_gib_per_day(growth),
            keep_h=None if keep is None else span_h(keep),
        )
    _emit_one(view, output)


@datasets.command(
    "rm",
    epilog=examples(
        "hyperion datasets rm imagenet --in gcp/us-west1", "hyperion datasets rm imagenet"
    ),
)
@click.argument("name")
@click.option("--in", "region", metavar="REGION", default="", help="Only the copy there.")
@output_option
@server_option
def rm(name: str, region: str, output: str) -> None:
    """Forget the dataset NAME, or its copy in one region. Its files are left alone.

    The last copy stays until the whole dataset goes, and that until no job reads or writes it.
    """
    with client() as connection:
        found = connection.drop_dataset(name, region)
    _emit(found, output)


@datasets.command(
    "advise", epilog=examples("hyperion datasets advise", "hyperion datasets advise -o json")
)
@output_option
@server_option
def advise(output: str) -> None:
    """Copies that would pay for themselves within 30 days, and copies that do not.

    By what jobs have paid of late for reading from afar, for moving, and for running at a dearer
    place since their data lie there. The federation's setting dataset_hook lets it act itself.
    """
    with client() as connection:
        found = connection.dataset_advice()
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(ADVICE_COLUMNS, found, wide))
    else:
        click.echo("every copy pays, and no other would", err=True)
