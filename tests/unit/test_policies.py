"""Policies: what the newer ones prefer, plug-ins that are really installed, and misbehaviour."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext

import numpy as np
import pytest

from hyperion.daemon import plugins
from hyperion.daemon.alarm import Alarm
from hyperion.daemon.settings import SchedulerSettings, SettingError, load
from hyperion.model import checks
from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Array, Job, Role
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import ranking
from hyperion.placement.fragmentation import SHAPES_KEPT, Fragmentation, Shape, increase
from hyperion.placement.planner import plan, plan_round
from hyperion.placement.ranking import (
    BALANCED,
    Candidates,
    Guarded,
    Rankers,
    Room,
    TooLate,
    Waiting,
    policy,
)
from hyperion.placement.snapshot import rebuild
from hyperion.wire.spec import SpecError, job_from_yaml

from stories import job, node  # isort: skip

A100 = Capacity(gpus=8, gpu_type="A100", cpus_milli=64_000, memory_mib=512 * 1024)
H100 = Capacity(gpus=8, gpu_type="H100", cpus_milli=64_000, memory_mib=512 * 1024)


def ask(gpus=1.0, cpus=1.0, gpu_type="", memory_mib=0):
    return ResourceRequest(
        gpus_milli=round(1000 * gpus),
        cpus_milli=round(1000 * cpus),
        gpu_type=gpu_type,
        memory_mib=memory_mib,
    )


def of(request, **more):
    return Job(id=JobId("j"), command=("true",), alternatives=(request,), **more)


def candidates(request=None, n=3, **columns):
    """Candidates that are equal but for the columns given; as nodes if a request is given."""
    zeros = np.zeros(n)
    names = ("usd_per_hour", "egress_usd", "gco2e_per_hour", "latency_ms", "score", "fullness")
    found = Candidates(**dict.fromkeys((*names, "waste"), zeros))
    if request is not None:
        room = {
            "gpus": zeros, "part_milli": zeros, "cpus_milli": zeros + 64_000,
            "memory_mib": zeros + 512 * 1024, "kind": np.zeros(n, np.int32), "capacities": [A100],
        }  # fmt: skip
        room |= columns
        found.room = lambda: Room(request=request, **room)
    return found


def waiting(**more):
    more.setdefault("job", job())
    more.setdefault("submitted_at_ms", 1000)
    return Waiting(**more)


# -- fragmentation ---------------------------------------------------------------------------------


def fragmented(gpus, cpus, memory, gpu_type, shape):
    """Of one node, GPU by GPU, as the paper defines it; ``gpus`` are free thousandths."""
    whole = sum(g == 1000 for g in gpus)
    if shape.gpus_milli >= 1000:
        fits = whole >= shape.gpus_milli // 1000
    else:
        fits = any(g >= shape.gpus_milli for g in gpus)
    if (shape.gpu_type not in ("", gpu_type)) or cpus < shape.cpus_milli:
        fits = False
    if not fits or memory < shape.memory_mib:
        return sum(gpus)
    return sum(g for g in gpus if g < min(1000, shape.gpus_milli))


def taken(gpus, request):
    """The GPUs after one replica more, as the planner takes them: the tightest that will do."""
    gpus = list(gpus)
    if request.gpus_milli >= 1000:
        for _ in range(request.gpus_milli // 1000):
            gpus.remove(1000)
    elif request.gpus_milli:
        tight = min(g for g in gpus if g >= request.gpus_milli)
        gpus[gpus.index(tight)] -= request.gpus_milli
    return gpus


@pytest.mark.parametrize("seed", range(40))
def test_the_increase_is_the_papers_definition_gpu_by_gpu(seed):
    dice = random.Random(seed)
    request = ask(dice.choice([0, 0.2, 0.5, 0.7, 1, 2, 4]), cpus=dice.choice([1, 8]))
    demand = [
        (Shape(round(1000 * g), t, 1000 * c, m), p)
        for g, t, c, m, p in [
            (dice.choice([0.1, 0.3, 0.5, 0.9]), dice.choice(["", "A100"]), 1, 0, 0.25),
            (dice.choice([1, 2, 4, 8]), dice.choice(["", "H100"]), dice.choice([1, 9]), 0, 0.5),
            (1, "", 2, dice.choice([0, 100_000]), 0.25),
        ]
    ]
    nodes = []
    while len(nodes) < 20:
        part = dice.choice([0, 0, 100, 300, 500, 900])
        gpus = [1000] * dice.randint(0, 8) + ([part] if part else [])
        try:
            taken(gpus, request)
        except ValueError:
            continue  # no room: the planner does not ask for its cost
        nodes.append((gpus, 1000 * dice.randint(8, 20), dice.choice([50_000, 200_000]), seed % 2))
    room = Room(
        request=request,
        gpus=np.array([sum(g == 1000 for g in gpus) for gpus, *_ in nodes]),
        part_milli=np.array([max((g for g in gpus if g < 1000), default=0) for gpus, *_ in nodes]),
        cpus_milli=np.array([n[1] for n in nodes]),
        memory_mib=np.array([n[2] for n in nodes]),
        kind=np.array([n[3] for n in nodes]),
        capacities=[A100, H100],
    )
    expected = []
    for gpus, cpus, memory, kind in nodes:
        gpu_type = ("A100", "H100")[kind]
        after = (taken(gpus, request), cpus - request.cpus_milli, memory - request.memory_mib)
        expected.append(
            sum(
                p * (fragmented(*after, gpu_type, s) - fragmented(gpus, cpus, memory, gpu_type, s))
                for s, p in demand
            )
        )
    assert increase(room, demand) == pytest.approx(expected)


def learned(*requests, times=100):
    policy = Fragmentation()
    for _ in range(times):
        for request in requests:
            policy.observe(of(request))
    assert policy.begin()
    return policy


def test_a_share_goes_where_what_is_left_is_of_use_to_the_usual_demand():
    usual_halves = learned(ask(0.5))
    usual_eights = learned(ask(8))
    # Three nodes: one with half a GPU left, one with a third, and one that is all free.
    c = candidates(ask(0.3), gpus=np.array([0, 0, 8]), part_milli=np.array([500, 300, 0]))
    # Where halves are usual, the half is spared.
    assert int(usual_halves.cost(of(ask(0.3)), c).argmin()) == 1
    # Where whole nodes are usual, anything is better than to break the free one.
    assert int(usual_eights.cost(of(ask(0.3)), c).argmax()) == 2


def test_cpus_are_not_taken_from_under_gpus():
    policy = learned(ask(1, cpus=8))
    c = candidates(
        ask(0, cpus=8), gpus=np.array([4, 4, 0]), cpus_milli=np.array([8000, 64_000, 64_000])
    )
    costs = policy.cost(of(ask(0, cpus=8)), c)
    assert costs[0] == pytest.approx(4), "all four would be out of reach"
    assert costs[1:] == pytest.approx([0, 0])


def test_before_anything_was_asked_for_the_job_itself_is_the_demand():
    policy = Fragmentation()
    assert not policy.begin()
    c = candidates(ask(2), n=2, gpus=np.array([3, 4]))
    assert list(policy.cost(of(ask(2)), c)) == [1.0, 0.0], "one GPU of three would be left over"


def test_the_demand_forgets_slowly_and_is_bounded():
    policy = learned(ask(8), times=400)
    for _ in range(3000):
        policy.observe(of(ask(0.5)))
    assert policy.begin()
    demand = {shape.gpus_milli: p for shape, p in policy.demand}
    assert demand[500] > 0.95
    for n in range(1, 1000):
        policy.observe(of(ask(n / 1000)))
    policy.begin()
    assert sum(p for _, p in policy.demand) == pytest.approx(1, abs=1e-4)
    assert len(policy._weights) <= SHAPES_KEPT


def test_arrays_and_roles_count_with_all_their_replicas():
    policy = Fragmentation()
    policy.observe(of(ask(0.5), array=Array(size=30)))
    roles = (Role(name="a", replicas=2, resources=ask(4)), Role(name="b", resources=ask(0)))
    policy.observe(of(ask(4), roles=roles, replicas=3))
    policy.observe(of(ask(0)))
    assert policy.begin()
    demand = {shape.gpus_milli: p for shape, p in policy.demand}
    assert demand[500] == pytest.approx(30 / 32, abs=0.01)
    assert set(demand) == {500, 4000}


def test_costs_are_void_only_when_the_demand_has_changed():
    watched = Guarded(Fragmentation())
    watched.order(waiting(job=of(ask(1))))
    era = watched.era
    watched.begin()
    assert watched.era == era + 1
    watched.begin()
    assert watched.era == era + 1


def test_in_a_cluster_it_leaves_whole_nodes_to_those_who_need_them():
    c = rebuild([node("n1", gpus=8), node("n2", gpus=8)], [])
    ranker = Guarded(learned(ask(8), ask(0.5)))
    jobs = [job(id=f"j{n}", gpus=0.5) for n in range(4)]
    seats = [p.seats[0] for p in plan_round(c, jobs, ranker)]
    assert len({s.node for s in seats}) == 1
    assert [s.devices for s in seats] == [(0,), (0,), (1,), (1,)]
    assert not ranker.fault


def test_clusters_have_no_room_to_look_at():
    c = candidates()
    c.fullness = np.array([0.1, 0.9, 0.5])
    assert int(Fragmentation().cost(of(ask(1)), c).argmin()) == 1


# -- who waits before whom -------------------------------------------------------------------------


def order(name, **more):
    return Guarded(policy(name)).order(waiting(**more))


def test_least_attained_service_looks_at_the_job_then_at_its_user():
    name = "least-attained-service"
    new = order(name, user_share=0.9)
    newer = order(name, user_share=0.1)
    old = order(name, attained_gpu_ms=5_000_000, user_share=0.0)
    assert newer < new < old


def test_shortest_first_multiplies_time_by_gpus_and_takes_the_unknown_for_an_hour():
    name = "shortest-first"
    small = order(name, expected_ms=600_000, gpus_milli=1000)
    wide = order(name, expected_ms=60_000, gpus_milli=16_000)
    unknown = order(name, gpus_milli=1000)
    assert small < wide < unknown == 3600
    assert 0 < order(name, expected_ms=60_000) < order(name, expected_ms=90_000) < small


def test_fair_lets_users_take_turns_and_the_others_do_not():
    assert Guarded(policy("fair")).per_user
    assert not Guarded(policy("balanced")).per_user
    assert order("fair") == order("balanced") == 0.0


@pytest.mark.parametrize("name", sorted(ranking.BUILT_IN))
def test_every_policy_is_new_each_time_and_gives_finite_costs_of_nodes_and_clusters(name):
    assert policy(name).name == name
    for c in (candidates(ask(1), gpus=np.array([1, 2, 3])), candidates()):
        watched = Guarded(policy(name))
        watched.begin()
        assert watched.cost(of(ask(1)), c).shape == (3,)
        assert not watched.fault
    assert ranking.origin(name) == "built in"


# -- misbehaviour ----------------------------------------------------------------------------------


class Acting:
    """A policy that does what it is told to, each time it is asked."""

    name = "acting"

    def __init__(self, cost=None, order=None):
        self._cost = cost
        if order is not None:
            self.order = order

    def cost(self, job, candidates):
        return self._cost(candidates) if self._cost else candidates.score


def loop(_=None):
    while True:
        pass


def loop_and_swallow(_=None):
    swallowed = 0
    while swallowed < 3:
        try:
            loop()
        except BaseException:
            swallowed += 1
    loop()


def sleep(_=None):
    time.sleep(3600)


def leave(_=None):
    raise SystemExit(3)


@pytest.mark.parametrize("act", [loop, loop_and_swallow, sleep])
def test_a_policy_that_does_not_return_is_ended_and_replaced_for_the_round(act):
    watched = Guarded(Acting(act), Alarm(30))
    c = candidates()
    handler = signal.getsignal(signal.SIGALRM)
    for rounds in (1, 2):
        watched.begin()
        assert list(watched.cost(of(ask(1)), c)) == list(BALANCED.cost(of(ask(1)), c))
        assert list(watched.cost(of(ask(1)), c)) == list(BALANCED.cost(of(ask(1)), c))
        assert watched.replaced == rounds
        assert watched.fault == "took longer than 30 ms in one round"
        assert watched.excuse == (
            "Policy balanced ranked instead of acting, which took longer than 30 ms in one round.",
        )
    assert signal.getsignal(signal.SIGALRM) is handler


def test_the_time_of_a_round_is_for_all_its_answers_together():
    watched = Guarded(Acting(lambda c: time.sleep(0.02) or c.score), Alarm(50))
    watched.begin()
    for _ in range(8):
        watched.cost(of(ask(1)), candidates())
    assert watched.excuse


def test_a_timer_that_ran_before_goes_on_and_rings():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    left, every = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        watched = Guarded(Acting(loop), Alarm(80))
        watched.begin()
        watched.cost(of(ask(1)), candidates())
        assert watched.excuse
        signal.sigtimedwait([], 0.2) if not rung else None
        assert rung
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, every)


def test_an_event_loop_goes_on_after_a_policy_was_ended_in_it():
    code = """
        import asyncio, signal
        import numpy as np
        from hyperion.daemon.alarm import Alarm
        from hyperion.placement.ranking import Candidates, Guarded
        from hyperion.model.job import Job

        class Loop:
            name = "loop"
            def cost(self, job, candidates):
                while True:
                    try:
                        len("x")
                    except Exception:
                        pass

        async def work():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
            watched = Guarded(Loop(), Alarm(20))
            c = Candidates(*[np.zeros(3)] * 7)
            for _ in range(5):
                watched.begin()
                assert len(watched.cost(Job(id="j"), c)) == 3
                await asyncio.sleep(0.03)
            await asyncio.to_thread(lambda: None)
            print(watched.replaced)

        asyncio.run(work())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("5", "")


