"""Days and months in UTC, from milliseconds since 1970: the core reads no calendar of a machine."""

import numpy as np


def day_of(ms: int) -> str:
    """``2026-11-27``, ISO 8601."""
    return str(np.datetime64(ms, "ms").astype("datetime64[D]"))


def month_of(ms: int) -> str:
    """``2026-11``."""
    return str(np.datetime64(ms, "ms").astype("datetime64[M]"))


def month_begins_ms(month: str, later: int = 0) -> int:
    """When a month begins, or the one that comes so many months later."""
    begins = np.datetime64(month, "M") + np.timedelta64(later, "M")
    return int(begins.astype("datetime64[ms]").astype(np.int64))
