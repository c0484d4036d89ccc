"""How near the federation's choice comes to a clairvoyant's, on recorded prices and availability.

Run: ``python bench/placement_quality.py [--data ../shared/data] [--jobs 300] [--repeat 3]
[--trace philly pai] [--plot FILE.svg] [--json]``. Plays the production federation hour by hour;
docs/placement_quality.md says what is recorded and what is made up.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import quality_series as q
from measure import load, machine, progress
from quality_bound import WINDOW_H, bound
from quality_play import Play

POLICIES = (
    ("home-only", "balanced", {"home_only": True}),
    ("cheapest-now", "cheapest", {}),
    ("greedy-all-in", "balanced", {"one_by_one": True}),
    ("balanced", "balanced", {}),
    ("optimal", "optimal", {}),
    ("balanced, migrate: true", "balanced", {"migrate": True}),
    ("balanced, datasets", "balanced", {"datasets": True}),
    ("balanced, both", "balanced", {"datasets": True, "migrate": True}),
)
CARBON = (0.0, 1.0, 10.0, 50.0, 200.0)
"""Weights of carbon at 100 USD/t."""
GREENEST = "greenest"


def figures(play, seed_s, least):
    result = play.run()
    tasks = play.tasks.values()
    late = [t.id for t in tasks if result.ended.get(t.id, 0.0) - t.at_s > 3600.0 * WINDOW_H]
    assert len(result.ended) == len(tasks), f"{len(tasks) - len(result.ended)} jobs never end"
    assert not late, f"the bound does not hold for jobs that end so late: {late[:3]}"
    usd = result.usd + result.egress_usd
    return {
        "usd": usd,
        "percent of the bound": 100.0 * usd / least,
        "egress, part of it in %": 100.0 * result.egress_usd / usd,
        "kg CO2e": result.kg,
        "interruptions": result.interrupted,
        "GPU-hours done again": max(0.0, result.lost_h),
        "deadlines missed": result.missed,
        "waiting, h in the mean": result.wait_h / len(tasks),
        "on demand, part of GPU-hours in %": 100.0 * result.on_demand_h / result.gpu_h,
        "cpu_s": time.process_time() - seed_s,
    }, result.ended


def middle(runs):
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def played(series, trace, data, jobs, repeat, burst_h):
    """(the median figures by policy, those by weight of carbon, of the bound)."""
    found, carbon, bounds = {}, {}, []
    for seed in range(1, repeat + 1):
        tasks = q.jobs(data, trace, jobs, seed, burst_h)
        progress(f"{trace}, seed {seed}: the bound")
        least, variables = bound(series, tasks)
        bounds.append({"usd": least, "variables": variables})
        for label, policy, how in POLICIES:
            progress(f"{trace}, seed {seed}: {label}")
            play = Play(series, tasks, policy, **how)
            run, ends = figures(play, time.process_time(), least)
            if label == "balanced":
                prompt, _ = bound(series, tasks, ends)
                bounds[-1]["prompt_usd"] = prompt
                bounds[-1]["balanced, percent of it"] = 100.0 * run["usd"] / prompt
            found.setdefault(label, []).append(run)
        for weight in (*CARBON, GREENEST):
            progress(f"{trace}, seed {seed}: carbon x {weight}")
            if weight == GREENEST:
                play = Play(series, tasks, GREENEST)
            else:
                play = Play(series, tasks, "balanced", carbon=weight)
            carbon.setdefault(weight, []).append(figures(play, time.process_time(), least)[0])
    missed = {label: sum(run["deadlines missed"] for run in runs) for label, runs in found.items()}
    rows = {label: middle(runs) for label, runs in found.items()}
    for label, row in rows.items():
        row["deadlines missed"] = missed[label]
    return rows, {weight: middle(runs) for weight, runs in carbon.items()}, middle(bounds)


COLUMNS = (
    ("percent of the bound", "{:.1f} %"),
    ("usd", "{:,.0f}"),
    ("egress, part of it in %", "{:.1f}"),
    ("on demand, part of GPU-hours in %", "{:.0f}"),
    ("kg CO2e", "{:,.0f}"),
    ("interruptions", "{:.0f}"),
    ("GPU-hours done again", "{:.0f}"),
    ("deadlines missed", "{:.0f}"),
    ("waiting, h in the mean", "{:.2f}"),
)


def markdown(trace, rows, carbon, least):
    yield f"### {trace}\n"
    yield "| policy | " + " | ".join(name for name, _ in COLUMNS) + " |"
    yield "|---|" + "---:|" * len(COLUMNS)
    for label, row in rows.items():
        cells = " | ".join(shown.format(row[name]) for name, shown in COLUMNS)
        yield f"| {label} | {cells} |"
    yield f"| clairvoyant bound | 100 % | {least['usd']:,.0f} |" + " |" * (len(COLUMNS) - 2)
    prompt = least["balanced, percent of it"]
    yield (
        "\nIf no job may end later than under `balanced`, the bound is"
        f" {least['prompt_usd']:,.0f} USD; `balanced` is at {prompt:.1f} % of it."
    )
    yield "\n| carbon weighs | cost | CO2e |\n|---|---:|---:|"
    base = carbon[CARBON[0]]
    for weight, row in carbon.items():
        usd = 100.0 * (row["usd"] / base["usd"] - 1)
        kg = 100.0 * (row["kg CO2e"] / base["kg CO2e"] - 1)
        name = "policy `greenest`" if weight == GREENEST else f"{weight * 100:g} USD/t"
        yield f"| {name} | {usd:+.1f} % | {kg:+.1f} % |"
    home = rows["home-only"]
    kg = 100.0 * (rows["balanced"]["kg CO2e"] / home["kg CO2e"] - 1)
    usd = 100.0 * (rows["balanced"]["usd"] / home["usd"] - 1)
    yield f"\n`balanced` against home-only: cost {usd:+.1f} %, CO2e {kg:+.1f} %.\n"


def svg(found):
    """Bars of each policy in percent of the bound, a group each trace."""
    width, bar, left, parts = 760, 18, 150, []
    y, most = (
        30,
        max(r["percent of the bound"] for rows, *_ in found.values() for r in rows.values()),
    )
    scale = (width - left - 80) / most
    for trace, (rows, *_) in found.items():
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{trace}</text>')
        for label, row in rows.items():
            y += bar + 6
            long = row["percent of the bound"] * scale
            parts.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{label}</text>')
            parts.append(f'<rect x="{left}" y="{y - 13}" width="{long:.1f}" height="{bar - 2}"'
                         ' fill="#4477aa"/>')  # fmt: skip
            parts.append(f'<text x="{left + long + 6:.1f}" y="{y}">'
                         f"{row['percent of the bound']:.0f} %</text>")  # fmt: skip
        y += 36
    line = left + 100 * scale
    parts.append(f'<line x1="{line:.1f}" y1="12" x2="{line:.1f}" y2="{y - 30}" stroke="#cc3311"'
                 ' stroke-dasharray="4 3"/>')  # fmt: skip
    parts.append(f'<text x="{line:.1f}" y="{y - 12}" text-anchor="middle" fill="#cc3311">'
                 "clairvoyant bound, 100 %</text>")  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-size="13"'
        f' font-family="sans-serif">\n<title>Cost in percent of the clairvoyant bound</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--trace", nargs="*", default=["philly", "pai"], choices=["philly", "pai"])
    options.add_argument("--jobs", type=int, default=300)
    options.add_argument("--zone-gpus", type=int, default=16)
    options.add_argument("--burst-h", type=float, default=0.0, help="arrive together so often")
    options.add_argument("--repeat", type=int, default=3, help="seeds; medians count")
    options.add_argument("--plot", type=Path)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    if not (chosen.data / "dev" / "spot").is_dir():
        print(f"skipped: no recorded series in {chosen.data}; name their folder with --data")
        return
    series, before = q.read(chosen.data, chosen.zone_gpus), load()
    found = {
        trace: played(series, trace, chosen.data, chosen.jobs, chosen.repeat, chosen.burst_h)
        for trace in chosen.trace
    }
    progress("")
    around = {"machine": machine(), "load_before": before, "load_after": load()}
    if chosen.plot:
        chosen.plot.write_text(svg(found))
    if chosen.json:
        traces = {
            trace: {"policies": rows, "carbon": carbon, "bound": least}
            for trace, (rows, carbon, least) in found.items()
        }
        json.dump(
            {"benchmark": "placement_quality", **around, "traces": traces}, sys.stdout, indent=1
        )
        return
    for trace, (rows, carbon, least) in found.items():
        print("\n".join(markdown(trace, rows, carbon, least)))
    print(", ".join(f"{key} {value}" for key, value in around["machine"].items()))


if __name__ == "__main__":
    main()
