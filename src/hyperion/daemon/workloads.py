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

import msgspec

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Answer, Cooperative
from hyperion.adapters.checkpoint.journal import Journal
from hyperion.control import messages as m
from hyperion.model.ids import AllocationId
from hyperion.model.job import Job
from hyperion.workload import pacing, page

_log = logging.getLogger("hyperion.agent")
SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
"""First on PYTHONPATH of a replica, so that its program need not be changed."""
OFF = "HYPERION_WORKLOAD"
"""``off`` in a job's ``envs``: nothing of ours is loaded into its processes."""
LOOK_S = 0.5
_MOST_READS = 64
"""Of one journal, before its replica's end is told."""


_LOOK_CLOSELY_S = 0.001


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """A program has come to a stand by itself; times are of ``time.monotonic_ns``."""

    at: str
    asked_ns: int
    answer: Answer
    settled_ns: int = 0

    @property
    def settles(self) -> bool:
        """It has something left to do before it is frozen."""
        return self.answer.state == page.SETTLING

    @property
    def is_saved(self) -> bool:
        """The step at which it stands is written."""
        answer = self.answer
        return bool(answer.snapshot_bytes) and answer.snapshot_step == answer.committed_step


def notice_text(grace_ms: int) -> str:
    """What the notice file holds, and what is posted."""
    at_ms = time.time_ns() // 1_000_000
    return json.dumps({"action": "stop", "grace_s": grace_ms / 1000, "at_ms": at_ms})


def _able(answer: Answer, at: str) -> bool:
    if not answer.pid or not os.path.exists(f"/proc/{answer.pid}"):
        return False
    needed = page.STEPS if at == "step" else page.POINTS | page.STEPS
    return bool(answer.capabilities & needed)


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
            **({"HYPERION_WORKLOAD_POINTS": "1"} if job.pausing.at else {}),
            **({pacing.VARIABLE: f"{1e3 * job.pausing.gpu_queue_s:g}"} if job.yields_gpus else {}),
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
        text, path = notice_text(grace_ms), self._notice_path(id)
        with contextlib.suppress(OSError):
            Path(f"{path}.part").write_text(text + "\n", encoding="utf-8")
            os.replace(f"{path}.part", path)

    async def stand(self, id: AllocationId, at: str, within_ms: int, hold_ms: int) -> Stood | None:
        """Ask it to come to a stand by itself, and wait until it does. None: it cannot, or has not
        in time, and is not asked any more."""
        workload = self._here.get(id)
        if workload is None or not _able(workload.page.read(), at):
            return None
        page_, asked_ns = workload.page, time.monotonic_ns()
        before = page_.read()
        until_ns = asked_ns + within_ms * 1_000_000
        wanted = page.STEP_PAUSE if at == "step" else page.PAUSE
        request = page_.ask(wanted, until_ns + hold_ms * 1_000_000)
        try:
            while (answer := page_.read()).acknowledged < request:
                if time.monotonic_ns() >= until_ns or answer.pid != before.pid:
                    return None
                await asyncio.sleep(_LOOK_CLOSELY_S)
        finally:
            if page_.read().acknowledged < request:
                page_.resume()
        return Stood(
            at="point" if answer.state == page.AT_POINT else "step",
            asked_ns=asked_ns,
            answer=answer,
        )

    async def settled(self, id: AllocationId, stood: Stood, within_s: float) -> Stood:
        """Wait until it has written its step and given back memory, or for so long."""
        workload, until = self._here.get(id), time.monotonic() + within_s
        while workload is not None and time.monotonic() < until:
            answer = workload.page.read()
            stood = msgspec.structs.replace(stood, answer=answer, settled_ns=time.monotonic_ns())
            if answer.state != page.SETTLING:
                self._tell(id, workload)
                break
            await asyncio.sleep(_LOOK_CLOSELY_S)
            workload = self._here.get(id)
        return stood

    def go_on(self, id: AllocationId) -> None:
        """It need not stand any more, whoever has asked it to."""
        workload = self._here.get(id)
        if workload is not None and workload.page.is_asked:
            workload.page.resume()

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
