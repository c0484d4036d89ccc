"""What every benchmark here shares: a world to measure, what its daemons use, the output."""

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

from hyperion.client.sync import Client
from hyperion.daemon.world import read_world

HYPERION = str(Path(sys.executable).with_name("hyperion"))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """Where the figures come from."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in told if "model name" in x), "?")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


@contextmanager
def world(*flags: str, declare: str = "cpus=64") -> Iterator[tuple[Path, Client]]:
    """``hyperion up`` in a directory of its own, and a client of it."""
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION")}
        environment = {**kept, "HYPERION_HOME": home}
        up = [HYPERION, "up", "--detach", *flags, *(("--declare", declare) if declare else ())]
        subprocess.run(up, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60)
        try:
            with Client(f"unix:{home}/federation.sock") as client:
                yield Path(home), client
        finally:
            subprocess.run(
                [HYPERION, "down"],
                env=environment,
                stdout=subprocess.DEVNULL,
                timeout=60,
                check=False,
            )


def pids(home: Path) -> dict[str, int]:
    """The world's processes by name, the supervisor included."""
    found = read_world(home)
    assert found is not None
    named = {d.name: d.process.pid for d in found.daemons if d.process}
    return {"supervisor": found.supervisor.pid, **named}


def cpu_s(pid: int) -> tuple[float, float]:
    """(own, reaped children's) CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICKS_PER_S, children / TICKS_PER_S


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no Pss of {pid}")


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def parser(about: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--repeat", type=int, default=3, help="runs; the median counts")
    return made


def report(name: str, method: str, rows: list[dict[str, object]], as_json: bool) -> None:
    """Rows of figure, value, unit, goal; the machine and the method with them."""
    for row in rows:
        goal = row.get("goal")
        if goal is not None:
            value = float(str(row["value"]))
            row["met"] = value >= float(str(goal)) if row.get("more") else value <= float(str(goal))
    found = {"benchmark": name, "machine": machine(), "method": method, "rows": rows}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{name}: {method}")
    print("  " + ", ".join(f"{k} {v}" for k, v in machine().items()))
    for row in rows:
        goal = row.get("goal")
        sign = "≥" if row.get("more") else "≤"
        verdict = (
            "" if goal is None else f"  goal {sign} {goal}: {'met' if row['met'] else 'MISSED'}"
        )
        print(f"  {row['figure']:<52} {row['value']:>10} {row['unit']}{verdict}")


def median(values: list[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits)
