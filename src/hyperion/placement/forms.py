"""Demands within a round: the cost of every row for each, kept up to date as rows are used."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.placement import costs, kernels
from hyperion.placement.costs import Pricing
from hyperion.placement.demand import Demand
from hyperion.placement.kernels import BLOCK, FIXED, PART, WHOLE, Seating
from hyperion.placement.ranking import Column, Guarded
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.trial import Trial
from hyperion.placement.wishes import Withheld

Uneven = Callable[[Column, float], Column | None]
"""What the job's spread adds to costs."""
_NOTHING: Column = np.zeros(0)
_NO_ROWS: NDArray[np.int64] = np.zeros((0, 0), np.int64)


class Block(NamedTuple):
    """Seats of one demand, in the order of ranks."""

    form: "Form"
    rows: list[int]
    devices: NDArray[np.int32]
    """A line a seat: its GPUs."""


Taken = list[Block]


class Form:
    """One demand in one round."""

    __slots__ = ("closed", "demand", "era", "out", "pricing", "seating", "seen", "width")

    def __init__(
        self, demand: Demand, pricing: Pricing, seating: Seating, closed: NDArray[np.bool_] | None
    ) -> None:
        self.demand = demand
        self.pricing = pricing
        self.seating = seating
        self.closed = closed
        """By row: a window keeps it out."""
        self.era = -1
        self.seen = 0
        """How much of the round's log of changed rows is in the costs."""
        need = seating.need[0]
        self.width = int(need[WHOLE]) or int(need[PART] > 0)
        """How many GPUs a seat names."""
        self.out = np.zeros((1, 1 + self.width), np.int32)

    @property
    def size(self) -> tuple[int, ...]:
        """For roles: the largest is hardest to seat."""
        need = self.seating.need[0].tolist()
        return (need[WHOLE], *need)