def test_a_policy_that_leaves_the_process_is_replaced():
    watched = Guarded(Acting(leave))
    watched.begin()
    watched.cost(of(ask(1)), candidates())
    assert watched.fault == "raised SystemExit: 3"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda c: np.zeros(2), "returned shape (2,) for 3 candidates"),
        (lambda c: [1.0, np.nan, 0.0], "returned a cost that is not a finite number"),
        (lambda c: [1.0, -np.inf, 0.0], "returned a cost that is not a finite number"),
        (lambda c: ["a", "b", "c"], "raised ValueError"),
        (lambda c: None, "returned shape () for 3 candidates"),
        (lambda c: {"n1": 1}, "raised TypeError"),
        (lambda c: c.score.__setitem__(0, 7.0), "raised ValueError: assignment destination"),
        (lambda c: c.room().gpus.fill(9), "raised ValueError: assignment destination"),
    ],
)
def test_nonsense_is_told_and_replaced(answer, fault):
    c = candidates(ask(1), gpus=np.array([1, 2, 3]))
    watched = Guarded(Acting(answer), Alarm(1000))
    watched.begin()
    assert list(watched.cost(of(ask(1)), c)) == list(BALANCED.cost(of(ask(1)), c))
    assert watched.fault.startswith(fault)
    assert list(c.score) == [0, 0, 0]
    assert list(c.room().gpus) == [1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda w: float("nan"), "returned the order nan, which is not a finite number"),
        (lambda w: "soon", "raised ValueError"),
        (lambda w: 1 / 0, "raised ZeroDivisionError"),
        (loop, "took longer than 20 ms in one round"),
    ],
)
def test_an_order_that_is_nonsense_leaves_jobs_as_they_came(answer, fault):
    watched = Guarded(Acting(order=answer), Alarm(20))
    assert watched.order(waiting()) == 0.0
    assert watched.fault.startswith(fault)
    assert watched.replaced == 1
    assert watched.order(waiting()) == 0.0, "not asked again before the next round"
    assert watched.replaced == 1
    watched.begin()
    watched.policy.order = lambda w: w.gpus_milli * 2
    assert watched.order(waiting(gpus_milli=500)) == 1000.0


