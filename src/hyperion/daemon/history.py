"""The last changes of jobs, for those who watch, with the numbers by which they can resume."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from hyperion.wire.api import JobChange, JobView

REMEMBERED = 10_000


class History:
    """A bounded tail of changes. A watcher that is too slow loses the oldest, never the newest."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.begins = 0
        """Every change with a higher number is held: who has seen less must look at the present."""
        self._changes: deque[JobChange] = deque(maxlen=limit)
        self._news = asyncio.Event()
        self.watchers = 0

    def add(self, change: JobChange) -> None:
        if len(self._changes) == self._changes.maxlen:
            self.begins = self._changes[0].sequence
        self._changes.append(change)
        self.wake()

    def wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def newest(self) -> int:
        return self._changes[-1].sequence if self._changes else 0

    async def follow(
        self, after: int, wanted: Callable[[JobView], bool]
    ) -> AsyncIterator[JobChange]:
        """Changes after that number which are still held, then each as it comes."""
        self.watchers += 1
        try:
            while True:
                news = self._news
                for change in self._since(after):
                    after = change.sequence
                    if wanted(change.job):
                        yield change
                if news is self._news:
                    await news.wait()
        finally:
            self.watchers -= 1

    def _since(self, after: int) -> list[JobChange]:
        found: list[JobChange] = []
        for change in reversed(self._changes):
            if change.sequence <= after:
                break
            found.append(change)
        found.reverse()
        return found
