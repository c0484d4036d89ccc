"""What a queue or a user holds and has held lately; the arithmetic of quotas up a path of queues.

Amounts stand in lists by column, one column a resource, since they are looked at for every job that
waits. ``used`` of a queue counts against its quota; what a queue keeps for itself (``own``) is used
first and is not seen from above.
"""

from collections.abc import Iterable, Iterator, Mapping

from hyperion.model.queue import Queue

UNLIMITED = 1 << 62
Amounts = Iterable[tuple[int, int]]
"""(column, amount)."""


class Usage:
    """Held now, and on average lately: what was held one half-life ago counts half."""

    __slots__ = ("as_of_ms", "average", "dominant", "held", "share", "weight")

    def __init__(self, columns: int, weight: float = 1.0) -> None:
        self.weight = weight
        self.held = [0] * columns
        self.average = [0.0] * columns
        self.as_of_ms = 0
        """Until when ``average`` reaches; 0: never told."""
        self.dominant = 0.0
        """The largest part of any resource, now and lately."""
        self.share = 0.0
        """The same over the weight."""

    def count(
        self, amounts: Amounts, sign: int, now_ms: int, half_life_ms: int, scale: list[float]
    ) -> None:
        """Something was taken (1) or given back (-1)."""
        held = self.held
        if sign < 0 or now_ms > self.as_of_ms:
            self.advance(now_ms, half_life_ms)
            for column, amount in amounts:
                held[column] += sign * amount
            self.weigh(scale)
            return
        most = self.dominant
        for column, amount in amounts:  # only these can have become the dominant one
            held[column] += amount
            share = (held[column] + self.average[column]) * scale[column]
            if share > most:  # noqa: PLR1730 - max() takes twice as long here
                most = share
        self.dominant = most
        self.share = most / self.weight

    def advance(self, now_ms: int, half_life_ms: int) -> None:
        """Take in what was held since the last call."""
        passed_ms = now_ms - self.as_of_ms
        if passed_ms <= 0:
            return
        if self.as_of_ms:
            kept = 2.0 ** (-passed_ms / half_life_ms)
            average = self.average
            for column, held in enumerate(self.held):
                average[column] = held + (average[column] - held) * kept
        self.as_of_ms = now_ms

    def weigh(self, scale: list[float]) -> None:
        """The dominant share: ``scale`` is one half of the whole, by column."""
        most = 0.0
        for held, average, part in zip(self.held, self.average, scale, strict=True):
            share = (held + average) * part
            if share > most:  # noqa: PLR1730
                most = share
        self.dominant = most
        self.share = most / self.weight

    def renew(self, now_ms: int, half_life_ms: int, scale: list[float]) -> None:
        """``advance`` and ``weigh`` in one: every account is looked at in every refresh."""
        passed_ms = now_ms - self.as_of_ms
        if passed_ms <= 0 or not self.as_of_ms:
            self.advance(now_ms, half_life_ms)
            self.weigh(scale)
            return
        self.as_of_ms = now_ms
        kept = 2.0 ** (-passed_ms / half_life_ms)
        average, most, column = self.average, 0.0, 0
        for held in self.held:
            lately = average[column]
            if held or lately:
                lately = average[column] = held + (lately - held) * kept
                share = (held + lately) * scale[column]
                if share > most:  # noqa: PLR1730
                    most = share
            column += 1  # noqa: SIM113 - enumerate takes a third longer here
        self.dominant = most
        self.share = most / self.weight

    def widen(self, by: int) -> None:
        """More columns."""
        self.held += [0] * by
        self.average += [0.0] * by


