"""Calls relayed over a stream that is already open: logs, lists of nodes, bundles.

Either side may ask. The caller numbers its calls, each number once in the life of a stream; the
two sides number on their own. A call is answered by chunks with its number, the last one with
``end``; after an ``end`` or a CallCancel further chunks of that number are dropped.
"""

from msgspec import Struct

from hyperion.ports import Reading


class Call(Struct, frozen=True):
    """Ask the other side to do ``method``; the body is JSON or whatever the method says."""

    id: int
    method: str
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Call(id={self.id}, method={self.method!r}, body=<{len(self.body)} bytes>)"


class Chunk(Struct, frozen=True):
    """A part of the answer to the call of that number."""

    id: int
    body: bytes = b""
    end: bool = False
    error: str = ""
    """Only together with ``end``: why there is no (further) answer. Empty is success."""
    code: str = ""
    """``not_found``, ``conflict``, ``exhausted`` or ``unavailable`` with an error."""

    def __repr__(self) -> str:
        tail = f", end={self.end}, code={self.code!r}" if self.end else ""
        return f"Chunk(id={self.id}, body=<{len(self.body)} bytes>{tail})"


class CallCancel(Struct, frozen=True):
    """The caller wants no more of this answer."""

    id: int


class Measured(Struct, frozen=True):
    """A node's reading on its way to the scheduler."""

    node: str
    reading: Reading
