"""The machines of a simulated cluster: all alike, or a list of real ones."""

from collections.abc import Iterable, Mapping

from hyperion.model.accelerators import canonical
from hyperion.model.ids import NodeId
from hyperion.model.node import PAUSE, Node
from hyperion.model.resources import MILLI, Capacity
from hyperion.sim.traces.cells import Cells

NODES_PER_RACK = 16
RACKS_PER_BLOCK = 8
BLOCKS_PER_ZONE = 4
CPUS_PER_GPU = 12
MEMORY_PER_GPU_MIB = 128 * 1024
CPUS_WITHOUT_GPU = 64
_ABILITIES = {PAUSE: "simulated"}
MEMORY_WITHOUT_GPU_MIB = 256 * 1024


def uniform(
    nodes: int,
    gpus: int,
    gpu_type: str,
    usd_per_gpu_hour: float = 0.0,
    cpus: int = 0,
) -> list[Node]:
    """So many alike, in racks of 16, blocks of 8 racks and zones of 4 blocks."""
    capacity = Capacity(
        gpus=gpus,
        gpu_type=gpu_type if gpus else "",
        cpus_milli=MILLI * (cpus or CPUS_PER_GPU * gpus or CPUS_WITHOUT_GPU),
        memory_mib=MEMORY_PER_GPU_MIB * gpus or MEMORY_WITHOUT_GPU_MIB,
        disk_mib=4 * 1024 * 1024,
    )
    width = max(4, len(str(nodes - 1)))
    return [
        Node(
            id=NodeId(f"n{n:0{width}}"),
            capacity=capacity,
            labels=_place(n),
            abilities=_ABILITIES,
            usd_per_hour=usd_per_gpu_hour * gpus,
        )
        for n in range(nodes)
    ]


def listed(
    rows: Iterable[Mapping[str, object]], prices: Mapping[str, float] | None = None
) -> list[Node]:
    """A list of real nodes: columns ``sn``, ``cpu_milli``, ``memory_mib``, ``gpu``, ``model``.

    A bad row is a ``TraceError`` with its line and column: a cluster with a hole would mislead.
    """
    prices = prices or {}
    found = []
    for n, (line, row) in enumerate(enumerate(rows, 2)):
        cells = Cells(line, row)
        model = _type(cells.text("model", ""))
        gpus = cells.whole("gpu", least=0)
        found.append(
            Node(
                id=NodeId(cells.text("sn")),
                capacity=Capacity(
                    gpus=gpus,
                    gpu_type=model if gpus else "",
                    cpus_milli=cells.whole("cpu_milli", least=1),
                    memory_mib=cells.whole("memory_mib", least=1),
                ),
                labels=_place(n),
                abilities=_ABILITIES,
                usd_per_hour=gpus * prices.get(model, 0.0),
            )
        )
    return found


def _type(model: str) -> str:
    """``V100M32`` is the 32 GB part; what is not known (``G2``) keeps its name."""
    by_memory = {"V100M16": "V100", "V100M32": "V100-32GB"}
    return by_memory.get(model) or canonical(model) or model


def _place(n: int) -> dict[str, str]:
    rack = n // NODES_PER_RACK
    block = rack // RACKS_PER_BLOCK
    return {
        "zone": f"z{block // BLOCKS_PER_ZONE}",
        "block": f"b{block}",
        "rack": f"r{rack}",
    }
