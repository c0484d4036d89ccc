"""What the workload library costs: one `point()`, and from a request to the pause.

PYTHONPATH=src python bench/workload.py [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit

from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.workload import page
from hyperion.workload.channel import Channel

PROGRAM = """
import hyperion
while True:
    for _ in range(100):
        sum(range(1000))
        hyperion.point()
    hyperion.step()
"""


def point_ns(path: str) -> float:
    """The least of five: the rest is the machine's noise."""
    agent = Cooperative(path)
    point = Channel(path).point
    runs = timeit.repeat(point, number=200_000, repeat=5, timer=time.process_time)
    agent.close()
    return min(runs) / 200_000 * 1e9


def pause_us(path: str, trials: int) -> list[float]:
    """Request to paused, by the workload's own clock reading; points are some 10 us apart."""
    agent = Cooperative(path)
    environment = {**os.environ, "HYPERION_WORKLOAD_PAGE": path}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)
    taken = []
    try:
        while not agent.read().capabilities & page.STEPS:
            time.sleep(0.01)
        for _ in range(trials):
            asked = time.monotonic_ns()
            if agent.wait(agent.ask(page.PAUSE, asked + 10_000_000_000), 10):
                taken.append((agent.read().acknowledged_at_ns - asked) / 1e3)
            agent.wait(agent.resume(), 10)
    finally:
        process.kill()
        process.wait()
        agent.close()
    return sorted(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost = point_ns(f"{folder}/cost")
        taken = pause_us(f"{folder}/pause", arguments.trials)
    figures = {
        "point_ns": round(cost, 1),
        "pauses": len(taken),
        "pause_us_p50": round(statistics.median(taken), 1),
        "pause_us_p99": round(taken[int(len(taken) * 0.99)], 1),
        "pause_us_max": round(taken[-1], 1),
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<14}{value:>10}")


if __name__ == "__main__":
    main()
