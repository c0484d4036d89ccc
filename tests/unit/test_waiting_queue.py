"""Whose turn it is: priorities, queues, users, niceness; and who is passed over until when."""

from itertools import islice

import pytest

from hyperion.control import patience
from hyperion.control.queue import WaitingQueue
from hyperion.model.ids import JobId, QueueName
from hyperion.model.queue import Queue
from hyperion.placement.fairness import HALF_LIFE_MS, Admission, QueueTree

CAPACITY = {"cpus_milli": 100_000}


def cpus(count):
    return (("cpus_milli", count * 1000),)


def queue(name, parent="", quota=None, **words):
    amounts = {"cpus_milli": quota * 1000} if quota is not None else {}
    return Queue(name=QueueName(name), parent=QueueName(parent), quota=amounts, **words)


class Waiting:
    """A waiting queue, and who holds what."""

    def __init__(self, *queues, per_user=False):
        self.tree = QueueTree(queues)
        self.tree.set_capacity(CAPACITY)
        self.queue = WaitingQueue(self.tree, per_user=per_user)
        self.now_ms = 1
        self.jobs = {}

    def add(self, *names, into="", size=1, priority=1, user="", **words):
        for name in names:
            order = words.pop("order", len(self.jobs))
            self.jobs[name] = (into, cpus(size), user, priority, words.get("nice", 0))
            self.queue.add(
                JobId(name),
                queue=into,
                user=user,
                priority=priority,
                order=order,
                shape=words.pop("shape", size),
                need=cpus(size),
                **words,
            )
            words.pop("order", None)

    def look(self):
        """All candidates, none of which is placed."""
        return [job for job, _ in self.queue.candidates(self.now_ms)]

    def place(self, most=1000):
        """Place whatever may be placed at once, in turn."""
        placed = []
        for job, verdict in self.queue.candidates(self.now_ms):
            if verdict.at_once:
                self.charge(job, 1)
                self.queue.remove(job)
                placed.append(job)
            if len(placed) >= most:
                break
        return placed

    def end(self, *jobs):
        for job in jobs:
            self.charge(job, -1)

    def charge(self, job, sign):
        into, need, user, priority, nice = self.jobs[job]
        self.tree.charge(into, need, sign, self.now_ms, user=user, priority=priority, nice=nice)


# -- order ----------------------------------------------------------------------------------------


def test_first_come_first_served_in_one_queue():
    w = Waiting()
    w.add("a", "b", "c")
    assert w.look() == ["a", "b", "c"]


def test_priority_goes_before_everything_over_all_queues():
    w = Waiting(queue("q"))
    w.add("batch", nice=-5)
    w.add("urgent", into="q", priority=3, nice=5)
    w.add("soon", priority=2)
    assert w.look() == ["urgent", "soon", "batch"]


def test_within_a_queue_the_least_nice_then_the_policys_order_then_the_first():
    w = Waiting()
    w.add("late", key=2.0)
    w.add("nice", nice=1)
    w.add("early", key=1.0)
    w.add("early too", key=1.0, shape="other")
    w.add("rude", nice=-1, key=9.0)
    w.add("nonsense", key=float("nan"))
    assert w.look() == ["rude", "early", "early too", "late", "nonsense", "nice"]


def test_queues_take_turns():
    w = Waiting(queue("a"), queue("b"))
    w.add("a1", "a2", "a3", into="a")
    w.add("b1", "b2", "b3", into="b")
    assert w.place() == ["a1", "b1", "a2", "b2", "a3", "b3"]


def test_a_queue_of_twice_the_weight_has_twice_the_turns():
    w = Waiting(queue("a"), queue("b", weight=2.0))
    w.add(*(f"a{n}" for n in range(30)), into="a")
    w.add(*(f"b{n}" for n in range(30)), into="b")
    first = w.place(most=30)
    assert sum(job.startswith("b") for job in first) == 20


def test_siblings_compete_level_by_level():
    w = Waiting(queue("big"), queue("small"), *(queue(f"m{n}", "big") for n in range(4)))
    for n in range(4):
        w.add(*(f"m{n}.{k}" for k in range(10)), into=f"m{n}")
    w.add(*(f"s{k}" for k in range(10)), into="small")
    assert sum(job.startswith("s") for job in w.place(most=10)) == 5


