"""How replicas of a seeded world come to a stand and go on: frozen, or by themselves.

As on a real machine it happens whether the agent lives to see it or not. A program that is asked to
come to a stand by itself takes its time for that; at the end of its step it saves it aside, and is
frozen only then.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperion.control import messages as m
from hyperion.model.allocation import Freeze
from hyperion.model.ids import AllocationId
from hyperion.sim import checkers
from hyperion.sim.fleet import Host

if TYPE_CHECKING:
    from hyperion.sim.world import World

Tell = Callable[[Any, int], None]
SETTLES_WITHIN_MS = 2000
FOR_EVER_MS = 1 << 40


class Stances:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._asked: dict[AllocationId, int] = {}
        """Those on their way to where they stand by themselves, and the number of the request."""
        self._settling: dict[AllocationId, int] = {}
        """Those that stand by themselves and are not frozen yet."""
        self._requests = 0

    def pause(self, host: Host, order: m.PauseReplica, tell: Tell) -> None:
        if order.on_disk:
            self._set_aside(host, order, tell)
            return
        if not order.at:
            self._freeze(host, order, tell)
            return
        dice, id = self._world.random, order.allocation
        self._requests += 1
        self._asked[id] = request = self._requests
        is_late = dice.random() < self._world.faults.late
        comes_ms = order.asked_ms if is_late else dice.randrange(1, max(2, order.asked_ms))
        comes = self._comes_late if is_late else self._comes
        self._world.after(comes_ms, lambda: comes(host, order, request, tell))

    def _set_aside(self, host: Host, order: m.PauseReplica, tell: Tell) -> None:
        """From then on there is no end of its hold."""
        world, id = self._world, order.allocation
        if world.random.random() < world.faults.unpausable:
            self.resume(host, id, tell, "it could not be set aside on disk")
        elif host.pause(id, world.now_ms, FOR_EVER_MS):
            aside = Freeze(stopped_us=1, confirmed_us=1, how="disk", at="disk")
            tell(m.ReplicaPaused(id, aside), world.random.randrange(1, SETTLES_WITHIN_MS))

    def _comes_late(self, host: Host, order: m.PauseReplica, request: int, tell: Tell) -> None:
        """Its agent has waited for long enough, and freezes it wherever it is; if there is one."""
        if self._asked.get(order.allocation) == request:
            del self._asked[order.allocation]
            if self._world.processes[host.name].alive:
                self._freeze(host, order, tell)

    def _comes(self, host: Host, order: m.PauseReplica, request: int, tell: Tell) -> None:
        """The program computes no more: it says so on its page, whether anybody looks or not."""
        world, id = self._world, order.allocation
        if self._asked.get(id) != request:
            return  # nobody waits for it any more
        del self._asked[id]
        if host.pause(id, world.now_ms, order.hold_ms):
            stands = Freeze(stopped_us=1, confirmed_us=1, how=order.at, at=order.at)
            tell(m.ReplicaPaused(id, stands), 1)
            world.after(order.hold_ms, lambda: self.let_go(host, id, tell))
            if order.at == "step":
                self._settling[id] = request
                took_ms = world.random.randrange(1, SETTLES_WITHIN_MS)
                world.after(took_ms, lambda: self._settled(host, id, request, tell))

    def _settled(self, host: Host, id: AllocationId, request: int, tell: Tell) -> None:
        if self._settling.get(id) != request:
            return
        del self._settling[id]
        if host.is_still(id):
            self._world.savings.stands(host, id)
            saved = Freeze(stopped_us=1, confirmed_us=1, how="step", at="step", saved_us=2)
            tell(m.ReplicaSettled(id, saved), 1)

    def _freeze(self, host: Host, order: m.PauseReplica, tell: Tell) -> None:
        id, hold_ms = order.allocation, order.hold_ms
        if self._world.random.random() < self._world.faults.unpausable:
            tell(m.ReplicaResumed(id, "its processes did not stand still"), 1)
        elif host.pause(id, self._world.now_ms, hold_ms):
            tell(m.ReplicaPaused(id), 1)
            self._world.after(hold_ms, lambda: self.let_go(host, id, tell))

    def freeze(self, host: Host, id: AllocationId, hold_ms: int) -> None:
        """The fast path does it; an agent that is not there hears nothing of it."""
        agent = self._world.processes[host.name]
        host.pause(id, self._world.now_ms, hold_ms)

        def tell(event: Any, delay_ms: int) -> None:
            self._world.after(delay_ms, lambda: self._world.deliver(agent, event))

        self._world.after(hold_ms, lambda: self.let_go(host, id, tell))

    def inspect(self, host: Host, id: AllocationId, tell: Tell, soon_ms: int) -> None:
        """A new agent looks: who stands by itself, and was not frozen, is let go on."""
        if id in self._asked or id in self._settling:
            self.resume(host, id, tell, "its hold has ended")
        else:
            kind = m.ReplicaPaused if host.is_still(id) else m.ReplicaResumed
            tell(kind(id), soon_ms)

    def let_go(self, host: Host, id: AllocationId, tell: Tell) -> None:
        execution, now_ms = host.running.get(id), self._world.now_ms
        if execution is not None and host.is_still(id) and execution.hold_ends_ms <= now_ms:
            execution.let_go = True
            self.resume(host, id, tell, "its hold has ended")

    def resume(self, host: Host, id: AllocationId, tell: Tell, reason: str = "") -> None:
        world = self._world
        self.take_back(id)
        execution = host.resume(id, world.now_ms)
        if execution is not None:
            checkers.within_capacity(host, world.capacities[host.name])
            world.at(execution.ends_ms, lambda: world.ended(host, id, tell))
        if id in host.running:
            tell(m.ReplicaResumed(id, reason), 1)

    def take_back(self, id: AllocationId) -> None:
        self._asked.pop(id, None)
        self._settling.pop(id, None)
