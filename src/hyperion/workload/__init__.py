"""What runs inside a user's process: it imports nothing of ours and only the standard library.

Outside Hyperion all of it may stay where it is: `step` and `point` then do nothing, `restore`
gives back what it was given, and `loop` is a loop.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from hyperion.workload import callbacks, dice, tree
from hyperion.workload.looping import Loop
from hyperion.workload.session import Session

S = TypeVar("S")
C = TypeVar("C", bound=Callable[[], Any])


@functools.cache
def session() -> Session:
    """This process's own."""
    return Session()


def point() -> None:
    """A place inside a step where the workload may pause."""
    session().point()


def step(state: Any = None, *, step: int | None = None) -> None:
    """The end of a step, numbered by the caller or counted from 1.

    With ``state`` (containers, tensors, arrays, JAX pytrees, modules, optimizers) the program can
    be stopped here and started elsewhere: when it is told to end, the state and the random
    generators are written to ``checkpoint.dir`` and the process exits with 143; likewise every
    ``checkpoint.every`` while it runs. ``restore`` gives it back. Raises TypeError for what cannot
    be written, when it is to be written; SystemExit.
    """
    if type(state) is int:
        raise TypeError(f"step({state}) could mean two things: step(step={state}) numbers it")
    own = session()
    own.is_explicit = True
    own.end_step(step, None if state is None else lambda: state)


def restore(state: S) -> S:
    """What the newest checkpoint holds, in the form of ``state``; ``state`` itself where there is
    none. Modules, optimizers and tensors are loaded in place, all else comes back as a value. The
    random generators are set to where they were. ValueError where the forms differ or the file is
    damaged, OSError where it cannot be read.
    """
    own = session()
    own.is_explicit = True
    own.notice.listen()
    saved = own.load()
    if saved is None:
        return state
    restored: S = tree.restore(state, saved.state)
    dice.throw_again(saved.dice)
    return restored


def loop(loader: Any, *parts: Any, epochs: int = 1) -> Loop:
    """Batches of ``loader``, ``epochs`` times: ``for batch in hyperion.loop(loader, model, opt)``.

    Each of ``parts`` has ``state_dict`` and ``load_state_dict``. Owns the random generators and the
    position in the data: a run that is stopped and started again computes the same bits.
    """
    return Loop(session(), loader, parts, epochs)


def on_preempt(callback: C) -> C:
    """Call this once the process is told to end, at the end of the step that runs then. May be
    used as a decorator."""
    own = session()
    own.notice.callbacks.append(callback)
    own.notice.listen()
    return callback


def preempted() -> bool:
    """Whether this process has been told to end: for loops that look themselves."""
    own = session()
    own.notice.listen()
    return own.notice.given


def checkpointed(path: str, *, step: int) -> None:
    """The program has written a checkpoint of its own for all ranks: the job's next start finds
    it as HYPERION_RESUME_FROM. ValueError, OSError where it cannot be told."""
    session().register(os.fspath(path), step, callbacks.folder_bytes(path), whole=True)


def resume_from() -> str | None:
    """The newest checkpoint of an earlier attempt, for programs and trainers that read their own:
    ``trainer.train(resume_from_checkpoint=hyperion.resume_from())``. None: there is none."""
    return session().place.resume_from() or None


def trainer_callback() -> Any:
    """For ``transformers.Trainer(callbacks=[...])``: told to end, it saves and stops after the
    step; every checkpoint that the trainer writes is known to the cluster."""
    return callbacks.for_trainer(session())


def lightning_callback() -> Any:
    """For ``lightning.Trainer(callbacks=[...])``, with ``fit(ckpt_path=hyperion.resume_from())``:
    told to end, it saves into ``checkpoint.dir`` after the step and exits; also every
    ``checkpoint.every``."""
    return callbacks.for_lightning(session())
