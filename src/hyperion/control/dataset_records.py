"""What is kept of datasets: their copies, and what a copy would have been worth where."""

from msgspec import Struct

from hyperion.model.dataset import Copy, Dataset


class Worth(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a copy in a region saves, or would have saved, the jobs of late. Both fade by half in a
    week."""

    region: str
    usd: float
    uses: float
    """How many jobs that were."""
    at_ms: int


class DatasetEntry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    dataset: Dataset
    worth: tuple[Worth, ...] = ()
    """One a region."""
    failed: tuple[tuple[str, int], ...] = ()
    """Regions where the hook could not do what it was asked for, and when that was."""


class DatasetKept(Struct, frozen=True, tag=True):
    """The dataset as it is from now on, its copies included."""

    dataset: Dataset
    at_ms: int


class DatasetDropped(Struct, frozen=True, tag=True):
    """Nobody speaks of it any more. Its files are left alone."""

    name: str
    at_ms: int


class CopyStarted(Struct, frozen=True, tag=True):
    """It is on its way, and paid for. What copies elsewhere would have been worth is forgotten: it
    was reckoned without this one."""

    name: str
    copy: Copy
    at_ms: int


class CopyArrived(Struct, frozen=True, tag=True):
    name: str
    region: str
    at_ms: int


class CopyGoing(Struct, frozen=True, tag=True):
    """The hook is asked to drop it, and no job is sent to it any more; or it stays after all."""

    name: str
    region: str
    going: bool
    at_ms: int


class CopyDropped(Struct, frozen=True, tag=True):
    name: str
    region: str
    at_ms: int


class CopyFailed(Struct, frozen=True, tag=True):
    """The hook could not bring it, or drop it; it is not asked again for a while."""

    name: str
    region: str
    at_ms: int


class DatasetUsed(Struct, frozen=True, tag=True):
    """What copies are worth in these regions by now, others unchanged."""

    name: str
    worth: tuple[Worth, ...]
    at_ms: int


RECORDS = frozenset(
    {
        DatasetKept,
        DatasetDropped,
        CopyStarted,
        CopyArrived,
        CopyGoing,
        CopyDropped,
        CopyFailed,
        DatasetUsed,
    }
)
