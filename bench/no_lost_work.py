"""A deterministic training run that is preempted at random instants gives the same bits each step.

Run: ``python bench/no_lost_work.py [--workload numpy torch jax] [--mode pause|step|disk|kill]
[--preemptions 1000] [--python PATH] [-o json]``. ``pause``: it stands still where it is; ``step``:
it comes to a stand by itself at the end of its step, and one in eight is killed there; ``disk``: it
is written to disk by CRIU and brought back; ``kill``:
SIGTERM, it saves a checkpoint after its step, ends, and is started again. What the interpreter at
PATH cannot import is skipped. Exits with 1 when a step was lost, done twice, or came out otherwise.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections import Counter

from measure import percentile, progress, report
from strikes import LATE, Stage, Tally
from training.train import PHASES, UNBORN

from hyperion.adapters.runtime import aside

METHOD = {
    "pause": "stopped at random instants by the freezer of its control group ({how}), as the"
    " agent's fast path does it, for 0 to 5 ms each time; stopped: until the kernel says that all"
    " of it stands; in which phase it is says a page of memory that it shares, read at that moment",
    "step": "asked at random instants through its page to come to a stand at the end of its step,"
    " which it saves; then frozen by the freezer of its control group ({how}) for 0 to 5 ms, or,"
    " one in eight, killed by SIGKILL and started again; stood: from the request until it says that"
    " it computes no more; in which phase it is says a page of memory that it shares, read just"
    " before the request",
    "disk": "written to disk at random instants by CRIU, as the agent does it, and brought back;"
    " written: until its processes have ended; in which phase it is says a page of memory that it"
    " shares, read just before",
    "kill": "told to end at random instants by SIGTERM to all of its processes; it saves a"
    " checkpoint after its step (draft, fsync, rename) and ends with 143; then it is started again"
    " with HYPERION_RESUME_FROM; ended: from the signal until its process has gone; in which phase"
    " it is says a page of memory that it shares, read just before the signal",
}
ROUND = (
    "the same training run again and again ({steps}), one thread, its state seeded; first"
    " undisturbed, then {what} (seed {seed}); compared are the bits of the loss of each step and"
    " the SHA-256 of the parameters at the end"
)
STEPS = {"numpy": 3000, "torch": 300, "jax": 1000}
BAR = 30


def options():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    many = {"nargs": "+", "choices": list(STEPS), "default": ["numpy"]}
    made.add_argument("--workload", **many, help="one or several, one after the other")
    made.add_argument("--mode", choices=list(METHOD), default="pause")
    made.add_argument("--preemptions", type=int, default=1000, help="of each workload, in total")
    made.add_argument("--steps", type=int, help="of each run; as many as make it last seconds")
    made.add_argument("--python", default=sys.executable, help="interpreter that has them")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return made.parse_args()


def version(python, workload):
    """(its version, why there is none)."""
    program = f"import {workload}; print({workload}.__version__)"
    try:
        found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    except OSError as error:
        return "", f"{python}: {error.strerror}"
    lines = (found.stderr if found.returncode else found.stdout).splitlines()
    said = lines[-1] if lines else f"exit code {found.returncode}"
    return ("", said) if found.returncode else (said, "")


def faults_of(wanted, found):
    """How many steps were lost, done twice or came out otherwise, and whether the end did."""
    bits, times = dict(map(str.split, wanted)), Counter(line.partition(" ")[0] for line in found)
    other = {line.partition(" ")[0] for line in found} - {
        step for step, _, loss in (line.partition(" ") for line in found) if bits.get(step) == loss
    }
    return {
        "steps lost": len(bits.keys() - times.keys() - {"end"}),
        "steps done twice": sum(n - 1 for n in times.values()),
        "steps with other bits": len(other - {"end"}),
        "runs with other parameters": int("end" in other or "end" not in times),
    }


def prove(workload, steps, chosen):
    """(figures, how it was stopped, whether all is well) of one workload."""
    tally, wrong, runs = Tally(), Counter(), 0
    with tempfile.TemporaryDirectory(prefix="hyperion-lost-") as directory:
        stage = Stage(workload, steps, chosen.python, directory, chosen.seed)

        def told():
            part = tally.done * BAR // chosen.preemptions
            bar = "#" * part + "." * (BAR - part)
            shown = f"{tally.done:,} of {chosen.preemptions:,} preemptions of {workload}"
            progress(f"[{bar}] {shown}, {wrong['runs']} runs wrong")

        tally.told = told
        plays = {"pause": stage.paused, "step": stage.stood, "disk": stage.laid_aside}
        play = plays.get(chosen.mode, stage.killed)
        try:
            told()
            wanted = stage.undisturbed()
            assert len(wanted) == steps + 1, "the undisturbed run did not come to its end"
            while tally.done < chosen.preemptions and not tally.faults:
                found = play(chosen.preemptions - tally.done, tally)
                wrong.update(faults_of(wanted, found) | {"runs": int(found != wanted)})
                runs += 1
        finally:
            stage.close()
    for fault in tally.faults:
        print(f"{workload}: {fault}", file=sys.stderr)
    rows = figures(workload, chosen.mode, runs, wrong, tally)
    return rows, stage.how, not wrong.total() and not tally.faults


def figures(workload, mode, runs, wrong, tally):
    def row(figure, value, unit="", **goal):
        return {"figure": f"{workload}: {figure}", "value": value, "unit": unit, **goal}

    yield row("preemptions", tally.done)
    yield row("runs, each of the same steps", runs)
    yield row("runs that came out otherwise", wrong["runs"], goal=0)
    for fault in faults_of([], []):
        yield row(fault, wrong[fault], goal=0)
    yield row("other faults", len(tally.faults), goal=0)
    for phase in (*PHASES[UNBORN + 1 :], LATE):
        if phase in tally.phases:
            yield row(f"struck: {phase}", tally.phases[phase])
    took = tally.took_ms or [0.0]
    said = {"pause": "stopped", "step": "stood", "disk": "written", "kill": "ended"}[mode]
    for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        yield row(f"{said}, {name}", round(percentile(took, part), 3), "ms")


def end_at_once(*_):
    """Once: what runs and its groups are cleared away, and that takes moments only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    chosen = options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_at_once)
    rows, lengths, how, is_well = [], [], "", True
    if chosen.mode == "disk" and not aside.version():
        print(f"disk is skipped: no CRIU {aside.NEEDED} on PATH that works", file=sys.stderr)
        return 1
    try:
        for workload in dict.fromkeys(chosen.workload):
            found, why_not = version(chosen.python, workload)
            if why_not:
                progress("")
                print(f"{workload} is skipped: {why_not}", file=sys.stderr)
                rows.append({"figure": f"{workload}: skipped", "value": why_not, "unit": ""})
                continue
            steps = chosen.steps or STEPS[workload]
            more, how, well = prove(workload, steps, chosen)
            rows += more
            is_well = is_well and well
            lengths.append(f"{workload} {found}, {steps} steps")
    except KeyboardInterrupt:
        progress("")
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    what = METHOD[chosen.mode].format(how=how)
    method = ROUND.format(steps="; ".join(lengths), what=what, seed=chosen.seed)
    report("no_lost_work", method, rows, chosen.output == "json")
    return 0 if is_well and lengths else 1


if __name__ == "__main__":
    sys.exit(main())
