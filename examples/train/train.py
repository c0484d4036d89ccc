"""Data-parallel training with nothing but numpy: each replica takes its part of every batch.

Reads EPOCHS, TARGET (test accuracy to reach), SEED, and what Hyperion gives: RANK, WORLD_SIZE,
MASTER_ADDR, MASTER_PORT, HYPERION_JOB_ID and HYPERION_CHECKPOINT_DIR. Started again, it goes on
after the last epoch that rank 0 has kept. Ends with 1 when the accuracy was not reached.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

import numpy as np
from digits import CLASSES, SIDE, Array, draw
from numpy.typing import NDArray
from ring import Ring

EPOCHS = int(os.environ.get("EPOCHS", "8"))
TARGET = float(os.environ.get("TARGET", "0.95"))
SEED = int(os.environ.get("SEED", "1"))
TRAIN, TEST, BATCH, HIDDEN = 30_000, 4_000, 128, 128
RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-4
SHAPES = ((SIDE * SIDE, HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES), (1, CLASSES))


def main() -> int:
    with Ring() as ring:
        pictures, labels = draw(TRAIN, SEED)
        unseen = draw(TEST, SEED + 1)
        weights, speed, done = _resume(ring)
        if ring.rank == 0:
            print(f"{ring.size} replicas, {len(weights)} weights, {TRAIN} pictures", flush=True)
            begun = f"resumed after epoch {done}" if done else "from random weights"
            print(f"{begun}: test accuracy {accuracy(weights, *unseen):.1%}", flush=True)
        reached = accuracy(weights, *unseen)
        for epoch in range(done + 1, EPOCHS + 1):
            started = time.monotonic()
            loss = _epoch(ring, epoch, weights, speed, pictures, labels)
            reached = accuracy(weights, *unseen)
            if ring.rank == 0:
                _keep(epoch, weights, speed)
                took = time.monotonic() - started
                print(
                    f"epoch {epoch}/{EPOCHS}  loss {loss:.4f}  test accuracy {reached:.1%}  "
                    f"{TRAIN / took:,.0f} pictures/s",
                    flush=True,
                )
        return _verdict(ring, reached)


def _verdict(ring: Ring, reached: float) -> int:
    good = reached >= TARGET
    if ring.rank == 0:
        word = "reached" if good else "NOT reached"
        print(f"accuracy {reached:.1%}: target of {TARGET:.0%} {word}", flush=True)
        if good:
            _forget()
    return 0 if good else 1


def _epoch(
    ring: Ring,
    epoch: int,
    weights: Array,
    speed: Array,
    pictures: Array,
    labels: NDArray[np.int64],
) -> float:
    """One pass over the pictures in an order that all replicas draw alike; the mean loss."""
    order = np.random.default_rng((SEED, epoch)).permutation(TRAIN)
    total = np.zeros(1, dtype=np.float32)
    for start in range(0, TRAIN, BATCH):
        batch = order[start : start + BATCH]
        mine = batch[ring.rank :: ring.size]
        loss, gradient = _gradient(weights, pictures[mine], labels[mine])
        gradient = ring.sum(gradient) / len(batch) + DECAY * weights
        speed *= MOMENTUM
        speed -= RATE * gradient
        weights += speed
        total += loss
    return float(ring.sum(total)[0]) / TRAIN


def _layers(weights: Array) -> list[Array]:
    """Views of the one flat array."""
    ends = np.cumsum([rows * columns for rows, columns in SHAPES])[:-1]
    return [
        part.reshape(shape) for part, shape in zip(np.split(weights, ends), SHAPES, strict=True)
    ]


def _scores(weights: Array, pictures: Array) -> tuple[Array, Array]:
    """(hidden activations, logarithms of the classes' probabilities)."""
    inner, inner_bias, outer, outer_bias = _layers(weights)
    hidden = np.maximum(pictures @ inner + inner_bias, 0.0)
    raw = hidden @ outer + outer_bias
    raw -= raw.max(axis=1, keepdims=True)
    return hidden, raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))


def _gradient(weights: Array, pictures: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
    """Summed cross-entropy over the pictures, and its gradient."""
    if not len(labels):
        return 0.0, np.zeros_like(weights)
    hidden, scores = _scores(weights, pictures)
    rows = np.arange(len(labels))
    loss = -float(scores[rows, labels].sum())
    at_output = np.exp(scores)
    at_output[rows, labels] -= 1.0
    at_hidden = (at_output @ _layers(weights)[2].T) * (hidden > 0)
    parts = (
        pictures.T @ at_hidden,
        at_hidden.sum(axis=0),
        hidden.T @ at_output,
        at_output.sum(axis=0),
    )
    return loss, np.concatenate([part.ravel() for part in parts])


def accuracy(weights: Array, pictures: Array, labels: NDArray[np.int64]) -> float:
    return float((_scores(weights, pictures)[1].argmax(axis=1) == labels).mean())


def _fresh() -> Array:
    dice = np.random.default_rng(SEED)
    parts = [
        dice.normal(0.0, (2.0 / rows) ** 0.5 if rows > 1 else 0.0, rows * columns)
        for rows, columns in SHAPES
    ]
    return np.concatenate(parts).astype(np.float32)


# -- checkpoints: rank 0 keeps them, and tells the others, whose machines may not see its disk ----


def _place() -> Path | None:
    """A directory for each job, so that a second run begins anew."""
    directory = os.environ.get("HYPERION_CHECKPOINT_DIR")
    return Path(directory) / os.environ.get("HYPERION_JOB_ID", "job") if directory else None


def _resume(ring: Ring) -> tuple[Array, Array, int]:
    """(weights, speed, epochs done), as rank 0 has them."""
    weights = _fresh()
    speed, done = np.zeros_like(weights), np.zeros(1, dtype=np.float32)
    place = _place()
    if ring.rank == 0 and place is not None and (place / "last.npz").exists():
        with np.load(place / "last.npz", allow_pickle=False) as kept:
            if kept["weights"].shape != weights.shape:
                sys.exit(f"{place / 'last.npz'} is of another network; remove it to begin anew")
            weights, speed, done = kept["weights"], kept["speed"], kept["done"]
    return ring.from_first(weights), ring.from_first(speed), int(ring.from_first(done)[0])


def _keep(epoch: int, weights: Array, speed: Array) -> None:
    """Replace the checkpoint in one step: a kill at any moment leaves a whole one."""
    place = _place()
    if place is None:
        return
    if not place.parent.exists():
        place.parent.mkdir(parents=True)
        place.parent.chmod(0o1777)  # like /tmp: others on this machine keep theirs here, too
    place.mkdir(mode=0o700, exist_ok=True)
    draft = place / "next.npz"
    np.savez(draft, weights=weights, speed=speed, done=np.array([epoch], dtype=np.float32))
    draft.replace(place / "last.npz")


def _forget() -> None:
    """The goal is reached: nothing is left to resume. (A real job would keep its model.)"""
    place = _place()
    if place is not None:
        for name in ("last.npz", "next.npz"):
            (place / name).unlink(missing_ok=True)
        if place.is_dir():
            place.rmdir()
        with contextlib.suppress(OSError):  # others' are there
            place.parent.rmdir()


if __name__ == "__main__":
    sys.exit(main())
