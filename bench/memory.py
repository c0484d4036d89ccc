"""Memory of queued jobs in one cluster machine: bytes a job, each decoded from the wire.

Run: ``python bench/memory.py [--jobs 1000000] [--repeat 3] [--json]``; ``--parts`` shows what
keeps it, by kind of object.
"""

import gc
import os
import subprocess
import sys
import time
from collections import Counter

import msgspec
from measure import median, parser, progress, pss_mib, report

from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.placement import ranking
from hyperion.wire import codec
from hyperion.wire.generated import job_pb2

METHOD = (
    "one process for each run: a cluster machine without nodes takes in jobs of which each has its "
    "own id, serialised as AIJob and decoded anew as from a socket; eleven specs in turn (plain "
    "commands, scripts with environment, GPUs of a type, gangs, tolerations, data, "
    "checkpoints; every fifth command has an argument of its own); its entities are taken for the "
    "store and dropped, as the driver does; PSS after a full collection, less PSS before the first "
    "job, by the number of jobs"
)
BATCH = 1000
SPECS = (
    {"command": ["true"], "resources": {"cpus_milli": 1000}},
    {"command": ["python", "train.py", "--epochs", "10"], "gpus": 1, "type": "A100"},
    {"run": "set -e\npython -m eval --shard $HYPERION_RANK\n", "gpus": 1},
    {"command": ["python", "sweep.py", "--seed", "{n}"], "envs": {"OMP_NUM_THREADS": "4"}},
    {"command": ["torchrun", "train.py"], "gpus": 8, "type": "H100", "replicas": 16},
    {"command": ["make", "-j8"], "metadata": {"team": "compilers", "ticket": "{n}"}},
    {"command": ["sleep", "60"], "tolerations": ["spot", "batch"]},
    {"command": ["python", "prepare.py"], "data": "s3://corpus/tokens", "expected": 1800.0},
    {"command": ["bash", "job.sh", "{n}"], "priority": 2, "user": "eva"},
    {"command": ["python", "finetune.py"], "gpus": 4, "checkpoint": "/ckpt/run", "restarts": 3},
    {"command": ["true"], "name": "array-like", "user": "sam"},
)


def wire(n: int) -> bytes:
    """The n-th job, as a client sends it."""
    spec = SPECS[n % len(SPECS)]
    job = job_pb2.AIJob(
        job_id=f"{spec.get('name', 'job')}-{n:08x}",
        user_id=str(spec.get("user", "ada")),
        name=str(spec.get("name", "job")),
        priority=int(spec.get("priority", 1)),
        command=[str(x).format(n=n) for x in spec.get("command", ())],
        run=str(spec.get("run", "")),
        replicas=int(spec.get("replicas", 1)),
        envs=spec.get("envs", {}),
        metadata={k: v.format(n=n) for k, v in spec.get("metadata", {}).items()},
        expected_s=float(spec.get("expected", 0.0)),
    )
    job.resources.cpus_milli = 4000
    job.resources.memory_mb = 8192
    job.resources.gpus = int(spec.get("gpus", 0))
    job.resources.gpu_type = str(spec.get("type", ""))
    for key in spec.get("tolerations", ()):
        job.tolerations.add(key=key)
    if "data" in spec:
        job.data.add(uri=spec["data"], size_gib=120.0, region="eu-north-1")
    if "checkpoint" in spec:
        job.checkpoint.dir = spec["checkpoint"]
        job.restart.max = spec["restarts"]
    return job.SerializeToString()


def one_run(jobs: int, parts: bool) -> dict[str, float]:
    """In a process of its own: what so many queued jobs take."""
    cluster = Cluster(id=ClusterId("home"), region="local", version="bench")
    machine = ClusterMachine(cluster, ranking.policy("balanced"), ClusterTimes())
    take_in(machine, 0, BATCH)  # imports, converters and columns are there from here on
    gc.collect()
    before = pss_mib(os.getpid())
    cpu = time.process_time()
    for first in range(BATCH, BATCH + jobs, BATCH):
        take_in(machine, first, BATCH)
    cpu = time.process_time() - cpu
    gc.collect()
    after = pss_mib(os.getpid())
    assert len(machine.state.queue) == jobs + BATCH
    if parts:
        show_parts(jobs)
    return {
        "kib": (after - before) * 1024 / jobs,
        "us": 1e6 * cpu / jobs,
        "collection_ms": collection_ms(),
    }


def take_in(machine: ClusterMachine, first: int, count: int) -> None:
    for n in range(first, first + count):
        job = codec.job_from_proto(job_pb2.AIJob.FromString(wire(n)))
        machine.handle(m.JobSubmitted(job, n), 1_790_000_000_000 + n)
    machine.writes()


def collection_ms() -> float:
    """How long the loop stands still in a full collection; frozen objects are not looked at."""
    began = time.perf_counter()
    gc.collect()
    return 1e3 * (time.perf_counter() - began)


def show_parts(jobs: int) -> None:
    """Tracked objects and what they directly refer to, by type, bytes a job."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    found = list(gc.get_objects())
    for kept in found:
        for thing in (kept, *gc.get_referents(kept)):
            if id(thing) not in seen:
                seen.add(id(thing))
                sizes[type(thing).__name__] += sys.getsizeof(thing)
    for name, size in sizes.most_common(16):
        print(f"  {size / jobs:9.1f} bytes a job in {name}", file=sys.stderr)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=1_000_000)
    arguments.add_argument("--parts", action="store_true")
    arguments.add_argument("--child", action="store_true", help="one run in this process")
    options = arguments.parse_args()
    if options.child:
        print(msgspec.json.encode(one_run(options.jobs, options.parts)).decode())
        return 0
    runs = []
    again = [sys.executable, __file__, "--child", "--jobs", str(options.jobs)]
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        told = subprocess.run(again, check=True, stdout=subprocess.PIPE).stdout
        runs.append(msgspec.json.decode(told, type=dict[str, float]))
    rows: list[dict[str, object]] = [
        {
            "figure": f"memory of a queued job, {options.jobs} of them",
            "value": median([run["kib"] for run in runs], 3),
            "unit": "KiB",
            "goal": 1.5,
        },
        {
            "figure": "CPU of a job, decoded and accepted",
            "value": median([run["us"] for run in runs], 1),
            "unit": "µs",
        },
        {
            "figure": "a full collection while they wait",
            "value": median([run["collection_ms"] for run in runs], 0),
            "unit": "ms",
        },
    ]
    report("memory", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
