"""The kernels, compiled and not, against the plain computation, one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.model.resources import Capacity
from hyperion.placement import kernels, snapshot
from hyperion.placement.kernels import BLOCK, FIXED, NEVER, PART, WHOLE, Seating

CAPACITY = Capacity(gpus=4, cpus_milli=4000, memory_mib=4000)
ROWS = st.sampled_from((1, 255, 256, 257, 2048, 2049, 4500))
ASKED = st.tuples(
    st.sampled_from((0, 1, 1500)),
    st.sampled_from((0, 700)),
    st.sampled_from((0, 300)),
    st.sampled_from(((0, 0), (1, 0), (3, 0), (0, 250), (0, 700))),
    st.lists(st.sampled_from((0, 2)), max_size=2),
)


@pytest.fixture(params=["numba", "numpy"])
def each(request):
    if request.param == "numpy":
        yield kernels.NUMPY
        return
    if not kernels.warm():
        pytest.skip("numba is not installed (the extra fast), so there is nothing to compare")
    yield kernels.active()
    kernels.use(kernels.NUMPY)


def seating(rows, asked, seed, open_share, keeps, has_extra):
    """Columns longer than there are rows, as the snapshot's are."""
    dice = np.random.default_rng(seed)
    cpus, memory, disk, (whole, part), custom = asked
    need = np.zeros((2, FIXED + len(custom)), np.int64)
    need[0] = (cpus, memory, disk, whole, part, *custom)
    need[1] = np.where(need[0] > 0, need[0], NEVER)
    size = rows + 70
    devices = dice.choice(np.array([0, 250, 750, 1000], np.int32), (size, 4))
    amounts = dice.integers(-500, 4000, (FIXED, size)).astype(np.int32)
    amounts[WHOLE] = (devices == 1000).sum(axis=1)
    amounts[PART] = np.where(devices == 1000, 0, devices).max(axis=1)
    gate = dice.random(rows) < open_share
    gate[rows // 3 : rows // 3 + 2100] = False
    kept = dice.integers(0, 3, (len(need[0]), rows)) if keeps else np.zeros((0, 0), np.int64)
    fullness = np.zeros(size)
    for row in range(rows):
        free = (int(devices[row].sum()), int(amounts[0, row]), int(amounts[1, row]))
        fullness[row] = snapshot.fullness(CAPACITY, *free)
    return Seating(
        need=need,
        amounts=amounts,
        custom=dice.integers(-2, 6, (len(custom), size)),
        kept=kept,
        devices=devices,
        fullness=fullness,
        group=dice.integers(0, 7, size).astype(np.int32),
        gate=gate,
        capacity=np.tile(np.array([CAPACITY.gpus, CAPACITY.cpus_milli, 4000]), (7, 1)),
        price=dice.integers(0, 4, 7) / 2,
        weights=np.array([1e-4, -1e-5]),
        extra=dice.integers(0, 3, rows) / 8 if has_extra else np.zeros(0),
        cost=np.full(rows, np.nan),
        lows=np.full(-(-rows // BLOCK), np.nan),
    )


def room(s, row, most):
    """How many replicas a row takes."""
    found = most if s.gate[row] else 0
    kept = s.kept[:, row].tolist() if len(s.kept) else [0] * s.need.shape[1]
    for d, each in enumerate(s.need[0].tolist()):
        if each and d == PART:
            shares = sum(max(int(free), 0) // each for free in s.devices[row])
            spared = min(max(kept[WHOLE], 0), int(s.amounts[WHOLE, row]))
            found = min(found, shares - spared * (1000 // each))
        elif each:
            free = int(s.amounts[d, row] if d < FIXED else s.custom[d - FIXED, row])
            found = min(found, max(free - kept[d], 0) // each)
    return found


SEATINGS = st.builds(
    seating,
    ROWS,
    ASKED,
    st.integers(0, 2**32),
    st.sampled_from((0.0, 0.003, 0.6, 1.0)),
    st.booleans(),
    st.booleans(),
)
WRITTEN = ("amounts", "custom", "devices", "fullness")
LAW = settings(max_examples=60, deadline=None)


def test_costs_and_the_cheapest_row(each):
    @LAW
    @given(SEATINGS)
    def law(s):
        expected = np.array([kernels.row_cost(s, row) for row in range(len(s.gate))])
        best = int(expected.argmin()) if expected.min() < np.inf else -1
        assert each.score(s) == best
        assert (s.cost == expected).all()
        if each is not kernels.NUMPY:
            lows = np.minimum.reduceat(expected, np.arange(0, len(expected), BLOCK))
            assert (s.lows == lows).all()

    law()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_each_seat_is_in_the_cheapest_row_then(each, count):
    @LAW
    @given(SEATINGS)
    def law(s):
        costs = np.array([kernels.row_cost(s, row) for row in range(len(s.gate))])
        plain = s._replace(**{name: getattr(s, name).copy() for name in WRITTEN})
        expected = []
        while len(expected) < count and costs.min() < np.inf:
            row = int(costs.argmin())
            expected.append([row, *kernels.take(plain, row)])
            costs[row] = kernels.row_cost(plain, row)
        width = int(s.need[0, WHOLE]) or int(s.need[0, PART] > 0)
        out = np.zeros((count, 1 + width), np.int32)
        if count == 1:
            assert each.place(s, out) == (expected[0][0] if expected else -1)
        else:
            each.score(s)
            assert each.seat(s, np.zeros(0, np.int32), count, out) == len(expected)
            assert (s.cost == costs).all()
        assert out[: len(expected)].tolist() == expected
        for name in WRITTEN:
            assert (getattr(s, name) == getattr(plain, name)).all()

    law()


def test_room_by_row_and_by_part(each):
    @LAW
    @given(SEATINGS, st.sampled_from((1, 5, 2**31)), st.integers(1, 50))
    def law(s, most, width):
        expected = [room(s, row, most) for row in range(len(s.gate))]
        out = np.full(len(s.gate), -7, np.int64)
        assert each.slots(s, most, out) == sum(expected)
        assert out.tolist() == expected
        parts = (np.arange(len(s.gate)) // width % 9).astype(np.int32)
        sums = np.full(10, -7, np.int64)
        each.by_part(out, parts, sums)
        assert sums.tolist() == [sum(out[parts == part].tolist()) for part in range(10)]

    law()
