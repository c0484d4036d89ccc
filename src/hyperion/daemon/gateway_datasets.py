"""The REST routes about datasets."""

from typing import Annotated

from litestar import delete, get, put
from litestar.params import JSONBody, PathParameter, QueryParameter

from hyperion.daemon.gateway_problems import Refusal, declared
from hyperion.daemon.gateway_routes import Req, application_of
from hyperion.wire.datasets_api import AdviceView, DatasetRequest, DatasetView, faults_of

Name = Annotated[str, PathParameter(max_length=253)]


@get("/datasets", responses=declared(), summary="Datasets, and where they lie")
async def datasets(request: Req) -> list[DatasetView]:
    return await application_of(request).datasets()


@put(
    "/datasets",
    status_code=200,
    responses=declared(404, 409, 413, 422),
    summary="Say how large a dataset is and where it lies; of a known one, also there",
)
async def apply_dataset(request: Req, data: JSONBody[DatasetRequest]) -> DatasetView:
    faults = faults_of(data)
    if faults:
        said = "; ".join(f"{fault.pointer[1:]}: {fault.message}" for fault in faults[:10])
        raise Refusal(422, "this is no dataset", said)
    return await application_of(request).apply_dataset(data)


@delete(
    "/datasets/{name:str}",
    status_code=200,
    responses=declared(404, 409),
    summary="Forget a dataset, or its copy in one region; the datasets that are left",
)
async def drop_dataset(
    request: Req, name: Name, region: Annotated[str, QueryParameter(max_length=253)] = ""
) -> list[DatasetView]:
    return await application_of(request).drop_dataset(name, region)


@get("/datasets/advice", responses=declared(), summary="Copies that would pay, or do not")
async def dataset_advice(request: Req) -> list[AdviceView]:
    return await application_of(request).dataset_advice()


DATASET_ROUTES = [datasets, apply_dataset, drop_dataset, dataset_advice]