class Forms:
    """What one round seats; all that it writes to is its trial."""

    def __init__(self, snapshot: Snapshot, policy: Guarded) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.trial = Trial.borrow(snapshot)
        self._kernels = kernels.active()
        self._capacity = _capacity(snapshot)
        self._position = self.trial.position
        self._log: NDArray[np.int32] = np.zeros(64, np.int32)
        """Rows in the order in which the round changed them; the first ``_length`` count."""
        self._length = 0
        self._unheld: Taken = []
        self._scratch: tuple[Column, Column] | None = None
        self._lent: list[tuple[Column, Column]] = []

    def close(self) -> None:
        self.trial.spare += self._lent
        self.trial.used.update(self._log[: self._length].tolist())
        self.trial.give_back(self.snapshot)

    # -- demands --------------------------------------------------------------------------------

    def make(
        self,
        job: Job,
        demand: Demand,
        closed: NDArray[np.bool_] | None,
        withheld: Mapping[int, Withheld] | None,
    ) -> Form:
        snapshot, trial = self.snapshot, self.trial
        gate = self._gate(demand)
        if closed is not None:
            gate = gate & ~closed
        pricing = costs.pricing(self.policy, job, demand)
        extra = _NOTHING
        if len(demand.unmet):
            extra = demand.unmet * pricing.unit(self.policy, job)
        cost, lows = self._columns()
        seating = Seating(
            need=demand.need,
            amounts=trial.amounts,
            custom=trial.custom,
            kept=_kept(snapshot, withheld),
            devices=trial.devices,
            fullness=trial.fullness,
            group=snapshot.group,
            gate=gate,
            capacity=self._capacity,
            price=pricing.price,
            weights=pricing.weights,
            extra=extra,
            cost=cost,
            lows=lows,
        )
        return Form(demand, pricing, seating, closed)

    def _gate(self, demand: Demand) -> NDArray[np.bool_]:
        """The rows that an empty node would do in and that may be used. Not to be written to."""
        snapshot = self.snapshot
        gate: NDArray[np.bool_]
        opened, gate = demand.derived.get("gate", (-1, demand.open))
        if opened != snapshot.openings:
            gate = demand.open & (snapshot.shut[: snapshot.rows] == 0)
            demand.derived["gate"] = snapshot.openings, gate
        return gate

    def _columns(self) -> tuple[Column, Column]:
        """Costs and their lows to write in; large arrays are dear to make anew."""
        n = self.snapshot.rows
        pool = self.trial.spare
        made = pool.pop() if pool else (np.empty(n), np.empty(-(-n // BLOCK)))
        self._lent.append(made)
        return made

    def unit(self, job: Job, form: Form) -> float:
        return form.pricing.unit(self.policy, job)

    def by_cost(self, job: Job, forms: list[Form]) -> list[int]:
        """The alternatives, the one with the cheapest free row first; hopeless ones left out."""
        if not self.snapshot.rows:
            return []
        if len(forms) == 1:
            return [0]
        best = []
        for form in forms:
            self._catch_up(job, form)
            best.append(float(form.seating.cost.min()))
        return sorted((i for i, c in enumerate(best) if c < np.inf), key=lambda i: best[i])

    # -- seats ----------------------------------------------------------------------------------

    def seat(self, job: Job, form: Form, least: int, most: int) -> Taken:
        """Up to so many seats, each the cheapest then; none if fewer than ``least`` fit."""
        s = form.seating
        if least > 1 or most > 1:
            room = self._kernels.slots(s, most, np.empty(len(s.gate), np.int64))
            if room < least:
                return []
            most = min(most, room)
        if not form.pricing.is_linear:
            return self._seat_by_policy(job, form, s, most, known=True)
        if form.era < 0:
            self._catch_up(job, form)
        taken = self._seat_by_kernel(form, s, self._log[form.seen : self._length], most)
        form.seen = self._length
        return taken

    def seat_where(
        self,
        job: Job,
        form: Form,
        least: int,
        most: int,
        allowed: NDArray[np.bool_] | None,
        extra: Column | None,
        uneven: Uneven | None,
    ) -> Taken:
        """The same in some rows only, at costs that hold for this once."""
        s = self._once(form, allowed, extra)
        if least > 1:
            by_row = np.empty(len(s.gate), np.int64)
            if self._kernels.slots(s, most, by_row) < least:
                return []
        if form.pricing.is_linear:
            if most == 1 and uneven is None:
                return self._placed(form, self._kernels.place(s, form.out))
            self._kernels.score(s)
        else:
            self._ask(job, form, s, slice(0, len(s.gate)))
        if uneven is not None:
            more = uneven(s.cost, self.unit(job, form))
            if more is not None:
                s.cost[:] += more
                _find_lows(s)
        if form.pricing.is_linear:
            return self._seat_by_kernel(form, s, self._log[:0], most)
        return self._seat_by_policy(job, form, s, most, known=False)

    def slots(self, form: Form, most: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """By row, for how many replicas there is room."""
        s = form.seating if allowed is None else self._once(form, allowed, None)
        by_row = np.empty(len(s.gate), np.int64)
        self._kernels.slots(s, most, by_row)
        return by_row

    def slots_by_part(
        self,
        form: Form,
        most: int,
        allowed: NDArray[np.bool_] | None,
        parts: NDArray[np.int32],
        count: int,
    ) -> NDArray[np.int64]:
        """The same by part of the topology, given the part of each row."""
        sums = np.empty(count, np.int64)
        self._kernels.by_part(self.slots(form, most, allowed), parts, sums)
        return sums

    def give(self, taken: Taken) -> None:
        """Undo seats."""
        for block in taken:
            for row, devices in zip(block.rows, block.devices.tolist(), strict=True):
                kernels.give(block.form.seating, row, devices)
            self._note(block.rows)

    def _once(self, form: Form, allowed: NDArray[np.bool_] | None, extra: Column | None) -> Seating:
        s = form.seating
        if self._scratch is None:
            self._scratch = self._columns()
        gate = s.gate if allowed is None else s.gate & allowed
        if extra is None:
            extra = s.extra
        elif len(s.extra):
            extra = extra + s.extra
        cost, lows = self._scratch
        return s._replace(gate=gate, extra=extra, cost=cost, lows=lows)

    def _seat_by_kernel(
        self, form: Form, s: Seating, changed: NDArray[np.int32], most: int
    ) -> Taken:
        if most == 1:
            seated = self._kernels.seat(s, changed, 1, form.out)
            return self._placed(form, int(form.out[0, 0]) if seated else -1)
        out = np.empty((most, 1 + form.width), np.int32)
        count = self._kernels.seat(s, changed, most, out)
        rows = out[:count, 0].tolist()
        self._note(rows)
        return [Block(form, rows, out[:count, 1:])] if rows else []

    def _placed(self, form: Form, row: int) -> Taken:
        """The one seat that a kernel has taken and written to the form's ``out``."""
        if row < 0:
            return []
        self._note_one(row)
        return [Block(form, [row], form.out[:, 1:].copy())]

    def _seat_by_policy(self, job: Job, form: Form, s: Seating, most: int, known: bool) -> Taken:
        """Where the policy itself must be asked about each row that changes."""
        rows: list[int] = []
        devices: list[list[int]] = []
        for _ in range(most):
            if known:
                self._catch_up(job, form)
            row = int(s.cost.argmin()) if len(s.cost) else -1
            if row < 0 or s.cost[row] == np.inf:
                break
            devices.append(kernels.take(s, row))
            rows.append(row)
            self._note_one(row)
            if not known and most > 1:
                self._ask(job, form, s, slice(row, row + 1))
        if not rows:
            return []
        return [Block(form, rows, np.array(devices, np.int32).reshape(len(rows), form.width))]

    def _catch_up(self, job: Job, form: Form) -> None:
        """Bring the costs up to date with the rows changed since, for this demand or another."""
        s = form.seating
        if form.pricing.is_linear:
            if form.era < 0:
                form.era = 0
                self._kernels.score(s)
            elif form.seen < self._length:
                self._kernels.seat(s, self._log[form.seen : self._length], 0, form.out)
            form.seen = self._length
            return
        if form.era == self.policy.era and form.seen < self._length:
            changed = np.unique(self._log[form.seen : self._length])
            self._ask(job, form, s, changed)
        while form.era != self.policy.era:  # new, or the policy was replaced: once a round at most
            form.era = self.policy.era
            self._ask(job, form, s, slice(0, len(s.gate)))
        form.seen = self._length

    def _ask(self, job: Job, form: Form, s: Seating, at: slice | NDArray[np.int32]) -> None:
        capacities = [group.capacity for group in self.snapshot.groups]
        costs.ask(self.policy, job, form.demand, s, at, capacities)

    def _note_one(self, row: int) -> None:
        if self._length == len(self._log):
            self._log = np.concatenate([self._log, np.zeros_like(self._log)])
        self._log[self._length] = row
        self._length += 1

    def _note(self, rows: list[int]) -> None:
        end = self._length + len(rows)
        if end > len(self._log):
            more = np.zeros(max(end, len(self._log)), np.int32)
            self._log = np.concatenate([self._log, more])
        self._log[self._length : end] = rows
        self._length = end

    # -- what the caller does meanwhile -----------------------------------------------------------

    def changed_outside(self) -> list[int]:
        """Rows of the snapshot that have changed since this was asked last."""
        snapshot = self.snapshot
        begin = self._position - snapshot.changed_from
        if begin == len(snapshot.changed):
            return _NONE
        rows = snapshot.changed[begin:] if begin >= 0 else list(range(snapshot.rows))
        self._position = snapshot.changed_from + len(snapshot.changed)
        return rows

    def adopt(self, rows: list[int]) -> None:
        """Take over what the snapshot has in them, less what is planned there and not held."""
        at = set(rows)
        self.trial.copy_rows(self.snapshot, at)
        for block in self._unheld:
            for row, devices in zip(block.rows, block.devices.tolist(), strict=True):
                if row in at:
                    kernels.take(block.form.seating, row, devices)
        self._note(sorted(at))

    def remember(self, taken: Taken) -> None:
        """These seats are planned and the caller does not hold them."""
        self._unheld += taken


_NONE: list[int] = []


def _find_lows(s: Seating) -> None:
    begins = np.arange(0, len(s.cost), BLOCK)
    s.lows[:] = np.minimum.reduceat(s.cost, begins) if len(begins) else _NOTHING


def _capacity(snapshot: Snapshot) -> NDArray[np.int64]:
    found: NDArray[np.int64] | None = snapshot.memo.get("capacity")
    if found is None:
        capacities = [g.capacity for g in snapshot.groups]
        numbers = [(c.gpus, c.cpus_milli, c.memory_mib) for c in capacities]
        found = snapshot.memo["capacity"] = np.array(numbers, np.int64).reshape(-1, 3)
    return found


def _kept(snapshot: Snapshot, withheld: Mapping[int, Withheld] | None) -> NDArray[np.int64]:
    if not withheld:
        return _NO_ROWS
    kept = np.zeros((FIXED + len(snapshot.custom_row), snapshot.rows), np.int64)
    for row, w in withheld.items():
        kept[: WHOLE + 1, row] = w.cpus_milli, w.memory_mib, w.disk_mib, w.gpus
        for name, amount in w.custom:
            if name in snapshot.custom_row:
                kept[FIXED + snapshot.custom_row[name], row] = amount
    return kept
