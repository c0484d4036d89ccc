"""The part of the federation's API that is about money: bills and budgets."""

import asyncio

from hyperion.control.federation import Federation
from hyperion.control.messages import Answer, BudgetApplied, BudgetDropAsked
from hyperion.daemon import money
from hyperion.daemon.application import Conflict, Exhausted, NotFound
from hyperion.daemon.driver import Driver
from hyperion.ports import Clock
from hyperion.wire.money import BudgetRequest, BudgetView, CostView

_ERRORS = {"not_found": NotFound, "conflict": Conflict, "exhausted": Exhausted}


class Billing:
    """What ``FederationApplication`` has of it, over the same machine."""

    _machine: Federation
    _driver: Driver
    _clock: Clock

    async def cost(self, by: str, since_ms: int, until_ms: int, limit: int) -> CostView:
        seen = money.picture(self._machine.state, self._clock.now_ms())
        return await asyncio.to_thread(money.cost_view, seen, by, since_ms, until_ms, limit)

    async def budgets(self) -> list[BudgetView]:
        return money.budget_views(self._machine.state, self._clock.now_ms())

    async def apply_budget(self, asked: BudgetRequest) -> list[BudgetView]:
        budget = money.budget_of(asked)
        raise_refusal(await self._driver.ask(lambda token: BudgetApplied(budget, token)))
        return await self.budgets()

    async def drop_budget(self, tenant: str) -> list[BudgetView]:
        raise_refusal(await self._driver.ask(lambda token: BudgetDropAsked(tenant, token)))
        return await self.budgets()


def raise_refusal(answer: Answer) -> None:
    """The machine's refusal as the error that the API knows."""
    if answer.error:
        raise _ERRORS.get(answer.code, Conflict)(answer.error)
