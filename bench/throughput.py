"""Jobs per second from end to end: submitted to the federation, each run as a real process, ended.

Run: ``python bench/throughput.py [--jobs 3000] [--through rest grpc] [--repeat 3] [--json]``
"""

import sys
import time
from contextlib import contextmanager

from measure import DOMAIN, Usage, median, parser, progress, report, world

METHOD = (
    "`hyperion up` (federation, scheduler, agent as three processes, gRPC over mutual TLS, SQLite "
    "with fsync), a new one for each run; jobs of `true`, 2 of 64 declared CPUs each (32 at a "
    "time), submitted in lists of 200 from this process; wall time from the first submission until "
    "no job is open; each job is then looked up: succeeded, placed once, run once, and one exit "
    "code on the agent's disk; CPU from /proc/PID/stat; 'other work' is the machine's busy cores "
    "less ours, and takes from the result"
)
BATCH = 200
SPEC = {"name": "t", "run": ["true"], "resources": {"cpus": 2}}
MAX_JOBS = 9_800
"""As many as a list, and the agent's memory of ended replicas, can show at the end."""


@contextmanager
def rest(_, client):
    yield lambda: client.submit_all([SPEC] * BATCH)


@contextmanager
def grpc(home, _):
    """The federation's own service, with a client's certificate."""
    from grpc import secure_channel

    from hyperion.adapters.link.credentials import Credentials
    from hyperion.adapters.link.identity import Role
    from hyperion.adapters.link.streams import channel_options
    from hyperion.client.calls import as_job
    from hyperion.daemon.enrolment import enrol
    from hyperion.daemon.world import read_world
    from hyperion.wire import codec
    from hyperion.wire.generated import federation_pb2, federation_pb2_grpc

    where = home / "client" / "credentials"
    enrol(home / "federation" / "authority", DOMAIN, [("client", "bench", where)])
    ours = Credentials.load(where, int(time.time()))  # noqa: TID251 - certificates have dates
    options = channel_options(Role.FEDERATION)
    with secure_channel(read_world(home).address, ours.channel(), options) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)

        def submit():
            wanted = [codec.job_to_proto(as_job(SPEC)) for _ in range(BATCH)]
            request = federation_pb2.SubmitJobsRequest(jobs=wanted)
            return stub.SubmitJobs(request, timeout=60).jobs

        yield submit


def one_run(way, jobs):
    with world() as (home, client), way(home, client) as submit:
        usage = Usage(home)
        started = time.monotonic()
        for _ in range(0, jobs, BATCH):
            assert not any(x.error for x in submit())
        submitted = time.monotonic() - started
        while client.list(limit=1):
            time.sleep(0.02)
        took = time.monotonic() - started
        spent, others = usage.spent_s(), usage.others_cores()
        look_up(home, client, jobs)
        costs = {name: 1e3 * s / jobs for name, s in spent.items()}
        return {"ended": jobs / took, "taken": jobs / submitted, "others": others, "costs": costs}


def look_up(home, client, jobs):
    """Every job ran exactly once, by what the federation says and by what the agent has kept."""
    found = client.list(ended=True, limit=jobs + 1)
    assert len(found) == jobs, f"{len(found)} of {jobs} jobs are known"
    odd = [j for j in found if (j.phase, j.restarts, j.generation) != ("succeeded", 0, 1)]
    assert not odd, f"{len(odd)} jobs did not run once and well, such as {odd[0]}"
    allocations = {x.allocation for j in found for x in j.ranks}
    assert len(allocations) == jobs, f"{jobs} jobs ran as {len(allocations)} replicas"
    kept = [
        path.read_text()
        for part in ("replicas", "ended")
        for path in home.glob(f"agent-*/runtime/{part}/*/exit")
    ]
    assert len(kept) == jobs, f"{jobs} jobs left {len(kept)} exit codes"
    assert set(kept) == {"0 run\n"}, f"exit codes {set(kept)}"


def rows_of(name, runs, jobs):
    middle = f"({jobs} jobs, median of {len(runs)})"
    yield {
        "figure": f"{name}: jobs ended per second {middle}",
        "value": median([r["ended"] for r in runs], 0),
        "unit": "jobs/s",
        "goal": 300,
        "more": True,
    }
    for n, run in enumerate(runs, 1):
        figure = f"{name}: run {n}, beside {run['others']:g} cores of other work"
        yield {"figure": figure, "value": round(run["ended"]), "unit": "jobs/s"}
    taken = median([r["taken"] for r in runs], 0)
    yield {"figure": f"{name}: accepted per second", "value": taken, "unit": "jobs/s"}
    for part in runs[0]["costs"]:
        value = median([r["costs"][part] for r in runs], 3)
        yield {"figure": f"{name}: CPU per job, {part}", "value": value, "unit": "ms"}
    value = median([sum(r["costs"].values()) for r in runs], 3)
    yield {"figure": f"{name}: CPU per job, all", "value": value, "unit": "ms"}


def main():
    ways = {"rest": rest, "grpc": grpc}
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=3000)
    arguments.add_argument("--through", nargs="+", choices=ways, default=list(ways))
    options = arguments.parse_args()
    jobs = -(-options.jobs // BATCH) * BATCH
    if not BATCH <= jobs <= MAX_JOBS:
        arguments.error(f"--jobs: expected {BATCH} to {MAX_JOBS}")
    rows = []
    for name in options.through:
        runs = []
        for n in range(options.repeat):
            progress(f"{name}: run {n + 1} of {options.repeat}")
            runs.append(one_run(ways[name], jobs))
        rows += rows_of(name, runs, jobs)
    report("throughput", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
