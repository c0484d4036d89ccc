"""Training runs with ``hyperion.loop`` or ``hyperion.step(state)``, told to end at random instants.

The programs of ``tests/integration/test_workload_restart.py``, stopped by SIGTERM and started again
until they end. All is well when each step is there once, with every bit as in the undisturbed run.
Run: ``python bench/restarts.py [--workload numpy …] [--stops 100] [--python PATH] [--json]``
What the interpreter at PATH cannot import is skipped. Exits with 1 when a run came out otherwise.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import load, machine, percentile, progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))

from test_workload_restart import JAX, NUMPY, TORCH

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"numpy": NUMPY, "torch": TORCH, "jax": JAX}
SITE = ROOT / "src" / "hyperion" / "workload" / "sitecustomize"


def start(python, program, checkpoints):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION")}
    ours = {
        "PYTHONPATH": f"{SITE}{os.pathsep}{ROOT / 'src'}",
        "HYPERION_CHECKPOINT_DIR": str(checkpoints),
        "HYPERION_JOB_ID": "job",
    }
    return subprocess.Popen(
        [python, "-u", "-c", program],
        env=kept | ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def stopped(process, after, dice):
    """(its lines, ms from the signal to its end or 0): told to end after so many lines."""
    lines, told = [], 0.0
    for n, line in enumerate(process.stdout, 1):
        lines.append(line.rstrip())
        if n == after:
            time.sleep(dice.random() / 100)
            told = time.perf_counter()
            process.send_signal(signal.SIGTERM)
    process.stdout.close()
    process.wait(120)
    return lines, 1e3 * (time.perf_counter() - told) if told else 0.0


def prove(workload, stops, python, seed):
    dice, program = random.Random(seed), PROGRAMS[workload]
    with tempfile.TemporaryDirectory(prefix="hyperion-restarts-") as folder:
        wanted = start(python, program, f"{folder}/none").communicate(timeout=300)[0].splitlines()
        took, runs, otherwise = [], 0, 0
        while len(took) < stops:
            lines, code, runs = [], 143, runs + 1
            while code == 143:
                progress(f"{workload}: {len(took)} of {stops} stops, {runs} runs")
                process = start(python, program, f"{folder}/{runs}")
                said, ms = stopped(process, dice.randrange(1, len(wanted) // 3), dice)
                lines, code = lines + said, process.returncode
                took += [ms] if code == 143 else []
            otherwise += lines != wanted
    return {
        "workload": workload,
        "stops": len(took),
        "runs": runs,
        "came out otherwise": otherwise,
        "signal to end, p50 ms": round(percentile(took, 0.5), 1),
        "longest ms": round(max(took), 1),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--stops", type=int, default=100, help="of each workload, in total")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options, before, rows = parser.parse_args(), load(), []
    for workload in options.workload:
        asked = [options.python, "-c", f"import {workload}"]
        if subprocess.run(asked, check=False, capture_output=True).returncode:
            print(f"{workload} is skipped: {options.python} cannot import it", file=sys.stderr)
            continue
        rows.append(prove(workload, options.stops, options.python, options.seed))
    progress("")
    around = {"machine": machine(), "load": [before, load()], "seed": options.seed}
    if options.json:
        print(json.dumps({"benchmark": "restarts", **around, "rows": rows}, indent=1))
    else:
        print(around)
        for row in rows:
            print("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
    return 1 if any(row["came out otherwise"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
