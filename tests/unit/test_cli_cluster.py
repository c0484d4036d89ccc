"""The commands for queues, windows and waiting jobs, and the words that they print."""

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import click
import pytest
from test_cli_commands import hyperion, submitted

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from fifo_server import serving

from hyperion.cli.jobs import FAILURE_COLUMNS, _described, replicas
from hyperion.cli.windows import moment_ms
from hyperion.model.job import TaskFailure
from hyperion.model.queue import Queue
from hyperion.placement.quota import amount_text
from hyperion.wire.api import JobView, NodeReason, OutlookView, QuotaView, TasksView
from hyperion.wire.outlook_text import jobs, outlook_sentences, span
from hyperion.wire.queue_file import (
    queues_from_mapping,
    queues_from_yaml,
    resource_text,
)
from hyperion.wire.spec_tree import SpecError

TREE = """\
research:
  quota: {gpus: 64, gpus/a100: 32.5, cpus: 512, memory: 4096, fpga: 3, disk: 1500Mi}
  queues:
    vision: {quota: {gpus: 32}, users: [ann, bob]}
    speech: {quota: {gpus: 32}, weight: 2, borrow: {gpus: 8}, lend: {gpus: 0}}
nightly: {stopped: true, reclaim: no}
plain:
"""


@pytest.fixture
def home(tmp_path):
    with serving(socket_path=str(tmp_path / "federation.sock"), port=0):
        yield tmp_path


# -- the file of queues ----------------------------------------------------------------------------


def test_a_file_of_queues_is_read_with_its_units():
    research, vision, speech, nightly, plain = queues_from_yaml(TREE, "queues.yaml")
    assert research.quota == {
        "gpus_milli": 64_000,
        "gpus_milli/A100": 32_500,
        "cpus_milli": 512_000,
        "memory_mib": 4096 * 1024,
        "fpga": 3,
        "disk_mib": 1500,
    }
    assert (vision.parent, vision.users, speech.parent) == ("research", ("ann", "bob"), "research")
    assert (speech.weight, speech.borrow, speech.lend) == (
        2.0,
        {"gpus_milli": 8000},
        {"gpus_milli": 0},
    )
    assert nightly == Queue(name="nightly", stopped=True, reclaim=False)
    assert plain == Queue(name="plain")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "1:1: found a list, expected queues by name, such as research: {quota: {gpus: 8}}"),
        ("a: 3", "1:1: a: found the number 3, expected a mapping with fields such as quota"),
        ("a: {wieght: 2}", '1:5: a.wieght: is no field here; did you mean "weight"?'),
        ("a: {quota: {gpus: x}}", '1:13: a.quota.gpus: found "x", expected a finite number'),
        ("a: {quota: {gpus: -1}}", "1:13: a.quota.gpus: found the number -1, expected a number"),
        ("a: {quota: {fpga: 1.5}}", "1:13: a.quota.fpga: found the number 1.5, expected a whole"),
        ("a: {quota: {memory: lots}}", '1:13: a.quota.memory: found "lots", expected GiB'),
        ("a: {quota: 8}", "1:5: a.quota: found the number 8, expected amounts by resource"),
        ("a: {}\nb: {queues: {a: }}", "2:14: b.queues.a: is there already, in line 1; rename one"),
        ("a: {users: [1]}", 'expected a text; put it in quotes: "1"'),
    ],
)
def test_each_fault_of_a_file_is_told_at_its_place(text, told):
    with pytest.raises(SpecError) as caught:
        queues_from_yaml(text, "queues.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: {}\nb: {weight: 0}", "2:5: b.weight: found 0, expected more than 0"),
        ("a: {}\nb: {queues: {c: {borrow: {gpus: 1}}}}", "2:18: b.queues.c.borrow: found a limit"),
        ('"a b": {}', '1:1: a b: found "a b", expected up to 63 letters'),
    ],
)
def test_what_makes_no_sense_in_a_tree_is_told_at_its_place_too(text, told):
    with pytest.raises(SpecError) as caught:
        queues_from_yaml(text, "queues.yaml")
    assert told in str(caught.value)


