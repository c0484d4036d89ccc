"""What the federation asks a scheduler of queues, windows and waiting jobs, and its answers."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import msgspec

from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.messages import Answer
from hyperion.control.outlook import Prospect
from hyperion.daemon import cluster_views as views
from hyperion.daemon import questions as q
from hyperion.daemon.application import Conflict, NotFound
from hyperion.daemon.driver import Driver
from hyperion.daemon.promise_views import promise_views
from hyperion.model.ids import JobId, WindowId
from hyperion.model.job import Job
from hyperion.model.queue import Queue
from hyperion.ports import Clock
from hyperion.wire.api import OutlookView
from hyperion.wire.outlook_text import outlook_sentences
from hyperion.wire.rest import WindowRequest

PIECE_BYTES = 512 << 10
"""Of an answer; the link carries up to twice as much at once."""
_QUEUES = msgspec.json.Decoder(tuple[Queue, ...])


class Answering(Protocol):
    """The stream to the federation, as far as it takes answers."""

    def serve(self, method: str, produce: Callable[[bytes], AsyncIterator[bytes]]) -> None: ...


class ClusterQuestions:
    def __init__(
        self,
        machine: ClusterMachine,
        driver: Driver,
        clock: Clock,
        excuses: Callable[[JobId], tuple[str, ...]],
    ) -> None:
        """``excuses`` tells of a job that was placed by the policy's replacement."""
        self._machine = machine
        self._excuses = excuses
        self._driver = driver
        self._clock = clock

    def serve(self, stream: Answering) -> None:
        stream.serve(q.QUEUES, self._queues)
        stream.serve(q.APPLY_QUEUES, self._apply_queues)
        stream.serve(q.DROP_QUEUE, self._drop_queue)
        stream.serve(q.WINDOWS, self._windows)
        stream.serve(q.ADD_WINDOW, self._add_window)
        stream.serve(q.DROP_WINDOW, self._drop_window)
        stream.serve(q.EXPLAIN, self._explain)
        stream.serve(q.TRIAL, self._trial)
        stream.serve(q.PROMISE, self._promise)

    async def apply(self, queues: tuple[Queue, ...]) -> None:
        """Make this the whole tree. Raises Conflict with what is wrong with it."""
        raise_for(await self._driver.ask(lambda token: m.QueuesApplied(queues, token)))

    # -- answers --------------------------------------------------------------------------------

    async def _queues(self, _: bytes) -> AsyncIterator[bytes]:
        for piece in self._queue_rows():
            yield piece

    async def _apply_queues(self, body: bytes) -> AsyncIterator[bytes]:
        await self.apply(_QUEUES.decode(body))
        for piece in self._queue_rows():
            yield piece

    async def _drop_queue(self, body: bytes) -> AsyncIterator[bytes]:
        name = msgspec.json.decode(body, type=q.Named).name
        await self.apply(views.without_queue(self._machine.state.queues, name))
        for piece in self._queue_rows():
            yield piece

    async def _windows(self, _: bytes) -> AsyncIterator[bytes]:
        now_ms = self._clock.now_ms()
        windows = self._machine.state.windows.values()
        for piece in pieces([views.window_view(w, self._cluster, now_ms) for w in windows]):
            yield piece

    async def _add_window(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=WindowRequest)
        now_ms = self._clock.now_ms()
        window = views.window_of(self._machine.state, asked, now_ms)
        raise_for(await self._driver.ask(lambda token: m.WindowApplied(window, token)))
        for piece in pieces(views.window_view(window, self._cluster, now_ms)):
            yield piece

    async def _drop_window(self, body: bytes) -> AsyncIterator[bytes]:
        id = WindowId(msgspec.json.decode(body, type=q.Named).name)
        window = self._machine.state.windows.get(id)
        raise_for(await self._driver.ask(lambda token: m.WindowCancelled(id, token)))
        assert window is not None, f"window {id} was called off and never was"
        for piece in pieces(views.window_view(window, self._cluster, self._clock.now_ms())):
            yield piece

    def explain(self, job_id: JobId) -> q.Explanation:
        """Why the job waits in this cluster, or what it does here."""
        now_ms = self._clock.now_ms()
        prospect = self._machine.prospects.of(job_id, now_ms)
        if prospect is None:
            return q.Explanation()
        if not prospect.waits:
            return q.Explanation((prospect.remark, *self._excuses(job_id)))
        job = self._machine.state.jobs[job_id].job
        outlook = self._outlook(prospect, job)
        return q.Explanation(
            sentences=outlook_sentences(outlook, now_ms) or (prospect.remark,),
            refusals=prospect.reasons,
            queue_position=prospect.position,
            outlook=outlook,
        )

    async def _explain(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.Explain)
        for piece in pieces(self.explain(JobId(asked.job))):
            yield piece

    async def _trial(self, body: bytes) -> AsyncIterator[bytes]:
        job = msgspec.json.decode(body, type=Job)
        now_ms = self._clock.now_ms()
        prospect = self._machine.prospects.trial(job, now_ms)
        if not (prospect.reasons or prospect.quota or prospect.starts_at_ms):
            raise Conflict(prospect.remark or "nothing can be told of it")
        for piece in pieces(self._outlook(prospect, job)):
            yield piece

    async def _promise(self, _: bytes) -> AsyncIterator[bytes]:
        for piece in pieces(promise_views(self._machine.pausing.promise, self._cluster)):
            yield piece

    def _outlook(self, prospect: Prospect, job: Job) -> OutlookView:
        return views.outlook_view(self._machine.state, prospect, self._cluster, job)

    def _queue_rows(self) -> Iterator[bytes]:
        state = self._machine.state
        return pieces(views.queue_views(state, self._cluster, self._clock.now_ms()))

    @property
    def _cluster(self) -> str:
        return self._machine.cluster.id


def pieces(answer: Any) -> Iterator[bytes]:
    """The answer as JSON, in pieces that the link takes."""
    whole = msgspec.json.encode(answer)
    return (whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES))


def raise_for(answer: Answer) -> None:
    """Raise what the machine refused with."""
    if answer.error:
        raise (NotFound if answer.code == "not_found" else Conflict)(answer.error)
