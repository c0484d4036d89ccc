"""A client that knows only the blueprint's own proto text: run by the contract test, as a program.

    python wire_blueprint_client.py DIRECTORY ADDRESS   (DIRECTORY holds the compiled blueprint)

Submits a job and reports metrics, then answers on stdout, in JSON, with what it saw.
"""

import base64
import json
import sys

directory, address = sys.argv[1:3]
sys.path.insert(0, directory)

import blueprint_pb2 as pb  # noqa: E402
import blueprint_pb2_grpc as rpc  # noqa: E402
import grpc  # noqa: E402

JOB = pb.AIJob(
    job_id="blueprint-1",
    user_id="dileep",
    framework=pb.AIJob.CUSTOM_CONTAINER,
    priority=pb.AIJob.LATENCY_CRITICAL,
    resources=pb.AIJob.ResourceRequest(gpus=8, gpu_type="A100", cpus_milli=4000, memory_mb=16384),
    replicas=2,
    metadata={"run": "python train.py", "team": "vision"},
)
METRICS = pb.NodeMetrics(
    node_id="n1",
    gpu_utilization_percent=71.5,
    cpu_utilization_percent=12.5,
    memory_used_mb=2048.0,
    network_tx_gbps=0.25,
    custom_metrics={"queue": 3.0},
)

with grpc.insecure_channel(address) as channel:
    status = rpc.FederationSchedulerStub(channel).SubmitJob(JOB, timeout=20)
    ack = rpc.NodeObserverStub(channel).ReportMetrics(iter([METRICS] * 3), timeout=20)

theirs = sys.stdin.buffer.read()
job = pb.AIJob.FromString(theirs)
json.dump(
    {
        "status": [status.job_id, status.status_message],
        "ack": ack.success,
        "job_bytes": base64.b64encode(JOB.SerializeToString(deterministic=True)).decode(),
        "file": base64.b64encode(pb.DESCRIPTOR.serialized_pb).decode(),
        "read": [job.job_id, job.framework, job.priority, job.replicas, job.resources.gpus],
        "kept": base64.b64encode(job.SerializeToString(deterministic=True)).decode(),
    },
    sys.stdout,
)
