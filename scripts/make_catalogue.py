"""Build the market catalogue that ships with the package from a directory of public facts.

    python scripts/make_catalogue.py DATA_DIR [--out src/hyperion/adapters/market/catalogue]

DATA_DIR holds the parquet and CSV files named in docs/catalogue.md. Needs pandas and pyarrow,
which nothing else here needs. Same input, same bytes out.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from catalogue_facts import (
    ACROSS_TO_OCEANIA,
    AZURE_CITIES,
    CPU_TYPES,
    EDGE_HOME,
    GPU_NAMES,
    LEFT_OUT_TYPES,
    OCEANIA,
    PUE,
    SIZES,
    SOURCES,
    WORLD_CARBON,
    egress_zone,
)

CLOUDS = ("aws", "azure", "gcp")
FIBRE_KM_PER_MS = 204.0
Row: TypeAlias = dict[str, Any]
Json: TypeAlias = Row | list[Any] | str | float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("src/hyperion/adapters/market/catalogue"))
    options = parser.parse_args()
    regions = make_regions(options.data_dir)
    prices, types = make_prices(options.data_dir, {r["name"] for r in regions})
    files = {
        "sources.json": [{"key": key, **facts} for key, facts in SOURCES.items()],
        "regions.json": regions,
        "instance_types.json": types,
        "prices.json": prices,
        "egress.json": make_egress(options.data_dir, [r["name"] for r in regions]),
        "latency.json": make_latency(options.data_dir, {r["name"]: r for r in regions}),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (options.out / name).write_text(as_text(content), encoding="utf-8")
        report(f"{name}: {(options.out / name).stat().st_size:,} bytes")


# Regions: place, grid, overhead --------------------------------------------------------------


def make_regions(data_dir: Path) -> list[Row]:
    table = pd.read_csv(data_dir / "cloud_regions_grid_zone.csv")
    table = table[table.cloud.isin(CLOUDS) & ~table.region.str.startswith("china")]
    google = table.dropna(subset=["gcp_grid_ci_2024_g_kwh"]).drop_duplicates("grid_zone")
    by_zone_2024 = dict(zip(google.grid_zone, google.gcp_grid_ci_2024_g_kwh, strict=True))
    means = pd.read_csv(data_dir / "carbon_zone_annual_mean_2020_2022.csv")
    by_zone_2022 = dict(zip(means.zonecode, means.ci_2022, strict=True))
    ccf = pd.read_csv(data_dir / "carbon_cloud_region_ccf.csv")
    by_region = {(r.cloud, r.region.replace(" ", "").lower()): r.ci_g_kwh for r in ccf.itertuples()}

    def grid(cloud: str, region: str, zone: str) -> tuple[float, str]:
        """One method for all clouds first, so that a shared grid has one number."""
        if not math.isnan(mean := by_zone_2022.get(zone, math.nan)):
            return mean, "electricitymaps-2022"
        if zone in by_zone_2024:
            return by_zone_2024[zone], "google-region-carbon-2024"
        if (cloud, region) in by_region:
            return by_region[cloud, region], "ccf-grid-2023"
        return WORLD_CARBON, "ember-world-2023"

    rows = [
        (r.cloud, r.region, r.site, r.lat, r.lon, r.grid_zone, "electricitymaps-sites")
        for r in table.itertuples()
    ] + [("azure", *facts, "azure-regions") for facts in AZURE_CITIES]
    regions = []
    for cloud, region, site, lat, lon, zone, place_source in rows:
        carbon, carbon_source = grid(cloud, region, zone)
        regions.append(
            {
                "name": f"{cloud}/{region}",
                "location": site,
                "latitude": round(lat, 3),
                "longitude": round(lon, 3),
                "location_source": place_source,
                "carbon_g_per_kwh": round(carbon, 1),
                "carbon_source": carbon_source,
                "pue": PUE[cloud],
                "pue_source": "ccf-pue",
            }
        )
    home_carbon, home_source = grid("edge", "home", "GB")
    regions.append(
        EDGE_HOME | {"carbon_g_per_kwh": round(home_carbon, 1), "carbon_source": home_source}
    )
    return sorted(regions, key=lambda r: str(r["name"]))


# Prices ---------------------------------------------------------------------------------------


def make_prices(data_dir: Path, regions: set[str]) -> tuple[list[Row], list[Row]]:
    """The best row per region and type: newer before older, and none that is marked doubtful."""
    quotes = pd.concat(
        [
            gpu_quotes_2026(data_dir / "gpu_catalog_2026.parquet"),
            quotes_2024(data_dir / "gpu_catalog_2024-06.parquet", gpus=True),
            quotes_2024(data_dir / "cpu_catalog_2024-06.parquet", gpus=False),
        ]
    )
    quotes["region"] = quotes.cloud + "/" + quotes.region
    unplaced = set(quotes.region) - regions
    if unplaced:
        sys.exit(f"regions with prices but no coordinates: {sorted(unplaced)}")
    quotes = without_superseded(quotes)
    on_demand = best(quotes, "ondemand_usd_h", "usd")
    spot = best(quotes, "spot_usd_h", "usd")
    merged = on_demand.merge(
        spot, on=["region", "instance_type"], how="outer", suffixes=("_od", "_spot")
    )
    dear = merged.usd_spot > merged.usd_od
    report(f"spot above on-demand (sources of different dates), spot left out: {dear.sum()}")
    merged.loc[dear, "usd_spot"] = math.nan
    rows = [
        [r.region, r.instance_type, *half(r.usd_od, r.source_od), *half(r.usd_spot, r.source_spot)]
        for r in merged.sort_values(["region", "instance_type"]).itertuples()
    ]
    report(f"prices: {len(rows)} rows in {merged.region.nunique()} regions")
    return rows, instance_types(quotes)


def half(usd: float, source: str) -> tuple[float | None, str]:
    return (None, "") if math.isnan(usd) else (round(float(usd), 5), source)


def best(quotes: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """The source of the highest rank per region and type, and its cheapest zone."""
    known = quotes[quotes[column] > 0].copy()
    top = known.groupby(["region", "instance_type"])["rank"].transform("max")
    known = known[known["rank"] == top]
    first = known.sort_values(["region", "instance_type", column, "zone"]).drop_duplicates(
        ["region", "instance_type"]
    )
    return first[["region", "instance_type", column, "source"]].rename(columns={column: name})


def gpu_quotes_2026(path: Path) -> pd.DataFrame:
    table = keep_gpu_types(pd.read_parquet(path))
    suspect = table.flag.str.startswith("ondemand_suspect")
    table.loc[suspect, "ondemand_usd_h"] = math.nan
    same = table.flag.str.startswith("spot = on-demand")
    table.loc[same, "spot_usd_h"] = math.nan
    keys = {
        "aws/karpenter-provider-aws": "karpenter-2026-07",
        "skypilot-org/skypilot-catalog": "skypilot-v9-2026",
        "anycloud-sh/catalog": "anycloud-2026-05",
    }
    table["source"] = table.source.str.split("@").str[0].map(keys)
    if table.source.isna().any():
        sys.exit("gpu_catalog_2026 names a source this script does not know")
    table["rank"] = 2 + (table.source == "karpenter-2026-07")
    return table


def quotes_2024(path: Path, gpus: bool) -> pd.DataFrame:
    table = pd.read_parquet(path)
    table = keep_gpu_types(table) if gpus else keep_cpu_types(table)
    old = table.cloud == "azure"  # that file had last changed half a year before the others
    table["source"] = "skypilot-v5-2024-06"
    table.loc[old, "source"] = "skypilot-v5-2023-12"
    table["rank"] = 1
    return table


def keep_gpu_types(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table.cloud.isin(CLOUDS) & table.accelerator.isin(GPU_NAMES)].copy()
    whole = table.accelerator_count == table.accelerator_count.round()
    table = table[whole & ~table.instance_type.isin(LEFT_OUT_TYPES)].copy()
    table["gpu_type"] = table.accelerator.map(GPU_NAMES)
    table["gpus"] = table.accelerator_count.astype(int)
    return table


def keep_cpu_types(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table.instance_type.str.match(CPU_TYPES)].copy()
    table["gpu_type"] = ""
    table["gpus"] = 0
    return table


def without_superseded(quotes: pd.DataFrame) -> pd.DataFrame:
    """AWS cut the p-family's prices in 2025, so an older price of a type listed since is stale.

    A type whose newer list covers us-east-1 alone keeps its older prices elsewhere.
    """
    listed = quotes[quotes.source == "skypilot-v9-2026"].instance_type.unique()
    stale = (quotes["rank"] == 1) & quotes.instance_type.isin(listed)
    # Azure's 2023 GPU prices: the 2026 list has every region, so what it lacks is gone.
    gone = (quotes.source == "skypilot-v5-2023-12") & (quotes.gpus > 0)
    report(f"older prices of types listed since, left out: {int((stale | gone).sum())} rows")
    return quotes[~stale & ~gone]


def instance_types(quotes: pd.DataFrame) -> list[Row]:
    newest = quotes.sort_values("rank", ascending=False, kind="stable").copy()
    for name, (vcpus, memory_gib) in SIZES.items():
        newest.loc[newest.instance_type == name, ["vcpus", "memory_gib"]] = vcpus, memory_gib
    rows = newest.dropna(subset=["vcpus", "memory_gib"]).drop_duplicates("instance_type")
    unsized = set(quotes.instance_type) - set(rows.instance_type)
    if unsized:
        sys.exit(f"add vCPUs and memory to SIZES in catalogue_facts.py: {sorted(unsized)}")
    return [
        [
            r.instance_type,
            r.gpu_type,
            int(r.gpus),
            round(r.vcpus * 1000),
            round(r.memory_gib * 1024),
        ]
        for r in rows.sort_values("instance_type").itertuples()
    ]


# Egress ---------------------------------------------------------------------------------------


def make_egress(data_dir: Path, names: list[str]) -> Row:
    """Rules by zone, proven to give back every pair of the table they were read from."""
    table = pd.read_parquet(data_dir / "egress_pairs_multicloud_2023.parquet")
    pairs = {(place(r.src), place(r.dst)): round(r.usd_per_gb, 4) for r in table.itertuples()}
    listed = sorted({a for a, _ in pairs})
    zones = {n: zone for n in names if (zone := egress_zone(n))}
    within: dict[str, dict[str, float]] = {}
    across: dict[str, float] = {}
    for (a, b), usd in sorted(pairs.items()):
        if cloud(a) == cloud(b):
            row = within.setdefault(zones[a], {})
            row["*" if cloud(a) == "aws" else zones[b]] = usd
        elif b not in OCEANIA:
            across[a] = usd
    for zone, row in within.items():  # a zone with one listed member has no price to itself
        if zone.startswith(("azure", "gcp")):
            row.setdefault(zone, min(row.values()))
    across |= {n: across[like] for n, like in alike(names, across).items()}
    rules = {
        "source": "skyplane-egress-2023",
        "extended_source": "skyplane-egress-2023-extended",
        "listed": listed,
        "zones": zones,
        "within": within,
        "across": dict(sorted(across.items())),
        "across_to": {"gcp": {"regions": OCEANIA, "usd": ACROSS_TO_OCEANIA}},
        "pairs": [],
        "internet": {"aws": 0.09, "azure": 0.0875, "gcp": 0.12},
    }
    rules["pairs"] = [
        [a, b, usd] for (a, b), usd in sorted(pairs.items()) if by_rule(rules, a, b) != usd
    ]
    report(f"egress: {len(pairs)} pairs by rules, {len(rules['pairs'])} exceptions")
    return rules


def by_rule(rules: Row, a: str, b: str) -> float | None:
    if cloud(a) == cloud(b):
        row = rules["within"].get(rules["zones"].get(a), {})
        return row.get(rules["zones"].get(b), row.get("*"))
    special = rules["across_to"].get(cloud(a))
    if special and b in special["regions"]:
        return float(special["usd"])
    price: float | None = rules["across"].get(a)
    return price


def alike(names: list[str], across: dict[str, float]) -> dict[str, str]:
    """For each GCP or Azure region without a price: the region of the same zone it is priced as."""
    like = {}
    for name in names:
        if name in across or cloud(name) not in ("gcp", "azure"):
            continue
        zone = egress_zone(name)
        peers = [n for n in sorted(across) if egress_zone(n) == zone]
        near = [n for n in peers if n.rstrip("0123456789") == name.rstrip("0123456789")]
        if near or peers:
            like[name] = (near or peers)[0]
    return like


# Latency --------------------------------------------------------------------------------------


def make_latency(data_dir: Path, regions: dict[str, Row]) -> list[Row]:
    table = pd.read_parquet(data_dir / "net_rtt_multicloud_2022.parquet")
    premium = table[(table.src_tier == "PREMIUM") & (table.dst_tier == "PREMIUM")]
    many = [(place(r.src), place(r.dst), r.rtt_avg_ms) for r in premium.itertuples()]
    google = pd.read_csv(data_dir / "net_rtt_gcp_regions_2022.csv")
    gcp = [(f"gcp/{r.src}", f"gcp/{r.dst}", float(r.rtt_ms)) for r in google.itertuples()]
    return [
        # First inside GCP, where the wider measurement has outliers both ways.
        latency_block("gcp-rtt-2022", gcp, regions),
        latency_block("skyplane-rtt-2022", many, regions),
    ]


def latency_block(
    source: str, measured: Iterable[tuple[str, str, float]], regions: dict[str, Row]
) -> Row:
    """A lower triangle. Of the two directions the quicker one: noise only ever adds."""
    best_ms: dict[tuple[str, str], float] = {}
    impossible = 0
    for a, b, ms in measured:
        if a == b or a not in regions or b not in regions or not ms > 0:
            continue
        if ms < 2 * max(0.0, distance_km(regions[a], regions[b]) - 150) / FIBRE_KM_PER_MS:
            impossible += 1  # quicker than light in straight fibre; sites known to 150 km
            continue
        pair = (max(a, b), min(a, b))
        best_ms[pair] = min(ms, best_ms.get(pair, math.inf))
    names = sorted({n for pair in best_ms for n in pair})
    rows = [
        [round(best_ms[a, b], 1) if (a, b) in best_ms else None for b in names[:i]]
        for i, a in enumerate(names)
    ]
    report(f"latency {source}: {len(best_ms)} pairs, {impossible} rows quicker than fibre left out")
    return {"source": source, "regions": names, "ms": rows}


def distance_km(a: Row, b: Row) -> float:
    p, q = math.radians(a["latitude"]), math.radians(b["latitude"])
    d = math.radians(b["longitude"] - a["longitude"])
    h = math.sin((q - p) / 2) ** 2 + math.cos(p) * math.cos(q) * math.sin(d / 2) ** 2
    return 2 * 6371.0 * math.asin(math.sqrt(h))


# Names and text -------------------------------------------------------------------------------


def place(name: str) -> str:
    """``gcp:us-east1-b`` is ``gcp/us-east1``: the tables name a zone of each GCP region."""
    where, _, region = name.partition(":")
    if where == "gcp":
        region = region.rpartition("-")[0]
    return f"{where}/{region}"


def cloud(name: str) -> str:
    return name.partition("/")[0]


def as_text(content: Json) -> str:
    """JSON with one row per line, so that a change of a price is a change of a line."""
    if isinstance(content, list):
        return "[\n" + ",\n".join(compact(item) for item in content) + "\n]\n"
    lines = [f"{compact(key)}: {compact(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def compact(item: Json) -> str:
    if isinstance(item, dict) and "ms" in item:
        rows = ",\n".join(compact(row) for row in item["ms"])
        head = compact({k: v for k, v in item.items() if k != "ms"})
        return f'{head[:-1]},"ms":[\n{rows}\n]}}'
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def report(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