class Counted(nullcontext):
    """A budget that never ends, and counts how often it is filled again."""

    limit_ms = 1.0
    begun = 0

    def begin(self):
        self.begun += 1

    def __call__(self):
        return self


def test_orders_between_two_rounds_do_not_share_one_rounds_time():
    budget = Counted()
    watched = Guarded(Acting(order=lambda w: 1.0), budget)
    assert [watched.order(waiting()) for _ in range(10)] == [1.0] * 10
    assert budget.begun == 10
    watched.begin()
    for _ in range(10):
        watched.cost(of(ask(1)), candidates())
    assert budget.begun == 11


def test_ctrl_c_is_not_the_policys_fault():
    def interrupted(_):
        raise KeyboardInterrupt

    watched = Guarded(Acting(interrupted))
    with pytest.raises(KeyboardInterrupt):
        watched.cost(of(ask(1)), candidates())
    assert not issubclass(TooLate, Exception)


# -- plug-ins --------------------------------------------------------------------------------------

GREEDY = """
    import numpy as np

    class Greedy:
        name = "acme-greedy"

        def cost(self, job, candidates):
            return -candidates.usd_per_hour

        def order(self, waiting):
            return -waiting.submitted_at_ms

    class Misnamed(Greedy):
        name = "something-else"

    class Costless:
        name = "costless"

    class Thief(Greedy):
        name = "pack"

    def looping():
        made = Greedy()
        made.name = "looping"
        def cost(job, candidates):
            while True:
                pass
        made.cost = cost
        return made

    forty_two = 42
"""
ENTRIES = """
    [hyperion.policies]
    acme-greedy = acme_policies:Greedy
    looping = acme_policies:looping
    misnamed = acme_policies:Misnamed
    costless = acme_policies:Costless
    pack = acme_policies:Thief
    number = acme_policies:forty_two
    gone = acme_policies:Gone
    broken = acme_broken:Policy
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as pip would leave it: modules, and a dist-info with entry points."""
    (tmp_path / "acme_policies.py").write_text(textwrap.dedent(GREEDY))
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no licence found')\n")
    facts = tmp_path / "acme_policies-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-policies\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text(textwrap.dedent(ENTRIES))
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.forget()
    yield tmp_path
    plugins.forget()
    for name in set(ranking.known()) - set(ranking.BUILT_IN):
        ranking.unregister(name)
    for module in ("acme_policies", "acme_broken"):
        sys.modules.pop(module, None)
    assert set(checks.POLICIES) == checks.KNOWN_POLICIES


