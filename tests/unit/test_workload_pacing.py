"""Launches that wait for a device, on a device made of a clock."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.workload import pacing
from hyperion.workload.pacing import SLICES, Pacer


class Device:
    """Does what it is given one after the other; the host launches in no time and waits by it."""

    def __init__(self):
        self.now_ms = 0.0
        self.free_at_ms = 0.0
        self.idle_ms = 0.0

    def launch(self, ms):
        self.idle_ms += max(0.0, self.now_ms - self.free_at_ms)
        self.free_at_ms = max(self.now_ms, self.free_at_ms) + ms

    @property
    def waiting_ms(self):
        return max(0.0, self.free_at_ms - self.now_ms)

    def mark(self):
        return DeviceMark(self, self.free_at_ms)


class DeviceMark:
    def __init__(self, device, at_ms):
        self.device, self.at_ms = device, at_ms

    def synchronize(self):
        self.device.now_ms = max(self.device.now_ms, self.at_ms)

    def elapsed_time(self, other):
        assert self.at_ms <= self.device.now_ms
        assert other.at_ms <= self.device.now_ms
        return other.at_ms - self.at_ms


def run(units_ms, queue_ms, steps):
    """What waited on the device after each launch of the last half, at most; and the device."""
    device, most = Device(), 0.0
    pacer = Pacer(queue_ms, device.mark)
    for step in range(steps):
        for unit, ms in enumerate(units_ms):
            device.launch(ms)
            if step >= steps // 2:
                most = max(most, device.waiting_ms)
            pacer.point(unit)
    return most, device


@given(
    st.lists(st.floats(0.01, 20), min_size=1, max_size=40),
    st.floats(1, 30),
)
@settings(max_examples=200, deadline=None)
def test_no_more_waits_than_the_slices_and_a_unit_for_each(units_ms, queue_ms):
    most, device = run(units_ms, queue_ms, 40)
    slice_ms = queue_ms / (SLICES + 1)
    assert most <= (SLICES + 1) * (slice_ms + max(units_ms)) * 1.05
    assert device.idle_ms == 0


def test_without_pacing_everything_waits():
    most, _ = run([1.0] * 10, 0, 40)
    assert most == pytest.approx(400)


def test_short_units_share_a_mark():
    device, marks = Device(), []

    def mark():
        marks.append(None)
        return device.mark()

    pacer = Pacer(6.0, mark)
    for unit in itertools.islice(itertools.cycle(range(100)), 1000):
        device.launch(0.1)
        pacer.point(unit)
    early = len(marks)
    for unit in itertools.islice(itertools.cycle(range(100)), 1000):
        device.launch(0.1)
        pacer.point(unit)
    assert early < 200  # the first hundred are measured one by one
    assert len(marks) - early == pytest.approx(1000 * 0.1 / 2, abs=3)


def test_what_a_unit_takes_is_learned_anew():
    device = Device()
    pacer = Pacer(6.0, device.mark)
    for ms in (0.1, 3.0):
        for _ in range(200):
            device.launch(ms)
            pacer.point("unit")
    assert device.waiting_ms <= 3 * (2 + 3.0)


@pytest.mark.parametrize("said", ["x", "-1", "1001", "nan"])
def test_a_wrong_wish_is_told_and_the_program_runs_on(said, capsys):
    assert pacing.install(None, {pacing.VARIABLE: said}) is None
    assert f"{pacing.VARIABLE}={said}: expected milliseconds" in capsys.readouterr().err


def test_without_a_wish_nothing_is_set():
    assert pacing.install(None, {}) is None


# -- in torch --------------------------------------------------------------------------------------


class FakeCuda:
    """Of torch.cuda what pacing asks, over a device made of a clock."""

    def __init__(self, device, broken=False):
        self.device, self.broken = device, broken
        self.marks = 0
        self.caps = []

    def set_per_process_memory_fraction(self, part, device):
        self.caps.append((part, device))

    def is_initialized(self):
        return True

    def is_current_stream_capturing(self):
        return False

    def current_device(self):
        return 0

    def Event(self, **_):
        if self.broken:
            raise RuntimeError("out of order")
        self.marks += 1
        made = self.device.mark()
        made.record = lambda: None
        return made


class FakeTorch:
    def __init__(self, torch, cuda):
        self.cuda, self.compiler = cuda, torch.compiler


def trained(torch, hooked):
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 1)
    )
    best = torch.optim.SGD(model.parameters(), 0.1)
    removed = [] if hooked is None else hooked(model)
    for _ in range(5):
        best.zero_grad()
        model(torch.ones(4, 8)).square().mean().backward()
        best.step()
    for handle in removed:
        handle.remove()
    return [p.detach().clone() for p in model.parameters()]


def test_every_module_is_a_point_both_ways_and_nothing_changes():
    torch = pytest.importorskip("torch")
    device = Device()
    own = pacing.Pacing(FakeTorch(torch, FakeCuda(device)), 3.0)
    points = []
    own.point = points.append

    def hooked(model):
        return [part.register_forward_hook(own._after_module) for part in model.modules()]

    plain, paced = trained(torch, None), trained(torch, hooked)
    assert all(torch.equal(a, b) for a, b in zip(plain, paced, strict=True))
    # Three modules and the whole, forwards; backwards the whole's output is the last one's.
    assert len([p for p in points if isinstance(p, int)]) == 5 * 4
    assert len([p for p in points if isinstance(p, tuple)]) == 5 * 4


def test_a_device_that_fails_ends_the_pacing_and_not_the_program(capsys):
    torch = pytest.importorskip("torch")
    own = pacing.Pacing(FakeTorch(torch, FakeCuda(Device(), broken=True)), 3.0)
    for _ in range(3):
        own.point("unit")
    assert capsys.readouterr().err.count("not paced any more") == 1


def test_a_part_of_a_gpu_is_a_part_of_its_memory():
    torch = pytest.importorskip("torch")
    cuda = FakeCuda(Device())
    own = pacing.Pacing(FakeTorch(torch, cuda), 0.0, share=0.3)
    for _ in range(3):
        own.point("unit")
    assert cuda.caps == [(0.3, 0)]
    assert cuda.marks == 0
