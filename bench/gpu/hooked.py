"""The phase in which an ordinary torch program is paced by what a job finds on its PYTHONPATH."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import hyperion.workload
from gpu import stage as beside
from gpu.budget import PhaseFailed, PhaseRefused
from gpu.figures import GOALS_MS, PACING_COST, cost_percent, row, spread
from gpu.page import Page
from gpu.program import QUEUE_MS
from gpu.standstill import Stopper
from hyperion.adapters.checkpoint.cooperative import Cooperative

SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
NAMES = {1: f"hooks, {QUEUE_MS:g} ms", 0: "hooks, unpaced"}


def hooks(stage):
    """The hooks that need no line in the program: freezing it, and what they cost."""
    stage.method = (
        "A transformer of 24 blocks (300 million weights, bfloat16, 8 x 1,024 tokens, AdamW), an "
        "ordinary torch program with the hooks that jobs find on their PYTHONPATH, paced to a "
        f"queue of {QUEUE_MS:g} ms and, in the same process, not. Stopped at random instants. "
        "Free: from the order until its threads stand and the GPU has done what it was given: "
        "when its last unit that began can have ended at the latest, units being the leaves of "
        "the modules forwards and backwards, and the optimizer's step. Cost: units a second, in "
        "turn, median of the rounds"
    )
    if not stage.is_gpu:
        raise PhaseRefused("what paces a torch program needs CUDA; its logic is tested without")
    with _program(stage) as (run, took_ns):
        rates = _rates(stage, run)
        stage.rows += [
            row("units in a step", len(took_ns)),
            row("a step, unpaced", round(1e3 * len(took_ns) / rates[0], 1), "ms"),
            row("the longest unit", round(max(took_ns) / 1e6, 3), "ms"),
            row(
                f"{NAMES[1]}: cost",
                round(cost_percent(rates[0], rates[1]), 2),
                "%",
                goal=PACING_COST,
            ),
        ]
        for window, share in ((1, 0.75), (0, 1.0)):
            until = stage.until - stage.left_s * (1 - share)
            trials, clocks = run.trials(window, stage.most["t0"], until)
            free = [_free_ms(t, clocks, took_ns) for t in trials]
            goals = GOALS_MS if window else None
            name = NAMES[window]
            stage.rows += spread(f"{name}: ordered → free", free, "ms", (*GOALS_MS, 1.0), goals)
            late = sum(not t.drained for t in trials)
            stage.rows.append(row(f"{name}: still at work after", late, "trials"))
        stage.rows += [row(f"stopped by {h}", n, "trials") for h, n in run.stopper.how.items()]


def _free_ms(trial, clocks, took_ns):
    """A unit that has begun is reckoned with all that it takes: it may have been cut off in its
    launch, or not have been launched at all."""
    longest = took_ns[trial.begin % len(took_ns)]
    ended = max(clocks.host_ns(trial.end_stamp), clocks.host_ns(trial.begin_stamp) + longest)
    return (max(trial.stopped_ns, ended) - trial.called_ns) / 1e6


def _rates(stage, run):
    seconds, found = min(1.5, stage.left_s / 40), {0: [], 1: []}
    for _ in range(3):
        for window, rates in found.items():
            rates.append(run.rate(window, seconds))
    if not all(all(rates) for rates in found.values()):
        raise PhaseFailed("no unit came to its end while the rates were measured")
    return {window: median(rates) for window, rates in found.items()}


@contextmanager
def _program(stage):
    """(the program, running and ready; what each of its units takes, by number modulo how many)."""
    path = f"{stage.directory}/page-program"
    page, own = Page(path, create=True), f"{stage.directory}/workload"
    Cooperative(own)
    paths = os.pathsep.join((str(SITE), beside.surroundings()["PYTHONPATH"]))
    wanted = {
        "PYTHONPATH": paths,
        "HYPERION_WORKLOAD_PAGE": own,
        "HYPERION_GPU_QUEUE_MS": str(QUEUE_MS),
    }
    try:
        with beside.process(stage, "program", path, stage.group, environment=wanted) as made:
            stopper = Stopper(stage.group, made.pid)
            run = beside.Run(stage, page, made, stopper)
            try:
                run.wait(lambda: page["ready"], stage.start_s, "the start of the program")
                said = json.loads(Path(f"{path}.units").read_text())
                yield run, _by_number(**said)
            finally:
                stopper.close()
    finally:
        page.close()


def _by_number(took_ns, first):
    """The units of a step in the order of their numbers modulo their count."""
    return [*took_ns[-first:], *took_ns[:-first]] if first else took_ns
