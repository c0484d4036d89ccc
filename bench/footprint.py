"""What it costs to have it: idle memory and CPU, the command line's CPU time, the core's size.

Run: ``python bench/footprint.py [--idle 30] [--repeat 9] [--no-install] [--json]``
"""

import compileall
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import (
    HYPERION,
    TICKS_PER_S,
    Usage,
    environment,
    median,
    parser,
    pids,
    progress,
    pss_mib,
    report,
    world,
)

import hyperion

METHOD = (
    "memory: sum of PSS (/proc/PID/smaps_rollup) of all processes of `hyperion up`, after the idle "
    "time, median of 3 looks a second apart; commands: user + system time of the whole process "
    "(wait4), after one that is not counted, bytecode compiled; size: bytes of the files that pip "
    "adds to a fresh venv for the core under constraints.txt, and what du counts for all of its "
    "site-packages"
)
ROOT = Path(__file__).resolve().parent.parent
SETTLE_S = 5
LOOKS = 3


def idle(seconds, repeat):
    with world(declare="") as (home, _):
        time.sleep(SETTLE_S)
        progress(f"idle for {seconds:g} s")
        usage = Usage(home)
        time.sleep(seconds)
        spent = usage.spent_s()
        looks = []
        for _ in range(LOOKS):
            looks.append({name: pss_mib(pid) for name, pid in pids(home).items()})
            time.sleep(1)
        total = median([sum(look.values()) for look in looks], 1)
        yield {"figure": "idle memory, all processes", "value": total, "unit": "MiB", "goal": 150}
        for name in looks[0]:
            value = median([look[name] for look in looks], 1)
            yield {"figure": f"idle memory: {name}", "value": value, "unit": "MiB"}
        percent = sum(s for name, s in spent.items() if name != "this benchmark") / seconds
        yield {"figure": "idle CPU, all processes", "value": round(100 * percent, 2), "unit": "%"}
        yield from commands(home, repeat)


def commands(home, repeat):
    compileall.compile_dir(Path(hyperion.__file__).parent, quiet=2)
    for name, goal in (("version", 0.15), ("ps", 0.15), ("--help", 0.15)):
        progress(f"hyperion {name}")
        times = [timed([HYPERION, name], environment(home)) for _ in range(repeat + 1)][1:]
        for n, what in enumerate(("CPU", "wall time")):
            value = median([t[n] for t in times], 3)
            row = {"figure": f"{what} of `hyperion {name}`", "value": value, "unit": "s"}
            yield row if n else row | {"goal": goal}


def timed(command, environ):
    """(CPU seconds, wall seconds) of one command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return used.ru_utime + used.ru_stime, took


def installed():
    with tempfile.TemporaryDirectory(prefix="hyperion-size-") as place:
        progress("installing the core into a fresh venv")
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        site = next(Path(place).glob("lib/python*/site-packages"))
        before = set(site.rglob("*"))
        install = [f"{place}/bin/python", "-m", "pip", "-q", "--disable-pip-version-check"]
        install += ["install", "-c", str(ROOT / "constraints.txt"), str(ROOT)]
        subprocess.run(install, check=True, stderr=subprocess.PIPE)
        files = [(f, f.stat()) for f in set(site.rglob("*")) - before if f.is_file()]
        disk = sum(f.lstat().st_blocks for f in site.rglob("*")) * 512 / 1e6
    whole = sum(stat.st_size for _, stat in files) / 1e6
    plain = sum(stat.st_size for f, stat in files if f.suffix != ".pyc") / 1e6
    yield {
        "figure": "core install, with the bytecode that pip compiles",
        "value": round(whole, 1),
        "unit": "MB",
        "goal": 150,
    }
    yield {
        "figure": "core install, without (pip install --no-compile)",
        "value": round(plain, 1),
        "unit": "MB",
        "goal": 150,
    }
    figure = "du of that site-packages, bytecode, pip and setuptools with it"
    yield {"figure": figure, "value": round(disk, 1), "unit": "MB"}
    sizes = {}
    for f, stat in files:
        part = f.relative_to(site).parts[0]
        sizes[part] = sizes.get(part, 0) + stat.st_size / 1e6
    for part, size in sorted(sizes.items(), key=lambda x: -x[1])[:8]:
        yield {"figure": f"core install: {part}", "value": round(size, 1), "unit": "MB"}


def main():
    arguments = parser(__doc__)
    arguments.set_defaults(repeat=9)
    arguments.add_argument("--idle", type=float, default=30.0, help="seconds")
    arguments.add_argument("--no-install", action="store_true", help="leave the size out")
    options = arguments.parse_args()
    if options.idle < 100 / TICKS_PER_S:
        arguments.error("--idle: too short to count ticks of CPU in")
    rows = list(idle(options.idle, options.repeat))
    if not options.no_install:
        rows += installed()
    report(f"footprint, median of {options.repeat}", METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
