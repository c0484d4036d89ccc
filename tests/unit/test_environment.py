"""Every replica finds the names that frameworks and existing scripts read, and they agree."""

import json
import os
import subprocess

import pytest
from msgspec import structs

from hyperion.adapters.runtime.launch import arguments
from hyperion.control.messages import Peer, Run
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import (
    Array,
    Checkpoint,
    DataSource,
    Elastic,
    Framework,
    Job,
    Priority,
    Role,
    Secret,
)
from hyperion.model.resources import ResourceRequest
from hyperion.ports import Surroundings
from hyperion.wire.environment import surroundings

GANG = (
    Peer(rank=0, node="n1", address="10.0.0.1", port=7001, gpus=1),
    Peer(rank=1, node="n1", address="10.0.0.1", port=7002, gpus=1),
    Peer(rank=2, node="n2", address="10.0.0.2", port=7003, gpus=1),
)


def order(rank: int = 0, peers: tuple[Peer, ...] = GANG, devices=(), gpus=1000, **job) -> Run:
    request = ResourceRequest(gpus_milli=gpus, gpu_type="A100", cpus_milli=4000, memory_mib=2048)
    return Run(
        allocation=AllocationId(f"j.1-1.{rank}"),
        generation=2,
        job=Job(id=JobId("j"), name="train", command=("true",), **job),
        rank=rank,
        attempt=1,
        request=request,
        devices=devices,
        peers=peers,
    )


def around(an_order: Run, **more) -> Surroundings:
    own = {p.rank: p for p in an_order.peers}.get(an_order.rank)
    given = {"cluster": "c", "region": "aws/us-east-1", "node": own.node if own else "n1"}
    return surroundings(an_order, "/run/j", own.port if own else 7000, **(given | more))


def test_torch_names_count_replicas_by_node():
    names = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
    places = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_WORLD_SIZE")
    found = [around(order(rank)).variables for rank in range(3)]
    assert {tuple(v[n] for n in names) for v in found} == {("10.0.0.1", "7001", "3")}
    assert [[v[n] for n in places] for v in found] == [
        ["0", "0", "2", "0", "2"],
        ["1", "1", "2", "0", "2"],
        ["2", "0", "1", "1", "2"],
    ]


def test_a_replica_with_its_own_real_gpus_is_a_node_of_its_own():
    found = around(order(1, devices=(3,)), real_gpus=True).variables
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("3", "PCI_BUS_ID")
    assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"], found["NODE_RANK"]) == ("0", "1", "1")
    assert found["JAX_LOCAL_DEVICE_IDS"] == "0"
    assert (found["SLURM_LOCALID"], found["SLURM_NNODES"]) == ("0", "3")
    assert found["SLURM_NODELIST"] == "10.0.0.1,10.0.0.1,10.0.0.2"
    assert found["HYPERION_LOCAL_RANK"] == "1"


@pytest.mark.parametrize(("part", "said"), [(300, "0.3"), (1000, None), (2000, None)])
def test_who_has_a_part_of_a_real_gpu_is_told_which(part, said):
    request = ResourceRequest(gpus_milli=part)
    run = structs.replace(order(1, devices=(3,)), request=request)
    assert around(run, real_gpus=True).variables.get("HYPERION_GPU_SHARE") == said


def test_declared_gpus_are_named_but_not_made_visible():
    found = around(order(1, devices=(3,))).variables
    assert "CUDA_VISIBLE_DEVICES" not in found
    assert "JAX_LOCAL_DEVICE_IDS" not in found
    assert found["HYPERION_DEVICES"] == "3"


def test_a_replica_without_gpus_sees_none_on_a_node_with_real_ones():
    found = around(order(gpus=0), real_gpus=True).variables
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["LOCAL_WORLD_SIZE"] == "2"


def test_jax_finds_all_it_reads():
    found = around(order(2)).variables
    assert found["JAX_COORDINATOR_ADDRESS"] == "10.0.0.1:7001"
    # What jax.distributed needs to take the rest from Slurm's names, all of them.
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID"):
        assert found[name]
    assert (found["SLURM_NTASKS"], found["SLURM_PROCID"]) == ("3", "2")


