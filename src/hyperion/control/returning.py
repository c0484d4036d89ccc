"""Spot machines that clusters have had and have not now: they may come back, and jobs with time to
spare may wait for them. In memory only: after a restart nobody waits until some are seen to go.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.cluster import ClusterLoad, Shape
from hyperion.model.ids import ClusterId
from hyperion.model.market import Market
from hyperion.model.resources import MILLI
from hyperion.placement.choice import FleetCluster

KEPT_MS = 7 * 24 * 3_600_000
"""Who has not been there for a week is not waited for."""
MOST_SHAPES = 16
"""Of one cluster; of more the first that were seen."""
_Kind = tuple[str, str, int]


class Gone(Struct, frozen=True):
    shape: Shape
    """With what its nodes had when they were last there, all of it free."""
    gone_ms: int
    """0: it is there."""


class Returning:
    def __init__(self) -> None:
        self._seen: dict[ClusterId, dict[_Kind, Gone]] = {}

    def note(self, cluster: ClusterId, load: ClusterLoad, now_ms: int) -> None:
        """What a cluster has now."""
        there = {_kind(shape): shape for shape in load.shapes if _is_spot(shape) and shape.nodes}
        seen = self._seen.get(cluster, {})
        if not there and not seen:
            return
        kept: dict[_Kind, Gone] = {}
        for kind, known in seen.items():
            gone_ms = known.gone_ms or now_ms
            if kind not in there and now_ms - gone_ms < KEPT_MS:
                kept[kind] = replace(known, gone_ms=gone_ms)
        for kind, shape in there.items():
            kept[kind] = Gone(_emptied(shape), 0)
        self._seen[cluster] = dict(list(kept.items())[:MOST_SHAPES])

    def drop(self, cluster: ClusterId) -> None:
        self._seen.pop(cluster, None)

    def __bool__(self) -> bool:
        return any(known.gone_ms for seen in self._seen.values() for known in seen.values())

    def fleet(self, fleet: Iterable[FleetCluster]) -> Iterator[tuple[FleetCluster, int]]:
        """(a cluster as if it had what has gone, and nothing else; since when it has gone)."""
        for member in fleet:
            gone = [g for g in self._seen.get(member.cluster.id, {}).values() if g.gone_ms]
            if gone and member.reachable:
                load = ClusterLoad(shapes=tuple(g.shape for g in gone))
                yield (
                    FleetCluster(cluster=member.cluster, load=load),
                    min(g.gone_ms for g in gone),
                )


def _is_spot(shape: Shape) -> bool:
    return shape.market is Market.SPOT


def _kind(shape: Shape) -> _Kind:
    return shape.instance_type, shape.capacity.gpu_type, shape.capacity.gpus


def _emptied(shape: Shape) -> Shape:
    each = shape.capacity
    return replace(
        shape,
        free_gpus_milli=shape.nodes * each.gpus * MILLI,
        free_cpus_milli=shape.nodes * each.cpus_milli,
        free_memory_mib=shape.nodes * each.memory_mib,
    )
