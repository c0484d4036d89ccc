"""Equal parts of many jobs kept once: a million queued jobs seldom have a thousand different specs.

Values are frozen and never changed in place, dicts inside them included, so nobody can tell a
shared part from an own one but by its identity.
"""

from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from hyperion.model.job import Job

LIMIT = 65_536
"""Different values remembered; then all are forgotten, and those still in use live on unshared."""

H = TypeVar("H", bound=Hashable)
_NOTHING: dict[str, Any] = {}


class Sharing:
    """Gives back an equal value that was there before, or else remembers this one.

    A value is held as long as this object, or until ``LIMIT`` others have come.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._values: dict[Hashable, Any] = {}
        self._frames: dict[bytes, Job] = {}
        self._encode = msgspec.msgpack.Encoder().encode

    def value(self, value: H) -> H:
        """Of equal values, types included, always the same one."""
        values = self._values
        if len(values) >= self._limit:
            values.clear()
        known: H = values.setdefault((type(value), value), value)
        return known

    def job(self, job: Job) -> Job:
        """An equal job that shares what others have too: all but its id and name, most often."""
        own = {
            "id": job.id,
            "name": self.value(job.name),
            "command": self._command(job.command),
            "envs": self._pairs(job.envs),
            "metadata": self._pairs(job.metadata),
            "secrets": job.secrets or _NOTHING,
        }
        bare = replace(job, **_BARE)
        written = self._encode(bare)
        frame = self._frames.get(written)
        if frame is None:
            if len(self._frames) >= self._limit:
                self._frames.clear()
            frame = self._frames[written] = bare
        return replace(frame, **own)

    def _command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        known: tuple[str, ...] | None = self._values.get((tuple, command))
        return self.value(tuple(map(self.value, command))) if known is None else known

    def _pairs(self, pairs: dict[str, str]) -> dict[str, str]:
        if not pairs:
            return _NOTHING
        values = self._values
        items = (dict, *pairs.items())
        known: dict[str, str] | None = values.get(items)
        if known is None:
            if len(values) >= self._limit:
                values.clear()
            known = values[items] = {self.value(k): self.value(v) for k, v in pairs.items()}
        return known


_BARE: dict[str, Any] = {
    "id": "",
    "name": "",
    "command": (),
    "envs": _NOTHING,
    "metadata": _NOTHING,
    "secrets": _NOTHING,
}
