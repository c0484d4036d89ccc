"""``agent check``: which promises of preemption this host can keep."""

import os

from hyperion.adapters.checkpoint.promise import Finding, Promises, Tier, probe
from hyperion.adapters.runtime.cgroup import Cgroups
from hyperion.cli import output as out
from hyperion.cli.output import Column, emit

FINDINGS: list[Column[Finding]] = [
    Column("TRIED", lambda row: row.what),
    Column("WORKS", lambda row: "yes" if row.works else "no"),
    Column("FOUND", lambda row: row.found),
    Column("TO GRANT", lambda row: row.grant),
]
TIERS: list[Column[Tier]] = [
    Column("HOW ROOM IS MADE", lambda row: row.tier),
    Column("KEPT", lambda row: "yes" if row.kept else "no"),
    Column("PROMISE", lambda row: row.promise),
    Column("WHY NOT", lambda row: row.why),
]


def show(output: str) -> None:
    found = probe(Cgroups(f"hyperion-check-{os.getpid()}"))
    emit(found, output, lambda wide: _table(found, wide))


def _table(found: Promises, wide: bool) -> str:
    host = ", ".join(f"{name} {value}" for name, value in found.host.items())
    tables = (out.table(FINDINGS, found.findings, wide), out.table(TIERS, found.tiers, wide))
    return "\n\n".join((host, *tables))
