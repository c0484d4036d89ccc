"""Heartbeats are told to the machine together, and none outlives its session."""

import asyncio

from hyperion.control.messages import NodeHeard, NodeHeartbeat, NodesHeard
from hyperion.daemon.heartbeats import Heartbeats
from hyperion.model.ids import NodeId


def heard(node, sequence):
    return NodeHeard(node=NodeId(node), heartbeat=NodeHeartbeat(sequence=sequence))


def test_the_newest_of_each_node_is_told_once():
    async def run():
        told = asyncio.Queue()
        heartbeats = Heartbeats(told.put_nowait, fold_s=0.01)
        for n in range(3):
            heartbeats.take(heard("n1", n))
        heartbeats.take(heard("n2", 7))
        assert await told.get() == NodesHeard((heard("n1", 2), heard("n2", 7)))
        heartbeats.take(heard("n1", 3))
        assert await told.get() == NodesHeard((heard("n1", 3),))
        assert told.empty()

    asyncio.run(run())


def test_what_a_node_said_before_its_session_ended_is_not_answered_in_the_next():
    async def run():
        told = asyncio.Queue()
        heartbeats = Heartbeats(told.put_nowait, fold_s=0.01)
        heartbeats.take(heard("n1", 5))
        heartbeats.drop(NodeId("n1"))
        heartbeats.drop(NodeId("n2"))
        heartbeats.take(heard("n2", 1))
        assert await told.get() == NodesHeard((heard("n2", 1),))

    asyncio.run(run())
