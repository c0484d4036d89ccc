"""The link between two real peers: messages, calls, replacement, overflow."""

import asyncio
from contextlib import aclosing

import pytest
from link_peers import (
    Seen,
    credentials,
    downlinks,
    hello,
    running,
    serving,
    until,
    uplink,
)

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.calls import MAX_OPEN, WINDOW
from hyperion.adapters.link.errors import (
    Conflict,
    Exhausted,
    Failed,
    Invalid,
    NotFound,
    TimedOut,
    Unavailable,
)
from hyperion.adapters.link.identity import Role
from hyperion.adapters.link.session import MAX_ITEMS, Outbox
from hyperion.control.messages import AllocationReport, Lease, NodeHeartbeat, Stop
from hyperion.model.allocation import AllocationState
from hyperion.wire.relay import Chunk


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("link")
    authority = Authority.open(directory / "ca", "test.hyperion")
    return {
        "server": credentials(authority, directory, Role.SCHEDULER, "home"),
        "n1": credentials(authority, directory, Role.AGENT, "home/n1"),
        "n2": credentials(authority, directory, Role.AGENT, "home/n2"),
    }


def beat(number):
    return NodeHeartbeat(sequence=number)


def lease(number):
    return Lease(sequence=number, duration_ms=1000)


def with_link(peers, scenario, **settings):
    """Run ``scenario(down, up, below, above)`` with an attached agent."""

    async def run():
        below, above = Seen(), Seen()
        down = downlinks(above, **settings)
        async with serving(down, peers["server"]) as address:
            up = uplink(below, address, peers["n1"])
            async with running(up):
                await above.has("attached", "n1")
                await scenario(down, up, below, above)

    asyncio.run(run())


def test_messages_arrive_both_ways_in_order_and_sessions_begin_and_end(peers):
    async def scenario():
        below, above = Seen(), Seen()
        down = downlinks(above)
        async with serving(down, peers["server"]) as address:
            up = uplink(below, address, peers["n1"])
            assert not up.send(beat(0))
            async with running(up):
                await above.has("attached", "n1")
                assert down.peers == ["n1"]
                assert up.attached
                for number in range(3000):
                    assert up.send(beat(number))
                    assert down.send("n1", lease(number))
                await above.kinds("message", 3000)
                await below.kinds("message", 3000)
            await above.has("detached", "n1")
            assert not up.attached
            assert not down.send("n1", lease(1))
            assert not down.send("n9", lease(1))
        beats = [event[2].sequence for event in above.events if event[0] == "message"]
        leases = [event[1].sequence for event in below.events if event[0] == "message"]
        assert beats == leases == list(range(3000))
        assert [event[0] for event in above.events if event[0] != "message"] == [
            "attached",
            "detached",
        ]
        assert below.events[0] == ("attached",)
        assert below.events[-1] == ("detached",)

    asyncio.run(scenario())


def test_nothing_but_a_hello_opens_a_session(peers):
    async def scenario():
        above, below = Seen(), Seen()
        async with serving(downlinks(above, hello_s=0.3), peers["server"]) as address:
            up = uplink(below, address, peers["n1"])
            up._on_attached = lambda: below.note("attached", up.send(beat(1)))
            async with running(up):
                await below.has("attached", False)
                await below.has("detached")
                await below.has("attached", False, times=2)
                assert "no Hello within 0.3 s" in up.last_error
        assert not above.events

    asyncio.run(scenario())


def test_a_second_hello_ends_the_session_and_the_next_begins(peers):
    async def scenario(down, up, below, above):
        up.send(hello())
        await above.has("detached", "n1")
        await above.has("attached", "n1", times=2)
        assert "second Hello" in up.last_error

    with_link(peers, scenario)


def test_a_newer_session_replaces_the_older(peers):
    async def scenario(down, up, below, above):
        newer = uplink(Seen(), up.target, peers["n1"])
        async with running(newer):
            await above.has("attached", "n1", times=2)
            assert [event[0] for event in above.events] == ["attached", "detached", "attached"]
            await below.has("detached")

    with_link(peers, scenario)


def test_a_session_ended_by_the_server_is_followed_by_another(peers):
    async def scenario(down, up, below, above):
        down.disconnect("n1", "say hello anew")
        await above.has("attached", "n1", times=2)
        assert "say hello anew" in up.last_error
        up.disconnect("changed my mind")
        await above.has("attached", "n1", times=3)

    with_link(peers, scenario)


