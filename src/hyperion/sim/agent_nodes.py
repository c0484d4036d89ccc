"""Nodes with faults: production agents on machines that lose power, links that lose messages.

The mixtures of ``faults`` are made for worlds that last a minute. Here the same misfortunes strike
more rarely and last longer, so that days can pass: means are for eight machines, times ``RARER``;
outages last ``LONGER`` times as long. They end with the last arrival; then everything can converge.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from hyperion.control import messages as m
from hyperion.control.agent import Agent, AgentTimes
from hyperion.control.uplink import ClusterTimes
from hyperion.model.ids import AllocationId, NodeId
from hyperion.model.node import Node
from hyperion.placement.ranking import Policy
from hyperion.sim.cluster_world import ClusterWorld
from hyperion.sim.faults import Faults
from hyperion.sim.fleet import Host
from hyperion.sim.network import from_node
from hyperion.sim.process import Process
from hyperion.sim.trace import Trace, TraceJob
from hyperion.sim.work import Piece

RARER = 600
LONGER = 30
RARER_IN_STEP = 100
"""Deaths in the middle of a step, of which there are many more in a day than in a minute."""
SHARE = 8
"""The mixtures' means are those of a world with about so many machines."""
BEAT_MS = 30_000
REDIAL_MS = 5000
KEEPALIVE_MS = 20_000
"""How long a silent link lives before its ends notice."""
AGENT_TIMES = AgentTimes(
    heartbeat_ms=BEAT_MS, resend_ms=60_000, refresh_ms=1_800_000, fence_before_ms=20_000
)
CLUSTER_TIMES = ClusterTimes(
    node_lease_ms=180_000,
    resend_ms=60_000,
    refresh_ms=1_800_000,
    silent_ms=4_000_000,
)
TICK_MS = (20_000, 20_000)
"""Of the scheduler, while something waits and while nothing does: it looks after leases."""


def faulty_world(
    trace: Trace, nodes: Sequence[Node], policy: Policy, faults: Faults, seed: int
) -> ClusterWorld:
    """A cluster whose scheduler, agents, machines and links fail as the mixture says."""
    return ClusterWorld(
        trace,
        nodes,
        policy,
        far_end=lambda world: AgentNodes(world, faults, seed),
        times=CLUSTER_TIMES,
        tick_ms=TICK_MS,
        faulty=True,
    )


class Tie(Struct):
    """One agent, its machine, and its session with the scheduler."""

    node: Node
    process: Process
    host: Host
    session: int = 0
    is_open: bool = False
    incarnation: int = 0
    cut_until_ms: int = 0


