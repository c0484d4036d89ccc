"""A data-parallel training of two ranks stands still for 20 s, whole or one rank alone: it goes on
healthy, and both ranks end with the same parameters. Watchdogs and time-outs of torch are as they
come."""

import importlib.util
import socket
import subprocess
import sys
import time

import pytest
from standstill import FastPath, until

FROZEN_S = 20.0
TRAIN = """
import hashlib, os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
net = DistributedDataParallel(torch.nn.Sequential(
    torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)))
optimizer = torch.optim.SGD(net.parameters(), 0.01)
with open(sys.argv[1], "a", buffering=1) as out:
    step = 0
    while True:
        x = torch.randn(16, 32)
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        step += 1
        print(step, file=out)
        last = torch.tensor([float(os.path.exists(sys.argv[2]))])
        dist.all_reduce(last)  # both ranks end after the same step
        if last.item():
            break
    parameters = b"".join(p.detach().numpy().tobytes() for p in net.parameters())
    print("end", step, hashlib.sha256(parameters).hexdigest(), file=out)
dist.destroy_process_group()
"""


class Training:
    """Two ranks of one training."""

    def __init__(self, directory):
        directory.mkdir()
        self.files = [directory / f"rank{n}" for n in range(2)]
        self.stop = directory / "stop"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-c", TRAIN, str(self.files[n]), str(self.stop)],
                env={**common, "RANK": str(n), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            )
            for n in range(2)
        ]

    def lines(self, rank):
        return self.files[rank].read_text().splitlines() if self.files[rank].exists() else []

    def works(self):
        before = len(self.lines(0))
        until(lambda: len(self.lines(0)) > before + 10, "the training to do some steps", 60)

    def ends(self):
        self.stop.touch()
        assert [rank.wait(60) for rank in self.ranks] == [0, 0]
        ends = [self.lines(rank)[-1] for rank in range(2)]
        assert ends[0].startswith("end ")
        assert ends[0] == ends[1], "the ranks have drifted apart"
        for rank in range(2):
            steps = [int(line) for line in self.lines(rank)[:-1]]
            assert steps == list(range(1, len(steps) + 1)), "each step once"

    def kill(self):
        for rank in self.ranks:
            rank.kill()
            rank.wait(10)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_ranks_that_stood_still_for_20_s_go_on_together(tmp_path):
    fast = FastPath(tmp_path / "fast")
    whole, half = Training(tmp_path / "whole"), Training(tmp_path / "half")
    try:
        whole.works()
        half.works()
        still = {
            "whole": [rank.pid for rank in whole.ranks],
            "half": [half.ranks[0].pid],
        }
        for name, pids in still.items():
            fast.ask(do="arm", set=name, pids=pids)
            assert "error" not in fast.ask(do="freeze", set=name, hold_ms=60_000)
        before = [len(t.lines(0)) for t in (whole, half)]
        time.sleep(FROZEN_S)
        after = [len(t.lines(0)) for t in (whole, half)]
        assert all(a - b <= 1 for a, b in zip(after, before, strict=True))
        for name in still:
            fast.ask(do="thaw", set=name)
        for training in (whole, half):
            training.works()
            training.ends()
    finally:
        whole.kill()
        half.kill()
        fast.end()
