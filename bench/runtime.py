"""Replicas per second, and the agent's CPU per replica, of the process runtime alone.

Launches ``true`` with a bounded number in flight until each has been reported and dropped.
Usage: python bench/runtime.py [--count 1000] [--in-flight 16] [--no-cgroups] [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.control.messages import ReplicaExited, ReplicaStarted, Run
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Surroundings


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def measure(count, in_flight, use_cgroups, directory):
    ended, begun, latencies_ms = set(), {}, []
    room = asyncio.Semaphore(in_flight)

    def emit(event):
        if isinstance(event, ReplicaExited):
            assert event.exit_code == 0, event
            latencies_ms.append(1000 * (time.perf_counter() - begun[event.allocation]))
            ended.add(event.allocation)
            room.release()
        else:
            assert isinstance(event, ReplicaStarted), event

    runtime = ProcessRuntime(
        directory,
        lambda *_: Surroundings(variables={"RANK": "0"}, files={}),
        "127.0.0.1",
        use_cgroups=use_cgroups,
    )
    await runtime.start(emit)
    job = Job(id=JobId("bench"), command=("true",))
    wall, cpu = time.perf_counter(), time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    for number in range(count):
        await room.acquire()
        for done in ended:
            await runtime.drop(done)
        ended.clear()
        name = AllocationId(f"bench.1-1.{number}")
        begun[name] = time.perf_counter()
        order = Run(
            allocation=name, generation=1, job=job, rank=0, attempt=1, request=ResourceRequest()
        )
        await runtime.launch(order)
        await asyncio.sleep(0)
    for _ in range(in_flight):
        await room.acquire()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    for done in ended:
        await runtime.drop(done)
    abilities = dict(runtime.abilities())
    await runtime.close()
    return {
        "replicas": count,
        "in_flight": in_flight,
        "replicas_per_s": round(count / wall, 1),
        "agent_cpu_ms_per_replica": round(1000 * cpu / count, 3),
        "replica_cpu_ms_per_replica": round(1000 * spent / count, 3),
        "launch_to_exit_p50_ms": round(percentile(latencies_ms, 0.50), 2),
        "launch_to_exit_p99_ms": round(percentile(latencies_ms, 0.99), 2),
        "abilities": abilities,
        "machine": f"{os.cpu_count()} CPUs, {platform.platform()}",
        "python": platform.python_version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--no-cgroups", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as directory:
        result = asyncio.run(
            measure(options.count, options.in_flight, not options.no_cgroups, Path(directory))
        )
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
