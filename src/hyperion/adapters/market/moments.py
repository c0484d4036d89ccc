"""Times as sources write them, to and from ms since 1970."""

from datetime import UTC, datetime

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms_of(text: str) -> int:
    """An ISO 8601 moment; without a zone it is UTC. ``ValueError`` for anything else."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def iso(at_ms: int) -> str:
    """``2026-03-01T08:00:00Z``: to the second, which is what the sources take."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
