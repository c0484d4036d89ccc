"""Jobs go where their data lie, in a world of real daemons; what one moves the next one shares."""

import subprocess
import sys

import pytest
from daemons import World, until

from hyperion.client.errors import Conflict

EAST, WEST = "aws/us-east-1", "aws/us-west-2"
_MAIN = "import sys; from hyperion.cli.main import main; sys.exit(main())"


def world_of(directory, regions, federation=None):
    machine = {"declare": "accelerators=A100:8", "instance_type": "p4d.24xlarge"}
    nodes = tuple(f"{name}/n1" for name in regions)
    world = World(directory, nodes, federation=federation, agent=machine)
    for name, region in regions.items():
        world.schedulers[name].settings["region"] = region
        world.agents[f"{name}/n1"].settings["region"] = region
    return world


def hyperion(world, *args, code=0):
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "--server", f"unix:{world.socket}", *args],
        capture_output=True, text=True, timeout=60, check=False, env=world.environ,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def spec(dataset, fraction=2.0, **more):
    reads = [{"dataset": dataset, "fraction": fraction}]
    return {"name": "job", "run": "true", "resources": {"accelerators": "A100:8"}, "reads": reads,
            "expected": "1h", **more}  # fmt: skip


def ended(world, job):
    id = world.client.submit(job)
    until(lambda: world.client.why(id).phase == "succeeded", "its end")
    return world.client.why(id)


def adds_up(why):
    """The terms to the score, and the datasets to what bringing them costs."""
    terms = [float(line.rpartition("$")[2]) for line in why.sentences if " = $" in line]
    assert round(sum(terms[:-1]), 4) == terms[-1]
    chosen = next(row for row in why.plan.rows if row.chosen)
    assert terms[-1] == pytest.approx(chosen.score, abs=1e-4)
    data = [float(x.rpartition("$")[2]) for x in why.sentences if x.startswith("data:")]
    assert round(sum(data), 4) == pytest.approx(chosen.egress_usd, abs=1e-4)
    return chosen


def test_two_equal_jobs_go_to_their_data_and_the_arithmetic_adds_up(tmp_path):
    with world_of(tmp_path / "world", {"east": EAST, "west": WEST}) as world:
        for name, region in (("birds", EAST), ("fish", WEST)):
            hyperion(world, "datasets", "add", name, "--size", "500Gi", "--in", region)
        birds, fish = ended(world, spec("birds")), ended(world, spec("fish"))
        assert (birds.plan.chosen, fish.plan.chosen) == ("east", "west")
        assert adds_up(birds).egress_usd == adds_up(fish).egress_usd == 0.0
        assert "data: birds 500 GiB lies in aws/us-east-1: $0.0000" in birds.sentences
        with pytest.raises(Conflict, match="no dataset bird "):
            world.client.submit(spec("bird"))
        with pytest.raises(Conflict, match="no dataset bird "):
            world.client.plan(spec("bird"))


def test_the_first_job_moves_the_data_and_the_second_shares_it(tmp_path):
    with world_of(tmp_path / "world", {"west": WEST}) as world:
        hyperion(world, "datasets", "add", "birds", "--size", "150Gi", "--in", EAST)
        first, second = ended(world, spec("birds")), ended(world, spec("birds"))
        rate = 150 * 0.02
        assert adds_up(first).egress_usd == pytest.approx(rate + 150 * 0.023 / 730, abs=1e-6)
        assert adds_up(second).egress_usd == 0.0
        assert any(f"shared with job {first.id}" in line for line in second.sentences)
        assert "moved in 0.36 h" in next(x for x in first.sentences if x.startswith("data:"))
        bill = world.client.cost(by="job")
        assert bill.total.egress_usd == pytest.approx(rate + 150 * 0.023 / 730, abs=1e-6)
        shown = hyperion(world, "datasets", "show", "birds")
        assert f"job {first.id}" in shown
        assert "coming" in shown
        world.federation.restart().ready()
        assert hyperion(world, "datasets", "show", "birds") == shown
        assert "no dataset bird" in hyperion(world, "datasets", "show", "bird", code=1)
        assert "has the last copy" in hyperion(
            world, "datasets", "rm", "birds", "--in", EAST, code=4
        )


def test_the_advisor_starts_a_copy_through_the_hook(tmp_path):
    out = tmp_path / "hooked"
    script = tmp_path / "hook"
    script.write_text(
        "#!/bin/sh\necho $1 $HYPERION_HOOK $HYPERION_DATASET $HYPERION_SOURCE"
        f" $HYPERION_TARGET $HYPERION_SIZE_GIB >> {out}\n"
    )
    script.chmod(0o700)
    settings = {"dataset_hook": f"{script},fast"}
    with world_of(tmp_path / "world", {"west": WEST}, settings) as world:
        hyperion(world, "datasets", "add", "birds", "--size", "100Gi", "--in", EAST)
        for _ in range(6):
            found = ended(world, spec("birds", 0.5, expected="24h"))
            assert "read from afar" in next(x for x in found.sentences if x.startswith("data:"))
        (advice,) = world.client.dataset_advice()
        assert (advice.action, advice.region, advice.source) == ("copy", WEST, EAST)
        assert "copy" in hyperion(world, "datasets", "advise")
        world.federation.restart().ready()  # it looks at once when it starts, then once a minute

        def states():
            return {copy.region: copy.state for copy in world.client.datasets()[0].copies}

        until(lambda: states().get(WEST) == "present", "the copy that the hook brings")
        assert out.read_text() == f"fast copy birds {EAST} {WEST} 100.000\n"
        assert ended(world, spec("birds")).plan.rows[0].egress_usd == 0.0
