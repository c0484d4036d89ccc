"""Whom to stop so that a quota is free again, be there places or not: the least regret for what is
owed, of the few queues that owe it."""

from collections.abc import Iterable, Iterator, Sequence

from hyperion.model.ids import QueueName
from hyperion.placement.case import Case
from hyperion.placement.ground import Ground, Share
from hyperion.placement.regret import NEVER


def repayment(case: Case, ground: Ground, chosen: Sequence[Share] = ()) -> list[Share] | None:
    """What has been chosen and more of the queues that owe, the least regretted for what it pays
    first, until all is paid; without those of the additions that it can do without. None: all that
    may be taken would not be enough, and nobody is stopped in vain."""
    owed = dict(case.rights.owed)
    debtors = {*case.rights.holders, case.rights.queue}
    surplus = _Surplus(ground)
    for share in chosen:
        amounts = surplus.take(share)
        if case.running.occupants[share.key[0]].queue in debtors:
            _pay(owed, amounts)
    found, added = list(chosen), []
    taken = {share.key for share in chosen}
    offers = [share for share in _offers(case, ground, debtors) if share.key not in taken]
    density = {share.key: _density(share, ground, owed) for share in offers}
    offers.sort(key=lambda share: (density[share.key], share.key))
    for share in offers:
        if all(amount <= 0 for amount in owed.values()):
            break
        if density[share.key] < NEVER and surplus.allows(share):
            added.append(share)
            _pay(owed, surplus.take(share))
    if any(amount > 0 for amount in owed.values()):
        return None
    for share in sorted(added, key=lambda s: (-s.regret_usd, s.key)):
        amounts = ground.amounts(share.seats)
        if all(owed[name] + amounts.get(name, 0) <= 0 for name in owed):
            added.remove(share)
            _pay(owed, amounts, -1)
    return found + added


class _Surplus:
    """What the queues that have borrowed may still lose without going below their own quota."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._left = {queue: dict(need) for queue, need in ground.rights.borrowed}

    def allows(self, share: Share) -> bool:
        if not share.reclaims:
            return True
        left = self._left[self._queue(share)]
        amounts = self._ground.amounts(share.seats)
        return all(amount <= left.get(name, amount) for name, amount in amounts.items())

    def take(self, share: Share) -> dict[str, int]:
        amounts = self._ground.amounts(share.seats)
        if share.reclaims:
            left = self._left[self._queue(share)]
            for name, amount in amounts.items():
                if name in left:
                    left[name] -= amount
        return amounts

    def _queue(self, share: Share) -> QueueName:
        return self._ground.running.occupants[share.key[0]].queue


def _offers(case: Case, ground: Ground, debtors: Iterable[QueueName]) -> Iterator[Share]:
    """All that may be taken of these queues: whole jobs, and tasks of arrays."""
    running, rights = case.running, case.rights
    for queue in debtors:
        reclaims = queue in rights.holders
        for (priority, nice), jobs in running.of(queue).items():
            within = rights.within and queue == rights.queue and nice > rights.nice
            if priority > rights.priority:
                continue
            if priority < rights.priority or within or reclaims:
                for job in jobs:
                    yield from ground.shares_of(job)


def _density(share: Share, ground: Ground, owed: dict[str, int]) -> float:
    back = ground.amounts(share.seats)
    paid = sum(min(1.0, back.get(name, 0) / amount) for name, amount in owed.items() if amount > 0)
    return share.regret_usd / paid if paid else NEVER


def _pay(owed: dict[str, int], amounts: dict[str, int], sign: int = 1) -> None:
    for name in owed:
        owed[name] -= sign * amounts.get(name, 0)
