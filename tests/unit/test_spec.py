"""What users write becomes a checked job, or is refused whole with every problem at its place."""

import functools
import json
import pathlib
import re
from typing import Any

import jsonschema
import pytest
import yaml
from msgspec import structs

from hyperion.model.checks import POLICIES, check
from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.job import (
    Array,
    Condition,
    Dependency,
    Elastic,
    Framework,
    Job,
    Priority,
    Role,
    Secret,
    Toleration,
)
from hyperion.model.resources import ResourceRequest
from hyperion.wire import schema
from hyperion.wire.sbatch import job_from_sbatch
from hyperion.wire.spec import (
    SpecError,
    job_from_command,
    job_from_mapping,
    job_from_yaml,
    job_to_mapping,
    problems,
)
from hyperion.wire.spec_places import term_of, term_text

ROOT = pathlib.Path(__file__).parents[2]
NOW_MS = 1_700_000_000_000
MALFORMED = [
    tuple(case.rstrip("\n").split("\n>>>>\n"))
    for case in (pathlib.Path(__file__).parent / "spec_malformed.txt").read_text().split("\n====\n")
]


def read(text: str | bytes, **environ: str) -> Job:
    return job_from_yaml(text, source="t.yaml", job_id="j", environ=environ, now_ms=NOW_MS)


def refused(text: str | bytes, **environ: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text, **environ)
    return str(caught.value)


def request(text: str) -> ResourceRequest:
    return read(f"run: a\nresources: {text}").alternatives[0]


def test_there_are_enough_malformed_specs():
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_malformed_specs_are_told_by_line_column_field_and_remedy(text, expected):
    with pytest.raises(SpecError) as caught:
        read(text)
    found = [f"{p.line}:{p.column} {p.pointer or '/'} {p.message}" for p in caught.value.problems]
    assert found == expected.split("\n")
    first = caught.value.problems[0]
    assert str(caught.value).startswith(f"t.yaml:{first.line}:{first.column}: {first.message}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"run: a\nname: \xff", "t.yaml:2:7: the spec is not UTF-8: found byte 0xff"),
        (b"\xff\xfer\x00u\x00n\x00", "t.yaml:1:1: the spec is not UTF-8"),
        ("run: a\x00b", "t.yaml:1:7: the spec holds the character U+0000"),
        ("run: a\nname: \ud800", "t.yaml:2:7: the spec holds the character U+D800"),
        ('run: "a\\0b"', "t.yaml:1:1: run: holds a NUL character"),
        ("run: a #" + "x" * (1 << 20), "expected at most 1048576"),
        ("run: " + "x" * (300 << 10), "run: found 307200 bytes, expected at most 262144"),
        ("run: [" + "a," * 5000 + "]", "run: found 5000 arguments, expected at most 4096"),
        ("run: a\nenvs: {A: " + "x" * (129 << 10) + "}", "expected at most 131072"),
        ("run: a\nusers_in: [" + "aws/a, " * 65 + "]", "found 65 entries, expected at most 64"),
        ("run: a\nx: [" + "1," * 60_000 + "]", "more than 50000 values"),
        ("run: &a b\nx: [" + "*a," * 101 + "]", "more than 100 aliases"),
        ("run: [" + "[" * 2000, "nesting deeper than 16 levels"),
        ("{" * 100_000, "nesting deeper than 16 levels"),
    ],
)
def test_sizes_and_characters_are_bounded(text, expected):
    assert expected in refused(text)


