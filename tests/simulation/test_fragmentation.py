"""What is free and of no use, kept row by row, is what counting from scratch gives."""

from random import Random

import numpy as np
import pytest

from hyperion.sim import machines
from hyperion.sim.fragmentation import Shape, Stranded


def plainly(nodes, devices, cpus, memory, mixture):
    """By the words of the module: node by node, shape by shape."""
    useless = 0.0
    for shape in mixture:
        for row, node in enumerate(nodes):
            free = devices[row]
            need = min(shape.gpus_milli, 1000)
            fits = cpus[row] >= shape.cpus_milli and memory[row] >= shape.memory_mib
            if shape.gpus_milli >= 1000:
                fits = fits and (free == 1000).sum() >= shape.gpus_milli // 1000
            else:
                fits = fits and free.max() >= shape.gpus_milli
            fits = fits and shape.gpu_type in ("", node.capacity.gpu_type)
            useless += shape.part * (free[free < need].sum() if fits else free.sum())
    return useless / 1000, devices.sum() / 1000


@pytest.mark.parametrize("seed", range(20))
def test_row_by_row_is_from_scratch(seed):
    dice = Random(seed)
    nodes = machines.uniform(5, 4, "A100") + machines.uniform(5, 2, "T4")
    devices = np.zeros((10, 4), np.int32)
    cpus, memory = np.zeros(10, np.int64), np.zeros(10, np.int64)
    for row, node in enumerate(nodes):
        devices[row, : node.capacity.gpus] = 1000
    mixture = [
        Shape(dice.choice((250, 500, 1000, 2000)), dice.choice(("", "A100")), 2000, 1024, 0.25)
        for _ in range(4)
    ]
    kept = Stranded(nodes, devices, cpus, memory, mixture)
    for _ in range(30):
        touched = {dice.randrange(10) for _ in range(dice.randrange(4))}
        for row in touched:
            gpus = nodes[row].capacity.gpus
            devices[row, :gpus] = [dice.choice((0, 250, 500, 1000)) for _ in range(gpus)]
            cpus[row], memory[row] = dice.choice((0, 4000)), dice.choice((0, 2048))
        found = kept.gpus(touched)
        assert found == pytest.approx(plainly(nodes, devices, cpus, memory, mixture))
