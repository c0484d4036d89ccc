"""Machines of the seeded world: the replicas on them run on when their agent dies."""

from msgspec import Struct

from hyperion.control import messages as m
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.resources import ResourceRequest


class Execution(Struct):
    """One replica that really ran: the truth that the machines' beliefs are checked against."""

    allocation: AllocationId
    job: JobId
    rank: int
    node: str
    started_ms: int
    ends_ms: int
    exit_code: int
    ended_ms: int | None = None
    killed: bool = False
    request: ResourceRequest = ResourceRequest()
    devices: tuple[int, ...] = ()
    still_since_ms: int | None = None
    """It stands still since then."""
    hold_ends_ms: int = 0
    """When it goes on by itself."""
    let_go: bool = False
    """It has gone on by itself, at the end of its hold: nobody had told it to."""
    lends: bool = False
    """It is a standby: its CPUs are others' for as long as it is not wanted."""
    priority: int = 0
    yields_gpus: bool = False
    """It makes way on a GPU that it shares with a standby."""
    disk: int = 0
    """Which disk of the host it ran on: an empty one knows of no earlier claims."""


class Host:
    """A machine with power and a disk. A claim is made once per allocation, for ever."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.powered = True
        self.disk = 0
        self.claims: set[AllocationId] = set()
        self.running: dict[AllocationId, Execution] = {}
        self.stopping: set[AllocationId] = set()
        """Told to end, and taking their grace for it."""
        self.exits: dict[AllocationId, int] = {}
        """Exit codes written by replicas that ended by themselves."""

    def launch(self, order: m.Run, now_ms: int, runs_ms: int, exit_code: int) -> Execution | None:
        """Start it, unless it was ever claimed."""
        if order.allocation in self.claims:
            return None
        self.claims.add(order.allocation)
        execution = Execution(
            order.allocation,
            order.job.id,
            order.rank,
            self.name,
            now_ms,
            now_ms + runs_ms,
            exit_code,
            request=order.request,
            devices=order.devices,
            lends=order.job.standby is not None,
            priority=order.job.priority,
            yields_gpus=order.job.yields_gpus and order.job.can_stand_still,
            disk=self.disk,
        )
        self.running[order.allocation] = execution
        return execution

    def pause(self, allocation: AllocationId, now_ms: int, hold_ms: int) -> bool:
        """Whether it stands still now."""
        execution = self.running.get(allocation)
        if execution is None:
            return False
        if execution.still_since_ms is None:
            execution.still_since_ms = now_ms
        execution.hold_ends_ms = now_ms + hold_ms
        execution.let_go = False
        return True

    def resume(self, allocation: AllocationId, now_ms: int) -> Execution | None:
        """The replica that goes on, having stood still until now."""
        execution = self.running.get(allocation)
        if execution is None or execution.still_since_ms is None:
            return None
        execution.ends_ms += now_ms - execution.still_since_ms
        execution.still_since_ms = None
        return execution

    def is_still(self, allocation: AllocationId) -> bool:
        execution = self.running.get(allocation)
        return execution is not None and execution.still_since_ms is not None

    def end(self, allocation: AllocationId, now_ms: int) -> bool:
        """Its time is up: it ends by itself, if it still runs."""
        execution = self.running.pop(allocation, None)
        if execution is None:
            return False
        execution.ended_ms = now_ms
        self.exits[allocation] = execution.exit_code
        return True

    def kill(self, allocation: AllocationId, now_ms: int) -> bool:
        """End it by force, and make sure that it can never start. Whether it was running."""
        self.claims.add(allocation)
        execution = self.running.pop(allocation, None)
        if execution is None:
            return False
        execution.ended_ms = now_ms
        execution.killed = True
        return True

    def exit_of(self, allocation: AllocationId) -> m.ReplicaExited:
        """What its agent is told once it has ended."""
        code = self.exits.get(allocation)
        return m.ReplicaExited(allocation=allocation, exit_code=code, by_itself=code is not None)

    def lose_power(self, now_ms: int, disk_too: bool) -> None:
        self.powered = False
        for allocation in list(self.running):
            self.kill(allocation, now_ms)
        if disk_too:
            self.disk += 1
            self.claims.clear()
            self.exits.clear()
