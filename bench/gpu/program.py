"""An ordinary torch program on a GPU: a transformer of modules, and AdamW; no word of pacing in it.

What paces its launches is on its PYTHONPATH, as on that of any job. It adds to its modules what
shows when the GPU has done which of them, and reads from the page whether it is to be paced.
"""

import itertools
import json
import time

from gpu.clocks import calibrate

LAYERS, WIDTH, HEADS, ROWS, LENGTH = 24, 1024, 16, 8, 1024
QUEUE_MS = 6.0


def block(torch):
    functional = torch.nn.functional

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
            self.into, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
            self.wide = torch.nn.Linear(WIDTH, 4 * WIDTH)
            self.bend, self.narrow = torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            parts = self.into(self.first(x)).view(ROWS, LENGTH, 3, HEADS, WIDTH // HEADS)
            q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(ROWS, LENGTH, WIDTH))
            return x + self.narrow(self.bend(self.wide(self.second(x))))

    return Block()


class Units:
    """Beats between modules, forwards and backwards: where one ends the next begins."""

    def __init__(self, torch, beat):
        self._torch, self._beat = torch, beat
        self.number = 0
        self.seen = []
        """While a list: an event at each place, to learn what lies between them."""
        self.at = 0
        """How many units of this step have ended."""
        self._stream = torch.cuda.current_stream().cuda_stream

    def end(self):
        self._beat("end", self.number, self._stream)
        self.number += 1
        self.at += 1
        self._beat("begin", self.number, self._stream)
        if self.seen is not None:
            event = self._torch.cuda.Event(enable_timing=True)
            event.record()
            self.seen.append(event)

    def hook(self, module):
        def after(_module, _given, output):
            self.end()
            if output.grad_fn is not None:
                output.grad_fn.register_prehook(lambda _: self.end())

        module.register_forward_hook(after)


class Program:
    def __init__(self, page):
        import torch

        from gpu.cuda import Beats

        self.torch, self.page = torch, page
        torch.manual_seed(7)
        self.model = torch.nn.Sequential(*(block(torch) for _ in range(LAYERS))).cuda()
        self.best = torch.optim.AdamW(self.model.parameters(), 1e-4)
        self.x = torch.randn(ROWS, LENGTH, WIDTH, device="cuda")
        self.y = torch.randn(ROWS, LENGTH, WIDTH, device="cuda")
        self.beat = Beats(page)
        self.units = Units(torch, self.beat)
        for part in self.model.modules():
            if not list(part.children()):
                self.units.hook(part)

    def step(self):
        self.units.at = 0
        with self.torch.autocast("cuda", self.torch.bfloat16):
            out = self.model(self.x)
        loss = (out.float() - self.y).square().mean()
        self.best.zero_grad()
        loss.backward()
        self.units.end()
        self.best.step()
        self.units.end()

    def warm_up(self):
        """Some steps; then what each unit of a step takes the GPU, in ns."""
        for _ in range(3):
            self.step()
        longest = []
        for _ in range(3):
            self.torch.cuda.synchronize()
            self.units.seen = []
            self.step()
            self.torch.cuda.synchronize()
            seen = self.units.seen
            took = [int(1e6 * a.elapsed_time(b)) for a, b in itertools.pairwise(seen)]
            longest = [max(pair) for pair in zip(longest or took, took, strict=True)]
        self.units.seen = None
        return [max(longest), *longest]

    def calibrate(self):
        self.torch.cuda.synchronize()
        stream = self.torch.cuda.current_stream().cuda_stream
        sample, step = calibrate(
            self.page, lambda n: self.beat("tick", n, stream), time.monotonic_ns
        )
        page = self.page
        page["device_ns"], page["host_ns"] = sample.device_ns, sample.host_ns
        page["half_ns"], page["resolution_ns"] = sample.half_ns, step


def run(page, result_path):
    """Until it is killed."""
    from hyperion.workload import pacing

    program = Program(page)
    took = program.warm_up()
    with open(f"{result_path}.units", "w") as file:
        json.dump({"took_ns": took, "first": program.units.number % len(took)}, file)
    page["unit_ns"] = max(took)
    program.calibrate()
    page["ready"] = 1
    while True:
        wanted = page["calibrate"]
        if page["calibrated"] != wanted:
            program.calibrate()
            page["calibrated"] = wanted
        if pacing.active is None:
            raise RuntimeError("nothing on its PYTHONPATH paces it")
        pacing.active.set_queue_ms(QUEUE_MS if page["window"] else 0.0)
        program.step()
