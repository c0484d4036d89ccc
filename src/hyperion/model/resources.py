"""Quantities of compute: what a replica asks for, what a node has."""

from msgspec import Struct

from hyperion.model.constraints import NodeTerm

MILLI = 1000
"""One whole GPU or CPU in thousandths."""


class ResourceRequest(Struct, frozen=True, omit_defaults=True, gc=False):
    """What one replica needs, and where it may be. Several of these are alternatives."""

    gpus_milli: int = 0
    """Thousandths of a GPU. Above one GPU only whole ones; a fraction never straddles devices."""
    gpu_type: str = ""
    """Such as ``A100`` or ``H100``; empty with ``gpus_milli`` set means any type."""
    cpus_milli: int = 1000
    memory_mib: int = 0
    disk_mib: int = 0
    labels: dict[str, str] = {}
    """Each must be on the node with this very value."""
    infra: str = ""
    """``""`` anywhere, ``aws`` one cloud, ``aws/us-east-1`` one region, or a cluster's name."""
    use_spot: bool | None = None
    """True only spot, False never spot, None whatever the objective prefers."""
    custom: tuple[tuple[str, int], ...] = ()
    """Countables of the site's own by name, such as ``(("fpga", 1),)``, in order of the names."""
    affinity: tuple[NodeTerm, ...] = ()

    @property
    def whole_gpus(self) -> int:
        return self.gpus_milli // MILLI

    @property
    def gpu_fraction_milli(self) -> int:
        """The part below one GPU; nonzero only when the request is less than a GPU."""
        return self.gpus_milli % MILLI


class Capacity(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a machine has. Every GPU of a node is of one type."""

    gpus: int = 0
    gpu_type: str = ""
    cpus_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    custom: tuple[tuple[str, int], ...] = ()
