"""What a job must satisfy, tried on jobs that came over an API and so past no reader."""

import pytest
from msgspec import structs

from hyperion.model.checks import check
from hyperion.model.constraints import NodeTerm, Operator, Packing, ReplicaTerm, Spread
from hyperion.model.job import Array, Checkpoint, Condition, Dependency, Elastic, Job, Role
from hyperion.model.resources import ResourceRequest

GOOD = Job(id="j", run="x")
TRAINERS = Role(name="trainer", replicas=3, resources=ResourceRequest(gpus_milli=1000))
SERVER = Role(name="server", run="serve")
ROLES = structs.replace(
    GOOD, roles=(TRAINERS, SERVER), replicas=4, alternatives=(TRAINERS.resources,)
)
OTHERS = (("app", "web"),)


def request(**fields) -> Job:
    return structs.replace(GOOD, alternatives=(ResourceRequest(**fields),))


def job(**fields) -> Job:
    return structs.replace(GOOD, **fields)


def test_every_new_word_is_admitted_where_it_makes_sense():
    whole = job(
        queue="research",
        nice=-1000,
        replicas=8,
        elastic=Elastic(min=1),
        packing=Packing("rack"),
        spread=(Spread("host", 2), Spread("zone", required=False)),
        replica_affinity=(
            ReplicaTerm(OTHERS, "rack"),
            ReplicaTerm((("app", "db"),), anti=True),
            ReplicaTerm(OTHERS, anti=True, weight=100),
        ),
        alternatives=(
            ResourceRequest(
                custom=(("example.com/fpga", 2), ("licence", 1)),
                affinity=(
                    NodeTerm("zone", Operator.IN, ("a", "b")),
                    NodeTerm("gpu-memory", Operator.GREATER, ("40",)),
                    NodeTerm("zone", Operator.ABSENT, weight=1),
                    NodeTerm("spot", Operator.ABSENT),
                ),
            ),
        ),
        after=(Dependency("a"), Dependency("b", Condition.NOT_OK)),
        begin_s=10.0,
        deadline_s=20.0,
        reservation="maint-1",
        min_runtime_s=60.0,
        checkpoint=Checkpoint(every_s=1.0, restore_s=1.0),
    )
    assert check(whole) == ()
    assert check(ROLES) == ()
    assert check(job(array=Array(1_000_000, first=1, step=2000, limit=10))) == ()
    assert check(job(policy="own"), policies=("own",)) == ()


@pytest.mark.parametrize(
    ("wrong", "pointer", "message"),
    [
        (job(queue="a b"), "/queue", 'found "a b", expected up to 63 letters'),
        (job(nice=1001), "/nice", "found 1001, expected -1000 to 1000"),
        (job(reservation="/"), "/reservation", 'found "/"'),
        (job(begin_s=-1.0), "/begin", "found -1 s"),
        (job(begin_s=9.0, deadline_s=9.0), "/begin", "expected less than the deadline of 9 s"),
        (job(min_runtime_s=float("inf")), "/min_runtime", "found inf s"),
        (job(checkpoint=Checkpoint(every_s=-1.0)), "/checkpoint/every", "found -1 s"),
        (job(checkpoint=Checkpoint(restore_s=1e12)), "/checkpoint/restore", "found 1e+12 s"),
        (job(after=(Dependency("j"),)), "/after/0", "names the job itself"),
        (job(after=(Dependency("a"), Dependency("a"))), "/after/1", 'the job "a" twice'),
        (job(after=(Dependency("a/b"),)), "/after/0", 'found "a/b", expected the id'),
        (job(after=(Dependency("a"),) * 65), "/after", "found 65 jobs, expected at most 64"),
        (job(policy="own"), "/policy", 'found "own", expected one of balanced'),
    ],
)
def test_when_a_job_runs(wrong, pointer, message):
    assert_fault(wrong, pointer, message)


@pytest.mark.parametrize(
    ("wrong", "pointer", "message"),
    [
        (job(array=Array(0)), "/array/size", "found 0, expected 1 to 1000000"),
        (job(array=Array(1_000_001)), "/array/size", "found 1000001"),
        (job(array=Array(3, first=-1)), "/array/first", "found -1"),
        (job(array=Array(3, step=0)), "/array/step", "found 0"),
        (job(array=Array(3, limit=-1)), "/array/limit", "found -1"),
        (job(array=Array(3, step=1 << 30)), "/array", "found the last index 2147483648"),
        (job(array=Array(3), replicas=2), "/array", "found 2 replicas beside it"),
        (structs.replace(ROLES, array=Array(3)), "/array", "cannot be combined with roles"),
        (job(array=Array(3), elastic=Elastic(1)), "/array", "cannot be combined with elastic"),
        (job(array=Array(3), packing=Packing("rack")), "/array", "combined with topology"),
        (job(elastic=Elastic(0)), "/elastic/min", "found 0, expected 1 to the most"),
        (job(elastic=Elastic(3), replicas=2), "/elastic/min", "which are 2"),
        (structs.replace(ROLES, elastic=Elastic(1)), "/elastic", "cannot be combined with roles"),
        (structs.replace(ROLES, replicas=5), "/replicas", "found 5, but the roles have 4"),
        (structs.replace(ROLES, alternatives=()), "/resources", "not what the first role"),
        (structs.replace(ROLES, roles=(TRAINERS,) * 65), "/roles", "found 65 roles"),
        (structs.replace(ROLES, run=""), "/run", 'the role "trainer" has none of its own'),
    ],
)
def test_what_form_a_job_has(wrong, pointer, message):
    assert_fault(wrong, pointer, message)


