"""The doors: every Protocol through which a daemon touches the outside, on one page.

To add a store, a runtime, a price feed: read this page, write one module in ``adapters``, and run
the port's contract tests against it. Implementations raise ``OSError`` (or a subclass) when the
outside fails; the caller decides whether to try again.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from hyperion.control.messages import Prepare, ReplicaExited, ReplicaPrepared, ReplicaStarted, Run
from hyperion.model.ids import AllocationId
from hyperion.model.market import MarketView
from hyperion.model.quotes import Fetched, Wanted
from hyperion.model.resources import Capacity


class Clock(Protocol):
    """Wall time in ms since the epoch that never goes backwards within a process."""

    def now_ms(self) -> int: ...


class JournalEntry(Struct, frozen=True):
    """One record as it was kept: JSON of the record, with the time of the decision."""

    sequence: int
    at_ms: int
    record: bytes


class Store(Protocol):
    """Keeps a machine's entities under human-readable keys with JSON values, and its journal.

    One process owns a store at a time; a second one is refused at ``open``. Thread-safe is not
    asked for: the driver makes one call at a time, from any one thread.
    """

    def load(self) -> Iterable[tuple[str, bytes]]:
        """Every key and value, in the order of the keys."""

    def commit(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> None:
        """Keep all of it or nothing, durably (a power cut after the return loses nothing).

        ``None`` deletes the key. Bounded retention of the journal is the store's business.
        """

    def stage(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> Callable[[], None]:
        """Like ``commit``, in two parts: the work is done now, the waiting in what this returns.

        That is to be called once, from any thread; until it has returned nothing is kept, and no
        other call of the store is allowed.
        """

    def journal(self, after: int = 0, limit: int = 1000) -> Iterable[JournalEntry]:
        """Records kept after sequence number ``after``, oldest first."""

    @property
    def last_sequence(self) -> int:
        """The number of the newest record ever kept, 0 before the first. Numbers have no gaps."""

    def close(self) -> None: ...


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a replica finds around itself: environment variables, and files beside it."""

    variables: dict[str, str]
    files: dict[str, str]
    """Name to content, such as ``hostfile``; written into the replica's own directory."""


Surround = Callable[[Run, str, int], Surroundings]
"""(order, replica's directory, own port) → surroundings; given to a runtime when it is made."""


class Runtime(Protocol):
    """Runs replicas on this machine. Idempotent: launching what runs adopts it.

    The replica outlives the process that launched it. Events are delivered on the event loop of
    the caller of ``start``.
    """

    async def start(
        self, emit: Callable[[ReplicaPrepared | ReplicaStarted | ReplicaExited], None]
    ) -> None:
        """Begin: events of prepared, started and ended replicas go to ``emit``."""

    async def prepare(self, order: Prepare) -> None:
        """Make the directory and find a free port. Ends in ReplicaPrepared, or in ReplicaExited."""

    async def launch(self, order: Run) -> None:
        """Run it exactly once per allocation, whatever crashes in between, and adopt it if it runs.

        Ends in ReplicaStarted (launched or adopted) or ReplicaExited (has ended, could not start).
        """

    async def kill(self, allocation: AllocationId, grace_ms: int) -> None:
        """End its whole tree, or make sure that it can never start. Ends in ReplicaExited."""

    async def set_aside(self, allocation: AllocationId) -> int:
        """Write it to disk with all its memory and end its processes, which is no end of it; the
        bytes. ``OSError``: it cannot be, and runs on. ``abilities`` says whether that can be.
        Done already, it says so again. Cancelled, it ends what it has begun first."""

    async def bring_back(self, allocation: AllocationId) -> None:
        """Let it go on from there. ``OSError``, and then ReplicaExited: it cannot."""

    def is_aside(self, allocation: AllocationId) -> bool:
        """Whether it is there."""

    async def drop(self, allocation: AllocationId) -> None:
        """Forget it; its logs stay until retention removes them."""

    async def members(self, allocation: AllocationId) -> tuple[list[str], list[int]] | None:
        """Its control groups, or its processes where there are none; None: it does not run."""

    def gate(self, allocation: AllocationId, port: int) -> int:
        """The descriptor of the socket on which a standby listens at that port; -1: none."""

    async def sweep(self, known: Iterable[AllocationId]) -> list[AllocationId]:
        """Kill every replica on this machine that is ours but not ``known``; return which."""

    def logs(
        self, allocation: AllocationId, follow: bool, tail_lines: int | None
    ) -> AsyncIterator[bytes]:
        """Output so far, then (``follow``) as it comes until the replica has ended."""

    def keep_lease(self, remaining_ms: int) -> None:
        """Write down when the lease ends, on a clock that survives restarts of the agent."""

    def recover_lease(self) -> int | None:
        """What is left of the lease written down before, in ms; None where there was none."""

    def abilities(self) -> Mapping[str, str]:
        """What this host lets us enforce, in words, for ``nodes -o wide``."""

    async def close(self) -> None:
        """Stop watching. Replicas run on."""


