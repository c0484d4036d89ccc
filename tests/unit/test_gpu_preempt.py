"""What decides in ``bench/gpu_preempt.py``, without a GPU; and two phases for real on CPU."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import gpu_preempt
from gpu import budget, cpu, cuda, figures, stage, standstill, training
from gpu.checkpoints import (
    CALLS,
    CallFailed,
    Checkpointed,
    Facts,
    Forbidden,
    group_free_bytes,
    refusals,
    stands_still,
    version,
)
from gpu.clocks import Correlation, Sample, calibrate, resolution, tightest
from gpu.page import FIELDS, Page, offset

LAW = settings(deadline=None)

# -- figures ---------------------------------------------------------------------------------------


def test_few_values_say_so():
    rows = figures.spread("x", [3.0, 1.0, 2.0], "ms", (0.5, 0.99, 1.0), {0.99: 20})
    assert [r["figure"] for r in rows] == ["x, p50", "x, p99", "x, max"]
    assert [r["value"] for r in rows] == [2.0, 3.0, 3.0]
    assert [r.get("note") for r in rows] == [None, "the largest", None]
    assert [r.get("goal") for r in rows] == [None, 20, None]
    assert all(r["n"] == 3 for r in rows)


@pytest.mark.parametrize(
    ("part", "count", "few"),
    [(0.99, 99, True), (0.99, 100, False), (0.999, 999, True), (0.999, 1000, False)],
)
def test_a_percentile_needs_so_many_values(part, count, few):
    (one,) = figures.spread("x", [1.0] * count, parts=(part,))
    assert ("note" in one) == few


def test_without_values_there_is_no_figure():
    rows = figures.judged(figures.spread("x", [], goals=figures.GOALS_MS), is_gpu=True)
    assert [r["value"] for r in rows] == [None, None, None]
    assert figures.told(rows[0]) == "n=0 goal ≤ 5: not measured"


@pytest.mark.parametrize(
    ("value", "is_gpu", "more", "words"),
    [
        (4, True, {}, "goal ≤ 5: met"),
        (6, True, {}, "goal ≤ 5: MISSED"),
        (6, False, {}, "(goal of a GPU ≤ 5)"),
        (6, False, {"anywhere": True}, "goal ≤ 5: MISSED"),
    ],
)
def test_goals_of_a_gpu_are_met_by_gpus_alone(value, is_gpu, more, words):
    (one,) = figures.judged([figures.row("x", value, "ms", goal=5, **more)], is_gpu)
    assert figures.told(one) == words
    assert ("met" in one) == ("(" not in words)


def test_the_cost_of_pacing():
    assert figures.cost_percent(200, 198) == pytest.approx(1)
    assert figures.cost_percent(200, 202) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        ({"losses": ["a", "b"], "parameters": "p"}, []),
        ({"losses": ["a"], "parameters": "p"}, ["1 steps instead of 2"]),
        ({"losses": ["a", "c"], "parameters": "p"}, ["the loss of step 2 is c, not b"]),
        ({"losses": ["a", "b"], "parameters": "q"}, ["the parameters at the end are others"]),
    ],
)
def test_runs_are_compared_bit_by_bit(found, faults):
    assert figures.differences({"losses": ["a", "b"], "parameters": "p"}, found) == faults


# -- pacing ----------------------------------------------------------------------------------------


@LAW
@given(st.integers(0, 6), st.lists(st.integers(0, 9), max_size=60))
def test_no_more_units_are_in_flight_than_the_window_has(size, ends_meanwhile):
    window, ended, most = training.Window(size), 0, 0
    for number, ends in enumerate(ends_meanwhile, 1):
        ended = min(number - 1, ended + ends)  # what the device happens to have done by now
        ended = max(ended, window.must_end(number))
        assert ended < number, "it would wait for itself"
        most = max(most, number - ended)
    assert not size or most <= size


def test_a_window_is_not_negative():
    with pytest.raises(ValueError, match="window"):
        training.Window(-1)


def test_a_step_goes_there_and_back():
    assert list(training.units(2)) == [
        ("forward", 0),
        ("forward", 1),
        ("loss", 2),
        ("backward", 1),
        ("backward", 0),
    ]


class Device:
    """Ends a unit when somebody waits for it; its clock goes on by itself."""

    layers = 1

    def __init__(self, page):
        self.page, self.log, self.now, self.finished = page, [], 0, 0

    def launch(self, number, kind, layer):
        assert self.page["launching"] == number == self.page["launched"] + 1
        self.log.append(number)

    def wait(self, number):
        while self.finished < number:
            self.finished += 1
            self.now += 100
            self.page["begin"], self.page["begin_stamp"] = self.finished, self.now
            self.now += 10 * self.finished
            self.page["end"], self.page["end_stamp"] = self.finished, self.now

    def tick(self, number):
        self.now += 7
        self.page["tick_stamp"], self.page["tick"] = self.now, number


@pytest.fixture
def page(tmp_path):
    made = Page(tmp_path / "page", create=True)
    yield made
    made.close()


def test_a_training_warms_up_and_sets_its_clock(page):
    device = Device(page)
    training.train(device, page, layers=1, steps=2)
    warm = 3 * training.WARM_STEPS
    assert device.log == list(range(1, warm + 7))
    assert page["unit_ns"] == 10 * warm, "the longest of the last step to warm up"
    assert page["ready"] == 1
    assert page["resolution_ns"] == 7
    assert page["end"] == warm, "unpaced, nobody waits"


def test_a_paced_training_waits(page):
    device = Device(page)
    page["window"] = 2
    page["calibrate"] = 1
    training.train(device, page, layers=1, steps=4)
    assert page["launched"] - page["end"] == 2
    assert page["calibrated"] == 1


def test_two_maps_of_a_page_are_one(page):
    other = Page(page.path)
    other["end_stamp"] = (1 << 64) - 1
    assert page["end_stamp"] == (1 << 64) - 1
    assert offset("end_stamp") == 8 * FIELDS.index("end_stamp")
    for name in ("begin", "end", "tick"):
        assert offset(f"{name}_stamp") == offset(name) + 8, "the kernel writes both"
    other.close()


# -- clocks ----------------------------------------------------------------------------------------


@LAW
@given(
    st.integers(-(10**12), 10**12),
    st.integers(-100, 100),
    st.lists(st.integers(0, 10**11), min_size=1, max_size=6, unique=True),
    st.integers(0, 10**11),
)
def test_clocks_that_drift_evenly_are_mapped(ahead, ppm, sampled, at):
    def device(host):
        return host + ahead + host * ppm // 1_000_000

    host0 = 10**13
    clocks = Correlation([Sample(device(host0 + h), host0 + h, 5) for h in sampled])
    apart = max(abs(at - h) for h in sampled)
    alone = abs(ppm) * apart / 1e6 if len(sampled) == 1 else 0
    gaps = [b - a for a, b in zip(sorted(sampled), sorted(sampled)[1:], strict=False)]
    rounding = 3 + 3 * apart / min(gaps) if gaps else 3
    assert abs(clocks.host_ns(device(host0 + at)) - host0 - at) <= alone + rounding
    assert clocks.half_ns == 5


def test_the_shortest_round_trip_counts():
    assert tightest([(0, 1000, 100), (200, 1105, 210), (300, 1200, 350)]) == Sample(1105, 205, 5)
    assert resolution([5, 5, 37, 69, 133]) == 32
    assert resolution([5, 5]) == 0


def test_the_drift_is_told():
    clocks = Correlation([Sample(0, 0, 1), Sample(1_000_000, 1_000_010, 1)])
    assert clocks.drift_ppm == pytest.approx(10)
    assert Correlation([Sample(0, 0, 1)]).drift_ppm == 0
    with pytest.raises(ValueError, match="no sample"):
        Correlation([])


def test_calibration_asks_for_the_time_and_gives_up(page):
    now = iter(range(0, 10**9, 10))
    device = Device(page)
    sample, step = calibrate(page, device.tick, lambda: next(now), rounds=4)
    assert (page["tick"], step, sample.half_ns) == (4, 7, 5)
    with pytest.raises(TimeoutError):
        calibrate(page, lambda _: None, lambda: next(now), limit_ns=100)


# -- when the device is free -----------------------------------------------------------------------


def trial(**changed):
    plain = {
        "called_ns": 1_000_000,
        "stopped_ns": 1_500_000,
        "begin": 7,
        "begin_stamp": 2_000_000,
        "end": 7,
        "end_stamp": 3_000_000,
        "end_when_stopped": 5,
        "seen_ns": 3_000_100,
        "drained": True,
    }
    return standstill.Trial(**{**plain, **changed})


@pytest.mark.parametrize(
    ("changed", "ms"),
    [
        ({}, 2.0),
        ({"end_stamp": 1_200_000}, 0.5),  # nothing was left when the process stood
        ({"begin": 8, "begin_stamp": 3_100_000}, 2.5),  # cut off in a launch: a whole unit
        ({"begin": 8, "begin_stamp": 3_000_000, "stopped_ns": 9_000_000}, 8.0),
    ],
)
def test_free_is_when_process_and_device_stand(changed, ms):
    clocks = Correlation([Sample(0, 0, 1)])
    assert standstill.free_ms(trial(**changed), clocks, unit_ns=400_000) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("beats", "limit", "found"),
    [
        ([(1, 1)], 1000, (0, True)),
        ([(1, 1), (1, 1), (2, 1), (2, 2)], 1000, (50, True)),
        ([(n, n) for n in range(200)], 150, (160, False)),
    ],
)
def test_the_watch_ends_when_all_is_quiet(beats, limit, found):
    left, clock, now = iter(beats), [0], {}

    def rest(_):
        beat = next(left, None)
        if beat:
            now["begin"], now["end"] = beat

    def now_ns():
        clock[0] += 10
        return clock[0]

    rest(0)
    assert standstill.watch(now, now_ns, rest, quiet_ns=50, limit_ns=limit) == found


def test_a_group_of_v2_is_found_or_none(tmp_path):
    mounts, own, root = tmp_path / "mounts", tmp_path / "own", tmp_path / "root"
    root.mkdir()
    mounts.write_text(f"none {root} cgroup2 rw 0 0\nproc /proc proc rw 0 0\n")
    own.write_text("4:cpu:/x\n0::/gone\n")
    assert standstill.group_v2("ours", mounts, own) == "", "no freezer in it"
    assert not list(root.iterdir()), "and it is removed again"
    mounts.write_text("proc /proc proc rw 0 0\n")
    assert standstill.group_v2("ours", mounts, own) == ""


# -- checkpoints by the driver ---------------------------------------------------------------------

GOOD = Facts(driver="580.159.04", needed_bytes=10**9, host_free_bytes=10**10)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"driver": "565.57.01"}, "570"),
        ({"driver": ""}, "unknown"),
        ({"driver": "none"}, "570"),
        ({"bindings": False}, "cuda-bindings"),
        ({"architecture": "aarch64"}, "x86_64"),
        ({"stands": True}, "stands still"),
        ({"uvm": True}, "UVM"),
        ({"uvm": None}, "unknown"),
        ({"ipc": True}, "IPC"),
        ({"mps": True}, "MPS"),
        ({"mig": True}, "MIG"),
        ({"mig": None}, "MIG"),
        ({"host_free_bytes": 10**8}, "the host has 0.1 GB free"),
        ({"group_free_bytes": 10**8}, "control group has 0.1 GB left"),
    ],
)
def test_what_forbids_a_checkpoint(changed, word):
    known = {name: getattr(GOOD, name) for name in Facts.__slots__}
    facts = Facts(**{**known, **changed})
    (found,) = refusals(facts)
    assert word in found
    with pytest.raises(Forbidden):
        Checkpointed(1, None, None, facts)


def test_nothing_forbids_it_where_all_is_well():
    assert refusals(GOOD) == []
    assert version("580.159.04") == (580, 159, 4)
    assert version("570-open") == ()


class Driver:
    """Writes down what it is asked; fails where told to."""

    def __init__(self, fails=(), is_really="running"):
        self.asked, self._fails, self._is = [], fails, is_really

    def __getattr__(self, name):
        def call(pid, *_):
            self.asked.append(name)
            if name in self._fails:
                raise OSError("no room")

        return call

    def state(self, pid):
        if self._is is None:
            raise OSError("gone")
        return self._is


def made(state="running", driver=None, stands=lambda: False):
    one = Checkpointed(7, driver or Driver(), stands, GOOD)
    one.state = state
    return one


def test_the_whole_way():
    driver = Driver()
    one = made(driver=driver)
    for name in ("lock", "checkpoint", "restore", "unlock"):
        getattr(one, name)()
    assert driver.asked == ["lock", "checkpoint", "restore", "unlock"]
    assert one.state == "running"
    assert sorted(one.took_ms) == sorted(driver.asked)


@pytest.mark.parametrize("state", ["running", "locked", "checkpointed", "failed"])
@pytest.mark.parametrize("name", ["lock", "checkpoint", "restore", "unlock"])
def test_calls_out_of_order_are_not_made(state, name):
    driver = Driver()
    one = made(state, driver)
    if (state, name) in CALLS:
        getattr(one, name)()
        assert driver.asked == [name]
    else:
        with pytest.raises(Forbidden, match=state):
            getattr(one, name)()
        assert (driver.asked, one.state) == ([], state)


ACTS = ["lock", "checkpoint", "restore", "unlock", "freeze", "thaw", "stop", "cont"]


@LAW
@given(st.lists(st.sampled_from(ACTS), max_size=30))
def test_the_driver_is_never_asked_for_a_process_that_stands_still(acts):
    still, outside = [], []
    asked_while_still = []

    class Watched(Driver):
        def __getattr__(self, name):
            def call(pid, *_):
                asked_while_still.extend([name] if still or outside else [])

            return call

    one = made(driver=Watched(), stands=lambda: bool(still or outside))
    for act in acts:
        if act in ("stop", "cont"):  # somebody else does it
            outside[:] = [1] if act == "stop" else []
            continue
        arguments = {"freeze": [lambda: still.append(1)], "thaw": [still.clear]}.get(act, [])
        try:
            getattr(one, act)(*arguments)
        except Forbidden:
            continue
    assert asked_while_still == []


@pytest.mark.parametrize("state", ["running", "failed"])
def test_only_a_locked_process_is_frozen(state):
    stopped = []
    with pytest.raises(Forbidden, match="lock it first"):
        made(state).freeze(lambda: stopped.append(1))
    assert not stopped


@pytest.mark.parametrize(("really", "state"), [("locked", "locked"), (None, "failed")])
def test_after_a_failure_the_driver_says_what_is(really, state):
    one = made("locked", Driver(fails=("checkpoint",), is_really=really))
    with pytest.raises(CallFailed, match="checkpoint: no room"):
        one.checkpoint()
    assert one.state == state
    assert "checkpoint" not in one.took_ms


@pytest.mark.parametrize(
    ("letter", "events", "freeze", "stands"),
    [
        ("R", "frozen 0", "0", False),
        ("S", "frozen 1", "1", True),
        ("S", "frozen 0", "1", True),
        ("T", "frozen 0", "0", True),
    ],
)
@pytest.mark.parametrize("where", ["job/replica", "job"])
def test_who_stands_still_is_read_from_the_kernel(tmp_path, letter, events, freeze, stands, where):
    root = tmp_path / "cgroup"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none {root} cgroup2 rw 0 0\n")
    for place in ("job", "job/replica"):
        (root / place).mkdir(parents=True)
        (root / place / "cgroup.freeze").write_text(freeze if place == where else "0")
        said = events if place == where else "frozen 0"
        (root / place / "cgroup.events").write_text(f"populated 1\n{said}\n")
    (root / "job/replica/memory.max").write_text("100\n")
    (root / "job/replica/memory.current").write_text("40\n")
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "stat").write_text(f"7 (a) b) {letter} 1 7")
    (process / "cgroup").write_text("0::/job/replica\n")
    assert stands_still(7, tmp_path / "proc", mounts) == stands
    assert not stands_still(8, tmp_path / "proc", mounts), "who is gone does not stand"
    assert group_free_bytes(7, tmp_path / "proc", mounts) == 60


def test_a_group_without_a_limit_has_none(tmp_path):
    assert group_free_bytes(7, tmp_path) is None


# -- phases ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_phase_that_fails_harms_no_other():
    clock, limits = Clock(), {}

    def run_one(name, limit_s):
        limits[name] = limit_s
        clock.now += 1
        if name == "truth":
            raise budget.PhaseFailed("broken", "how", [figures.row("kept", 1)])
        if name == "t1":
            raise RuntimeError
        if name == "t2":
            raise budget.PhaseRefused("driver 550")
        return "how", [figures.row("x", 1)]

    results = budget.run_phases(list(budget.WEIGHTS), 100.0, run_one, clock)
    assert [(r.phase, r.status, r.reason) for r in results] == [
        ("truth", "failed", "broken"),
        ("t0", "done", ""),
        ("hooks", "done", ""),
        ("t1", "failed", "RuntimeError"),
        ("t2", "skipped", "driver 550"),
        ("urgent", "done", ""),
        ("exact", "done", ""),
    ]
    assert results[0].rows == [figures.row("kept", 1)]
    assert limits["truth"] == pytest.approx(8)
    assert limits["exact"] == pytest.approx(94), "what the others leave over is the last one's"


def test_phases_keep_their_order_and_the_whole_time():
    clock = Clock()

    def run_one(name, limit_s):
        clock.now += limit_s
        return "", []

    results = budget.run_phases(["exact", "t0"], 40.0, run_one, clock)
    assert [r.phase for r in results] == ["t0", "exact"]
    assert clock.now == pytest.approx(40, abs=0.2)
    results = budget.run_phases(["exact", "t0"], 4.0, run_one, clock)
    assert {r.reason for r in results} == {"no time is left for it"}


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        ('{"method": "m", "rows": [], "refused": "why"}', budget.PhaseRefused, "why"),
        ('{"method": "m", "rows": [1], "failed": "why"}', budget.PhaseFailed, "why"),
        ("", budget.PhaseFailed, "ended with -9: last"),
    ],
)
def test_what_a_phase_printed(out, error, words):
    with pytest.raises(error, match=words) as raised:
        gpu_preempt.outcome(out, "first\nlast\n", -9)
    assert raised.value.rows == ([1] if "[1]" in out else [])


@pytest.mark.parametrize("hangs", ["sleep 60", "kill -STOP $$; true"])
def test_a_phase_that_hangs_is_killed(hangs):
    with pytest.raises(budget.PhaseFailed, match="not done after"):
        gpu_preempt.ran(["sh", "-c", hangs], "", 0.2)


@pytest.mark.parametrize(
    ("words", "within_s", "why"),
    [(["hold", "no number"], 30, "ended: ValueError"), (["answer"], 0, "no answer within 0 s")],
)
def test_a_process_beside_that_ends_or_is_silent_fails_its_phase(tmp_path, words, within_s, why):
    surroundings = stage.Stage(cpu, str(tmp_path), "", 0.0)
    arguments = [*words, "no page"] if len(words) > 1 else words
    with (
        stage.process(surroundings, *arguments) as made,
        pytest.raises(budget.PhaseFailed, match=why),
    ):
        stage.heard(made, within_s)


def test_a_phase_that_raises_keeps_its_rows(capsys):
    class Stage:
        rows = ["kept"]  # noqa: RUF012

    def broken(_):
        raise KeyError("x")

    assert gpu_preempt.attempted(broken, Stage()) == {"failed": "KeyError('x')"}
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "status", "code"),
    [
        (figures.row("x", 1), "done", 0),
        (figures.row("x", 1), "skipped", 0),
        (figures.row("x", 1), "failed", 1),
        (figures.row("memory came back the same", False), "done", 1),
        (figures.row("x", 1, goal=0, anywhere=True, met=False), "done", 1),
        (figures.row("x", None, goal=0, met=True), "done", 0),
    ],
)
def test_the_exit_status(row, status, code):
    assert gpu_preempt.exit_status({"phases": [{"status": status, "rows": [row]}]}) == code


# -- devices ---------------------------------------------------------------------------------------


def test_no_gpu_is_said_with_the_next_step(monkeypatch, capsys):
    monkeypatch.setattr(gpu_preempt, "described", lambda _: {"missing": "no driver"})
    assert gpu_preempt.main([]) == 2
    said = capsys.readouterr().err
    assert "no driver" in said
    assert "--device cpu" in said


def test_without_a_driver_the_reason_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(cuda.NoGpu, match="nvidia-smi"):
        cuda.described()


class Library:
    """A libcuda that answers yes, and keeps what the kernel was launched with."""

    def __init__(self):
        self.launched = []

    def __getattr__(self, name):
        return lambda *_: 0

    def cuMemHostGetDevicePointer_v2(self, device, *_):
        device._obj.value = 1 << 40
        return 0

    def cuLaunchKernel(self, *given):
        place, number = (ctypes.c_uint64.from_address(at).value for at in given[9])
        self.launched.append((place - (1 << 40), number, len(given)))
        return 0


def test_beats_are_written_to_their_places(tmp_path, monkeypatch):
    library = Library()
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda _: library)
    beat = cuda.Beats(Page(tmp_path / "page", create=True))
    beat("begin", 5, 0)
    beat("tick", 6, 0)
    assert library.launched == [(offset("begin"), 5, 11), (offset("tick"), 6, 11)]
    library.cuLaunchKernel = lambda *_: 700
    with pytest.raises(OSError, match="700"):
        beat("end", 7, 0)


def test_the_phases_run_on_cpu_and_say_what_they_are(tmp_path, capsys):
    kept = tmp_path / "figures.json"
    arguments = ["--device", "cpu", "--phase", "t2", "exact", "--trials", "3", "--json"]
    assert gpu_preempt.main([*arguments, "--budget-s", "120", "--write", str(kept)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(kept.read_text())
    assert document["label"] == "cpu: logic only, not a GPU figure"
    assert {"device", "machine", "load_before", "load_after", "budget_s", "seed"} <= set(document)
    t2, exact = document["phases"]
    assert (t2["phase"], t2["status"], t2["reason"]) == ("t2", "done", "")
    found = {row["figure"]: row["value"] for row in t2["rows"]}
    assert found["1 MB: refused on a stopped process"] is True
    assert found["1 MB: memory came back the same"] is True
    found = {row["figure"]: row["value"] for row in exact["rows"]}
    assert found["runs that came out otherwise"] == 0
    assert found["preemptions"] == 3
    assert found["different losses among them"] == found["steps of each"]
    assert exact["method"]
    gpu_preempt.show(document)
    assert "goal ≤ 0: met" in capsys.readouterr().out


def test_who_measures_loads_nothing_but_the_standard_library():
    """Neither torch, nor what the core needs: the GPU machine may have none of it."""
    asked = (
        "import gpu_preempt, sys; print({'torch', 'numpy', 'msgspec', 'cuda'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, env=stage.surroundings(), capture_output=True, check=True)
    assert done.stdout == b"set()\n"
