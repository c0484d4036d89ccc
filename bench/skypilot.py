"""One placement over the same catalogue by SkyPilot's optimiser and by ours: CPU and wall time.

Run: ``python bench/skypilot.py [--offers 84000] [--repeat 5] [--venv DIR] [--json]``. SkyPilot is
installed by pip into a virtual environment of its own, which is made in ``--venv`` and kept there,
or in a temporary directory and thrown away. Where that cannot be done it says so and ends with 0.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import median, parser, progress, report
from msgspec.structs import replace
from offers import market_of

from hyperion.adapters.market.static import StaticMarket
from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.model.market import Market
from hyperion.model.resources import ResourceRequest
from hyperion.placement import offers
from hyperion.placement.catalogue import catalogue
from hyperion.placement.ranking import policy

METHOD = (
    "{offers:,} offers of AWS and Azure (the shipped catalogue's, in copies with prices up to a "
    "tenth off), given to SkyPilot {version} as its catalogue's CSV files and to ours as its "
    "market; each is asked for the cheapest machine on demand for one task of each of {tasks} "
    "kinds, {repeat} times after a first time that loads the catalogue; SkyPilot by "
    "Optimizer.optimize in one process that stays, with both clouds taken as enabled, no call to "
    "a cloud; ours by what `plan` asks of the market, all four terms, for one place like SkyPilot"
)
GOAL = 1000
TASKS = (("A100", 8), ("V100", 1), ("T4", 4), ("A100-80GB", 8), ("H100", 8))
COLUMNS = (
    "InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo",
    "Price", "SpotPrice", "Region", "AvailabilityZone", "Generation", "Arch",
)  # fmt: skip
ASKS = """
import json, sys, time
import sky, sky.check
from sky import clouds
from sky.optimizer import Optimizer

enabled = [clouds.AWS(), clouds.Azure()]
sky.check.get_cached_enabled_clouds_or_refresh = lambda *a, **k: enabled
tasks, repeat = json.loads(sys.argv[1]), int(sys.argv[2])

