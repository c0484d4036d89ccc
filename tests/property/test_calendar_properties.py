"""The laws of time: promises hold, nobody starves, windows are kept, and columns are right."""

import sys
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

from timelines import BALANCED, NOW_MS, Cluster, job, node, window

from hyperion.model.constraints import Packing
from hyperion.model.ids import JobId, QueueName
from hyperion.model.job import Priority
from hyperion.placement.calendar import Calendar
from hyperion.placement.earliest import earliest
from hyperion.placement.planner import Wish

LAW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
SHAPES = st.sampled_from(
    [(1, 0, 1), (2, 0, 1), (8, 0, 1), (1, 1, 1), (1, 2, 1), (1, 4, 1), (1, 0.5, 1), (1, 0.25, 1),
     (1, 4, 2), (1, 4, 3), (2, 2, 3), (1, 1, 5), (4, 0, 4)]
)  # fmt: skip
LENGTHS_S = st.integers(1, 60)


def three_nodes():
    return [node(name, gpus=4, cpus=8, rack=f"r{n // 2}") for n, name in enumerate("abc")]


@st.composite
def streams(draw, most=24):
    """Jobs in the order of their arrival: (job, arrives, longest, takes)."""
    arrives, made = 0, []
    for n in range(draw(st.integers(2, most))):
        arrives += draw(st.sampled_from([0, 0, 0, 1, 3, 20]))
        cpus, gpus, replicas = draw(SHAPES)
        longest = draw(LENGTHS_S)
        takes = draw(st.integers(1, longest))
        packing = draw(st.sampled_from([None, None, None, Packing("rack")]))
        if packing is not None and (replicas > 2 or gpus * replicas > 8):
            packing = None
        queue = QueueName(draw(st.sampled_from(["default", "night"])))
        made.append(
            (job(f"j{n}", cpus, gpus, replicas, packing=packing, queue=queue), arrives, longest,
             takes)
        )  # fmt: skip
    return made


WINDOWS = st.lists(
    st.builds(
        lambda n, begins, lasts, on, queues: window(
            f"w{n}", begins, begins + lasts, *sorted(on), queues=queues
        ),
        st.integers(0, 99), st.integers(0, 120), st.integers(1, 60),
        st.sets(st.sampled_from("abc"), min_size=1, max_size=3),
        st.sampled_from([(), ("night",)]),
    ),
    max_size=2, unique_by=lambda w: w.id,
)  # fmt: skip


class World:
    """First come, first served, with a promise for the first that wait, and backfill."""

    def __init__(self, stream, promises, windows=()):
        self.cluster = Cluster(*three_nodes())
        for each in windows:
            self.cluster.calendar.put_window(each)
        self.stream = list(stream)
        self.most = promises
        self.waiting = []
        self.ends = {}
        self.promised = {}
        self.started = {}

    def run(self, most_steps=2000):
        for _ in range(most_steps):
            self.step()
            if not self.stream and not self.waiting and not self.ends:
                return
            self.cluster.now_ms = self.next_ms()
        raise AssertionError(f"still waiting: {[w[0].id for w in self.waiting]}")

    def next_ms(self):
        times = list(self.ends.values())
        times += [NOW_MS + self.stream[0][1] * 1000] if self.stream else []
        change = self.cluster.calendar.next_change_ms(self.cluster.now_ms)
        times += [change] if change is not None else []
        return min(t for t in times if t > self.cluster.now_ms)

    def step(self):
        now_ms = self.cluster.now_ms
        for id in [id for id, ends in self.ends.items() if ends <= now_ms]:
            self.cluster.end(id)
            del self.ends[id]
        while self.stream and NOW_MS + self.stream[0][1] * 1000 <= now_ms:
            self.waiting.append(self.stream.pop(0))
        self.waiting = [entry for entry in self.waiting if not self.try_one(*entry)]

    def try_one(self, wanted, _, longest, takes):
        c = self.cluster
        if c.start(wanted, longest) is not None:
            self.check_windows(wanted, longest)
            self.started[wanted.id] = c.now_ms
            self.ends[wanted.id] = c.now_ms + takes * 1000
            c.calendar.withdraw(wanted.id)
            if wanted.id in self.promised:
                assert c.now_ms <= self.promised[wanted.id], "started later than promised"
            return True
        known = c.calendar.promises.get(wanted.id)
        if known is None and len(c.calendar.promises) >= self.most:
            return False
        wish = c.wish(wanted, longest)
        found = earliest(c.snapshot, c.running, c.calendar, wish, BALANCED, c.now_ms)
        assert found is not None, "every shape fits the empty cluster"
        assert found.at_ms > c.now_ms, "what could start now was started"
        before = self.promised.get(wanted.id)
        assert before is None or found.at_ms <= before, "promised anew for later"
        self.promised[wanted.id] = found.at_ms
        c.calendar.promise(found)
        return False

    def check_windows(self, wanted, longest):
        c = self.cluster
        ends_ms = c.now_ms + longest * 1000
        for seat in c.running.seats(wanted.id):
            for each in c.calendar.windows.values():
                apart = ends_ms <= each.begins_at_ms or c.now_ms >= each.ends_at_ms
                assert apart or seat.node not in each.nodes or each.admits(wanted)


