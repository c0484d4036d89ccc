"""A client generated from the blueprint's own text submits and reports to the running daemons."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemons import World, until

HERE = Path(__file__).parent
BLUEPRINT = HERE.parent / "contract" / "wire_blueprint.proto"
AGENT = {"declare": "accelerators=A100:8,cpus=64,memory=64", "telemetry_ms": 3_600_000}
"""It measures nothing by itself, so that what the test reports stays."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("blueprint") / "w", agent=AGENT) as it:
        yield it


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("compiled")
    (directory / "blueprint.proto").write_bytes(BLUEPRINT.read_bytes())
    flags = [f"-I{directory}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *flags, "blueprint.proto"]
    subprocess.run(command, check=True, timeout=60)
    return directory


@pytest.fixture
def calls(world, compiled):
    def call(*asked):
        program = [sys.executable, str(HERE / "daemons_blueprint.py")]
        environ = {**os.environ, "PYTHONPATH": str(compiled)}
        asked = [_addressed(world, one) for one in asked]
        made = subprocess.run(
            program,
            env=environ,
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        return json.loads(made.stdout)

    return call


def _addressed(world, asked):
    to, who = asked.pop("to"), asked.pop("who")
    daemon = world.federation if to == "federation" else world.scheduler
    credentials = world.state / who / "credentials"
    return {"address": world.address(daemon), "credentials": str(credentials), **asked}


def job(job_id, run, **more):
    return {
        "jobId": job_id,
        "userId": "dileep",
        "framework": "PYTORCH",
        "priority": "LATENCY_CRITICAL",
        "resources": {"gpus": 2, "gpuType": "A100", "cpusMilli": 4000, "memoryMb": 1024},
        "replicas": 2,
        "metadata": {"run": run, "team": "vision"},
        **more,
    }


def submit(job, to="federation", who="client"):
    return {"to": to, "who": who, "submit": job}


def report(*metrics, to="scheduler", who="agent-local-n1"):
    return {"to": to, "who": who, "report": metrics}


def test_a_job_submitted_at_the_federation_runs(world, calls, tmp_path):
    run = f'echo "$RANK of $WORLD_SIZE on $HYPERION_DEVICES" >>{tmp_path}/out'
    assert calls(submit(job("blue-1", run)), submit(job("blue-1", run))) == [
        ["OK", "blue-1 accepted"],
        ["OK", "blue-1 accepted"],
    ]
    view = world.client.wait("blue-1", 20)
    assert (view.phase, view.user, view.framework) == ("succeeded", "dileep", "pytorch")
    assert view.resources.startswith("A100:2 cpus:4")
    lines = sorted((tmp_path / "out").read_text().splitlines())
    assert [line[:9] for line in lines] == ["0 of 2 on", "1 of 2 on"], lines
    devices = [line.partition(" on ")[2].split(",") for line in lines]
    assert len({*devices[0], *devices[1]}) == 4, "each has GPUs of its own"


def test_a_job_submitted_at_the_scheduler_runs_there(world, calls, tmp_path):
    run = f'echo "$RANK" >>{tmp_path}/out'
    asked = submit(job("blue-2", run), to="scheduler")
    assert calls(asked) == [["OK", "blue-2 accepted"]]
    out = tmp_path / "out"
    until(lambda: out.exists() and len(out.read_text().split()) == 2, "both ranks to run")
    until(lambda: not world.replicas(), "them to end")
    assert sorted(out.read_text().split()) == ["0", "1"]
    assert "blue-2" not in {view.id for view in world.client.list(ended=True)}


def test_metrics_reported_by_an_agent_are_shown(world, calls):
    metrics = {
        "nodeId": "n1",
        "gpuUtilizationPercent": 71.5,
        "cpuUtilizationPercent": 12.5,
        "memoryUsedMb": 2048,
        "networkTxGbps": 0.25,
        "customMetrics": {"queue": 3},
    }
    assert calls(report(metrics, metrics, metrics)) == [["OK", True]]
    (node,) = world.client.nodes()
    assert node.metrics["cpu_percent"] == 12.5
    assert node.metrics["memory_used_mb"] == 2048


def test_who_may_not_is_told(calls):
    good = job("blue-3", "true")
    outcomes = calls(
        submit({**good, "jobId": "../etc"}),
        submit({**good, "replicas": -1}),
        submit({**good, "metadata": {}}),
        submit(good, who="agent-local-n1"),
        submit(good, to="scheduler", who="agent-local-n1"),
        report({"nodeId": "n2"}),
        report({"nodeId": "n1"}, who="client"),
    )
    codes = [code for code, _ in outcomes]
    assert codes == ["INVALID_ARGUMENT"] * 3 + ["PERMISSION_DENIED"] * 4, outcomes
    assert "replicas" in outcomes[1][1]
    assert "expected" in outcomes[0][1]
    assert "n2" in outcomes[5][1]
