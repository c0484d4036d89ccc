"""What a setting may be, and how its value is read from a text or a TOML value."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from hyperion.model import accelerators, checks
from hyperion.model.bounds import MAX_CUSTOM_AMOUNT, MAX_ENTRIES
from hyperion.model.checks_resources import OWN_NAMES
from hyperion.model.node import Taint
from hyperion.model.resources import MILLI, Capacity
from hyperion.wire.units import size_mib

_MAX_TEXT = 4096
_MAX_PAIRS = 100
_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,32}/[A-Za-z0-9-]{1,64}", re.ASCII)
_GPU_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", re.ASCII)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Declaration(Struct, frozen=True):
    """Resources that a node says it has although it has not: for worlds, tests and rehearsals."""

    capacity: Capacity = Capacity()
    names: tuple[str, ...] = ()
    """Which of ``accelerators``, ``cpus``, ``memory``, ``disk`` are declared; the rest is real."""

    def __str__(self) -> str:
        held = self.capacity
        shown = {
            "accelerators": f"{held.gpu_type}:{held.gpus}",
            "cpus": f"{held.cpus_milli / MILLI:g}",
            "memory": f"{held.memory_mib / 1024:g}",
            "disk": f"{held.disk_mib / 1024:g}",
        }
        return ",".join(f"{name}={shown[name]}" for name in self.names)


class Wrong(ValueError):
    """What was expected; the message continues "expected …"."""


def parse_declare(text: str) -> Declaration:
    """Read ``accelerators=A100:8,cpus=64,memory=512,disk=1000`` (memory and disk in GiB)."""
    found = _split_pairs(text, "resources such as accelerators=A100:8,cpus=64,memory=512")
    values: dict[str, Any] = {}
    for name, value in found.items():
        read = _DECLARED.get(name)
        if read is None:
            raise Wrong(f"one of {', '.join(_DECLARED)} in place of {name!r}")
        values |= read(value)
    return Declaration(Capacity(**values), tuple(found))


def parse_labels(text: str) -> dict[str, str]:
    """Read ``disk=ssd,rack=7``."""
    return _labels(_split_pairs(text, "labels such as disk=ssd,rack=7"))


def parse_taints(text: str) -> tuple[Taint, ...]:
    """Read ``gpu-only,team=vision``; a taint without a value has the key alone."""
    return _taints([part.strip() for part in text.split(",") if part.strip()])


def parse_countables(text: str) -> tuple[tuple[str, int], ...]:
    """Read ``fpga=2,licence-x=10``; in order of the names."""
    return _countables(_split_pairs(text, "countables such as fpga=2,licence-x=10"))


def _declared_accelerators(text: str) -> dict[str, Any]:
    name, colon, count = text.partition(":")
    if not _GPU_TYPE.fullmatch(name):
        raise Wrong(f"a type and a count such as A100:8 for accelerators, found {text[:40]!r}")
    number = _whole(count, "accelerators", 1, 1024) if colon else 1
    return {"gpu_type": accelerators.canonical(name) or name, "gpus": number}


def _declared_cpus(text: str) -> dict[str, Any]:
    try:
        cpus = float(text)
    except ValueError:
        cpus = math.nan
    if not 0 < cpus <= 100_000:
        raise Wrong(f"cpus from 0.001 to 100000, found {text[:40]!r}")
    return {"cpus_milli": max(1, round(cpus * MILLI))}


def _declared_size(field: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        size = size_mib(text)
        if not size or size > 1 << 40:
            raise Wrong(f"a size in GiB such as 512 or 512GiB, found {text[:40]!r}")
        return {field: size}

    return read


_DECLARED: dict[str, Callable[[str], dict[str, Any]]] = {
    "accelerators": _declared_accelerators,
    "cpus": _declared_cpus,
    "memory": _declared_size("memory_mib"),
    "disk": _declared_size("disk_mib"),
}


def _whole(text: str, what: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
        raise Wrong(f"a whole number of {what} from {least} to {most}, found {text[:40]!r}")
    return int(text)


def _split_pairs(text: str, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if not equals or not name or not value:
            raise Wrong(f"{what}; {part.strip()[:60]!r} is not NAME=VALUE")
        if name in found:
            raise Wrong(f"each name once, but {name!r} comes twice")
        found[name] = value
    return found


def _labels(found: Mapping[str, Any]) -> dict[str, str]:
    if len(found) > _MAX_PAIRS:
        raise Wrong(f"at most {_MAX_PAIRS} labels, found {len(found)}")
    for name, value in found.items():
        if not _KEY.fullmatch(name):
            raise Wrong(f"label names of letters, digits, '.', '_', '-' and '/', found {name!r}")
        if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
            raise Wrong(f"a printable text of up to 256 characters for label {name!r}")
    return dict(found)


def _taints(parts: list[Any]) -> tuple[Taint, ...]:
    if len(parts) > _MAX_PAIRS:
        raise Wrong(f"at most {_MAX_PAIRS} taints, found {len(parts)}")
    taints = []
    for part in parts:
        key, _, value = str(part).partition("=")
        if not isinstance(part, str) or not _KEY.fullmatch(key) or len(value) > 256:
            raise Wrong(f"taints such as gpu-only or team=vision, found {str(part)[:60]!r}")
        taints.append(Taint(key, value))
    return tuple(taints)


def _countables(found: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    if len(found) > MAX_ENTRIES:
        raise Wrong(f"at most {MAX_ENTRIES} countables, found {len(found)}")
    for name in found:
        own = OWN_NAMES.get(name.partition("/")[0].lower())
        if own is not None:
            raise Wrong(f"countables of your own; {own} are measured, or said by declare")
        if not _KEY.fullmatch(name):
            raise Wrong(f"names of letters, digits, '.', '_', '-' and '/', found {name[:60]!r}")
    amounts = [(n, _whole(str(v), n, 1, MAX_CUSTOM_AMOUNT)) for n, v in found.items()]
    return tuple(sorted(amounts))


# -- kinds: each reads a text (environment, flag) or a native TOML value --------------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise Wrong(f"a printable text of up to {_MAX_TEXT} characters")
    return value


def _name(value: object) -> str:
    if value == "" or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value
    raise Wrong("a name of up to 128 letters, digits, '.', '_' and '-', such as rack7-node3")


def _region(value: object) -> str:
    if isinstance(value, str) and _REGION.fullmatch(value):
        return value
    raise Wrong("CLOUD/REGION such as aws/us-east-1 or edge/home")


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_]{0,18}", value.strip(), re.ASCII):
        return int(value.replace("_", ""))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Wrong("a whole number")


def _number(value: object) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found = float(value)
            if math.isfinite(found):
                return found
    except (ValueError, OverflowError):
        pass
    raise Wrong("a number")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise Wrong("true or false")


def _address(value: object) -> str:
    """``host:port`` with IPv6 in brackets, or empty."""
    if value == "":
        return ""
    if isinstance(value, str) and len(value) <= 300:
        host, colon, port = value.rpartition(":")
        plain = re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]", host, re.ASCII)
        if colon and plain and re.fullmatch(r"\d{1,5}", port, re.ASCII) and int(port) < 65536:
            return value
    raise Wrong("HOST:PORT such as 127.0.0.1:7070 or [::1]:7070")


def _path(value: object) -> str:
    text = _text(value)
    return str(Path(text).expanduser().absolute()) if text else ""


def _list(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise Wrong("texts, separated by commas")


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return _labels(value)
    return parse_labels(_text(value))


def _taint_list(value: object) -> tuple[Taint, ...]:
    if isinstance(value, list):
        return _taints(value)
    return parse_taints(_text(value))


def _countable_list(value: object) -> tuple[tuple[str, int], ...]:
    if isinstance(value, dict):
        return _countables(value)
    return parse_countables(_text(value))


def _declaration(value: object) -> Declaration:
    if isinstance(value, dict):
        value = ",".join(f"{name}={amount}" for name, amount in value.items())
    return parse_declare(_text(value))


def _policy(value: object) -> str:
    """Only a name that is not built in makes us look for plug-ins."""
    name = _text(value)
    if name not in checks.KNOWN_POLICIES:
        from difflib import get_close_matches

        from hyperion.daemon.plugins import discover

        broken = [b for b in discover() if b.name == name]
        if broken:
            raise Wrong(f"a policy; {broken[0].origin} has failed: {broken[0].fault}")
        if name not in checks.KNOWN_POLICIES:
            known = sorted(checks.KNOWN_POLICIES)
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Wrong(f"one of {', '.join(known)}, or an installed package's{hint}")
    return name


KINDS: Mapping[str, Callable[[object], Any]] = {
    "text": _text,
    "name": _name,
    "region": _region,
    "integer": _integer,
    "policy": _policy,
    "number": _number,
    "switch": _switch,
    "address": _address,
    "path": _path,
    "list": _list,
    "pairs": _pairs,
    "taints": _taint_list,
    "resources": _declaration,
    "countables": _countable_list,
}
"""Kind of a setting → how to read it. Each raises ``Wrong`` with what was expected."""


def show(value: object) -> str:
    """A value as it would be written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ",".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, tuple):
        return ",".join(_shown_part(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown_part(part: object) -> str:
    if isinstance(part, Taint):
        return f"{part.key}={part.value}" if part.value else part.key
    return f"{part[0]}={part[1]}" if isinstance(part, tuple) else str(part)
