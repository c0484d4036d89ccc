"""The fields of a spec, once: parser, JSON Schema and reference are all made from these."""

from collections.abc import Iterator
from typing import Any, cast

from hyperion.model import bounds, checks
from hyperion.model.constraints import LEVELS
from hyperion.model.job import (
    Framework,
    Objective,
    Priority,
    Secret,
)
from hyperion.wire.spec_gang import ARRAY, ELASTIC, After, Roles
from hyperion.wire.spec_kinds import (
    BorrowedVariables,
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    Number,
    Place,
    Reading,
    Record,
    Schema,
    Signed,
    Text,
    Variables,
    Whole,
)
from hyperion.wire.spec_places import REPLICA_TERM, SPREAD, TOPOLOGY
from hyperion.wire.spec_records import (
    BUDGET,
    CHECKPOINT,
    DATA,
    PAUSING,
    READS,
    RESIDENCY,
    RESTART,
    STANDBY,
    TOLERATED,
    WRITES,
)
from hyperion.wire.spec_resources import RESOURCES
from hyperion.wire.spec_tree import Kind, Node, Scalar, Table
from hyperion.wire.spec_work import Image, Moment, Run


class ObjectiveOrPolicy:
    """Weights, or the name of a policy. Reads to an Objective or to a text."""

    words = "mapping of weights, or a policy"

    def __init__(self) -> None:
        self.record = _WEIGHTS

    def read(self, node: Node, place: Place, to: Reading) -> Objective | str | None:
        if isinstance(node, Table):
            return cast("Objective | None", _WEIGHTS.read(node, place, to))
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            to.places["/policy"] = place
            return _policy(node.text)
        to.expect(place, node, "weights such as {cost: 1, carbon: 2}, or the name of a policy")
        return None

    def schema(self) -> Schema:
        return {"anyOf": [_WEIGHTS.schema(), *POLICY.schema()["anyOf"]]}


class Policy(Text):
    """A built-in policy in any case, or the name of a plug-in, which the checks know."""

    words = "word"

    def read(self, node: Node, place: Place, to: Reading) -> str | None:
        text = super().read(node, place, to)
        return None if text is None else _policy(text)

    def schema(self) -> Schema:
        plug_in: Schema = {"type": "string", "pattern": f"^({bounds.NAME_PATTERN})?$"}
        return {"anyOf": [{"enum": list(checks.POLICIES)}, plug_in]}


POLICY = Policy(f"one of {', '.join(checks.POLICIES)}")


def _policy(text: str) -> str:
    word = text.lower().replace("_", "-")
    return word if word in checks.POLICIES else text


def _weight(name: str, doc: str) -> Field:
    return Field(name, Number(bounds.MAX_WEIGHT), doc, default="1", example="2")


