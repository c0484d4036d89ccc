"""What is expected of runtimes: estimates, histories, and how they blend."""

import msgspec
import pytest
from msgspec.structs import replace

from hyperion.model.ids import JobId, QueueName, UserId
from hyperion.model.job import Job, Priority
from hyperion.model.resources import ResourceRequest
from hyperion.placement import forecast as forecasts
from hyperion.placement.forecast import EXPECTED_QUANTILE, Forecast, Sketch
from hyperion.placement.running import Occupant

CLASS = 2 ** (1 / forecasts.CLASSES_PER_DOUBLING)


def job(name="train", user="ann", expected_s=0.0, **more):
    return Job(id=JobId("j"), name=name, user=UserId(user), expected_s=expected_s, run="x", **more)


def taught(*runs):
    made = Forecast()
    for of, seconds in runs:
        made.learn(of, int(seconds * 1000))
    return made


def near(ms, seconds):
    return seconds * 1000 <= ms <= seconds * 1000 * CLASS + 1


def test_without_a_history_the_estimate_of_the_user_is_taken():
    assert Forecast().expected(job(expected_s=90)) == (90_000, EXPECTED_QUANTILE)


def test_without_anything_it_is_an_hour():
    assert Forecast().expected(job()) == (3_600_000, EXPECTED_QUANTILE)


def test_jobs_of_one_name_teach_what_the_next_one_takes():
    made = taught(*[(job(), 20)] * 40)
    ms, confidence = made.expected(job())
    assert near(ms, 20)
    assert confidence > 0.9
    assert near(made.quantile(job(), 0.5), 20)


def test_confidence_is_the_share_that_had_ended_by_then():
    runs = [(job(), seconds) for seconds in (10, 20, 30, 30, 1000)] * 20
    made = taught(*runs)
    ms, confidence = made.expected(job())
    assert near(ms, 30)
    had_ended = sum(seconds * 1000 <= ms for _, seconds in runs) / len(runs)
    assert confidence == pytest.approx(had_ended, abs=0.06)


def test_a_new_name_leans_on_the_same_shape_then_the_queue_then_all():
    big = (ResourceRequest(gpus_milli=8000),)
    night = QueueName("night")
    made = taught(
        *[(job("a", alternatives=big), 500)] * 30,
        *[(job("b", user="bob", queue=night), 50)] * 30,
        *[(job("c", user="eve"), 5)] * 30,
    )
    assert near(made.quantile(job("new", alternatives=big), 0.5), 500)
    assert near(made.quantile(job("new", user="new", queue=night), 0.5), 50)
    assert made.quantile(job("new", user="new"), 0.5) < 600_000


def test_who_always_says_too_much_is_believed_less():
    made = taught(*[(job(f"n{n}", expected_s=3600), 360) for n in range(40)])
    ms, _ = made.expected(job("other", expected_s=600))
    assert near(ms, 60)
    honest, confidence = made.expected(job("other", user="bob", expected_s=600))
    assert (honest, confidence) == (600_000, EXPECTED_QUANTILE)


def test_what_was_long_ago_fades():
    made = taught(*[(job(), 1000)] * 100, *[(job(), 10)] * 400)
    assert near(made.quantile(job(), 0.9), 10)


def test_what_has_run_so_long_already_is_no_more_expected_to_be_short():
    made = taught(*[(job(), 10), (job(), 100)] * 30)
    fresh = made.chance(job(), 0, 11_000)
    old = made.chance(job(), 20_000, 31_000)
    assert fresh > 0.4
    assert old < 0.1
    assert made.chance(job(), 20_000, 110_000) > 0.85
    assert made.chance(job(), 20_000, 20_000) == 0.0


def test_one_that_has_outlived_all_that_is_known_may_go_on_as_long_again():
    made = taught(*[(job(), 10)] * 600)
    century_ms = 100 * 366 * 86_400_000
    assert made.chance(job(), century_ms, 2 * century_ms) == pytest.approx(0.5)


def test_chances_of_running_jobs_are_by_job_or_else_by_queue_and_estimate():
    made = taught(*[(job(), 100)] * 50)
    occupant = Occupant(
        job=JobId("j"), queue=QueueName("default"), priority=Priority.BATCH,
        started_at_ms=1_000_000, ends_at_ms=1_050_000,
    )  # fmt: skip
    known = made.of({JobId("j"): job()})
    assert known.ended_by(occupant, 1_050_000, 1_020_000) < 0.1
    assert known.ended_by(occupant, 1_110_000, 1_020_000) > 0.85
    assert made.of({}).ended_by(occupant, 1_050_000, 1_000_000) > 0.5
    assert made.of({}).ended_by(replace(occupant, stopping=True), 1_000_001, 1_000_000) == 1.0


def test_the_state_comes_back_as_it_was():
    made = taught(
        (job(), 1), (job("b", expected_s=5), 7), (job(queue=QueueName("q")), 1e7), (job(), 0)
    )
    kept = msgspec.json.encode(made.state())
    again = Forecast(msgspec.json.decode(kept, type=tuple[Sketch, ...]))
    for asked in (job(), job("b", expected_s=5), job(queue=QueueName("q")), job("new")):
        assert again.expected(asked) == made.expected(asked)
    again.learn(job(), 3000)
    made.learn(job(), 3000)
    assert again.state() == made.state()


def test_memory_is_bounded_and_the_names_that_learnt_last_stay():
    made = Forecast()
    for n in range(forecasts.MOST_NAMES + 10):
        made.learn(job(f"n{n}"), 1000)
        made.learn(job("kept"), 1000)
    names = [s.key[1] for s in made.state() if s.circle == "name"]
    assert len(names) == forecasts.MOST_NAMES
    assert {"kept", f"n{forecasts.MOST_NAMES + 9}"} <= set(names)
    assert "n0" not in names


def test_quantiles_do_not_fall():
    made = taught(*[(job(), 3**n) for n in range(12)])
    found = [made.quantile(job(), q / 20) for q in range(21)]
    assert found == sorted(found)
