"""What a scheduler answers of queues, windows and waiting jobs, over its real machine."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from cluster_stories import machine
from stories import job, node

from hyperion.adapters.store.memory import MemoryStore
from hyperion.control import messages as m
from hyperion.daemon import questions as q
from hyperion.daemon.application import Conflict, NotFound
from hyperion.daemon.clock import WallClock
from hyperion.daemon.cluster_questions import ClusterQuestions, pieces
from hyperion.daemon.driver import Driver
from hyperion.model.ids import JobId, WindowId
from hyperion.model.job import Dependency
from hyperion.model.queue import Queue
from hyperion.wire.api import OutlookView, QueueView, WindowView
from hyperion.wire.queue_file import queues_from_yaml
from hyperion.wire.rest import WindowRequest

HOUR_MS = 3_600_000


class Asked:
    """The federation's end: asks by method name and decodes the answer."""

    def __init__(self, cluster, driver, questions, clock):
        self.machine, self.driver, self.clock = cluster, driver, clock
        self.questions = questions
        self.methods = {}
        questions.serve(self)

    def serve(self, method, produce):
        self.methods[method] = produce

    async def ask(self, method, body, kind):
        raw = msgspec.json.encode(body) if body is not None else b""
        answer = b"".join([piece async for piece in self.methods[method](raw)])
        return msgspec.json.decode(answer, type=kind)

    async def submit(self, *jobs):
        for each in jobs:
            answer = await self.driver.ask(lambda token, j=each: m.JobSubmitted(j, token))
            assert not answer.error, answer.error
        while self.machine.wants_round:  # noqa: ASYNC110  the driver's own pace
            await asyncio.sleep(0.002)

    async def apply(self, text):
        return await self.ask(q.APPLY_QUEUES, queues_from_yaml(text, "test"), list[QueueView])


@asynccontextmanager
async def cluster(*nodes):
    clock, c = WallClock(), machine()
    driver = Driver(c, MemoryStore(), clock, lambda command: None)
    driver.recover()
    excuses = {"excused": ("Policy balanced ranked instead of x.",)}
    questions = ClusterQuestions(c, driver, clock, lambda job: excuses.get(job, ()))
    running = asyncio.create_task(driver.run())
    try:
        for each in nodes or (node("n1"), node("n2")):
            driver.note(m.NodeAttached(hello=m.NodeHello(node=each)))
        while len(c.state.nodes) < len(nodes or (1, 2)):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        yield Asked(c, driver, questions, clock)
    finally:
        driver.stop()
        await running


def story(test):
    """An async test, run."""

    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    run.__name__ = test.__name__
    return run


TREE = """
research:
  quota: {gpus: 8, cpus: 16}
  queues:
    vision: {quota: {gpus: 4}}
    speech: {quota: {gpus: 4}, borrow: {gpus: 0}, users: [ann]}
nightly: {stopped: true}
"""


# -- queues ----------------------------------------------------------------------------------------


@story
async def test_the_default_queue_is_there_without_being_made():
    async with cluster() as c:
        (row,) = await c.ask(q.QUEUES, None, list[QueueView])
        assert (row.name, row.cluster, row.quota, row.waiting) == ("default", "c1", {}, 0)


@story
async def test_an_applied_tree_is_shown_with_what_its_jobs_use():
    async with cluster() as c:
        rows = await c.apply(TREE)
        assert [row.name for row in rows] == ["default", "nightly", "research", "speech", "vision"]
        await c.submit(job(id="a", gpus=6, cpus=2, queue="vision"))
        rows = {row.name: row for row in await c.ask(q.QUEUES, None, list[QueueView])}
        assert rows["vision"].used["gpus_milli"] == 6000
        assert rows["vision"].borrowed["gpus_milli"] == 2000
        assert rows["research"].used["cpus_milli"] == 2000
        assert rows["vision"].share > rows["speech"].share == 0
        assert rows["speech"].users == ("ann",)
        assert rows["nightly"].stopped


