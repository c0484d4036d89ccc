"""Bills: a line for each placement of a job, booked at the instants at which its status is. Pure.

The lines outlive the jobs. In number they are bounded: old ones become parts of months.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import accounts
from hyperion.control import bill_records as b
from hyperion.control import records as r
from hyperion.control.machine import key
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.placement.dates import month_begins_ms, month_of
from hyperion.placement.objective import MS_PER_HOUR

LINES_A_JOB = 64
"""A job that is placed more often goes on in the line of its cluster, where there is one."""
LINES_KEPT = 100_000
ROLLED_AT_ONCE = 1000
MONTHS_KEPT = 50_000
"""Sums by month, user, queue and cluster; what comes beyond goes into its month's rest."""
OTHERS = "(others)"
LineId = tuple[JobId, int]


class Opening(NamedTuple):
    """What a new line needs that the job's status does not tell."""

    kilowatts: float
    home: str
    home_usd_per_hour: float | None
    home_egress_usd: float


class Amounts(NamedTuple):
    """Sums of lines, or of parts of them."""

    hours: float = 0.0
    usd: float = 0.0
    egress_usd: float = 0.0
    kwh: float = 0.0
    gco2e: float = 0.0
    home_usd: float = 0.0
    """Egress included."""
    unknown_usd: float = 0.0
    """Paid, egress included, where nobody knows what home would have cost."""

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts._make(x + y for x, y in zip(self, other, strict=True))

    @property
    def paid_usd(self) -> float:
        return self.usd + self.egress_usd


def amounts(line: b.BillLine, since_ms: int = 0, until_ms: int | None = None) -> Amounts:
    """What of a line falls into a span: egress when it was placed, the rest evenly from its first
    attempt's start to its newest one's end."""
    until_ms = _FOREVER_MS if until_ms is None else until_ms
    ran_ms = line.ended_at_ms - line.started_at_ms
    within_ms = min(line.ended_at_ms, until_ms) - max(line.started_at_ms, since_ms)
    if ran_ms <= 0:
        part = 1.0 if since_ms <= line.ended_at_ms < until_ms else 0.0
    else:
        part = min(1.0, max(0.0, within_ms / ran_ms))
    moved = 1.0 if since_ms <= line.placed_at_ms < until_ms else 0.0
    usd, egress_usd = line.usd * part, line.egress_usd * moved
    known = line.home_usd_per_hour is not None
    home = (line.home_usd_per_hour or 0.0) * line.hours * part + line.home_egress_usd * moved
    return Amounts(
        hours=line.hours * part,
        usd=usd,
        egress_usd=egress_usd,
        kwh=line.kwh * part,
        gco2e=line.gco2e * part + line.move_gco2e * moved,
        home_usd=home if known else 0.0,
        unknown_usd=0.0 if known else usd + egress_usd,
    )


def added(line: b.BillLine, ran: accounts.Ran, started_at_ms: int, now_ms: int) -> b.BillLine:
    """The line with one attempt more, be it over or not."""
    return replace(
        line,
        started_at_ms=line.started_at_ms or started_at_ms,
        ended_at_ms=now_ms,
        hours=line.hours + ran.hours,
        usd=line.usd + ran.usd,
        gco2e=line.gco2e + ran.gco2e,
        kwh=line.kwh + line.kilowatts * ran.hours,
    )


def booking(
    decisions: Iterator[Any],
    jobs: dict[JobId, r.FederatedJob],
    bills: "Bills",
    opening: Callable[[Job, r.FederatedStatus], Opening],
    now_ms: int,
) -> Iterator[Any]:
    """The decisions, each one that books something in a job's status followed by its line."""
    for decision in decisions:
        if type(decision) is r.FederatedJobAccepted:  # an id may come again after its job
            yield from bills.rolled(bills.of(decision.job.id), now_ms)
        if type(decision) is not r.FederatedJobMoved:
            yield decision
            continue
        known, after = jobs[decision.job], decision.status
        yield decision
        line = _booked(bills, known, after, opening, now_ms)
        if line is not None:
            yield b.BillKept(line)


