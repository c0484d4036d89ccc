"""Who may attach: every wrong certificate is refused by a real TLS server, and says why."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from link_peers import DOMAIN, Seen, credentials, downlinks, hello, running, serving, until, uplink

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.credentials import Credentials, save, trusting
from hyperion.adapters.link.identity import Identity, Role, role_host
from hyperion.adapters.link.streams import AGENTS, channel_options


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.open(tmp_path_factory.mktemp("ca") / "ca", DOMAIN)


@pytest.fixture
def server(authority, tmp_path):
    return credentials(authority, tmp_path, Role.SCHEDULER, "home")


def refused_because(server, own, message=None):
    """What an agent with these credentials is told; it must not get in."""

    async def run():
        above, below = Seen(), Seen()
        async with serving(downlinks(above), server) as address:
            link = uplink(below, address, own, message)
            async with running(link):
                await until(lambda: link.last_error)
        assert not above.events
        return link.last_error

    return asyncio.run(run())


def past(**ago):
    return lambda: datetime.now(UTC) - timedelta(**ago)


def test_the_right_agent_gets_in(authority, server, tmp_path):
    async def run():
        above = Seen()
        own = credentials(authority, tmp_path, Role.AGENT, "home/n1")
        async with (
            serving(downlinks(above), server) as address,
            running(uplink(Seen(), address, own)),
        ):
            await above.has("attached", "n1")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (Role.CLIENT, "ann"),
        (Role.ADMIN, "root"),
        (Role.SCHEDULER, "other"),
        (Role.FEDERATION, "main"),
    ],
)
def test_a_wrong_role_is_refused(authority, server, tmp_path, role, name):
    why = refused_because(server, credentials(authority, tmp_path, role, name))
    assert f"PERMISSION_DENIED: spiffe://test.hyperion/{role.value}/{name} has role" in why
    assert "this call is for agent" in why


def test_another_name_than_the_certificates_is_refused(authority, server, tmp_path):
    own = credentials(authority, tmp_path, Role.AGENT, "home/n1")
    assert "says it is 'home/n2'; it may not" in refused_because(server, own, hello("n2"))
    own = credentials(authority, tmp_path, Role.AGENT, "office/n1")
    assert "says it is 'home/n1'; it may not" in refused_because(server, own)


def test_a_foreign_authority_is_refused_by_both_sides(authority, server, tmp_path):
    foreign = Authority.open(tmp_path / "foreign", DOMAIN)
    stranger = credentials(foreign, tmp_path, Role.AGENT, "home/n1")
    assert "UNAVAILABLE" in refused_because(server, stranger)
    # It trusts us, so only the server can refuse it.
    save(tmp_path / "mixed", stranger.key_pem, stranger.cert_pem, authority.ca_pem)
    mixed = Credentials(
        tmp_path / "mixed",
        stranger.identity,
        stranger.ends_s,
        stranger.key_pem,
        stranger.cert_pem,
        authority.ca_pem,
    )
    assert "UNAVAILABLE" in refused_because(server, mixed)


def test_another_trust_domain_of_one_authority_is_refused(server, authority, tmp_path):
    async def run():
        above = Seen()
        links = downlinks(above)
        links._trust_domain = "elsewhere"
        own = credentials(authority, tmp_path, Role.AGENT, "home/n1")
        async with serving(links, server) as address:
            link = uplink(Seen(), address, own)
            async with running(link):
                await until(lambda: link.last_error)
        assert "is not of trust domain elsewhere" in link.last_error

    asyncio.run(run())


def test_an_expired_certificate_is_refused(authority, server, tmp_path):
    long_ago = Authority.open(authority._tokens._directory.parent, DOMAIN, past(hours=2))
    key, cert = long_ago.issue(Identity(DOMAIN, Role.AGENT, "home/n1"), ttl_s=60)
    own = Credentials(
        tmp_path, Identity(DOMAIN, Role.AGENT, "home/n1"), 0, key, cert, authority.ca_pem
    )
    assert "UNAVAILABLE" in refused_because(server, own)


def test_a_session_ends_with_its_certificate(authority, server, tmp_path):
    async def run():
        above = Seen()
        own = credentials(authority, tmp_path, Role.AGENT, "home/n1", ttl_s=2)
        async with serving(downlinks(above), server) as address:
            link = uplink(Seen(), address, own)
            async with running(link):
                await above.has("attached", "n1")
                await above.has("detached", "n1", within_s=4)
                await until(lambda: "has expired; renew it" in link.last_error)
                await until(lambda: "UNAVAILABLE" in link.last_error)
        assert above.events == [("attached", "n1"), ("detached", "n1")]

    asyncio.run(run())


def test_noise_in_the_stream_is_refused_in_words(authority, server, tmp_path):
    async def run():
        above = Seen()
        own = credentials(authority, tmp_path, Role.AGENT, "home/n1")
        options = channel_options(Role.SCHEDULER)
        async with (
            serving(downlinks(above), server) as address,
            grpc.aio.secure_channel(address, own.channel(), options) as channel,
        ):
            call = channel.stream_stream(AGENTS.path)()
            await call.write(b"\xff" * 100)
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await call.details() == "100 bytes that are no AgentMessage"
        assert not above.events

    asyncio.run(run())


def test_no_certificate_is_refused(authority, server):
    async def run():
        above = Seen()
        async with serving(downlinks(above), server) as address:
            trust = grpc.ssl_channel_credentials(authority.ca_pem)
            options = channel_options(Role.SCHEDULER)
            async with grpc.aio.secure_channel(address, trust, options) as channel:
                call = channel.stream_stream(AGENTS.path)()
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await call.read()
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.stream_stream(AGENTS.path)()
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
        assert not above.events

    asyncio.run(run())


@pytest.mark.parametrize(("role", "name"), [(Role.FEDERATION, "main"), (Role.AGENT, "home/n9")])
def test_a_server_of_another_role_is_not_spoken_to(authority, tmp_path, role, name):
    """An agent's certificate may not serve at all; a federation is no scheduler."""
    impostor = credentials(authority, tmp_path, role, name)
    own = credentials(authority, tmp_path, Role.AGENT, "home/n1")
    assert "UNAVAILABLE" in refused_because(impostor, own)


def test_rest_trusts_by_the_same_files(authority, server, tmp_path):
    own = credentials(authority, tmp_path, Role.CLIENT, "ann")

    async def greet(reader, writer):
        names = [value for _, value in writer.get_extra_info("peercert")["subjectAltName"]]
        writer.write(names[0].encode())
        await writer.drain()
        writer.close()

    async def ask(port, context, host):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=host
        )
        try:
            return await reader.read()
        finally:
            writer.close()

    async def run():
        context = server.server_context(ask_certificate=True)
        listener = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        async with listener:
            host = role_host(Role.SCHEDULER)
            said = await ask(port, own.client_context(), host)
            assert said == b"spiffe://test.hyperion/client/ann"
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(port, own.client_context(), role_host(Role.FEDERATION))
            foreign = Authority.open(tmp_path / "foreign", DOMAIN)
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(port, trusting(foreign.ca_pem), host)
            with contextlib.suppress(OSError):  # the server may be gone before its alert is read
                assert await ask(port, trusting(authority.ca_pem), host) == b""

    asyncio.run(run())
