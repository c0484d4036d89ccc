"""Budgets of users and queues: what each has spent in its day or month, and what follows. Pure.

What follows from a spent budget lasts until the day or month is over, or the budget is raised or
dropped: ``hold`` lets no further job be placed, ``pause`` also stops what is placed, which waits.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from hyperion.control import accounts
from hyperion.control import bill_records as b
from hyperion.control import records as r
from hyperion.control.bills import Bills, amounts, of_month
from hyperion.control.machine import key
from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.placement.dates import month_begins_ms, month_of
from hyperion.placement.objective import dollars

DAY_MS = 86_400_000


def tenants(job: Job) -> tuple[str, str]:
    """Those whose budgets a job counts against."""
    return f"user:{job.user}", f"queue:{job.queue or DEFAULT_QUEUE}"


def period(per: b.Per, now_ms: int) -> tuple[str, int, int]:
    """(name, begin, end) of the day or month that it is, in UTC."""
    month = month_of(now_ms)
    if per == "month":
        return month, month_begins_ms(month), month_begins_ms(month, 1)
    begins_ms = now_ms // DAY_MS * DAY_MS
    day = 1 + (begins_ms - month_begins_ms(month)) // DAY_MS
    return f"{month}-{day:02}", begins_ms, begins_ms + DAY_MS


def words(budget: b.Budget) -> str:
    """``the budget of user ann ($100.00 per month)``."""
    kind, _, name = budget.tenant.partition(":")
    return f"the budget of {kind} {name} ({dollars(budget.usd, 2)} per {budget.per})"


class Budgets:
    """The budgets that are kept, and what their tenants have spent: folds of records."""

    def __init__(self, bills: Bills) -> None:
        self.entries: dict[str, b.BudgetEntry] = {}
        self.held: dict[str, dict[JobId, None]] = {}
        """By tenant, the jobs that its budget keeps waiting, or is stopping."""
        self._bills = bills
        self._booked: dict[str, tuple[str, float]] = {}
        """By tenant: (period, USD) of lines that are booked."""
        self._dirty: set[str] = set()

    # -- the fold -------------------------------------------------------------------------------

    def apply(self, record: Any) -> None:
        match record:
            case b.BudgetKept(budget):
                known = self.entries.get(budget.tenant)
                same = known is not None and known.budget.per == budget.per
                reached = known.reached if known and same and budget.usd <= known.budget.usd else ""
                self._put(b.BudgetEntry(budget=budget, reached=reached))
                if not same:
                    self._booked.pop(budget.tenant, None)
            case b.BudgetDropped(tenant):
                del self.entries[tenant]
                self._booked.pop(tenant, None)
                self._dirty.add(key("budget", tenant))
            case b.BudgetReached(tenant, reached):
                self._put(b.BudgetEntry(budget=self.entries[tenant].budget, reached=reached))
            case _:
                raise TypeError(record)

    def _put(self, entry: b.BudgetEntry) -> None:
        self.entries[entry.budget.tenant] = entry
        self._dirty.add(key("budget", entry.budget.tenant))

    def note_line(self, before: b.BillLine | None, after: b.BillLine) -> None:
        for tenant in (f"user:{after.user}", f"queue:{after.queue}"):
            known = self._booked.get(tenant)
            if known is None:
                continue
            begins_ms, ends_ms = _span(known[0])
            more = amounts(after, begins_ms, ends_ms).paid_usd
            less = amounts(before, begins_ms, ends_ms).paid_usd if before else 0.0
            self._booked[tenant] = known[0], known[1] + more - less

    def note_held(self, job: JobId, before: str, after: str) -> None:
        if before == after:
            return
        if before:
            waiting = self.held[before]
            del waiting[job]
            if not waiting:
                del self.held[before]
        if after:
            self.held.setdefault(after, {})[job] = None

    @property
    def waiting(self) -> int:
        """How many jobs are held."""
        return sum(map(len, self.held.values()))

    def restore(self, value: bytes) -> None:
        entry = _ENTRY.decode(value)
        self.entries[entry.budget.tenant] = entry

    def take_dirty(self) -> set[str]:
        taken, self._dirty = self._dirty, set()
        return taken

    # -- questions ------------------------------------------------------------------------------

    def spent(self, jobs: Iterable[r.FederatedJob], now_ms: int) -> dict[str, float]:
        """USD by tenant with a budget, in the present period: booked, and running in ``jobs``."""
        out: dict[str, float] = {}
        begins: dict[str, int] = {}
        for tenant, entry in self.entries.items():
            name, begins[tenant], ends_ms = period(entry.budget.per, now_ms)
            known = self._booked.get(tenant)
            if known is None or known[0] != name:
                known = name, self._reckoned(tenant, name, begins[tenant], ends_ms)
                self._booked[tenant] = known
            out[tenant] = known[1]
        for known_job in jobs if out else ():
            status = known_job.status
            ran_ms = now_ms - status.started_at_ms
            if not status.started_at_ms or status.price is None or ran_ms <= 0:
                continue
            usd = accounts.ran(status, now_ms).usd
            for tenant in tenants(known_job.job):
                if tenant in out:
                    within_ms = now_ms - max(begins[tenant], status.started_at_ms)
                    out[tenant] += usd * max(0.0, within_ms / ran_ms)
        return out

    def _reckoned(self, tenant: str, name: str, begins_ms: int, ends_ms: int) -> float:
        kind, _, who = tenant.partition(":")
        lines = (x for x in self._bills.lines.values() if getattr(x, kind) == who)
        usd = sum(amounts(line, begins_ms, ends_ms).paid_usd for line in lines)
        months = (x for x in self._bills.months.values() if x.month == name)
        return usd + sum(of_month(x).paid_usd for x in months if getattr(x, kind) == who)

    def over(self, tenant: str, now_ms: int) -> b.Budget | None:
        """The tenant's budget if it is spent."""
        entry = self.entries.get(tenant)
        if entry is None or entry.reached != period(entry.budget.per, now_ms)[0]:
            return None
        return entry.budget

    def holds(self, job: Job, now_ms: int) -> b.Budget | None:
        """The spent budget that keeps a job from being placed."""
        if not self.entries:
            return None
        for tenant in tenants(job):
            budget = self.over(tenant, now_ms)
            if budget is not None and budget.then != "warn":
                return budget
        return None

    def warning(self, job: Job, now_ms: int) -> str:
        """What whoever submits a job should hear of spent budgets; empty: nothing."""
        spent = [x for t in tenants(job) if (x := self.over(t, now_ms)) is not None]
        follows = {"warn": "", "hold": "; the job waits", "pause": "; the job waits"}
        return ". ".join(f"{words(x)} is spent{follows[x.then]}" for x in spent)


