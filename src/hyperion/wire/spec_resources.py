"""The ``resources`` of a spec: accelerators, sizes and places, and the alternatives they make."""

import re
from typing import Any, cast

from hyperion.model.accelerators import canonical
from hyperion.model.bounds import (
    ACCELERATOR_PATTERN,
    INFRA_PATTERN,
    KEY_PATTERN,
    MAX_ALTERNATIVES,
    MAX_CPUS,
    MAX_TERMS,
)
from hyperion.model.constraints import NodeTerm
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.wire import units
from hyperion.wire.spec_kinds import (
    Field,
    Flag,
    ListOf,
    Place,
    Reading,
    Record,
    Schema,
    Size,
    Text,
    Variables,
)
from hyperion.wire.spec_places import NODE_TERM, Countables, term_text
from hyperion.wire.spec_tree import Kind, Node, Scalar, Table

_named = re.compile(rf"({ACCELERATOR_PATTERN})(?::([^:]*))?").fullmatch
_swapped = re.compile(rf"(\d+)\s*[x:*]\s*({ACCELERATOR_PATTERN})").fullmatch
_EXPECTED = "TYPE:COUNT such as A100:8 or A100:0.5, or a count alone for any type"


class Accelerators:
    """Types and counts; several are alternatives. Reads to ``((type, thousandths), …)``."""

    words = "TYPE:COUNT"

    def read(self, node: Node, place: Place, to: Reading) -> tuple[tuple[str, int], ...] | None:
        if isinstance(node, Scalar):
            one = self._one(node, place, to)
            return (one,) if one else None
        if isinstance(node, Table):
            pairs = [self._pair(key, value, place, to) for key, value in node.entries]
        else:
            pairs = [self._item(i, item, place, to) for i, item in enumerate(node.items)]
        if not pairs:
            to.refuse(place, f"is empty; expected {_EXPECTED}")
        elif len(pairs) > MAX_ALTERNATIVES:
            to.refuse(place, f"found {len(pairs)} types, expected at most {MAX_ALTERNATIVES}")
        good = tuple(pair for pair in pairs if pair)
        return good if good and len(pairs) <= MAX_ALTERNATIVES else None

    def _one(self, node: Scalar, place: Place, to: Reading) -> tuple[str, int] | None:
        if node.kind in (Kind.WHOLE, Kind.NUMBER):
            return self._counted("", node, place, to)
        match = _named(node.text) if node.kind is Kind.TEXT else None
        if match and match[1].lower() in ("nan", "inf", "none", "any", "all"):
            match = None
        if match is None:
            swapped = _swapped(node.text)
            hint = f"; write {swapped[2]}:{swapped[1]}" if swapped else ""
            if node.kind is Kind.TEXT and units.number(node.text) is not None:
                return self._counted("", node, place, to)
            to.expect(place, node, _EXPECTED + hint)
            return None
        count = Scalar("1" if match[2] is None else match[2].strip(), Kind.NUMBER)
        return self._counted(match[1], count, place, to, node)

    def _pair(self, key: Scalar, value: Node, place: Place, to: Reading) -> tuple[str, int] | None:
        at = place.field(key)
        if isinstance(value, Scalar) and value.kind in (Kind.WHOLE, Kind.NUMBER):
            return self._counted(key.text, value, at, to)
        to.expect(at, value, "a count, such as {A100: 8}")
        return None

    def _item(self, index: int, node: Node, place: Place, to: Reading) -> tuple[str, int] | None:
        at = place.item(index, node)
        if isinstance(node, Scalar):
            return self._one(node, at, to)
        to.expect(at, node, _EXPECTED)
        return None

    def _counted(
        self, name: str, count: Scalar, place: Place, to: Reading, whole: Scalar | None = None
    ) -> tuple[str, int] | None:
        value = units.number(count.text)
        if value is None or abs(value) > 1e9:
            to.expect(place, whole or count, _EXPECTED)
            return None
        if not value:
            to.expect(place, whole or count, "a count above 0; to use none, remove accelerators")
            return None
        if 0 < value < 0.001:
            to.expect(place, whole or count, "at least 0.001 of a GPU")
            return None
        return canonical(name) or name, round(value * MILLI)

    def schema(self) -> Schema:
        count: Schema = {"type": "number", "exclusiveMinimum": 0}
        text: Schema = {
            "type": "string",
            "pattern": rf"^({ACCELERATOR_PATTERN}(:\d+(\.\d+)?)?|\d+(\.\d+)?)$",
        }
        table: Schema = {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{ACCELERATOR_PATTERN}$"},
            "additionalProperties": count,
        }
        several: Schema = {"type": "array", "minItems": 1, "items": {"anyOf": [text, count]}}
        return {"anyOf": [text, count, table, several]}


