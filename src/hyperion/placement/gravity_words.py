"""What a job pays for its data, in sentences whose amounts add up as shown. Pure text."""

from hyperion.model.job import DataSource, Job
from hyperion.placement.gravity import Haul, Load, Way


def data_lines(there: Load, amounts: list[str]) -> tuple[str, ...]:
    """A sentence a dataset; ``amounts`` are their USD as they are to be shown."""
    return tuple(
        f"data: {_haul(haul)}: {usd}" for haul, usd in zip(there.hauls, amounts, strict=True)
    )


def brought(job: Job, there: Load, region: str) -> str:
    """``150 GiB of data and 2 datasets brought to aws/us-east-1``."""
    parts = []
    if job.data:
        parts.append(f"{_listed_gib(job.data):.4g} GiB of data")
    if there.hauls:
        count = len(there.hauls)
        parts.append(f"{count} dataset" if count == 1 else f"{count} datasets")
    return f"{' and '.join(parts)} brought to {region}"


def moved_grams(there: Load) -> str:
    return f" + {there.gco2e:,.1f} g of carrying data" if there.gco2e else ""


def _haul(haul: Haul) -> str:
    gib = f"{haul.dataset} {haul.gib:,.4g} GiB"
    match haul.way:
        case Way.HERE:
            return f"{gib} lies in {haul.source}"
        case Way.COMING:
            return f"{gib} shared with {haul.by or 'whoever brings it'}, {haul.delay_h:.2g} h to go"
        case Way.MOVED:
            kept = " and storage" if haul.storage_usd else ""
            return f"{gib} from {haul.source}: moved in {haul.delay_h:.2g} h, egress{kept}"
        case Way.AFAR:
            slower = f", {haul.delay_h:.2g} h slower" if haul.delay_h else ""
            return f"{gib} read from afar, {haul.source}{slower}"
        case Way.BACK:
            return f"{gib} written, and brought to {haul.source}"


def _listed_gib(data: tuple[DataSource, ...]) -> float:
    return sum(source.size_gib for source in data)
