"""Calls to clusters over their open streams: what they refuse with, and the logs of many ranks."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import msgspec

from hyperion.adapters.link import errors as link
from hyperion.adapters.link.errors import LinkError
from hyperion.control.records import FederatedJob
from hyperion.daemon import questions as q
from hyperion.daemon.application import Conflict, Exhausted, NotFound, Unavailable

LOGS_S = 30.0
_RELAYED: dict[type[LinkError], type[Exception]] = {
    link.NotFound: NotFound,
    link.Conflict: Conflict,
    link.Invalid: Conflict,
    link.Denied: Conflict,
    link.Exhausted: Exhausted,
}
"""What a cluster answers, as this API's errors; the rest means that it cannot answer now."""


class Clusters(Protocol):
    """The open streams to the schedulers."""

    @property
    def peers(self) -> list[str]: ...

    def call(
        self, peer: str, method: str, body: bytes = b"", quiet_s: float | None = ...
    ) -> AsyncIterator[bytes]:
        """``quiet_s``: how long the answer may be silent; None is as long as it likes."""


def relayed(error: Exception) -> Exception:
    if not isinstance(error, LinkError):
        return error
    return _RELAYED.get(type(error), Unavailable)(str(error))


async def merged(
    clusters: Clusters,
    known: FederatedJob,
    ranks: Iterable[int],
    follow: bool,
    tail_lines: int | None,
) -> AsyncIterator[tuple[int, bytes]]:
    """The output of several ranks as it comes; bounded, so a slow reader slows the source."""
    queue: asyncio.Queue[tuple[int, bytes] | Exception | None] = asyncio.Queue(64)
    heard = {x.rank: x for x in known.status.replicas}
    cluster = known.status.cluster
    sought = (0, 0)
    if known.job.array is not None and known.status.tasks is not None:
        sought = known.status.generation, known.status.tasks.starts + 1
    quiet_s = None if follow else LOGS_S  # a job that prints nothing is still followed

    async def pump(rank: int) -> None:
        last = heard.get(rank)
        where = (last.allocation, last.node) if last else ("", "")
        question = q.ReadJobLogs(known.job.id, rank, follow, tail_lines, *where, *sought)
        body = msgspec.json.encode(question)
        try:
            async for chunk in clusters.call(cluster, q.LOGS, body, quiet_s):
                await queue.put((rank, chunk))
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    pumps = [asyncio.create_task(pump(rank)) for rank in ranks]
    errors: list[Exception] = []
    try:
        left = len(pumps)
        while left:
            piece = await queue.get()
            if isinstance(piece, tuple):
                yield piece
                continue
            left -= 1
            if piece is not None:
                errors.append(piece)
    finally:
        for task in pumps:
            task.cancel()
    if errors and len(errors) == len(pumps):
        raise relayed(errors[0])
