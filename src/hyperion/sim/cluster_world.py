"""One cluster of any size in simulated time: the production machine, and its nodes played.

Only what happens is driven: arrivals, orders carried out, ends of work, and a tick of the clock
every so often. A thousand idle agents cost nothing.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.machine import Outcome
from hyperion.control.uplink import ClusterTimes
from hyperion.model.allocation import AllocationState
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId, JobId, NodeId
from hyperion.model.node import Node
from hyperion.placement.ranking import Policy
from hyperion.sim.fragmentation import shapes
from hyperion.sim.recorder import Recorder
from hyperion.sim.trace import Trace, TraceError, TraceJob, queues_of
from hyperion.sim.work import Piece, Works

FOREVER_MS = 1 << 50
QUIET_TICK_MS = 3 * 3_600_000
"""Between two ticks of the clock while nothing waits: ended jobs are forgotten."""
BUSY_TICK_MS = 600_000
"""While something waits: starts are promised then, and jobs that overrun make way. Moments that
are known beforehand get a tick of their own."""
ROUND_MS = 1000
"""Between two rounds at least, so that a burst is placed together; 2 ms in real life."""
ROUNDS_AT_ONCE = 10_000
"""A machine that still asks for rounds after so many at one moment never comes to an end."""
STUCK_MS = 4 * 3_600_000
"""Jobs that wait while nothing runs, comes, or becomes due are given up after so long."""
RESUBMIT_MS = 5000
"""Users whose scheduler is down try again."""
REPORT_EVERY = 256
"""Events between two looks at progress."""

CALM_TIMES = ClusterTimes(
    node_lease_ms=FOREVER_MS,
    heartbeat_ms=FOREVER_MS,
    load_ms=FOREVER_MS,
    resend_ms=FOREVER_MS,
    refresh_ms=FOREVER_MS,
    silent_ms=FOREVER_MS,
)
"""Where no message is lost and no node dies, leases need no renewal and orders no repetition."""


class Moment(Struct, frozen=True):
    """How far a world has come."""

    now_ms: int
    arrived: int
    waiting: int
    running: int
    ended: int
    events: int


class FarEnd(Protocol):
    """What lies beyond the scheduler: nodes that take orders and report."""

    def begin(self) -> None:
        """Attach every node."""

    def order(self, node: NodeId, message: m.NodeOrder) -> None:
        """An order leaves the scheduler."""

    def disconnect(self, node: NodeId) -> None:
        """The scheduler closes the node's session."""

    def fate(self) -> int:
        """Of the scheduler in this step: 0 it lives, 1 it dies before keeping what it decided, 2
        it dies before acting on it."""

    def scheduler_died(self) -> int:
        """Sessions end; how long it stays away, in ms."""


