"""Quotas that lend and borrow, shares that remember, and queues whose words make no sense."""

import pytest

from hyperion.model.ids import QueueName
from hyperion.model.queue import DEFAULT_QUEUE, MAX_QUEUE_DEPTH, Queue, check_queues
from hyperion.model.resources import ResourceRequest
from hyperion.placement.fairness import (
    HALF_LIFE_MS,
    Admission,
    QueueTree,
    QuotaRefusal,
    UnknownQueue,
    need_of,
)


def cpus(count):
    return (("cpus_milli", count * 1000),)


def queue(name, parent="", quota=None, **words):
    amounts = {"cpus_milli": quota * 1000} if quota is not None else {}
    for limit in ("borrow", "lend"):
        if limit in words:
            words[limit] = {"cpus_milli": words[limit] * 1000}
    return Queue(name=QueueName(name), parent=QueueName(parent), quota=amounts, **words)


def lab(**words):
    """Two teams of 10 CPUs each below one cohort; the words are those of the second."""
    return QueueTree([queue("lab"), queue("red", "lab", 10), queue("blue", "lab", 10, **words)])


# -- what a job counts for ------------------------------------------------------------------------


def test_gpus_of_a_type_count_as_theirs_and_as_any():
    request = ResourceRequest(
        gpus_milli=2000, gpu_type="A100", cpus_milli=4000, custom=(("fpga", 1),)
    )
    assert need_of(request, replicas=3) == (
        ("cpus_milli", 12_000),
        ("fpga", 3),
        ("gpus_milli", 6000),
        ("gpus_milli/A100", 6000),
    )


def test_of_gpus_of_any_type_the_type_counts_once_it_is_known():
    request = ResourceRequest(gpus_milli=500, cpus_milli=0)
    assert need_of(request) == (("gpus_milli", 500),)
    assert need_of(request, "H100") == (("gpus_milli", 500), ("gpus_milli/H100", 500))


# -- quotas ---------------------------------------------------------------------------------------


def test_without_any_queue_the_default_one_takes_everything():
    tree = QueueTree()
    assert tree.admission("", cpus(10**6)) is Admission.NOMINAL
    assert tree.room(DEFAULT_QUEUE, cpus(1), 7) == 7
    assert tree.refusal("", cpus(1)) is None


def test_a_queue_borrows_what_its_cohort_leaves_idle_and_gives_it_back_on_demand():
    tree = lab()
    assert tree.admission("red", cpus(10)) is Admission.NOMINAL
    assert tree.admission("red", cpus(20)) is Admission.BORROWS
    assert tree.admission("red", cpus(21)) is Admission.REFUSED
    tree.charge("red", cpus(18), 1)
    assert tree.admission("blue", cpus(2)) is Admission.NOMINAL
    assert tree.admission("blue", cpus(8)) is Admission.RECLAIM
    assert tree.borrowers("blue", cpus(8)) == ["red"]
    assert tree.admission("blue", cpus(11)) is Admission.REFUSED
    assert tree.borrowers("blue", cpus(2)) == []


def test_a_refusal_names_the_limit_that_stands_in_the_way():
    tree = lab(borrow=3)
    tree.charge("blue", cpus(12), 1)
    assert tree.refusal("blue", cpus(2)) == QuotaRefusal(
        queue=QueueName("blue"), resource="cpus_milli", used=12_000, quota=13_000, asked=2000
    )
    assert tree.refusal("red", cpus(9)) == QuotaRefusal(
        queue=QueueName("lab"), resource="cpus_milli", used=12_000, quota=20_000, asked=9000
    )


def test_what_is_not_lent_is_there_at_once():
    tree = lab(lend=4)
    assert tree.room("red", cpus(1), 100) == 14
    tree.charge("red", cpus(14), 1)
    assert tree.admission("red", cpus(1)) is Admission.REFUSED
    assert tree.admission("blue", cpus(6)) is Admission.NOMINAL
    assert tree.admission("blue", cpus(7)) is Admission.RECLAIM
    tree.charge("blue", cpus(6), 1)
    tree.charge("red", cpus(14), -1)
    assert tree.room("red", cpus(1), 100) == 14
    tree.check()


def test_a_queue_that_does_not_reclaim_waits():
    tree = lab(reclaim=False)
    tree.charge("red", cpus(18), 1)
    assert tree.admission("blue", cpus(8)) is Admission.REFUSED


