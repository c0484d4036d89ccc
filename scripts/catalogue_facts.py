"""What make_catalogue.py needs beyond its tables: sources, names, and what is left out."""

from typing import Any

SOURCES: dict[str, dict[str, str]] = {
    "karpenter-2026-07": {
        "title": "AWS on-demand prices of us-east-1, from the AWS price list API",
        "url": "https://github.com/aws/karpenter-provider-aws/blob/1d927085dd/pkg/providers/pricing/zz_generated.pricing_aws.go",
        "licence": "Apache-2.0",
        "as_of": "2026-07-20",
    },
    "skypilot-v9-2026": {
        "title": "AWS p-family prices per zone, from the AWS price list and spot price history",
        "url": "https://github.com/skypilot-org/skypilot-catalog/blob/2c3d7ea74a/catalogs/v9/aws/vms.csv",
        "licence": "none stated; prices are facts",
        "as_of": "2026",
        "note": "the source gives no day; spot is the cheapest zone's",
    },
    "anycloud-2026-05": {
        "title": "GCP and Azure GPU prices, from the clouds' price list APIs",
        "url": "https://github.com/anycloud-sh/catalog/tree/62ff0a987e",
        "licence": "none stated; prices are facts",
        "as_of": "2026-05-20",
        "note": "GCP is host plus accelerators; on-demand rows that look like Flex-start are left "
        "out, and so is Azure's H200 spot, which equals on-demand",
    },
    "skypilot-v5-2024-06": {
        "title": "AWS and GCP prices, from the clouds' price list APIs",
        "url": "https://github.com/romilbhardwaj/skypilot-catalog/tree/e627ea943481/catalogs/v5",
        "licence": "none stated; prices are facts",
        "as_of": "2024-06-13",
        "note": "spot is the cheapest zone's",
    },
    "skypilot-v5-2023-12": {
        "title": "Azure prices of CPU machines, from Azure's retail price API",
        "url": "https://github.com/romilbhardwaj/skypilot-catalog/tree/e627ea943481/catalogs/v5/azure",
        "licence": "none stated; prices are facts",
        "as_of": "2023-12-08",
    },
    "skyplane-egress-2023": {
        "title": "List price of a GB between 71 regions of AWS, Azure and GCP, first tier",
        "url": "https://github.com/skyplane-project/skyplane/blob/main/skyplane/broadcast/profiles/cost.csv",
        "licence": "Apache-2.0",
        "as_of": "2023-04",
        "note": "the clouds' GB is 2^30 bytes or little less; taken as a GiB",
    },
    "skyplane-egress-2023-extended": {
        "title": "The rules that reproduce skyplane-egress-2023, applied to regions it lacks",
        "url": "https://github.com/skyplane-project/skyplane/blob/main/skyplane/broadcast/profiles/cost.csv",
        "licence": "Apache-2.0",
        "as_of": "2023-04",
        "note": "inferred from regions of the same zone, not listed",
    },
    "skyplane-rtt-2022": {
        "title": "Round trips measured between VMs in 69 regions of AWS, Azure and GCP (premium)",
        "url": "https://github.com/skyplane-project/skyplane",
        "licence": "Apache-2.0",
        "as_of": "2022-04",
    },
    "gcp-rtt-2022": {
        "title": "Round trips between 34 GCP regions",
        "url": "https://github.com/umassos/decarbonization-potential/tree/3493a63016",
        "licence": "Apache-2.0",
        "as_of": "2022",
    },
    "electricitymaps-sites": {
        "title": "Coordinates and grid zone of the clouds' regions",
        "url": "https://github.com/electricitymaps/electricitymaps-contrib/blob/b354f28aad/config/data_centers/data_centers.json",
        "licence": "AGPL-3.0; single facts only",
        "as_of": "2026",
        "note": "the clouds publish the city, not the site",
    },
    "azure-regions": {
        "title": "Azure's list of regions: the city of a region; coordinates are the city's",
        "url": "https://learn.microsoft.com/azure/reliability/regions-list",
        "licence": "facts",
        "as_of": "2026",
    },
    "electricitymaps-2022": {
        "title": "Life-cycle carbon intensity of grid zones, mean of the hours of 2022",
        "url": "https://github.com/umassos/decarbonization-potential/tree/3493a63016/shared_data/mean_stats.csv",
        "licence": "Apache-2.0",
        "as_of": "2022",
        "note": "computed there from Electricity Maps' hourly history",
    },
    "google-region-carbon-2024": {
        "title": "Grid carbon intensity of GCP regions, 2024; used for a grid without a 2022 mean",
        "url": "https://github.com/GoogleCloudPlatform/region-carbon-info/tree/49f3f26bfd/data/yearly",
        "licence": "Apache-2.0",
        "as_of": "2024",
    },
    "ccf-grid-2023": {
        "title": "Annual average grid factors per cloud region",
        "url": "https://github.com/cloud-carbon-footprint/cloud-carbon-coefficients/tree/dda7621f8a",
        "licence": "Apache-2.0",
        "as_of": "2023",
        "note": "figures of 2021 to 2023, by country",
    },
    "ember-world-2023": {
        "title": "World mean of grid carbon intensity, for grids without a figure of their own",
        "url": "https://ember-energy.org/latest-insights/global-electricity-review-2024/",
        "licence": "CC BY 4.0",
        "as_of": "2023",
    },
    "ccf-pue": {
        "title": "Power usage effectiveness per cloud: AWS 1.135, Azure 1.185, GCP 1.1",
        "url": "https://github.com/cloud-carbon-footprint/cloud-carbon-footprint/tree/0602dde823",
        "licence": "Apache-2.0",
        "as_of": "2023",
        "note": "one figure per cloud, not per site",
    },
    "assumption": {
        "title": "Our assumption, for demonstrations: a home in London without cooling overhead",
        "licence": "facts",
        "as_of": "2026-07",
    },
}

