"""One cluster in simulated time: small workloads whose outcome can be worked out by hand."""

import pytest

from hyperion.model.ids import JobId
from hyperion.model.job import Checkpoint, Elastic, Job, JobPhase, Priority, Restart
from hyperion.model.resources import ResourceRequest
from hyperion.placement import ranking
from hyperion.sim import machines
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.generators import GENERATORS, generate
from hyperion.sim.results import job_columns, run_of, sample_columns, score_columns, wait_columns
from hyperion.sim.trace import TraceJob, assembled, at_load
from hyperion.sim.traces.cells import Reading

START_S = 1.0
"""From the order to run until the process runs."""


def gpu_job(name, at_s, runs_s, gpus=8, replicas=1, exit_codes=(0,), cancel_s=0, **more):
    return TraceJob(
        at_ms=int(1000 * at_s),
        job=Job(
            id=JobId(name),
            user=name[0],
            command=("true",),
            replicas=replicas,
            alternatives=(ResourceRequest(gpus_milli=1000 * gpus, cpus_milli=1000),),
            **more,
        ),
        runs_ms=int(1000 * runs_s),
        exit_codes=exit_codes,
        cancel_after_ms=int(1000 * cancel_s),
    )


def played(*jobs, nodes=1, policy="pack"):
    trace = assembled("by hand", jobs)
    world = ClusterWorld(trace, machines.uniform(nodes, 8, "A100", 1.0), ranking.policy(policy))
    for _ in world.play():
        pass
    world.machine.state.check()
    return world


def stories(world):
    return {
        str(id): (s.phase, s.started_ms / 1000 if s.started_ms is not None else None,
                  s.ended_ms / 1000 if s.ended_ms is not None else None)
        for id, s in world.recorder.stories.items()
    }  # fmt: skip


def test_one_after_the_other_on_one_node():
    world = played(gpu_job("a", 0, 100), gpu_job("b", 10, 50))
    found = stories(world)
    assert found["a"] == (JobPhase.SUCCEEDED, START_S, 100 + START_S)
    assert found["b"] == (JobPhase.SUCCEEDED, 100 + 2 * START_S, 150 + 2 * START_S)
    score = run_of(world, "pack", broken_off=False).score
    assert (score.jobs, score.succeeded, score.never_ran) == (2, 2, 0)
    assert score.jct_mean_s == pytest.approx((101 + 142) / 2)
    assert score.wait_p99_s == pytest.approx(92)
    assert score.makespan_s == pytest.approx(152)
    assert score.usd == pytest.approx(8 * 1.0 * 152 / 3600, rel=0.01)


def test_a_gang_starts_whole_and_ends_whole():
    world = played(gpu_job("a", 0, 100, gpus=8, replicas=2), nodes=2)
    assert stories(world)["a"] == (JobPhase.SUCCEEDED, START_S, 100 + START_S)
    assert world.recorder.placements == 2


def test_a_failing_job_is_tried_again_after_its_backoff():
    world = played(
        gpu_job("a", 0, 100, exit_codes=(1, 0), restart=Restart(max=1, backoff_s=30.0)),
    )
    phase, _, ended_s = stories(world)["a"]
    assert phase is JobPhase.SUCCEEDED
    assert ended_s == pytest.approx(100 + 30 + 100 + 2 * START_S, abs=0.1)
    assert world.recorder.stories["a"].attempts == 2


def test_who_is_out_of_tries_has_failed_and_who_is_given_up_is_cancelled():
    world = played(
        gpu_job("a", 0, 100, exit_codes=(3,)), gpu_job("b", 1, 100, cancel_s=20),
        gpu_job("c", 2, 1000, cancel_s=500),
    )  # fmt: skip
    found = stories(world)
    assert found["a"][0] is JobPhase.FAILED
    assert found["b"] == (JobPhase.CANCELLED, None, 21)
    assert found["c"][0] is JobPhase.CANCELLED
    assert found["c"][1] == pytest.approx(102)


def test_a_job_that_fits_nowhere_is_given_up_and_told():
    world = played(gpu_job("a", 0, 10), gpu_job("b", 0, 10, gpus=8, replicas=3), nodes=2)
    assert world.never_ran == ["b"]
    run = run_of(world, "pack", broken_off=False)
    assert run.score.never_ran == 1
    assert run.never_ran == ("b",)


