"""The mappings inside a spec: data, budget, regions, restart, checkpoint, tolerations."""

from hyperion.model import bounds
from hyperion.model.job import (
    PLACES_TO_STAND,
    Budget,
    Checkpoint,
    DatasetRead,
    DatasetWrite,
    DataSource,
    Pausing,
    Residency,
    Restart,
    Standby,
    Toleration,
)
from hyperion.wire.spec_kinds import (
    Amount,
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    Number,
    Record,
    Text,
    Whole,
)
from hyperion.wire.spec_shorthand import Parsed, Shorthand


def _toleration(text: str) -> Toleration:
    key, _, value = text.partition("=")
    return Toleration(key, value)


_TOLERATION = Record(
    (
        Field("key", Text(pattern=bounds.KEY_PATTERN, empty=False), "The taint.", required=True),
        Field("value", Text(), "Its value; empty tolerates any.", default="any"),
    ),
    Toleration,
)

TOLERATED = Shorthand(
    _TOLERATION,
    Parsed("KEY=VALUE", "key, key=value, or {key: …, value: …}", _toleration, "[^=]+(=.*)?"),
)

DATA = Record(
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

_READ = Record(
    (
        Field(
            "dataset",
            Text("the name of a dataset", bounds.NAME_PATTERN),
            "One that `hyperion datasets` lists.",
            example="imagenet",
            required=True,
        ),
        Field(
            "fraction",
            Number(bounds.MAX_FRACTION),
            "How much of it is read, all passes together: 0.1 a tenth, 3 all of it three times.",
            default="2 (more than once)",
            example="0.1",
        ),
    ),
    DatasetRead,
)

READS = Shorthand(_READ, Text("the name of a dataset", bounds.NAME_PATTERN), DatasetRead)

WRITES = Record(
    (
        Field(
            "dataset",
            Text("the name of a dataset", bounds.NAME_PATTERN),
            "One that `hyperion datasets` lists; what is written goes where it lies.",
            aliases=("name",),
            example="features",
            required=True,
        ),
        Field(
            "size_gb",
            Amount(),
            "How much is written, in GiB.",
            to="size_gib",
            aliases=("size",),
            unit="GiB",
            default="0",
            example="20",
        ),
    ),
    DatasetWrite,
    words="mapping with dataset and size_gb",
)

BUDGET = Record(
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
        Field(
            "max_kg_co2e",
            Number(bounds.MAX_KG),
            "Places where it would cause more, in the time that it is `expected` to run, are not "
            "considered; it is stopped as failed when it has caused this much.",
            unit="kg CO2e",
            default="0 (no limit)",
            example="40",
        ),
    ),
    Budget,
)

_PLACES = ListOf(
    Text("a cloud, cloud/region or cluster, * for any", bounds.PLACE_PATTERN, empty=False),
    bounds.MAX_ENTRIES,
    lone=True,
)

RESIDENCY = Record(
    (
        Field(
            "allow",
            _PLACES,
            "Clouds, regions of them or clusters that may run it; no others.",
            default="anywhere",
            example="[aws/eu-*, gcp/europe-*]",
        ),
        Field(
            "deny",
            _PLACES,
            "Those that may not, whatever `allow` says.",
            default="none",
            example="[aws/eu-central-1]",
        ),
    ),
    Residency,
)

RESTART = Record(
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

CHECKPOINT = Record(
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
        Field(
            "every",
            Duration(),
            "How often the job writes one: what it loses when it is preempted.",
            to="every_s",
            unit="s",
            default="only when told to end, where `dir` is set",
            example="10m",
        ),
        Field(
            "restore",
            Duration(),
            "How long it takes to get back to where the checkpoint was.",
            to="restore_s",
            unit="s",
            default="0",
            example="1m",
        ),
        Field(
            "signal",
            Text("a signal's name"),
            "What it hears when its grace begins, instead of TERM: INT, HUP, QUIT, USR1 or USR2;"
            " after `B:` only its first process hears it, such as the shell of its script.",
            default="TERM",
            example="B:USR1",
        ),
        Field(
            "notice",
            Text("a URL on its node"),
            "Told over HTTP when its grace begins: the notice as JSON is posted there; with `GET`"
            " before it, asked. On loopback only, two tries of 2 s, and the signal does not wait.",
            default="none",
            example="http://127.0.0.1:8080/preempt",
        ),
    ),
    Checkpoint,
)

PAUSING = Record(
    (
        Field(
            "forbidden",
            Flag(),
            "`true`: never made to stand still for a more urgent job, but stopped.",
            default="false",
            example="true",
        ),
        Field(
            "hold",
            Duration(),
            "How long at a stretch; then it is stopped, and goes on from its checkpoint.",
            to="hold_s",
            unit="s",
            default="30s",
            example="2m",
        ),
        Field(
            "at",
            Choice({"anywhere": "", **{place: place for place in PLACES_TO_STAND}}),
            "Where it comes to a stand by itself before it is frozen: at its next `point`, or at"
            " the end of its `step`, whose state it then writes.",
            default="anywhere",
            example="step",
        ),
        Field(
            "within",
            Duration(),
            "How long it may take to come there; then it is frozen wherever it is.",
            to="within_s",
            unit="s",
            default="1s",
            example="5s",
        ),
        Field(
            "gpu_queue",
            Duration(),
            "It may stand still with its GPUs too: no more work than this waits on one of them."
            " Torch programs are kept to that.",
            to="gpu_queue_s",
            unit="s",
            default="0 (with GPUs it is stopped)",
            example="6ms",
        ),
        Field(
            "criu",
            Flag(),
            "`true`: at the end of its hold it is set aside on its node's disk, where CRIU works,"
            " and comes back from there; only else it is stopped. For jobs of one replica.",
            default="false",
            example="true",
        ),
    ),
    Pausing,
)

STANDBY = Record(
    (
        Field(
            "port",
            Whole(1, 65535),
            "TCP port on each of its nodes: opened before it starts and handed to it; whoever"
            " connects wakes it.",
            default="none",
            example="8080",
        ),
        Field(
            "quiet",
            Duration(),
            "Having done next to nothing for so long, it lends its CPUs.",
            to="quiet_s",
            unit="s",
            default="1s",
            example="5s",
        ),
    ),
    Standby,
)