def test_a_resource_that_nobody_above_names_is_not_limited():
    tree = QueueTree([queue("lab"), queue("red", "lab", 10), queue("free", "lab")])
    assert tree.admission("red", (("gpus_milli", 10**9),)) is Admission.NOMINAL
    assert tree.admission("free", cpus(10**6)) is Admission.NOMINAL
    tree.charge("free", cpus(10**6), 1)
    assert tree.admission("red", cpus(10)) is Admission.NOMINAL


def test_a_resource_that_only_the_cohort_names_is_shared_by_its_members():
    tree = QueueTree([queue("lab", quota=10), queue("red", "lab"), queue("blue", "lab", 5)])
    assert tree.room("red", cpus(1), 100) == 15
    tree.charge("red", cpus(13), 1)
    assert tree.admission("blue", cpus(5)) is Admission.RECLAIM
    assert tree.borrowers("blue", cpus(5)) == ["red"]


def test_cohorts_of_cohorts_lend_to_each_other_and_reclaim_as_one():
    tree = QueueTree(
        [
            queue("all"),
            queue("north", "all"),
            queue("south", "all"),
            queue("n1", "north", 10),
            queue("n2", "north", 10),
            queue("s1", "south", 10),
        ]
    )
    assert tree.room("s1", cpus(1), 100) == 30
    tree.charge("s1", cpus(25), 1)
    assert tree.admission("n1", cpus(15)) is Admission.RECLAIM  # north is within its own
    assert tree.borrowers("n1", cpus(15)) == ["s1"]
    tree.charge("n2", cpus(5), 1)
    assert tree.admission("n1", cpus(16)) is Admission.REFUSED
    tree.check()


def test_a_need_must_fit_in_each_of_its_resources():
    tree = QueueTree([Queue(name=QueueName("q"), quota={"cpus_milli": 8000, "gpus_milli": 2000})])
    need = (("cpus_milli", 1000), ("gpus_milli", 1000))
    assert tree.room("q", need, 100) == 2
    tree.charge("q", need, 1)
    assert tree.refusal("q", (("cpus_milli", 1000), ("gpus_milli", 2000))).resource == "gpus_milli"


def test_the_urgent_displace_their_own_queue_where_its_quota_is_full():
    tree = QueueTree([queue("q", quota=10, preempt_within=True)])
    tree.charge("q", cpus(6), 1, priority=1)
    tree.charge("q", cpus(4), 1, priority=2, nice=5)
    assert tree.admission("q", cpus(4), priority=1) is Admission.REFUSED
    assert tree.admission("q", cpus(6), priority=2, nice=5) is Admission.DISPLACES
    assert tree.admission("q", cpus(7), priority=2, nice=5) is Admission.REFUSED
    assert tree.admission("q", cpus(10), priority=2, nice=0) is Admission.DISPLACES
    tree.charge("q", cpus(6), -1, priority=1)
    assert tree.admission("q", cpus(6), priority=2, nice=5) is Admission.NOMINAL


def test_nothing_starts_from_a_stopped_queue_or_below_one():
    tree = QueueTree([queue("lab", stopped=True), queue("red", "lab", 10)])
    assert tree.admission("red", cpus(1)) is Admission.REFUSED
    assert tree.refusal("red", cpus(1)).queue == "lab"
    assert tree.room("red", cpus(1), 5) == 0
    tree.put(queue("lab"))
    assert tree.admission("red", cpus(1)) is Admission.NOMINAL


def test_new_quotas_count_what_is_held_already():
    tree = lab()
    tree.charge("red", cpus(18), 1)
    tree.put(queue("red", "lab", 4))
    assert tree.admission("blue", cpus(10)) is Admission.RECLAIM
    tree.put(queue("red", "", 4))
    assert tree.admission("blue", cpus(10)) is Admission.NOMINAL
    assert tree.refusal("red", cpus(1)).quota == 4000
    tree.check()


def test_jobs_of_a_removed_queue_are_counted_until_they_end():
    tree = lab()
    tree.charge("red", cpus(3), 1)
    tree.drop("red")
    assert "red" not in tree
    assert tree.admission("red", cpus(1)) is Admission.REFUSED
    tree.charge("red", cpus(3), -1)
    tree.put(queue("other"))
    with pytest.raises(UnknownQueue, match='no queue "red" here; hyperion queues lists them'):
        tree.admission("red", cpus(1))


def test_the_default_queue_cannot_be_removed():
    tree = QueueTree([queue(DEFAULT_QUEUE, quota=1)])
    assert tree.admission("", cpus(2)) is Admission.REFUSED
    tree.drop(DEFAULT_QUEUE)
    assert tree.admission("", cpus(2)) is Admission.NOMINAL


