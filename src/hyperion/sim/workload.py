"""Jobs for the seeded world: sizes, gangs, failures and cancellations from one seed."""

import random
from collections.abc import Iterator

from msgspec import Struct

from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Checkpoint, Job, Priority, Restart
from hyperion.model.resources import ResourceRequest


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
