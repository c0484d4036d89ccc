"""One page of HTML that shows what simulated runs came to: figures, and plots drawn on the spot."""

import shlex
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from hyperion.cli import output as out
from hyperion.cli import plots
from hyperion.cli.html import document
from hyperion.cli.plots import Bars, Line

if TYPE_CHECKING:
    from hyperion.model.node import Node
    from hyperion.sim.recorder import Sample
    from hyperion.sim.results import Run
    from hyperion.sim.trace import Trace

QUEUES_SHOWN = 8
CDF_POINTS = 400


def page(
    runs: "Sequence[Run]", trace: "Trace", nodes: "Sequence[Node]", seed: int, faults: str
) -> str:
    """The whole page; it fetches nothing."""
    span_s = max(
        (r.recorder.samples[-1].at_ms / 1000 for r in runs if r.recorder.samples), default=1
    )
    charts = "\n".join(_charts(runs, max(span_s, 1.0)))
    title = f"{trace.name} on {len(nodes):,} nodes"
    return document(
        title,
        f"<p>{_facts(runs, trace, nodes, seed, faults)}</p>\n{_legend(runs)}",
        f"""{_table(runs)}
<div class="charts">
{charts}
</div>
{_notes(runs, trace)}""",
        script="report.js",
    )


def _facts(
    runs: "Sequence[Run]", trace: "Trace", nodes: "Sequence[Node]", seed: int, faults: str
) -> str:
    gpus: dict[str, int] = {}
    for node in nodes:
        if node.capacity.gpus:
            kind = node.capacity.gpu_type
            gpus[kind] = gpus.get(kind, 0) + node.capacity.gpus
    kinds = ", ".join(f"{n:,} {kind or 'GPUs'}" for kind, n in sorted(gpus.items()))
    facts = [
        f"{len(trace.jobs):,} jobs that arrive within {plots.span(trace.span_ms / 1000)}",
        kinds or "no GPUs",
        f"faults: {faults}",
        f"seed {seed}",
        f"{sum(r.events for r in runs):,} steps of the machine",
        out.when(out.now_ms()),
    ]
    return " · ".join(map(escape, facts))


def _legend(runs: "Sequence[Run]") -> str:
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-series="{n}">'
        f'<span class="key s{n % plots.COLOURS}"></span>{escape(run.policy)}</button>'
        for n, run in enumerate(runs)
    )
    return f'<nav class="legend" aria-label="policies shown">{buttons}</nav>'


