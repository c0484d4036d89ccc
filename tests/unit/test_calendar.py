"""What time forbids and what it promises, told as stories of a small cluster."""

import pytest
from msgspec.structs import replace
from timelines import BALANCED, NOW_MS, URGENT, Cluster, job, node, window

from hyperion.model.constraints import Packing, ReplicaTerm
from hyperion.model.ids import JobId, NodeId, UserId, WindowId
from hyperion.model.job import Array, Elastic, Role
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.calendar import MOST_WINDOWS
from hyperion.placement.earliest import earliest
from hyperion.placement.forecast import Forecast
from hyperion.placement.outlook import outlook
from hyperion.placement.planner import Plan, Wish
from hyperion.placement.promises import MOST_PROMISES, Promise


def first_start(cluster, wanted, runs_s=10, **more):
    wish = cluster.wish(wanted, runs_s, **more)
    return earliest(
        cluster.snapshot, cluster.running, cluster.calendar, wish, BALANCED, cluster.now_ms
    )


def promised(cluster, wanted, runs_s=10):
    found = first_start(cluster, wanted, runs_s)
    assert found is not None
    assert cluster.calendar.promise(found)
    return found


def seconds(promise):
    return (promise.at_ms - NOW_MS) // 1000


def nodes_of(promise):
    return sorted({node for node, _ in promise.seats})


# -- windows --------------------------------------------------------------------------------------


def test_nothing_starts_that_would_still_run_when_maintenance_begins():
    c = Cluster(node("a"), node("b"))
    c.calendar.put_window(window("disks", 60, 120, "a"))
    assert {s.node for s in c.start(job("fits", 8), 60).seats} == {"a"}
    c.end("fits")
    assert {s.node for s in c.start(job("long", 8), 61).seats} == {"b"}
    assert c.start(job("longer", 8), 61) is None


def test_a_job_of_unknown_length_is_taken_to_run_an_hour():
    c = Cluster(node("a"))
    c.calendar.put_window(window("soon", 3599, 4000, "a"))
    assert c.start(job("j")) is None
    c.calendar.put_window(window("soon", 3600, 4000, "a"))
    assert c.start(job("j")) is not None


def test_after_the_window_its_nodes_are_open_again():
    c = Cluster(node("a"))
    c.calendar.put_window(window("disks", 0, 120, "a"))
    assert seconds(first_start(c, job("j"))) == 120
    c.later(120)
    assert c.start(job("j"), 10) is not None


def test_a_reservation_is_for_its_queue_and_its_users_alone():
    c = Cluster(node("a"))
    c.calendar.put_window(window("held", 0, 100, "a", queues=["night"], users=["ann"]))
    assert c.start(job("stranger"), 10) is None
    assert c.start(job("by-queue", queue="night"), 10) is not None
    assert c.start(job("by-user", user=UserId("ann")), 10) is not None


def test_a_job_with_a_reservation_runs_within_it_only():
    c = Cluster(node("a"), node("b"))
    c.calendar.put_window(window("held", 50, 100, "b", queues=["default"]))
    inside = job("in", reservation=WindowId("held"))
    assert c.start(inside, 10) is None, "it has not begun"
    found = first_start(c, inside, 30)
    assert (seconds(found), nodes_of(found)) == (50, ["b"])
    assert first_start(c, inside, 51) is None, "longer than the window"
    c.later(60)
    assert c.start(inside, 41) is None, "it would outlast the window"
    assert {s.node for s in c.start(inside).seats} == {"b"}, "nobody knows how long: let it try"


def test_a_reservation_that_is_over_or_unknown_can_never_be_met():
    c = Cluster(node("a"))
    c.calendar.put_window(window("held", 0, 100, "a", users=["ann"]))
    ann = job("j", user=UserId("ann"), reservation=WindowId("held"))
    assert not c.calendar.over(ann, NOW_MS)
    assert c.calendar.over(ann, NOW_MS + 100_000)
    assert c.calendar.over(job("k", reservation=WindowId("zz")), NOW_MS)
    assert first_start(c, job("k", reservation=WindowId("zz"))) is None
    assert first_start(c, replace(ann, user=UserId("bob"))) is None, "not admitted"
    assert not c.calendar.over(job("plain"), NOW_MS)


