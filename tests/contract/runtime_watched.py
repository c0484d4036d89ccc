"""A runtime under test: all it says, awaited; and small things to look at processes with."""

import asyncio
from pathlib import Path

from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.control.messages import ReplicaExited, ReplicaStarted
from hyperion.control.messages import Run as RunOrder
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Surroundings

WAIT_S = 20.0


class Watched:
    """A runtime with all it has said, and a way to await what it will say."""

    def __init__(self, directory, **settings):
        settings.setdefault("node", "node-1")
        self.runtime = ProcessRuntime(directory, self.surround, "127.0.0.1", **settings)
        self.events = []
        self._news = asyncio.Event()

    @staticmethod
    def surround(order, directory, port):
        variables = {"RANK": str(order.rank), "MASTER_PORT": str(port), "HERE": directory}
        return Surroundings(variables=variables, files={"hostfile": "node-1 slots=1\n"})

    async def __aenter__(self):
        await self.runtime.start(self._hear)
        return self

    async def __aexit__(self, *_):
        for started in [e for e in self.events if isinstance(e, ReplicaStarted)]:
            if self.said(started.allocation, ReplicaExited) == []:
                await self.runtime.kill(started.allocation, 0)
                await self.exited(started.allocation)
        await self.runtime.close()

    def _hear(self, event):
        self.events.append(event)
        self._news.set()

    def said(self, allocation, kind):
        return [e for e in self.events if e.allocation == allocation and isinstance(e, kind)]

    async def heard(self, allocation, kind, count=1):
        async with asyncio.timeout(WAIT_S):
            while len(found := self.said(allocation, kind)) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]

    async def exited(self, allocation, count=1):
        return await self.heard(allocation, ReplicaExited, count)

    async def run(self, allocation="job.1-1.0", **job):
        await self.runtime.launch(order(allocation, **job))
        return await self.exited(allocation)

    async def output(self, allocation="job.1-1.0", follow=False, tail_lines=None):
        chunks = [c async for c in self.runtime.logs(AllocationId(allocation), follow, tail_lines)]
        return b"".join(chunks).decode()


def order(allocation="job.1-1.0", *, kind=RunOrder, peers=None, request=None, **job):
    more = {"peers": peers} if peers else {}
    return kind(
        allocation=AllocationId(allocation),
        generation=1,
        job=Job(id=JobId("job"), **job),
        rank=0,
        attempt=1,
        request=request or ResourceRequest(),
        **more,
    )


async def await_file(path):
    """Its content, once it ends with a newline; nothing else tells of a foreign process's file."""
    async with asyncio.timeout(WAIT_S):
        while not path.exists() or not path.read_text().endswith("\n"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return path.read_text()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
