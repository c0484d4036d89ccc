"""Settings: who wins, what is refused and how, and that the docs are current."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.daemon import settings
from hyperion.daemon.node import describe
from hyperion.daemon.settings import (
    SETTINGS,
    AgentSettings,
    FederationSettings,
    SchedulerSettings,
    SettingError,
    UpSettings,
    load,
    parse_countables,
    parse_declare,
    parse_labels,
    parse_taints,
)
from hyperion.daemon.settings_kinds import Wrong, show
from hyperion.model.node import Taint
from hyperion.model.resources import Capacity

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def refused(struct, *, file=None, environment=None, flags=None):
    with pytest.raises(SettingError) as caught:
        load(struct, file=file, environment=environment or {}, flags=flags or {})
    return str(caught.value)


@pytest.fixture
def toml(tmp_path):
    def write(text):
        file = tmp_path / "hyperion.toml"
        file.write_text(text)
        return file

    return write


def test_the_docs_are_current():
    assert DOCS.read_text() == settings.document(), (
        "run: python -m hyperion.daemon.settings > docs/settings.md"
    )


def test_each_source_beats_the_one_before(toml):
    file = toml("[all]\nheartbeat_ms = 300\nresend_ms = 500\n[agent]\nheartbeat_ms = 400\n")
    environment = {"HYPERION_AGENT_HEARTBEAT_MS": "600"}
    flags = {"heartbeat_ms": 700, "node": None}
    assert load(AgentSettings, environment={}).heartbeat_ms == 1000
    assert load(AgentSettings, file=file, environment={}).heartbeat_ms == 400
    assert load(SchedulerSettings, file=file, environment={}).heartbeat_ms == 300
    assert load(AgentSettings, file=file, environment=environment).heartbeat_ms == 600
    found = load(AgentSettings, file=file, environment=environment, flags=flags)
    assert (found.heartbeat_ms, found.resend_ms, found.node) == (700, 500, "")


def test_one_file_serves_all_daemons(toml):
    file = toml('[scheduler]\ncluster = "lab"\n[agent]\ncluster = "lab"\n[up]\nworld = "one"\n')
    environment = {"HYPERION_CONFIG": str(file)}
    assert load(SchedulerSettings, environment=environment).cluster == "lab"
    assert load(AgentSettings, environment=environment).cluster == "lab"
    assert load(FederationSettings, environment=environment) == load(
        FederationSettings, environment={}
    )


def test_directories_follow_from_home():
    environment = {"HYPERION_HOME": "/srv/hyperion"}
    federation = load(FederationSettings, environment=environment)
    assert federation.state_dir == "/srv/hyperion/federation"
    assert federation.credentials == "/srv/hyperion/federation/credentials"
    assert federation.authority == "/srv/hyperion/federation/authority"
    assert federation.rest_socket == "/srv/hyperion/federation.sock"
    own = load(FederationSettings, environment=environment, flags={"state_dir": "/srv/other"})
    assert own.rest_socket == "/srv/other/federation.sock"
    assert load(UpSettings, environment=environment).state_dir == "/srv/hyperion"
    assert load(AgentSettings, environment={}).state_dir == str(Path.home() / ".hyperion/agent")
    flags = {"state_dir": "~/x"}
    assert load(AgentSettings, environment={}, flags=flags).state_dir == str(Path.home() / "x")


def test_toml_may_say_lists_and_pairs_in_its_own_way(toml):
    file = toml(
        '[agent]\nlabels = { disk = "ssd" }\ntaints = ["gpu-only", "team=vision"]\n'
        "custom = { fpga = 2 }\n"
        "declare = { cpus = 2.5, memory = 8 }\nusd_per_hour = 3\nstop_replicas = true\n"
    )
    found = load(AgentSettings, file=file, environment={})
    assert found.labels == {"disk": "ssd"}
    assert found.taints == (Taint("gpu-only"), Taint("team", "vision"))
    assert found.declare.capacity == Capacity(cpus_milli=2500, memory_mib=8192)
    assert found.declare.names == ("cpus", "memory")
    assert found.custom == (("fpga", 2),)
    assert found.usd_per_hour == 3.0
    assert found.stop_replicas is True


def test_what_people_type_is_understood():
    found = load(
        AgentSettings,
        environment={},
        flags={
            "declare": "accelerators=a100:8, cpus=64, memory=512, disk=1TB",
            "labels": "rack=7,disk=ssd",
            "stop_replicas": "yes",
            "heartbeat_ms": "2_000",
            "scheduler": "[::1]:7080",
        },
    )
    assert found.declare.capacity == Capacity(
        gpus=8, gpu_type="A100", cpus_milli=64_000, memory_mib=512 * 1024, disk_mib=1024 * 1024
    )
    assert str(found.declare) == "accelerators=A100:8,cpus=64,memory=512,disk=1024"
    assert parse_declare(str(found.declare)) == found.declare
    assert found.labels == {"rack": "7", "disk": "ssd"}
    assert (found.stop_replicas, found.heartbeat_ms) == (True, 2000)
    assert parse_declare("").names == ()
    assert parse_countables("tape=10, fpga=2") == (("fpga", 2), ("tape", 10))
    assert show(parse_countables("tape=10,fpga=2")) == "fpga=2,tape=10"
    assert parse_declare("accelerators=H100").capacity.gpus == 1
    assert parse_labels("") == {}
    assert parse_taints("a,b=c") == (Taint("a"), Taint("b", "c"))


BAD_FLAGS = [
    (AgentSettings, "heartbeat_ms", "soon", "'soon'; expected a whole number"),
    (AgentSettings, "heartbeat_ms", "1", "expected at least 50 ms"),
    (AgentSettings, "heartbeat_ms", "9" * 30, "expected a whole number"),
    (AgentSettings, "usd_per_hour", "nan", "expected a number"),
    (AgentSettings, "usd_per_hour", "-1", "expected at least 0 USD/h"),
    (AgentSettings, "scheduler", "7080", "expected HOST:PORT such as"),
    (AgentSettings, "scheduler", "host:99999", "expected HOST:PORT"),
    (AgentSettings, "scheduler", "::1:80", "expected HOST:PORT"),
    (AgentSettings, "market", "rented", "expected one of owned, on-demand, spot"),
    (AgentSettings, "market", "sport", "did you mean spot?"),
    (AgentSettings, "stop_replicas", "maybe", "expected true or false"),
    (AgentSettings, "node", "a b", "expected a name of"),
    (AgentSettings, "node", "x" * 200, "…; expected a name of"),
    (AgentSettings, "instance_type", "a\x00b", "expected a printable text"),
    (AgentSettings, "labels", "rack", "'rack' is not NAME=VALUE"),
    (AgentSettings, "labels", "rack=1,rack=2", "comes twice"),
    (AgentSettings, "labels", "!=1", "expected label names of"),
    (AgentSettings, "taints", "a b", "expected taints such as"),
    (AgentSettings, "custom", "fpga=0", "a whole number of fpga from 1 to 1000000000"),
    (AgentSettings, "custom", "fpga", "countables such as fpga=2"),
    (AgentSettings, "custom", "gpu=2", "countables of your own; accelerators are measured"),
    (AgentSettings, "custom", "a b=2", "names of letters, digits"),
    (AgentSettings, "declare", "gpus=8", "one of accelerators, cpus, memory, disk"),
    (AgentSettings, "declare", "accelerators=A100:0", "accelerators from 1 to 1024"),
    (AgentSettings, "declare", "accelerators=A 100:2", "a type and a count such as A100:8"),
    (AgentSettings, "declare", "cpus=many", "cpus from 0.001"),
    (AgentSettings, "declare", "cpus=inf", "cpus from 0.001"),
    (AgentSettings, "declare", "memory=lots", "a size in GiB such as 512"),
    (SchedulerSettings, "region", "us-east-1", "expected CLOUD/REGION such as aws/us-east-1"),
    (SchedulerSettings, "policy", "cheepest", "did you mean cheapest?"),
    (FederationSettings, "log_level", "loud", "expected one of debug, info"),
    (UpSettings, "ready_timeout_s", 0, "expected at least 1 s"),
]


@pytest.mark.parametrize(("struct", "name", "value", "expected"), BAD_FLAGS)
def test_a_bad_flag_is_refused_with_its_name(struct, name, value, expected):
    message = refused(struct, flags={name: value})
    assert message.startswith(f"flag --{name.replace('_', '-')}: {name} is ")
    assert expected in message


BAD_FILES = [
    ("[agent\n", r"no TOML: .*\(at line 1"),
    ("[agnet]\nnode = 'x'\n", r":1: no daemon is called 'agnet'; did you mean \[agent\]\?"),
    ("\n[agent]\nhartbeat_ms = 1\n", ":3: .agent. has no 'hartbeat_ms'; did you mean heartbeat_ms"),
    ("[agent]\nnode = 'a'\nheartbeat_ms = 'x'\n", ":3: heartbeat_ms is 'x'; expected a whole"),
    ("[scheduler]\nheartbeat_mx = 1\n", ":2: .scheduler. has no 'heartbeat_mx'"),
    ("[all]\nnobody_knows = 1\n", ":2: .all. has no 'nobody_knows'"),
    ("[all]\nlog_level = 5\n", ":2: log_level is 5; expected a printable text"),
    ("[agent]\nstop_replicas = 1\n", ":2: stop_replicas is 1; expected true or false"),
    ("[agent]\nheartbeat_ms = true\n", ":2: heartbeat_ms is True; expected a whole number"),
    ("[agent]\n[agent.labels]\nrack = 7\n", ":2: labels is .*; expected a printable text"),
    ("agent = 5\n", r":1: expected a table \[agent\]"),
    ("agent.heartbeat_ms = 'x'\n", ":1: heartbeat_ms is 'x'"),
    ("[agent]\ntaints = [1]\n", ":2: taints is .1.; expected taints such as"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_FILES)
def test_a_bad_file_is_refused_with_its_line(toml, text, expected):
    message = refused(AgentSettings, file=toml(text))
    assert message.startswith(str(toml(text)))
    assert re.search(expected, message), message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "nowhere.toml: cannot be read (No such file" in refused(
        AgentSettings, file=tmp_path / "nowhere.toml"
    )
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "no UTF-8 at byte 0" in refused(AgentSettings, file=tmp_path / "binary")
    (tmp_path / "long").write_bytes(b"#" * (2 << 20))
    assert "more than" in refused(AgentSettings, file=tmp_path / "long")


def test_unknown_variables_and_flags_name_the_nearest():
    message = refused(AgentSettings, environment={"HYPERION_AGENT_HEARTBEET_MS": "1"})
    assert message == (
        "environment variable HYPERION_AGENT_HEARTBEET_MS: agent has no such setting;"
        " did you mean HYPERION_AGENT_HEARTBEAT_MS?"
    )
    assert "did you mean heartbeat_ms?" in refused(AgentSettings, flags={"heartbeat": 1})
    load(AgentSettings, environment={"HYPERION_SCHEDULER_X": "1", "HYPERION_JOB_ID": "j"})


@given(st.text(max_size=40))
def test_parsing_gives_a_value_or_says_what_was_expected(text):
    for parse in (parse_countables, parse_declare, parse_labels, parse_taints):
        try:
            parse(text)
        except Wrong:
            continue


@pytest.mark.parametrize("daemon", SETTINGS)
def test_every_setting_explains_itself_and_accepts_its_default(daemon):
    for setting in SETTINGS[daemon]:
        assert setting.help, setting.name
        assert "|" not in setting.help
        if setting.default != "":
            again = setting.read(show(setting.default))
            assert again == setting.default, setting.name


def test_reading_the_environment_of_a_real_process(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os; from hyperion.daemon.settings import *;"
            "print(load(AgentSettings, environment=os.environ).heartbeat_ms)",
        ],
        env={**os.environ, "HYPERION_AGENT_HEARTBEAT_MS": "77"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "77\n"


def test_a_node_says_its_countables_and_they_are_real():
    found = load(AgentSettings, environment={}, flags={"custom": "fpga=2", "declare": "cpus=4"})
    node = describe(found, Capacity(cpus_milli=1000, memory_mib=64), "1")
    assert node.capacity == Capacity(cpus_milli=4000, memory_mib=64, custom=(("fpga", 2),))
    assert node.declared == ("cpus",)
