"""How long until a job runs: `-- true` at a steady 20 jobs a second, by a fixed timetable.

Run: ``python bench/latency.py [--jobs 400] [--rate 20] [--json]``
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from measure import median, parser, percentile, report, world

METHOD = (
    "`hyperion up`; open loop: each submission at its own time, late answers or not; accepted: "
    "the client's time until the answer (durable); running: from when the federation took it in "
    "until the agent saw it start, both clocks of this machine, to the ms"
)


def one_run(jobs, rate):
    with world() as (_, client):
        begin = time.monotonic() + 0.2
        accepted: list[float] = []

        def submit(n):
            time.sleep(max(0.0, begin + n / rate - time.monotonic()))
            started = time.monotonic()
            client.submit({"name": "t", "run": ["true"]})
            accepted.append(1e3 * (time.monotonic() - started))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(submit, range(jobs)))
        while client.list(limit=1):
            time.sleep(0.05)
        found = client.list(ended=True, limit=jobs + 1)
        assert len(found) == jobs
        assert all(j.phase == "succeeded" for j in found)
        return accepted, [float(j.started_at_ms - j.submitted_at_ms) for j in found]


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=400)
    arguments.add_argument("--rate", type=float, default=20.0)
    options = arguments.parse_args()
    runs = [one_run(options.jobs, options.rate) for _ in range(options.repeat)]
    rows = []
    for n, what in enumerate(("submit → accepted", "submit → running")):
        for part in (0.5, 0.99):
            value = median([percentile(r[n], part) for r in runs], 1)
            figure = f"{what}, p{100 * part:g} (median of {options.repeat} runs)"
            rows.append({"figure": figure, "value": value, "unit": "ms"})
    report(f"latency at {options.rate:g} jobs/s", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