def test_installed_policies_are_found_and_the_broken_ones_told_by_name(installed):
    broken = {b.name: b for b in plugins.discover()}
    assert sorted(set(ranking.known()) - set(ranking.BUILT_IN)) == ["acme-greedy", "looping"]
    assert ranking.origin("acme-greedy") == "acme-policies 1.2 (acme_policies:Greedy)"
    assert {name: b.fault for name, b in broken.items()} == {
        "misnamed": "its policy calls itself something-else; the entry point must have the same"
        " name",
        "costless": "ValueError: costless has no method cost(job, candidates)",
        "pack": "ValueError: a policy called pack is there already (built in); give it another"
        " name",
        "number": "acme_policies:forty_two is of type int; name a class or a function",
        "gone": "AttributeError: module 'acme_policies' has no attribute 'Gone'",
        "broken": "RuntimeError: no licence found",
    }
    assert policy("pack").__class__.__module__.startswith("hyperion.")
    assert plugins.discover() == plugins.discover(), "looked for once"


def test_an_installed_policy_ranks_orders_and_is_timed(installed):
    watched = plugins.watched("acme-greedy", 1000)
    dear = node("dear", usd_per_hour=9.0)
    c = rebuild([node("cheap", usd_per_hour=1.0), dear], [])
    assert plan(c, job(), watched).seats[0].node == NodeId("dear")
    assert watched.order(waiting(submitted_at_ms=7)) == -7.0
    assert not watched.fault

    late = plugins.watched("looping", 20)
    assert plan(c, job(), late).seats[0].node == NodeId("cheap"), "as balanced would"
    assert late.fault == "took longer than 20 ms in one round"
    assert plugins.watched("pack", 20).budget is None, "our own are not timed"