@given(streams(), st.sampled_from([1, 2, 99]), WINDOWS)
@LAW
def test_a_promised_start_never_moves_later_whatever_is_backfilled(stream, promises, windows):
    world = World(stream, promises, windows)
    world.run()
    assert len(world.started) == len(stream), "every job starts"


def test_a_share_promised_beside_a_whole_gpu_does_not_bar_it():
    """A share that fits beside another is booked as a whole GPU: once it was promised one that
    had been promised already, and the first promise was broken."""
    asked = [(2, 2, 3, 2), (1, 0, 1, 1), (1, 0, 1, 1), (1, 0, 1, 1), (1, 0, 1, 1), (1, 1, 1, 1),
             (1, 0.5, 1, 1), (8, 0, 1, 2), (1, 1, 1, 1), (1, 0.5, 1, 2), (1, 0.5, 1, 1),
             (1, 0, 1, 1)]  # fmt: skip
    stream = [(job(f"j{n}", *shape), 0, takes, takes) for n, (*shape, takes) in enumerate(asked)]
    world = World(stream, promises=2)
    world.run()
    assert world.started["j8"] == NOW_MS + 1000


@given(st.integers(0, 2**16), st.sampled_from([(1, 4, 3), (8, 0, 3), (1, 2, 6)]))
@LAW
def test_a_wide_gang_starts_under_an_endless_stream_of_small_ones(seed, shape):
    wide = job("wide", *shape)
    small = [
        (
            job(f"s{n}", 1 + (seed >> n % 16) % 2, (seed >> n % 15) % 2),
            n // 2,
            9,
            1 + (seed + n) % 9,
        )
        for n in range(400)
    ]
    world = World([*small[:40], (wide, 20, 10, 10), *small[40:]], promises=1)
    for _ in range(2000):
        world.step()
        if "wide" in world.started:
            break
        world.cluster.now_ms = world.next_ms()
    assert world.started["wide"] <= NOW_MS + 30_000, (
        "those that run when it arrives end within 10 s"
    )
    assert world.stream, "while others still came"


# -- against plain arithmetic ---------------------------------------------------------------------


@st.composite
def busy(draw, shares=False):
    """A cluster with jobs that have begun, and promises to others."""
    c = Cluster(*three_nodes(), unknown_s=100)
    for n in range(draw(st.integers(0, 8))):
        gpus = draw(st.sampled_from([0, 1, 2, 4, *([0.5, 0.25] if shares else [])]))
        made = job(f"r{n}", draw(st.integers(1, 4)), gpus)
        found = c.plan(made)
        if hasattr(found, "seats"):
            begun = -draw(st.integers(0, 90))
            c.seat(made, found, draw(st.sampled_from([0, 95, 120, 150, 190])), begun)
    for each in draw(WINDOWS):
        c.calendar.put_window(each)
    for n in range(draw(st.integers(0, 3))):
        cpus, gpus, replicas = draw(SHAPES)
        wish = c.wish(job(f"p{n}", cpus, int(gpus), replicas), draw(LENGTHS_S))
        found = earliest(c.snapshot, c.running, c.calendar, wish, BALANCED, c.now_ms)
        if found is not None:
            c.calendar.promise(found)
    return c


