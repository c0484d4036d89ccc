"""Where settings come from, and which of two sources wins: default < file < environment < flag."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from hyperion.daemon.settings_kinds import KINDS, Wrong, show

_MAX_FILE_BYTES = 1 << 20
EVERY = "all"
"""The table of a file that speaks to every daemon which knows the setting."""


class Setting(Struct, frozen=True, kw_only=True):
    """One setting of a daemon: all that its flag, its line in the docs and its checks need."""

    name: str
    kind: str
    """A key of ``settings_kinds.KINDS``."""
    default: Any
    unit: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    default_text: str = ""
    """How to describe the default where it depends on the machine."""

    @property
    def flag(self) -> str:
        """Such as ``--heartbeat-ms``."""
        return "--" + self.name.replace("_", "-")

    def environment_name(self, daemon: str) -> str:
        """Such as ``HYPERION_AGENT_HEARTBEAT_MS``."""
        return f"HYPERION_{daemon}_{self.name}".upper()

    @property
    def shown_default(self) -> str:
        return self.default_text or show(self.default)

    def read(self, value: object) -> Any:
        """The value checked and converted; ``Wrong`` says what was expected."""
        found = KINDS[self.kind](value)
        if self.choices and found not in self.choices:
            near = _nearest(str(found), self.choices)
            raise Wrong(f"one of {', '.join(self.choices)}{near}")
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is not None and found < self.minimum:
            raise Wrong(f"at least {self.minimum:g}{unit}")
        if self.maximum is not None and found > self.maximum:
            raise Wrong(f"at most {self.maximum:.0f}{unit}")
        return found


class SettingError(ValueError):
    """A setting that cannot be used. The message names source, setting, fault and remedy."""


def gather(
    daemon: str,
    settings: Iterable[Setting],
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    others: Mapping[str, Iterable[Setting]],
) -> dict[str, Any]:
    """What the sources say, the strongest winning. ``others``: the tables a file may also hold."""
    known = {setting.name: setting for setting in settings}
    values: dict[str, Any] = {}
    if file is not None:
        values |= _from_file(daemon, known, file, others)
    values |= _from_environment(daemon, known, environment)
    for name, value in flags.items():
        if value is None:
            continue
        setting = known.get(name)
        if setting is None:
            raise SettingError(f"flag --{name}: no such setting{_nearest(name, known)}")
        values[name] = _read(setting, value, f"flag {setting.flag}")
    return values


def _from_environment(
    daemon: str, known: Mapping[str, Setting], environment: Mapping[str, str]
) -> dict[str, Any]:
    prefix = f"HYPERION_{daemon}_".upper()
    values = {}
    for variable in sorted(environment):
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix).lower()
        setting = known.get(name)
        source = f"environment variable {variable}"
        if setting is None:
            near = _nearest(name, known, lambda n: known[n].environment_name(daemon))
            raise SettingError(f"{source}: {daemon} has no such setting{near}")
        values[name] = _read(setting, environment[variable], source)
    return values


def _from_file(
    daemon: str,
    known: Mapping[str, Setting],
    file: Path,
    others: Mapping[str, Iterable[Setting]],
) -> dict[str, Any]:
    text = _read_text(file)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise SettingError(f"{file}: no TOML: {fault}") from None
    every = {s.name: s for table in others.values() for s in table}
    values: dict[str, Any] = {}
    for table in sorted(tables, key=lambda name: name != EVERY):
        content, where = tables[table], f"{file}:{_line_of(text, table, None)}"
        if table not in (EVERY, *others):
            near = _nearest(table, (EVERY, *others), lambda n: f"[{n}]")
            raise SettingError(f"{where}: no daemon is called {table!r}{near}")
        if not isinstance(content, dict):
            raise SettingError(f"{where}: expected a table [{table}], found a single value")
        names = every if table == EVERY else {s.name: s for s in others[table]}
        for name, value in content.items():
            source = f"{file}:{_line_of(text, table, name)}"
            if name not in names:
                raise SettingError(f"{source}: [{table}] has no {name!r}{_nearest(name, names)}")
            if table in (EVERY, daemon) and name in known:
                values[name] = _read(known[name], value, source)
    return values


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise SettingError(
                f"{file}: more than {_MAX_FILE_BYTES} bytes; no settings are so long"
            )
        return content.decode()
    except OSError as fault:
        raise SettingError(
            f"{file}: cannot be read ({fault.strerror}); name another with --config"
        ) from None
    except UnicodeDecodeError as fault:
        raise SettingError(f"{file}: no UTF-8 at byte {fault.start}") from None


def _line_of(text: str, table: str, name: str | None) -> int:
    """Where the file says it, as well as can be told without a parser that counts lines."""
    inside = False
    opened = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*[\"']?([^\"'\].]+)[\"']?\s*(?:\.\s*([^\]\s]+)\s*)?\]", line)
        if header:
            inside = header[1].strip() == table
            opened = number if inside else opened
            if inside and (name is None or (header[2] or "").strip("\"'") == name):
                return number
            continue
        sought = name if inside and name else table
        if re.match(rf"\s*[\"']?{re.escape(sought)}[\"']?\s*[.=]", line):
            return number
    return opened


def _read(setting: Setting, value: object, source: str) -> Any:
    try:
        return setting.read(value)
    except Wrong as fault:
        raise SettingError(
            f"{source}: {setting.name} is {_quoted(value)}; expected {fault}"
        ) from None


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def _nearest(wrong: str, known: Iterable[str], show_as: Any = str) -> str:
    from difflib import get_close_matches  # 2 ms that only a typo pays for

    near = get_close_matches(wrong.replace("-", "_")[:64], list(known), n=1, cutoff=0.5)
    return f"; did you mean {show_as(near[0])}?" if near else ""
