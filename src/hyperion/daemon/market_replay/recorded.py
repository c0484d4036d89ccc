"""Recorded series from a folder of Parquet files: spot prices as change events, grids by the hour.

Needs pyarrow (``hyperion-x[sim]``). Files that are not there are not missed.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperion.adapters.market.moments import DAY_MS
from hyperion.model.quotes import Kind, Slot

SPOT_FILES: Mapping[str, str] = {
    "aws": "spot/aws_spot_price_events_*.parquet",
    "gcp": "spot/gcp_spot_price_events_*.parquet",
    "azure": "spot/azure_spot_price_events_*.parquet",
}
CARBON_FILES = "energy/carbon_hourly_*zones_*_20*.parquet"
ZONES: Mapping[str, str] = {"DE-LU": "DE"}
"""Zones that the recordings name otherwise."""
AFTER_MS = 30 * DAY_MS
"""So long after its last event a price is still taken to hold; a grid's figure for two hours."""
MOST_ROWS = 20_000_000


class RecordingError(Exception):
    """A folder or a file is not as needed; the message has the remedy."""


class RecordedSeries:
    """Satisfies ``series.Recording``: the cheapest zone's price, the hour's carbon."""

    def __init__(self, folder: Path, machines: Iterable[str]) -> None:
        self._series: dict[Slot, dict[str, tuple[list[int], list[float]]]] = {}
        self.files: list[Path] = []
        self._begins: dict[bool, int] = {}
        """First moment of prices (True) and of grids."""
        root = folder / "dev" if (folder / "dev").is_dir() else folder
        wanted = set(machines)
        for cloud, pattern in SPOT_FILES.items():
            for path in sorted(root.glob(pattern)):
                self._spot(cloud, path, wanted)
        for path in sorted(root.glob(CARBON_FILES)):
            self._carbon(path)
        if not self.files:
            raise RecordingError(
                f"{folder} has no {SPOT_FILES['aws']} or {CARBON_FILES}; leave --data out to"
                " replay the built-in series"
            )

    @property
    def begins_ms(self) -> int:
        """Where a replay should begin: with the prices, since grids are recorded from earlier."""
        return self._begins.get(True, min(self._begins.values(), default=0))

    def value(self, slot: Slot, at_ms: int) -> tuple[float, int] | None:
        """The cheapest zone's value at the moment, and since when it holds."""
        lasts_ms = AFTER_MS if slot[0].is_price else 2 * 3_600_000
        found: tuple[float, int] | None = None
        for times, values in self._series.get(slot, {}).values():
            n = bisect_right(times, at_ms) - 1
            if n < 0 or at_ms > times[-1] + lasts_ms or values[n] != values[n]:
                continue
            if found is None or values[n] < found[0]:
                found = values[n], times[n]
        return found

    def _spot(self, cloud: str, path: Path, wanted: set[str]) -> None:
        names = ("ts", "instance_type", "region", "zone", "spot_usd_h", "listed")
        found: defaultdict[Slot, dict[str, tuple[list[int], list[float]]]] = defaultdict(dict)
        for row in _rows(path, names):
            if row["instance_type"] not in wanted:
                continue
            slot = (Kind.SPOT, f"{cloud}/{row['region']}", row["instance_type"])
            times, values = found[slot].setdefault(row.get("zone") or "", ([], []))
            usd = row["spot_usd_h"] if row["listed"] else None
            times.append(row["ts"])
            values.append(float("nan") if usd is None else round(usd, 4))
        self._take_in(path, found)

    def _carbon(self, path: Path) -> None:
        found: defaultdict[Slot, dict[str, tuple[list[int], list[float]]]] = defaultdict(dict)
        for row in _rows(path, ("ts", "zone", "ci_lca_g_kwh")):
            if "ci_lca_g_kwh" not in row or row["ci_lca_g_kwh"] is None:
                continue
            slot = (Kind.CARBON, ZONES.get(row["zone"], row["zone"]), "")
            times, values = found[slot].setdefault("", ([], []))
            times.append(row["ts"])
            values.append(round(row["ci_lca_g_kwh"], 1))
        self._take_in(path, found)

    def _take_in(
        self, path: Path, found: Mapping[Slot, dict[str, tuple[list[int], list[float]]]]
    ) -> None:
        """Events in order of time; a slot that an earlier file has keeps that file's."""
        for slot, zones in found.items():
            ordered = {}
            for zone, (times, values) in zones.items():
                order = sorted(range(len(times)), key=times.__getitem__)
                ordered[zone] = [times[n] for n in order], [values[n] for n in order]
                first_ms, is_price = ordered[zone][0][0], slot[0].is_price
                self._begins[is_price] = min(self._begins.get(is_price, first_ms), first_ms)
            self._series.setdefault(slot, {}).update(ordered)
        if found:
            self.files.append(path)


def _rows(path: Path, names: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    """The columns that the file has of these, ``ts`` as ms since 1970."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RecordingError(
            f"{path} needs pyarrow: pip install 'hyperion-x[sim]'; without --data the built-in"
            " series are replayed"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > MOST_ROWS:
            raise RecordingError(f"{path} has more than {MOST_ROWS:,} rows")
        columns = [name for name in names if name in file.schema_arrow.names]
        for batch in file.iter_batches(100_000, columns=columns):
            held = batch.to_pydict()
            at = batch.column("ts").cast(pyarrow.timestamp("ms", "UTC")).cast("int64")
            held["ts"] = at.to_pylist()
            for values in zip(*(held[name] for name in columns), strict=True):
                yield dict(zip(columns, values, strict=True))
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise RecordingError(f"{path} is no file of a series: {error}") from None
