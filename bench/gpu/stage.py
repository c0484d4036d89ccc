"""What the phases stand on: processes beside this one, their ends, and trials."""

import json
import os
import random
import select
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gpu import SOURCE
from gpu.budget import PhaseFailed
from gpu.clocks import Correlation, Sample
from gpu.page import Page
from gpu.standstill import Stopper, stopped_once

BENCH = Path(__file__).resolve().parent.parent
CALIBRATE_EVERY = 25
START_S = {"cpu": 20.0, "cuda": 90.0}
"""To load numpy, or torch with its context."""


@dataclass(slots=True)
class Stage:
    """One phase's surroundings."""

    device: object
    directory: str
    group: str
    until: float
    """When the phase should have come to its end, by ``time.monotonic``."""
    seed: int = 1
    most: dict = field(default_factory=dict)
    windows: tuple = (1, 2, 4, 0)
    """Units in flight at most, of which each is tried; 0: no limit."""
    method: str = ""
    rows: list = field(default_factory=list)
    """What the phase says and has found so far; kept when it fails."""
    dice: random.Random = field(init=False)

    def __post_init__(self):
        self.dice = random.Random(self.seed)

    @property
    def is_gpu(self):
        return self.device.NAME == "cuda"

    @property
    def left_s(self):
        return self.until - time.monotonic()

    @property
    def start_s(self):
        return max(1.0, min(START_S[self.device.NAME], self.left_s))

    def rest(self, least_s, most_s):
        time.sleep(self.dice.uniform(least_s, most_s))


def surroundings():
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    paths = [str(BENCH), str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    fixed = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **one, **fixed}


@contextmanager
def process(stage, role, *words, environment=None):
    """A role in a process of its own; killed at the end. What it complains of is in a file."""
    complaints = Path(stage.directory, f"{role}-{time.monotonic_ns()}.err")
    with complaints.open("wb") as errors:
        made = subprocess.Popen(
            [sys.executable, "-m", "gpu.roles", role, stage.device.NAME, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**surroundings(), **(environment or {})},
        )
    made.complaints = complaints
    try:
        yield made
    finally:
        made.kill()
        made.wait(30)
        made.stdin.close()
        made.stdout.close()


def why(made):
    """The last thing a process complained of."""
    text = made.complaints.read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else f"ended with {made.poll()}"


def heard(made, within_s):
    """The next line of a process as JSON; PhaseFailed when none comes."""
    if select.select([made.stdout], [], [], max(0.0, within_s))[0]:
        line = made.stdout.readline()
        if line:
            return json.loads(line)
        made.wait(10)
        raise PhaseFailed(f"a process of it ended: {why(made)}")
    raise PhaseFailed(f"no answer within {within_s:.0f} s")


def ask(made, within_s):
    """An empty line to a process, and what it answers."""
    with suppress(BrokenPipeError):
        os.write(made.stdin.fileno(), b"\n")
    return heard(made, within_s)


class Run:
    """A training that goes on, and all there is to stop it and look at it."""

    def __init__(self, stage, page, made, stopper):
        self.stage, self.page, self.made, self.stopper = stage, page, made, stopper

    def wait(self, done, within_s, what):
        until = time.monotonic() + within_s
        while not done():
            if self.made.poll() is not None:
                raise PhaseFailed(f"the training ended: {why(self.made)}")
            if time.monotonic() > until:
                raise PhaseFailed(f"{what} did not happen within {within_s:.0f} s")
            time.sleep(0.0005)

    @property
    def quiet_ns(self):
        """So long without a beat: nothing is left to do."""
        return max(5_000_000, 4 * self.page["unit_ns"])

    def calibrated(self):
        """A fresh sample of both clocks; waits until the device has done what it was given."""
        page = self.page
        wanted = page["calibrate"] + 1
        page["calibrate"] = wanted
        self.wait(lambda: page["calibrated"] == wanted, 10, "a calibration")
        return Sample(page["device_ns"], page["host_ns"], page["half_ns"])

    def go_on(self):
        """After a stop: until it works again."""
        before = self.page["end"]
        self.wait(lambda: self.page["end"] > before, 10, "going on")

    def trials(self, window, most, until):
        """(trials, correlation) at random instants, with so many units in flight at most."""
        self.page["window"] = window
        samples, found = [self.calibrated()], []
        gap_s = (0.02 if self.stage.is_gpu else 0.004) * (1 if window else 3)
        while len(found) < most and time.monotonic() < until:
            self.stage.rest(gap_s, 3 * gap_s)
            found.append(stopped_once(self.stopper, self.page, self.quiet_ns))
            self.go_on()
            if len(found) % CALIBRATE_EVERY == 0:
                samples.append(self.calibrated())
        samples.append(self.calibrated())
        return found, Correlation(samples)

    def rate(self, window, seconds):
        """Units a second that come to their end."""
        self.page["window"] = window
        time.sleep(seconds / 4)
        began, before = time.monotonic_ns(), self.page["end"]
        time.sleep(seconds)
        return (self.page["end"] - before) / ((time.monotonic_ns() - began) / 1e9)


@contextmanager
def running(stage, steps=0):
    """A training in its group, ready."""
    path = f"{stage.directory}/page-{time.monotonic_ns()}"
    page = Page(path, create=True)
    try:
        beside = stage.device.prepare(path)
        if beside:
            with process(stage, beside[0], *beside[1:]), _trained(stage, page, steps) as run:
                yield run
        else:
            with _trained(stage, page, steps) as run:
                yield run
    finally:
        page.close()


@contextmanager
def _trained(stage, page, steps):
    with process(stage, "train", page.path, steps, stage.group) as made:
        stopper = Stopper(stage.group, made.pid)
        run = Run(stage, page, made, stopper)
        try:
            run.wait(lambda: page["ready"], stage.start_s, "the start of the training")
            yield run
        finally:
            stopper.close()


def finished(run, within_s):
    """The result of a training of so many steps, once it has come to its end."""
    try:
        run.made.wait(max(1.0, within_s))
    except subprocess.TimeoutExpired:
        raise PhaseFailed("the training did not come to its end in time") from None
    if run.made.returncode:
        raise PhaseFailed(f"the training failed: {why(run.made)}")
    return json.loads(Path(f"{run.page.path}.result").read_text())
