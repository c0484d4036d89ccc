"""The feeds by name: what each needs, how often it is worth asking, and how it is made."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.adapters.market import (
    aws_advisor,
    aws_prices,
    aws_spot,
    azure,
    electricity_maps,
    gcp,
    skypilot,
    uk_carbon,
    watttime,
)
from hyperion.adapters.market.aws_signing import AwsKey, key_from_environment
from hyperion.adapters.market.catalogue import SHIPPED
from hyperion.model.job import Secret
from hyperion.ports import QuoteFeed

LONGEST_KEY_BYTES = 16_384
MINUTE_S = 60.0
HOUR_S = 3600.0


class FeedKind(Struct, frozen=True, kw_only=True):
    name: str
    about: str
    base_url: str
    interval_s: float
    """Between polls, unless the settings say otherwise."""
    needs: str = ""
    """In words: which key, and where it comes from."""


class KeyMissing(Exception):
    """A feed needs a key that was not given; says where it looks for it."""


_KINDS = (
    FeedKind(name="aws-spot", about="AWS spot prices (DescribeSpotPriceHistory)",
             base_url=aws_spot.BASE_URL, interval_s=5 * MINUTE_S,
             needs="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a file of both"),
    FeedKind(name="aws-prices", about="AWS on-demand prices (Price List, bulk)",
             base_url=aws_prices.BASE_URL, interval_s=24 * HOUR_S),
    FeedKind(name="aws-advisor", about="AWS interruptions of spot machines (Spot Advisor)",
             base_url=aws_advisor.BASE_URL, interval_s=6 * HOUR_S),
    FeedKind(name="azure", about="Azure on-demand and spot prices (Retail Prices)",
             base_url=azure.BASE_URL, interval_s=HOUR_S),
    FeedKind(name="gcp", about="GCP on-demand and spot prices (Cloud Billing Catalog)",
             base_url=gcp.BASE_URL, interval_s=6 * HOUR_S, needs="an API key"),
    FeedKind(name="skypilot", about="prices of AWS, Azure and GCP (SkyPilot's catalogue)",
             base_url=skypilot.BASE_URL, interval_s=6 * HOUR_S),
    FeedKind(name="electricity-maps", about="carbon of grids, now and forecast (average)",
             base_url=electricity_maps.BASE_URL, interval_s=15 * MINUTE_S, needs="an API key"),
    FeedKind(name="watttime", about="carbon of grids, now and forecast (marginal)",
             base_url=watttime.BASE_URL, interval_s=15 * MINUTE_S, needs="USER:PASSWORD"),
    FeedKind(name="uk-carbon", about="carbon of Great Britain's grid (Carbon Intensity API)",
             base_url=uk_carbon.BASE_URL, interval_s=10 * MINUTE_S),
)  # fmt: skip
FEEDS: Mapping[str, FeedKind] = {kind.name: kind for kind in _KINDS}


def make_feed(name: str, base_url: str, key: Secret | None) -> QuoteFeed:
    """A feed of ``FEEDS``, ready to be asked. Raises ``KeyMissing``."""
    url = base_url or FEEDS[name].base_url
    if name in _OPEN:
        return _OPEN[name](url)
    if name == "aws-spot":
        found = _aws_key(key)
        if found is not None:
            return aws_spot.AwsSpot(found, url)
    elif key is not None and name == "watttime":
        user, colon, password = key.value.partition(":")
        if colon:
            return watttime.WattTime(user, Secret(password), url)
    elif key is not None:
        return (
            gcp.GcpPrices(key, url) if name == "gcp" else electricity_maps.ElectricityMaps(key, url)
        )
    raise KeyMissing(
        f"{name} needs {FEEDS[name].needs}: set {key_variable(name)}, or name a file in"
        f" market_key_files: {name}=PATH"
    )


def find_key(name: str, file: str, environment: Mapping[str, str] = os.environ) -> Secret | None:
    """The key from its file, else from its variable; None where there is neither.

    Raises ``OSError`` for a file that cannot be read or that others may read.
    """
    if file:
        path = Path(file).expanduser()
        if path.stat().st_mode & 0o077:
            raise OSError(f"{path}: others may read it; chmod 600 {path}")
        with path.open(encoding="utf-8") as opened:
            text = opened.read(LONGEST_KEY_BYTES).strip()
        return Secret(text) if text else None
    text = environment.get(key_variable(name), "").strip()
    return Secret(text) if text else None


def key_variable(name: str) -> str:
    """``HYPERION_MARKET_KEY_ELECTRICITY_MAPS``."""
    return "HYPERION_MARKET_KEY_" + name.replace("-", "_").upper()


def grid_zones() -> dict[str, str]:
    """Region of a cloud → zone of its grid, as Electricity Maps names them."""
    return msgspec.json.decode((SHIPPED / "grid_zones.json").read_bytes(), type=dict[str, str])


def _aws_key(key: Secret | None) -> AwsKey | None:
    """``ID:SECRET`` or ``ID:SECRET:TOKEN`` if given, else what Amazon's own tools would take."""
    if key is None:
        return key_from_environment()
    id, _, rest = key.value.partition(":")
    secret, _, token = rest.partition(":")
    if not id or not secret:
        return None
    return AwsKey(Secret(id), Secret(secret), Secret(token) if token else None)


_OPEN: Mapping[str, Callable[[str], QuoteFeed]] = {
    "aws-prices": aws_prices.AwsPrices,
    "aws-advisor": aws_advisor.AwsAdvisor,
    "azure": azure.AzurePrices,
    "skypilot": skypilot.SkyPilot,
    "uk-carbon": uk_carbon.UkCarbon,
}
