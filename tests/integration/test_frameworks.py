"""Frameworks find their gang in a job's surroundings: real runs of them through real daemons.

``scripts/test_needs.py`` fetches the frameworks; what is not there is skipped with its reason.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from daemons import World, until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BIN = Path(sys.executable).parent


class Site(World):
    """One node that is said to have eight GPUs, and the command line for it."""

    def run(self, *words, spec=None):
        """(exit code, output) of ``hyperion run``, attached."""
        done = subprocess.run(
            [BIN / "hyperion", "run", *map(str, words)],
            env={**self.environ, "HYPERION_SERVER": f"unix:{self.socket}"},
            input=spec,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def detached(self, *words):
        code, text = self.run("--detach", *words)
        assert code == 0, text
        return text.split()[0]

    def output(self, job_id, rank=None):
        return b"".join(self.client.log_bytes(job_id, rank)).decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lease = {"node_lease_ms": 20_000}
    world = Site(
        tmp_path_factory.mktemp("frameworks"),
        agent={"declare": "accelerators=A100:8,cpus=64,memory=64"},
        federation=lease,
        scheduler=lease,
    )
    world.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    with world:
        yield world


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: scripts/test_needs.py")


needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="mpirun is not installed: apt-get install openmpi-bin"
)


@needs("torch")
def test_ddp_ranks_hold_the_same_model_and_loss(site):
    code, text = site.run(EXAMPLES / "torch_ddp.yaml")
    assert code == 0, text
    found = re.findall(r"rank (\d)/2 own loss (\S+) mean loss (\S+) weights (.+)", text)
    assert {rank for rank, *_ in found} == {"0", "1"}, text
    (_, own, mean, weights), (_, other, other_mean, other_weights) = found
    assert (mean, weights) == (other_mean, other_weights)
    assert own != other, "each rank has points of its own"


@needs("torch")
def test_a_bare_torchrun_in_each_replica_joins_the_others(site):
    where = EXAMPLES / "torch_ddp"
    words = ("--framework", "pytorch", "-n", "2", "--workdir", where, "--env", "OMP_NUM_THREADS=1")
    code, text = site.run(*words, "--", "torchrun", "train.py")
    assert code == 0, text
    assert "rank 0/2" in text
    assert "rank 1/2" in text


@needs("jax")
def test_jax_processes_sum_across_each_other(site):
    code, text = site.run(EXAMPLES / "jax_distributed.yaml")
    assert code == 0, text
    assert "process 0/2 psum 3.0" in text
    assert "process 1/2 psum 3.0" in text


@needs_mpirun
@needs("mpi4py")
def test_mpirun_finds_its_hosts_and_slots(site):
    code, text = site.run(EXAMPLES / "mpi.yaml")
    assert code == 0, text
    assert "rank 0/2" in text
    assert "rank 1/2" in text
    assert text.count("sum 3") == 2


@needs_mpirun
def test_the_exit_code_of_an_mpi_program_is_the_jobs(site):
    words = ("--framework", "mpi", "-n", "2", "--workdir", EXAMPLES / "mpi")
    code, text = site.run(*words, "--", "python", "gang.py", "sh", "-c", "exit 3")
    assert code == 3, text


def test_a_plain_command_runs_as_it_is(site):
    code, text = site.run("--", "printf", "%s|", "two words", "$HOME", "*")
    assert code == 0, text
    assert "two words|$HOME|*|" in text


def test_setup_runs_once_per_replica_and_before_run(site):
    spec = "replicas: 2\nsetup: echo $RANK >>made\nrun: |\n  read -r made <made\n"
    spec += '  echo "rank $RANK finds $made, lines: $(wc -l <made)"\n'
    code, text = site.run("-", spec=spec)
    assert code == 0, text
    for rank in (0, 1):
        assert f"rank {rank} finds {rank}, lines: 1" in text


def test_a_failed_setup_fails_the_job_with_its_exit_code(site):
    code, text = site.run("-", spec="setup: exit 7\nrun: echo never\n")
    assert code == 7
    assert "setup failed" in text
    assert "never" not in text


def test_a_batch_script_runs_as_under_slurm(site):
    code, text = site.run(EXAMPLES / "slurm.sh")
    assert code == 0, text
    for task in (0, 1):
        assert f"task {task} of 2" in text
        assert f"hello from task {task}" in text


def test_tensorflow_is_told_of_every_worker_alike(site):
    job = site.detached("--framework", "tensorflow", "-n", "3", "--", "printenv", "TF_CONFIG")
    assert site.client.wait(job, 60).phase == "succeeded"
    found = [json.loads(site.output(job, rank)) for rank in range(3)]
    assert [config["task"] for config in found] == [
        {"type": "worker", "index": rank} for rank in range(3)
    ]
    workers = found[0]["cluster"]["worker"]
    assert len(set(workers)) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", worker) for worker in workers)
    assert all(config["cluster"] == found[0]["cluster"] for config in found)


def test_training_goes_on_from_its_checkpoint_after_a_killed_replica(site):
    words = ("--gpus", "A100:1", EXAMPLES / "train.yaml")
    job = site.detached(*words)
    until(lambda: "epoch 2/" in site.output(job, 0), "the second epoch", 60)
    os.kill(replica_of(site, job, rank=1), signal.SIGKILL)
    view = site.client.wait(job, 60)
    text = site.output(job, 0)
    assert (view.phase, view.restarts) == ("succeeded", 1), text
    resumed = re.search(r"resumed after epoch (\d): test accuracy (\d+)", text)
    assert resumed, text
    assert int(resumed[1]) >= 2
    assert int(resumed[2]) > 80
    assert "target of 95% reached" in text


def replica_of(site, job, rank):
    """The process that trains, of one rank."""
    marks = {f"HYPERION_JOB_ID={job}".encode(), f"RANK={rank}".encode()}
    for pid, line in site.replicas().items():
        with suppress(OSError):
            environ = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            if marks <= environ and line.endswith("python train.py"):
                return pid
    raise AssertionError(f"no process of rank {rank} among {site.replicas()}")
