"""Keeps everything in memory: for tests, rehearsals and plans that need not outlive a process."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from hyperion.adapters.store.retention import Retention
from hyperion.ports import JournalEntry


class MemoryStore:
    """The in-memory twin of ``SqliteStore``; the same contract, except that nothing lasts."""

    def __init__(self, retention: Retention | None = None) -> None:
        self._retention = retention or Retention()
        self._entities: dict[str, bytes] = {}
        self._journal: deque[JournalEntry] = deque()
        self._last = 0
        self._closed = False

    def load(self) -> Iterable[tuple[str, bytes]]:
        """Every key and value, in the order of the keys."""
        self._check_open()
        return iter(sorted(self._entities.items()))

    def commit(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> None:
        """Keep all of it or nothing. Values and records are UTF-8, or ``ValueError``."""
        self.stage(writes, journal, at_ms)()

    def stage(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> Callable[[], None]:
        """Look it over; what this returns keeps it."""
        self._check_open()
        for text in (*writes.values(), *journal):
            if text is not None:
                text.decode()
        return lambda: self._keep(writes, journal, at_ms)

    def _keep(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> None:
        self._check_open()
        for key, value in writes.items():
            if value is None:
                self._entities.pop(key, None)
            else:
                self._entities[key] = value
        for record in journal:
            self._last += 1
            self._journal.append(JournalEntry(self._last, at_ms, record))
        self._trim(at_ms)

    def journal(self, after: int = 0, limit: int = 1000) -> Iterable[JournalEntry]:
        """Records kept after sequence number ``after``, oldest first, at most ``limit``."""
        self._check_open()
        return iter(list(islice((e for e in self._journal if e.sequence > after), limit)))

    @property
    def last_sequence(self) -> int:
        """The number of the newest record ever kept; 0 before the first."""
        return self._last

    def close(self) -> None:
        """Further calls raise ``OSError``. Closing twice is no harm."""
        self._closed = True

    def _trim(self, at_ms: int) -> None:
        oldest_ms = at_ms - self._retention.age_ms
        entries = self._journal
        while entries and (len(entries) > self._retention.records or entries[0].at_ms < oldest_ms):
            entries.popleft()

    def _check_open(self) -> None:
        if self._closed:
            raise OSError("the store has been closed")
