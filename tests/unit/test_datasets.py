"""Stories about datasets: who brings which copy, who shares it, what is dropped, what would pay."""

import pytest
from msgspec.structs import replace
from stories import MARKET, Teller, job, load, sent

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.control.hauling import RETRY_MS
from hyperion.model.cluster import Cluster
from hyperion.model.dataset import MS_PER_DAY, Copy, Dataset
from hyperion.model.ids import ClusterId
from hyperion.model.job import DatasetRead, DatasetWrite, DataSource
from hyperion.model.job import JobPhase as P
from hyperion.placement import replication
from hyperion.placement.replication import HORIZON_DAYS, Demand, advise

US, EU, AP = "aws/us-east-1", "gcp/europe-west1", "edge/ap"
DEAR = replace(MARKET, egress={(US, EU): 0.02, (EU, US): 0.05})
HOUR_MS = 3_600_000
ADVISE_MS = FederationTimes().advise_ms


def federation(market=DEAR, replicates=False):
    return Teller(Federation(market, "balanced", replicates=replicates))


def attach(f, name, region, usd_per_hour=10.0):
    cluster = Cluster(id=ClusterId(name), region=region)
    hello = m.ClusterHello(cluster=cluster, load=load(usd_per_hour=usd_per_hour), jobs=())
    return f.say(m.ClusterAttached(hello=hello))


def add(f, name="imagenet", size_gib=150.0, regions=(US,), **more):
    dataset = Dataset(name=name, size_gib=size_gib, copies=tuple(map(Copy, regions)), **more)
    return f.say(m.DatasetApplied(dataset, token=9))


def reading(id, name="imagenet", fraction=2.0, **more):
    return job(id, reads=(DatasetRead(name, fraction),), **more)


def submit(f, *jobs):
    return f.say(*(m.JobSubmitted(one, token=1) for one in jobs))


def status(f, id):
    return f.machine.state.jobs[id].status


def dataset(f, name="imagenet"):
    return f.machine.state.datasets.entries[name].dataset


def why(f, id):
    return f.machine.state.decisions[id].arithmetic


def test_equal_jobs_with_data_in_two_regions_go_to_two_clusters():
    f = federation()
    attach(f, "us", US)
    attach(f, "eu", EU)
    add(f, "a", 500.0, (US,))
    add(f, "b", 500.0, (EU,))
    submit(f, reading("one", "a"), reading("two", "b"))
    assert (status(f, "one").cluster, status(f, "two").cluster) == ("us", "eu")
    assert "data: a 500 GiB lies in aws/us-east-1: $0.0000" in why(f, "one")


def test_a_job_of_an_unknown_dataset_is_refused_with_the_remedy():
    f = federation()
    add(f)
    [answer] = submit(f, reading("one", "imagenette"))
    assert answer.code == "conflict"
    assert answer.error == (
        "there is no dataset imagenette (known: imagenet); add it with hyperion datasets add"
        " imagenette --size SIZE --in REGION"
    )
    [answer] = submit(f, job("two", writes=(DatasetWrite("features", 1.0),)))
    assert "there is no dataset features" in answer.error


def test_the_second_job_shares_what_the_first_one_moves():
    f = federation()
    attach(f, "eu", EU)
    add(f)
    submit(f, reading("one"), reading("two"))
    first, second = status(f, "one").price, status(f, "two").price
    storage = 150 * 0.02 / 730
    assert first.egress_usd == pytest.approx(3.0 + storage)
    assert (second.egress_usd, second.move_gco2e) == (0.0, 0.0)
    assert second.move_h == pytest.approx(150 / 420, rel=0.1), "the rest of the way is waited for"
    assert any("shared with job one" in line for line in why(f, "two"))
    copy = dataset(f).copy(EU)
    assert (copy.present, copy.source, copy.by) == (False, US, "job one")
    assert status(f, "one").spent_usd == pytest.approx(3.0 + storage)
    f.wait(HOUR_MS, step_ms=60_000)
    assert dataset(f).copy(EU).present
    attach(f, "eu", EU)
    submit(f, reading("three"))
    assert status(f, "three").price.egress_usd == status(f, "three").price.move_h == 0.0


def test_a_round_ends_after_a_few_that_read_the_same():
    f = Teller(Federation(DEAR, "balanced", FederationTimes(placements_per_round=40)))
    attach(f, "us", US)
    add(f)
    for n in range(9):
        f.machine.handle(m.JobSubmitted(reading(f"j{n}", gpus=0), token=1), f.now_ms)
    placed = [len(sent(f.machine.round(f.now_ms).commands, m.PlaceJob)) for _ in range(2)]
    assert placed == [5, 4]


