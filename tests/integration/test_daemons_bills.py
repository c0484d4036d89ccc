"""Bills and budgets of real jobs on real daemons, over a federation that is killed."""

import subprocess
import sys

import msgspec
import pytest
from daemons import World, until

MAIN = "import sys; from hyperion.cli.main import main; sys.exit(main())"
DEAR = {"usd_per_hour": 3600.0}
"""A dollar a second, so that a test need not wait for hours."""


def asked(world, *words):
    """What the command prints as JSON."""
    command = [sys.executable, "-c", MAIN, *words, "--server", f"unix:{world.socket}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=world.environ)
    return msgspec.json.decode(done.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("bills") / "w", agent=DEAR) as found:
        yield found


def spec(name, seconds, **more):
    return {"name": name, "run": f"sleep {seconds}", "resources": {"cpus": 1}, **more}


def test_the_bill_of_a_job_is_what_it_has_spent_and_survives_the_federation(world):
    client = world.client
    running = client.submit(spec("long", 600))
    done = client.wait(client.submit(spec("short", 1)), timeout_s=60)
    until(lambda: client.get(running).phase == "running", "it to run", 30)
    view = client.cost(by="job")
    rows = {row.name: row for row in view.rows}
    assert rows[done.id].usd == pytest.approx(done.usd)
    assert done.usd > 0.01
    assert (rows[done.id].running, rows[running].running, view.total.running) == (0, 1, 1)
    assert rows[running].usd > 0
    assert view.total.usd == pytest.approx(sum(row.usd for row in view.rows))
    assert rows[done.id].home_usd == pytest.approx(rows[done.id].usd)  # it is at home
    world.federation.restart().ready()
    until(lambda: client.clusters()[0].state == "ready", "the cluster to attach", 60)
    again = {row.name: row for row in client.cost(by="job").rows}
    assert again[done.id] == rows[done.id]
    assert again[running].usd >= rows[running].usd
    client.cancel(running)
    ended = client.wait(running, timeout_s=60)
    rows = {row.name: row for row in client.cost(by="job").rows}
    assert rows[running].usd == pytest.approx(ended.usd)
    (row,) = asked(world, "cost", "--by", "cluster", "-o", "json")["rows"]
    assert row["usd"] == pytest.approx(done.usd + ended.usd)


def test_a_spent_budget_holds_and_pauses_and_lets_go(world):
    client = world.client
    tenant = f"queue:{client.get('short').queue}"
    running = client.submit(spec("paused", 600))
    until(lambda: client.get(running).phase == "running", "it to run", 30)
    client.set_budget(tenant, 0.001, then="hold")
    (budget,) = client.budgets()
    assert budget.over
    assert budget.spent_usd > 0.001
    (answer,) = client.submit_all([spec("waits", 1)])
    assert "is spent; the job waits" in answer.warning
    until(lambda: client.get(answer.id).held == tenant, "it to be held", 10)
    why = client.why(answer.id)
    assert why.held == tenant
    assert any("hyperion budgets set" in sentence for sentence in why.sentences)
    assert client.get(running).phase == "running"
    client.set_budget(tenant, 0.001, then="pause")
    until(lambda: client.get(running).phase == "queued", "it to be stopped", 30)
    assert client.get(running).held == tenant
    spent = client.get(running).usd
    assert asked(world, "budgets", "-o", "json")[0]["held"] == 2
    assert client.drop_budget(tenant) == []
    assert client.wait(answer.id, timeout_s=60).phase == "succeeded"
    until(lambda: client.get(running).phase == "running", "it to go on", 30)
    assert client.get(running).usd >= spent
    client.cancel(running)
    client.wait(running, timeout_s=60)
