"""Being told over HTTP to end: real servers, and a real job that listens."""

import asyncio
import json
import logging
import socket
import sys

import pytest
from daemons import World, until

from hyperion.daemon import notices
from hyperion.model.ids import AllocationId
from hyperion.model.notice import NoticeUrl, notice_url

ID = AllocationId("train.1-1.0")
BODY = b'{"action": "stop"}'


def told(answers, method="POST"):
    """What a server hears that answers so, connection by connection; None: not at all."""
    heard = []

    async def main():
        async def serve(reader, writer):
            answer = answers[min(len(heard), len(answers) - 1)]
            head = await reader.readuntil(b"\r\n\r\n")
            heard.append((head, await reader.readexactly(len(BODY)) if b"POST" in head else b""))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await notices.tell(ID, NoticeUrl(method, "127.0.0.1", port, "/preempt?x=1"), BODY)

    asyncio.run(main())
    return heard


def test_it_is_posted_as_json_or_asked_for():
    [(head, body)] = told([b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert head.startswith(b"POST /preempt?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Content-Type: application/json\r\nContent-Length: 18\r\n" in head
    assert body == BODY
    [(head, _)] = told([b"HTTP/1.1 200 OK\r\n\r\n"], "GET")
    assert head.startswith(b"GET /preempt?x=1 HTTP/1.1\r\n")
    assert b"Content-Length" not in head


@pytest.mark.parametrize(
    ("answers", "times", "says"),
    [
        ([b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], 2, ""),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n"], 2, "it answers 302"),
        ([b"SSH-2.0-x\r\n"], 2, "expected an answer of HTTP/1.1"),
        ([b"x" * 100_000], 2, "exceed the limit"),
        ([None], 2, "no answer within 0.1 s"),
    ],
)
def test_it_is_tried_twice_and_given_up(answers, times, says, caplog, monkeypatch):
    monkeypatch.setattr(notices, "TRY_WITHIN_S", 0.1 if answers == [None] else 20.0)
    with caplog.at_level(logging.WARNING):
        assert len(told(answers)) == times
    assert says in caplog.text
    assert bool(caplog.text) == bool(says)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://127.0.0.1:80", NoticeUrl("POST", "127.0.0.1", 80, "/")),
        ("GET http://localhost:8080/a?b", NoticeUrl("GET", "127.0.0.1", 8080, "/a?b")),
        ("POST http://[::1]:1/", NoticeUrl("POST", "::1", 1, "/")),
        ("http://127.9.9.9:65535/x", NoticeUrl("POST", "127.9.9.9", 65535, "/x")),
        ("http://10.0.0.1:80/", None),
        ("http://127.0.0.1.evil.example:80/", None),
        ("http://127.0.0.1@evil.example:80/", None),
        ("http://127.0.0.256:80/", None),
        ("http://127.\u0660.0.1:80/", None),  # a digit, and so a name
        ("http://127.0.0.1:0/", None),
        ("http://127.0.0.1:65536/", None),
        ("http://127.0.0.1:80/a\r\nX: y", None),
        ("https://127.0.0.1:80/", None),
        ("PUT http://127.0.0.1:80/", None),
        ("http://127.0.0.1:80/" + 600 * "a", None),
        ("/preempt", None),
    ],
)
def test_it_leads_to_the_own_node_and_nowhere_else(text, found):
    assert notice_url(text) == found


SERVER = """
import http.server, json, signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("signal", flush=True))
class Told(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("told", self.path, body.decode(), flush=True)
        self.send_response(204)
        self.end_headers()
        self.server.ends = True
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Told)
server.ends, server.timeout = False, 0.1
print("ready", flush=True)
while not server.ends:
    server.handle_request()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("w") / "w") as it:
        yield it


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ended(world, tmp_path, program, notice, *arguments):
    """What a job wrote that was cancelled once it was ready."""
    (tmp_path / "program.py").write_text(program)
    out = tmp_path / "out"
    id = world.client.submit({
        "run": f"exec {sys.executable} {tmp_path}/program.py {' '.join(arguments)} >{out} 2>&1",
        "checkpoint": {"grace": "30s", "notice": notice},
    })  # fmt: skip
    until(lambda: out.exists() and "ready" in out.read_text(), "the program to listen")
    world.client.cancel(id)
    assert world.client.wait(id, 60).phase == "cancelled"
    return out.read_text().splitlines()


def test_a_job_hears_it_over_http_and_by_signal(world, tmp_path):
    port = str(free_port())
    lines = ended(world, tmp_path, SERVER, f"http://127.0.0.1:{port}/preempt", port)
    assert "signal" in lines
    [told] = [line for line in lines if line.startswith("told")]
    _, path, body = told.split(" ", 2)
    assert path == "/preempt"
    assert (json.loads(body)["action"], json.loads(body)["grace_s"]) == ("stop", 30.0)


def test_where_nobody_listens_the_signal_comes_all_the_same(world, tmp_path):
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("heard"))
print("ready", flush=True)
time.sleep(600)
"""
    lines = ended(world, tmp_path, program, f"http://127.0.0.1:{free_port()}/")
    assert lines == ["ready", "heard"]
    said = "is not told of its end by POST http://127.0.0.1:"
    until(lambda: said in world.agent.log.read_text(), "the agent to give up")
