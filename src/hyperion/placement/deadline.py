"""When a job with a deadline may be on spot machines, and when it must leave them. Pure.

The safety condition of "Can't Be Late" (Wu et al., NSDI 2024): a job may gamble with its slack,
never with the time that its rest needs on machines that nobody takes back.
"""

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.model.market import Market
from hyperion.model.resources import ResourceRequest

MARGIN = 0.1
"""``expected`` is an estimate: so much longer the rest of the work may take."""
RESTART_S = 120.0
"""From the decision to the first step on other machines, besides grace and restore: reports and
orders on their way (seconds), a start of processes, the loading of code. A choice of ours."""
REACTION_S = 60.0
"""How late what happened may be known: reports of a running job come every 30 s."""


class Slack(Struct, frozen=True):
    """Where a job stands against its deadline."""

    left_s: float
    """Until the deadline."""
    saved_s: float = 0.0
    """Work that no interruption can take any more."""


def is_governed(job: Job) -> bool:
    """Whether the rule can be applied: it says how long it runs and by when it must have ended, and
    may run elsewhere than on spot. Not arrays, whose length depends on how many tasks fit."""
    return (
        job.deadline_s > 0
        and job.expected_s > 0
        and job.array is None
        and any(may_stay(request) for request in job.alternatives)
        and all(may_stay(role.resources) for role in job.roles)
    )


def may_stay(request: ResourceRequest) -> bool:
    """On machines that are not spot."""
    return request.use_spot is not True


def slack(job: Job, submitted_at_ms: int, now_ms: int, saved_s: float) -> Slack:
    return Slack(job.deadline_s - (now_ms - submitted_at_ms) / 1000.0, saved_s)


def safe_s(job: Job, saved_s: float) -> float:
    """What it takes from the decision to leave until the end, on machines that nobody takes."""
    turn_s = job.checkpoint.grace_s + RESTART_S + job.checkpoint.restore_s
    return turn_s + max(0.0, job.expected_s - saved_s) * (1.0 + MARGIN)


def may_begin_on_spot(job: Job, now: Slack) -> bool:
    """Whether it could be taken back at the worst instant, and still end in time elsewhere.

    The worst is just before the next checkpoint; without any, just before the end.
    """
    begin_s = RESTART_S + job.checkpoint.restore_s
    return now.left_s > begin_s + _risked_s(job, now) + safe_s(job, now.saved_s) + REACTION_S


def _risked_s(job: Job, now: Slack) -> float:
    """What is lost at worst when a machine is taken."""
    rest_s = max(0.0, job.expected_s - now.saved_s) * (1.0 + MARGIN)
    every_s = job.checkpoint.every_s
    return min(every_s, rest_s) if every_s > 0 else rest_s


def spare_s(job: Job, now: Slack, bought: Market) -> float:
    """How much later it could begin there without putting its deadline at risk."""
    turn_s = RESTART_S + job.checkpoint.restore_s + REACTION_S
    if bought is Market.SPOT and is_governed(job):
        turn_s += _risked_s(job, now)
    return max(0.0, now.left_s - turn_s - safe_s(job, now.saved_s))


def must_leave_spot(job: Job, now: Slack) -> bool:
    """Whether what is left is needed to end on machines that nobody takes."""
    return now.left_s <= safe_s(job, now.saved_s) + REACTION_S


def leaves_in_s(job: Job, now: Slack) -> float:
    """How long it can stay if nothing more is saved; more where a checkpoint comes before."""
    return max(0.0, now.left_s - safe_s(job, now.saved_s) - REACTION_S)


def off_spot(job: Job) -> Job:
    """The same job, which will take no spot machine any more."""
    alternatives = tuple(
        replace(request, use_spot=False) for request in job.alternatives if may_stay(request)
    )
    roles = tuple(
        replace(role, resources=replace(role.resources, use_spot=False)) for role in job.roles
    )
    return replace(job, alternatives=alternatives, roles=roles)


def why_off_spot(job: Job, now: Slack) -> str:
    """For ``plan`` and ``why``."""
    rest_h = max(0.0, job.expected_s - now.saved_s) / 3600.0
    return (
        f"deadline: {max(0.0, now.left_s) / 3600.0:.4g} h left for {rest_h:.4g} h of work,"
        " so no spot machine: what it would lose could not be made up for"
    )