def test_a_window_stops_what_it_does_not_admit_when_it_begins():
    c = Cluster(node("a"), node("b"))
    guest = job("guest", user=UserId("ann"))
    c.start(guest, on="a")
    c.start(job("stays", user=UserId("bob")), on="a")
    c.start(job("elsewhere"), on="b")
    c.calendar.put_window(window("held", 50, 100, "a", users=["bob"]))

    def stopped(now_s):
        every = [s for id in c.running.occupants for s in c.running.seats(id)]
        found = c.calendar.stopped_by(NOW_MS + now_s * 1000, every, c.jobs)
        return [(a.job, w) for a, w in found]

    assert stopped(49) == []
    assert stopped(50) == [("guest", "held")]
    assert stopped(100) == []
    del c.jobs["stays"]
    assert ("stays", "held") in stopped(60), "of a job that is not known nothing is admitted"


def test_a_job_is_stopped_when_its_own_reservation_ends():
    c = Cluster(node("a"))
    c.calendar.put_window(window("held", 0, 100, "a", queues=["default"]))
    c.start(job("j", reservation=WindowId("held")))
    seats = list(c.running.seats(JobId("j")))
    assert list(c.calendar.stopped_by(NOW_MS + 99_000, seats, c.jobs)) == []
    assert [w for _, w in c.calendar.stopped_by(NOW_MS + 100_000, seats, c.jobs)] == ["held"]


def test_what_changes_next():
    c = Cluster(node("a"))
    assert c.calendar.next_change_ms(NOW_MS) is None
    c.calendar.put_window(window("w", 50, 100, "a"))
    c.start(job("j", 8), 30)
    promised(c, job("k", 8))
    assert [
        (c.calendar.next_change_ms(NOW_MS + s * 1000) or NOW_MS) - NOW_MS for s in (0, 30, 50, 100)
    ] == [30_000, 50_000, 100_000, 0]


def test_windows_and_promises_are_bounded():
    c = Cluster(node("a"))
    for n in range(MOST_WINDOWS):
        assert c.calendar.put_window(window(f"w{n}", 50, 100, "a"))
    assert not c.calendar.put_window(window("one-more", 50, 100, "a"))
    assert c.calendar.put_window(window("w0", 60, 100, "a")), "a known one is replaced"
    c.calendar.drop_window(WindowId("w0"))
    assert c.calendar.put_window(window("one-more", 50, 100, "a"))
    for n in range(MOST_PROMISES):
        assert c.calendar.promise(Promise(JobId(f"p{n}"), NOW_MS, ()))
    assert not c.calendar.promise(Promise(JobId("one-more"), NOW_MS, ()))
    c.calendar.withdraw(JobId("p0"))
    assert c.calendar.promise(Promise(JobId("one-more"), NOW_MS, ()))


# -- promises -------------------------------------------------------------------------------------


def test_short_jobs_fill_the_gap_before_a_promise_and_long_ones_do_not():
    c = Cluster(node("a", cpus=8))
    c.start(job("runs", 6), 100)
    wide = promised(c, job("wide", 8))
    assert (seconds(wide), wide.because) == (100, ("runs",))
    assert c.start(job("long", 1), 101) is None
    assert c.start(job("short", 2), 100) is not None
    c.later(100)
    c.end("runs")
    c.end("short")
    assert c.start(job("wide", 8), 10) is not None


def test_what_the_promise_does_not_need_is_free_for_all():
    c = Cluster(node("a", cpus=8))
    c.start(job("runs", 6), 100)
    promised(c, job("wide", 7))
    assert c.start(job("long", 1), 500) is not None
    assert c.start(job("too-much", 1), 500) is None


def test_who_is_more_urgent_is_not_bound():
    c = Cluster(node("a", cpus=8))
    c.start(job("runs", 6), 100)
    promised(c, job("wide", 8))
    assert c.start(job("urgent", 2, priority=URGENT), 500) is not None


def test_a_promise_of_gpus_keeps_shares_of_gpus_off_its_row_that_outlast_it():
    c = Cluster(node("a", gpus=2))
    c.start(job("half", gpus=0.5), 100)
    promised(c, job("both", gpus=2))
    assert c.start(job("other-half", gpus=0.5), 101) is None, "it would fit beside the first"
    assert c.start(job("other-half", gpus=0.5), 100) is not None


def test_a_share_and_a_whole_gpu_that_are_promised_side_by_side_both_start():
    c = Cluster(node("a", gpus=4))
    c.start(job("runs", 8), 100)
    assert seconds(promised(c, job("half", gpus=0.5))) == 100
    assert seconds(promised(c, job("whole", gpus=1))) == 100
    c.later(100)
    c.end("runs")
    assert c.start(job("half", gpus=0.5), 10) is not None
    assert c.start(job("whole", gpus=1), 10) is not None


