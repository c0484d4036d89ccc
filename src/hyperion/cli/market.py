"""``market``: live quotes, the feeds that bring them, and a server to rehearse all of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.output import Column, age, emit, number

if TYPE_CHECKING:
    from hyperion.wire.market_api import FeedView, MarketStatusView, QuarantinedView, QuoteView

FEW = 12
"""So many in quarantine a table shows."""
KINDS = ("on-demand", "spot", "egress", "carbon", "obtainability")


def _ago(ms: int | None) -> str:
    return "never" if ms is None else f"{age(ms)} ago"


def _state(quote: "QuoteView") -> str:
    if not quote.in_force:
        return "not used"
    return "stale" if quote.stale else "in force"


QUOTE_COLUMNS: list[Column["QuoteView"]] = [
    Column("KIND", lambda quote: quote.kind),
    Column("PLACE", lambda quote: quote.place),
    Column("SUBJECT", lambda quote: quote.subject, shrink=True),
    Column("VALUE", lambda quote: number(quote.value, 3), right=True),
    Column("UNIT", lambda quote: quote.unit),
    Column("AGE", lambda quote: age(quote.age_ms), right=True),
    Column("SOURCE", lambda quote: quote.source),
    Column("UNCERTAIN", lambda quote: f"{quote.uncertainty:.0%}", right=True),
    Column("STATE", _state),
    Column("GOOD FOR", lambda quote: age(quote.ttl_ms), wide=True, right=True),
    Column("CONFIDENCE", lambda quote: f"{quote.confidence:.0%}", wide=True, right=True),
    Column("AHEAD", lambda quote: len(quote.forecast) or "", wide=True, right=True),
    Column("NOTE", lambda quote: quote.note, wide=True),
]
FEED_COLUMNS: list[Column["FeedView"]] = [
    Column("FEED", lambda feed: feed.name),
    Column("ANSWERED", lambda feed: _ago(feed.good_ms_ago), right=True),
    Column("EVERY", lambda feed: age(feed.interval_s * 1000), right=True),
    Column("QUOTES", lambda feed: feed.quotes, right=True),
    Column("IN FORCE", lambda feed: feed.in_force, right=True),
    Column("QUARANTINED", lambda feed: feed.quarantined or "", right=True),
    Column("FAULT", lambda feed: feed.fault or "; ".join(feed.failed[:1]), shrink=True),
    Column("POLLS", lambda feed: feed.polls, wide=True, right=True),
    Column("FAILED PARTS", lambda feed: len(feed.failed) or "", wide=True, right=True),
    Column("URL", lambda feed: feed.base_url, wide=True),
]
QUARANTINED_COLUMNS: list[Column["QuarantinedView"]] = [
    Column("QUARANTINED", lambda quote: quote.kind),
    Column("PLACE", lambda quote: quote.place),
    Column("SUBJECT", lambda quote: quote.subject, shrink=True),
    Column("SOURCE", lambda quote: quote.source),
    Column("REASON", lambda quote: quote.reason),
    Column("WHY", lambda quote: quote.why, shrink=True),
]


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "hyperion market", "hyperion market ls --kind spot --place aws/", "hyperion market replay"
    ),
)
@output_option
@server_option
@click.pass_context
def market(ctx: click.Context, output: str) -> None:
    """Live quotes: prices, egress, carbon. Without a command: the state of the feeds."""
    if ctx.invoked_subcommand is None:
        _status(output)


@market.command(
    "status", epilog=examples("hyperion market status", "hyperion market status -o json")
)
@output_option
@server_option
def market_status(output: str) -> None:
    """Show the feeds that are asked, and which of their quotes are in quarantine, and why."""
    _status(output)


@market.command(
    "ls",
    epilog=examples(
        "hyperion market ls --kind carbon", "hyperion market ls --place aws/us-east-1 -o json"
    ),
)
@click.option("--kind", default="", type=click.Choice(["", *KINDS]), help="One of them.")
@click.option("--place", default="", help="A region, or the beginning of one, such as aws/.")
@click.option("--source", default="", help="Only this feed's.")
@click.option("--limit", default=50, type=click.IntRange(1, 100_000), show_default=True)
@output_option
@server_option
def market_ls(kind: str, place: str, source: str, limit: int, output: str) -> None:
    """List the last good quote of each feed about each thing.

    UNCERTAIN grows with age, from what its source is not believed when fresh. Of several sources
    the least uncertain is in force.
    """
    with client() as connection:
        found = connection.quotes(kind, place, source, limit)
    if found or output in {"json", "yaml"}:
        emit(found, output, lambda wide: out.table(QUOTE_COLUMNS, found, wide))
    else:
        click.echo("no quotes; hyperion market status says which feeds are asked", err=True)


@market.command(
    "replay",
    epilog=examples(
        "hyperion market replay",
        "hyperion market replay --data ../shared/data --start 2023-06-01 --speed 600",
        'curl -d \'{"kind": "429"}\' http://127.0.0.1:7090/replay/faults',
    ),
)
@click.option("--listen", default="127.0.0.1:7090", show_default=True, metavar="HOST:PORT")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder of series in Parquet, such as ../shared/data; else a made-up market.",
)
@click.option("--start", default="", metavar="TIME", help="Where in the series to begin (UTC).")
@click.option(
    "--speed", default=1.0, type=click.FloatRange(0, 100_000), show_default=True,
    help="So many times as fast as the real clock; 0 stands still.",
)  # fmt: skip
def market_replay(listen: str, data: Path | None, start: str, speed: float) -> int:
    """Serve the price and carbon APIs' wire formats here, over series, with faults on demand.

    Prints the federation's settings that ask this server instead of the real ones.
    """
    from hyperion.adapters.market.moments import ms_of
    from hyperion.daemon.market_replay import main as replay

    try:
        begins_ms = ms_of(start) if start else None
        return replay.main(listen, data, begins_ms, speed, click.echo)
    except (replay.CannotReplay, ValueError) as error:
        raise Failure(str(error), "docs/market.md has an example", BAD_USAGE) from None


def _status(output: str) -> None:
    with client() as connection:
        found = connection.market()
    emit(found, output, lambda wide: _status_table(found, wide))


def _status_table(found: "MarketStatusView", wide: bool) -> str:
    if not found.feeds:
        return "no feeds: prices and carbon are the catalogue's; market_feeds in docs/settings.md"
    parts = [out.table(FEED_COLUMNS, found.feeds, wide)]
    if found.quarantined:
        shown = found.quarantined[:FEW]
        parts.append(out.table(QUARANTINED_COLUMNS, shown, wide))
        more = sum(feed.quarantined for feed in found.feeds) - len(shown)
        if more:
            parts.append(f"and {more} more; -o json has up to 200 of each feed")
    return "\n\n".join(parts)
