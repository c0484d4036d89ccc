"""Jobs to and from AIJob: the blueprint's seven fields as the blueprint means them, ours beside."""

from typing import Any, cast

from google.protobuf.message import Message

from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.model.sharing import Sharing
from hyperion.wire.codec_decode import decoder
from hyperion.wire.codec_encode import encoder, to_message
from hyperion.wire.codec_fields import Fields, Special, WireError, register
from hyperion.wire.generated import job_pb2

MAX_JOB_BYTES = 4 << 20
"""Serialized; gRPC's own default limit for a received message."""
RUN_KEY = "run"
"""``metadata["run"]`` is the command of a job that knows the blueprint's fields only."""


def _begin_request(request: ResourceRequest, fields: Fields) -> None:
    whole, fraction = divmod(request.gpus_milli, MILLI)
    if request.gpus_milli:
        fields["gpus"] = whole + 1 if fraction else whole
    if fraction:
        fields["gpus_milli"] = request.gpus_milli
    if not request.cpus_milli:
        fields["no_cpus"] = True


def _finish_request(fields: Fields) -> None:
    gpus = fields.pop("gpus", 0)
    if not fields["gpus_milli"]:
        fields["gpus_milli"] = gpus * MILLI
    no_cpus = fields.pop("no_cpus", False)
    if not fields["cpus_milli"] and not no_cpus:
        del fields["cpus_milli"]


def _begin_job(job: Job, fields: Fields) -> None:
    if not job.alternatives:
        raise WireError("is empty, expected at least one request", "alternatives")
    encode = encoder(ResourceRequest, job_pb2.AIJob.ResourceRequest.DESCRIPTOR)
    first, *others = [encode(request) for request in job.alternatives]
    fields["resources"] = first
    if others:
        fields["alternatives"] = others


def _finish_job(fields: Fields) -> None:
    resources = fields.pop("resources", None)
    others = fields.pop("alternatives", ())
    if resources is not None:
        fields["alternatives"] = (resources, *others)
    elif others:
        fields["alternatives"] = others
    roles = fields.get("roles")
    if roles and "alternatives" not in fields:
        fields["alternatives"] = (roles[0].resources,)
    if not fields["replicas"]:
        fields["replicas"] = sum(role.replicas for role in roles) if roles else 1
    metadata = fields.get("metadata")
    idle = not roles and not fields.get("command") and not fields.get("run")
    if idle and metadata and RUN_KEY in metadata:
        fields["run"] = metadata.pop(RUN_KEY)


register(
    ResourceRequest,
    Special(
        renames={"memory_mib": "memory_mb"},
        zeros=frozenset({"gpus_milli"}),
        derived=frozenset({"gpus_milli"}),
        extra={"gpus": int, "no_cpus": bool},
        begin=_begin_request,
        finish=_finish_request,
    ),
)
register(
    Job,
    Special(
        renames={"id": "job_id", "user": "user_id"},
        derived=frozenset({"alternatives"}),
        extra={"resources": ResourceRequest},
        begin=_begin_job,
        finish=_finish_job,
        share=Sharing().job,
    ),
)


def job_to_proto(job: Job) -> job_pb2.AIJob:
    """The job with its secrets; WireError (a ValueError) names a field that does not fit."""
    return to_message(job_pb2.AIJob, encoder(Job, job_pb2.AIJob.DESCRIPTOR)(job))


def job_from_proto(message: job_pb2.AIJob) -> Job:
    """The job a peer or user sent. Not yet checked: ``model.checks`` says whether it makes sense.

    Raises WireError (a ValueError) naming the field: unknown enum values, negative or endless
    numbers, more than MAX_JOB_BYTES. What the blueprint leaves out gets the defaults: no framework
    is CUSTOM, no priority BATCH, no replicas 1 (with roles the sum of theirs), no CPUs one;
    ``metadata["run"]`` becomes the script where there is neither a command nor a role.
    """
    size = cast("Message", message).ByteSize()
    if size > MAX_JOB_BYTES:
        raise WireError(f"is {size} bytes, expected at most {MAX_JOB_BYTES}", "AIJob")
    job: Any = decoder(Job, job_pb2.AIJob.DESCRIPTOR)(message)
    assert isinstance(job, Job)
    return job
