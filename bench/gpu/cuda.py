"""An NVIDIA GPU by torch; beats by the driver itself, so that they come without the host's doing.

torch is imported where an object is made: in the processes that use the GPU, and in no other.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import subprocess

from gpu.checkpoints import Facts, group_free_bytes, host_free_bytes, stands_still
from gpu.page import SIZE, offset

NAME = "cuda"
LAYERS, WIDTH, INNER, ROWS = 12, 2048, 8192, 8192
GIB = 1 << 30
COPY_SIZES = (1 * GIB, 4 * GIB, 16 * GIB)
HELD_SIZES = (1 * GIB, 4 * GIB, 16 * GIB)
STEPS = 300
RING = 64
"""Events kept: a window is smaller."""
BEAT = """
.version 7.0
.target sm_80
.address_size 64
.visible .entry beat(.param .u64 place, .param .u64 number)
{
  .reg .u64 %rd<4>;
  ld.param.u64 %rd1, [place];
  ld.param.u64 %rd2, [number];
  mov.u64 %rd3, %globaltimer;
  st.volatile.global.u64 [%rd1+8], %rd3;
  membar.sys;
  st.volatile.global.u64 [%rd1], %rd2;
  membar.sys;
  ret;
}
"""
_PORTABLE_AND_MAPPED = 3


class NoGpu(Exception):
    """What is missing, and the next step."""


def smi(*fields):
    """What nvidia-smi says of the first GPU; NoGpu where it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(
            [*command, "--id=0"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoGpu(f"nvidia-smi does not answer ({error}): no NVIDIA driver here") from None
    return [word.strip() for word in said.stdout.splitlines()[0].split(",")]


def described():
    """Device and versions, by torch and nvidia-smi."""
    name, driver = smi("name", "driver_version")
    try:
        import torch
    except ImportError:
        raise NoGpu("torch is not installed: pip install torch, with CUDA") from None
    if not torch.cuda.is_available():
        raise NoGpu(f"torch {torch.__version__} sees no CUDA device")
    free, whole = torch.cuda.mem_get_info()
    return {
        "device": name,
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "memory_gb": round(whole / 1e9, 1),
        "free_gb": round(free / 1e9, 1),
    }


def prepare(_page_path):
    """No process stands in for the device."""
    return []


def _ok(code):
    if code:
        raise OSError(f"the CUDA driver answers {code}")


class Beats:
    """A kernel of one thread that writes the device's time and a number into the page.

    Make it when torch has its context: it uses the one that is current.
    """

    def __init__(self, page):
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._held = ctypes.c_char.from_buffer(page.memory)
        address = ctypes.c_void_p(ctypes.addressof(self._held))
        device = ctypes.c_uint64()
        _ok(self._cuda.cuMemHostRegister_v2(address, ctypes.c_size_t(SIZE), _PORTABLE_AND_MAPPED))
        _ok(self._cuda.cuMemHostGetDevicePointer_v2(ctypes.byref(device), address, 0))
        self._device = device.value
        self._module, self._kernel = ctypes.c_void_p(), ctypes.c_void_p()
        _ok(self._cuda.cuModuleLoadData(ctypes.byref(self._module), BEAT.encode() + b"\0"))
        _ok(self._cuda.cuModuleGetFunction(ctypes.byref(self._kernel), self._module, b"beat"))
        self._place, self._number = ctypes.c_uint64(), ctypes.c_uint64()
        self._parameters = (ctypes.c_void_p * 2)(
            ctypes.addressof(self._place), ctypes.addressof(self._number)
        )

    def __call__(self, name, number, stream):
        """Into a stream, behind what is in it."""
        self._place.value, self._number.value = self._device + offset(name), number
        one = (ctypes.c_uint(1),) * 6
        _ok(
            self._cuda.cuLaunchKernel(
                self._kernel,
                *one,
                ctypes.c_uint(0),
                ctypes.c_void_p(stream),
                self._parameters,
                None,
            )
        )


class Launcher:
    """A stack of residual blocks, trained by descent with momentum, deterministic.

    It computes in bfloat16; weights and momentum are of 32 bits, so that each step changes them.
    """

    layers = LAYERS

    def __init__(self, page, keep=False):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import torch

        self._torch, self._keep = torch, keep
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it would cost kernels
        torch.manual_seed(7)
        made = {"device": "cuda"}
        self._weights = [
            (
                (torch.randn(WIDTH, INNER, **made) / WIDTH**0.5).requires_grad_(),
                (torch.randn(INNER, WIDTH, **made) / INNER**0.5).requires_grad_(),
            )
            for _ in range(LAYERS)
        ]
        self._moments = [tuple(torch.zeros_like(w) for w in pair) for pair in self._weights]
        self._x = torch.randn(ROWS, WIDTH, **made).bfloat16()
        self._y = torch.randn(ROWS, WIDTH, **made)
        self._ins, self._outs, self._slope, self._losses = [], [], None, []
        self._stream = torch.cuda.current_stream().cuda_stream
        self._beat = Beats(page)
        self._events = [torch.cuda.Event() for _ in range(RING)]

    def launch(self, number, kind, layer):
        self._beat("begin", number, self._stream)
        getattr(self, f"_{kind}")(layer)
        self._beat("end", number, self._stream)
        self._events[number % RING].record()

    def tick(self, number):
        self._beat("tick", number, self._stream)

    def wait(self, number):
        """For one of the last ``RING`` units."""
        self._events[number % RING].synchronize()

    def _forward(self, layer):
        if layer == 0:
            self._ins, self._outs = [], []
        x = (self._outs[-1] if self._outs else self._x).detach().requires_grad_()
        inner, outer = (weight.bfloat16() for weight in self._weights[layer])
        normed = self._torch.nn.functional.layer_norm(x, (WIDTH,))
        self._ins.append(x)
        self._outs.append(x + self._torch.relu(normed @ inner) @ outer)

    def _loss(self, _layer):
        out = self._outs[-1].detach().requires_grad_()
        loss = ((out.float() - self._y) ** 2).mean()
        (self._slope,) = self._torch.autograd.grad(loss, out)
        if self._keep:
            self._losses.append(loss.detach())

    def _backward(self, layer):
        pair = self._weights[layer]
        self._slope, *slopes = self._torch.autograd.grad(
            self._outs[layer], (self._ins[layer], *pair), self._slope
        )
        self._outs[layer] = self._ins[layer] = None
        with self._torch.no_grad():
            for weight, moment, slope in zip(pair, self._moments[layer], slopes, strict=True):
                moment.mul_(0.9).add_(slope)
                weight.add_(moment, alpha=-0.05)

    def result(self):
        digest = hashlib.sha256()
        for pair in self._weights:
            for weight in pair:
                digest.update(weight.detach().cpu().numpy().tobytes())
        losses = [float(loss).hex() for loss in self._losses]
        return {"losses": losses, "parameters": digest.hexdigest()}

    def finish(self, page_path):
        self._torch.cuda.synchronize()
        with open(f"{page_path}.result", "w") as file:
            json.dump(self.result(), file)


# -- the other phases ------------------------------------------------------------------------------


class Copies:
    kinds = ("pinned", "pageable")

    def __init__(self):
        import torch

        self._torch = torch

    def free_bytes(self):
        """Room for a source, where it comes back to, and the comparison; half of the host's."""
        return min(self._torch.cuda.mem_get_info()[0] // 3, host_free_bytes() // 2)

    def fill(self, size):
        self._device = self._back = None
        self._torch.cuda.empty_cache()
        made = {"dtype": self._torch.uint8, "device": "cuda"}
        self._device = self._torch.randint(0, 256, (size,), **made)
        self._back = self._torch.zeros(size, **made)
        self._torch.cuda.synchronize()

    def host(self, size, kind):
        pinned = kind == "pinned"
        return self._torch.empty(size, dtype=self._torch.uint8, pin_memory=pinned).zero_()

    def to_host(self, host):
        host.copy_(self._device, non_blocking=True)
        self._torch.cuda.synchronize()

    def to_device(self, host):
        self._back.copy_(host, non_blocking=True)
        self._torch.cuda.synchronize()

    def is_same(self):
        return self._torch.equal(self._back, self._device)


class Answers:
    """A resident model of 2 GB that answers 8 rows, in a stream of high priority."""

    def __init__(self):
        import torch

        self._torch = torch
        made = {"device": "cuda", "dtype": torch.bfloat16}
        self._weights = [
            (torch.randn(4096, 16384, **made) / 64, torch.randn(16384, 4096, **made) / 128)
            for _ in range(8)
        ]
        self._x = torch.randn(8, 4096, **made)
        torch.cuda.synchronize()
        self._stream = torch.cuda.Stream(priority=-1)

    def answer(self):
        with self._torch.no_grad(), self._torch.cuda.stream(self._stream):
            y = self._x
            for inner, outer in self._weights:
                y = y + self._torch.relu(y @ inner) @ outer
            return float(y.float().sum())


class Held:
    """Memory of a process, and a kernel now and then."""

    def __init__(self, size, _page):
        import torch

        self._torch = torch
        self._array = torch.randint(0, 1 << 62, (size // 8,), device="cuda")
        self._count = torch.zeros(1, device="cuda")
        torch.cuda.synchronize()

    def beat(self):
        self._count.add_(1)
        return True

    def digest(self):
        """Two sums, on the device: bytes that changed or moved show in them."""
        plain = mixed = 0
        for n, part in enumerate(self._array.split(1 << 24)):
            places = self._torch.arange(len(part), device="cuda") + n
            plain += int(part.sum())
            mixed += int((part * places).sum())
        return f"{plain & (1 << 64) - 1:016x}{mixed & (1 << 64) - 1:016x}"


class Calls:
    """The driver's checkpoints, by cuda-bindings."""

    def __init__(self, _page_path):
        from cuda.bindings import driver

        self._driver = driver
        self._done(driver.cuInit(0))

    def _done(self, answer):
        code, *values = answer
        if int(code):
            raise OSError(f"the CUDA driver answers {code}")
        return values[0] if values else None

    def lock(self, pid, timeout_ms):
        arguments = self._driver.CUcheckpointLockArgs()
        arguments.timeoutMs = timeout_ms
        self._done(self._driver.cuCheckpointProcessLock(pid, arguments))

    def checkpoint(self, pid):
        self._done(self._driver.cuCheckpointProcessCheckpoint(pid, None))

    def restore(self, pid):
        self._done(self._driver.cuCheckpointProcessRestore(pid, None))

    def unlock(self, pid):
        self._done(self._driver.cuCheckpointProcessUnlock(pid, None))

    def state(self, pid):
        state = int(self._done(self._driver.cuCheckpointProcessGetState(pid)))
        return ("running", "locked", "checkpointed", "failed")[min(state, 3)]

    def used_bytes(self):
        """Of the GPU, by all processes."""
        return int(smi("memory.used")[0]) << 20


def facts(pid, needed):
    """Of this driver, this machine, and a process of ours that shares no memory."""
    driver, mig = smi("driver_version", "mig.mode.current")
    return Facts(
        driver=driver,
        bindings=_has_bindings(),
        architecture=platform.machine(),
        stands=stands_still(pid),
        mps=_mps_runs(),
        mig={"Disabled": False, "[N/A]": False, "Enabled": True}.get(mig),
        needed_bytes=needed,
        host_free_bytes=host_free_bytes(),
        group_free_bytes=group_free_bytes(pid),
    )


def _has_bindings():
    try:
        from cuda.bindings import driver
    except ImportError:
        return False
    return hasattr(driver, "cuCheckpointProcessLock")


def _mps_runs():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
            if file.read().startswith("nvidia-cuda-mps"):
                return True
    return False
