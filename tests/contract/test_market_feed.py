"""What every price feed owes its callers, and what the static one owes the user's overlay file."""

import json
import re
import time
from pathlib import Path

import pytest

from hyperion.adapters.market.catalogue import SHIPPED
from hyperion.adapters.market.static import OverlayError, StaticMarket
from hyperion.model.accelerators import ACCELERATORS
from hyperion.model.market import Market, MarketView, great_circle_km
from hyperion.ports import MarketFeed

ISO_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
CLOUDS = ("aws", "azure", "gcp")
FIBRE_KM_PER_MS = 204.0


@pytest.fixture(scope="module")
def feed() -> MarketFeed:
    """A further feed joins the contract by a parameter here."""
    return StaticMarket()


@pytest.fixture(scope="module")
def view(feed: MarketFeed) -> MarketView:
    return feed.view()


# The port's contract ---------------------------------------------------------------------------


def test_the_three_clouds_have_sixty_regions_with_place_grid_and_overhead(view):
    regions = [r for r in view.regions.values() if r.cloud in CLOUDS]
    assert len(regions) >= 60
    assert {r.cloud for r in regions} == set(CLOUDS)
    for region in regions:
        assert region.name == f"{region.cloud}/{region.name.partition('/')[2]}"
        assert -90 <= region.latitude <= 90
        assert -180 <= region.longitude <= 180
        assert (region.latitude, region.longitude) != (0.0, 0.0)
        assert 1 < region.carbon_g_per_kwh < 1500
        assert 1.0 <= region.pue < 2.0


def test_every_fact_leads_to_a_source_with_a_date(view):
    for region in view.regions.values():
        for key in (region.location_source, region.carbon_source, region.pue_source):
            assert_dated(view, key)
        assert region.carbon_as_of == view.sources[region.carbon_source].as_of
    for offer in view.offers:
        assert_dated(view, offer.source)
        assert offer.as_of == view.sources[offer.source].as_of
    for a, b in view.egress:
        assert view.egress_source(a, b) is not None
    for region in view.internet_egress:
        assert_dated(view, view.internet_origin[region])
    for a, b in view.latency:
        assert view.latency_source(a, b) is view.latency_source(b, a) is not None


def assert_dated(view, key):
    source = view.sources[key]
    assert source.title
    assert ISO_DATE.fullmatch(source.as_of), source


def test_every_offer_is_a_machine_in_a_known_region_at_a_price(view):
    for offer in view.offers:
        assert offer.region in view.regions
        assert offer.usd_per_hour > 0, offer
        assert offer.cpus_milli > 0, offer
        assert offer.memory_mib > 0, offer
        assert (offer.gpus > 0) == bool(offer.gpu_type), offer
        assert not offer.gpu_type or offer.gpu_type in ACCELERATORS, offer


def test_no_offer_is_there_twice(view):
    keys = [(o.region, o.instance_type, o.market) for o in view.offers]
    assert len(keys) == len(set(keys))


def test_spot_is_no_dearer_than_on_demand(view):
    on_demand = {
        (o.region, o.instance_type): o.usd_per_hour
        for o in view.offers
        if o.market is Market.ON_DEMAND
    }
    for offer in view.offers:
        limit = on_demand.get((offer.region, offer.instance_type))
        if offer.market is Market.SPOT and limit is not None:
            assert offer.usd_per_hour <= limit * 1.05, offer


@pytest.mark.parametrize("gpu_type", ["T4", "A100-80GB", "A100", "H100", "H200"])
def test_the_common_accelerators_can_be_had_at_all_three_clouds(view, gpu_type):
    clouds = {o.region.partition("/")[0] for o in view.offers if o.gpu_type == gpu_type}
    assert clouds >= set(CLOUDS)


def test_machines_without_accelerators_can_be_had_at_all_three_clouds(view):
    assert {o.region.partition("/")[0] for o in view.offers if not o.gpus} >= set(CLOUDS)


def test_egress_is_never_negative_and_free_only_inside_a_region(view):
    clouds = [name for name, region in view.regions.items() if region.cloud in CLOUDS]
    for a in clouds:
        for b in clouds:
            usd = view.egress_usd_per_gib(a, b)
            assert (usd == 0.0) == (a == b), (a, b)
            assert 0.0 <= usd < 0.5, (a, b)