def test_a_full_spec_becomes_the_job_it_says():
    job = read(
        """
name: resnet
framework: PyTorch
priority: latency-critical
num_nodes: 2
resources: {accelerators: a100:8, cpus: 4+, memory: 16, disk_size: 1Ti, labels: {disk: nvme}}
workdir: .
setup: pip install x
run: python train.py
envs: {EPOCHS: 010, SHUFFLE: on, LR: 1.50, MINE: null}
secrets: {TOKEN: null}
data: [{uri: s3://bucket/x, size_gb: 1.5, region: aws/us-east-1}]
objective: {carbon: 2}
users_in: aws/eu-west-1
expected: 1.5h
deadline: 2h30m
budget: {max_usd: 10}
restart: {max: 3, backoff: 500ms}
checkpoint: {dir: /ckpt, grace: 1m}
tolerations: [spot, team=vision, {key: a, value: b}]
metadata: {team: 7}
""",
        MINE="yes",
        TOKEN="hunter2",
    )
    assert (job.name, job.framework, job.priority) == (
        "resnet",
        Framework.PYTORCH,
        Priority.LATENCY_CRITICAL,
    )
    assert job.alternatives == (
        ResourceRequest(
            gpus_milli=8000,
            gpu_type="A100",
            cpus_milli=4000,
            memory_mib=16384,
            disk_mib=1 << 20,
            labels={"disk": "nvme"},
        ),
    )
    assert job.envs == {"EPOCHS": "010", "SHUFFLE": "on", "LR": "1.50", "MINE": "yes"}
    assert job.secrets == {"TOKEN": Secret("hunter2")}
    assert (job.replicas, job.workdir, job.users_in) == (2, ".", ("aws/eu-west-1",))
    assert (job.expected_s, job.deadline_s, job.restart.backoff_s) == (5400, 9000, 0.5)
    assert job.tolerations == (
        Toleration("spot"),
        Toleration("team", "vision"),
        Toleration("a", "b"),
    )
    assert job.objective.carbon == 2
    assert "hunter2" not in repr(job)


@pytest.mark.parametrize(
    ("text", "gpu_type", "milli"),
    [
        ("A100:8", "A100", 8000),
        ("A100", "A100", 1000),
        ("{A100: 8}", "A100", 8000),
        ("A100:0.5", "A100", 500),
        ("4", "", 4000),
        ('"4"', "", 4000),
        ("a100-80gb:2.0", "A100-80GB", 2000),
        ("MyOwnChip:2", "MyOwnChip", 2000),
        ("H20:1", "H20", 1000),
    ],
)
def test_accelerators_may_be_written_in_many_ways(text, gpu_type, milli):
    found = request(f"{{accelerators: {text}}}")
    assert (found.gpu_type, found.gpus_milli) == (gpu_type, milli)


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("16", 16384),
        ('"16+"', 16384),
        ("16Gi", 16384),
        ("512Mi", 512),
        ("0.5", 512),
        ("16GB", 16384),
    ],
)
def test_memory_is_gib_unless_a_suffix_says_otherwise(text, mib):
    assert request(f"{{memory: {text}}}").memory_mib == mib


def test_alternatives_are_laid_over_the_rest():
    job = read(
        "run: a\nresources:\n  cpus: 2\n  accelerators: [A100:1, H100:1]\n  any_of:\n"
        "  - infra: aws/*\n  - {cloud: gcp, region: us-central1, use_spot: yes, accelerators: L4}\n"
    )
    assert [(r.gpu_type, r.infra, r.use_spot, r.cpus_milli) for r in job.alternatives] == [
        ("A100", "aws", None, 2000),
        ("H100", "aws", None, 2000),
        ("L4", "gcp/us-central1", True, 2000),
    ]


def test_a_fault_in_what_alternatives_inherit_is_told_once_where_it_stands():
    text = "run: a\nresources:\n  cpus: 9999\n  any_of:\n  - infra: aws\n  - infra: gcp\n"
    assert refused(text) == "t.yaml:3:3: resources.cpus: found 9999, expected 0 to 4096"


def test_a_relative_workdir_is_for_the_caller_unless_that_is_a_server():
    assert read("run: a\nworkdir: ./src").workdir == "./src"
    with pytest.raises(SpecError, match=r'workdir: found "\./src", expected an absolute'):
        job_from_yaml(
            "run: a\nworkdir: ./src", source="s", job_id="j", environ={}, now_ms=0, local=False
        )


def test_merge_keys_and_anchors_work():
    text = "resources: &r {cpus: 2}\nrun: a\nenvs: &e {A: 1, B: 2}\nmetadata:\n  <<: *e\n  A: 3\n"
    job = read(text)
    assert job.metadata == {"A": "3", "B": "2"}


@pytest.mark.parametrize("text", ["0E0", "1e5", "1.5e5", "1e+5", "08", "1.5", "~", "yes", "0x1f"])
def test_texts_that_look_like_numbers_survive_the_usual_writers(text):
    assert read(yaml.safe_dump({"run": text})).run == text


def test_numbers_may_have_an_exponent():
    assert read("run: a\nbudget: {max_usd: 1e3}").budget.max_usd == 1000
    assert read("run: a\nexpected: 1e3").expected_s == 1000


