"""Budgets set and dropped at random in worlds where all else goes wrong: all ends well."""

import pytest

from hyperion.control import bill_records as b
from hyperion.control import bills, budgets, telling
from hyperion.control import messages as m
from hyperion.model.job import JobPhase
from hyperion.sim.faults import PROFILES
from hyperion.sim.purses import Purses
from hyperion.sim.workload import size_of
from hyperion.sim.world import World

SEEDS = 8
"""Of each mixture of faults."""


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_jobs_are_held_and_paused_and_all_end(profile):
    """The laws of the state, with those of the bill, are looked at every 25 steps; at the end
    everything has ended, a restart finds what was held, and no replica ran twice."""
    held = paused = reached = 0
    for seed in range(SEEDS):
        world = World(seed, PROFILES[profile], size_of(seed))
        Purses(world, seed)
        federation = world.processes["federation"]
        apply = type(federation.machine).apply

        def counted(machine, record, apply=apply):
            nonlocal held, paused, reached
            status = getattr(record, "status", None)
            if status is not None and getattr(status, "held", ""):
                held += status.phase is JobPhase.QUEUED
                paused += status.phase is JobPhase.STOPPING
            reached += isinstance(record, b.BudgetReached)
            apply(machine, record)

        type(federation.machine).apply = counted
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"profile {profile}, seed {seed}: {broken}") from broken
        finally:
            type(federation.machine).apply = apply
        world.federation.state.check()
        assert not world.federation.state.budgets.held
    assert min(held, paused, reached) > 0, "worlds in which nobody waited prove little"


def _skips_moves(original):
    """A job that leaves its cluster for the queue is not billed for its time there."""

    def booked(kept, known, after, opening, now_ms):
        if after.phase is JobPhase.QUEUED:
            return None
        return original(kept, known, after, opening, now_ms)

    return booked


def _for_good(original):
    """The stop does not say that the job comes back."""

    def newest_order(known, whole):
        order = original(known, whole)
        return m.StopJob(order.job, order.generation, order.phase) if known.status.wanted else order

    return newest_order


MUTANTS = {
    "what a moved job has cost is forgotten": (bills, "_booked", _skips_moves(bills._booked)),
    "a paused array drops its tasks": (telling, "newest_order", _for_good(telling.newest_order)),
    "nobody is let go": (budgets, "free_again", lambda *_: iter(())),
}


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_these_worlds_bite(mutant, monkeypatch):
    place, name, broken = MUTANTS[mutant]
    monkeypatch.setattr(place, name, broken)
    with pytest.raises(AssertionError):
        _all_run()


def _all_run():
    for seed in range(30):
        world = World(seed, PROFILES["storm"], size_of(seed))
        Purses(world, seed)
        world.run()
