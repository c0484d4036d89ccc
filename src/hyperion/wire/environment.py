"""What a replica finds around itself: the names that frameworks and existing scripts read.

Who reads what, checked in the sources (jax 0.10.2, PyTorch 2.x, Open MPI 4 and 5):

* torchrun's own variables (``MASTER_ADDR`` … ``GROUP_RANK``) are what torch.distributed, DeepSpeed
  and Accelerate read. ``PET_*`` are torchrun's defaults: a bare ``torchrun train.py`` in each
  replica joins them.
* ``jax.distributed.initialize()`` (jax 0.10.2) reads ``JAX_COORDINATOR_ADDRESS`` and
  ``JAX_LOCAL_DEVICE_IDS``, but not the number of processes and the own index: these it takes from
  Slurm's names (``SLURM_JOB_ID``, ``SLURM_STEP_NODELIST``, ``SLURM_NTASKS``, ``SLURM_PROCID``,
  ``SLURM_LOCALID``), all of which must be there. ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` are
  for scripts that hand them over themselves.
* TensorFlow reads ``TF_CONFIG``.
* mpirun (Open MPI 4 and 5, MPICH, Intel MPI) takes ``SLURM_JOBID``, without the second underscore,
  for a real Slurm allocation and would call srun; so that older name is never set, and a job of
  framework ``mpi`` gets no Slurm names at all.
"""

import json
from collections.abc import Sequence

from msgspec import Struct

from hyperion.control.messages import Peer, Run
from hyperion.model.job import Framework, Job, Priority
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.model.resources import MILLI
from hyperion.ports import Surroundings

MAX_VARIABLE_BYTES = 96 << 10
"""Of one variable. Linux takes 128 KiB (MAX_ARG_STRLEN); a longer list is only in the files."""


class Seat(Struct, frozen=True, kw_only=True):
    """Where a replica sits in its gang."""

    peers: tuple[Peer, ...]
    rank: int
    local_rank: int
    local_size: int
    node_rank: int
    nodes: int
    neighbour_rank: int
    """Its index among the replicas that are really on its node."""
    gpus: int
    """GPUs of this replica, a fraction counting as one."""
    isolated: bool
    """It sees its own real GPUs and no others."""


def surroundings(
    order: Run,
    directory: str,
    port: int,
    *,
    cluster: str = "",
    region: str = "",
    node: str = "",
    address: str = "127.0.0.1",
    real_gpus: bool = False,
    interface: str = "",
) -> Surroundings:
    """Variables and files of one replica.

    ``directory`` is the replica's own, absolute; ``port`` the free one found for it; ``address``
    where its node can be reached. ``real_gpus`` says that the node's GPUs exist: declared ones are
    only named, never made visible. ``interface`` is the network interface between the nodes, where
    somebody has said; on loopback it is found out.

    A replica that sees only its own real GPUs counts as a node of its own (local rank 0), because
    scripts use ``LOCAL_RANK`` as the index of a visible GPU. A task of an array is alone: rank 0
    of 1, with its index beside.
    """
    rank = 0 if order.job.array is not None else order.rank
    own = Peer(rank=rank, node=node, address=address, port=port, gpus=_gpus(order))
    seat = _seat(order, own, real_gpus)
    variables: dict[str, str] = {}
    variables |= _torch(order.job, seat)
    variables |= _jax(seat)
    variables |= _tensorflow(order.job, seat)
    variables |= _interfaces(seat.peers, interface)
    variables |= _skypilot(order, seat)
    variables |= _mpi(directory) if order.job.framework is Framework.MPI else _slurm(order, seat)
    variables |= _devices(order, real_gpus)
    variables = {name: v for name, v in variables.items() if len(v) <= MAX_VARIABLE_BYTES}
    variables |= order.job.envs
    variables |= {name: secret.value for name, secret in order.job.secrets.items()}
    variables |= _hyperion(order, seat, directory)
    variables |= {"HYPERION_CLUSTER": cluster, "HYPERION_REGION": region, "HYPERION_NODE": node}
    return Surroundings(variables=variables, files=_files(order.job, seat))


