"""Puts a daemon before the jobs on its machine, as far as the host lets it.

Between an urgent job and the CPUs that it waits for stand only the scheduler and an agent. On a
machine whose CPUs are all taken they would wait for their turns like anybody else, and that is
where the tail of preemption comes from. So they are real-time, in turns with each other and below
the fast path; the kernel keeps 5 % of each second for all others. What they start is not.
"""

import asyncio
import os
from contextlib import suppress

PRIORITY = 3
"""Above standbys (1) and what is being stopped for them (2)."""
NICE = -15
LOOK_S = 0.25
"""So often its threads are looked at: some are made only as work comes in, and one that is not
real-time holds up all that goes through it."""


def hurry() -> str:
    """What all threads of this process are now: ``real-time``, ``nice``, or nothing better than
    others. Threads and processes that come later begin as anybody."""
    how = "ordinary"
    for name in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):
            how = _raise(int(name))
    if how == "nice":
        # Where sessions are groups to the kernel, niceness counts only within one.
        with suppress(OSError), open("/proc/self/autogroup", "w") as file:
            file.write(str(NICE))
    return how


def _raise(tid: int) -> str:
    realtime = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    if os.sched_getscheduler(tid) == realtime:
        return "real-time"
    try:
        os.sched_setscheduler(tid, realtime, os.sched_param(PRIORITY))
    except PermissionError:
        if os.getpriority(os.PRIO_PROCESS, tid) == NICE:
            return "nice"
        try:
            ordinary = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(tid, ordinary, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, tid, NICE)
        except PermissionError:
            return "ordinary"
        return "nice"
    return "real-time"


async def keep_hurrying() -> None:
    """For as long as the daemon lives, unless this host lets it come before nobody."""
    while True:
        if hurry() == "ordinary":
            return
        await asyncio.sleep(LOOK_S)
