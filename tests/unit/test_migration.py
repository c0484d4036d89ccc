"""A running job goes on where the rest costs less, and no price makes it go to and fro."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.control.migrating import Migrations
from hyperion.model.checks import check
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.model.job import Checkpoint, SavedCheckpoint
from hyperion.model.job import JobPhase as P
from hyperion.placement import migration
from hyperion.placement.migration import MARGIN, MOST_MOVES
from hyperion.placement.objective import Terms, price_from

HOUR_MS = 3_600_000
WISHED = job(expected_s=40 * 3600, migrate=True, checkpoint=Checkpoint(every_s=600.0))


class Pair:
    """Two clusters whose prices are told, and a job that runs where it is told to."""

    def __init__(self, wished=WISHED):
        self.f = Teller(Federation(MARKET, "balanced"))
        self.usd = {"a": 10.0, "b": 12.0}
        self.version, self.newest = 1, 0
        self.places = []
        for id in self.usd:
            cluster = Cluster(id=ClusterId(id), region="aws/us-east-1")
            self.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=self.load(id))))
        self.say(m.JobSubmitted(job=wished, token=1))

    def load(self, id):
        return load(usd_per_hour=self.usd[id])

    def say(self, event):
        self.obey(self.f.say(event))

    def obey(self, commands):
        for order in sent(commands, (m.PlaceJob, m.StopJob)):
            if order.generation <= self.newest:
                continue
            self.newest = order.generation
            if isinstance(order, m.StopJob):
                assert order.comes_back
                self.report(P.QUEUED, lost=True)
            else:
                self.places.append(self.status.cluster)
                self.report(P.RUNNING, started_at_ms=self.f.now_ms)

    @property
    def status(self):
        return self.f.machine.state.jobs["train"].status

    def report(self, phase, **facts):
        self.version += 1
        report = m.JobReport(
            job="train", generation=self.newest, version=self.version, phase=phase, **facts
        )
        self.say(m.ClusterReported(cluster=self.status.cluster, report=report))

    def hours(self, n, **usd):
        """By minutes; what is written is known at once."""
        self.usd |= usd
        for _ in range(round(60 * n)):
            for id in self.usd:
                beat = m.ClusterHeartbeat(sequence=self.newest, load=self.load(id))
                self.say(m.ClusterHeard(ClusterId(id), beat))
            now_ms = self.f.now_ms
            saved = SavedCheckpoint(1, "/c", at_ms=now_ms, size_bytes=2**30, whole=True)
            started_ms = self.status.started_at_ms
            self.report(P.RUNNING, started_at_ms=started_ms, checkpoints=(saved,))
            self.obey(self.f.wait(60_000, step_ms=30_000))


def test_it_moves_once_a_lower_price_has_lasted_and_keeps_its_checkpoint():
    pair = Pair()
    pair.hours(1)
    assert pair.places == ["a"]
    pair.hours(1.5, a=40.0)
    assert pair.places == ["a", "b"]
    orders = sent(pair.f.commands, m.PlaceJob)
    assert orders[-1].checkpoints[-1].path == "/c"
    [reason] = {stop.reason for stop in sent(pair.f.commands, m.StopJob)}
    assert reason.startswith("goes on in b (aws/us-east-1): saves $")
    assert (pair.status.moves, pair.status.phase) == (1, P.RUNNING)


def test_who_has_not_asked_for_it_or_has_just_come_stays():
    still = Pair(replace(WISHED, migrate=False))
    still.hours(3, a=40.0)
    assert still.places == ["a"]
    young = Pair()
    young.hours(0.4, a=40.0)
    assert young.places == ["a"], "the least stay is half an hour"


def test_one_that_is_placed_again_and_again_keeps_nobody_from_being_looked_at():
    f = Teller(Federation(MARKET, "balanced"))
    cluster = Cluster(id=ClusterId("a"), region="aws/us-east-1")
    f.say(m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=load(), jobs=())))
    f.say(*(m.JobSubmitted(job=replace(WISHED, id=id), token=1) for id in ("one", "two")))
    for order in sent(f.commands, m.PlaceJob):
        report = m.JobReport(
            job=order.job.id, generation=order.generation, version=2, phase=P.RUNNING,
            started_at_ms=f.now_ms,
        )  # fmt: skip
        f.say(m.ClusterReported(cluster=cluster.id, report=report))
    looked, state = [], f.machine.state

    def plan(known, now_ms):
        looked.append(known.job.id)
        return f.machine.plan(known.job)

    watched = Migrations(state, plan, lambda *_: iter(()), 60_000, 0)
    for id, at_ms in (("one", 0), ("two", 0), ("one", 50_000)):
        watched.note(state.jobs[id], at_ms)
    assert list(watched.tick(MARKET, 61_000)) == []
    assert looked == ["two"]


def test_it_stays_where_a_move_costs_more_than_it_saves():
    pair = Pair(replace(WISHED, checkpoint=Checkpoint(every_s=600.0, restore_s=20 * 3600.0)))
    pair.hours(3, a=13.0)
    assert pair.places == ["a"]


def test_what_a_move_would_lose_must_be_known():
    [fault] = check(replace(WISHED, checkpoint=Checkpoint()))
    assert fault.pointer == "/migrate"
    assert check(WISHED) == ()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(1.0, 60.0), st.floats(1.0, 60.0)), min_size=2, max_size=8))
def test_the_machine_moves_no_more_often_than_it_may(prices):
    pair = Pair()
    for a, b in prices * 2:
        pair.hours(0.6, a=a, b=b)
    assert pair.status.moves == len(pair.places) - 1 <= MOST_MOVES


def played(prices, step_h, checkpoint, left_h=60.0):
    """(USD paid, moves, USD of moving, USD of staying, USD paid too much at the other place) over a
    series of prices for two places, known at each step; the production rules."""
    wished = job(expected_s=3600 * left_h, checkpoint=checkpoint)
    least_ms = FederationTimes().least_stay_ms
    terms = Terms(egress_usd=0.0, gco2e_per_hour=0.0, latency_ms=0.0, late_ms=0.0)
    here, moves, regret, stayed_h, paid, moving = 0, 0, 0.0, 0.0, 0.0, 0.0
    over = 0.0
    for now in prices:
        both = [price_from(wished, terms, usd) for usd in now]
        worth = migration.weigh(wished, both[here], both[1 - here], left_h, 0.1, 0.0)
        may = migration.may_move(moves, int(stayed_h * HOUR_MS), least_ms)
        if may and worth.pays(regret):
            here, moves, regret, stayed_h = 1 - here, moves + 1, 0.0, 0.0
            paid += worth.cost_usd
            moving += worth.cost_usd
            worth = migration.weigh(wished, both[here], both[1 - here], left_h, 0.1, 0.0)
        paid += migration.hourly(wished, both[here]) * step_h
        regret = migration.regret(regret, worth, step_h)
        if here:
            over += max(0.0, now[1] - now[0]) * step_h
        stayed_h += step_h
        left_h = max(0.0, left_h - step_h)
    stay = sum(now[0] for now in prices) * step_h
    return paid, moves, moving, stay, over


kinds = st.builds(Checkpoint, every_s=st.just(600.0), restore_s=st.sampled_from((0.0, 600.0)))
usd = st.floats(1.0, 50.0)


@given(usd, usd, st.integers(1, 40), kinds)
def test_no_price_that_swings_makes_it_go_to_and_fro(low, high, half_period, checkpoint):
    """A square wave of any height and length, opposed in the two places."""
    low, high = min(low, high), max(low, high)
    step_h = 0.25
    wave = [((low, high), (high, low))[n // half_period % 2] for n in range(240)]
    paid, moves, moving, stay, over = played(wave, step_h, checkpoint)
    assert moves <= MOST_MOVES
    assert paid <= stay + moving + over + 1e-6
    if half_period * step_h < 0.5:
        assert paid <= stay * (1 + MARGIN), "a fast swing costs it next to nothing"


@given(st.lists(st.tuples(usd, usd), min_size=1, max_size=240), kinds)
def test_moving_never_costs_more_than_what_was_paid_too_much_before(prices, checkpoint):
    """So it is never worse than twice the excess that the places themselves have caused."""
    paid, moves, moving, stay, over = played(prices, 0.25, checkpoint)
    excess = sum(abs(a - b) for a, b in prices) * 0.25
    assert moves <= MOST_MOVES
    assert moving <= excess + 1e-6
    assert paid <= stay + moving + over + 1e-6


@given(usd, st.floats(1.5, 20.0), kinds)
def test_what_stays_cheaper_is_moved_to(cheap, times, checkpoint):
    prices = [(cheap, 2 * cheap)] * 4 + [(cheap * times, cheap)] * 200
    paid, moves, _, stay, _ = played(prices, 0.25, checkpoint)
    assert moves == 1
    assert paid < stay


@given(usd, usd, st.floats(0.1, 80.0), st.floats(0.0, 3.0), st.floats(0.0, 9.0))
def test_the_worth_of_a_move_falls_with_each_of_its_costs(here, there, left_h, unsaved_h, more):
    wished = job(expected_s=3600.0)
    terms = Terms(egress_usd=0.0, gco2e_per_hour=0.0, latency_ms=0.0, late_ms=0.0)
    a, b = price_from(wished, terms, here), price_from(wished, terms, there)

    def net(unsaved_h, carry_usd, there):
        worth = migration.weigh(wished, a, there, left_h, unsaved_h, carry_usd)
        return worth.gain_usd - worth.cost_usd

    base = net(0.0, 0.0, b)
    assert net(0.0, more, b) <= base
    assert net(0.0, 0.0, replace(b, egress_usd=more)) <= base
    if here >= there:
        assert net(min(left_h, unsaved_h), 0.0, b) <= base + 1e-9
