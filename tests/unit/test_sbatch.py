"""Batch scripts become jobs; what would change their meaning is refused by line."""

import subprocess

import pytest

from hyperion.model.job import Array, Condition, Dependency, Restart
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
    assert job.queue == "gpu"
    assert notes_of(job)["job-name"] == "my job"


@pytest.mark.parametrize(
    ("option", "signal", "grace_s"),
    [
        ("--signal=TERM@90", "", 90),
        ("--signal=USR1", "USR1", 60),
        ("--signal=SIGUSR2@30", "USR2", 30),
        ("--signal=B:USR1@120", "B:USR1", 120),
        ("--signal=RB:10@5", "B:USR1", 5),
        ("--signal=b:term@5", "B:TERM", 5),
    ],
)
def test_the_signal_before_the_end(option, signal, grace_s):
    checkpoint = read(option).checkpoint
    assert (checkpoint.signal, checkpoint.grace_s) == (signal, grace_s)


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
        ("--array=3-1", '--array: found "3-1", expected a range that goes up'),
        ("--array=1-9,12", '--array: found "1-9,12", expected a range of indices'),
        ("--array=0-1000000", "array.size: found 1000001, expected 1 to 1000000"),
        ("--array=0-3 -n 2", "array: found 2 replicas beside it"),
        ("-d singleton", '--dependency: found "singleton", expected the ids of the jobs'),
        ("-d after:7", "expected afterany, afterok or afternotok: a start cannot be"),
        ("-d aftercorr:7", "expected afterok, which waits for all tasks of the other array"),
        ("-d 'afterok:7?afterany:8'", "expected jobs that must all have ended"),
        ("-d afterok:7+30", "expected the id of a job"),
        ("-d sometime:7", "expected one of afterok, afterany, afternotok before the colon"),
        ("-d afterok:j", "after.0: names the job itself"),
        ("--begin=16:00", '--begin: found "16:00", expected now+1hour or the like; for a time of'),
        ("--nice=much", '--nice: found "much", expected a whole number'),
        ("--nice=5000", "nice: found 5000, expected -1000 to 1000"),
        ("-p 'a b'", 'queue: found "a b", expected up to 63 letters'),
        ("--reservation=a,b", 'reservation: found "a,b", expected up to 63 letters'),
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
        ("--signal=B:KILL@60", '--signal: found "B:KILL@60", expected [B:]SIGNAL@SECONDS'),
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


def test_arrays_dependencies_and_turns():
    job = read(
        "--array=1-99:2%4",
        "--dependency=afterok:17:18,afterany:19",
        "--nice=10",
        "--partition=gpu,cpu",
        "--begin=now+2hours",
        "--reservation=maint-1",
    )
    assert job.array == Array(50, first=1, step=2, limit=4)
    assert job.after == (
        Dependency("17"),
        Dependency("18"),
        Dependency("19", Condition.ANY),
    )
    assert (job.nice, job.queue, job.begin_s, job.reservation) == (10, "gpu", 7200, "maint-1")
    assert notes_of(job)["partition"] == "gpu,cpu (waits in queue gpu only)"


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--nice", "nice", 100),
        ("--nice=-3", "nice", -3),
        ("-b now", "begin_s", 0),
        ("--begin=now+90", "begin_s", 90),
        ("--begin=now+1day", "begin_s", 86400),
        ("-a 7", "array", Array(1, first=7)),
        ("--array=0-9", "array", Array(10)),
        ("-d 17", "after", (Dependency("17"),)),
        ("-d afternotok:17", "after", (Dependency("17", Condition.NOT_OK),)),
    ],
)
def test_slurms_own_notations(option, field, value):
    assert getattr(read(option, "-N 1"), field) == value


def test_all_refusals_are_told_at_once_in_order():
    with pytest.raises(SpecError) as caught:
        read("--array=x", "-N x", "--hold")
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
