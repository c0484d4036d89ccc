"""Look-ups in a market view, the names of accelerators, and the power of a replica."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.model.accelerators import ACCELERATORS, canonical, from_device_name, nearest
from hyperion.model.market import (
    UNKNOWN_CARBON_G_PER_KWH,
    UNKNOWN_LATENCY_MS,
    UNKNOWN_PUE,
    MarketView,
    Region,
    Source,
    great_circle_km,
)
from hyperion.model.power import (
    CPU_WATTS_PER_CORE,
    GPU_WATTS,
    MEMORY_WATTS_PER_GIB,
    UNKNOWN_GPU_WATTS,
    gpu_watts,
    replica_watts,
)
from hyperion.model.resources import ResourceRequest

LONDON = Region(name="edge/london", cloud="edge", latitude=51.507, longitude=-0.128)
SYDNEY = Region(name="aws/sydney", cloud="aws", latitude=-33.869, longitude=151.209, pue=1.1)
LIST = Source(key="list", title="A list", as_of="2026")
VIEW = MarketView(
    as_of="2026",
    regions={r.name: r for r in (LONDON, SYDNEY)},
    egress={("aws/sydney", "aws/tokyo"): 0.05},
    internet_egress={"aws": 0.09, "aws/sydney": 0.114},
    latency={("aws/sydney", "aws/tokyo"): 103.0},
    sources={"list": LIST},
    egress_origin={("aws/sydney", "aws/tokyo"): "list"},
    internet_origin={"aws": "list"},
    latency_origin={("aws/sydney", "aws/tokyo"): "list"},
)


@pytest.mark.parametrize(
    ("source", "target", "usd"),
    [
        ("aws/sydney", "aws/sydney", 0.0),
        ("aws/sydney", "aws/tokyo", 0.05),
        ("aws/sydney", "edge/london", 0.114),
        ("aws/paris", "edge/london", 0.09),
        ("edge/london", "aws/sydney", 0.0),
        ("", "aws/sydney", 0.0),
    ],
)
def test_egress_is_the_pairs_price_then_the_regions_then_the_clouds(source, target, usd):
    assert VIEW.egress_usd_per_gib(source, target) == usd


def test_the_source_of_an_answer_is_the_one_that_answered():
    assert VIEW.egress_source("aws/sydney", "aws/tokyo") is LIST
    assert VIEW.egress_source("aws/paris", "edge/london") is LIST
    assert VIEW.egress_source("edge/london", "aws/sydney") is None
    assert VIEW.egress_source("aws/sydney", "aws/sydney") is None
    assert VIEW.latency_source("aws/tokyo", "aws/sydney") is LIST
    assert VIEW.latency_source("edge/london", "aws/sydney") is None


def test_a_round_trip_is_measured_or_else_goes_by_distance():
    assert VIEW.latency_ms("aws/tokyo", "aws/sydney") == 103.0
    assert VIEW.latency_ms("edge/london", "edge/london") == 1.0
    assert VIEW.latency_ms("edge/london", "moon/base") == UNKNOWN_LATENCY_MS
    assert VIEW.latency_ms("edge/london", "aws/sydney") == pytest.approx(251, abs=2)


def test_unknown_regions_have_a_middling_grid_and_overhead():
    assert VIEW.carbon_g_per_kwh("moon/base") == UNKNOWN_CARBON_G_PER_KWH
    assert VIEW.pue("moon/base") == UNKNOWN_PUE
    assert VIEW.pue("aws/sydney") == 1.1


def test_distance_on_the_globe():
    assert great_circle_km(LONDON, SYDNEY) == pytest.approx(16_990, rel=0.01)
    assert great_circle_km(LONDON, LONDON) == 0.0


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("A100-PCIE-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("Tesla P100-PCIE-16GB", "P100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX2080Ti"),
        ("NVIDIA GeForce RTX 3080 Ti", "GeForce-RTX-3080-Ti"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "GeForce-RTX-4090-Laptop-GPU"),
        ("NVIDIA RTX A6000", "RTXA6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000"),
        ("AMD Instinct MI300X OAM", "MI300X"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100-MIG-1g.5gb"),
        ("NVIDIA Foo 9000", "Foo-9000"),
        ("", ""),
    ],
)
def test_a_drivers_name_becomes_the_name_that_jobs_ask_for(device, name):
    assert from_device_name(device).removeprefix("GeForce-") == name.removeprefix("GeForce-")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("a100", "A100"),
        ("A1OO", "A100"),
        ("H10", "H100"),
        ("h100-sxm", "H100"),
        ("A100_80gb", "A100-80GB"),
        ("v100-32", "V100-32GB"),
        ("RTX 4090", "RTX4090"),
        ("zzzz", None),
        ("", None),
    ],
)
def test_a_misspelt_accelerator_is_recognised_where_it_is_close(typo, meant):
    assert nearest(typo) == meant


def test_case_and_separators_do_not_matter_but_letters_do():
    assert canonical("rtx_6000 ada") == "RTX6000-Ada"
    assert canonical("A1000") is None


@given(st.text(max_size=300))
def test_no_name_breaks_the_names(text):
    assert nearest(text) in {None, *ACCELERATORS}
    assert canonical(text) in {None, *ACCELERATORS}
    assert isinstance(from_device_name(text), str)


def test_every_known_accelerator_has_a_power_and_each_name_is_its_own_name():
    assert set(GPU_WATTS) == set(ACCELERATORS)
    for name in ACCELERATORS:
        assert canonical(name) == nearest(name) == name
        assert gpu_watts(name) > 0
        assert from_device_name(f"NVIDIA {name}") == name


def test_a_replica_draws_what_it_asks_for():
    request = ResourceRequest(gpus_milli=2500, gpu_type="T4", cpus_milli=4000, memory_mib=8192)
    expected = 2.5 * 70 + 4 * CPU_WATTS_PER_CORE + 8 * MEMORY_WATTS_PER_GIB
    assert replica_watts(request) == pytest.approx(expected)


def test_the_accelerator_it_gets_counts_where_any_will_do():
    request = ResourceRequest(gpus_milli=1000, cpus_milli=0)
    assert replica_watts(request) == UNKNOWN_GPU_WATTS
    assert replica_watts(request, "H100") == 700.0
    assert replica_watts(ResourceRequest(cpus_milli=0)) == 0.0
