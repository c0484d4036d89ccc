"""Standbys of a seeded world: now quiet, now wanted, as their clients please and nobody else.

As on a real machine: whom a standby pushes aside its node knows, and the fast path there acts
whether the agent lives or not. An agent that was away is told afterwards that it is active.
"""

import random
from typing import TYPE_CHECKING

from msgspec import Struct

from hyperion.control import messages as m
from hyperion.model.ids import AllocationId
from hyperion.sim.fleet import Host

if TYPE_CHECKING:
    from hyperion.sim.world import World

QUIET_MS = 500
SETTLED_MS = 3000
"""No standby that is wanted lacks CPUs for so long, once nothing fails any more."""


class Post(Struct):
    """One standby that runs."""

    guard: tuple[m.Yielding, ...] = ()
    is_warm: bool = False
    since_ms: int = 0
    """It is warm, or active, since then."""
    told: bool = True
    """Its agent has heard of the newest change."""
    next_ms: int = 0


class Posts:
    def __init__(self, world: "World", seed: int, settled_from_ms: int) -> None:
        self._world = world
        self._dice = random.Random(seed + 1)
        self._settled_from_ms = settled_from_ms
        self._posts: dict[AllocationId, Post] = {}
        self._crowded_ms: dict[str, int] = {}
        """Hosts where somebody wanted lacks CPUs, and since when."""

    def guard(self, order: m.Guard) -> None:
        post = self._posts.get(order.allocation)
        if post is not None:
            post.guard = order.victims

    def turn(self) -> None:
        """Look at each of them; a world does so every 50 ms."""
        world = self._world
        there = {}
        for host in world.hosts.values():
            for id, execution in host.running.items():
                if execution.lends:
                    there[id] = host
        for id in self._posts.keys() - there.keys():
            del self._posts[id]
        for id, host in there.items():
            post = self._posts.setdefault(id, Post(since_ms=world.now_ms))
            self._live(host, id, post)
        for host in dict.fromkeys(there.values()):
            self._have_their_cpus(host)

    def _live(self, host: Host, id: AllocationId, post: Post) -> None:
        world = self._world
        agent = world.processes[host.name]
        if not post.told and agent.alive:
            post.told = True
            world.deliver(agent, m.ReplicaActivated(id))
        if world.now_ms < post.next_ms:
            return
        if post.is_warm:
            self._activate(host, id, post)
        elif agent.alive and world.now_ms - post.since_ms >= QUIET_MS:
            post.is_warm, post.since_ms = True, world.now_ms
            post.next_ms = world.now_ms + self._dice.randrange(50, 6000)
            world.deliver(agent, m.ReplicaWarm(id))

    def _activate(self, host: Host, id: AllocationId, post: Post) -> None:
        world = self._world
        agent = world.processes[host.name]
        post.is_warm, post.since_ms = False, world.now_ms
        post.next_ms = world.now_ms + self._dice.choice((QUIET_MS, 2000, 5000))
        frozen = [
            victim
            for victim in post.guard
            if victim.allocation in host.running and not host.is_still(victim.allocation)
        ]
        for victim in frozen:
            world.stances.freeze(host, victim.allocation, victim.hold_ms)
        if agent.alive:
            names = tuple(victim.allocation for victim in frozen)
            world.deliver(agent, m.ReplicaActivated(id, names))
        else:
            post.told = False

    def _have_their_cpus(self, host: Host) -> None:
        """The law: who is wanted has CPUs to itself, and its GPUs but for those that never yield
        them, a while after the last of them was, once nothing fails any more. Who is being stopped
        may take its grace for that."""
        world = self._world
        wanted = [id for id, x in host.running.items() if x.lends and not self._is_warm(id)]
        used = sum(
            x.request.cpus_milli
            for id, x in host.running.items()
            if x.still_since_ms is None and not self._is_warm(id) and id not in host.stopping
        )
        crowded = bool(wanted) and used > world.capacities[host.name].cpus_milli
        served = [id for id in wanted if id not in host.stopping]
        crowded = crowded or any(self._shares_gpus(host, id) for id in served)
        if not crowded or world.now_ms < self._settled_from_ms:
            self._crowded_ms.pop(host.name, None)
            return
        since_ms = self._crowded_ms.setdefault(host.name, world.now_ms)
        lasts_ms = world.now_ms - since_ms
        assert lasts_ms < SETTLED_MS, f"{host.name}: others run on the CPUs or GPUs of {wanted}"

    def _shares_gpus(self, host: Host, id: AllocationId) -> bool:
        own = host.running[id]
        return any(
            x.yields_gpus
            and x.priority < own.priority
            and x.still_since_ms is None
            and other not in host.stopping
            and bool(set(x.devices) & set(own.devices))
            for other, x in host.running.items()
        )

    def _is_warm(self, id: AllocationId) -> bool:
        post = self._posts.get(id)
        return post is not None and post.is_warm
