"""The decisions about budgets: who waits, who is stopped for it, and who goes on again."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from hyperion.control import bill_records as b
from hyperion.control import budgets
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.federation_state import FederationState
from hyperion.control.moves import Moves
from hyperion.model.job import JobPhase

MAX_BUDGETS = 10_000
CHECK_MS = 5000
"""How often it is looked at who has spent what."""
_Decisions = Iterator[Any]


class Spending:
    def __init__(
        self,
        state: FederationState,
        end: Callable[[r.FederatedJob, JobPhase, str, int], _Decisions],
    ) -> None:
        self._state = state
        self._end = end
        """How a job is stopped wherever it is."""
        self._moves = Moves(state)
        self._counted_ms = 0

    def decide(self, event: Struct, now_ms: int) -> _Decisions:
        match event:
            case m.BudgetApplied(budget, token):
                yield from self._applied(budget, token, now_ms)
                yield from self._told(budget, now_ms)
            case m.BudgetDropAsked(tenant, token):
                yield from self._dropped(tenant, token, now_ms)
            case _:
                raise TypeError(event)
        yield from self._look(now_ms)

    def tick(self, now_ms: int) -> _Decisions:
        kept = self._state.budgets
        if (kept.entries or kept.held) and now_ms - self._counted_ms >= CHECK_MS:
            yield from self._look(now_ms)

    def hold(self, known: r.FederatedJob, now_ms: int) -> r.FederatedJobMoved | None:
        """A job that would be placed now waits instead, if a budget says so."""
        spent = self._state.budgets.holds(known.job, now_ms)
        if spent is None:
            return None
        return self._moves.moved(known, now_ms, held=spent.tenant, reason=budgets.waits_for(spent))

    def _applied(self, budget: b.Budget, token: int, now_ms: int) -> _Decisions:
        known = self._state.budgets.entries
        if budget.tenant not in known and len(known) >= MAX_BUDGETS:
            error = f"there are {MAX_BUDGETS} budgets already; drop some with hyperion budgets rm"
            yield m.Answer(token, error=error, code="exhausted")
            return
        yield b.BudgetKept(budget, now_ms)
        yield m.Answer(token)

    def _told(self, budget: b.Budget, now_ms: int) -> _Decisions:
        """Who waits for it hears how much it is now."""
        for job_id in list(self._state.budgets.held.get(budget.tenant, ())):
            known = self._state.jobs[job_id]
            yield self._moves.moved(known, now_ms, reason=budgets.waits_for(budget))

    def _dropped(self, tenant: str, token: int, now_ms: int) -> _Decisions:
        if tenant not in self._state.budgets.entries:
            error = f"no budget of {tenant}; hyperion budgets ls lists them"
            yield m.Answer(token, error=error, code="not_found")
            return
        yield b.BudgetDropped(tenant, now_ms)
        yield m.Answer(token)

    def _look(self, now_ms: int) -> _Decisions:
        """Whose budget is spent waits; whose is not any more goes on."""
        state, self._counted_ms = self._state, now_ms
        yield from budgets.reached(state.budgets, state.placed(), now_ms)
        for job_id in budgets.free_again(state.budgets, now_ms):
            known = state.jobs[job_id]
            if known.status.wanted is None:  # else once it has stopped
                yield self._moves.moved(known, now_ms, held="", reason="")
        for known, budget in budgets.to_pause(state.budgets, state.placed(), now_ms):
            yield self._moves.moved(known, now_ms, held=budget.tenant)
            reason = budgets.waits_for(budget)
            yield from self._end(state.jobs[known.job.id], JobPhase.CANCELLED, reason, now_ms)
