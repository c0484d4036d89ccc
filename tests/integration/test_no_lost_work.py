"""A cut of ``bench/no_lost_work.py``: a training that is preempted comes out as if it were not."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from standstill import until

BENCH = Path(__file__).resolve().parents[2] / "bench"
COMMAND = [sys.executable, str(BENCH / "no_lost_work.py")]
CUT = {
    ("numpy", "pause"): (1500, 12),
    ("numpy", "step"): (1500, 40),
    ("numpy", "disk"): (1500, 4),
    ("numpy", "kill"): (1500, 8),
    ("torch", "pause"): (60, 12),
    ("torch", "step"): (60, 12),
    ("jax", "pause"): (300, 12),
}
"""Steps of a run, preemptions. The frameworks take seconds to start, each time that they do: that
they go on from checkpoints is tested with those of our library."""


@pytest.mark.parametrize(("workload", "mode"), list(CUT))
def test_no_step_is_lost(workload, mode):
    steps, preemptions = CUT[workload, mode]
    words = ["--workload", workload, "--mode", mode, "--steps", str(steps)]
    words += ["--preemptions", str(preemptions), "-o", "json"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    if skipped := re.search(rf"({workload}|{mode}) is skipped: .*", done.stderr):
        pytest.skip(skipped[0])
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert all(row["met"] for row in rows if "goal" in row)
    found = {row["figure"].removeprefix(f"{workload}: "): row["value"] for row in rows}
    assert found["preemptions"] == preemptions
    assert sum(n for name, n in found.items() if name.startswith("struck: ")) == preemptions


@pytest.mark.parametrize("mode", ["pause", "kill"])
def test_ctrl_c_leaves_nothing_behind(tmp_path, mode):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = ["--mode", mode, "--steps", "1000", "--preemptions", "1000000"]
    with subprocess.Popen([*COMMAND, *words], env=environment, stderr=subprocess.PIPE) as bench:
        seen = set()
        until(lambda: seen.update(trainings(tmp_path)) or len(seen) > 1, "the second run")
        bench.send_signal(signal.SIGINT)
        assert bench.wait(20) == 130, bench.stderr.read()
    assert not trainings(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not list(Path("/sys/fs/cgroup").rglob(f"hyperion-lost-{bench.pid}"))


def trainings(directory):
    """Processes that have a page in it."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            found.add(process.name)
    return found


WHOLE = ["1 0x1.0p+0", "2 0x1.8p-1", "3 0x1.0p-1", "end aa"]


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (WHOLE, {}),
        ([WHOLE[0], *WHOLE[2:]], {"steps lost": 1}),
        ([*WHOLE[:2], *WHOLE[1:]], {"steps done twice": 1}),
        ([WHOLE[0], "2 0x1.9p-1", *WHOLE[2:]], {"steps with other bits": 1}),
        ([*WHOLE[:3], "end ab"], {"runs with other parameters": 1}),
        (WHOLE[:2], {"steps lost": 1, "runs with other parameters": 1}),
    ],
)
def test_what_went_wrong_is_told(monkeypatch, lines, faults):
    monkeypatch.syspath_prepend(str(BENCH))
    bench = importlib.import_module("no_lost_work")
    assert {name: n for name, n in bench.faults_of(WHOLE, lines).items() if n} == faults