class Branch(Usage):
    """One queue of the tree, with its amounts by column."""

    __slots__ = (
        "children",
        "direct",
        "holders",
        "leaves",
        "leaving",
        "limit",
        "named",
        "net",
        "number",
        "own",
        "part",
        "path",
        "queue",
        "stopped",
        "subtree",
        "used",
        "users",
    )

    def __init__(self, queue: Queue, number: int, columns: int) -> None:
        super().__init__(columns, queue.weight)
        self.queue = queue
        self.number = number
        """In order of their making: settles ties."""
        self.path: tuple[Branch, ...] = (self,)
        """From here to the top."""
        self.children: list[Branch] = []
        self.part = 1.0
        """Of the cluster, by the weights on the way up."""
        self.stopped = False
        """It, or one above it."""
        self.direct = [0] * columns
        """What its own jobs hold, without those of the queues below it."""
        self.net = [0] * columns
        """By how much ``direct`` has changed since somebody asked."""
        self.leaves = [0] * columns
        """The part of ``direct`` that is being stopped."""
        self.leaving = [0] * columns
        """The same with the queues below it."""
        self.used = [0] * columns
        self.subtree = [0] * columns
        """Its quota, and what those below it lend."""
        self.own = [0] * columns
        """The part of ``subtree`` that is not lent."""
        self.limit = [UNLIMITED] * columns
        """``subtree`` and what may be borrowed."""
        self.named = [False] * columns
        """Whether it or one above it names the resource."""
        self.users: dict[str, Usage] = {}
        self.holders: dict[tuple[int, int], list[int]] = {}
        """What its own jobs hold by (priority, nice)."""

    def widen(self, by: int) -> None:
        super().widen(by)
        for amounts in (
            self.direct,
            self.net,
            self.leaves,
            self.leaving,
            self.used,
            self.subtree,
            self.own,
            *self.holders.values(),
        ):
            amounts.extend([0] * by)
        self.limit += [UNLIMITED] * by
        self.named += [False] * by
        for usage in self.users.values():
            usage.widen(by)

    def set_quota(self, columns: dict[str, int]) -> None:
        """Amounts from the queue's own words and its children, which have theirs already."""
        queue, above = self.queue, self.path[1:2]
        for resource, column in columns.items():
            named = resource in queue.quota
            subtree = queue.quota.get(resource, 0)
            subtree += sum(c.subtree[column] - c.own[column] for c in self.children)
            lent, borrowed = queue.lend.get(resource), queue.borrow.get(resource)
            self.subtree[column] = subtree
            self.own[column] = max(0, subtree - lent) if above and named and lent is not None else 0
            self.limit[column] = UNLIMITED
            if not above:
                self.limit[column] = subtree
            elif named and borrowed is not None:
                self.limit[column] = subtree + borrowed
            self.named[column] = any(resource in b.queue.quota for b in self.path)

    def add_up(self) -> None:
        """What is held and used, from its own jobs and its children, which are added up already."""
        for column, direct in enumerate(self.direct):
            self.held[column] = direct + sum(c.held[column] for c in self.children)
            self.leaving[column] = self.leaves[column] + sum(
                c.leaving[column] for c in self.children
            )
            self.used[column] = (direct if self.named[column] else 0) + sum(
                max(0, c.used[column] - c.own[column]) for c in self.children
            )

    def excess(self, column: int) -> int:
        """What it uses above its own; negative where it does not."""
        return self.used[column] - self.subtree[column]

    def note_holder(self, key: tuple[int, int], amounts: Amounts, sign: int) -> None:
        """Count by (priority, nice) what its own jobs have taken (1) or given back (-1)."""
        held = self.holders.get(key)
        if held is None:
            held = self.holders[key] = [0] * len(self.direct)
        for column, amount in amounts:
            held[column] += sign * amount
        if sign < 0 and not any(held):
            del self.holders[key]

    def less_urgent(self, column: int, priority: int, nice: int) -> int:
        """What jobs hold that one of this priority and nice may displace in its own queue."""
        within = self.queue.preempt_within
        return sum(
            held[column]
            for (other, its_nice), held in self.holders.items()
            if other < priority or (within and other == priority and its_nice > nice)
        )


Path = tuple[Branch, ...]


