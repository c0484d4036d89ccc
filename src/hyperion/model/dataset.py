"""Datasets that jobs read and write, and the regions in which copies of them lie."""

from msgspec import Struct

MS_PER_DAY = 86_400_000


class Copy(Struct, frozen=True, omit_defaults=True, gc=False):
    """One region in which the dataset lies, or to which it is on its way."""

    region: str
    present: bool = True
    ready_at_ms: int = 0
    """When it is expected there, or came to be; 0: it was there when it was added."""
    source: str = ""
    """The region that it is, or was, brought from."""
    by: str = ""
    """Who brings it: ``job train-7f3a``, or ``advisor``; empty: whoever added it."""
    going: bool = False
    """It is being dropped: not present any more, and nobody can bring it anew until it is gone."""


class Dataset(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    name: str
    size_gib: float
    """As of ``sized_at_ms``."""
    sized_at_ms: int = 0
    growth_gib_per_day: float = 0.0
    keep_h: float = 0.0
    """For how long who brings a copy pays for its storage; 0: for the time that the job runs."""
    copies: tuple[Copy, ...] = ()
    """The oldest first."""

    def gib(self, now_ms: int) -> float:
        """How large it is by now."""
        days = max(0, now_ms - self.sized_at_ms) / MS_PER_DAY
        return self.size_gib + self.growth_gib_per_day * days

    def copy(self, region: str) -> Copy | None:
        """Present, on its way, or going."""
        return next((copy for copy in self.copies if copy.region == region), None)

    @property
    def present(self) -> list[Copy]:
        return [copy for copy in self.copies if copy.present]
