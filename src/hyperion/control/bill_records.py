"""What is kept of money: lines of bills, months they were rolled up to, budgets. USD, hours, kWh.

Apart from ``control/records``, since these outlive the jobs that they are about.
"""

from typing import Literal

from msgspec import Struct

from hyperion.model.ids import ClusterId, JobId


class BillLine(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """One placement of a job: where it was, and what that has cost up to the end of its newest
    attempt. What runs now is not in it yet. All replicas together."""

    job: JobId
    placed: int
    """The generation of the order that placed it there."""
    name: str = ""
    user: str = ""
    queue: str = ""
    cluster: ClusterId = ClusterId("")
    region: str = ""
    place: str = ""
    """Instance type and market in words."""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    """Of its first attempt there; 0: none has ended yet."""
    ended_at_ms: int = 0
    """Of its newest attempt there."""
    hours: float = 0.0
    usd: float = 0.0
    """For the machines."""
    egress_usd: float = 0.0
    kwh: float = 0.0
    gco2e: float = 0.0
    move_gco2e: float = 0.0
    """For carrying its datasets, when it was placed; not in ``gco2e``."""
    kilowatts: float = 0.0
    """What it draws while it runs, the site's overhead included."""
    home: str = ""
    """The region that the comparison is made with; empty: nobody can say."""
    home_usd_per_hour: float | None = None
    """On demand, at home, by the market of the day it was placed; None: unknown."""
    home_egress_usd: float = 0.0


class Month(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What old lines of one month, user, queue and cluster came to together."""

    month: str
    """``2026-11``, in UTC."""
    user: str = ""
    queue: str = ""
    cluster: ClusterId = ClusterId("")
    lines: int = 0
    hours: float = 0.0
    usd: float = 0.0
    egress_usd: float = 0.0
    kwh: float = 0.0
    gco2e: float = 0.0
    home_usd: float = 0.0
    unknown_usd: float = 0.0
    """Paid for jobs of which nobody knows what they would have cost at home."""


Per = Literal["day", "month"]
Then = Literal["warn", "hold", "pause"]


class Budget(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a user or a queue may spend in each day or month (UTC), and what follows."""

    tenant: str
    """``user:ann`` or ``queue:vision``."""
    usd: float
    per: Per = "month"
    then: Then = "warn"


class BudgetEntry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    budget: Budget
    reached: str = ""
    """The newest day or month in which it was found spent; it is so for that one only."""


class BillKept(Struct, frozen=True, tag=True, gc=False):
    """The line as it is from now on."""

    line: BillLine


class BillsRolled(Struct, frozen=True, tag=True):
    """These lines are parts of these months now, which are named with their new sums."""

    lines: tuple[tuple[JobId, int], ...]
    months: tuple[Month, ...]


class BudgetKept(Struct, frozen=True, tag=True):
    budget: Budget
    at_ms: int


class BudgetDropped(Struct, frozen=True, tag=True):
    tenant: str
    at_ms: int


class BudgetReached(Struct, frozen=True, tag=True):
    """The tenant has spent what it may in this day or month."""

    tenant: str
    period: str
    spent_usd: float
    at_ms: int


RECORDS = frozenset({BillKept, BillsRolled, BudgetKept, BudgetDropped, BudgetReached})
