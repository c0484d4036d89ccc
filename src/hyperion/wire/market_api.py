"""What the API answers of the market's quotes and of the feeds that bring them."""

from msgspec import Struct


class ForecastView(Struct, frozen=True, kw_only=True):
    at_ms: int
    value: float


class QuoteView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion market ls``: the last good quote of one source about one thing."""

    kind: str
    """``on-demand``, ``spot``, ``egress``, ``carbon`` or ``obtainability``."""
    place: str
    subject: str
    """A machine type, for egress the region of arrival, nothing for carbon."""
    value: float
    unit: str
    source: str
    as_of_ms: int
    age_ms: int
    ttl_ms: int
    stale: bool
    """Older than its time to live: nothing better has come."""
    confidence: float
    """Of its source, when fresh."""
    uncertainty: float
    """0 to 1, growing with age past the time to live."""
    in_force: bool
    """It is what plans reckon with; else another source is less uncertain, or none counts."""
    forecast: tuple[ForecastView, ...] = ()
    note: str = ""


class QuarantinedView(Struct, frozen=True, kw_only=True):
    """A quote that is not used, and why."""

    kind: str
    place: str
    subject: str
    value: float | None
    """None for what is no number."""
    unit: str
    source: str
    reason: str
    why: str
    at_ms: int


class FeedView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion market status``: a source that is asked."""

    name: str
    about: str
    base_url: str
    interval_s: float
    polls: int
    good_ms_ago: int | None
    """Since it last answered; None: not yet."""
    quotes: int
    """Good ones that are held."""
    in_force: int
    quarantined: int
    """Of the last answer."""
    fault: str
    """Why the last poll brought nothing; empty where it brought something."""
    failed: tuple[str, ...] = ()
    """Parts of the last answer that did not come."""


class MarketStatusView(Struct, frozen=True, kw_only=True):
    feeds: tuple[FeedView, ...]
    quarantined: tuple[QuarantinedView, ...]
    """The first ones of each feed's last answer."""
    views_told: int
    """How often a changed market has reached the planner."""
