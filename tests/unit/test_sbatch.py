"""Batch scripts become jobs; what would change their meaning is refused by line."""

import subprocess

import pytest

from hyperion.model.job import Restart
from hyperion.wire.sbatch import job_from_sbatch, looks_like_sbatch, notes_of
from hyperion.wire.spec import SpecError


def script(*options: str, body: str = "python train.py") -> str:
    return "#!/bin/bash\n" + "".join(f"#SBATCH {o}\n" for o in options) + body + "\n"


def read(*options: str, body: str = "python train.py", **environ: str):
    return job_from_sbatch(script(*options, body=body), source="j.sh", job_id="j", environ=environ)


def test_what_looks_like_a_batch_script():
    assert looks_like_sbatch(script("-N 1"))
    assert looks_like_sbatch("#!/bin/sh\n# a comment\n\n#SBATCH -N 1\ntrue\n")
    assert not looks_like_sbatch("run: a\n")
    assert not looks_like_sbatch("#!/bin/sh\necho a\n#SBATCH -N 1\n")


def test_a_usual_script():
    job = read(
        '--job-name="my job"  # its name',
        "-N 2 --ntasks-per-node=4",
        "--gres=gpu:a100:8",
        "-c4",
        "--mem=64G",
        "-t 1-02:30:00",
        "-p gpu",
        "--export=ALL,MODE=x,MINE",
        "--constraint=nvme&zone=b",
        "--requeue",
        "--signal=TERM@90",
        MINE="y",
    )
    request = job.alternatives[0]
    assert (job.name, job.replicas) == ("my-job", 8)
    assert (request.gpu_type, request.gpus_milli, request.cpus_milli) == ("A100", 2000, 4000)
    assert request.memory_mib == 16 << 10
    assert request.labels == {"nvme": "true", "zone": "b"}
    assert job.expected_s == 26.5 * 3600
    assert job.envs == {"MODE": "x", "MINE": "y"}
    assert job.restart == Restart(max=3)
    assert job.checkpoint.grace_s == 90
    assert notes_of(job)["partition"] == "gpu"
    assert notes_of(job)["job-name"] == "my job"


@pytest.mark.parametrize(
    ("options", "replicas", "gpus", "cpus", "memory"),
    [
        ((), 1, 0, 1, 0),
        (("-n 4",), 4, 0, 1, 0),
        (("-N 3",), 3, 0, 1, 0),
        (("-N 2", "-n 8", "--mem=8G"), 8, 0, 1, 2048),
        (("-n 4", "--gpus=4"), 4, 1, 1, 0),
        (("-n 4", "--gpus-per-task=2"), 4, 2, 1, 0),
        (("-N 2", "--gpus-per-node=h100:8", "--cpus-per-gpu=4"), 2, 8, 32, 0),
        (("-N 2", "--gres=gpu:4"), 2, 4, 1, 0),
        (("--gres=gpu:h100",), 1, 1, 1, 0),
        (("-c 4", "--mem-per-cpu=500M"), 1, 0, 4, 2000),
        (("--gpus=2", "--mem-per-gpu=1T"), 1, 2, 1, 2 << 20),
    ],
)
def test_counts(options, replicas, gpus, cpus, memory):
    job = read(*options)
    request = job.alternatives[0]
    assert job.replicas == replicas
    assert (request.gpus_milli // 1000, request.cpus_milli // 1000) == (gpus, cpus)
    assert request.memory_mib == memory


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("10:30", 630),
        ("01:00:00", 3600),
        ("1-0", 86400),
        ("1-12:30", 131400),
        ("2-00:00:10", 172810),
        ("UNLIMITED", 0),
    ],
)
def test_times(text, seconds):
    assert read(f"--time={text}").expected_s == seconds


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--array=1-3", "--array: is not supported; submit one job per element"),
        ("-d afterok:7", "--dependency: is not supported"),
        ("hetjob", "--hetjob: is not supported"),
        ("--nodse=2", "--nodse: is no option known here; did you mean nodes?"),
        ("-N 1-4", '--nodes: found the range "1-4"; give one number of nodes'),
        ("-N two", '--nodes: found "two", expected a whole number above 0'),
        ("-n 0", '--ntasks: found "0", expected a whole number above 0'),
        ("--mem", "--mem: has no value"),
        ("--mem=lots", '--mem: found "lots", expected a size such as 16G or 4096M'),
        ("--gres=tpu:4", '--gres: found "tpu:4", expected gpu:COUNT or gpu:TYPE:COUNT'),
        ("--gpus=3 -n 2", "--gpus: 3 GPUs cannot be shared evenly by 2 tasks"),
        ("--time=soon", '--time: found "soon", expected MINUTES'),
        ("-C 'a|b'", '--constraint: found "a|b", expected features joined'),
        ("--export=NOT_THERE", '--export: "NOT_THERE" is not in your environment'),
        ("--signal=B:USR1@60", '--signal: found "B:USR1@60", expected TERM@SECONDS'),
        ("-J 'open", "found a quote that is not closed"),
        ("word", '--word: found "word", expected an option such as --nodes=2'),
        ("-n 20000", "replicas: found 20000, expected 1 to 10000"),
        ("--gpus=A10O:1", 'resources.accelerators: found the unknown accelerator "A10O"'),
        ("--chdir=rel", 'workdir: found "rel", expected an absolute directory'),
    ],
)
def test_refusals_name_the_line(option, message):
    with pytest.raises(SpecError) as caught:
        read("--qos=x", option)
    assert str(caught.value).startswith("j.sh:3:9: ")
    assert message in str(caught.value)


def test_all_refusals_are_told_at_once_in_order():
    with pytest.raises(SpecError) as caught:
        read("--array=1", "-N x", "--begin=now")
    assert [p.line for p in caught.value.problems] == [2, 3, 4]


def test_options_after_the_first_command_do_not_count():
    assert read("-N 2", body="true\n#SBATCH --array=1-3").replicas == 2


def test_srun_runs_the_command_in_place():
    body = (
        "srun --ntasks=4 -n4 -N 2 --label --cpu-bind none -l echo a 'b c' -x\nsrun true && echo ok"
    )
    run = read(body=body).run
    done = subprocess.run(
        ["bash", "-c", run], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "a b c -x\nok\n"
    assert "srun()" not in read(body="echo a").run
    python = "#!/usr/bin/env python3\n#SBATCH -N 1\nprint('srun')\n"
    assert job_from_sbatch(python, source="j.py", job_id="j").run == python