def _gpus(order: Run) -> int:
    return -(-order.request.gpus_milli // MILLI)


def _seat(order: Run, own: Peer, real_gpus: bool) -> Seat:
    peers = tuple(sorted(order.peers, key=lambda peer: peer.rank)) or (own,)
    if order.job.array is not None:
        peers = (own,)
    here = next((peer.node for peer in peers if peer.rank == own.rank), own.node)
    neighbours = [peer.rank for peer in peers if peer.node == here]
    nodes = list(dict.fromkeys(peer.node for peer in peers))
    neighbour_rank = neighbours.index(own.rank) if own.rank in neighbours else 0
    isolated = real_gpus and bool(order.devices)
    return Seat(
        peers=peers,
        rank=own.rank,
        local_rank=0 if isolated else neighbour_rank,
        local_size=1 if isolated else max(1, len(neighbours)),
        node_rank=own.rank if isolated else nodes.index(here),
        nodes=len(peers) if isolated else len(nodes),
        neighbour_rank=neighbour_rank,
        gpus=own.gpus,
        isolated=isolated,
    )


def _torch(job: Job, seat: Seat) -> dict[str, str]:
    first = seat.peers[0]
    role, role_rank, role_size = _role(job, seat)
    out = {
        "MASTER_ADDR": first.address,
        "MASTER_PORT": str(first.port),
        "WORLD_SIZE": str(len(seat.peers)),
        "RANK": str(seat.rank),
        "LOCAL_RANK": str(seat.local_rank),
        "LOCAL_WORLD_SIZE": str(seat.local_size),
        "NODE_RANK": str(seat.node_rank),
        "GROUP_RANK": str(seat.node_rank),
        "GROUP_WORLD_SIZE": str(seat.nodes),
        "ROLE_RANK": str(role_rank),
        "ROLE_WORLD_SIZE": str(role_size),
    }
    if role:
        out["ROLE_NAME"] = role
    if job.framework is Framework.PYTORCH and len(seat.peers) > 1:
        out |= {
            "PET_NNODES": str(len(seat.peers)),
            "PET_NODE_RANK": str(seat.rank),
            "PET_MASTER_ADDR": first.address,
            "PET_MASTER_PORT": str(first.port),
            "PET_NPROC_PER_NODE": str(max(1, seat.gpus) if seat.isolated else 1),
        }
    return out


def _jax(seat: Seat) -> dict[str, str]:
    coordinator = _endpoint(seat.peers[0])
    out = {
        "JAX_COORDINATOR_ADDRESS": coordinator,
        "JAX_NUM_PROCESSES": str(len(seat.peers)),
        "JAX_PROCESS_ID": str(seat.rank),
        "COORDINATOR_ADDRESS": coordinator,
    }
    if seat.isolated:
        # Else jax would take only the device of its local rank.
        out["JAX_LOCAL_DEVICE_IDS"] = ",".join(str(index) for index in range(seat.gpus))
    return out


def _tensorflow(job: Job, seat: Seat) -> dict[str, str]:
    cluster: dict[str, list[str]] = {}
    for peer in seat.peers:
        role = job.role_of(peer.rank)
        cluster.setdefault(role.name if role else "worker", []).append(_endpoint(peer))
    name, rank, _ = _role(job, seat)
    task = {"type": name or "worker", "index": rank}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def _role(job: Job, seat: Seat) -> tuple[str, int, int]:
    """(name of the role, rank in it, replicas of it); without roles all are of one, nameless."""
    first = 0
    for role in job.roles:
        if seat.rank < first + role.replicas:
            return role.name, seat.rank - first, role.replicas
        first += role.replicas
    return "", seat.rank, len(seat.peers)


def _interfaces(peers: Sequence[Peer], interface: str) -> dict[str, str]:
    if not interface and all(_is_loopback(peer.address) for peer in peers):
        interface = "lo"
    if not interface:
        return {}
    return {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "localhost")


def _skypilot(order: Run, seat: Seat) -> dict[str, str]:
    # SkyPilot's node is our replica: its spec calls them num_nodes.
    return {
        "SKYPILOT_NODE_RANK": str(seat.rank),
        "SKYPILOT_NODE_IPS": "\n".join(peer.address for peer in seat.peers),
        "SKYPILOT_NUM_NODES": str(len(seat.peers)),
        "SKYPILOT_NUM_GPUS_PER_NODE": str(seat.gpus),
        "SKYPILOT_TASK_ID": f"hyperion-{order.job.id}",
    }


def _mpi(directory: str) -> dict[str, str]:
    hostfile = f"{directory}/hostfile"
    return {
        "OMPI_MCA_orte_default_hostfile": hostfile,
        "PRTE_MCA_prte_default_hostfile": hostfile,
        "HYDRA_HOST_FILE": f"{directory}/machinefile",
    }


def _slurm(order: Run, seat: Seat) -> dict[str, str]:
    nodes = {peer.node: peer.address for peer in seat.peers}
    hosts = [peer.address for peer in seat.peers] if seat.isolated else list(nodes.values())
    nodelist, count = ",".join(hosts), str(seat.nodes)
    out = {
        "SLURM_JOB_ID": order.job.id,
        "SLURM_JOB_NAME": order.job.name or order.job.id,
        "SLURM_NTASKS": str(len(seat.peers)),
        "SLURM_NPROCS": str(len(seat.peers)),
        "SLURM_NTASKS_PER_NODE": str(seat.local_size),
        "SLURM_PROCID": str(seat.rank),
        "SLURM_LOCALID": str(seat.local_rank),
        "SLURM_NODEID": str(seat.node_rank),
        "SLURM_NNODES": count,
        "SLURM_JOB_NUM_NODES": count,
        "SLURM_STEP_NUM_NODES": count,
        "SLURM_NODELIST": nodelist,
        "SLURM_JOB_NODELIST": nodelist,
        "SLURM_STEP_NODELIST": nodelist,
        "SLURM_CPUS_PER_TASK": str(max(1, order.request.cpus_milli // MILLI)),
        "SLURM_RESTART_COUNT": str(max(0, order.attempt - 1)),
    }
    if order.request.memory_mib:
        out["SLURM_MEM_PER_NODE"] = str(order.request.memory_mib)
    if seat.gpus:
        out["SLURM_GPUS"] = str(sum(peer.gpus for peer in seat.peers))
        out["SLURM_GPUS_ON_NODE"] = str(seat.gpus * seat.local_size)
    if order.job.queue:
        out["SLURM_JOB_PARTITION"] = order.job.queue
    array = order.job.array
    if array is not None:
        out |= {
            "SLURM_ARRAY_JOB_ID": order.job.id,
            "SLURM_ARRAY_TASK_ID": str(array.index(order.rank)),
            "SLURM_ARRAY_TASK_COUNT": str(array.size),
            "SLURM_ARRAY_TASK_MIN": str(array.first),
            "SLURM_ARRAY_TASK_MAX": str(array.index(array.size - 1)),
            "SLURM_ARRAY_TASK_STEP": str(array.step),
        }
    return out


def _devices(order: Run, real_gpus: bool) -> dict[str, str]:
    if not real_gpus:
        return {}
    # Without an order of devices CUDA counts the fastest first; the driver's index is by PCI bus.
    # A replica that asked for no GPU on such a node sees none.
    visible = ",".join(str(index) for index in order.devices)
    seen = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    part = order.request.gpus_milli
    return seen | ({"HYPERION_GPU_SHARE": f"{part / MILLI:g}"} if 0 < part < MILLI else {})


def _hyperion(order: Run, seat: Seat, directory: str) -> dict[str, str]:
    job = order.job
    data = [
        {"uri": source.uri, "size_gb": source.size_gib, "region": source.region}
        for source in job.data
    ]
    out = {
        "HYPERION_JOB_ID": job.id,
        "HYPERION_JOB_NAME": job.name,
        "HYPERION_RANK": str(seat.rank),
        "HYPERION_REPLICAS": str(len(seat.peers)),
        "HYPERION_LOCAL_RANK": str(seat.neighbour_rank),
        "HYPERION_ALLOCATION": order.allocation,
        "HYPERION_ATTEMPT": str(order.attempt),
        "HYPERION_GENERATION": str(order.generation),
        "HYPERION_FRAMEWORK": job.framework.value,
        "HYPERION_PRIORITY": Priority(job.priority).name,
        "HYPERION_DEVICES": ",".join(str(index) for index in order.devices),
        "HYPERION_CHECKPOINT_DIR": job.checkpoint.dir,
        "HYPERION_DIRECTORY": directory,
        "HYPERION_HOSTFILE": f"{directory}/hostfile",
    }
    if order.resume_from:
        out["HYPERION_RESUME_FROM"] = order.resume_from
    if job.checkpoint.every_s:
        out["HYPERION_CHECKPOINT_EVERY_S"] = f"{job.checkpoint.every_s:g}"
    if job.checkpoint.signal:
        out["HYPERION_NOTICE_SIGNALS"] = f"TERM,{job.checkpoint.signal.removeprefix('B:')}"
    if len(seat.peers) > 1:
        out["HYPERION_PEERS"] = f"{directory}/peers.json"
    if job.reads or job.writes:
        out["HYPERION_READS"] = " ".join(read.dataset for read in job.reads)
        out["HYPERION_WRITES"] = " ".join(write.dataset for write in job.writes)
    out |= _form(order, seat)
    text = json.dumps(data)
    return out | ({"HYPERION_DATA": text} if len(text) <= MAX_VARIABLE_BYTES else {})


def _form(order: Run, seat: Seat) -> dict[str, str]:
    """What only jobs with roles, elastic ones, and arrays have."""
    job = order.job
    out: dict[str, str] = {"HYPERION_QUEUE": job.queue or DEFAULT_QUEUE}
    if job.roles:
        name, rank, size = _role(job, seat)
        out |= {
            "HYPERION_ROLE": name,
            "HYPERION_ROLE_RANK": str(rank),
            "HYPERION_ROLE_REPLICAS": str(size),
        }
    if job.elastic is not None:
        out |= {
            "HYPERION_REPLICAS_MIN": str(job.elastic.min),
            "HYPERION_REPLICAS_MAX": str(job.replicas),
        }
    if job.array is not None:
        out |= {
            "HYPERION_ARRAY_INDEX": str(job.array.index(order.rank)),
            "HYPERION_ARRAY_SIZE": str(job.array.size),
        }
    return out


def _files(job: Job, seat: Seat) -> dict[str, str]:
    slots: dict[str, int] = {}
    for peer in seat.peers:
        slots[peer.address] = slots.get(peer.address, 0) + 1
    files = {"hostfile": "".join(f"{host} slots={count}\n" for host, count in slots.items())}
    if job.framework is Framework.MPI:
        files["machinefile"] = "".join(f"{host}:{count}\n" for host, count in slots.items())
    if len(seat.peers) == 1:
        return files
    peers = [_shown(job, peer) for peer in seat.peers]
    return files | {"peers.json": json.dumps(peers) + "\n"}


def _shown(job: Job, peer: Peer) -> dict[str, str | int]:
    role = job.role_of(peer.rank)
    out: dict[str, str | int] = {
        "rank": peer.rank,
        "node": peer.node,
        "address": peer.address,
        "port": peer.port,
        "gpus": peer.gpus,
    }
    return out | {"role": role.name} if role else out


def _endpoint(peer: Peer) -> str:
    host = f"[{peer.address}]" if ":" in peer.address else peer.address
    return f"{host}:{peer.port}"
