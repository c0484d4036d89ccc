"""The laws of preemption: nobody in vain, nobody without right, no gang in part, no end of it."""

from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.constraints import Packing, ReplicaTerm, Spread
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Job, Priority, Role
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import bounds
from hyperion.placement import snapshot as columns
from hyperion.placement.case import without
from hyperion.placement.consolidation import MoveBudget, consolidation
from hyperion.placement.planner import Plan, plan
from hyperion.placement.preemption import Eviction, NoVictims, Obstacle, Rights, regret_usd, victims
from hyperion.placement.ranking import BUILT_IN
from hyperion.placement.running import Occupant, Running

LAW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BALANCED = BUILT_IN["balanced"]
MINUTE_MS = 60_000
NOW_MS = 600 * MINUTE_MS
QUEUES = [QueueName("a"), QueueName("b")]


def kernels():
    yield bounds.numpy_bounds
    numba = pytest.importorskip("numba")
    assert numba
    from hyperion.placement.bounds_numba import compiled_bounds

    yield compiled_bounds


class World:
    def __init__(self, nodes):
        self.snapshot = columns.empty()
        self.running = Running()
        for node in nodes:
            self.snapshot.add_node(node)

    def seat(self, job, plan_, requests, **facts):
        """Hold a plan; as an occupant, if facts are given."""
        if facts:
            self.running.put(Occupant(job=job, **facts))
        for rank, seat in enumerate(plan_.seats):
            a = Allocation(
                id=AllocationId(f"{job}.{rank}"),
                job=job,
                rank=rank,
                node=seat.node,
                request=requests[rank],
                devices=seat.devices,
                state=AllocationState.RUNNING,
                started_at_ms=NOW_MS - 7 * MINUTE_MS * (rank + 1),
            )
            self.snapshot.hold(a)
            if facts:
                self.running.seat(a)

    def facts(self):
        return [self.snapshot._facts(id) for id in self.snapshot.row]


@st.composite
def requests(draw):
    return ResourceRequest(
        gpus_milli=draw(st.sampled_from([0, 300, 500, 1000, 1000, 2000, 3000])),
        cpus_milli=draw(st.sampled_from([0, 500, 1000, 3000])),
        memory_mib=draw(st.sampled_from([0, 0, 1000])),
    )


@st.composite
def occupants(draw, priority):
    return {
        "queue": draw(st.sampled_from(QUEUES)),
        "priority": priority,
        "nice": draw(st.integers(0, 2)),
        "started_at_ms": NOW_MS - draw(st.integers(0, 300)) * MINUTE_MS,
        "preemptible_at_ms": draw(st.sampled_from([0, 0, 0, NOW_MS + 1])),
        "saves_every_ms": draw(st.sampled_from([0, 7, 30])) * MINUTE_MS,
        "saves_on_stop": draw(st.sampled_from([False, False, True])),
        "restore_ms": draw(st.sampled_from([0, 90_000])),
        "usd_per_hour": draw(st.sampled_from([0.0, 1.0, 2.5, 7.0])),
        "egress_usd": draw(st.sampled_from([0.0, 0.25])),
        "stopping": draw(st.sampled_from([False, False, False, True])),
    }


