"""Policies compared on recorded workloads, in the simulator: the table of docs/policies.md.

Run: ``python bench/policies.py --data DIR [--trace philly …] [--policy pack …] [--jobs 700]``
``--json`` prints everything; otherwise Markdown, one table for each trace. A directory of
published traces is needed (docs/simulator.md says which files).
"""

import argparse
import json
import sys
import time
from pathlib import Path

from measure import machine, progress

from hyperion.cli.sim import FIGURES
from hyperion.cli.workloads import read_rows, read_trace
from hyperion.placement import ranking
from hyperion.sim import machines
from hyperion.sim import trace as traces
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.results import run_of
from hyperion.sim.traces.cells import Reading

POLICIES = (
    "balanced", "pack", "spread", "fragmentation", "least-attained-service", "shortest-first",
    "fair",
)  # fmt: skip
SHOWN = (
    "succeeded", "never ran", "JCT mean", "JCT p50", "JCT p99", "waiting mean", "waiting p99",
    "makespan", "GPUs in use", "CPUs in use", "fragmentation", "rho mean", "rho p99",
    "Jain of users", "restarts", "preemptions", "GPU-hours lost",
)  # fmt: skip
#: nodes, load, and which nodes: the trace's own list (every n-th), or so many alike.
SETTINGS = {
    "philly": {"nodes": 8, "gpus": 8, "load": 0.95},
    "pai": {"nodes": 8, "gpus": 0, "load": 1.3, "jobs": 1500},
    "openb": {"every": 96, "load": 0.95, "last_days": 22},
}


def workload(name, data, jobs):
    """(trace, nodes, what was set up in words)."""
    setting = SETTINGS[name]
    trace, listed = read_trace(name, data, Reading())
    if "every" in setting:
        rows = [row for _, row in read_rows(Path(listed))[0]]
        nodes = machines.listed(rows[:: setting["every"]])
        told = f"every {setting['every']}th node of the trace's own list ({len(nodes)})"
    else:
        nodes = machines.uniform(setting["nodes"], setting["gpus"], "A100")
        kind = f"{setting['gpus']} GPUs" if setting["gpus"] else "64 CPUs"
        told = f"{len(nodes)} nodes of {kind}"
    if "last_days" in setting:
        trace = traces.since(trace, setting["last_days"] * 86_400_000)
    nth = max(1, len(trace.jobs) // setting.get("jobs", jobs))
    whole = traces.one_queue(traces.every(trace, nth))
    timed = traces.at_load(whole, nodes, setting["load"])
    if "last_days" in setting:
        told += f", the last {setting['last_days']} days of arrivals"
    told += f", every {nth}th job ({len(timed.jobs):,}) at load {setting['load']}, one queue"
    return traces.with_estimates(timed, "rounded"), nodes, told


def play(trace, nodes, policy, told):
    world = ClusterWorld(trace, nodes, ranking.policy(policy))
    started = time.process_time()
    for moment in world.play():
        progress(f"{told} {policy}: {moment.ended:,} of {len(trace.jobs):,} jobs")
    cpu_s = round(time.process_time() - started, 1)
    return run_of(world, policy, broken_off=False), cpu_s


def markdown(name, told, runs):
    yield f"### {name}\n"
    yield f"{told[0].upper()}{told[1:]}.\n"
    yield "| | " + " | ".join(run.policy for run, _ in runs) + " |"
    yield "|---|" + "---:|" * len(runs)
    for figure in FIGURES:
        if figure.name in SHOWN:
            cells = [figure.cell(run.score) for run, _ in runs]
            if len(set(cells)) == 1 and cells[0] in ("0", "0.0", "0.0%", "1.000"):
                continue
            values = [figure.value(run.score) for run, _ in runs]
            best = min(values) if figure.better < 0 else max(values)
            stands_out = figure.better and len(set(cells)) > 1
            marked = [
                f"**{cell}**" if stands_out and cell == cells[values.index(best)] else cell
                for cell in cells
            ]
            yield f"| {figure.name} | " + " | ".join(marked) + " |"
    yield "| CPU of the run | " + " | ".join(f"{cpu_s:g} s" for _, cpu_s in runs) + " |\n"


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--trace", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    options.add_argument("--policy", nargs="*", default=list(POLICIES))
    options.add_argument("--jobs", type=int, default=700)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    found = {}
    for name in chosen.trace:
        trace, nodes, told = workload(name, chosen.data, chosen.jobs)
        runs = [play(trace, nodes, policy, name) for policy in chosen.policy]
        found[name] = (told, runs)
        if not chosen.json:
            print("\n".join(markdown(name, told, runs)), flush=True)
    progress("")
    if chosen.json:
        import msgspec

        view = {
            "machine": machine(),
            "traces": {
                name: {
                    "set_up": told,
                    "runs": [
                        {**msgspec.to_builtins(run.score), "cpu_s": cpu_s} for run, cpu_s in runs
                    ],
                }
                for name, (told, runs) in found.items()
            },
        }
        json.dump(view, sys.stdout, indent=1)
    else:
        print(", ".join(f"{key} {value}" for key, value in machine().items()))


if __name__ == "__main__":
    main()
