"""The wire formats of carbon APIs: Electricity Maps v3, WattTime v3, the UK's Carbon Intensity."""

from typing import Any

from hyperion.adapters.market.moments import HOUR_MS, iso
from hyperion.adapters.market.watttime import G_PER_KWH
from hyperion.daemon.market_replay.clouds import Asked
from hyperion.daemon.market_replay.series import Series

UK_NAMES = {7: "South Wales", 13: "London"}
POUNDS = "lbs_co2_per_mwh"
MARGINAL = 1.4
"""So much more than the average emits what answers to one more kWh, in the made-up world."""


class Missing(Exception):
    """There is no such zone or region: a 404 with this message."""


def _carbon(series: Series, asked: Asked, zone: str, at_ms: int) -> float:
    found = series.carbon(zone, at_ms)
    if found is None:
        raise Missing(f"no data for zone {zone!r}")
    scaled = found * asked.wrong.factor
    return round(scaled / 1000, 6) if asked.wrong.wrong_unit else round(scaled, 1)


def electricity_maps_latest(series: Series, asked: Asked) -> dict[str, Any]:
    zone = asked.one("zone")
    hour_ms = asked.real_ms - asked.real_ms % HOUR_MS - asked.wrong.old_ms
    return {
        "zone": "XX" if asked.wrong.wrong_sku else zone,
        "carbonIntensity": _carbon(series, asked, zone, asked.at_ms),
        "datetime": iso(hour_ms).replace("Z", ".000Z"),
        "updatedAt": iso(asked.real_ms).replace("Z", ".000Z"),
        "createdAt": iso(hour_ms).replace("Z", ".000Z"),
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
    }


def electricity_maps_forecast(series: Series, asked: Asked) -> dict[str, Any]:
    zone = asked.one("zone")
    hour_ms = asked.real_ms - asked.real_ms % HOUR_MS
    ahead = [
        {
            "carbonIntensity": _carbon(series, asked, zone, asked.at_ms + n * HOUR_MS),
            "datetime": iso(hour_ms + n * HOUR_MS).replace("Z", ".000Z"),
        }
        for n in range(25)
    ]
    return {"zone": zone, "forecast": ahead, "updatedAt": iso(asked.real_ms)}


def watttime_region(series: Series, asked: Asked) -> dict[str, Any]:
    zone = series.zone_near(
        float(asked.one("latitude", "nan")), float(asked.one("longitude", "nan"))
    )
    if not zone:
        raise Missing("Coordinates not found")
    return {"region": zone, "region_full_name": zone, "signal_type": asked.one("signal_type")}


def watttime_forecast(series: Series, asked: Asked) -> dict[str, Any]:
    """24 hours by five minutes, in pounds per MWh."""
    region, step_ms = asked.one("region"), 300_000
    begin_ms = asked.real_ms - asked.real_ms % step_ms - asked.wrong.old_ms
    data = [
        {
            "point_time": iso(begin_ms + n * step_ms).replace("Z", "+00:00"),
            "value": round(
                MARGINAL
                * _carbon(series, asked, region, asked.at_ms + n * step_ms)
                / G_PER_KWH[POUNDS],
                1,
            ),
        }
        for n in range(288)
    ]
    meta = {
        "region": "NOBODY_ASKED" if asked.wrong.wrong_sku else region,
        "signal_type": asked.one("signal_type"),
        "units": "kg_co2_per_wh" if asked.wrong.wrong_unit else POUNDS,
        "model": {"date": "2023-03-01"},
        "warnings": [],
        "data_point_period_seconds": 300,
        "generated_at_period_seconds": 300,
        "generated_at": iso(begin_ms).replace("Z", "+00:00"),
    }
    return {"data": data, "meta": meta}


def uk_now(series: Series, asked: Asked, region: int) -> dict[str, Any]:
    found = _uk_region(series, asked, region, 1)
    return {"data": [found | {"regionid": 99} if asked.wrong.wrong_sku else found]}


def uk_ahead(series: Series, asked: Asked, region: int) -> dict[str, Any]:
    return {"data": _uk_region(series, asked, region, 97)}


def _uk_region(series: Series, asked: Asked, region: int, half_hours: int) -> dict[str, Any]:
    if region not in UK_NAMES:
        raise Missing(f"no region {region}")
    step_ms = HOUR_MS // 2
    begin_ms = asked.real_ms - asked.real_ms % step_ms - asked.wrong.old_ms

    def moment(n: int) -> str:
        return iso(begin_ms + n * step_ms).replace(":00Z", "Z")

    data = [
        {
            "from": moment(n),
            "to": moment(n + 1),
            "intensity": {
                "forecast": _carbon(series, asked, "GB", asked.at_ms + n * step_ms),
                "index": "moderate",
            },
            "generationmix": [],
        }
        for n in range(half_hours)
    ]
    name = UK_NAMES[region]
    return {"regionid": region, "dnoregion": name, "shortname": name, "data": data}
