"""The services as a stranger's generated client sees them: answers, refusals, roles, streams."""

import asyncio
import contextlib
import typing

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from link_peers import DOMAIN, credentials
from msgspec import Struct

from hyperion.adapters.link import services
from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.errors import Conflict, Exhausted, NotFound, Unavailable
from hyperion.adapters.link.gate import PROBLEMS_KEY, Gate
from hyperion.adapters.link.identity import Role
from hyperion.adapters.link.server import LinkServer
from hyperion.adapters.link.streams import channel_options
from hyperion.model.job import Job
from hyperion.wire import codec
from hyperion.wire.api import JobChange, JobView, NodeView, Problem, Submitted, VersionView
from hyperion.wire.datasets_api import AdviceView, CopyView, DatasetRequest, DatasetView
from hyperion.wire.generated import federation_pb2 as api
from hyperion.wire.generated import (
    federation_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
)

Code = grpc.StatusCode


def copy_of(region):
    return CopyView(region=region, state="present", ready_at_ms=0, source="", by="")


DATASET = DatasetView(
    name="books",
    size_gib=1.5,
    growth_gib_per_day=0.0,
    keep_h=0.0,
    copies=(copy_of("aws/us-east-1"), copy_of("gcp/us-west1")),
    jobs=2,
    storage_usd_per_month=0.1,
)


class SpecError(ValueError):
    def __init__(self, problems):
        super().__init__("the spec has faults")
        self.problems = problems


class Foreign(Exception):
    """An exception of the daemon's own."""


def zeroed(kind: type[Struct], **said):
    """A view with the fields said, and zeros of the right type in the others."""
    zeros = {"str": "", "int": 0, "float": 0.0, "bool": False}
    fields = {}
    for name, hint in typing.get_type_hints(kind).items():
        origin = typing.get_origin(hint)
        if origin is tuple:
            fields[name] = ()
        elif origin is dict:
            fields[name] = {}
        else:
            fields[name] = zeros.get(getattr(hint, "__name__", ""))
    return kind(**(fields | said))


class Federation:
    """Keeps jobs in a dictionary, and raises what it is told to."""

    def __init__(self):
        self.kept = {}
        self.closed = asyncio.Event()
        self.fault = None
        self.asked = []

    def view(self, job_id):
        if self.fault:
            raise self.fault
        if job_id not in self.kept:
            raise NotFound(f"there is no job {job_id!r}")
        job = self.kept[job_id]
        return zeroed(JobView, id=job_id, user=job.user, phase="QUEUED", exit_code=None)

    async def submit(self, jobs):
        if self.fault:
            raise self.fault
        self.kept.update({job.id: job for job in jobs})
        return [Submitted(id=job.id) for job in jobs]

    async def job(self, job_id):
        return self.view(job_id)

    async def spec(self, job_id):
        self.view(job_id)
        return self.kept[job_id]

    async def jobs(self, phases=(), user="", name="", cluster="", ended=False, limit=1000):
        self.asked.append((phases, user, name, cluster, ended, limit))
        return [self.view(job_id) for job_id in self.kept]

    async def cancel(self, job_id, by):
        self.asked.append(by)
        return self.view(job_id)

    async def logs(self, job_id, rank, follow, tail_lines):
        self.view(job_id)
        self.asked.append((rank, follow, tail_lines))
        try:
            yield 0, b"hello\n"
            if follow:
                await asyncio.get_running_loop().create_future()
        finally:
            self.closed.set()

    async def watch(self, job_id=None, after=0):
        for number in range(after, after + 3):
            yield JobChange(sequence=number, at_ms=5, job=self.view(job_id))

    async def nodes(self, cluster=""):
        return [zeroed(NodeView, id="n1", cluster=cluster or "home")]

    async def cordon(self, node, cordon, drain):
        return zeroed(NodeView, id=node, state="cordoned" if cordon else "ready")

    async def datasets(self):
        return [DATASET]

    async def apply_dataset(self, asked):
        self.asked.append(asked)
        return DATASET

    async def drop_dataset(self, name, region):
        self.asked.append((name, region))
        return []

    async def dataset_advice(self):
        return [zeroed(AdviceView, dataset="books", action="copy")]

    async def version(self):
        return zeroed(VersionView, version="1", trust_domain=DOMAIN)

    async def new_join_token(self, role, name, ttl_s):
        return f"{role} {name} {ttl_s}"

    async def join(self, token, request_pem):
        return b"cert", b"ca"

    async def upload_bundle(self, chunks):
        size = sum([len(chunk) async for chunk in chunks])
        return f"bundle:sha256:{size}"


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("services")
    authority = Authority.open(directory / "ca", DOMAIN)
    names = {
        Role.FEDERATION: "main",
        Role.SCHEDULER: "home",
        Role.AGENT: "home/n1",
        Role.CLIENT: "ann",
        Role.ADMIN: "root",
    }
    return {role: credentials(authority, directory, role, name) for role, name in names.items()}