def _booked(
    bills: "Bills",
    known: r.FederatedJob,
    after: r.FederatedStatus,
    opening: Callable[[Job, r.FederatedStatus], Opening],
    now_ms: int,
) -> b.BillLine | None:
    before = known.status
    if after.placed != before.placed:
        found = bills.room_in(known.job.id, after.cluster)
        if found is None:
            return _opened(known, after, opening(known.job, after))
        return replace(
            found,
            egress_usd=found.egress_usd + after.spent_usd - before.spent_usd,
            move_gco2e=found.move_gco2e + after.spent_gco2e - before.spent_gco2e,
        )
    over = accounts.Ran(
        after.spent_hours - before.spent_hours,
        after.spent_usd - before.spent_usd,
        after.spent_gco2e - before.spent_gco2e,
    )
    if over == accounts.NOTHING:
        return None
    line = bills.newest(known.job.id, before.cluster)
    if line is None:  # it was placed by a release that kept no bills
        line = replace(
            _opened(known, before, opening(known.job, before)), egress_usd=0.0, move_gco2e=0.0
        )
    started_at_ms = before.started_at_ms or now_ms - int(over.hours * MS_PER_HOUR)
    return added(line, over, started_at_ms, now_ms)


def _opened(known: r.FederatedJob, status: r.FederatedStatus, opening: Opening) -> b.BillLine:
    job = known.job
    return b.BillLine(
        job=job.id,
        placed=status.placed,
        name=job.name,
        user=job.user,
        queue=job.queue or DEFAULT_QUEUE,
        cluster=status.cluster,
        region=status.region,
        place=status.place,
        placed_at_ms=status.placed_at_ms,
        egress_usd=status.price.egress_usd if status.price else 0.0,
        move_gco2e=status.price.move_gco2e if status.price else 0.0,
        kilowatts=opening.kilowatts,
        home=opening.home,
        home_usd_per_hour=opening.home_usd_per_hour,
        home_egress_usd=opening.home_egress_usd,
    )