@story
async def test_a_queue_with_jobs_or_queues_in_it_stays():
    async with cluster() as c:
        await c.apply(TREE)
        await c.submit(job(id="a", gpus=1, queue="vision"))
        with pytest.raises(Conflict, match='"vision" has jobs'):
            await c.apply("research: {queues: {speech: {}}}")
        with pytest.raises(Conflict, match="has queues in it"):
            await c.ask(q.DROP_QUEUE, q.Named("research"), list[QueueView])
        with pytest.raises(NotFound, match="no queue none"):
            await c.ask(q.DROP_QUEUE, q.Named("none"), list[QueueView])
        rows = await c.ask(q.DROP_QUEUE, q.Named("nightly"), list[QueueView])
        assert "nightly" not in [row.name for row in rows]


@story
async def test_a_tree_that_makes_no_sense_is_refused():
    async with cluster() as c:
        odd = (Queue(name="a", parent="b"), Queue(name="b", parent="a"))
        with pytest.raises(Conflict, match="/queues"):
            await c.ask(q.APPLY_QUEUES, odd, list[QueueView])


# -- windows ---------------------------------------------------------------------------------------


def window(c, **more):
    now_ms = c.clock.now_ms()
    fixed = {"id": "w", "begins_at_ms": now_ms + HOUR_MS, "ends_at_ms": now_ms + 2 * HOUR_MS}
    return WindowRequest(**{**fixed, **more})


@story
async def test_windows_are_added_by_name_listed_and_called_off():
    async with cluster() as c:
        made = await c.ask(q.ADD_WINDOW, window(c, nodes=("n1",), reason="disks"), WindowView)
        assert (made.kind, made.state, made.nodes) == ("maintenance", "planned", ("n1",))
        (row,) = await c.ask(q.WINDOWS, None, list[WindowView])
        assert row == made
        assert (await c.ask(q.DROP_WINDOW, q.Named("w"), WindowView)).id == "w"
        assert await c.ask(q.WINDOWS, None, list[WindowView]) == []
        with pytest.raises(NotFound, match="no window w"):
            await c.ask(q.DROP_WINDOW, q.Named("w"), WindowView)
        with pytest.raises(Conflict, match="expected nodes of this cluster"):
            await c.ask(q.ADD_WINDOW, window(c, nodes=("n9",)), WindowView)
        past = window(c, nodes=("n1",), begins_at_ms=5, ends_at_ms=6)
        with pytest.raises(Conflict, match="expected one in the future"):
            await c.ask(q.ADD_WINDOW, past, WindowView)


@story
async def test_a_number_of_nodes_takes_the_emptiest_that_are_in_no_other_window():
    async with cluster(node("n1"), node("n2"), node("n3", gpus=0), node("n4")) as c:
        await c.submit(job(id="a", gpus=8))
        (held,) = {a.node for a in c.machine.state.allocations.values()}
        await c.ask(q.ADD_WINDOW, window(c, nodes=("n3",)), WindowView)
        some = window(c, id="w2", count=2, queues=("default",))
        made = await c.ask(q.ADD_WINDOW, some, WindowView)
        assert made.kind == "reservation"
        assert len(made.nodes) == 2
        assert not {"n3", held} & set(made.nodes)
        with pytest.raises(Conflict, match="3 nodes with A100 are asked for, 1 are usable"):
            await c.ask(q.ADD_WINDOW, window(c, id="w3", count=3, gpu_type="A100"), WindowView)
        again = await c.ask(q.ADD_WINDOW, window(c, id="w2", count=3, gpu_type="A100"), WindowView)
        assert again.nodes == ("n1", "n2", "n4"), "its own nodes are free for the same window"
        later = window(c, id="w4", count=4)
        later = msgspec.structs.replace(
            later, begins_at_ms=later.ends_at_ms, ends_at_ms=later.ends_at_ms + 5
        )
        assert len((await c.ask(q.ADD_WINDOW, later, WindowView)).nodes) == 4


@story
async def test_a_window_that_has_begun_says_so():
    async with cluster() as c:
        made = await c.ask(q.ADD_WINDOW, window(c, begins_at_ms=0, nodes=("n1",)), WindowView)
        assert made.state == "begun"
        assert WindowId("w") in c.machine.state.windows


# -- waiting jobs ----------------------------------------------------------------------------------


