"""What a runtime does all the while: bound the logs, keep the dead-man's switch, forget the old."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hyperion.adapters.runtime import deadman, logs, retention

_PERIOD_S = 2.0
_RETENTION_S = 3600.0
_DROPS_PER_REMOVAL = 4096


class Upkeep:
    """One per runtime; ``run`` goes on until it is cancelled."""

    def __init__(
        self,
        directory: Path,
        runtime: str,
        boot: str,
        log_limit_bytes: int,
        log_files: int,
        keep: retention.Bounds,
    ) -> None:
        self._directory = directory
        self._runtime = runtime
        self._boot = boot
        self._limit_bytes = log_limit_bytes
        self._keep_bytes = log_limit_bytes * max(0, log_files - 1)
        self._keep = keep
        self._drops = 0
        self._deadman: int | None = None

    def put_away(self, source: str, target: str) -> None:
        """The directory of a replica that nobody asks for any more; it is kept for a while."""
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return
        except OSError:
            shutil.rmtree(source, ignore_errors=True)
        self._drops += 1

    def watch_lease(self) -> None:
        """See to it that a dead-man's switch is there, ours or that of an earlier agent."""
        if self._deadman is not None and deadman.reap(self._deadman):
            self._deadman = None
        if self._deadman is None:
            self._deadman = deadman.ensure(self._directory, self._runtime, self._boot)

    def cut_logs(self, running: Iterable[str]) -> None:
        for name in running:
            with contextlib.suppress(OSError):  # it may have ended and been dropped just now
                path = str(self._directory / "replicas" / name / "log")
                logs.cut(path, self._keep_bytes, self._limit_bytes)

    async def run(self, running: Callable[[], Iterable[str]]) -> None:
        loop = asyncio.get_running_loop()
        removed_at_s = -_RETENTION_S
        while True:
            self.watch_lease()
            self.cut_logs(running())
            due = loop.time() - removed_at_s > _RETENTION_S
            if due or self._drops >= _DROPS_PER_REMOVAL:
                self._drops, removed_at_s = 0, loop.time()
                ended = self._directory / "ended"
                await asyncio.to_thread(retention.remove, ended, self._keep)
            await asyncio.sleep(_PERIOD_S)