def test_a_script_or_a_vector():
    assert read("run: [python, -c, 1.0, on]").command == ("python", "-c", "1.0", "on")
    assert read("run: |\n  a\n  b\n").run == "a\nb\n"


def test_a_moment_as_deadline_counts_from_now():
    job = read("run: a\ndeadline: 2023-11-14T23:13:20+00:00")
    assert job.deadline_s == 3600


def test_secrets_stay_out_of_errors():
    text = "run: a\nsecrets: {TOKEN: hunter2, 'bad name': hunter2, L: [hunter2]}\nzzz: 1"
    assert "hunter2" not in refused(text)
    assert "hunter2" not in refused("run: a\nsecrets: hunter2")
    assert "hunter2" not in refused("run: a\nsecrets: [TOKEN=hunter2]")
    assert "hunter2" not in refused("run: a\nenvs: {T: a}\nsecrets: {T: null}", T="hunter2")


def test_json_is_held_to_the_same_rules_with_pointers():
    with pytest.raises(SpecError) as caught:
        job_from_mapping(
            {"run": "a", "data": [{"uri": "s3://x", "region": "x"}], "workdir": "rel", "e~/": 1},
            job_id="j",
            environ={},
            now_ms=0,
        )
    assert [p.pointer for p in caught.value.problems] == ["/e~0~1", "/workdir", "/data/0/region"]
    assert str(caught.value).startswith("spec: e~/: is no field here")


@pytest.mark.parametrize(
    "value",
    [None, 5, "x", [], {"run": float("nan")}, {"run": "a", "replicas": 10**5000}]
    + [{"run": "a", "replicas": v} for v in (True, "1", None, [], {}, 1.5, float("inf"))]
    + [{"run": b"x"}, {"run": "a", "name": "\ud800"}, {"run": "\ud800"}],
)
def test_json_of_wrong_types_is_refused(value):
    with pytest.raises(SpecError) as caught:
        job_from_mapping(value, job_id="j", environ={}, now_ms=0)
    str(caught.value).encode(errors="backslashreplace")


def test_a_command_is_a_job_named_after_its_program():
    job = job_from_command(["/usr/bin/true"], job_id="j", replicas=2)
    assert (job.name, job.command, job.replicas) == ("true", ("/usr/bin/true",), 2)
    with pytest.raises(SpecError, match="command: replicas: found 0, expected 1 to 10000"):
        job_from_command(["true"], job_id="j", replicas=0)
    with pytest.raises(SpecError, match="is missing"):
        job_from_command([], job_id="j")


def test_the_mapping_of_a_job_hides_secrets_and_leaves_out_defaults():
    job = read("run: a\nsecrets: {T: hunter2}\nresources: {memory: 512Mi}")
    mapping = job_to_mapping(job)
    assert mapping == {"run": "a", "secrets": {"T": "***"}, "resources": {"memory": "512Mi"}}
    assert read(yaml.safe_dump(mapping)) == structs.replace(job, secrets={"T": Secret("***")})


def test_checks_of_a_job_from_elsewhere_are_the_same():
    job = Job(
        id="no/slash",
        command=("a",),
        run="b",
        alternatives=(
            ResourceRequest(gpu_type="a100"),
            ResourceRequest(gpus_milli=1500, gpu_type="A100"),
        ),
        expected_s=float("nan"),
        deadline_s=float("-inf"),
        secrets={"S": Secret("\0")},
        policy="",
        image="x",
    )
    assert [f.pointer for f in check(job)] == [
        "/id",
        "/resources/any_of/0/accelerators",
        "/resources/any_of/0/accelerators",
        "/resources/any_of/1/accelerators",
        "/run",
        "/image",
        "/secrets/S",
        "/expected",
        "/deadline",
    ]
    assert problems(check(job))[0].message.startswith('id: found "no/slash", expected')


def test_policies_are_those_that_exist():
    from hyperion.placement import ranking

    for name in POLICIES:
        assert ranking.policy(name).name == name


