"""The recorded world of bench/placement_quality.py: prices, availability, carbon, egress, jobs."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np

BEGINS = datetime(2023, 2, 15, tzinfo=UTC)
HOURS = 28 * 24
ARRIVALS_H = 18 * 24
ON_DEMAND, SPOT = "on-demand", "spot"
#: Zones of the availability traces. Which letter is which zone differs from account to account;
#: the price series know zone ids only, so both are taken in the same order, of those with a price.
ZONES = {
    "us-east-1a": "use1-az1", "us-east-1c": "use1-az2", "us-east-1d": "use1-az5",
    "us-east-1f": "use1-az6", "us-east-2a": "use2-az1", "us-east-2b": "use2-az2",
    "us-west-2a": "usw2-az1", "us-west-2b": "usw2-az2", "us-west-2c": "usw2-az3",
}  # fmt: skip
REGIONS = {
    "aws/us-east-1": ("US-MIDA-PJM", 0.5), "aws/us-east-2": ("US-MIDA-PJM", 0.2),
    "aws/us-west-2": ("US-NW-PACW", 0.2), "gcp/us-central1": ("US-CENT-SWPP", 0.1),
}  # fmt: skip
"""Grid zone, and the share of jobs whose data lie there (made up)."""
PUE = {"aws": 1.135, "gcp": 1.1}
EVERY_S, RESTORE_S = 1800.0, 300.0
LEASE_S = 366.0
"""How long the federation takes to be sure that a zone's scheduler is gone with its machines."""
ADVISOR_LEFT_ALONE = (0.95, 0.90, 0.85, 0.80, 0.70)
"""By the Spot Advisor's bands."""


@dataclass
class Place:
    id: str
    region: str
    market: str
    gpus: int
    usd_per_gpu_hour: np.ndarray
    """By hour."""
    up: list = field(default_factory=list)
    """(from_s, until_s) in which machines are there."""
    share: np.ndarray = None
    """By hour: the part of it in which they are."""


@dataclass(frozen=True)
class Task:
    id: str
    at_s: float
    work_s: float
    gpus: int
    home: str
    size_gib: float
    deadline_s: float
    """After its arrival; 0: none."""


@dataclass
class Series:
    places: list
    carbon: dict
    egress: dict
    left_alone: dict


def read(data, zone_gpus):
    carbon = _carbon(data)
    on_demand, spot = _aws_prices(data)
    places = []
    for region in REGIONS:
        price = on_demand[region] if region in on_demand else _gcp_on_demand(data, region)
        hours = np.full(HOURS, price)
        always = [(0.0, HOURS * 3600.0)]
        places.append(
            Place(f"od-{region.replace('/', '-')}", region, ON_DEMAND, 4096, hours, always)
        )
    up = _availability(data)
    for letter, zone in ZONES.items():
        region = f"aws/{letter[:-1]}"
        places.append(Place(f"spot-{letter}", region, SPOT, zone_gpus, spot[zone], up[letter]))
    for place in places:
        place.share = _share(place.up)
    return Series(places, carbon, _egress(data), _advisor(data))


def _table(path, columns=None, filters=None):
    from pyarrow import parquet

    return parquet.read_table(path, columns=columns, filters=filters).to_pylist()


def _aws_prices(data):
    rows = _table(
        data / "dev/spot/aws_spot_price_events_2022-12_2023-12.parquet",
        filters=[("instance_type", "=", "p3.2xlarge")],
    )
    on_demand, spot, wanted = {}, {}, set(ZONES.values())
    for row in sorted(rows, key=lambda r: r["ts"]):
        if row["zone"] not in wanted:
            continue
        at_h = (row["ts"] - BEGINS) / timedelta(hours=1)
        series = spot.setdefault(row["zone"], np.full(HOURS, np.nan))
        if at_h < HOURS and row["spot_usd_h"] is not None:
            series[max(0, int(at_h)) :] = row["spot_usd_h"]
        if at_h <= 0 and row["ondemand_usd_h"]:
            on_demand[f"aws/{row['region']}"] = row["ondemand_usd_h"]
    for zone in ZONES.values():  # a zone without a spot price is given its next one
        series = spot.setdefault(zone, np.full(HOURS, np.nan))
        known = series[~np.isnan(series)]
        series[np.isnan(series)] = known[0] if len(known) else np.nan
    return on_demand, spot


def _gcp_on_demand(data, region):
    rows = _table(
        data / "dev/spot/gcp_spot_price_events_2022-12_2023-12.parquet",
        filters=[("accelerator", "=", "V100"), ("region", "=", region.partition("/")[2])],
    )
    return next(r["ondemand_usd_h"] for r in sorted(rows, key=lambda r: r["ts"]))


