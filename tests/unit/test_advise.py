"""What placement would have saved: pods and sacct's rows as they are really printed."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from hyperion.adapters.market.static import StaticMarket
from hyperion.cli.advise import advise as command
from hyperion.model.market import Market, MarketView, Offer, Region
from hyperion.placement.advice import Adviser, Assumed, continent
from hyperion.sim.advising import advise
from hyperion.sim.trace import TraceError
from hyperion.sim.traces.kubernetes import kubernetes

HOME, NEAR, FAR = "aws/us-east-1", "aws/us-west-2", "gcp/europe-west1"


def region(name, north, east, grams):
    cloud = name.partition("/")[0]
    return Region(
        name=name, cloud=cloud, latitude=north, longitude=east, carbon_g_per_kwh=grams, pue=1.0
    )


def offer(place, usd, market=Market.ON_DEMAND, gpus=8, gpu_type="A100"):
    return Offer(
        region=place, instance_type=f"m{gpus}", market=market, usd_per_hour=usd, gpus=gpus,
        gpu_type=gpu_type, cpus_milli=96_000, memory_mib=1 << 20,
    )  # fmt: skip


MARKET = MarketView(
    as_of="2026-10-01",
    regions={
        HOME: region(HOME, 39, -77, 400),
        NEAR: region(NEAR, 45, -120, 100),
        FAR: region(FAR, 50, 4, 50),
    },
    offers=(
        offer(HOME, 32.0), offer(HOME, 16.0, Market.SPOT), offer(NEAR, 24.0), offer(FAR, 8.0),
    ),
    internet_egress={"aws": 0.1},
)  # fmt: skip


def pod(name, gpus="8", begun="2026-10-01T08:00:00Z", ended="2026-10-01T18:00:00Z", **more):
    """As kubectl prints it, what nobody reads left out."""
    container = {
        "name": "main",
        "resources": {
            "limits": {"nvidia.com/gpu": gpus},
            "requests": {"cpu": "1500m", "memory": "64Gi", "nvidia.com/gpu": gpus},
        },
    }
    state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": begun}}
    if ended:
        state["terminated"]["finishedAt"] = ended
    status = {"phase": "Succeeded", "containerStatuses": [{"name": "main", "state": state}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "vision", "creationTimestamp": begun},
        "spec": {
            "containers": [container],
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"},
        },
        "status": status,
    } | more


def listed(*items):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()


def event(name, reason, at):
    return {
        "apiVersion": "v1", "kind": "Event", "reason": reason, "lastTimestamp": at,
        "metadata": {"name": f"{name}.17", "namespace": "vision"},
        "involvedObject": {"kind": "Pod", "namespace": "vision", "name": name},
    }  # fmt: skip


def test_a_pod_is_a_job_with_its_requests_and_times():
    trace = kubernetes([("pods.json", listed(pod("a", gpus="2")))])
    (past,) = trace.jobs
    (request,) = past.job.alternatives
    assert (request.gpu_type, request.gpus_milli) == ("A100", 2000)
    assert (request.cpus_milli, request.memory_mib) == (1500, 65_536)
    assert (past.runs_ms, past.job.queue, past.exit_codes) == (10 * 3_600_000, "vision", (0,))


def test_a_pod_that_was_restarted_or_runs_still_counts_all_its_time():
    statuses = [
        {
            "name": "main",
            "lastState": {
                "terminated": {
                    "exitCode": 137,
                    "startedAt": "2026-10-01T08:00:00Z",
                    "finishedAt": "2026-10-01T09:00:00Z",
                }
            },
            "state": {"running": {"startedAt": "2026-10-01T10:00:00Z"}},
        }
    ]
    runs = pod("b", status={"phase": "Running", "containerStatuses": statuses})
    newest = event("b", "Pulled", "2026-10-01T12:00:00Z")
    trace = kubernetes([("all.json", listed(runs, newest))])
    assert trace.jobs[0].runs_ms == 3 * 3_600_000
    assert "1 pods run still: they count up to the newest time in the files" in trace.notes


def test_events_tell_the_times_of_pods_that_do_not_and_who_was_evicted():
    silent = pod("c", status={"phase": "Failed", "reason": "Evicted"})
    told = [
        event("c", "Started", "2026-10-01T08:00:00Z"),
        event("c", "Evicted", "2026-10-01T09:30:00Z"),
        event("gone", "Started", "2026-10-01T08:00:00Z"),
    ]
    trace = kubernetes([("pods.json", listed(silent)), ("events.json", listed(*told))])
    assert trace.jobs[0].runs_ms == 5_400_000
    assert "1 pods are known from events only, without requests: left out" in trace.notes
    assert "1 pods were evicted or preempted, by the events" in trace.notes


def test_pods_without_sense_are_counted_and_files_without_pods_refused():
    odd = pod("d")
    odd["spec"]["containers"][0]["resources"]["requests"]["memory"] = "lots"
    trace = kubernetes([("pods.json", listed(pod("a"), odd, pod("e", status={})))])
    assert (len(trace.jobs), trace.bad_rows) == (1, 2)
    assert "'lots'" in trace.bad[0].message
    for text in (b"{", b'{"items": []}', b'{"kind": "Node"}', b"[1]", b"3"):
        with pytest.raises(TraceError):
            kubernetes([("x.json", text)])


def advice(**assumed):
    trace = kubernetes([("pods.json", listed(pod("a"), pod("b", gpus="4")))])
    return advise(trace, Adviser(MARKET, Assumed(home=HOME, **assumed)))


def test_each_constraint_is_priced_by_the_objective():
    found = advice(usd_per_tonne=0.0)
    assert found.home_usd == pytest.approx(320 + 160)  # a share of the machine: half of it
    region, near, far = found.scenarios
    assert region.usd == pytest.approx(1.1 * 240)  # spot at half the price, a tenth done again
    assert region.redone_usd == pytest.approx(24.0)
    assert (region.moved, region.spot, near.usd) == (0, 2, region.usd)
    assert (far.usd, far.moved) == (pytest.approx(80 + 40), 2)
    assert far.saved_percent == pytest.approx(75.0)
    assert [place.region for place in far.places] == [FAR]


def test_egress_keeps_jobs_at_home_and_carbon_may_make_them_dearer():
    heavy = advice(usd_per_tonne=0.0, data_gib=10_000.0, spot=False)
    assert [s.moved for s in heavy.scenarios] == [0, 0, 0]
    green = advice(usd_per_tonne=1e6, regions=("aws/",), spot=True)
    near = green.scenarios[1]
    assert near.places[0].region == NEAR
    assert near.gco2e < green.home_gco2e
    assert near.usd <= green.home_usd
    costly = MarketView(
        as_of="x", regions=MARKET.regions, offers=(offer(HOME, 8.0), offer(FAR, 9.0))
    )
    trace = kubernetes([("pods.json", listed(pod("a")))])
    dear = advise(trace, Adviser(costly, Assumed(home=HOME, usd_per_tonne=10_000.0)))
    assert (dear.scenarios[2].dearer, dear.scenarios[2].dearer_usd) == (1, pytest.approx(10.0))


def test_what_home_does_not_offer_is_in_no_sum():
    trace = kubernetes([("pods.json", listed(pod("a"), pod("b", gpus="16")))])
    found = advise(trace, Adviser(MARKET, Assumed(home=HOME)))
    assert (found.jobs, found.unpriced, found.unpriced_kinds) == (1, 1, ("A100:16 (1 jobs)",))


def test_every_region_of_the_catalogue_has_a_continent():
    where = {n: continent(r) for n, r in StaticMarket().view().regions.items()}
    assert all(where.values())
    assert {where["aws/il-central-1"], where["aws/me-central-1"], where["gcp/asia-south1"]} == {
        "Asia"
    }
    assert where["azure/southafricanorth"] == "Africa"
    assert where["aws/mx-central-1"] == where["aws/us-east-1"] == "North America"
    assert where["aws/sa-east-1"] == "South America"
    assert where["aws/ap-southeast-6"] == "Oceania"


SACCT = """JobID|User|State|ExitCode|Submit|Start|End|Elapsed|AllocTRES|NNodes|Timelimit
7|ann|COMPLETED|0:0|2026-10-01T08:00:00|2026-10-01T08:00:00|2026-10-01T18:00:00|10:00:00|cpu=8,gres/gpu:l4=1,mem=32G,node=1|1|1-00:00:00
7.batch||COMPLETED|0:0|2026-10-01T08:00:00|2026-10-01T08:00:00|2026-10-01T18:00:00|10:00:00|cpu=8,mem=32G|1|
8|ann|FAILED|1:0|2026-10-01T08:00:00|2026-10-01T08:00:00|2026-10-01T09:00:00|01:00:00|cpu=8,gres/gpu=1,mem=32G,node=1|1|1-00:00:00
"""


def test_the_command_prints_a_table_json_and_a_page_that_fetches_nothing(tmp_path):
    past, page = tmp_path / "jobs.txt", tmp_path / "advice.html"
    past.write_text(SACCT)
    asked = ["--sacct", str(past), "--home", HOME]
    shown = CliRunner().invoke(command, [*asked, "--html", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "same continent" in shown.output
    assert "1 jobs name no type of GPU" in shown.output
    assert "egress is taken as 0, which flatters moving" in shown.output
    written = page.read_text()
    assert "same continent" in written
    assert not any(word in written for word in ("http://", "https://", "src="))
    found = CliRunner().invoke(command, [*asked, "--gpu-type", "l4", "-o", "json"])
    report = msgspec.json.decode(found.output)
    assert (report["jobs"], report["failed"], report["untyped"]) == (2, 1, 0)
    assert report["scenarios"][2]["usd"] < report["home_usd"]


def test_wrong_questions_are_answered_with_the_remedy(tmp_path):
    past = tmp_path / "jobs.txt"
    past.write_text(SACCT)
    for args, words in (
        (["--home", HOME], "whose past?"),
        (["--sacct", str(past), "--home", "aws/us-est-1"], "no such region"),
        (["--sacct", str(past), "--home", "edge/home"], "has a price in edge/home"),
        (["--kubernetes", str(past), "--home", HOME], "is no JSON"),
    ):
        answer = CliRunner().invoke(command, args)
        assert answer.exit_code != 0
        assert words in str(answer.exception or answer.output)