def left_at(c, begins_ms, t_ms, name, skip):
    """(CPUs, GPUs that nobody has a part of) of a node at ``t_ms`` if nothing new started."""
    node = c.snapshot.nodes[c.snapshot.row[name]]
    cpus, taken = node.capacity.cpus_milli, set()
    for seat in c.snapshot.held(name):
        if c.calendar.timeline.estimate(seat, c.now_ms) > t_ms:
            cpus -= seat.request.cpus_milli
            taken |= set(seat.devices)
    gpus = node.capacity.gpus - len(taken)
    for promise in c.calendar.promises.values():
        ends = promise.ends_at_ms or promise.at_ms + c.calendar.unknown_ms
        if promise.job != skip and promise.at_ms <= t_ms < ends:
            for at, request in promise.seats:
                if at == name:
                    cpus -= request.cpus_milli
                    gpus -= request.gpus_milli // 1000
    return cpus, gpus


def moments(c):
    times = {c.now_ms}
    for id in c.running.occupants:
        times |= {c.calendar.timeline.estimate(s, c.now_ms) for s in c.running.seats(id)}
    for promise in c.calendar.promises.values():
        times |= {promise.at_ms, promise.ends_at_ms or promise.at_ms + c.calendar.unknown_ms}
    return times


def is_closed(c, wanted, name, begins_ms, ends_ms):
    return any(
        each.begins_at_ms < ends_ms and each.ends_at_ms > begins_ms
        and name in each.nodes and not each.admits(wanted)
        for each in c.calendar.windows.values()
    )  # fmt: skip


@given(busy(), st.integers(1, 200))
@LAW
def test_what_is_withheld_is_what_the_timeline_says(c, length_s):
    wanted = job("x", queue=QueueName("night"))
    ends_ms = c.now_ms + length_s * 1000
    closed = c.calendar.closed(c.snapshot, wanted, ends_ms, c.now_ms)
    withheld = c.calendar.withheld(c.snapshot, wanted, ends_ms, c.now_ms)
    for name, row in c.snapshot.row.items():
        expected = is_closed(c, wanted, name, c.now_ms, ends_ms)
        assert (closed is not None and bool(closed[row])) == expected
        free = int(c.snapshot.free_cpus[row]), int(c.snapshot.whole[row])
        least = [
            min(
                left_at(c, c.now_ms, t, name, "x")[d] for t in moments(c) if c.now_ms <= t < ends_ms
            )
            for d in range(2)
        ]
        kept = withheld.get(row)
        found = (0, 0) if kept is None else (kept.cpus_milli, kept.gpus)
        assert found == tuple(max(0, free[d] - least[d]) for d in range(2))


