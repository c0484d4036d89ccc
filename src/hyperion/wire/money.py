"""What the API says of money: rows of bills, and budgets. USD, hours, kWh, g CO2e."""

from msgspec import Struct


class CostRow(Struct, frozen=True, kw_only=True):
    """What one user, queue, job, cluster or month has cost, all replicas together."""

    name: str
    lines: int
    """Placements of jobs."""
    running: int
    """Of them, how many run now; what they have cost so far is in it."""
    hours: float
    usd: float
    """Machines and egress."""
    egress_usd: float
    """Of ``usd``, for bringing the data."""
    kwh: float
    gco2e: float
    home_usd: float
    """The same hours at home on demand, egress included, of the part of which that is known."""
    unknown_usd: float
    """Of ``usd``, what was paid where nobody knows what home would have cost."""
    saved_usd: float
    """``home_usd`` less what was paid for the same; negative: home had been cheaper."""


class BudgetView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion budgets``."""

    tenant: str
    """``user:ann`` or ``queue:vision``."""
    usd: float
    per: str
    """``day`` or ``month``, in UTC."""
    then: str
    """``warn``, ``hold`` or ``pause``."""
    period: str
    """The day or month that it is."""
    spent_usd: float
    over: bool
    """It is spent, and what ``then`` says is in force."""
    held: int
    """Jobs that wait for it, or are being stopped."""


class BudgetRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user or queue may spend, and what follows when it is spent."""

    tenant: str
    usd: float
    per: str = "month"
    then: str = "warn"


class CostView(Struct, frozen=True, kw_only=True):
    """The answer of ``hyperion cost``."""

    by: str
    since_ms: int
    """0: from the first line on."""
    until_ms: int
    rows: tuple[CostRow, ...]
    """Dearest first; months in their order."""
    left_out: int
    """How many further rows there are; the total has them."""
    total: CostRow
    homes: tuple[str, ...]
    """The regions that were compared with."""
    budgets: tuple[BudgetView, ...]
    """Those that are spent."""
