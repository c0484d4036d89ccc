"""The bounds of standing still: a rest between two pauses, no more than half of its time, no longer
than its hold at a stretch; whatever urgent jobs come and go."""

import sys
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from cluster_stories import S, alone, job, node
from msgspec.structs import replace

from hyperion.control import messages as m
from hyperion.control import occupancy, pausing
from hyperion.model.job import Pausing, Priority
from hyperion.model.node import PAUSE

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TICK_MS = 1000
"""Ends of holds are looked for so often, at the latest."""


class Played:
    """A cluster whose agents do at once what they are told, and what really happened to each
    attempt of the batch jobs."""

    def __init__(self, nodes, jobs):
        able = {PAUSE: "tested"}
        self.c = alone(*(replace(node(n, gpus=0, cpus=4), abilities=able) for n in nodes))
        self.jobs = {each.id: each for each in jobs}
        self.stands, self.started, self.stood_ms, self.resumed = {}, {}, {}, {}
        self.urgent = 0
        for each in jobs:
            self.obey(self.c.say(m.JobSubmitted(job=each, token=1)))

    @property
    def now_ms(self):
        return self.c.now_ms

    def obey(self, commands):
        todo = list(commands)
        while todo:
            command = todo.pop(0)
            if isinstance(command, m.SendToNode):
                todo += self._on_node(command.node, command.message)

    def _on_node(self, name, order):
        state = {m.Run: S.RUNNING, m.Pause: S.PAUSED, m.Resume: S.RUNNING, m.Stop: S.STOPPED}
        if type(order) not in state:
            return []
        id = order.allocation
        known = self.c.machine.state.allocations.get(id)
        if known is not None and known.job in self.jobs:
            self._note(order, id, self.jobs[known.job])
        report = m.AllocationReport(
            allocation=id,
            generation=order.generation,
            state=state[type(order)],
            started_at_ms=self.started.get(id, self.now_ms),
        )
        return self.c.say(m.NodeReported(node=name, report=report))

    def _note(self, order, id, job):
        """The laws, at each order."""
        now_ms = self.now_ms
        match order:
            case m.Run():
                self.started[id] = now_ms
            case m.Pause():
                rested_ms = now_ms - self.resumed.get(id, 0)
                assert rested_ms >= occupancy.QUANTUM_MS, f"{job.id} rested for {rested_ms} ms"
                share = self.stood_ms.get(id, 0) / max(1, now_ms - self.started[id])
                assert share <= pausing.MOST_PAUSED, f"{job.id} stood for {share:.0%} of its time"
                self.stands[id] = now_ms
            case m.Resume() | m.Stop():
                if isinstance(order, m.Stop) and id in self.resumed:
                    rested_ms = now_ms - self.resumed[id]
                    assert rested_ms >= occupancy.QUANTUM_MS, f"{job.id} was stopped at once"
                if id in self.stands:
                    stood_ms = now_ms - self.stands.pop(id)
                    self.stood_ms[id] = self.stood_ms.get(id, 0) + stood_ms
                    self.resumed[id] = now_ms

    def comes(self, priority, cpus):
        self.urgent += 1
        wanted = job(f"u{self.urgent}", gpus=0, cpus=cpus, priority=priority)
        self.obey(self.c.say(m.JobSubmitted(job=wanted, token=1)))

    def goes(self, n):
        """One of the urgent jobs that run ends."""
        state = self.c.machine.state
        runs = [a for a in state.allocations.values() if a.job.startswith("u")]
        runs = sorted(a.id for a in runs if a.state is S.RUNNING)
        if runs:
            a = state.allocations[runs[n % len(runs)]]
            report = m.AllocationReport(
                allocation=a.id, generation=a.generation, state=S.SUCCEEDED, exit_code=0
            )
            self.obey(self.c.say(m.NodeReported(node=a.node, report=report)))

    def visits(self, cpus, ms):
        """One that comes and goes again."""
        self.comes(Priority.LATENCY_CRITICAL, cpus)
        self.passes(ms)
        self.goes(0)

    def passes(self, ms):
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms:
            for name in list(self.c.machine.peers):
                self.obey(self.c.say(m.NodeHeard(name, m.NodeHeartbeat(sequence=1))))
            self.obey(self.c.wait(min(250, until_ms - self.now_ms), step_ms=50))
            self.check()

    def check(self):
        self.c.machine.state.check()
        allocations = self.c.machine.state.allocations
        for id, since_ms in self.stands.items():
            hold_ms = 1000 * self.jobs[allocations[id].job].pausing.hold_s
            stood_ms = self.now_ms - since_ms
            assert stood_ms <= hold_ms + TICK_MS, f"{id} stands for {stood_ms} of {hold_ms} ms"


HOLDS = st.sampled_from([2.0, 30.0])
PRIORITIES = st.sampled_from([Priority.LATENCY_CRITICAL, Priority.ULTRA_LOW_LATENCY])
ACTS = st.one_of(
    st.tuples(st.just("comes"), PRIORITIES, st.sampled_from([1, 2, 4])),
    st.tuples(st.just("goes"), st.integers(0, 3)),
    st.tuples(st.just("visits"), st.sampled_from([2, 4]), st.sampled_from([10, 700, 4000])),
    st.tuples(st.just("passes"), st.sampled_from([10, 60, 110, 500, 3000, 12_000])),
)


@LAW
@given(
    st.lists(st.tuples(HOLDS, st.sampled_from(["", "step"])), min_size=1, max_size=3),
    st.integers(1, 2),
    st.lists(ACTS, min_size=1, max_size=25),
)
def test_nobody_stands_still_too_often_too_long_or_for_too_much_of_its_time(holds, nodes, acts):
    jobs = [
        job(f"b{n}", gpus=0, cpus=4, pausing=Pausing(hold_s=hold_s, at=at))
        for n, (hold_s, at) in enumerate(holds)
    ]
    played = Played([f"n{n}" for n in range(nodes)], jobs)
    for name, *words in acts:
        getattr(played, name)(*words)