def test_a_resource_may_be_named_so_many_times_only():
    many = {f"r{n}": 1 for n in range(65)}
    with pytest.raises(SpecError, match="65 resources, expected at most 64"):
        queues_from_mapping({"a": {"quota": many}}, "body")


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("gpus_milli", 2500, "gpus 2.50"),
        ("gpus_milli/A100", 8000, "gpus/A100 8"),
        ("cpus_milli", 0, "cpus 0"),
        ("memory_mib", 1536, "memory 1.5Gi"),
        ("fpga", 3, "fpga 3"),
    ],
)
def test_amounts_are_shown_as_they_are_written(resource, amount, text):
    assert f"{resource_text(resource)} {amount_text(resource, amount)}" == text


# -- queues ----------------------------------------------------------------------------------------


def test_queues_are_applied_listed_as_a_tree_and_removed(home):
    (home / "queues.yaml").write_text(TREE)
    table = hyperion(home, "queues", "apply", "queues.yaml", cwd=home).stdout.splitlines()
    assert [line.split()[1] for line in table] == [
        "QUEUE", "research", "vision", "speech", "nightly", "plain",
    ]  # fmt: skip
    assert "    vision" in table[2], "indented below its parent"
    assert "gpus:64" in table[1]
    assert "stopped" in table[4]
    assert "ann,bob" in hyperion(home, "queues", "ls", "-o", "wide").stdout
    rows = json.loads(hyperion(home, "queues", "-o", "json").stdout)
    assert rows[0]["quota"]["gpus_milli/A100"] == 32_500
    assert rows[0]["used"] == {"gpus_milli": 2500}
    assert rows[1]["parent"] == "research"
    assert "nightly" not in hyperion(home, "queues", "rm", "nightly").stdout
    gone = hyperion(home, "queues", "rm", "nightly", code=1).stderr
    assert "no queue nightly" in gone
    assert "hyperion queues lists them" in gone


def test_what_is_wrong_with_a_file_of_queues_is_told_before_anything_is_sent(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: {wieght: 2}")
    told = hyperion(tmp_path, "queues", "apply", "bad.yaml", cwd=tmp_path, code=2).stderr
    assert 'bad.yaml:1:5: a.wieght: is no field here; did you mean "weight"?' in told
    told = hyperion(tmp_path, "queues", "apply", "none.yaml", cwd=tmp_path, code=2).stderr
    assert "No such file" in told


def test_what_a_cluster_refuses_is_told(home):
    told = hyperion(home, "queues", "apply", "-", stdin="refused: {}", code=4).stderr
    assert 'queue "busy" has jobs' in told
    assert "no cluster away" in hyperion(home, "queues", "--cluster", "away", code=1).stderr


# -- windows ---------------------------------------------------------------------------------------


def test_maintenance_is_planned_listed_and_called_off(home):
    made = hyperion(
        home, "maintenance", "create", "disks", "--nodes", "home/n1,home/n2", "--start",
        "2030-01-01T08:00Z", "--duration", "4h", "--reason", "new disks",
    ).stdout  # fmt: skip
    assert "home/disks  planned  2030-01-01 08:00:00Z  4h00m" in made
    assert "n1,n2" in made
    (row,) = json.loads(hyperion(home, "maintenance", "-o", "json").stdout)
    assert row["kind"] == "maintenance"
    assert row["ends_at_ms"] - row["begins_at_ms"] == 4 * 3600 * 1000
    assert "no reservation is planned" in hyperion(home, "reserve").stderr
    wrong = hyperion(home, "reserve", "rm", "disks", code=1).stderr
    assert "disks is a maintenance" in wrong
    assert "hyperion maintenance rm home/disks" in wrong
    assert "disks" in hyperion(home, "maintenance", "rm", "disks").stdout
    assert "no window disks" in hyperion(home, "maintenance", "rm", "disks", code=1).stderr


def test_a_reservation_is_for_somebody(home):
    args = ("reserve", "create", "demo", "--count", "2", "--start", "+1h", "--duration", "30m")
    assert "say for whom" in hyperion(home, *args, code=2).stderr
    made = hyperion(home, *args, "--queue", "research", "--user", "ann", "-o", "json").stdout
    row = json.loads(made)
    assert (row["queues"], row["users"], len(row["nodes"])) == (["research"], ["ann"], 2)
    assert "research" in hyperion(home, "reserve", "ls").stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--count", "1", "--nodes", "n1"], "give either --nodes n1,n2 or --count 4"),
        ([], "give either --nodes n1,n2 or --count 4"),
        (["--nodes", "a/n1,b/n2"], "the nodes of a window are all in one cluster"),
        (["--nodes", "n1", "--start", "soon"], "--start 'soon': expected now, +2h, 22:00"),
        (["--nodes", "n1", "--start", "25:00"], "--start '25:00': expected now, +2h, 22:00"),
        (["--nodes", "n1", "--duration", "long"], "'long' is no duration"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_in_words(tmp_path, args, told):
    given = ["maintenance", "create", "w", "--duration", "1h", *args]
    assert told in hyperion(tmp_path, *given, code=2).stderr


NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("+90m", datetime(2026, 3, 1, 14, 0, tzinfo=UTC)),
        ("13:00", datetime(2026, 3, 2, 11, 0, tzinfo=UTC)),
        ("16:00", datetime(2026, 3, 1, 14, 0, tzinfo=UTC)),
        ("2026-03-02T08:00", datetime(2026, 3, 2, 6, 0, tzinfo=UTC)),
        ("2026-03-02 08:00+05:00", datetime(2026, 3, 2, 3, 0, tzinfo=UTC)),
        ("2026-03-02", datetime(2026, 3, 1, 22, 0, tzinfo=UTC)),
    ],
)
def test_moments_are_local_unless_they_say_otherwise(text, moment):
    zone = timezone(timedelta(hours=2))
    now_ms = int(NOW.timestamp() * 1000)
    assert moment_ms(text, now_ms, zone) == int(moment.timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "+", "+soon", "1:2:3", "12:60", "yesterday", "9" * 50])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(click.UsageError, match="expected now"):
        moment_ms(text, 0)


