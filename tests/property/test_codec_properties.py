"""What goes over the wire comes back as it was; what is not ours is refused, never more."""

import contextlib
import types
from enum import Enum
from functools import cache
from typing import Union, get_args, get_origin

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.control import messages as m
from hyperion.model.checks import check
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Reading
from hyperion.wire import api, datasets_api
from hyperion.wire.codec import (
    decode,
    job_from_proto,
    job_to_proto,
    metrics_from_proto,
    metrics_to_proto,
    pack_agent,
    pack_cluster,
    pack_federation,
    pack_scheduler,
    split,
    unpack_agent,
    unpack_cluster,
    unpack_federation,
    unpack_scheduler,
    view_from_proto,
    view_to_proto,
)
from hyperion.wire.generated import federation_pb2, job_pb2, link_pb2, node_pb2
from hyperion.wire.relay import Call, CallCancel, Chunk, Measured

RELAYED = (Call, Chunk, CallCancel)
LINKS = {
    "federation": (
        pack_federation,
        unpack_federation,
        link_pb2.FederationMessage,
        (m.PlaceJob, m.StopJob, m.ForgetJob, m.Lease, *RELAYED),
    ),
    "cluster": (
        pack_cluster,
        unpack_cluster,
        link_pb2.ClusterMessage,
        (m.JobReport, m.ClusterHello, m.ClusterHeartbeat, *RELAYED),
    ),
    "scheduler": (
        pack_scheduler,
        unpack_scheduler,
        link_pb2.SchedulerMessage,
        (m.Prepare, m.Run, m.Stop, m.Forget, m.Lease, *RELAYED),
    ),
    "agent": (
        pack_agent,
        unpack_agent,
        link_pb2.AgentMessage,
        (m.AllocationReport, m.NodeHello, m.NodeHeartbeat, Measured, *RELAYED),
    ),
}
VIEWS = (
    api.JobView,
    api.PlanView,
    api.WhyView,
    api.NodeView,
    api.ClusterView,
    api.OfferView,
    api.Submitted,
    api.Problem,
    api.VersionView,
    api.JobChange,
    datasets_api.DatasetView,
    datasets_api.AdviceView,
    datasets_api.DatasetRequest,
)

WIDE = ("generation", "sequence", "version", "id", "submitted_at_ms", "at_ms", "heard_ms_ago")
texts = st.text(max_size=8)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def of_type(annotation, name=""):
    """Any value of a type, as the contract admits it."""
    while hasattr(annotation, "__supertype__"):
        annotation = annotation.__supertype__
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (types.UnionType, Union):
        (inner,) = (part for part in arguments if part is not types.NoneType)
        return st.none() | of_type(inner, name)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_type(arguments[0], name), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(of_type(part) for part in arguments))
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    return single(annotation, name)


def single(annotation, name):
    if annotation is int:
        return whole_number(name)
    if annotation is float:
        return st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if issubclass(annotation, msgspec.Struct):
        return structs(annotation)
    return texts if annotation is str else st.from_type(annotation)


def whole_number(name):
    if name in ("exit_code", "nice"):
        return st.integers(-(2**31), 2**31 - 1)
    return st.integers(0, 65535 if name == "port" else 2**63 - 1 if name in WIDE else 2**31 - 1)


@cache
def structs(kind):
    wanted = {field.name: field for field in msgspec.structs.fields(kind)}
    made = st.fixed_dictionaries({n: of_type(f.type, n) for n, f in wanted.items()})
    whole = made.map(lambda fields: kind(**fields))
    return whole.map(admissible) if kind is Job else whole


def admissible(job):
    """Without a command, ``metadata["run"]`` means something: the blueprint's command."""
    metadata = dict(job.metadata)
    if not job.command and not job.run:
        metadata.pop("run", None)
    return msgspec.structs.replace(
        job,
        metadata=metadata,
        replicas=max(job.replicas, 1),
        alternatives=job.alternatives or (ResourceRequest(),),
    )


@few
@given(st.data())
@pytest.mark.parametrize(("link", "kind"), [(k, s) for k, v in LINKS.items() for s in v[3]])
def test_every_link_message_comes_back_as_it_was(link, kind, data):
    pack, unpack, envelope, _ = LINKS[link]
    sent = data.draw(st.lists(structs(kind), min_size=1, max_size=3))
    received = list(unpack(envelope.FromString(pack(sent).SerializeToString())))
    assert received == sent
    assert [type(message) for message in received] == [kind] * len(sent)


@few
@given(st.data())
@pytest.mark.parametrize("kind", VIEWS)
def test_every_view_comes_back_as_it_was(kind, data):
    view = data.draw(structs(kind))
    message = view_to_proto(view)
    assert view_from_proto(type(message).FromString(message.SerializeToString()), kind) == view


@given(structs(Job))
@settings(few, max_examples=150)
def test_a_job_comes_back_as_it_was(job):
    assert job_from_proto(job_pb2.AIJob.FromString(job_to_proto(job).SerializeToString())) == job


@given(structs(Job))
@settings(few, max_examples=150)
def test_whatever_came_over_the_wire_can_be_checked(job):
    for fault in check(job):
        assert fault.pointer.startswith("/")
        assert fault.message.isprintable()


@given(structs(Reading), texts)
@few
def test_a_reading_comes_back_as_it_was(reading, node):
    sent = metrics_to_proto(reading, node).SerializeToString()
    assert metrics_from_proto(node_pb2.NodeMetrics.FromString(sent)) == (node, reading)


@given(st.lists(structs(m.JobReport), max_size=12), st.integers(1, 400))
@few
def test_a_split_envelope_holds_the_same_in_the_same_order(reports, limit):
    parts = list(split(pack_cluster(reports), limit))
    assert [report for part in parts for report in unpack_cluster(part)] == reports
    assert all(part.ByteSize() <= limit or len(part.items) == 1 for part in parts if reports)


def refuses_or_reads(kind, body, read):
    try:
        message = kind.FromString(body)
    except DecodeError:
        return
    with contextlib.suppress(ValueError):
        read(message)


def readers():
    yield job_pb2.AIJob, job_from_proto
    yield node_pb2.NodeMetrics, metrics_from_proto
    for _, unpack, envelope, _ in LINKS.values():
        yield envelope, lambda message, unpack=unpack: list(unpack(message))
    for view in VIEWS:
        kind = getattr(federation_pb2, view.__name__)
        yield kind, lambda message, view=view: view_from_proto(message, view)


@given(st.binary(max_size=200))
@settings(few, max_examples=200)
def test_random_bytes_are_refused_in_an_orderly_way(body):
    for kind, read in readers():
        refuses_or_reads(kind, body, read)


@given(st.data())
@settings(few, max_examples=200)
def test_damaged_messages_are_refused_in_an_orderly_way(data):
    link = data.draw(st.sampled_from(sorted(LINKS)))
    pack, unpack, envelope, kinds = LINKS[link]
    sent = data.draw(structs(data.draw(st.sampled_from(kinds))))
    body = bytearray(pack([sent]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    refuses_or_reads(envelope, bytes(body), lambda message: list(unpack(message)))


def test_an_item_of_an_unknown_kind_is_skipped():
    newer = (
        b"\x0a\x06\xa2\x06\x03new" + pack_agent([m.NodeHeartbeat(sequence=7)]).SerializeToString()
    )
    envelope = link_pb2.AgentMessage.FromString(newer)
    assert len(envelope.items) == 2
    assert decode(envelope.items[0]) is None
    assert list(unpack_agent(envelope)) == [m.NodeHeartbeat(sequence=7)]
