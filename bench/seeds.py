"""Many seeded worlds on all cores: every law after every few steps, and convergence at the end.

Run: ``python bench/seeds.py [--seeds 1000] [--first 0] [--profile storm …] [--json]``
Exits with 1 when a world broke a law; each such seed is told on stderr as it is found.
"""

import os
import sys
import time
from multiprocessing import Pool

from measure import parser, progress, report

from hyperion.sim.faults import PROFILES
from hyperion.sim.workload import size_of
from hyperion.sim.world import World

METHOD = (
    "each world: federation, 2 clusters of 3 nodes, 24 jobs in 30 s of its time, faults for 45 s, "
    "then healing until all has ended; odd seeds bring jobs of every shape, queues and windows; "
    " the laws are checked every 25 steps and at the end; a step "
    "is one event through one machine, with what it keeps; CPU of the worlds alone"
)
TELL_S = 10.0


def play(job):
    profile, seed = job
    started = time.process_time()
    world, fault = World(seed, PROFILES[profile], size_of(seed)), ""
    try:
        world.run()
    except Exception as broken:
        fault = f"{type(broken).__name__}: {broken}"[:300]
    took = time.process_time() - started
    return profile, seed, world.steps, took, world.now_ms / 1000, len(world.executions), fault


def play_all(jobs, workers):
    """(failed, totals by profile): worlds, steps, CPU s, s of their time, replicas run."""
    failed, totals, told = [], {}, time.monotonic()
    with Pool(workers) as pool:
        for n, (profile, seed, *counts, fault) in enumerate(pool.imap_unordered(play, jobs, 4), 1):
            known = totals.get(profile, (0, 0, 0.0, 0.0, 0))
            totals[profile] = tuple(a + b for a, b in zip(known, (1, *counts), strict=True))
            if fault:
                failed.append((profile, seed))
                print(f"{profile} seed {seed}: {fault}", file=sys.stderr, flush=True)
            line = f"{n:,} of {len(jobs):,} worlds, {len(failed)} broke a law"
            progress(line)
            if not sys.stderr.isatty() and time.monotonic() - told > TELL_S:
                told = time.monotonic()
                print(line, file=sys.stderr, flush=True)
    return failed, totals


def rows_of(failed, totals, wall_s):
    worlds, steps, cpu_s, time_s, ran = map(sum, zip(*totals.values(), strict=True))
    yield {"figure": "worlds that broke a law", "value": len(failed), "unit": "", "goal": 0}
    yield {"figure": "worlds played", "value": worlds, "unit": ""}
    yield {"figure": "replicas they ran", "value": ran, "unit": ""}
    yield {"figure": "time they lived through", "value": round(time_s / 86_400, 1), "unit": "days"}
    yield {"figure": "worlds per second, all cores", "value": round(worlds / wall_s, 1), "unit": ""}
    yield {"figure": "steps per CPU second", "value": round(steps / cpu_s), "unit": ""}
    for profile, (worlds, steps, cpu_s, _, _) in sorted(totals.items()):
        figure = f"steps per CPU second, {profile} ({worlds} worlds)"
        yield {"figure": figure, "value": round(steps / cpu_s), "unit": ""}
    for profile, seed in sorted(failed):
        yield {"figure": "broke a law", "value": f"{profile} {seed}", "unit": ""}


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=1000, help="of each profile")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--profile", action="append", choices=sorted(PROFILES))
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = arguments.parse_args()
    if options.seeds < 1 or options.workers < 1:
        arguments.error("--seeds and --workers: expected at least 1")
    seeds = range(options.first, options.first + options.seeds)
    profiles = options.profile or sorted(PROFILES)
    jobs = [(profile, seed) for seed in seeds for profile in profiles]
    started = time.monotonic()
    failed, totals = play_all(jobs, options.workers)
    rows = list(rows_of(failed, totals, time.monotonic() - started))
    title = f"seeds {seeds[0]} to {seeds[-1]} of {', '.join(profiles)}"
    report(title, METHOD, rows, options.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
