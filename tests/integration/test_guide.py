"""The documents say what is there: commands and flags exist, links lead somewhere, specs parse.

Cheap on purpose. ``python scripts/guide.py --check`` runs all of the guide against a real world.
"""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import pytest

from hyperion.cli.main import cli
from hyperion.wire.spec import job_from_yaml

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide.md"
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
MISTYPED = ["hyperion", "rnu", "train.yaml"]
"""Shown on purpose, with what it is answered."""
SHELL_ENDS = frozenset({"|", "||", "&&", ";", "&", ">", "2>", ">>", "2>&1", "<", ")"})
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def guide_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guide_script", ROOT / "scripts" / "guide.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guide_script"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def texts_with_commands(document: str) -> list[str]:
    """Commands of sessions, lines of shell fences, and ``hyperion …`` in running text."""
    script = guide_script()
    found = []
    for fence in script.FENCE.finditer(document):
        if fence["language"] == "console":
            found += [command.text for command in script.commands(fence["body"])]
        elif fence["language"] == "sh" and not fence["name"]:
            found += fence["body"].replace("\\\n", " ").splitlines()
        elif not fence["language"]:
            found += re.findall(r"^(?:\$ )?(hyperiond? .*)", fence["body"], re.MULTILINE)
    prose = script.FENCE.sub("", document)
    found += re.findall(r"`(hyperiond? [^`\n]+)`", prose)
    return found


def calls(text: str) -> list[list[str]]:
    """The words of each call of hyperion in a shell line, without redirections and pipes."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words = list(lexer)
    found: list[list[str]] = []
    for begin, word in enumerate(words):
        found += [shlex.split(inner) for inner in re.findall(r"\$\((hyperion [^)]*)\)", word)]
        before = words[begin - 1] if begin else ";"
        if word in {"hyperion", "hyperiond"} and (before in SHELL_ENDS or "=" in before):
            end = begin + 1
            while end < len(words) and not set(words[end]) <= set("();<>|&"):
                end += 1
            taken = words[begin:end]
            # "2>" is read as the word "2" and a redirection.
            found.append(taken[:-1] if end < len(words) and taken[-1] == "2" else taken)
    return found


def refuse_unknown(words: list[str]) -> None:
    """Raise click's own error where a command or a flag does not exist."""
    command: click.Command = cli
    args = words[1:] if words[0] == "hyperion" else ["agent", *words[1:]]
    args = args[: args.index("--")] if "--" in args else args
    while isinstance(command, click.Group) and args:
        context = click.Context(command)
        _, args, _ = command.make_parser(context).parse_args(list(args))
        if not args or args[0].isupper():  # hyperion --help, or a placeholder: hyperion COMMAND
            return
        _, found, args = command.resolve_command(context, args)
        assert found is not None, words
        command = found
    if command is not cli:
        command.make_parser(click.Context(command)).parse_args(list(args))


@pytest.mark.parametrize("path", [GUIDE, README, ROOT / "docs" / "cli.md"], ids=lambda p: p.name)
def test_every_command_of_the_documents_exists_with_its_flags(path: Path) -> None:
    known = [words for text in texts_with_commands(path.read_text()) for words in calls(text)]
    assert known
    for words in known:
        if words == MISTYPED:
            continue
        try:
            refuse_unknown(words)
        except click.UsageError as error:
            pytest.fail(f"{path.name}: {shlex.join(words)}: {error.message}")


def test_the_guide_shows_every_command() -> None:
    text = GUIDE.read_text()
    shown = {
        words[1] if words[0] == "hyperion" else "agent"
        for text in texts_with_commands(text)
        for words in calls(text)
        if len(words) > 1
    } | set(re.findall(r"`(\w+)[^`]*`", text))
    missing = set(cli.list_commands(click.Context(cli))) - shown
    assert not missing, f"docs/guide.md never shows {sorted(missing)}"


@pytest.mark.parametrize(
    "wrong", ["hyperion rnu x", "hyperion run --gpu-count 3 x", "echo x | hyperion token mint"]
)
def test_a_check_of_commands_would_notice(wrong: str) -> None:
    (words,) = calls(wrong)
    with pytest.raises(click.UsageError):
        refuse_unknown(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{path.name}: there is no {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path.name}: no heading for {link}"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [GUIDE, README], ids=lambda p: p.name)
def test_specs_of_the_documents_parse(path: Path) -> None:
    found = [
        (fence["name"], fence["body"])
        for fence in guide_script().FENCE.finditer(path.read_text())
        if fence["language"] == "yaml" and fence["name"] != "wrong.yaml"
    ]
    assert found
    for name, body in found:
        job = job_from_yaml(body, source=name, job_id="example", environ={}, now_ms=0)
        assert job.name == Path(name).stem


def test_what_always_differs_is_left_out_of_the_comparison() -> None:
    script = guide_script()
    one = "job a9rjh7rfpt (x) submitted\nassigned to edge\nready 127.0.0.1:4041 after 12s at $0.42"
    two = "job zb2isdr4fg (x) submitted\nready 127.0.0.1:50123 after 3s at $0.42"
    assert script.shape(one) == script.shape(two)
    assert script.shape(one) != script.shape(two.replace("0.42", "0.43"))
