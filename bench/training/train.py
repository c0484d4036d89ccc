"""One deterministic training run as a program of its own, of NumPy, torch or JAX.

Run: ``python bench/training/train.py numpy|torch|jax STEPS PAGE``. It knows nothing of hyperion:

* It prints a line a step, ``STEP LOSS`` with every bit of the loss, and in the end the SHA-256 of
  the parameters.
* It writes into PAGE, a file of 4,096 bytes that others have mapped too, which phase it is in.
* SIGTERM: it saves a checkpoint in ``HYPERION_CHECKPOINT_DIR`` at the end of its step and exits
  with 143. ``HYPERION_RESUME_FROM`` names the checkpoint to go on from.
"""

import contextlib
import hashlib
import importlib
import mmap
import os
import signal
import sys
from pathlib import Path

PHASES = (
    "unborn",
    "starting",
    "data loading",
    "forward and backward",
    "optimizer step",
    "committing a step",
    "saving a checkpoint",
    "ended",
)
UNBORN, STARTING, DATA, COMPUTE, OPTIMIZER, COMMIT, CHECKPOINT, ENDED = range(len(PHASES))
PAGE_BYTES = 4096
STOPPED = 128 + signal.SIGTERM
KEPT = 2


class Run:
    """What a run tells of itself, and how it is stopped and gone on with."""

    def __init__(self, steps: int, page: Path) -> None:
        self.steps = steps
        self._is_asked = False
        signal.signal(signal.SIGTERM, self._ask)  # before anything that takes long
        with page.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), PAGE_BYTES)).cast("Q")
        self._library = None
        if "HYPERION_WORKLOAD_PAGE" in os.environ:
            self._library = importlib.import_module("hyperion")
        self.enters(STARTING)

    def _ask(self, *_: object) -> None:
        self._is_asked = True

    def enters(self, phase: int) -> None:
        self._words[0] = phase

    def loads(self) -> None:
        self.enters(DATA)

    def computes(self) -> None:
        self.enters(COMPUTE)

    def updates(self) -> None:
        self.enters(OPTIMIZER)

    def checkpoint(self) -> bytes | None:
        """What ``save`` was given in an earlier life; None: this is the first one."""
        if self._library is not None:
            return self._library.restore({"at": b""})["at"] or None
        path = os.environ.get("HYPERION_RESUME_FROM")
        return Path(path).read_bytes() if path else None

    def commit(self, step, loss, state) -> None:
        """The step is done. ``state()`` gives the bytes to go on from, should this be the end."""
        self.enters(COMMIT)
        _tell(f"{step} {loss.hex()}")
        self._words[1] += 1
        if self._library is not None:
            self._library.step({"at": state()}, step=step)
        elif self._is_asked:
            self.enters(CHECKPOINT)
            save(Path(os.environ["HYPERION_CHECKPOINT_DIR"]), step, state())
            sys.exit(STOPPED)

    def ends(self, parameters) -> None:
        """``parameters``: the bytes of each."""
        self.enters(ENDED)
        _tell(f"end {hashlib.sha256(b''.join(parameters)).hexdigest()}")


def _tell(line):
    """One write, so that no line is ever half there."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def save(directory, step, content):
    """Whole or not at all, and on the disk before it has its name."""
    draft = directory / f"step-{step}.draft"
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / f"step-{step}.ckpt")
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    for older in saved(directory)[:-KEPT]:
        with contextlib.suppress(FileNotFoundError):
            older.unlink()


def saved(directory):
    """Checkpoints, the newest last."""
    return sorted(directory.glob("step-*.ckpt"), key=lambda path: int(path.stem[5:]))


def main():
    framework, steps, page = sys.argv[1:]
    run = Run(int(steps), Path(page))
    importlib.import_module(f"with_{framework}").train(run)


if __name__ == "__main__":
    main()