# -- where, when and in what form ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvlink", NodeTerm("nvlink")),
        ("'!spot'", NodeTerm("spot", Operator.ABSENT)),
        ("not spot", NodeTerm("spot", Operator.ABSENT)),
        ("disk = nvme", NodeTerm("disk", Operator.IN, ("nvme",))),
        ("disk==nvme", NodeTerm("disk", Operator.IN, ("nvme",))),
        ("disk != hdd", NodeTerm("disk", Operator.NOT_IN, ("hdd",))),
        ("zone in (a, b)", NodeTerm("zone", Operator.IN, ("a", "b"))),
        ("zone not in (a,b)", NodeTerm("zone", Operator.NOT_IN, ("a", "b"))),
        ("zone notin (a)", NodeTerm("zone", Operator.NOT_IN, ("a",))),
        ("gpu-memory > 40", NodeTerm("gpu-memory", Operator.GREATER, ("40",))),
        ("gpu-memory >= 40", NodeTerm("gpu-memory", Operator.GREATER, ("39",))),
        ("load < -3", NodeTerm("load", Operator.LESS, ("-3",))),
        ("load <= 3", NodeTerm("load", Operator.LESS, ("4",))),
        ("{term: zone in (a), weight: 5}", NodeTerm("zone", Operator.IN, ("a",), 5)),
        (
            "{key: zone, operator: NotIn, values: [a, 1]}",
            NodeTerm("zone", Operator.NOT_IN, ("a", "1")),
        ),
        ("{key: zone, values: a}", NodeTerm("zone", Operator.IN, ("a",))),
        ("{key: zone, weight: 1}", NodeTerm("zone", weight=1)),
        ("{key: n, operator: Gt, values: [4]}", NodeTerm("n", Operator.GREATER, ("4",))),
    ],
)
def test_terms_on_nodes_may_be_written_in_many_ways(text, expected):
    found = read(f"run: a\nresources:\n  node_affinity:\n  - {text}\n").alternatives[0].affinity
    assert found == (expected,)
    shown = term_text(structs.replace(expected, weight=0))
    assert term_of(shown) == structs.replace(expected, weight=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", Array(100)),
        ("0-99%10", Array(100, limit=10)),
        ("1-15:2", Array(8, first=1, step=2)),
        ("'5,7,9'", Array(3, first=5, step=2)),
        ("{size: 100000, limit: 500}", Array(100_000, limit=500)),
    ],
)
def test_arrays_may_be_written_in_many_ways(text, expected):
    assert read(f"run: a\narray: {text}").array == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job-a", (Dependency("job-a"),)),
        ("17", (Dependency("17"),)),
        ("afterany:17:18", (Dependency("17", Condition.ANY), Dependency("18", Condition.ANY))),
        ("[a, {afterany: b}]", (Dependency("a"), Dependency("b", Condition.ANY))),
        (
            "{afternotok: [a, b], afterok: c}",
            (
                Dependency("a", Condition.NOT_OK),
                Dependency("b", Condition.NOT_OK),
                Dependency("c"),
            ),
        ),
    ],
)
def test_dependencies_may_be_written_in_many_ways(text, expected):
    assert read(f"run: a\nafter: {text}").after == expected


def test_where_and_when():
    job = read(
        """
run: a
queue: research
nice: -5
replicas: 4
topology: {preferred: nvlink}
spread: [host, {level: zone, max_skew: 2, required: false}]
near: app=cache,tier=one
away_from: [{labels: {app: web}, level: rack}, {labels: {app: noisy}, weight: 50}]
begin: 2023-11-14T23:13:20Z
reservation: maint-1
min_runtime: 10m
checkpoint: {every: 10m, restore: 1m}
resources: {custom: {tape: 2, fpga: 1}}
"""
    )
    assert (job.queue, job.nice, job.reservation) == ("research", -5, "maint-1")
    assert (job.begin_s, job.min_runtime_s) == (3600, 600)
    assert (job.checkpoint.every_s, job.checkpoint.restore_s) == (600, 60)
    assert job.packing == Packing("nvlink", required=False)
    assert job.spread == (Spread("host"), Spread("zone", 2, required=False))
    assert job.replica_affinity == (
        ReplicaTerm((("app", "cache"), ("tier", "one"))),
        ReplicaTerm((("app", "web"),), "rack", anti=True),
        ReplicaTerm((("app", "noisy"),), anti=True, weight=50),
    )
    assert job.alternatives[0].custom == (("fpga", 1), ("tape", 2))


