"""Logs are one line each and never tell a secret; metrics are what Prometheus reads."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from hyperion.daemon.driver import Counters
from hyperion.daemon.observe import Family, Log, clean, counted, render, start_logging
from hyperion.model.ids import JobId
from hyperion.model.job import Job, Secret


@pytest.fixture
def lines():
    """Start logging into a text, and give the logging of pytest back afterwards."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    stream = io.StringIO()

    def begin(level="info", form="json", **always):
        start_logging(level, form, stream, **always)
        return stream

    yield begin
    logging.captureWarnings(False)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])


def test_a_line_is_json_with_its_fields(lines):
    out = lines(daemon="agent")
    Log("session").info("attached", node="n1", tries=3, ok=True, nothing=None, share=0.5)
    line = json.loads(out.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "part": "session",
        "event": "attached",
        "daemon": "agent",
        "node": "n1",
        "tries": 3,
        "ok": True,
        "nothing": None,
        "share": 0.5,
    }


def test_a_line_of_text_is_one_line(lines):
    out = lines(form="text")
    Log("session").warning("odd\nname", node="a b\n", empty="")
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text[13:] == "warning session: odd\\nname node='a b\\n' empty=''\n"


def test_levels_hold_and_faults_have_a_trace(lines):
    out = lines(level="warning")
    log = Log("x")
    log.debug("no")
    log.info("no")
    try:
        raise OSError("disk")
    except OSError as fault:
        log.fault("yes", fault)
    line = json.loads(out.getvalue())
    assert line["event"] == "yes"
    assert "OSError: disk" in line["trace"]


JOB = Job(
    id=JobId("j"), envs={"KEY": "hunter2"}, secrets={"S": Secret("hunter2")}, run="echo hunter2"
)


@pytest.mark.parametrize(
    "fields",
    [
        {"job": JOB},
        {"envs": {"A": "hunter2"}},
        {"parts": ["hunter2"]},
        {"raw": b"hunter2"},
        {"password": "hunter2"},
        {"join_token": "hunter2"},
        {"why": "Authorization: Bearer hunter2hunter2"},
        {"why": 'password="hunter2 hunter2"'},
        {"why": "MY_API_KEY=hunter2"},
        {"where": "postgres://me:hunter2@host/db"},
        {"why": "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----"},
        {"why": "-----BEGIN PRIVATE KEY-----\nhunter2 and cut off"},
        {"fault": ValueError("token: hunter2")},
        {"fault": RuntimeError("hunter2")},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_gets_into_a_line(lines, fields, form):
    out = lines(form=form)
    Log("x").info("it happened", **fields)
    assert "it happened" in out.getvalue()
    assert "hunter2" not in out.getvalue()


def test_libraries_are_cleaned_too(lines):
    out = lines()
    logging.getLogger("grpc").error("token=%s", "hunter2")
    logging.getLogger("py.warnings").warning("password=hunter2")
    assert out.getvalue().count("***") == 2
    assert "hunter2" not in out.getvalue()


@given(st.text(max_size=2000))
def test_cleaning_never_grows_beyond_its_limit(text):
    assert len(clean(text, 100)) <= 100


def test_harmless_text_stays_as_it_is():
    text = "job train-7f3a waits: no node has 8 of A100 (12 nodes: too few GPUs 12)"
    assert clean(text) == text


def test_metrics_read_as_prometheus_wants_them():
    text = render(
        [
            Family("hyperion_nodes", "gauge", "Nodes by\nstate.", [({"state": 'a"b\\'}, 2.0)]),
            Family("hyperion_up", "gauge", "One.", [({}, 1)]),
        ]
    )
    assert text == (
        "# HELP hyperion_nodes Nodes by\\nstate.\n# TYPE hyperion_nodes gauge\n"
        'hyperion_nodes{state="a\\"b\\\\"} 2\n'
        "# HELP hyperion_up One.\n# TYPE hyperion_up gauge\nhyperion_up 1\n"
    )


def test_counters_become_families():
    text = render(counted("hyperion_driver", Counters(events=5, commit_ms=1500.0), {"daemon": "a"}))
    assert 'hyperion_driver_events_total{daemon="a"} 5\n' in text
    assert 'hyperion_driver_commit_seconds_total{daemon="a"} 1.5\n' in text
    assert "# TYPE hyperion_driver_batch_max gauge\n" in text


def test_a_struct_is_named_not_shown(lines):
    class Hidden(Struct):
        value: str

    out = lines()
    Log("x").info("e", thing=Hidden("hunter2"))
    assert json.loads(out.getvalue())["thing"] == "<Hidden>"
