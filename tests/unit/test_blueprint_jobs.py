"""What the blueprint's fields mean beside ours, and what the codec refuses, without telling."""

import re

import pytest
from msgspec.structs import replace

from hyperion.control.messages import PlaceJob, Run
from hyperion.model.checks import check
from hyperion.model.constraints import NodeTerm, Packing, ReplicaTerm, Spread
from hyperion.model.job import (
    Array,
    Dependency,
    Elastic,
    Framework,
    Job,
    Objective,
    Priority,
    Role,
    Secret,
)
from hyperion.model.resources import ResourceRequest
from hyperion.ports import GpuReading, Reading
from hyperion.wire import api, relay
from hyperion.wire.codec import (
    MAX_JOB_BYTES,
    WireError,
    encode,
    job_from_proto,
    job_to_proto,
    metrics_from_proto,
    metrics_to_proto,
    pack_agent,
    pack_scheduler,
    unpack_agent,
    unpack_federation,
    unpack_scheduler,
    view_from_proto,
    view_to_proto,
)
from hyperion.wire.generated import federation_pb2, link_pb2
from hyperion.wire.generated.job_pb2 import AIJob
from hyperion.wire.generated.node_pb2 import NodeMetrics

SECRET = "hunter2-is-the-word"
JOB = Job(id="j1", run="true", secrets={"TOKEN": Secret(SECRET)}, envs={"A": "b"})


def test_what_the_blueprint_leaves_out_gets_the_defaults():
    assert job_from_proto(AIJob(job_id="a")) == Job(id="a")
    assert job_from_proto(AIJob(job_id="a", resources={})) == Job(id="a")
    assert job_from_proto(AIJob()).id == ""


@pytest.mark.parametrize(
    ("message", "run", "metadata"),
    [
        (AIJob(metadata={"run": "x"}), "x", {}),
        (AIJob(metadata={"run": "x", "a": "b"}), "x", {"a": "b"}),
        (AIJob(run="y", metadata={"run": "x"}), "y", {"run": "x"}),
        (AIJob(command=["y"], metadata={"run": "x"}), "", {"run": "x"}),
    ],
)
def test_the_command_may_stand_in_the_metadata(message, run, metadata):
    job = job_from_proto(message)
    assert (job.run, job.metadata) == (run, metadata)


@pytest.mark.parametrize(
    ("number", "framework"),
    [(0, "CUSTOM"), (1, "PYTORCH"), (2, "JAX"), (3, "TENSORFLOW"), (4, "CUSTOM"), (5, "MPI")],
)
def test_frameworks(number, framework):
    assert job_from_proto(AIJob(framework=number)).framework is Framework[framework]


def test_frameworks_and_priorities_are_said_in_the_blueprints_numbers():
    assert job_to_proto(JOB).framework == AIJob.CUSTOM_CONTAINER == 4
    assert job_to_proto(replace(JOB, framework=Framework.MPI)).framework == AIJob.MPI == 5
    for priority in Priority:
        assert job_to_proto(replace(JOB, priority=priority)).priority == int(priority)
    assert job_from_proto(AIJob(priority=0)).priority is Priority.BATCH


@pytest.mark.parametrize(
    ("fields", "gpus_milli", "cpus_milli"),
    [
        ({}, 0, 1000),
        ({"gpus": 2}, 2000, 1000),
        ({"gpus": 1, "gpus_milli": 500}, 500, 1000),
        ({"gpus_milli": 250, "cpus_milli": 1}, 250, 1),
        ({"no_cpus": True}, 0, 0),
        ({"no_cpus": True, "cpus_milli": 7}, 0, 7),
    ],
)
def test_quantities(fields, gpus_milli, cpus_milli):
    (request,) = job_from_proto(AIJob(resources=fields)).alternatives
    assert (request.gpus_milli, request.cpus_milli) == (gpus_milli, cpus_milli)


def test_a_fraction_of_a_gpu_is_a_whole_one_to_the_blueprint():
    message = job_to_proto(replace(JOB, alternatives=(ResourceRequest(gpus_milli=500),)))
    assert (message.resources.gpus, message.resources.gpus_milli) == (1, 500)
    whole = job_to_proto(replace(JOB, alternatives=(ResourceRequest(gpus_milli=8000),)))
    assert (whole.resources.gpus, whole.resources.gpus_milli) == (8, 0)


