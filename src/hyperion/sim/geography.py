"""Where the clusters of a seeded world stand, and what carrying data between them costs."""

from hyperion.model.market import MarketView, Region

REGIONS = ("aws/us-east-1", "gcp/europe-west1", "edge/home")
MARKET = MarketView(
    as_of="2026-01-01",
    regions={
        name: Region(name=name, cloud=name.partition("/")[0], carbon_g_per_kwh=g)
        for name, g in zip(REGIONS, (380.0, 150.0, 240.0), strict=True)
    },
    internet_egress={"aws": 0.09, "gcp": 0.08},
)