def test_a_queue_that_had_much_lately_comes_later():
    w = Waiting(queue("a"), queue("b"))
    w.add("a1", into="a", size=50)
    assert w.place() == ["a1"]
    w.now_ms += HALF_LIFE_MS
    w.end("a1")
    w.add(*(f"a{n}" for n in range(2, 40)), into="a")
    w.add(*(f"b{n}" for n in range(40)), into="b")
    assert all(job.startswith("b") for job in w.place(most=20))


def test_users_take_turns_where_the_policy_says_so():
    for per_user, expected in ((False, ["a1", "a2", "a3", "b1"]), (True, ["a1", "b1", "a2", "a3"])):
        w = Waiting(per_user=per_user)
        w.add("a1", "a2", "a3", user="ann")
        w.add("b1", user="bob")
        assert w.place() == expected


# -- what does not fit ----------------------------------------------------------------------------


def test_a_shape_that_does_not_fit_is_passed_over_until_something_is_freed():
    w = Waiting()
    w.add("big1", "big2", size=9)
    w.add("small")
    seen = []
    for job, _ in w.queue.candidates(1):
        seen.append(job)
        if job.startswith("big"):
            w.queue.block(9, "too big")
    assert seen == ["big1", "small"]
    assert dict(w.queue.shapes_blocked()) == {9: ["big1", "big2"]}
    assert w.queue.blocked == {9: "too big"}
    w.queue.remove(JobId("small"))
    assert not w.queue.next_due_ms(1)
    w.queue.unblock()
    assert w.queue.next_due_ms(1)
    assert w.look() == ["big1", "big2"]


def test_a_blocked_shape_is_forgotten_with_the_last_who_wants_it():
    w = Waiting()
    w.add("a", shape="s")
    w.queue.block("s")
    w.queue.remove(JobId("a"))
    assert w.queue.blocked == {}
    w.add("b", shape="s")
    assert w.look() == ["b"]


def test_a_late_comer_of_a_blocked_shape_waits_with_its_likes():
    w = Waiting(queue("q"))
    w.add("a", shape="s")
    w.queue.block("s")
    w.add("b", shape="s", into="q")
    assert w.look() == []
    w.queue.unblock()
    assert sorted(w.look()) == ["a", "b"]


def test_over_quota_is_passed_over_and_hides_nobody():
    w = Waiting(queue("full", quota=2), queue("free"))
    w.add("f1", "f2", "f3", into="full")
    w.add("other", into="free")
    assert w.place() == ["f1", "other", "f2"]
    assert not w.queue.next_due_ms(1)
    assert list(w.queue.over_quota()) == [("full", cpus(1), ["f3"])]
    w.end("other")
    assert w.look() == []
    w.end("f1")
    assert w.queue.next_due_ms(1)
    assert w.place() == ["f3"]


def test_a_smaller_job_goes_past_one_that_its_quota_refuses():
    w = Waiting(queue("q", quota=10))
    w.add("six", size=6, into="q")
    w.add("five", size=5, into="q")
    w.add("four", size=4, into="q")
    assert w.place() == ["six", "four"]


def test_what_is_given_back_in_a_cohort_lets_its_members_try_again():
    w = Waiting(queue("lab"), queue("a", "lab", 2), queue("b", "lab", 2), queue("c", "lab", 2))
    w.add(*(f"a{n}" for n in range(6)), into="a")
    assert len(w.place()) == 6
    w.add("b1", "b2", size=2, into="b")
    assert list(w.queue.candidates(1)) == [("b1", Admission.RECLAIM)]  # one of its likes
    w.queue.pass_over(JobId("b1"))
    assert w.look() == []
    w.end("a0")
    assert next(w.queue.candidates(1)) == ("b1", Admission.RECLAIM)
    w.end("a1")
    assert w.place() == ["b1"]


def test_new_quotas_let_everybody_try_again():
    w = Waiting(queue("q", quota=0))
    w.add("a", into="q")
    assert w.look() == []
    w.tree.put(queue("q", quota=1))
    assert w.queue.next_due_ms(1)
    assert w.look() == ["a"]
    w.tree.put(queue("q", quota=1, stopped=True))
    assert w.look() == []


