"""What a running daemon tells: structured log lines on stderr, and metrics in Prometheus' text.

Secrets cannot slip into a line: a field is a number, a truth value or a short text, anything else
(a job, a spec, an environment) is logged as the name of its type, and fields or texts that look
like credentials are blotted out.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from msgspec import Struct

_MAX_TEXT = 500
_MAX_MESSAGE = 4000
_MAX_TRACE = 20_000
_BLOT = "***"
_SECRET_NAME = re.compile(
    r"secret|token|passw|passphrase|credential|authori[sz]ation|cookie|private|api_?key|\benv",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<name>\b[\w-]{0,40}(?:secret|token|password|passwd|passphrase|api_?key)[\w-]{0,40}[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)"
    r"|(?P<url>\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]*:)[^\s/@]+(?=@)"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}\b|\beyJ[\w-]{10,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE | re.DOTALL,
)


class Log:
    """Log lines of one part of a daemon: an event in plain words, and fields."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"hyperion.{part}")

    def debug(self, event: str, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._say(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._say(logging.ERROR, event, fields)

    def fault(self, event: str, fault: BaseException, **fields: object) -> None:
        """An error with its traceback."""
        self._logger.error(event, exc_info=fault, extra={"fields": fields})

    def _say(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, event, extra={"fields": fields})


def start_logging(
    level: str = "info", form: str = "auto", stream: TextIO | None = None, **always: str
) -> None:
    """Send this process's log, libraries included, to ``stream`` (stderr). Call once, at start.

    ``form`` is ``text``, ``json``, or ``auto``: text on a terminal. ``always`` goes on every line.
    """
    stream = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    writer = logging.StreamHandler(stream)
    writer.setFormatter(_JsonLines(always) if as_json else _TextLines(always))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(writer)
    root.setLevel(logging.WARNING)
    logging.getLogger("hyperion").setLevel(level.upper())
    logging.captureWarnings(True)


def clean(text: str, limit: int = _MAX_TEXT) -> str:
    """``text`` without what looks like a credential, cut to ``limit`` characters."""
    found = _SECRET_TEXT.sub(_blot, text[: limit + _MAX_TEXT])
    return found if len(found) <= limit else found[: limit - 1] + "…"


def _blot(match: re.Match[str]) -> str:
    return (match["scheme"] or match["name"] or match["url"] or "") + _BLOT


def _field(name: str, value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_NAME.search(name):
        return _BLOT
    if isinstance(value, int | float):
        return value if type(value) in (int, float) else str(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, OSError | ValueError):
        return clean(str(value))
    return f"<{type(value).__name__}>"


class _Lines(logging.Formatter):
    """What both forms share: the parts of a line, already clean."""

    def __init__(self, always: Mapping[str, str]) -> None:
        super().__init__()
        self._always = dict(always)

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        at = datetime.fromtimestamp(record.created, UTC)
        fields = getattr(record, "fields", {})
        return {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix("hyperion."),
            "event": clean(record.getMessage(), _MAX_MESSAGE),
            **self._always,
            **{name: _field(name, value) for name, value in fields.items()},
        }

    def trace(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        return clean(self.formatException(record.exc_info), _MAX_TRACE)


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        parts = self.parts(record)
        if trace := self.trace(record):
            parts["trace"] = trace
        return msgspec.json.encode(parts).decode()


class _TextLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        parts = self.parts(record)
        at, level, part, event = (parts.pop(n) for n in ("at", "level", "part", "event"))
        fields = "".join(
            f" {name}={_plain(value)}" for name, value in parts.items() if name not in self._always
        )
        trace = self.trace(record)
        line = f"{at[11:23]} {level:<7} {part}: {event}{fields}".replace("\n", "\\n")
        return f"{line}\n{trace}" if trace else line


def _plain(value: object) -> str:
    text = str(value)
    return repr(text) if not text or re.search(r"[\s=\"']", text) else text


# -- metrics --------------------------------------------------------------------------------------

Labels = Mapping[str, str]


class Family(Struct, frozen=True):
    """One metric: its name (unit and ``_total`` included), what it means, and its samples."""

    name: str
    kind: str
    """``counter`` or ``gauge``."""
    help: str
    samples: Sequence[tuple[Labels, float]]


def counted(
    prefix: str, counters: Struct, labels: Labels, gauges: Iterable[str] = ()
) -> list[Family]:
    """A family for each number in ``counters``; fields in ms become seconds, as is the custom."""
    families = []
    level = frozenset(gauges)
    for name, value in msgspec.structs.asdict(counters).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        is_gauge = name in level or name.endswith("_max")
        shown, amount = name, float(value)
        if "_ms" in name:
            shown, amount = name.replace("_ms", "_seconds"), value / 1e3
        kind, suffix = ("gauge", "") if is_gauge else ("counter", "_total")
        help_ = name.replace("_", " ").replace(" ms", " time")
        families.append(Family(f"{prefix}_{shown}{suffix}", kind, help_, [(labels, amount)]))
    return families


def render(families: Iterable[Family]) -> str:
    """The text format of Prometheus, version 0.0.4."""
    lines = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help, quote=False)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            inside = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
            number = repr(int(value)) if value == int(value) else repr(value)
            lines.append(
                f"{family.name}{{{inside}}} {number}" if inside else f"{family.name} {number}"
            )
    return "\n".join(lines) + "\n"


def _escape(text: str, *, quote: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