def test_who_may_not_wait_in_a_queue_is_told_why():
    tree = QueueTree([queue("lab"), queue("red", "lab", users=("ann",))])
    assert tree.objection("") == ""
    assert tree.objection("red", "ann") == ""
    assert 'not open to user "bob"' in tree.objection("red", "bob")
    assert "name one of them, such as red" in tree.objection("lab", "ann")
    assert "no queue" in tree.objection("rde", "ann")


def test_circles_and_missing_parents_do_no_harm():
    tree = QueueTree([queue("a", "b", 1), queue("b", "a", 1), queue("c", "nowhere", 1)])
    for name in "abc":
        assert tree.admission(name, cpus(1)) is Admission.NOMINAL
    tree.put(queue("b", "", 1))
    assert tree.admission("a", cpus(2)) is Admission.BORROWS


# -- shares ---------------------------------------------------------------------------------------


def test_a_share_is_that_of_the_dominant_resource_over_the_weight():
    tree = QueueTree([queue("a", weight=2.0), queue("b")])
    tree.set_capacity({"cpus_milli": 100_000, "gpus_milli": 8000})
    tree.charge("a", (("cpus_milli", 10_000), ("gpus_milli", 4000)), 1, 1000)
    tree.charge("b", cpus(30), 1, 1000)
    assert tree.share("a", 1000) == pytest.approx(0.5 / 2 / 2)  # nothing lately: half of it
    assert tree.share("b", 1000) == pytest.approx(0.3 / 2)


def test_what_was_held_is_forgotten_by_half_in_a_half_life():
    tree = QueueTree([queue("a")])
    tree.set_capacity({"cpus_milli": 100_000})
    tree.charge("a", cpus(40), 1, 1)
    end = 1 + 20 * HALF_LIFE_MS
    assert tree.share("a", end) == pytest.approx(0.4, rel=1e-5)
    tree.charge("a", cpus(40), -1, end)
    assert tree.share("a", end) == pytest.approx(0.2, rel=1e-5)
    assert tree.share("a", end + HALF_LIFE_MS) == pytest.approx(0.1, rel=1e-5)


def test_a_cohort_has_had_what_its_members_have_had():
    tree = lab()
    tree.set_capacity({"cpus_milli": 100_000})
    tree.charge("red", cpus(10), 1, 5)
    tree.charge("blue", cpus(20), 1, 5)
    assert tree.share("lab", 5) == pytest.approx(tree.share("red", 5) + tree.share("blue", 5))


def test_parts_follow_the_weights_on_the_way_up():
    tree = QueueTree(
        [queue("a", weight=3.0), queue("b"), queue("b1", "b", weight=1), queue("b2", "b", weight=3)]
    )
    assert tree.weight("a") == pytest.approx(3 / 5)  # the default queue has its part
    assert tree.weight("b2") == pytest.approx(1 / 5 * 3 / 4)


def test_history_outlives_the_process():
    tree = lab()
    tree.set_capacity({"cpus_milli": 100_000})
    tree.charge("red", cpus(10), 1, 5, user="ann")
    tree.charge("red", cpus(10), -1, 5 + HALF_LIFE_MS, user="ann")
    kept = tree.history()
    assert set(kept) == {"red", "red/ann", "lab"}
    again = lab()
    again.set_capacity({"cpus_milli": 100_000})
    again.restore_history({**kept, "gone": kept["red"]})
    assert again.history() == kept
    for name in ("red", "lab", "blue"):
        assert again.share(name, 2 * HALF_LIFE_MS) == tree.share(name, 2 * HALF_LIFE_MS)


def test_users_long_gone_are_forgotten():
    tree = QueueTree()
    tree.set_capacity({"cpus_milli": 1000})
    for n in range(50):
        tree.charge("", cpus(1), 1, 1, user=f"u{n}")
        tree.charge("", cpus(1), -1, 1000, user=f"u{n}")
    tree.refresh(1000)
    assert "default/u7" in tree.history()
    tree.refresh(60 * HALF_LIFE_MS)
    assert [name for name in tree.history() if "/" in name] == []


def test_a_standing_shows_what_is_held_and_borrowed():
    tree = lab()
    tree.set_capacity({"cpus_milli": 100_000})
    tree.charge("red", cpus(12), 1, 5)
    standing = tree.standing("red", 5)
    assert standing.held == {"cpus_milli": 12_000}
    assert standing.quota == {"cpus_milli": 10_000}
    assert standing.borrowed == {"cpus_milli": 2000}
    assert tree.standing("lab", 5).quota == {"cpus_milli": 20_000}
    assert tree.standing("lab", 5).borrowed == {}