def test_the_first_alternative_is_the_blueprints_and_the_others_stand_beside():
    first, second = ResourceRequest(memory_mib=5), ResourceRequest(use_spot=False)
    message = job_to_proto(replace(JOB, alternatives=(first, second)))
    assert message.resources.memory_mb == 5
    assert len(message.alternatives) == 1
    assert job_from_proto(message).alternatives == (first, second)
    message.ClearField("resources")
    assert job_from_proto(message).alternatives == (second,)
    with pytest.raises(WireError, match="alternatives: is empty"):
        job_to_proto(replace(JOB, alternatives=()))


def test_roles_stand_in_for_resources_and_replicas():
    roles = [
        {"name": "trainer", "replicas": 2, "resources": {"gpus": 1}},
        {"name": "server", "run": "serve"},
    ]
    job = job_from_proto(AIJob(job_id="a", run="x", roles=roles, metadata={"run": "mine"}))
    trainer = Role(name="trainer", replicas=2, resources=ResourceRequest(gpus_milli=1000))
    assert job.roles == (trainer, Role(name="server", run="serve"))
    assert (job.replicas, job.alternatives) == (3, (trainer.resources,))
    assert job.metadata == {"run": "mine"}
    assert check(job) == ()
    alone = job_from_proto(AIJob(job_id="a", roles=roles[1:], metadata={"run": "mine"}))
    assert (alone.run, alone.metadata) == ("", {"run": "mine"})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"array": {"size": -1}}, "array.size: is -1, expected 0 or more"),
        ({"after": [{"job": "b", "condition": 9}]}, "after[0].condition: is 9, expected one of"),
        ({"begin_s": float("nan")}, "begin_s: is nan, expected a finite number"),
        ({"spread": [{"max_skew": -1}]}, "spread[0].max_skew: is -1"),
        (
            {"resources": {"custom": [{"name": "fpga", "amount": -1}]}},
            "resources.custom[0].amount: is -1, expected 0 or more",
        ),
    ],
)
def test_what_the_new_words_do_not_admit_is_refused_by_field(message, said):
    with pytest.raises(WireError, match=re.escape(said)):
        job_from_proto(AIJob(job_id="a", **message))


def test_what_is_absent_has_its_default_and_not_zero():
    job = job_from_proto(
        AIJob(
            job_id="a",
            nice=-3,
            array={"size": 2},
            elastic={"min": 1},
            packing={"level": "rack"},
            spread=[{}],
            after=[{"job": "b"}],
            replica_affinity=[{"labels": [{"key": "a", "value": "b"}]}],
            resources={"affinity": [{"key": "zone"}]},
        )
    )
    assert (job.nice, job.array, job.elastic) == (-3, Array(2), Elastic(1))
    assert (job.packing, job.spread, job.after) == (
        Packing("rack"),
        (Spread(),),
        (Dependency("b"),),
    )
    assert job.replica_affinity == (ReplicaTerm((("a", "b"),)),)
    assert job.alternatives[0].affinity == (NodeTerm("zone"),)


