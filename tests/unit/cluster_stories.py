"""A cluster without a federation, and what its agents say, in short words."""

from stories import Teller, job, node, sent

from hyperion.control import messages as m
from hyperion.control.cluster import ClusterMachine
from hyperion.control.uplink import ClusterTimes
from hyperion.model.allocation import AllocationState as S
from hyperion.model.cluster import Cluster
from hyperion.model.ids import ClusterId
from hyperion.placement import ranking

__all__ = [
    "S",
    "alone",
    "beat",
    "federated",
    "job",
    "node",
    "phases",
    "place",
    "queues",
    "running",
    "say",
    "sent",
    "status",
    "submit",
    "tell",
]


def machine(policy="pack", **times):
    return ClusterMachine(
        Cluster(id=ClusterId("c1"), region="aws/us-east-1"),
        ranking.policy(policy),
        ClusterTimes(**times),
    )


def alone(*nodes, policy="pack", **times):
    """A cluster of its own with these nodes attached."""
    c = Teller(machine(policy, **times))
    for n in nodes or (node(),):
        c.say(m.NodeAttached(hello=m.NodeHello(node=n)))
    return c


def federated(*nodes, lease_ms=60_000, **times):
    """The same, attached to a federation that leases it its jobs."""
    c = alone(*nodes, **times)
    c.say(m.FederationAttached(), m.Lease(sequence=0, duration_ms=lease_ms))
    return c


def place(c, job, generation=1):
    """The federation places a job; the replicas that were ordered to run or prepare."""
    order = m.PlaceJob(job=job, generation=generation, submitted_at_ms=c.now_ms)
    return sent(c.say(order), (m.Run, m.Prepare))


def submit(c, *jobs):
    """Submit them one after the other; the replicas that were ordered to run or prepare."""
    orders = []
    for each in jobs:
        orders += sent(c.say(m.JobSubmitted(job=each, token=1)), (m.Run, m.Prepare))
    return orders


def tell(c, order, state, **facts):
    """The agent on which a replica lies reports its state; what the machine commands then."""
    a = c.machine.state.allocations[order.allocation]
    if state.is_terminal and state is S.SUCCEEDED:
        facts.setdefault("exit_code", 0)
    report = m.AllocationReport(allocation=a.id, generation=a.generation, state=state, **facts)
    return c.say(m.NodeReported(node=a.node, report=report))


def say(c, orders, state, **facts):
    """The same of several; returns all commands."""
    return [command for order in orders for command in tell(c, order, state, **facts)]


def running(c, *jobs):
    """Submit them and let what was ordered run; whole gangs have to be told READY first."""
    orders = submit(c, *jobs)
    say(c, orders, S.RUNNING, started_at_ms=c.now_ms)
    return orders


def queues(c, *each):
    [answer] = [x for x in c.say(m.QueuesApplied(queues=each, token=9)) if hasattr(x, "error")]
    assert answer.error == "", answer.error


def beat(c, seconds=1):
    """Time passes; the agents' leases go on."""
    commands = []
    for _ in range(seconds):
        for id in list(c.machine.peers):
            c.say(m.NodeHeard(node=id, heartbeat=m.NodeHeartbeat(sequence=1)))
        commands += c.wait(1000, step_ms=250)
    return commands


def status(c, id):
    return c.machine.state.jobs[id].status


def phases(c):
    return {id: known.status.phase.value for id, known in c.machine.state.jobs.items()}