@pytest.mark.parametrize(
    ("role", "pointer", "message"),
    [
        (Role(name="a b"), "/roles/a b", 'found the name "a b"'),
        (Role(name=""), "/roles/1", 'found the name ""'),
        (Role(name="trainer"), "/roles/trainer", "is there twice"),
        (Role(name="s", replicas=0), "/roles/s/replicas", "found 0, expected 1 to 10000"),
        (Role(name="s", run="a", command=("b",)), "/roles/s/run", "found both a script and"),
        (Role(name="s", run="x" * (1 << 18)), "", ""),
        (Role(name="s", run="x" * ((1 << 18) + 1)), "/roles/s/run", "found 262145 bytes"),
        (
            Role(name="s", resources=ResourceRequest(cpus_milli=-1)),
            "/roles/s/resources/cpus",
            "found -0.001",
        ),
    ],
)
def test_what_a_role_asks_for(role, pointer, message):
    wrong = structs.replace(ROLES, roles=(TRAINERS, role), replicas=3 + role.replicas)
    if pointer:
        assert_fault(wrong, pointer, message)
    else:
        assert check(wrong) == ()


def test_the_scripts_of_all_roles_together_are_bounded():
    big = tuple(Role(name=f"r{n}", run="x" * (1 << 18)) for n in range(5))
    wrong = job(roles=big, replicas=5)
    assert_fault(wrong, "/roles", "found 1310720 bytes of scripts, expected at most 1048576")


@pytest.mark.parametrize(
    ("wrong", "pointer", "message"),
    [
        (job(packing=Packing("rak")), "/topology", "one of zone, block, rack, nvlink, host; did"),
        (job(packing=Packing("")), "/topology", 'found ""'),
        (job(spread=(Spread("nvlnk"),)), "/spread/0/level", 'did you mean "nvlink"?'),
        (job(spread=(Spread(max_skew=0),)), "/spread/0/max_skew", "found 0"),
        (job(spread=(Spread(), Spread())), "/spread/1", 'found the level "host" twice'),
        (job(spread=(Spread(),) * 6), "/spread", "found 6 entries"),
        (
            job(replicas=2, packing=Packing("rack"), spread=(Spread("zone"),)),
            "/spread/0",
            "while topology requires all in one rack",
        ),
        (job(replica_affinity=(ReplicaTerm(()),)), "/near/0", "names no labels"),
        (
            job(replica_affinity=(ReplicaTerm(OTHERS), ReplicaTerm(OTHERS, "x", anti=True))),
            "/away_from/0/level",
            'found "x"',
        ),
        (job(replica_affinity=(ReplicaTerm(OTHERS, weight=101),)), "/near/0/weight", "found 101"),
        (job(replica_affinity=(ReplicaTerm((("a b", ""),)),)), "/near/0/labels/a b", "the key"),
        (job(replica_affinity=(ReplicaTerm(OTHERS * 2),)), "/near/0/labels", "a key twice"),
        (job(replica_affinity=(ReplicaTerm(OTHERS),) * 65), "/near", "found 65 terms"),
        (
            job(replica_affinity=(ReplicaTerm(OTHERS), ReplicaTerm(OTHERS, anti=True))),
            "/away_from/0",
            "the very replicas that near wants it at",
        ),
        (
            job(
                replicas=2,
                metadata={"app": "web"},
                packing=Packing("host"),
                replica_affinity=(ReplicaTerm(OTHERS, anti=True),),
            ),
            "/away_from/0",
            "while topology requires all in one host",
        ),
    ],
)
def test_where_replicas_are_to_be(wrong, pointer, message):
    assert_fault(wrong, pointer, message)


@pytest.mark.parametrize(
    ("wrong", "pointer", "message"),
    [
        (request(custom=(("b", 1), ("a", 1))), "/custom", "is not in order of the names"),
        (request(custom=(("a", 1), ("a", 1))), "/custom", "each once"),
        (request(custom=(("a", 0),)), "/custom/a", "found 0, expected 1 to 1000000000"),
        (request(custom=(("a b", 1),)), "/custom/a b", "found the key"),
        (request(custom=(("GPU", 1),)), "/custom/GPU", "is no countable; use accelerators"),
        (request(custom=(("gpus_milli/A100", 1),)), "/custom/gpus_milli~1A100", "use accelerators"),
        (request(affinity=(NodeTerm(""),)), "/node_affinity/0", "found the key"),
        (request(affinity=(NodeTerm("a"),) * 65), "/node_affinity", "found 65 terms"),
        (
            request(affinity=(NodeTerm("a", values=("x",)),)),
            "/node_affinity/0",
            "found 1 values, expected none with 'exists'",
        ),
        (
            request(affinity=(NodeTerm("a", Operator.GREATER, ("4.5",)),)),
            "/node_affinity/0",
            "found \"4.5\", expected one whole number with 'greater'",
        ),
        (
            request(affinity=(NodeTerm("a", Operator.LESS),)),
            "/node_affinity/0",
            "found 0 values, expected one whole number",
        ),
        (
            request(affinity=(NodeTerm("a", Operator.IN),)),
            "/node_affinity/0",
            "found 0 values, expected 1 to 64 with 'in'",
        ),
        (request(affinity=(NodeTerm("a", weight=-1),)), "/node_affinity/0", "the weight -1"),
        (
            request(labels={"a": "x"}, affinity=(NodeTerm("a", Operator.ABSENT),)),
            "/node_affinity/0",
            'wants no label "a", while another term or labels need it',
        ),
    ],
)
def test_what_a_replica_asks_of_its_node(wrong, pointer, message):
    assert_fault(wrong, "/resources" + pointer, message)


def assert_fault(wrong: Job, pointer: str, message: str) -> None:
    found = {fault.pointer: fault.message for fault in check(wrong)}
    assert message in found.get(pointer, ""), found
