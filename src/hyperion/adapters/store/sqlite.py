"""Keeps a machine in one SQLite file: nothing to install, durable, readable with ``sqlite3``."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hyperion.adapters.store.retention import Retention
from hyperion.ports import JournalEntry

SCHEMA_VERSION = 1
APPLICATION_ID = 0x48595058
"""``HYPX``: tells our files from other people's databases."""

_SCHEMA = """
CREATE TABLE entities (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (sequence INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, record TEXT NOT NULL);
CREATE TABLE journal_end (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
INSERT INTO journal_end VALUES (1, 0);
"""
_PUT = "INSERT INTO entities VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_AGE_CHECK_MS = 60_000
_TRIM_AT_ONCE = 10_000
_PAGE_OF_ROWS = 1000
_CHECKPOINT_PAGES = 8000
"""31 MiB of log before it is folded into the file, which takes two further syncs."""
_CACHE_KIB = 16_384
"""At most; a small store needs less."""


class StoreInUse(OSError):
    """Another process owns this store."""


class StoreDamaged(OSError):
    """The file is no store of ours, or its contents are broken. The message says what to do."""


class StoreTooNew(OSError):
    """A later version of Hyperion-X wrote this file; this one does not understand it."""


class SqliteStore:
    """One file at ``path`` (mode 0600), with a lock beside it that admits one process.

    Raises ``StoreInUse``, ``StoreDamaged`` or ``StoreTooNew`` when opened, and ``OSError`` with the
    right ``errno`` when a commit cannot be kept; nothing of such a commit remains.
    """

    def __init__(self, path: str | Path, retention: Retention | None = None) -> None:
        self._path = Path(path)
        self._retention = retention or Retention()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self._path)
        self._connection: sqlite3.Connection | None = None
        self._last = 0
        self._oldest = 1
        self._age_checked_ms = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def load(self) -> Iterable[tuple[str, bytes]]:
        """Every key and value, in the order of the keys; read in pages, so memory stays small."""
        try:
            rows = self._connected().execute(
                "SELECT key, CAST(value AS BLOB) FROM entities ORDER BY key"
            )
            while page := rows.fetchmany(_PAGE_OF_ROWS):
                yield from page
        except sqlite3.Error as fault:
            raise _as_os_error(fault, self._path) from fault

    def commit(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> None:
        """Keep all of it or nothing, synced to the disk. Values are UTF-8, or ``ValueError``."""
        self.stage(writes, journal, at_ms)()

    def stage(
        self, writes: Mapping[str, bytes | None], journal: Sequence[bytes], at_ms: int
    ) -> Callable[[], None]:
        """Write it into the open transaction; what this returns commits that, and syncs.

        Many short statements beside a busy thread would wait for the interpreter's lock at each of
        them, so they belong to the caller's thread. The commit waits for the disk without the lock.
        """
        puts = [(k, v.decode()) for k, v in writes.items() if v is not None]
        deletions = [(k,) for k, v in writes.items() if v is None]
        first = self._last + 1
        records = [(n, at_ms, r.decode()) for n, r in enumerate(journal, first)]
        if not puts and not deletions and not records:
            return _nothing
        connection = self._connected()
        last = self._last + len(records)
        cut = self._cut(last, at_ms) if records else 0
        with self._whole(connection):
            connection.execute("BEGIN IMMEDIATE")
            if puts:
                connection.executemany(_PUT, puts)
            if deletions:
                connection.executemany("DELETE FROM entities WHERE key = ?", deletions)
            if records:
                connection.executemany("INSERT INTO journal VALUES (?, ?, ?)", records)
                connection.execute("UPDATE journal_end SET sequence = ?", (last,))
            if cut:
                connection.execute("DELETE FROM journal WHERE sequence <= ?", (cut,))
        return lambda: self._commit(last, cut)

    def _commit(self, last: int, cut: int) -> None:
        connection = self._connected()
        with self._whole(connection):
            connection.execute("COMMIT")
        self._last = last
        self._oldest = max(self._oldest, cut + 1)

    @contextmanager
    def _whole(self, connection: sqlite3.Connection) -> Iterator[None]:
        """A fault within takes back all of the open transaction, and is told as an OSError."""
        try:
            yield
        except BaseException as fault:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if isinstance(fault, sqlite3.Error):
                raise _as_os_error(fault, self._path) from fault
            raise

    def journal(self, after: int = 0, limit: int = 1000) -> Iterable[JournalEntry]:
        """Records kept after sequence number ``after``, oldest first, at most ``limit``."""
        rows = self._query(
            "SELECT sequence, at_ms, CAST(record AS BLOB) FROM journal WHERE sequence > ?"
            " ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return (JournalEntry(*row) for row in rows)

    @property
    def last_sequence(self) -> int:
        """The number of the newest record ever kept; 0 before the first."""
        return self._last

    def close(self) -> None:
        """Fold the log into the file and give the lock back. Closing twice is no harm."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _open(self) -> None:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)
        try:
            self._connection = connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, cached_statements=32
            )
            self._check_version(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._check_whole(connection)
            self._last = connection.execute("SELECT sequence FROM journal_end").fetchone()[0]
            oldest = connection.execute("SELECT min(sequence) FROM journal").fetchone()[0]
        except sqlite3.Error as fault:
            raise _as_os_error(fault, self._path) from fault
        self._oldest = oldest or self._last + 1

    def _check_version(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables == 0 and found == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif owner != APPLICATION_ID:
            raise StoreDamaged(
                errno.EINVAL,
                "a SQLite file, but not a Hyperion-X store; name another file",
                str(self._path),
            )
        elif found > SCHEMA_VERSION:
            raise StoreTooNew(
                errno.EINVAL,
                f"written with schema {found}, this version knows up to {SCHEMA_VERSION};"
                " start the newer Hyperion-X, or name another state directory",
                str(self._path),
            )

    def _check_whole(self, connection: sqlite3.Connection) -> None:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(self._path, verdict)

    def _cut(self, last: int, at_ms: int) -> int:
        """Up to which sequence number the journal is to be deleted now; 0 for nothing."""
        cut = last - self._retention.records
        if cut < self._oldest - 1 + self._retention.step:
            cut = 0
        if at_ms - self._age_checked_ms >= min(_AGE_CHECK_MS, self._retention.age_ms):
            self._age_checked_ms = at_ms
            rows = self._query(
                "SELECT max(sequence) FROM journal WHERE sequence < ? AND at_ms < ?",
                (self._oldest + _TRIM_AT_ONCE, at_ms - self._retention.age_ms),
            )
            aged: int = rows[0][0] or 0
            cut = max(cut, aged)
        return min(cut, self._oldest - 1 + _TRIM_AT_ONCE)

    def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connected().execute(sql, values).fetchall()
        except sqlite3.Error as fault:
            raise _as_os_error(fault, self._path) from fault

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OSError("the store has been closed")
        return self._connection


def _nothing() -> None:
    """There was nothing to commit."""


def _lock(path: Path) -> int:
    """Own ``path`` as long as the returned descriptor is open, or raise ``StoreInUse``."""
    sidecar = path.with_name(path.name + ".lock")
    descriptor = os.open(sidecar, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreInUse(
            errno.EBUSY,
            f"in use by process {owner}; stop it, or give this daemon its own state directory",
            str(path),
        ) from fault
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _damaged(path: Path, what: str) -> StoreDamaged:
    return StoreDamaged(
        errno.EIO,
        f"damaged ({what}); stop the daemon, keep a copy of the file with its -wal, then restore a"
        f" backup or try `sqlite3 {path.name} .recover`",
        str(path),
    )


def _as_os_error(fault: sqlite3.Error, path: Path) -> OSError:
    """What SQLite says, as the error that a caller can act on."""
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(fault))
    if code == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, "no room left for the store; free some space", str(path))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return PermissionError(errno.EACCES, f"cannot be opened or written ({fault})", str(path))
    if code == sqlite3.SQLITE_BUSY:
        return StoreInUse(errno.EBUSY, "another program holds a lock on it; close it", str(path))
    return OSError(errno.EIO, f"the store failed ({fault})", str(path))
