"""A deterministic training run that is paused at random instants gives the same bits in each step.

Run: ``python bench/no_lost_work.py [--preemptions 1000] [--framework numpy|torch] [--json]``
Exits with 1 when a step was lost, done twice, or came out otherwise.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import parser, percentile, progress, report

from hyperion.adapters.checkpoint.freezer import Freezer, Group
from hyperion.adapters.runtime.cgroup import Cgroups

METHOD = (
    "the same training run again and again, {framework}, one thread, {steps} steps, its state "
    "seeded; first undisturbed, then stopped at random instants (seed {seed}) by the freezer of "
    "its control group, as the agent's fast path does it, for 0 to 5 ms each time; compared are "
    "the bits of the loss of each step and the SHA-256 of the parameters at the end; stopped: "
    "until the kernel says that all of it stands"
)
NUMPY = """
import hashlib, sys
import numpy as np
dice = np.random.default_rng(7)
x, y = dice.normal(size=(512, 64)), dice.normal(size=(512, 8))
shapes = [(64, 128), (128,), (128, 128), (128,), (128, 8), (8,)]
p = [dice.normal(size=s) * 0.1 for s in shapes]
m, v = [np.zeros(s) for s in shapes], [np.zeros(s) for s in shapes]
for step in range(1, int(sys.argv[1]) + 1):
    rows = dice.integers(0, 512, 64)
    keep = dice.random((64, 128)) > 0.1
    a = np.tanh(x[rows] @ p[0] + p[1]) * keep
    b = np.tanh(a @ p[2] + p[3])
    e = b @ p[4] + p[5] - y[rows]
    print(step, (e * e).mean().hex(), flush=True)
    d = 2 * e / e.size
    db = d @ p[4].T * (1 - b * b)
    da = db @ p[2].T * keep * (1 - a * a)
    g = [x[rows].T @ da, da.sum(0), a.T @ db, db.sum(0), b.T @ d, d.sum(0)]
    for k in range(6):
        m[k] = 0.9 * m[k] + 0.1 * g[k]
        v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
        p[k] -= 1e-3 * (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-8)
print("end", hashlib.sha256(b"".join(q.tobytes() for q in p)).hexdigest())
"""
TORCH = """
import hashlib, sys
import torch
torch.manual_seed(7); torch.set_num_threads(1); torch.use_deterministic_algorithms(True)
net = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.Dropout(0.1),
    torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True), torch.nn.Linear(128, 8))
best = torch.optim.AdamW(net.parameters(), 1e-3)
rate = torch.optim.lr_scheduler.CosineAnnealingLR(best, 100)
x, y = torch.randn(256, 16, 64), torch.randn(256, 16, 8)
for step in range(1, int(sys.argv[1]) + 1):
    rows = torch.randint(0, 256, (16,))
    loss = ((net(x[rows]) - y[rows]) ** 2).mean()
    best.zero_grad(); loss.backward(); best.step(); rate.step()
    print(step, float(loss.detach()).hex(), flush=True)
print("end", hashlib.sha256(b"".join(
    q.detach().numpy().tobytes() for q in net.parameters())).hexdigest())
"""
PROGRAMS = {"numpy": (NUMPY, 3000), "torch": (TORCH, 300)}
REST_S = 0.012


def start(program, steps, out, groups):
    command = [sys.executable, "-c", program, str(steps)]
    join = 'for g in "$@"; do [ "$g" = -- ] && break; echo 0 >"$g/cgroup.procs"; done'
    script = f'{join}; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    one = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *groups, "--", *command], stdout=out, env=one
    )


def disturbed(program, steps, out, dice, left, cgroups, freezer, took):
    """Play it once, stopped at random instants; how often."""
    paths = cgroups.create("run", cpus_milli=1000, memory_mib=0) if cgroups.holds else []
    done = 0
    with out.open("wb") as file, start(program, steps, file, paths) as process:
        group = Group(cgroups.group("run")) if paths else Group("", (process.pid,))
        while process.poll() is None and done < left:
            time.sleep(dice.random() * 2 * REST_S)
            try:
                stop = freezer.freeze([group])
                time.sleep(dice.random() * 0.005)
            finally:
                freezer.go_on([group])
            done += 1
            took.append(((stop.confirmed_ns or time.monotonic_ns()) - stop.called_ns) / 1e6)
        process.wait()
        freezer.retire([group])
    while paths and not cgroups.remove("run"):
        time.sleep(0.01)
    return done


def main():
    options = parser(__doc__)
    options.add_argument("--preemptions", type=int, default=1000)
    options.add_argument("--framework", choices=sorted(PROGRAMS), default="numpy")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    program, steps = PROGRAMS[chosen.framework]
    dice, took, wrong, runs, done = random.Random(chosen.seed), [], 0, 0, 0
    cgroups, freezer = Cgroups(f"hyperion-lost-{os.getpid()}"), Freezer()
    with tempfile.TemporaryDirectory() as directory:
        whole, out = Path(directory, "whole"), Path(directory, "out")
        with whole.open("wb") as file, start(program, steps, file, []) as process:
            process.wait()
        wanted = whole.read_text().splitlines()
        assert len(wanted) == steps + 1, "the undisturbed run did not come to its end"
        while done < chosen.preemptions:
            done += disturbed(
                program, steps, out, dice, chosen.preemptions - done, cgroups, freezer, took
            )
            runs += 1
            wrong += out.read_text().splitlines() != wanted
            progress(f"{done:,} of {chosen.preemptions:,} preemptions, {wrong} runs came out wrong")
    cgroups.close()
    rows = [
        {"figure": "runs that came out otherwise", "value": wrong, "unit": "", "goal": 0},
        {"figure": "preemptions", "value": done, "unit": ""},
        {"figure": "runs, each of the same steps", "value": runs, "unit": ""},
        {"figure": "stopped, p50", "value": percentile(took, 0.5), "unit": "ms"},
        {"figure": "stopped, p99", "value": percentile(took, 0.99), "unit": "ms"},
        {"figure": "stopped, max", "value": max(took), "unit": "ms"},
    ]
    method = METHOD.format(framework=chosen.framework, steps=steps, seed=chosen.seed)
    report("no_lost_work", method, rows, chosen.json)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