class ClusterWorld:
    """``play`` runs it; ``recorder`` has what happened."""

    def __init__(
        self,
        trace: Trace,
        nodes: Sequence[Node],
        policy: Policy,
        far_end: Callable[["ClusterWorld"], FarEnd] | None = None,
        times: ClusterTimes = CALM_TIMES,
        tick_ms: tuple[int, int] = (BUSY_TICK_MS, QUIET_TICK_MS),
        faulty: bool = False,
    ) -> None:
        self.trace = trace
        self.nodes = nodes
        self.now_ms = 0
        self.events = 0
        self.works = Works()
        self.recorder = Recorder(nodes, shapes(trace.jobs), trace.span_ms)
        self.never_ran: list[JobId] = []
        """Given up: nothing ran, nothing came, and they still did not fit."""
        self._by_id = {j.job.id: j for j in trace.jobs}
        self._tick_ms = tick_ms
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._to_come = len(trace.jobs)
        self._next_round_ms = 0
        self._round_planned = False
        self._moved_ms = 0
        """When something was last placed, ran, or was still to come."""
        self._due_ms = 0
        """The latest moment at which something is known to become possible."""
        self._faulty = faulty
        self._disk: dict[str, bytes] = {}
        """What the scheduler has kept; only where it may die."""
        self.is_up = True
        self._make = partial(ClusterMachine, Cluster(id=ClusterId("sim"), region=""), policy, times)
        self.machine = self._make()
        self.far_end: FarEnd = (far_end or PlayedNodes)(self)

    # -- running --------------------------------------------------------------------------------

    def play(self) -> Iterator[Moment]:
        """Run to the end, with a look at the progress now and then. May be left at any time."""
        self._open()
        self.hear(m.QueuesApplied(queues=queues_of(self.trace)))
        for window in self.trace.windows:
            self.hear(m.WindowApplied(window=window))
            self.tick_at(window.begins_at_ms)
            self.tick_at(window.ends_at_ms)
        self.far_end.begin()
        arrivals = iter(self.trace.jobs)
        self._expect(arrivals)
        self._tick()
        self._next_round_ms = 0  # nobody could have come before
        told = 0
        while self._heap and not self._over():
            now_ms = self._heap[0][0]
            self.now_ms = now_ms
            self.recorder.advance(now_ms)
            while self._heap and self._heap[0][0] == now_ms:
                heapq.heappop(self._heap)[2]()
            self._rounds()
            if self.events - told >= REPORT_EVERY:
                told = self.events
                yield self.moment()
        self.recorder.finish(self.now_ms)
        yield self.moment()

    def moment(self) -> Moment:
        r = self.recorder
        return Moment(self.now_ms, len(r.stories), r.waiting, r.active, r.ended, self.events)

    def at(self, at_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(at_ms, self.now_ms), next(self._order), act))

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        self.at(self.now_ms + delay_ms, act)

    def hear(self, event: Any) -> None:
        """One event through the machine; nobody hears it while that is down."""
        if self.is_up:
            self.events += 1
            self._carry(self.machine.handle(event, self.now_ms))

    def tick_at(self, at_ms: int) -> None:
        """The machine looks at its clock then, too."""
        self._due_ms = max(self._due_ms, at_ms)
        self.at(at_ms, lambda: self.hear(m.Tick()))

    def crash(self) -> None:
        """The scheduler dies, and comes back with what it had kept."""
        if not self.is_up:
            return
        self.is_up = False
        self.machine = self._make()

        def back() -> None:
            self.is_up = True
            self.machine.restore(sorted(self._disk.items()), self.now_ms)
            self._open()
            self._carry(self.machine.resume(self.now_ms))

        self.after(self.far_end.scheduler_died(), back)

    def job(self, id: JobId) -> TraceJob:
        return self._by_id[id]

    # -- inside ---------------------------------------------------------------------------------

    def _over(self) -> bool:
        r = self.recorder
        if self._to_come or r.active:
            return False
        if not r.waiting:
            return True
        if self.now_ms < max(self._moved_ms, self._due_ms) + STUCK_MS:
            return False
        self.never_ran = [id for id, s in r.stories.items() if s.ended_ms is None]
        return True

    def _expect(self, arrivals: Iterator[TraceJob]) -> None:
        """The next arrival, when its time comes; the heap never holds more than one of them."""
        job = next(arrivals, None)
        if job is None:
            return

        def arrive() -> None:
            if not self.is_up:
                self.after(RESUBMIT_MS, arrive)
                return
            self._to_come -= 1
            self.recorder.arrived(job, self.now_ms)
            self._submit(job)
            if job.cancel_after_ms:
                self.after(job.cancel_after_ms, lambda: self._cancel(job))
            for after_s in (job.job.begin_s, job.job.deadline_s):
                if after_s:
                    self.tick_at(self.now_ms + int(1000 * after_s))
            self._expect(arrivals)

        self.at(job.at_ms, arrive)

    def _submit(self, job: TraceJob) -> None:
        """Until the machine knows it: it may die before it has kept it."""
        self.hear(m.JobSubmitted(job=job.job))
        story = self.recorder.stories[job.job.id]
        if self._faulty and not (story.refused or self.recorder.is_known(job.job.id)):
            self.after(RESUBMIT_MS, lambda: self._submit(job))

    def _cancel(self, job: TraceJob) -> None:
        if self.recorder.stories[job.job.id].ended_ms is not None:
            return
        self.hear(m.JobCancelRequested(job=job.job.id, by=job.job.user))
        if self._faulty:
            self.after(RESUBMIT_MS, lambda: self._cancel(job))

    def _open(self) -> None:
        """There is no federation: its lease need not be renewed."""
        self.hear(m.LeaseRecovered(remaining_ms=FOREVER_MS))

    def _tick(self) -> None:
        r = self.recorder
        before = r.placements
        self.hear(m.Tick())
        self._rounds()
        if self._to_come or r.active or r.placements > before:
            self._moved_ms = self.now_ms
        busy_ms, quiet_ms = self._tick_ms
        self.after(busy_ms if r.waiting else quiet_ms, self._tick)

    def _rounds(self) -> None:
        """What waits is placed now, or as soon as a round is due again."""
        if not self.is_up or not self.machine.wants_round:
            return
        if self.now_ms < self._next_round_ms:
            if not self._round_planned:
                self._round_planned = True
                self.at(self._next_round_ms, self._wake)
            return
        self._next_round_ms = self.now_ms + ROUND_MS
        for _ in range(ROUNDS_AT_ONCE):
            if not self.is_up or not self.machine.wants_round:
                return
            self._carry(self.machine.round(self.now_ms))
        raise AssertionError(f"{ROUNDS_AT_ONCE} rounds at {self.now_ms} ms, and one more wanted")

    def _wake(self) -> None:
        self._round_planned = False  # the round itself follows the events of its moment

    def _carry(self, outcome: Outcome) -> None:
        """Keep, then act, as the driver of a real scheduler does."""
        self._perform(outcome.early)
        fate = self.far_end.fate() if self._faulty else 0
        if fate != 1:
            if self._faulty:
                self._keep()
            self._note(outcome)
        if fate:
            self.crash()
            return
        self._perform(outcome.commands)

    def _perform(self, commands: Iterable[Any]) -> None:
        for command in commands:
            kind = type(command)
            if kind is m.SendToNode:
                self.far_end.order(command.node, command.message)
            elif kind is m.DisconnectNode:
                self.far_end.disconnect(command.node)
            elif kind is m.Answer and command.error:
                self._refused(command)

    def _refused(self, answer: m.Answer) -> None:
        if answer.job:
            if answer.code == "conflict":
                self.recorder.refuse(answer.job, answer.error)
        elif answer.error:
            raise TraceError(f"{self.trace.name}: the scheduler refuses: {answer.error}")

    def _keep(self) -> None:
        for path, value in self.machine.writes().items():
            if value is None:
                self._disk.pop(path, None)
            else:
                self._disk[path] = value

    def _note(self, outcome: Outcome) -> None:
        for id in self.recorder.take(outcome.records):
            self.works.forget(self._by_id[id])
        for at_ms in self.recorder.due:
            self.tick_at(at_ms)
        self.recorder.due.clear()


