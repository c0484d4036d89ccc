"""Does the seeded world bite? Break one guard at a time: some seed must notice."""

import pytest
from msgspec.structs import replace

from hyperion.control import arrays, dependencies, gang, rounds, saved, standbys
from hyperion.control import messages as m
from hyperion.control.agent import Agent
from hyperion.control.attempts import Attempts
from hyperion.control.cluster import ClusterMachine
from hyperion.control.cluster_state import ClusterState
from hyperion.control.liveness import Holder, Peer
from hyperion.control.occupancy import Occupancy
from hyperion.control.pausing import Pausing
from hyperion.control.records import FederatedStatus
from hyperion.model.allocation import AllocationState as S
from hyperion.placement import feasibility, gravity, migration
from hyperion.placement.fairness import Admission, QueueTree
from hyperion.placement.planner import Plan, Seat
from hyperion.placement.preemption import Eviction, victims
from hyperion.sim.faults import PROFILES
from hyperion.sim.workload import Size
from hyperion.sim.world import World

SEEDS = 120


PLAIN, VARIED, URGENT = Size(), Size(varied=True), Size(urgent=True, jobs=40)
BY_ITSELF = Size(urgent=True, jobs=40, by_itself=True)
SHARING = Size(urgent=True, jobs=40, gpus=True)
READING = Size(datasets=True)
TIDES = Size(tides=True)


def caught(profile, size):
    """Whether a seed breaks a law, or never converges, or the machine itself gives up."""
    for seed in range(SEEDS):
        try:
            World(seed, PROFILES[profile], size).run()
        except (AssertionError, KeyError, TypeError):
            return True
    return False


def _always(*_args, **_more):
    return True


def _nothing(*_args, **_more):
    return iter(())


def _accepts_any_generation(original):
    def hear(self, node, report, now_ms):
        a = self.state.allocations.get(report.allocation)
        if a is not None:
            report = replace(report, generation=a.generation)
        yield from original(self, node, report, now_ms)

    return hear


def _one_more_victim(original):
    """Stops somebody of whom the plan has no need."""

    def victims(snapshot, running, wish, *rest):
        found = original(snapshot, running, wish, *rest)
        if isinstance(found, Eviction):
            taken = {*found.victims, wish.job.id}
            more = [j for j, x in running.occupants.items() if j not in taken and not x.stopping]
            return replace(found, victims=(*found.victims, *more[:1]))
        return found

    return victims


def _starts_part_of_a_gang(original):
    def judge(known, allocations, now_ms):
        ready = tuple(a for a in allocations if a.state is S.READY and a.generation == 1)
        return gang.GoAhead(ready) if ready else original(known, allocations, now_ms)

    return judge


def _counts_twice(original):
    def after_end(tasks, a, restart, now_ms):
        once = original(tasks, a, restart, now_ms)
        return replace(once, succeeded=once.succeeded + (a.state is S.SUCCEEDED and a.rank == 1))

    return after_end


def _admits_all(original):
    return lambda *_args, **_more: Admission.NOMINAL


def _keeps_no_claim(original):
    return lambda self, known: self.claims.pop(known.job.id, None)


def _frees_too_early(original):
    """The columns forget a replica that is told to stop, though it still runs."""

    def order_stop(self, a, known, now_ms):
        yield from original(self, a, known, now_ms)
        self._state.snapshot.drop(a)

    return order_stop


def _startable_without_limit(known, now_ms):
    tasks = arrays.progress(known.status)
    return known.job.array.size - tasks.next + len(tasks.again)


def _takes_who_is_asked_to_stand(original):
    """An agent that does not wait for the program's answer."""

    def pause(self, order, now_ms):
        for command in original(self, order, now_ms):
            yield command
            if isinstance(command, m.PauseReplica) and command.at:
                yield from self._hear_standing(m.ReplicaPaused(order.allocation), now_ms)

    return pause


def _deaf_to_who_stands(original):
    """What a program writes while it stands at the end of its step is not heard."""

    def hear(self, id, checkpoint, now_ms):
        replica = self.replicas.get(id)
        if replica is None or replica.state is not S.PAUSED:
            yield from original(self, id, checkpoint, now_ms)

    return hear


def _forgets_a_write(original):
    def writes(self):
        found = original(self)
        return {path: value for path, value in found.items() if "/allocation/" not in path}

    return writes


