"""What one daemon asks another over their open stream: names of the calls, and their bodies."""

from msgspec import Struct

from hyperion.model.allocation import Freeze
from hyperion.wire.api import OutlookView

LOGS = "logs"
NODES = "nodes"
CORDON = "cordon"
POLICIES = "policies"
PROMISE = "promise"
QUEUES = "queues"
APPLY_QUEUES = "apply-queues"
DROP_QUEUE = "drop-queue"
WINDOWS = "windows"
ADD_WINDOW = "add-window"
DROP_WINDOW = "drop-window"
TRIAL = "trial"
EXPLAIN = "explain"
BUNDLE = "bundle"
ACTIVATE = "activate"


class ReadLogs(Struct, frozen=True, omit_defaults=True):
    """Of an agent: output of one replica. The answer is its bytes."""

    allocation: str
    follow: bool = False
    tail_lines: int | None = None


class ReadJobLogs(Struct, frozen=True, omit_defaults=True):
    """Of a scheduler: output of one rank of a job's newest attempt. The answer is its bytes."""

    job: str
    rank: int
    follow: bool = False
    tail_lines: int | None = None
    allocation: str = ""
    """What the federation last heard of the rank, for jobs that the cluster has forgotten."""
    node: str = ""
    generation: int = 0
    """Of an array, as the next one: a task that has ended is looked for by its name."""
    starts: int = 0
    """How often tasks were put back, and one more."""


class Cordon(Struct, frozen=True):
    """Of a scheduler; answered by the NodeView."""

    node: str
    cordon: bool
    drain: bool


class Named(Struct, frozen=True):
    """Of a scheduler: about the queue or window of this name."""

    name: str


class Explain(Struct, frozen=True):
    """Of a scheduler: why a job waits there; answered by an Explanation."""

    job: str


class Explanation(Struct, frozen=True, omit_defaults=True):
    sentences: tuple[str, ...] = ()
    refusals: dict[str, int] = {}
    queue_position: int | None = None
    outlook: OutlookView | None = None
    """While it waits."""


class Activate(Struct, frozen=True, omit_defaults=True):
    """Of an agent: this standby is wanted, or (``release``) wanted no more; answered by an
    Activated. Not an order of the machine: nothing is kept before it is done."""

    allocation: str
    release: bool = False


class Activated(Struct, frozen=True, omit_defaults=True):
    frozen: tuple[str, ...] = ()
    """Allocations that stand still since then."""
    took: Freeze | None = None


class ActivateJob(Struct, frozen=True, omit_defaults=True):
    """Of a scheduler: the same for all replicas of a job; answered by ActivationViews."""

    job: str
    release: bool = False
    any: bool = False
    """One of them will do: the first that answers."""


class GetBundle(Struct, frozen=True):
    """Of whoever is nearer to the federation; the answer is the archive's bytes."""

    digest: str
