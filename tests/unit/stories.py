"""Short words for stories about machines: who said what, and what the machine answered."""

from hyperion.control import messages as m
from hyperion.control.agent import Agent
from hyperion.control.cluster import ClusterMachine
from hyperion.control.federation import Federation
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.ids import ClusterId, JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.market import MarketView, Region
from hyperion.model.node import Node
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import ranking

MARKET = MarketView(
    as_of="2026-01-01",
    regions={
        "aws/us-east-1": Region(name="aws/us-east-1", cloud="aws", carbon_g_per_kwh=400),
        "gcp/europe-west1": Region(name="gcp/europe-west1", cloud="gcp", carbon_g_per_kwh=120),
    },
)


def job(id="train", gpus=1, cpus=1.0, **more):
    request = ResourceRequest(gpus_milli=int(1000 * gpus), cpus_milli=int(1000 * cpus))
    more.setdefault("command", ("true",))
    return Job(id=JobId(id), alternatives=(request,), **more)


def node(id="n1", gpus=8, cpus=16, **more):
    capacity = Capacity(
        gpus=gpus,
        gpu_type="A100" if gpus else "",
        cpus_milli=1000 * cpus,
        memory_mib=65_536,
        disk_mib=100_000,
    )
    return Node(id=NodeId(id), capacity=capacity, **more)


class Teller:
    """Drives one machine, checks its laws after each step, and collects what it commands."""

    def __init__(self, machine):
        self.machine = machine
        self.now_ms = 1_000_000
        self.commands = []
        self.records = []

    def say(self, *events, after_ms=1):
        """Tell events; returns the commands that follow, rounds included."""
        first = len(self.commands)
        for event in events:
            self.now_ms += after_ms
            self._take(self.machine.handle(event, self.now_ms))
            if self.machine.wants_round:
                self._take(self.machine.round(self.now_ms))
        return self.commands[first:]

    def wait(self, ms, step_ms=500):
        first = len(self.commands)
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms:
            self.say(m.Tick(), after_ms=min(step_ms, until_ms - self.now_ms))
        return self.commands[first:]

    def restart(self, make):
        """Kill it and start it anew from what its store holds."""
        disk = getattr(self, "disk", {})
        self.machine = make()
        self.machine.restore(sorted(disk.items()), self.now_ms)
        first = len(self.commands)
        self._take(self.machine.resume(self.now_ms))
        return self.commands[first:]

    def _take(self, outcome):
        self.records += outcome.records
        self.commands += outcome.early + outcome.commands
        disk = self.__dict__.setdefault("disk", {})
        for path, value in self.machine.writes().items():
            if value is None:
                disk.pop(path, None)
            else:
                disk[path] = value
        state = getattr(self.machine, "state", None)
        if state is not None:
            state.check()


def agent():
    return Teller(Agent(node()))


def cluster(policy="pack"):
    return Teller(
        ClusterMachine(Cluster(id=ClusterId("c1"), region="aws/us-east-1"), ranking.policy(policy))
    )


def federation():
    return Teller(Federation(MARKET, "balanced"))


def sent(commands, kind=object):
    """The messages of a kind that were sent, whoever to."""
    return [c.message for c in commands if hasattr(c, "message") and isinstance(c.message, kind)]


def names(commands):
    return [type(getattr(c, "message", c)).__name__ for c in commands]


def load(nodes=1, gpus=8, **more):
    capacity = Capacity(
        gpus=gpus, gpu_type="A100", cpus_milli=16_000, memory_mib=65_536, disk_mib=100_000
    )
    shape = Shape(
        capacity=capacity,
        nodes=nodes,
        usd_per_hour=more.pop("usd_per_hour", 10.0),
        free_cpus_milli=16_000 * nodes,
        free_gpus_milli=8000 * nodes,
        free_memory_mib=65_536 * nodes,
    )
    return ClusterLoad(shapes=(shape,), **more)
