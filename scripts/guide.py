"""Runs the commands of the guide and the README for real and writes down what they print.

A fence marked ``console`` is a session: lines that begin with ``$ `` are commands (``> `` goes on
with one), the lines below are what it printed. ``<!-- file: NAME -->`` above a fence makes a file
of it in the directory that the commands run in; ``<!-- varies -->`` above a session says that its
output is of one machine and one moment. Each document has a home and a world of its own.

    python scripts/guide.py            run everything; keep old output where only ids, times, ports
                                       and measurements differ
    python scripts/guide.py --check    change nothing; fail where anything else differs
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "docs" / "guide.md", ROOT / "docs" / "scheduling.md", ROOT / "README.md")
SHOWN_HOME = "/home/ada"
COMMAND_S = 90
FENCE = re.compile(
    r"(?P<note><!-- (?P<kind>file: (?P<name>\S+)|varies) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
#: What may differ from run to run, and what stands for it in a comparison.
CHANGING = (
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?Z", "MOMENT"),
    (r"(?<=\(in )[\ddhms]+(?=, )", "SPAN"),
    (r"\b[a-km-z][a-km-z2-9]{9}\b(?=[\w.\s),:\"]|$)", "ID"),
    (r"(?<=127\.0\.0\.1:)\d+", "PORT"),
    (r"\b(process|pid) \d+", "PROCESS"),
    (r"[█·]+ +\d+%", "BAR"),
    (r"\b1\d{12}\b", "MOMENT_MS"),
    (r"-?\d[\d.,e-]* (?=\$|gCO2e)(\$|gCO2e) so far", "SO_FAR"),
    (r"(?<=[ (])(\d+d)?(\d+h)?(\d+m)?\d+(\.\d+)?m?s\b", "SPAN"),
    (r"Python 3\.\d+\.\d+", "PYTHON"),
    (r"hx1\.[\w.-]+", "TOKEN"),
    (r'("(usd|gco2e|heard_ms_ago|\w+_percent|\w+_mb|\w+_gbps|load_1m)": )[\d.e-]+', r"\1NUMBER"),
    (r"-{2,}", "-"),
    (r"[ \t]+", " "),
)


@dataclass
class Command:
    text: str
    printed: str = ""


@dataclass
class House:
    """A home directory with nothing in it, and what was started there."""

    home: Path
    groups: list[int] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.home / "jobs"

    def run(self, command: str) -> str:
        """What a shell prints for the command, both streams in the order they came."""
        with tempfile.TemporaryFile() as out:
            shell = subprocess.Popen(
                ["bash", "-c", command],  # noqa: S607
                cwd=self.work,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            self.groups.append(shell.pid)
            try:
                shell.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                sys.exit(f"not done within {COMMAND_S} s: {command}")
            out.seek(0)
            printed = out.read().decode()
        return "\n".join(
            line.rstrip() for line in printed.replace(str(self.home), SHOWN_HOME).splitlines()
        )

    def close(self) -> None:
        with suppress(SystemExit):
            self.run("hyperion down")
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION_")}
        return kept | {
            "HOME": str(self.home),
            "HYPERION_USER": "ada",
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }


@contextmanager
def moved_in() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="hyp") as place:
        house = House(Path(place))
        house.work.mkdir()
        try:
            yield house
        finally:
            house.close()


def commands(body: str) -> list[Command]:
    """The commands of a session with what is written below each."""
    found: list[Command] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif line.startswith("> ") and found and not found[-1].printed:
            found[-1].text += "\n" + line[2:]
        elif found:
            found[-1].printed += line + "\n"
        else:
            sys.exit(f"a session must begin with a command, not with {line!r}")
    return found


def session(found: list[Command]) -> str:
    parts = []
    for command in found:
        parts.append("$ " + command.text.replace("\n", "\n> "))
        if command.printed.strip():
            parts.append(command.printed.strip("\n"))
    return "\n".join(parts) + "\n"


def shape(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    lines = (line.rstrip() for line in text.strip().splitlines())
    # Whether a job is seen between its cluster's choice and its start is chance.
    return "\n".join(line for line in lines if not line.startswith("assigned to "))


def same(old: list[Command], new: list[Command], varies: bool) -> bool:
    """Whether the sessions differ in nothing but what always differs."""
    return all(
        bool(a.printed.strip()) == bool(b.printed.strip())
        and (varies or shape(a.printed) == shape(b.printed))
        for a, b in zip(old, new, strict=True)
    )


def replayed(document: str, house: House) -> str:
    """The document with every session run anew, or as it is where all of them are the same."""
    differs = False

    def anew(match: re.Match[str]) -> str:
        nonlocal differs
        if match["name"]:
            path = house.work / match["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(match["body"])
        if match["language"] != "console":
            return match[0]
        old, new = commands(match["body"]), []
        for command in old:
            print(f"  $ {command.text.splitlines()[0]}", flush=True)
            new.append(Command(command.text, house.run(command.text)))
        differs |= not same(old, new, match["kind"] == "varies")
        return f"{match['note'] or ''}```console\n{session(new)}```"

    written = FENCE.sub(anew, document)
    # Ids recur from session to session, so all are written anew or none.
    return written if differs else document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail on differences")
    parser.add_argument("documents", nargs="*", type=Path, default=list(DOCUMENTS))
    chosen = parser.parse_args()
    differing = 0
    for path in chosen.documents:
        print(path.name)
        old = path.read_text()
        with moved_in() as house:
            new = replayed(old, house)
        if new == old:
            continue
        differing += 1
        if chosen.check:
            lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "written", "printed")
            print("\n".join(lines))
        else:
            path.write_text(new)
    print(
        f"{differing} of {len(chosen.documents)} documents differ" if differing else "all current"
    )
    return 1 if chosen.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
