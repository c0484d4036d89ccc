"""One page of HTML with what placement would have saved; it fetches nothing."""

import shlex
import sys
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

from hyperion.cli import output as out
from hyperion.cli import plots
from hyperion.cli.advise import PLACE_COLUMNS, QUEUE_COLUMNS, SCENARIO_COLUMNS, facts
from hyperion.cli.cost import money
from hyperion.cli.html import document
from hyperion.cli.output import Column
from hyperion.cli.plots import Bars

if TYPE_CHECKING:
    from hyperion.sim.advising import Advice

T = TypeVar("T")


def page(found: "Advice") -> str:
    """The whole page."""
    title = f"What placement would have saved: {found.source} in {found.home}"
    lines = "".join(
        f"<li>{escape(name)}: {escape(text)}</li>" for name, text in facts(found) if text
    )
    assumed = "".join(f"<li>{escape(line)}</li>" for line in found.assumptions)
    command = shlex.join(["hyperion", *sys.argv[1:]])
    places = "\n".join(
        f"<h2>{escape(s.name)}</h2>\n{_table(PLACE_COLUMNS, s.places)}" for s in found.scenarios
    )
    return document(
        title,
        f"<p>{escape(out.when(out.now_ms()))}</p>",
        f"""<ul class=notes>{lines}</ul>
{_table(SCENARIO_COLUMNS, found.scenarios)}
<div class="charts">
{_money_chart(found)}
{_carbon_chart(found)}
</div>
{places}
<h2>queues</h2>
{_table(QUEUE_COLUMNS, found.queues)}
<h2>assumed</h2>
<ul class=notes>{assumed}<li><code>{escape(command)}</code></li></ul>""",
    )


def _table(columns: "Sequence[Column[T]]", rows: "Sequence[T]") -> str:
    head = "".join(f"<th scope=col>{escape(column.title)}</th>" for column in columns)
    body = "\n".join(
        "<tr>"
        + f"<th scope=row>{escape(out.printable(columns[0].cell(row)))}</th>"
        + "".join(f"<td>{escape(out.printable(c.cell(row)))}</td>" for c in columns[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _money_chart(found: "Advice") -> str:
    amounts = [("on demand at home", found.home_usd, found.home_usd)]
    amounts += [(s.name, s.usd, s.usd - s.egress_usd - s.redone_usd) for s in found.scenarios]
    axis = plots.linear("USD", max(1e-6, *(usd for _, usd, _ in amounts)), money)
    about = "pale: egress, and what spot machines let one do again"
    return _figure("Cost", about, axis, amounts)


def _carbon_chart(found: "Advice") -> str:
    amounts = [("on demand at home", found.home_gco2e / 1000, found.home_gco2e / 1000)]
    amounts += [(s.name, s.gco2e / 1000, s.gco2e / 1000) for s in found.scenarios]
    axis = plots.linear("kg CO2e", max(1e-6, *(kg for _, kg, _ in amounts)))
    return _figure("Carbon", "by rated power and annual means of the grids", axis, amounts)


def _figure(
    title: str, about: str, axis: plots.Axis, amounts: "Sequence[tuple[str, float, float]]"
) -> str:
    groups = [Bars(name, [(n, name, most, least)]) for n, (name, most, least) in enumerate(amounts)]
    drawn = plots.bar_chart(axis, groups, title)
    return (
        f"<figure><figcaption><b>{escape(title)}</b> {escape(about)}</figcaption>\n{drawn}</figure>"
    )
