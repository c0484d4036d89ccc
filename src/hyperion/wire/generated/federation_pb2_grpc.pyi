from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio

from hyperion.wire.generated import federation_pb2, job_pb2, link_pb2, node_pb2

class FederationStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> FederationStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> FederationAsyncStub: ...
    SubmitJobs: grpc.UnaryUnaryMultiCallable[federation_pb2.SubmitJobsRequest, federation_pb2.SubmitJobsResponse]
    Plan: grpc.UnaryUnaryMultiCallable[federation_pb2.PlanRequest, federation_pb2.PlanView]
    GetJob: grpc.UnaryUnaryMultiCallable[federation_pb2.GetJobRequest, federation_pb2.JobView]
    GetSpec: grpc.UnaryUnaryMultiCallable[federation_pb2.GetSpecRequest, job_pb2.AIJob]
    ListJobs: grpc.UnaryUnaryMultiCallable[federation_pb2.ListJobsRequest, federation_pb2.ListJobsResponse]
    WatchJobs: grpc.UnaryStreamMultiCallable[federation_pb2.WatchJobsRequest, federation_pb2.JobChange]
    CancelJob: grpc.UnaryUnaryMultiCallable[federation_pb2.CancelJobRequest, federation_pb2.JobView]
    ExplainJob: grpc.UnaryUnaryMultiCallable[federation_pb2.ExplainJobRequest, federation_pb2.WhyView]
    StreamLogs: grpc.UnaryStreamMultiCallable[federation_pb2.StreamLogsRequest, federation_pb2.LogChunk]
    ListNodes: grpc.UnaryUnaryMultiCallable[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]
    ListClusters: grpc.UnaryUnaryMultiCallable[federation_pb2.ListClustersRequest, federation_pb2.ListClustersResponse]
    ListOffers: grpc.UnaryUnaryMultiCallable[federation_pb2.ListOffersRequest, federation_pb2.ListOffersResponse]
    ListDatasets: grpc.UnaryUnaryMultiCallable[federation_pb2.ListDatasetsRequest, federation_pb2.ListDatasetsResponse]
    AddDataset: grpc.UnaryUnaryMultiCallable[federation_pb2.DatasetRequest, federation_pb2.DatasetView]
    DropDataset: grpc.UnaryUnaryMultiCallable[federation_pb2.DropDatasetRequest, federation_pb2.ListDatasetsResponse]
    AdviseDatasets: grpc.UnaryUnaryMultiCallable[federation_pb2.AdviseDatasetsRequest, federation_pb2.AdviseDatasetsResponse]
    CordonNode: grpc.UnaryUnaryMultiCallable[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]
    GetVersion: grpc.UnaryUnaryMultiCallable[federation_pb2.GetVersionRequest, federation_pb2.VersionView]
    CreateJoinToken: grpc.UnaryUnaryMultiCallable[federation_pb2.CreateJoinTokenRequest, federation_pb2.CreateJoinTokenResponse]
    Join: grpc.UnaryUnaryMultiCallable[federation_pb2.JoinRequest, federation_pb2.JoinResponse]
    UploadBundle: grpc.StreamUnaryMultiCallable[federation_pb2.BundleChunk, federation_pb2.UploadBundleResponse]

class FederationAsyncStub(FederationStub):
    SubmitJobs: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.SubmitJobsRequest, federation_pb2.SubmitJobsResponse]
    Plan: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.PlanRequest, federation_pb2.PlanView]
    GetJob: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.GetJobRequest, federation_pb2.JobView]
    GetSpec: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.GetSpecRequest, job_pb2.AIJob]
    ListJobs: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListJobsRequest, federation_pb2.ListJobsResponse]
    WatchJobs: grpc.aio.UnaryStreamMultiCallable[federation_pb2.WatchJobsRequest, federation_pb2.JobChange]
    CancelJob: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.CancelJobRequest, federation_pb2.JobView]
    ExplainJob: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ExplainJobRequest, federation_pb2.WhyView]
    StreamLogs: grpc.aio.UnaryStreamMultiCallable[federation_pb2.StreamLogsRequest, federation_pb2.LogChunk]
    ListNodes: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]
    ListClusters: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListClustersRequest, federation_pb2.ListClustersResponse]
    ListOffers: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListOffersRequest, federation_pb2.ListOffersResponse]
    ListDatasets: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListDatasetsRequest, federation_pb2.ListDatasetsResponse]
    AddDataset: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.DatasetRequest, federation_pb2.DatasetView]
    DropDataset: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.DropDatasetRequest, federation_pb2.ListDatasetsResponse]
    AdviseDatasets: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.AdviseDatasetsRequest, federation_pb2.AdviseDatasetsResponse]
    CordonNode: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]
    GetVersion: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.GetVersionRequest, federation_pb2.VersionView]
    CreateJoinToken: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.CreateJoinTokenRequest, federation_pb2.CreateJoinTokenResponse]
    Join: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.JoinRequest, federation_pb2.JoinResponse]
    UploadBundle: grpc.aio.StreamUnaryMultiCallable[federation_pb2.BundleChunk, federation_pb2.UploadBundleResponse]

