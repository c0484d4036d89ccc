"""h-scheduler: the scheduler of one cluster. Serves its agents, and attaches to its federation."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hyperion import __version__
from hyperion.adapters.link import services
from hyperion.adapters.link.downlinks import Downlinks
from hyperion.adapters.link.errors import LinkError
from hyperion.adapters.link.gate import Gate
from hyperion.adapters.link.server import LinkServer
from hyperion.adapters.link.streams import AGENTS, CLUSTERS
from hyperion.adapters.link.uplink import Uplink
from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.records import AllocationPlaced
from hyperion.control.uplink import ClusterTimes
from hyperion.daemon import plugins, views
from hyperion.daemon import questions as q
from hyperion.daemon.activation import Activation
from hyperion.daemon.application import Conflict, Exhausted, NotFound, Unavailable
from hyperion.daemon.bundles import Bundles
from hyperion.daemon.clock import WallClock
from hyperion.daemon.cluster_questions import ClusterQuestions, pieces
from hyperion.daemon.driver import Driver
from hyperion.daemon.heartbeats import Heartbeats
from hyperion.daemon.lease_file import LeaseFile
from hyperion.daemon.observe import start_logging
from hyperion.daemon.readiness import say_ready
from hyperion.daemon.running import CannotStart, run, together
from hyperion.daemon.settings import SchedulerSettings
from hyperion.daemon.starting import (
    TRANSLATION,
    listen,
    load_credentials,
    open_store,
    pace,
)
from hyperion.daemon.urgency import keep_hurrying
from hyperion.daemon.warming import Warming
from hyperion.model.allocation import AllocationState
from hyperion.model.checks import check
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId, JobId, NodeId, allocation_id
from hyperion.model.job import Job
from hyperion.model.queue import Queue
from hyperion.ports import Reading
from hyperion.wire import spec
from hyperion.wire.api import NodeView, Submitted
from hyperion.wire.codec import Unread, WireError
from hyperion.wire.queue_file import queues_from_yaml

_log = logging.getLogger("hyperion.scheduler")
EXCUSES_KEPT = 1000
LOGS_S = 30.0
TASK_S = 3.0
"""How long an agent may take to say whether it has the output of a task."""
NODES_ASKED_AT_ONCE = 64
STARTS_LOOKED_AT = 4
"""Of a task that was started again: the newest."""
"""How long an agent may take between pieces of output that is there already."""
_NOT_BEGUN = (AllocationState.PLACED, AllocationState.READY)


def main(settings: SchedulerSettings) -> int:
    """Run the scheduler until SIGTERM; its agents run on, and attach again to the next one."""
    start_logging(settings.log_level, settings.log_format, daemon="scheduler")
    return run(lambda stop: SchedulerDaemon(settings).serve(stop))


class SchedulerDaemon:
    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.clock = WallClock()
        self.directory = Path(settings.state_dir)
        self.credentials = load_credentials(Path(settings.credentials), "scheduler")
        self.cluster = Cluster(
            id=ClusterId(settings.cluster),
            region=settings.region,
            version=__version__,
            labels=dict(settings.labels),
        )
        times = ClusterTimes(
            node_lease_ms=settings.node_lease_ms,
            heartbeat_ms=settings.heartbeat_ms,
            resend_ms=settings.resend_ms,
            load_ms=settings.load_ms,
            report_ms=settings.report_ms,
            retention_ms=settings.retention_ms,
        )
        try:
            self.policy = plugins.watched(settings.policy, settings.policy_budget_ms)
        except ValueError as error:
            raise CannotStart(f"policy: {error}") from None
        self.queues = _queues(settings.queues)
        self.machine = ClusterMachine(self.cluster, self.policy, times)
        self.excuses: dict[JobId, tuple[str, ...]] = {}
        """Why ``balanced`` chose the nodes of a job; of the newest ones."""
        self.lease = LeaseFile(self.directory / "lease")
        self.readings: dict[NodeId, Reading | Unread] = {}
        self.warming = Warming()
        self.bundles = Bundles(self.directory / "bundles", self._fetch)
        self.uplink: Uplink | None = None
        self.port = 0

    async def serve(self, stop: asyncio.Event) -> None:
        settings = self.settings
        store = open_store(self.directory / "scheduler.db", settings)
        remaining_ms = self.lease.remaining_ms()
        if remaining_ms is not None:
            recovered = m.LeaseRecovered(remaining_ms=remaining_ms)
            self.machine.handle(recovered, self.clock.now_ms())
        self.driver = Driver(
            self.machine, store, self.clock, self._perform, pace(settings, settings.round_ms)
        )
        self.heartbeats = Heartbeats(self.driver.note)
        self.driver.recover()
        self.driver.subscribe(self._remember_excuse)
        self.questions = ClusterQuestions(
            self.machine, self.driver, self.clock, lambda job: self.excuses.get(job, ())
        )
        trust_domain = settings.trust_domain
        self.agents = Downlinks(
            AGENTS,
            trust_domain,
            settings.cluster,
            on_attached=self._agent_attached,
            on_message=self._agent_said,
            on_detached=self._agent_detached,
            translation=TRANSLATION,
        )
        self.agents.serve(q.BUNDLE, lambda _, body: self._bundle(body))
        gate = Gate(trust_domain, TRANSLATION)
        server = LinkServer(
            self.credentials,
            [
                self.agents.handler(),
                services.federation_scheduler(gate, self.submit),
                services.node_observer(gate, settings.cluster, self._measured),
                services.scheduler(gate, self),
            ],
        )
        port = await listen(server, settings.listen)
        works = [self.driver.run()]
        if settings.federation:
            self.uplink = self._uplink(settings.federation)
            works.append(self.uplink.run())
        self.port = port
        self._say(None if self.uplink is None else self.uplink.attached)
        applying = asyncio.create_task(self._apply_queues())
        hurrying = asyncio.create_task(keep_hurrying())
        try:
            await together(stop, *works)
        finally:
            applying.cancel()
            hurrying.cancel()
            await server.stop()
            store.close()

    async def _apply_queues(self) -> None:
        """The file's queues, where they are not there yet. What is refused is told in the log: the
        cluster goes on with the queues that it has."""
        here = {queue.name: queue for queue in self.machine.state.queues.values()}
        if not self.settings.queues or here == {queue.name: queue for queue in self.queues}:
            return
        try:
            await self.questions.apply(self.queues)
        except (Conflict, Exhausted, Unavailable) as error:
            _log.error("%s is not applied: %s", self.settings.queues, error)

    def _uplink(self, federation: str) -> Uplink:
        uplink = Uplink(
            CLUSTERS,
            federation,
            lambda: self.credentials,
            on_attached=self._attached,
            on_message=self.driver.note,
            on_detached=lambda: self._say(False),
            translation=TRANSLATION,
        )
        uplink.serve(q.NODES, self._answer_nodes)
        uplink.serve(q.CORDON, self._answer_cordon)
        uplink.serve(q.POLICIES, self._answer_policies)
        uplink.serve(q.LOGS, self._answer_logs)
        uplink.serve(q.ACTIVATE, Activation(self.machine, self.agents).answer)
        self.questions.serve(uplink)
        return uplink

    def _attached(self) -> None:
        self.driver.note(m.FederationAttached())
        self._say(True)

    def _say(self, attached: bool | None) -> None:
        say_ready(self.directory, port=self.port, attached=attached)

    # -- commands and events --------------------------------------------------------------------

    def _perform(self, command: m.ClusterCommand) -> None:
        match command:
            case m.SendToNode(node, message):
                self.agents.send(node, message)
            case m.SendToFederation(message):
                if self.uplink is not None:
                    self.uplink.send(message)
            case m.DisconnectNode(node):
                self.agents.disconnect(node, "your lease has ended; attach anew")
            case m.KeepLease(remaining_ms):
                self.lease.keep(remaining_ms)

    def _remember_excuse(self, _sequence: int, _at_ms: int, records: Sequence[Any]) -> None:
        """Which of the jobs placed just now were ranked by the policy's replacement."""
        for record in records:
            if isinstance(record, AllocationPlaced):
                job = record.allocation.job
                self.excuses.pop(job, None)
                if self.policy.excuse:
                    self.excuses[job] = self.policy.excuse
        while len(self.excuses) > EXCUSES_KEPT:
            del self.excuses[next(iter(self.excuses))]

    def _agent_attached(self, node: str, hello: m.NodeHello) -> None:
        self.heartbeats.drop(NodeId(node))
        if hello.node.declared and not self.settings.allow_declared:
            declared = ", ".join(hello.node.declared)
            _log.error(
                "node %s declares %s; this cluster takes real resources only", node, declared
            )
            self.agents.disconnect(
                node,
                f"declared resources ({declared}) are refused here; start the agent without"
                " --declare, or the scheduler with --allow-declared",
            )
            return
        self.driver.note(m.NodeAttached(hello=hello))
        self.warming.look(len(self.machine.state.nodes))

    def _agent_said(self, node: str, message: Any) -> None:
        match message:
            case m.AllocationReport():
                self.driver.note(m.NodeReported(node=NodeId(node), report=message))
            case m.NodeHeartbeat():
                self.heartbeats.take(m.NodeHeard(node=NodeId(node), heartbeat=message))
            case Unread():
                self._measured(node, message)

    def _agent_detached(self, node: str) -> None:
        self.heartbeats.drop(NodeId(node))
        self.driver.note(m.NodeDetached(node=NodeId(node)))

    def _measured(self, node: str, reading: Reading | Unread) -> None:
        if node in self.machine.state.nodes:
            self.readings[NodeId(node)] = reading

    def _reading(self, node: NodeId) -> Reading | None:
        """The newest one of the node, if it has sent any that the contract admits."""
        newest = self.readings.get(node)
        if isinstance(newest, Unread):
            try:
                return newest.read()
            except WireError as fault:
                _log.error("a reading of node %s was dropped: %s", node, fault)
                return None
        return newest

    # -- what the scheduler offers --------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        for job in jobs:
            faults = check(job)
            if faults:
                raise spec.refusal(job, faults)
        makes = [lambda token, job=job: m.JobSubmitted(job, token) for job in jobs]
        answers = await self.driver.ask_all(makes)
        return [Submitted(id=a.job, error=a.error, code=a.code) for a in answers]

    async def nodes(self, cluster: str = "") -> list[NodeView]:
        if cluster not in ("", self.cluster.id):
            raise NotFound(f"this is cluster {self.cluster.id}, not {cluster}")
        return [self._node_view(node) for node in self.machine.state.nodes]

    async def cordon(self, node: str, cordon: bool, drain: bool) -> NodeView:
        name = NodeId(node.rpartition("/")[2])
        answer = await self.driver.ask(
            lambda token: m.CordonRequested(node=name, cordon=cordon, drain=drain, token=token)
        )
        if answer.error:
            raise NotFound(
                f"{answer.error} in cluster {self.cluster.id}; hyperion nodes lists them"
            )
        return self._node_view(name)

    def _node_view(self, node: NodeId) -> NodeView:
        state = self.machine.state
        entry = state.nodes[node]
        free = None if entry.lost else state.snapshot.free(node)
        return views.node_view(
            self.cluster,
            entry,
            free,
            len(state.live_on(node)),
            self.machine.peers.get(node),
            None if entry.lost else self._reading(node),
            self.clock.now_ms(),
        )

    # -- what the federation asks ---------------------------------------------------------------

    async def _answer_nodes(self, _: bytes) -> AsyncIterator[bytes]:
        for piece in pieces(await self.nodes()):
            yield piece

    async def _answer_cordon(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.Cordon)
        yield msgspec.json.encode(await self.cordon(asked.node, asked.cordon, asked.drain))

    async def _answer_policies(self, _: bytes) -> AsyncIterator[bytes]:
        rows = [views.policy_view(self.policy, self.cluster.id)]
        yield msgspec.json.encode(rows + views.broken_policies(plugins.discover(), self.cluster.id))

    async def _answer_logs(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.ReadJobLogs)
        found = [a for a in self.machine.state.attempt_of(JobId(asked.job)) if a.rank == asked.rank]
        allocation, node = asked.allocation, asked.node
        if found:
            allocation, node = found[0].id, found[0].node
        if not allocation:
            allocation, node = await self._ended_task(asked)
        if not allocation:
            raise NotFound(f"job {asked.job} has no output of rank {asked.rank} here")
        question = q.ReadLogs(allocation, asked.follow, asked.tail_lines)
        quiet_s = None if asked.follow else LOGS_S
        pieces = self.agents.call(node, q.LOGS, msgspec.json.encode(question), quiet_s)
        try:
            async for piece in pieces:
                yield piece
        except LinkError:
            # Its node may not have heard of it yet: then it has said nothing so far.
            if asked.follow or not found or found[0].state not in _NOT_BEGUN:
                raise

    async def _ended_task(self, asked: q.ReadJobLogs) -> tuple[str, str]:
        """Where an array's task has run: only its node remembers. ("", "") if none answers."""
        for start in range(asked.starts, max(0, asked.starts - STARTS_LOOKED_AT), -1):
            allocation = allocation_id(JobId(asked.job), asked.generation, start, asked.rank)
            question = msgspec.json.encode(q.ReadLogs(allocation, False, 0))
            nodes = self.agents.peers
            for first in range(0, len(nodes), NODES_ASKED_AT_ONCE):
                some = nodes[first : first + NODES_ASKED_AT_ONCE]
                answers = await asyncio.gather(*(self._has_output(n, question) for n in some))
                found = next((n for n, has in zip(some, answers, strict=True) if has), "")
                if found:
                    return allocation, found
        return "", ""

    async def _has_output(self, node: str, question: bytes) -> bool:
        try:
            async for _ in self.agents.call(node, q.LOGS, question, TASK_S):
                pass
        except LinkError:
            return False
        return True

    async def _bundle(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.GetBundle)
        async for piece in self.bundles.read(asked.digest):
            yield piece

    async def _fetch(self, digest: str) -> AsyncIterator[bytes]:
        if self.uplink is None:
            raise Unavailable("this cluster has no federation to fetch bundles from")
        async for piece in self.uplink.call(q.BUNDLE, msgspec.json.encode(q.GetBundle(digest))):
            yield piece


def _queues(path: str) -> tuple[Queue, ...]:
    """The tree in the file that the settings name. Raises CannotStart with all its faults."""
    if not path:
        return ()
    try:
        return queues_from_yaml(Path(path).read_bytes(), path)
    except OSError as error:
        raise CannotStart(f"queues: {path}: {error.strerror}") from None
    except spec.SpecError as error:
        raise CannotStart(f"queues:\n{error}") from None