def test_what_is_placed_again_does_not_pay_again():
    f = federation()
    attach(f, "eu", EU)
    add(f)
    commands = submit(f, reading("one"))
    [order] = sent(commands, m.PlaceJob)
    paid = status(f, "one").spent_usd
    lost = m.JobReport(job="one", generation=order.generation, version=2, phase=P.QUEUED, lost=True)
    f.say(m.ClusterReported(ClusterId("eu"), lost))
    assert status(f, "one").placed > order.generation
    assert status(f, "one").spent_usd == paid


def test_the_arithmetic_of_moved_data_adds_up():
    f = federation()
    attach(f, "eu", EU)
    add(f)
    add(f, "laion", 1000.0)
    both = (DatasetRead("imagenet"), DatasetRead("laion", 0.1))
    submit(f, job("one", reads=both, writes=(DatasetWrite("laion", 7.0),)))
    lines = why(f, "one")
    moved, afar, written = (line for line in lines if line.startswith("data:"))
    assert moved == (
        "data: imagenet 150 GiB from aws/us-east-1: moved in 0.36 h, egress and storage: $3.0041"
    )
    assert afar.startswith("data: laion 100 GiB read from afar, aws/us-east-1: $2.0000")
    assert written == "data: laion 7 GiB written, and brought to aws/us-east-1: $0.3500"
    egress = next(line for line in lines if line.startswith("egress:"))
    total = sum(float(line.rpartition("$")[2]) for line in (moved, afar, written))
    assert egress == (
        f"egress: 3 datasets brought to gcp/europe-west1 for ${total:.4f} = ${total:.4f}"
    )
    terms = [float(line.rpartition("$")[2]) for line in lines if " = $" in line]
    assert round(sum(terms[:-1]), 4) == terms[-1]
    assert terms[-1] == pytest.approx(status(f, "one").price.score, abs=1e-4)


def test_what_a_job_has_written_is_part_of_the_dataset():
    f = federation()
    attach(f, "us", US)
    add(f)
    [order] = sent(submit(f, job("one", writes=(DatasetWrite("imagenet", 7.0),))), m.PlaceJob)
    assert dataset(f).gib(f.now_ms) == 150.0
    done = m.JobReport(job="one", generation=order.generation, version=2, phase=P.SUCCEEDED)
    f.say(m.ClusterReported(ClusterId("us"), done))
    f.say(m.ClusterReported(ClusterId("us"), done))
    assert dataset(f).gib(f.now_ms) == 157.0


def test_adding_again_adds_regions_and_replaces_the_size():
    f = federation()
    add(f, size_gib=100.0)
    add(f, size_gib=120.0, regions=(EU,), growth_gib_per_day=1.0)
    assert [copy.region for copy in dataset(f).copies] == [US, EU]
    assert dataset(f).gib(f.now_ms + MS_PER_DAY) == pytest.approx(121.0, abs=0.01)
    [answer] = add(f, "nowhere", regions=())
    assert answer.code == "conflict"
    assert "datasets add nowhere --in REGION" in answer.error


def test_the_last_copy_is_not_dropped_and_what_jobs_name_is_kept():
    f = federation()
    add(f, regions=(US, EU))
    submit(f, reading("one"))
    answers = f.say(
        m.DatasetDropAsked("imagenet", US),
        m.DatasetDropAsked("imagenet", EU),
        m.DatasetDropAsked("imagenet"),
        m.DatasetDropAsked("imagenet", "aws/nowhere"),
    )
    assert [a.code for a in answers] == ["", "conflict", "conflict", "not_found"]
    assert "has the last copy" in answers[1].error
    f.say(m.JobCancelRequested(job="one"))
    assert f.say(m.DatasetDropAsked("imagenet"))[-1].error == ""
    assert f.machine.state.datasets.entries == {}


def test_a_restart_finds_the_datasets_as_they_were():
    f = federation()
    attach(f, "eu", EU)
    add(f)
    submit(f, reading("one"))
    entries = f.machine.state.datasets.entries
    f.restart(lambda: Federation(DEAR, "balanced"))
    assert f.machine.state.datasets.entries == entries
    assert f.machine.state.datasets.named == {"imagenet": 1}
    f.wait(HOUR_MS, step_ms=60_000)
    assert dataset(f).copy(EU).present


