"""What named datasets are worth: the same month of jobs, its data brought in four ways.

    python bench/gravity.py [--jobs 2000]

The production federation in simulated time, over clusters at the shipped catalogue's prices. Money
is what its own bills say, and besides storage of every further copy until the month is over, and
the traffic of copies that the advisor has made.
"""

import heapq
import itertools
import random

from measure import parser, progress, report

from hyperion.adapters.market.static import StaticMarket
from hyperion.control import dataset_records as d
from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import DatasetRead, DataSource, Job, JobPhase
from hyperion.model.market import Market
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.gravity import MOVE_GIB_PER_H, storage_usd

REGIONS = ("aws/us-east-1", "aws/us-west-2", "aws/eu-west-1", "gcp/us-central1",
           "gcp/europe-west4", "azure/eastus")  # fmt: skip
HOUR_MS = 3_600_000
MONTH_MS = 30 * 24 * HOUR_MS
YEAR_MS = 365 * 24 * HOUR_MS
TIMES = FederationTimes(cluster_lease_ms=YEAR_MS, resend_ms=YEAR_MS, silent_ms=YEAR_MS,
                        advise_ms=6 * HOUR_MS, retention_ms=YEAR_MS)  # fmt: skip
METHOD = (
    "{jobs} jobs in 30 days, each on 8 A100 for 1 to 48 h (log-normal, median 2 h), each reads one "
    "of 20 datasets (Zipf, 50 to 5,000 GiB, each at home in one of {regions} regions): three of "
    "ten jobs 30 % of it, the others all of it twice; clusters have room for all, at the "
    "catalogue's cheapest price on demand for 8 A100 in the region; seed {seed}"
)
WAYS = {
    "at its data": "jobs stay in the region of their dataset",
    "each brings its own": "jobs list their data; every job pays to bring it",
    "named": "jobs name datasets; what one moves the next one shares",
    "named, advisor acts": "and a hook makes the copies that the advisor proposes",
}


def clusters_of(market):
    for region in REGIONS:
        prices = [
            o.usd_per_hour * 8 / o.gpus
            for o in market.offers
            if o.region == region
            and o.market is Market.ON_DEMAND
            and o.gpu_type == "A100"
            and o.gpus
        ]
        if prices:
            capacity = Capacity(gpus=8, gpu_type="A100", cpus_milli=96_000, memory_mib=1 << 20)
            shape = Shape(
                capacity=capacity, nodes=2000, market=Market.ON_DEMAND, usd_per_hour=min(prices),
                free_gpus_milli=16_000_000, free_cpus_milli=192_000_000,
                free_memory_mib=2000 << 20,
            )  # fmt: skip
            name = ClusterId(region.replace("/", "-"))
            yield Cluster(id=name, region=region), ClusterLoad(shapes=(shape,))


def month_of(jobs, regions, seed):
    """(datasets, [(when, hours, dataset, fraction)])."""
    dice = random.Random(seed)
    sets = [
        Dataset(name=f"d{n}", size_gib=min(5000.0, max(50.0, dice.lognormvariate(6.0, 1.2))),
                copies=(Copy(dice.choice(regions)),))
        for n in range(20)
    ]  # fmt: skip
    weights = [1 / (n + 1) for n in range(20)]
    wishes = [
        (dice.randrange(MONTH_MS), min(48.0, max(1.0, dice.lognormvariate(0.7, 1.0))),
         dice.choices(sets, weights)[0], 0.3 if dice.random() < 0.3 else 2.0)
        for _ in range(jobs)
    ]  # fmt: skip
    return sets, sorted(wishes, key=lambda wish: wish[0])


def job_of(way, n, hours, dataset, fraction):
    home = dataset.copies[0].region
    more = {}
    if way == "each brings its own":
        size_gib = dataset.size_gib * min(1.0, fraction)
        more["data"] = (DataSource(f"s3://{dataset.name}", size_gib, home),)
    elif way != "at its data":
        more["reads"] = (DatasetRead(dataset.name, fraction),)
    infra = home if way == "at its data" else ""
    request = ResourceRequest(gpus_milli=8000, gpu_type="A100", cpus_milli=8000, infra=infra)
    return Job(id=JobId(f"j{n}"), user="bench", command=("true",), alternatives=(request,),
               expected_s=hours * 3600, **more)  # fmt: skip


