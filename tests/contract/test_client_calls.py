"""Both clients against a real server: the same calls, the same answers, the same errors."""

import asyncio
import contextlib
import os
import socket
import sys
import tarfile
import threading
import time
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fifo_server import serving

from hyperion import client as api
from hyperion.client import AsyncClient, Client
from hyperion.client.address import Address, find
from hyperion.client.bundle import ignored, pack
from hyperion.client.events import EventReader
from hyperion.wire.api import JobChange


class Both:
    """The asynchronous client, called as if it were the other one."""

    def __init__(self, server, **given):
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(server, given))

    async def _make(self, server, given):
        return AsyncClient(server, **given)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*args, **kw):
            made = method(*args, **kw)
            if hasattr(made, "__aiter__"):
                return self._iterate(made)
            return self._runner.run(self._awaited(made))

        return call

    async def _awaited(self, made):
        return await made

    def _iterate(self, made):
        try:
            while True:
                try:
                    yield self._runner.run(self._awaited(anext(made)))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(self._awaited(made.aclose()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.close())
        self._runner.close()


KINDS = {"sync": Client, "async": Both}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(socket_path=str(tmp_path_factory.mktemp("client") / "f.sock"), port=0) as url:
        yield url


@pytest.fixture(params=KINDS)
def make(request):
    return KINDS[request.param]


@pytest.fixture
def client(address, make):
    with make(address, user="ann") as found:
        yield found


def test_a_command_runs_and_its_output_is_read(client):
    job = client.submit(["sh", "-c", "echo one; echo two"])
    assert client.wait(job, timeout_s=10).phase == "succeeded"
    assert "".join(chunk.text for chunk in client.logs(job)) == "one\ntwo\n"
    assert "".join(chunk.text for chunk in client.logs(job, follow=False)) == "one\ntwo\n"
    assert b"".join(client.log_bytes(job, rank=0, tail_lines=1)) == b"two\n"
    view = client.get(job)
    assert (view.exit_code, view.user) == (0, "ann")
    assert view in client.list(ended=True, user="ann")
    assert view not in client.list()
    assert client.spec(job).command[0] == "sh"
    assert client.why(job).sentences


def test_every_form_of_a_spec_will_do(client, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: file\nrun: pwd\nworkdir: .\n")
    forms = [{"name": "mapping", "run": "true"}, "name: text\nrun: 'true'\n", path, ["true"]]
    forms.append(client.spec(client.submit(["true"])))
    jobs = client.submit_all(forms)
    ended = [client.wait(job.id, timeout_s=10) for job in jobs]
    assert [job.phase for job in ended] == ["succeeded"] * 5
    assert [job.name for job in ended[:4]] == ["mapping", "text", "file", "true"]
    assert b"".join(client.log_bytes(jobs[2].id)).decode().strip() == str(tmp_path)


def test_a_bad_spec_is_refused_with_every_fault(client):
    with pytest.raises(api.SpecRefused) as caught:
        client.submit("replicas: 0\nrunn: x\n")
    assert {fault.pointer for fault in caught.value.problems} >= {"/replicas", "/runn"}
    assert all(fault.line for fault in caught.value.problems)
    assert isinstance(caught.value, api.HyperionError)


def test_the_server_checks_again(client):
    bad = msgspec.structs.replace(client.spec(client.submit(["true"])), replicas=0)
    with pytest.raises(api.SpecRefused) as caught:
        client.submit(bad)
    assert caught.value.problems[0].pointer.endswith("/replicas")


def test_secrets_arrive_and_do_not_come_back(client):
    job = client.submit({"run": "echo $TOKEN | wc -c", "secrets": {"TOKEN": "hunter2"}})
    client.wait(job, timeout_s=10)
    assert b"".join(client.log_bytes(job)).strip() == b"8"
    assert client.spec(job).secrets["TOKEN"].value == "***"


def test_what_is_not_there_is_not_found(client):
    for call in (client.get, client.why, client.cancel, client.spec):
        with pytest.raises(api.NotFound) as caught:
            call("nobody")
        assert caught.value.remedy
    with pytest.raises(api.NotFound):
        client.wait("nobody", timeout_s=5)
    with pytest.raises(api.NotFound):
        list(client.logs("nobody"))
    with pytest.raises(api.NotFound):
        client.drain("n9")


def test_nodes_clusters_offers_plan_and_join(client):
    assert client.cordon("n1").state == "cordoned"
    assert client.uncordon("home/n1").state == "ready"
    assert [node.id for node in client.nodes("home")] == ["n1", "n2"]
    assert client.clusters()[0].id == "home"
    assert {offer.market for offer in client.offers(market="spot", limit=9)} == {"spot"}
    assert client.plan("run: x").chosen == "home"
    token = client.new_join_token("agent", "home/n7")
    assert client.join(token, b"request")[1] == b"CA"
    with pytest.raises(api.Conflict):
        client.join(token, b"request")


def test_bills_and_budgets(client):
    assert client.cost(by="queue", since_ms=1).rows == ()
    (kept,) = client.set_budget("queue:a.b", 3.0, then="pause")
    assert (kept.tenant, kept.usd, kept.per, kept.then) == ("queue:a.b", 3.0, "month", "pause")
    assert client.budgets() == [kept]
    assert client.drop_budget("queue:a.b") == []
    with pytest.raises(api.NotFound):
        client.drop_budget("queue:a.b")


def test_datasets(client):
    made = client.add_dataset("imagenet", 150.0, ["aws/us-east-1"], keep_h=24.0)
    assert (made.size_gib, made.keep_h, made.copies[0].region) == (150.0, 24.0, "aws/us-east-1")
    client.add_dataset("imagenet", regions=["gcp/us-west1", "aws/us-east-1"])
    assert [view.name for view in client.datasets()] == ["imagenet"]
    (left,) = client.drop_dataset("imagenet", "gcp/us-west1")
    assert [copy.region for copy in left.copies] == ["aws/us-east-1"]
    with pytest.raises(api.Conflict):
        client.drop_dataset("imagenet", "aws/us-east-1")
    assert [advice.action for advice in client.dataset_advice()] == ["copy"]
    assert client.drop_dataset("imagenet") == []
    with pytest.raises(api.NotFound):
        client.drop_dataset("imagenet")


def test_waiting_has_an_end(client):
    job = client.submit(["sleep", "60"])
    started = time.monotonic()
    with pytest.raises(api.TimedOut):
        client.wait(job, timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert client.cancel(job).phase == "cancelled"
    assert client.wait(job, timeout_s=10).reason == "cancelled by ann"


def test_watch_begins_with_the_present_and_goes_on(client):
    job = client.submit(["true"])
    seen = []
    for change in client.watch(job):
        seen.append(change)
        if change.job.phase == "succeeded":
            break
    later = client.watch(after=seen[-1].sequence)
    second = client.submit(["true"])
    assert next(later).job.id == second
    later.close()


def test_nobody_at_home_is_told_at_once(make, tmp_path):
    started = time.monotonic()
    with make(f"unix:{tmp_path}/f.sock") as client, pytest.raises(api.Unavailable) as caught:
        client.version()
    assert "hyperion up" in caught.value.remedy
    assert time.monotonic() - started < 2


def test_a_server_that_comes_back_is_found_again(make, tmp_path):
    path = str(tmp_path / "f.sock")
    with make(f"unix:{path}") as client:
        with serving("--dry", socket_path=path):
            assert client.version().api == "v1"
        late = threading.Event()

        def restart():
            late.wait(0.3)
            with serving("--dry", socket_path=path):
                done.wait(20)

        done = threading.Event()
        again = threading.Thread(target=restart)
        again.start()
        try:
            assert client.version().api == "v1"
        finally:
            done.set()
            again.join()


class Script:
    """A server that says what it was told to, one connection after the other."""

    def __init__(self, *answers):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self.requests = []
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self):
        self._listener.settimeout(20)
        with contextlib.suppress(OSError):
            for answer in self._answers:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(10)
                    self.requests.append(connection.recv(65536))
                    connection.sendall(answer)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept
        self._thread.join()
        self._listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def chunked(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


def event(change):
    return b"id: %d\nevent: job\ndata: %s\n\n" % (change.sequence, msgspec.json.encode(change))


def test_a_broken_watch_is_taken_up_where_it_was(make, client):
    view = client.get(client.submit(["true"]))
    first, second = (JobChange(sequence=n, at_ms=n, job=view) for n in (41, 42))
    answers = (
        HEAD + chunked(b"retry: 1\n\n: hello\n\n" + event(first)),  # and the connection breaks
        HEAD + chunked(event(second)) + chunked(b"event: end\ndata: {}\n\n") + chunked(b""),
    )
    with Script(*answers) as server:
        with make(server.url) as reader:
            assert [change.sequence for change in reader.watch()] == [41, 42]
        assert b"last-event-id" not in server.requests[0].lower()
        assert b"last-event-id: 41\r\n" in server.requests[1].lower()


def test_a_broken_log_is_taken_up_without_gap_or_repetition(make):
    def log(text):
        return chunked(b'event: log\ndata: {"rank":0,"text":"%s"}\n\n' % text)

    end = chunked(b"event: end\ndata: {}\n\n") + chunked(b"")
    answers = (HEAD + log(b"abc") + log(b"de"), HEAD + log(b"abcd") + log(b"efg") + end)
    with Script(*answers) as server, make(server.url) as reader:
        assert "".join(chunk.text for chunk in reader.logs("j")) == "abcdefg"


def test_an_error_within_a_stream_is_raised(make):
    problem = b'{"type":"x","title":"t","status":404,"detail":"gone"}'
    answer = HEAD + chunked(b"event: error\ndata: " + problem + b"\n\n")
    with (
        Script(answer) as server,
        make(server.url) as reader,
        pytest.raises(api.NotFound, match="gone"),
    ):
        list(reader.watch())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (JSON % (5, b"{oops"), api.ServerFault),
        (JSON % (2, b"[]"), api.ServerFault),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", api.NotFound),
        (
            b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            api.ServerFault,
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", api.Refused),
        (
            b"HTTP/1.1 403 No\r\nContent-Type: application/problem+json\r\n"
            b"Content-Length: 2\r\n\r\n{}",
            api.ServerFault,
        ),
    ],
)
def test_what_is_no_federation_is_told(make, answer, error):
    with Script(answer) as server, make(server.url) as reader:
        with pytest.raises(error) as caught:
            reader.version()
        assert str(caught.value)


def test_a_submission_that_broke_is_sent_again_as_the_same(make):
    answer = b'[{"id":"x"}]'
    with Script(b"", JSON % (len(answer), answer)) as server:
        with make(server.url) as reader:
            reader.submit(["true"])
        assert len(server.requests) == 2
        assert server.requests[0] == server.requests[1]


def test_a_join_that_broke_is_not(make):
    with Script(b"", b"") as server, make(server.url) as reader:
        with pytest.raises(api.Unavailable):
            reader.join("t", b"r")
        assert len(server.requests) == 1


def test_where_the_server_is(tmp_path):
    token = tmp_path / "token"
    token.write_text("sesame\n")
    token.chmod(0o600)
    given = {"HYPERION_HOME": str(tmp_path)}
    assert find(environment=given) == Address(path=f"{tmp_path}/federation.sock")
    given |= {"HYPERION_SERVER": "https://fed.example", "HYPERION_TOKEN_FILE": str(token)}
    assert find(environment=given) == Address(
        host="fed.example", port=443, tls=True, token="sesame"
    )
    given["HYPERION_TOKEN"] = "open"
    assert find("https://a.example:7", environment=given).token == "open"
    assert find("unix:/x/y", environment=given) == Address(path="/x/y")
    assert "open" not in repr(find(environment=given))
    assert str(find("http://[::1]:7071", environment={})) == "http://[::1]:7071"


@pytest.mark.parametrize(
    "server",
    [
        "localhost:80",
        "ftp://x",
        "http://",
        "http://x:y",
        "http://x/path",
        "http://u:p@x",
        "http://x:99999",
    ],
)
def test_a_wrong_address_is_told(server):
    with pytest.raises(api.HyperionError) as caught:
        find(server, environment={})
    assert caught.value.remedy


def test_a_token_file_that_others_can_read_is_refused(tmp_path):
    token = tmp_path / "token"
    token.write_text("sesame")
    token.chmod(0o644)
    given = {"HYPERION_SERVER": "https://x", "HYPERION_TOKEN_FILE": str(token)}
    with pytest.raises(api.HyperionError, match="read by others") as caught:
        find(environment=given)
    assert "sesame" not in str(caught.value)
    with pytest.raises(api.HyperionError, match="single line"):
        find("http://localhost", token="two\nlines", environment={})


def test_a_bundle_is_the_same_for_the_same_files(tmp_path):
    def fill(directory, order):
        for name in order:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        (directory / "run.sh").chmod(0o755)
        (directory / "link").symlink_to("a.txt")
        os.mkfifo(directory / "pipe")

    names = ["a.txt", "sub/b.txt", "run.sh", "left.log", "__pycache__/x.pyc", "keep.log"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for directory, order in (("one", names), ("two", names[::-1])):
        fill(tmp_path / directory, order)
        (tmp_path / directory / ".skyignore").write_text("# logs\n*.log\n!keep.log\n")
    os.utime(tmp_path / "one" / "a.txt", (1, 1))
    archive = pack(tmp_path / "one")
    assert archive == pack(tmp_path / "two")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    assert sorted(modes) == [
        ".skyignore", "a.txt", "keep.log", "link", "run.sh", "sub", "sub/b.txt",
    ]  # fmt: skip
    assert modes["run.sh"] == 0o755


@pytest.mark.parametrize(
    ("path", "is_directory", "pattern", "expected"),
    [
        ("a.log", False, "*.log", True),
        ("deep/a.log", False, "*.log", True),
        ("deep/a.log", False, "/*.log", False),
        ("build", True, "build/", True),
        ("build", False, "build/", False),
        ("x/out/y", False, "out/*", False),
        ("out/y", False, "out/*", True),
        ("x/y.txt", False, "**/y.txt", True),
    ],
)
def test_what_is_ignored(path, is_directory, pattern, expected):
    assert ignored(path, is_directory, [pattern]) is expected


def test_a_bundle_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "noise").write_bytes(os.urandom(100_000))
    monkeypatch.setattr("hyperion.client.bundle.MAX_BYTES", 50_000)
    with pytest.raises(api.HyperionError, match="holds more"):
        pack(tmp_path)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_come_whole_however_they_are_cut(size):
    text = b": c\n\nid: 7\r\nevent: job\r\ndata: a\r\ndata: b\r\n\r\ndata\n\nevent: x\n\ndata:z\n\n"
    reader = EventReader()
    found = [e for at in range(0, len(text), size) for e in reader.feed(text[at : at + size])]
    assert [(e.name, e.content, e.id) for e in found] == [
        ("job", b"a\nb", "7"), ("message", b"", "7"), ("message", b"z", "7"),
    ]  # fmt: skip
