"""A device made of a process: it takes units from a pipe and does them with numpy, one by one.

It goes on when the process that launches has been frozen, as a GPU does. It is here so that all the
logic runs where no GPU is; what it measures says nothing of one.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import struct
import time

from gpu.checkpoints import Facts, group_free_bytes, host_free_bytes, stands_still
from gpu.page import Page

NAME = "cpu"
LAYERS, WIDTH, ROWS = 4, 128, 64
CLOCK_AHEAD_NS = 123_456_789_000
"""Of the device's clock before the host's: the correlation has something to find."""
ORDER = struct.Struct("<QQQ")
KINDS = ("forward", "loss", "backward", "tick", "end")
PIPE_BYTES = 4096
"""So far launches run ahead: 170 of them."""
MB = 1_000_000
COPY_SIZES = (1 * MB, 4 * MB, 16 * MB)
HELD_SIZES = (1 * MB,)
STEPS = 150


def clock_ns():
    return time.monotonic_ns() + CLOCK_AHEAD_NS


def described():
    import numpy as np

    return {"device": f"numpy on {platform.machine()}", "driver": "none", "numpy": np.__version__}


# -- training --------------------------------------------------------------------------------------


class Net:
    """A small net of tanh layers with plain descent; the same bits each time."""

    def __init__(self):
        import numpy as np

        self._tanh = np.tanh
        dice = np.random.default_rng(7)
        self.weights = [dice.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for _ in range(LAYERS)]
        self.x, self.y = dice.normal(size=(2, ROWS, WIDTH))
        self.acts, self.slope, self.losses = [self.x], None, []

    def forward(self, layer):
        if layer == 0:
            self.acts = [self.x]
        self.acts.append(self._tanh(self.acts[layer] @ self.weights[layer]))

    def loss(self, _layer):
        error = self.acts[-1] - self.y
        self.losses.append(float((error * error).mean()).hex())
        self.slope = 2 * error / error.size

    def backward(self, layer):
        slope = self.slope * (1 - self.acts[layer + 1] ** 2)
        self.slope = slope @ self.weights[layer].T
        self.weights[layer] -= 0.1 * (self.acts[layer].T @ slope)

    def result(self):
        whole = b"".join(w.tobytes() for w in self.weights)
        return {"losses": self.losses, "parameters": hashlib.sha256(whole).hexdigest()}


def execute(page_path):
    """The device: until nobody launches any more."""
    page, net = Page(page_path), Net()
    with open(f"{page_path}.queue", "rb", buffering=0) as queue:
        while order := queue.read(ORDER.size):
            kind, layer, number = ORDER.unpack(order)
            name = KINDS[kind]
            if name == "tick":
                page["tick_stamp"], page["tick"] = clock_ns(), number
            elif name == "end":
                with open(f"{page_path}.result", "w") as file:
                    json.dump(net.result(), file)
                page["answer"] = number
            else:
                page["begin_stamp"], page["begin"] = clock_ns(), number
                getattr(net, name)(layer)
                page["end_stamp"], page["end"] = clock_ns(), number


class Launcher:
    """What the training process holds of the device."""

    layers = LAYERS

    def __init__(self, page, keep=False):  # noqa: ARG002 - the net keeps its losses anyway
        self._page = page
        self._queue = os.open(f"{page.path}.queue", os.O_WRONLY)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._queue, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def launch(self, number, kind, layer):
        os.write(self._queue, ORDER.pack(KINDS.index(kind), layer, number))

    def tick(self, number):
        self.launch(number, "tick", 0)

    def wait(self, number):
        while self._page["end"] < number:
            time.sleep(0.00002)

    def finish(self, _page_path):
        """All work done, and its result written beside the page."""
        self.wait(self._page["launched"])
        self.launch(1, "end", 0)
        while not self._page["answer"]:
            time.sleep(0.0005)
        os.close(self._queue)


def prepare(page_path):
    """What the device process needs before it starts; its command's words, or none."""
    os.mkfifo(f"{page_path}.queue")
    return ["execute", page_path]


# -- the other phases ------------------------------------------------------------------------------


class Copies:
    """Host and device memory are both the host's."""

    kinds = ("pinned", "pageable")

    def free_bytes(self):
        return 64 * MB

    def __init__(self):
        import numpy

        self._numpy = numpy

    def fill(self, size):
        self._device = self._numpy.arange(size // 8, dtype="i8")
        self._back = self._numpy.zeros_like(self._device)

    def host(self, size, _kind):
        return self._numpy.zeros(size // 8, dtype="i8")

    def to_host(self, host):
        self._numpy.copyto(host, self._device)

    def to_device(self, host):
        self._numpy.copyto(self._back, host)

    def is_same(self):
        return bool((self._back == self._device).all())


class Answers:
    """A resident model that answers a small batch."""

    def __init__(self):
        import numpy as np

        self._tanh = np.tanh
        dice = np.random.default_rng(8)
        self._weights = [dice.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for _ in range(2)]
        self._x = dice.normal(size=(4, WIDTH))

    def answer(self):
        y = self._x
        for weights in self._weights:
            y = self._tanh(y @ weights)
        return float(y.sum())


class Held:
    """A process's device memory, and the part of the stand-in driver that lives in it."""

    def __init__(self, size, page):
        import numpy

        self._numpy, self._page = numpy, page
        self._array = numpy.arange(size // 8, dtype="i8")
        self._state, self._file = "running", f"{page.path}.image"

    def beat(self):
        """Work a little, unless locked; take calls."""
        wanted = self._page["command"]
        if wanted != self._page["answer"]:
            self._take(wanted % 8)
            self._page["answer"] = wanted
        return self._state == "running"

    def _take(self, call):
        if call == 2:
            self._numpy.save(self._file, self._array)
            self._array = None
        elif call == 3:
            self._array = self._numpy.load(f"{self._file}.npy")
        self._state = ("", "locked", "checkpointed", "locked", "running")[call]

    def digest(self):
        return hashlib.sha256(self._array.tobytes()).hexdigest()


class Calls:
    """Stands in for the driver: it hangs on a process that stands still, as that does."""

    def __init__(self, page_path):
        self._page, self._count, self._state = Page(page_path), 0, "running"

    def _ask(self, call, after, limit_s=20.0):
        self._count += 1
        self._page["command"] = wanted = 8 * self._count + call
        until = time.monotonic() + limit_s
        while self._page["answer"] != wanted:
            if time.monotonic() > until:
                raise TimeoutError("no answer")
            time.sleep(0.0005)
        self._state = after

    def lock(self, _pid, timeout_ms):
        self._ask(1, "locked", timeout_ms / 1e3)

    def checkpoint(self, _pid):
        self._ask(2, "checkpointed")

    def restore(self, _pid):
        self._ask(3, "locked")

    def unlock(self, _pid):
        self._ask(4, "running")

    def state(self, _pid):
        return self._state

    def used_bytes(self):
        return None


def facts(pid, needed):
    """As if a driver were there; memory and whether it stands are as found."""
    return Facts(
        driver="570.0",
        stands=stands_still(pid),
        needed_bytes=needed,
        host_free_bytes=host_free_bytes(),
        group_free_bytes=group_free_bytes(pid),
    )