def test_a_round_trip_is_positive_symmetric_and_no_quicker_than_light(view):
    names = list(view.regions)
    for i, a in enumerate(names):
        for b in names[: i + 1]:
            there, back = view.latency_ms(a, b), view.latency_ms(b, a)
            assert there == back
            assert 0 < there < 1000, (a, b)
            km = great_circle_km(view.regions[a], view.regions[b])
            assert there >= 2 * (km - 150) / FIBRE_KM_PER_MS, (a, b, there)


def test_look_ups_of_unknown_regions_answer(view):
    known, unknown = "aws/us-east-1", "onprem/cellar"
    assert view.egress_usd_per_gib(known, unknown) > 0
    assert view.egress_usd_per_gib(unknown, known) == 0
    assert view.latency_ms(known, unknown) > 0
    assert view.carbon_g_per_kwh(unknown) > 0
    assert view.pue(unknown) >= 1
    assert view.egress_source(unknown, known) is None
    assert view.latency_source(unknown, known) is None


def test_the_view_is_the_same_picture_until_the_feed_has_news(feed):
    assert feed.view() is feed.view()


# Spot checks against what the clouds themselves publish ----------------------------------------


def test_prices_that_anyone_can_look_up(view):
    price = {(o.region, o.instance_type, o.market.value): o.usd_per_hour for o in view.offers}
    assert price["aws/us-east-1", "g4dn.xlarge", "on-demand"] == 0.526
    assert price["aws/us-east-1", "p5.48xlarge", "on-demand"] == 55.04
    assert price["gcp/us-central1", "a2-highgpu-1g", "on-demand"] == pytest.approx(3.673, abs=0.01)
    assert price["azure/eastus", "Standard_NC4as_T4_v3", "on-demand"] == 0.526
    assert view.egress_usd_per_gib("aws/us-east-1", "aws/us-east-2") == 0.01
    assert view.egress_usd_per_gib("aws/us-east-1", "aws/eu-west-1") == 0.02
    assert view.egress_usd_per_gib("aws/us-east-1", "gcp/us-east4") == 0.09
    assert 60 < view.latency_ms("aws/us-east-1", "aws/eu-west-1") < 90
    assert view.carbon_g_per_kwh("aws/eu-north-1") < view.carbon_g_per_kwh("aws/us-east-1")


def test_regions_of_one_grid_have_one_carbon_figure_whatever_the_cloud(view):
    virginia = ("aws/us-east-1", "azure/eastus", "gcp/us-east4")
    assert len({view.carbon_g_per_kwh(r) for r in virginia}) == 1


def test_the_demonstration_home_is_marked_as_assumed(view):
    home = view.regions["edge/home"]
    assert home.location_source == "assumption"
    assert view.egress_usd_per_gib("edge/home", "aws/us-east-1") == 0.0


def test_the_catalogue_is_small_and_loads_quickly():
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 1_500_000
    StaticMarket()  # imports are not what is measured
    spent_s = []
    for _ in range(3):
        start = time.process_time()
        StaticMarket()
        spent_s.append(time.process_time() - start)
    assert min(spent_s) < 0.06


# The overlay -----------------------------------------------------------------------------------

HEAD = 'as_of = "2026-07-31"\nsource = "our contract"\n'
CELLAR = (
    HEAD
    + """
[regions."onprem/berlin"]
location = "Berlin"
latitude = 52.52
longitude = 13.4
carbon_g_per_kwh = 350.0
pue = 1.4
egress_usd_per_gib = 0.002

[[offers]]
region = "onprem/berlin"
instance_type = "dgx"
market = "owned"
usd_per_hour = 11.5
gpu_type = "A100-80GB"
gpus = 8
cpus = 128
memory_gib = 1024

[[offers]]
region = "aws/us-east-1"
instance_type = "p5.48xlarge"
usd_per_hour = 41.0
gpu_type = "H100"
gpus = 8
cpus = 192
memory_gib = 2048

[[links]]
source = "onprem/berlin"
target = "aws/eu-central-1"
egress_usd_per_gib = 0.001
latency_ms = 9.5
"""
)