def test_sessions_are_bounded(peers):
    async def scenario(down, up, below, above):
        other = uplink(Seen(), up.target, peers["n2"], hello("n2"))
        async with running(other):
            await until(lambda: other.last_error)
        assert "1 sessions are open" in other.last_error

    with_link(peers, scenario, max_sessions=1)


def test_a_message_that_the_contract_refuses_is_dropped_alone(peers, caplog):
    async def scenario(down, up, below, above):
        up.send(beat(1))
        for generation in (2**70, -5):  # what cannot be written, and what must not be read
            up.send(
                AllocationReport(
                    allocation="a", generation=generation, state=AllocationState.RUNNING
                )
            )
        up.send(beat(2))
        await above.has("message", "n1", beat(2))
        assert [event[0] for event in above.events] == ["attached", "message", "message"]

    with_link(peers, scenario)
    assert "AllocationReport was not sent" in caplog.text
    assert "was dropped: allocation_report.generation" in caplog.text


def test_too_much_unsent_ends_the_session(peers):
    async def scenario(down, up, below, above):
        sent = [up.send(beat(number)) for number in range(200)]
        assert not all(sent)
        await below.has("detached")
        assert not above.events or above.events[0][0] == "attached"
        await above.has("attached", "n1", times=2)
        assert "queue is full" in up.last_error

    async def run():
        below, above = Seen(), Seen()
        down = downlinks(above)
        async with serving(down, peers["server"]) as address:
            up = uplink(below, address, peers["n1"], queue_limit=100)
            async with running(up):
                await above.has("attached", "n1")
                await scenario(down, up, below, above)

    asyncio.run(run())


def test_large_bursts_travel_in_several_envelopes(peers):
    async def scenario(down, up, below, above):
        long = "x" * 30_000
        for number in range(400):
            assert down.send("n1", Stop(allocation=f"{number}{long}", generation=number))
        await below.kinds("message", 400)
        generations = [event[1].generation for event in below.events if event[0] == "message"]
        assert generations == list(range(400))

    with_link(peers, scenario)


def test_messages_go_before_chunks():
    async def scenario():
        outbox = Outbox(MAX_ITEMS * 3)
        for number in range(10):
            outbox.put_chunk(Chunk(id=number, body=b"x" * 100_000))
        for number in range(MAX_ITEMS + 1):
            outbox.put(beat(number))
        taken = await outbox.take()
        assert [type(item) for item in taken[:MAX_ITEMS]] == [NodeHeartbeat] * MAX_ITEMS
        assert [item.id for item in taken[MAX_ITEMS:]] == [0, 1, 2]
        taken = await outbox.take()
        assert isinstance(taken[0], NodeHeartbeat)
        assert [item.id for item in taken[1:]] == [3, 4, 5]

    asyncio.run(scenario())


# -- calls ---------------------------------------------------------------------------------------


async def pieces_of(call):
    return [piece async for piece in call]


def test_calls_are_answered_both_ways_at_once(peers):
    async def scenario(down, up, below, above):
        async def count(body):
            for number in range(20):
                yield body + b"%d" % number

        async def whoami(peer, body):
            yield peer.encode()
            yield body

        up.serve("count", count)
        down.serve("whoami", whoami)
        down.disconnect("n1")  # the server side takes up its methods when a session begins
        await above.has("attached", "n1", times=2)
        answers = await asyncio.gather(
            *(pieces_of(down.call("n1", "count", b"%d:" % n)) for n in range(20)),
            *(pieces_of(up.call("whoami", b"%d" % n)) for n in range(20)),
        )
        for number, answer in enumerate(answers[:20]):
            assert answer == [b"%d:%d" % (number, n) for n in range(20)]
        assert answers[20:] == [[b"n1", b"%d" % n] for n in range(20)]

    with_link(peers, scenario)


