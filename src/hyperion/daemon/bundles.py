"""Uploaded working directories, by the SHA-256 of their bytes: kept by the federation, relayed
by schedulers, fetched by agents. The same bytes are kept once."""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hyperion.daemon.application import Exhausted, NotFound

MAX_BYTES = 512 << 20
CHUNK_BYTES = 256 << 10
KEPT = 200
"""Bundles beyond so many are removed, those used longest ago first."""
_DIGEST = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[str], AsyncIterator[bytes]]


class Bundles:
    def __init__(
        self, directory: Path, upstream: Fetch | None = None, limit_bytes: int = MAX_BYTES
    ) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._upstream = upstream
        """Where a bundle comes from that is not here; None at the federation."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for torn in directory.glob("incoming-*"):
            torn.unlink(missing_ok=True)  # what a process that was killed had begun

    async def keep(self, chunks: AsyncIterator[bytes], expected: str = "") -> str:
        """Write a bundle; its digest. Exhausted when too large, ValueError when not as expected."""
        digest, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(dir=self._directory, prefix="incoming-")
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._limit_bytes:
                        raise Exhausted(f"the bundle is larger than {self._limit_bytes >> 20} MiB")
                    digest.update(chunk)
                    file.write(chunk)
            found = digest.hexdigest()
            if expected and found != expected:
                raise ValueError(f"the bundle arrived damaged: sha256 {found}, not {expected}")
            os.replace(name, self.path(found))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._tidy()
        return found

    def path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise NotFound(f"{digest[:80]!r} is not a bundle's digest (64 hexadecimal digits)")
        return self._directory / f"{digest}.tar.gz"

    async def get(self, digest: str) -> Path:
        """The file of a bundle, fetched first where it is not here. NotFound.

        ``digest`` is 64 hexadecimal digits, with or without ``sha256:`` before them.
        """
        digest = digest.removeprefix("sha256:")
        path = self.path(digest)
        if not path.exists():
            if self._upstream is None:
                raise NotFound(f"no bundle {digest[:12]}…; submit the job again to upload it")
            await self.keep(self._upstream(digest), digest)
        os.utime(path)
        return path

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        path = await self.get(digest)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _tidy(self) -> None:
        found = sorted(self._directory.glob("*.tar.gz"), key=lambda p: p.stat().st_mtime)
        for path in found[:-KEPT]:
            path.unlink(missing_ok=True)
