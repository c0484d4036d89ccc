"""The phases; each leaves its method and rows with its stage."""

import os
import signal
import time
from statistics import median

from gpu import stage as beside
from gpu.budget import PhaseFailed, PhaseRefused
from gpu.checkpoints import refusals
from gpu.figures import GOALS_MS, PACING_COST, cost_percent, differences, row, spread
from gpu.hooked import hooks
from gpu.page import Page
from gpu.standstill import free_ms, work_end_ns

WINDOWS = (1, 2, 4)
ANSWER_S = 2.0
"""A request is waited for so long even where the phase's time is over."""


def of(window):
    return f"K={window}" if window else "unpaced"


def stops(run):
    return [row(f"stopped by {how}", count, "trials") for how, count in run.stopper.how.items()]


# -- 1. ground truth -------------------------------------------------------------------------------


def truth(stage):
    """How the end of the device's work is known, and how well."""
    stage.method = (
        "An unpaced training is stopped at random instants. Before and after each unit the "
        "device writes its own time into a page that the host sees, also while the process "
        "stands still. Its clock is set against CLOCK_MONOTONIC before, after and every 25 "
        "trials by round trips, the shortest of 50. Beside it the host looks at the page all "
        "the time: both must agree"
    )
    with beside.running(stage) as run:
        trials, clocks = run.trials(0, stage.most["truth"], stage.until)
        unit_ns, step_ns = run.page["unit_ns"], run.page["resolution_ns"]
    if not trials:
        raise PhaseFailed("no time for a single trial")
    after = [max(0, work_end_ns(t, clocks, unit_ns) - t.stopped_ns) / 1e6 for t in trials]
    seen = [
        (t.seen_ns - clocks.host_ns(max(t.begin_stamp, t.end_stamp))) / 1e3
        for t in trials
        if t.seen_ns
    ]
    stage.rows += [
        row("trials", len(trials)),
        *spread("the process stands → the device has done its work", after),
        *spread("units that ended after the process stood", _late_units(trials), ""),
        *spread("seen by the host, after the device's own time of it", seen, "µs"),
        row("clocks: off by at most", round(clocks.half_ns / 1e3, 2), "µs"),
        row("clocks: least step of the device's", round(step_ns / 1e3, 3), "µs"),
        row("clocks: drift", round(clocks.drift_ppm, 2), "ppm"),
        row("the longest unit, undisturbed", round(unit_ns / 1e6, 3), "ms"),
        row("stopped in the midst of a launch", sum(t.begin > t.end for t in trials), "trials"),
        row("still at work when the watch ended", sum(not t.drained for t in trials), "trials"),
    ]


def _late_units(trials):
    return [t.end - t.end_when_stopped for t in trials]


# -- 2. T0 -----------------------------------------------------------------------------------------


def t0(stage):
    """Freezing the process that launches, with launches that run ahead so far."""
    stage.method = (
        "A training is stopped at random instants; before unit n is launched, unit n - K has "
        "ended. Free: from the order until its threads stand and the device has done what it "
        "was given, by the device's time; a unit cut off in its launch counts whole. Cost: "
        "units a second against unpaced, in turn, median of the rounds"
    )
    rows = stage.rows
    with beside.running(stage) as run:
        rows += _costs(_rates(stage, run))
        for n, window in enumerate(stage.windows):
            until = time.monotonic() + stage.left_s / (len(stage.windows) - n)
            trials, clocks = run.trials(window, stage.most["t0"], until)
            free = [free_ms(t, clocks, run.page["unit_ns"]) for t in trials]
            goals = GOALS_MS if window else None
            rows += spread(f"{of(window)}: ordered → free", free, "ms", (*GOALS_MS, 1.0), goals)
            rows.append(row(f"{of(window)}: still at work after", _undrained(trials), "trials"))
        rows += stops(run)


def _costs(rates):
    rows = [row(f"{of(window)}: units", round(rate, 1), "1/s") for window, rate in rates.items()]
    for window in WINDOWS:
        cost = round(cost_percent(rates[0], rates[window]), 2)
        rows.append(row(f"{of(window)}: cost of pacing", cost, "%", goal=PACING_COST))
    return rows


def _undrained(trials):
    return sum(not t.drained for t in trials)


