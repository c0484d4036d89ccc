"""Kills federation, scheduler and agents again and again under jobs, and counts what goes wrong.

The same ordeal as ``tests/integration/test_kill_anything.py``, with other numbers and as many
seeds as wanted. A fault is a job lost, doubled, ended twice or wrongly, a replica started twice, a
process left behind, or an entity that a store still keeps. Exits with 1 when there was one.
Usage: python bench/kill_anything.py [--jobs 50] [--kills 20] [--nodes 1] [--seed 1] [--seeds 1]
       [--lease-ms 20000] [--json]
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))

import ordeal
from daemons import World, until

COLUMNS = ["seed", "kills", "starts", "retries", "restarts", "wall_s", "settle_ms", "faults"]


def measure(seed, jobs, kills, nodes, lease_ms):
    """One ordeal; a row of the table."""
    directory = Path(tempfile.mkdtemp(prefix="kill-"))
    trace, lease = directory / "trace", {"node_lease_ms": lease_ms}
    names = [f"n{n}" for n in range(1, nodes + 1)]
    faults = []
    try:
        with World(directory / "w", names, federation=lease, scheduler=lease) as world:
            wished = ordeal.wishes(seed, jobs, trace, over_s=0.9 * kills)
            seen = ordeal.run(world, wished, kills, seed)
            began = time.monotonic()
            world.settled()
            settle_ms = 1000 * (time.monotonic() - began)
            until(lambda: not world.replicas(), "the last replica to go")
            faults += ordeal.faults_of(world, wished, seen, trace)
            ended = ordeal.views(world)
            for daemon in world.daemons:
                daemon.stop()
            faults += ordeal.kept_faults(world, wished)
            for daemon in world.daemons:
                daemon.start()
            world.settled()
            if ordeal.views(world) != ended:
                faults.append("what was recovered is not what was there")
    except AssertionError as error:
        faults.append(str(error))
        print(error, file=sys.stderr)
    else:
        starts = sum(ordeal.traces(trace)["start"].values())
        if not faults:
            shutil.rmtree(directory)
        return {
            "seed": seed,
            "kills": sum(seen.kills.values()),
            "starts": starts,
            "retries": seen.retries,
            "restarts": sum(view.restarts for view in ended.values()),
            "wall_s": round(seen.wall_s, 1),
            "settle_ms": round(settle_ms),
            "faults": faults,
        }
    return {"seed": seed, "faults": faults, "kept": str(directory)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20, help="of each daemon")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--lease-ms", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="JSON only")
    asked = parser.parse_args()
    rows = []
    for seed in range(asked.seed, asked.seed + asked.seeds):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            rows.append(measure(seed, asked.jobs, asked.kills, asked.nodes, asked.lease_ms))
        if rows[-1]["faults"]:
            print(told.getvalue(), file=sys.stderr)
        if not asked.json:
            print("  ".join(f"{c}={_short(rows[-1].get(c))}" for c in COLUMNS), flush=True)
    result = {
        "what": "jobs lost, doubled or wrongly ended while daemons are killed",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "jobs": asked.jobs,
        "kills_each": asked.kills,
        "nodes": asked.nodes,
        "kills": sum(row.get("kills", 0) for row in rows),
        "faults": sum(len(row["faults"]) for row in rows),
        "rows": rows,
    }
    print(json.dumps(result, indent=2))
    return 1 if result["faults"] else 0


def _short(value):
    return len(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
