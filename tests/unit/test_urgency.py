"""All threads of a daemon come before the jobs of its machine; what it starts does not."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, os, subprocess, sys, threading
from hyperion.daemon.urgency import keep_hurrying

def waits(event, told):
    told.append(threading.get_native_id())
    event.wait(30)

async def main():
    hurrying = asyncio.create_task(keep_hurrying())
    await asyncio.sleep(0.1)
    event, told = threading.Event(), []
    threading.Thread(target=waits, args=(event, told)).start()
    await asyncio.sleep(0.6)
    asks = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
    policies = [os.sched_getscheduler(0), os.sched_getscheduler(told[0])]
    print(json.dumps([policy & ~os.SCHED_RESET_ON_FORK for policy in policies]
                     + [int(subprocess.check_output(asks))]))
    hurrying.cancel()
    event.set()

asyncio.run(main())
"""


def test_threads_that_come_later_are_real_time_too_and_children_are_not():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True
    )
    own, later, child = json.loads(done.stdout)
    if own != os.SCHED_RR:
        pytest.skip("this host lets nobody be real-time")
    assert (later, child) == (os.SCHED_RR, os.SCHED_OTHER)