def test_a_policy_that_is_not_there_is_refused_with_the_faults_of_those_that_failed(installed):
    with pytest.raises(ValueError, match=r"did you mean 'acme-greedy'.*no licence found"):
        plugins.watched("acme-greed", 20)


def test_settings_and_specs_take_the_name_of_an_installed_policy(installed):
    def with_policy(name):
        return load(SchedulerSettings, environment={"HOME": "/"}, flags={"policy": name})

    assert with_policy("acme-greedy").policy == "acme-greedy"
    with pytest.raises(SettingError, match=r"acme-policies 1\.2 .* has failed: .*no licence"):
        with_policy("broken")
    with pytest.raises(SettingError, match="did you mean acme-greedy"):
        with_policy("acme-gredy")
    text = "run: x\npolicy: acme-greedy\n"
    assert job_from_yaml(text, job_id="j1", source="s", environ={}, now_ms=0).policy
    ranking.unregister("acme-greedy")
    with pytest.raises(SpecError, match="expected one of"):
        job_from_yaml(text, job_id="j1", source="s", environ={}, now_ms=0)


def test_a_federation_whose_policy_has_been_uninstalled_goes_on_with_balanced():
    ranker = Rankers().of("acme-greedy")
    ranker.begin()
    assert list(ranker.cost(of(ask(1)), candidates())) == [0, 0, 0]
    assert "no policy is called 'acme-greedy'" in ranker.excuse[0]
    assert ranker.origin == "not here"


@pytest.mark.parametrize("name", ["", "two words", 7, "x" * 100])
def test_names_are_checked_at_registration(name):
    class Nameless(Acting):
        pass

    Nameless.name = name
    with pytest.raises(ValueError, match="give letters, digits"):
        ranking.register(Nameless, "here")


def test_the_command_line_takes_an_installed_policy(installed):
    environment = {**os.environ, "PYTHONPATH": f"{installed}:{os.environ.get('PYTHONPATH', '')}"}
    code = (
        "from click.testing import CliRunner; from hyperion.cli.main import cli;"
        "r = CliRunner().invoke(cli, ['--server', 'http://127.0.0.1:1', 'plan', '--policy',"
        " 'acme-greedy', '--', 'true']); print(type(r.exception).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == "Unavailable", "it got as far as asking the federation"
