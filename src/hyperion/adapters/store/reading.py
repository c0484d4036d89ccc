"""Reads a store that another process may own: nothing is locked for long, nothing is written."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hyperion.adapters.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, StoreDamaged, StoreTooNew

_BUSY_S = 5.0


class StoreReader:
    """One view of the file, as it was when it was opened.

    ``FileNotFoundError``, ``StoreDamaged`` or ``StoreTooNew`` say what is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no store at {path}")
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S
            )
            self._connection.execute("BEGIN")
            owner = self._connection.execute("PRAGMA application_id").fetchone()[0]
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreDamaged(f"{path} cannot be read: {error}") from error
        if owner != APPLICATION_ID:
            raise StoreDamaged(f"{path} is no store of Hyperion-X")
        if version > SCHEMA_VERSION:
            raise StoreTooNew(f"{path} was written by a newer version; read it with that one")

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def entities(self) -> Iterator[tuple[str, bytes]]:
        """Every key and value; jobs come before allocations."""
        return self._rows("SELECT key, CAST(value AS BLOB) FROM entities ORDER BY key DESC")

    def journal(self) -> Iterator[tuple[int, bytes]]:
        """Every record with its number, the oldest first."""
        return self._rows("SELECT sequence, CAST(record AS BLOB) FROM journal ORDER BY sequence")

    def _rows(self, sql: str) -> Iterator[tuple[Any, bytes]]:
        try:
            yield from self._connection.execute(sql)
        except sqlite3.Error as error:
            raise StoreDamaged(f"{self._path} cannot be read: {error}") from error
