"""``make demo`` as people run it, stop it and break it: it tells its story and leaves nothing."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

from daemons import processes_of, until

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = Path("/tmp/hyperion-checkpoints")
COLUMNS = 80


class Showing:
    """The demo in a session of its own, its output on a terminal or in a pipe."""

    def __init__(self, terminal=False, **environ):
        reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "demo.py")],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", **environ},
        )
        os.close(writer)
        self.reader = os.fdopen(reader, "rb", buffering=0)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)

    def read_until(self, words):
        """Read on until the words come, or to the end when there are none."""
        while not words or words not in self.text:
            piece = b""
            with suppress(OSError):  # a terminal that nobody writes to any more
                piece = self.reader.read(4096)
            if not piece:
                assert not words, f"{words!r} never came:\n{self.text}"
                return self.text
            self.text += piece.decode(errors="replace").replace("\r\n", "\n")
        return self.text

    def ended(self):
        """(exit code, all it said), once it has ended."""
        text = self.read_until("")
        return self.process.wait(60), text

    def home(self):
        return Path(re.search(r"state +(/\S*hyperion-demo-\S+)", self.text)[1])

    def nothing_is_left(self):
        until(lambda: not processes_of(self.home()), "the last process to go", 5)
        assert not self.home().exists()
        jobs = re.findall(r"follow it: hyperion logs -f (\S+)", self.text)
        assert not [job for job in jobs if (CHECKPOINTS / job).exists()]


def test_the_demo_tells_its_story_on_a_small_terminal_without_colours():
    began = time.monotonic()
    with Showing(terminal=True, NO_COLOR="1", COLUMNS=str(COLUMNS)) as demo:
        code, text = demo.ended()
    assert code == 0, text
    assert time.monotonic() - began < 60
    assert "\x1b[3" not in text
    assert "\x1b[1m" not in text
    table = text.partition("$ hyperion plan")[2].partition("prices as of")[0].splitlines()
    assert not [line for line in table[1:] if line and len(line) > COLUMNS and "policy" not in line]
    for command in ("up", "clusters", "plan", "run", "why", "ps", "cancel", "down"):
        assert f"\n$ hyperion {command}" in text
    assert "target of 95% reached" in text
    assert re.search(r"together: 0\.0\d+ \$", text)
    demo.nothing_is_left()


def test_a_demo_that_is_stopped_in_mid_training_leaves_nothing():
    number = signal.SIGINT
    with Showing() as demo:
        demo.read_until("epoch 1/")
        os.killpg(demo.process.pid, number)
        demo.read_until("cleaning up")
        os.killpg(demo.process.pid, number)  # people press twice
        code, text = demo.ended()
    assert code == 128 + number, text
    demo.nothing_is_left()


def test_a_demo_whose_training_fails_says_so_and_leaves_nothing():
    with Showing() as demo:
        demo.read_until("epoch 1/")
        cancel = [str(Path(sys.executable).parent / "hyperion"), "cancel", "train"]
        environ = {**os.environ, "HYPERION_HOME": str(demo.home())}
        subprocess.run(cancel, env=environ, check=True, capture_output=True, timeout=30)
        code, text = demo.ended()
    assert code == 1, text
    assert "The demo failed: 'hyperion wait train' ended with 1" in text
    assert "-- federation.log" in text
    demo.nothing_is_left()


def test_a_reader_that_has_seen_enough_ends_the_demo():
    with Showing() as demo:
        demo.read_until("$ hyperion clusters")
        demo.reader.close()
        demo.process.wait(60)
    demo.nothing_is_left()
