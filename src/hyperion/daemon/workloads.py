"""What the programs of this node say of themselves, and what they are told: pages and journals."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.adapters.checkpoint.journal import Journal
from hyperion.control import messages as m
from hyperion.model.ids import AllocationId
from hyperion.model.job import Job

_log = logging.getLogger("hyperion.agent")
SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
"""First on PYTHONPATH of a replica, so that its program need not be changed."""
OFF = "HYPERION_WORKLOAD"
"""``off`` in a job's ``envs``: nothing of ours is loaded into its processes."""
LOOK_S = 0.5
_MOST_READS = 64
"""Of one journal, before its replica's end is told."""


class _Workload:
    def __init__(self, path: str) -> None:
        self.page = Cooperative(path)
        self.journal = Journal(path)


class Workloads:
    def __init__(self, directory: Path, emit: Callable[[m.CheckpointWritten], None]) -> None:
        """A page, and what belongs to it, for each replica, in folders of ``directory``."""
        self._directory = directory
        self._emit = emit
        self._here: dict[AllocationId, _Workload] = {}

    def surround(self, id: AllocationId, job: Job) -> Mapping[str, str]:
        """A replica is about to start: the variables by which its program finds its page."""
        if job.envs.get(OFF, "").lower() == "off":
            return {}
        try:
            (self._directory / id).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open(id)
        except OSError as error:
            _log.warning("%s runs without a page: %s", id, error)
            return {}
        theirs = job.envs.get("PYTHONPATH", "")
        return {
            "HYPERION_WORKLOAD_PAGE": self._path(id),
            "HYPERION_NOTICE_FILE": self._notice_path(id),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), theirs))),
        }

    def begun(self, id: AllocationId) -> None:
        """It runs; perhaps since an earlier agent."""
        if id not in self._here and os.path.exists(self._path(id)):
            with contextlib.suppress(OSError):
                self._open(id)

    def notice(self, id: AllocationId, grace_ms: int) -> None:
        """It is to end, and has so long for it. Said before the signal: whoever hears that finds
        this."""
        workload = self._here.get(id)
        if workload is None or grace_ms <= 0:
            return
        workload.page.notice(time.monotonic_ns() + grace_ms * 1_000_000)
        text = json.dumps(
            {"action": "stop", "grace_s": grace_ms / 1000, "at_ms": time.time_ns() // 1_000_000}
        )
        path = self._notice_path(id)
        with contextlib.suppress(OSError):
            Path(f"{path}.part").write_text(text + "\n", encoding="utf-8")
            os.replace(f"{path}.part", path)

    def ended(self, id: AllocationId) -> None:
        """It is gone: what it has written last is told before its end is. Perhaps it has gone while
        no agent was there."""
        self.begun(id)
        workload = self._here.pop(id, None)
        if workload is None:
            return
        for _ in range(_MOST_READS):
            if not self._tell(id, workload):
                break
        workload.page.close()
        shutil.rmtree(self._directory / id, ignore_errors=True)

    async def watch(self) -> None:
        """What is written is told within half a second."""
        while True:
            await asyncio.sleep(LOOK_S)
            for id, workload in list(self._here.items()):
                self._tell(id, workload)

    def sweep(self, live: Mapping[AllocationId, object]) -> None:
        """Remove what is left of replicas that ended while no agent was there."""
        names = os.listdir(self._directory) if self._directory.exists() else []
        for name in names:
            if AllocationId(name) not in live:
                shutil.rmtree(self._directory / name, ignore_errors=True)

    def _tell(self, id: AllocationId, workload: _Workload) -> bool:
        """Whether it had written anything."""
        try:
            faults = workload.journal.faults
            written = workload.journal.read()
        except OSError as error:
            _log.warning("the checkpoints of %s cannot be read: %s", id, error)
            return False
        if workload.journal.faults > faults == 0:
            _log.warning("%s writes lines to its journal of checkpoints that are none", id)
        for checkpoint in written:
            self._emit(m.CheckpointWritten(id, checkpoint))
        return bool(written) or workload.journal.faults > faults

    def _open(self, id: AllocationId) -> None:
        self._here[id] = _Workload(self._path(id))

    def _path(self, id: AllocationId) -> str:
        return str(self._directory / id / "page")

    def _notice_path(self, id: AllocationId) -> str:
        return str(self._directory / id / "notice")
