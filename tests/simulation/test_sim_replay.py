"""What a scheduler has kept becomes a workload again, and other policies are tried on it."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.cli.main import cli
from hyperion.cli.replay import past
from hyperion.model.ids import JobId
from hyperion.model.job import Job, Restart
from hyperion.model.resources import ResourceRequest
from hyperion.placement import ranking
from hyperion.sim import machines
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.trace import TraceJob, assembled


def gpu_job(name, at_s, runs_s, gpus=8, exit_codes=(0,), cancel_s=0, **more):
    return TraceJob(
        at_ms=1000 * at_s,
        job=Job(
            id=JobId(name),
            user=name[0],
            command=("true",),
            alternatives=(ResourceRequest(gpus_milli=1000 * gpus, cpus_milli=1000),),
            **more,
        ),
        runs_ms=1000 * runs_s,
        exit_codes=exit_codes,
        cancel_after_ms=1000 * cancel_s,
    )


class Kept(ClusterWorld):
    """A world that remembers what its scheduler would have kept."""

    def _note(self, outcome):
        self.journal = [*getattr(self, "journal", []), *outcome.records]
        super()._note(outcome)


@pytest.fixture
def state(tmp_path):
    """The state directory of a scheduler that has lived through a few jobs."""
    trace = assembled(
        "lived through",
        [
            gpu_job("a", 0, 100),
            gpu_job("b", 10, 50),
            gpu_job("c", 20, 30, exit_codes=(4,), restart=Restart(max=1, backoff_s=5.0)),
            gpu_job("d", 30, 1000, cancel_s=15),
            gpu_job("e", 40, 5000),
        ],
    )
    nodes = machines.uniform(1, 8, "A100")
    world = Kept(trace, nodes, ranking.policy("pack"), faulty=True)
    for _ in world.play():
        pass
    with_times = [msgspec.json.encode(record) for record in world.journal]
    store = SqliteStore(tmp_path / "scheduler.db")
    store.commit(dict(world._disk), with_times, world.now_ms)
    store.close()
    return tmp_path


def test_the_past_is_a_workload_with_its_own_machines(state):
    trace, nodes = past(state, None)
    found = {str(j.job.id): j for j in trace.jobs}
    assert {id: j.at_ms for id, j in found.items()} == {
        "a": 0, "b": 10_000, "c": 20_000, "d": 30_000, "e": 40_000,
    }  # fmt: skip
    assert [found[id].runs_ms for id in "abce"] == [100_000, 50_000, 30_000, 5_000_000]
    assert found["c"].exit_codes == (4,)
    assert found["d"].cancel_after_ms == 15_000
    assert [n.capacity.gpus for n in nodes] == [8]
    assert trace.bad_rows == 0


def test_a_store_is_read_while_its_owner_has_it(state):
    owner = SqliteStore(state / "scheduler.db")
    try:
        assert len(past(state, None)[0].jobs) == 5
    finally:
        owner.close()


def test_since_counts_back_from_the_newest(state):
    trace, _ = past(state, "15s")
    assert [(str(j.job.id), j.at_ms) for j in trace.jobs] == [("d", 5000), ("e", 15_000)]


def test_policies_are_compared_on_it(state):
    runner = CliRunner()
    done = runner.invoke(
        cli, ["replay", "--journal", str(state), "--compare", "pack", "spread", "-o", "json"]
    )
    assert done.exit_code == 0, done.output
    view = json.loads(done.stdout)
    assert [score["policy"] for score in view["scores"]] == ["pack", "spread"]
    assert {score["succeeded"] for score in view["scores"]} == {3}


@pytest.mark.parametrize(
    ("name", "told"), [("nothing.db", "no store at"), ("text.db", "cannot be read|no store of")]
)
def test_what_is_no_store_is_told(tmp_path, name, told):
    from hyperion.cli.exits import Failure

    (tmp_path / "text.db").write_text("hello, this is no database at all\n" * 100)
    with pytest.raises(Failure, match=told):
        past(tmp_path / name, None)
