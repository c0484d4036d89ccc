"""What the workload library costs a training run, and how fast it pauses and saves.

Run: ``python bench/workload.py [--python PATH] [--json]``, PATH a Python that has torch; without it
the rows about torch are left out, and it says so.
"""

import os
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

from measure import median, parser, percentile, progress, report

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.workload import page
from hyperion.workload.channel import Channel

METHOD = (
    "point and step: CPU time of one call while nobody asks, the least of 5 times 200,000; pause: "
    "from the request to the last act, points 10 us apart, by the workload's clock; training: a "
    "perceptron of 5 modules in torch on one thread, CPU time of the process from the first to the "
    "last step, by turns as it is / with the hooks that need no line / in hyperion.loop, the least "
    "of {repeat} runs each: with layers of 8 for {steps} steps, which shows what is added, and "
    "with layers of 1,024, which shows to what; write: a state of 256 MB of torch tensors, to the "
    "end of the copy (the run stands for so long) and until it is on the disk"
)
PROGRAM = """
import hyperion
while True:
    for _ in range(100):
        sum(range(1000))
        hyperion.point()
    hyperion.step()
"""
TRAINING = """
import sys, time
import torch
torch.manual_seed(1); torch.set_num_threads(1)
steps, looped, wide = int(sys.argv[1]), sys.argv[2] == "loop", int(sys.argv[3])
model = torch.nn.Sequential(
    torch.nn.Linear(256, wide), torch.nn.ReLU(), torch.nn.Linear(wide, wide), torch.nn.ReLU(),
    torch.nn.Linear(wide, 10))
best = torch.optim.AdamW(model.parameters(), 1e-3)
data = torch.utils.data.TensorDataset(torch.randn(4 * steps, 256), torch.randn(4 * steps, 10))
loader = torch.utils.data.DataLoader(data, batch_size=4 if wide < 100 else 64, shuffle=True)
if looped:
    import hyperion
    batches = hyperion.loop(loader, model, best)
else:
    batches = loader
begun = None
for x, y in batches:
    if begun is None:
        begun = time.process_time()
    loss = (model(x) - y).square().mean()
    best.zero_grad(); loss.backward(); best.step()
print((time.process_time() - begun) / (len(loader) - 1))
"""
WRITING = """
import sys, time
import torch, hyperion
from hyperion import workload
state = [torch.randn(1 << 20) for _ in range(64)]
own = workload.session()
for n in range(1, 6):
    own.step, own._state = n, lambda: state
    begun = time.monotonic()
    header, encoder = own._copy()
    copied = time.monotonic()
    own._write(n, header, encoder)
    print(copied - begun, time.monotonic() - begun)
"""
SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
SOURCE = Path(hyperion.workload.__file__).parents[2]


def call_ns(path, call):
    """The least of five: the rest is the machine's noise."""
    Cooperative(path)
    channel = Channel(path)
    runs = timeit.repeat(getattr(channel, call), number=200_000, repeat=5, timer=time.process_time)
    return min(runs) / 200_000 * 1e9


def pause_us(path, trials):
    """Request to paused, by the workload's own clock reading."""
    agent = Cooperative(path)
    environment = {**os.environ, "HYPERION_WORKLOAD_PAGE": path}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)
    taken = []
    try:
        while not agent.read().capabilities & page.STEPS:
            time.sleep(0.01)
        for _ in range(trials):
            asked = time.monotonic_ns()
            if agent.wait(agent.ask(page.PAUSE, asked + 10_000_000_000), 10):
                taken.append((agent.read().acknowledged_at_ns - asked) / 1e3)
            agent.wait(agent.resume(), 10)
    finally:
        process.kill()
        process.wait()
        agent.close()
    return sorted(taken)


def said(python, program, folder, *arguments, ours=True, hooks=False):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    if ours:
        path = f"{folder}/page"
        Cooperative(path)
        environment["PYTHONPATH"] = f"{SITE}{os.pathsep}{SOURCE}"
        environment |= {"HYPERION_WORKLOAD_PAGE": path, "HYPERION_CHECKPOINT_DIR": f"{folder}/ck"}
    if hooks:
        environment["HYPERION_WORKLOAD_POINTS"] = "1"
    command = [python, "-c", program, *arguments]
    ran = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=300
    )
    return ran.stdout.split()


def training_us(python, folder, steps, repeat, wide, kinds):
    """CPU of a step: as it is, with hooks, in hyperion.loop."""
    taken = {kind: [] for kind in kinds}
    for n in range(repeat):
        for kind in kinds:
            progress(f"training {n + 1} of {repeat}, {kind}")
            how = "loop" if kind == "loop" else "plain"
            around = {"ours": kind != "plain", "hooks": kind == "hooks"}
            [took] = said(python, TRAINING, folder, str(steps), how, str(wide), **around)
            taken[kind].append(float(took) * 1e6)
    return {kind: min(values) for kind, values in taken.items()}


def rows_of(arguments, folder):
    yield {"figure": "point()", "value": round(call_ns(f"{folder}/a", "point")), "unit": "ns CPU"}
    yield {"figure": "step()", "value": round(call_ns(f"{folder}/b", "step")), "unit": "ns CPU"}
    taken = pause_us(f"{folder}/c", arguments.trials)
    for part in (0.5, 0.99):
        value = round(percentile(taken, part))
        yield {"figure": f"request to pause, p{part * 100:g}", "value": value, "unit": "us"}
    python, repeat = arguments.python, arguments.repeat
    found = subprocess.run([python, "-c", "import torch"], check=False, capture_output=True)
    if found.returncode:
        print(f"{python} has no torch: training and writing are left out", file=sys.stderr)
        return
    small = training_us(python, folder, arguments.steps, repeat, 8, ("plain", "hooks", "loop"))
    large = training_us(python, folder, 3200, repeat, 1024, ("plain",))["plain"]
    yield {"figure": "small step as it is", "value": round(small["plain"], 1), "unit": "us CPU"}
    yield {"figure": "large step as it is", "value": round(large, 1), "unit": "us CPU"}
    for kind in ("hooks", "loop"):
        added = small[kind] - small["plain"]
        yield {"figure": f"{kind} add to a step", "value": round(added, 1), "unit": "us CPU"}
        share = round(100 * added / large, 2)
        yield {"figure": f"{kind}, of a large step", "value": share, "unit": "%", "goal": 1}
    times = [float(x) for x in said(python, WRITING, folder)]
    yield {"figure": "copy of 256 MB", "value": median([1e3 * x for x in times[::2]]), "unit": "ms"}
    yield {"figure": "until written", "value": median([1e3 * x for x in times[1::2]]), "unit": "ms"}


def main():
    asked = parser(__doc__)
    asked.add_argument("--trials", type=int, default=1000, help="pauses")
    asked.add_argument("--steps", type=int, default=20_000, help="of a small training run")
    asked.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as folder:
        rows = list(rows_of(arguments, folder))
    method = METHOD.format(steps=f"{arguments.steps:,}", repeat=arguments.repeat)
    report("workload", method, rows, arguments.json)


if __name__ == "__main__":
    main()
