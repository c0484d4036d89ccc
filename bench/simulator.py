"""How fast the simulator drives the production machine: steps per CPU-second at 1,000 nodes.

Run: ``python bench/simulator.py [--nodes 1000] [--jobs 3000] [--load 0.5] [--json]``
"""

import gc
import time

from measure import median, parser, progress, report

from hyperion.placement import kernels, ranking
from hyperion.sim import machines
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.generators import generate
from hyperion.sim.trace import at_load, with_estimates
from hyperion.sim.traces.cells import Reading

METHOD = (
    "generated workload ({jobs:,} jobs of the generator training, arrivals at {load:g} of the"
    " cluster) on {nodes:,} nodes of 8 GPUs, policy pack; a step is one event through the"
    " production machine, rounds and the keeping of results included; CPU of one process; "
    "inner loops in {kernels}; garbage is collected as the daemons and `hyperion sim` do"
)
GOAL_PER_S = 10_000


def play(trace, nodes):
    """(steps, CPU seconds, simulated days, jobs that ended)."""
    world = ClusterWorld(trace, nodes, ranking.policy("pack"))
    started = time.process_time()
    for moment in world.play():
        progress(f"{moment.ended:,} of {len(trace.jobs):,} jobs")
    return world.events, time.process_time() - started, world.now_ms / 86_400_000, moment.ended


def main():
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--jobs", type=int, default=3000)
    options.add_argument("--load", type=float, default=0.5)
    chosen = options.parse_args()
    compiled = "numba" if kernels.warm() else "NumPy"
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    nodes = machines.uniform(chosen.nodes, 8, "A100")
    trace = generate("training", chosen.jobs, 0, Reading())
    trace = with_estimates(at_load(trace, nodes, chosen.load), "rounded")
    runs = [play(trace, nodes) for _ in range(chosen.repeat)]
    steps, cpu_s, days, ended = (median([run[n] for run in runs]) for n in range(4))
    assert ended == chosen.jobs, f"{chosen.jobs - ended} jobs did not end"
    rows = [
        {
            "figure": "steps per CPU-second",
            "value": median([run[0] / run[1] for run in runs], 0),
            "unit": "1/s",
            "goal": GOAL_PER_S,
            "more": True,
        },
        {"figure": "CPU time a step", "value": median([1e6 * run[1] / run[0] for run in runs]),
         "unit": "µs"},
        {"figure": "steps", "value": steps, "unit": ""},
        {"figure": "CPU time", "value": cpu_s, "unit": "s"},
        {"figure": "simulated time", "value": days, "unit": "days"},
        {"figure": "fastest run", "value": round(max(r[0] / r[1] for r in runs)), "unit": "1/s"},
    ]  # fmt: skip
    method = METHOD.format(jobs=chosen.jobs, load=chosen.load, nodes=chosen.nodes, kernels=compiled)
    report("simulator", method, rows, chosen.json)


if __name__ == "__main__":
    main()