class FederationServicer:
    async def SubmitJobs(self, request: federation_pb2.SubmitJobsRequest, context: grpc.aio.ServicerContext[federation_pb2.SubmitJobsRequest, federation_pb2.SubmitJobsResponse]) -> federation_pb2.SubmitJobsResponse: ...
    async def Plan(self, request: federation_pb2.PlanRequest, context: grpc.aio.ServicerContext[federation_pb2.PlanRequest, federation_pb2.PlanView]) -> federation_pb2.PlanView: ...
    async def GetJob(self, request: federation_pb2.GetJobRequest, context: grpc.aio.ServicerContext[federation_pb2.GetJobRequest, federation_pb2.JobView]) -> federation_pb2.JobView: ...
    async def GetSpec(self, request: federation_pb2.GetSpecRequest, context: grpc.aio.ServicerContext[federation_pb2.GetSpecRequest, job_pb2.AIJob]) -> job_pb2.AIJob: ...
    async def ListJobs(self, request: federation_pb2.ListJobsRequest, context: grpc.aio.ServicerContext[federation_pb2.ListJobsRequest, federation_pb2.ListJobsResponse]) -> federation_pb2.ListJobsResponse: ...
    def WatchJobs(self, request: federation_pb2.WatchJobsRequest, context: grpc.aio.ServicerContext[federation_pb2.WatchJobsRequest, federation_pb2.JobChange]) -> AsyncIterator[federation_pb2.JobChange]: ...
    async def CancelJob(self, request: federation_pb2.CancelJobRequest, context: grpc.aio.ServicerContext[federation_pb2.CancelJobRequest, federation_pb2.JobView]) -> federation_pb2.JobView: ...
    async def ExplainJob(self, request: federation_pb2.ExplainJobRequest, context: grpc.aio.ServicerContext[federation_pb2.ExplainJobRequest, federation_pb2.WhyView]) -> federation_pb2.WhyView: ...
    def StreamLogs(self, request: federation_pb2.StreamLogsRequest, context: grpc.aio.ServicerContext[federation_pb2.StreamLogsRequest, federation_pb2.LogChunk]) -> AsyncIterator[federation_pb2.LogChunk]: ...
    async def ListNodes(self, request: federation_pb2.ListNodesRequest, context: grpc.aio.ServicerContext[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]) -> federation_pb2.ListNodesResponse: ...
    async def ListClusters(self, request: federation_pb2.ListClustersRequest, context: grpc.aio.ServicerContext[federation_pb2.ListClustersRequest, federation_pb2.ListClustersResponse]) -> federation_pb2.ListClustersResponse: ...
    async def ListOffers(self, request: federation_pb2.ListOffersRequest, context: grpc.aio.ServicerContext[federation_pb2.ListOffersRequest, federation_pb2.ListOffersResponse]) -> federation_pb2.ListOffersResponse: ...
    async def ListDatasets(self, request: federation_pb2.ListDatasetsRequest, context: grpc.aio.ServicerContext[federation_pb2.ListDatasetsRequest, federation_pb2.ListDatasetsResponse]) -> federation_pb2.ListDatasetsResponse: ...
    async def AddDataset(self, request: federation_pb2.DatasetRequest, context: grpc.aio.ServicerContext[federation_pb2.DatasetRequest, federation_pb2.DatasetView]) -> federation_pb2.DatasetView: ...
    async def DropDataset(self, request: federation_pb2.DropDatasetRequest, context: grpc.aio.ServicerContext[federation_pb2.DropDatasetRequest, federation_pb2.ListDatasetsResponse]) -> federation_pb2.ListDatasetsResponse: ...
    async def AdviseDatasets(self, request: federation_pb2.AdviseDatasetsRequest, context: grpc.aio.ServicerContext[federation_pb2.AdviseDatasetsRequest, federation_pb2.AdviseDatasetsResponse]) -> federation_pb2.AdviseDatasetsResponse: ...
    async def CordonNode(self, request: federation_pb2.CordonNodeRequest, context: grpc.aio.ServicerContext[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]) -> federation_pb2.NodeView: ...
    async def GetVersion(self, request: federation_pb2.GetVersionRequest, context: grpc.aio.ServicerContext[federation_pb2.GetVersionRequest, federation_pb2.VersionView]) -> federation_pb2.VersionView: ...
    async def CreateJoinToken(self, request: federation_pb2.CreateJoinTokenRequest, context: grpc.aio.ServicerContext[federation_pb2.CreateJoinTokenRequest, federation_pb2.CreateJoinTokenResponse]) -> federation_pb2.CreateJoinTokenResponse: ...
    async def Join(self, request: federation_pb2.JoinRequest, context: grpc.aio.ServicerContext[federation_pb2.JoinRequest, federation_pb2.JoinResponse]) -> federation_pb2.JoinResponse: ...
    async def UploadBundle(self, request_iterator: AsyncIterator[federation_pb2.BundleChunk], context: grpc.aio.ServicerContext[federation_pb2.BundleChunk, federation_pb2.UploadBundleResponse]) -> federation_pb2.UploadBundleResponse: ...

def add_FederationServicer_to_server(
    servicer: FederationServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...

class SchedulerStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> SchedulerStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> SchedulerAsyncStub: ...
    ListNodes: grpc.UnaryUnaryMultiCallable[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]
    CordonNode: grpc.UnaryUnaryMultiCallable[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]

class SchedulerAsyncStub(SchedulerStub):
    ListNodes: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]
    CordonNode: grpc.aio.UnaryUnaryMultiCallable[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]

class SchedulerServicer:
    async def ListNodes(self, request: federation_pb2.ListNodesRequest, context: grpc.aio.ServicerContext[federation_pb2.ListNodesRequest, federation_pb2.ListNodesResponse]) -> federation_pb2.ListNodesResponse: ...
    async def CordonNode(self, request: federation_pb2.CordonNodeRequest, context: grpc.aio.ServicerContext[federation_pb2.CordonNodeRequest, federation_pb2.NodeView]) -> federation_pb2.NodeView: ...

def add_SchedulerServicer_to_server(
    servicer: SchedulerServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
