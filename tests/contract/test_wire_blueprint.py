"""The blueprint's own proto text, compiled on its own, works against ours unchanged."""

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from hyperion.model.job import Framework, Job, Priority, Secret
from hyperion.model.resources import ResourceRequest
from hyperion.wire.codec import job_from_proto, job_to_proto, metrics_from_proto
from hyperion.wire.generated import job_pb2, job_pb2_grpc, node_pb2, node_pb2_grpc

HERE = Path(__file__).parent
OURS = Job(
    id="ours-1",
    framework=Framework.MPI,
    priority=Priority.ULTRA_LOW_LATENCY,
    replicas=3,
    command=("true",),
    secrets={"TOKEN": Secret("s3cret")},
    alternatives=(ResourceRequest(gpus_milli=2500), ResourceRequest(gpus_milli=1000)),
)


class Observer(node_pb2_grpc.NodeObserverServicer):
    def __init__(self):
        self.seen = []

    async def ReportMetrics(self, request_iterator, context):
        async for message in request_iterator:
            self.seen.append((*metrics_from_proto(message), dict(message.custom_metrics)))
        return node_pb2.Ack(success=True)


class Submissions(job_pb2_grpc.FederationSchedulerServicer):
    def __init__(self):
        self.jobs = []
        self.received = []

    async def SubmitJob(self, request, context):
        self.received.append(request.SerializeToString(deterministic=True))
        self.jobs.append(job_from_proto(request))
        return job_pb2.JobStatus(job_id=request.job_id, status_message="kept")


async def program(*arguments, given=b""):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(given), 60)
    assert process.returncode == 0, err.decode()
    return out


async def converse(directory):
    flags = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
    text = directory / "blueprint.proto"
    text.write_bytes((HERE / "wire_blueprint.proto").read_bytes())
    await program("-m", "grpc_tools.protoc", f"-I{directory}", *flags, str(text))
    observer, submissions = Observer(), Submissions()
    server = grpc.aio.server()
    node_pb2_grpc.add_NodeObserverServicer_to_server(observer, server)
    job_pb2_grpc.add_FederationSchedulerServicer_to_server(submissions, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        client = str(HERE / "wire_blueprint_client.py")
        given = job_to_proto(OURS).SerializeToString()
        out = await program(client, str(directory), f"127.0.0.1:{port}", given=given)
    finally:
        await server.stop(None)
    return observer, submissions, json.loads(out)


@pytest.fixture(scope="module")
def conversation(tmp_path_factory):
    return asyncio.run(converse(tmp_path_factory.mktemp("blueprint")))


def test_a_blueprint_client_submits_and_reports(conversation):
    observer, submissions, said = conversation
    assert said["status"] == ["blueprint-1", "kept"]
    assert said["ack"] is True
    assert submissions.jobs == [
        Job(
            id="blueprint-1",
            user="dileep",
            priority=Priority.LATENCY_CRITICAL,
            replicas=2,
            alternatives=(ResourceRequest(8000, "A100", 4000, 16384),),
            run="python train.py",
            metadata={"team": "vision"},
        )
    ]
    assert len(observer.seen) == 3
    node, reading, custom = observer.seen[0]
    assert (node, reading.cpu_utilization_percent, reading.memory_used_mb) == ("n1", 12.5, 2048.0)
    assert (reading.network_tx_gbps, reading.gpus, custom) == (0.25, (), {"queue": 3.0})


def test_its_bytes_are_ours(conversation):
    _, submissions, said = conversation
    theirs = base64.b64decode(said["job_bytes"])
    assert submissions.received == [theirs]
    message = job_pb2.AIJob.FromString(theirs)
    assert message.SerializeToString(deterministic=True) == theirs
    assert not message.alternatives
    assert not message.run


def test_it_reads_our_job_and_hands_back_every_byte(conversation):
    said = conversation[2]
    assert said["read"] == ["ours-1", 5, 3, 3, 3]  # MPI is unknown to it; 2.5 GPUs are 3
    assert job_from_proto(job_pb2.AIJob.FromString(base64.b64decode(said["kept"]))) == OURS


def _flat(messages, prefix="") -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        yield prefix + message.name, message
        yield from _flat(message.nested_type, f"{prefix}{message.name}.")


def _parts(files):
    """Everything a file says on the wire, keyed by name."""
    parts = {}
    for file in files:
        for name, message in _flat(file.message_type):
            for f in message.field:
                key = (name, f.name)
                parts[key] = (f.number, f.type, f.label, f.type_name, f.proto3_optional)
            for enum in message.enum_type:
                for value in enum.value:
                    parts[name, enum.name, value.name] = value.number
        for service in file.service:
            for m in service.method:
                ends = (m.input_type, m.output_type, m.client_streaming, m.server_streaming)
                parts[file.package, service.name, m.name] = ends
    return parts


def test_every_number_type_and_label_of_the_blueprint_is_ours(conversation):
    blueprint = FileDescriptorProto.FromString(base64.b64decode(conversation[2]["file"]))
    ours = [FileDescriptorProto.FromString(m.DESCRIPTOR.serialized_pb) for m in (job_pb2, node_pb2)]
    assert blueprint.package == "hyperion.v1"
    wanted, have = _parts([blueprint]), _parts(ours)
    assert len(wanted) == 35  # 20 fields, 4 of maps, 9 enum values, 2 methods
    assert {key: have.get(key) for key in wanted} == wanted
