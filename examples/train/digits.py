"""A data set made on the spot: digits of a pixel font, shifted, faint, stained and noisy."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

GLYPHS = """
.###. ..#.. .###. .###. ...#. ##### .###. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... #.... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ..##. ..##. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. .#... ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. #.... #...# ...#. #...# #...# ..#.. #...# ....#
.###. .###. ##### .###. ...#. .###. .###. ..#.. .###. .###.
"""
SIDE = 8
CLASSES = 10


def glyphs() -> Array:
    """The ten digits as rows of 0 and 1, each 7 x 5 pixels."""
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    digits = [[[c == "#" for c in row[digit]] for row in rows] for digit in range(CLASSES)]
    return np.array(digits, dtype=np.float32)


def draw(count: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """``count`` pictures of 8 x 8 pixels, one per row, and which digit each shows."""
    dice = np.random.default_rng(seed)
    shapes = glyphs()
    _, height, width = shapes.shape
    labels = dice.integers(0, CLASSES, count)
    tops = dice.integers(0, SIDE - height + 1, count)
    lefts = dice.integers(0, SIDE - width + 1, count)
    pictures = np.zeros((count, SIDE, SIDE), dtype=np.float32)
    for picture, label, top, left in zip(pictures, labels, tops, lefts, strict=True):
        picture[top : top + height, left : left + width] = shapes[label]
    pictures *= dice.uniform(0.6, 1.4, (count, 1, 1)).astype(np.float32)
    pictures += dice.normal(0.0, 0.3, pictures.shape).astype(np.float32)
    pictures[dice.random(pictures.shape) < 0.02] = 1.0  # stains
    return pictures.reshape(count, SIDE * SIDE) - 0.35, labels
