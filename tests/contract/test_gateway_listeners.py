"""Who may talk to which listener: unix socket, loopback, token, TLS; and how a listener ends."""

import http.client
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fifo_server import PROGRAM, serving

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.identity import Identity, Role
from hyperion.client import Client, HyperionError, Unauthorized
from hyperion.client.address import find
from hyperion.client.reach import pinned
from hyperion.daemon.gateway import Gateway, GatewayError, GatewaySettings, build

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    directory = tmp_path_factory.mktemp("authority")
    ours = Authority.open(directory / "ca", "test.hyperion")
    key, certificate = ours.issue(
        Identity("test.hyperion", Role.FEDERATION, "main"), ("127.0.0.1",)
    )
    (directory / "key.pem").write_bytes(key)
    (directory / "cert.pem").write_bytes(certificate)
    (directory / "ca.pem").write_bytes(ours.ca_pem)
    return ours, directory


@pytest.fixture(scope="module")
def tls(authority):
    _, directory = authority
    with serving(
        "--dry",
        port=0,
        token=f"{TOKEN}\nsecond",
        certificate_path=str(directory / "cert.pem"),
        key_path=str(directory / "key.pem"),
    ) as url:
        yield url


@pytest.fixture
def trusting(authority, monkeypatch):
    monkeypatch.setenv("HYPERION_CA", str(authority[1] / "ca.pem"))


def test_the_right_token_over_tls_is_let_in(tls, trusting):
    assert tls.startswith("https://")
    for token in (TOKEN, "second"):
        with Client(tls, token=token) as client:
            assert client.version().api == "v1"


@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN} second"])
def test_a_wrong_token_is_not(tls, trusting, token):
    with Client(tls, token=token) as client, pytest.raises(Unauthorized) as caught:
        client.version()
    assert "HYPERION_TOKEN" in caught.value.remedy


def test_health_needs_no_token(tls, authority):
    context = ssl.create_default_context(cafile=str(authority[1] / "ca.pem"))
    connection = http.client.HTTPSConnection(tls.partition("://")[2], timeout=5, context=context)
    connection.request("GET", "/v1/healthz")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_server_of_an_unknown_authority_is_refused(tls):
    with Client(tls, token=TOKEN) as client, pytest.raises(Unauthorized) as caught:
        client.version()
    assert "HYPERION_CA" in caught.value.remedy


def test_a_joiner_trusts_whom_its_token_pins_and_nobody_else(tls, authority, tmp_path):
    token = authority[0].new_token("client", "ann")
    address = pinned(find(tls, TOKEN), token)
    assert address.ca_pem == authority[0].ca_pem.decode()
    with Client.at(address) as client:
        assert client.version().api == "v1"
    other = Authority.open(tmp_path / "other", "test.hyperion").new_token("client", "ann")
    with pytest.raises(Unauthorized, match="not the federation"):
        pinned(find(tls, ""), other)


def test_a_certificate_of_another_role_is_no_federation(authority, tmp_path, trusting):
    ours, _ = authority
    key, certificate = ours.issue(Identity("test.hyperion", Role.SCHEDULER, "lab"), ("localhost",))
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "cert.pem").write_bytes(certificate)
    with (
        serving(
            "--dry",
            port=0,
            certificate_path=str(tmp_path / "cert.pem"),
            key_path=str(tmp_path / "key.pem"),
        ) as url,
        Client(url) as client,
        pytest.raises(Unauthorized, match="certificate for"),
    ):
        client.version()


def test_a_token_is_not_sent_in_the_clear():
    with pytest.raises(HyperionError, match="in the clear"):
        find("http://federation.example:7071", TOKEN)


def test_beyond_loopback_both_token_and_tls_are_needed():
    for given, lacking in (
        ({}, "a token, a certificate, its key"),
        ({"token": " \n"}, "a token"),
        ({"token": "t"}, "a certificate, its key"),
    ):
        with pytest.raises(GatewayError, match=lacking):
            Gateway(None, GatewaySettings(host="0.0.0.0", port=0, **given))


def test_settings_do_not_show_their_token():
    assert TOKEN not in repr(GatewaySettings(token=TOKEN))


def test_the_unix_socket_is_the_users_own_and_goes_with_the_server(tmp_path):
    path = tmp_path / "f.sock"
    with serving("--dry", socket_path=str(path)) as address:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(address) as client:
            assert client.version().api == "v1"
        refused = subprocess.run(
            [sys.executable, PROGRAM, f'{{"socket_path": "{path}"}}'],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert "a federation answers" in refused.stderr
        with Client(address) as client:
            assert client.version().api == "v1"
    assert not path.exists()


def test_a_socket_left_by_a_crash_is_replaced(tmp_path):
    path = tmp_path / "f.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving("--dry", socket_path=str(path)) as address, Client(address) as client:
        assert client.version().api == "v1"


@pytest.mark.parametrize("in_the_way", ["file", "long"])
def test_a_path_that_cannot_be_a_socket_is_told(tmp_path, in_the_way):
    path = tmp_path / ("f.sock" if in_the_way == "file" else "x" * 120)
    if in_the_way == "file":
        path.write_text("mine")
    refused = subprocess.run(
        [sys.executable, PROGRAM, f'{{"socket_path": "{path}"}}'],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "GatewayError" in refused.stderr
    assert ("no socket" if in_the_way == "file" else "longer than") in refused.stderr
    assert in_the_way == "long" or path.read_text() == "mine"


def test_a_stop_ends_open_streams_in_good_order(tmp_path):
    argv = [sys.executable, str(PROGRAM), f'{{"socket_path": "{tmp_path}/f.sock"}}', "--dry"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        server.stdout.readline()
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(10)
            stream.connect(f"{tmp_path}/f.sock")
            stream.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert stream.recv(4096).startswith(b"HTTP/1.1 200")
            os.kill(server.pid, signal.SIGTERM)
            received = b""
            while piece := stream.recv(4096):
                received += piece
        assert received.endswith(b"0\r\n\r\n")  # the body is complete
        assert b"event: end" not in received  # but the stream is not: the reader comes back
        assert server.wait(timeout=10) == 0
        assert server.stderr.read() == ""


def test_the_app_can_be_built_without_listening():
    assert any(route.path == "/v1/jobs" for route in build(None).routes)
