"""Of several standbys one is woken: the first that answers, and the others sleep on."""

import asyncio

import msgspec
import pytest
from cluster_stories import S, alone, running, tell
from test_cluster_pausing import job, node

from hyperion.adapters.link.errors import NotFound as LinkNotFound
from hyperion.daemon import questions as q
from hyperion.daemon.activation import Activation
from hyperion.daemon.application import Conflict, NotFound
from hyperion.model.job import Priority, Standby
from hyperion.wire.api import ActivationView


class Agents:
    """Nodes that take so long to answer each, in seconds; None: refuses."""

    def __init__(self, **takes_s):
        self.takes_s = takes_s
        self.asked = []

    async def call(self, peer, method, body=b"", quiet_s=None):
        assert method == q.ACTIVATE
        asked = msgspec.json.decode(body, type=q.Activate)
        self.asked.append((peer, asked.release))
        takes_s = self.takes_s[peer]
        if takes_s is None:
            raise LinkNotFound("it does not run here")
        await asyncio.sleep(takes_s)
        yield msgspec.json.encode(q.Activated())


def standbys():
    c = alone(node("n1", cpus=4), node("n2", cpus=4))
    made = job("serve", cpus=4, replicas=2, priority=Priority.LATENCY_CRITICAL, standby=Standby())
    for order in running(c, made):
        tell(c, order, S.WARM, turn=1)
    where = {a.rank: a.node for a in c.machine.state.live_of("serve")}
    return c.machine, where


def activate(machine, agents, **asked):
    async def ask():
        body = msgspec.json.encode(q.ActivateJob("serve", **asked))
        pieces = [x async for x in Activation(machine, agents).answer(body)]
        await asyncio.sleep(0.15)  # what is called off
        return msgspec.json.decode(b"".join(pieces), type=list[ActivationView])

    return asyncio.run(ask())


def test_all_are_woken_unless_one_will_do():
    machine, where = standbys()
    agents = Agents(n1=0, n2=0)
    assert [row.rank for row in activate(machine, agents)] == [0, 1]
    agents = Agents(n1=0, n2=0)
    assert [row.rank for row in activate(machine, agents, any=True)] == [0]
    assert agents.asked == [(where[0], False)]


def test_one_that_is_slow_is_overtaken_and_called_off():
    machine, where = standbys()
    agents = Agents(**{where[0]: 0.05, where[1]: 0})
    assert [row.rank for row in activate(machine, agents, any=True)] == [1]
    assert agents.asked == [(where[0], False), (where[1], False), (where[0], True)]


def test_one_that_refuses_is_passed_over_at_once():
    machine, where = standbys()
    agents = Agents(**{where[0]: None, where[1]: 0})
    assert [row.rank for row in activate(machine, agents, any=True)] == [1]
    agents = Agents(n1=None, n2=None)
    [row] = activate(machine, agents, any=True)
    assert "does not run" in row.error


def test_what_is_no_standby_is_refused():
    machine, _ = standbys()
    with pytest.raises(NotFound):
        asyncio.run(anext(Activation(machine, Agents()).answer(b'{"job": "nosuch"}')))
    c = alone(node(cpus=4))
    running(c, job("batch", cpus=4))
    with pytest.raises(Conflict, match="no standby"):
        asyncio.run(anext(Activation(c.machine, Agents()).answer(b'{"job": "batch"}')))