_WEIGHTS = Record(
    (
        _weight("cost", "Weight of the price of the machines."),
        _weight("latency", "Weight of the distance to `users_in`."),
        _weight("egress", "Weight of the price of moving `data`."),
        _weight("carbon", "Weight of the emissions."),
        _weight("interruption", "Weight of the work expected to be lost on spot machines."),
        Field(
            "carbon_price",
            Number(bounds.MAX_CARBON_PRICE),
            "What a tonne of CO2 equivalent less is worth to you.",
            to="carbon_usd_per_tonne",
            unit="USD/t",
            default="100",
            example="190",
        ),
        Field(
            "waiting",
            Number(bounds.MAX_USD),
            "What an hour less of waiting is worth to you.",
            to="waiting_usd_per_hour",
            unit="USD/h",
            default="0.05",
            example="2",
        ),
    ),
    Objective,
    words="mapping of weights",
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


class _Spec(Record):
    def schema(self) -> Schema:
        return super().schema() | {"anyOf": [{"required": ["run"]}, {"required": ["roles"]}]}


SPEC = _Spec(
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
            "Urgency, in any case. A higher one goes first, and may take places of a lower one.",
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
            "roles",
            Roles(),
            "Replicas that differ, by name: all of them run, or none. Ranks are dealt to the roles"
            " in this order.",
            default="all are alike",
        ),
        Field("elastic", ELASTIC, "Runs with any number of replicas between two bounds."),
        Field(
            "array",
            ARRAY,
            "Many tasks as one job, each a replica of its own with its index in"
            " `HYPERION_ARRAY_INDEX`. A number is how many; a range is as in Slurm.",
            default="none",
            example="0-99%10",
        ),
        Field(
            "topology",
            TOPOLOGY,
            "All replicas close together: a level alone is `required`.",
            default="anywhere",
            example="{required: rack}",
        ),
        Field(
            "spread",
            ListOf(SPREAD, len(LEVELS), lone=True, tables=True),
            "Its own replicas evenly over the parts of a level.",
            default="anywhere",
            example="rack",
        ),
        Field(
            "near",
            ListOf(REPLICA_TERM, bounds.MAX_TERMS, lone=True, tables=True),
            "Where replicas of jobs with this metadata are.",
            default="anywhere",
            example="app=cache",
        ),
        Field(
            "away_from",
            ListOf(REPLICA_TERM, bounds.MAX_TERMS, lone=True, tables=True),
            "Where no replicas of jobs with this metadata are.",
            default="anywhere",
            example="{labels: {app: web}, level: rack}",
        ),
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
            default="must be given, here or for each role",
            example="python train.py",
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
            ListOf(DATA, bounds.MAX_DATA_SOURCES),
            "Data that the job reads and nobody else knows of, for the price of moving them.",
            default="none",
        ),
        Field(
            "reads",
            ListOf(READS, bounds.MAX_DATASETS_NAMED, lone=True),
            "Datasets that the job reads, by name. Whoever brings one to a region brings it for"
            " all.",
            default="none",
            example="[imagenet, {dataset: laion, fraction: 0.1}]",
        ),
        Field(
            "writes",
            ListOf(WRITES, bounds.MAX_DATASETS_NAMED),
            "Datasets that the job writes to, for the price of bringing it there.",
            default="none",
            example="[{dataset: features, size_gb: 20}]",
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
            POLICY,
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
            "latency_target",
            Duration(),
            "A round trip to them up to which no latency is counted.",
            to="latency_target_s",
            unit="s",
            default="0 (all of it is counted)",
            example="80ms",
        ),
        Field(
            "queue",
            Text("the name of a queue", bounds.NAME_PATTERN),
            "Where it waits, and whose quota it uses.",
            default="default",
            example="research",
        ),
        Field(
            "nice",
            Signed(bounds.MAX_NICE),
            "Among the jobs of one queue and priority the least nice comes first.",
            default="0",
            example="10",
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
            Moment(),
            "Stopped as failed this long after submission, or at this time.",
            to="deadline_s",
            unit="s",
            default="0 (none)",
            example="2h30m",
        ),
        Field(
            "begin",
            Moment(),
            "Not started before this long after submission, or before this time.",
            to="begin_s",
            unit="s",
            default="0 (at once)",
            example="2h",
        ),
        Field(
            "start",
            Choice({"cheapest": False, "now": True}),
            "Where `deadline` and `expected` leave the time and a forecast says that a later hour"
            " is cheaper, it waits for that; with `now` it does not.",
            to="start_now",
            default="cheapest",
            example="now",
        ),
        Field(
            "after",
            After(),
            "Jobs that must have ended first: well (`afterok`, what an id alone means), in any way"
            " (`afterany`) or badly (`afternotok`).",
            default="none",
            example="[job-a, {afterany: job-b}]",
        ),
        Field(
            "reservation",
            Text("the name of a reservation", bounds.NAME_PATTERN),
            "Runs inside this reservation: on its nodes, in its time.",
            default="none",
            example="maint-1",
        ),
        Field(
            "min_runtime",
            Duration(),
            "Not preempted before it has run so long.",
            to="min_runtime_s",
            unit="s",
            default="0",
            example="10m",
        ),
        Field("budget", BUDGET, "Hard limits."),
        Field("regions", RESIDENCY, "Where the job and its data may be: a hard limit."),
        Field("restart", RESTART, "Retries after a failure of its own."),
        Field("checkpoint", CHECKPOINT, "What the job itself does to survive."),
        Field(
            "migrate",
            Flag(),
            "`true`: while it runs it may be moved, with its checkpoint, to where the rest of its"
            " work costs less. Needs `expected`, and `checkpoint.every` or `checkpoint.dir`.",
            default="false",
            example="true",
        ),
        Field("pausing", PAUSING, "Whether, and for how long, it may stand still for others."),
        Field("standby", STANDBY, "Is there before it is wanted, and lends its CPUs until then."),
        Field(
            "tolerations",
            ListOf(TOLERATED, bounds.MAX_ENTRIES),
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
        if isinstance(field.kind, Record):
            yield from _walk(name + ".", field.kind)
        elif isinstance(field.kind, Roles):
            yield from _walk(name + ".NAME.", field.kind.kind)
        elif field.name != "any_of":
            inner: Any = getattr(field.kind, "kind", field.kind)
            inner = getattr(inner, "record", inner)
            mark = "[]." if isinstance(field.kind, ListOf) else "."
            if isinstance(inner, Record):
                yield from _walk(name + mark, inner)
