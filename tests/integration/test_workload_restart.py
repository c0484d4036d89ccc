"""A run that is told to end at random instants and started again computes the same bits."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemons import World, until

import hyperion.workload

SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
SOURCE = Path(hyperion.workload.__file__).parents[2]

NUMPY = """
import random, time, numpy as np, hyperion
random.seed(1); np.random.seed(1)
state = {"w": np.zeros(50), "step": 0}
state = hyperion.restore(state)
while state["step"] < 60:
    state["w"] = state["w"] * 0.9 + np.random.normal(size=50) + random.random()
    state["step"] += 1
    print(state["step"], state["w"].sum().hex(), flush=True)
    time.sleep(0.003)
    hyperion.step(state, step=state["step"])
"""
TORCH = """
import torch, hyperion
torch.manual_seed(3); torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1))
best = torch.optim.AdamW(net.parameters(), 1e-2)
rate = torch.optim.lr_scheduler.StepLR(best, 7)
data = torch.utils.data.TensorDataset(torch.randn(60, 8), torch.randn(60, 1))
loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
batches = hyperion.loop(loader, net, best, rate, epochs=4)
for x, y in batches:
    loss = (net(x + 0.1 * torch.randn(8)) - y).square().mean()
    best.zero_grad(); loss.backward(); best.step(); rate.step()
    print(batches.step + 1, float(loss.detach()).hex(), flush=True)
print("end", float(sum(p.sum() for p in net.parameters()).detach()).hex(), flush=True)
"""
JAX = """
import time, jax, jax.numpy as jnp, hyperion
@jax.jit
def advance(weights, moment, key):
    key, one, two = jax.random.split(key, 3)
    x = jax.random.normal(one, (16, 8))
    error = lambda w: jnp.mean(jnp.tanh(x @ w["a"]) @ w["b"]) ** 2
    loss, grads = jax.value_and_grad(error)(weights)
    moment = jax.tree.map(lambda m, g: 0.9 * m + g, moment, grads)
    noise = 0.01 * jax.random.normal(two, (8, 4))
    weights = jax.tree.map(lambda w, m: w - 0.1 * m, weights, moment)
    return {**weights, "a": weights["a"] + noise}, moment, key, loss
weights = {"a": jnp.ones((8, 4)), "b": jnp.ones((4, 2), dtype=jnp.bfloat16)}
state = (weights, jax.tree.map(jnp.zeros_like, weights), jax.random.key(0), 0)
weights, moment, key, step = hyperion.restore(state)
while step < 60:
    weights, moment, key, loss = advance(weights, moment, key)
    step += 1
    print(step, float(loss).hex(), flush=True)
    time.sleep(0.003)
    hyperion.step((weights, moment, key, step), step=step)
