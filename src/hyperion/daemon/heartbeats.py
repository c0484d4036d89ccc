"""Heartbeats of thousands of nodes, told to the machine a few at a time: one event, one batch."""

import asyncio
from collections.abc import Callable

from hyperion.control.messages import NodeHeard, NodesHeard
from hyperion.model.ids import NodeId

FOLD_S = 0.05
"""A lease counts from when its heartbeat was sent, so a late answer only costs so much of it."""


class Heartbeats:
    """Keeps the newest heartbeat of each attached node until the next of ``FOLD_S``."""

    def __init__(self, note: Callable[[NodesHeard], None], fold_s: float = FOLD_S) -> None:
        self._note = note
        self._fold_s = fold_s
        self._newest: dict[NodeId, NodeHeard] = {}

    def take(self, heard: NodeHeard) -> None:
        if not self._newest:
            asyncio.get_running_loop().call_later(self._fold_s, self._tell)
        self._newest[heard.node] = heard

    def drop(self, node: NodeId) -> None:
        """Its session is over: what it said in it must not be answered in the next."""
        self._newest.pop(node, None)

    def _tell(self) -> None:
        newest, self._newest = self._newest, {}
        if newest:
            self._note(NodesHeard(tuple(newest.values())))
