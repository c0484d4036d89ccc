"""The fields of a spec, once: parser, JSON Schema and reference are all made from these."""

import datetime
import re
from collections.abc import Iterator
from typing import Any, cast

from hyperion.model import bounds, checks
from hyperion.model.job import (
    Budget,
    Checkpoint,
    DataSource,
    Framework,
    Objective,
    Priority,
    Restart,
    Secret,
    Toleration,
)
from hyperion.wire.spec_kinds import (
    Amount,
    BorrowedVariables,
    Choice,
    Duration,
    Field,
    ListOf,
    Number,
    Place,
    Reading,
    Record,
    Schema,
    Text,
    Variables,
    Whole,
)
from hyperion.wire.spec_resources import RESOURCES
from hyperion.wire.spec_tree import Kind, Listing, Node, Scalar, Table, describe

_moment = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ].*)?").fullmatch


class Run:
    """A script, or a list that is an argument vector. Reads to a text or to a tuple of texts."""

    words = "script, or list of arguments"

    def read(self, node: Node, place: Place, to: Reading) -> str | tuple[str, ...] | None:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.text
        if not isinstance(node, Listing):
            to.expect(place, node, "a script, such as: python train.py, or a list of arguments")
            return None
        if not node.items:
            to.refuse(place, "found an empty list, expected a program and its arguments")
            return None
        arguments = []
        for index, item in enumerate(node.items):
            at = place.item(index, item)
            to.places[at.canonical] = at
            if isinstance(item, Scalar) and item.kind is not Kind.NULL:
                arguments.append(item.text)
            else:
                to.expect(at, item, "one argument; put it in quotes")
        return tuple(arguments) or None

    def schema(self) -> Schema:
        argument: Schema = {"type": ["string", "number", "boolean"]}
        most = bounds.MAX_ARGUMENTS
        vector: Schema = {"type": "array", "minItems": 1, "maxItems": most, "items": argument}
        return {"anyOf": [{"type": "string", "minLength": 1}, vector]}


