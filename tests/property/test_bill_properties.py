"""The bill of a run is the sum of its records, whatever happens to the run."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from stories import MARKET, Teller, job, load

from hyperion.control import bill_records as b
from hyperion.control import bills
from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.daemon.money import cost_view, picture
from hyperion.model.cluster import Cluster
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DatasetRead, DataSource, JobPhase
from hyperion.model.market import MarketView

P = JobPhase
TIMES = FederationTimes(
    cluster_lease_ms=3_600_000, node_lease_ms=1000, reconsider_ms=1, ended_kept=2, bills_kept=4
)
COSTLY = MarketView(
    as_of=MARKET.as_of, regions=MARKET.regions, egress={("here/x", "aws/us-east-1"): 0.25}
)
JOBS = ("one", "two", "three")
STEPS = st.tuples(
    st.sampled_from(JOBS),
    st.sampled_from((
        "submit", "run", "run late", "again", "fail", "succeed", "lose", "refuse", "cancel",
        "detach", "attach", "price", "budget", "drop", "restart", "wait",
    )),
    st.integers(1, 40_000_000),
)  # fmt: skip


class Ledger:
    """What the jobs have cost, reckoned from what happened and not from what is kept of it."""

    def __init__(self):
        self.teller = Teller(Federation(COSTLY, "balanced", TIMES))
        self.paid = {}
        """By job, what it had spent when last seen; pruned ones stay."""
        lies = Dataset(name="d", size_gib=3.0, copies=(Copy("here/x"),))
        self.teller.say(m.DatasetApplied(lies))
        for name in ("a", "b"):
            self.attach(name)

    def attach(self, name, usd=8.0):
        cluster = Cluster(id=ClusterId(name), region="aws/us-east-1")
        hello = m.ClusterHello(cluster=cluster, load=load(usd_per_hour=usd), jobs=())
        self.teller.say(m.ClusterAttached(hello=hello))

    def report(self, id, phase, after_ms, **more):
        known = self.teller.machine.state.jobs.get(JobId(id))
        if known is None or not known.status.cluster:
            return
        said = m.JobReport(
            job=JobId(id), generation=known.status.generation,
            version=known.status.version + 1, phase=phase, **more,
        )  # fmt: skip
        self.teller.say(m.ClusterReported(known.status.cluster, said), after_ms=after_ms)

    def step(self, id, what, ms):  # noqa: PLR0912  one branch for each thing that may happen
        say, now_ms = self.teller.say, self.teller.now_ms
        match what:
            case "submit":
                data = (DataSource("s3://d", 4.0, "here/x"),)
                reads = (DatasetRead("d"),)
                wish = job(id, user=f"of-{id}", data=data, reads=reads)
                say(m.JobSubmitted(wish), after_ms=ms)
            case "run" | "run late":
                self.report(id, P.RUNNING, ms, started_at_ms=now_ms + (what == "run") * ms)
            case "again":
                self.report(id, P.STARTING, ms)
            case "fail" | "succeed":
                phase = P.FAILED if what == "fail" else P.SUCCEEDED
                self.report(id, phase, ms, started_at_ms=now_ms)
            case "lose" | "refuse":
                self.report(id, P.QUEUED, ms, lost=what == "lose", refused=what == "refuse")
            case "cancel":
                say(m.JobCancelRequested(JobId(id)), after_ms=ms)
                self.report(id, P.CANCELLED, 1)
            case "detach":
                say(m.ClusterDetached(ClusterId("a")), after_ms=ms)
            case "attach" | "price":
                self.attach("a", usd=8.0 if what == "attach" else 1 + ms % 7)
            case "budget":
                then = ("warn", "hold", "pause")[ms % 3]
                budget = b.Budget(tenant=f"user:of-{id}", usd=ms % 50, per="day", then=then)
                say(m.BudgetApplied(budget), after_ms=ms)
            case "drop":
                say(m.BudgetDropAsked(f"user:of-{id}"), after_ms=ms)
            case "restart":
                self.teller.restart(lambda: Federation(COSTLY, "balanced", TIMES))
            case "wait":
                say(m.Tick(), after_ms=ms)
        for known in self.teller.machine.state.jobs.values():
            self.paid[known.job.id, known.submitted_at_ms] = known.status.spent_usd


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_the_bill_of_a_run_is_the_sum_of_its_records(story):
    """After any story: by job, by every view, and over months that were rolled up. (The laws of the
    state, which have it for each job, are looked at after each step as well.)"""
    ledger = Ledger()
    for id in JOBS:
        ledger.step(id, "submit", 1000)
    for step in story:
        ledger.step(*step)
    state, now_ms = ledger.teller.machine.state, ledger.teller.now_ms
    kept = {}
    for record in ledger.teller.records:
        match record:
            case b.BillKept(line):
                kept[line.job, line.placed] = line.usd + line.egress_usd
            case b.BillsRolled(rolled):
                assert set(rolled) <= set(kept)
    in_state = sum(x.usd + x.egress_usd for x in state.bills.lines.values())
    in_state += sum(x.usd + x.egress_usd for x in state.bills.months.values())
    running = sum(
        view - known.status.spent_usd
        for known in state.jobs.values()
        for view in [bills.accounts.spent(known.status, now_ms)[0]]
    )
    spent = sum(ledger.paid.values())
    assert in_state == pytest.approx(spent, rel=1e-9, abs=1e-9)
    for by in ("user", "queue", "job", "cluster", "month"):
        view = cost_view(picture(state, now_ms), by, 0, 0, 1000)
        assert view.total.usd == pytest.approx(spent + running, rel=1e-9, abs=1e-9)
        assert sum(row.usd for row in view.rows) == pytest.approx(view.total.usd)
    fresh = Federation(COSTLY, "balanced", TIMES)
    fresh.restore(sorted(ledger.teller.disk.items()), now_ms)
    assert fresh.state.bills.lines == state.bills.lines
    assert fresh.state.budgets.entries == state.budgets.entries
    assert fresh.state.datasets.entries == state.datasets.entries
    counted = state.budgets.spent(state.placed(), now_ms)
    recounted = fresh.state.budgets.spent(fresh.state.placed(), now_ms)
    assert counted == pytest.approx(recounted, abs=1e-9)


@given(
    st.integers(0, 10**12), st.integers(0, 10**10), st.floats(0, 1e6), st.floats(0, 1e3),
    st.lists(st.integers(0, 10**12), max_size=5),
)  # fmt: skip
def test_a_line_is_the_sum_of_its_parts(begins_ms, ran_ms, usd, egress, cuts):
    line = b.BillLine(
        job=JobId("x"), placed=1, placed_at_ms=begins_ms, started_at_ms=begins_ms,
        ended_at_ms=begins_ms + ran_ms, hours=1.0, usd=usd, egress_usd=egress,
        home_usd_per_hour=2.0, home_egress_usd=1.0,
    )  # fmt: skip
    whole = bills.amounts(line)
    ends = [0, *sorted(cuts), 1 << 60]
    parts = bills.Amounts()
    for since_ms, until_ms in pairwise(ends):
        parts = parts.plus(bills.amounts(line, since_ms, until_ms))
    assert tuple(parts) == pytest.approx(tuple(whole), rel=1e-9, abs=1e-9)
