"""Jobs for the seeded world: sizes, gangs, failures and cancellations from one seed."""

import random
from collections.abc import Iterator

from msgspec import Struct

from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Checkpoint, Job, Pausing, Priority, Restart, Standby
from hyperion.model.resources import ResourceRequest


class Size(Struct, frozen=True, kw_only=True):
    clusters: int = 2
    nodes: int = 3
    """In each cluster."""
    jobs: int = 24
    over_ms: int = 30_000
    """Jobs arrive within this time."""
    urgent: bool = False
    """Batch jobs that fill the CPUs, and urgent ones for which they stand still."""
    datasets: bool = False
    """Some jobs read and write datasets, which somebody adds and drops meanwhile."""
    gpus: bool = False
    """Of the urgent worlds: all hold half a GPU, which a standby may share with others."""
    tides: bool = False
    """Prices rise and fall, and most jobs may be moved while they run."""
    by_itself: bool = False
    """Of the urgent worlds: many jobs come to a stand by themselves. There are no standbys, which
    wait for nobody to do so."""
    varied: bool = False
    """Jobs of every shape, queues with quotas, windows; otherwise plain jobs and gangs."""


def size_of(seed: int) -> Size:
    """Odd seeds bring jobs of every shape, queues and windows; of the even ones every second brings
    plain jobs and gangs, every second urgent jobs for which others stand still, half of them by
    themselves; of the rest every second some that share GPUs."""
    if seed % 4 == 2:
        return Size(urgent=True, jobs=40, by_itself=seed % 8 == 6, gpus=seed % 16 == 10)
    return Size(varied=seed % 2 == 1)


class Arrival(Struct, frozen=True):
    at_ms: int
    job: Job
    runs_ms: int
    exit_codes: tuple[int, ...]
    """Of its attempts, in turn; the last one is repeated."""
    cancel_at_ms: int | None = None


def arrivals(dice: random.Random, jobs: int, over_ms: int) -> Iterator[Arrival]:
    for n in range(jobs):
        at_ms = dice.randrange(over_ms)
        fails = dice.random() < 0.15
        retries = dice.choice((0, 2)) if fails else 0
        yield Arrival(
            at_ms=at_ms,
            job=Job(
                id=JobId(f"j{n:04}"),
                user=UserId("sim"),
                command=("true",),
                replicas=dice.choice((1, 1, 1, 2, 4)),
                priority=dice.choice((Priority.BATCH, Priority.BATCH, Priority.LATENCY_CRITICAL)),
                alternatives=(
                    ResourceRequest(
                        gpus_milli=dice.choice((0, 500, 1000, 2000)),
                        cpus_milli=dice.choice((500, 1000, 4000)),
                        memory_mib=dice.choice((0, 1024)),
                    ),
                ),
                restart=Restart(max=retries, backoff_s=1.0),
                checkpoint=Checkpoint(grace_s=dice.choice((0.5, 2.0, 60.0))),
            ),
            runs_ms=dice.choice((10, 500, 3000, 10_000, 40_000)),
            exit_codes=(1, 0) if fails else (0,),
            cancel_at_ms=at_ms + dice.randrange(8000) if dice.random() < 0.1 else None,
        )


def urgent_arrivals(
    dice: random.Random, jobs: int, over_ms: int, by_itself: bool = False, gpus: bool = False
) -> Iterator[Arrival]:
    """Batch jobs that fill the CPUs, and short urgent ones that want the same CPUs at once."""
    for n in range(jobs):
        at_ms = dice.randrange(over_ms)
        urgent = dice.random() < 0.5
        priority = dice.choice((Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY))
        fails = dice.random() < 0.1
        stays = urgent and dice.random() < 0.25
        runs_ms = (20_000, 70_000) if stays else (10, 500, 3000) if urgent else (20_000, 40_000)
        yield Arrival(
            at_ms=at_ms,
            job=Job(
                id=JobId(f"j{n:04}"),
                user=UserId("sim"),
                command=("true",),
                replicas=dice.choice((1, 1, 1, 2)),
                priority=priority if urgent else Priority.BATCH,
                alternatives=(
                    ResourceRequest(
                        gpus_milli=500 if gpus else 0,
                        cpus_milli=dice.choice((2000, 4000)),
                        memory_mib=dice.choice((0, 0, 1024, 6000)),
                    ),
                ),
                restart=Restart(max=2 if fails else 0, backoff_s=1.0),
                checkpoint=Checkpoint(grace_s=dice.choice((0.5, 2.0, 20.0))),
                pausing=Pausing(
                    forbidden=dice.random() < 0.1,
                    hold_s=dice.choice((2.0, 30.0)),
                    at=("step", "point", "")[n % 3] if by_itself else "",
                    gpu_queue_s=0.006 if gpus and n % 4 else 0.0,
                    criu=by_itself and n % 2 == 0,
                ),
                standby=Standby(quiet_s=0.5) if stays and not by_itself else None,
            ),
            runs_ms=dice.choice(runs_ms),
            exit_codes=(1, 0) if fails else (0,),
            cancel_at_ms=at_ms + dice.randrange(8000) if dice.random() < 0.1 else None,
        )
