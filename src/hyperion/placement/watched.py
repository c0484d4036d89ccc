"""A policy under watch: what it does wrong costs a round its taste, never its result."""

from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from hyperion.model.job import Job
from hyperion.placement.balanced import BALANCED
from hyperion.placement.candidates import Candidates, Column, Policy, Room, Waiting


class TooLate(BaseException):
    """Raised inside a policy whose time is over. No ``except Exception`` of its own stops it."""


class Budget(Protocol):
    """A policy's time in a round, kept by whoever has a clock."""

    limit_ms: float

    def begin(self) -> None:
        """A new round: all of the time is there again."""

    def __call__(self) -> AbstractContextManager[object]:
        """Within it, ``TooLate`` is raised as soon as the round's time is used up."""


_FAULTS = (Exception, SystemExit)


class Guarded:
    """A policy under watch: one that raises, is late or returns nonsense is replaced until
    ``begin`` by ``balanced``.

    Besides ``cost`` a policy may have, each optional:

    - ``order(waiting) -> float``: who waits before whom among the jobs of one queue, priority and
      niceness; lower first, equal ones as they came. Asked once when a job begins to wait.
    - ``per_user = True``: the users of a queue take turns.
    - ``observe(job) -> None``: hears of each job that begins to wait, once.
    - ``begin() -> bool``: hears of each new round; true if costs given before are void.
    - ``assign(contest) -> Assigned``: at the federation, who gets which room among jobs that wait
      together; see ``assignment.Contest``. What does not hold, or costs more, is not used.
    """

    __slots__ = (
        "_fallen",
        "budget",
        "era",
        "fault",
        "origin",
        "policy",
        "replaced",
    )  # fmt: skip

    def __init__(
        self, policy: Policy, budget: Budget | None = None, origin: str = "built in"
    ) -> None:
        self.policy = policy
        self.budget = budget
        """None: it may take as long as it wants."""
        self.origin = origin
        self.replaced = 0
        """Rounds in which it was replaced."""
        self.fault = ""
        """What was wrong last."""
        self.era = 0
        """Changes when costs given before no longer compare with costs given now."""
        self._fallen = False

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def excuse(self) -> tuple[str, ...]:
        """A sentence for ``why``, if it has been replaced in this round."""
        if not self._fallen:
            return ()
        return (f"Policy balanced ranked instead of {self.name}, which {self.fault}.",)

    @property
    def per_user(self) -> bool:
        return bool(getattr(self.policy, "per_user", False))

    @property
    def orders(self) -> bool:
        """Whether it has a say in, or wants to hear of, who waits."""
        policy = self.policy
        return hasattr(policy, "order") or hasattr(policy, "observe")

    def begin(self) -> None:
        """A new round: the policy gets its chance again."""
        if self._fallen:
            self._fallen = False
            self.era += 1
        if self.budget is not None:
            self.budget.begin()
        begin = getattr(self.policy, "begin", None)
        if begin is not None:
            void, fault = self._ask(begin)
            if fault:
                self._fall(fault)
            elif void:
                self.era += 1

    def cost(self, job: Job, candidates: Candidates) -> Column:
        if not self._fallen:
            seen = candidates if self.budget is None else _sealed(candidates)
            costs, fault = self._ask(self._costs, job, seen)
            if not fault:
                result: Column = costs
                return result
            self._fall(fault)
        return BALANCED.cost(job, candidates)

    @property
    def assigns(self) -> bool:
        """Whether it says who gets which room among jobs that wait together."""
        return hasattr(self.policy, "assign")

    def assign(self, contest: Any) -> Any:
        """The policy's answer to an ``assignment.Contest``; where it fails, what was there."""
        if self._fallen:
            return contest.start
        found, fault = self._ask(self._assigned, contest)
        if fault:
            self._fall(fault)
            return contest.start
        return found

    def order(self, waiting: Waiting) -> float:
        """The policy's key of a job that begins to wait; 0, as it came, if it has none."""
        observe = getattr(self.policy, "observe", None)
        order = getattr(self.policy, "order", None)
        if self._fallen or (observe is None and order is None):
            return 0.0
        if self.budget is not None:  # jobs come between rounds, any number of them
            self.budget.begin()
        if observe is not None:
            _, fault = self._ask(observe, waiting.job)
            if fault:
                self._fall(fault)
                return 0.0
        if order is None:
            return 0.0
        key, fault = self._ask(_key, order, waiting)
        if not fault:
            return float(key)
        self._fall(fault)
        return 0.0

    def _ask(self, question: Any, *about: Any) -> tuple[Any, str]:
        """(answer, "") or (None, what was wrong)."""
        try:
            if self.budget is None:
                return question(*about), ""
            with self.budget():
                return question(*about), ""
        except _Nonsense as nonsense:
            return None, str(nonsense)
        except TooLate as late:
            limit = self.budget.limit_ms if self.budget is not None else 0
            return None, str(late) or f"took longer than {limit:g} ms in one round"
        except _FAULTS as error:  # whatever a plug-in does, the round goes on
            return None, _told(error)

    def _costs(self, job: Job, candidates: Candidates) -> Column:
        costs = np.asarray(self.policy.cost(job, candidates), dtype=np.float64)
        if costs.shape != (len(candidates),):
            raise _Nonsense(f"returned shape {costs.shape} for {len(candidates)} candidates")
        if not np.isfinite(costs.sum()) and not np.isfinite(costs).all():
            raise _Nonsense("returned a cost that is not a finite number")
        return costs

    def _assigned(self, contest: Any) -> list[list[int]]:
        """Options that there are, by likes; whether there is room for all is not looked at here."""
        answer = self.policy.assign(contest)  # type: ignore[attr-defined]
        found = [[int(at) for at in given] for given in answer]
        if len(found) != len(contest.likes):
            raise _Nonsense(f"assigned {len(found)} kinds of jobs of {len(contest.likes)}")
        for each, given in zip(contest.likes, found, strict=True):
            if not all(0 <= at < len(each.options) for at in given):
                raise _Nonsense("assigned a job to an option that it does not have")
        return found

    def _fall(self, fault: str) -> None:
        self.fault = fault
        self._fallen = True
        self.replaced += 1
        self.era += 1


class _Nonsense(Exception):
    """An answer of the wrong kind; the message says which."""


def _told(error: BaseException) -> str:
    """The fault in one line; even its ``__str__`` may be broken."""
    try:
        return f"raised {type(error).__name__}: {error}"[:200]
    except Exception:
        return f"raised {type(error).__name__}"


def _key(order: Any, waiting: Waiting) -> float:
    key = float(order(waiting))
    if not np.isfinite(key):
        raise _Nonsense(f"returned the order {key}, which is not a finite number")
    return key


def _sealed(candidates: Candidates) -> Candidates:
    """The same, for a policy from elsewhere to read and not to write."""
    room = candidates.room

    def sealed_room() -> Room:
        assert room is not None
        found = room()
        return found._replace(**{name: _read_only(getattr(found, name)) for name in _ROOM})

    seen = {name: _read_only(getattr(candidates, name)) for name in _COLUMNS}
    return Candidates(**seen, room=None if room is None else sealed_room)


_COLUMNS = tuple(f.name for f in fields(Candidates) if f.name != "room")
_ROOM = ("gpus", "part_milli", "cpus_milli", "memory_mib", "kind")


def _read_only(column: Any) -> Any:
    seen = column.view()
    seen.flags.writeable = False
    return seen


def guarded(policy: Policy) -> Guarded:
    """The policy under watch, ready for a round."""
    watched = policy if isinstance(policy, Guarded) else Guarded(policy)
    watched.begin()
    return watched
