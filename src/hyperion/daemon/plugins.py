"""Policies that other packages bring: found by entry point, taken in once, faults told by name."""

import logging
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from msgspec import Struct

from hyperion.daemon.alarm import alarm
from hyperion.placement import ranking
from hyperion.placement.ranking import Guarded

_log = logging.getLogger("hyperion.plugins")

GROUP = "hyperion.policies"
MOST = 100
"""Entry points looked at; one that names more has a fault of its own."""


class Broken(Struct, frozen=True):
    """An entry point that gave no policy."""

    name: str
    origin: str
    """Distribution and object, such as ``acme-policies 1.2 (acme.policies:Greedy)``."""
    fault: str


_broken: list[Broken] | None = None


def discover() -> tuple[Broken, ...]:
    """Register the policies of all installed packages, the first time; those that gave none."""
    global _broken  # noqa: PLW0603  once per process, as imports are
    if _broken is None:
        _broken = list(_register_all())
        for broken in _broken:
            _log.error("policy %s from %s: %s", broken.name, broken.origin, broken.fault)
    return tuple(_broken)


def watched(name: str, budget_ms: float) -> Guarded:
    """The policy under watch; one from a plug-in gets at most so long in a round.

    Raises ValueError when there is none of this name, with the faults of plug-ins that may have
    been meant to bring it.
    """
    broken = discover()
    try:
        policy = ranking.policy(name)
    except ValueError as error:
        faults = "; ".join(f"{b.name} from {b.origin}: {b.fault}" for b in broken)
        raise ValueError(
            f"{error}; plug-ins that failed: {faults}" if faults else str(error)
        ) from None
    origin = ranking.origin(name)
    return Guarded(policy, None if origin == ranking.BUILT_IN_ORIGIN else alarm(budget_ms), origin)


def forget() -> None:
    """Look anew next time: for tests, which install and remove packages as they go."""
    global _broken  # noqa: PLW0603  the same one
    _broken = None


def _register_all() -> Iterator[Broken]:
    found = sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value))
    for entry in found[:MOST]:
        fault = _register(entry)
        if fault:
            yield Broken(entry.name, _origin(entry), fault)
    if len(found) > MOST:
        rest = found[MOST]
        yield Broken(rest.name, _origin(rest), f"one of {len(found)}; only {MOST} are looked at")


def _register(entry: EntryPoint) -> str:
    """What is wrong with it, or nothing."""
    try:
        make: Callable[[], Any] = entry.load()
        if not callable(make):
            return f"{entry.value} is of type {type(make).__name__}; name a class or a function"
        name = ranking.register(make, _origin(entry))
    except (Exception, SystemExit) as error:  # a package of somebody else's
        return f"{type(error).__name__}: {error}"[:300]
    if name != entry.name:
        ranking.unregister(name)
        return f"its policy calls itself {name}; the entry point must have the same name"
    return ""


def _origin(entry: EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "?"
    return f"{package} ({entry.value})"
