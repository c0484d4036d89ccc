"""Kills scheduler, agent, fast path and urgent job at random instants of pauses, again and again.

The same ordeal as ``tests/integration/test_pausing_kills.py``, with as many kills as wanted. A
fault is a batch job that stays frozen, loses or repeats a step or is started anew, and a replica
that runs twice. Exits with 1 when there was one.
Usage: python bench/kill_pauses.py [--kills 120] [--seed 1] [--json]
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measure import load, machine, progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))

from counting import Counting
from daemons import World
from pause_ordeal import HOLD_S, WHEN, WHO, strike


def ordeal(kills, seed, told):
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kill-pauses-") as directory:
        place = Path(directory)
        with World(place / "w") as world:
            world.cpus = int(world.client.nodes()[0].cpus)
            counting = Counting(world, place, pausing={"hold": f"{HOLD_S}s"})
            for n in range(kills):
                who, when = dice.choice(WHO), dice.choice(WHEN)
                progress(f"{n + 1} of {kills}: {who}, {when}")
                strike(world, counting, who, when, place / "traces", dice)
                told[f"{who}, {when}"] += 1
            counting.checked()
            world.client.cancel(counting.id)
            world.client.wait(counting.id, 30)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    told, fault, began, before = Counter(), "", time.monotonic(), load()
    try:
        ordeal(options.kills, options.seed, told)
    except AssertionError as error:
        fault = str(error)
    progress("")
    rows = {
        "kills": told.total(),
        "by": dict(sorted(told.items())),
        "fault": fault,
        "wall_s": round(time.monotonic() - began, 1),
        "seed": options.seed,
        "machine": machine(),
        "load": [before, load()],
    }
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for name, value in rows.items():
            print(f"{name:<8} {value}")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
