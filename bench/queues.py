"""What it costs to know whose turn it is: µs of CPU for each job and question, bytes for each job.

1,000 queues in 10 cohorts, each with a quota of 20 CPUs, as in Kueue's large-scale test: 35 small
(1 CPU, 0.15 s), 11 medium (5 CPUs, 0.35 s) and 4 large (20 CPUs, 0.7 s) jobs a queue.
Run: ``python bench/queues.py [--repeat 3] [--jobs 1000000] [--json]``
"""

import gc
import heapq
import time
import tracemalloc

from measure import median, parser, progress, report

from hyperion.control.queue import WaitingQueue
from hyperion.model.ids import JobId
from hyperion.model.queue import Queue
from hyperion.placement.fairness import QueueTree

METHOD = (
    "CPU time of one process without I/O. flow: every job is added, admitted, charged, and given "
    "back when its time is over, in virtual time, with rounds whenever something ended (each a "
    "look at all that waits, as the scheduler takes); refused: a round in which all cohorts are "
    "full; admission, charge: one call; bytes: tracemalloc, ids not counted."
)
COHORTS, QUEUES = 10, 1000
SIZES = (("small", 35, 1000, 150), ("medium", 11, 5000, 350), ("large", 4, 20_000, 700))
QUOTA = {"cpus_milli": 20_000}


def tree():
    made = QueueTree(Queue(name=f"cohort{n}") for n in range(COHORTS))
    for n in range(QUEUES):
        made.put(Queue(name=f"q{n}", parent=f"cohort{n % COHORTS}", quota=QUOTA))
    made.set_capacity({"cpus_milli": QUEUES * QUOTA["cpus_milli"]})
    return made


def workloads():
    """(queue, shape, need, length in ms) in the order in which they arrive: sizes mixed."""
    for size, count, cpus_milli, lasts_ms in SIZES:
        need = (("cpus_milli", cpus_milli),)
        for k in range(count):
            for n in range(QUEUES):
                yield k / count, f"q{n}", size, need, lasts_ms


def fill(queue):
    jobs = {}
    for order, (_, name, shape, need, lasts_ms) in enumerate(sorted(workloads())):
        job = JobId(f"j{order}")
        jobs[job] = (name, need, lasts_ms)
        queue.add(job, queue=name, priority=1, order=order, shape=shape, need=need)
    return jobs


def flow(*, step_ms=1):
    """CPU µs a job, virtual seconds, and rounds, until all jobs have been played."""
    queue = WaitingQueue(tree())
    held = queue.tree
    began = time.process_time()
    jobs = fill(queue)
    ends, now_ms, rounds = [], 0, 0
    while len(queue) or ends:
        for job, verdict in queue.candidates(now_ms):
            name, need, lasts_ms = jobs[job]
            if verdict.at_once:
                held.charge(name, need, 1, now_ms)
                queue.remove(job)
                heapq.heappush(ends, (now_ms + lasts_ms, job))
            else:
                queue.pass_over(job)
        rounds += 1
        now_ms = max(now_ms + step_ms, ends[0][0]) if ends else now_ms + step_ms
        while ends and ends[0][0] <= now_ms:
            name, need, _ = jobs[heapq.heappop(ends)[1]]
            held.charge(name, need, -1, now_ms)
    held.check()
    return (time.process_time() - began) * 1e6 / len(jobs), now_ms / 1000, rounds


def cpu_us(action, count):
    gc.collect()
    began = time.process_time_ns()
    action()
    return (time.process_time_ns() - began) / 1000 / count


def calls():
    """µs of an admission and of a charge, in a half-full tree."""
    made = tree()
    need = (("cpus_milli", 1000), ("memory_mib", 100))
    for n in range(QUEUES):
        made.charge(f"q{n}", (("cpus_milli", 10_000),), 1, 1)
    names = [f"q{n}" for n in range(QUEUES)] * 20

    def ask():
        for name in names:
            made.admission(name, need)

    def charge():
        for n, name in enumerate(names):
            made.charge(name, need, 1 if n < len(names) // 2 else -1, n)

    return cpu_us(ask, len(names)), cpu_us(charge, len(names))


def full():
    """µs of a round after one job of a full cohort has ended and its place was taken again."""
    queue = WaitingQueue(tree())
    jobs = fill(queue)
    running = []

    def play(now_ms):
        for job, verdict in queue.candidates(now_ms):
            if not verdict.at_once:
                queue.pass_over(job)
                continue
            name, need, _ = jobs[job]
            queue.tree.charge(name, need, 1, now_ms)
            queue.remove(job)
            running.append((name, need))

    play(1)
    count = 2000

    def turn():
        for n in range(count):
            name, need = running.pop(n * 7919 % len(running))
            queue.tree.charge(name, need, -1, n)
            play(n)

    return cpu_us(turn, count)


def memory(count):
    """Bytes of each of so many waiting jobs, in 1,000 queues with three shapes."""
    ids = [JobId(f"job-{n:07d}") for n in range(count)]
    queue = WaitingQueue(tree())
    names = [f"q{n}" for n in range(QUEUES)]
    sizes = [(size, (("cpus_milli", cpus),)) for size, _, cpus, _ in SIZES]
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n, job in enumerate(ids):
        shape, need = sizes[n % 3]
        queue.add(job, queue=names[n % QUEUES], priority=1, order=n, shape=shape, need=need,
                  key=float(n))  # fmt: skip
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=1_000_000, help="waiting jobs for bytes")
    wishes = arguments.parse_args()
    flows, admissions, charges, rounds = [], [], [], []
    for n in range(wishes.repeat):
        progress(f"{n + 1} of {wishes.repeat}")
        flows.append(flow())
        asked, charged = calls()
        admissions.append(asked)
        charges.append(charged)
        rounds.append(full())
    seconds, passes = flows[0][1:]
    us = "µs of CPU"
    rows = [
        {"figure": "flow: a job from its arrival to its end", "unit": us, "goal": 100,
         "value": median([f[0] for f in flows])},
        {"figure": f"flow: 50,000 jobs in {passes} rounds", "unit": "virtual s",
         "value": round(seconds, 2)},
        {"figure": "a round in full cohorts after one job ended", "unit": us,
         "value": median(rounds)},
        {"figure": "admission", "unit": us, "value": median(admissions), "goal": 5},
        {"figure": "charge", "unit": us, "value": median(charges)},
        {"figure": f"a waiting job, of {wishes.jobs:,}", "unit": "bytes", "goal": 250,
         "value": round(memory(wishes.jobs))},
    ]  # fmt: skip
    report("queues", METHOD, rows, wishes.json)


if __name__ == "__main__":
    main()
