"""The training that is preempted: steps made of units, and how far launches run ahead of them.

A unit is a layer forwards, the loss, or a layer backwards with its update. The device object does
the arithmetic; the order, the pacing and the beats are the same on all of them.
"""

import itertools
import time

from gpu.clocks import calibrate

WARM_STEPS = 3


def units(layers):
    """(kind, layer) of one step."""
    yield from (("forward", n) for n in range(layers))
    yield ("loss", layers)
    yield from (("backward", n) for n in reversed(range(layers)))


class Window:
    """At most so many units in flight: before unit n is launched, unit n - size has ended."""

    def __init__(self, size=0):
        if size < 0:
            raise ValueError("a window of fewer than no units")
        self.size = size

    def must_end(self, number):
        """The unit that has to have ended before this one is launched; 0: none."""
        return max(0, number - self.size) if self.size else 0


def launch(launcher, page, window, number, unit):
    """One unit; numbers are written before and after, so that a freeze between them shows."""
    oldest = window.must_end(number)
    if oldest:
        launcher.wait(oldest)
    page["launching"] = number
    launcher.launch(number, *unit)
    page["launched"] = number


def warm_up(launcher, page, layers):
    """The first steps, one unit at a time; how many units that were. Writes what a unit takes."""
    number, longest = 0, 0
    for step in range(WARM_STEPS):
        for unit in units(layers):
            number += 1
            launch(launcher, page, Window(1), number, unit)
            launcher.wait(number)
            if step == WARM_STEPS - 1:
                longest = max(longest, page["end_stamp"] - page["begin_stamp"])
    page["unit_ns"] = longest
    return number


def write_calibration(launcher, page):
    launcher.wait(page["launched"])
    sample, step = calibrate(page, launcher.tick, time.monotonic_ns)
    page["device_ns"], page["host_ns"] = sample.device_ns, sample.host_ns
    page["half_ns"], page["resolution_ns"] = sample.half_ns, step


def train(launcher, page, layers, steps):
    """So many steps; 0: until somebody kills it."""
    window = Window()
    number = warm_up(launcher, page, layers)
    write_calibration(launcher, page)
    page["ready"] = 1
    for _ in range(steps) if steps else itertools.count():
        for unit in units(layers):
            wanted = page["calibrate"]
            if page["calibrated"] != wanted:
                write_calibration(launcher, page)
                page["calibrated"] = wanted
            window.size = page["window"]
            number += 1
            launch(launcher, page, window, number, unit)