@story
async def test_a_job_that_waits_is_told_why_and_for_how_long():
    async with cluster() as c:
        first = [job(id=f"r{n}", gpus=8, expected_s=600) for n in (1, 2)]
        await c.submit(*first, job(id="w1", gpus=4), job(id="w2", gpus=4))
        told = c.questions.explain(JobId("w2"))
        outlook = told.outlook
        assert told.queue_position == outlook.position == 1
        assert outlook.position_in_queue == 1
        assert [(reason.reason, reason.nodes) for reason in outlook.reasons] == [("GPU_COUNT", 2)]
        assert told.refusals
        now_ms = c.clock.now_ms()
        assert now_ms < outlook.starts_at_ms <= now_ms + 600_000
        assert 0 < outlook.confidence < 1
        assert set(outlook.because) <= {"r1", "r2"}
        text = " ".join(told.sentences)
        assert "1 job is before it in c1" in text
        assert "Now 0 of 2 nodes have room" in text
        assert "% sure" in text


@story
async def test_a_gang_is_told_with_how_many_replicas_it_would_start():
    async with cluster() as c:
        await c.submit(job(id="r", gpus=8, expected_s=600), job(id="w", gpus=4, replicas=4))
        outlook = c.questions.explain(JobId("w")).outlook
        assert (outlook.replicas_now, outlook.replicas) == (2, 4)
        assert "It would start now with 2 replicas instead of 4." in " ".join(
            c.questions.explain(JobId("w")).sentences
        )


@story
async def test_a_quota_a_dependency_and_a_running_job_are_told():
    async with cluster() as c:
        await c.apply("small: {quota: {gpus: 2}}\n")
        await c.submit(
            job(id="a", gpus=2, queue="small"),
            job(id="b", gpus=1, queue="small"),
            job(id="c", after=(Dependency(JobId("a")),)),
        )
        quota = c.questions.explain(JobId("b")).outlook.quota
        assert (quota.queue, quota.resource, quota.used, quota.limit, quota.asked) == (
            "small",
            "gpus_milli",
            2000,
            2000,
            1000,
        )
        waits = c.questions.explain(JobId("c"))
        assert waits.outlook.awaits == ("a",)
        assert "It waits for the end of job a." in waits.sentences
        runs = c.questions.explain(JobId("a"))
        assert runs.outlook is None
        assert "1 of 1 replicas are on n" in runs.sentences[0]
        assert c.questions.explain(JobId("none")) == q.Explanation()


@story
async def test_a_job_that_balanced_placed_instead_of_the_policy_is_told_so():
    async with cluster() as c:
        await c.submit(job(id="excused"))
        assert c.questions.explain(JobId("excused")).sentences[1:] == (
            "Policy balanced ranked instead of x.",
        )


@story
async def test_a_job_that_is_not_submitted_is_told_the_same_and_nothing_changes():
    async with cluster() as c:
        outlook = await c.ask(q.TRIAL, job(id="t", gpus=8), OutlookView)
        assert outlook.starts_at_ms <= c.clock.now_ms()
        assert outlook.replicas_now == 1
        await c.submit(job(id="r1", gpus=8, expected_s=60), job(id="r2", gpus=8, expected_s=60))
        outlook = await c.ask(q.TRIAL, job(id="t", gpus=8), OutlookView)
        assert outlook.position is None
        assert outlook.starts_at_ms > c.clock.now_ms()
        assert [(reason.reason, reason.nodes) for reason in outlook.reasons] == [("GPU_COUNT", 2)]
        never = await c.ask(q.TRIAL, job(id="t", gpus=9), OutlookView)
        assert never.never
        assert never.starts_at_ms is None
        with pytest.raises(Conflict, match="no queue"):
            await c.ask(q.TRIAL, job(id="t", queue="none"), OutlookView)
        assert set(c.machine.state.jobs) == {"r1", "r2"}


def test_a_long_answer_comes_in_pieces_that_the_link_takes():
    answer = ["x" * 1000] * 2000
    parts = list(pieces(answer))
    assert max(map(len, parts)) <= 1 << 19
    assert msgspec.json.decode(b"".join(parts)) == answer
