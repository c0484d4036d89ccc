"""The REST routes about money: bills and budgets."""

from typing import Annotated, Literal

from litestar import delete, get, put
from litestar.params import FromQuery, JSONBody, PathParameter, QueryParameter

from hyperion.daemon.gateway_problems import Refusal, declared
from hyperion.daemon.gateway_routes import Req, application_of
from hyperion.daemon.money import budget_of
from hyperion.wire.money import BudgetRequest, BudgetView, CostView

Moment = Annotated[int, QueryParameter(ge=0, le=1 << 53)]
Tenant = Annotated[
    str, PathParameter(max_length=300, description="``user:NAME`` or ``queue:NAME``.")
]


@get("/cost", responses=declared(), summary="The bill of a span; what runs now is in it")
async def cost(
    request: Req,
    by: FromQuery[Literal["user", "queue", "job", "cluster", "month"]] = "user",
    since_ms: Moment = 0,
    until_ms: Moment = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=10_000)] = 1000,
) -> CostView:
    return await application_of(request).cost(by, since_ms, until_ms, limit)


@get("/budgets", responses=declared(), summary="Budgets with what is spent of them")
async def budgets(request: Req) -> list[BudgetView]:
    return await application_of(request).budgets()


@put(
    "/budgets",
    status_code=200,
    responses=declared(409, 413, 422),
    summary="Set what a user or a queue may spend in a day or month, and what follows",
)
async def apply_budget(request: Req, data: JSONBody[BudgetRequest]) -> list[BudgetView]:
    try:
        budget_of(data)
    except ValueError as error:
        raise Refusal(422, "this is no budget", str(error)) from None
    return await application_of(request).apply_budget(data)


@delete(
    "/budgets/{tenant:str}",
    status_code=200,
    responses=declared(404),
    summary="Drop a budget; the budgets that are left",
)
async def drop_budget(request: Req, tenant: Tenant) -> list[BudgetView]:
    return await application_of(request).drop_budget(tenant)


MONEY_ROUTES = [cost, budgets, apply_budget, drop_budget]
