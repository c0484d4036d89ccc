"""The request bodies that routes read by themselves, described for OpenAPI."""

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

MAX_SPECS = 1000
"""In one submission."""
YAML_TYPES = ("text/yaml", "application/yaml", "application/x-yaml")

_SPEC = Schema(
    type=OpenAPIType.OBJECT,
    description="A job spec, see docs/spec.md. An 'id' beside its fields makes a retry safe: the "
    "same id is never a second job.",
    properties={"id": Schema(type=OpenAPIType.STRING), "name": Schema(type=OpenAPIType.STRING)},
)
_SPECS = Schema(type=OpenAPIType.ARRAY, items=_SPEC, min_items=1, max_items=MAX_SPECS)
_TEXT = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING, description="A spec as YAML."))


@dataclass
class SpecsSubmission(Operation):
    """One spec, several, or YAML."""

    def __post_init__(self) -> None:
        either = OpenAPIMediaType(schema=Schema(one_of=[_SPEC, _SPECS]))
        self.request_body = _body({"application/json": either, "text/yaml": _TEXT})


@dataclass
class SpecQuestion(Operation):
    """One spec, or YAML."""

    def __post_init__(self) -> None:
        one = OpenAPIMediaType(schema=_SPEC)
        self.request_body = _body({"application/json": one, "text/yaml": _TEXT})


@dataclass
class BundleUpload(Operation):
    """A gzipped tar."""

    def __post_init__(self) -> None:
        content = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        self.request_body = _body({"application/gzip": OpenAPIMediaType(schema=content)})


def _body(content: dict[str, OpenAPIMediaType]) -> RequestBody:
    return RequestBody(content=content, required=True)
