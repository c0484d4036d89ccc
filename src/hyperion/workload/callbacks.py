"""Callbacks for trainers that write checkpoints of their own: they are told to in time, and the
cluster is told of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from hyperion.workload.notice import EXIT_CODE
from hyperion.workload.session import Session


def for_trainer(session: Session) -> Any:
    """A ``transformers.TrainerCallback``."""
    transformers: Any = importlib.import_module("transformers")

    class Callback(transformers.TrainerCallback):  # type: ignore[misc,name-defined,unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            session.is_explicit = True
            session.notice.listen()
            session.step = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            del args
            session.end_step(state.global_step)
            if session.notice.given:
                control.should_save = control.should_training_stop = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del control
            path = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
            if state.is_world_process_zero and os.path.isdir(path):
                session.register(path, state.global_step, folder_bytes(path), whole=True)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            if session.notice.given and state.global_step < state.max_steps:
                raise SystemExit(EXIT_CODE)

    return Callback()


def for_lightning(session: Session) -> Any:
    """A Lightning ``Callback``: it saves when the process is told to end, and every
    ``checkpoint.every``."""
    module = next((name for name in ("lightning", "pytorch_lightning") if name in sys.modules), "")
    lightning: Any = importlib.import_module(module or "lightning")
    callback = lightning.pytorch.Callback if hasattr(lightning, "pytorch") else lightning.Callback

    class Callback(callback):  # type: ignore[misc,valid-type,unused-ignore]
        def on_train_start(self, trainer: Any, model: Any) -> None:
            del model
            session.is_explicit = True
            session.notice.listen()
            session.step = trainer.global_step

        def on_train_batch_end(self, trainer: Any, model: Any, *_: Any) -> None:
            del model
            session.end_step(trainer.global_step)
            # Lightning hears SIGTERM itself, and keeps it to itself.
            told = session.notice.given or getattr(trainer, "received_sigterm", False)
            ending = bool(trainer.strategy.reduce_boolean_decision(told, all=False))
            if ending or session.is_save_due():
                self._save(trainer)
            if ending:
                raise SystemExit(EXIT_CODE)

        def _save(self, trainer: Any) -> None:
            step = trainer.global_step
            if not session.place.directory:
                print(
                    f"hyperion: step {step} is not saved: the job has no `checkpoint.dir`",
                    file=sys.stderr,
                )
                return
            path = os.path.join(session.place.step_directory(step), "lightning.ckpt")
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                session.register(path, step, folder_bytes(path), whole=True)
            session.note_saved()

    return Callback()


def folder_bytes(path: str) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    files = (os.path.join(top, name) for top, _, names in os.walk(path) for name in names)
    return sum(map(os.path.getsize, files))
