"""Bills and budgets as the API shows them: lines kept, months before them, and what runs now."""

import re
from collections.abc import Iterator
from typing import get_args

from msgspec import Struct

from hyperion.control import accounts
from hyperion.control import bill_records as b
from hyperion.control.bills import Amounts, added, amounts, by_month, of_month
from hyperion.control.budgets import period
from hyperion.control.federation_state import FederationState
from hyperion.model.bounds import MAX_USD
from hyperion.placement.dates import month_begins_ms
from hyperion.wire.money import BudgetRequest, BudgetView, CostRow, CostView

ROLLED_UP = "(rolled up)"
"""The name of the row of jobs whose lines are parts of months by now."""
MAX_HOMES = 10


class Sum(Struct):
    """One row as it comes together."""

    amounts: Amounts = Amounts()
    lines: int = 0
    running: int = 0

    def add(self, part: Amounts, lines: int, running: bool) -> None:
        self.amounts = self.amounts.plus(part)
        self.lines += lines
        self.running += running


class Part(Struct):
    """Of a line or month, what falls into the span asked for."""

    name: str
    amounts: Amounts
    lines: int
    running: bool
    home: str = ""


class Picture(Struct, frozen=True):
    """What a bill is made of, as of a moment. Nothing in it changes, so any thread may read it."""

    lines: tuple[b.BillLine, ...]
    running: dict[tuple[str, int], b.BillLine]
    """Those of ``lines`` that run, with what they have cost so far."""
    months: tuple[b.Month, ...]
    budgets: tuple[BudgetView, ...]
    now_ms: int


def picture(state: FederationState, now_ms: int) -> Picture:
    running: dict[tuple[str, int], b.BillLine] = {}
    for known in state.placed():
        line = state.bills.newest(known.job.id, known.status.cluster)
        began_ms = known.status.started_at_ms
        if line is not None and began_ms:
            ran = accounts.ran(known.status, now_ms)
            running[line.job, line.placed] = added(line, ran, began_ms, now_ms)
    return Picture(
        tuple(state.bills.lines.values()),
        running,
        tuple(state.bills.months.values()),
        tuple(budget_views(state, now_ms)),
        now_ms,
    )


def cost_view(seen: Picture, by: str, since_ms: int, until_ms: int, limit: int) -> CostView:
    """The whole bill of a span, by user, queue, job, cluster or month. Takes a second or two where
    there are 100,000 lines, so a loop should let a thread do it."""
    until_ms = until_ms or seen.now_ms + 1
    sums: dict[str, Sum] = {}
    total, homes = Sum(), set[str]()
    for part in _parts(seen, by, since_ms, until_ms):
        sums.setdefault(part.name, Sum()).add(part.amounts, part.lines, part.running)
        if by != "month":
            total.add(part.amounts, part.lines, part.running)
        if part.home:
            homes.add(part.home)
    if by == "month":  # a line may be in several months, and is one line all the same
        for part in _parts(seen, "user", since_ms, until_ms):
            total.add(part.amounts, part.lines, part.running)
    rows = [_row(name, found) for name, found in sums.items()]
    rows.sort(key=lambda row: row.name if by == "month" else (-row.usd, row.name))
    return CostView(
        by=by,
        since_ms=since_ms,
        until_ms=until_ms,
        rows=tuple(rows[:limit]),
        left_out=max(0, len(rows) - limit),
        total=_row("total", total),
        homes=tuple(sorted(homes)[:MAX_HOMES]),
        budgets=tuple(view for view in seen.budgets if view.over),
    )


def _parts(seen: Picture, by: str, since_ms: int, until_ms: int) -> Iterator[Part]:
    for kept in seen.lines:
        line = seen.running.get((kept.job, kept.placed), kept)
        running = line is not kept
        begins_ms = min(x for x in (line.placed_at_ms, line.started_at_ms, seen.now_ms) if x)
        ends_ms = max(line.ended_at_ms, line.placed_at_ms)
        if begins_ms >= until_ms or ends_ms < since_ms:
            continue
        if by != "month":
            part = amounts(line, since_ms, until_ms)
            yield Part(getattr(line, by), part, 1, running, line.home)
            continue
        for month, _ in by_month(line, begins_ms, ends_ms):
            first_ms = max(since_ms, month_begins_ms(month))
            last_ms = min(until_ms, month_begins_ms(month, 1))
            if first_ms < last_ms:
                yield Part(month, amounts(line, first_ms, last_ms), 1, running, line.home)
    for sums in seen.months:
        # Of a month that is left of the lines there is only the whole.
        if since_ms <= month_begins_ms(sums.month) < until_ms:
            name = ROLLED_UP if by == "job" else getattr(sums, by)
            yield Part(name, of_month(sums), sums.lines, running=False)


def _row(name: str, found: Sum) -> CostRow:
    a = found.amounts
    return CostRow(
        name=name or "-",
        lines=found.lines,
        running=found.running,
        hours=a.hours,
        usd=a.paid_usd,
        egress_usd=a.egress_usd,
        kwh=a.kwh,
        gco2e=a.gco2e,
        home_usd=a.home_usd,
        unknown_usd=a.unknown_usd,
        saved_usd=a.home_usd - (a.paid_usd - a.unknown_usd),
    )


def budget_views(state: FederationState, now_ms: int) -> list[BudgetView]:
    """Every budget with what is spent of it, by tenant."""
    kept = state.budgets
    spent = kept.spent(state.placed(), now_ms)
    return [
        BudgetView(
            tenant=tenant,
            usd=entry.budget.usd,
            per=entry.budget.per,
            then=entry.budget.then,
            period=period(entry.budget.per, now_ms)[0],
            spent_usd=spent[tenant],
            over=kept.over(tenant, now_ms) is not None,
            held=len(kept.held.get(tenant, ())),
        )
        for tenant, entry in sorted(kept.entries.items())
    ]


def budget_of(asked: BudgetRequest) -> b.Budget:
    """The budget that is asked for. ValueError says what is wrong with it."""
    if not re.fullmatch(r"(user|queue):[A-Za-z0-9._@-]{1,64}", asked.tenant):
        raise ValueError(f"tenant is {asked.tenant[:80]!r}: write user:NAME or queue:NAME")
    if not 0 <= asked.usd <= MAX_USD:
        raise ValueError(f"usd is {asked.usd}: write an amount from 0 to {MAX_USD:g}")
    for per in get_args(b.Per):
        for then in get_args(b.Then):
            if (per, then) == (asked.per, asked.then):
                return b.Budget(tenant=asked.tenant, usd=asked.usd, per=per, then=then)
    raise ValueError(
        f"per is {asked.per!r} and then is {asked.then!r}: per is day or month, then is warn,"
        " hold or pause"
    )
