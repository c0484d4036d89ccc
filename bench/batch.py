"""Jobs that wait together, placed together: 1,000 jobs over 100 clusters, greedily by regret.

Run: ``python bench/batch.py [--jobs 1000] [--clusters 100] [--shapes 20] [--repeat 3] [--json]``
"""

import gc
import random
import sys
import time
from functools import partial

from measure import median, parser, progress, report
from msgspec.structs import replace

from hyperion.adapters.market.static import StaticMarket
from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DataSource, Job
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.assignment import Batch
from hyperion.placement.choice import FleetCluster, rank, shape_key
from hyperion.placement.optimal import Optimal
from hyperion.placement.ranking import TooLate, policy

METHOD = (
    "{jobs:,} jobs of {shapes} shapes (1 to 8 GPUs, data of 10 to 2,000 GiB in one of the regions, "
    "an hour to two days) drawn in turn over {clusters} clusters in the shipped market's regions, "
    "whose free GPUs are {room:.0%} of what the jobs ask for; each job draws room like the "
    "federation's round and the whole is then assigned by regret; 'from ready ranks' leaves out "
    "the ranking of each shape, 'a round' is the federation machine's, with reasons and "
    "records; garbage is collected as the daemons do"
)
GOAL_MS = 50.0


def fleet_of(clusters, market, gpus):
    dice, regions = random.Random(1), sorted(market.regions)
    for n in range(clusters):
        nodes = max(1, round(gpus / clusters / 8 * dice.uniform(0.5, 1.5)))
        shape = Shape(
            capacity=Capacity(gpus=8, gpu_type="A100", cpus_milli=96_000, memory_mib=1_048_576),
            nodes=nodes,
            usd_per_hour=dice.uniform(8, 34),
            free_gpus_milli=8000 * nodes,
            free_cpus_milli=96_000 * nodes,
            free_memory_mib=1_048_576 * nodes,
        )
        yield FleetCluster(
            cluster=Cluster(id=ClusterId(f"c{n:03}"), region=regions[n % len(regions)]),
            load=ClusterLoad(shapes=(shape,)),
        )


def jobs_of(jobs, shapes, market):
    dice, regions = random.Random(2), sorted(market.regions)
    kinds = [
        Job(
            id=JobId("j"),
            command=("true",),
            alternatives=(
                ResourceRequest(gpus_milli=1000 * dice.choice((1, 2, 4, 8)), cpus_milli=8000),
            ),
            data=(DataSource("s3://d", dice.choice((10, 200, 2000)), dice.choice(regions)),),
            expected_s=3600 * dice.uniform(1, 48),
        )
        for _ in range(shapes)
    ]
    return [replace(kinds[n % shapes], id=JobId(f"j{n}")) for n in range(jobs)]


def ranked(jobs, fleet, market, ranker):
    """By shape; which shape a job is of, ``settled`` asks like the machine, once a job."""
    kinds = {job.expected_s: job for job in jobs}.values()
    return {shape_key(job): (job, rank(job, fleet, market, ranker)) for job in kinds}


def settled(jobs, fleet, places):
    batch = Batch(fleet)
    for key, (job, found) in places.items():
        batch.meet(key, job, found)
    drawn = sum(batch.take(shape_key(job)) for job in jobs)
    return drawn, batch, list(batch.settle())


def timed(action):
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    answer = action()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return answer, 1e3 * wall, 1e3 * cpu


def one_by_one(jobs, fleet, places):
    """What the sum of costs is without regret."""
    batch, total = Batch(fleet), 0.0
    for key, (job, found) in places.items():
        batch.meet(key, job, found)
    for job in jobs:
        if batch.take(shape_key(job)):
            likes, at = batch._drawn[-1]
            total += likes.options[at].cost
    return total


def proven(jobs, fleet, places, limit_ms=10_000):
    """The sum of costs that the exact policy finds; None without its extra, or without a proof."""
    batch = Batch(fleet)
    for key, (job, found) in places.items():
        batch.meet(key, job, found)
    for job in jobs:
        batch.take(shape_key(job))
    try:
        return sum(seat.chosen.cost for seat in batch.settle(Optimal(limit_ms=limit_ms).assign))
    except (ValueError, TooLate) as error:
        print(f"optimal: {error}", file=sys.stderr)
        return None


