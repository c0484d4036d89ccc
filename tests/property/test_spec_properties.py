"""Whatever is thrown at the readers of specs, they answer with a job or with a SpecError."""

import math
import string

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from hyperion.model.checks import POLICIES, check
from hyperion.model.constraints import (
    LEVELS,
    NodeTerm,
    Operator,
    Packing,
    ReplicaTerm,
    Spread,
)
from hyperion.model.job import (
    Array,
    Budget,
    Checkpoint,
    Condition,
    DatasetRead,
    DatasetWrite,
    DataSource,
    Dependency,
    Elastic,
    Framework,
    Job,
    Objective,
    Priority,
    Residency,
    Restart,
    Role,
    Secret,
    Toleration,
)
from hyperion.model.resources import ResourceRequest
from hyperion.wire import units
from hyperion.wire.sbatch import job_from_sbatch, looks_like_sbatch
from hyperion.wire.spec import SpecError, job_from_mapping, job_from_yaml, job_to_mapping
from hyperion.wire.spec_fields import reference

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = sorted({part for name, _ in reference() for part in name.replace("[]", "").split(".")})


def holds(read) -> Job | None:
    """The job, if it is one; a SpecError that can be shown is the only other way out."""
    try:
        job = read()
    except SpecError as error:
        if not error.problems or not str(error):
            raise AssertionError("a SpecError that says nothing") from error
        return None
    assert not [f for f in check(job) if f.pointer != "/workdir"]
    return job


def yaml_job(text):
    return job_from_yaml(text, source="s", job_id="j", environ={}, now_ms=0)


@QUICK
@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbfrun: a")
@example(b"%YAML 9.9\n---\nrun: a")
@example(b"run: a\n...\nrun: b")
@example(b"&a *a")
def test_bytes_are_a_job_or_a_spec_error(text):
    holds(lambda: yaml_job(text))


@QUICK
@given(st.text(alphabet="rune: \n-[]{}&*!|>'\"#%@`,?~0aA\t\\", max_size=80))
def test_texts_near_yaml_are_a_job_or_a_spec_error(text):
    holds(lambda: yaml_job(text))
    holds(lambda: yaml_job("run: a\n" + text))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["A100:8", "16Gi", "2h", "aws/us-east-1", "cheapest", "*", "4+", "1e9", "BATCH"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), inner, max_size=6)
    ),
    max_leaves=20,
)
specs = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)


@QUICK
@given(specs)
def test_json_of_our_names_is_a_job_or_a_spec_error(spec):
    holds(lambda: job_from_mapping(spec | {"run": "a"}, job_id="j", environ={}, now_ms=0))


@QUICK
@given(values)
def test_any_json_is_a_job_or_a_spec_error(value):
    holds(lambda: job_from_mapping(value, job_id="j", environ={}, now_ms=0))


@QUICK
@given(specs)
def test_dumped_yaml_of_our_names_is_a_job_or_a_spec_error(spec):
    text = yaml.safe_dump(spec | {"run": "a"}, allow_unicode=True)
    holds(lambda: yaml_job(text))


options = st.sampled_from(
    """-N|--nodes=|-n |--gres=gpu:|--mem=|-t |--array=|--export=|-C |--x|--dependency=|-d afterok:|
--begin=now+|--nice=|-p |--reservation=""".replace("\n", "").split("|")
)


@QUICK
@given(st.lists(st.tuples(options, st.text(max_size=10)), max_size=5), st.text(max_size=40))
def test_scripts_are_a_job_or_a_spec_error(lines, body):
    head = "".join(f"#SBATCH {option}{value}\n" for option, value in lines)
    text = f"#!/bin/sh\n{head}{body}"
    looks_like_sbatch(text)
    holds(lambda: job_from_sbatch(text, source="s", job_id="j"))


# -- there and back ----------------------------------------------------------------------------

words = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
lines = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=20
)
regions = st.sampled_from(["aws/us-east-1", "gcp/europe-west1", "edge/home"])
floats = st.floats(0, 1000, allow_nan=False).map(lambda value: value + 0.0)
seconds = st.floats(0, 3600).map(lambda value: round(value, 3))
gpus = st.sampled_from([0, 1, 125, 500, 1000, 8000])
levels = st.sampled_from(LEVELS)
weights = st.integers(0, 100)
numbers = st.integers(-(1 << 53), 1 << 53).map(lambda number: (str(number),))
terms = st.one_of(
    st.builds(NodeTerm, words, st.just(Operator.EXISTS), weight=weights),
    st.builds(NodeTerm, words, st.just(Operator.ABSENT), weight=st.integers(1, 100)),
    st.builds(
        NodeTerm,
        words,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.lists(words | lines, min_size=1, max_size=3).map(tuple),
        weights,
    ),
    st.builds(
        NodeTerm, words, st.sampled_from([Operator.GREATER, Operator.LESS]), numbers, weights
    ),
)
requests = st.builds(
    lambda milli, name, **rest: ResourceRequest(
        gpus_milli=milli, gpu_type=name if milli else "", **rest
    ),
    gpus,
    st.sampled_from(["", "A100", "H100", "OwnChip-9"]),
    cpus_milli=st.integers(0, 4096_000),
    memory_mib=st.integers(0, 1 << 24),
    disk_mib=st.integers(0, 1 << 24),
    labels=st.dictionaries(words, lines, max_size=2),
    infra=st.sampled_from(["", "aws", "aws/us-east-1", "my-cluster"]),
    use_spot=st.none() | st.booleans(),
    custom=st.dictionaries(words.map(lambda w: "own-" + w), st.integers(1, 10**9), max_size=2).map(
        lambda amounts: tuple(sorted(amounts.items()))
    ),
    affinity=st.lists(terms, max_size=2).map(tuple),
)
labels = st.dictionaries(words, lines, min_size=1, max_size=2).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
near = st.lists(st.builds(ReplicaTerm, labels, levels, weight=weights), max_size=2)
away = st.lists(
    st.builds(ReplicaTerm, labels, levels, st.just(True), st.integers(1, 100)), max_size=2
)
roles = st.lists(
    st.builds(
        lambda name, replicas, resources, words: Role(
            name=name,
            replicas=replicas,
            resources=resources,
            command=words if len(words) > 1 else (),
            run=words[0] if len(words) == 1 else "",
        ),
        words,
        st.integers(1, 1000),
        requests,
        st.lists(words, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda role: role.name,
).map(tuple)


def with_form(job, form):
    """A job that is an array, elastic, or has roles."""
    if isinstance(form, Array):
        return structs.replace(job, array=form, replicas=1, packing=None)
    if isinstance(form, Elastic):
        return structs.replace(job, elastic=form, replicas=max(job.replicas, form.min))
    if form:
        total = sum(role.replicas for role in form)
        first = (form[0].resources,)
        return structs.replace(job, roles=form, replicas=total, alternatives=first)
    return job


forms = st.one_of(
    st.just(()),
    st.builds(Elastic, st.integers(1, 10), st.booleans()),
    st.builds(
        Array,
        st.integers(1, 1_000_000),
        st.integers(0, 1000),
        st.integers(1, 2000),
        st.integers(0, 1_000_000),
    ),
    roles,
)
places = st.lists(st.sampled_from(["aws", "gcp/europe-*", "c1", "*/*"]), max_size=2).map(tuple)
variables = st.dictionaries(words.map(lambda w: "V_" + w), lines, max_size=3)
jobs = st.builds(
    lambda run, command, **rest: Job(id="j", run="" if command else run, command=command, **rest),
    lines.map(lambda text: "x" + text),
    st.lists(lines, max_size=3).map(lambda rest: ("x", *rest) if rest else ()),
    name=words | st.just(""),
    framework=st.sampled_from(Framework),
    priority=st.sampled_from(Priority),
    replicas=st.integers(1, 10_000),
    alternatives=st.lists(requests, min_size=1, max_size=3).map(tuple),
    workdir=st.sampled_from(["", "/srv/x", "bundle:sha256:" + "a" * 64]),
    setup=lines,
    envs=variables,
    reads=st.lists(
        st.builds(DatasetRead, st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.floats(0.0, 10.0)),
        max_size=2,
        unique_by=lambda r: r.dataset,
    ).map(tuple),
    writes=st.lists(
        st.builds(DatasetWrite, st.from_regex(r"[a-z]{1,9}", fullmatch=True), floats),
        max_size=2,
        unique_by=lambda w: w.dataset,
    ).map(tuple),
    data=st.lists(st.builds(DataSource, words, floats, regions | st.just("")), max_size=2).map(
        tuple
    ),
    objective=st.builds(Objective, floats.map(lambda value: value + 1), floats, floats, floats),
    policy=st.sampled_from(["", *POLICIES]),
    users_in=st.lists(regions, max_size=2).map(tuple),
    expected_s=seconds,
    deadline_s=seconds,
    budget=st.builds(Budget, floats, floats, floats),
    regions=st.builds(Residency, places, places),
    restart=st.builds(Restart, st.integers(0, 1000), seconds),
    checkpoint=st.builds(Checkpoint, lines, seconds, seconds, seconds),
    queue=words | st.just(""),
    nice=st.integers(-1000, 1000),
    packing=st.none() | st.builds(Packing, levels, st.booleans()),
    spread=st.lists(
        st.builds(Spread, levels, st.integers(1, 100), st.just(False)),
        max_size=2,
        unique_by=lambda spread: spread.level,
    ).map(tuple),
    replica_affinity=st.tuples(near, away).map(lambda pair: (*pair[0], *pair[1])),
    begin_s=seconds,
    after=st.lists(
        st.builds(Dependency, words.map(lambda w: "job-" + w), st.sampled_from(Condition)),
        max_size=3,
        unique_by=lambda dependency: dependency.job,
    ).map(tuple),
    reservation=words | st.just(""),
    min_runtime_s=seconds,
    tolerations=st.lists(st.builds(Toleration, words, lines), max_size=2).map(tuple),
    metadata=st.dictionaries(words, lines, max_size=3),
)


@settings(QUICK, max_examples=100)
@given(jobs, forms)
def test_a_job_survives_its_mapping_and_its_yaml(job, form):
    job = with_form(job, form)
    if job.deadline_s <= job.begin_s:
        job = structs.replace(job, deadline_s=0.0)
    if check(job):  # objective up to 1001, a label that a term forbids
        return
    mapping = job_to_mapping(job)
    assert job_from_mapping(mapping, job_id="j", environ={}, now_ms=0) == job
    assert yaml_job(yaml.safe_dump(mapping, allow_unicode=True)) == job


@QUICK
@given(variables)
def test_secrets_never_show(values_of):
    job = Job(id="j", run="a", secrets={k: Secret("hunter2" + v) for k, v in values_of.items()})
    assert "hunter2" not in repr(job)
    assert "hunter2" not in str(job_to_mapping(job))
    assert "hunter2" not in str(check(job))


odd = st.integers() | st.integers(-5, 5)


@QUICK
@given(
    st.builds(
        Job,
        id=st.text(max_size=5),
        name=st.text(max_size=5),
        replicas=odd,
        run=st.text(max_size=5),
        command=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        alternatives=st.lists(
            st.builds(ResourceRequest, odd, st.text(max_size=4), odd, odd, odd), max_size=3
        ).map(tuple),
        expected_s=st.floats(),
        envs=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        data=st.lists(st.builds(DataSource, st.text(max_size=3), st.floats()), max_size=2).map(
            tuple
        ),
        objective=st.builds(Objective, *[st.floats()] * 4),
    )
)
def test_checks_never_raise(job):
    for fault in check(job):
        assert fault.pointer.startswith("/")
        assert fault.message.isprintable()


@QUICK
@given(st.integers(0, 1 << 40))
def test_sizes_read_back(mib):
    assert units.size_mib(str(units.size_text(mib))) == mib


@QUICK
@given(st.floats(0, 1e9) | st.text(max_size=20))
def test_units_never_raise(value):
    for read in (units.number, units.duration_s, units.size_mib):
        found = read(str(value))
        assert found is None or math.isfinite(found)
