"""A span of time in which some nodes are kept free: for maintenance, or for those it admits."""

import re
from collections.abc import Container, Iterator

from msgspec import Struct

from hyperion.model.bounds import MAX_ID_CHARS, MAX_NAME_CHARS, MAX_SECONDS
from hyperion.model.checks import check_id
from hyperion.model.faults import Fault, quoted
from hyperion.model.ids import NodeId, QueueName, UserId, WindowId
from hyperion.model.job import Job
from hyperion.model.queue import DEFAULT_QUEUE

MAX_NODES = 100_000
"""Of one window; the largest cluster that is planned for."""
MAX_ADMITTED = 256
"""Queues, and users, of one window."""
MAX_REASON_CHARS = 256
_QUOTED = 3
"""How many unknown nodes a message names."""
_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@-]{0,252}").fullmatch
_unprintable = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


class Window(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Jobs that it does not admit are not started on its nodes if they would still run when it
    begins, and are stopped and queued again when it does."""

    id: WindowId
    begins_at_ms: int
    ends_at_ms: int
    nodes: tuple[NodeId, ...]
    queues: tuple[QueueName, ...] = ()
    """Jobs of these queues may use it; with ``users`` empty too it is maintenance."""
    users: tuple[UserId, ...] = ()
    """Jobs of these users may use it, from whatever queue."""
    reason: str = ""

    @property
    def is_maintenance(self) -> bool:
        return not self.queues and not self.users

    def admits(self, job: Job) -> bool:
        """By the job's queue or by its user; either will do."""
        return (job.queue or DEFAULT_QUEUE) in self.queues or job.user in self.users


def check_window(window: Window, now_ms: int, known_nodes: Container[NodeId]) -> tuple[Fault, ...]:
    """Everything that is wrong with the window, empty when it may be kept. Never raises.

    A window that has begun already is in order; one that is over is not.
    """
    return tuple(_faults(window, now_ms, known_nodes))


def _faults(window: Window, now_ms: int, known_nodes: Container[NodeId]) -> Iterator[Fault]:
    if check_id(window.id) is not None:
        yield Fault(
            "/id",
            f"found {quoted(window.id)}, expected 1 to {MAX_ID_CHARS} letters, digits, '-' or"
            " '_', starting with a letter or digit",
        )
    yield from _times(window, now_ms)
    yield from _nodes(window, known_nodes)
    for pointer, names in (("/queues", window.queues), ("/users", window.users)):
        if len(names) > MAX_ADMITTED:
            yield Fault(pointer, f"found {len(names)}, expected at most {MAX_ADMITTED}")
        for n, name in enumerate(names[:MAX_ADMITTED]):
            if not _name(name):
                yield Fault(
                    f"{pointer}/{n}",
                    f"found {quoted(name)}, expected the name of a {pointer[1:-1]}",
                )
    if len(window.reason) > MAX_REASON_CHARS or _unprintable(window.reason):
        yield Fault(
            "/reason",
            f"found {quoted(window.reason)}, expected one line of at most"
            f" {MAX_REASON_CHARS} characters",
        )


def _times(window: Window, now_ms: int) -> Iterator[Fault]:
    begins, ends = window.begins_at_ms, window.ends_at_ms
    latest_ms = now_ms + int(MAX_SECONDS * 1000)
    if begins < 0:
        yield Fault("/begins", f"found {begins} ms, expected a time after 1970")
    if ends <= begins:
        yield Fault(
            "/ends",
            f"found an end {begins - ends} ms before the begin, expected one after it; give a"
            " later end, or a duration",
        )
    elif ends <= now_ms:
        yield Fault(
            "/ends",
            f"found an end {(now_ms - ends) / 1000:.0f} s ago, expected one in the future",
        )
    elif ends > latest_ms:
        yield Fault("/ends", "found a time more than 10 years ahead, expected a nearer one")


def _nodes(window: Window, known_nodes: Container[NodeId]) -> Iterator[Fault]:
    nodes = window.nodes
    if not nodes:
        yield Fault("/nodes", "found none, expected the names of the nodes to keep free")
    if len(nodes) > MAX_NODES:
        yield Fault("/nodes", f"found {len(nodes)}, expected at most {MAX_NODES}")
        return
    if len(set(nodes)) < len(nodes):
        yield Fault("/nodes", "found a node named twice, expected each once")
    unknown = [node for node in nodes if node not in known_nodes]
    if unknown:
        named = ", ".join(quoted(node[: MAX_NAME_CHARS + 1]) for node in unknown[:_QUOTED])
        more = f" and {len(unknown) - _QUOTED} more" if len(unknown) > _QUOTED else ""
        yield Fault(
            "/nodes",
            f"found {named}{more}, expected nodes of this cluster; `hyperion nodes` lists them",
        )