@st.composite
def worlds(draw, wide=False, forms=True):
    """A few nodes, filled with whatever fits on them."""
    nodes = [
        Node(
            id=NodeId(f"n{n}"),
            capacity=Capacity(
                gpus=draw(st.sampled_from([0, 2, 4])),
                gpu_type="A100",
                cpus_milli=draw(st.sampled_from([4000, 8000])),
                memory_mib=4000,
            ),
            labels={"rack": draw(st.sampled_from(["r", "s"]))},
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    world = World(nodes)
    for n in range(draw(st.integers(1, 7))):
        priority = draw(st.sampled_from([Priority.BATCH, Priority.BATCH, Priority.BATCH,
                                         Priority.LATENCY_CRITICAL]))  # fmt: skip
        replicas = draw(st.sampled_from([1, 1, 1, 2, 3])) if wide else draw(st.sampled_from([1, 2]))
        request = draw(requests())
        job = Job(id=JobId(f"j{n}"), priority=priority, replicas=replicas, alternatives=(request,))
        found = plan(world.snapshot, job, BALANCED)
        if isinstance(found, Plan):
            facts = draw(occupants(priority))
            kind = draw(st.sampled_from(["", "", "", "array", "elastic"])) if forms else ""
            facts |= {"array": kind == "array", "least": int(kind == "elastic")}
            world.seat(job.id, found, [request] * replicas, **facts)
    return world


@st.composite
def preemptors(draw, replicas=1):
    priority = draw(st.sampled_from(list(Priority)))
    request = draw(requests())
    job = Job(id=JobId("w"), priority=priority, replicas=replicas, alternatives=(request,))
    rights = Rights.of(
        job,
        QUEUES[0],
        within=draw(st.booleans()),
        borrowed=draw(
            st.sampled_from([(), ((QUEUES[1], (("cpus_milli", 3000), ("gpus_milli", 2000))),)])
        ),
    )
    return job, rights


def seats_of(world, found):
    """What an eviction frees."""
    gone = [seat for job in found.victims for seat in world.running.seats(job)]
    for job, width in found.shrink:
        gone += [seat for seat in world.running.seats(job) if seat.rank >= width]
    for job, rank in found.tasks:
        gone += [seat for seat in world.running.seats(job) if seat.rank == rank]
    return gone


def check_rights(world, job, rights, found):
    """Written independently of the search."""
    reclaimed = {}
    for id in {*found.victims, *(j for j, _ in found.shrink), *(j for j, _ in found.tasks)}:
        o = world.running.occupants[id]
        assert not o.stopping
        assert o.preemptible_at_ms <= NOW_MS
        lower = o.priority < job.priority
        nicer = (
            rights.within
            and o.queue == rights.queue
            and o.priority == job.priority
            and o.nice > job.nice
        )
        lent = o.queue in dict(rights.borrowed) and o.priority <= job.priority
        assert lower or nicer or lent
        if lent and not lower and not nicer:
            for seat in seats_of(world, found):
                if seat.job == id:
                    for name in ("cpus_milli", "gpus_milli"):
                        key = o.queue, name
                        reclaimed[key] = reclaimed.get(key, 0) + getattr(seat.request, name)
    for (queue, name), amount in reclaimed.items():
        assert amount <= dict(dict(rights.borrowed)[queue])[name]


def fits_without(world, job, gone):
    with without(world.snapshot, [*world.running.leaving, *gone]):
        return isinstance(plan(world.snapshot, job, BALANCED), Plan)


def check(world, job, rights, found):
    """What holds of every answer."""
    if isinstance(found, NoVictims):
        if found.reason is Obstacle.FITS:
            assert isinstance(plan(world.snapshot, job, BALANCED), Plan)
        elif found.reason is Obstacle.WAIT:
            assert not isinstance(plan(world.snapshot, job, BALANCED), Plan)
            assert fits_without(world, job, [])
        else:
            assert not fits_without(world, job, [])
        return
    check_rights(world, job, rights, found)
    assert len(found.plan.seats) == job.replicas
    gone = seats_of(world, found)
    assert fits_without(world, job, gone)
    requests_ = [job.request(n, found.plan.alternative) for n in range(job.replicas)]
    for id in found.victims:
        less = [s for s in gone if s.job != id]
        assert not fits_without(world, job, less), f"{id} in vain"
    for id, width in found.shrink:
        less = [s for s in gone if s.job != id]
        assert not fits_without(world, job, less), f"{id} to {width} in vain"
    for id, rank in found.tasks:
        less = [s for s in gone if (s.job, s.rank) != (id, rank)]
        assert not fits_without(world, job, less), f"task {rank} of {id} in vain"
    with without(world.snapshot, [*world.running.leaving, *gone]):
        held = [
            Allocation(id=AllocationId(f"x{n}"), job=job.id, rank=n, node=seat.node,
                       request=request, devices=seat.devices)
            for n, (seat, request) in enumerate(zip(found.plan.seats, requests_, strict=True))
        ]  # fmt: skip
        for a in held:
            world.snapshot.hold(a)
        for a in held:  # the very places are free then
            row = world.snapshot.row[a.node]
            assert all(world.snapshot.devices[row, d] >= 0 for d in a.devices)
            assert not a.request.cpus_milli or world.snapshot.free_cpus[row] >= 0
        for a in held:
            world.snapshot.drop(a)


def brute_force(world, job, rights):
    """The least regret over all sets of whole jobs; None when no set does."""
    may = []
    for o in world.running.occupants.values():
        usd = regret_usd(o, world.running.width(o.job), NOW_MS)
        if rights.title(o) is not None and usd < float("inf"):
            may.append((o.job, usd))
    best = None
    for n in range(len(may) + 1):
        for chosen in combinations(may, n):
            usd = sum(cost for _, cost in chosen)
            gone = [s for j, _ in chosen for s in world.running.seats(j)]
            if (best is None or usd < best - 1e-12) and fits_without(world, job, gone):
                best = usd
    return best


@LAW
@given(worlds(), preemptors())
def test_every_answer_is_lawful_and_both_kernels_give_the_same(world, preemptor):
    job, rights = preemptor
    before = world.facts()
    answers = []
    for kernel in kernels():
        bounds.use(kernel)
        world.running.memo = None
        found = victims(world.snapshot, world.running, job, BALANCED, rights, None, NOW_MS)
        assert world.facts() == before
        check(world, job, rights, found)
        answers.append(found)
    bounds.use(bounds.numpy_bounds)
    assert answers[0] == answers[1]


@LAW
@given(worlds(forms=False), preemptors(), st.booleans())
def test_for_one_replica_no_cheaper_set_exists(world, preemptor, compiled):
    job, rights = preemptor
    rights = replace(rights, borrowed=())
    bounds.use(list(kernels())[compiled])
    found = victims(world.snapshot, world.running, job, BALANCED, rights, None, NOW_MS)
    bounds.use(bounds.numpy_bounds)
    least = brute_force(world, job, rights)
    if isinstance(found, Eviction):
        assert least is not None
        assert abs(found.regret_usd - least) < 1e-9
    else:
        assert least is None if found.reason in (Obstacle.RIGHTS, Obstacle.NOWHERE) else least == 0


@st.composite
def gangs(draw):
    job, rights = draw(preemptors(replicas=draw(st.integers(2, 5))))
    shape = draw(st.sampled_from(["", "", "packed", "roles", "spread", "apart"]))
    if shape == "packed":
        job = replace(job, packing=Packing(draw(st.sampled_from(["host", "rack"]))))
    elif shape == "roles" and job.replicas > 1:
        first = Role(name="one", resources=job.alternatives[0])
        rest = Role(name="rest", replicas=job.replicas - 1, resources=draw(requests()))
        job = replace(job, roles=(first, rest))
    elif shape == "spread":
        job = replace(job, spread=(Spread("host", max_skew=1),))
    elif shape == "apart":
        metadata = {"app": "w"}
        away = ReplicaTerm((("app", "w"),), "host", anti=True)
        job = replace(job, metadata=metadata, replica_affinity=(away,))
    return job, rights


@LAW
@given(worlds(wide=True), gangs(), st.booleans())
def test_a_gang_is_placed_whole_and_nobody_makes_way_in_vain(world, gang, compiled):
    job, rights = gang
    before = world.facts()
    bounds.use(list(kernels())[compiled])
    found = victims(world.snapshot, world.running, job, BALANCED, rights, None, NOW_MS)
    bounds.use(bounds.numpy_bounds)
    assert world.facts() == before
    check(world, job, rights, found)


@LAW
@given(worlds(wide=True), st.lists(preemptors(), min_size=1, max_size=6))
def test_rounds_of_preemption_come_to_an_end(world, preemptors_):
    """A small machine without the rest: who is stopped waits again, and may preempt in turn. Who
    stops whom has no circle, so there are at most as many preemptions as pairs of jobs."""
    waiting = [replace(job, id=JobId(f"w{n}")) for n, (job, _) in enumerate(preemptors_)]
    rights_of = {}
    asked = {}
    stopped = []
    for _ in range(200):
        if not waiting:
            break
        job = max(waiting, key=lambda j: (j.priority, j.id))
        waiting.remove(job)
        asked[job.id] = job
        found = plan(world.snapshot, job, BALANCED)
        if not isinstance(found, Plan):
            rights = rights_of.setdefault(job.id, Rights(priority=job.priority))
            answer = victims(world.snapshot, world.running, job, BALANCED, rights, None, NOW_MS)
            if not isinstance(answer, Eviction):
                continue  # it waits for others to end
            for victim in {*answer.victims, *(j for j, _ in answer.shrink + answer.tasks)}:
                assert (victim, job.id) not in stopped, "a victim preempted its preemptor"
                stopped.append((job.id, victim))
                assert world.running.occupants[victim].priority < job.priority
                for seat in list(world.running.seats(victim)):
                    world.snapshot.drop(seat)
                world.running.drop(victim)
                if victim in asked:
                    waiting.append(asked[victim])
            for seat in list(world.running.leaving):
                world.snapshot.drop(seat)
                world.running.unseat(seat)
            found = plan(world.snapshot, job, BALANCED)
            assert isinstance(found, Plan), "stopped in vain"
        world.seat(
            job.id, found, list(job.alternatives), queue=QUEUES[0], priority=job.priority,
            started_at_ms=NOW_MS,
        )  # fmt: skip
    else:
        raise AssertionError("no end of it")
    assert len(stopped) == len(set(stopped))


@LAW
@given(worlds(wide=True), gangs(), st.sampled_from([0.5, 5.0, 1000.0]), st.integers(1, 4))
def test_consolidation_moves_few_cheap_jobs_whole_and_the_gang_can_start(world, gang, gain, most):
    job, rights = gang
    sizes = {
        o.job: [s.request for s in sorted(world.running.seats(o.job), key=lambda s: s.rank)]
        for o in world.running.occupants.values()
    }

    def job_of(id):
        return Job(id=id, replicas=len(sizes[id]), alternatives=(sizes[id][0],))

    before = world.facts()
    found = consolidation(
        world.snapshot, world.running, job, BALANCED, rights, None, NOW_MS,
        MoveBudget(gain, most), job_of,
    )  # fmt: skip
    assert world.facts() == before
    if found is None:
        return
    assert not isinstance(plan(world.snapshot, job, BALANCED), Plan)
    assert 0 < len(found.victims) <= most
    assert found.regret_usd < gain
    for id in found.victims:
        occupant = world.running.occupants[id]
        assert occupant.priority <= job.priority
        assert not occupant.stopping
        assert occupant.preemptible_at_ms <= NOW_MS
    gone = seats_of(world, found)
    with without(world.snapshot, [*world.running.leaving, *gone]):
        plans = [(job, found.plan), *((job_of(p.job), p) for p in found.moves)]
        assert [p.job for p in found.moves] == list(found.victims)
        for owner, placed in plans:
            assert len(placed.seats) == owner.replicas
            for n, seat in enumerate(placed.seats):
                a = Allocation(
                    id=AllocationId(f"{owner.id}/{n}"), job=owner.id, rank=n, node=seat.node,
                    request=owner.request(n, placed.alternative), devices=seat.devices,
                )  # fmt: skip
                world.snapshot.hold(a)
                row = world.snapshot.row[a.node]
                assert (world.snapshot.devices[row] >= 0).all()
                assert not a.request.cpus_milli or world.snapshot.free_cpus[row] >= 0
                assert not a.request.memory_mib or world.snapshot.free_memory[row] >= 0


@LAW
@given(worlds(wide=True), st.lists(st.tuples(preemptors(), st.integers(0, 40)), max_size=8))
def test_kept_bounds_stay_true_while_jobs_come_go_and_are_claimed_from(world, steps):
    """After each change the kept bounds give the answer that new ones give."""
    now_ms = NOW_MS
    for n, ((job, rights), minutes) in enumerate(steps):
        now_ms += minutes * MINUTE_MS
        answers = []
        for kernel in kernels():
            bounds.use(kernel)
            if kernel is bounds.numpy_bounds:
                kept, world.running.memo = world.running.memo, None
            found = victims(world.snapshot, world.running, job, BALANCED, rights, None, now_ms)
            answers.append(found)
            if kernel is bounds.numpy_bounds:
                world.running.memo = kept
        bounds.use(bounds.numpy_bounds)
        assert answers[0] == answers[1]
        if isinstance(found, Eviction):
            for victim in found.victims:
                occupant = world.running.occupants[victim]
                if n % 2:
                    world.running.put(replace(occupant, stopping=True))
                else:
                    for seat in list(world.running.seats(victim)):
                        world.snapshot.drop(seat)
                    world.running.drop(victim)
            claim = Plan(JobId(f"c{n}"), 0, found.plan.seats)
            world.seat(claim.job, claim, list(job.alternatives))
        elif found.reason is Obstacle.FITS:
            place = plan(world.snapshot, job, BALANCED)
            world.seat(JobId(f"c{n}"), place, list(job.alternatives), queue=QUEUES[1],
                       priority=job.priority, started_at_ms=now_ms)  # fmt: skip
