from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio

from hyperion.wire.generated import federation_pb2, job_pb2, link_pb2, node_pb2

class NodeObserverStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> NodeObserverStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> NodeObserverAsyncStub: ...
    ReportMetrics: grpc.StreamUnaryMultiCallable[node_pb2.NodeMetrics, node_pb2.Ack]

class NodeObserverAsyncStub(NodeObserverStub):
    ReportMetrics: grpc.aio.StreamUnaryMultiCallable[node_pb2.NodeMetrics, node_pb2.Ack]

class NodeObserverServicer:
    async def ReportMetrics(self, request_iterator: AsyncIterator[node_pb2.NodeMetrics], context: grpc.aio.ServicerContext[node_pb2.NodeMetrics, node_pb2.Ack]) -> node_pb2.Ack: ...

def add_NodeObserverServicer_to_server(
    servicer: NodeObserverServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
