"""The laws of quotas and turns, on generated trees of queues and streams of jobs."""

from collections import defaultdict
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from hyperion.control import patience
from hyperion.control.queue import WaitingQueue
from hyperion.model.ids import JobId, QueueName
from hyperion.model.queue import DEFAULT_QUEUE, Queue
from hyperion.placement.fairness import Admission, QueueTree
from hyperion.placement.usage import Usage

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
        self.by_force = set()
        """Of those who need somebody stopped, one of each kind has been told in this round."""

    def following(self, told, now_ms):
        """(job, verdict) whose turn it is, of those not yet told in this round."""
        found = []
        for job, w in self.waiting.items():
            if (
                job in told
                or w["not_before_ms"] > now_ms
                or w["shape"] in self.blocked
                or self.alike(w) in self.passed_over
                or self.alike(w) in self.by_force
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
    reference.by_force.clear()
    due = queue.next_due_ms(now_ms)  # which brings the shares up to date, too
    expected = reference.following(told, now_ms)
    assert due or expected is None
    for found in queue.candidates(now_ms):
        assert found == expected
        job, verdict = found
        told.add(job)
        w = reference.waiting[job]
        if not verdict.at_once:
            reference.by_force.add(reference.alike(w))
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


# -- in the long run ------------------------------------------------------------------------------


def served(queue, now_ms, jobs, running, lasts_ms):
    """Start whatever may start, until it ends again; the jobs that started."""
    started = []
    for job, verdict in queue.candidates(now_ms):
        if verdict.at_once:
            name, need = jobs[job]
            queue.tree.charge(name, need, 1, now_ms)
            queue.remove(job)
            running.append((now_ms + lasts_ms(), name, need))
            started.append(job)
    return started


def ended(queue, now_ms, running):
    for item in [item for item in running if item[0] <= now_ms]:
        running.remove(item)
        queue.tree.charge(item[1], item[2], -1, now_ms)


@settings(LAW, max_examples=25)
@given(trees(), st.integers(0, 2**32))
def test_whoever_fits_into_empty_queues_starts_though_smaller_ones_never_cease(queues, seed):
    dice, tree = Random(seed), QueueTree(queues)
    tree.set_capacity(CAPACITY)
    queue, names, jobs, running = WaitingQueue(tree), leaves(queues), {}, []
    big = {}
    for name in names:
        need = (("cpus_milli", tree.room(name, (("cpus_milli", 1),), 20)),)
        if need[0][1] and name != DEFAULT_QUEUE:
            big[name] = need
    waiting, bound = set(), 400 * (1 + len(big))
    for now_ms in range(1, bound):
        ended(queue, now_ms, running)
        for name in names if len(queue) < 60 else ():
            job = JobId(f"{name}.{now_ms}")
            jobs[job] = (name, (("cpus_milli", dice.randint(1, 2)),))
            queue.add(job, queue=name, priority=1, order=now_ms, shape="s", need=jobs[job][1])
        if now_ms == 20:
            for name, need in big.items():
                jobs[JobId(name)] = (name, need)
                waiting.add(name)
                queue.add(JobId(name), queue=name, priority=1, order=now_ms, shape="b", need=need)
        waiting.difference_update(served(queue, now_ms, jobs, running, lambda: dice.randint(1, 9)))
        if now_ms > 20 and not waiting:
            return
    assert not waiting


@LAW
@given(trees(), st.integers(0, 2**32))
def test_while_nothing_runs_somebody_starts_whomever_it_is_saved_up_for(queues, seed):
    dice, tree = Random(seed), QueueTree(queues)
    tree.set_capacity(CAPACITY)
    queue, jobs, running, now_ms = WaitingQueue(tree), {}, [], 0
    for n in range(150):
        size = dice.choice([1, 1, 1, 5, 12])
        name, need = dice.choice(leaves(queues)), (("cpus_milli", size),)
        if tree.ever(name, need):
            jobs[JobId(f"j{n}")] = (name, need)
            queue.add(JobId(f"j{n}"), queue=name, priority=1, order=n, shape=size, need=need)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patience, "OVERTAKEN", 3)
        while len(queue):
            now_ms += 1
            ended(queue, now_ms, running)
            idle = not running
            started = served(queue, now_ms, jobs, running, lambda: dice.choice([1, 2, 2, 7]))
            assert started or not idle
    assert now_ms < 150 * 7


@settings(LAW, max_examples=12)
@given(
    st.lists(st.sampled_from([1.0, 1.0, 2.0, 4.0]), min_size=2, max_size=5),
    st.integers(0, 2**32),
)
def test_under_saturation_everybody_gets_what_its_weight_is_due(weights, seed):
    dice = Random(seed)
    names = [f"q{n}" for n in range(len(weights))]
    root = Queue(name=QueueName("all"), quota={"cpus_milli": 40})
    below = [
        Queue(name=QueueName(n), parent=root.name, weight=w)
        for n, w in zip(names, weights, strict=True)
    ]
    tree = QueueTree([root, *below], half_life_ms=500)
    tree.set_capacity({"cpus_milli": 40})
    queue, jobs, running, had = WaitingQueue(tree), {}, [], dict.fromkeys(names, 0)
    for now_ms in range(1, 1500):
        ended(queue, now_ms, running)
        for name in names:
            while queue.waiting_in(name) < 45:
                job = JobId(f"{name}.{len(jobs)}")
                size = 1 + names.index(name) % 3
                jobs[job] = (name, (("cpus_milli", size),))
                queue.add(
                    job, queue=name, priority=1, order=len(jobs), shape=size, need=jobs[job][1]
                )
        served(queue, now_ms, jobs, running, lambda: dice.randint(5, 60))
        if now_ms > 300:
            for name in names:
                had[name] += tree.branch(name).held[0]
    whole, total = sum(had.values()), sum(weights)
    for name, weight in zip(names, weights, strict=True):
        assert abs(had[name] / whole - weight / total) < 0.04


@LAW
@given(trees(quotas=False), st.data())
def test_history_is_the_same_after_it_was_kept_and_restored(queues, data):
    tree, now_ms = QueueTree(queues), 1
    for _ in range(data.draw(st.integers(0, 15))):
        now_ms += data.draw(st.integers(0, 1_000_000))
        name, need = data.draw(st.sampled_from(leaves(queues))), data.draw(needs())
        user = data.draw(st.sampled_from(["", "a", "b/c"]))
        tree.charge(name, need, 1, now_ms, user=user)
        if data.draw(st.booleans()):
            tree.charge(name, need, -1, now_ms + 500, user=user)
    again = QueueTree(queues)
    again.restore_history(tree.history())
    assert again.history() == tree.history()


AMOUNTS = st.lists(
    st.tuples(st.sampled_from((0, 1000, 7)), st.sampled_from((0.0, 512.5)), st.floats(0, 1)),
    min_size=1,
    max_size=5,
)


@given(AMOUNTS, st.sampled_from((0, 1000)), st.sampled_from((500, 1000, 5000, 10_000_000)))
def test_a_refresh_does_what_its_two_steps_do(columns, as_of_ms, now_ms):
    usages = []
    for _ in range(2):
        usage = Usage(len(columns), weight=2.0)
        usage.held, usage.average = [h for h, _, _ in columns], [a for _, a, _ in columns]
        usage.as_of_ms = as_of_ms
        usages.append(usage)
    scale = [s for _, _, s in columns]
    usages[0].advance(now_ms, 3_600_000)
    usages[0].weigh(scale)
    usages[1].renew(now_ms, 3_600_000, scale)
    first, second = ((u.average, u.dominant, u.share, u.as_of_ms) for u in usages)
    assert first == second
