"""How long a store keeps its journal."""

from msgspec import Struct

DAY_MS = 24 * 3600 * 1000


class Retention(Struct, frozen=True, kw_only=True):
    """Bounds of the journal. A store trims in steps, so it may hold up to an eighth more."""

    records: int = 100_000
    age_ms: int = 30 * DAY_MS

    def __post_init__(self) -> None:
        if self.records < 1 or self.age_ms < 1:
            raise ValueError(
                f"retention of {self.records} records and {self.age_ms} ms: both must be at least 1"
            )

    @property
    def step(self) -> int:
        """How many records too many are worth a deletion."""
        return max(1, min(256, self.records // 8))