def _availability(data):
    rows = _table(
        data / "dev/spot/spot_availability_skypilot.parquet",
        filters=[("dataset", "=", "aws-02-15-2023")],
    )
    up = {}
    for letter in ZONES:
        seen = sorted(((r["ts"] - BEGINS).total_seconds(), r["available"]) for r in rows
                      if r["zone"] == letter)  # fmt: skip
        times = [*seen, (HOURS * 3600.0, 0)]
        merged = []
        for (at_s, there), (until_s, _) in pairwise(times):
            if there and until_s > at_s:
                if merged and merged[-1][1] == at_s:
                    merged[-1] = (merged[-1][0], until_s)
                else:
                    merged.append((at_s, min(until_s, HOURS * 3600.0)))
        up[letter] = merged
    return up


def _share(up):
    share = np.zeros(HOURS)
    for begin, end in up:
        for hour in range(int(begin // 3600), min(HOURS, int(-(-end // 3600)))):
            share[hour] += (min(end, 3600.0 * (hour + 1)) - max(begin, 3600.0 * hour)) / 3600.0
    return share


def _carbon(data):
    """g/kWh by region and hour, of the same days of 2022: the newest year that has all zones."""
    zones = sorted({zone for zone, _ in REGIONS.values()})
    rows = _table(data / "dev/energy/carbon_hourly_123zones_2022_wide.parquet", ["ts", *zones])
    first = BEGINS.replace(year=2022)
    kept = [r for r in rows if 0 <= (r["ts"] - first) / timedelta(hours=1) < HOURS]
    assert len(kept) == HOURS
    kept.sort(key=lambda r: r["ts"])
    return {name: np.array([r[zone] for r in kept], float) for name, (zone, _) in REGIONS.items()}


def _egress(data):
    rows = _table(data / "common/egress_pairs_multicloud_2023.parquet")
    found = {}
    for row in rows:
        pair = _region(row["src"]), _region(row["dst"])
        if pair[0] in REGIONS and pair[1] in REGIONS:
            found[pair] = row["usd_per_gb"] * 2**30 / 1e9
    return found


def _region(name):
    cloud, _, place = name.partition(":")
    return f"{cloud}/{place[:-2] if cloud == 'gcp' and place[-2] == '-' else place}"


def _advisor(data):
    rows = _table(data / "common/aws_spot_advisor_gpu.parquet")
    return {
        (f"aws/{r['region']}", r["instance_type"]): ADVISOR_LEFT_ALONE[r["interruption_bucket"]]
        for r in sorted(rows, key=lambda r: r["as_of"], reverse=True)
        if r["instance_type"] == "p3.2xlarge"
    }


def jobs(data, trace, count, seed, burst_h=0.0):
    """A sample of a trace: jobs of 1 to 8 GPUs and 1 hour to 2 days, arrivals over 18 days; with
    ``burst_h`` all of so many hours come at the end of them."""
    dice = random.Random(seed)
    if trace == "philly":
        rows = [
            (r["submit_ts"].timestamp(), float(r["duration_s"]), r["num_gpus"])
            for r in _table(data / "dev/jobs/philly_2017.parquet")
        ]
    else:
        rows = [
            (float(r["arrival_s"]), float(r["duration_s"]), r["cpus"])
            for r in _table(data / "dev/jobs/alibaba_pai_2020_100k_gaia.parquet")
        ]
    rows = [r for r in rows if 3600 <= r[1] <= 172_800 and 1 <= r[2] <= 8]
    picked = sorted(dice.sample(rows, count))
    first, last = picked[0][0], picked[-1][0]
    slacks = _slacks(data)
    homes, weights = list(REGIONS), [share for _, share in REGIONS.values()]
    return [
        Task(
            id=f"{trace}-{n}",
            at_s=_together((at - first) / max(1.0, last - first) * ARRIVALS_H, burst_h) * 3600.0,
            work_s=work_s,
            gpus=int(gpus),
            home=dice.choices(homes, weights)[0],
            size_gib=dice.choice((10.0, 50.0, 200.0, 1000.0)),
            deadline_s=(ratio * work_s + 1800.0) if (ratio := dice.choice(slacks)) else 0.0,
        )
        for n, (at, work_s, gpus) in enumerate(picked)
    ]


def _together(at_h, burst_h):
    return -(-at_h // burst_h) * burst_h if burst_h else at_h


def _slacks(data: Path):
    """By job of Chronus: time to its (first) deadline over its run time, 1.15 to 10; 0: none."""
    found = []
    for row in _table(data / "dev/jobs/chronus_philly_slo_mix.parquet"):
        first = str(row["expect_time_list"]).partition("-")[0]
        if row["best_effort"] or not first.isdigit() or not row["duration_s"]:
            found.append(0.0)
        else:
            found.append(min(10.0, max(1.15, float(first) / row["duration_s"])))
    return found
