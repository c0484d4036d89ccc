"""The replay server's clock, orders, faults and recordings, without a socket."""

import pytest

from hyperion.adapters.market.moments import ms_of
from hyperion.daemon.market_replay.faults import Fault, Faults, tampering
from hyperion.daemon.market_replay.recorded import RecordedSeries, RecordingError
from hyperion.daemon.market_replay.series import Series
from hyperion.daemon.market_replay.server import Clock
from hyperion.model.quotes import Kind

SPOT = (Kind.SPOT, "aws/us-east-1", "p4d.24xlarge")
AT = ms_of("2023-06-01T00:00Z")


def test_the_clock_runs_at_its_own_pace():
    clock = Clock(at_ms=1000, real_ms=50, speed=60.0)
    assert clock.now_ms(50) == 1000
    assert clock.now_ms(60) == 1600


def test_faults_strike_whom_they_are_for_and_are_counted_down():
    faults = Faults()
    faults.set(Fault(api="azure", kind="503", times=2))
    faults.set(Fault(kind="stale", delay_s=60.0))
    assert [f.kind for f in faults.strike("gcp")] == ["stale"]
    assert [f.kind for f in faults.strike("azure")] == ["503", "stale"]
    assert [f.kind for f in faults.strike("azure")] == ["503", "stale"]
    assert [f.kind for f in faults.strike("azure")] == ["stale"]
    assert tampering(faults.strike("azure")).old_ms == 60_000
    with pytest.raises(ValueError, match="no fault 'typo'; there are 429"):
        faults.set(Fault(kind="typo"))
    faults.clear()
    assert not faults.strike("azure")


def test_the_made_up_market_is_the_same_each_time_and_moves_within_bounds():
    one, two = Series(), Series()
    listed = next(
        o.usd_per_hour
        for o in one.view.offers
        if (o.region, o.instance_type, o.market.value) == (SPOT[1], SPOT[2], "spot")
    )
    prices = [one.price(SPOT, AT + n * 3_600_000)[0] for n in range(24)]
    assert prices == [two.price(SPOT, AT + n * 3_600_000)[0] for n in range(24)]
    assert len(set(prices)) > 5
    assert all(0.7 * listed < p < 1.3 * listed for p in prices)
    assert one.carbon("GB", AT) != one.carbon("GB", AT + 6 * 3_600_000)
    assert one.carbon("nowhere", AT) is None


def test_orders_are_for_what_is_there():
    series = Series()
    series.order(SPOT, 3.0)
    assert series.price(SPOT, AT)[0] == 3.0
    series.order((Kind.CARBON, "aws/eu-west-2", ""), 77.0)
    assert series.carbon("GB", AT) == 77.0
    with pytest.raises(ValueError, match="nobody sells"):
        series.order((Kind.SPOT, "aws/us-east-1", "x9.huge"), 3.0)
    with pytest.raises(ValueError, match="no grid"):
        series.order((Kind.CARBON, "mars/one", ""), 3.0)


def test_recorded_events_give_the_cheapest_zone_from_each_moment_on(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "spot").mkdir()
    (tmp_path / "energy").mkdir()
    rows = [
        ("2023-06-01", "use1-az1", 9.0, True),
        ("2023-06-02", "use1-az2", 8.0, True),
        ("2023-06-03", "use1-az2", 8.0, False),
        ("2023-06-04", "use1-az1", 10.0, True),
    ]
    columns = {
        "ts": pyarrow.array([ms_of(day) for day, *_ in rows], pyarrow.timestamp("ms", "UTC")),
        "instance_type": [SPOT[2]] * 4,
        "region": ["us-east-1"] * 4,
        "zone": [zone for _, zone, *_ in rows],
        "spot_usd_h": [usd for *_, usd, _ in rows],
        "listed": [listed for *_, listed in rows],
    }
    parquet.write_table(
        pyarrow.table(columns), tmp_path / "spot" / "aws_spot_price_events_2023.parquet"
    )
    grid = {
        "ts": pyarrow.array([AT, AT + 3_600_000], pyarrow.timestamp("ms", "UTC")),
        "zone": ["GB", "GB"],
        "ci_lca_g_kwh": [210.0, 190.0],
    }
    parquet.write_table(
        pyarrow.table(grid), tmp_path / "energy" / "carbon_hourly_1zones_2023_2023.parquet"
    )
    recorded = RecordedSeries(tmp_path, [SPOT[2]])
    assert recorded.begins_ms == AT
    series = Series((recorded,))
    seen = [series.price(SPOT, ms_of(f"2023-06-0{day}T12:00Z"))[0] for day in range(1, 5)]
    assert seen == [9.0, 8.0, 9.0, 10.0]
    assert series.carbon("GB", AT + 1000) == 210.0
    assert series.price(SPOT, ms_of("2024-06-01"))[0] not in seen, "long after: made up again"


def test_a_folder_without_series_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RecordingError, match="leave --data out"):
        RecordedSeries(tmp_path, [])
