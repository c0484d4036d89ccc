"""``advise``: what placement would have saved a cluster that is not ours. Changes nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import examples, output_option
from hyperion.cli.cost import money
from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.model.job import Job
    from hyperion.model.market import MarketView
    from hyperion.sim.advising import Advice, PlaceAdvice, QueueAdvice, Scenario
    from hyperion.sim.trace import Trace

MAX_FILE_BYTES = 2 << 30
_FILE = click.Path(exists=True, path_type=Path)

SCENARIO_COLUMNS: "list[Column[Scenario]]" = [
    Column("PLACEMENT", lambda s: s.name),
    Column("USD", lambda s: money(s.usd), right=True),
    Column("EGRESS", lambda s: money(s.egress_usd), right=True),
    Column("kgCO2e", lambda s: f"{s.gco2e / 1000:,.1f}", right=True),
    Column("SAVED", lambda s: money(s.saved_usd), right=True),
    Column("%", lambda s: f"{s.saved_percent:.1f}", right=True),
    Column("MOVED", lambda s: f"{s.moved:,}", right=True),
    Column("ON SPOT", lambda s: f"{s.spot:,}", right=True),
    Column("REDONE", lambda s: money(s.redone_usd), right=True),
    Column("DEARER", lambda s: f"{s.dearer:,}", right=True),
    Column("BY", lambda s: money(s.dearer_usd), right=True),
]
PLACE_COLUMNS: "list[Column[PlaceAdvice]]" = [
    Column("REGION", lambda p: p.region),
    Column("MARKET", lambda p: p.market),
    Column("JOBS", lambda p: f"{p.jobs:,}", right=True),
    Column("USD", lambda p: money(p.usd), right=True),
    Column("SAVED", lambda p: money(p.saved_usd), right=True),
]
QUEUE_COLUMNS: "list[Column[QueueAdvice]]" = [
    Column("QUEUE", lambda q: q.name, shrink=True),
    Column("JOBS", lambda q: f"{q.jobs:,}", right=True),
    Column("AT HOME", lambda q: money(q.home_usd), right=True),
    Column("ANYWHERE", lambda q: money(q.best_usd), right=True),
    Column("SAVED", lambda q: money(q.home_usd - q.best_usd), right=True),
]


def facts(found: "Advice") -> list[tuple[str, str]]:
    """The figures that stand above the table."""
    paid = f"{money(found.home_usd)}, {found.home_gco2e / 1000:,.1f} kgCO2e"
    rows = [
        ("jobs", f"{found.jobs:,}, {found.hours:,.1f} hours, {found.gpu_hours:,.1f} GPU-hours"),
        ("paid", f"{paid} (on demand in {found.home})"),
        ("failed", f"{found.failed:,} jobs, {money(found.failed_usd)}" if found.failed else ""),
    ]
    if found.unpriced:
        kinds = ", ".join(found.unpriced_kinds)
        gpus = f"{found.unpriced_gpu_hours:,.1f} GPU-hours"
        rows.append(
            ("not priced", f"{found.unpriced:,} jobs, {gpus}: not offered at home: {kinds}")
        )
    return rows


@click.command(
    epilog=examples(
        "hyperion advise --sacct jobs.txt --home aws/us-east-1 --html advice.html",
        "  where jobs.txt is what 'sacct -a -P -X -S 2026-10-01 -o ALL' printed",
        "hyperion advise --kubernetes pods.json --kubernetes events.json --home gcp/us-central1",
        "hyperion advise --journal /var/lib/hyperion --home aws/eu-central-1 --data-gib 50",
    )
)
@click.option("--sacct", type=_FILE, metavar="FILE", help="What 'sacct -P' printed.")
@click.option("--kubernetes", type=_FILE, multiple=True, metavar="FILE",
              help="Pods or events, by 'kubectl get … -o json'; may be repeated.")  # fmt: skip
@click.option("--journal", type=_FILE, metavar="FILE|DIR", help="A scheduler's own store.")
@click.option("--home", required=True, metavar="REGION", help="Where it all ran, on demand.")
@click.option("--regions", metavar="REGION,…", help="Only there: aws/eu-, gcp/europe-west1, …")
@click.option("--carbon-price", type=click.FloatRange(0, 1e6), default=100.0, show_default=True,
              metavar="USD", help="What a tonne of CO2e weighs in the choice.")  # fmt: skip
@click.option("--data-gib", type=click.FloatRange(0, 1e9), default=0.0, metavar="GIB",
              help="What each job reads from home; nobody knows, so 0 is assumed.")  # fmt: skip
@click.option("--gpu-type", default="", metavar="TYPE", help="Of GPUs that came without a type.")
@click.option("--no-spot", is_flag=True, help="On-demand machines only.")
@click.option("--spot-loss", type=click.FloatRange(0, 10), default=0.1, show_default=True,
              help="Part of the hours on spot machines that is done again.")  # fmt: skip
@click.option("--whole", is_flag=True, help="Whole machines for each job, not its share of them.")
@click.option("--prices", type=_FILE, metavar="FILE", help="Laid over the shipped catalogue.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="A page with the report is written there.")  # fmt: skip
@output_option
def advise(
    sacct: Path | None,
    kubernetes: tuple[Path, ...],
    journal: Path | None,
    home: str,
    regions: str | None,
    carbon_price: float,
    data_gib: float,
    gpu_type: str,
    no_spot: bool,
    spot_loss: float,
    whole: bool,
    prices: Path | None,
    html: Path | None,
    output: str,
) -> None:
    """What would placement have saved? Reads a cluster's past, and asks and changes nothing.

    Each job is priced on demand at HOME, and where the objective would have sent it: within the
    region, the continent, or anywhere. MOVED, ON SPOT and DEARER count jobs; REDONE is the part of
    USD that is set aside for spot machines that are taken away.
    """
    from hyperion.placement.advice import Adviser, Assumed
    from hyperion.sim.advising import advise as advised

    trace = _past(sacct, kubernetes, journal)
    market = _market(prices)
    if home not in market.regions:
        near = closest(home, sorted({offer.region for offer in market.offers}))
        raise Failure(f"--home {home}: no such region", f"such as {near}", BAD_USAGE)
    assumed = Assumed(
        home=home,
        regions=tuple(name.strip() for name in (regions or "").split(",") if name.strip()),
        usd_per_tonne=carbon_price,
        data_gib=data_gib,
        spot=not no_spot,
        spot_loss=spot_loss,
        whole=whole,
    )
    trace = _typed(trace, gpu_type)
    found = advised(trace, Adviser(market, assumed))
    if not found.jobs:
        kinds = f" ({', '.join(found.unpriced_kinds)})" if found.unpriced_kinds else ""
        raise Failure(
            f"none of {len(trace.jobs):,} jobs has a price in {home}{kinds}",
            f"hyperion offers --region {home} lists what it offers; name another --home",
            BAD_USAGE,
        )
    if html:
        _write(html, found)
    emit(found, output, lambda wide: told(found, wide))


def told(found: "Advice", wide: bool) -> str:
    parts = [out.facts(facts(found)), "", out.table(SCENARIO_COLUMNS, found.scenarios, wide)]
    anywhere = found.scenarios[-1]
    parts += ["", "Where they would have gone, anywhere:"]
    parts += [out.table(PLACE_COLUMNS, anywhere.places, wide)]
    if len(found.queues) > 1:
        parts += ["", out.table(QUEUE_COLUMNS, found.queues, wide)]
    parts += ["", "Assumed:", *(f"- {out.printable(line)}" for line in found.assumptions)]
    return "\n".join(parts)


def closest(wanted: str, names: list[str]) -> str:
    """The name most like the one wanted, or the first."""
    from hyperion.cli.main import nearest

    return nearest(wanted, names) or names[0]


def _past(sacct: Path | None, kubernetes: tuple[Path, ...], journal: Path | None) -> "Trace":
    if sum(map(bool, (sacct, kubernetes, journal))) != 1:
        raise Failure("whose past?", "one of --sacct, --kubernetes and --journal", BAD_USAGE)
    from hyperion.cli.replay import past
    from hyperion.cli.workloads import read_rows
    from hyperion.sim.trace import TraceError
    from hyperion.sim.traces import slurm
    from hyperion.sim.traces.cells import Reading, check_columns
    from hyperion.sim.traces.kubernetes import kubernetes as pods

    try:
        if journal:
            trace = past(journal, None)[0]
        elif sacct:
            rows, columns = read_rows(sacct)
            check_columns(str(sacct), columns, ("JobID", "Submit"))
            trace = slurm.sacct(rows, Reading())
        else:
            trace = pods((str(file), _content(file)) for file in kubernetes)
    except TraceError as error:
        raise Failure(str(error), "", BAD_USAGE) from None
    if not trace.jobs:
        why = f"; the first fault: {trace.bad[0].message}" if trace.bad else ""
        raise Failure(f"no job that ran is in it{why}", "give a longer past", BAD_USAGE)
    return trace


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            remedy = "split it by namespaces, and give several"
            raise Failure(f"{file} is larger than 2 GiB", remedy, BAD_USAGE)
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", "", BAD_USAGE) from None


def _market(prices: Path | None) -> "MarketView":
    from hyperion.adapters.market.static import OverlayError, StaticMarket

    try:
        return StaticMarket(prices).view()
    except (OverlayError, OSError) as error:
        raise Failure(f"--prices: {error}", "docs/catalogue.md has its form", BAD_USAGE) from None


def _typed(trace: "Trace", gpu_type: str) -> "Trace":
    """GPUs that came without a type get this one."""
    from msgspec.structs import replace

    from hyperion.model.accelerators import canonical

    name = canonical(gpu_type) or gpu_type

    def typed(job: "Job") -> "Job":
        return replace(
            job,
            alternatives=tuple(
                replace(x, gpu_type=name) if x.gpus_milli and not x.gpu_type else x
                for x in job.alternatives
            ),
        )

    jobs = (replace(past, job=typed(past.job)) for past in trace.jobs)
    return replace(trace, jobs=tuple(jobs)) if name else trace


def _write(page: Path, found: "Advice") -> None:
    from hyperion.cli.advice_page import page as drawn

    try:
        page.write_text(drawn(found), encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {page}: {error.strerror}", "--html FILE", BAD_USAGE) from None
    click.echo(f"the report: {page}", err=True)