def fits(c, wish, begins_ms, length_ms):
    """By adding up, for identical replicas that want whole GPUs."""
    wanted = wish.job
    request = wanted.alternatives[0]
    need = request.cpus_milli, request.gpus_milli // 1000
    room = {}
    times = {t for t in moments(c) if begins_ms <= t < begins_ms + length_ms} | {begins_ms}
    for name, row in c.snapshot.row.items():
        least = [min(left_at(c, begins_ms, t, name, wanted.id)[d] for t in times) for d in range(2)]
        slots = min(least[d] // need[d] for d in range(2) if need[d])
        if is_closed(c, wanted, name, begins_ms, begins_ms + length_ms):
            slots = 0
        part = c.snapshot.nodes[row].labels["rack"] if wanted.packing else ""
        room[part] = room.get(part, 0) + max(0, slots)
    return max(room.values()) >= wish.at_least


@given(busy(), SHAPES, LENGTHS_S, st.booleans())
@LAW
def test_the_earliest_start_is_the_first_moment_at_which_it_fits(c, shape, length_s, packed):
    cpus, gpus, replicas = shape
    wanted = job("x", cpus, int(gpus), replicas, packing=Packing("rack") if packed else None)
    wish = c.wish(wanted, length_s)
    facts = c.snapshot._facts("a"), c.snapshot._facts("b"), c.snapshot._facts("c")
    found = earliest(c.snapshot, c.running, c.calendar, wish, BALANCED, c.now_ms)
    assert facts == (c.snapshot._facts("a"), c.snapshot._facts("b"), c.snapshot._facts("c"))
    times = moments(c) | {w.ends_at_ms for w in c.calendar.windows.values()}
    possible = [t for t in sorted(times) if t >= c.now_ms and fits(c, wish, t, length_s * 1000)]
    assert (None if found is None else found.at_ms) == (possible[0] if possible else None)
    if found is not None:
        assert len(found.seats) == replicas
        check_seats(c, wish, found, length_s * 1000)


def check_seats(c, wish, found, length_ms):
    times = {t for t in moments(c) if found.at_ms <= t < found.at_ms + length_ms} | {found.at_ms}
    for name in {name for name, _ in found.seats}:
        wanted = [request for at, request in found.seats if at == name]
        for t in times:
            cpus, gpus = left_at(c, found.at_ms, t, name, wish.job.id)
            assert cpus >= sum(r.cpus_milli for r in wanted)
            assert gpus >= sum(r.gpus_milli // 1000 for r in wanted)


@given(busy(shares=True), SHAPES, LENGTHS_S)
@LAW
def test_by_amounts_and_by_the_planner_the_earliest_start_is_the_same(c, shape, length_s):
    """A wish is put to the planner as well when it has metadata that others stay away from."""
    wanted = job("x", *shape)
    wish = c.wish(wanted, length_s)
    simple = earliest(c.snapshot, c.running, c.calendar, wish, BALANCED, c.now_ms)
    from hyperion.placement import earliest as module

    class Hard(module._Search):
        def _is_hard(self, request):
            return True

    search = Hard(c.snapshot, c.calendar, wish, BALANCED, c.now_ms)
    planned = search.start(0, None)
    assert (simple is None) == (planned is None)
    if simple is not None:
        assert planned.at_ms == simple.at_ms


@given(busy(shares=True), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), max_size=12))
@LAW
def test_columns_kept_up_to_date_say_what_columns_made_anew_say(c, changes):
    asked = job("x", gpus=2), c.now_ms + 100_000
    c.calendar.withheld(c.snapshot, *asked, c.now_ms)
    for n, seconds in changes:
        id = JobId(f"r{n}")
        c.later(seconds // 20)
        if id in c.running.occupants:
            c.end(id)
        else:
            c.start(job(f"r{n}", 1, n % 3), seconds)
        c.calendar.withheld(c.snapshot, *asked, c.now_ms)
    c.now_ms += 1  # within one moment, what has begun may still be counted out
    anew = Calendar(c.running, c.calendar.unknown_ms)
    for each in c.calendar.windows.values():
        anew.put_window(each)
    for promise in c.calendar.promises.values():
        anew.promise(promise)
    for length_s in (1, 50, 300):
        ends_ms = c.now_ms + length_s * 1000
        ours = c.calendar.withheld(c.snapshot, asked[0], ends_ms, c.now_ms)
        assert ours == anew.withheld(c.snapshot, asked[0], ends_ms, c.now_ms)
        wish = Wish(asked[0], ends_at_ms=ends_ms)
        assert earliest(c.snapshot, c.running, c.calendar, wish, BALANCED, c.now_ms) == earliest(
            c.snapshot, c.running, anew, wish, BALANCED, c.now_ms
        )


@given(
    busy(), st.integers(1, 200), st.integers(1, 200), st.booleans(),
    st.sampled_from(list(Priority)),
)  # fmt: skip
@LAW
def test_equal_marks_mean_equal_answers(c, one_s, other_s, at_night, priority):
    wanted = job("x", queue=QueueName("night" if at_night else ""), priority=priority)
    answers = {}
    for seconds in (one_s, other_s, 0):
        for asked in (wanted, job("y", queue=wanted.queue, priority=priority), job("p0")):
            ends_ms = c.now_ms + seconds * 1000 if seconds else 0
            closed = c.calendar.closed(c.snapshot, asked, ends_ms, c.now_ms)
            answer = (
                None if closed is None else closed.tolist(),
                dict(c.calendar.withheld(c.snapshot, asked, ends_ms, c.now_ms)),
            )
            mark = c.calendar.mark(asked, ends_ms, c.now_ms)
            assert answers.setdefault(mark, answer) == answer
