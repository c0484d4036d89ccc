"""Plays the federation, the production machine, through the recorded world, and keeps the books."""

import heapq
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import quality_series as q

from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import (
    Checkpoint,
    DatasetRead,
    DataSource,
    Job,
    JobPhase,
    Objective,
    Residency,
)
from hyperion.model.market import Market, MarketView, Region
from hyperion.model.power import replica_watts
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement.gravity import storage_usd

P = JobPhase
FOREVER_MS = 10**12
TICK_S = 300.0
MOST_ROUNDS = 2000


@dataclass
class Attempt:
    task: q.Task
    generation: int
    began_s: float = -1.0
    """Negative: it waits."""


@dataclass
class Site:
    place: q.Place
    up: bool = False
    jobs: dict = field(default_factory=dict)

    @property
    def free(self):
        used = sum(a.task.gpus for a in self.jobs.values() if a.began_s >= 0)
        return self.place.gpus - used if self.up else 0


@dataclass
class Result:
    usd: float = 0.0
    egress_usd: float = 0.0
    kg: float = 0.0
    interrupted: int = 0
    lost_h: float = 0.0
    """Work of GPUs that was done again, restores included."""
    ended: dict = field(default_factory=dict)
    missed: int = 0
    wait_h: float = 0.0
    gpu_h: float = 0.0
    on_demand_h: float = 0.0


