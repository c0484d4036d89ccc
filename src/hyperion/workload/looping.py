"""A training loop that can be stopped after any step and gone on with elsewhere, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from hyperion.workload import dice, tree
from hyperion.workload.session import Session


class Loop:
    """Iterates over the batches of all epochs, owning the random generators and the position.

    When the next batch is asked for, the step of the one before has ended. The order of the
    batches comes from the generators as they were when the epoch began, so those that were used
    already are read again after a restart, and left out (a loader that has ``state_dict``, such
    as torchdata's StatefulDataLoader, is set to its place instead).
    """

    def __init__(self, session: Session, loader: Any, parts: tuple[Any, ...], epochs: int) -> None:
        for part in parts:
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise TypeError(
                    f"hyperion.loop saves what has state_dict and load_state_dict; "
                    f"{type(part).__name__} has not: use hyperion.step(state) and hyperion.restore"
                )
        self.epoch = 0
        """The one that is running, from 0."""
        self.epochs = epochs
        self._session = session
        self._loader = loader
        self._parts = parts
        self._index = 0
        """Batches of this epoch whose steps have ended."""
        self._epoch_dice: dict[str, Any] = {}
        self._loads_itself = callable(getattr(loader, "load_state_dict", None)) and callable(
            getattr(loader, "state_dict", None)
        )

    @property
    def step(self) -> int:
        """The last step that has ended, in all epochs."""
        return self._session.step

    def __len__(self) -> int:
        return self.epochs * len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        session = self._session
        session.is_explicit = True
        session.notice.listen()
        begun = self._take_up()
        for epoch in range(self.epoch, self.epochs):
            self.epoch = epoch
            for batch in self._batches(begun):
                begun = None
                yield batch
                self._index += 1
                session.end_step(None, self._state, self._where())
            begun = None
            self._index = 0
        session.wait_written()

    def _take_up(self) -> dict[str, Any] | None:
        """The generators of the step that was the last to be saved; None at the beginning."""
        saved = self._session.load()
        if saved is None:
            return None
        if len(saved.state) != len(self._parts):
            raise ValueError(
                f"the checkpoint holds {len(saved.state)} parts, hyperion.loop was given "
                f"{len(self._parts)}"
            )
        for part, state in zip(self._parts, saved.state):  # noqa: B905 - Python 3.9
            tree.restore(part, state)
        where = saved.extra
        self.epoch, self._index = where["epoch"], where["index"]
        self._epoch_dice = where["dice"]
        if self._loads_itself and where["loader"] is not None:
            self._loader.load_state_dict(where["loader"])
        print(f"hyperion: goes on after step {saved.step}", file=sys.stderr)
        return saved.dice

    def _batches(self, begun: dict[str, Any] | None) -> Iterator[Any]:
        """Of one epoch, from the position on. ``begun``: as the generators were there."""
        if begun is None:
            self._epoch_dice = dice.capture()
        else:
            dice.throw_again(self._epoch_dice)
        sampler: Any = getattr(self._loader, "sampler", None)
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(self.epoch)
        with self._session.notice.unheard():  # by the loader's processes, which must stay
            batches = iter(self._loader)
        if begun is not None:
            if not self._loads_itself:
                for _ in range(self._index):
                    next(batches, None)
            dice.throw_again(begun)
        yield from batches

    def _state(self) -> list[Any]:
        return list(self._parts)

    def _where(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "index": self._index,
            "dice": self._epoch_dice,
            "loader": self._loader.state_dict() if self._loads_itself else None,
        }