class AgentNodes:
    def __init__(self, world: ClusterWorld, faults: Faults, seed: int) -> None:
        self._world = world
        self._faults = faults
        self._dice = random.Random(seed)
        self._ends_ms = world.trace.span_ms
        self._ties: dict[NodeId, Tie] = {}
        self._pieces: dict[AllocationId, tuple[Piece, TraceJob, int]] = {}

    # -- what the world asks of its far end -----------------------------------------------------

    def begin(self) -> None:
        drift = self._faults.drift
        for node in self._world.nodes:
            rate = 1 + self._dice.uniform(-drift, drift)
            offset_ms = self._dice.randrange(10_000)
            process = Process(node.id, _maker(node), self._perform, rate, offset_ms)
            self._ties[node.id] = Tie(node, process, Host(node.id))
            self._start(self._ties[node.id])
            self._beat(self._ties[node.id], self._dice.randrange(BEAT_MS))
        self._plan()

    def order(self, node: NodeId, message: m.NodeOrder) -> None:
        self._send(self._ties[node], message, up=False)

    def disconnect(self, node: NodeId) -> None:
        self._close(self._ties[node], 1)

    def fate(self) -> int:
        """Of the process that is about to keep and act: 0 live, 1 die before, 2 die between."""
        chance = self._faults.crash_in_step / RARER_IN_STEP
        if self._striking and chance and self._dice.random() < chance:
            return self._dice.choice((1, 2))
        return 0

    def scheduler_died(self) -> int:
        """All sessions end; how long it stays away, in ms."""
        for tie in self._ties.values():
            if tie.is_open:
                tie.is_open = False
                tie.session += 1
                self._world.after(REDIAL_MS, partial(self._dial, tie))
        return self._down_ms()

    # -- links ----------------------------------------------------------------------------------

    def _dial(self, tie: Tie) -> None:
        world = self._world
        away = not world.is_up or world.now_ms < tie.cut_until_ms
        if tie.is_open or not tie.process.alive:
            return
        if away:
            world.after(REDIAL_MS, lambda: self._dial(tie))
            return
        tie.session += 1
        tie.is_open = True
        tie.incarnation = tie.process.incarnation
        self._deliver(tie, m.SchedulerAttached())

    def _close(self, tie: Tie, notice_ms: int) -> None:
        """The session ends; the scheduler notices a moment later, the agent dials again."""
        if not tie.is_open:
            return
        tie.is_open = False
        self._deliver(tie, m.SchedulerDetached())
        session, node = tie.session, tie.node.id

        def tell() -> None:
            if tie.session == session:
                self._world.hear(m.NodeDetached(node=node))

        self._world.after(notice_ms, tell)
        self._world.after(REDIAL_MS, lambda: self._dial(tie))

    def _send(self, tie: Tie, message: Any, up: bool) -> None:
        if not tie.is_open or (self._striking and self._dice.random() < self._faults.drop):
            return
        copies = 2 if self._striking and self._dice.random() < self._faults.double else 1
        session = tie.session
        for _ in range(copies):
            delay_ms = 1 + self._dice.randrange(self._faults.delay_ms_max + 1)
            self._world.after(delay_ms, lambda: self._arrive(tie, session, message, up))

    def _arrive(self, tie: Tie, session: int, message: Any, up: bool) -> None:
        if session != tie.session or not tie.is_open or self._world.now_ms < tie.cut_until_ms:
            return
        if up:
            self._world.hear(from_node(tie.node.id, message))
        elif tie.process.incarnation == tie.incarnation:
            self._deliver(tie, message)

    # -- agents ---------------------------------------------------------------------------------

    def _start(self, tie: Tie) -> None:
        process, world = tie.process, self._world
        if process.alive or not tie.host.powered:
            return
        process.start(world.now_ms)
        local_ms = process.local_ms(world.now_ms)
        if process.lease_until_ms is not None:
            remaining_ms = int((process.lease_until_ms - world.now_ms) * process.rate)
            process.machine.handle(m.LeaseRecovered(remaining_ms=remaining_ms), local_ms)
        process.carry([process.machine.resume(local_ms)], 0)
        self._dial(tie)

    def _beat(self, tie: Tie, delay_ms: int) -> None:
        def tick() -> None:
            self._deliver(tie, m.Tick())
            until_ms = tie.process.lease_until_ms
            if until_ms is not None and self._world.now_ms >= until_ms:
                for allocation in list(tie.host.running):  # the dead-man: no lease, no replicas
                    self._kill(tie, allocation)
            self._world.after(BEAT_MS // 3, tick)

        self._world.after(delay_ms, tick)

    def _deliver(self, tie: Tie, event: Any) -> None:
        process = tie.process
        if not process.alive:
            return
        process.step(event, self._world.now_ms, self.fate)
        if not process.alive:
            self._died(tie)

    def _died(self, tie: Tie) -> None:
        self._close(tie, 1 + self._dice.randrange(50))
        self._world.after(self._down_ms(), lambda: self._start(tie))

    def _perform(self, process: Process, command: Any) -> None:
        tie = self._ties[NodeId(process.name)]
        soon_ms = self._dice.randrange(1, 20)
        match command:
            case m.SendToScheduler(message):
                self._send(tie, message, up=True)
            case m.KeepLease(remaining_ms):
                process.lease_until_ms = self._world.now_ms + int(remaining_ms / process.rate)
            case m.PrepareReplica(order):
                port = self._dice.randrange(20_000, 60_000)
                ready = m.ReplicaPrepared(
                    allocation=order.allocation, address="10.0.0.1", port=port
                )
                self._tell(tie, ready, soon_ms)
            case m.LaunchReplica(order):
                # The shim claims a moment later, whether its agent still lives or not.
                self._world.after(soon_ms, lambda: self._claim(tie, order))
            case m.KillReplica(allocation, grace_ms):
                tie.host.claims.add(allocation)
                took_ms = self._dice.randrange(1, max(2, grace_ms))
                self._world.after(took_ms, lambda: self._killed(tie, allocation))
            case m.PauseReplica(allocation, hold_ms):
                self._world.after(soon_ms, lambda: self._pause(tie, allocation, hold_ms))
            case m.ResumeReplica(allocation):
                self._world.after(soon_ms, lambda: self._resume(tie, allocation, ""))
            case m.InspectReplica(allocation):
                still = tie.host.is_still(allocation)
                kind = m.ReplicaPaused if still else m.ReplicaResumed
                self._tell(tie, kind(allocation), soon_ms)
            case m.DropReplica() | m.GuardReplica():
                pass  # in a trace no standby is ever wanted
            case _:
                raise TypeError(command)

    def _pause(self, tie: Tie, id: AllocationId, hold_ms: int) -> None:
        if self._dice.random() < self._faults.unpausable:
            self._tell(tie, m.ReplicaResumed(id, "its processes did not stand still"), 1)
        elif tie.host.pause(id, self._world.now_ms, hold_ms):
            self._stand(id, still=True)
            self._tell(tie, m.ReplicaPaused(id), 1)
            self._world.after(hold_ms, lambda: self._let_go(tie, id))

    def _let_go(self, tie: Tie, id: AllocationId) -> None:
        execution = tie.host.running.get(id)
        if execution is None or execution.hold_ends_ms > self._world.now_ms:
            return
        if tie.host.is_still(id):
            execution.let_go = True
            self._resume(tie, id, "its hold has ended")

    def _resume(self, tie: Tie, id: AllocationId, reason: str) -> None:
        if tie.host.resume(id, self._world.now_ms) is not None:
            self._stand(id, still=False)
        if id in tie.host.running:
            self._tell(tie, m.ReplicaResumed(id, reason), 1)

    def _stand(self, id: AllocationId, still: bool) -> None:
        piece, job, _ = self._pieces[id]
        if self._world.works.stand(piece, id, self._world.now_ms, still):
            self._foresee(piece, job)

    def _tell(self, tie: Tie, event: Any, delay_ms: int) -> None:
        incarnation = tie.process.incarnation

        def arrive() -> None:
            if tie.process.incarnation == incarnation:
                self._deliver(tie, event)

        self._world.after(delay_ms, arrive)

    # -- machines -------------------------------------------------------------------------------

    def _claim(self, tie: Tie, order: m.Run) -> None:
        id, world, host = order.allocation, self._world, tie.host
        if not host.powered:
            return
        if host.launch(order, world.now_ms, 0, 0) is not None:
            job = world.job(order.job.id)
            piece = world.works.join(job, order.rank, id, world.now_ms)
            self._pieces[id] = (piece, job, order.rank)
            self._foresee(piece, job)
        if id in host.running:
            started_ms = host.running[id].started_ms
            self._tell(tie, m.ReplicaStarted(allocation=id, pid=1, started_at_ms=started_ms), 1)
        else:
            self._tell(tie, host.exit_of(id), 1)

    def _foresee(self, piece: Piece, job: TraceJob) -> None:
        ends_ms = piece.ends_ms(self._world.now_ms)
        if ends_ms is not None:
            turn = piece.turn
            self._world.at(ends_ms, lambda: self._end(piece, job, turn))

    def _end(self, piece: Piece, job: TraceJob, turn: int) -> None:
        if piece.turn != turn:
            return
        world = self._world
        code = job.exit_codes[min(piece.starts, len(job.exit_codes)) - 1]
        ran = world.works.finish(piece, world.now_ms)
        if code:
            world.works.again(piece)
        for tie, id in self._places(ran):
            tie.host.running[id].exit_code = code
            tie.host.end(id, world.now_ms)
            self._tell(tie, tie.host.exit_of(id), self._dice.randrange(1, 20))
            world.after(25, partial(self._noticed, tie, id))

    def _places(self, ran: list[AllocationId]) -> list[tuple[Tie, AllocationId]]:
        """Where those that still run do so."""
        ties = self._ties.values()
        return [(tie, id) for id in ran for tie in ties if id in tie.host.running]

    def _noticed(self, tie: Tie, id: AllocationId) -> None:
        """An agent started since then has adopted it, and sees the exit too."""
        agent = tie.process.machine
        if tie.process.alive and isinstance(agent, Agent):
            replica = agent.replicas.get(id)
            if replica is not None and not replica.state.is_terminal and replica.pid:
                self._deliver(tie, tie.host.exit_of(id))

    def _killed(self, tie: Tie, id: AllocationId) -> None:
        self._kill(tie, id)
        self._tell(tie, tie.host.exit_of(id), 1)

    def _kill(self, tie: Tie, id: AllocationId, abrupt: bool = False) -> None:
        world = self._world
        if not tie.host.kill(id, world.now_ms):
            return
        piece, job, rank = self._pieces.pop(id)
        lost_ms = world.works.leave(job, rank, id, world.now_ms, abrupt)
        if lost_ms:
            world.recorder.lost_work(job.job.id, lost_ms)
        self._foresee(piece, job)

    # -- misfortune -----------------------------------------------------------------------------

    @property
    def _striking(self) -> bool:
        return self._world.now_ms < self._ends_ms

    def _down_ms(self) -> int:
        return 1000 + self._dice.randrange(int(1000 * LONGER * self._faults.down_s_max))

    def _plan(self) -> None:
        f = self._faults
        self._strike(f.kill_mean_s, self._kill_daemon)
        self._strike(f.partition_mean_s, self._partition)
        self._strike(f.node_death_mean_s, self._lose_power)

    def _strike(self, mean_s: float, act: Callable[[], None]) -> None:
        """Do it now and then, until the faults end."""
        if not mean_s:
            return
        mean_ms = 1000 * mean_s * RARER * SHARE / max(1, len(self._ties))

        def strike() -> None:
            if self._striking:
                act()
                self._world.after(int(self._dice.expovariate(1 / mean_ms)), strike)

        self._world.after(int(self._dice.expovariate(1 / mean_ms)), strike)

    def _kill_daemon(self) -> None:
        n = self._dice.randrange(len(self._ties) + 1)
        if n == len(self._ties):
            self._world.crash()
            return
        tie = list(self._ties.values())[n]
        if tie.process.alive:
            tie.process.kill()
            self._died(tie)

    def _partition(self) -> None:
        tie = self._dice.choice(list(self._ties.values()))
        longest_ms = int(1000 * LONGER * self._faults.partition_s_max)
        tie.cut_until_ms = self._world.now_ms + self._dice.randrange(longest_ms)
        self._world.after(KEEPALIVE_MS, lambda: self._close(tie, 1))

    def _lose_power(self) -> None:
        ties = list(self._ties.values())
        for tie in self._dice.sample(ties, min(self._faults.wave, len(ties))):
            if tie.host.powered:
                self._power_off(tie)

    def _power_off(self, tie: Tie) -> None:
        world, process = self._world, tie.process
        disk_too = self._dice.random() < self._faults.disk_loss
        for id in list(tie.host.running):
            self._kill(tie, id, abrupt=True)
        tie.host.lose_power(world.now_ms, disk_too)
        if disk_too:
            process.disk.clear()
            process.lease_until_ms = None
        if process.alive:
            process.kill()
            self._close(tie, 1)

        def back() -> None:
            tie.host.powered = True
            self._start(tie)

        world.after(10 * self._down_ms(), back)


def _maker(node: Node) -> Callable[[], Any]:
    return lambda: Agent(node, AGENT_TIMES)
