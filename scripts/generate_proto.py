"""Makes src/hyperion/wire/generated from proto/: run it after every change of a .proto file.

    python scripts/generate_proto.py [--out DIRECTORY]

The modules come out flat (``hyperion.wire.generated.job_pb2``), with type stubs for the services
too. Their version guards are lowered to the oldest protobuf and grpcio that pyproject.toml admits:
grpcio-tools 1.75.1 and 1.85.1 were compared (2026-07), and the code that runs differs in nothing
but the guards.

proto/frozen.json holds every field, enum value and method that has ever been published. A change
that takes one away or gives its number another meaning is refused, unless its number and its name
are ``reserved`` in its place.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
OUT = ROOT / "src" / "hyperion" / "wire" / "generated"
FROZEN = PROTO / "frozen.json"
PACKAGE = "hyperion.wire.generated"
OLDEST_PROTOBUF = (6, 31, 0)
OLDEST_GRPCIO = "1.75.0"

_IMPORT = re.compile(r"^from hyperion\.v1 import ", re.MULTILINE)
_GUARD = re.compile(r"(Domain\.PUBLIC,\n)\s+\d+,\n\s+\d+,\n\s+\d+,\n")
_COMMENT = re.compile(r"^# Protobuf Python Version: .*$", re.MULTILINE)
_GRPC_GUARD = re.compile(r"^GRPC_GENERATED_VERSION = '.*'$", re.MULTILINE)

STUB_HEAD = """\
from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio

"""


def sources() -> list[str]:
    """The .proto files, named as the descriptors name them."""
    return sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))


def compile_protos(out: Path, names: list[str]) -> FileDescriptorSet:
    """Run protoc; raises RuntimeError when it refuses (it has then said why on stderr)."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # it ships no types

    flags = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    described = out / "described.bin"
    bundled = str(files("grpc_tools") / "_proto")
    flags += [f"--descriptor_set_out={described}", f"-I{PROTO}", f"-I{bundled}"]
    if protoc.main(["protoc", *flags, *names]) != 0:
        raise RuntimeError("protoc refused the files in proto/: see its message above")
    return FileDescriptorSet.FromString(described.read_bytes())


def settled(text: str) -> str:
    """Flat imports, and guards at the oldest admitted versions."""
    oldest = "".join(f"    {part},\n" for part in OLDEST_PROTOBUF)
    text = _IMPORT.sub(f"from {PACKAGE} import ", text)
    text = _GUARD.sub(rf"\g<1>{oldest}", text)
    text = _COMMENT.sub("# Any protobuf runtime that pyproject.toml admits will do.", text)
    return _GRPC_GUARD.sub(f"GRPC_GENERATED_VERSION = '{OLDEST_GRPCIO}'", text)


def homes_of(described: FileDescriptorSet) -> dict[str, str]:
    """Full message name to ``module.Message``."""
    return {
        f".{file.package}.{message.name}": f"{Path(file.name).stem}_pb2.{message.name}"
        for file in described.file
        for message in file.message_type
    }


def _servicer_method(method: MethodDescriptorProto, homes: dict[str, str]) -> str:
    ask, answer = homes[method.input_type], homes[method.output_type]
    context = f"context: grpc.aio.ServicerContext[{ask}, {answer}]"
    request = f"request_iterator: AsyncIterator[{ask}]" if method.client_streaming else ""
    request = request or f"request: {ask}"
    if method.server_streaming:
        return f"    def {method.name}(self, {request}, {context}) -> AsyncIterator[{answer}]: ..."
    return f"    async def {method.name}(self, {request}, {context}) -> {answer}: ..."


def _stub_attribute(method: MethodDescriptorProto, homes: dict[str, str], module: str) -> str:
    words = {False: "Unary", True: "Stream"}
    kind = f"{words[method.client_streaming]}{words[method.server_streaming]}MultiCallable"
    types = f"{homes[method.input_type]}, {homes[method.output_type]}"
    return f"    {method.name}: {module}.{kind}[{types}]"


def service_stubs(file: FileDescriptorProto, homes: dict[str, str]) -> Iterator[str]:
    """Type stubs of the ``_pb2_grpc`` module: a stub on an aio channel is an ``…AsyncStub``."""
    for service in file.service:
        name = service.name
        yield f"class {name}Stub:"
        for channel, made in (("grpc.Channel", "Stub"), ("grpc.aio.Channel", "AsyncStub")):
            yield "    @overload"
            yield f"    def __new__(cls, channel: {channel}) -> {name}{made}: ..."
        yield from (_stub_attribute(method, homes, "grpc") for method in service.method)
        yield f"\nclass {name}AsyncStub({name}Stub):"
        yield from (_stub_attribute(method, homes, "grpc.aio") for method in service.method)
        yield f"\nclass {name}Servicer:"
        yield from (_servicer_method(method, homes) for method in service.method)
        yield f"\ndef add_{name}Servicer_to_server("
        yield f"    servicer: {name}Servicer, server: grpc.Server | grpc.aio.Server"
        yield ") -> None: ...\n"


