"""Links of the seeded world: sessions that break, and messages lost, late, doubled, overtaken.

As over TCP, nothing crosses from one session into the next; within a session anything goes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from hyperion.control import messages as m
from hyperion.model.ids import ClusterId, NodeId

if TYPE_CHECKING:
    from hyperion.sim.world import World

RETRY_MS = 300
KEEPALIVE_MS = 3000
"""How long a silent link lives before its ends notice."""
FAULTS_END_MS = 45_000


class Link(Struct):
    child: str
    parent: str
    session: int = 0
    is_open: bool = False
    child_incarnation: int = 0
    parent_incarnation: int = 0
    partitioned_until_ms: int = 0


class Network:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.links: dict[str, Link] = {}

    def connect(self, child: str, parent: str) -> None:
        """A child dials its parent for ever."""
        link = self.links[child] = Link(child, parent)

        def dial() -> None:
            self._dial(link)
            self.world.after(RETRY_MS, dial)

        self.world.after(self.world.random.randrange(RETRY_MS), dial)

    def send_up(self, child: str, event: Any) -> None:
        self._send(self.links[child], event, up=True)

    def send_down(self, child: str, event: Any) -> None:
        self._send(self.links[child], event, up=False)

    def cut(self, child: str) -> None:
        """One end closes the session."""
        link = self.links[child]
        if link.is_open:
            self._close(link, self.world.random.randrange(1, 50))

    def process_died(self, name: str) -> None:
        for link in self.links.values():
            if name in (link.child, link.parent):
                self.cut(link.child)

    def partition(self, child: str, until_ms: int) -> Callable[[], None]:
        def begin() -> None:
            link = self.links[child]
            link.partitioned_until_ms = max(link.partitioned_until_ms, until_ms)
            session = link.session

            def notice() -> None:
                if link.session == session and link.is_open and self._is_partitioned(link):
                    self._close(link, 1)

            self.world.after(KEEPALIVE_MS, notice)

        return begin

    def _is_partitioned(self, link: Link) -> bool:
        return self.world.now_ms < link.partitioned_until_ms

    def _dial(self, link: Link) -> None:
        child, parent = self.world.processes[link.child], self.world.processes[link.parent]
        if link.is_open or self._is_partitioned(link) or not (child.alive and parent.alive):
            return
        link.session += 1
        link.is_open = True
        link.child_incarnation = child.incarnation
        link.parent_incarnation = parent.incarnation
        attached = m.SchedulerAttached() if "/" in link.child else m.FederationAttached()
        self.world.deliver(child, attached)

    def _close(self, link: Link, notice_ms: int) -> None:
        link.is_open = False
        session, parent = link.session, self.world.processes[link.parent]
        detached: Any = m.ClusterDetached(cluster=ClusterId(link.child))
        if "/" in link.child:
            detached = m.NodeDetached(node=NodeId(link.child.partition("/")[2]))
            child = self.world.processes[link.child]
            if child.incarnation == link.child_incarnation:
                self.world.deliver(child, m.SchedulerDetached())

        def tell() -> None:
            if link.session == session and parent.incarnation == link.parent_incarnation:
                self.world.deliver(parent, detached)

        self.world.after(notice_ms, tell)

    def _send(self, link: Link, event: Any, up: bool) -> None:
        world, faults = self.world, self.world.faults
        faulty = world.now_ms < FAULTS_END_MS
        if not link.is_open or (faulty and world.random.random() < faults.drop):
            return
        copies = 2 if faulty and world.random.random() < faults.double else 1
        session = link.session
        for _ in range(copies):
            delay_ms = 1 + world.random.randrange(faults.delay_ms_max + 1)
            world.after(delay_ms, lambda: self._arrive(link, session, event, up))

    def _arrive(self, link: Link, session: int, event: Any, up: bool) -> None:
        if session != link.session or not link.is_open or self._is_partitioned(link):
            return
        world = self.world
        to = world.processes[link.parent if up else link.child]
        incarnation = link.parent_incarnation if up else link.child_incarnation
        if to.incarnation == incarnation:
            world.deliver(to, event)


def from_node(node: NodeId, message: m.AgentUpward) -> m.ClusterEvent:
    """A node's message as its scheduler takes it in."""
    match message:
        case m.NodeHello():
            return m.NodeAttached(hello=message)
        case m.NodeHeartbeat():
            return m.NodeHeard(node=node, heartbeat=message)
        case m.AllocationReport():
            return m.NodeReported(node=node, report=message)


def from_cluster(cluster: ClusterId, message: m.ClusterUpward) -> m.FederationEvent:
    """What a federation is told when one of its clusters says this."""
    match message:
        case m.ClusterHello():
            return m.ClusterAttached(hello=message)
        case m.ClusterHeartbeat():
            return m.ClusterHeard(cluster=cluster, heartbeat=message)
        case m.JobReport():
            return m.ClusterReported(cluster=cluster, report=message)
