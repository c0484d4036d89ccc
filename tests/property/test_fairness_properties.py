"""The laws of quotas and turns, on generated trees of queues and streams of jobs."""

from collections import defaultdict

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from hyperion.control.queue import WaitingQueue
from hyperion.model.ids import JobId, QueueName
from hyperion.model.queue import DEFAULT_QUEUE, Queue
from hyperion.placement.fairness import Admission, QueueTree

LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RESOURCES = ("cpus_milli", "gpus_milli")
CAPACITY = {"cpus_milli": 60, "gpus_milli": 30}


@st.composite
def trees(draw, quotas=True):
    """Up to ten queues, up to four deep; each may name any of the resources, or none."""
    queues, names = [], [""]
    for n in range(draw(st.integers(0, 9))):
        parent = draw(st.sampled_from(names))
        amounts = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 20))
        quota = draw(amounts) if quotas else {}
        queues.append(
            Queue(
                name=QueueName(f"q{n}"),
                parent=QueueName(parent),
                weight=draw(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0])),
                quota=quota,
                borrow={r: a for r, a in draw(amounts).items() if r in quota},
                lend={r: a for r, a in draw(amounts).items() if r in quota},
                reclaim=draw(st.booleans()),
            )
        )
        names.append(f"q{n}")
    return queues


def leaves(queues):
    parents = {queue.parent for queue in queues}
    return [q.name for q in queues if q.name not in parents] + [DEFAULT_QUEUE]


@st.composite
def needs(draw):
    found = draw(st.dictionaries(st.sampled_from(RESOURCES), st.integers(1, 8), max_size=2))
    return tuple(sorted(found.items()))


# -- quotas ---------------------------------------------------------------------------------------


class Arithmetic:
    """Quotas by their definition: everything is added up from what the leaves hold."""

    def __init__(self, queues, held):
        self.queues = {q.name: q for q in queues} | {DEFAULT_QUEUE: Queue(name=DEFAULT_QUEUE)}
        self.held = held

    def children(self, name):
        return [q.name for q in self.queues.values() if q.parent == name]

    def counts(self, name, r):
        """Whether the queue or one above it names the resource."""
        while name:
            if r in self.queues[name].quota:
                return True
            name = self.queues[name].parent
        return False

    def quota(self, name, r):
        lent = sum(self.quota(c, r) - self.own(c, r) for c in self.children(name))
        return self.queues[name].quota.get(r, 0) + lent

    def own(self, name, r):
        queue = self.queues[name]
        if not queue.parent or r not in queue.lend:
            return 0
        return max(0, self.quota(name, r) - queue.lend[r])

    def used(self, name, r):
        mine = self.held[name].get(r, 0) if self.counts(name, r) else 0
        return mine + sum(max(0, self.used(c, r) - self.own(c, r)) for c in self.children(name))

    def limit(self, name, r):
        queue = self.queues[name]
        if not queue.parent:
            return self.quota(name, r)
        return self.quota(name, r) + queue.borrow[r] if r in queue.borrow else float("inf")

    def broken(self):
        """Every limit that is exceeded."""
        return {
            (name, r)
            for name in self.queues
            for r in RESOURCES
            if self.used(name, r) > self.limit(name, r)
        }

    def with_more(self, name, need):
        held = defaultdict(dict, {n: dict(h) for n, h in self.held.items()})
        for r, amount in need:
            held[name][r] = held[name].get(r, 0) + amount
        return Arithmetic(self.queues.values(), held)


@LAW
@given(trees(), st.data())
def test_a_job_is_admitted_exactly_when_no_limit_is_exceeded_by_it(queues, data):
    tree, held, running = QueueTree(queues), defaultdict(dict), []
    for now_ms in range(data.draw(st.integers(1, 25))):
        if running and data.draw(st.integers(0, 3)) == 0:
            name, need = running.pop(data.draw(st.integers(0, len(running) - 1)))
            tree.charge(name, need, -1, now_ms)
            for r, amount in need:
                held[name][r] -= amount
        name, need = data.draw(st.sampled_from(leaves(queues))), data.draw(needs())
        world = Arithmetic(queues, held)
        after = world.with_more(name, need)
        fits = not after.broken()
        verdict = tree.admission(name, need)
        assert verdict.at_once == fits
        assert (tree.refusal(name, need) is None) == fits
        if verdict is Admission.NOMINAL:
            assert all(
                not world.counts(name, r) or after.used(name, r) <= after.quota(name, r)
                for r, _ in need
            )
        if verdict is Admission.RECLAIM:
            assert tree.borrowers(name, need)
        most = tree.room(name, need, 50)
        assert (most > 0) == fits
        assert tree.admission(name, tuple((r, a * most) for r, a in need)).at_once or not most
        if most < 50:
            more = tuple((r, a * (most + 1)) for r, a in need)
            assert not tree.admission(name, more).at_once
        if fits:
            tree.charge(name, need, 1, now_ms)
            running.append((name, need))
            for r, amount in need:
                held[name][r] = held[name].get(r, 0) + amount
            assert not Arithmetic(queues, held).broken()
        tree.check()


# -- turns ----------------------------------------------------------------------------------------


