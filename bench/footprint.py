"""What it costs to have it: idle memory and CPU, the command line's CPU time, the core's size.

Run: ``python bench/footprint.py [--idle 30] [--json] [--no-install]``
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HYPERION, cpu_s, median, parser, pids, pss_mib, report, world

METHOD = (
    "memory: sum of PSS (/proc/PID/smaps_rollup) of all processes of `hyperion up`, idle; "
    "commands: user + system time of the whole process, median of 9, bytecode compiled; "
    "size: a fresh venv with the core installed by pip under constraints.txt, its site-packages "
    "without pip and setuptools, with and without compiled bytecode"
)
ROOT = Path(__file__).resolve().parent.parent


def idle(seconds):
    with world(declare="") as (home, _):
        time.sleep(5)
        before = {name: sum(cpu_s(pid)) for name, pid in pids(home).items()}
        time.sleep(seconds)
        rows = []
        total = busy = 0.0
        for name, pid in pids(home).items():
            pss = pss_mib(pid)
            total += pss
            busy += sum(cpu_s(pid)) - before[name]
            rows.append({"figure": f"PSS: {name}", "value": round(pss, 1), "unit": "MiB"})
        value = round(total, 1)
        rows.insert(
            0, {"figure": "idle memory, all processes", "value": value, "unit": "MiB", "goal": 150}
        )
        percent = round(100 * busy / seconds, 2)
        rows.append({"figure": "idle CPU, all processes", "value": percent, "unit": "% of a core"})
        return rows + commands(home)


def commands(home):
    environment = {**os.environ, "HYPERION_HOME": str(home)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = []
    for name, goal in (("version", 0.15), ("ps", 0.15), ("--help", None)):
        times = []
        for _ in range(10):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [HYPERION, name],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        row = {"figure": f"CPU of `hyperion {name}`", "value": median(times[1:], 3), "unit": "s"}
        rows.append(row if goal is None else row | {"goal": goal})
    return rows


def installed():
    with tempfile.TemporaryDirectory(prefix="hyperion-size-") as place:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [f"{place}/bin/python", "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        subprocess.run(
            [*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        site = next(Path(place).glob("lib/python*/site-packages"))
        skipped = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        files = [
            f
            for f in site.rglob("*")
            if f.is_file() and not f.relative_to(site).parts[0].startswith(skipped)
        ]
        plain = sum(f.stat().st_size for f in files if f.suffix != ".pyc") / 1e6
        whole = sum(f.stat().st_size for f in files) / 1e6
    return [
        {"figure": "core install", "value": round(plain, 1), "unit": "MB", "goal": 150},
        {"figure": "core install with bytecode", "value": round(whole, 1), "unit": "MB"},
    ]


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--idle", type=float, default=30.0, help="seconds")
    arguments.add_argument("--no-install", action="store_true", help="leave the size out")
    options = arguments.parse_args()
    rows = idle(options.idle)
    if not options.no_install:
        rows += installed()
    report("footprint", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