# -- words that make no sense ---------------------------------------------------------------------


def faults(*queues):
    return {fault.pointer: fault.message for fault in check_queues(queues)}


def test_good_queues_have_no_faults():
    assert check_queues([queue("lab", quota=4), queue("red", "lab", 10, borrow=1, lend=0)]) == ()


def test_each_fault_names_its_place_and_the_remedy():
    found = faults(
        queue("no name"),
        queue("a", "lba", weight=0.0),
        queue("lab", users=("ann",), preempt_within=True),
        queue("lab"),
        Queue(name=QueueName("b"), parent=QueueName("lab"), quota={"gpus_milli/A100": -1}),
        Queue(name=QueueName("c"), parent=QueueName("lab"), borrow={"cpus_milli": 1}),
        queue("d", "default", 1),
        queue("e", quota=1, lend=1),
    )
    assert set(found) == {
        "/queues/0/name",
        "/queues/1/weight",
        "/queues/1/parent",
        "/queues/2/users",
        "/queues/2/preempt_within",
        "/queues/3/name",
        "/queues/4/quota/gpus_milli~1A100",
        "/queues/5/borrow/cpus_milli",
        "/queues/6/parent",
        "/queues/7/lend",
    }
    assert 'did you mean "lab"?' in found["/queues/1/parent"]
    assert "name it in quota" in found["/queues/5/borrow/cpus_milli"]
    assert "nothing can be below it" in found["/queues/6/parent"]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_weight_is_a_positive_number(weight):
    assert set(faults(queue("a", weight=weight))) == {"/queues/0/weight"}


def test_circles_and_towers_are_faults():
    circle = faults(queue("a", "b"), queue("b", "c"), queue("c", "a"), queue("d", "a"))
    assert set(circle) == {"/queues/0/parent", "/queues/1/parent", "/queues/2/parent"} | {
        "/queues/3/parent"
    }
    tower = [queue("q0")] + [queue(f"q{n}", f"q{n - 1}") for n in range(1, MAX_QUEUE_DEPTH + 1)]
    assert set(faults(*tower)) == {f"/queues/{MAX_QUEUE_DEPTH}/parent"}
    assert faults(*tower[:-1]) == {}


def test_too_many_queues_are_one_fault():
    assert set(faults(*(queue(f"q{n}") for n in range(10_001)))) == {"/queues"}


def test_a_thousand_like_charges_are_the_same_as_one_after_the_other():
    need = cpus(1)
    at_once, by_turns = lab(borrow=5), lab(borrow=5)
    for n in range(8):
        at_once.charge("red", need, 1, 1000, user="eve", priority=1)
        by_turns.charge("red", need, 1, 1000, user="eve", priority=1)
        assert by_turns.standing("red", 1000).held == {"cpus_milli": 1000 * (n + 1)}
    for tree in (at_once, by_turns):
        tree.charge("red", need, -1, 2000, user="eve", priority=1)
        tree.check()
    assert at_once.standing("red", 3000) == by_turns.standing("red", 3000)
    assert at_once.user("red", "eve").held == by_turns.user("red", "eve").held
    assert at_once.changed()[0][1] is False  # it holds more than before


def test_what_is_being_stopped_is_known_on_the_way_up():
    tree = lab()
    tree.charge("blue", cpus(4), 1)
    tree.leave("blue", cpus(3), 1)
    assert tree.leaving("lab", "cpus_milli") == tree.leaving("blue", "cpus_milli") == 3000
    tree.put(queue("blue", "", 10))  # no longer below the lab
    assert tree.leaving("lab", "cpus_milli") == 0
    tree.leave("blue", cpus(3), -1)
    assert tree.leaving("blue", "cpus_milli") == 0


def test_borrowers_are_told_with_what_is_above_their_own_the_most_first():
    queues = [queue("lab"), *(queue(name, "lab", 10) for name in ("a", "b", "c", "mine"))]
    tree = QueueTree(queues)
    for name, count in (("a", 12), ("b", 16), ("c", 12)):
        tree.charge(name, cpus(count), 1)
    assert tree.surplus("mine", cpus(5), 1) == [("b", cpus(6))]
    assert {name for name, _ in tree.surplus("mine", cpus(5), 3)} == {"a", "b", "c"}
