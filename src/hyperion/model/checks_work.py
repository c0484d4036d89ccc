"""What is wrong with what a replica runs: scripts and argument vectors."""

from collections.abc import Iterator

from hyperion.model.bounds import (
    MAX_ARGUMENT_BYTES,
    MAX_ARGUMENTS,
    MAX_SCRIPT_BYTES,
)
from hyperion.model.faults import Fault, text_faults


def work_faults(at: str, run: str, command: tuple[str, ...]) -> Iterator[Fault]:
    """Of a script and an argument vector, of which at most one may be given."""
    if run and command:
        yield Fault(at, "found both a script and an argument vector; give one of them")
    yield from script_faults(at, run)
    yield from _command(at, command)


def script_faults(at: str, text: str) -> Iterator[Fault]:
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if size > MAX_SCRIPT_BYTES:
        yield Fault(
            at,
            f"found {size} bytes, expected at most {MAX_SCRIPT_BYTES}; put the script into workdir"
            " and run it from there",
        )
    yield from text_faults(at, text)


def _command(at: str, command: tuple[str, ...]) -> Iterator[Fault]:
    if len(command) > MAX_ARGUMENTS:
        yield Fault(
            at, f"found {len(command)} arguments, expected at most {MAX_ARGUMENTS}; use a file"
        )
        return
    if command and not command[0]:
        yield Fault(f"{at}/0", "found an empty text, expected the program to run")
    total = 0
    for index, argument in enumerate(command):
        size = len(argument.encode(errors="surrogatepass"))
        total += size
        if size > MAX_ARGUMENT_BYTES:
            yield Fault(
                f"{at}/{index}",
                f"found an argument of {size} bytes, expected at most {MAX_ARGUMENT_BYTES};"
                " use a file",
            )
        yield from text_faults(f"{at}/{index}", argument)
    if total > MAX_SCRIPT_BYTES:
        yield Fault(at, f"found {total} bytes of arguments, expected at most {MAX_SCRIPT_BYTES}")
