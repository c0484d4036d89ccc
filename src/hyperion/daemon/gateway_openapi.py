"""The OpenAPI document, where Litestar cannot know: bodies that routes read, msgspec's schemas."""

from dataclasses import dataclass
from typing import Any

from litestar import Litestar
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import Struct, json

from hyperion.model.job import Job
from hyperion.model.queue import Queue
from hyperion.wire import api, datasets_api, market_api, money, rest

MAX_SPECS = 1000
"""In one submission."""
VIEWS = [
    Job, Queue, api.ClusterView, api.JobChange, api.JobView, api.NodeView, api.OfferView,
    api.ActivationView, api.PlanView, api.PolicyView, api.PromiseView, api.QueueView, api.Submitted,
    api.VersionView, api.WhyView, api.WindowView, market_api.MarketStatusView,
    market_api.QuoteView,
    datasets_api.AdviceView, datasets_api.CopyView, datasets_api.DatasetRequest,
    datasets_api.DatasetView,
    money.BudgetRequest, money.BudgetView, money.CostRow, money.CostView,
    rest.AuthorityAnswer, rest.BundleAnswer, rest.Health, rest.JoinAnswer, rest.JoinRequest,
    rest.LogChunk, rest.ProblemDetails, rest.TokenAnswer, rest.TokenRequest, rest.WindowRequest,
]  # fmt: skip
YAML_TYPES = ("text/yaml", "application/yaml", "application/x-yaml")

_SPEC = Schema(
    type=OpenAPIType.OBJECT,
    description="A job spec, see docs/spec.md. An 'id' beside its fields makes a retry safe: the "
    "same id is never a second job.",
    properties={"id": Schema(type=OpenAPIType.STRING), "name": Schema(type=OpenAPIType.STRING)},
)
_SPECS = Schema(type=OpenAPIType.ARRAY, items=_SPEC, min_items=1, max_items=MAX_SPECS)
_JOBS = OpenAPIMediaType(
    schema=Schema(
        type=OpenAPIType.ARRAY,
        items=Reference(ref="#/components/schemas/Job"),
        min_items=1,
        max_items=MAX_SPECS,
    )
)
_TEXT = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING, description="A spec as YAML."))


@dataclass
class SpecsSubmission(Operation):
    """One spec, several, or YAML."""

    def __post_init__(self) -> None:
        either = OpenAPIMediaType(schema=Schema(one_of=[_SPEC, _SPECS]))
        self.request_body = _body(
            {"application/json": either, "text/yaml": _TEXT, rest.JOBS_TYPE: _JOBS}
        )


@dataclass
class SpecQuestion(Operation):
    """One spec, or YAML."""

    def __post_init__(self) -> None:
        one = OpenAPIMediaType(schema=_SPEC)
        self.request_body = _body(
            {"application/json": one, "text/yaml": _TEXT, rest.JOBS_TYPE: _JOBS}
        )


@dataclass
class QueueTree(Operation):
    """Queues as a file has them, or as a list in the model's own form."""

    def __post_init__(self) -> None:
        tree = Schema(
            type=OpenAPIType.OBJECT,
            description="Queues by name, see docs/queues.md; those within one under 'queues'.",
        )
        listed = Schema(type=OpenAPIType.ARRAY, items=Reference(ref="#/components/schemas/Queue"))
        either = OpenAPIMediaType(schema=Schema(one_of=[tree, listed]))
        self.request_body = _body({"application/json": either, "text/yaml": _TEXT})


@dataclass
class BundleUpload(Operation):
    """A gzipped tar."""

    def __post_init__(self) -> None:
        content = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        archive = OpenAPIMediaType(schema=content)
        self.request_body = _body(
            {"application/gzip": archive, "application/octet-stream": archive}
        )


def _body(content: dict[str, OpenAPIMediaType]) -> RequestBody:
    return RequestBody(content=content, required=True)


class ViewSchemas(OpenAPISchemaPlugin):
    """Refers to each Struct by name; ``document`` adds the schemas as msgspec writes them."""

    @staticmethod
    def is_plugin_supported_type(value: object) -> bool:
        return isinstance(value, type) and issubclass(value, Struct)

    def to_openapi_schema(
        self,
        field_definition: FieldDefinition,
        schema_creator: object,  # noqa: ARG002  the protocol's second parameter
    ) -> Schema:
        name = field_definition.annotation.__name__
        return Schema(all_of=[Reference(ref=f"#/components/schemas/{name}")])


def document(app: Litestar) -> dict[str, Any]:
    """The OpenAPI document: Litestar's routes, msgspec's schemas."""
    written = app.openapi_schema.to_schema()
    _, components = json.schema_components(VIEWS, ref_template="#/components/schemas/{name}")
    written["components"] = {**written.get("components", {}), "schemas": components}
    return written
