"""Real peers for the link's tests: an authority on disk, a serving side, a dialling side."""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import grpc

from hyperion.adapters.link.credentials import Credentials, save
from hyperion.adapters.link.downlinks import Downlinks
from hyperion.adapters.link.identity import Identity
from hyperion.adapters.link.streams import AGENTS, server_options
from hyperion.adapters.link.uplink import Uplink
from hyperion.control.messages import NodeHello
from hyperion.model.node import Node
from hyperion.model.resources import Capacity

DOMAIN = "test.hyperion"
WAIT_S = 15.0


def now_s():
    return int(time.time())  # noqa: TID251 - certificates live in real time


def credentials(authority, directory, role, name, ttl_s=3600):
    identity = Identity(authority.trust_domain, role, name)
    key, cert = authority.issue(identity, ["127.0.0.1"], ttl_s)
    where = directory / identity.role.value / name.replace("/", "_") / str(time.monotonic_ns())
    save(where, key, cert, authority.ca_pem)
    return Credentials.load(where, now_s())


def hello(node="n1"):
    return NodeHello(node=Node(id=node, capacity=Capacity(cpus_milli=4000, memory_mib=1024)))


class Seen:
    """What callbacks were called with, in order; a test waits for what it expects."""

    def __init__(self):
        self.events = []
        self._changed = asyncio.Event()

    def note(self, *event):
        self.events.append(event)
        self._changed.set()

    async def until(self, condition, within_s=WAIT_S):
        async with asyncio.timeout(within_s):
            while not condition(self.events):
                self._changed.clear()
                await self._changed.wait()

    async def has(self, *event, times=1, within_s=WAIT_S):
        await self.until(lambda events: events.count(event) >= times, within_s)

    async def kinds(self, kind, times=1, within_s=WAIT_S):
        await self.until(lambda events: sum(e[0] == kind for e in events) >= times, within_s)


async def until(condition, within_s=WAIT_S):
    """For what tells nobody that it has changed, such as ``last_error``."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def downlinks(seen, **settings):
    return Downlinks(
        AGENTS,
        DOMAIN,
        settings.pop("within", "home"),
        on_attached=lambda peer, hello: seen.note("attached", peer),
        on_message=lambda peer, message: seen.note("message", peer, message),
        on_detached=lambda peer: seen.note("detached", peer),
        **settings,
    )


@contextlib.asynccontextmanager
async def serving(links, server_credentials, port=0):
    """A gRPC server with the links on an ephemeral port of loopback; gives its address."""
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers((links.handler(),))
    bound = server.add_secure_port(f"127.0.0.1:{port}", server_credentials.server())
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(0)


def uplink(seen, target, own, hello_message=None, **settings):
    link = Uplink(
        AGENTS,
        target,
        lambda: own,
        on_attached=lambda: (seen.note("attached"), link.send(hello_message or hello())),
        on_message=lambda message: seen.note("message", message),
        on_detached=lambda: seen.note("detached"),
        **settings,
    )
    return link


@contextlib.asynccontextmanager
async def running(*links):
    tasks = [asyncio.ensure_future(link.run()) for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def process(credentials_directory, port=0):
    """The serving side as a process of its own: (process, address)."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(credentials_directory),
        str(port),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT_S):
            said = json.loads(await child.stdout.readline())
        yield child, said["address"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def serve_alone(directory, port):
    links = downlinks(Seen())
    async with serving(links, Credentials.load(Path(directory), now_s()), port) as address:
        print(json.dumps({"address": address}), flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve_alone(sys.argv[1], int(sys.argv[2])))
