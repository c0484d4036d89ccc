"""From the device's clock to ``CLOCK_MONOTONIC``, with how far off that may be."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``host_ns`` of the host, give or take ``half_ns``, the device had ``device_ns``."""

    device_ns: int
    host_ns: int
    half_ns: int


def tightest(brackets):
    """Of (host before, device, host after) the one that says most: the shortest round trip."""
    before, device, after = min(brackets, key=lambda b: b[2] - b[0])
    return Sample(device, (before + after) // 2, (after - before + 1) // 2)


def resolution(stamps):
    """The least step between two different stamps; 0 where all are the same."""
    return min((b - a for a, b in pairwise(stamps) if b > a), default=0)


class Correlation:
    """Between two samples a straight line: clocks drift, by some microseconds a second.

    Before the first and after the last one the nearest line goes on.
    """

    def __init__(self, samples):
        if not samples:
            raise ValueError("no sample of both clocks")
        latest = {s.device_ns: s for s in samples}
        self._samples = [latest[at] for at in sorted(latest)]
        self._at = sorted(latest)

    @property
    def half_ns(self):
        """How far off a time is at most, while the clocks drift evenly between samples."""
        return max(s.half_ns for s in self._samples)

    @property
    def drift_ppm(self):
        first, last = self._samples[0], self._samples[-1]
        device = last.device_ns - first.device_ns
        return 1e6 * (last.host_ns - first.host_ns - device) / device if device else 0.0

    def host_ns(self, stamp):
        if len(self._samples) == 1:
            return stamp - self._samples[0].device_ns + self._samples[0].host_ns
        place = min(max(bisect_right(self._at, stamp), 1), len(self._at) - 1)
        a, b = self._samples[place - 1], self._samples[place]
        passed = stamp - a.device_ns
        return a.host_ns + passed * (b.host_ns - a.host_ns) // (b.device_ns - a.device_ns)


def calibrate(page, tick, now_ns, rounds=50, limit_ns=2_000_000_000):
    """Ask the device for its time again and again: the best sample, and the clock's resolution.

    ``tick(n)`` lets the device write its time and then ``n`` into the page.
    """
    brackets, number = [], page["tick"]
    until = now_ns() + limit_ns
    for _ in range(rounds):
        number += 1
        before = now_ns()
        tick(number)
        while page["tick"] != number:
            if now_ns() > until:
                raise TimeoutError("the device does not answer with its time")
        brackets.append((before, page["tick_stamp"], now_ns()))
    return tightest(brackets), resolution([stamp for _, stamp, _ in brackets])
