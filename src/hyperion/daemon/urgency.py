"""Puts a daemon before the jobs on its machine, as far as the host lets it.

Between an urgent job and the CPUs that it waits for stand only the scheduler and an agent. On a
machine whose CPUs are all taken they would wait for their turns like anybody else.
"""

import asyncio
import os
from contextlib import suppress

NICE = -15
LOOKS_S = (0.0, 1.0, 5.0, 30.0)
"""When its threads are looked at, for some are made only once work comes in."""


def may_hurry() -> bool:
    """Whether this process got its priority; what it starts begins with the ordinary one."""
    try:
        ordinary = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, ordinary, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError:
        return False
    return True


async def keep_hurrying() -> None:
    """Threads made since begin with the ordinary priority: raise it, a few times."""
    if not may_hurry():
        return
    for after_s in LOOKS_S:
        await asyncio.sleep(after_s)
        for tid in os.listdir("/proc/self/task"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(tid), NICE)