def test_errors_come_back_as_what_they_were(peers, caplog):
    class Spec(ValueError):
        problems = ("a",)

    raised = {
        "notfound": NotFound("no job abc"),
        "keyerror": KeyError("no node n7"),
        "valueerror": ValueError("tail_lines: found -1"),
        "spec": Spec("bad spec"),
        "conflict": Conflict("it has ended"),
        "offline": ConnectionRefusedError("gone"),
        "bug": RuntimeError("a secret detail"),
    }
    expected = [NotFound, NotFound, Invalid, Invalid, Conflict, Unavailable, Failed]

    async def scenario(down, up, below, above):
        async def fail(body):
            yield b"before"
            raise raised[body.decode()]

        up.serve("fail", fail)
        for name, kind in zip(raised, expected, strict=True):
            call = down.call("n1", "fail", name.encode())
            assert await anext(call) == b"before"
            with pytest.raises(kind) as refusal:
                await anext(call)
            assert type(refusal.value) is kind
            assert "secret" not in str(refusal.value)
        with pytest.raises(NotFound, match="no method 'nothing'"):
            await pieces_of(down.call("n1", "nothing"))
        with pytest.raises(Unavailable, match="agent n5 is not attached"):
            await pieces_of(down.call("n5", "fail"))
        with pytest.raises(Invalid, match="body holds"):
            await pieces_of(down.call("n1", "fail", b"x" * (2 << 20)))

    with_link(peers, scenario)
    assert "a secret detail" in caplog.text


def test_a_producer_of_too_large_a_piece_is_refused(peers):
    async def scenario(down, up, below, above):
        async def large(body):
            yield b"x" * (1 << 20)
            yield b"x" * ((1 << 20) + 1)

        up.serve("large", large)
        with pytest.raises(Exhausted, match="chunk holds"):
            await pieces_of(down.call("n1", "large"))

    with_link(peers, scenario)


def test_closing_the_answer_cancels_the_producer(peers):
    async def scenario(down, up, below, above):
        stopped = asyncio.Event()

        async def endless(body):
            try:
                while True:
                    yield b"x"
            finally:
                stopped.set()

        up.serve("endless", endless)
        async with aclosing(down.call("n1", "endless")) as pieces:
            async for _ in pieces:
                break
        async with asyncio.timeout(5):
            await stopped.wait()
        up.send(beat(1))
        await above.has("message", "n1", beat(1))

    with_link(peers, scenario)


def test_a_slow_reader_stops_its_own_producer_and_nobody_else(peers):
    async def scenario(down, up, below, above):
        made = []

        async def flood(body):
            while True:
                made.append(1)
                yield b"x" * 100_000

        async def quick(body):
            yield b"quick"

        up.serve("flood", flood)
        up.serve("quick", quick)
        async with aclosing(down.call("n1", "flood")) as slow:
            await anext(slow)
            for number in range(50):
                assert await pieces_of(down.call("n1", "quick")) == [b"quick"]
                up.send(beat(number))
            await above.kinds("message", 50)
            assert len(made) <= WINDOW + 2
            for _ in range(20):
                await anext(slow)
            assert 20 < len(made) <= 20 + WINDOW + 3

    with_link(peers, scenario)


def test_silence_times_out_and_the_call_is_cancelled(peers):
    async def scenario(down, up, below, above):
        stopped = asyncio.Event()

        async def silent(body):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                stopped.set()
            yield b""

        up.serve("silent", silent)
        with pytest.raises(TimedOut, match=r"silent: no answer for 0.2 s"):
            await pieces_of(down.call("n1", "silent", quiet_s=0.2))
        async with asyncio.timeout(5):
            await stopped.wait()

    with_link(peers, scenario)


def test_open_calls_are_bounded_and_end_with_the_link(peers):
    async def scenario(down, up, below, above):
        running_now = []

        async def follow(body):
            running_now.append(1)
            yield b"first"
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                running_now.pop()

        up.serve("follow", follow)
        calls = [down.call("n1", "follow", quiet_s=None) for _ in range(MAX_OPEN)]
        assert await asyncio.gather(*(anext(call) for call in calls)) == [b"first"] * MAX_OPEN
        with pytest.raises(Exhausted, match="64 calls are open"):
            await anext(down.call("n1", "follow"))
        await calls.pop().aclose()
        calls.append(down.call("n1", "follow", quiet_s=None))
        assert await anext(calls[-1]) == b"first"
        rest = [asyncio.ensure_future(anext(call)) for call in calls]
        down.disconnect("n1")
        outcomes = await asyncio.gather(*rest, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        await until(lambda: not running_now)

    with_link(peers, scenario)