class Played:
    """One month, one way."""

    def __init__(self, market, way, sets):
        self.market, self.way, self.sets = market, way, sets
        self.machine = Federation(market, "balanced", TIMES, replicates=way.endswith("acts"))
        self.due, self.order = [], itertools.count()
        self.hooked_usd, self.copies = 0.0, {}
        for cluster, load in clusters_of(market):
            self.say(m.ClusterAttached(m.ClusterHello(cluster=cluster, load=load, jobs=())), 1)
        for dataset in sets:
            self.say(m.DatasetApplied(dataset), 1)

    def at(self, when_ms, event):
        heapq.heappush(self.due, (when_ms, next(self.order), event))

    def run(self, wishes):
        for n, (when_ms, hours, dataset, fraction) in enumerate(wishes):
            self.at(when_ms, m.JobSubmitted(job_of(self.way, n, hours, dataset, fraction)))
        for hour in range(MONTH_MS // HOUR_MS):
            self.at(hour * HOUR_MS, m.Tick())
        while self.due:
            when_ms, _, event = heapq.heappop(self.due)
            self.say(event, when_ms)
        return self.figures()

    def say(self, event, now_ms):
        outcomes = [self.machine.handle(event, now_ms)]
        if self.machine.wants_round:
            outcomes.append(self.machine.round(now_ms))
        self.machine.writes()
        for outcome in outcomes:
            for record in outcome.records:
                self.note(record, now_ms)
            for command in outcome.commands:
                self.act(command, now_ms)

    def note(self, record, now_ms):
        if isinstance(record, d.CopyStarted):
            self.copies[record.name, record.copy.region] = now_ms

    def act(self, command, now_ms):
        match command:
            case m.HaulCopy(name, wanted, source, region, gib):
                if wanted == "copy":
                    self.hooked_usd += gib * self.market.egress_usd_per_gib(source, region)
                takes_ms = int(HOUR_MS * gib / MOVE_GIB_PER_H)
                self.at(now_ms + takes_ms, m.CopyReported(name, region, wanted))
            case m.SendToCluster(cluster, m.PlaceJob(job=job, generation=generation)):
                ends_ms = now_ms + int(1000 * job.expected_s)
                for version, phase, when_ms in (
                    (1, JobPhase.RUNNING, now_ms), (2, JobPhase.SUCCEEDED, ends_ms)
                ):  # fmt: skip
                    said = m.JobReport(job=job.id, generation=generation, version=version,
                                       phase=phase, started_at_ms=now_ms)  # fmt: skip
                    self.at(when_ms, m.ClusterReported(cluster, said))

    def figures(self):
        lines = self.machine.state.bills.lines.values()
        jobs = self.machine.state.jobs.values()
        assert all(known.status.phase is JobPhase.SUCCEEDED for known in jobs), "some never ended"
        size = {dataset.name: dataset.size_gib for dataset in self.sets}
        kept = sum(
            storage_usd(size[name], region, (MONTH_MS - since_ms) / HOUR_MS)
            for (name, region), since_ms in self.copies.items()
        )
        machines = sum(line.usd for line in lines)
        data = sum(line.egress_usd for line in lines) + self.hooked_usd + kept
        return machines, data, len(self.copies)


def main():
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    market = StaticMarket().view()
    regions = [cluster.region for cluster, _ in clusters_of(market)]
    sets, wishes = month_of(chosen.jobs, regions, chosen.seed)
    rows = []
    for way in WAYS:
        progress(way)
        machines, data, copies = Played(market, way, sets).run(wishes)
        rows += [
            {"figure": f"{way}: in all", "unit": "USD", "value": round(machines + data)},
            {"figure": f"{way}: machines", "unit": "USD", "value": round(machines)},
            {"figure": f"{way}: data", "unit": "USD", "value": round(data)},
            {"figure": f"{way}: copies made", "unit": "", "value": copies},
        ]
    method = METHOD.format(jobs=chosen.jobs, regions=len(regions), seed=chosen.seed)
    report("gravity", method, rows, chosen.json)


if __name__ == "__main__":
    main()