class Cpus:
    """CPUs to the thousandth; SkyPilot's ``4+`` means the same as ``4``: at least so many."""

    words = "number"

    def read(self, node: Node, place: Place, to: Reading) -> int | None:
        if isinstance(node, Scalar) and node.kind in (Kind.TEXT, Kind.WHOLE, Kind.NUMBER):
            text = node.text.removesuffix("+") if node.kind is Kind.TEXT else node.text
            value = units.number(text)
            if value is not None and abs(value) < 1e9 and not 0 < value < 0.001:
                return round(value * MILLI)
        to.expect(place, node, f"a number of CPUs from 0 to {MAX_CPUS}, such as 4, 0.5 or 4+")
        return None

    def schema(self) -> Schema:
        number: Schema = {"type": "number", "minimum": 0, "maximum": MAX_CPUS}
        return {"anyOf": [number, {"type": "string", "pattern": r"^\d+(\.\d+)?\+?$"}]}


class Infra(Text):
    """``aws``, ``aws/us-east-1`` or a cluster's name; ``*`` (SkyPilot's any) is dropped."""

    words = "place"

    def __init__(self) -> None:
        super().__init__("a cloud, cloud/region or cluster", INFRA_PATTERN)

    def read(self, node: Node, place: Place, to: Reading) -> str | None:
        text = super().read(node, place, to)
        if text is None:
            return None
        parts = text.split("/")
        if len(parts) == 3 and all(parts):
            to.expect(
                place, node, f"no zone, which cannot be chosen here; write {parts[0]}/{parts[1]}"
            )
            return None
        while parts and parts[-1] == "*":
            parts.pop()
        if "*" in parts:
            to.expect(place, node, "a cloud before the region, such as aws/us-east-1")
            return None
        return "/".join(parts)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": rf"^(\*|({INFRA_PATTERN})?(/\*)?)$"}


FOREIGN = {
    "instance_type": "ask for accelerators, cpus and memory; the planner picks the machine",
    "zone": "choose a region with infra, such as aws/us-east-1",
    "image_id": "container and machine images are not supported yet; use setup",
    "ordered": "use any_of; the objective picks among the alternatives",
    "ports": "replicas listen where they like; remove it",
    "disk_tier": "remove it",
    "network_tier": "remove it",
    "accelerator_args": "remove it",
    "autostop": "nothing needs stopping when a job has ended; remove it",
    "job_recovery": "use restart: {max: 3} beside resources",
    "max_hourly_cost": "use budget: {max_usd_per_hour: 10} beside resources",
    "instance": "ask for accelerators, cpus and memory; the planner picks the machine",
}
"""SkyPilot's fields that we do not have, each with what to do instead."""