class Bills:
    """The lines and months that are kept: a fold of ``BillKept`` and ``BillsRolled``."""

    def __init__(self) -> None:
        self.lines: dict[LineId, b.BillLine] = {}
        self.months: dict[str, b.Month] = {}
        """By their keys, such as ``2026-11|ann|default|lab``."""
        self.of_job: dict[JobId, list[int]] = {}
        """The numbers of each job's lines, the newest last."""
        self._dirty: set[str] = set()

    # -- the fold -------------------------------------------------------------------------------

    def keep(self, line: b.BillLine) -> None:
        id = (line.job, line.placed)
        if id in self.lines:  # the newest changed stands last
            del self.lines[id]
        else:
            self.of_job.setdefault(line.job, []).append(line.placed)
        self.lines[id] = line
        self._dirty.add(key("bill", _name(id)))

    def roll(self, record: b.BillsRolled) -> None:
        for id in record.lines:
            del self.lines[id]
            numbers = self.of_job[id[0]]
            numbers.remove(id[1])
            if not numbers:
                del self.of_job[id[0]]
            self._dirty.add(key("bill", _name(id)))
        for month in record.months:
            self.months[_key(month)] = month
            self._dirty.add(key("month", _key(month)))

    def restore(self, kind: str, value: bytes) -> None:
        if kind == "month":
            month = _MONTH.decode(value)
            self.months[_key(month)] = month
            return
        line = _LINE.decode(value)
        self.lines[line.job, line.placed] = line
        self.of_job.setdefault(line.job, []).append(line.placed)

    def settle(self) -> None:
        """After the last ``restore``: the order in which they were changed."""
        by_age = sorted(self.lines.items(), key=lambda item: _age(item[1]))
        self.lines = dict(by_age)
        for numbers in self.of_job.values():
            numbers.sort()

    def take_dirty(self) -> set[str]:
        """The keys of what has changed since the last call."""
        taken, self._dirty = self._dirty, set()
        return taken

    def entity(self, kind: str, name: str) -> Struct | None:
        if kind == "month":
            return self.months.get(name)
        job, _, placed = name.rpartition(".")
        return self.lines.get((JobId(job), int(placed)))

    # -- questions ------------------------------------------------------------------------------

    def newest(self, job: JobId, cluster: ClusterId) -> b.BillLine | None:
        """The newest line of the job in that cluster."""
        lines = (self.lines[job, placed] for placed in reversed(self.of_job.get(job, [])))
        return next((line for line in lines if line.cluster == cluster), None)

    def room_in(self, job: JobId, cluster: ClusterId) -> b.BillLine | None:
        """The line in which one more placement there goes on; None: it gets its own."""
        if len(self.of_job.get(job, [])) < LINES_A_JOB:
            return None
        return self.newest(job, cluster)

    def of(self, job: JobId) -> list[b.BillLine]:
        return [self.lines[job, placed] for placed in self.of_job.get(job, ())]

    def to_roll(self, jobs: Container[JobId], kept: int, now_ms: int) -> Iterator[b.BillsRolled]:
        """The oldest lines beyond those that are kept, of jobs that nobody asks for any more."""
        excess = min(len(self.lines) - kept, ROLLED_AT_ONCE)
        if excess <= 0:
            return
        oldest = islice(self.lines.values(), 20 * ROLLED_AT_ONCE)
        lines = list(islice((line for line in oldest if line.job not in jobs), excess))
        yield from self.rolled(lines, now_ms)

    def rolled(self, lines: list[b.BillLine], now_ms: int) -> Iterator[b.BillsRolled]:
        """These lines become parts of their months."""
        if lines:
            yield b.BillsRolled(
                tuple((line.job, line.placed) for line in lines), self._sums(lines, now_ms)
            )

    def _sums(self, lines: Iterable[b.BillLine], now_ms: int) -> tuple[b.Month, ...]:
        sums: dict[str, b.Month] = {}
        for line in lines:
            first = min(x for x in (line.placed_at_ms, line.started_at_ms, now_ms) if x)
            last = max(line.ended_at_ms, line.placed_at_ms)
            for n, (month, part) in enumerate(by_month(line, first, last)):
                fresh = b.Month(month=month, user=line.user, queue=line.queue, cluster=line.cluster)
                name = _key(fresh)
                known = sums.get(name) or self.months.get(name)
                if known is None and len(self.months) + len(sums) >= MONTHS_KEPT:
                    fresh = b.Month(month=month, user=OTHERS, queue=OTHERS)
                    name = _key(fresh)
                    known = sums.get(name) or self.months.get(name)
                sums[name] = _with(known or fresh, part, n == 0)
        return tuple(sums.values())

    def check(self, jobs: dict[JobId, r.FederatedJob]) -> None:
        """The bill of a job is the sum of its lines: the law of this house's money."""
        for id, known in jobs.items():
            usd = sum(line.usd + line.egress_usd for line in self.of(id))
            spent = known.status.spent_usd
            assert abs(usd - spent) <= 1e-9 * max(1.0, spent), f"{id}: {usd} billed, {spent} spent"


def by_month(line: b.BillLine, first_ms: int, last_ms: int) -> Iterator[tuple[str, Amounts]]:
    """A line in its parts, which add up to it."""
    month = month_of(first_ms)
    while True:
        begins_ms, ends_ms = month_begins_ms(month), month_begins_ms(month, 1)
        yield month, amounts(line, begins_ms, ends_ms)
        if ends_ms > last_ms:
            return
        month = month_of(ends_ms)


def _with(month: b.Month, part: Amounts, new: bool) -> b.Month:
    return replace(
        month,
        lines=month.lines + new,
        **{name: getattr(month, name) + getattr(part, name) for name in Amounts._fields},
    )


def of_month(month: b.Month) -> Amounts:
    return Amounts._make(getattr(month, name) for name in Amounts._fields)


def _age(line: b.BillLine) -> tuple[int, str, int]:
    return max(line.ended_at_ms, line.placed_at_ms), line.job, line.placed


def _name(id: LineId) -> str:
    return f"{id[0]}.{id[1]}"


def _key(month: b.Month) -> str:
    return f"{month.month}|{month.user}|{month.queue}|{month.cluster}"


_FOREVER_MS = 1 << 62
_LINE = msgspec.json.Decoder(b.BillLine)
_MONTH = msgspec.json.Decoder(b.Month)
