"""The shape of the house: short functions and modules, honest names, nothing dead or dangling."""

import ast
import importlib.util
import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
GENERATED = SOURCE / "hyperion" / "wire" / "generated"
FUNCTION_LINES = 60
MODULE_LINES = 500
BANNED = re.compile(
    "utils?|helpers?|common|misc|base|manager|handler|services?|processor|engine|data|info"
)
ALLOWED = {
    "NearestData": "the policy is called nearest-data, and says what it is near to",
    "hyperion.adapters.link.services": "what a gRPC server offers is called a service by gRPC",
}
"""Modules and classes that bear a banned name, and why."""
PUBLIC = {
    "hyperion.client": "what users import",
    "hyperion.workload.sitecustomize.sitecustomize": "Python itself imports it, by PYTHONPATH",
}
FOR_TESTS = {
    "hyperion.sim": "the seeded world is there to test the machines",
    "hyperion.adapters.store.memory": "the store of rehearsals, under the contract of the real one",
}
"""Modules, with all below them, that only tests need import."""
ROOMS = ["model", "placement", "control", "wire", "adapters", "daemon", "sim", "client", "cli"]


def name_of(path):
    """``src/hyperion/wire/__init__.py`` → ``hyperion.wire``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules():
    """Every module of ours by name: its path and its tree."""
    paths = [p for p in sorted(SOURCE.rglob("*.py")) if GENERATED not in p.parents]
    return {name_of(p): (p, ast.parse(p.read_text(encoding="utf-8"))) for p in paths}


@cache
def nodes(*kinds):
    """(module, node) of every node of these kinds."""
    return [(name, node) for name, node in noted() if isinstance(node, kinds)]


@cache
def noted():
    """The few nodes that matter here, found in one walk through everything."""
    kept = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.Import, ast.ImportFrom)
    return [
        (name, node)
        for name, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, kept)
    ]


def listed(faults):
    return "\n  ".join(["", *sorted(faults)])


# -- shape ----------------------------------------------------------------------------------------


def test_functions_are_short():
    long = [
        f"{name}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long, f"at most {FUNCTION_LINES} lines:{listed(long)}"


def test_modules_are_short():
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, (path, _) in modules().items()
    }
    long = [f"{name} has {n} lines" for name, n in lengths.items() if n > MODULE_LINES]
    assert not long, f"at most {MODULE_LINES} lines:{listed(long)}"


def test_every_module_says_what_it_is_for():
    silent = [name for name, (_, tree) in modules().items() if not ast.get_docstring(tree)]
    assert not silent, f"no docstring:{listed(silent)}"


def test_no_module_has_an_empty_name():
    vague = [
        name
        for name in modules()
        if any(map(BANNED.fullmatch, name.rpartition(".")[2].split("_"))) and name not in ALLOWED
    ]
    assert not vague, f"a name that says nothing of the contents:{listed(vague)}"


def test_no_class_has_an_empty_name():
    """The last word counts: a DataSource is a source."""
    vague = [
        f"{name}:{node.lineno} {node.name}"
        for name, node in nodes(ast.ClassDef)
        if BANNED.fullmatch(re.findall(r"[A-Z]+[a-z0-9]*|[a-z0-9]+", node.name)[-1].lower())
        and node.name not in ALLOWED
    ]
    assert not vague, f"a name that says nothing of the contents:{listed(vague)}"


def test_exceptions_to_the_names_are_still_needed():
    known = set(modules()) | {node.name for _, node in nodes(ast.ClassDef)}
    assert set(ALLOWED) <= known, "remove what is gone from ALLOWED"


# -- nothing dead ---------------------------------------------------------------------------------


def imported_by(found, package):
    """Names of modules that some nodes import; a package counts with its member."""
    for node in found:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def with_packages(name):
    """``a.b.c`` → a, a.b, a.b.c: importing the last runs them all."""
    parts = name.split(".")
    return {".".join(parts[: n + 1]) for n in range(len(parts))}


def commands():
    """Modules that the command line imports by name, from the table in cli/main.py."""
    _, tree = modules()["hyperion.cli.main"]
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "COMMANDS":
            return {f"hyperion.cli.{entry[0]}" for entry in ast.literal_eval(node.value).values()}
    raise AssertionError("cli/main.py has no table COMMANDS")


def outside(*folders):
    """What scripts, benchmarks, examples or tests import."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from imported_by(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), "")


def entries():
    """Where a use of the house begins."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield from (target.partition(":")[0] for target in scripts["scripts"].values())
    yield from commands()
    yield from PUBLIC
    yield from outside("bench", "examples", "scripts")
    yield from (n for n in outside("tests") if with_packages(n) & set(FOR_TESTS))
    for name, node in nodes(ast.If):
        if ast.unparse(node.test) == "__name__ == '__main__'":
            yield name


def test_every_module_is_used():
    """From the entry points each can be reached by imports; tests do not count as a use."""
    reached, to_visit = set(), set(entries())
    imports = defaultdict(list)
    for name, node in nodes(ast.Import, ast.ImportFrom):
        imports[name].append(node)
    while to_visit:
        name = to_visit.pop()
        for step in with_packages(name) & set(modules()) - reached:
            reached.add(step)
            is_package = modules()[step][0].name == "__init__.py"
            package = step if is_package else step.rpartition(".")[0]
            to_visit |= set(imported_by(imports[step], package))
    dead = set(modules()) - reached
    assert not dead, f"nothing leads to:{listed(dead)}"


# -- documents ------------------------------------------------------------------------------------


def pages():
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def exists(room):
    """A file, a folder, or a module or folder of src/hyperion named without its ending."""
    candidates = (ROOT / room, SOURCE / "hyperion" / room, SOURCE / "hyperion" / f"{room}.py")
    return any(path.exists() for path in candidates)


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_what_exists(page):
    """Relative links lead somewhere, and paths in backticks are there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    lost = [link for link in links if not (page.parent / link).exists()]
    tops = "|".join([*ROOMS, "src", "tests", "docs", "proto", "scripts", "bench", "examples"])
    named = re.findall(rf"`((?:{tops})/[\w./-]*\w/?)`", text)
    lost += [room for room in named if not exists(room)]
    assert not lost, f"{page.relative_to(ROOT)} names what is not there:{listed(set(lost))}"


def test_drawn_life_cycles_are_current():
    spec = importlib.util.spec_from_file_location("lifecycle", ROOT / "scripts" / "lifecycle.py")
    lifecycle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lifecycle)
    drawn = lifecycle.PAGE.read_text(encoding="utf-8")
    assert drawn == lifecycle.page(drawn), "stale; run: python scripts/lifecycle.py"


def test_checks_and_planner_know_the_same_policies():
    """``model`` may not import ``placement``, so the names are written down in both."""
    from hyperion.model.checks import POLICIES
    from hyperion.placement.ranking import BUILT_IN

    assert sorted(POLICIES) == sorted(BUILT_IN)