_FIELDS = (
    Field(
        "accelerators",
        Accelerators(),
        "GPUs of one replica: a type and a count, a count of any type, or a fraction of one GPU."
        " Several types (a list or a mapping) are alternatives.",
        aliases=("gpus",),
        unit="GPUs",
        default="none",
        example="A100:8",
    ),
    Field(
        "cpus",
        Cpus(),
        "CPUs of one replica, at least. `4+` means the same as `4`.",
        to="cpus_milli",
        unit="CPUs",
        default="1",
        example="4",
    ),
    Field(
        "memory",
        Size(),
        "Memory of one replica, at least. Suffixes K, M, G, T count in powers of two.",
        to="memory_mib",
        unit="GiB",
        default="0 (whatever is there)",
        example="16",
    ),
    Field(
        "disk",
        Size(),
        "Free disk space of one replica.",
        to="disk_mib",
        aliases=("disk_size",),
        unit="GiB",
        default="0 (whatever is there)",
        example="100",
    ),
    Field(
        "use_spot",
        Flag(),
        "`true` takes only spot machines, `false` none; left out, the objective decides.",
        default="left out",
        example="true",
    ),
    Field(
        "infra",
        Infra(),
        "Where: a cloud, a region of it, or the name of a cluster.",
        default="anywhere",
        example="aws/us-east-1",
    ),
    Field(
        "cloud",
        Text("a cloud", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", empty=False),
        "SkyPilot's older way to say `infra`.",
        example="aws",
    ),
    Field(
        "region",
        Text("a region", INFRA_PATTERN, empty=False),
        "SkyPilot's older way; needs `cloud` beside it, or write `cloud/region`.",
        example="us-east-1",
    ),
    Field(
        "labels",
        Variables(KEY_PATTERN),
        "Labels that a node must have, each with this very value.",
        default="none",
        example="{disk: nvme}",
    ),
    Field(
        "node_affinity",
        ListOf(NODE_TERM, MAX_TERMS, lone=True, tables=True),
        "What a node's labels must be, or had better be.",
        to="affinity",
        default="none",
        example='[gpu-memory > 40, "zone in (a, b)", not spot]',
    ),
    Field(
        "custom",
        Countables(),
        "Countables of the site's own, of one replica.",
        default="none",
        example="{fpga: 1}",
    ),
)


class _Place(Record):
    """One set of requirements: ``cloud`` and ``region`` are folded into ``infra``."""

    def read(self, node: Node, place: Place, to: Reading) -> dict[str, Any] | None:
        values = cast("dict[str, Any] | None", super().read(node, place, to))
        if values is None:
            return None
        cloud, region = values.pop("cloud", ""), values.pop("region", "")
        if not cloud and not region:
            return values
        if values.get("infra"):
            to.refuse(place, "found infra and cloud or region; keep infra alone")
        elif not cloud and "/" not in region:
            to.refuse(place, f"found a region without its cloud; write infra: aws/{region}")
        elif cloud and "/" in region:
            to.refuse(place, f"found the cloud twice; write infra: {region}")
        else:
            joined = f"{cloud}/{region}" if cloud and region else cloud or region
            values["infra"] = joined
            for name in ("region", "cloud"):
                if f"{place.canonical}/{name}" in to.places:
                    to.places[f"{place.canonical}/infra"] = to.places[f"{place.canonical}/{name}"]
                    break
        return values


ALTERNATIVE = _Place(_FIELDS, foreign=FOREIGN, words="mapping like resources")

RESOURCES = _Place(
    (
        *_FIELDS,
        Field(
            "any_of",
            ListOf(ALTERNATIVE, MAX_ALTERNATIVES),
            "Alternatives, each laid over the rest of `resources`; the objective picks one for all"
            " replicas.",
            default="none",
            example="[{infra: aws}, {infra: gcp, use_spot: true}]",
        ),
    ),
    foreign=FOREIGN,
)


def alternatives(
    values: dict[str, Any] | None,
) -> tuple[tuple[ResourceRequest, ...], tuple[int | None, ...]]:
    """What the read ``resources`` ask for, and from which entry of ``any_of`` each came."""
    base = dict(values or {})
    entries: tuple[dict[str, Any], ...] = base.pop("any_of", ())
    requests: list[ResourceRequest] = []
    origins: list[int | None] = []
    for index, entry in enumerate(entries) if entries else [(None, {})]:
        merged = base | entry
        for name, milli in merged.pop("accelerators", (("", 0),)):
            requests.append(ResourceRequest(gpus_milli=milli, gpu_type=name, **merged))
            origins.append(index)
    return tuple(requests), tuple(origins)


def resources_mapping(requests: tuple[ResourceRequest, ...]) -> dict[str, Any]:
    """The ``resources`` of a spec that reads back as these requests."""
    if len(requests) == 1:
        return request_mapping(requests[0])
    return {"any_of": [request_mapping(request) for request in requests]}


def request_mapping(request: ResourceRequest) -> dict[str, Any]:
    """The ``resources`` that read back as this one request."""
    out: dict[str, Any] = {}
    if request.gpus_milli:
        count = units.tidy(request.gpus_milli / MILLI)
        out["accelerators"] = f"{request.gpu_type}:{count}" if request.gpu_type else count
    if request.cpus_milli != ResourceRequest().cpus_milli:
        out["cpus"] = units.tidy(request.cpus_milli / MILLI)
    if request.memory_mib:
        out["memory"] = units.size_text(request.memory_mib)
    if request.disk_mib:
        out["disk"] = units.size_text(request.disk_mib)
    if request.use_spot is not None:
        out["use_spot"] = request.use_spot
    if request.infra:
        out["infra"] = request.infra
    if request.labels:
        out["labels"] = dict(request.labels)
    if request.affinity:
        out["node_affinity"] = [_term_mapping(term) for term in request.affinity]
    if request.custom:
        out["custom"] = dict(request.custom)
    return out


def _term_mapping(term: NodeTerm) -> object:
    text = term_text(term)
    if text:
        return {"term": text, "weight": term.weight} if term.weight else text
    out: dict[str, Any] = {"key": term.key, "operator": term.operator.value}
    if term.values:
        out["values"] = list(term.values)
    return out | ({"weight": term.weight} if term.weight else {})