def test_roles_take_what_they_leave_out_from_the_job():
    text = """
run: train
resources: {cpus: 2, infra: aws}
roles:
  server: {run: [serve, --fast]}
  trainer: {replicas: 4, resources: {accelerators: A100, cpus: 8}}
"""
    job = read(text)
    server = ResourceRequest(cpus_milli=2000, infra="aws")
    trainer = ResourceRequest(gpus_milli=1000, gpu_type="A100", cpus_milli=8000, infra="aws")
    assert job.roles == (
        Role(name="server", resources=server, command=("serve", "--fast")),
        Role(name="trainer", replicas=4, resources=trainer),
    )
    assert (job.replicas, job.alternatives) == (5, (server,))
    assert [job.request(rank, 0) for rank in (0, 1, 4)] == [server, trainer, trainer]
    assert read(yaml.safe_dump(job_to_mapping(job))) == job


def test_the_order_of_roles_survives_writers_that_sort_the_keys():
    job = read("run: a\nroles:\n- {name: trainer, replicas: 2}\n- {name: server}\n")
    assert [role.name for role in job.roles] == ["trainer", "server"]
    assert read(yaml.safe_dump(job_to_mapping(job), sort_keys=True)) == job


def test_elastic_jobs_have_their_most_as_replicas():
    job = read("run: a\nelastic: {min: 2, max: 8, restart: false}")
    assert (job.elastic, job.replicas, job.least_replicas) == (Elastic(2, restart=False), 8, 2)
    assert read("run: a\nreplicas: 8\nelastic: {min: 2}").replicas == 8
    assert job_to_mapping(job)["elastic"] == {"min": 2, "max": 8, "restart": False}


# -- the schema, the reference, the examples ----------------------------------------------------


def test_the_schema_in_docs_is_current():
    kept = (ROOT / "docs/job.schema.json").read_text()
    assert kept == schema.schema_text(), (
        "run: python -m hyperion.wire.schema > docs/job.schema.json"
    )


def test_the_reference_in_docs_is_current():
    text = (ROOT / "docs/spec.md").read_text()
    assert schema.fields_table() in text, "paste: python -m hyperion.wire.schema --fields"


@functools.cache
def validator() -> Any:
    made = schema.job_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_good_by_the_parser_and_by_the_schema(path):
    text = path.read_text()
    job_from_yaml(text, source=path.name, job_id="j", environ={}, now_ms=NOW_MS)
    validator().validate(yaml.safe_load(text))


DOCUMENTED = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/spec.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("text", DOCUMENTED)
def test_what_the_document_shows_is_good_by_the_parser_and_by_the_schema(text):
    job = read(text)
    validator().validate(yaml.safe_load(text))
    assert read(yaml.safe_dump(job_to_mapping(job))) == job


def test_the_document_shows_every_form():
    jobs = [read(text) for text in DOCUMENTED]
    assert any(job.roles for job in jobs)
    assert any(job.elastic for job in jobs)
    assert any(job.array for job in jobs)
    assert any(job.after and job.queue for job in jobs)
    assert any(job.packing and job.spread and job.replica_affinity for job in jobs)


def test_the_example_batch_script_is_good():
    text = (ROOT / "examples/slurm.sh").read_text()
    assert job_from_sbatch(text, source="slurm.sh", job_id="j").replicas == 2


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_what_the_schema_takes_for_a_fault_the_parser_refuses(text, expected):
    """The schema need not see all, but what it refuses must be refused; here all of it is."""
    try:
        value = yaml.safe_load(text)
        json.dumps(value)
    except (yaml.YAMLError, TypeError, ValueError):
        return
    if not validator().is_valid(value):
        with pytest.raises(SpecError):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        "run: a\nnam: x",
        "run: a\nresources: {accelerators: '8xA100'}",
        "run: a\nreplicas: 0",
        "run: a\npriority: HIGH",
        "run: a\nimage: x",
        "run: a\nresources: {memory: 16XB}",
        "run: a\ndeadline: soon",
        "run: a\narray: all",
        "run: a\ntopology: rak",
        "run: a\nafter: {when: b}",
        "run: a\nroles: {trainer: {replica: 2}}",
        "run: a\nresources: {custom: {fpga: 0}}",
        "name: x",
    ],
)
def test_the_schema_finds_common_faults(text):
    assert not validator().is_valid(yaml.safe_load(text))
    refused(text)
