"""REST as a caller sees it: a real server process, spoken to with the standard library only."""

import http.client
import json
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fifo_server import serving

SPEC = {"name": "hello", "run": "echo hello"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gateway")
    with serving(
        "--dry",
        socket_path=str(directory / "f.sock"),
        port=0,
        max_body_bytes=20_000,
        keepalive_s=0.2,
        body_pause_s=0.3,
    ) as address:
        yield address


def ask(url, method, path, body=None, **headers):
    """(status, headers, JSON or text)."""
    host = url.partition("://")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        if isinstance(body, dict | list):
            body = json.dumps(body)
            headers.setdefault("content_type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, "/v1" + path, body, named)
        answer = connection.getresponse()
        content = answer.read().decode()
        is_json = "json" in (answer.getheader("content-type") or "")
        return answer.status, answer.headers, json.loads(content) if is_json else content
    finally:
        connection.close()


def refused(url, status, word, method, path, body=None, **headers):
    found, head, problem = ask(url, method, path, body, **headers)
    assert found == status, problem
    assert head["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:hyperion:problem:{word}"
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["remedy"]
    return problem


def test_a_job_is_kept_listed_shown_explained_and_cancelled(url):
    status, head, answer = ask(url, "POST", "/jobs", SPEC, hyperion_user="ann")
    assert status == 201
    assert "Date" in head
    (submitted,) = answer
    path = f"/jobs/{submitted['id']}"
    assert ask(url, "GET", path)[2]["user"] == "ann"
    assert submitted["id"] in [j["id"] for j in ask(url, "GET", "/jobs?ended=true&user=ann")[2]]
    assert ask(url, "GET", path + "/why")[2]["sentences"]
    assert ask(url, "GET", path + "/spec")[2]["run"] == "echo hello"
    assert ask(url, "DELETE", path)[0] == 200


def test_the_same_id_is_one_job(url):
    for _ in range(2):
        assert ask(url, "POST", "/jobs", {**SPEC, "id": "same-1"})[2][0]["id"] == "same-1"
    assert [j["id"] for j in ask(url, "GET", "/jobs?ended=1")[2]].count("same-1") == 1


def test_yaml_is_taken_and_its_faults_have_line_and_column(url):
    assert ask(url, "POST", "/jobs", "run: echo 1\n", content_type="text/yaml")[0] == 201
    problem = refused(
        url, 422, "bad-spec", "POST", "/jobs", "run: x\nreplicas: 0\n", content_type="text/yaml"
    )
    assert [(p["pointer"], p["line"]) for p in problem["problems"]] == [("/replicas", 2)]


def test_a_list_is_kept_whole_or_refused_whole_with_pointers_into_it(url):
    assert len(ask(url, "POST", "/jobs", [SPEC, SPEC])[2]) == 2
    before = len(ask(url, "GET", "/jobs?ended=true")[2])
    problem = refused(
        url, 422, "bad-spec", "POST", "/jobs", [SPEC, {"run": "x", "framwork": "mpi"}]
    )
    assert problem["problems"][0]["pointer"] == "/1/framwork"
    assert "framework" in problem["problems"][0]["message"]
    assert len(ask(url, "GET", "/jobs?ended=true")[2]) == before


def test_secrets_are_not_given_back(url):
    job = ask(url, "POST", "/jobs", {**SPEC, "secrets": {"TOKEN": "hunter2"}})[2][0]["id"]
    assert "hunter2" not in json.dumps(ask(url, "GET", f"/jobs/{job}/spec")[2])


def test_an_unset_variable_does_not_come_from_the_server(url):
    problem = refused(url, 422, "bad-spec", "POST", "/jobs", {**SPEC, "envs": {"PATH": None}})
    assert problem["problems"][0]["pointer"] == "/envs/PATH"


@pytest.mark.parametrize(
    ("status", "word", "method", "path", "body", "headers"),
    [
        (400, "bad-request", "POST", "/jobs", "{", {"content_type": "application/json"}),
        (400, "bad-request", "POST", "/jobs", "[" * 9000, {"content_type": "application/json"}),
        (400, "bad-request", "GET", "/jobs?limit=0", None, {}),
        (400, "bad-request", "GET", "/jobs?limit=x", None, {}),
        (400, "bad-request", "GET", "/watch", None, {"last_event_id": "x"}),
        (400, "bad-request", "POST", "/join", {"token": 1}, {}),
        (400, "bad-request", "POST", "/jobs", SPEC, {"hyperion_user": "a b"}),
        (404, "not-found", "GET", "/jobs/nobody", None, {}),
        (404, "not-found", "GET", "/jobs/nobody/logs", None, {}),
        (404, "not-found", "GET", "/jobs/nobody/logs?follow=true", None, {}),
        (404, "not-found", "GET", "/watch?job=nobody", None, {}),
        (404, "not-found", "GET", "/nowhere", None, {}),
        (404, "not-found", "GET", "/ca", None, {}),
        (404, "not-found", "POST", "/nodes/home/n9/drain", None, {}),
        (405, "method-not-allowed", "PATCH", "/jobs", None, {}),
        (409, "conflict", "POST", "/join", {"token": "no", "request_pem": "x"}, {}),
        (413, "too-large", "POST", "/jobs", {"run": "x" * 30_000}, {}),
        (415, "media-type", "POST", "/jobs", "run: x", {"content_type": "text/plain"}),
        (415, "media-type", "PUT", "/bundles", "x", {"content_type": "text/plain"}),
        (422, "bad-spec", "POST", "/jobs", [], {}),
        (422, "bad-spec", "POST", "/jobs", "null", {"content_type": "application/json"}),
        (422, "bad-spec", "POST", "/jobs", {**SPEC, "id": 7}, {}),
        (422, "bad-spec", "POST", "/jobs", {**SPEC, "id": "a/b"}, {}),
        (422, "bad-spec", "POST", "/plan", [SPEC, SPEC], {}),
        (422, "bad-spec", "POST", "/join-tokens", {"role": "king", "name": "n"}, {}),
        (429, "exhausted", "POST", "/jobs", {**SPEC, "metadata": {"refuse": "yes"}}, {}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_a_remedy(url, status, word, method, path, body, headers):
    refused(url, status, word, method, path, body, **headers)


def test_a_web_page_of_elsewhere_is_shut_out(url):
    refused(url, 403, "forbidden", "GET", "/jobs", host="evil.example")
    refused(url, 403, "forbidden", "POST", "/nodes/home/n1/drain", origin="https://evil.example")
    assert ask(url, "GET", "/jobs", origin="http://localhost:3000")[0] == 200


def test_a_body_that_stops_coming_is_given_up(url):
    host, _, port = url.partition("://")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def test_headers_have_a_bound(url):
    host, _, port = url.partition("://")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as wordy:
        wordy.sendall(b"GET /v1/jobs HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert wordy.recv(4096).startswith(b"HTTP/1.1 4")


def test_nodes_clusters_offers_version_and_health(url):
    assert ask(url, "POST", "/nodes/home/n2/cordon")[2]["state"] == "cordoned"
    assert [p["took"]["p99"] for p in ask(url, "GET", "/slo")[2]] == [4.5]
    assert [p["name"] for p in ask(url, "GET", "/policies")[2]] == ["balanced", "greedy"]
    assert [f["name"] for f in ask(url, "GET", "/market")[2]["feeds"]] == ["aws-spot"]
    assert [x["value"] for x in ask(url, "GET", "/market/quotes?place=aws/")[2]] == [12.5]
    assert ask(url, "GET", "/market/quotes?kind=carbon")[2] == []
    assert ask(url, "POST", "/nodes/home/n2/uncordon")[2]["state"] == "ready"
    assert [n["id"] for n in ask(url, "GET", "/nodes")[2]] == ["n1", "n2"]
    assert ask(url, "GET", "/nodes?cluster=away")[2] == []
    assert ask(url, "GET", "/clusters")[2][0]["id"] == "home"
    assert len(ask(url, "GET", "/offers?market=spot")[2]) == 1
    assert ask(url, "GET", "/version")[2]["api"] == "v1"
    assert ask(url, "GET", "/healthz")[2] == {"status": "ok"}


def test_queues_are_put_as_a_tree_as_yaml_or_in_the_models_form(url):
    tree = {"research": {"quota": {"gpus": 8}, "queues": {"vision": {}}}}
    status, _, rows = ask(url, "PUT", "/queues", tree)
    assert status == 200
    assert [(row["name"], row["parent"]) for row in rows] == [
        ("research", ""),
        ("vision", "research"),
    ]
    listed = [{"name": "a", "quota": {"gpus_milli": 1}}]
    assert ask(url, "PUT", "/queues?cluster=home", listed)[2][0]["quota"] == {"gpus_milli": 1}
    status, _, problem = ask(url, "PUT", "/queues", {"a": {"wieght": 1}})
    assert status == 422
    assert problem["problems"][0]["pointer"] == "/a/wieght"
    assert ask(url, "PUT", "/queues", [{"name": 3}])[0] == 422
    assert ask(url, "PUT", "/queues", {"refused": {}})[0] == 409
    assert ask(url, "DELETE", "/queues/home/a")[2] == []
    assert ask(url, "DELETE", "/queues/home/a")[0] == 404
    assert ask(url, "GET", "/queues?cluster=away")[0] == 404


def test_windows_are_posted_listed_and_deleted(url):
    asked = {"id": "disks", "begins_at_ms": 5, "ends_at_ms": 9, "nodes": ["n1"]}
    status, _, made = ask(url, "POST", "/windows", asked)
    assert (status, made["kind"], made["cluster"]) == (201, "maintenance", "home")
    assert [w["id"] for w in ask(url, "GET", "/windows")[2]] == ["disks"]
    for wrong in ({"count": 3}, {"nodes": []}, {"nodes": [], "count": 10**6}):
        assert ask(url, "POST", "/windows", asked | wrong)[0] == 422
    assert ask(url, "POST", "/windows", asked | {"colour": "red"})[0] in {400, 422}
    assert ask(url, "POST", "/windows", asked | {"ends_at_ms": 1})[0] == 409
    assert ask(url, "DELETE", "/windows/home/disks")[2]["id"] == "disks"
    assert ask(url, "DELETE", "/windows/home/disks")[0] == 404


def test_datasets_are_put_listed_and_deleted(url):
    asked = {"name": "books", "size_gib": 5.5, "regions": ["aws/us-east-1"]}
    status, _, made = ask(url, "PUT", "/datasets", asked)
    assert (status, made["size_gib"], made["copies"][0]["state"]) == (200, 5.5, "present")
    for wrong in ({"name": "a b"}, {"size_gib": -1}, {"regions": ["useast"]}, {"keep_h": 1e99}):
        status, _, problem = ask(url, "PUT", "/datasets", asked | wrong)
        assert status == 422
        assert next(iter(wrong)) in str(problem)
    assert ask(url, "PUT", "/datasets", {"name": "new"})[0] == 404
    assert [x["name"] for x in ask(url, "GET", "/datasets")[2]] == ["books"]
    assert ask(url, "GET", "/datasets/advice")[2][0]["gain_usd"] == 23.5
    assert ask(url, "DELETE", "/datasets/books?region=aws/us-east-1")[0] == 409
    assert ask(url, "DELETE", "/datasets/books")[2] == []
    assert ask(url, "DELETE", "/datasets/books")[0] == 404


def test_a_bill_is_asked_for_and_budgets_are_kept(url):
    status, _, bill = ask(url, "GET", "/cost?by=month&since_ms=1&until_ms=5")
    assert (status, bill["by"], bill["rows"], bill["total"]["usd"]) == (200, "month", [], 0.0)
    assert ask(url, "GET", "/cost?by=colour")[0] in {400, 422}
    assert ask(url, "GET", "/cost?since_ms=-1")[0] in {400, 422}
    asked = {"tenant": "user:ann", "usd": 5.5, "per": "day", "then": "hold"}
    (kept,) = ask(url, "PUT", "/budgets", asked)[2]
    assert {name: kept[name] for name in asked} == asked
    assert (kept["over"], kept["held"], kept["spent_usd"]) == (False, 0, 0.0)
    for wrong in ({"tenant": "ann"}, {"usd": -1}, {"per": "year"}, {"then": "shout"}):
        assert ask(url, "PUT", "/budgets", asked | wrong)[0] == 422
    assert [b["tenant"] for b in ask(url, "GET", "/budgets")[2]] == ["user:ann"]
    assert ask(url, "DELETE", "/budgets/user:ann")[2] == []
    assert ask(url, "DELETE", "/budgets/user:ann")[0] == 404


def test_a_token_joins_once(url):
    token = ask(url, "POST", "/join-tokens", {"role": "agent", "name": "n7"})[2]["token"]
    body = {"token": token, "request_pem": "CSR"}
    assert ask(url, "POST", "/join", body)[2]["ca_pem"] == "CA"
    refused(url, 409, "conflict", "POST", "/join", body)


def test_a_bundle_may_be_larger_than_a_spec(url):
    content = b"x" * 100_000
    answer = ask(url, "PUT", "/bundles", content, content_type="application/gzip")[2]
    assert answer["workdir"].startswith("bundle:sha256:")


def open_stream(url, path, **headers):
    connection = http.client.HTTPConnection(url.partition("://")[2], timeout=10)
    connection.request(
        "GET", "/v1" + path, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    return connection, connection.getresponse()


def lines_until(answer, wanted):
    lines = []
    while not lines or wanted not in lines[-1]:
        line = answer.readline()
        assert line, lines
        lines.append(line.decode().rstrip("\n"))
    return lines


def test_watch_has_ids_keeps_alive_and_takes_up_where_it_was_left(url):
    job = ask(url, "POST", "/jobs", SPEC)[2][0]["id"]
    connection, answer = open_stream(url, f"/watch?job={job}")
    assert answer.getheader("content-type").startswith("text/event-stream")
    lines = lines_until(answer, ": keepalive")
    connection.close()
    ids = [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
    connection, answer = open_stream(url, f"/watch?job={job}", last_event_id=str(ids[-1]))
    assert not any(line.startswith("id: ") for line in lines_until(answer, ": keepalive"))
    connection.close()
    connection, answer = open_stream(url, f"/watch?job={job}", last_event_id=str(ids[0] - 1))
    assert any(line.startswith("id: ") for line in lines_until(answer, ": keepalive"))
    connection.close()


def test_streams_are_bounded_and_one_that_ends_makes_room():
    with serving("--dry", port=0, max_streams=2, keepalive_s=0.2) as url:
        opened = [open_stream(url, "/watch") for _ in range(2)]
        for _, answer in opened:
            lines_until(answer, "retry")
        assert refused(url, 429, "exhausted", "GET", "/watch")["detail"].startswith("2 streams")
        for connection, answer in opened:
            answer.close()
            connection.close()
        deadline = time.monotonic() + 5
        status = 429
        while status == 429 and time.monotonic() < deadline:
            connection, answer = open_stream(url, "/watch")
            status = answer.status
            answer.close()
            connection.close()
        assert status == 200