def take(path: Path, column: int, amount: int) -> None:
    """Charge the quotas on the way up with what each does not cover by itself."""
    for branch in path:
        spare = branch.own[column] - branch.used[column]
        branch.used[column] += amount
        if spare > 0:
            amount -= spare
            if amount <= 0:
                return


def give_back(path: Path, column: int, amount: int) -> None:
    """Undo ``take``."""
    for branch in path:
        over = branch.used[column] - branch.own[column]
        branch.used[column] -= amount
        assert branch.used[column] >= 0, f"{branch.queue.name} gave back more than it had"
        if over < amount:
            amount = over
            if amount <= 0:
                return


def fits(path: Path, column: int, amount: int) -> int:
    """0: within what the queue may always have; 1: with what is lent to it; -1: not at all."""
    borrows = 0
    top = path[-1]
    for branch in path:
        used = branch.used[column]
        if used + amount > branch.limit[column]:
            return -1
        if branch is not top and used + amount > branch.subtree[column]:
            borrows = 1
        spare = branch.own[column] - used
        if spare > 0:
            amount -= spare
            if amount <= 0:
                break
    return borrows


def within(path: Path, column: int, amount: int) -> bool:
    """Whether it would fit if nothing were used."""
    for branch in path:
        if amount > branch.limit[column]:
            return False
        amount -= branch.own[column]
        if amount <= 0:
            break
    return True


def lacking(path: Path, column: int, amount: int) -> tuple[int, int] | None:
    """The first level that does not allow it, and what it would have to."""
    for level, branch in enumerate(path):
        used = branch.used[column]
        if used + amount > branch.limit[column]:
            return level, amount
        spare = branch.own[column] - used
        if spare > 0:
            amount -= spare
            if amount <= 0:
                break
    return None


def rights(path: Path, column: int, amount: int, level: int) -> Iterator[int]:
    """Levels below ``level`` at which the path is within its own: it may have back what is lent."""
    for below, branch in enumerate(path[:level]):
        used = branch.used[column]
        if branch.queue.reclaim and used + amount <= branch.subtree[column]:
            yield below
        amount -= max(0, branch.own[column] - used)


def available(path: Path, column: int) -> int:
    """How much the first of the path may take now; negative where more is used than is allowed."""
    found = 0
    top = path[-1]
    for branch in reversed(path):
        used = branch.used[column]
        headroom = branch.limit[column] - used
        if branch is top:
            found = headroom
        else:
            found = min(max(0, branch.own[column] - used) + max(0, found), headroom)
    return found


def over(branch: Branch, column: int, but: Branch) -> Iterator[Branch]:
    """Below a queue, and not within ``but``, those whose own jobs hold more than is theirs."""
    for child in branch.children:
        if child is not but and child.used[column] > child.subtree[column]:
            if child.direct[column]:
                yield child
            yield from over(child, column, but)


def connect(branches: Mapping[str, Branch]) -> None:
    """Set paths, children and parts. A circle is cut open, so that nothing can go round in it."""
    parents = {
        b: branches.get(b.queue.parent) if b.queue.parent else None for b in branches.values()
    }
    for branch, parent in parents.items():
        branch.children.clear()
        above, steps = parent, 0
        while above is not None and above is not branch and steps <= len(parents):
            above, steps = parents[above], steps + 1
        if above is branch:
            parents[branch] = None
    tops: list[Branch] = []
    for branch, parent in parents.items():
        (tops if parent is None else parent.children).append(branch)
    level, whole = tops, sum(b.weight for b in tops)
    for branch in tops:
        branch.path, branch.stopped = (branch,), branch.queue.stopped
        branch.part = branch.weight / whole
    while level:
        for branch in level:
            whole = sum(b.weight for b in branch.children)
            for child in branch.children:
                child.path = (child, *branch.path)
                child.stopped = branch.stopped or child.queue.stopped
                child.part = branch.part * child.weight / whole
        level = [child for branch in level for child in branch.children]
