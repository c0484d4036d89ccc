"""When a lease ends, written down for the next start, on a clock that runs through restarts."""

import os
import time
from pathlib import Path


class LeaseFile:
    """``<boot id> <CLOCK_BOOTTIME ms>``; void after a reboot, when nothing runs any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def keep(self, remaining_ms: int) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.write_text(f"{self._boot} {_boottime_ms() + remaining_ms}\n", encoding="ascii")
        os.replace(scratch, self._path)

    def remaining_ms(self) -> int | None:
        """What is left of the lease (negative: it has ended); None where there was none."""
        try:
            boot, until_ms = self._path.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return int(until_ms) - _boottime_ms() if boot == self._boot else None


def _boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
