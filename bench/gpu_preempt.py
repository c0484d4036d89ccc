"""What preemption of a job on an NVIDIA GPU takes: compute, memory, an urgent request, lost work.

Run: ``python bench/gpu_preempt.py [--budget-s 450] [--phase truth t0 …] [--json] [--write FILE]``
``--device cpu`` runs all the logic on a device made of a process: not a GPU figure.
Exits with 2 where there is no GPU, with 1 when a phase failed or a run came out otherwise.
docs/gpu.md says what the figures are.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from gpu.budget import WEIGHTS, PhaseFailed, PhaseRefused, run_phases
from gpu.figures import LOGIC_ONLY, judged, table
from gpu.phases import PHASES
from gpu.roles import DEVICES
from gpu.stage import Stage, surroundings
from gpu.standstill import group_v2, remove_group
from measure import load, machine

MOST = {
    "cuda": {"truth": 60, "t0": 1000, "urgent": 200, "exact": 200},
    "cpu": {"truth": 20, "t0": 25, "urgent": 20, "exact": 200},
}
"""Trials at most, by phase; fewer where the time is up."""
WINDOWS = (1, 2, 4, 0)
SOFT = 0.85
"""At this part of its time a phase is to come to its end by itself; at the whole it is killed."""
HERE = Path(__file__).resolve()


def options_of(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=sorted(DEVICES), default="cuda")
    parser.add_argument("--phase", nargs="+", choices=list(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--budget-s", type=float, default=450.0, help="all phases together")
    parser.add_argument("--trials", type=int, help="at most, of each phase and window")
    parser.add_argument(
        "--window",
        nargs="+",
        type=int,
        choices=WINDOWS,
        default=WINDOWS,
        help="of phase t0; 0: any",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write JSON there as well")
    parser.add_argument("--inner", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# -- one phase, in a process of its own ------------------------------------------------------------


def inner(options):
    """Runs one phase and prints what it gave."""
    device = DEVICES[options.device]
    most = {name: options.trials or n for name, n in MOST[options.device].items()}
    until = time.monotonic() + SOFT * options.limit_s
    name, group, directory = options.inner
    stage = Stage(device, directory, group, until, options.seed, most, tuple(options.window))
    try:  # who looks at the clock goes first
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(30))
        clock = "real-time"
    except PermissionError:
        clock = "not real-time"
    said = attempted(PHASES[name], stage)
    method = f"{stage.method}. Who looks at the clock was {clock}"
    print(json.dumps({**said, "method": method, "rows": stage.rows}))
    return 0


def attempted(phase, stage):
    """How it ended; what it found is with the stage."""
    try:
        phase(stage)
    except PhaseRefused as error:
        return {"refused": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"failed": str(error) if isinstance(error, PhaseFailed) else repr(error)}
    return {}


def shared():
    """Memory that a driver can pin: a file on a disk is none."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def in_a_process(options, name, limit_s):
    """``run_one`` of ``run_phases``: killed with all it started when its time is up."""
    group = group_v2(f"hyperion-gpu-{os.getpid()}-{name}")
    with tempfile.TemporaryDirectory(prefix="hyperion-gpu-", dir=shared()) as directory:
        command = [sys.executable, str(HERE), "--inner", name, group, directory]
        command += ["--device", options.device, "--seed", str(options.seed)]
        command += ["--limit-s", str(limit_s), "--window", *map(str, options.window)]
        command += ["--trials", str(options.trials)] if options.trials else []
        return outcome(*ran(command, group, limit_s))


def ran(command, group, limit_s):
    """(output, complaints, status) of a phase."""
    made = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=surroundings(),
    )
    try:
        out, complaints = made.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise PhaseFailed(f"not done after {limit_s:.0f} s") from None
    finally:
        end(made, group)
    return out, complaints, made.returncode


def end(made, group):
    """All processes of a phase, also those that stand still."""
    with suppress(ProcessLookupError):
        os.killpg(made.pid, signal.SIGKILL)
    made.wait(10)
    made.stdout.close()
    made.stderr.close()
    if group:
        remove_group(group)


def outcome(out, complaints, status):
    """(method, rows) of what a phase printed; else the reason, raised."""
    try:
        said = json.loads(out)
    except json.JSONDecodeError:
        lines = complaints.strip().splitlines() or ["no word"]
        raise PhaseFailed(f"ended with {status}: {lines[-1]}") from None
    found = said["method"], said["rows"]
    if "refused" in said:
        raise PhaseRefused(said["refused"], *found)
    if "failed" in said:
        raise PhaseFailed(said["failed"], *found)
    return found


# -- all of them -----------------------------------------------------------------------------------


def described(device):
    """What the device says of itself, in a process of its own; {"missing": why} without one."""
    command = [sys.executable, "-m", "gpu.roles", "describe", device]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=surroundings()
    )
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        lines = done.stderr.strip().splitlines() or ["no word"]
        return {"missing": lines[-1]}


def whole(options, about, results, loads):
    """The document that is printed and kept."""
    is_gpu = options.device == "cuda"
    phases = [asdict(result) for result in results]
    for phase in phases:
        judged(phase["rows"], is_gpu)
    return {
        "benchmark": "gpu_preempt",
        "label": "measured on a GPU" if is_gpu else LOGIC_ONLY,
        "device": about,
        "machine": machine(),
        "load_before": loads[0],
        "load_after": loads[1],
        "budget_s": options.budget_s,
        "seed": options.seed,
        "phases": phases,
    }


def show(document):
    print(f"gpu_preempt: {document['label']}")
    for part in ("device", "machine"):
        print("  " + ", ".join(f"{k} {v}" for k, v in document[part].items()))
    print(f"  load average before {document['load_before']}, after {document['load_after']}")
    for phase in document["phases"]:
        print("\n" + "\n".join(table(phase)))


def exit_status(document):
    rows = [one for phase in document["phases"] for one in phase["rows"]]
    wrong = any(one["value"] is False or (one.get("anywhere") and not one["met"]) for one in rows)
    failed = any(phase["status"] == "failed" for phase in document["phases"])
    return 1 if wrong or failed else 0


def main(arguments=None):
    options = options_of(arguments)
    if options.inner:
        return inner(options)
    about = described(options.device)
    if "missing" in about:
        print(
            f"no GPU to measure: {about['missing']}\n"
            "next: run this on a machine with an NVIDIA GPU, its driver and torch with CUDA "
            "(docs/gpu.md), or add --device cpu, which runs the logic and measures no GPU",
            file=sys.stderr,
        )
        return 2
    before = load()
    results = run_phases(
        options.phase,
        options.budget_s,
        lambda name, limit_s: in_a_process(options, name, limit_s),
        time.monotonic,
    )
    document = whole(options, about, results, (before, load()))
    if options.write:
        options.write.write_text(json.dumps(document, indent=1) + "\n")
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        show(document)
    return exit_status(document)


if __name__ == "__main__":
    sys.exit(main())