def _starts_at_once(self, known, now_ms):
    seats = tuple(Seat(claim.node, claim.devices) for claim in known.status.claim)
    plan = Plan(known.job.id, known.status.alternative, seats)
    yield from self._seating.start(known, plan, now_ms)


def _sees_no_copy_on_its_way(original):
    def ways_to(dataset, *rest):
        return original(replace(dataset, copies=tuple(dataset.present)), *rest)

    return ways_to


MUTANTS = {
    "who is only to be moved is ended": (
        "calm",
        TIDES,
        FederatedStatus,
        "comes_back",
        property(lambda self: bool(self.held)),
    ),
    "jobs are moved again and again": ("calm", TIDES, migration, "may_move", _always),
    "what somebody is bringing is paid for again": (
        "calm",
        READING,
        gravity,
        "ways_to",
        _sees_no_copy_on_its_way(gravity.ways_to),
    ),
    "fencing with the job's own grace": ("partition", PLAIN, gang, "FENCE_GRACE_MS", 60_000),
    "a lease that never ends": ("partition", PLAIN, Holder, "is_valid", _always),
    "granters that do not wait": ("partition", PLAIN, Peer, "surely_ended", _always),
    "a node's lease that ends at once": ("storm", PLAIN, Holder, "granted", lambda *_: False),
    "replies to old orders count": (
        "storm",
        PLAIN,
        ClusterMachine,
        "_hear_replica",
        _accepts_any_generation(ClusterMachine._hear_replica),
    ),
    "nothing is taken up after a restart": ("storm", PLAIN, Agent, "_take_up", _nothing),
    "any end of a job meets any dependency's refusal": (
        "calm",
        VARIED,
        dependencies,
        "met",
        lambda *_: False,
    ),
    "a gang starts before all of it is ready": (
        "calm",
        VARIED,
        gang,
        "judge",
        _starts_part_of_a_gang(gang.judge),
    ),
    "a task is counted twice": (
        "calm",
        VARIED,
        arrays,
        "after_end",
        _counts_twice(arrays.after_end),
    ),
    "an array has no limit": ("calm", VARIED, arrays, "startable", _startable_without_limit),
    "quotas let all pass": ("calm", VARIED, QueueTree, "admit", _admits_all(QueueTree.admit)),
    "places being cleared are not kept": (
        "calm",
        VARIED,
        Occupancy,
        "claim",
        _keeps_no_claim(Occupancy.claim),
    ),
    "columns free what still runs": (
        "calm",
        VARIED,
        Attempts,
        "order_stop",
        _frees_too_early(Attempts.order_stop),
    ),
    "a job goes where its data may not": (
        "calm",
        VARIED,
        feasibility,
        "residence_refusal",
        lambda *_: "",
    ),
    "somebody is stopped in vain": ("calm", VARIED, rounds, "victims", _one_more_victim(victims)),
    "what was decided last is forgotten at a crash": (
        "storm",
        VARIED,
        ClusterState,
        "writes",
        _forgets_a_write(ClusterState.writes),
    ),
    "an urgent job starts before the others stand still": (
        "drift",
        URGENT,
        Pausing,
        "start",
        _starts_at_once,
    ),
    "who stood still goes on while others have its CPUs": (
        "spot",
        URGENT,
        Pausing,
        "_heir",
        lambda *_: "",
    ),
    "who shares a GPU with a standby computes on": (
        "calm",
        SHARING,
        standbys,
        "share_gpus",
        lambda *_: False,
    ),
    "a step is whole though not all have written it": (
        "calm",
        VARIED,
        saved,
        "whole",
        lambda known, said, _gang: saved.newest((*known, *said)),
    ),
    "the next attempt begins anew": ("calm", VARIED, gang, "resumes_from", lambda _known: ""),
    "the step at which a program stands is not known to be saved": (
        "calm",
        BY_ITSELF,
        Agent,
        "_hear_saved",
        _deaf_to_who_stands(Agent._hear_saved),
    ),
    "a program that is asked is taken to stand": (
        "calm",
        BY_ITSELF,
        Agent,
        "_pause",
        _takes_who_is_asked_to_stand(Agent._pause),
    ),
    "who stands still is forgotten": ("calm", URGENT, Pausing, "settle", _nothing),
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_caught(name, monkeypatch):
    profile, size, owner, attribute, mutation = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, mutation)
    assert caught(profile, size), f"no seed noticed: {name}"
