"""The seeded world: federation, schedulers, agents and machines in simulated time.

One seed is one history, to the last byte. The machines are the production ones; only what lies
around them is played: clocks, networks, disks, processes, and the jobs that users bring.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from hyperion.control import cluster_laws
from hyperion.control import messages as m
from hyperion.control.agent import Agent, AgentTimes
from hyperion.control.cluster import ClusterMachine
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.control.uplink import ClusterTimes
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId, JobId, NodeId
from hyperion.model.node import CRIU, PAUSE, Node
from hyperion.model.resources import Capacity
from hyperion.placement import ranking
from hyperion.sim import checkers, library, tides, varied
from hyperion.sim.faults import CALM, Faults
from hyperion.sim.fleet import Execution, Host
from hyperion.sim.geography import MARKET, REGIONS
from hyperion.sim.network import Network, from_cluster, from_node
from hyperion.sim.posts import Posts
from hyperion.sim.process import Process
from hyperion.sim.savings import Savings
from hyperion.sim.stances import Stances
from hyperion.sim.workload import Arrival, Size, arrivals, urgent_arrivals

TICK_MS = 250
FAULTS_END_MS = 45_000
SETTLED_MS = FAULTS_END_MS + 15_000
"""By then everybody has noticed which sessions and leases have ended."""
GIVE_UP_MS = 600_000
"""Without faults everything converges long before this."""

_AGENT_TIMES = AgentTimes(resend_ms=1000, refresh_ms=5000, fence_before_ms=1000)
_CLUSTER_TIMES = ClusterTimes(
    node_lease_ms=6000,
    resend_ms=1000,
    refresh_ms=5000,
    silent_ms=15_000,
    fence_before_ms=1500,
)
_FEDERATION_TIMES = FederationTimes(
    cluster_lease_ms=10_000,
    node_lease_ms=6000,
    resend_ms=1000,
    silent_ms=15_000,
    reconsider_ms=2000,
    advise_ms=3000,
    migrate_ms=300,
    least_stay_ms=1000,
)


class World:
    def __init__(
        self,
        seed: int,
        faults: Faults = CALM,
        size: Size | None = None,
        check_every: int = 25,
    ) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.now_ms = 0
        self.steps = 0
        self.check_every = check_every
        self.executions: list[Execution] = []
        self.asked: dict[JobId, Arrival] = {}
        self.answered: set[tuple[str, JobId]] = set()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.network = Network(self)
        self.processes: dict[str, Process] = {}
        self.hosts: dict[str, Host] = {}
        self.capacities: dict[str, Capacity] = {}
        size = size or Size()
        self._build(size)
        urgent = partial(urgent_arrivals, by_itself=size.by_itself, gpus=size.gpus)
        bring = varied.arrivals if size.varied else urgent if size.urgent else arrivals
        came = bring(self.random, size.jobs, size.over_ms)
        came = library.reading(came, seed) if size.datasets else came
        for arrival in tides.wandering(came, seed) if size.tides else came:
            self.at(arrival.at_ms, self._asking(arrival))
        if size.tides:
            tides.Tides(self, seed)
        self.library = library.Library(self, seed) if size.datasets else None
        if size.varied:
            self._rule(size)
        self.posts = Posts(self, seed, 0 if faults == CALM else SETTLED_MS)
        self.stances = Stances(self)
        self.savings = Savings(self, seed, calm=faults == CALM)
        self._plan_faults()
        self.after(0, self._attend)

    def _attend(self) -> None:
        self.posts.turn()
        self.savings.turn()
        self.after(50, self._attend)

    # -- running --------------------------------------------------------------------------------

    def run(self) -> None:
        """Play until every job has ended, long after the faults have; then check all laws."""
        while self._heap and not self._over():
            self.now_ms, _, act = heapq.heappop(self._heap)
            assert self.now_ms < GIVE_UP_MS, f"not converged: {self._open()}"
            act()
        federation = self.federation
        checkers.ends_well(federation.state.jobs, self.asked, self.executions)
        checkers.only_by_right(self.processes.values(), self.asked)
        checkers.nobody_in_vain(self.processes.values(), self.faults == CALM)
        checkers.data_moved_once(self.processes["federation"], self.asked)
        for process in self.processes.values():
            self.check_recovery(process)

    def at(self, at_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(at_ms, self.now_ms), next(self._order), act))

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        self.at(self.now_ms + delay_ms, act)

    @property
    def federation(self) -> Federation:
        machine = self.processes["federation"].machine
        assert isinstance(machine, Federation)
        return machine

    def _open(self) -> list[str]:
        jobs = self.federation.state.jobs.values()
        return [f"{k.job.id}:{k.status}" for k in jobs if not k.status.phase.is_terminal]

    def _over(self) -> bool:
        if self.now_ms < FAULTS_END_MS or not all(p.alive for p in self.processes.values()):
            return False
        jobs = self.federation.state.jobs
        ended = all(id in jobs and jobs[id].status.phase.is_terminal for id in self.asked)
        return ended and not any(host.running for host in self.hosts.values())

    # -- the parts ------------------------------------------------------------------------------

    def _build(self, size: Size) -> None:
        self._add("federation", _federation(size.datasets))
        for c in range(size.clusters):
            cluster = Cluster(id=ClusterId(f"c{c}"), region=REGIONS[c % len(REGIONS)])
            self._add(cluster.id, _scheduler(cluster))
            self.network.connect(cluster.id, "federation")
            for n in range(size.nodes):
                gpus = self.random.choice((0, 4, 8)) if n else 8  # n0 can take any of the jobs
                node = Node(
                    id=NodeId(f"n{n}"),
                    capacity=Capacity(
                        gpus=gpus,
                        gpu_type="A100" if gpus else "",
                        cpus_milli=self.random.choice((4000, 16_000)) if n else 16_000,
                        memory_mib=16_384,
                        custom=(("fpga", 4),) if size.varied else (),
                    ),
                    labels={"zone": f"z{n % 2}", "rack": f"r{n}"} if size.varied else {},
                    usd_per_hour=self.random.uniform(0.5, 30.0),
                    abilities=dict.fromkeys((PAUSE, CRIU), "simulated") if n % 4 != 3 else {},
                )
                name = f"{cluster.id}/{node.id}"
                self.hosts[name] = Host(name)
                self.capacities[name] = node.capacity
                self._add(name, _agent(node))
                self.network.connect(name, cluster.id)
                self._watch_dead_man(name)

    def _rule(self, size: Size) -> None:
        """Queues and windows, as an operator would set them up."""
        nodes = [NodeId(f"n{n}") for n in range(size.nodes)]
        for c in range(size.clusters):
            process = self.processes[f"c{c}"]
            self._insist(process, m.QueuesApplied(queues=varied.QUEUES, token=3))
            for at_ms, window in varied.windows(self.random, nodes, size.over_ms):
                local = replace(
                    window,
                    begins_at_ms=process.local_ms(window.begins_at_ms),
                    ends_at_ms=process.local_ms(window.ends_at_ms),
                )
                wish = m.WindowApplied(window=local, token=4)
                self.at(at_ms, partial(self.deliver, process, wish))

    def _insist(self, process: Process, event: Any) -> None:
        """Say it again until a machine that lived on has kept it."""
        machine = process.machine
        kept = isinstance(machine, ClusterMachine) and machine.state.queues
        if self.now_ms < FAULTS_END_MS and not kept:
            self.deliver(process, event)
            self.after(700, partial(self._insist, process, event))

    def _add(self, name: str, make: Callable[[], Any]) -> None:
        drift = self.faults.drift
        process = Process(
            name,
            make,
            self._perform,
            rate=1 + self.random.uniform(-drift, drift),
            offset_ms=self.random.randrange(10_000),
        )
        self.processes[name] = process
        self._start(process)
        self._ticking(process, self.random.randrange(TICK_MS))

    def _start(self, process: Process) -> None:
        host = self.hosts.get(process.name)
        if process.alive or (host is not None and not host.powered):
            return
        process.start(self.now_ms)
        local_ms = process.local_ms(self.now_ms)
        if process.lease_until_ms is not None:
            remaining_ms = int((process.lease_until_ms - self.now_ms) * process.rate)
            process.machine.handle(m.LeaseRecovered(remaining_ms=remaining_ms), local_ms)
        process.carry([process.machine.resume(local_ms)], 0)

    def _ticking(self, process: Process, delay_ms: int) -> None:
        def tick() -> None:
            self.deliver(process, m.Tick())
            self.after(TICK_MS, tick)

        self.after(delay_ms, tick)

    def deliver(self, process: Process, event: Any) -> None:
        if not process.alive:
            return
        process.step(event, self.now_ms, self._fate)
        self.steps += 1
        if self.check_every and self.steps % self.check_every == 0:
            self.check(process)
        if not process.alive:
            self._died(process)

    def _fate(self) -> int:
        faulty = self.faults.crash_in_step and self.now_ms < FAULTS_END_MS
        if faulty and self.random.random() < self.faults.crash_in_step:
            return self.random.choice((1, 2))
        return 0

    def _died(self, process: Process) -> None:
        self.network.process_died(process.name)
        down_ms = 50 + self.random.randrange(int(1000 * self.faults.down_s_max))
        self.after(down_ms, lambda: self._start(process))

    # -- laws -----------------------------------------------------------------------------------

    def check(self, process: Process) -> None:
        machine = process.machine
        if process.alive and isinstance(machine, Federation | ClusterMachine):
            machine.state.check()
        if process.alive and isinstance(machine, ClusterMachine) and not machine.wants_round:
            cluster_laws.check_settled(machine.state)

    def check_recovery(self, process: Process) -> None:
        """What a restart would find is what the machine holds now."""
        fresh = process.make()
        fresh.restore(sorted(process.disk.items()), process.local_ms(self.now_ms))
        assert checkers.kept(fresh) == checkers.kept(process.machine), (
            f"{process.name}: recovered is not live"
        )

    # -- commands -------------------------------------------------------------------------------

    def _perform(self, process: Process, command: Any) -> None:
        name = process.name
        match command:
            case m.SendToCluster(cluster, message):
                self.network.send_down(cluster, message)
            case m.SendToNode(node, message):
                self.network.send_down(f"{name}/{node}", message)
            case m.SendToFederation(message):
                self.network.send_up(name, from_cluster(ClusterId(name), message))
            case m.SendToScheduler(message):
                self.network.send_up(name, from_node(NodeId(name.partition("/")[2]), message))
            case m.DisconnectNode(node):
                self.network.cut(f"{name}/{node}")
            case m.DisconnectCluster(cluster):
                self.network.cut(cluster)
            case m.HaulCopy() if self.library is not None:
                self.library.haul(command)
            case m.KeepLease(remaining_ms):
                process.lease_until_ms = self.now_ms + int(remaining_ms / process.rate)
            case m.Answer(token, job, error):
                self.answered.add(("submit" if token == 1 else "cancel", job))
                if error and token == 1:  # what it depends on has ended otherwise, or is unknown
                    self.asked.pop(job, None)
            case _:
                self._on_host(process, command)

    def _on_host(self, agent: Process, command: Any) -> None:
        host, incarnation = self.hosts[agent.name], agent.incarnation

        def tell(event: Any, delay_ms: int) -> None:
            def arrive() -> None:
                if agent.incarnation == incarnation:
                    self.deliver(agent, event)

            self.after(delay_ms, arrive)

        soon_ms = self.random.randrange(1, 20)
        match command:
            case m.PrepareReplica(order):
                port = self.random.randrange(20_000, 60_000)
                ready = m.ReplicaPrepared(
                    allocation=order.allocation, address="127.0.0.1", port=port
                )
                tell(ready, soon_ms)
            case m.LaunchReplica(order):
                # The shim claims a moment later, whether its agent still lives or not.
                self.after(soon_ms, lambda: self._claim(host, order, tell))
            case m.KillReplica(allocation, grace_ms):
                host.claims.add(allocation)
                host.stopping.add(allocation)
                self.stances.take_back(allocation)
                took_ms = self.random.randrange(1, max(2, grace_ms))
                self.after(took_ms, lambda: self._killed(host, allocation, tell))
            case m.PauseReplica():
                self.after(soon_ms, lambda: self.stances.pause(host, command, tell))
            case m.ResumeReplica(allocation):
                self.after(soon_ms, lambda: self.stances.resume(host, allocation, tell))
            case m.InspectReplica(allocation):
                self.stances.inspect(host, allocation, tell, soon_ms)
            case m.GuardReplica(guard):
                self.posts.guard(guard)

    def _claim(self, host: Host, order: m.Run, tell: Callable[[Any, int], None]) -> None:
        id = order.allocation
        if not host.powered:
            return
        arrival = self.asked[order.job.id]
        code = arrival.exit_codes[min(order.attempt, len(arrival.exit_codes)) - 1]
        execution = host.launch(order, self.now_ms, arrival.runs_ms, code)
        if execution is not None:
            self.executions.append(execution)
            checkers.whole_gang(order)
            self.savings.starts(order)
            checkers.within_capacity(host, self.capacities[host.name])
            self.at(execution.ends_ms, lambda: self.ended(host, id, tell))
        if id in host.running:
            started_ms = host.running[id].started_ms
            tell(m.ReplicaStarted(allocation=id, pid=1, started_at_ms=started_ms), 1)
        else:
            tell(host.exit_of(order.allocation), 1)

    def ended(self, host: Host, id: Any, tell: Callable[[Any, int], None]) -> None:
        execution = host.running.get(id)
        if execution is None or host.is_still(id) or self.now_ms < execution.ends_ms:
            return  # it has stood still meanwhile, and ends later
        if host.end(id, self.now_ms):
            tell(host.exit_of(id), self.random.randrange(1, 20))
            agent = self.processes[host.name]
            self.after(25, lambda: self._noticed(agent, host, id))

    def _noticed(self, agent: Process, host: Host, id: Any) -> None:
        """An agent started since then has adopted it, and sees the exit too."""
        if agent.alive and isinstance(agent.machine, Agent):
            replica = agent.machine.replicas.get(id)
            if replica is not None and not replica.state.is_terminal and replica.pid:
                self.deliver(agent, host.exit_of(id))

    def _killed(self, host: Host, id: Any, tell: Callable[[Any, int], None]) -> None:
        host.kill(id, self.now_ms)
        tell(host.exit_of(id), 1)

    def _watch_dead_man(self, name: str) -> None:
        """What outlives the agent on each machine: no lease, no replicas."""

        def look() -> None:
            until_ms = self.processes[name].lease_until_ms
            if until_ms is not None and self.now_ms >= until_ms:
                for allocation in list(self.hosts[name].running):
                    self.hosts[name].kill(allocation, self.now_ms)
            self.after(200, look)  # a second, and leases five times as long, on a real machine

        self.after(200, look)

    # -- users ----------------------------------------------------------------------------------

    def _asking(self, arrival: Arrival) -> Callable[[], None]:
        job = arrival.job

        def ask() -> None:
            if ("submit", job.id) not in self.answered:
                self.asked[job.id] = arrival
                self.deliver(self.processes["federation"], m.JobSubmitted(job=job, token=1))
                self.after(1500, ask)

        def cancel() -> None:
            if ("submit", job.id) not in self.answered:
                self.after(500, cancel)
            elif ("cancel", job.id) not in self.answered:
                event = m.JobCancelRequested(job=job.id, by="sim", token=2)
                self.deliver(self.processes["federation"], event)
                self.after(1500, cancel)

        if arrival.cancel_at_ms is not None:
            self.at(arrival.cancel_at_ms, cancel)
        return ask

    # -- misfortune -----------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        f = self.faults
        names = sorted(self.processes)
        for at_ms in self._times(f.kill_mean_s):
            self.at(at_ms, partial(self._kill, self.random.choice(names)))
        for at_ms in self._times(f.partition_mean_s):
            child = self.random.choice([n for n in names if n != "federation"])
            until_ms = at_ms + self.random.randrange(int(1000 * f.partition_s_max))
            self.at(at_ms, self.network.partition(child, min(until_ms, FAULTS_END_MS)))
        for at_ms in self._times(f.node_death_mean_s):
            for name in self.random.sample(sorted(self.hosts), min(f.wave, len(self.hosts))):
                self.at(at_ms, partial(self._lose_power, name))

    def _times(self, mean_s: float) -> list[int]:
        out: list[int] = []
        at_s = self.random.expovariate(1 / mean_s) if mean_s else float("inf")
        while 1000 * at_s < FAULTS_END_MS:
            out.append(int(1000 * at_s))
            at_s += self.random.expovariate(1 / mean_s)
        return out

    def _kill(self, name: str) -> None:
        process = self.processes[name]
        if process.alive:
            process.kill()
            self._died(process)

    def _lose_power(self, name: str) -> None:
        host, agent = self.hosts[name], self.processes[name]
        if not host.powered:
            return
        disk_too = self.random.random() < self.faults.disk_loss
        host.lose_power(self.now_ms, disk_too)
        if disk_too:
            agent.disk.clear()
            agent.lease_until_ms = None
        if agent.alive:
            agent.kill()
            self.network.process_died(name)

        def back() -> None:
            host.powered = True
            self._start(agent)

        longest_ms = int(10_000 * self.faults.down_s_max)
        self.at(min(self.now_ms + self.random.randrange(longest_ms), FAULTS_END_MS), back)


def _federation(replicates: bool) -> Callable[[], Federation]:
    return lambda: Federation(MARKET, "balanced", _FEDERATION_TIMES, replicates=replicates)


def _scheduler(cluster: Cluster) -> Callable[[], ClusterMachine]:
    return lambda: ClusterMachine(cluster, ranking.policy("pack"), _CLUSTER_TIMES)


def _agent(node: Node) -> Callable[[], Agent]:
    return lambda: Agent(node, _AGENT_TIMES)