def test_tensorflow_finds_every_worker():
    config = json.loads(around(order(2)).variables["TF_CONFIG"])
    assert config["cluster"]["worker"] == ["10.0.0.1:7001", "10.0.0.1:7002", "10.0.0.2:7003"]
    assert config["task"] == {"type": "worker", "index": 2}


def test_mpi_gets_a_hostfile_and_no_slurm_names():
    found = around(order(framework=Framework.MPI))
    assert found.files["hostfile"] == "10.0.0.1 slots=2\n10.0.0.2 slots=1\n"
    assert found.files["machinefile"] == "10.0.0.1:2\n10.0.0.2:1\n"
    assert found.variables["OMPI_MCA_orte_default_hostfile"] == "/run/j/hostfile"
    assert not [name for name in found.variables if name.startswith("SLURM_")]
    others = around(order())
    assert not [name for name in others.variables if name.startswith(("OMPI_", "PRTE_", "HYDRA_"))]
    assert others.variables["HYPERION_HOSTFILE"] == "/run/j/hostfile"
    assert "SLURM_JOBID" not in others.variables


def test_the_interface_is_loopback_or_what_the_operator_says():
    local = tuple(Peer(rank=r, node=f"n{r}", address="127.0.0.1", port=7000 + r) for r in range(2))
    assert around(order(peers=local)).variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in around(order()).variables
    assert around(order(), interface="eth1").variables["NCCL_SOCKET_IFNAME"] == "eth1"


def test_skypilot_and_slurm_names():
    found = around(order(1)).variables
    assert found["SKYPILOT_NODE_IPS"].splitlines() == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
    assert (found["SKYPILOT_NODE_RANK"], found["SKYPILOT_NUM_NODES"]) == ("1", "3")
    assert (found["SKYPILOT_NUM_GPUS_PER_NODE"], found["SKYPILOT_TASK_ID"]) == ("1", "hyperion-j")
    assert (found["SLURM_NODELIST"], found["SLURM_NNODES"]) == ("10.0.0.1,10.0.0.2", "2")
    assert (found["SLURM_CPUS_PER_TASK"], found["SLURM_MEM_PER_NODE"]) == ("4", "2048")


def test_torchrun_in_a_replica_joins_the_others():
    found = around(order(2, framework=Framework.PYTORCH, devices=(0,)), real_gpus=True).variables
    pet = {name: value for name, value in found.items() if name.startswith("PET_")}
    assert pet == {
        "PET_NNODES": "3",
        "PET_NODE_RANK": "2",
        "PET_MASTER_ADDR": "10.0.0.1",
        "PET_MASTER_PORT": "7001",
        "PET_NPROC_PER_NODE": "1",
    }
    assert not [n for n in around(order()).variables if n.startswith("PET_")]


def test_a_gang_of_one_needs_no_peers():
    found = around(order(peers=()), address="::1")
    assert found.variables["MASTER_ADDR"] == "::1"
    assert found.variables["JAX_COORDINATOR_ADDRESS"] == "[::1]:7000"
    assert found.variables["WORLD_SIZE"] == "1"
    assert found.files == {"hostfile": "::1 slots=1\n"}


def test_the_job_wins_but_for_our_own_names():
    found = around(
        order(
            envs={"MASTER_PORT": "1", "HYPERION_RANK": "9", "HYPERION_OWN": "x"},
            secrets={"WORLD_SIZE": Secret("7")},
        )
    ).variables
    assert (found["MASTER_PORT"], found["WORLD_SIZE"]) == ("1", "7")
    assert (found["HYPERION_RANK"], found["HYPERION_OWN"]) == ("0", "x")


def test_our_own_names():
    found = around(
        order(
            1,
            priority=Priority.LATENCY_CRITICAL,
            checkpoint=Checkpoint("/ckpt"),
            data=(DataSource("s3://x", 1.5, "aws/us-east-1"),),
        )
    ).variables
    assert found["HYPERION_JOB_ID"] == "j"
    assert (found["HYPERION_JOB_NAME"], found["HYPERION_PRIORITY"]) == ("train", "LATENCY_CRITICAL")
    assert (found["HYPERION_CLUSTER"], found["HYPERION_REGION"]) == ("c", "aws/us-east-1")
    assert (found["HYPERION_ALLOCATION"], found["HYPERION_ATTEMPT"]) == ("j.1-1.1", "1")
    assert found["HYPERION_CHECKPOINT_DIR"] == "/ckpt"
    assert json.loads(found["HYPERION_DATA"]) == [
        {"uri": "s3://x", "size_gb": 1.5, "region": "aws/us-east-1"}
    ]