def ask(name, count):
    with sky.Dag() as dag:
        task = sky.Task(run="true")
        task.set_resources(sky.Resources(accelerators={name: count}))
    wall, cpu = time.perf_counter(), time.process_time()
    Optimizer.optimize(dag, quiet=True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    best = dag.tasks[0].best_resources
    where = f"{best.cloud}/{best.region} {best.instance_type}".lower()
    return wall, cpu, best.get_cost(3600), where

first = ask(*tasks[0])
runs = [[ask(*task) for task in tasks] for _ in range(repeat)]
print("ANSWER" + json.dumps({"version": sky.__version__, "first": first, "runs": runs}))
"""


def catalogue_files(market, home):
    """The market as SkyPilot's catalogue, where it looks for it."""
    by_row = {}
    for offer in market.offers:
        row = by_row.setdefault((offer.region, offer.instance_type), {"offer": offer})
        row[offer.market] = offer.usd_per_hour
    folder = Path(home) / ".sky" / "catalogs" / "v8"
    for cloud in ("aws", "azure"):
        (folder / cloud).mkdir(parents=True)
        zones = set()
        with (folder / cloud / "vms.csv").open("w", newline="") as file:
            out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            out.writeheader()
            for (region, instance_type), row in by_row.items():
                offer, place = row["offer"], region.partition("/")[2]
                if not region.startswith(f"{cloud}/"):
                    continue
                zones.add(f"{place}-az1")
                out.writerow(
                    {
                        "InstanceType": instance_type,
                        "AcceleratorName": offer.gpu_type,
                        "AcceleratorCount": float(offer.gpus) if offer.gpus else "",
                        "vCPUs": offer.cpus_milli / 1000,
                        "MemoryGiB": offer.memory_mib / 1024,
                        "GpuInfo": offer.gpu_type,
                        "Price": row.get(Market.ON_DEMAND, ""),
                        "SpotPrice": row.get(Market.SPOT, ""),
                        "Region": place,
                        "AvailabilityZone": f"{place}-az1" if cloud == "aws" else "",
                        "Arch": "x86_64",
                    }
                )
        if cloud == "aws":
            names = "".join(f"{zone},{zone}\n" for zone in sorted(zones))
            (folder / "aws" / "az_mappings-default.csv").write_text(
                "AvailabilityZone,AvailabilityZoneName\n" + names
            )
    names = "".join(
        f"{name},['AWS']\n" for name in sorted({o.gpu_type for o in market.offers} - {""})
    )
    (folder / "common").mkdir()
    (folder / "common" / "accelerators.csv").write_text("AcceleratorName,Clouds\n" + names)


def installed(venv):
    """The interpreter of an environment with SkyPilot in it; None, and why, if there is none."""
    python = venv / "bin" / "python"
    quiet = partial(subprocess.run, capture_output=True, text=True, check=False)
    if not python.exists():
        made = quiet([sys.executable, "-m", "venv", str(venv)], timeout=120)
        if made.returncode:
            return None, made.stderr.strip().rpartition("\n")[2]
    if quiet([str(python), "-c", "import sky, pandas"], timeout=120).returncode:
        progress("pip install skypilot (some 100 MB)")
        pip = [str(python), "-m", "pip", "install", "--quiet", "skypilot", "pandas"]
        try:
            found = quiet(pip, timeout=900)
        except subprocess.TimeoutExpired:
            return None, "pip took longer than 15 minutes"
        if found.returncode:
            return None, found.stderr.strip().rpartition("\n")[2]
    return python, ""


def theirs(python, market, repeat):
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as home:
        catalogue_files(market, home)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        quiet = {"HOME": home, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "SKYPILOT_DEBUG": "0"}
        ran = subprocess.run(
            [str(python), "-c", ASKS, json.dumps(TASKS), str(repeat)],
            env={**kept, **quiet}, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    lines = [line for line in ran.stdout.splitlines() if line.startswith("ANSWER")]
    if ran.returncode or not lines:
        raise OSError((ran.stderr or ran.stdout).strip()[-1500:])
    return json.loads(lines[-1].removeprefix("ANSWER"))


def ours(market, repeat, places):
    ranker = policy("cheapest")
    jobs = [
        Job(
            id=JobId("j"),
            command=("true",),
            alternatives=(ResourceRequest(gpus_milli=1000 * count, gpu_type=name, use_spot=False),),
            expected_s=3600,
        )
        for name, count in TASKS
    ]

    def ask(job):
        wall, cpu = time.perf_counter(), time.process_time()
        best = catalogue(job, market, ranker, places)[0]
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert best.price is not None
        return wall, cpu, best.price.usd, f"{best.region} {best.instance_type}".lower()

    began = time.process_time()
    offers.columns(market)
    loading = time.process_time() - began
    return loading, [[ask(job) for job in jobs] for _ in range(repeat)]


def main():
    options = parser(__doc__)
    options.add_argument("--offers", type=int, default=84_000)
    options.add_argument("--venv", type=Path, help="where SkyPilot is, or is to be kept")
    chosen = options.parse_args()
    whole = StaticMarket().view()
    clouds = tuple(o for o in whole.offers if o.region.startswith(("aws/", "azure/")))
    _, _, market = market_of(chosen.offers * len(whole.offers) // len(clouds) + len(whole.offers))
    kept = tuple(o for o in market.offers if o.region.startswith(("aws/", "azure/")))
    market = replace(market, offers=kept)
    with tempfile.TemporaryDirectory(prefix="hyperion-bench-") as thrown_away:
        python, why = installed(chosen.venv or Path(thrown_away) / "venv")
        if python is None:
            print(f"skipped: SkyPilot cannot be installed here: {why}")
            return
        progress("SkyPilot")
        found = theirs(python, market, chosen.repeat)
    loading, own = ours(market, max(20, chosen.repeat), 1)
    _, many = ours(market, max(20, chosen.repeat), 20)
    for their, our in zip(found["runs"][0], own[0], strict=True):
        assert abs(their[2] - our[2]) < 0.01 * our[2], f"they differ: {their[2:]} and {our[2:]}"
    their_cpu = median([1e3 * ask[1] for run in found["runs"] for ask in run], 1)
    our_cpu = median([1e3 * ask[1] for run in own for ask in run], 3)
    rows = [
        {"figure": "SkyPilot, CPU of one placement", "unit": "ms", "value": their_cpu},
        {"figure": "SkyPilot, wall of one placement", "unit": "ms",
         "value": median([1e3 * ask[0] for run in found["runs"] for ask in run], 1)},
        {"figure": "SkyPilot, CPU of the first, which loads", "unit": "ms",
         "value": round(1e3 * found["first"][1])},
        {"figure": "ours, CPU of one placement", "unit": "ms", "value": our_cpu},
        {"figure": "ours, wall of one placement", "unit": "ms",
         "value": median([1e3 * ask[0] for run in own for ask in run], 3)},
        {"figure": "ours, CPU of one placement, 20 places told", "unit": "ms",
         "value": median([1e3 * ask[1] for run in many for ask in run], 3)},
        {"figure": "ours, CPU of loading columns", "unit": "ms", "value": round(1e3 * loading)},
        {"figure": "factor of CPU", "unit": "", "value": round(their_cpu / our_cpu),
         "goal": GOAL, "more": True},
    ]  # fmt: skip
    method = METHOD.format(
        offers=len(market.offers), version=found["version"], tasks=len(TASKS), repeat=chosen.repeat
    )
    report("skypilot", method, rows, chosen.json)


if __name__ == "__main__":
    main()