def test_amounts_are_counted_apart_from_the_machine():
    world = played(*(gpu_job(f"a{n}", n, 30, gpus=2) for n in range(20)), nodes=2)
    assert (world.recorder.devices == 1000).all(), "everything was given back"
    assert max(x.free_gpus for x in world.recorder.samples) == 16


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_each_generator_runs_to_its_end_and_one_seed_is_one_history(name):
    nodes = machines.uniform(32, 8, "A100")

    def ends():
        trace = at_load(generate(name, 150, 7, Reading()), nodes[:8], 0.8)
        world = ClusterWorld(trace, nodes, ranking.policy("balanced"))
        for moment in world.play():
            assert moment.ended <= moment.arrived <= 150
        world.machine.state.check()
        return stories(world)

    first = ends()
    assert len(first) == 150
    assert all(phase.is_terminal for phase, _, _ in first.values())
    assert first == ends()


def test_tables_have_a_row_for_each_job_sample_queue_and_policy():
    runs = [
        run_of(played(gpu_job("a", 0, 100), gpu_job("b", 10, 50), policy=policy), policy, False)
        for policy in ("pack", "spread")
    ]
    jobs = job_columns(runs)
    assert jobs["policy"] == ["pack", "pack", "spread", "spread"]
    assert jobs["ended_s"] == [101, 152, 101, 152]
    samples = sample_columns(runs)
    assert len(samples["at_s"]) == sum(len(r.recorder.samples) for r in runs)
    assert samples["gpu_hours"][-1] == pytest.approx(8 * 152 / 3600)
    assert score_columns(runs)["policy"] == ["pack", "spread"]
    assert wait_columns(runs)["queue"] == ["default", "default"]


def test_work_since_the_last_checkpoint_is_lost_with_a_replica():
    from hyperion.sim.work import Works

    works = Works()
    plain = gpu_job("a", 0, 1000)
    saving = gpu_job("b", 0, 1000, checkpoint=Checkpoint(every_s=60.0, restore_s=5.0))
    for job, lost_ms in ((plain, 100_000), (saving, 40_000)):
        works.join(job, 0, f"{job.job.id}.1", 0)
        assert works.leave(job, 0, f"{job.job.id}.1", 100_000, abrupt=False) == lost_ms
    piece = works.join(saving, 0, "b.2", 200_000)
    assert piece.ends_ms(200_000) == 200_000 + 5000 + 940_000


def test_an_elastic_job_is_as_fast_as_it_is_wide():
    from hyperion.sim.work import Works

    works = Works()
    job = gpu_job("a", 0, 100, gpus=1, replicas=4, elastic=Elastic(min=1, restart=False))
    for rank in range(4):
        piece = works.join(job, rank, f"a.{rank}", 0)
    assert piece.ends_ms(0) == 100_000
    works.leave(job, 3, "a.3", 50_000, abrupt=False)
    works.leave(job, 2, "a.2", 50_000, abrupt=False)
    assert piece.ends_ms(50_000) == 150_000


def test_urgent_jobs_come_first():
    world = played(
        gpu_job("a", 0, 100),
        gpu_job("b", 1, 10),
        gpu_job("c", 2, 10, priority=Priority.ULTRA_LOW_LATENCY),
    )
    found = stories(world)
    assert found["c"][1] < found["b"][1]


def test_starts_that_are_late_do_not_bar_each_other():
    """Gangs whose promised times had all passed kept the nodes free from each other, for ever."""
    nodes = machines.uniform(32, 8, "A100")
    trace = at_load(generate("gangs", 150, 7, Reading()), nodes[:8], 0.8)
    world = ClusterWorld(trace, nodes, ranking.policy("balanced"))
    for _ in world.play():
        pass
    assert world.never_ran == []


def cpu_job(name, at_s, runs_s, cpus, **more):
    return TraceJob(
        at_ms=int(1000 * at_s),
        job=Job(
            id=JobId(name),
            user=name[0],
            command=("true",),
            alternatives=(ResourceRequest(cpus_milli=1000 * cpus),),
            **more,
        ),
        runs_ms=int(1000 * runs_s),
    )


def test_one_that_stands_still_ends_so_much_later_and_loses_nothing():
    whole = machines.CPUS_PER_GPU * 8
    world = played(
        cpu_job("a", 0, 100, whole),
        cpu_job("b", 50, 10, whole, priority=Priority.LATENCY_CRITICAL),
    )
    (phase, started_s, ended_s), (_, urgent_s, urgent_ended_s) = stories(world).values()
    assert (phase, started_s) == (JobPhase.SUCCEEDED, START_S)
    assert urgent_s <= 50 + START_S + 1, "it starts in the next round"
    stood_s = urgent_ended_s - 50
    assert ended_s == pytest.approx(100 + START_S + stood_s, abs=0.1)
    assert world.recorder.preemptions == 0
    assert world.recorder.stories["a"].lost_ms == 0