# -- waiting jobs ----------------------------------------------------------------------------------

NOW_MS = int(NOW.timestamp() * 1000)


def said(**view):
    return outlook_sentences(OutlookView(**{"cluster": "home", "queue": "q", **view}), NOW_MS)


def test_a_waiting_job_is_told_all_that_holds_it_up():
    sentences = said(
        position=12,
        position_in_queue=2,
        nodes=40,
        reasons=(
            NodeReason(reason="GPU_COUNT", nodes=22, text="only 6 of 8 GPUs free"),
            NodeReason(reason="GPU_TYPE", nodes=18, text="GPU type"),
        ),
        quota=QuotaView(
            queue="research", resource="gpus_milli", used=30_000, limit=32_000, asked=8000
        ),
        awaits=("a", "b"),
        not_before_ms=NOW_MS + 3_600_000,
        starts_at_ms=NOW_MS + 6_600_000,
        confidence=0.8,
        because=("17",),
        replicas=8,
        replicas_now=6,
        preempts=("x",),
    )
    assert sentences == (
        "12 jobs are before it in home, 2 of its queue q.",
        "It waits for the end of jobs a and b.",
        "It is not started before 2026-03-01 13:30Z.",
        "Queue research may have 32 GPUs and has 30; it would need 8 more.",
        "Now 0 of 40 nodes have room: 22: only 6 of 8 GPUs free; 18: GPU type.",
        "Job x is being stopped for it.",
        "It would start at 2026-03-01 14:20Z when job 17 ends (in 1h50m, 80 % sure).",
        "It would start now with 6 replicas instead of 8.",
    )


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        ({"position": 0}, "No job is before it in home."),
        ({"position": 1, "position_in_queue": 0}, "1 job is before it in home, 0 of its queue q."),
        ({"never": True, "starts_at_ms": 5}, "It would not fit even if all nodes were empty."),
        ({"starts_at_ms": NOW_MS}, "It would start at once."),
        (
            {
                "quota": QuotaView(
                    queue="p", resource="gpus_milli/A100", used=0, limit=500, asked=1000
                )
            },
            "Queue p may have 0.50 A100 GPUs and has 0; it would need 1 more.",
        ),
        (
            {
                "quota": QuotaView(
                    queue="p", resource="memory_mib", used=512, limit=2048, asked=2048
                )
            },
            "Queue p may have 2Gi of memory and has 0.5Gi; it would need 2Gi more.",
        ),
        (
            {"quota": QuotaView(queue="p", resource="fpga", used=1, limit=2, asked=2)},
            "Queue p may have 2 fpga and has 1; it would need 2 more.",
        ),
        (
            {"quota": QuotaView(queue="p", resource="", used=0, limit=0, asked=0)},
            "Queue p is stopped: nothing new starts from it.",
        ),
        (
            {"starts_at_ms": NOW_MS + 60_000, "because": tuple("abcdef"), "confidence": 0.5},
            "It would start at 2026-03-01 12:31Z when jobs a, b, c, d and 2 more end"
            " (in 60s, 50 % sure).",
        ),
    ],
)
def test_other_outlooks(view, sentence):
    assert said(**view)[-1] == sentence


