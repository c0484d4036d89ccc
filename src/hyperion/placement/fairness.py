"""Queues as a tree: what each may take now, what it has borrowed, and how much it has had lately.

Quotas follow the rules of hierarchical cohorts. A queue first uses the part of its quota that it
does not lend, then what its cohort has idle, within its own borrowing limit, and so on upward; a
queue without a parent is where borrowing ends. A resource that no queue on the way up names in its
quota is not limited. Shares are dominant shares (Ghodsi et al., NSDI 2011) of the discovered
capacity: the mean of what is held now and of what was held lately, divided by the weight, and
compared among siblings only.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest

from hyperion.model.ids import QueueName
from hyperion.model.queue import DEFAULT_QUEUE, Queue
from hyperion.placement.quota import (
    Admission,
    History,
    Need,
    QuotaRefusal,
    Standing,
    UnknownQueue,
    closed,
    need_of,
)
from hyperion.placement.usage import (
    Branch,
    Usage,
    available,
    connect,
    fits,
    give_back,
    lacking,
    over,
    rights,
    take,
    within,
)

__all__ = [
    "Admission",
    "History",
    "Need",
    "QueueTree",
    "QuotaRefusal",
    "Standing",
    "UnknownQueue",
    "need_of",
]

HALF_LIFE_MS = 3_600_000
REFRESHES_PER_HALF_LIFE = 360
"""Shares are brought up to date so often where nothing was charged; the error is below 0.2 %."""
UNKNOWN_CAPACITY = float(1 << 50)
"""Taken for a resource of which no capacity is known: it settles ties and nothing else."""

_Charge = tuple[str, Need, int, int, str, int, int]
"""Queue, need, sign, time, user, priority, nice."""


class QueueTree:
    """Pure and synchronous; time comes in as ``now_ms``. The default queue is always there."""

    def __init__(self, queues: Iterable[Queue] = (), half_life_ms: int = HALF_LIFE_MS) -> None:
        self.half_life_ms = half_life_ms
        self.revision = 0
        """Changes whenever the tree's shape or its quotas do."""
        self._declared: dict[QueueName, Queue] = {DEFAULT_QUEUE: Queue(name=DEFAULT_QUEUE)}
        self._branches: dict[str, Branch] = {}
        """With those that are gone from ``_declared`` but still hold something."""
        self._made = 0
        self._columns: dict[str, int] = {}
        self._capacity: dict[str, int] = {}
        self._scale: list[float] = []
        self._changed: dict[Branch, None] = {}
        self._refreshed_ms = 0
        self._stale = True
        self._alike: _Charge = ("", (), 0, 0, "", 0, 0)
        self._times = 0
        """How often the last charge has been made and not been carried out."""
        for queue in queues:
            self.put(queue)

    # -- the tree -------------------------------------------------------------------------------

    def put(self, queue: Queue) -> None:
        """Make or change a queue. One whose parent is not there yet stands at the top meanwhile."""
        self.settle()
        self._declared[queue.name] = queue
        self._stale = True
        self.revision += 1

    def drop(self, name: str) -> None:
        """Remove it; what its jobs hold is counted until they end. The default queue only loses
        its quota."""
        self.settle()
        self._declared.pop(QueueName(name), None)
        self._declared.setdefault(DEFAULT_QUEUE, Queue(name=DEFAULT_QUEUE))
        self._stale = True
        self.revision += 1

    def queues(self) -> list[Queue]:
        return list(self._declared.values())

    def __contains__(self, name: object) -> bool:
        return (name or DEFAULT_QUEUE) in self._declared

    def set_capacity(self, amounts: Mapping[str, int]) -> None:
        """What the cluster has in all: shares are parts of it."""
        if amounts != self._capacity:
            self._capacity = dict(amounts)
            self._stale = True

    def objection(self, name: str, user: str = "") -> str:
        """Why the user's job cannot wait in this queue, in words; empty when it can."""
        queue = self._declared.get(QueueName(name or DEFAULT_QUEUE))
        if queue is None:
            return str(UnknownQueue(name))
        return closed(queue, [child.queue.name for child in self.branch(queue.name).children], user)

    def branch(self, name: str) -> Branch:
        """The live bookkeeping of one queue; raises UnknownQueue."""
        self.settle()
        if self._stale:
            self._rebuild()
        found = self._branches.get(name or DEFAULT_QUEUE)
        if found is None:
            raise UnknownQueue(name)
        return found

    # -- what is held ---------------------------------------------------------------------------

    def charge(
        self,
        name: str,
        need: Need,
        sign: int,
        now_ms: int = 0,
        *,
        user: str = "",
        priority: int = 0,
        nice: int = 0,
    ) -> None:
        """Count what a job has taken (1) or given back (-1).

        ``now_ms`` 0: as of the last time that was told. A queue that is gone is counted too, since
        its jobs run on. With ``priority``, more urgent jobs of the queue may displace this one;
        taking and giving back must say the same.
        """
        alike = (name, need, sign, now_ms, user, priority, nice)
        if self._times:
            if alike == self._alike:
                self._times += 1
                return
            self.settle()
        self._alike, self._times = alike, 1

    def settle(self) -> None:
        """Carry out what has been charged: like things one after the other at once, for a gang has
        a thousand of them. Every question does so by itself; who holds a branch must ask."""
        times = self._times
        if not times:
            return
        self._times = 0
        name, need, sign, now_ms, user, priority, nice = self._alike
        if self._stale:
            self._rebuild()
        branch = self._branches.get(name or DEFAULT_QUEUE) or self._remnant(name)
        columns = self._columns
        amounts = []
        for resource, amount in need:
            column = columns.get(resource)
            if column is None:
                column = self._add_column(resource)
            amounts.append((column, times * amount))
        for above in branch.path:
            above.count(amounts, sign, now_ms, self.half_life_ms, self._scale)
        if user:
            usage = branch.users.get(user)
            if usage is None:
                usage = branch.users[user] = Usage(len(columns))
            usage.count(amounts, sign, now_ms, self.half_life_ms, self._scale)
        if priority:
            branch.note_holder((priority, nice), amounts, sign)
        direct, net, named, path = branch.direct, branch.net, branch.named, branch.path
        for column, amount in amounts:
            direct[column] += sign * amount
            net[column] += sign * amount
            if named[column]:
                (take if sign > 0 else give_back)(path, column, amount)
        self._changed[branch] = None

    def user(self, name: str, user: str) -> Usage:
        """What one user has had in a queue, for the order of users within it."""
        branch = self.branch(name)
        usage = branch.users.get(user)
        if usage is None:
            usage = branch.users[user] = Usage(len(self._columns))
        return usage

    def changed(self) -> list[tuple[Branch, bool]]:
        """Queues charged since the last call; whether they hold less of anything than then.

        Only one may ask.
        """
        self.settle()
        if not self._changed:
            return []
        found = [(branch, min(branch.net, default=0) < 0) for branch in self._changed]
        for branch in self._changed:
            branch.net = [0] * len(branch.net)
        self._changed.clear()
        return found

    # -- what is allowed ------------------------------------------------------------------------

    def admission(self, name: str, need: Need, priority: int = 0, nice: int = 0) -> Admission:
        """What the quotas say now. O(depth x resources). Raises UnknownQueue."""
        self.settle()
        if self._stale:
            self._rebuild()
        branch = self._branches.get(name or DEFAULT_QUEUE)
        if branch is None:
            raise UnknownQueue(name)
        return self.admit(branch, need, priority, nice)

    def admit(self, branch: Branch, need: Need, priority: int = 0, nice: int = 0) -> Admission:
        """``admission`` for a caller that holds the branch."""
        if self._times:
            self.settle()
        if branch.stopped:
            return Admission.REFUSED
        verdict = Admission.NOMINAL
        columns, named = self._columns, branch.named
        for resource, amount in need:
            column = columns.get(resource)
            if column is not None and named[column]:
                borrows = fits(branch.path, column, amount)
                if borrows < 0:
                    return self._by_force(branch, need, priority, nice)
                if borrows:
                    verdict = Admission.BORROWS
        return verdict

    def _by_force(self, branch: Branch, need: Need, priority: int, nice: int) -> Admission:
        """Whether it fits once others have been stopped."""
        for column, amount, level, _ in self._lacks(branch, need):
            if next(rights(branch.path, column, amount, level), None) is None:
                break
        else:
            return Admission.RECLAIM
        if priority and branch.holders:
            for column, amount, _, _ in self._lacks(branch, need):
                left = amount - branch.less_urgent(column, priority, nice)
                if left > 0 and fits(branch.path, column, left) < 0:
                    return Admission.REFUSED
            return Admission.DISPLACES
        return Admission.REFUSED

    def ever(self, name: str, need: Need) -> bool:
        """Whether it would fit if nobody held anything."""
        branch = self.branch(name)
        return not branch.stopped and all(
            within(branch.path, column, amount)
            for resource, amount in need
            if (column := self._columns.get(resource)) is not None and branch.named[column]
        )

    def room(self, name: str, need: Need, most: int) -> int:
        """How many times the need fits at once, at most ``most``, without stopping anybody."""
        branch = self.branch(name)
        if branch.stopped:
            return 0
        for resource, amount in need:
            column = self._columns.get(resource)
            if column is not None and branch.named[column]:
                most = min(most, available(branch.path, column) // amount)
        return max(0, most)

    def refusal(self, name: str, need: Need) -> QuotaRefusal | None:
        """Why it does not fit at once; None when it does."""
        return self.barrier(name, need)

    def barrier(
        self, name: str, need: Need, priority: int = 0, nice: int = 0
    ) -> QuotaRefusal | None:
        """The limit that would still stand in the way after it had displaced all that it may."""
        branch = self.branch(name)
        if branch.stopped:
            at = next(above for above in branch.path if above.queue.stopped)
            return QuotaRefusal(at.queue.name, "", 0, 0, 0)
        for resource, amount in need:
            column = self._columns.get(resource)
            if column is None or not branch.named[column]:
                continue
            yields = branch.less_urgent(column, priority, nice) if priority else 0
            lack = lacking(branch.path, column, amount - yields) if amount > yields else None
            if lack is not None:
                at = branch.path[lack[0]]
                used, limit = at.used[column], at.limit[column]
                return QuotaRefusal(at.queue.name, resource, used, limit, lack[1])
        return None

    def column(self, resource: str) -> int | None:
        """Where the amounts of a resource stand in every branch; None: nobody has named it yet."""
        return self._columns.get(resource)

    def borrowers(self, name: str, need: Need) -> list[QueueName]:
        """Queues that hold more than their own of what ``name`` lacks and may take back.

        After some have given back, others may be due: ask again.
        """
        branch = self.branch(name)
        found: dict[QueueName, None] = {}
        for column, amount, level, _ in self._lacks(branch, need):
            for right in rights(branch.path, column, amount, level):
                for holder in over(branch.path[right + 1], column, branch.path[right]):
                    found[holder.queue.name] = None
        return list(found)

    def surplus(self, name: str, need: Need, most: int) -> list[tuple[QueueName, Need]]:
        """Borrowers, and how much each holds above its own; of more than ``most`` those that hold
        most of what is lacked."""
        found = [self._branches[holder] for holder in self.borrowers(name, need)]
        if len(found) > most:
            columns = [column for column, *_ in self._lacks(self.branch(name), need)]
            found = nlargest(most, found, key=lambda b: sum(b.excess(c) for c in columns))
        return [(branch.queue.name, self._excess(branch)) for branch in found]

    def _excess(self, branch: Branch) -> Need:
        columns = self._columns.items()
        excess = ((r, branch.excess(c)) for r, c in columns if branch.named[c])
        return tuple(sorted((r, amount) for r, amount in excess if amount > 0))

    def leave(self, name: str, need: Need, sign: int) -> None:
        """Count what is being stopped (1), until it is over (-1): it is charged all the while."""
        branch = self.branch(name)
        for resource, amount in need:
            column = self._columns[resource]
            branch.leaves[column] += sign * amount
            for above in branch.path:
                above.leaving[column] += sign * amount

    def leaving(self, name: str, resource: str) -> int:
        """What a queue and those below it will have given back when all has ended that is being
        stopped; no more than that."""
        column = self._columns.get(resource)
        return 0 if column is None else self.branch(name).leaving[column]

    def _lacks(self, branch: Branch, need: Need) -> Iterator[tuple[int, int, int, int]]:
        """(column, amount, level, asked there) of each resource that some limit does not allow."""
        for resource, amount in need:
            column = self._columns.get(resource)
            if column is not None and branch.named[column]:
                lack = lacking(branch.path, column, amount)
                if lack is not None:
                    yield column, amount, *lack

    # -- shares ---------------------------------------------------------------------------------

    def share(self, name: str, now_ms: int) -> float:
        """The dominant share, now and lately, over the queue's weight: least goes first."""
        branch = self.branch(name)
        branch.advance(now_ms, self.half_life_ms)
        branch.weigh(self._scale)
        return branch.share

    def weight(self, name: str) -> float:
        """Which part of the cluster is due to it when every queue wants more."""
        return self.branch(name).part

    def refresh(self, now_ms: int, *, alone: bool = False) -> bool:
        """Bring all shares up to date, if that was some time ago; users long gone are forgotten.
        ``alone``: nobody waits who could be before another, so that it need not be soon."""
        self.settle()
        if self._stale:
            self._rebuild()
        often = 1 if alone else REFRESHES_PER_HALF_LIFE
        if 0 <= now_ms - self._refreshed_ms < self.half_life_ms / often:
            return False
        self._refreshed_ms = now_ms
        for branch in self._branches.values():
            branch.renew(now_ms, self.half_life_ms, self._scale)
            for user, usage in list(branch.users.items()):
                usage.renew(now_ms, self.half_life_ms, self._scale)
                if usage.share < 1e-9 and not any(usage.held):
                    del branch.users[user]
        return True

    def history(self) -> dict[str, History]:
        """By queue, and by ``queue/user``: what ``restore_history`` takes."""
        self.settle()
        if self._stale:
            self._rebuild()
        found = {}
        for name, usage in self._usages():
            if any(usage.average):
                average = {r: usage.average[c] for r, c in self._columns.items()}
                found[name] = History(usage.as_of_ms, {r: a for r, a in average.items() if a})
        return found

    def restore_history(self, history: Mapping[str, History]) -> None:
        """Queues that are gone are passed over. What is held is not in it: that is charged."""
        self.settle()
        if self._stale:
            self._rebuild()
        for name, past in history.items():
            queue, _, user = name.partition("/")
            if queue not in self._branches:
                continue
            columns = {
                r: self._add_column(r) if r not in self._columns else self._columns[r]
                for r in past.average
            }
            usage = self.user(queue, user) if user else self._branches[queue]
            usage.average = [0.0] * len(self._columns)
            for resource, amount in past.average.items():
                usage.average[columns[resource]] = amount
            usage.as_of_ms = past.as_of_ms
            usage.weigh(self._scale)

    def standing(self, name: str, now_ms: int) -> Standing:
        share = self.share(name, now_ms)
        branch = self.branch(name)
        columns = self._columns.items()
        return Standing(
            queue=branch.queue.name,
            held={r: branch.held[c] for r, c in columns if branch.held[c]},
            lately={r: branch.average[c] for r, c in columns if branch.average[c]},
            quota={r: branch.subtree[c] for r, c in columns if branch.subtree[c]}
            | dict.fromkeys((r for r, amount in branch.queue.quota.items() if not amount), 0),
            borrowed=dict(self._excess(branch)),
            share=share,
        )

    # -- inside ---------------------------------------------------------------------------------

    def check(self) -> None:
        """What is counted step by step is what the queues' own jobs hold; raises AssertionError."""
        self.settle()
        if self._stale:
            self._rebuild()
        before = {b: (list(b.held), list(b.used)) for b in self._branches.values()}
        for branch in self._bottom_up():
            assert min(branch.direct, default=0) >= 0, f"{branch.queue.name} holds less than none"
            branch.add_up()
        for branch, was in before.items():
            assert (branch.held, branch.used) == was, f"{branch.queue.name} is counted wrongly"

    def _usages(self) -> Iterator[tuple[str, Usage]]:
        for name, branch in self._branches.items():
            yield name, branch
            for user, usage in branch.users.items():
                yield f"{name}/{user}", usage

    def _add_column(self, resource: str) -> int:
        column = self._columns[resource] = len(self._columns)
        self._scale.append(0.5 / (self._capacity.get(resource, 0) or UNKNOWN_CAPACITY))
        for branch in self._branches.values():
            branch.widen(1)
        return column

    def _remnant(self, name: str) -> Branch:
        """A queue that has been removed, as long as its jobs hold something."""
        return self._add_branch(Queue(name=QueueName(name), stopped=True), stopped=True)

    def _add_branch(self, queue: Queue, *, stopped: bool = False) -> Branch:
        self._made += 1
        branch = self._branches[queue.name] = Branch(queue, self._made, len(self._columns))
        branch.stopped = stopped
        return branch

    def _rebuild(self) -> None:
        """Everything that follows from the queues' words and from what their own jobs hold."""
        self._stale = False
        for name, branch in list(self._branches.items()):
            if name in self._declared:
                continue
            if any(branch.direct):
                branch.queue = Queue(name=QueueName(name), stopped=True)
            else:
                del self._branches[name]
        for queue in self._declared.values():
            branch = self._branches.get(queue.name) or self._add_branch(queue)
            branch.queue, branch.weight = queue, queue.weight
        for resource in (*self._capacity, *(r for q in self._declared.values() for r in q.quota)):
            if resource not in self._columns:
                self._add_column(resource)
        self._scale[:] = [
            0.5 / (self._capacity.get(resource, 0) or UNKNOWN_CAPACITY)
            for resource in self._columns
        ]
        connect(self._branches)
        for branch in self._bottom_up():
            branch.set_quota(self._columns)
            branch.add_up()
            branch.weigh(self._scale)

    def _bottom_up(self) -> list[Branch]:
        return sorted(self._branches.values(), key=lambda branch: -len(branch.path))