def a_round(jobs, fleet, market):
    machine = Federation(market, "balanced")
    for member in fleet:
        hello = m.ClusterHello(cluster=member.cluster, load=ClusterLoad())
        machine.handle(m.ClusterAttached(hello=hello), 1)
    for n, job in enumerate(jobs):
        machine.handle(m.JobSubmitted(job=job, token=n), 1)
    for member in fleet:
        beat = m.ClusterHeartbeat(sequence=1, load=member.load)
        machine.handle(m.ClusterHeard(cluster=member.cluster.id, heartbeat=beat), 1)
    outcome, wall, cpu = timed(lambda: machine.round(2))
    placed = sum(bool(known.status.cluster) for known in machine.state.jobs.values())
    assert placed == len(jobs), f"{placed} of {len(jobs)} placed, {len(outcome.commands)} orders"
    return wall, cpu


def main():
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=1000)
    options.add_argument("--clusters", type=int, default=100)
    options.add_argument("--shapes", type=int, default=20)
    options.add_argument("--room", type=float, default=1.3, help="free GPUs over asked ones")
    chosen = options.parse_args()
    market, ranker = StaticMarket().view(), policy("balanced")
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    rows = []
    for shapes in dict.fromkeys((chosen.shapes, chosen.jobs)):
        jobs = jobs_of(chosen.jobs, shapes, market)
        asked = sum(job.alternatives[0].gpus_milli for job in jobs) / 1000
        fleet = tuple(fleet_of(chosen.clusters, market, chosen.room * asked))
        runs = []
        for n in range(chosen.repeat + 1):  # the first one warms up
            progress(f"{shapes} shapes, run {n} of {chosen.repeat}")
            rank_all = partial(ranked, jobs, fleet, market, ranker)
            places, rank_wall, rank_cpu = timed(rank_all)
            (drawn, batch, seats), wall, cpu = timed(partial(settled, jobs, fleet, places))
            both = wall + rank_wall, cpu + rank_cpu
            runs.append((wall, cpu, *both, *a_round(jobs, fleet, market)))
        assert drawn == len(jobs), f"only {drawn} find room: raise --room"
        assert batch.contested, "nobody competes: this measures nothing"
        alone = one_by_one(jobs, fleet, places)
        together = sum(seat.chosen.cost for seat in seats)
        exact, exact_wall, exact_cpu = timed(partial(proven, jobs, fleet, places))
        figures = [median([run[n] for run in runs[1:]], 1) for n in range(6)]
        name = f"{shapes} shapes: "
        goal = {"goal": GOAL_MS} if shapes == chosen.shapes else {}
        rows += [
            {"figure": name + "from ready ranks, wall", "unit": "ms", "value": figures[0], **goal},
            {"figure": name + "from ready ranks, CPU", "unit": "ms", "value": figures[1]},
            {"figure": name + "ranking and all, wall", "unit": "ms", "value": figures[2], **goal},
            {"figure": name + "ranking and all, CPU", "unit": "ms", "value": figures[3]},
            {"figure": name + "a round, wall", "unit": "ms", "value": figures[4]},
            {"figure": name + "a round, CPU", "unit": "ms", "value": figures[5]},
            {"figure": name + "cost against one by one", "unit": "%",
             "value": round(100 * together / alone, 2)},
            {"figure": name + "optimal, the same", "unit": "%",
             "value": round(100 * exact / alone, 2) if exact else "none"},
            {"figure": name + "optimal, wall (one run)", "unit": "ms", "value": round(exact_wall)},
            {"figure": name + "optimal, CPU (one run)", "unit": "ms", "value": round(exact_cpu)},
        ]  # fmt: skip
    method = METHOD.format(
        jobs=chosen.jobs, shapes=chosen.shapes, clusters=chosen.clusters, room=chosen.room
    )
    report("batch", method, rows, chosen.json)


if __name__ == "__main__":
    main()
