"""Draws the life cycles in docs/lifecycle.md from the tables that the state machines obey.

python scripts/lifecycle.py [--check]

Writes the parts between the page's marks anew; ``--check`` only says whether they are current.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

from hyperion.model import allocation, job

PAGE = Path(__file__).resolve().parent.parent / "docs" / "lifecycle.md"
Table = Mapping[Enum, frozenset[Enum]]
LIVES: dict[str, Table] = {"job": job.TRANSITIONS, "allocation": allocation.TRANSITIONS}


def diagram(table: Table) -> str:
    """A Mermaid state diagram. What leads to every end is one arrow to the frame around them."""
    ends = frozenset(state for state, following in table.items() if not following)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(table)).value}"]
    for state, following in table.items():
        lines += [
            f"    {state.value} --> {other.value}"
            for other in table
            if other in following and not (other in ends and ends <= following)
        ]
        if following and ends <= following:
            lines.append(f"    {state.value} --> ended")
    lines += ["    state ended {", *(f"        {s.value}" for s in table if s in ends), "    }"]
    return "\n".join([*lines, "```"])


def meanings(table: Table) -> str:
    """A row a state: what the source says it means, and what may follow."""
    said = _documented(type(next(iter(table))))
    rows = ["| state | meaning | may become |", "|---|---|---|"]
    for state, following in table.items():
        after = ", ".join(s.value for s in table if s in following) or "nothing: it is an end"
        rows.append(f"| `{state.value}` | {said.get(state.name, '')} | {after} |")
    return "\n".join(rows)


def page(old: str) -> str:
    """The page with every marked part drawn anew. ValueError when a mark is missing."""
    for name, table in LIVES.items():
        begin, end = f"<!-- life of {name} -->\n", f"<!-- /life of {name} -->"
        head, found, rest = old.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{PAGE}: the marks {begin.strip()} and {end} are missing")
        old = f"{head}{begin}{diagram(table)}\n\n{meanings(table)}\n{end}{tail}"
    return old


def _documented(enum: type[Enum]) -> dict[str, str]:
    """Member → the string written below it in the source."""
    found = dict(_pairs(ast.parse(inspect.getsource(enum)).body[0]))
    return {name: " ".join(text.split()) for name, text in found.items()}


def _pairs(node: ast.AST) -> Iterator[tuple[str, str]]:
    assert isinstance(node, ast.ClassDef)
    for before, after in zip(node.body, node.body[1:], strict=False):
        match before, after:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when stale")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        sys.stderr.write(f"{PAGE} is stale; run: python scripts/lifecycle.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
