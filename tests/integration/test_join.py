"""Machines join with one-time tokens over TLS, and their daemons work with what they got."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

HYPERION = str(Path(sys.executable).with_name("hyperion"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def daemon(*arguments, home):
    log = (home / f"{arguments[0]}.log").open("wb")
    process = subprocess.Popen(
        [HYPERION, *arguments], env=environment(home), stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def environment(home, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION")}
    return {**kept, "HYPERION_HOME": str(home), "NO_COLOR": "1", **more}


def hyperion(*arguments, home, **more):
    return subprocess.run(
        [HYPERION, *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.1)


@pytest.fixture
def federation(tmp_path):
    home = tmp_path / "federation-machine"
    home.mkdir()
    (home / "token").write_text("of-the-rest-api\n")
    grpc, rest = free_port(), free_port()
    with daemon(
        "federation",
        "--listen",
        f"127.0.0.1:{grpc}",
        "--rest-listen",
        f"127.0.0.1:{rest}",
        "--rest-token-file",
        str(home / "token"),
        home=home,
    ):
        until(lambda: hyperion("ps", home=home).returncode == 0, "the federation answers")
        yield home, f"127.0.0.1:{grpc}", f"https://127.0.0.1:{rest}"


def test_a_scheduler_and_an_agent_join_and_run_a_job(federation, tmp_path):
    home, grpc, rest = federation
    away = tmp_path / "other-machine"
    away.mkdir()
    for role, name in (("scheduler", "lab"), ("agent", "lab/n1")):
        token = hyperion("token", "create", role, name, home=home).stdout.strip()
        place = str(away / role / "credentials")
        joined = hyperion("join", token, "--server", rest, "--directory", place, home=away)
        assert joined.returncode == 0, joined.stderr
    again = hyperion("join", token, "--server", rest, "--directory", f"{place}2", home=away)
    assert again.returncode == 4
    assert "token" in again.stderr
    assert "log" not in again.stderr, "a used token is the user's affair, not a fault of ours"
    listen = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        cluster = ("--cluster", "lab", "--region", "aws/us-east-1")
        stack.enter_context(
            daemon("scheduler", *cluster, "--listen", listen, "--federation", grpc, home=away)
        )
        stack.enter_context(
            daemon("agent", *cluster, "--node", "n1", "--scheduler", listen, home=away)
        )
        trust = {
            "HYPERION_SERVER": rest,
            "HYPERION_TOKEN": "of-the-rest-api",
            "HYPERION_CA": str(away / "agent" / "credentials" / "ca.pem"),
        }

        def attached():
            nodes = hyperion("nodes", "-o", "json", home=away, **trust)
            return [n["id"] for n in json.loads(nodes.stdout or "[]")] == ["n1"]

        until(attached, "the node is there")
        ran = hyperion("run", "--", "echo", "over TLS", home=away, **trust)
        assert ran.returncode == 0, ran.stderr
        assert "over TLS" in ran.stdout
        wrong = hyperion("ps", home=away, **{**trust, "HYPERION_TOKEN": "guessed"})
        assert wrong.returncode != 0
        assert "token" in wrong.stderr


def test_an_agent_of_another_cluster_is_refused(federation, tmp_path):
    home, grpc, rest = federation
    away = tmp_path / "other-machine"
    away.mkdir()
    for role, name in (("scheduler", "lab"), ("agent", "office/n1")):
        token = hyperion("token", "create", role, name, home=home).stdout.strip()
        place = str(away / role / "credentials")
        joined = hyperion("join", token, "--server", rest, "--directory", place, home=away)
        assert joined.returncode == 0, joined.stderr
    listen = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(
            daemon(
                "scheduler", "--cluster", "lab", "--listen", listen, "--federation", grpc, home=away
            )
        )
        stack.enter_context(
            daemon("agent", "--cluster", "lab", "--node", "n1", "--scheduler", listen, home=away)
        )
        log = away / "agent.log"
        until(lambda: "may not" in log.read_text(), "the agent is told that it may not")
    assert not json.loads(hyperion("nodes", "-o", "json", home=home).stdout or "[]")
