"""What the benchmarks share: a world to measure, what it uses and what others use, the output."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperion.client.sync import Client

HYPERION = str(Path(sys.executable).with_name("hyperion"))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DOMAIN = "hyperion.local"


def machine() -> dict[str, object]:
    """Where the figures come from."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.partition(":")[2].strip() for x in told if x.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def load() -> list[float]:
    """Load average of 1, 5 and 15 minutes."""
    return [round(x, 2) for x in os.getloadavg()]


_MACHINE = machine()
_LOAD_BEFORE = load()


@contextmanager
def world(*flags: str, declare: str = "cpus=64") -> Iterator[tuple[Path, "Client"]]:
    """``hyperion up`` in a directory of its own, and a client of it."""
    from hyperion.client.sync import Client

    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as home:
        up = [HYPERION, "up", "--detach", *flags, *(("--declare", declare) if declare else ())]
        quiet = subprocess.DEVNULL
        subprocess.run(up, env=environment(home), check=True, stdout=quiet, timeout=60)
        try:
            with Client(f"unix:{home}/federation.sock") as client:
                yield Path(home), client
        finally:
            down = [HYPERION, "down"]
            subprocess.run(down, env=environment(home), stdout=quiet, timeout=60, check=False)


def environment(home: str | Path) -> dict[str, str]:
    """Ours without settings of ours; bytecode is kept, as on anybody's machine."""
    left_out = ("HYPERION", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return {**kept, "HYPERION_HOME": str(home)}


def pids(home: Path) -> dict[str, int]:
    """The world's processes by name, the supervisor included."""
    from hyperion.daemon.world import read_world

    found = read_world(home)
    assert found is not None, f"nothing is up in {home}"
    named = {d.name: d.process.pid for d in found.daemons if d.process}
    return {"supervisor": found.supervisor.pid, **named}


def cpu_s(pid: int) -> tuple[float, float]:
    """(own, reaped children's) CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICKS_PER_S, children / TICKS_PER_S


class Usage:
    """CPU of a world since this was made, and how much of the machine others had meanwhile."""

    def __init__(self, home: Path) -> None:
        self._pids = pids(home)
        self._began = time.monotonic()
        self._machine = _machine_busy_s()
        self._own = self._now()

    def spent_s(self) -> dict[str, float]:
        """CPU seconds by process; what the agent's children used stands beside the agent."""
        now = self._now()
        return {name: now[name] - before for name, before in self._own.items()}

    def others_cores(self) -> float:
        """Cores kept busy (or stolen) by what is neither the world nor this benchmark."""
        ours = sum(self.spent_s().values())
        busy = _machine_busy_s() - self._machine - ours
        return round(max(0.0, busy) / (time.monotonic() - self._began), 2)

    def _now(self) -> dict[str, float]:
        times = {"this benchmark": sum(os.times()[:4])}
        for name, pid in self._pids.items():
            times[name], children = cpu_s(pid)
            if name.startswith("agent"):
                times["the jobs' own processes"] = children
        return times


def _machine_busy_s() -> float:
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, soft, steal = stat.readline().split()[1:9]
    return sum(map(int, (user, nice, system, irq, soft, steal))) / TICKS_PER_S


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no Pss of {pid}")


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(values: list[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits or None)


def parser(about: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--repeat", type=_three, default=3, help="runs; the median counts (≥ 3)")
    return made


def _three(text: str) -> int:
    if int(text) < 3:
        raise argparse.ArgumentTypeError("at least 3, or the median says nothing")
    return int(text)


def progress(text: str) -> None:
    """One line that the next one overwrites; nothing where nobody is looking."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def report(name: str, method: str, rows: list[dict[str, object]], as_json: bool) -> None:
    """Rows of figure, value, unit, goal (at most, or at least with ``more``); all around them."""
    progress("")
    for row in rows:
        if "goal" in row:
            value, goal = float(str(row["value"])), float(str(row["goal"]))
            row["met"] = value >= goal if row.get("more") else value <= goal
    around = {"machine": _MACHINE, "load_before": _LOAD_BEFORE, "load_after": load()}
    if as_json:
        print(json.dumps({"benchmark": name, **around, "method": method, "rows": rows}, indent=1))
        return
    print(f"{name}: {method}")
    print("  " + ", ".join(f"{k} {v}" for k, v in _MACHINE.items()))
    print(f"  load average before {_LOAD_BEFORE}, after {load()}")
    width = max(len(str(row["figure"])) for row in rows)
    for row in rows:
        print(f"  {row['figure']:<{width}} {row['value']:>10} {row['unit']:<10}{verdict(row)}")


def verdict(row: dict[str, object]) -> str:
    """The goal of a reported row, and whether it was met; empty where there is none."""
    if "goal" not in row:
        return ""
    return (
        f"goal {'≥' if row.get('more') else '≤'} {row['goal']}: {'met' if row['met'] else 'MISSED'}"
    )
