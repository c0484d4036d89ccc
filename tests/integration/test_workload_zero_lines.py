"""A torch program without a line of ours: the same bits, and it pauses when asked."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.workload import page

SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
SOURCE = Path(hyperion.workload.__file__).parents[2]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)

TRAINING = """
import hashlib, torch
torch.manual_seed(1); torch.set_num_threads(1)
model = torch.nn.Sequential(
    torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(256, 1))
optimizer = torch.optim.AdamW(model.parameters())
digest = hashlib.sha256()
for _ in range(300):
    optimizer.zero_grad()
    loss = model(torch.randn(32, 64)).square().mean()
    loss.backward()
    optimizer.step()
    digest.update(loss.detach().numpy().tobytes())
for parameter in model.parameters():
    digest.update(parameter.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def start(program: str, *first: Path, page_path: Path | None = None) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*first, SOURCE)))
    if page_path is not None:
        environment["HYPERION_WORKLOAD_PAGE"] = str(page_path)
        environment["HYPERION_WORKLOAD_POINTS"] = "1"
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )


@needs_torch
def test_paused_again_and_again_it_computes_the_same_bits(tmp_path: Path) -> None:
    undisturbed = start(TRAINING).communicate()[0]
    agent = Cooperative(str(tmp_path / "page"))
    process = start(TRAINING, SITE, page_path=tmp_path / "page")
    pauses = 0
    while process.poll() is None:
        deadline = time.monotonic_ns() + 30_000_000_000
        if agent.wait(agent.ask(page.PAUSE, deadline), 0.2):
            pauses += agent.read().state in (page.AT_POINT, page.AT_STEP)
        agent.resume()
        time.sleep(0.002)
    assert process.communicate()[0] == undisturbed
    assert agent.read().committed_step == 300
    assert pauses > 0


def test_the_sitecustomize_that_ours_hides_is_run(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    assert start("pass", SITE, tmp_path).communicate()[0] == "mine\n"