def asked(commands):
    return [c for c in commands if isinstance(c, m.HaulCopy)]


def read_from_afar(f, times):
    """Jobs that may run in EU only, and read a tenth from US each."""
    for n in range(times):
        submit(f, reading(f"afar-{n}", fraction=0.3, expected_s=HOUR_MS / 1000 * 24))


def test_the_advisor_asks_the_hook_and_believes_what_it_says():
    f = federation(replicates=True)
    attach(f, "eu", EU)
    add(f, size_gib=150.0)
    read_from_afar(f, 6)
    assert dataset(f).copy(EU) is None
    [haul] = asked(f.wait(ADVISE_MS + 2000, step_ms=1000))
    assert (haul.wanted, haul.source, haul.region, haul.gib) == ("copy", US, EU, 150.0)
    copy = dataset(f).copy(EU)
    assert (copy.present, copy.by) == (False, "advisor")
    f.wait(24 * HOUR_MS, step_ms=HOUR_MS)
    assert not dataset(f).copy(EU).present, "only the hook knows when it is there"
    f.say(m.CopyReported("imagenet", EU, "copy", ""))
    assert dataset(f).copy(EU).present


def test_a_hook_that_fails_is_not_asked_again_at_once():
    f = federation(replicates=True)
    attach(f, "eu", EU)
    add(f)
    read_from_afar(f, 6)
    assert len(asked(f.wait(ADVISE_MS + 2000, step_ms=1000))) == 1
    f.say(m.CopyReported("imagenet", EU, "copy", "no space left"))
    assert dataset(f).copy(EU) is None
    assert asked(f.wait(RETRY_MS - 2 * ADVISE_MS, step_ms=10_000)) == []
    assert len(asked(f.wait(3 * ADVISE_MS, step_ms=10_000))) == 1


def test_after_a_restart_the_hook_hears_again_of_what_is_on_its_way():
    f = federation(replicates=True)
    attach(f, "eu", EU)
    add(f)
    read_from_afar(f, 6)
    f.wait(ADVISE_MS + 2000, step_ms=1000)
    f.restart(lambda: Federation(DEAR, "balanced", replicates=True))
    outcome = f.machine.resume(f.now_ms)
    assert [(c.dataset, c.region) for c in outcome.commands] == [("imagenet", EU)]


def test_what_the_hook_is_dropping_is_not_there_any_more():
    f = federation(replicates=True)
    add(f, regions=(US, EU))
    assert asked(f.wait(replication.MIN_STAY_MS - HOUR_MS, step_ms=HOUR_MS)) == []
    [drop] = asked(f.wait(HOUR_MS + 3 * ADVISE_MS, step_ms=ADVISE_MS))
    assert (drop.wanted, drop.source, drop.region) == ("drop", US, EU)
    attach(f, "eu", EU)
    submit(f, reading("reader", fraction=0.1))
    assert status(f, "reader").cluster == "eu"
    assert "data: imagenet 15 GiB read from afar, aws/us-east-1: $0.3000" in why(f, "reader")
    f.restart(lambda: Federation(DEAR, "balanced", replicates=True))
    outcome = f.machine.resume(f.now_ms)
    assert [(c.wanted, c.source, c.region) for c in outcome.commands] == [("drop", US, EU)]
    add(f, regions=(EU,))
    assert dataset(f).copy(EU).going, "it goes all the same"
    [answer] = f.say(m.DatasetDropAsked("imagenet", EU, token=8))
    assert (answer.code, answer.error.split(";")[0]) == (
        "conflict", f"the hook is dropping imagenet in {EU} already"
    )  # fmt: skip
    f.say(m.CopyReported("imagenet", EU, "drop", "no such command"))
    assert dataset(f).copy(EU).present
    f.say(m.CopyReported("imagenet", EU, "drop", ""))
    assert dataset(f).copy(EU).present, "an answer that comes twice"


def test_without_the_hook_nobody_waits_for_what_it_would_have_brought():
    f = federation(replicates=True)
    attach(f, "eu", EU)
    add(f)
    read_from_afar(f, 6)
    f.wait(ADVISE_MS + 2000, step_ms=1000)
    assert dataset(f).copy(EU).by == "advisor"
    f.restart(lambda: Federation(DEAR, "balanced"))
    f.machine.resume(f.now_ms)
    assert dataset(f).copies == (Copy(US),)