GPU_NAMES = {
    name: name
    for name in (
        "T4", "P100", "V100", "V100-32GB", "L4", "L40S", "A10", "A10G", "A100", "A100-80GB",
        "H100", "H200", "B200", "B300", "MI300X",
    )
} | {"H100-MEGA": "H100"}  # the same GPU behind a faster network  # fmt: skip

LEFT_OUT_TYPES = frozenset(
    {
        "g4dn.metal",
        "gr6.4xlarge",
        "gr6.8xlarge",
        "Standard_NV36adms_A10_v5",
        "Standard_NCC40ads_H100_v5",  # confidential computing only
    }
)

CPU_TYPES = r"^(c6i|m6i|r6i)\.|^(n2|e2)-standard-|^Standard_[DE]\d+s_v5$"
"""x86 only: an offer does not say its architecture, and a job's program has one."""

#: Machines whose CPUs and memory the price list does not say: vCPUs, GiB. From AWS's page of the
#: family (https://aws.amazon.com/ec2/instance-types/g6e/, 2026).
SIZES = {
    "g6e.xlarge": (4, 32),
    "g6e.2xlarge": (8, 64),
    "g6e.4xlarge": (16, 128),
    "g6e.8xlarge": (32, 256),
    "g6e.12xlarge": (48, 384),
    "g6e.16xlarge": (64, 512),
    "g6e.24xlarge": (96, 768),
    "g6e.48xlarge": (192, 1536),
}

PUE = {"aws": 1.135, "azure": 1.185, "gcp": 1.1}

WORLD_CARBON = 480.0

EDGE_HOME: dict[str, Any] = {
    "name": "edge/home",
    "location": "London",
    "latitude": 51.507,
    "longitude": -0.128,
    "location_source": "assumption",
    "carbon_g_per_kwh": 0.0,
    "carbon_source": "",
    "pue": 1.0,
    "pue_source": "assumption",
}

#: Regions with prices that the table of sites lacks: region, city, latitude, longitude, grid zone.
AZURE_CITIES = [
    ("chilecentral", "Santiago", -33.45, -70.67, "CL-SEN"),
    ("jioindiacentral", "Nagpur", 21.15, 79.09, "IN-WE"),
    ("jioindiawest", "Jamnagar", 22.47, 70.06, "IN-WE"),
    ("malaysiawest", "Kuala Lumpur", 3.14, 101.69, "MY-WM"),
]

OCEANIA = [
    "aws/ap-southeast-2",
    "aws/ap-southeast-4",
    "aws/ap-southeast-6",
    "azure/australiacentral",
    "azure/australiaeast",
    "azure/australiasoutheast",
    "azure/newzealandnorth",
]
ACROSS_TO_OCEANIA = 0.19
"""GCP's premium tier to anywhere in Oceania."""

_AZURE_ZONES = (
    ("brazil", "south-america"), ("chile", "south-america"),
    ("australia", "oceania"), ("newzealand", "oceania"),
    ("india", "asia"), ("asia", "asia"), ("korea", "asia"), ("japan", "asia"),
    ("malaysia", "asia"), ("indonesia", "asia"),
    ("southafrica", "africa"), ("uae", "middle-east"), ("qatar", "middle-east"),
    ("israel", "middle-east"), ("canada", "north-america"), ("mexico", "north-america"),
)  # fmt: skip


def egress_zone(name: str) -> str:
    """The zone by which a cloud prices traffic inside itself; ``""`` where there is none."""
    cloud, _, region = name.partition("/")
    if cloud == "aws":
        return name  # AWS has a price per region of origin
    if cloud == "gcp":
        if region == "asia-southeast2":
            return "gcp indonesia"
        return f"gcp {region.partition('-')[0].replace('northamerica', 'us')}"
    if cloud == "azure":
        for part, zone in _AZURE_ZONES:
            if part in region:
                return f"azure {zone}"
        return (
            "azure north-america" if region.rstrip("0123456789").endswith("us") else "azure europe"
        )
    return ""