class Deadline(Duration):
    """A duration from now, or a moment. Reads to seconds from now."""

    words = "duration or time"

    def read(self, node: Node, place: Place, to: Reading) -> float | None:
        if not (isinstance(node, Scalar) and node.kind is Kind.TEXT and _moment(node.text)):
            return super().read(node, place, to)
        try:
            moment = datetime.datetime.fromisoformat(node.text)
            seconds = moment.timestamp() - to.now_ms / 1000 if moment.tzinfo else None
        except (ValueError, OverflowError, OSError):
            to.expect(place, node, "a time such as 2026-03-31T18:00:00Z")
            return None
        if seconds is None:
            to.expect(place, node, "a time with its zone; add Z for UTC, or +02:00")
            return None
        if seconds <= 0:
            to.expect(place, node, "a time in the future")
            return None
        return round(seconds, 3)

    def schema(self) -> Schema:
        out = super().schema()
        out["anyOf"].append({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}[Tt ].*$"})
        return out


class PolicyName(Choice):
    """One that is built in, or that an installed package has registered."""

    def __init__(self) -> None:
        super().__init__({name: name for name in checks.POLICIES})

    def read(self, node: Node, place: Place, to: Reading) -> object:
        if isinstance(node, Scalar) and node.text in checks.KNOWN_POLICIES:
            return node.text
        return super().read(node, place, to)


class ObjectiveOrPolicy:
    """Weights, or the name of a policy. Reads to an Objective or to a text."""

    words = "mapping of weights, or a policy"

    def read(self, node: Node, place: Place, to: Reading) -> Objective | str | None:
        if isinstance(node, Table):
            return cast("Objective | None", _WEIGHTS.read(node, place, to))
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            to.places["/policy"] = place
            return node.text
        to.expect(place, node, "weights such as {cost: 1, carbon: 2}, or the name of a policy")
        return None

    def schema(self) -> Schema:
        return {"anyOf": [_WEIGHTS.schema(), {"enum": list(checks.POLICIES)}]}


class Tolerated:
    """``key``, ``key=value`` or a mapping of the two."""

    words = "KEY=VALUE"

    def read(self, node: Node, place: Place, to: Reading) -> Toleration | None:
        if isinstance(node, Table):
            return cast("Toleration | None", _TOLERATION.read(node, place, to))
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            key, _, value = node.text.partition("=")
            return Toleration(key, value)
        to.expect(place, node, "key, key=value, or {key: …, value: …}")
        return None

    def schema(self) -> Schema:
        return {"anyOf": [_TOLERATION.schema(), {"type": "string", "pattern": "^[^=]+(=.*)?$"}]}


class Image(Text):
    """Refused as long as no runtime can honour it."""

    def read(self, node: Node, place: Place, to: Reading) -> str | None:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.text
        to.refuse(
            place, f"found {describe(node)}; container images are not supported yet; remove it"
        )
        return None

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": 0}


def _weight(name: str, doc: str) -> Field:
    return Field(name, Number(bounds.MAX_WEIGHT), doc, default="1", example="2")


_WEIGHTS = Record(
    (
        _weight("cost", "Weight of the price of the machines."),
        _weight("latency", "Weight of the distance to `users_in`."),
        _weight("egress", "Weight of the price of moving `data`."),
        _weight("carbon", "Weight of the emissions."),
    ),
    Objective,
    words="mapping of weights",
)

_TOLERATION = Record(
    (
        Field("key", Text(pattern=bounds.KEY_PATTERN, empty=False), "The taint.", required=True),
        Field("value", Text(), "Its value; empty tolerates any.", default="any"),
    ),
    Toleration,
)

_DATA = Record(
    (
        Field(
            "uri",
            Text("an address", longest=bounds.MAX_URI_BYTES),
            "Where the dataset is.",
            example="s3://bucket/imagenet",
            required=True,
        ),
        Field(
            "size_gb",
            Amount(),
            "How much of it the job reads, in GiB, as in `memory`.",
            to="size_gib",
            aliases=("size",),
            unit="GiB",
            default="0",
            example="150",
        ),
        Field(
            "region",
            Text("cloud/region", bounds.REGION_PATTERN),
            "The region it lies in; moving it elsewhere costs egress.",
            default="unknown: no egress is counted",
            example="aws/us-east-1",
        ),
    ),
    DataSource,
    words="mapping with uri, size_gb and region",
)

_BUDGET = Record(
    (
        Field(
            "max_usd",
            Number(bounds.MAX_USD),
            "The job is stopped as failed when it has cost this much.",
            unit="USD",
            default="0 (no limit)",
            example="250",
        ),
        Field(
            "max_usd_per_hour",
            Number(bounds.MAX_USD),
            "Places that cost more for the whole job are not considered.",
            unit="USD/h",
            default="0 (no limit)",
            example="12.5",
        ),
    ),
    Budget,
)

_RESTART = Record(
    (
        Field(
            "max",
            Whole(0, bounds.MAX_RESTARTS),
            "How often a failed job is tried again. A job whose node is lost always is.",
            default="0",
            example="3",
        ),
        Field(
            "backoff",
            Duration(),
            "Before the first retry; doubled for each further one, at most 10 minutes.",
            to="backoff_s",
            unit="s",
            default="10s",
            example="30s",
        ),
    ),
    Restart,
)

_CHECKPOINT = Record(
    (
        Field(
            "dir",
            Text("a directory or an address"),
            "Where the job keeps its checkpoints; handed to it as `HYPERION_CHECKPOINT_DIR`.",
            example="/data/checkpoints",
        ),
        Field(
            "grace",
            Duration(),
            "How long the job may take to end itself between SIGTERM and SIGKILL.",
            to="grace_s",
            unit="s",
            default="10s",
            example="2m",
        ),
    ),
    Checkpoint,
)

_REGION = Text("cloud/region", bounds.REGION_PATTERN, empty=False)

FOREIGN = {
    "file_mounts": "use workdir for code, data for datasets",
    "service": "serving is not supported; run a job with its own server",
    "pool": "remove it",
    "volumes": "use data, or a directory of the node",
    "config": "remove it",
    "inputs": "use data",
    "outputs": "write them from run",
    "event_callback": "use hyperion wait",
    "num_replicas": "use replicas",
    "command": "use run: a script, or a list of arguments",
    "timeout": "use deadline",
    "id": "the system gives ids",
}
"""Fields of other systems, each with what to do here."""
SPEC = Record(
    (
        Field(
            "name",
            Text("a name", bounds.NAME_PATTERN),
            "What people call the job. Need not be unique.",
            default="none",
            example="resnet-50",
        ),
        Field(
            "framework",
            Choice({f.value: f for f in Framework}),
            "What the replicas speak. All get the variables of all; `mpi` also leaves out Slurm's,"
            " which mpirun would take for a Slurm allocation.",
            default="custom",
            example="pytorch",
        ),
        Field(
            "priority",
            Choice({p.name: p for p in Priority}),
            "Urgency, in any case. A higher one is placed first.",
            default="BATCH",
            example="LATENCY_CRITICAL",
        ),
        Field(
            "replicas",
            Whole(1, bounds.MAX_REPLICAS),
            "Identical copies that run together, or not at all.",
            aliases=("num_nodes",),
            default="1",
            example="4",
        ),
        Field("resources", RESOURCES, "What one replica needs, and where it may be."),
        Field(
            "image",
            Image(),
            "Container image. Not supported yet: a spec that names one is refused.",
            default="none",
        ),
        Field(
            "workdir",
            Text("a directory", longest=bounds.MAX_PATH_BYTES),
            "A directory that the job starts in, or `bundle:sha256:…` of an uploaded one.",
            default="an empty directory",
            example=".",
        ),
        Field(
            "setup",
            Text("a script", longest=bounds.MAX_SCRIPT_BYTES),
            "A shell script run once per replica before `run`; its failure fails the replica.",
            default="none",
            example="pip install -r requirements.txt",
        ),
        Field(
            "run",
            Run(),
            "What to run: a shell script, or a list that is run as it is, without a shell.",
            default="must be given",
            example="python train.py",
            required=True,
        ),
        Field(
            "envs",
            BorrowedVariables(bounds.VARIABLE_PATTERN),
            "Environment variables, taken as written (`on` stays `on`). A null one is taken from"
            " your own environment.",
            default="none",
            example="{EPOCHS: 10}",
        ),
        Field(
            "secrets",
            BorrowedVariables(bounds.VARIABLE_PATTERN, Secret),
            "The same, but no table, log or error shows them.",
            default="none",
            example="{HF_TOKEN: null}",
        ),
        Field(
            "data",
            ListOf(_DATA, bounds.MAX_DATA_SOURCES),
            "Datasets that the job reads, for the price of moving them.",
            default="none",
        ),
        Field(
            "objective",
            ObjectiveOrPolicy(),
            "Weights on the terms of the price (0 ignores a term), or the name of a policy.",
            default="all 1",
            example="{cost: 1, carbon: 2}",
        ),
        Field(
            "policy",
            PolicyName(),
            "The ranking policy.",
            default="the federation's (balanced)",
            example="cheapest",
        ),
        Field(
            "users_in",
            ListOf(_REGION, bounds.MAX_ENTRIES, lone=True),
            "Regions of the job's users; latency is counted to them.",
            default="none",
            example="[aws/eu-west-1]",
        ),
        Field(
            "expected",
            Duration(),
            "How long you expect it to run; one-time costs such as egress are spread over it.",
            to="expected_s",
            unit="s",
            default="unknown, priced as one hour",
            example="3h",
        ),
        Field(
            "deadline",
            Deadline(),
            "Stopped as failed this long after submission, or at this time.",
            to="deadline_s",
            unit="s",
            default="0 (none)",
            example="2h30m",
        ),
        Field("budget", _BUDGET, "Hard limits."),
        Field("restart", _RESTART, "Retries after a failure of its own."),
        Field("checkpoint", _CHECKPOINT, "What the job itself does to survive."),
        Field(
            "tolerations",
            ListOf(Tolerated(), bounds.MAX_ENTRIES),
            "Taints of nodes that the job does not mind.",
            default="none",
            example="[spot, team=vision]",
        ),
        Field(
            "metadata",
            Variables(bounds.KEY_PATTERN),
            "Notes of your own, kept with the job.",
            default="none",
            example="{team: vision}",
        ),
    ),
    foreign=FOREIGN,
    complete=False,  # so that all problems are told; model.checks misses what is missing
)


def reference() -> list[tuple[str, Field]]:
    """Every field with its full name, in the order of the reference."""
    return list(_walk("", SPEC))


def _walk(prefix: str, record: Record) -> Iterator[tuple[str, Field]]:
    for field in record.fields:
        name = prefix + field.name
        yield name, field
        kind: Any = field.kind
        if isinstance(kind, ObjectiveOrPolicy):
            kind = _WEIGHTS
        inner = getattr(kind, "kind", None)
        if isinstance(kind, Record):
            yield from _walk(name + ".", kind)
        elif isinstance(inner, Record) and field.name != "any_of":
            yield from _walk(name + "[].", inner)
