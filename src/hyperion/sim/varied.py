"""Jobs of every shape that a cluster knows, and the rules it is given, from one seed."""

import random
from collections.abc import Iterator

from msgspec.structs import replace

from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.ids import JobId, NodeId, QueueName, UserId, WindowId
from hyperion.model.job import (
    Array,
    Checkpoint,
    Condition,
    Dependency,
    Elastic,
    Job,
    Pausing,
    Priority,
    Residency,
    Restart,
    Role,
)
from hyperion.model.queue import Queue
from hyperion.model.resources import ResourceRequest
from hyperion.model.window import Window
from hyperion.sim.workload import Arrival

QUEUES = (
    Queue(name=QueueName("lab"), quota={"cpus_milli": 24_000}),
    Queue(
        name=QueueName("vision"),
        parent=QueueName("lab"),
        quota={"gpus_milli": 2000},
        preempt_within=True,
    ),
    Queue(
        name=QueueName("speech"),
        parent=QueueName("lab"),
        quota={"gpus_milli": 2000},
        borrow={"gpus_milli": 2000},
        weight=2.0,
    ),
    Queue(name=QueueName("small"), quota={"cpus_milli": 4000}),
)
"""A cohort that lends, and a queue by itself. What they may hold fits any cluster of the world."""
LABELS = {"team": "a"}
_WAITED_FOR = 4
_AT_HOME = (Residency(deny=("gcp",)), Residency(allow=("gcp/eu*",)))
"""Each leaves one of two clusters, which may be cut off for a while."""


def arrivals(dice: random.Random, jobs: int, over_ms: int) -> Iterator[Arrival]:
    """Like ``workload.arrivals``, with everything that a job may ask for."""
    times = sorted(dice.randrange(over_ms) for _ in range(jobs))
    for n, at_ms in enumerate(times):
        fails = dice.random() < 0.15
        shape = dice.choice((_plain, _plain, _gang, _array, _elastic, _roles, _near))
        job = shape(dice, JobId(f"j{n:04}"))
        earlier = [JobId(f"j{k:04}") for k in range(max(0, n - _WAITED_FOR), n)]
        yield Arrival(
            at_ms=at_ms,
            job=_ruled(dice, job, earlier, retries=dice.choice((0, 2)) if fails else 0),
            runs_ms=dice.choice((10, 500, 3000, 10_000, 25_000)),
            exit_codes=(1, 0) if fails else (0,),
            cancel_at_ms=at_ms + dice.randrange(8000) if dice.random() < 0.1 else None,
        )


def windows(dice: random.Random, nodes: list[NodeId], over_ms: int) -> list[tuple[int, Window]]:
    """(when it is asked for, the window): short maintenance of single nodes, never of the first,
    times as the world counts them."""
    found = []
    for n in range(dice.choice((0, 1, 2))):
        asked_ms = dice.randrange(over_ms)
        begins_ms = asked_ms + dice.randrange(1, 10_000)
        window = Window(
            id=WindowId(f"w{n}"),
            begins_at_ms=begins_ms,
            ends_at_ms=begins_ms + dice.randrange(1000, 15_000),
            nodes=(dice.choice(nodes[1:]),),
            users=(UserId("ann"),) if dice.random() < 0.3 else (),
        )
        found.append((asked_ms, window))
    return found


def _request(dice: random.Random, gpus: tuple[int, ...] = (0, 500, 1000, 2000)) -> ResourceRequest:
    terms = (NodeTerm("zone", Operator.IN, ("z0", "z1"), weight=dice.choice((0, 50))),)
    return ResourceRequest(
        gpus_milli=dice.choice(gpus),
        cpus_milli=dice.choice((500, 1000, 4000)),
        memory_mib=dice.choice((0, 1024)),
        custom=(("fpga", 1),) if dice.random() < 0.1 else (),
        affinity=terms if dice.random() < 0.2 else (),
    )


def _plain(dice: random.Random, id: JobId) -> Job:
    return Job(id=id, command=("true",), alternatives=(_request(dice),))


def _gang(dice: random.Random, id: JobId) -> Job:
    level = dice.choice(("host", "rack", "zone"))
    return Job(
        id=id,
        command=("true",),
        replicas=dice.choice((2, 4)),
        alternatives=(_request(dice, (0, 500, 1000)),),
        packing=Packing(level, required=level == "zone") if dice.random() < 0.5 else None,
        spread=(Spread("host", 3, required=False),) if dice.random() < 0.3 else (),
    )


def _array(dice: random.Random, id: JobId) -> Job:
    array = Array(
        size=dice.choice((1, 3, 12)), first=dice.choice((0, 5)), limit=dice.choice((0, 2))
    )
    return Job(id=id, command=("true",), alternatives=(_request(dice, (0, 500)),), array=array)


def _elastic(dice: random.Random, id: JobId) -> Job:
    return Job(
        id=id,
        command=("true",),
        replicas=4,
        elastic=Elastic(min=dice.choice((1, 2)), restart=dice.random() < 0.5),
        alternatives=(_request(dice, (0, 500, 1000)),),
    )


def _roles(dice: random.Random, id: JobId) -> Job:
    first = ResourceRequest(gpus_milli=1000, cpus_milli=1000)
    roles = (
        Role(name="trainer", replicas=dice.choice((1, 2)), resources=first),
        Role(name="server", resources=ResourceRequest(cpus_milli=dice.choice((500, 2000)))),
    )
    replicas = sum(role.replicas for role in roles)
    return Job(id=id, command=("true",), replicas=replicas, alternatives=(first,), roles=roles)


def _near(dice: random.Random, id: JobId) -> Job:
    term = ReplicaTerm(
        labels=tuple(LABELS.items()),
        level=dice.choice(("host", "rack")),
        anti=dice.random() < 0.5,
        weight=50,
    )
    return Job(
        id=id,
        command=("true",),
        alternatives=(_request(dice),),
        metadata=LABELS,
        replica_affinity=(term,),
    )


def _ruled(dice: random.Random, job: Job, earlier: list[JobId], retries: int) -> Job:
    """With whose turn it is, what it waits for, and how it may be stopped."""
    after: tuple[Dependency, ...] = ()
    if earlier and dice.random() < 0.2:
        condition = dice.choice((Condition.OK, Condition.ANY, Condition.NOT_OK))
        after = (Dependency(dice.choice(earlier), condition),)
    urgent = (Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY)
    number = int(job.id.removeprefix("j"))
    small = job.replicas == 1 and job.alternatives[0].cpus_milli <= 1000
    return replace(
        job,
        user=UserId(dice.choice(("ann", "bob"))),
        priority=dice.choice(urgent) if dice.random() < 0.2 else Priority.BATCH,
        queue=QueueName(dice.choice(("", "", "vision", "speech", "small" if small else ""))),
        nice=dice.choice((0, 0, 10)),
        after=after,
        begin_s=dice.choice((0.0, 0.0, 0.0, 2.0)),
        expected_s=dice.choice((0.0, 1.0, 5.0, 30.0)),
        min_runtime_s=dice.choice((0.0, 0.0, 2.0)),
        restart=Restart(max=retries, backoff_s=1.0),
        checkpoint=Checkpoint(
            grace_s=dice.choice((0.5, 2.0, 20.0)),
            dir=dice.choice(("", "/checkpoints")),
            every_s=dice.choice((0.0, 1.0)),
        ),
        regions=_AT_HOME[number % 10] if number % 10 < len(_AT_HOME) else Residency(),
        pausing=Pausing(forbidden=number % 7 == 0, hold_s=(1.5, 30.0)[number % 2]),
    )
