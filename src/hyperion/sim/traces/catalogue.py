"""The traces by name: the file each lies in, the columns that it must have, and its reader."""

from collections.abc import Iterable

from msgspec import Struct

from hyperion.sim.trace import TraceError
from hyperion.sim.traces import published, slurm
from hyperion.sim.traces.published import Reader


class Source(Struct, frozen=True, kw_only=True):
    reader: Reader
    file: str
    """Looked for in the directory of ``--data``; empty: only read from a file that is named."""
    columns: tuple[str, ...]
    """By these a file is recognised."""
    about: str
    nodes_file: str = ""
    """The machines that it ran on, where they are published too."""


SOURCES: dict[str, Source] = {
    "philly": Source(
        reader=published.philly,
        file="philly_2017.parquet",
        columns=("submit_ts", "num_gpus", "duration_s"),
        about="Microsoft Philly 2017: training jobs of whole GPUs in virtual clusters",
    ),
    "pai": Source(
        reader=published.pai,
        file="alibaba_pai_2020_100k_gaia.parquet",
        columns=("arrival_s", "duration_s", "cpus"),
        about="Alibaba PAI 2020 as sampled by GAIA: sizes in CPUs",
    ),
    "openb": Source(
        reader=published.openb,
        file="alibaba_openb_pods_2023.parquet",
        columns=("num_gpu", "gpu_milli", "cpu_milli", "creation_s", "deletion_s"),
        about="Alibaba 2023: pods that share GPUs, on 1,523 nodes of many kinds",
        nodes_file="alibaba_openb_nodes_2023.csv",
    ),
    "chronus": Source(
        reader=published.chronus,
        file="chronus_philly_slo_mix.parquet",
        columns=("num_gpu", "submit_s", "duration_s", "expect_time_list"),
        about="Chronus: Philly's arrivals with wanted ends",
    ),
    "gavel": Source(
        reader=published.gavel,
        file="gavel_msr_synthetic_seed0.parquet",
        columns=("job_type", "total_steps", "arrival_s", "scale_factor"),
        about="Gavel: Philly's arrivals with synthetic kinds of jobs",
    ),
    "shockwave": Source(
        reader=published.gavel,
        file="shockwave_460.parquet",
        columns=("job_type", "total_steps", "arrival_s", "scale_factor", "mode"),
        about="Shockwave: 460 jobs of Gavel's kinds",
    ),
    "sia": Source(
        reader=published.sia,
        file="sia_workloads.parquet",
        columns=("time", "application", "num_replicas"),
        about="Sia: adaptive (elastic) jobs",
    ),
    "acme": Source(
        reader=published.acme,
        file="acme_kalos_sample_converted.csv",
        columns=("arrival_time", "num_iteration", "gpu_workers"),
        about="Shanghai AI Lab's Acme (Kalos): a sample of large jobs",
    ),
    "slurm": Source(
        reader=slurm.sacct,
        file="",
        columns=("JobID", "Submit"),
        about="Slurm: what sacct --parsable2 prints",
    ),
}


def source(name: str) -> Source:
    """By name; ``TraceError`` with the nearest name and the list."""
    found = SOURCES.get(name)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name, SOURCES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TraceError(
            f'no trace and no file is called "{name}"{hint} (traces: {", ".join(SOURCES)})'
        )
    return found


def recognised(file: str, columns: Iterable[str]) -> tuple[str, Source]:
    """(name, source) of the trace whose columns a file has: of several the most particular one."""
    there = set(columns)
    fitting = [(len(s.columns), n, s) for n, s in SOURCES.items() if there.issuperset(s.columns)]
    if not fitting:
        known = "; ".join(f"{n}: {', '.join(s.columns)}" for n, s in SOURCES.items())
        raise TraceError(
            f"{file}: its columns ({', '.join(sorted(there)[:40])}) are those of no trace that is"
            f" known ({known})"
        )
    _, name, found = max(fitting, key=lambda f: f[0])
    return name, found