def test_spans_and_lists_of_jobs():
    assert [span(1000 * s) for s in (-5, 89, 90, 3599, 3600, 90_000, 200_000)] == [
        "0s", "89s", "1m", "59m", "1h00m", "1d01h", "2d07h",
    ]  # fmt: skip
    assert jobs(["a"]) == "job a"
    assert jobs(["a", "b", "c"]) == "jobs a, b and c"


def test_plan_tells_when_it_would_start(home):
    text = hyperion(home, "plan", "--", "x").stdout
    assert "In home: Now 0 of 40 nodes have room: 22: only 6 of 8 GPUs free; 18: no GPUs" in text
    assert "In home: It would start at 2096-10-02 07:06Z when job 17 ends" in text
    assert "In home: It would start now with 6 replicas instead of 8." in text
    found = json.loads(hyperion(home, "plan", "-o", "json", "--", "x").stdout)
    assert found["outlook"]["because"] == ["17"]
    assert found["outlook"]["reasons"][0] == {
        "reason": "GPU_COUNT", "nodes": 22, "text": "only 6 of 8 GPUs free",
    }  # fmt: skip


# -- jobs of many parts ----------------------------------------------------------------------------


def view(**more):
    plain = dict.fromkeys(("name", "user", "phase", "reason", "priority", "framework"), "")
    zero = dict.fromkeys(
        ("restarts", "generation", "submitted_at_ms", "started_at_ms", "ended_at_ms",
         "usd_per_hour", "usd", "gco2e"), 0,
    )  # fmt: skip
    fixed = {"id": "j", "replicas": 8, "resources": "", "cluster": "", "region": "", "nodes": ()}
    return JobView(**{**plain, **zero, **fixed, "exit_code": None, **more})


TASKS = TasksView(
    size=1000,
    limit=50,
    waiting=899,
    running=50,
    succeeded=49,
    failed=2,
    failures=(TaskFailure(7, 1), TaskFailure(9, 137, "out of memory")),
)


def test_arrays_elastic_jobs_and_roles_in_a_table_and_in_full():
    assert replicas(view()) == "8"
    assert replicas(view(width=6)) == "6/8"
    assert replicas(view(tasks=TASKS)) == "51/1000"
    told = _described(view(tasks=TASKS, queue="research", nice=10, preemptions=2, awaits=("a",)))
    assert "1000: 899 waiting, 50 running, 49 succeeded, 2 failed, at most 50 at once" in told
    assert "research, nice 10" in told
    assert "2 times" in told
    assert told.splitlines()[-2:] == [
        "          7     1  -",
        "          9   137  out of memory",
    ]
    assert "6 now, 8 at most" in _described(view(width=6))
    assert "1 server, 7 worker" in _described(view(roles={"server": 1, "worker": 7}))
    assert len(FAILURE_COLUMNS) == 3


def test_ps_and_show_of_an_array_through_rest(home):
    (home / "spec.yaml").write_text("name: many\nrun: 'true'\narray: 0-99%10\nqueue: research\n")
    job = submitted(home, "spec.yaml", cwd=home)
    row = json.loads(hyperion(home, "show", job, "-o", "json").stdout)
    assert (row["queue"], row["tasks"]["size"], row["tasks"]["limit"]) == ("research", 100, 10)
    assert "20/100" in hyperion(home, "ps", "-a").stdout
    assert "research" in hyperion(home, "ps", "-a", "-o", "wide").stdout
    assert "out of memory" in hyperion(home, "show", job).stdout


def test_flags_for_queues_arrays_and_dependencies(home):
    job = submitted(
        home, "--queue", "research", "--nice", "5", "--after", "first", "--after",
        "afterany:second", "--begin", "2h", "--reservation", "demo", "-n", "8",
        "--min-replicas", "2", "--", "true",
    )  # fmt: skip
    spec = json.loads(hyperion(home, "show", job, "--spec", "-o", "json").stdout)
    assert (spec["queue"], spec["nice"], spec["reservation"]) == ("research", 5, "demo")
    assert (spec["elastic"]["min"], spec["elastic"]["max"]) == (2, 8)
    assert "second" in json.dumps(spec["after"])
    shown = hyperion(home, "show", job).stdout
    assert "first, second" in shown
    assert "2 now, 8 at most" in shown