class Reference:
    """The same turns by looking at every job every time."""

    def __init__(self, tree, per_user):
        self.tree = tree
        self.per_user = per_user
        self.waiting = {}
        self.blocked = set()
        self.passed_over = {}

    def following(self, told, now_ms):
        """(job, verdict) whose turn it is, of those not yet told in this round."""
        found = []
        for job, w in self.waiting.items():
            if (
                job in told
                or w["not_before_ms"] > now_ms
                or w["shape"] in self.blocked
                or self.alike(w) in self.passed_over
            ):
                continue
            verdict = self.tree.admission(w["queue"], w["need"])
            if verdict is not Admission.REFUSED:
                found.append((self.rank(w), job, verdict))
        if found:
            _, job, verdict = min(found)
            return job, verdict
        return None

    def leave(self, job, now_ms):
        """What nobody waits for is forgotten, and tried again when somebody comes."""
        del self.waiting[job]
        left = self.waiting.values()
        self.blocked &= {w["shape"] for w in left}
        alike = {self.alike(w) for w in left if w["not_before_ms"] <= now_ms}
        self.passed_over = {a: t for a, t in self.passed_over.items() if a in alike}

    def alike(self, w):
        user = w["user"] if self.per_user else ""
        return w["queue"], user, w["priority"], w["shape"], w["need"]

    def rank(self, w):
        path = self.tree.branch(w["queue"]).path
        shares = [(b.share, b.number) for b in reversed(path)]
        if self.per_user:
            usage = self.tree.user(w["queue"], w["user"])
            shares.append((usage.share, w["user"]))
        return (-w["priority"], shares, w["nice"], w["key"], w["order"])

    def gave_back(self, queue):
        top = self.tree.branch(queue).path[-1]
        self.passed_over = {a: t for a, t in self.passed_over.items() if t is not top}


SHAPES = {"small": (("cpus_milli", 1),), "big": (("cpus_milli", 6),), "none": (),
          "gpu": (("cpus_milli", 1), ("gpus_milli", 4))}  # fmt: skip


@LAW
@given(trees(), st.booleans(), st.data())
def test_turns_are_those_of_looking_at_every_job_every_time(queues, per_user, data):
    tree = QueueTree(queues)
    tree.set_capacity(CAPACITY)
    queue, reference = WaitingQueue(tree, per_user=per_user), Reference(tree, per_user)
    draw, running, now_ms = data.draw, [], 0
    for number in range(draw(st.integers(1, 12))):
        now_ms += draw(st.sampled_from([1, 1, 30_000]))
        for n in range(draw(st.integers(0, 4))):
            add(queue, reference, draw, f"j{number}.{n}", number * 10 + n, queues, now_ms)
        if draw(st.booleans()):
            queue.unblock()
            reference.blocked.clear()
        for _ in range(min(len(running), draw(st.integers(0, 3)))):
            name, user, need = running.pop(draw(st.integers(0, len(running) - 1)))
            tree.charge(name, need, -1, now_ms, user=user)
            queue.next_due_ms(now_ms)
            if need:
                reference.gave_back(name)
        if draw(st.integers(0, 9)) == 0 and reference.waiting:
            gone = draw(st.sampled_from(sorted(reference.waiting)))
            queue.next_due_ms(now_ms)
            queue.remove(gone)
            reference.leave(gone, now_ms)
        play_round(queue, reference, draw, running, now_ms)
        tree.check()
        assert len(queue) == len(reference.waiting)


def add(queue, reference, draw, job, order, queues, now_ms):
    shape = draw(st.sampled_from(sorted(SHAPES)))
    w = {
        "queue": draw(st.sampled_from(leaves(queues))),
        "user": draw(st.sampled_from("ab")),
        "priority": draw(st.sampled_from([1, 1, 2])),
        "nice": draw(st.sampled_from([0, 0, 5])),
        "key": draw(st.sampled_from([0.0, 1.5])),
        "order": order,
        "shape": shape,
        "need": SHAPES[shape],
        "not_before_ms": draw(st.sampled_from([0, 0, now_ms + 2])),
    }
    reference.waiting[job] = w
    queue.add(JobId(job), **w)


def play_round(queue, reference, draw, running, now_ms):
    """Every candidate is the one that the reference has, and meets one of several fates."""
    told, tree = set(), queue.tree
    due = queue.next_due_ms(now_ms)  # which brings the shares up to date, too
    expected = reference.following(told, now_ms)
    assert due or expected is None
    for found in queue.candidates(now_ms):
        assert found == expected
        job, verdict = found
        told.add(job)
        w = reference.waiting[job]
        fate = draw(st.sampled_from(["place", "place", "place", "block", "leave", "pass over"]))
        if fate == "place" and verdict.at_once:
            tree.charge(w["queue"], w["need"], 1, now_ms, user=w["user"])
            running.append((w["queue"], w["user"], w["need"]))
            queue.next_due_ms(now_ms)  # so that what is given back later is less than now
            queue.remove(job)
            reference.leave(job, now_ms)
        elif fate == "block":
            queue.block(w["shape"])
            reference.blocked.add(w["shape"])
        elif fate == "pass over":
            queue.pass_over(job)
            reference.passed_over[reference.alike(w)] = tree.branch(w["queue"]).path[-1]
        expected = reference.following(told, now_ms)
    assert expected is None
