"""Many seeded worlds on all cores: every law after every few steps, and convergence at the end.

Run: ``python bench/seeds.py [--seeds 1000] [--first 0] [--profile storm …] [--json]``
"""

import sys
import time
from multiprocessing import Pool

from measure import parser, report

from hyperion.sim.faults import PROFILES
from hyperion.sim.world import World

METHOD = "each world: 2 clusters of 3 nodes, 24 jobs, faults for 45 s of its time, then healing"


def play(job):
    profile, seed = job
    world = World(seed, PROFILES[profile])
    started = time.process_time()
    try:
        world.run()
    except Exception as broken:
        return profile, seed, 0, 0.0, f"{type(broken).__name__}: {broken}"[:300]
    return profile, seed, world.steps, time.process_time() - started, ""


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=1000, help="of each profile")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--profile", action="append", choices=sorted(PROFILES))
    options = arguments.parse_args()
    jobs = [
        (profile, seed)
        for seed in range(options.first, options.first + options.seeds)
        for profile in options.profile or sorted(PROFILES)
    ]
    failed, steps, cpu = [], 0, 0.0
    with Pool() as pool:
        for n, (profile, seed, ran, took, fault) in enumerate(
            pool.imap_unordered(play, jobs, 8), 1
        ):
            steps, cpu = steps + ran, cpu + took
            if fault:
                failed.append((profile, seed))
                print(f"\n{profile} seed {seed}: {fault}", file=sys.stderr)
            if sys.stderr.isatty() and n % 20 == 0:
                print(f"\r{n}/{len(jobs)}", end="", file=sys.stderr)
    rows = [
        {"figure": "worlds played", "value": len(jobs), "unit": ""},
        {"figure": "worlds that broke a law", "value": len(failed), "unit": "", "goal": 0},
        {"figure": "machine steps per CPU second", "value": round(steps / cpu), "unit": "/s"},
    ]
    report("seeds", METHOD, rows, options.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