@contextlib.asynccontextmanager
async def served(peers, role, handlers):
    server = LinkServer(peers[role], handlers)
    port = await server.start("127.0.0.1")

    def channel(caller):
        return grpc.aio.secure_channel(
            f"127.0.0.1:{port}", peers[caller].channel(), channel_options(role)
        )

    try:
        yield channel
    finally:
        await server.stop(0)


def with_federation(peers, scenario, translation=None, **settings):
    async def run():
        calls = Federation()
        gate = Gate(DOMAIN, **({"translation": translation} if translation else {}), **settings)
        handlers = [
            services.federation(gate, calls),
            services.federation_scheduler(gate, calls.submit),
        ]
        async with (
            served(peers, Role.FEDERATION, handlers) as channel,
            channel(Role.CLIENT) as ann,
        ):
            await scenario(calls, federation_pb2_grpc.FederationStub(ann), channel)

    asyncio.run(run())


async def code_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value.code(), refusal.value.details()


def test_datasets_are_told_of_listed_and_dropped(peers):
    async def scenario(calls, stub, channel):
        asked = api.DatasetRequest(name="books", size_gib=1.5, regions=["aws/us-east-1"])
        made = await stub.AddDataset(asked)
        assert calls.asked[-1] == DatasetRequest(
            name="books", size_gib=1.5, regions=("aws/us-east-1",)
        )
        assert codec.view_from_proto(made, DatasetView) == DATASET
        found = await stub.ListDatasets(api.ListDatasetsRequest())
        assert [copy.region for copy in found.datasets[0].copies][1] == "gcp/us-west1"
        wrong = api.DatasetRequest(name="a b", size_gib=1.5)
        code, details = await code_of(stub.AddDataset(wrong))
        assert code is Code.INVALID_ARGUMENT
        assert details.startswith("name: found")
        advice = await stub.AdviseDatasets(api.AdviseDatasetsRequest())
        assert [one.action for one in advice.advice] == ["copy"]
        left = await stub.DropDataset(api.DropDatasetRequest(name="books", region="gcp/us-west1"))
        assert (calls.asked[-1], list(left.datasets)) == (("books", "gcp/us-west1"), [])

    with_federation(peers, scenario)


def test_a_job_goes_in_and_comes_back(peers):
    async def scenario(calls, stub, channel):
        job = codec.job_to_proto(Job(id="j1", name="train"))
        answer = await stub.SubmitJobs(api.SubmitJobsRequest(jobs=[job]))
        assert [submitted.id for submitted in answer.jobs] == ["j1"]
        got = await stub.GetJob(api.GetJobRequest(job_id="j1"))
        assert (got.id, got.phase, got.user) == ("j1", "QUEUED", "ann")
        assert codec.job_from_proto(await stub.GetSpec(api.GetSpecRequest(job_id="j1"))).name == (
            "train"
        )
        listed = await stub.ListJobs(api.ListJobsRequest(phases=["QUEUED"], ended=True))
        assert len(listed.jobs) == 1
        assert calls.asked[-1] == (("QUEUED",), "", "", "", True, 1000)
        await stub.CancelJob(api.CancelJobRequest(job_id="j1"))
        assert calls.asked[-1] == "client/ann"
        nodes = await stub.ListNodes(api.ListNodesRequest())
        assert nodes.nodes[0].id == "n1"

    with_federation(peers, scenario)


def test_the_blueprints_submit_works_for_clients_and_federations_alone(peers):
    async def run():
        calls = Federation()
        handler = services.federation_scheduler(Gate(DOMAIN), calls.submit)
        job = job_pb2.AIJob(job_id="j1", user_id="bob", metadata={"run": "true"})
        async with served(peers, Role.SCHEDULER, [handler]) as channel:
            for role in (Role.FEDERATION, Role.CLIENT, Role.ADMIN):
                async with channel(role) as caller:
                    answer = await job_pb2_grpc.FederationSchedulerStub(caller).SubmitJob(job)
                    assert (answer.job_id, answer.status_message) == ("j1", "accepted")
            assert calls.kept["j1"].user == "bob"
            async with channel(Role.AGENT) as caller:
                code, details = await code_of(
                    job_pb2_grpc.FederationSchedulerStub(caller).SubmitJob(job)
                )
                assert code is Code.PERMISSION_DENIED
                assert "role agent; this call is for admin or client or federation" in details

    asyncio.run(run())