def _messages(
    found: Iterable[DescriptorProto], prefix: str = ""
) -> Iterator[tuple[str, DescriptorProto]]:
    for message in found:
        yield prefix + message.name, message
        yield from _messages(message.nested_type, f"{prefix}{message.name}.")


def _enums(file: FileDescriptorProto) -> Iterator[tuple[str, EnumDescriptorProto]]:
    yield from ((enum.name, enum) for enum in file.enum_type)
    for name, message in _messages(file.message_type):
        yield from ((f"{name}.{enum.name}", enum) for enum in message.enum_type)


def _field_says(field: FieldDescriptorProto) -> str:
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    presence = " presence" if field.proto3_optional or field.HasField("oneof_index") else ""
    return f"{field.name} {label}{presence} {kind}"


def contract_of(described: FileDescriptorSet) -> dict[str, str]:
    """Every field, enum value and method: where it is, and what is said there."""
    says: dict[str, str] = {}
    for file in described.file:
        for name, message in _messages(file.message_type):
            says |= {f"{name}#{field.number}": _field_says(field) for field in message.field}
        for name, enum in _enums(file):
            says |= {f"{name}={value.number}": value.name for value in enum.value}
        for service in file.service:
            for method in service.method:
                ask = "stream " * method.client_streaming + method.input_type
                answer = "stream " * method.server_streaming + method.output_type
                says[f"{service.name}/{method.name}"] = f"{ask} -> {answer}"
    return dict(sorted(says.items()))


def _reserved(described: FileDescriptorSet) -> set[str]:
    """``Message#number name`` and ``Enum=number name`` of what is reserved by both."""
    gone: set[str] = set()
    for file in described.file:
        for name, message in _messages(file.message_type):
            for span in message.reserved_range:
                numbers = range(span.start, min(span.end, 1000))
                gone |= {f"{name}#{n} {word}" for n in numbers for word in message.reserved_name}
        for name, enum in _enums(file):
            for stretch in enum.reserved_range:
                numbers = range(stretch.start, min(stretch.end + 1, 100))
                gone |= {f"{name}={n} {word}" for n in numbers for word in enum.reserved_name}
    return gone


def broken_promises(frozen: dict[str, str], described: FileDescriptorSet) -> list[str]:
    """What was published and is now gone or different without being reserved."""
    now, gone = contract_of(described), _reserved(described)
    return [
        f"{place} was published as '{said}' and is now {now.get(place, 'gone')!r};"
        f" put it back, or reserve both its number and its name"
        for place, said in frozen.items()
        if now.get(place) != said and f"{place} {said.split()[0]}" not in gone
    ]


def freeze(described: FileDescriptorSet) -> None:
    """Add what is new to proto/frozen.json; raises RuntimeError where a promise is broken."""
    frozen: dict[str, str] = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}
    broken = broken_promises(frozen, described)
    if broken:
        raise RuntimeError("\n".join(broken))
    FROZEN.write_text(json.dumps(frozen | contract_of(described), indent=1, sort_keys=True) + "\n")


def describe() -> FileDescriptorSet:
    """The .proto files as they are now."""
    with tempfile.TemporaryDirectory() as scratch:
        return compile_protos(Path(scratch), sources())


def generate(out: Path) -> list[Path]:
    """Write every generated module into ``out``; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "__init__.py"]
    tools = version("grpcio-tools")
    written[0].write_text(f'"""Made by scripts/generate_proto.py with grpcio-tools {tools}."""\n')
    with tempfile.TemporaryDirectory() as scratch:
        described = compile_protos(Path(scratch), sources())
        for path in sorted(Path(scratch).rglob("*_pb2*.py*")):
            written.append(out / path.name)
            written[-1].write_text(settled(path.read_text()))
    homes = homes_of(described)
    for file in described.file:
        modules = sorted({home.split(".")[0] for home in homes.values()})
        imports = f"from {PACKAGE} import {', '.join(modules)}\n\n"
        if file.service:
            written.append(out / f"{Path(file.name).stem}_pb2_grpc.pyi")
            body = "\n".join(service_stubs(file, homes))
            written[-1].write_text(STUB_HEAD + imports + body)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help=f"default {OUT.relative_to(ROOT)}")
    out = parser.parse_args().out
    try:
        freeze(describe())
    except RuntimeError as broken:
        parser.error(str(broken))
    written = generate(out)
    sys.stdout.write(f"{len(written)} files, grpcio-tools {version('grpcio-tools')}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
