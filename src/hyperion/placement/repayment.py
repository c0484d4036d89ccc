"""Whom to stop so that a quota is free again, be there places or not: the least regret for what is
owed, of the few queues that owe it."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop

from hyperion.model.ids import QueueName
from hyperion.placement.case import Case
from hyperion.placement.ground import Ground, Share
from hyperion.placement.regret import NEVER
from hyperion.placement.rights import Need


def repayment(case: Case, ground: Ground, chosen: Sequence[Share] = ()) -> list[Share] | None:
    """What has been chosen and more of the queues that owe, the least regretted for what it pays
    first, until all is paid; without those of the additions that it can do without. None: all that
    may be taken would not be enough, and nobody is stopped in vain.

    Jobs that lie wholly in what their queue has borrowed are taken first. Only if they do not pay
    all, one that reaches into its queue's own quota may go too: else a lender could wait for ever
    behind a large gang that is partly its queue's own.
    """
    for partly in (False, True):
        found = _repaid(case, ground, chosen, partly)
        if found is not None or not case.rights.borrowed:
            return found
    return None


def _repaid(
    case: Case, ground: Ground, chosen: Sequence[Share], partly: bool
) -> list[Share] | None:
    owed, owing = dict(case.rights.owed), case.rights.owed if partly else ()
    debtors = {*case.rights.holders, case.rights.queue}
    surplus = Surplus(ground)
    for share in chosen:
        amounts = ground.amounts(share.seats)
        surplus.take(share, amounts)
        if case.running.occupants[share.key[0]].queue in debtors:
            _pay(owed, amounts)
    taken = {share.key for share in chosen}
    offers = []
    for share in eligible(ground):
        if share.key not in taken:
            amounts = ground.amounts(share.seats)
            density = _density(share, amounts, owed)
            if density < NEVER:
                offers.append((density, share.key, share, amounts))
    heapify(offers)
    added = []
    while offers and any(amount > 0 for amount in owed.values()):
        _, _, share, amounts = heappop(offers)
        if surplus.allows(share, amounts, owing):
            added.append((share, amounts))
            surplus.take(share, amounts)
            _pay(owed, amounts)
    if any(amount > 0 for amount in owed.values()):
        return None
    kept = [*chosen]
    for share, amounts in sorted(added, key=lambda each: (-each[0].regret_usd, each[0].key)):
        if all(owed[name] + amounts.get(name, 0) <= 0 for name in owed):
            _pay(owed, amounts, -1)
        else:
            kept.append(share)
    return kept


class Surplus:
    """What the queues that have borrowed still hold above their own quota."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._left = {queue: dict(need) for queue, need in ground.rights.borrowed}

    def allows(self, share: Share, amounts: dict[str, int], owed: Need = ()) -> bool:
        """Whether it may be taken: all of it is above its queue's quota; or, with ``owed``, its
        queue is still above in something that is."""
        if not share.reclaims:
            return True
        left = self._left[self._queue(share)]
        return all(amount <= left.get(name, amount) for name, amount in amounts.items()) or any(
            name in amounts and left.get(name, 0) > 0 for name, _ in owed
        )

    def take(self, share: Share, amounts: dict[str, int]) -> None:
        if share.reclaims:
            left = self._left[self._queue(share)]
            for name, amount in amounts.items():
                if name in left:
                    left[name] -= amount

    def _queue(self, share: Share) -> QueueName:
        return self._ground.running.occupants[share.key[0]].queue


def eligible(ground: Ground) -> Iterator[Share]:
    """All that may be taken of its own queue and of those that have borrowed: whole jobs, and tasks
    of arrays."""
    running, rights = ground.running, ground.rights
    for queue in (rights.queue, *sorted(rights.holders - {rights.queue})):
        reclaims = queue in rights.holders
        for (priority, nice), jobs in running.of(queue).items():
            within = rights.within and queue == rights.queue and nice > rights.nice
            if priority < rights.priority or (priority == rights.priority and (within or reclaims)):
                for job in jobs:
                    yield from ground.shares_of(job)


def _density(share: Share, back: dict[str, int], owed: dict[str, int]) -> float:
    paid = 0.0
    for name, amount in owed.items():
        if amount > 0:
            paid += min(1.0, back.get(name, 0) / amount)
    return share.regret_usd / paid if paid else NEVER


def _pay(owed: dict[str, int], amounts: dict[str, int], sign: int = 1) -> None:
    for name in owed:
        owed[name] -= sign * amounts.get(name, 0)
