"""Phases one after the other, each within its time, none harmed by the failure of another."""

from dataclasses import dataclass, field

LEAST_S = 5.0
WEIGHTS = {"truth": 8, "t0": 24, "hooks": 20, "t1": 12, "t2": 16, "urgent": 10, "exact": 10}
"""Phases in the order in which they run, and their parts of the time."""


class PhaseFailed(Exception):
    """A phase did not come to its end; the words say why. What it had by then is kept."""

    def __init__(self, why, method="", rows=()):
        super().__init__(why)
        self.method, self.rows = method, list(rows)


class PhaseRefused(PhaseFailed):
    """A phase was not tried, for a reason that is no fault."""


@dataclass(slots=True)
class Result:
    phase: str
    status: str = "done"
    """``done``, ``failed`` or ``skipped``."""
    reason: str = ""
    limit_s: float = 0.0
    took_s: float = 0.0
    method: str = ""
    rows: list = field(default_factory=list)


def limit_s(name, waiting, left_s):
    """What a phase may take: its part of what is left, among those that still wait and itself."""
    return left_s * WEIGHTS[name] / sum(WEIGHTS[n] for n in [name, *waiting])


def run_phases(names, budget_s, run_one, now_s):
    """``run_one(name, limit_s)`` gives (method, rows), or raises. What one leaves over is the
    others'."""
    ordered = [name for name in WEIGHTS if name in names]
    until, results = now_s() + budget_s, []
    for n, name in enumerate(ordered):
        began = now_s()
        result = Result(name, limit_s=round(limit_s(name, ordered[n + 1 :], until - began), 1))
        results.append(result)
        if result.limit_s < LEAST_S:
            result.status, result.reason = "skipped", "no time is left for it"
            continue
        try:
            result.method, result.rows = run_one(name, result.limit_s)
        except PhaseFailed as error:
            result.status = "skipped" if isinstance(error, PhaseRefused) else "failed"
            result.reason, result.method, result.rows = str(error), error.method, error.rows
        except Exception as error:
            result.status, result.reason = "failed", str(error) or type(error).__name__
        result.took_s = round(now_s() - began, 1)
    return results
