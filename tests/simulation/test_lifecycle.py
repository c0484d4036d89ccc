"""What the life-cycle tables do not say does not happen, whatever goes wrong in the world."""

import pytest

from hyperion.control import records as r
from hyperion.model import allocation, job
from hyperion.model.allocation import AllocationState
from hyperion.model.job import JobPhase
from hyperion.sim.faults import PROFILES
from hyperion.sim.world import World


def steps(records):
    """(what, from, to) of every record that moves a job or an allocation of one machine."""
    at = {}
    for record in records:
        match record:
            case r.FederatedJobAccepted(known) | r.JobAccepted(known):
                at[known.id] = JobPhase.QUEUED  # a job ordered back begins a new life
            case r.AllocationPlaced(a):
                at[a.id] = AllocationState.PLACED
            case r.FederatedJobMoved(id, status) | r.JobMoved(id, status):
                yield id, at[id], status.phase
                at[id] = status.phase
            case r.AllocationMoved(a):
                yield a.id, at[a.id], a.state
                at[a.id] = a.state


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_step_is_in_the_tables(profile):
    tables = {**job.TRANSITIONS, **allocation.TRANSITIONS}
    seen = set()
    for seed in range(900, 903):
        world = World(seed, PROFILES[profile], check_every=0)
        world.run()
        for process in world.processes.values():
            for name, before, after in steps(process.records):
                assert after is before or after in tables[before], (
                    f"{profile}, seed {seed}: {name} went from {before} to {after}"
                )
                seen.add((before, after))
    assert len(seen) >= 10, "a world in which little moved proves little"


@pytest.mark.parametrize("table", [job.TRANSITIONS, allocation.TRANSITIONS])
def test_every_state_can_be_reached_and_can_end(table):
    first = next(iter(table))
    reached, to_visit = set(), {first}
    while to_visit:
        state = to_visit.pop()
        reached.add(state)
        to_visit |= table[state] - reached
    assert reached == set(table)
    ends = {state for state in table if state.is_terminal}
    assert all(table[state] & ends for state in set(table) - ends)
