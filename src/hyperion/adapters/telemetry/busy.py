"""How much CPU time the processes of a replica have taken, as often as one likes to ask."""

import contextlib
import os
from collections.abc import Sequence

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Busy:
    """Of a control group (v2 counts in every group; v1 in those of ``cpuacct``), or, where there is
    none that counts, of single processes, to a hundredth of a second."""

    def __init__(self, groups: Sequence[str], pids: Sequence[int]) -> None:
        self._files: list[tuple[int, bool]] = []
        for group in groups:
            for name, is_stat in (("cpu.stat", True), ("cpuacct.usage", False)):
                with contextlib.suppress(OSError):
                    fd = os.open(f"{group}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                    if is_stat and not os.pread(fd, 512, 0).startswith(b"usage_usec"):
                        os.close(fd)  # v1 has a file of that name with something else in it
                        continue
                    self._files.append((fd, is_stat))
                    break
        self._pids = [] if self._files else [*pids, *_members(groups)]

    def read_us(self) -> int:
        """Since they began; never less than before while they live."""
        total = 0
        for fd, is_stat in self._files:
            with contextlib.suppress(OSError):  # the group is gone
                text = os.pread(fd, 512, 0)
                total += int(text.split(None, 2)[1]) if is_stat else int(text) // 1000
        for pid in self._pids:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
                text = file.read(512)
                fields = text[text.rfind(b")") + 2 :].split()
                total += (int(fields[11]) + int(fields[12])) * _TICK_US
        return total

    def close(self) -> None:
        for fd, _ in self._files:
            os.close(fd)
        self._files.clear()


def _members(groups: Sequence[str]) -> list[int]:
    found: list[int] = []
    for group in groups:
        with contextlib.suppress(OSError), open(f"{group}/cgroup.procs", "rb") as file:
            found += map(int, file.read().split())
    return found