def test_whoever_was_passed_over_is_asked_again_on_request():
    w = Waiting(queue("lab"), queue("a", "lab", 1), queue("b", "lab", 1))
    w.add("a1", "a2", into="a")
    assert w.place() == ["a1", "a2"]
    w.add("b1", into="b")
    for each in ("b", ""):
        assert w.look() == ["b1"]
        w.queue.pass_over(JobId("b1"))
        assert w.look() == []
        w.queue.unblock_quota(each)
    assert w.look() == ["b1"]


def test_an_urgent_job_may_displace_its_own_queue_at_the_quota():
    w = Waiting(queue("q", quota=2))
    w.add("urgent", into="q", size=2, priority=2)
    w.add("b1", into="q", priority=1)
    w.queue.remove(JobId("urgent"))
    assert w.place() == ["b1"]
    w.add("urgent", into="q", size=2, priority=2)
    assert list(w.queue.candidates(1)) == [("urgent", Admission.DISPLACES)]


def test_one_who_was_refused_is_asked_again_when_it_could_displace_enough():
    w = Waiting(queue("lab", quota=4), queue("q", "lab"), queue("other", "lab"))
    w.add("o1", into="other", priority=2)
    w.add("u1", "b1", "b2", into="q")
    assert w.place() == ["o1", "u1", "b1", "b2"]
    w.add("u2", into="q", size=4, priority=2)
    assert w.look() == []
    w.add("b3", into="q")
    w.end("b1")
    assert w.place() == ["b3"]
    assert w.look() == []
    w.end("o1")
    assert list(w.queue.candidates(1)) == [("u2", Admission.DISPLACES)]


def test_one_less_nice_is_asked_though_its_likes_were_refused():
    w = Waiting(queue("q", quota=1, preempt_within=True))
    w.add("a", into="q", nice=3)
    assert w.place() == ["a"]
    w.add("b", into="q", nice=3)
    assert w.look() == []
    w.add("c", into="q", nice=2)
    assert list(w.queue.candidates(1)) == [("c", Admission.DISPLACES)]


# -- patience -------------------------------------------------------------------------------------


def flow(w, into, big, most, running=()):
    """Small jobs come and go one by one; how many have started before the big one does."""
    running = list(running)
    for n in range(most):
        w.now_ms += 1
        if running:
            w.end(running.pop(0))
        w.add(f"s{n}", into=into, shape="small")
        placed = w.place()
        if big in placed:
            return n
        running += placed
    return None


def test_a_big_job_is_not_overtaken_by_small_ones_for_ever():
    w = Waiting(queue("q", quota=5))
    w.add("a", "b", "c", "d", into="q")
    w.place()
    w.add("big", into="q", size=4, shape="big")
    found = flow(w, "q", "big", 1000, running="abcd")
    assert patience.OVERTAKEN <= found <= patience.OVERTAKEN + 5


def test_what_is_saved_up_in_a_cohort_is_kept_from_all_its_members_but_nothing_else_is():
    w = Waiting(queue("lab", quota=5), queue("a", "lab"), queue("b", "lab"))
    w.tree.charge("a", cpus(1), 1)
    w.add("big", into="b", size=5, shape="big")
    assert flow(w, "a", "big", patience.OVERTAKEN) is None
    w.add("small", into="a", shape="small")
    w.queue.add(JobId("free"), queue="a", priority=1, order=10**6, shape="free", need=())
    w.queue.add(JobId("urgent"), queue="a", priority=2, order=10**6, shape="small", need=cpus(1))
    w.tree.charge("a", cpus(1), -1, w.now_ms)
    assert w.look() == ["urgent", "free"]


def test_what_is_saved_up_for_one_is_not_shut_by_its_likes_elsewhere():
    w = Waiting(queue("lab", quota=5), queue("a", "lab"), queue("b", "lab"))
    w.tree.charge("a", cpus(1), 1)
    w.add("b1", into="b", size=5, shape="big")
    w.add("a1", into="a", size=5, shape="big")
    assert flow(w, "a", "b1", patience.OVERTAKEN + 2) is None
    w.tree.charge("a", cpus(1), -1)
    assert w.place() == ["b1"]
    w.end("b1")
    w.tree.charge("a", cpus(1), 1)
    w.add("b2", into="b", size=5, shape="big")
    assert flow(w, "a", "a1", patience.OVERTAKEN + 2) is None
    w.tree.charge("a", cpus(1), -1)
    assert w.place() == ["a1"]


