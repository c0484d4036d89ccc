from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio

from hyperion.wire.generated import federation_pb2, job_pb2, link_pb2, node_pb2

class FederationSchedulerStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> FederationSchedulerStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> FederationSchedulerAsyncStub: ...
    SubmitJob: grpc.UnaryUnaryMultiCallable[job_pb2.AIJob, job_pb2.JobStatus]

class FederationSchedulerAsyncStub(FederationSchedulerStub):
    SubmitJob: grpc.aio.UnaryUnaryMultiCallable[job_pb2.AIJob, job_pb2.JobStatus]

class FederationSchedulerServicer:
    async def SubmitJob(self, request: job_pb2.AIJob, context: grpc.aio.ServicerContext[job_pb2.AIJob, job_pb2.JobStatus]) -> job_pb2.JobStatus: ...

def add_FederationSchedulerServicer_to_server(
    servicer: FederationSchedulerServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
