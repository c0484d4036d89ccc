"""The calls about datasets of the federation's gRPC service."""

from typing import Any, Protocol

from hyperion.adapters.link.errors import Invalid
from hyperion.adapters.link.gate import Gate, Handler
from hyperion.adapters.link.identity import Identity, Role
from hyperion.wire import codec
from hyperion.wire.codec_fields import WireError
from hyperion.wire.datasets_api import AdviceView, DatasetRequest, DatasetView, faults_of
from hyperion.wire.generated import federation_pb2 as api

PEOPLE = frozenset({Role.CLIENT, Role.ADMIN})


class DatasetOperations(Protocol):
    async def datasets(self) -> list[DatasetView]: ...

    async def apply_dataset(self, asked: DatasetRequest) -> DatasetView: ...

    async def drop_dataset(self, name: str, region: str) -> list[DatasetView]: ...

    async def dataset_advice(self) -> list[AdviceView]: ...


def dataset_methods(gate: Gate, calls: DatasetOperations) -> dict[str, Handler]:
    async def datasets(_: Identity, __: Any) -> Any:
        found = await calls.datasets()
        return api.ListDatasetsResponse(datasets=map(codec.view_to_proto, found))

    async def add(_: Identity, message: Any) -> Any:
        try:
            asked = codec.view_from_proto(message, DatasetRequest)
        except WireError as error:
            raise Invalid(str(error)) from None
        for fault in faults_of(asked):
            raise Invalid(f"{fault.pointer[1:]}: {fault.message}")
        return codec.view_to_proto(await calls.apply_dataset(asked))

    async def drop(_: Identity, asked: Any) -> Any:
        left = await calls.drop_dataset(asked.name, asked.region)
        return api.ListDatasetsResponse(datasets=map(codec.view_to_proto, left))

    async def advise(_: Identity, __: Any) -> Any:
        found = await calls.dataset_advice()
        return api.AdviseDatasetsResponse(advice=map(codec.view_to_proto, found))

    return {
        "ListDatasets": gate.unary(api.ListDatasetsRequest, PEOPLE, datasets),
        "AddDataset": gate.unary(api.DatasetRequest, PEOPLE, add),
        "DropDataset": gate.unary(api.DropDatasetRequest, PEOPLE, drop),
        "AdviseDatasets": gate.unary(api.AdviseDatasetsRequest, PEOPLE, advise),
    }
