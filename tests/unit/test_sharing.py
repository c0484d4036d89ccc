"""Equal parts of jobs are kept once, and nobody can tell."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hyperion.model.ids import JobId
from hyperion.model.job import Checkpoint, Job, Role, Secret
from hyperion.model.resources import ResourceRequest
from hyperion.model.sharing import Sharing
from hyperion.wire import codec

WORDS = st.sampled_from(["python", "train.py", "--seed", "1", ""])
JOBS = st.builds(
    Job,
    id=WORDS.map(JobId),
    name=WORDS,
    command=st.lists(WORDS, max_size=3).map(tuple),
    envs=st.dictionaries(WORDS, WORDS, max_size=2),
    metadata=st.dictionaries(WORDS, WORDS, max_size=2),
    secrets=st.dictionaries(WORDS, WORDS.map(Secret), max_size=1),
    expected_s=st.sampled_from([0.0, -0.0, 60.0]),
    replicas=st.integers(1, 3),
    alternatives=st.sampled_from([(ResourceRequest(),), (ResourceRequest(labels={"a": "b"}),)]),
    roles=st.sampled_from([(), (Role(name="ps", resources=ResourceRequest(gpus_milli=500)),)]),
    checkpoint=st.sampled_from([Checkpoint(), Checkpoint(dir="/ckpt")]),
)


@given(st.lists(JOBS, max_size=8))
def test_a_job_with_shared_parts_is_written_as_the_job_itself(jobs):
    sharing = Sharing(limit=3)
    for job in jobs:
        shared = sharing.job(job)
        assert shared == job
        assert msgspec.json.encode(shared) == msgspec.json.encode(job)


def test_equal_parts_of_two_jobs_are_one_object():
    sharing = Sharing()
    one, two = (
        sharing.job(
            Job(
                id=JobId(f"j{n}"),
                command=("python", f"{n}.py"),
                envs={"A": "1"},
                alternatives=(ResourceRequest(gpus_milli=1000, labels={"rack": "r1"}),),
                checkpoint=Checkpoint(dir="/ckpt"),
            )
        )
        for n in range(2)
    )
    assert one.alternatives is two.alternatives
    assert one.envs is two.envs
    assert one.metadata is two.metadata
    assert one.checkpoint is two.checkpoint
    assert one.command[0] is two.command[0]
    assert (one.id, two.command) == ("j0", ("python", "1.py"))


def test_one_and_true_are_different_values():
    sharing = Sharing()
    assert sharing.value(1) is not sharing.value(True)


def test_jobs_from_the_wire_share_what_is_equal():
    sent = [Job(id=JobId(f"j{n}"), command=("true",), metadata={"team": "x"}) for n in range(2)]
    one, two = (codec.job_from_proto(codec.job_to_proto(job)) for job in sent)
    assert [one, two] == sent
    assert one.metadata is two.metadata
    assert one.alternatives is two.alternatives