def test_nothing_is_saved_up_for_one_that_can_never_have_it():
    w = Waiting(queue("q", quota=5))
    w.tree.charge("q", cpus(1), 1)
    w.add("huge", into="q", size=6, shape="huge")
    assert flow(w, "q", "huge", 5 * patience.OVERTAKEN) is None
    w.add("next", into="q", shape="small")
    w.end("s499")
    assert w.look() == ["next"]


def test_saving_up_ends_after_a_while_if_what_runs_does_not():
    w = Waiting(queue("q", quota=5))
    w.tree.charge("q", cpus(1), 1)  # for ever
    w.add("big", into="q", size=5, shape="big")
    assert flow(w, "q", "big", patience.OVERTAKEN) is None
    w.add("late", into="q", shape="small")
    w.end("s99")
    assert w.look() == []
    w.now_ms += patience.SAVED_MS
    assert w.look() == ["late"]


# -- time, queues that go -------------------------------------------------------------------------


def test_nobody_is_a_candidate_before_its_time():
    w = Waiting()
    w.add("later", not_before_ms=500)
    w.add("now")
    assert len(w.queue) == 2
    assert w.look() == ["now"]
    w.queue.remove(JobId("now"))
    assert not w.queue.next_due_ms(499)
    assert w.queue.next_due_ms(500)
    w.now_ms = 500
    assert w.look() == ["later"]


def test_a_job_that_left_before_its_time_does_not_come():
    w = Waiting()
    w.add("a", not_before_ms=500)
    w.queue.remove(JobId("a"))
    w.add("a", not_before_ms=900)
    w.now_ms = 600
    assert w.look() == []
    w.now_ms = 900
    assert w.look() == ["a"]


def test_jobs_of_a_queue_that_is_gone_wait_until_it_is_made():
    w = Waiting(queue("q"))
    w.add("a", into="q")
    w.tree.drop("q")
    w.add("b", into="q", size=2)
    w.add("c", into="never")
    assert w.look() == []
    assert not w.queue.next_due_ms(1)
    w.tree.put(queue("q"))
    assert w.look() == ["a", "b"]
    assert w.queue.waiting_in("q") == 2


def test_jobs_of_a_queue_that_became_a_cohort_still_have_their_turns():
    w = Waiting(queue("q"))
    w.add("a", into="q")
    w.tree.put(queue("below", "q"))
    w.add("b", into="below")
    assert sorted(w.look()) == ["a", "b"]
    assert w.queue.waiting_in("q") == 1


def test_a_job_may_leave_and_come_back_while_others_are_looked_at():
    w = Waiting()
    w.add("a", "b", "c")
    turns = w.queue.candidates(1)
    assert next(turns)[0] == "a"
    w.queue.remove(JobId("b"))
    w.queue.remove(JobId("a"))
    w.add("a", order=0)
    assert [job for job, _ in turns] == ["c"]
    assert w.look() == ["a", "c"]


def test_a_round_that_is_cut_short_loses_nobody():
    w = Waiting(queue("q"))
    w.add("a", "b", "c")
    w.add("d", into="q")
    assert len(list(islice(w.queue.candidates(1), 2))) == 2
    assert sorted(w.look()) == ["a", "b", "c", "d"]


# -- positions ------------------------------------------------------------------------------------


def test_a_position_counts_who_is_before_it():
    w = Waiting()
    w.add("a", "b")
    w.add("urgent", priority=2)
    w.add("c", size=4)
    assert [w.queue.position(JobId(j)) for j in ("urgent", "a", "b", "c")] == [0, 1, 2, 3]
    assert w.queue.position(JobId("nobody")) is None
    assert w.queue.position_in_queue(JobId("c")) == 2
    assert w.queue.position_in_queue(JobId("nobody")) is None


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 20), (3.0, 40), (0.1, 11)])
def test_a_position_counts_the_turns_of_other_queues(weight, expected):
    w = Waiting(queue("mine"), queue("other", weight=weight))
    w.add(*(f"m{n}" for n in range(20)), into="mine")
    w.add(*(f"o{n}" for n in range(30)), into="other")
    assert w.queue.position_in_queue(JobId("m10")) == 10
    assert w.queue.position(JobId("m10")) == pytest.approx(expected, abs=1)