"""


def needs(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def start(program: str, checkpoints: Path, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{SITE}{os.pathsep}{SOURCE}"}
    environment |= {"HYPERION_CHECKPOINT_DIR": str(checkpoints), "HYPERION_JOB_ID": "job", **more}
    command = [sys.executable, "-u", "-c", program]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("program", "times"),
    [
        pytest.param(NUMPY, 6, id="numpy"),
        pytest.param(TORCH, 4, id="torch", marks=needs("torch")),
        pytest.param(JAX, 3, id="jax", marks=needs("jax")),
    ],
)
def test_stopped_at_random_and_started_again_it_computes_the_same(
    tmp_path: Path, program: str, times: int
) -> None:
    undisturbed = start(program, tmp_path / "none").communicate(timeout=120)[0].splitlines()
    dice, lines, ends = random.Random(5), [], []
    while not ends or ends[-1]:
        process = start(program, tmp_path / "some")
        assert process.stdout is not None
        stops_after = dice.randrange(1, len(undisturbed) // times)
        for seen, line in enumerate(process.stdout, 1):
            lines.append(line.rstrip())
            if seen == stops_after:
                time.sleep(dice.random() / 200)
                process.send_signal(signal.SIGTERM)
        process.stdout.close()
        ends.append(process.wait(60))
        if lines[-1] == undisturbed[-1] and ends[-1] == -signal.SIGTERM:
            break  # it had done all, and Python takes its handlers back on the way out
        assert ends[-1] in (0, 143), ends
    assert lines == undisturbed, "each step once, with the same bits"
    assert ends.count(143) >= times // 2


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    own = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
"""
    process = start(own + NUMPY.replace("< 60", "< 10**9"), tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 7


def test_who_asked_is_told_before_the_end_and_the_second_signal_ends_it_at_once(
    tmp_path: Path,
) -> None:
    asked = """
import hyperion, time
@hyperion.on_preempt
def told():
    print("told", flush=True)
print("ready", flush=True)
for _ in range(10**9):
    time.sleep(0.01)
    if TWICE:
        continue
    hyperion.step()
    if hyperion.preempted():
        print("leaves", flush=True)
        break
"""
    process = start(f"TWICE = False{asked}", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "told\nleaves\n"
    process = start(f"TWICE = True{asked}", tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    process.stdout.close()
    assert process.returncode == 143


def test_without_a_place_for_checkpoints_it_says_so_and_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    program = NUMPY.replace("< 60", "< 10**9")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "is not saved: the job has no `checkpoint.dir`" in said


TWO_RANKS = NUMPY.replace("< 60", "< 10**9").replace(
    "hyperion.step(", 'open(f"{STEPS}/{state[\'step\']}-{RANK}", "w"); meet(); hyperion.step('
)
MEET = """
import os, time
STEPS, RANK = os.environ["STEPS"], int(os.environ["RANK"])
def meet():
    other, end = f"{STEPS}/{state['step']}-{1 - RANK}", time.time() + 3
    while not os.path.exists(other) and time.time() < end:
        time.sleep(0.0005)
"""


def test_two_ranks_that_hear_of_it_a_step_apart_have_written_one_step_both(tmp_path: Path) -> None:
    """They meet in each step, as ranks that reduce gradients do."""
    (tmp_path / "steps").mkdir()
    for n in range(2):
        for old in (tmp_path / "steps").iterdir():
            old.unlink()
        ranks = [
            start(
                MEET + TWO_RANKS,
                tmp_path / f"c{n}",
                RANK=str(rank),
                WORLD_SIZE="2",
                STEPS=str(tmp_path / "steps"),
            )
            for rank in (0, 1)
        ]
        until(lambda: len(list((tmp_path / "steps").iterdir())) > 10, "both to make steps", 30)
        for process in ranks[:: 1 if n % 2 else -1]:
            process.send_signal(signal.SIGTERM)
            time.sleep(random.Random(n).random() / 300)
        for process in ranks:
            process.communicate(timeout=60)
        made = (tmp_path / f"c{n}" / "job").iterdir()
        assert any(len(list(step.iterdir())) == 2 for step in made)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("w") / "w", ("n1", "n2")) as it:
        yield it


def test_a_job_that_is_moved_goes_on_from_its_last_step(world, tmp_path: Path) -> None:
    program = NUMPY.replace("< 60", "< 80").replace("sleep(0.003)", "sleep(0.05)")
    (tmp_path / "train.py").write_text(program)
    (tmp_path / "out").touch()
    spec = {
        "run": f"exec {sys.executable} {tmp_path}/train.py >>{tmp_path}/out",
        "checkpoint": {"dir": str(tmp_path / "ck"), "grace": 20},
        "envs": {"PYTHONPATH": str(SOURCE)},
    }
    job = world.client.submit(spec)

    def steps() -> list[str]:
        return (tmp_path / "out").read_text().splitlines()

    for moves in (1, 2):
        until(lambda: len(steps()) >= 25 * moves, "some steps", 30)  # noqa: B023
        node = world.client.get(job).nodes[0]
        world.client.drain(f"local/{node}")
        until(lambda: world.client.get(job).restarts == moves, "it to move", 30)  # noqa: B023
        world.client.uncordon(f"local/{node}")
        if moves == 1:
            world.agents["local/n1"].restart().ready()
    view = world.client.wait(job, 60)
    assert view.phase == "succeeded", view
    assert [line.split()[0] for line in steps()] == [str(n) for n in range(1, 81)]
    undisturbed = start(program, tmp_path / "none").communicate(timeout=60)[0]
    assert steps() == undisturbed.splitlines()
    newest = view.checkpoints[-1]
    assert newest.path == f"{tmp_path}/ck/{job}/step-{newest.step}"
    assert newest.size_bytes > 400
    for agent in world.agents.values():
        pages = agent.state_dir / "pages"
        until(lambda: not list(pages.iterdir()), "the pages to go", 10)  # noqa: B023
