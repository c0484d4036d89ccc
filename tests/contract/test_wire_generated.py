"""The committed code is what the committed .proto files give."""

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from hyperion.wire import generated

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "generate_proto", ROOT / "scripts" / "generate_proto.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generating_again_changes_nothing(generator, tmp_path):
    tools = version("grpcio-tools")
    if f"grpcio-tools {tools}." not in generated.__doc__:
        pytest.skip(f"grpcio-tools is {tools}; the committed code says: {generated.__doc__}")
    written = generator.generate(tmp_path)
    committed = {p.name: p.read_text() for p in generator.OUT.iterdir() if p.is_file()}
    assert {p.name: p.read_text() for p in written} == committed


def test_the_guards_admit_the_oldest_versions_of_pyproject(generator):
    for path in generator.OUT.glob("*_pb2.py"):
        assert "    6,\n    31,\n    0,\n" in path.read_text()
    for path in generator.OUT.glob("*_pb2_grpc.py"):
        assert "GRPC_GENERATED_VERSION = '1.75.0'" in path.read_text()
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert '"protobuf>=6.31,<8"' in pyproject
    assert '"grpcio>=1.75,<2"' in pyproject


def test_every_field_that_exists_is_frozen(generator):
    frozen = json.loads(generator.FROZEN.read_text())
    now = generator.contract_of(generator.describe())
    missing = now.keys() - frozen.keys()
    assert not missing, "run scripts/generate_proto.py: new in proto/"
    assert generator.broken_promises(frozen, generator.describe()) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("AIJob#8", "title optional string"),
        ("AIJob#8", "name repeated string"),
        ("AIJob#27", "colour optional string"),
        ("JobPhase=9", "JOB_PHASE_LOST"),
        ("Federation/GetJob", ".hyperion.v1.GetJobRequest -> stream .hyperion.v1.JobView"),
    ],
)
def test_a_changed_or_removed_field_is_a_broken_promise(generator, place, said):
    broken = generator.broken_promises({place: said}, generator.describe())
    assert len(broken) == 1
    assert place in broken[0]


def test_what_is_reserved_by_number_and_name_may_be_gone(generator):
    described = generator.describe()
    (message,) = [m for f in described.file for m in f.message_type if m.name == "AIJob"]
    message.reserved_range.add(start=27, end=28)
    frozen = {"AIJob#27": "colour optional string"}
    assert len(generator.broken_promises(frozen, described)) == 1
    message.reserved_name.append("colour")
    assert generator.broken_promises(frozen, described) == []
