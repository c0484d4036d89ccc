"""What a replica draws from the wall, for its carbon: the makers' rated power, by type."""

from collections.abc import Mapping

from hyperion.model.resources import MILLI, ResourceRequest

#: Board power in watts under full load (TDP or TBP), of the SXM or OAM form where there are
#: several, since the clouds rent those. Written down from memory of the makers' figures in
#: 2026-11 and not
#: checked against their sheets one by one: good for comparing places, not for a power bill.
#: GH200, GB200, GB300: per GPU (a module's CPU counts as CPU).
GPU_WATTS: Mapping[str, float] = {
    "K80": 150.0,  # one of the two GPUs of a 300 W board, as the clouds count them
    "M60": 150.0,  # likewise
    "P4": 75.0,
    "P40": 250.0,
    "P100": 300.0,
    "T4": 70.0,
    "V100": 300.0,
    "V100-32GB": 300.0,
    "A2": 60.0,
    "A10": 150.0,
    "A10G": 300.0,
    "A16": 62.5,  # one of the four GPUs of a 250 W board
    "A30": 165.0,
    "A40": 300.0,
    "A100": 400.0,
    "A100-80GB": 400.0,
    "L4": 72.0,
    "L40": 300.0,
    "L40S": 350.0,
    "H100": 700.0,
    "H200": 700.0,
    "GH200": 900.0,
    "B100": 700.0,
    "B200": 1000.0,
    "B300": 1400.0,
    "GB200": 1200.0,
    "GB300": 1400.0,
    "RTX2080Ti": 250.0,
    "RTX3060": 170.0,
    "RTX3070": 220.0,
    "RTX3080": 320.0,
    "RTX3090": 350.0,
    "RTX4070": 200.0,
    "RTX4080": 320.0,
    "RTX4090": 450.0,
    "RTX5080": 360.0,
    "RTX5090": 575.0,
    "RTX6000": 295.0,
    "RTX6000-Ada": 300.0,
    "RTXA4000": 140.0,
    "RTXA5000": 230.0,
    "RTXA6000": 300.0,
    "RTXPRO6000": 600.0,
    "MI100": 300.0,
    "MI210": 300.0,
    "MI250": 560.0,
    "MI250X": 560.0,
    "MI300X": 750.0,
    "MI325X": 1000.0,
    "MI350X": 1000.0,
    "MI355X": 1400.0,
    "Gaudi2": 600.0,
    "Gaudi3": 900.0,
}

UNKNOWN_GPU_WATTS = 300.0
"""For a type not in the table, or where any type will do: about the middle of the table."""

CPU_WATTS_PER_CORE = 3.54
"""One vCPU at full load, the mean over the clouds' processors: MAX_WATTS_AVG of Cloud Carbon
Footprint (Apache-2.0, packages/azure/src/domain/AzureFootprintEstimationConstants.ts, read
2026-07), which derives it from SPECpower results."""

MEMORY_WATTS_PER_GIB = 0.392
"""Cloud Carbon Footprint's MEMORY_COEFFICIENT, 0.000392 kWh per GB-hour (same file)."""


def gpu_watts(gpu_type: str) -> float:
    """Watts of one whole GPU of this type under full load; ``UNKNOWN_GPU_WATTS`` if not known."""
    return GPU_WATTS.get(gpu_type, UNKNOWN_GPU_WATTS)


def replica_watts(request: ResourceRequest, gpu_type: str = "") -> float:
    """Watts that a replica draws while it uses all it asked for, before the site's overhead (PUE).

    ``gpu_type`` is the type it would really get, where the request leaves that open. An upper
    bound: what a replica leaves idle draws less.
    """
    gpus = request.gpus_milli / MILLI * gpu_watts(gpu_type or request.gpu_type)
    cpus = request.cpus_milli / MILLI * CPU_WATTS_PER_CORE
    return gpus + cpus + request.memory_mib / 1024 * MEMORY_WATTS_PER_GIB