class Paused(Struct, frozen=True, kw_only=True):
    """How some processes came to a stand; times are of ``time.monotonic_ns``."""

    called_ns: int
    stopped_ns: int
    """From then on none of them runs any code of its own."""
    confirmed_ns: int
    """The kernel says that all stand; 0: some were still busy in the kernel."""
    how: str
    threads: int
    stragglers: tuple[str, ...] = ()
    """What those were doing."""


class Woken(Struct, frozen=True, kw_only=True):
    """A standby has become active."""

    frozen: tuple[str, ...]
    """Who stands still for it now and did not before."""
    paused: Paused
    asked_ns: int
    """When it was known that it is wanted; of ``time.monotonic_ns``."""


class Pauser(Protocol):
    """Lets the processes of replicas on this machine stand still, and go on. Each pause ends by
    itself after its hold, whoever has died meanwhile. ``OSError`` when it cannot be done."""

    async def start(self, woken: Callable[[str, Woken], None]) -> None:
        """``woken`` is told of each standby that is activated by a connection to its gate."""

    def abilities(self) -> Mapping[str, str]:
        """``pause`` and how well, in words; empty where it cannot be done."""

    async def arm(self, name: str, groups: Sequence[str], pids: Sequence[int]) -> None:
        """Say whom ``name`` means: control groups, or processes where there are none."""

    async def disarm(self, name: str) -> None:
        """It is over; whatever is left of it goes on."""

    async def freeze(self, name: str, hold_ms: int) -> Paused:
        """Let them stand still, for at most so long."""

    async def thaw(self, name: str) -> None: ...

    async def is_still(self, name: str) -> bool: ...

    async def guard(self, name: str, victims: Sequence[tuple[str, int]], gate: int = -1) -> None:
        """Who stands still, and for how many ms at most, as soon as this standby is wanted.
        ``gate`` is the descriptor of the socket that it listens on; -1: as it was, or none."""

    async def activate(self, name: str) -> Woken:
        """It is wanted. Changes nothing when it is active already."""

    async def rest(self, name: str) -> None:
        """It is quiet, and waits to be wanted."""

    async def close(self) -> None: ...


class GpuReading(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One GPU at one instant; None where the device does not say."""

    index: int
    name: str = ""
    utilization_percent: float | None = None
    memory_used_mb: float | None = None
    memory_total_mb: float | None = None
    memory_bandwidth_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    ecc_errors_uncorrected: int | None = None


class Reading(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One node at one instant."""

    at_ms: int
    cpu_utilization_percent: float
    memory_used_mb: float
    memory_total_mb: float = 0.0
    network_tx_gbps: float = 0.0
    network_rx_gbps: float = 0.0
    disk_free_mb: float = 0.0
    load_1m: float = 0.0
    gpus: tuple[GpuReading, ...] = ()


class Telemetry(Protocol):
    """Measures this machine."""

    def capacity(self) -> Capacity:
        """What the machine really has."""

    def read(self, at_ms: int) -> Reading:
        """A snapshot now; cheap enough for 1 Hz. Rates are over the time since the last read."""

    def close(self) -> None: ...


class MarketFeed(Protocol):
    """Where prices, egress, latency and carbon come from."""

    def view(self) -> MarketView: ...


class QuoteFeed(Protocol):
    """A source of quotes, asked now and then. Waits, retries and sizes are bounded inside."""

    name: str
    """Also the ``source`` of its quotes."""

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        """All that it says now of what is wanted. ``OSError`` where nothing at all came."""

    async def close(self) -> None: ...
