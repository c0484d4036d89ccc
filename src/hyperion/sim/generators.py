"""Workloads made from a seed, for those who have no trace: by name, all with the same options."""

import math
import random
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.ids import JobId, QueueName, UserId
from hyperion.model.job import Checkpoint, Job, Priority
from hyperion.model.resources import MILLI
from hyperion.sim.trace import Trace, TraceError, TraceJob, assembled
from hyperion.sim.traces.cells import Reading
from hyperion.sim.traces.published import gpu_request

GAP_S = 60.0
"""Mean time between two arrivals; ``--load`` sets another pace."""


class _Draft(Struct, frozen=True):
    """What a generator says of one job; the rest is the same for all."""

    gpus: float
    runs_s: float
    priority: Priority = Priority.BATCH
    queue: str = ""
    checkpoint: Checkpoint = Checkpoint()


Maker = Callable[[random.Random], _Draft]


def training(dice: random.Random) -> _Draft:
    """Like a training cluster: most jobs small and short, most of the work in few, long ones."""
    gpus = dice.choices((1, 2, 4, 8, 16, 32, 64), (55, 12, 11, 13, 5, 3, 1))[0]
    runs_s = math.exp(dice.gauss(6.2, 1.9)) * (1 + math.log2(gpus) / 2)
    return _Draft(gpus=gpus, runs_s=_within(runs_s, 30, 10 * 86_400), queue=_team(dice))


def sharing(dice: random.Random) -> _Draft:
    """Many that need a part of a GPU (notebooks, small services), some that need several."""
    gpus = dice.choices((0.1, 0.25, 0.5, 1, 2, 4, 8), (15, 20, 20, 25, 8, 6, 6))[0]
    runs_s = math.exp(dice.gauss(7.5, 1.4))
    return _Draft(gpus=gpus, runs_s=_within(runs_s, 60, 5 * 86_400), queue=_team(dice))


def urgent(dice: random.Random) -> _Draft:
    """Training, and inference that may not wait: one job in six is latency-critical."""
    if dice.random() > 1 / 6:
        long = training(dice)
        return replace(long, checkpoint=Checkpoint(every_s=1800.0, restore_s=120.0))
    gpus = dice.choice((1, 1, 2, 4))
    priority = dice.choices((Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY), (4, 1))[0]
    runs_s = _within(math.exp(dice.gauss(6.5, 1.0)), 60, 86_400)
    return _Draft(gpus=gpus, runs_s=runs_s, priority=priority, queue="serving")


def gangs(dice: random.Random) -> _Draft:
    """Large gangs among many small jobs: who waits until the cluster has emptied for them?"""
    if dice.random() < 0.05:
        gpus = dice.choice((64, 128, 256))
        return _Draft(gpus=gpus, runs_s=_within(math.exp(dice.gauss(9, 0.7)), 600, 2 * 86_400))
    runs_s = _within(math.exp(dice.gauss(6.5, 1.2)), 60, 86_400)
    return _Draft(gpus=dice.choice((1, 1, 1, 2, 4, 8)), runs_s=runs_s, queue=_team(dice))


GENERATORS: dict[str, Maker] = {
    "training": training,
    "sharing": sharing,
    "urgent": urgent,
    "gangs": gangs,
}


def generate(name: str, jobs: int, seed: int, reading: Reading) -> Trace:
    """So many jobs of the generator of this name; ``TraceError`` names the nearest one.

    Arrivals are a Poisson process; the load and its pace are set afterwards (``trace.at_load``).
    """
    make = GENERATORS.get(name)
    if make is None:
        from difflib import get_close_matches

        near = get_close_matches(name, GENERATORS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(GENERATORS)
        raise TraceError(f'no generator is called "{name}"{hint} (generators: {known})')
    dice = random.Random(seed)
    found, at_s = [], 0.0
    for n in range(jobs):
        found.append(_job(f"{name}-{n}", at_s, make(dice), dice, reading))
        at_s += dice.expovariate(1 / GAP_S)
    return assembled(name, found, notes=(f"made by the generator {name} with seed {seed}",))


def _job(name: str, at_s: float, draft: _Draft, dice: random.Random, reading: Reading) -> TraceJob:
    request, replicas = gpu_request(max(1, int(draft.gpus)), reading)
    if draft.gpus < 1:
        part = draft.gpus
        request = replace(
            request,
            gpus_milli=int(MILLI * part),
            cpus_milli=int(request.cpus_milli * part),
            memory_mib=int(request.memory_mib * part),
        )
    return TraceJob(
        at_ms=int(1000 * at_s),
        job=Job(
            id=JobId(name),
            user=UserId(f"u{dice.randrange(20)}"),
            queue=QueueName(draft.queue),
            priority=draft.priority,
            command=("true",),
            replicas=replicas,
            alternatives=(request,),
            checkpoint=draft.checkpoint,
        ),
        runs_ms=int(1000 * draft.runs_s),
    )


def _team(dice: random.Random) -> str:
    return dice.choices(("vision", "language", "speech", "science"), (4, 3, 2, 1))[0]


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