def written(directory: Path, text: str, name: str = "prices.toml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_overlay_adds_and_replaces_and_says_so(tmp_path, view):
    laid = StaticMarket(written(tmp_path, CELLAR)).view()
    berlin = laid.regions["onprem/berlin"]
    assert (berlin.location, berlin.pue, berlin.carbon_as_of) == ("Berlin", 1.4, "2026-07-31")
    [dgx] = [o for o in laid.offers if o.region == "onprem/berlin"]
    assert (dgx.market, dgx.gpus, dgx.cpus_milli, dgx.memory_mib) == (
        Market.OWNED,
        8,
        128_000,
        1_048_576,
    )
    [p5] = [
        o
        for o in laid.offers
        if (o.region, o.instance_type, o.market)
        == ("aws/us-east-1", "p5.48xlarge", Market.ON_DEMAND)
    ]
    assert p5.usd_per_hour == 41.0
    assert laid.sources[p5.source].title == "our contract"
    assert len(laid.offers) == len(view.offers) + 1
    assert laid.egress_usd_per_gib("onprem/berlin", "aws/eu-central-1") == 0.001
    assert laid.egress_usd_per_gib("onprem/berlin", "gcp/us-east4") == 0.002
    assert laid.latency_ms("aws/eu-central-1", "onprem/berlin") == 9.5
    assert laid.latency_source("onprem/berlin", "aws/eu-central-1").title == "our contract"
    assert laid.egress_source("onprem/berlin", "gcp/us-east4").title == "our contract"
    assert laid.as_of == "2026-07-31"


def test_an_overlay_changes_only_what_it_names_of_a_known_region(tmp_path, view):
    text = HEAD + '[regions."aws/us-east-1"]\ncarbon_g_per_kwh = 20.0\n'
    laid = StaticMarket(written(tmp_path, text)).view()
    before, after = view.regions["aws/us-east-1"], laid.regions["aws/us-east-1"]
    assert after.carbon_g_per_kwh == 20.0
    assert (after.latitude, after.pue, after.pue_source) == (
        before.latitude,
        before.pue,
        before.pue_source,
    )


def test_a_new_region_without_place_or_grid_gets_the_defaults_for_unknown_ones(tmp_path, view):
    text = HEAD + '[regions."onprem/cellar"]\negress_usd_per_gib = 0.0\n'
    laid = StaticMarket(written(tmp_path, text)).view()
    assert laid.carbon_g_per_kwh("onprem/cellar") == view.carbon_g_per_kwh("onprem/cellar")
    assert laid.pue("onprem/cellar") == view.pue("onprem/cellar")
    far = "aws/ap-southeast-2"
    assert laid.latency_ms("onprem/cellar", far) == view.latency_ms("onprem/cellar", far)


def test_an_overlay_may_be_json_and_may_name_its_own_accelerators(tmp_path):
    overlay = {
        "as_of": "2026",
        "source": "lab",
        "gpu_types": ["X9000"],
        "offers": [
            {
                "region": "onprem/lab",
                "instance_type": "box",
                "usd_per_hour": 1,
                "gpu_type": "X9000",
                "gpus": 1,
            }
        ],
    }
    laid = StaticMarket(written(tmp_path, json.dumps(overlay), "prices.json")).view()
    assert [o.gpu_type for o in laid.offers if o.region == "onprem/lab"] == ["X9000"]
    assert laid.regions["onprem/lab"].cloud == "onprem"


OFFER = '[[offers]]\nregion = "onprem/a"\ninstance_type = "m"\nusd_per_hour = 1.0\n'

WRONG_OVERLAYS = {
    "": "as_of",
    'as_of = "2026"': "source",
    "as_of = 2026": "as_of",
    'as_of = "last week"\nsource = "x"': "as_of: found 'last week', expected a date",
    'as_of = "2026"\nsource = " "': "source: empty",
    "as_of = \n": "not TOML:.*line 1",
    HEAD + "oferrs = []": "unknown field 'oferrs'; did you mean 'offers'?",
    HEAD + "zzzzzz = []": "unknown field 'zzzzzz'; the fields are as_of, gpu_types",
    HEAD + OFFER + "gpu = 3": r"offers\[0?\.*\]: unknown field 'gpu'; did you mean 'gpus'?",
    HEAD + '[regions."onprem/a"]\nlattitude = 3.0': "regions.'onprem/a': unknown field.*'latitude'",
    HEAD + "[regions.berlin]\npue = 1.1": "expected cloud/region such as 'onprem/berlin'",
    HEAD + '[regions."onprem/a"]\npue = 0.5': "pue: found 0.5, expected 1 to 10",
    HEAD + '[regions."onprem/a"]\npue = nan': "pue: found nan",
    HEAD + '[regions."onprem/a"]\nlatitude = 99.0\nlongitude = 1.0': "latitude: found 99.0",
    HEAD + '[regions."onprem/a"]\nlatitude = 9.0': "latitude and longitude are given together",
    HEAD + '[regions."onprem/a"]\ncarbon_g_per_kwh = -1.0': "carbon_g_per_kwh: found -1.0",
    HEAD
    + '[regions."onprem/a"]\ncarbon_g_per_kwh = "low"': r"Expected `float( \| null)?`, got `str`",
    HEAD + OFFER.replace("1.0", "0.0"): "0 is a price only on the market 'owned'",
    HEAD + OFFER.replace("1.0", "-2.0"): r"offers\[0\].usd_per_hour: found -2.0",
    HEAD + OFFER.replace("1.0", "inf"): "usd_per_hour: found inf",
    HEAD + OFFER + 'market = "stolen"': "market",
    HEAD + OFFER + 'gpu_type = "A1OO"\ngpus = 1': "'A1OO' is not known; did you mean 'A100'",
    HEAD + OFFER + 'gpu_type = "QQQQQQQ"\ngpus = 1': "list it in gpu_types",
    HEAD + OFFER + 'gpu_type = "A100"': "expected both, or neither",
    HEAD + OFFER + "gpus = 8": "expected both, or neither",
    HEAD + OFFER.replace("onprem/a", "Berlin"): "offers.0..region: found 'Berlin'",
    HEAD + OFFER.replace('"m"', '""'): "instance_type: empty",
    HEAD + '[[links]]\nsource = "onprem/a"\ntarget = "onprem/a"\nlatency_ms = 1.0': "both",
    HEAD + '[[links]]\nsource = "onprem/a"\ntarget = "onprem/b"': "egress_usd_per_gib, latency_ms",
    HEAD
    + '[[links]]\nsource = "onprem/a"\ntarget = "onprem/b"\nlatency_ms = 0.0': "latency_ms: found",
}


@pytest.mark.parametrize(("text", "complaint"), WRONG_OVERLAYS.items())
def test_a_wrong_overlay_is_refused_with_its_place_and_the_remedy(tmp_path, text, complaint):
    path = written(tmp_path, text)
    with pytest.raises(OverlayError, match=complaint) as refused:
        StaticMarket(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert refused.value.__cause__ is None


def test_an_overlay_that_is_not_there_or_not_text_or_too_large_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"absent\.toml"):
        StaticMarket(tmp_path / "absent.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"as_of = '\xff\xfe'")
    with pytest.raises(OverlayError, match="byte 9 is not UTF-8"):
        StaticMarket(binary)
    with pytest.raises(OverlayError, match=r"larger than 4,194,304 bytes"):
        StaticMarket(written(tmp_path, "#" * 4_194_305))
    with pytest.raises(OverlayError, match="not JSON"):
        StaticMarket(written(tmp_path, "[" * 100_000, "deep.json"))


def test_the_page_about_the_catalogue_names_every_source_and_its_example_works(tmp_path, view):
    page = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.M)) == set(view.sources)
    example = re.findall(r"```toml\n(.*?)```", page, re.S)[0]
    laid = StaticMarket(written(tmp_path, example)).view()
    assert [o.instance_type for o in laid.offers if o.region == "onprem/berlin"] == ["dgx"]