def _rates(stage, run):
    seconds = min(1.0, stage.left_s / 80)
    found = {window: [] for window in (0, *WINDOWS)}
    for _ in range(3):
        for window, rates in found.items():
            rates.append(run.rate(window, seconds))
    rates = {window: median(rates) for window, rates in found.items()}
    if not all(rates.values()):
        raise PhaseFailed("no unit came to its end while the rates were measured")
    return rates


# -- 3. T1 -----------------------------------------------------------------------------------------


def t1(stage):
    """Snapshots into the host's memory and back."""
    stage.method = (
        "Random bytes on the device, copied as one piece into host memory that has been touched"
        " before, and back; median of 3; what came back is compared"
    )
    with beside.process(stage, "copy", *stage.device.COPY_SIZES) as made:
        left = len(stage.device.COPY_SIZES)
        while left:
            said = beside.heard(made, stage.left_s)
            stage.rows += _copied(said)
            left -= "left_out" in said or ("same" in said and said["kind"] == "pageable")


def _copied(said):
    """The rows of one answer."""
    size = amount(said["size"])
    if "left_out" in said:
        return [row(f"{size}: left out, {said['left_out']}", None)]
    what = f"{size}, {said['kind']}"
    if "same" in said:
        return [row(f"{what}: came back the same", said["same"])]
    if said["way"] == "to_device":
        return [row(f"{what}, host to device", round(said["gb_s"], 2), "GB/s")]
    return [
        row(f"{what}: host memory made", round(said["made_s"], 3), "s"),
        row(f"{what}, device to host", round(said["gb_s"], 2), "GB/s"),
    ]


def amount(size):
    return f"{size >> 30} GiB" if size >= 1 << 30 else f"{size / 1e6:g} MB"


# -- 4. T2 -----------------------------------------------------------------------------------------


def t2(stage):
    """Checkpoints by the driver, from a process that may be lost."""
    stage.method = (
        "A process holds so many bytes on the device; another calls the driver's lock, "
        "checkpoint, restore and unlock, twice, the second time with the process stopped and "
        "let go between checkpoint and restore; a digest of the memory before and after. Never "
        "called on a process that stands still; that one is tried and has to be refused before "
        "the driver is asked"
    )
    for size in stage.device.HELD_SIZES:
        try:
            _checkpointed(stage, size)
        except PhaseRefused as error:
            if size == stage.device.HELD_SIZES[0]:
                raise
            stage.rows.append(row(f"{amount(size)}: {error}", None))


def _checkpointed(stage, size):
    path = f"{stage.directory}/held-{size}"
    page = Page(path, create=True)
    try:
        with beside.process(stage, "hold", size, path) as held:
            before = beside.heard(held, stage.start_s)["digest"]
            refused = refusals(stage.device.facts(held.pid, size))
            if refused:
                raise PhaseRefused("; ".join(refused))
            refused = _forbidden(stage, held, size, path)
            stage.rows.append(row(f"{amount(size)}: refused on a stopped process", refused))
            with beside.process(stage, "checkpoint", held.pid, size, path) as caller:
                for _ in (1, 2):
                    stage.rows += _cycle(beside.heard(caller, stage.left_s), size)
            same = beside.ask(held, stage.left_s)["digest"] == before
            stage.rows.append(row(f"{amount(size)}: memory came back the same", same))
    finally:
        page.close()


def _forbidden(stage, held, size, path):
    """Whether a stopped process is refused; the driver is not asked."""
    os.kill(held.pid, signal.SIGSTOP)
    try:
        with beside.process(stage, "checkpoint", held.pid, size, path) as caller:
            return "stands still" in beside.heard(caller, stage.start_s).get("forbidden", "")
    finally:
        os.kill(held.pid, signal.SIGCONT)


def _cycle(said, size):
    if "cycle" not in said:
        raise PhaseFailed(said.get("forbidden") or said.get("failed") or "no result")
    name = f"{amount(size)}, {'first' if said['cycle'] == 1 else 'second'}"
    rows = [row(f"{name}: {call}", round(ms, 2), "ms") for call, ms in said["took_ms"].items()]
    for call in ("checkpoint", "restore"):
        ms_per_gb = said["took_ms"][call] / (size / 1e9)
        rows.append(row(f"{name}: {call}, each GB", round(ms_per_gb, 1), "ms"))
    if said["freed"] is not None:
        rows.append(row(f"{name}: memory given back", round(said["freed"] / 1e9, 2), "GB"))
    return rows


