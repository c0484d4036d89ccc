"""One replica bound to one node, and the life it may lead."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import SavedCheckpoint
from hyperion.model.resources import ResourceRequest


class AllocationState(Enum):
    PLACED = "placed"
    """It has a node; the agent has been told to prepare it."""
    READY = "ready"
    """The agent holds what it needs (directory, rendezvous port) and waits for its gang."""
    RUNNING = "running"
    """Its process runs on the node."""
    WARM = "warm"
    """It is there, and waits to be wanted: its CPUs are lent to others (a job with ``standby``)."""
    PAUSING = "pausing"
    """Told to stand still, with all that it holds, so that another can have its CPUs."""
    PAUSED = "paused"
    """Stands still: none of its processes runs. It keeps its memory, and goes on where it was."""
    RESUMING = "resuming"
    """Told to go on."""
    STOPPING = "stopping"
    """Told to stop; holds its resources until the agent says that it is gone."""
    SUCCEEDED = "succeeded"
    """It ended by itself with exit code 0."""
    FAILED = "failed"
    """It ended by itself with another exit code, or could not be started."""
    STOPPED = "stopped"
    """It ended since it was told to."""
    LOST = "lost"
    """Its node is gone for good, or no longer knows it."""

    __hash__ = (
        object.__hash__
    )  # there is one of each; the hash of their name takes ten times as long

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_S = AllocationState
_ENDS = frozenset({_S.SUCCEEDED, _S.FAILED, _S.STOPPED, _S.LOST})

#: The whole life cycle. Reports may be lost on the way, so later states can be reached directly.
TRANSITIONS: Mapping[AllocationState, frozenset[AllocationState]] = {
    _S.PLACED: _ENDS | {_S.READY, _S.RUNNING, _S.WARM, _S.STOPPING},
    _S.READY: _ENDS | {_S.RUNNING, _S.WARM, _S.STOPPING},
    _S.RUNNING: _ENDS | {_S.WARM, _S.PAUSING, _S.PAUSED, _S.STOPPING},
    _S.WARM: _ENDS | {_S.RUNNING, _S.STOPPING},
    _S.PAUSING: _ENDS | {_S.PAUSED, _S.RUNNING, _S.RESUMING, _S.STOPPING},
    _S.PAUSED: _ENDS | {_S.RUNNING, _S.RESUMING, _S.STOPPING},
    _S.RESUMING: _ENDS | {_S.RUNNING, _S.PAUSED, _S.STOPPING},
    _S.STOPPING: _ENDS,
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.STOPPED: frozenset(),
    _S.LOST: frozenset(),
}


class Freeze(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """How long it took a node to let a replica stand still, from its agent's order on."""

    stopped_us: int = 0
    """Until none of its threads ran any code of its own."""
    confirmed_us: int = 0
    """Until the kernel said that all stand; 0: some were busy in the kernel for longer."""
    threads: int = 0
    how: str = ""
    """``freezer``, ``hedged`` or ``signals``; ``degraded`` where some were still in the kernel."""
    stragglers: tuple[str, ...] = ()
    """Threads that had not come to a stand in time, and where in the kernel they were."""
    at: str = ""
    """``point`` or ``step``: it came to a stand there by itself; empty: wherever it was."""
    step: int = 0
    """The last step that it had done, where it says so."""
    saved_us: int = 0
    """Until that step was written, so that nothing is lost whatever happens to it; 0: it is not."""
    freed_bytes: int = 0
    """Of its memory, given back to its node."""


class Allocation(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A replica's place. It holds its resources until its state is terminal."""

    id: AllocationId
    job: JobId
    rank: int
    node: NodeId
    request: ResourceRequest
    devices: tuple[int, ...] = ()
    """Which of the node's GPUs, by index; one entry for a fraction of a GPU."""
    state: AllocationState = AllocationState.PLACED
    generation: int = 1
    """Counts the orders given about this allocation; a report must name the order it answers."""
    answered: int = 0
    """The newest generation that the agent has answered."""
    turn: int = 0
    """Counts what its node did unasked: a standby comes and goes as it is wanted."""
    address: str = ""
    """Where its gang can reach it, once it is READY."""
    port: int = 0
    """A free port on its node, found by the agent, for the gang's rendezvous."""
    exit_code: int | None = None
    reason: str = ""
    placed_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    """The newest that it has written, the newest last."""
    on_disk: bool = False
    """It stands still and is, or is being, set aside on its node's disk."""
