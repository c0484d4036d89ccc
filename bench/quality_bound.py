"""What a clairvoyant could not undercut: a program that knows the future (HiGHS).

A job's work may be spread over places and hours at will, is interrupted and moved without loss, and
pays egress once for each region in which any of it runs. Rooms, availability, deadlines and prices
are those of the recorded world. All of that makes it cheaper than any real plan. Which regions a
job uses are whole numbers; what counts is the bound that is proven when the time is over.
"""

import numpy as np
import quality_series as q

LIMIT_S = 60.0
WINDOW_H = 168
"""Jobs without a deadline are bound to end within so long; the bench asserts that they do."""


def bound(series, tasks, ends=None):
    """(USD, variables) of the least that the jobs cost together; with ``ends``, if none ends later
    than it did there."""
    import highspy

    model = _Model(series, tasks, ends or {})
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.low)
    lp.col_cost_ = np.array(model.cost)
    lp.col_lower_ = np.zeros(len(model.cost))
    lp.col_upper_ = np.array(model.most)
    lp.row_lower_, lp.row_upper_ = np.array(model.low), np.array(model.high)
    whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    lp.integrality_ = [whole if n in model.whole else real for n in range(len(model.cost))]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.array(model.start, np.int32)
    lp.a_matrix_.index_ = np.array(model.rows, np.int32)
    lp.a_matrix_.value_ = np.array(model.weights)
    h = highspy.Highs()
    h.silent()
    h.setOptionValue("time_limit", LIMIT_S)
    h.setOptionValue("mip_rel_gap", 1e-3)
    h.passModel(lp)
    h.run()
    status = h.getModelStatus()
    good = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kTimeLimit)
    assert status in good, h.modelStatusToString(status)
    return h.getInfo().mip_dual_bound, len(model.cost)


class _Model:
    """Columns: hours of a job in a spot zone in an hour, or on demand in a region."""

    def __init__(self, series, tasks, ends):
        self.cost, self.most = [], []
        self.low, self.high = [], []
        self.start, self.rows, self.weights = [0], [], []
        self._room = {}
        self.whole = set()
        spot = [p for p in series.places if p.market == q.SPOT]
        on_demand = [p for p in series.places if p.market == q.ON_DEMAND]
        for task in tasks:
            work_h = task.work_s / 3600.0
            all_work = self._row(work_h, np.inf)
            used = {}
            for region in sorted({p.region for p in series.places} - {task.home}):
                used[region] = self._row(-np.inf, 0.0)  # its hours there, less all if it is used
                self.whole.add(len(self.cost))
                usd = task.size_gib * series.egress[task.home, region]
                self._column(usd, 1.0, [(used[region], -work_h)])
            for place in on_demand:
                price = task.gpus * place.usd_per_gpu_hour[0]
                self._column(price, work_h, [(all_work, 1.0), *_there(used, place)])
            for hour, part in _window(task, ends.get(task.id)):
                once = self._row(0.0, part)
                for place in spot:
                    most = min(part, place.share[hour])
                    if most > 0:
                        price = task.gpus * place.usd_per_gpu_hour[hour]
                        room = self._room_of(place, hour)
                        rows = [(all_work, 1.0), (once, 1.0), (room, float(task.gpus))]
                        self._column(price, most, [*rows, *_there(used, place)])

    def _row(self, low, high):
        self.low.append(low)
        self.high.append(high)
        return len(self.low) - 1

    def _room_of(self, place, hour):
        key = place.id, hour
        if key not in self._room:
            self._room[key] = self._row(0.0, place.gpus * place.share[hour])
        return self._room[key]

    def _column(self, cost, most, entries):
        self.cost.append(cost)
        self.most.append(most)
        for row, weight in sorted(entries):
            self.rows.append(row)
            self.weights.append(weight)
        self.start.append(len(self.rows))


def _there(used, place):
    return [(used[place.region], 1.0)] if place.region in used else []


def _window(task, ended_s):
    """(hour, the part of it) in which the job may run."""
    end_s = task.at_s + (task.deadline_s or 3600.0 * WINDOW_H)
    end_s = min(end_s if ended_s is None else ended_s, 3600.0 * q.HOURS)
    for hour in range(int(task.at_s // 3600), int(-(-end_s // 3600))):
        part = min(end_s, 3600.0 * (hour + 1)) - max(task.at_s, 3600.0 * hour)
        yield hour, part / 3600.0
