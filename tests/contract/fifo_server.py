"""Starts ``fifo_application`` as a real process, for tests of what talks to it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

PROGRAM = Path(__file__).with_name("fifo_application.py")


@contextlib.contextmanager
def serving(*flags: str, **settings: Any) -> Iterator[str]:
    """The address of a server with these GatewaySettings; it is ended at the end."""
    argv = [sys.executable, str(PROGRAM), msgspec.json.encode(settings).decode(), *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the server did not come up; its complaint is above"
            yield address if address.startswith("http") else f"unix:{address}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