def waits_for(budget: b.Budget) -> str:
    """The reason of a job that is held."""
    return (
        f"waits since {words(budget)} is spent; it goes on with the next {budget.per}, or after"
        f" hyperion budgets set {budget.tenant} --usd MORE"
    )


def reached(
    budgets: Budgets, jobs: Iterable[r.FederatedJob], now_ms: int
) -> Iterator[b.BudgetReached]:
    """Those that are spent as of now and were not when it was last looked at."""
    for tenant, usd in budgets.spent(jobs, now_ms).items():
        entry = budgets.entries[tenant]
        name = period(entry.budget.per, now_ms)[0]
        if usd >= entry.budget.usd - 1e-9 and entry.reached != name:
            yield b.BudgetReached(tenant, name, usd, now_ms)


def free_again(budgets: Budgets, now_ms: int) -> Iterator[JobId]:
    """Jobs that nothing holds any more."""
    for tenant in list(budgets.held):
        budget = budgets.over(tenant, now_ms)
        if budget is None or budget.then == "warn":
            yield from list(budgets.held[tenant])


def to_pause(
    budgets: Budgets, jobs: Iterable[r.FederatedJob], now_ms: int
) -> Iterator[tuple[r.FederatedJob, b.Budget]]:
    """Placed jobs that are to be stopped and wait. A standby lends what it has and stays."""
    pausing = {
        tenant: budget
        for tenant in budgets.entries
        if (budget := budgets.over(tenant, now_ms)) is not None and budget.then == "pause"
    }
    for known in jobs if pausing else ():
        if known.status.wanted is None and known.job.standby is None:
            found = next((pausing[t] for t in tenants(known.job) if t in pausing), None)
            if found is not None:
                yield known, found


def _span(name: str) -> tuple[int, int]:
    """Begin and end of the period of this name."""
    month, day = name[:7], name[8:]
    if not day:
        return month_begins_ms(month), month_begins_ms(month, 1)
    begins_ms = month_begins_ms(month) + (int(day) - 1) * DAY_MS
    return begins_ms, begins_ms + DAY_MS


_ENTRY = msgspec.json.Decoder(b.BudgetEntry)
