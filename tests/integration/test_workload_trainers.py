"""Hugging Face's Trainer and Lightning, told to end in the middle and started again."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.adapters.checkpoint.journal import Journal

SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
SOURCE = Path(hyperion.workload.__file__).parents[2]
MODEL = """
import sys, torch, hyperion
torch.manual_seed(1); torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1))
x, y = torch.randn(80, 8), torch.randn(80, 1)
"""
TRAINER = """
import transformers
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net
    def forward(self, x, labels):
        return {"loss": (self.net(x) - labels).square().mean()}
class Say(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        print("step", state.global_step, flush=True)
rows = [{"x": a, "labels": b} for a, b in zip(x, y)]
args = transformers.TrainingArguments(
    sys.argv[1], num_train_epochs=4, per_device_train_batch_size=4, report_to=[], use_cpu=True,
    save_strategy="no", disable_tqdm=True, logging_strategy="no")
model = Net()
trainer = transformers.Trainer(
    model, args, train_dataset=rows, callbacks=[Say(), hyperion.trainer_callback()])
trainer.train(resume_from_checkpoint=hyperion.resume_from())
print("end", float(sum(p.sum() for p in model.parameters()).detach()).hex(), flush=True)
"""
LIGHTNING = """
import lightning, warnings
warnings.simplefilter("ignore")
class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net
    def training_step(self, batch, n):
        print("step", self.global_step + 1, flush=True)
        return (self.net(batch[0]) - batch[1]).square().mean()
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
trainer = lightning.Trainer(
    max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
    callbacks=[hyperion.lightning_callback()])
model = Net()
trainer.fit(model, loader, ckpt_path=hyperion.resume_from())
print("end", trainer.global_step, flush=True)
"""


def start(program: str, tmp_path: Path, resume_from: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{SITE}{os.pathsep}{SOURCE}",
        "HYPERION_WORKLOAD_PAGE": str(tmp_path / "page"),
        "HYPERION_CHECKPOINT_DIR": str(tmp_path / "ck"),
        "HYPERION_RESUME_FROM": resume_from,
    }
    command = [sys.executable, "-u", "-c", MODEL + program, str(tmp_path / "out")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def interrupted(program: str, tmp_path: Path, after: int) -> tuple[list[str], Journal]:
    """Its lines until it had ended as told, which was after so many steps."""
    Cooperative(str(tmp_path / "page"))
    process = start(program, tmp_path)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.strip() == f"step {after}":
            process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(60) == 143, lines
    return lines, Journal(str(tmp_path / "page"))


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
def test_a_trainer_of_hugging_face_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Cooperative(str(tmp_path / "a" / "page"))
    undisturbed = start(TRAINER, tmp_path / "a").communicate(timeout=120)[0].splitlines()
    undisturbed = [line for line in undisturbed if line.startswith(("step", "end"))]
    first, journal = interrupted(TRAINER, tmp_path, after=30)
    [saved] = journal.read()
    assert saved.whole
    state = json.loads(Path(saved.path, "trainer_state.json").read_text())
    assert state["global_step"] == saved.step
    rest = start(TRAINER, tmp_path, saved.path).communicate(timeout=120)[0].splitlines()
    lines = [line for line in (*first, *rest) if line.startswith(("step", "end"))]
    assert lines == undisturbed


@pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed"
)
def test_lightning_goes_on_where_it_was(tmp_path: Path) -> None:
    first, journal = interrupted(LIGHTNING, tmp_path, after=30)
    [saved] = journal.read()
    rest = start(LIGHTNING, tmp_path, saved.path).communicate(timeout=120)[0].splitlines()
    lines = [line for line in (*first, *rest) if line.startswith(("step", "end"))]
    assert lines == [*(f"step {n}" for n in range(1, 81)), "end 80"]
