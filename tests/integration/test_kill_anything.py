"""Kill anything: 50 jobs run while each daemon is killed 20 times; no job is lost or run twice."""

import os

import msgspec
import ordeal
import pytest
from daemons import World, until

JOBS, KILLS = 50, 20
SEED = int(os.environ.get("KILL_SEED", "1"))
LEASE = {"node_lease_ms": 20_000}
"""Longer than any daemon can be away here: nobody is given up for dead."""


@pytest.mark.timeout(240)
def test_killed_daemons_lose_and_double_nothing(tmp_path, capfd):
    trace = tmp_path / "trace"
    with World(tmp_path / "w", federation=LEASE, scheduler=LEASE) as world:
        wished = ordeal.wishes(SEED, JOBS, trace, over_s=0.9 * KILLS)
        seen = ordeal.run(world, wished, KILLS, SEED)
        with capfd.disabled():
            print(f"\nseed {SEED}: {dict(seen.kills)} in {seen.wall_s:.1f} s")
        world.settled()
        until(lambda: not world.replicas(), "the last replica to go")
        assert not ordeal.faults_of(world, wished, seen, trace), world.logs()
        assert all(seen.kills[daemon.name] >= KILLS for daemon in world.daemons)

        live = ordeal.views(world)
        for daemon in world.daemons:
            daemon.stop()
        assert not ordeal.kept_faults(world, wished)
        for daemon in world.daemons:
            daemon.start()
        world.settled()
        assert _comparable(ordeal.views(world)) == _comparable(live), "recovered is not live"


def _comparable(views):
    return {id: msgspec.to_builtins(view) for id, view in views.items()}