# -- 5. an urgent request --------------------------------------------------------------------------


def urgent(stage):
    """A resident model answers while the training has its memory."""
    stage.method = (
        "A model in a process of its own, warm; a request of a few rows by a pipe. Alone: the "
        "training stands and its work is done. Beside it: nothing is stopped. Stopped: the "
        "training is ordered to stand, then the request is sent at once; from the order to the "
        "answer"
    )
    rows = stage.rows
    with beside.running(stage) as run, beside.process(stage, "answer") as model:
        beside.heard(model, stage.start_s)
        most = stage.most["urgent"]
        share = stage.left_s / (len(WINDOWS) + 3.5)  # the rest is for the last of them to end
        rows += spread("alone: request → answer", _alone(stage, run, model, most, share))
        run.page["window"] = 4
        took = _requests(stage, most, share, lambda: _timed(stage, model))
        rows += spread("beside the training, K=4: request → answer", took)
        for window in (*WINDOWS, 0):
            run.page["window"] = window
            took = _requests(stage, most, share, lambda: _stopped(stage, run, model))
            rows += spread(f"{of(window)}, stopped: order → answer", took)
        rows += stops(run)


def _requests(stage, most, share_s, once):
    until, took = time.monotonic() + min(share_s, stage.left_s), []
    while len(took) < most and time.monotonic() < until:
        gap_s = 0.03 if stage.is_gpu else 0.004
        stage.rest(gap_s, 3 * gap_s)
        took.append(once())
    return took


def _timed(stage, model):
    began = time.monotonic_ns()
    beside.ask(model, max(ANSWER_S, stage.left_s))
    return (time.monotonic_ns() - began) / 1e6


def _alone(stage, run, model, most, share_s):
    try:
        run.stopper.stop()
        time.sleep(1.0 if stage.is_gpu else 0.1)
        return _requests(stage, most, share_s, lambda: _timed(stage, model))
    finally:
        run.stopper.go_on()


def _stopped(stage, run, model):
    began = time.monotonic_ns()
    try:
        run.stopper.stop()
        beside.ask(model, max(ANSWER_S, stage.left_s))
        return (time.monotonic_ns() - began) / 1e6
    finally:
        run.stopper.go_on()


# -- 6. no lost work -------------------------------------------------------------------------------


def exact(stage):
    """The same training, undisturbed and stopped at random instants."""
    steps, wanted = stage.device.STEPS, stage.most["exact"]
    stage.method = (
        f"A deterministic training of {steps} steps, and some to warm up, from fixed seeds, "
        "first undisturbed, then again and again, stopped at random instants for 0 to 20 ms, "
        "paced with K=4 and unpaced in turn; compared are the bits of the loss of each step and"
        " the SHA-256 of the parameters at the end"
    )
    with beside.running(stage, steps) as run:
        whole = beside.finished(run, stage.left_s)
    done, runs, faults = 0, 0, []
    while done < wanted and (stage.left_s > 1 or not runs):
        with beside.running(stage, steps) as run:
            run.page["window"] = 4 * (runs % 2)
            done += _disturb(stage, run, wanted - done)
            found = differences(whole, beside.finished(run, stage.left_s))
        faults += [f"run {runs + 1}: {fault}" for fault in found]
        runs += 1
    wrong = len({fault.partition(":")[0] for fault in faults})
    stage.rows += [
        row("runs that came out otherwise", wrong, goal=0, anywhere=True),
        row("preemptions", done, f"of {wanted}"),
        row("runs", runs),
        row("steps of each", len(whole["losses"])),
        row("different losses among them", len(set(whole["losses"]))),
        *(row(fault, None) for fault in faults),
    ]


def _disturb(stage, run, most):
    """Stop it until it has come to its end, or often enough; how often."""
    done = 0
    while done < most and run.made.poll() is None and stage.left_s > 0:
        stage.rest(0.001, 0.03 if stage.is_gpu else 0.006)
        if run.made.poll() is not None:
            break
        try:
            run.stopper.stop()
            stage.rest(0, 0.02)
        finally:
            run.stopper.go_on()
        done += 1
    return done


PHASES = {
    "truth": truth,
    "t0": t0,
    "hooks": hooks,
    "t1": t1,
    "t2": t2,
    "urgent": urgent,
    "exact": exact,
}
"""In the order in which they run; what they are for is in their docstrings."""