def test_every_refusal_has_its_code_and_words(peers, caplog):
    table = [
        (NotFound("no job x"), Code.NOT_FOUND, "no job x"),
        (Conflict("it has ended"), Code.FAILED_PRECONDITION, "it has ended"),
        (Exhausted("queue full"), Code.RESOURCE_EXHAUSTED, "queue full"),
        (Unavailable("cluster away"), Code.UNAVAILABLE, "cluster away"),
        (ValueError("replicas: found 0"), Code.INVALID_ARGUMENT, "replicas: found 0"),
        (KeyError("n7"), Code.NOT_FOUND, "n7"),
        (TimeoutError("too slow"), Code.DEADLINE_EXCEEDED, "too slow"),
        (Foreign("by the daemon"), Code.NOT_FOUND, "by the daemon"),
        (RuntimeError("a secret"), Code.INTERNAL, "the server failed; its log says why"),
        (ValueError("long" * 9999), Code.INVALID_ARGUMENT, ("long" * 9999)[:4096]),
    ]

    async def scenario(calls, stub, channel):
        for fault, code, words in table:
            calls.fault = fault
            asked = api.GetJobRequest(job_id="x")
            assert await code_of(stub.GetJob(asked)) == (code, words)
            stream = stub.StreamLogs(api.StreamLogsRequest(job_id="x"))
            assert await code_of(stream.read()) == (code, words)

    from hyperion.adapters.link.errors import STANDARD

    with_federation(peers, scenario, {**STANDARD, Foreign: NotFound})
    assert "a secret" in caplog.text


def test_faults_of_a_spec_come_as_a_trailer_as_far_as_they_fit(peers):
    async def scenario(calls, stub, channel):
        faults = [Problem(pointer=f"/a/{n}", message="expected b", line=n) for n in range(1000)]
        calls.fault = SpecError(faults)
        job = codec.job_to_proto(Job(id="j1", name="train"))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.SubmitJobs(api.SubmitJobsRequest(jobs=[job]))
        assert refusal.value.code() is Code.INVALID_ARGUMENT
        trailer = dict(refusal.value.trailing_metadata())[PROBLEMS_KEY]
        problems = api.Problems.FromString(trailer).problems
        assert 50 < len(problems) < 1000
        assert (problems[3].pointer, problems[3].line) == ("/a/3", 3)

    with_federation(peers, scenario)


def test_malformed_requests_are_refused(peers):
    async def scenario(calls, stub, channel):
        code, details = await code_of(stub.SubmitJobs(api.SubmitJobsRequest()))
        assert (code, details) == (Code.INVALID_ARGUMENT, "jobs: found none, expected at least one")
        bad = job_pb2.AIJob(job_id="j", replicas=-2)
        code, details = await code_of(stub.SubmitJobs(api.SubmitJobsRequest(jobs=[bad])))
        assert code is Code.INVALID_ARGUMENT
        assert "replicas" in details
        code, _ = await code_of(stub.ListJobs(api.ListJobsRequest(limit=-1)))
        assert code is Code.INVALID_ARGUMENT
        assert not calls.kept
        async with channel(Role.CLIENT) as ann:
            raw = ann.unary_unary("/hyperion.v1.Federation/GetJob")
            with pytest.raises(grpc.aio.AioRpcError):
                await raw(b"\xff\xff\xff")
            huge = ann.unary_unary("/hyperion.v1.Federation/GetJob")
            code, _ = await code_of(huge(b"x" * (9 << 20)))
            assert code is Code.RESOURCE_EXHAUSTED

    with_federation(peers, scenario)


def test_roles_at_the_federations_api(peers):
    async def scenario(calls, stub, channel):
        cordon = api.CordonNodeRequest(node="home/n1", cordon=True)
        token = api.CreateJoinTokenRequest(role="agent", name="home/n2")
        for call in (stub.CordonNode(cordon), stub.CreateJoinToken(token)):
            code, details = await code_of(call)
            assert code is Code.PERMISSION_DENIED
            assert "this call is for admin" in details
        async with channel(Role.ADMIN) as caller:
            admin = federation_pb2_grpc.FederationStub(caller)
            assert (await admin.CordonNode(cordon)).state == "cordoned"
            assert (await admin.CreateJoinToken(token)).token == "agent home/n2 3600"
            for role in ("admin", "federation", "root", ""):
                asked = api.CreateJoinTokenRequest(role=role, name="x")
                code, _ = await code_of(admin.CreateJoinToken(asked))
                assert code is Code.INVALID_ARGUMENT
        for role in (Role.AGENT, Role.SCHEDULER, Role.FEDERATION):
            async with channel(role) as caller:
                other = federation_pb2_grpc.FederationStub(caller)
                code, _ = await code_of(other.GetJob(api.GetJobRequest(job_id="j")))
                assert code is Code.PERMISSION_DENIED
                code, _ = await code_of(other.WatchJobs(api.WatchJobsRequest()).read())
                assert code is Code.PERMISSION_DENIED
                code, _ = await code_of(other.UploadBundle(iter([api.BundleChunk(body=b"x")])))
                assert code is Code.PERMISSION_DENIED
                assert (await other.GetVersion(api.GetVersionRequest())).version == "1"

    with_federation(peers, scenario)


