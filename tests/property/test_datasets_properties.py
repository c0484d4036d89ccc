"""Any story about datasets: no copy twice, none lost, the last one stays, and money adds up."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.control.records import Decided
from hyperion.model.cluster import Cluster
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DatasetRead, DatasetWrite, JobPhase
from hyperion.placement import replication
from hyperion.sim.checkers import data_moved_once

US, EU, AP = "aws/us-east-1", "gcp/europe-west1", "aws/ap-south-1"
COSTLY = replace(MARKET, internet_egress={"aws": 0.09, "gcp": 0.08})
TIMES = FederationTimes(advise_ms=2000)
NAMES, REGIONS = ("books", "films"), (US, EU, AP)
names, places = st.sampled_from(NAMES), st.sampled_from(REGIONS)
STEPS = st.one_of(
    st.tuples(st.just("add"), names, places, st.floats(0.0, 500.0)),
    st.tuples(st.just("drop"), names, st.sampled_from(("", *REGIONS)), st.just(0.0)),
    st.tuples(st.just("read"), names, places, st.sampled_from((0.1, 1.0, 3.0))),
    st.tuples(st.just("write"), names, places, st.floats(0.0, 50.0)),
    st.tuples(st.just("lose"), names, places, st.just(0.0)),
    st.tuples(st.just("done"), names, places, st.just(0.0)),
    st.tuples(
        st.sampled_from(("copy", "drop", "copy-failed", "drop-failed")).map("hook-{}".format),
        names,
        places,
        st.just(0.0),
    ),
    st.tuples(st.just("wait"), names, places, st.floats(1.0, 90_000.0)),
    st.tuples(st.just("restart"), names, places, st.sampled_from((0.0, 1.0, 1.0))),
)


@pytest.fixture(autouse=True, scope="module")
def _copies_are_soon_old():
    """Else no story is long enough for the advisor to drop one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replication, "MIN_STAY_MS", 5000)
        yield


class Story:
    def __init__(self):
        self.teller = Teller(self.make())
        self.jobs = {}
        for name, region in (("us", US), ("eu", EU)):
            cluster = Cluster(id=ClusterId(name), region=region)
            hello = m.ClusterHello(cluster=cluster, load=load(usd_per_hour=8.0), jobs=())
            self.teller.say(m.ClusterAttached(hello=hello))

    def make(self, *, replicates=True):
        return Federation(COSTLY, "balanced", TIMES, replicates=replicates)

    def report(self, phase, **more):
        """The oldest placed job ends, or is lost."""
        orders = sent(self.teller.commands, m.PlaceJob)
        for order in orders:
            known = self.teller.machine.state.jobs.get(order.job.id)
            if known is not None and known.status.cluster and not known.status.phase.is_terminal:
                said = m.JobReport(
                    job=known.job.id, generation=known.status.generation,
                    version=known.status.version + 1, phase=phase, **more,
                )  # fmt: skip
                self.teller.say(m.ClusterReported(known.status.cluster, said))
                return

    def step(self, what, name, region, amount):
        say = self.teller.say
        match what:
            case "add":
                say(m.DatasetApplied(Dataset(name=name, size_gib=amount, copies=(Copy(region),))))
            case "drop":
                say(m.DatasetDropAsked(name, region))
            case "read" | "write":
                id = f"j{len(self.jobs)}"
                reads = (DatasetRead(name, amount),) if what == "read" else ()
                writes = (DatasetWrite(name, amount),) if what == "write" else ()
                self.jobs[JobId(id)] = SimpleNamespace(job=job(id, reads=reads, writes=writes))
                say(m.JobSubmitted(self.jobs[JobId(id)].job))
            case "lose" | "done":
                lost = what == "lose"
                self.report(JobPhase.QUEUED if lost else JobPhase.SUCCEEDED, lost=lost)
            case "hook-copy" | "hook-drop" | "hook-copy-failed" | "hook-drop-failed":
                error = "no space left" if what.endswith("failed") else ""
                say(m.CopyReported(name, region, what.split("-")[1], error))
            case "wait":
                say(m.Tick(), after_ms=int(amount))
            case "restart":
                self.teller.restart(lambda: self.make(replicates=bool(amount)))


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(STEPS, max_size=40))
def test_copies_are_paid_once_and_the_last_one_stays(twice, story):
    """The laws of the state (in which every dataset lies somewhere, and in no region twice) are
    looked at after each step; at the end those of the records, of the bill and of its words."""
    told = Story()
    for region in (US, EU) if twice else (US,):
        told.step("add", "books", region, 150.0)
    for step in story:
        told.step(*step)
    teller = told.teller
    process = SimpleNamespace(records=teller.records, machine=teller.machine)
    data_moved_once(process, told.jobs)
    for record in teller.records:
        if isinstance(record, Decided):
            lines = record.arithmetic
            chosen = next(row for row in record.rows if row.chosen)
            data = [float(x.rpartition("$")[2]) for x in lines if x.startswith("data:")]
            assert sum(data) == pytest.approx(chosen.egress_usd, abs=0.51e-4)
            terms = [float(x.rpartition("$")[2]) for x in lines if " = $" in x]
            assert round(sum(terms[:-1]), 4) == terms[-1]
    paid = {}
    for line in teller.machine.state.bills.lines.values():
        paid[line.job] = paid.get(line.job, 0.0) + line.egress_usd
    rows = {}
    for record in teller.records:
        if isinstance(record, Decided):
            chosen = next(row for row in record.rows if row.chosen)
            rows[record.job] = rows.get(record.job, 0.0) + chosen.egress_usd
    assert paid == pytest.approx(rows)
