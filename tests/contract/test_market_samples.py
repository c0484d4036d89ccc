"""Answers as the sources document them, served as they are: our replay server has no part in it.

Shapes after the public documentation of each API (2026-11), values of our own.
"""

import asyncio
import http.server
import json
import threading

import pytest

from hyperion.adapters.market.feeds import make_feed
from hyperion.adapters.market.moments import ms_of
from hyperion.model.job import Secret
from hyperion.model.quotes import Kind, MachineShape, Wanted

NOW = ms_of("2026-04-25T18:06:00Z")
WANTED = Wanted(
    places={"aws/us-west-2": (45.8, -119.7), "aws/eu-west-2": (51.5, -0.1)},
    machines={"m3.medium": MachineShape(cloud="aws", cpus_milli=1000, memory_mib=3840)},
    zones={"aws/eu-west-2": "GB"},
)
SPOT = """<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>
  <spotPriceHistorySet>
    <item>
      <instanceType>m3.medium</instanceType>
      <productDescription>Linux/UNIX</productDescription>
      <spotPrice>0.0287</spotPrice>
      <timestamp>2026-04-25T08:10:06.000Z</timestamp>
      <availabilityZone>us-west-2b</availabilityZone>
    </item>
    <item>
      <instanceType>m3.medium</instanceType>
      <productDescription>Windows</productDescription>
      <spotPrice>0.0130</spotPrice>
      <timestamp>2026-04-25T18:00:00.000Z</timestamp>
      <availabilityZone>us-west-2b</availabilityZone>
    </item>
    <item>
      <instanceType>m3.medium</instanceType>
      <productDescription>Linux/UNIX</productDescription>
      <spotPrice>0.0311</spotPrice>
      <timestamp>2026-04-25T17:00:00.000Z</timestamp>
      <availabilityZone>us-west-2a</availabilityZone>
    </item>
  </spotPriceHistorySet>
  <nextToken/>
</DescribeSpotPriceHistoryResponse>"""
HALF_HOURS = [
    {
        "from": f"2026-04-25T{at}Z", "to": f"2026-04-25T{to}Z",
        "intensity": {"forecast": value, "index": "moderate"},
        "generationmix": [{"fuel": "gas", "perc": 43.6}, {"fuel": "wind", "perc": 0}],
    }
    for at, to, value in (("18:00", "18:30", 266), ("18:30", "19:00", 254))
]  # fmt: skip
LONDON = {"regionid": 13, "dnoregion": "UKPN London", "shortname": "London"}
ANSWERS = {
    "/aws/us-west-2/": SPOT,
    "/aws/eu-west-2/": SPOT.replace("us-west-2", "eu-west-2"),
    "/em/v3/carbon-intensity/latest": {
        "zone": "GB", "carbonIntensity": 302, "datetime": "2026-04-25T18:07:00.350Z",
        "updatedAt": "2026-04-25T18:07:01.000Z", "createdAt": "2026-04-22T18:07:01.000Z",
        "emissionFactorType": "lifecycle", "isEstimated": True,
        "estimationMethod": "TIME_SLICER_AVERAGE", "temporalGranularity": "hourly",
    },
    "/em/v3/carbon-intensity/forecast": {
        "zone": "GB", "updatedAt": "2026-04-25T18:00:00.000Z",
        "forecast": [{"carbonIntensity": 311, "datetime": "2026-04-25T19:00:00.000Z"}],
    },
    "/wt/login": {"token": "abcdef0123456789fedcabc"},
    "/wt/v3/region-from-loc": {
        "signal_type": "co2_moer", "region": "BPA", "region_full_name": "Bonneville Power",
    },
    "/wt/v3/forecast": {
        "data": [
            {"point_time": "2026-04-25T18:05:00+00:00", "value": 870},
            {"point_time": "2026-04-25T18:10:00+00:00", "value": 1051.0880801214637},
        ],
        "meta": {
            "data_point_period_seconds": 300, "region": "BPA", "signal_type": "co2_moer",
            "warnings": [{"type": "EXAMPLE_WARNING", "message": "This is just an example"}],
            "model": {"date": "2023-03-01"}, "units": "lbs_co2_per_mwh",
            "generated_at_period_seconds": 300, "generated_at": "2026-04-25T18:05:00+00:00",
        },
    },
    "/uk/regional/regionid/13": {"data": [{**LONDON, "data": HALF_HOURS[:1]}]},
    "/uk/regional/intensity/2026-04-25T18:00Z/fw48h/regionid/13": {
        "data": {**LONDON, "data": HALF_HOURS}
    },
}  # fmt: skip


class _Canned(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = ANSWERS.get(self.path.partition("?")[0])
        body = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(200 if answer is not None else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Canned) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def said(name, url):
    async def ask():
        feed = make_feed(name, url, Secret("a:b"))
        try:
            return await feed.fetch(WANTED, NOW)
        finally:
            await feed.close()

    fetched = asyncio.run(ask())
    assert not fetched.failed
    return {quote.place: quote for quote in fetched.quotes}


def test_ec2s_spot_price_history(address):
    found = said("aws-spot", f"{address}/aws/{{region}}")
    quote = found["aws/us-west-2"]
    assert (quote.kind, quote.subject, quote.value) == (Kind.SPOT, "m3.medium", 0.0287)
    assert quote.as_of_ms == ms_of("2026-04-25T17:00:00Z")
    assert quote.note == "us-west-2b"


def test_electricity_maps_with_an_estimate_of_the_minute_to_come(address):
    quote = said("electricity-maps", f"{address}/em")["aws/eu-west-2"]
    assert (quote.value, quote.as_of_ms, quote.confidence) == (302, NOW, 0.8)
    assert [(p.at_ms, p.value) for p in quote.forecast] == [(ms_of("2026-04-25T19:00Z"), 311)]


def test_watttime_in_pounds(address):
    quote = said("watttime", f"{address}/wt")["aws/us-west-2"]
    assert quote.value == pytest.approx(394.6, abs=0.1)
    assert quote.unit == "gCO2e/kWh"
    assert quote.forecast[1].value == pytest.approx(476.8, abs=0.1)


def test_the_uks_carbon_intensity(address):
    quote = said("uk-carbon", f"{address}/uk")["aws/eu-west-2"]
    assert (quote.value, quote.as_of_ms) == (266, ms_of("2026-04-25T18:00Z"))
    assert [p.value for p in quote.forecast] == [266, 254]