class Play:
    def __init__(
        self,
        series,
        tasks,
        policy,
        *,
        home_only=False,
        one_by_one=False,
        migrate=False,
        carbon=1.0,
        datasets=False,
    ):
        times = FederationTimes(
            cluster_lease_ms=FOREVER_MS, resend_ms=FOREVER_MS, silent_ms=FOREVER_MS,
            placements_per_round=1 if one_by_one else 1000,
        )  # fmt: skip
        self.series = series
        self.tasks = {task.id: task for task in tasks}
        self.home_only, self.migrate, self.carbon = home_only, migrate, carbon
        self.datasets = datasets
        """Each job's data are a dataset of its own: what has been brought to a region stays."""
        self.copies = {task.id: {task.home: 0.0} for task in tasks}
        """By job the regions where its data are, and since when."""
        self.machine = Federation(self._market(0), policy, times)
        self.sites = {place.id: Site(place) for place in series.places}
        self.saved = dict.fromkeys(self.tasks, 0.0)
        self.started = {}
        self.version = count(1)
        self.result = Result()
        self.heap, self.order = [], count()
        self.now_s = 0.0

    def run(self):
        for task in self.tasks.values():
            self._at(task.at_s, self._arrive, task)
        for site in self.sites.values():
            self._tell(self._hello(site))
            for begin, end in site.place.up:
                self._at(begin, self._turn, site, True)
                if end < q.HOURS * 3600.0:
                    self._at(end, self._turn, site, False)
        for hour in range(q.HOURS):
            self._at(3600.0 * hour, self._hour, hour)
        for n in range(int(q.HOURS * 3600.0 / TICK_S)):
            self._at(TICK_S * n, self._tell, m.Tick())
        while self.heap and len(self.result.ended) < len(self.tasks):
            self.now_s, _, act, about = heapq.heappop(self.heap)
            act(*about)
            if (
                not self.heap or self.heap[0][0] > self.now_s
            ):  # what comes at once is placed at once
                self._rounds()
        return self.result

    # -- what happens ---------------------------------------------------------------------------

    def _at(self, at_s, act, *about):
        heapq.heappush(self.heap, (at_s, next(self.order), act, about))

    def _arrive(self, task):
        request = ResourceRequest(
            gpus_milli=1000 * task.gpus, gpu_type="V100",
            use_spot=False if self.home_only else None,
        )  # fmt: skip
        source = DataSource("s3://d", task.size_gib, task.home)
        named = (DatasetRead(dataset=task.id),) if self.datasets else ()
        if self.datasets:
            there = Copy(region=task.home, present=True)
            dataset = Dataset(name=task.id, size_gib=task.size_gib, copies=(there,))
            self._tell(m.DatasetApplied(dataset=dataset))
        job = Job(
            id=JobId(task.id),
            command=("true",),
            alternatives=(request,),
            data=() if named else (source,),
            reads=named,
            expected_s=task.work_s,
            deadline_s=task.deadline_s,
            checkpoint=Checkpoint(dir="/c", every_s=q.EVERY_S, restore_s=q.RESTORE_S),
            regions=Residency(allow=(task.home,)) if self.home_only else Residency(),
            objective=Objective(carbon=self.carbon),
            migrate=self.migrate,
        )
        self._tell(m.JobSubmitted(job=job, token=1))

    def _turn(self, site, up):
        site.up = up
        if not up:
            for id, attempt in list(site.jobs.items()):
                del site.jobs[id]
                if attempt.began_s >= 0:
                    self.result.interrupted += 1
                    self._book(site, attempt)
                self._at(self.now_s + q.LEASE_S, self._lost, site, attempt)
        self._load(site)

    def _lost(self, site, attempt):
        report = m.JobReport(
            job=JobId(attempt.task.id), generation=attempt.generation,
            version=next(self.version), phase=P.QUEUED, lost=True, reason="its machines are gone",
        )  # fmt: skip
        self._tell(m.ClusterReported(cluster=ClusterId(site.place.id), report=report))

    def _hour(self, hour):
        self._tell(m.MarketQuoted(view=self._market(hour)))
        for site in self.sites.values():
            self._load(site)

    def _done(self, site, attempt):
        if site.jobs.get(attempt.task.id) is attempt:
            del site.jobs[attempt.task.id]
            self._book(site, attempt)
            self._end(attempt.task)
            self._report(site, attempt, P.SUCCEEDED, exit_code=0)
            self._begin_waiting(site)
            self._load(site)

    # -- the machine ----------------------------------------------------------------------------

    def _tell(self, event):
        self._act(self.machine.handle(event, self._ms(self.now_s)))

    def _rounds(self):
        for _ in range(MOST_ROUNDS):
            if not self.machine.wants_round:
                return
            self._act(self.machine.round(self._ms(self.now_s)))
        raise AssertionError("the machine always wants another round")

    def _act(self, outcome):
        self.machine.writes()
        for command in outcome.commands:
            if isinstance(command, m.SendToCluster):
                self._obey(self.sites[str(command.cluster)], command.message)

    def _obey(self, site, order):
        if isinstance(order, m.PlaceJob):
            task = self.tasks[order.job.id]
            site.jobs[task.id] = attempt = Attempt(task, order.generation)
            self._bring(task, site.place.region)
            self._report(site, attempt, P.QUEUED)
            self._begin_waiting(site)
            self._load(site)
        elif isinstance(order, m.StopJob):
            attempt = site.jobs.pop(order.job, None)
            if attempt is not None and attempt.began_s >= 0:
                self._book(site, attempt, told=True)
            task = self.tasks[order.job]
            gone = attempt or Attempt(task, order.generation)
            gone.generation = order.generation
            if order.phase is P.FAILED:
                self.result.missed += 1
                self._end(task)
            self._report(site, gone, order.phase, lost=order.comes_back)
            self._begin_waiting(site)
            self._load(site)

    def _bring(self, task, region):
        """What the job's data cost: from where they are for the least, to where they are not."""
        copies = self.copies[task.id]
        if region in copies:
            return
        least = min(self.series.egress[there, region] for there in copies)
        self.result.egress_usd += task.size_gib * least
        if self.datasets:
            copies[region] = self.now_s

    def _begin_waiting(self, site):
        for attempt in site.jobs.values():
            if attempt.began_s < 0 and attempt.task.gpus <= site.free:
                task = attempt.task
                attempt.began_s = self.now_s
                self.started.setdefault(task.id, self.now_s)
                back_s = q.RESTORE_S if self.saved[task.id] else 0.0
                ends_s = self.now_s + back_s + task.work_s - self.saved[task.id]
                self._at(ends_s, self._done, site, attempt)
                started_ms = self._ms(self.now_s)
                self._report(site, attempt, P.RUNNING, started_at_ms=started_ms)

    def _report(self, site, attempt, phase, **more):
        report = m.JobReport(
            job=JobId(attempt.task.id), generation=attempt.generation, phase=phase,
            version=next(self.version), **more,
        )  # fmt: skip
        event = m.ClusterReported(cluster=ClusterId(site.place.id), report=report)
        self._at(self.now_s + 0.1, self._tell, event)

    def _load(self, site):
        beat = m.ClusterHeartbeat(sequence=1, load=self._state(site))
        self._tell(m.ClusterHeard(cluster=ClusterId(site.place.id), heartbeat=beat))

    def _state(self, site):
        hour = min(q.HOURS - 1, int(self.now_s // 3600))
        running = sum(a.began_s >= 0 for a in site.jobs.values())
        shape = Shape(
            capacity=Capacity(gpus=8, gpu_type="V100", cpus_milli=64_000, memory_mib=499_712),
            nodes=site.place.gpus // 8,
            instance_type="p3.2xlarge",
            market=Market.SPOT if site.place.market == q.SPOT else Market.ON_DEMAND,
            usd_per_hour=8 * float(site.place.usd_per_gpu_hour[hour]),
            free_gpus_milli=1000 * site.free,
            free_cpus_milli=8000 * site.free,
            free_memory_mib=62_464 * site.free,
        )
        return ClusterLoad(
            shapes=(shape,) if site.up else (),
            waiting_jobs=len(site.jobs) - running,
            running_jobs=running,
        )

    def _hello(self, site):
        cluster = Cluster(id=ClusterId(site.place.id), region=site.place.region)
        return m.ClusterAttached(hello=m.ClusterHello(cluster=cluster, load=self._state(site)))

    def _market(self, hour):
        return MarketView(
            as_of=f"hour {hour}",
            regions={
                name: Region(
                    name=name, cloud=name.partition("/")[0],
                    carbon_g_per_kwh=float(self.series.carbon[name][hour]),
                    pue=q.PUE[name.partition("/")[0]],
                )
                for name in q.REGIONS
            },
            egress=self.series.egress,
            left_alone=self.series.left_alone,
        )  # fmt: skip

    # -- the books ------------------------------------------------------------------------------

    def _book(self, site, attempt, told=False):
        """What the attempt took by the prices of each hour, and what of its work stays."""
        task, begin, end = attempt.task, attempt.began_s, self.now_s
        place = site.place
        hours = np.arange(int(begin // 3600), min(q.HOURS - 1, int(end // 3600)) + 1)
        spans = np.minimum(end, 3600.0 * (hours + 1)) - np.maximum(begin, 3600.0 * hours)
        spans = np.maximum(0.0, spans) / 3600.0
        self.result.usd += task.gpus * float(spans @ place.usd_per_gpu_hour[hours])
        kilowatts = power_kw(task) * q.PUE[place.region.partition("/")[0]]
        grams = float(spans @ self.series.carbon[place.region][hours])
        self.result.kg += kilowatts * grams / 1000.0
        back_s = q.RESTORE_S if self.saved[task.id] else 0.0
        ran_s = max(0.0, end - begin - back_s)
        left_s = task.work_s - self.saved[task.id]
        kept_s = ran_s if told else ran_s // q.EVERY_S * q.EVERY_S  # told, it writes one more
        kept_s = left_s if ran_s >= left_s - 1e-6 else min(kept_s, left_s)
        self.saved[task.id] += kept_s
        gpu_h = task.gpus * (end - begin) / 3600.0
        self.result.gpu_h += gpu_h
        self.result.on_demand_h += gpu_h if place.market == q.ON_DEMAND else 0.0
        self.result.lost_h += task.gpus * (end - begin - kept_s) / 3600.0

    def _end(self, task):
        self.result.ended[task.id] = self.now_s
        for region, since_s in self.copies[task.id].items():
            if region != task.home:
                hours = (self.now_s - since_s) / 3600.0
                self.result.egress_usd += storage_usd(task.size_gib, region, hours)
        self.result.wait_h += (self.started.get(task.id, self.now_s) - task.at_s) / 3600.0
        due_s = task.at_s + task.deadline_s
        if task.deadline_s and self.now_s > due_s and self.saved[task.id] >= task.work_s:
            self.result.missed += 1

    def _ms(self, at_s):
        return 1_676_419_200_000 + int(1000 * at_s)


def power_kw(task):
    request = ResourceRequest(gpus_milli=1000 * task.gpus, gpu_type="V100")
    return replica_watts(request) / 1000.0
