"""A price that changes at a source reaches the federation, its plans, and its users."""

import json
import subprocess
import sys
import urllib.request

import pytest
from daemons import World, until

MACHINE, PLACE = "p4d.24xlarge", "aws/us-east-1"
SPEC = {
    "name": "one",
    "run": "true",
    "resources": {"accelerators": "A100:8", "infra": PLACE, "use_spot": True},
}
_MAIN = "import sys; from hyperion.cli.main import main; sys.exit(main())"


def command(*args, **more):
    return [sys.executable, "-c", _MAIN, *args]


@pytest.fixture
def address():
    """Of a replay server in a process of its own."""
    serving = subprocess.Popen(
        command("market", "replay", "--listen", "127.0.0.1:0", "--speed", "0"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = serving.stdout.readline()
        assert said.startswith("# replaying at http://"), said
        yield said.split()[3].rstrip(";").removeprefix("http://")
    finally:
        serving.terminate()
        assert serving.wait(20) == 0 or serving.returncode == -15
        serving.stdout.close()


def steer(address, what, order=None):
    url = f"http://{address}/replay/{what}"
    body = json.dumps(order).encode() if order is not None else None
    method = "DELETE" if order is None else "POST"
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=10) as a:
        return json.load(a)


def test_a_changed_price_reaches_the_plan_and_an_absurd_one_does_not(tmp_path, address):
    key = tmp_path / "key"
    key.write_text("AKIDTEST:very-secret-word")
    key.chmod(0o600)
    settings = {
        "market_feeds": "aws-spot,uk-carbon",
        "market_urls": f"aws-spot=http://{address}/aws-spot/{{region}},"
        f"uk-carbon=http://{address}/uk-carbon",
        "market_key_files": f"aws-spot={key}",
        "market_intervals": "all=1",
        "market_regions": f"{PLACE},aws/eu-west-2",
    }
    with World(tmp_path / "world", federation=settings) as world:

        def price():
            found = world.client.offers("A100:8", PLACE, "spot")
            return {o.instance_type: o.usd_per_hour for o in found}[MACHINE]

        def plan():
            found = world.client.plan(SPEC)
            return {(r.region, r.instance_type): r.usd_per_hour for r in found.rows}

        def feed(name):
            return {f.name: f for f in world.client.market().feeds}[name]

        until(lambda: feed("aws-spot").in_force and feed("uk-carbon").in_force, "first quotes")
        (before,) = [x.value for x in world.client.quotes("spot", PLACE) if x.subject == MACHINE]
        until(lambda: price() == before, "the quoted price in the offers")
        assert plan()[PLACE, MACHINE] == before
        steer(address, "values",
              {"kind": "spot", "place": PLACE, "subject": MACHINE, "value": 4.5})  # fmt: skip
        until(lambda: price() == 4.5, "the changed price in the offers")
        assert plan()[PLACE, MACHINE] == 4.5
        steer(address, "faults", {"api": "aws-spot", "kind": "absurd"})
        until(lambda: feed("aws-spot").quarantined, "the absurd price to be quarantined")
        assert price() == 4.5, "the last good one counts on"
        bad = [x for x in world.client.market().quarantined if x.subject == MACHINE]
        assert {x.reason for x in bad} == {"off-median"}
        steer(address, "faults")
        steer(address, "faults", {"api": "uk-carbon", "kind": "500"})
        until(lambda: "status 500" in feed("uk-carbon").fault, "the fault to be shown")
        assert feed("uk-carbon").in_force, "what it said before counts on"
        shown = subprocess.run(
            command("--server", f"unix:{world.socket}", "market", "ls", "--place", PLACE),
            capture_output=True, text=True, timeout=60, check=True, env=world.environ,
        )  # fmt: skip
        assert MACHINE in shown.stdout
        assert "in force" in shown.stdout
        assert "very-secret-word" not in world.logs(10_000)
        assert "AKIDTEST" not in world.logs(10_000)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"market_feeds": "aws-spto"}, "did you mean aws-spot?"),
        ({"market_feeds": "gcp"}, "HYPERION_MARKET_KEY_GCP"),
        ({"market_feeds": "azure", "market_urls": "azure=http://example.org"}, "elsewhere https"),
        ({"market_feeds": "azure", "market_intervals": "azure=0.1"}, "expected 1 to"),
        ({"market_feeds": "azure", "market_regions": "asw/"}, "no region begins with 'asw/'"),
    ],
)
def test_wrong_settings_are_refused_at_the_start_with_the_remedy(tmp_path, settings, says):
    world = World(tmp_path / "world", federation=settings)
    world.federation.start().process.wait(30)
    assert world.federation.process.returncode == 78
    assert says in world.federation.tail()


def test_a_changed_price_moves_the_next_job(tmp_path, address):
    key = tmp_path / "key"
    key.write_text("AKIDTEST:very-secret-word")
    key.chmod(0o600)
    regions = {"east": "aws/us-east-1", "west": "aws/us-west-2"}
    settings = {
        "market_feeds": "aws-spot",
        "market_urls": f"aws-spot=http://{address}/aws-spot/{{region}}",
        "market_key_files": f"aws-spot={key}",
        "market_intervals": "all=1",
        "market_regions": ",".join(regions.values()),
    }
    machine = {"declare": "accelerators=A100:8", "instance_type": MACHINE, "market": "spot"}
    world = World(
        tmp_path / "world", ("east/n1", "west/n1"), federation=settings,
        agent=machine,
    )  # fmt: skip
    for name, region in regions.items():
        world.schedulers[name].settings["region"] = region
        world.agents[f"{name}/n1"].settings["region"] = region
    job = {"name": "next", "run": "true", "resources": {"accelerators": "A100:8"}, "expected": "3h"}

    def set_price(name, usd):
        place = regions[name]
        steer(address, "values", {"kind": "spot", "place": place, "subject": MACHINE, "value": usd})
        until(lambda: usd_per_hour()[name] == pytest.approx(usd), "the price in the plan")

    def usd_per_hour():
        return {r.cluster: r.usd_per_hour for r in world.client.plan(job).rows if r.joined}

    def where_it_ran():
        id = world.client.submit(job)
        until(lambda: world.client.why(id).phase == "succeeded", "its end")
        why = world.client.why(id)
        scored = {row.cluster: row.score for row in why.plan.rows if row.joined}
        assert why.plan.chosen == min(scored, key=scored.get)
        terms = [float(line.rpartition("$")[2]) for line in why.sentences if " = $" in line]
        assert round(sum(terms[:-1]), 4) == terms[-1], "the arithmetic adds up"
        assert terms[-1] == pytest.approx(scored[why.plan.chosen], abs=1e-4)
        return why.plan.chosen

    with world:
        set_price("east", 10.0)
        set_price("west", 12.0)
        assert where_it_ran() == "east"
        set_price("east", 14.0)
        assert where_it_ran() == "west"