def test_a_promise_waits_for_the_last_share_of_a_gpu():
    c = Cluster(node("a", gpus=1))
    c.start(job("one", gpus=0.25), 100)
    c.start(job("two", gpus=0.25), 50)
    assert seconds(first_start(c, job("whole", gpus=1))) == 100
    assert seconds(first_start(c, job("most", gpus=0.75))) == 50


def test_countables_of_the_site_are_promised_too():
    a = node("a")
    a = replace(a, capacity=replace(a.capacity, custom=(("fpga", 2),)))
    c = Cluster(a)

    def fpga(name, amount):
        return job(name, alternatives=(ResourceRequest(custom=(("fpga", amount),)),))

    c.start(fpga("runs", 1), 100)
    wide = promised(c, fpga("wide", 2))
    assert seconds(wide) == 100
    assert c.start(fpga("long", 1), 101) is None
    assert c.start(fpga("short", 1), 100) is not None


def test_those_behind_get_promises_after_those_before_them():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    assert seconds(promised(c, job("first", 8), 50)) == 100
    second = promised(c, job("second", 8), 20)
    assert (seconds(second), second.because) == (150, ("first",))
    assert seconds(promised(c, job("small", 1), 100)) == 170


def test_a_promise_of_unknown_length_is_taken_for_an_hour():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    promised(c, job("first", 8), 0)
    assert seconds(promised(c, job("second", 8), 20)) == 3700


def test_places_promised_are_kept_while_they_can_be_had():
    c = Cluster(node("a"), node("b"))
    c.start(job("on-a", 8), 100, on="a")
    c.start(job("on-b", 8), 110, on="b")
    wide = promised(c, job("wide", 8))
    assert (seconds(wide), nodes_of(wide)) == (100, ["a"])
    c.running.put(replace(c.running.occupants["on-b"], ends_at_ms=NOW_MS + 60_000))
    again = first_start(c, job("wide", 8))
    assert (seconds(again), nodes_of(again)) == (100, ["a"]), "40 s are not worth the move"
    c.running.put(replace(c.running.occupants["on-b"], ends_at_ms=NOW_MS + 30_000))
    again = first_start(c, job("wide", 8))
    assert (seconds(again), nodes_of(again)) == (30, ["b"])


def test_a_promise_comes_earlier_with_the_end_that_it_waits_for():
    c = Cluster(node("a"), node("b"))
    c.start(job("x", 8), 100, on="a")
    c.start(job("y", 8), 80, on="b")
    wide = promised(c, job("wide", 8, replicas=2))
    assert seconds(wide) == 100
    c.end("x")
    again = first_start(c, job("wide", 8, replicas=2))
    assert (seconds(again), again.because, again.made_at_ms) == (80, ("y",), NOW_MS)


def test_a_promise_moves_when_its_node_is_gone():
    c = Cluster(node("a"), node("b"))
    c.start(job("on-a", 8), 100, on="a")
    c.start(job("on-b", 8), 500, on="b")
    assert nodes_of(promised(c, job("wide", 8))) == ["a"]
    c.end("on-a")
    c.snapshot.remove_node(NodeId("a"))
    again = first_start(c, job("wide", 8))
    assert (seconds(again), nodes_of(again)) == (500, ["b"])


def test_a_guest_that_outstays_is_named_and_those_before_the_promise_are_not():
    c = Cluster(node("a"))
    c.start(job("before", 6), 100)
    c.later(1)
    promised(c, job("wide", 8))
    c.start(job("guest", 2), 50)
    c.start(job("none", 2), 50)
    c.later(60)
    assert c.calendar.overdue(c.running, c.now_ms) == (), "its time has not come"
    c.later(40)
    assert c.calendar.overdue(c.running, c.now_ms) == ("guest",)
    c.running.put(replace(c.running.occupants["guest"], stopping=True))
    assert c.calendar.overdue(c.running, c.now_ms) == ()


def test_a_job_over_its_estimate_is_expected_to_need_as_long_again_as_it_is_over():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    for over_s, more_s in ((0, 6), (20, 20), (200, 200)):
        c.now_ms = NOW_MS + (100 + over_s) * 1000
        assert seconds(first_start(c, job("j"))) == 100 + over_s + more_s


def test_what_is_being_stopped_is_soon_gone():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    c.running.put(replace(c.running.occupants["runs"], stopping=True))
    assert seconds(first_start(c, job("j"))) == 10


def test_the_tasks_of_an_array_end_one_by_one():
    c = Cluster(node("a", cpus=2))
    c.start(job("array", 1, array=Array(size=9)), 100)
    (seat,) = c.running.seats("array")
    late = replace(seat, id="later", rank=1, started_at_ms=NOW_MS + 70_000)
    c.snapshot.hold(late)
    c.running.seat(late)
    c.later(80)
    assert seconds(first_start(c, job("one", 1))) == 100
    assert seconds(first_start(c, job("two", 2))) == 170


