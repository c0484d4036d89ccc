"""What ``hyperion up`` starts: worlds as plain tables, and the daemons that make one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from hyperion.daemon.settings import (
    AgentSettings,
    FederationSettings,
    SchedulerSettings,
    UpSettings,
    parse_declare,
)

AnyDaemonSettings: TypeAlias = FederationSettings | SchedulerSettings | AgentSettings
WORLD_FILE = "world.json"
CREDENTIALS = "credentials"
_MAX_BYTES = 1 << 20


class ClusterPlan(Struct, frozen=True, kw_only=True):
    """A cluster with one node, whose size may be declared."""

    name: str
    region: str
    declare: str = ""
    instance_type: str = ""
    market: str = "owned"
    usd_per_hour: float = 0.0
    """0: the catalogue's price of the instance type."""


WORLDS: Mapping[str, tuple[ClusterPlan, ...]] = {
    "one": (ClusterPlan(name="local", region="edge/home"),),
    "three-regions": (
        ClusterPlan(
            name="aws-us-east-1",
            region="aws/us-east-1",
            declare="accelerators=A100:8,cpus=96,memory=1152",
            instance_type="p4d.24xlarge",
            market="on-demand",
        ),
        ClusterPlan(
            name="gcp-europe-west1",
            region="gcp/europe-west1",
            declare="accelerators=L4:8,cpus=96,memory=384",
            instance_type="g2-standard-96",
            market="spot",
        ),
        ClusterPlan(
            name="edge-home",
            region="edge/home",
            declare="accelerators=RTX4090:1,cpus=16,memory=64",
            instance_type="workstation",
            usd_per_hour=0.12,  # power and wear of one's own machine
        ),
    ),
}


class DaemonPlan(Struct, frozen=True, kw_only=True):
    """One process to start: daemons of a later tier wait until the earlier ones serve."""

    name: str
    kind: str
    """``federation``, ``scheduler`` or ``agent``: which main to call."""
    tier: int
    settings: AnyDaemonSettings
    identity: str
    """The name in its certificate, under the role of its kind."""


def plan(up: UpSettings, reserve: Callable[[str], str]) -> tuple[DaemonPlan, ...]:
    """The daemons of the world that ``up`` names, in the order of starting.

    ``reserve`` turns an address with port 0 into one that stays free for us.
    """
    root = Path(up.state_dir)
    federation = FederationSettings(
        state_dir=str(root / "federation"),
        credentials=str(root / "federation" / CREDENTIALS),
        authority=str(root / "federation" / "authority"),
        listen=reserve(up.listen),
        rest_listen=reserve(up.rest_listen) if up.rest_listen else "",
        rest_socket=str(root / "federation.sock"),
        policy=up.policy,
        trust_domain=up.trust_domain,
        log_level=up.log_level,
        market_feeds=up.market_feeds,
        market_urls=up.market_urls,
        market_key_files=up.market_key_files,
        market_intervals=up.market_intervals,
        market_regions=up.market_regions,
    )
    daemons = [
        DaemonPlan(
            name="federation", kind="federation", tier=0, settings=federation, identity="local"
        )
    ]
    for cluster in WORLDS[up.world]:
        daemons += _cluster(root, up, cluster, federation.listen, reserve("127.0.0.1:0"))
    return tuple(sorted(daemons, key=lambda daemon: daemon.tier))


def _cluster(
    root: Path, up: UpSettings, cluster: ClusterPlan, federation: str, listen: str
) -> tuple[DaemonPlan, DaemonPlan]:
    node = "node" if up.world == "one" else f"{cluster.name}-node"
    scheduler = SchedulerSettings(
        state_dir=str(root / f"scheduler-{cluster.name}"),
        credentials=str(root / f"scheduler-{cluster.name}" / CREDENTIALS),
        cluster=cluster.name,
        region=cluster.region,
        listen=listen,
        federation=dialled(federation),
        allow_declared=True,
        trust_domain=up.trust_domain,
        log_level=up.log_level,
    )
    agent = AgentSettings(
        state_dir=str(root / f"agent-{cluster.name}"),
        credentials=str(root / f"agent-{cluster.name}" / CREDENTIALS),
        node=node,
        cluster=cluster.name,
        region=cluster.region,
        scheduler=listen,
        advertise="127.0.0.1",
        declare=up.declare if up.world == "one" else parse_declare(cluster.declare),
        instance_type=cluster.instance_type,
        market=cluster.market,
        usd_per_hour=cluster.usd_per_hour,
        stop_replicas=True,
        stop_grace_ms=int(min(3000.0, up.stop_timeout_s * 250)),
        trust_domain=up.trust_domain,
        log_level=up.log_level,
    )
    return (
        DaemonPlan(
            name=f"scheduler-{cluster.name}",
            kind="scheduler",
            tier=1,
            settings=scheduler,
            identity=cluster.name,
        ),
        DaemonPlan(
            name=f"agent-{cluster.name}",
            kind="agent",
            tier=2,
            settings=agent,
            identity=f"{cluster.name}/{node}",
        ),
    )


def dialled(address: str) -> str:
    """Where peers on this machine find what listens on ``address``."""
    host, _, port = address.rpartition(":")
    # S104 warns of listening everywhere; here such an address is only recognized
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104


# -- what is up, for ``down`` and for people ------------------------------------------------------


class ProcessMark(Struct, frozen=True):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: int
    """Clock ticks after boot, as in /proc/PID/stat."""
    boot: str
    """The kernel's id of that boot."""


class RunningDaemon(Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    process: ProcessMark | None
    """None while it is between two lives."""
    address: str = ""
    rest: str = ""
    restarts: int = 0
    log: str = ""


class World(Struct, frozen=True, kw_only=True):
    """``<state_dir>/world.json``."""

    world: str
    state_dir: str
    supervisor: ProcessMark
    ready: bool
    address: str
    """Of the federation's gRPC."""
    rest: str = ""
    """URL of REST."""
    daemons: tuple[RunningDaemon, ...] = ()


def write_world(world: World) -> None:
    path = Path(world.state_dir) / WORLD_FILE
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(world), indent=2) + b"\n")
    draft.replace(path)


def read_world(state_dir: str | Path) -> World | None:
    """What is, or was last, up there; None when nothing says so."""
    try:
        with (Path(state_dir) / WORLD_FILE).open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=World)
    except (OSError, msgspec.DecodeError):
        return None