def _table(runs: "Sequence[Run]") -> str:
    """Figures downwards, policies across; the best of each row stands out."""
    from hyperion.cli.sim import FIGURES

    head = "".join(f"<th scope=col>{escape(run.policy)}</th>" for run in runs)
    rows = []
    for figure in FIGURES:
        told = [figure.cell(run.score) for run in runs]
        best = _best([figure.value(run.score) for run in runs], told, figure.better)
        cells = "".join(
            f"<td{' class=best' if text == best else ''}>{escape(text)}</td>" for text in told
        )
        name = f'<th scope=row title="{escape(figure.about)}">{escape(figure.name)}</th>'
        rows.append(f"<tr>{name}{cells}</tr>")
    body = "\n".join(rows)
    return (
        '<div class="scroll"><table>\n<thead><tr><th scope=col>figure</th>'
        f"{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _best(values: Sequence[float], told: Sequence[str], better: int) -> str | None:
    """The text of the best of a row of figures, unless all read the same or none is better."""
    if not better or len(set(told)) == 1:
        return None
    return told[values.index(min(values) if better < 0 else max(values))]


def _charts(runs: "Sequence[Run]", span_s: float) -> list[str]:
    from hyperion.sim.score import utilisation

    time = plots.moments(span_s)

    def over_time(value: "Callable[[Sample], float]") -> list[Line]:
        return [
            Line(n, run.policy, [(x.at_ms / 1000, value(x)) for x in run.recorder.samples])
            for n, run in enumerate(runs)
        ]

    busy = [
        Line(n, run.policy, utilisation(run.recorder.samples, run.recorder.gpus_milli))
        for n, run in enumerate(runs)
    ]
    useless = over_time(lambda x: x.stranded / x.free_gpus if x.free_gpus else 0.0)
    waiting, gpus = over_time(lambda x: x.waiting), over_time(lambda x: x.waiting_gpus)
    stops, usd = over_time(lambda x: x.preemptions), over_time(lambda x: x.usd)
    shares = plots.shares
    return [
        _figure(
            "Queue", "jobs that wait for a place",
            plots.line_chart(time, _up("jobs", waiting), waiting, "jobs waiting over time"),
        ),
        _figure(
            "GPUs wanted by those that wait", "at full width",
            plots.line_chart(time, _up("GPUs", gpus), gpus, "GPUs waited for over time"),
        ),
        _figure(
            "GPUs in use", "mean since the sample before",
            plots.line_chart(time, shares("of all GPUs"), busy, "utilisation over time"),
        ),
        _figure(
            "Fragmentation", "free GPUs of no use to the mean job",
            plots.line_chart(time, shares("of free GPUs"), useless, "fragmentation over time"),
        ),
        _completion(runs),
        _waits(runs),
        _figure(
            "Stops to make room", "preemptions so far",
            plots.line_chart(time, _up("stops", stops), stops, "preemptions over time"),
        ),
        _figure(
            "Cost", "of the GPUs held so far",
            plots.line_chart(time, _up("USD", usd), usd, "cost over time"),
        ),
    ]  # fmt: skip


def _up(title: str, lines: Sequence[Line]) -> plots.Axis:
    """From 0 to the largest value; amounts below 5 still get whole numbers."""
    return plots.linear(title, max(5.0, *(v for x in lines for _, v in x.points)))


def _completion(runs: "Sequence[Run]") -> str:
    """How many jobs took at most so long from submission to end."""
    lines, least, most = [], 1e12, 1.0
    for n, run in enumerate(runs):
        took = sorted(
            max(1.0, (s.ended_ms - s.submitted_ms) / 1000)
            for s in run.recorder.stories.values()
            if s.ended_ms is not None
        )
        if not took:
            continue
        step = max(1, len(took) // CDF_POINTS)
        points = [(took[i], (i + 1) / len(took)) for i in range(0, len(took), step)]
        points.append((took[-1], 1.0))
        least, most = min(least, took[0]), max(most, took[-1])
        lines.append(Line(n, run.policy, points))
    axis = plots.spans("from submission to end (logarithmic)", least, most)
    drawn = plots.line_chart(axis, plots.shares("of the jobs that ended"), lines, "CDF of JCT")
    return _figure("Job completion time", "part of the jobs that took at most so long", drawn)


def _waits(runs: "Sequence[Run]") -> str:
    """By queue: p99, and within it the mean."""
    queues = [w.queue for w in runs[0].score.waits][:QUEUES_SHOWN]
    groups, most = [], 1 / 60
    for queue in queues:
        bars = []
        for n, run in enumerate(runs):
            found = next((w for w in run.score.waits if w.queue == queue), None)
            if found is not None:
                bars.append((n, run.policy, found.p99_s / 3600, found.mean_s / 3600))
                most = max(most, found.p99_s / 3600)
        groups.append(Bars(queue, bars))
    axis = plots.linear("hours", most, lambda v: f"{v:,.3g}")
    more = len(runs[0].score.waits) - len(queues)
    told = "pale: 99 of 100 waited at most so long; solid: mean"
    told += f"; {more} smaller queues are not shown" if more > 0 else ""
    return _figure("Waiting by queue", told, plots.bar_chart(axis, groups, "waiting by queue"))


def _figure(title: str, subtitle: str, drawn: str) -> str:
    return (
        f"<figure><figcaption><b>{escape(title)}</b> {escape(subtitle)}</figcaption>\n"
        f'{drawn}\n<output class="reading" hidden></output></figure>'
    )


def _notes(runs: "Sequence[Run]", trace: "Trace") -> str:
    notes = [escape(note) for note in trace.notes]
    if trace.bad_rows:
        notes.append(f"{trace.bad_rows:,} rows of the trace were no jobs and were left out")
    for run in runs:
        if run.broken_off:
            notes.append(
                f"<b>{escape(run.policy)} was broken off: its figures are those so far</b>"
            )
        if run.never_ran:
            notes.append(f"{escape(run.policy)}: {len(run.never_ran):,} jobs can never run here")
    command = shlex.join(["hyperion", *sys.argv[1:]])
    notes.append(f"<code>{escape(command)}</code>")
    return "<ul class=notes>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>"
