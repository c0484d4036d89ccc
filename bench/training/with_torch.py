"""A small transformer with dropout and AdamW; a DataLoader shuffles in a process of its own."""

import io
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH, ROWS = 16, 512


class Noisy(Dataset):
    """Random rows, to which the loader's process adds noise of its own dice."""

    def __init__(self) -> None:
        self.x, self.y = torch.randn(ROWS, 16, 64), torch.randn(ROWS, 16, 8)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row):
        return self.x[row] + 0.01 * torch.randn(16, 64), self.y[row]


def batches_of(loader):
    """SIGTERM goes to each process of a job; the loader's leave it to the one that trains."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Training:
    """All that a checkpoint holds."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.net = nn.Sequential(
            nn.Linear(64, 128),
            nn.Dropout(0.1),
            nn.TransformerEncoderLayer(128, 4, 256, batch_first=True),
            nn.Linear(128, 8),
        )
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3)
        self.rate = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 100)
        self.dice = torch.Generator().manual_seed(8)
        self.loader = DataLoader(Noisy(), BATCH, shuffle=True, generator=self.dice, num_workers=1)
        self.step = self.seen = 0
        """Of the whole training; in this epoch."""
        self.epoch = self.dice.get_state()

    def state(self):
        """``epoch`` are the loader's dice as they were when the epoch began."""
        held = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "rate")}
        dice = {"dropout": torch.get_rng_state(), "epoch": self.epoch}
        file = io.BytesIO()
        torch.save(held | dice | {"step": self.step, "seen": self.seen}, file)
        return file.getvalue()

    def restore(self, content):
        held = torch.load(io.BytesIO(content))
        for name in ("net", "optimizer", "rate"):
            getattr(self, name).load_state_dict(held[name])
        torch.set_rng_state(held["dropout"])
        self.dice.set_state(held["epoch"])
        self.step, self.seen = held["step"], held["seen"]

    def begins_epoch(self):
        """The batches that are left of it, maybe none: those that were seen in an earlier life are
        drawn anew, and with them the noise, so that the dice are where they were."""
        self.epoch = self.dice.get_state()
        batches = batches_of(self.loader)
        for _ in range(self.seen):
            next(batches)
        return batches

    def computes(self, x, y):
        loss = (self.net(x) - y).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def updates(self):
        self.optimizer.step()
        self.rate.step()
        self.step += 1
        self.seen += 1


def train(run):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training = Training()
    if (found := run.checkpoint()) is not None:
        training.restore(found)
    while training.step < run.steps:
        run.loads()
        batches = training.begins_epoch()
        while training.seen < len(training.loader) and training.step < run.steps:
            run.loads()
            x, y = next(batches)
            run.computes()
            loss = training.computes(x, y)
            run.updates()
            training.updates()
            run.commit(training.step, loss.item(), training.state)
        training.seen = 0
    run.ends(q.detach().numpy().tobytes() for q in training.net.parameters())
