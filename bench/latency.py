"""How long until a job runs: `-- true` at a steady 20 jobs a second, by a fixed timetable.

Run: ``python bench/latency.py [--jobs 400] [--rate 20] [--repeat 3] [--json]``
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from measure import Usage, median, parser, percentile, progress, report, world

METHOD = (
    "`hyperion up`, a new one for each run; open loop: every submission has its own time, late "
    "answers or not, and its clocks start then. Accepted: until the client has the answer, the job "
    "being durable by then. Running, seen: until a client that watches all jobs is told that it "
    "runs or has ended, whichever it hears first. Running, by the job's record: submitted_at to "
    "started_at, whole ms, clocks of the same machine"
)
WARM_UP_JOBS = 20
WAIT_S = 120


class Sightings(threading.Thread):
    """When a watching client first hears that a job runs or has ended."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.running, self.ended = {}, set()
        self.start()

    def run(self):
        for change in self.client.watch():
            job = change.job
            if job.started_at_ms:
                self.running.setdefault(job.id, time.monotonic())
            if job.ended_at_ms:
                self.ended.add(job.id)


def one_run(jobs, rate):
    with world() as (home, client):
        seen = Sightings(client)
        submit_all(client, WARM_UP_JOBS, rate)
        usage = Usage(home)
        asked = submit_all(client, jobs, rate)
        until = time.monotonic() + WAIT_S
        while not seen.ended >= asked.keys():
            assert time.monotonic() < until, f"{len(asked.keys() - seen.ended)} jobs do not end"
            time.sleep(0.02)
        others, spent = usage.others_cores(), usage.spent_s()
        found = [j for j in client.list(ended=True, limit=jobs + 99) if j.id in asked]
        assert len(found) == jobs, f"{len(found)} of {jobs} jobs are known"
        assert all(j.phase == "succeeded" for j in found)
        return {
            "submit → accepted": [1e3 * (told - due) for due, told in asked.values()],
            "submit → running, seen by a watcher": [
                1e3 * (seen.running[id] - due) for id, (due, _) in asked.items()
            ],
            "submit → running, by the job's record": [
                float(j.started_at_ms - j.submitted_at_ms) for j in found
            ],
        }, {
            "CPU per job: daemons, idle work included": 1e3
            * sum(s for name, s in spent.items() if not name.startswith("th"))
            / jobs,
            "CPU per job: its own processes": 1e3 * spent["the jobs' own processes"] / jobs,
            "other work": others,
        }


def submit_all(client, jobs, rate):
    """Job → (when it was due, when the answer was there)."""
    begin = time.monotonic() + 0.2

    def submit(n):
        due = begin + n / rate
        time.sleep(max(0.0, due - time.monotonic()))
        return client.submit({"name": "t", "run": ["true"]}), (due, time.monotonic())

    with ThreadPoolExecutor(16) as pool:
        return dict(pool.map(submit, range(jobs)))


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=400)
    arguments.add_argument("--rate", type=float, default=20.0, help="jobs per second")
    options = arguments.parse_args()
    runs = []
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        runs.append(one_run(options.jobs, options.rate))
    rows = []
    for what in runs[0][0]:
        for part in (0.5, 0.99):
            value = median([percentile(times[what], part) for times, _ in runs], 1)
            rows.append({"figure": f"{what}, p{100 * part:g}", "value": value, "unit": "ms"})
    for what in runs[0][1]:
        value = median([used[what] for _, used in runs])
        unit = "cores" if what == "other work" else "ms"
        rows.append({"figure": what, "value": value, "unit": unit})
    title = f"latency, {options.jobs} jobs at {options.rate:g} a second, median of {options.repeat}"
    report(title, METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
