"""What a link does when the other side is killed, frozen or gone: real processes, real sockets."""

import asyncio
import contextlib
import signal
import socket
import time
from itertools import pairwise

import pytest
from link_peers import Seen, credentials, downlinks, process, running, serving, until, uplink

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.credentials import Credentials, save
from hyperion.adapters.link.errors import Unavailable
from hyperion.adapters.link.identity import Role


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.open(tmp_path_factory.mktemp("ca") / "ca", "test.hyperion")


@pytest.fixture
def peers(authority, tmp_path):
    return {
        "server": credentials(authority, tmp_path, Role.SCHEDULER, "home"),
        "agent": credentials(authority, tmp_path, Role.AGENT, "home/n1"),
    }


class Wire:
    """A TCP relay that can stop passing anything on, without closing: a cable pulled."""

    def __init__(self, target):
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps = []

    async def _pump(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while piece := await reader.read(65536):
                await self._whole.wait()
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _accept(self, reader, writer):
        there, back = await asyncio.open_connection(self._host, self._port)
        self._pumps += [
            asyncio.ensure_future(self._pump(reader, back)),
            asyncio.ensure_future(self._pump(there, writer)),
        ]

    def cut(self):
        self._whole.clear()

    @contextlib.asynccontextmanager
    async def listening(self):
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        finally:
            listener.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)


def test_a_killed_server_that_comes_back_is_attached_to_again_within_six_seconds(peers):
    async def run():
        seen = Seen()
        directory = peers["server"].directory
        async with process(directory) as (child, address):
            link = uplink(seen, address, peers["agent"])
            async with running(link):
                await seen.has("attached")
                child.send_signal(signal.SIGKILL)
                await seen.has("detached")
                await child.wait()
                async with process(directory, int(address.rsplit(":", 1)[1])):
                    back = time.monotonic()
                    await seen.has("attached", times=2, within_s=6)
                    assert time.monotonic() - back < 6

    asyncio.run(run())


def test_a_cut_wire_is_noticed_by_both_sides_within_ten_seconds(peers):
    async def run():
        above, below = Seen(), Seen()
        links = downlinks(above)
        async with serving(links, peers["server"]) as target:
            wire = Wire(target)
            async with wire.listening() as address:
                link = uplink(below, address, peers["agent"])
                async with running(link):
                    await above.has("attached", "n1")
                    await below.has("attached")
                    waiting = asyncio.ensure_future(anext(link.call("forever")))
                    wire.cut()
                    began = time.monotonic()
                    await below.has("detached", within_s=10)
                    await above.has("detached", "n1", within_s=10)
                    assert time.monotonic() - began < 10
                    with pytest.raises(Unavailable):
                        await waiting

    asyncio.run(run())


def test_nobody_there_is_tried_again_with_growing_waits(peers):
    async def run():
        # Bound and not listening: nobody else can take the port, and nobody answers on it.
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{held.getsockname()[1]}"
            asked = []

            def own():
                asked.append(time.monotonic())
                return peers["agent"]

            link = uplink(Seen(), address, peers["agent"])
            link._credentials = own
            async with running(link):
                await until(lambda: len(asked) >= 5)
            gaps = [after - before for before, after in pairwise(asked)]
            assert gaps[0] < gaps[3]
            assert sum(gaps) < 8
            assert "UNAVAILABLE" in link.last_error

    asyncio.run(run())


def test_a_renewed_certificate_is_taken_up_at_the_next_session(authority, peers, tmp_path):
    async def run():
        above, below = Seen(), Seen()
        links = downlinks(above)
        where = tmp_path / "own"
        key, cert = authority.issue(peers["agent"].identity, ttl_s=60)
        save(where, key, cert, authority.ca_pem)
        loaded = []

        def load():
            loaded.append(Credentials.load(where, int(authority._now().timestamp())))
            return loaded[-1]

        async with serving(links, peers["server"]) as address:
            link = uplink(below, address, peers["agent"])
            link._credentials = load
            async with running(link):
                await above.has("attached", "n1")
                key, cert = authority.issue(peers["agent"].identity, ttl_s=7200)
                save(where, key, cert, authority.ca_pem)
                link.disconnect("renewed")
                await above.has("attached", "n1", times=2)
        assert loaded[-1].ends_s > loaded[0].ends_s

    asyncio.run(run())


def test_unreadable_credentials_do_not_end_the_link(peers, tmp_path):
    async def run():
        above = Seen()
        async with serving(downlinks(above), peers["server"]) as address:
            link = uplink(Seen(), address, peers["agent"])
            good = link._credentials
            link._credentials = lambda: Credentials.load(tmp_path / "none", 0)
            async with running(link):
                await until(lambda: "key.pem is missing" in link.last_error)
                link._credentials = good
                await above.has("attached", "n1")

    asyncio.run(run())