def test_streams_flow_and_stop_their_source_when_the_caller_goes(peers):
    async def scenario(calls, stub, channel):
        calls.kept["j1"] = Job(id="j1", name="t")
        changes = [c async for c in stub.WatchJobs(api.WatchJobsRequest(job_id="j1", after=7))]
        assert [change.sequence for change in changes] == [7, 8, 9]
        logs = stub.StreamLogs(api.StreamLogsRequest(job_id="j1", rank=0, tail_lines=5))
        assert [chunk.body async for chunk in logs] == [b"hello\n"]
        assert calls.asked[-1] == (0, False, 5)
        calls.closed.clear()
        following = stub.StreamLogs(api.StreamLogsRequest(job_id="j1", follow=True))
        assert (await following.read()).body == b"hello\n"
        assert calls.asked[-1] == (None, True, None)
        more = stub.StreamLogs(api.StreamLogsRequest(job_id="j1", follow=True))
        code, _ = await code_of(more.read())
        assert code is Code.RESOURCE_EXHAUSTED
        following.cancel()
        async with asyncio.timeout(5):
            await calls.closed.wait()
        sent = (api.BundleChunk(body=b"x" * 1000) for _ in range(50))
        assert (await stub.UploadBundle(sent)).workdir == "bundle:sha256:50000"

    with_federation(peers, scenario, max_streams=1)


def test_an_agent_reports_on_its_own_node_only(peers):
    async def run():
        measured = []
        handler = services.node_observer(
            Gate(DOMAIN), "home", lambda node, reading: measured.append((node, reading))
        )

        def metrics(node, **fields):
            return node_pb2.NodeMetrics(node_id=node, cpu_utilization_percent=7, **fields)

        async with served(peers, Role.SCHEDULER, [handler]) as channel:
            async with channel(Role.AGENT) as caller:
                stub = node_pb2_grpc.NodeObserverStub(caller)
                assert (await stub.ReportMetrics(iter([metrics("n1")] * 3))).success
                assert [node for node, _ in measured] == ["n1"] * 3
                assert measured[0][1].cpu_utilization_percent == 7
                code, details = await code_of(stub.ReportMetrics(iter([metrics("n2")])))
                assert code is Code.PERMISSION_DENIED
                assert "may not report for node 'n2'" in details
                bad = metrics("n1", memory_used_mb=-1)
                code, _ = await code_of(stub.ReportMetrics(iter([bad])))
                assert code is Code.INVALID_ARGUMENT
            async with channel(Role.CLIENT) as caller:
                stub = node_pb2_grpc.NodeObserverStub(caller)
                code, _ = await code_of(stub.ReportMetrics(iter([metrics("n1")])))
                assert code is Code.PERMISSION_DENIED
        assert len(measured) == 3

    asyncio.run(run())


def test_health_and_reflection_are_served(peers):
    async def scenario(calls, stub, channel):
        async with channel(Role.CLIENT) as caller:
            health = health_pb2_grpc.HealthStub(caller)
            for name in ("", "hyperion.v1.Federation", "hyperion.v1.FederationScheduler"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            code, _ = await code_of(health.Check(health_pb2.HealthCheckRequest(service="x")))
            assert code is Code.NOT_FOUND
            reflection = reflection_pb2_grpc.ServerReflectionStub(caller)
            asked = reflection_pb2.ServerReflectionRequest
            questions = [
                asked(list_services=""),
                asked(file_containing_symbol="hyperion.v1.Federation"),
            ]
            answers = [answer async for answer in reflection.ServerReflectionInfo(iter(questions))]
            names = {s.name for s in answers[0].list_services_response.service}
            assert "hyperion.v1.Federation" in names
            assert "grpc.health.v1.Health" in names
            assert answers[1].file_descriptor_response.file_descriptor_proto

    with_federation(peers, scenario)


def test_a_taken_port_is_refused_with_the_remedy(peers):
    async def run():
        first, second = LinkServer(peers[Role.SCHEDULER], []), LinkServer(peers[Role.SCHEDULER], [])
        port = await first.start("127.0.0.1")
        try:
            with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
                await second.start("127.0.0.1", port)
        finally:
            await first.stop(0)
            await second.stop(0)

    asyncio.run(run())