def test_an_absent_weight_is_one_and_zero_is_zero():
    assert job_from_proto(AIJob(objective={"cost": 0.0})).objective == Objective(cost=0.0)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (AIJob(framework=6), "framework: is 6, expected one of 1 (PYTORCH), 2 (JAX)"),
        (AIJob(priority=9), "priority: is 9, expected one of 1 (BATCH)"),
        (AIJob(replicas=-1), "replicas: is -1, expected 0 or more"),
        (AIJob(resources={"gpus": -4}), "resources.gpus: is -4"),
        (AIJob(resources={"memory_mb": -1}), "resources.memory_mb: is -1"),
        (AIJob(alternatives=[{}, {"disk_mib": -7}]), "alternatives[1].disk_mib: is -7"),
        (AIJob(expected_s=float("nan")), "expected_s: is nan, expected a finite number"),
        (AIJob(deadline_s=float("inf")), "deadline_s: is inf"),
        (AIJob(objective={"carbon": -1}), "objective.carbon: is -1.0"),
        (AIJob(data=[{"size_gib": -1}]), "data[0].size_gib: is -1.0"),
        (AIJob(run="x" * MAX_JOB_BYTES), f"AIJob: is {MAX_JOB_BYTES + 5} bytes, expected at most"),
    ],
)
def test_a_job_that_the_contract_does_not_admit_is_refused_by_field(message, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        job_from_proto(message)


def test_a_fault_in_a_stream_names_its_place():
    stop = link_pb2.FederationMessage(items=[{"lease": {}}, {"stop_job": {"job": "j"}}])
    messages = unpack_federation(stop)
    next(messages)
    with pytest.raises(WireError, match=r"^items\[1\].stop_job.phase: is missing"):
        next(messages)
    for item, said in [
        ({"run": {}}, "run.job: is missing"),
        ({"run": {"job": {"replicas": -1}}}, "run.job.replicas: is -1"),
        ({"run": {"peers": [{"port": 70000}]}}, r"run.peers\[0\].port: is 70000"),
        ({"stop": {"generation": -1}}, "stop.generation: is -1"),
        ({"prepare": {"devices": [1, -1]}}, r"prepare.devices\[1\]: is -1"),
    ]:
        with pytest.raises(WireError, match=rf"^items\[0\].{said}"):
            list(unpack_scheduler(link_pb2.SchedulerMessage(items=[item])))


def run_of(job):
    return Run(
        allocation="a", generation=1, job=job, rank=0, attempt=1, request=job.alternatives[0]
    )


@pytest.mark.parametrize(
    ("job", "place"),
    [
        (replace(JOB, run="\ud800" + SECRET), "job.run"),
        (replace(JOB, secrets={"T": Secret("\udfff" + SECRET)}), "job.secrets"),
        (replace(JOB, replicas=2**31), "job.replicas"),
        (replace(JOB, envs={"A": 7}), "job.envs"),
        (replace(JOB, command=("a", None)), "job.command"),
        (
            replace(JOB, alternatives=(ResourceRequest(), ResourceRequest(disk_mib=2**64))),
            r"job.alternatives\[0\].disk_mib",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_never_shown(job, place):
    with pytest.raises(
        WireError, match=rf"^items\[1\].run.{place}: has a value of the wrong"
    ) as told:
        pack_scheduler([run_of(JOB), run_of(job)])
    fault = told.value
    while fault is not None:
        assert SECRET not in f"{fault!s} {fault!r} {vars(fault)}"
        assert not hasattr(fault, "object")
        fault = fault.__cause__ or fault.__context__


def test_secrets_travel_and_show_nowhere():
    (received,) = unpack_scheduler(pack_scheduler([run_of(JOB)]))
    assert received.job.secrets == {"TOKEN": Secret(SECRET)}
    assert SECRET not in repr(received)
    call = relay.Call(1, "bundle", SECRET.encode())
    assert SECRET not in repr([call, relay.Chunk(1, SECRET.encode())])


def test_only_what_belongs_on_a_stream_can_be_packed():
    with pytest.raises(TypeError, match="Submitted is no message of a stream"):
        encode(api.Submitted(id="x"))
    with pytest.raises(WireError, match=r"items\[0\].run: is no field of Item"):
        pack_agent([run_of(JOB)])
    with pytest.raises(TypeError, match="PlaceJob is no view"):
        view_to_proto(PlaceJob(job=JOB, generation=1, submitted_at_ms=1))


def test_maps_of_views_are_their_own():
    one = view_from_proto(federation_pb2.NodeView(), api.NodeView)
    two = view_from_proto(federation_pb2.NodeView(), api.NodeView)
    one.labels["a"] = "b"
    assert two.labels == {}


def test_the_mean_over_the_gpus_that_say():
    gpus = (
        GpuReading(index=0, utilization_percent=40.0, temperature_celsius=-5.0),
        GpuReading(index=1),
        GpuReading(index=2, utilization_percent=60.0),
    )
    reading = Reading(at_ms=5, cpu_utilization_percent=1.0, memory_used_mb=2.0, gpus=gpus)
    message = metrics_to_proto(reading, "n1")
    assert (message.node_id, message.gpu_utilization_percent) == ("n1", 50.0)
    assert metrics_from_proto(message) == ("n1", reading)
    measured = relay.Measured("n1", reading)
    assert list(unpack_agent(pack_agent([measured]))) == [measured]


@pytest.mark.parametrize(
    "fields",
    [
        {"cpu_utilization_percent": float("nan")},
        {"memory_used_mb": -1},
        {"gpu_utilization_percent": float("inf")},
        {"custom_metrics": {"a": float("nan")}},
        {"at_ms": -1},
        {"gpus": [{"temperature_celsius": float("nan")}]},
    ],
)
def test_a_reading_is_finite(fields):
    with pytest.raises(WireError, match=next(iter(fields))):
        metrics_from_proto(NodeMetrics(**fields))
