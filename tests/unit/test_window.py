"""What is wrong with a window, said so that it can be put right."""

import pytest
from msgspec.structs import replace

from hyperion.model.ids import JobId, NodeId, QueueName, UserId, WindowId
from hyperion.model.job import Job
from hyperion.model.window import MAX_REASON_CHARS, Window, check_window

NOW_MS = 1_000_000
KNOWN = {NodeId("n1"), NodeId("n2")}
GOOD = Window(
    id=WindowId("disks"), begins_at_ms=2_000_000, ends_at_ms=3_000_000, nodes=(NodeId("n1"),)
)


def faults(**changes):
    return {f.pointer: f.message for f in check_window(replace(GOOD, **changes), NOW_MS, KNOWN)}


def test_a_window_that_has_begun_is_in_order():
    assert faults() == {}
    assert faults(begins_at_ms=500_000, queues=(QueueName("a.b"),), users=(UserId("x@y"),)) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"id": WindowId("no spaces")}, "/id", "letters, digits"),
        ({"begins_at_ms": -1}, "/begins", "after 1970"),
        ({"ends_at_ms": 2_000_000}, "/ends", "one after it"),
        ({"begins_at_ms": 1, "ends_at_ms": 400_000}, "/ends", "600 s ago"),
        ({"ends_at_ms": 10**15}, "/ends", "10 years"),
        ({"nodes": ()}, "/nodes", "found none"),
        ({"nodes": (NodeId("n1"), NodeId("n1"))}, "/nodes", "named twice"),
        ({"nodes": (NodeId("n1"), NodeId("zz"))}, "/nodes", '"zz"'),
        ({"nodes": tuple(NodeId(f"u{n}") for n in range(9))}, "/nodes", "and 6 more"),
        ({"queues": (QueueName("a"), QueueName("b\n"))}, "/queues/1", "name of a queue"),
        ({"users": (UserId(""),)}, "/users/0", "name of a user"),
        ({"users": tuple(UserId(f"u{n}") for n in range(999))}, "/users", "at most 256"),
        ({"reason": "x" * (MAX_REASON_CHARS + 1)}, "/reason", "one line"),
        ({"reason": "a\x1b[2Jb"}, "/reason", "\\x1b"),
    ],
)
def test_a_fault_names_the_place_and_what_was_expected(changes, pointer, message):
    found = faults(**changes)
    assert set(found) == {pointer}
    assert message in found[pointer]


def test_a_window_admits_by_queue_or_by_user():
    held = replace(GOOD, queues=(QueueName("night"),), users=(UserId("ann"),))
    job = Job(id=JobId("j"), run="x")
    assert held.admits(replace(job, queue=QueueName("night"), user=UserId("bob")))
    assert held.admits(replace(job, user=UserId("ann")))
    assert not held.admits(replace(job, user=UserId("bob")))
    assert not GOOD.admits(job)
    assert replace(GOOD, queues=(QueueName("default"),)).admits(job), "no queue is the default one"
