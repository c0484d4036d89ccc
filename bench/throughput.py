"""Jobs per second from end to end: submitted to the federation, each run as a real process, ended.

Run: ``python bench/throughput.py [--jobs 3000] [--repeat 3] [--json]``
"""

import sys
import time

from measure import cpu_s, median, parser, pids, report, world

METHOD = (
    "`hyperion up` (federation, scheduler, agent as three processes, gRPC over mutual TLS, SQLite "
    "with fsync); jobs of `true`, 2 of 64 declared CPUs each (32 at a time), submitted over REST "
    "in lists of 200 from this process; wall time from the first submission until no job is open"
)
BATCH = 200


def one_run(jobs):
    with world() as (home, client):
        before = {name: cpu_s(pid) for name, pid in pids(home).items()}
        specs = [{"name": "t", "run": ["true"], "resources": {"cpus": 2}}] * BATCH
        started = time.monotonic()
        for _ in range(0, jobs, BATCH):
            assert not any(x.error for x in client.submit_all(specs))
        submitted = time.monotonic() - started
        while client.list(limit=1):
            time.sleep(0.02)
        took = time.monotonic() - started
        found = client.list(ended=True, limit=jobs + 1)
        assert len(found) == jobs, f"{len(found)} of {jobs} jobs are known"
        assert all(j.phase == "succeeded" and j.restarts == 0 for j in found)
        assert all(j.generation == 1 for j in found), "a job was placed twice"
        costs = {}
        for name, pid in pids(home).items():
            own, children = cpu_s(pid)
            costs[name] = 1e3 * (own - before[name][0]) / jobs
            if name.startswith("agent"):
                costs["the jobs' own processes"] = 1e3 * (children - before[name][1]) / jobs
        return jobs / took, jobs / submitted, costs


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=3000)
    options = arguments.parse_args()
    jobs = -(-options.jobs // BATCH) * BATCH
    runs = [one_run(jobs) for _ in range(options.repeat)]
    rows = [
        {
            "figure": f"jobs ended per second ({jobs} jobs, median of {options.repeat})",
            "value": median([r[0] for r in runs], 0),
            "unit": "jobs/s",
            "goal": 300,
            "more": True,
        },
        {"figure": "slowest run", "value": round(min(r[0] for r in runs)), "unit": "jobs/s"},
        {
            "figure": "accepted per second",
            "value": median([r[1] for r in runs], 0),
            "unit": "jobs/s",
        },
    ]
    for name in runs[0][2]:
        value = median([r[2][name] for r in runs], 3)
        rows.append({"figure": f"CPU per job: {name}", "value": value, "unit": "ms"})
    report("throughput", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
