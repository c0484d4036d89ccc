"""The gRPC ends under hostile callers: a clear refusal or a job that goes on, and never a fault."""

import itertools
import os
import re

import grpc
import pytest
from daemons import World, until
from google.protobuf.descriptor import FieldDescriptor as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.adapters.link.gate import PROBLEMS_KEY
from hyperion.adapters.link.status import LONGEST_DETAILS
from hyperion.model.job import JobPhase
from hyperion.wire.generated import federation_pb2 as api
from hyperion.wire.generated import job_pb2

AGENT = {"declare": "accelerators=A100:8,cpus=64,memory=64"}
MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Set it to look further, at other examples each time."""
FUZZ = settings(
    max_examples=MORE or 150,
    deadline=None,
    derandomize=not MORE,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FEDERATION, CLUSTER = "/hyperion.v1.Federation/", "/hyperion.v1.FederationScheduler/"
REMEDIES = r"expected|give|keep|remove|say|did you mean|too (large|many|long)|; [a-z]+ "
HELPFUL = re.compile(rf"^[^:]+.*({REMEDIES}).+", re.DOTALL)
"""Names a place, and says what would be right, or after a semicolon what to do."""
number = itertools.count(1)

# -- messages -------------------------------------------------------------------------------------

#: Never random text: what is accepted really runs here.
COMMANDS = ["", "true", "exit 3", "sleep 0.02", "kill -9 $$", "no-such-command", "echo \u2028"]
SAMPLES = {
    "command": ["true", "sh", "-c", "exit 3", "", "\0", "no-such-command"],
    "run": COMMANDS,
    "setup": ["", "true", "exit 1", "\0"],
    "workdir": ["", "/tmp", "/no/such", "relative", "/\0", "bundle:sha256:" + "0" * 64, "bundle:x"],
    "gpu_type": ["", "A100", "a100", "H100", "T4", "B9000", "A100:8"],
    "policy": ["", "balanced", "cheapest", "greenest", "best"],
    "infra": ["", "aws", "edge/home", "local", "aws/us-east-1", "a/b/c"],
    "region": ["", "aws/us-east-1", "edge/home", "nowhere"],
    "users_in": ["aws/us-east-1", "edge/home", ""],
    "dir": ["", "/tmp/checkpoints", "relative"],
    "image": ["", "python:3.12", "\n"],
}
TEXT = st.one_of(
    st.sampled_from(["", "a", "A100", "-", "/", "..", "x" * 300, "\0", "\n", "%s", "${HOME}", "é"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
WHOLE = [0, 1, -1, 2, 3, 1000, 1_000_000]
SIZES = [0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 1e9]
KEYS = st.one_of(st.sampled_from(["run", "A", "a-b", "", "LD_DEBUG", "RANK", "1", "=", "\0"]), TEXT)


def scalar(field):
    """Values of one field, with those at which code tends to break."""
    if field.name in SAMPLES:
        return st.sampled_from(SAMPLES[field.name])
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from([*known, 99, 150, -1, 2**31 - 1])
    if field.message_type is not None:
        return message(field.message_type)
    return SCALARS[field.cpp_type]


def whole(bits):
    ends = [2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
    return st.one_of(st.sampled_from([*WHOLE, *ends]), st.integers(-5, 2000))


SCALARS = {
    F.CPPTYPE_BOOL: st.booleans(),
    F.CPPTYPE_STRING: TEXT,
    F.CPPTYPE_DOUBLE: st.one_of(st.sampled_from(SIZES), st.floats()),
    F.CPPTYPE_INT32: whole(32),
    F.CPPTYPE_INT64: whole(64),
}


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def values(field):
    if is_map(field):
        value = field.message_type.fields_by_name["value"]
        content = st.sampled_from(COMMANDS) if field.name == "metadata" else scalar(value)
        return st.dictionaries(KEYS, content, max_size=3)
    single = scalar(field)
    return st.lists(single, max_size=3) if field.is_repeated else single


def message(descriptor):
    """Any message of that kind, as a dict that ``filled`` turns into one."""
    return st.fixed_dictionaries(
        {}, optional={field.name: values(field) for field in descriptor.fields}
    )


def spoilt(descriptor):
    """A few fields of it, to be laid over a good one."""
    field = st.sampled_from(list(descriptor.fields))
    one = field.flatmap(lambda field: st.tuples(st.just(field.name), values(field)))
    return st.lists(one, max_size=3).map(dict)


def filled(target, fields):
    """Set the fields of a message from a dict of plain values."""
    for name, value in fields.items():
        field = target.DESCRIPTOR.fields_by_name[name]
        if is_map(field):
            getattr(target, name).update(value)
        elif field.is_repeated and field.message_type is not None:
            for item in value:
                filled(getattr(target, name).add(), item)
        elif field.is_repeated:
            getattr(target, name)[:] = value
        elif field.message_type is not None:
            getattr(target, name).SetInParent()
            filled(getattr(target, name), value)
        else:
            setattr(target, name, value)
    return target


def good():
    return {"job_id": f"fuzz-{next(number)}", "run": "true", "resources": {"cpus_milli": 100}}


AIJOB = job_pb2.AIJob.DESCRIPTOR
JOBS = st.one_of(
    spoilt(AIJOB).map(lambda fields: filled(job_pb2.AIJob(), good() | fields)),
    message(AIJOB).map(lambda fields: filled(job_pb2.AIJob(), good() | fields)),
    message(AIJOB).map(lambda fields: filled(job_pb2.AIJob(), fields)),
)

# -- the world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("fuzz") / "w", agent=AGENT) as it:
        yield it
        for daemon in it.daemons:
            assert daemon.starts == 1
            assert daemon.alive, daemon.tail()
            assert "Traceback" not in daemon.log.read_text(), daemon.tail(60)


@pytest.fixture(scope="module")
def ends(world):
    """(method, bytes) → (status code, words or answer)."""
    with (
        world.channel(grpc, world.federation) as federation,
        world.channel(grpc, world.scheduler) as scheduler,
    ):

        def ask(method, body, at="federation"):
            channel = scheduler if at == "scheduler" else federation
            try:
                return grpc.StatusCode.OK, channel.unary_unary(method)(body, timeout=20)
            except grpc.RpcError as error:
                trailer = dict(error.trailing_metadata() or ())
                words = error.details()
                for problem in api.Problems.FromString(trailer.get(PROBLEMS_KEY, b"")).problems:
                    assert problem.pointer.startswith("/") or not problem.pointer, problem
                    assert len(problem.message) > 10, problem
                return error.code(), words

        yield ask


def judged(outcome):
    """OK, or a refusal of the caller's words that helps; anything else is our fault."""
    code, words = outcome
    if code is grpc.StatusCode.OK:
        return True
    assert code is grpc.StatusCode.INVALID_ARGUMENT, outcome
    lines = words.split("\n")
    assert len(words) >= LONGEST_DETAILS or all(HELPFUL.search(line) for line in lines), words
    assert all(line.isprintable() for line in lines), words
    return False


