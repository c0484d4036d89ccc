"""Many seeded worlds on all cores: every law after every few steps, and convergence at the end.

Run: ``python bench/seeds.py [--seeds 1000] [--first 0] [--profile storm …] [--keep FILE] [--json]``
Exits with 1 when a world broke a law; each such seed is told on stderr as it is found. With
``--keep`` what was played is kept there, and the same command goes on where it was interrupted.
"""

import hashlib
import json
import os
import sys
import time
from multiprocessing import Pool
from pathlib import Path

from measure import parser, progress, report

import hyperion
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
BLOCK = 10
"""Worlds at a time."""


def play(block):
    """A block of worlds: its totals, and the seeds that broke a law with how."""
    profile, first, count = block
    totals, failed = (0, 0, 0.0, 0.0, 0), []
    for seed in range(first, first + count):
        started = time.process_time()
        world = World(seed, PROFILES[profile], size_of(seed))
        try:
            world.run()
        except Exception as broken:
            failed.append((seed, f"{type(broken).__name__}: {broken}"[:300]))
        took = time.process_time() - started
        totals = added(totals, (1, world.steps, took, world.now_ms / 1000, len(world.executions)))
    return profile, first, count, totals, failed


def added(one, other):
    return tuple(a + b for a, b in zip(one, other, strict=True))


def play_all(blocks, workers, kept):
    """Plays what is not yet in ``kept``; gives all blocks of the two."""
    done = kept.blocks(blocks)
    known = {block[:3] for block in done}
    waiting = [block for block in blocks if block not in known]
    for profile, *_, failed in done:
        tell(profile, failed)
    told, worlds = time.monotonic(), sum(block[2] for block in done)
    with Pool(workers) as pool:
        for block in pool.imap_unordered(play, waiting):
            kept.add(block)
            done.append(block)
            tell(block[0], block[-1])
            worlds += block[2]
            whole, failed = sum(b[2] for b in blocks), sum(len(b[-1]) for b in done)
            line = f"{worlds:,} of {whole:,} worlds, {failed} broke a law"
            progress(line)
            if not sys.stderr.isatty() and time.monotonic() - told > TELL_S:
                told = time.monotonic()
                print(line, file=sys.stderr, flush=True)
    return done


def tell(profile, failed):
    for seed, fault in failed:
        print(f"{profile} seed {seed}: {fault}", file=sys.stderr, flush=True)


class Kept:
    """Blocks that were played before by the same code, in a file of JSON lines."""

    def __init__(self, path):
        self.path = path
        self.code = code()

    def blocks(self, wanted):
        if self.path is None or not self.path.exists():
            return []
        found = {}
        for line in self.path.read_text().splitlines():
            try:
                said = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when it was interrupted
            if said["code"] == self.code:
                profile, first, count, totals, failed = said["block"]
                found[profile, first, count] = (profile, first, count, tuple(totals), failed)
        return [found[block] for block in wanted if block in found]

    def add(self, block):
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"code": self.code, "block": block}) + "\n")


def code():
    """What the worlds are made of: another line of it, and they are played anew."""
    root, digest = Path(hyperion.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def rows_of(done, wall_s, now):
    totals, failed = {}, []
    for profile, _, _, counts, broke in done:
        totals[profile] = added(totals.get(profile, (0, 0, 0.0, 0.0, 0)), counts)
        failed += [(profile, seed) for seed, _ in broke]
    worlds, steps, cpu_s, time_s, ran = map(sum, zip(*totals.values(), strict=True))
    yield {"figure": "worlds that broke a law", "value": len(failed), "unit": "", "goal": 0}
    yield {"figure": "worlds played", "value": worlds, "unit": ""}
    yield {"figure": "replicas they ran", "value": ran, "unit": ""}
    yield {"figure": "time they lived through", "value": round(time_s / 86_400, 1), "unit": "days"}
    yield {"figure": "worlds per second, all cores", "value": round(now / wall_s, 1), "unit": ""}
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
    arguments.add_argument("--keep", type=Path, metavar="FILE", help="go on from there")
    options = arguments.parse_args()
    if options.seeds < 1 or options.workers < 1:
        arguments.error("--seeds and --workers: expected at least 1")
    seeds = range(options.first, options.first + options.seeds)
    profiles = options.profile or sorted(PROFILES)
    blocks = [
        (profile, first, min(BLOCK, seeds.stop - first))
        for first in seeds[::BLOCK]
        for profile in profiles
    ]
    kept, started = Kept(options.keep), time.monotonic()
    before = sum(block[2] for block in kept.blocks(blocks))
    done = play_all(blocks, options.workers, kept)
    now = sum(block[2] for block in done) - before
    rows = list(rows_of(done, time.monotonic() - started, now))
    title = f"seeds {seeds[0]} to {seeds[-1]} of {', '.join(profiles)}"
    report(title, METHOD, rows, options.json)
    return 1 if any(block[-1] for block in done) else 0


if __name__ == "__main__":
    sys.exit(main())