# -- the earliest start ---------------------------------------------------------------------------


def test_what_fits_now_starts_now_and_waits_for_nobody():
    c = Cluster(node("a"))
    found = first_start(c, job("j"))
    assert (found.at_ms, found.because, found.confidence) == (NOW_MS, (), 1.0)


def test_what_never_fits_is_promised_nothing():
    c = Cluster(node("a", cpus=8), node("b", cpus=8))
    assert first_start(c, job("big", 9)) is None
    assert first_start(c, job("wide", 8, replicas=3)) is None
    assert first_start(Cluster(), job("j")) is None


def test_a_gang_waits_for_the_last_of_its_places():
    c = Cluster(*[node(n) for n in "abc"])
    for n, ends_s in zip("abc", (300, 100, 200), strict=True):
        c.start(job(f"on-{n}", 8), ends_s, on=n)
    found = first_start(c, job("pair", 8, replicas=2))
    assert (seconds(found), nodes_of(found)) == (200, ["b", "c"])
    assert (found.because, found.confidence) == (("on-c",), 0.25)


def test_a_packed_gang_waits_for_one_part():
    c = Cluster(*[node(n, rack=r) for n, r in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2"))])
    for n, ends_s in zip("abcd", (10, 300, 20, 200), strict=True):
        c.start(job(f"on-{n}", 8), ends_s, on=n)
    pair = job("pair", 8, replicas=2)
    assert nodes_of(first_start(c, pair)) == ["a", "c"]
    packed = first_start(c, replace(pair, packing=Packing("rack")))
    assert (seconds(packed), nodes_of(packed)) == (200, ["c", "d"])


def test_roles_need_places_for_each():
    c = Cluster(node("a", gpus=4), node("b", cpus=8))
    c.start(job("on-a", gpus=4), 50, on="a")
    c.start(job("on-b", 8), 70, on="b")
    big = Role(name="lead", replicas=1, resources=ResourceRequest(cpus_milli=8000))
    worker = Role(name="work", replicas=2, resources=ResourceRequest(gpus_milli=2000))
    found = first_start(c, job("roles", 8, replicas=3, roles=(big, worker)))
    assert seconds(found) == 70
    assert [(n, r.gpus_milli) for n, r in found.seats] == [("b", 0), ("a", 2000), ("a", 2000)]


def test_an_elastic_job_waits_for_its_least():
    c = Cluster(node("a", cpus=8))
    c.start(job("x", 4), 50)
    c.start(job("y", 3), 90)
    assert seconds(first_start(c, job("wide", 2, replicas=4))) == 90
    wide = job("wide", 2, replicas=4, elastic=Elastic(min=2))
    assert seconds(first_start(c, wide)) == 50


def test_neighbours_are_waited_for():
    c = Cluster(node("a"), node("b"))
    c.start(job("web-1", metadata={"app": "web"}), 40, on="a")
    c.start(job("web-2", metadata={"app": "web"}), 60, on="b")
    away = ReplicaTerm((("app", "web"),), anti=True)
    found = first_start(c, job("quiet", replica_affinity=(away,)))
    assert (seconds(found), nodes_of(found)) == (40, ["a"])


def test_of_alternatives_the_first_to_be_free_is_promised():
    c = Cluster(node("a", gpus=1), node("b", cpus=64))
    c.start(job("on-a", gpus=1), 90, on="a")
    c.start(job("on-b", 64), 30, on="b")
    either = (ResourceRequest(gpus_milli=1000), ResourceRequest(cpus_milli=32_000))
    found = first_start(c, job("any", alternatives=either))
    assert (seconds(found), found.alternative, nodes_of(found)) == (30, 1, ["b"])


def test_a_start_must_end_before_the_next_window_or_wait_for_its_end():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 50)
    c.calendar.put_window(window("disks", 100, 200, "a"))
    assert seconds(first_start(c, job("short"), 50)) == 50
    assert seconds(first_start(c, job("long"), 51)) == 200


def test_a_cordoned_node_is_not_counted_on():
    c = Cluster(node("a"), node("b"))
    c.start(job("on-a", 8), 30, on="a")
    c.start(job("on-b", 8), 60, on="b")
    c.snapshot.set_schedulable(NodeId("a"), cordoned=True, silent=False)
    assert nodes_of(first_start(c, job("j"))) == ["b"]


def test_a_claim_on_places_of_another_is_not_promised_away():
    c = Cluster(node("a", gpus=2), node("b", gpus=2))
    c.start(job("on-a", gpus=2), 30, on="a")
    c.start(job("on-b", gpus=2), 60, on="b")
    (seat,) = c.running.seats("on-a")
    c.snapshot.hold(replace(seat, id="claim", job=JobId("urgent")))
    found = first_start(c, job("j", gpus=1))
    assert (seconds(found), nodes_of(found)) == (60, ["b"])


# -- what is told ---------------------------------------------------------------------------------


def told(c, wanted, runs_s=10, ahead=(), forecast=None, **more):
    return outlook(
        c.snapshot, c.running, c.calendar, forecast or Forecast(), c.wish(wanted, runs_s), BALANCED,
        c.now_ms, ahead=ahead, **more,
    )  # fmt: skip


def test_the_outlook_says_when_why_and_with_how_many_at_once():
    c = Cluster(node("a", gpus=8))
    c.start(job("seventeen", gpus=2), 100)
    seen = told(c, job("wide", 0.1, gpus=1, replicas=8))
    assert (seen.starts_at_ms, seen.because) == (NOW_MS + 100_000, ("seventeen",))
    assert seen.replicas_now == 6
    assert 0.5 < seen.confidence < 1.0
    assert told(c, job("fits", gpus=1)).confidence == 1.0
    never = told(c, job("never", gpus=9))
    assert (never.starts_at_ms, never.confidence, never.replicas_now) == (None, 0.0, 0)


def test_confidence_is_that_in_the_ends_it_waits_for():
    c = Cluster(node("a"))
    runs = job("runs", 8, user=UserId("ann"))
    c.start(runs, 100)
    steady, unsteady = Forecast(), Forecast()
    for n in range(60):
        steady.learn(runs, 90_000)
        unsteady.learn(runs, 90_000 if n % 4 == 0 else 900_000)
    seen = [
        told(c, job("j"), forecast=f, jobs=c.jobs).confidence
        for f in (steady, Forecast(), unsteady)
    ]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.9
    assert seen[2] < 0.4


def test_those_ahead_make_it_later_and_less_sure():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    alone = told(c, job("j", 8))
    behind = told(c, job("j", 8), ahead=[c.wish(job("first", 8), 50)])
    assert behind.starts_at_ms == NOW_MS + 150_000
    assert behind.because == ("first",)
    assert behind.confidence < alone.confidence
    crowd = [c.wish(job(f"n{n}", 8), 1) for n in range(40)]
    assert told(c, job("j", 8), ahead=crowd).confidence < behind.confidence
    assert c.calendar.promises == {}, "nothing was promised for the asking"


def test_of_a_gang_with_roles_the_first_ranks_are_counted():
    c = Cluster(node("a", gpus=2), node("b"))
    roles = (
        Role(name="lead", replicas=1, resources=ResourceRequest(cpus_milli=8000)),
        Role(name="work", replicas=4, resources=ResourceRequest(cpus_milli=100, gpus_milli=1000)),
    )
    seen = told(c, job("roles", replicas=5, roles=roles))
    assert (seen.starts_at_ms, seen.replicas_now) == (None, 3)


@pytest.mark.parametrize("gpus", [0, 1])
def test_the_snapshot_is_left_as_it_was_found(gpus):
    c = Cluster(node("a", gpus=2), node("b", gpus=2))
    c.start(job("x", 8, gpus=gpus, metadata={"app": "web"}), 50)
    c.start(job("y", 8, gpus=gpus), 60)
    before = [c.snapshot._facts(id) for id in c.snapshot.row]
    first_start(c, job("j", 8, replica_affinity=(ReplicaTerm((("app", "web"),), anti=True),)))
    assert [c.snapshot._facts(id) for id in c.snapshot.row] == before


def test_capacity_of_a_node_that_is_declared_anew_is_seen():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    assert seconds(first_start(c, job("j"))) == 100
    c.snapshot.add_node(replace(node("a"), capacity=Capacity(cpus_milli=16_000, memory_mib=1)))
    assert seconds(first_start(c, job("j"))) == 0
    assert isinstance(c.plan(job("j"), 10), Plan)


def test_an_end_that_is_given_as_a_wish_or_as_a_job():
    c = Cluster(node("a"))
    c.start(job("runs", 8), 100)
    wide = job("wide", 4, replicas=2)
    found = earliest(c.snapshot, c.running, c.calendar, wide, BALANCED, c.now_ms)
    assert found == earliest(c.snapshot, c.running, c.calendar, Wish(wide), BALANCED, c.now_ms)
    assert found.ends_at_ms == 0