class PlayedNodes:
    """Nodes without faults: orders are carried out at once, work ends when its time is up."""

    START_MS = 1000
    """From the order to run until the process runs."""
    STOP_MS = 1000
    """From the order to stop until it has ended, at most its grace."""

    def __init__(self, world: ClusterWorld) -> None:
        self._world = world
        self._replicas: dict[str, tuple[NodeId, m.Run | m.Prepare, int]] = {}
        """Node, newest order to run, newest generation."""
        self._running: set[str] = set()

    def fate(self) -> int:
        return 0

    def scheduler_died(self) -> int:
        raise AssertionError("without faults no scheduler dies")

    def begin(self) -> None:
        for node in self._world.nodes:
            self._world.hear(m.NodeAttached(hello=m.NodeHello(node=node)))

    def disconnect(self, node: NodeId) -> None:
        raise AssertionError(f"{node} was given up although it never fell silent")

    def order(self, node: NodeId, message: m.NodeOrder) -> None:
        match message:
            case m.Run(allocation, generation):
                self._replicas[allocation] = (node, message, generation)
                self._world.after(self.START_MS, lambda: self._start(message))
            case m.Prepare(allocation, generation):
                self._replicas[allocation] = (node, message, generation)
                self._world.after(0, lambda: self._tell(allocation, AllocationState.READY))
            case m.Stop(allocation, generation, grace_ms):
                self._stop(node, allocation, generation, grace_ms)
            case m.Pause(allocation, generation) | m.Resume(allocation, generation):
                self._stand(node, allocation, generation, type(message) is m.Pause)
            case m.Forget(allocation):
                self._replicas.pop(allocation, None)
            case m.Lease() | m.Guard():
                pass  # in a trace no standby is ever wanted
            case _:
                raise TypeError(message)

    def _start(self, order: m.Run) -> None:
        known = self._replicas.get(order.allocation)
        if known is None or known[2] != order.generation:
            return  # stopped before it ran
        world = self._world
        self._tell(order.allocation, AllocationState.RUNNING)
        self._running.add(order.allocation)
        job = world.job(order.job.id)
        self._foresee(world.works.join(job, order.rank, order.allocation, world.now_ms), job)

    def _stop(self, node: NodeId, id: str, generation: int, grace_ms: int) -> None:
        known = self._replicas.get(id)
        if known is None:
            return
        self._replicas[id] = (node, known[1], generation)
        delay_ms = min(self.STOP_MS, grace_ms) if id in self._running else 0
        self._world.after(delay_ms, lambda: self._stopped(id, generation))

    def _stand(self, node: NodeId, id: str, generation: int, still: bool) -> None:
        known = self._replicas.get(id)
        if known is None or id not in self._running:
            return
        self._replicas[id] = (node, known[1], generation)
        world, order = self._world, known[1]
        job = world.job(order.job.id)
        piece = world.works.piece(job, order.rank)
        if world.works.stand(piece, order.allocation, world.now_ms, still):
            self._foresee(piece, job)
        state = AllocationState.PAUSED if still else AllocationState.RUNNING
        world.after(1, lambda: self._tell_if_newest(id, generation, state))

    def _tell_if_newest(self, id: str, generation: int, state: AllocationState) -> None:
        known = self._replicas.get(id)
        if known is not None and known[2] == generation and id in self._running:
            self._tell(id, state)

    def _stopped(self, id: str, generation: int) -> None:
        known = self._replicas.get(id)
        if known is None or known[2] != generation:
            return
        if id in self._running:
            self._running.discard(id)
            world, order = self._world, known[1]
            job = world.job(order.job.id)
            lost_ms = world.works.leave(job, order.rank, order.allocation, world.now_ms, False)
            if lost_ms:
                world.recorder.lost_work(job.job.id, lost_ms)
            self._foresee(world.works.piece(job, order.rank), job)
        self._tell(id, AllocationState.STOPPED)

    def _foresee(self, piece: Piece, job: TraceJob) -> None:
        ends_ms = piece.ends_ms(self._world.now_ms)
        if ends_ms is not None:
            turn = piece.turn
            self._world.at(ends_ms, lambda: self._end(piece, job, turn))

    def _end(self, piece: Piece, job: TraceJob, turn: int) -> None:
        if piece.turn != turn:
            return
        code = job.exit_codes[min(piece.starts, len(job.exit_codes)) - 1]
        state = AllocationState.FAILED if code else AllocationState.SUCCEEDED
        ran = self._world.works.finish(piece, self._world.now_ms)
        if code:
            self._world.works.again(piece)
        for id in ran:
            self._running.discard(id)
            self._tell(id, state, code)

    def _tell(self, id: str, state: AllocationState, exit_code: int | None = None) -> None:
        known = self._replicas.get(id)
        if known is None:
            return
        now_ms = self._world.now_ms
        ended = state.is_terminal
        report = m.AllocationReport(
            allocation=known[1].allocation,
            generation=known[2],
            state=state,
            address="10.0.0.1",
            port=20_000,
            exit_code=0 if state is AllocationState.SUCCEEDED else exit_code,
            started_at_ms=now_ms if state is AllocationState.RUNNING else 0,
            ended_at_ms=now_ms if ended else 0,
        )
        self._world.hear(m.NodeReported(node=known[0], report=report))