def test_the_largest_gang_can_still_be_launched():
    peers = tuple(
        Peer(rank=r, node=f"n{r}", address=f"10.0.{r >> 8}.{r & 255}", port=7000)
        for r in range(10_000)
    )
    found = around(order(9_999, peers=peers))
    assert "TF_CONFIG" not in found.variables
    assert len(json.loads(found.files["peers.json"])) == 10_000
    done = subprocess.run(
        ["/bin/sh", "-c", "echo $RANK"],
        env=found.variables | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == "9999\n"


def test_a_task_of_an_array_is_alone_and_knows_its_index():
    task = order(rank=7, peers=(), array=Array(50, first=1, step=2))
    found = around(task).variables
    assert (found["RANK"], found["WORLD_SIZE"], found["SLURM_PROCID"]) == ("0", "1", "0")
    assert (found["HYPERION_ARRAY_INDEX"], found["HYPERION_ARRAY_SIZE"]) == ("15", "50")
    names = ("JOB_ID", "TASK_ID", "TASK_COUNT", "TASK_MIN", "TASK_MAX", "TASK_STEP")
    assert [found[f"SLURM_ARRAY_{name}"] for name in names] == ["j", "15", "50", "1", "99", "2"]
    neighbours = tuple(structs.replace(peer, rank=peer.rank + 7) for peer in GANG)
    assert around(structs.replace(task, peers=neighbours)).variables["WORLD_SIZE"] == "1"
    assert not [name for name in around(order()).variables if "ARRAY" in name]


def test_replicas_with_roles_know_theirs():
    roles = (Role(name="worker", replicas=2), Role(name="ps", run="serve"))
    found = [around(order(rank, roles=roles, replicas=3)).variables for rank in range(3)]
    names = ("HYPERION_ROLE", "HYPERION_ROLE_RANK", "HYPERION_ROLE_REPLICAS")
    assert [[v[name] for name in names] for v in found] == [
        ["worker", "0", "2"],
        ["worker", "1", "2"],
        ["ps", "0", "1"],
    ]
    torch = ("ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "RANK", "WORLD_SIZE")
    assert [found[2][name] for name in torch] == ["ps", "0", "1", "2", "3"]
    assert json.loads(found[2]["TF_CONFIG"]) == {
        "cluster": {"worker": ["10.0.0.1:7001", "10.0.0.1:7002"], "ps": ["10.0.0.2:7003"]},
        "task": {"type": "ps", "index": 0},
    }
    peers = json.loads(around(order(0, roles=roles, replicas=3)).files["peers.json"])
    assert [peer["role"] for peer in peers] == ["worker", "worker", "ps"]


def test_an_elastic_replica_finds_the_width_of_now():
    found = around(order(0, replicas=8, elastic=Elastic(2))).variables
    assert (found["WORLD_SIZE"], found["HYPERION_REPLICAS"], found["SLURM_NTASKS"]) == ("3",) * 3
    assert (found["HYPERION_REPLICAS_MIN"], found["HYPERION_REPLICAS_MAX"]) == ("2", "8")


def test_the_queue_is_told():
    assert around(order()).variables["HYPERION_QUEUE"] == "default"
    found = around(order(queue="research")).variables
    assert (found["HYPERION_QUEUE"], found["SLURM_JOB_PARTITION"]) == ("research", "research")


def test_a_replica_runs_what_its_role_says(tmp_path):
    roles = (Role(name="a"), Role(name="b", run="serve"), Role(name="c", command=("x", "y")))
    runs = [order(rank, roles=roles, replicas=3) for rank in range(3)]
    assert arguments(str(tmp_path), runs[0])[0] == ["true"]
    assert arguments(str(tmp_path), runs[2])[0] == ["x", "y"]
    command, _ = arguments(str(tmp_path), runs[1])
    assert (tmp_path / "run.sh").read_text() == "serve"
    assert command[-1] == str(tmp_path / "run.sh")
