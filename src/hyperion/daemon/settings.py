"""Every setting of every daemon, declared once: flags, environment, file, docs and types follow."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Struct

from hyperion.daemon.settings_kinds import (
    Declaration,
    parse_countables,
    parse_declare,
    parse_labels,
    parse_taints,
)
from hyperion.daemon.settings_sources import Setting, SettingError, gather
from hyperion.model.checks import POLICIES
from hyperion.model.node import Taint

__all__ = [
    "SETTINGS",
    "AgentSettings",
    "Declaration",
    "FederationSettings",
    "SchedulerSettings",
    "Setting",
    "SettingError",
    "UpSettings",
    "home",
    "load",
    "parse_countables",
    "parse_declare",
    "parse_labels",
    "parse_taints",
]

DAY_MS = 24 * 3600 * 1000


class _Is(Struct, frozen=True):
    """What an annotation says of a setting, besides its type and default."""

    kind: str
    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    default_text: str = ""


def _ms(help_: str, minimum: float = 1, maximum: float = 365 * DAY_MS) -> _Is:
    return _Is("integer", help_, "ms", minimum=minimum, maximum=maximum)


def _count(help_: str, unit: str = "", minimum: float = 1, maximum: float = 1e9) -> _Is:
    return _Is("integer", help_, unit, minimum=minimum, maximum=maximum)


_POLICIES = f": {', '.join(POLICIES)}, or one that an installed package brings"
_BUDGET = _Is(
    "number",
    "a policy of an installed package gets so long in a round, then `balanced` ranks the rest",
    "ms",
    minimum=1.0,
    maximum=60_000.0,
)


_Feeds = Annotated[
    tuple[str, ...], _Is("list", "sources of live quotes to ask, such as aws-spot,uk-carbon")
]
_FeedUrls = Annotated[
    dict[str, str], _Is("pairs", "other base URLs of feeds, as FEED=URL,…; for rehearsals")
]
_FeedKeys = Annotated[
    dict[str, str],
    _Is("pairs", "files with feeds' keys, as FEED=PATH,…; only you may read them"),
]
_FeedIntervals = Annotated[
    dict[str, str], _Is("pairs", "seconds between polls, as FEED=SECONDS,… or all=SECONDS")
]
_FeedRegions = Annotated[
    tuple[str, ...], _Is("list", "regions, or beginnings of them, to ask for; empty for all")
]


class DaemonSettings(Struct, frozen=True, kw_only=True):
    """What all three daemons have in common."""

    state_dir: Annotated[
        str,
        _Is(
            "path",
            "directory of this daemon's store and files; made with mode 0700",
            default_text="$HYPERION_HOME/DAEMON, or ~/.hyperion/DAEMON",
        ),
    ] = ""
    credentials: Annotated[
        str,
        _Is(
            "path",
            "directory with key.pem, cert.pem and ca.pem, as `hyperion join` makes it",
            default_text="STATE_DIR/credentials",
        ),
    ] = ""
    trust_domain: Annotated[
        str, _Is("name", "the part of every peer's identity that must be the same")
    ] = "hyperion.local"
    log_level: Annotated[
        str, _Is("text", "the least that is logged", choices=("debug", "info", "warning", "error"))
    ] = "info"
    log_format: Annotated[
        str,
        _Is("text", "auto is text on a terminal, else JSON", choices=("auto", "text", "json")),
    ] = "auto"
    tick_ms: Annotated[int, _ms("how often the machine looks at its clock", 10, 10_000)] = 200
    resend_ms: Annotated[int, _ms("an order that nobody answered is sent again", 100)] = 2000
    heartbeat_ms: Annotated[int, _ms("between heartbeats to the peer above", 50, 60_000)] = 1000
    inbox_limit: Annotated[
        int, _count("events waiting above which callers are turned away", "events", 100, 1e7)
    ] = 20_000
    batch: Annotated[int, _count("events kept by one commit at most", "events", 1, 1e5)] = 512
    journal_records: Annotated[int, _count("the journal keeps at most", "records", 100)] = 100_000
    journal_age_ms: Annotated[int, _ms("the journal keeps records for", 1000)] = 30 * DAY_MS


class FederationSettings(DaemonSettings, frozen=True, kw_only=True):
    """``hyperion federation``."""

    listen: Annotated[str, _Is("address", "HOST:PORT of gRPC; port 0 takes any free one")] = (
        "127.0.0.1:7070"
    )
    rest_listen: Annotated[str, _Is("address", "HOST:PORT of REST; empty for none")] = (
        "127.0.0.1:7071"
    )
    rest_socket: Annotated[
        str,
        _Is(
            "path",
            "unix socket of REST, for this user's commands on this machine",
            default_text="$HYPERION_HOME/federation.sock; STATE_DIR/federation.sock if that is set",
        ),
    ] = ""
    rest_token_file: Annotated[
        str, _Is("path", "file with bearer tokens, one a line; needed unless REST is on loopback")
    ] = ""
    advertise: Annotated[
        str, _Is("address", "HOST:PORT that peers are told; empty for where it listens")
    ] = ""
    authority: Annotated[
        str,
        _Is(
            "path",
            "directory of the certificate authority, for join tokens",
            default_text="STATE_DIR/authority",
        ),
    ] = ""
    policy: Annotated[
        str, _Is("policy", "ranks places for jobs that name no policy" + _POLICIES)
    ] = "balanced"
    policy_budget_ms: Annotated[float, _BUDGET] = 100.0
    prices: Annotated[
        str, _Is("path", "file that overlays the catalogue's prices; empty for none")
    ] = ""
    home: Annotated[
        str,
        _Is(
            "region",
            "CLOUD/REGION whose on-demand prices bills are compared with",
            default_text="where a job's data lie, else the first cluster's region, with a price",
        ),
    ] = ""
    market_feeds: _Feeds = ()
    market_urls: _FeedUrls = {}
    market_key_files: _FeedKeys = {}
    market_intervals: _FeedIntervals = {}
    market_regions: _FeedRegions = ()
    dataset_hook: Annotated[
        tuple[str, ...],
        _Is(
            "list",
            "command, with its arguments, that brings and drops copies of datasets; with it the"
            " advisor acts; empty: it only advises",
        ),
    ] = ()
    dataset_hook_s: Annotated[
        float, _Is("number", "how long one run of it may take", "s", minimum=0.1, maximum=864_000)
    ] = 3600.0
    round_ms: Annotated[
        float, _Is("number", "least time between rounds", "ms", minimum=0.0, maximum=60_000)
    ] = 2.0
    cluster_lease_ms: Annotated[
        int, _ms("a cluster that is cut off runs its jobs this long", 1000)
    ] = 300_000
    node_lease_ms: Annotated[
        int, _ms("what the schedulers grant their nodes; must be the same there", 500)
    ] = 30_000
    queue_limit: Annotated[int, _count("jobs that may wait", "jobs")] = 1_000_000
    retention_ms: Annotated[int, _ms("ended jobs are kept for")] = 7 * DAY_MS
    ended_limit: Annotated[int, _count("ended jobs are kept, at most", "jobs")] = 100_000
    bill_limit: Annotated[int, _count("lines of bills kept before they become months", "lines")] = (
        100_000
    )
    bundle_limit_mib: Annotated[int, _count("size of an uploaded workdir", "MiB")] = 512


class SchedulerSettings(DaemonSettings, frozen=True, kw_only=True):
    """``hyperion scheduler``."""

    cluster: Annotated[str, _Is("name", "the cluster's name; one scheduler each")] = "local"
    region: Annotated[str, _Is("region", "CLOUD/REGION the cluster is in")] = "edge/home"
    labels: Annotated[dict[str, str], _Is("pairs", "of the cluster, as NAME=VALUE,…")] = {}
    listen: Annotated[str, _Is("address", "HOST:PORT of gRPC; port 0 takes any free one")] = (
        "127.0.0.1:7080"
    )
    advertise: Annotated[
        str, _Is("address", "HOST:PORT that peers are told; empty for where it listens")
    ] = ""
    federation: Annotated[str, _Is("address", "HOST:PORT of the federation; empty for none")] = (
        "127.0.0.1:7070"
    )
    queues: Annotated[
        str,
        _Is("path", "file with the tree of queues, applied at each start; empty keeps what is"),
    ] = ""
    policy: Annotated[str, _Is("policy", "ranks nodes and who waits before whom" + _POLICIES)] = (
        "pack"
    )
    policy_budget_ms: Annotated[float, _BUDGET] = 100.0
    allow_declared: Annotated[
        bool, _Is("switch", "take in nodes with declared resources; not in production")
    ] = False
    round_ms: Annotated[
        float, _Is("number", "least time between rounds", "ms", minimum=0.0, maximum=60_000)
    ] = 2.0
    node_lease_ms: Annotated[
        int, _ms("a node that is cut off runs its replicas this long", 500)
    ] = 30_000
    load_ms: Annotated[int, _ms("a changed load is told at most this often", 10)] = 200
    report_ms: Annotated[int, _ms("states that pass quicker are not told", 0)] = 100
    retention_ms: Annotated[int, _ms("ended jobs of the cluster's own API are kept for")] = (
        3_600_000
    )


class AgentSettings(DaemonSettings, frozen=True, kw_only=True):
    """``hyperion agent``, also called ``hyperiond``."""

    node: Annotated[str, _Is("name", "this machine's name", default_text="the host's name")] = ""
    cluster: Annotated[str, _Is("name", "the cluster it belongs to")] = "local"
    region: Annotated[str, _Is("region", "CLOUD/REGION it is in; told to its replicas")] = (
        "edge/home"
    )
    interface: Annotated[
        str, _Is("text", "network interface between nodes, for NCCL and Gloo; empty to find out")
    ] = ""
    scheduler: Annotated[str, _Is("address", "HOST:PORT of the scheduler")] = "127.0.0.1:7080"
    advertise: Annotated[
        str,
        _Is(
            "text",
            "host at which other nodes reach this one",
            default_text="the address used towards the scheduler",
        ),
    ] = ""
    labels: Annotated[dict[str, str], _Is("pairs", "of the node, as NAME=VALUE,…")] = {}
    taints: Annotated[
        tuple[Taint, ...], _Is("taints", "KEY or KEY=VALUE,…; only jobs that tolerate them come")
    ] = ()
    declare: Annotated[
        Declaration,
        _Is(
            "resources",
            "say to have what is not there, such as accelerators=A100:8,cpus=64,memory=512",
            "GiB for memory and disk",
        ),
    ] = Declaration()
    custom: Annotated[
        tuple[tuple[str, int], ...],
        _Is("countables", "countables of your own that the node has, such as fpga=2,licence-x=10"),
    ] = ()
    instance_type: Annotated[str, _Is("text", "for the price, such as p4d.24xlarge")] = ""
    market: Annotated[
        str, _Is("text", "how the machine is paid for", choices=("owned", "on-demand", "spot"))
    ] = "owned"
    usd_per_hour: Annotated[
        float,
        _Is("number", "price of the machine; 0 asks the catalogue", "USD/h", (), 0.0, 1e6),
    ] = 0.0
    stop_replicas: Annotated[
        bool, _Is("switch", "SIGTERM stops the replicas too; else they run on and are re-adopted")
    ] = False
    stop_grace_ms: Annotated[int, _ms("between SIGTERM and SIGKILL then", 0, 600_000)] = 5000
    refresh_ms: Annotated[int, _ms("living replicas are reported again", 100)] = 30_000
    telemetry_ms: Annotated[int, _ms("between measurements of the machine", 100)] = 1000
    log_limit_mib: Annotated[int, _count("a replica's log file is rotated at", "MiB")] = 64
    log_files: Annotated[int, _count("log files of a replica kept", "files", 2, 100)] = 3
    replica_retention_ms: Annotated[int, _ms("logs of ended replicas are kept for")] = 7 * DAY_MS
    cgroups: Annotated[bool, _Is("switch", "limit replicas by cgroups where possible")] = True


class UpSettings(Struct, frozen=True, kw_only=True):
    """``hyperion up``."""

    state_dir: Annotated[
        str,
        _Is("path", "directory of the whole world", default_text="$HYPERION_HOME, or ~/.hyperion"),
    ] = ""
    world: Annotated[str, _Is("text", "what to start", choices=("one", "three-regions"))] = "one"
    listen: Annotated[str, _Is("address", "HOST:PORT of the federation's gRPC; 0 is any")] = (
        "127.0.0.1:0"
    )
    rest_listen: Annotated[str, _Is("address", "HOST:PORT of REST; empty for none")] = "127.0.0.1:0"
    trust_domain: Annotated[str, _Is("name", "of the local certificate authority")] = (
        "hyperion.local"
    )
    declare: Annotated[
        Declaration,
        _Is("resources", "for the one node of world `one`", "GiB for memory and disk"),
    ] = Declaration()
    policy: Annotated[
        str, _Is("policy", "ranks places for jobs that name no policy" + _POLICIES)
    ] = "balanced"
    market_feeds: _Feeds = ()
    market_urls: _FeedUrls = {}
    market_key_files: _FeedKeys = {}
    market_intervals: _FeedIntervals = {}
    market_regions: _FeedRegions = ()
    detach: Annotated[bool, _Is("switch", "return once it is ready; `hyperion down` ends it")] = (
        False
    )
    ready_timeout_s: Annotated[
        float, _Is("number", "give up when not ready by then", "s", minimum=1, maximum=3600)
    ] = 30.0
    stop_timeout_s: Annotated[
        float, _Is("number", "each daemon's time to end before SIGKILL", "s", (), 0.1, 600)
    ] = 15.0
    restarts_per_minute: Annotated[
        int, _count("a daemon is restarted quickly; beyond, every 10 s", "restarts", 1, 10_000)
    ] = 30
    log_limit_mib: Annotated[int, _count("a daemon's log is rotated at", "MiB", 1, 1e5)] = 16
    log_level: Annotated[
        str, _Is("text", "of the daemons", choices=("debug", "info", "warning", "error"))
    ] = "info"


_STRUCTS: dict[str, type[Struct]] = {
    "federation": FederationSettings,
    "scheduler": SchedulerSettings,
    "agent": AgentSettings,
    "up": UpSettings,
}


def _table(struct: type[Struct]) -> tuple[Setting, ...]:
    """The settings that a struct declares, its own before the shared ones."""
    notes: dict[str, _Is] = {}
    for owner in struct.__mro__:
        for name, annotation in inspect.get_annotations(owner).items():
            notes.setdefault(name, get_args(annotation)[1])
    defaults = {field.name: field for field in msgspec.structs.fields(struct)}
    return tuple(
        Setting(name=name, default=_default_of(defaults[name]), **msgspec.structs.asdict(note))
        for name, note in notes.items()
    )


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    factory = field.default_factory
    return factory() if callable(factory) else field.default


SETTINGS: Mapping[str, tuple[Setting, ...]] = {name: _table(s) for name, s in _STRUCTS.items()}
"""Daemon → its settings, in the order of ``--help``."""

AnySettings = TypeVar(
    "AnySettings", FederationSettings, SchedulerSettings, AgentSettings, UpSettings
)


def home(environment: Mapping[str, str]) -> Path:
    """Where everything of this user lies: ``$HYPERION_HOME``, else ``~/.hyperion``."""
    return Path(environment.get("HYPERION_HOME") or "~/.hyperion").expanduser().absolute()


def load(
    struct: type[AnySettings],
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> AnySettings:
    """Settings from default < file < environment < flags (None: not given).

    ``file`` defaults to ``$HYPERION_CONFIG``. Raises ``SettingError``, which names the source.
    """
    daemon = next(name for name, known in _STRUCTS.items() if known is struct)
    if file is None and environment.get("HYPERION_CONFIG"):
        file = Path(environment["HYPERION_CONFIG"]).expanduser()
    values = gather(daemon, SETTINGS[daemon], file, environment, flags or {}, SETTINGS)
    return struct(**_with_places(struct, daemon, values, home(environment)))


def _with_places(
    struct: type[Struct], daemon: str, values: dict[str, Any], root: Path
) -> dict[str, Any]:
    """Directories that nobody named follow from those that somebody did."""
    near = Path(values.get("state_dir") or root)
    state_dir = values.get("state_dir") or str(root if daemon == "up" else root / daemon)
    places = {
        "state_dir": state_dir,
        "credentials": str(Path(state_dir) / "credentials"),
        "authority": str(Path(state_dir) / "authority"),
        "rest_socket": str(near / "federation.sock"),
    }
    known = {name: place for name, place in places.items() if name in struct.__struct_fields__}
    return known | {
        name: value for name, value in values.items() if value != "" or name not in known
    }


def document() -> str:
    """The text of docs/settings.md."""
    parts = [_PREFACE]
    for daemon in _STRUCTS:
        parts.append(f"\n## hyperion {daemon}\n\n")
        parts.append("| setting | default | unit | meaning |\n|---|---|---|---|\n")
        for setting in SETTINGS[daemon]:
            choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
            default = f"`{setting.shown_default}`" if setting.shown_default else ""
            row = (f"`{setting.name}`", default, setting.unit, setting.help + choices)
            parts.append("| " + " | ".join(row) + " |\n")
    return "".join(parts)


_PREFACE = """# Settings

<!-- Made by `python -m hyperion.daemon.settings > docs/settings.md`; change the code, not this. -->

A setting `heartbeat_ms` of the agent can be given in four places; a later one wins:

1. the default below;
2. a TOML file named with `--config FILE` or `$HYPERION_CONFIG`: `heartbeat_ms = 1000` under
   `[agent]`, or under `[all]` for every daemon that knows it;
3. the environment: `HYPERION_AGENT_HEARTBEAT_MS=1000`;
4. a flag: `hyperion agent --heartbeat-ms 1000`.

An unknown name or a wrong value is refused with its place (file and line, variable or flag). Lists
and pairs are written `a,b` and `NAME=VALUE,…`; in TOML also as arrays and tables.

```toml
[all]
log_level = "info"

[scheduler]
cluster = "lab"
region = "edge/home"

[agent]
cluster = "lab"
labels = { disk = "ssd" }
taints = ["gpu-only"]
declare = "accelerators=A100:8,cpus=64,memory=512"
```
"""

if __name__ == "__main__":
    sys.stdout.write(document())
