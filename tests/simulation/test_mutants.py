"""Does the seeded world bite? Break one guard at a time: some seed must notice."""

import pytest

from hyperion.control import gang
from hyperion.control.agent import Agent
from hyperion.control.cluster import ClusterMachine
from hyperion.control.liveness import Holder, Peer
from hyperion.sim.faults import PROFILES
from hyperion.sim.world import World

SEEDS = 120


def caught(profile):
    """Whether a seed breaks a law, or never converges, or the machine itself gives up."""
    for seed in range(SEEDS):
        try:
            World(seed, PROFILES[profile]).run()
        except (AssertionError, KeyError, TypeError):
            return True
    return False


def _always(*_args):
    return True


def _accepts_any_generation(original):
    def hear(self, node, report, now_ms):
        a = self.state.allocations.get(report.allocation)
        if a is not None:
            report = type(report)(
                **{f: getattr(report, f) for f in report.__struct_fields__}
                | {"generation": a.generation}
            )
        yield from original(self, node, report, now_ms)

    return hear


MUTANTS = {
    "fencing with the job's own grace": ("partition", gang, "FENCE_GRACE_MS", 60_000),
    "a lease that never ends": ("partition", Holder, "is_valid", _always),
    "granters that do not wait": ("partition", Peer, "surely_ended", _always),
    "a node's lease that ends at once": ("storm", Holder, "granted", lambda *_: False),
    "replies to old orders count": (
        "storm",
        ClusterMachine,
        "_hear_replica",
        _accepts_any_generation(ClusterMachine._hear_replica),
    ),
    "nothing is taken up after a restart": ("storm", Agent, "_take_up", lambda *_: iter(())),
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_caught(name, monkeypatch):
    profile, owner, attribute, mutation = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, mutation)
    assert caught(profile), f"no seed noticed: {name}"