def test_without_leave_the_advisor_only_speaks():
    f = federation()
    attach(f, "eu", EU)
    add(f)
    read_from_afar(f, 6)
    assert asked(f.wait(3 * ADVISE_MS, step_ms=1000)) == []
    [advice] = f.machine.hauling.advice(DEAR, f.now_ms)
    assert (advice.action, advice.region, advice.source) == ("copy", EU, US)
    assert advice.worth_usd > replication.MARGIN * advice.cost_usd


def test_jobs_kept_away_by_their_data_speak_for_a_copy_where_they_would_rather_be():
    f = federation()
    attach(f, "dear", US, usd_per_hour=80.0)
    attach(f, "cheap", EU, usd_per_hour=8.0)
    add(f, size_gib=2000.0)
    submit(f, reading("one"))
    assert status(f, "one").cluster == "dear"
    worth = {x.region: x.usd for x in f.machine.state.datasets.entries["imagenet"].worth}
    assert worth[EU] == pytest.approx(9.0, rel=0.05), "an eighth of 80 less an eighth of 8 USD"


def test_a_copy_is_not_worth_what_a_job_would_bring_besides():
    f = federation()
    attach(f, "dear", US, usd_per_hour=80.0)
    attach(f, "cheap", EU, usd_per_hour=8.0)
    add(f, size_gib=2000.0)
    submit(f, reading("one", data=(DataSource("s3://own", 400.0, US),)))
    assert status(f, "one").cluster == "dear"
    worth = {x.region: x.usd for x in f.machine.state.datasets.entries["imagenet"].worth}
    assert worth[EU] == pytest.approx(9.0 - 400 * 0.02, rel=0.3), "its own data cross all the same"


def test_what_copies_elsewhere_were_worth_is_forgotten_once_one_is_made():
    f = federation(replace(DEAR, internet_egress={"aws": 0.02}), replicates=True)
    attach(f, "dear", US, usd_per_hour=200.0)
    attach(f, "cheap", EU, usd_per_hour=8.0)
    attach(f, "cheaper", AP, usd_per_hour=7.0)
    add(f, size_gib=2000.0)
    for n in range(8):
        submit(f, reading(f"j{n}"))
    worth = {x.region: x.usd for x in f.machine.state.datasets.entries["imagenet"].worth}
    assert set(worth) == {EU, AP}
    assert worth[AP] > worth[EU] > 0
    [haul] = asked(f.wait(ADVISE_MS + 2000, step_ms=1000))
    assert haul.region == AP, "one at a time, the best first"
    left = {x.region for x in f.machine.state.datasets.entries["imagenet"].worth}
    assert left == {AP}
    assert asked(f.wait(3 * ADVISE_MS, step_ms=10_000)) == []


def test_what_pays_and_what_does_not_by_hand():
    now_ms = 100 * MS_PER_DAY
    there = Dataset(name="d", size_gib=100.0, copies=(Copy(US), Copy(EU, ready_at_ms=now_ms - 1)))
    alone = replace(there, copies=(Copy(US),))
    storage = 100 * 0.02 / 730 * 24 * HORIZON_DAYS
    use = Demand(usd=10.0, uses=5.0)
    [copy] = advise(alone, {EU: use}, 0, DEAR, now_ms)
    assert copy.cost_usd == pytest.approx(100 * 0.02 + storage)
    assert copy.worth_usd == pytest.approx(10.0 / replication.MEAN_LIFE_DAYS * HORIZON_DAYS)
    assert advise(alone, {EU: Demand(0.5, 5.0)}, 0, DEAR, now_ms) == []
    [waited_for] = advise(alone, {EU: Demand(0.5, 5.0)}, 60, DEAR, now_ms)
    assert waited_for.worth_usd == pytest.approx(0.5 / replication.MEAN_LIFE_DAYS * 30 + 60 * 0.1)
    assert advise(there, {}, 0, DEAR, now_ms) == [], "it has come just now"
    [drop] = advise(there, {}, 0, DEAR, now_ms + replication.MIN_STAY_MS)
    assert (drop.action, drop.region, drop.cost_usd) == ("drop", EU, pytest.approx(storage))
    told = replace(there, sized_at_ms=now_ms, copies=(Copy(US), Copy(EU)))
    assert advise(told, {}, 0, DEAR, now_ms + MS_PER_DAY) == [], "nobody has used it yet"
    [drop] = advise(told, {}, 0, DEAR, now_ms + replication.MIN_STAY_MS)
    assert (drop.action, drop.region) == ("drop", EU)
    last = replace(there, copies=there.copies[1:])
    assert advise(last, {}, 0, DEAR, now_ms + replication.MIN_STAY_MS) == []
