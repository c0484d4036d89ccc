from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio

from hyperion.wire.generated import federation_pb2, job_pb2, link_pb2, node_pb2

class ClustersStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> ClustersStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> ClustersAsyncStub: ...
    Attach: grpc.StreamStreamMultiCallable[link_pb2.ClusterMessage, link_pb2.FederationMessage]

class ClustersAsyncStub(ClustersStub):
    Attach: grpc.aio.StreamStreamMultiCallable[link_pb2.ClusterMessage, link_pb2.FederationMessage]

class ClustersServicer:
    def Attach(self, request_iterator: AsyncIterator[link_pb2.ClusterMessage], context: grpc.aio.ServicerContext[link_pb2.ClusterMessage, link_pb2.FederationMessage]) -> AsyncIterator[link_pb2.FederationMessage]: ...

def add_ClustersServicer_to_server(
    servicer: ClustersServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...

class AgentsStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> AgentsStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> AgentsAsyncStub: ...
    Attach: grpc.StreamStreamMultiCallable[link_pb2.AgentMessage, link_pb2.SchedulerMessage]

class AgentsAsyncStub(AgentsStub):
    Attach: grpc.aio.StreamStreamMultiCallable[link_pb2.AgentMessage, link_pb2.SchedulerMessage]

class AgentsServicer:
    def Attach(self, request_iterator: AsyncIterator[link_pb2.AgentMessage], context: grpc.aio.ServicerContext[link_pb2.AgentMessage, link_pb2.SchedulerMessage]) -> AsyncIterator[link_pb2.SchedulerMessage]: ...

def add_AgentsServicer_to_server(
    servicer: AgentsServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