def settled(world):
    """Wait until every job has ended or says why it waits."""

    def stuck():
        now = world.client.list(limit=10_000)
        waiting = [v for v in now if v.phase in ("queued", "assigned") and v.reason]
        return [v for v in now if v not in waiting and not JobPhase(v.phase).is_terminal]

    try:
        until(lambda: not stuck(), "every job to end, or to say why it waits", 30, pause_s=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}: {stuck()}") from None


# -- the laws -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accepted():
    return {"SubmitJobs": 0, "SubmitJob": 0, "Plan": 0}


def test_any_jobs_at_the_federation(world, ends, accepted):
    @FUZZ
    @given(st.lists(JOBS, max_size=3))
    def tried(jobs):
        body = api.SubmitJobsRequest(jobs=jobs).SerializeToString()
        if judged(ends(FEDERATION + "SubmitJobs", body)):
            accepted["SubmitJobs"] += 1

    tried()
    assert accepted["SubmitJobs"] > 5, "hardly anything was accepted: nothing was tried"
    settled(world)


def test_any_job_at_both_submit_ends(world, ends, accepted):
    @FUZZ
    @given(JOBS, st.sampled_from(["federation", "scheduler"]))
    def tried(job, at):
        accepted["SubmitJob"] += judged(ends(CLUSTER + "SubmitJob", job.SerializeToString(), at))

    tried()
    assert accepted["SubmitJob"] > 5
    settled(world)


def test_any_plan(ends, accepted):
    @FUZZ
    @given(JOBS)
    def tried(job):
        body = api.PlanRequest(job=job).SerializeToString()
        accepted["Plan"] += judged(ends(FEDERATION + "Plan", body))

    tried()
    assert accepted["Plan"] > 5


def test_any_bytes(ends):
    methods = [FEDERATION + "SubmitJobs", FEDERATION + "Plan", CLUSTER + "SubmitJob"]

    @FUZZ
    @given(st.sampled_from(methods), st.binary(max_size=200))
    def tried(method, body):
        judged(ends(method, body))

    tried()


def test_any_bytes_changed_in_a_good_message(ends):
    @FUZZ
    @given(JOBS, st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
    def tried(job, at, wedge):
        body = bytearray(job.SerializeToString())
        at %= len(body) + 1
        body[at : at + len(wedge)] = wedge
        judged(ends(FEDERATION + "Plan", api.PlanRequest(job=job).SerializeToString() + wedge))
        judged(ends(FEDERATION + "Plan", b"\x0a" + _varint(len(body)) + bytes(body)))

    tried()


def test_the_daemons_serve_as_before(world):
    view = world.client.wait(world.client.submit({"run": "echo on"}), 20)
    assert view.phase == "succeeded"


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])
