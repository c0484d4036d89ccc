"""No deadline that could be met is missed for the sake of spot machines, whatever they do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control import rescue
from hyperion.control.federation import Federation
from hyperion.control.progress import slack_of
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.ids import ClusterId
from hyperion.model.job import Checkpoint, SavedCheckpoint
from hyperion.model.job import JobPhase as P
from hyperion.model.market import Market
from hyperion.model.resources import Capacity
from hyperion.placement import deadline

STEP_S = 60
checkpoints = st.builds(
    Checkpoint,
    every_s=st.sampled_from((0.0, 300.0, 1200.0)),
    restore_s=st.sampled_from((0.0, 90.0)),
    grace_s=st.sampled_from((10.0, 120.0)),
)


class Cloud:
    """A cluster of spot machines, cheap and taken at will, and one that nobody takes."""

    def __init__(self, job, spot_comes, interruptions):
        self.teller = Teller(Federation(MARKET, "balanced"))
        self.job = job
        self.spot_comes, self.interruptions = spot_comes, interruptions
        self.order, self.newest = None, 0
        self.cluster = ""
        self.version = 1
        self.done_s = self.kept_s = self.started_ms = 0.0
        self.saved = ()
        self.placed_on = []
        self.ended_ms = None
        self.really_every_s = job.checkpoint.every_s
        self.takes_s = job.expected_s

    def shape(self, cluster, nodes=4):
        bought = Market.SPOT if cluster == "spot" else Market.ON_DEMAND
        return Shape(
            capacity=Capacity(gpus=8, gpu_type="A100", cpus_milli=64_000, memory_mib=262_144),
            nodes=nodes,
            instance_type="big",
            market=bought,
            usd_per_hour=3.0 if cluster == "spot" else 10.0,
            free_gpus_milli=8000 * nodes,
            free_cpus_milli=64_000 * nodes,
            free_memory_mib=262_144 * nodes,
        )

    def load(self, cluster, there=True):
        return ClusterLoad(shapes=(self.shape(cluster),) if there else ())

    def run(self):
        for id in ("spot", "steady"):
            cluster = Cluster(id=ClusterId(id), region="aws/us-east-1")
            hello = m.ClusterHello(cluster=cluster, load=self.load(id), jobs=())
            self.say(m.ClusterAttached(hello=hello))
        self.submitted_ms = self.teller.now_ms
        self.say(m.JobSubmitted(job=self.job, token=1))
        for step in range(2000):
            if self.ended_ms is not None:
                return self
            there = not self.spot_comes or self.spot_comes[step % len(self.spot_comes)]
            for id in ("spot", "steady"):
                beat = m.ClusterHeartbeat(sequence=step, load=self.load(id, there or id != "spot"))
                self.say(m.ClusterHeard(cluster=ClusterId(id), heartbeat=beat))
            self.step(taken=self.interruptions[step % len(self.interruptions)])
            self.obey(self.teller.wait(1000 * STEP_S, step_ms=5000))
        raise AssertionError("it never ended")

    def say(self, event):
        self.obey(self.teller.say(event))

    def obey(self, commands):
        for command in commands:
            order = getattr(command, "message", None)
            if not isinstance(order, (m.PlaceJob, m.StopJob)) or order.generation <= self.newest:
                continue  # a repeated one
            self.newest = order.generation
            if isinstance(order, m.PlaceJob):
                self.order, self.cluster, self.version = order, command.cluster, 1
                self.started_ms = 0.0
                self.placed_on.append(command.cluster)
            elif order.comes_back:
                self.order = None
                self.done_s = self.kept_s
                self.tell(P.QUEUED, generation=order.generation, lost=True)

    def step(self, taken):
        """A minute: starting costs one, then work is done, and saved as often as it says."""
        if self.order is None:
            return
        if taken and self.cluster == "spot":
            self.done_s, self.started_ms = self.kept_s, 0.0
            self.order, order = None, self.order
            self.tell(P.QUEUED, generation=order.generation, lost=True)
            return
        if not self.started_ms:
            self.started_ms = self.teller.now_ms
            self.back_s = self.job.checkpoint.restore_s if self.kept_s else 0.0
            self.tell(P.RUNNING)
            return
        self.done_s += max(0.0, STEP_S - self.back_s)
        self.back_s = max(0.0, self.back_s - STEP_S)
        every_s = self.really_every_s
        if every_s and self.done_s - self.kept_s >= every_s:
            self.kept_s = self.done_s
            saved = SavedCheckpoint(int(self.done_s), "/c", at_ms=self.teller.now_ms, whole=True)
            self.saved = (*self.saved[-2:], saved)
        if self.done_s >= self.takes_s:
            self.ended_ms = self.teller.now_ms
            self.tell(P.SUCCEEDED)
            return
        self.tell(P.RUNNING)

    def tell(self, phase, generation=None, **facts):
        self.version += 1
        report = m.JobReport(
            job=self.job.id,
            generation=generation or self.order.generation,
            version=self.version,
            phase=phase,
            started_at_ms=int(self.started_ms),
            checkpoints=self.saved,
            **facts,
        )
        self.say(m.ClusterReported(cluster=ClusterId(self.cluster), report=report))


jobs = st.builds(
    lambda expected_s, spare, checkpoint: job(
        expected_s=expected_s,
        checkpoint=checkpoint,
        deadline_s=spare * (deadline.safe_s(job(expected_s=expected_s, checkpoint=checkpoint), 0.0))
        + 5 * STEP_S,
    ),
    st.sampled_from((1800.0, 7200.0)),
    st.floats(1.0, 4.0),
    checkpoints,
)


@settings(max_examples=60, deadline=None)
@given(
    jobs,
    st.lists(st.booleans(), max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=60),
)
def test_no_deadline_that_could_be_met_is_missed(job, spot_comes, interruptions):
    cloud = Cloud(job, spot_comes, interruptions).run()
    status = cloud.teller.machine.state.jobs[job.id].status
    assert status.phase is P.SUCCEEDED, (status.reason, cloud.placed_on)
    assert cloud.ended_ms - cloud.submitted_ms <= 1000 * job.deadline_s


def test_with_time_to_spare_it_runs_on_spot_and_leaves_when_that_is_used_up():
    checkpoint = Checkpoint(every_s=300.0)
    wished = job(expected_s=7200.0, deadline_s=4 * 3600.0, checkpoint=checkpoint)
    calm = Cloud(wished, [], [False]).run()
    assert calm.placed_on == ["spot"]
    wild = Cloud(wished, [], [False, False, True]).run()
    assert wild.placed_on[0] == "spot"
    assert wild.placed_on[-1] == "steady"
    [order] = [o for o in sent(wild.teller.commands, m.PlaceJob) if o.generation > 1][-1:]
    assert order.job.alternatives[0].use_spot is False


def test_plan_says_what_the_deadline_has_decided():
    cloud = Cloud(job(expected_s=7200.0, deadline_s=8300.0), [], [False])
    cloud.run()
    decided = cloud.teller.machine.state.decisions[cloud.job.id]
    assert cloud.placed_on == ["steady"]
    reasons = {row.cluster: row.reason for row in decided.rows}
    assert reasons["spot"] == "only spot machines, for which its deadline leaves no time"
    assert decided.arithmetic[-1].startswith("deadline: 2.306 h left for 2 h of work")


def test_a_running_job_whose_checkpoints_are_late_is_moved_while_there_is_time():
    wished = job(expected_s=7200.0, deadline_s=8600.0, checkpoint=Checkpoint(every_s=300.0))
    late = Cloud(wished, [], [False])
    late.really_every_s = 2400.0
    late.run()
    stops = sent(late.teller.commands, m.StopJob)
    assert {(stop.generation, stop.comes_back) for stop in stops} == {(2, True)}
    assert "leaves spot machines: deadline" in stops[0].reason
    assert late.placed_on == ["spot", "steady"]
    assert late.kept_s >= 2400.0
    assert late.teller.machine.state.jobs[wished.id].status.phase is P.SUCCEEDED


def test_one_that_runs_longer_than_it_said_is_not_stopped_for_that():
    wished = job(expected_s=1800.0, deadline_s=9000.0)
    slow = Cloud(wished, [], [False])
    slow.takes_s = 8000.0
    slow.run()
    assert slow.placed_on == ["spot"]


@given(jobs, st.floats(0.0, 50_000.0), st.floats(0.0, 1.0))
def test_who_may_begin_on_spot_need_not_leave_at_once(job, left_s, part):
    slack = deadline.Slack(left_s, part * job.expected_s)
    assert not (deadline.may_begin_on_spot(job, slack) and deadline.must_leave_spot(job, slack))
    less = deadline.Slack(left_s - 60.0, slack.saved_s)
    assert deadline.may_begin_on_spot(job, slack) or not deadline.may_begin_on_spot(job, less)


def test_of_many_that_must_leave_at_once_a_few_are_looked_at_in_one_step(monkeypatch):
    monkeypatch.setattr(rescue, "LOOKED_AT_ONCE", 2)
    cloud = Cloud(job(expected_s=7200.0, deadline_s=17_000.0), [], [False])
    f = cloud.teller
    for name in ("spot", "steady"):
        cluster = Cluster(id=ClusterId(name), region="edge/a")
        f.say(m.ClusterAttached(m.ClusterHello(cluster=cluster, load=cloud.load(name))))
    f.say(*(m.JobSubmitted(replace(cloud.job, id=f"j{n}"), token=1) for n in range(5)))
    assert {known.status.cluster for known in f.machine.state.jobs.values()} == {"spot"}
    stops = []
    for _ in range(1200):
        f.now_ms += 8000
        for name in ("spot", "steady"):
            beat = m.ClusterHeard(ClusterId(name), m.ClusterHeartbeat(sequence=1))
            f.machine.handle(beat, f.now_ms)
        said = f.machine.handle(m.Tick(), f.now_ms).commands
        stops.append(len({s.job for s in sent(said, m.StopJob) if "leaves" in s.reason}))
        if sum(stops) >= 5:
            break
    assert [n for n in stops if n][:1] == [2]


def test_one_that_is_taken_back_after_a_restart_is_watched_as_before():
    cloud = Cloud(job(expected_s=7200.0, deadline_s=30_000.0), [], [False])
    f, spot = cloud.teller, Cluster(id=ClusterId("spot"), region="edge/a")
    f.say(m.ClusterAttached(m.ClusterHello(cluster=spot, load=cloud.load("spot"))))
    [order] = sent(f.say(m.JobSubmitted(cloud.job, token=1)), m.PlaceJob)
    f.wait(600_000, step_ms=5000)
    assert f.machine.state.jobs[cloud.job.id].status.losses == 1
    f.restart(lambda: Federation(MARKET, "balanced"))
    running = m.JobReport(
        job=cloud.job.id, generation=order.generation, version=9, phase=P.RUNNING,
        started_at_ms=f.now_ms + 15_000_000,
    )  # fmt: skip
    f.now_ms += 15_000_000
    for cluster, reports in ((spot, (running,)), (replace(spot, id=ClusterId("steady")), ())):
        hello = m.ClusterHello(cluster=cluster, load=cloud.load(cluster.id), jobs=reports)
        f._take(f.machine.handle(m.ClusterAttached(hello), f.now_ms))
    assert f.machine.state.jobs[cloud.job.id].status.cluster == "spot"
    for _ in range(700):
        f.now_ms += 10_000
        for name in ("spot", "steady"):
            beat = m.ClusterHeard(ClusterId(name), m.ClusterHeartbeat(sequence=1))
            f.machine.handle(beat, f.now_ms)
        stops = sent(f.machine.handle(m.Tick(), f.now_ms).commands, m.StopJob)
        if stops:
            break
    assert "leaves spot machines" in stops[0].reason


def test_work_since_a_lost_cluster_was_last_heard_is_not_believed():
    saves = Checkpoint(every_s=300.0)
    wished = job(expected_s=7200.0, deadline_s=40_000.0, checkpoint=saves)
    f = Teller(Federation(MARKET, "balanced"))
    cluster = Cluster(id=ClusterId("c"), region="edge/a")
    f.say(m.ClusterAttached(m.ClusterHello(cluster=cluster, load=load())))
    [order] = sent(f.say(m.JobSubmitted(wished, token=1)), m.PlaceJob)
    started_ms = f.now_ms
    running = m.JobReport(
        job=wished.id, generation=order.generation, version=2, phase=P.RUNNING,
        started_at_ms=started_ms,
    )  # fmt: skip
    f.say(m.ClusterReported(ClusterId("c"), running))
    for minute in range(20):
        f.wait(60_000, step_ms=20_000)
        f.say(m.ClusterHeard(ClusterId("c"), m.ClusterHeartbeat(sequence=minute)))
        heard_ms = f.now_ms
    f.wait(600_000, step_ms=5000)
    status = f.machine.state.jobs[wished.id].status
    assert (status.phase, status.losses) == (P.QUEUED, 1)
    assert status.saved_s == pytest.approx((heard_ms - started_ms) / 1000 - 300.0, abs=1.0)


def test_only_reported_work_counts_once_any_is_reported():
    cloud = Cloud(job(expected_s=7200.0, deadline_s=40_000.0), [], [False])
    cloud.ended_ms = 0
    cloud.run()
    known = cloud.teller.machine.state.jobs[cloud.job.id]
    assert slack_of(known, cloud.teller.now_ms).saved_s == 0.0
