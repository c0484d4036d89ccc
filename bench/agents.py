"""What thousands of agents cost one scheduler process, and how soon a placement reaches its agent.

Run: ``python bench/agents.py [--agents 5000] [--seconds 20] [--repeat 3] [--ordinary] [--json]``
As root all three processes run in real time (``chrt --rr``), so that what is measured is the
scheduler and not who else had a core; ``--ordinary`` leaves them to the kernel's fair shares.
``--floor`` puts a server in the scheduler's place that reads envelopes and does nothing else.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import msgspec
from agents_load import CAPACITY, Load, now_ms, reading
from measure import cpu_s, median, parser, percentile, progress, pss_mib, report

from hyperion.adapters.link.authority import Authority
from hyperion.adapters.link.credentials import Credentials, save
from hyperion.adapters.link.identity import SERVING, Identity, Role
from hyperion.adapters.link.streams import AGENTS, channel_options, server_options
from hyperion.control import messages as m
from hyperion.control.liveness import Holder
from hyperion.model.allocation import AllocationState
from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.node import Node
from hyperion.model.resources import ResourceRequest
from hyperion.wire import codec
from hyperion.wire.generated import link_pb2
from hyperion.wire.relay import Measured

DOMAIN, CLUSTER = "bench.hyperion", "home"
SUBMIT = "/hyperion.v1.FederationScheduler/SubmitJob"
SCHEDULER, PROBE, LOAD = 1, 2, 3
"""Real-time priorities. The load's is the highest, for agents beat evenly on machines of their own:
held up, it would send hundreds of heartbeats at once. The scheduler gets what the others leave."""
PROBES = 20
"""Agents of a process of their own that does little else, so that it can look at its watch."""
DIALS_AT_ONCE = 16
METHOD = (
    "one scheduler process (its own daemon: gRPC over mutual TLS, driver, cluster machine, SQLite "
    "with fsync) on this machine; all agents but {probes} in a second process, each with its own "
    "certificate, key and TLS connection; each says Hello, then once a second its heartbeat and a "
    "reading of 8 GPUs, by the agent's own lease rule; a third process holds the other {probes} "
    "agents, submits jobs to the scheduler's own API at a steady {rate}/s and takes the time "
    "until the Run order is on its agent's stream, then reports it running and ended; CPU of the "
    "scheduler from /proc/PID/stat over {seconds} s after all have attached; {priority}"
)
REALTIME = (
    f"once they have, all three run in real time, the load first (SCHED_RR, scheduler {SCHEDULER}, "
    f"probe {PROBE}, load {LOAD})"
)
ORDINARY = "all three with the kernel's ordinary priority, beside what else runs on the machine"


class Said(msgspec.Struct, omit_defaults=True):
    """What a process of this benchmark tells the first one, a line of JSON each."""

    attached: int = 0
    port: int = 0
    waits_ms: list[float] = []
    accepted_ms: list[float] = []
    held_up_ms: list[float] = []
    """How late the submissions left this process: its own doing, and part of both waits."""
    lost: int = 0
    leases: int = 0
    beats: int = 0
    late: int = 0
    cpu_s: float = 0.0


def say(said: Said) -> None:
    print(msgspec.json.encode(said).decode(), flush=True)


# -- agents -------------------------------------------------------------------------------------


class Agent:
    """One agent's stream, with the real envelopes; what it would run is played."""

    def __init__(self, number: int, labels: dict[str, str]) -> None:
        self.name = f"node-{number:05d}"
        self.lease = Holder()
        self.leases = self.late = 0
        self.runs: list[m.Run] = []
        self._labels = labels
        self._writing = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None

    async def attach(self, authority: Authority, target: str) -> None:
        name = Identity(DOMAIN, Role.AGENT, f"{CLUSTER}/{self.name}")
        key, certificate = authority.issue(name)
        ours = grpc.ssl_channel_credentials(authority.ca_pem, key, certificate)
        self._channel = grpc.aio.secure_channel(target, ours, channel_options(Role.SCHEDULER))
        self._call = self._channel.stream_stream(AGENTS.path)()
        await self._call.initial_metadata()
        node = Node(id=NodeId(self.name), capacity=CAPACITY, labels=self._labels)
        self.lease.attached(now_ms())
        await self.send(m.NodeHello(node=node))

    async def send(self, *messages: object) -> None:
        envelope = codec.pack_agent(messages).SerializeToString()
        async with self._writing:  # gRPC takes one message at a time
            await self._call.write(envelope)

    async def beat(self, separately: bool) -> None:
        now = now_ms()
        self.late += not self.lease.is_valid(now) and self.leases > 0
        fresh = self.lease.is_fresh(now, 1000) and not separately
        heartbeat = m.NodeHeartbeat(sequence=self.lease.beat(now), fresh=fresh)
        measured = Measured(self.name, reading(now))
        if separately:
            await self.send(heartbeat)
            await self.send(measured)
        else:
            await self.send(heartbeat, measured)

    async def read(self) -> AsyncIterator[m.Run]:
        while (envelope := await self._call.read()) is not grpc.aio.EOF:
            for message in codec.unpack_scheduler(link_pb2.SchedulerMessage.FromString(envelope)):
                if isinstance(message, m.Lease):
                    self.leases += 1
                    self.lease.granted(message.sequence, message.duration_ms)
                elif isinstance(message, m.Run):
                    yield message


async def attach_all(
    directory: Path, port: int, numbers: range, labels: dict[str, str]
) -> list[Agent]:
    authority = Authority.open(directory / "authority", DOMAIN)
    agents = [Agent(n, labels) for n in numbers]
    gate = asyncio.Semaphore(DIALS_AT_ONCE)

    async def attach(agent: Agent) -> None:
        async with gate:
            await agent.attach(authority, f"127.0.0.1:{port}")

    await asyncio.gather(*map(attach, agents))
    return agents


async def beat_all(agents: list[Agent], separately: bool, stop: asyncio.Event) -> int:
    """Each once a second, evenly spread over it; how many heartbeats went out."""
    begun = time.monotonic()
    beats = 0
    while not stop.is_set():
        due = int((time.monotonic() - begun) * len(agents))
        while beats < due:
            await agents[beats % len(agents)].beat(separately)
            beats += 1
        await asyncio.sleep(0.005)
    return beats


def load_process(directory: Path, port: int, count: int, separately: bool) -> None:
    load = Load(Authority.open(directory / "authority", DOMAIN), port, count, separately)
    say(Said(attached=count))
    cpu = time.process_time()
    load.run()
    told = load.told()
    say(
        Said(
            beats=int(told["beats"]),
            leases=int(told["leases"]),
            late=int(told["late"]),
            lost=int(told["lost"]),
            cpu_s=told["cpu_s"] - cpu,
        )
    )
    load.leave()


async def probe_process(
    directory: Path, port: int, first: int, rate: float, separately: bool
) -> None:
    agents = await attach_all(directory, port, range(first, first + PROBES), {"probe": "yes"})
    arrived: dict[str, float] = {}
    readers = [asyncio.create_task(play(agent, arrived)) for agent in agents]
    ours = Credentials.load(directory / "client", int(time.time()))  # noqa: TID251 - dated
    options = channel_options(Role.SCHEDULER)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", ours.channel(), options) as channel:
        submit = channel.unary_unary(SUBMIT)
        say(Said(attached=len(agents)))
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, stop.set)
        beating = asyncio.create_task(beat_all(agents, separately, stop))
        seen = await submit_steadily(submit, rate, arrived, stop)
        await beating
    seen.lost = sum(reader.done() for reader in readers)
    say(seen)
    os._exit(0)


async def submit_steadily(
    submit: "grpc.aio.UnaryUnaryMultiCallable",
    rate: float,
    arrived: dict[str, float],
    stop: asyncio.Event,
) -> Said:
    """By a timetable, late answers or not: ms until on the stream, and until answered."""
    asked: dict[str, float] = {}
    held_up: list[float] = []
    answered: dict[str, float] = {}

    async def one(name: str, due: float) -> None:
        request = ResourceRequest(gpus_milli=1000, cpus_milli=1000, labels={"probe": "yes"})
        job = Job(id=JobId(name), alternatives=(request,), command=("true",))
        asked[name] = due
        held_up.append(1e3 * (time.monotonic() - due))
        await submit(codec.job_to_proto(job).SerializeToString())
        answered[name] = time.monotonic()

    tasks = []
    begun = time.monotonic()
    while not stop.is_set():
        due = begun + len(tasks) / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(f"probe-{len(tasks)}", due)))
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.5)
    missing = asked.keys() - arrived.keys()
    assert not missing, f"{len(missing)} of {len(asked)} jobs reached no agent"
    return Said(
        waits_ms=[1e3 * (arrived[name] - at) for name, at in asked.items()],
        accepted_ms=[1e3 * (answered[name] - at) for name, at in asked.items()],
        held_up_ms=held_up,
    )


async def play(agent: Agent, arrived: dict[str, float]) -> None:
    """Note when an order arrives, and say at once that it runs, and that it has ended."""
    async for order in agent.read():
        arrived.setdefault(str(order.job.id), time.monotonic())
        for state in (AllocationState.RUNNING, AllocationState.SUCCEEDED):
            await agent.send(
                m.AllocationReport(
                    allocation=order.allocation,
                    generation=order.generation,
                    state=state,
                    exit_code=0 if state.is_terminal else None,
                )
            )


# -- servers ------------------------------------------------------------------------------------


def scheduler_process(directory: Path) -> None:
    from hyperion.daemon.running import run
    from hyperion.daemon.scheduler import SchedulerDaemon
    from hyperion.daemon.settings import SchedulerSettings

    settings = SchedulerSettings(
        state_dir=str(directory / "state"),
        credentials=str(directory / "scheduler"),
        trust_domain=DOMAIN,
        cluster=CLUSTER,
        listen="127.0.0.1:0",
        federation="",
        allow_declared=True,
    )
    daemon = SchedulerDaemon(settings)

    async def serve(stop: asyncio.Event) -> None:
        serving = asyncio.create_task(daemon.serve(stop))
        while not daemon.port and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        counted = 0
        take = daemon.heartbeats.take

        def counting(heard: m.NodeHeard) -> None:
            nonlocal counted
            counted += 1
            take(heard)

        daemon.heartbeats.take = counting  # type: ignore[method-assign]
        asyncio.get_running_loop().add_reader(0, lambda: answer(lambda: counted))
        say(Said(port=daemon.port))
        await serving

    sys.exit(run(serve))


def answer(counted: Callable[[], int]) -> None:
    """Say how many heartbeats have been taken so far, when asked."""
    os.read(0, 64)
    say(Said(beats=counted()))


async def floor_process(directory: Path) -> None:
    """Reads what agents send, gives back a lease to each Hello, and nothing else."""
    ours = Credentials.load(directory / "scheduler", int(time.time()))  # noqa: TID251 - dated
    lease = codec.pack_scheduler([m.Lease(0, 3_600_000)]).SerializeToString()
    counted = 0

    async def attach(_: object, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        await context.send_initial_metadata((("hyperion-link", "1"),))
        await context.read()
        await context.write(lease)
        nonlocal counted
        while await context.read() is not grpc.aio.EOF:
            counted += 1

    server = grpc.aio.server(options=server_options())
    handler = grpc.stream_stream_rpc_method_handler(attach)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(AGENTS.service, {"Attach": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", ours.server())
    await server.start()
    asyncio.get_running_loop().add_reader(0, lambda: answer(lambda: counted))
    say(Said(port=port))
    await server.wait_for_termination()


# -- the benchmark ------------------------------------------------------------------------------


@contextlib.contextmanager
def child(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def heard(process: "subprocess.Popen[bytes]") -> Said:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args} ended without a word"
    return msgspec.json.decode(line, type=Said)


def told(process: "subprocess.Popen[bytes]") -> Said:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return heard(process)


def realtime_permitted() -> bool:
    """Whether we may; the fair scheduling that we began with is put back."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(SCHEDULER))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def hasten(process: "subprocess.Popen[bytes]", priority: int) -> None:
    """Every thread of it; those that it starts from now on inherit that."""
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(priority))


def make_world(directory: Path) -> None:
    authority = Authority.open(directory / "authority", DOMAIN)
    for role, name in ((Role.SCHEDULER, CLUSTER), (Role.CLIENT, "bench")):
        hosts = ["127.0.0.1"] if role in SERVING else []
        key, certificate = authority.issue(Identity(DOMAIN, role, name), hosts)
        save(directory / role.value, key, certificate, authority.ca_pem)


def one_run(options: argparse.Namespace) -> dict[str, float]:
    many = options.agents - PROBES
    flags = ["--separately"] * options.separately
    with tempfile.TemporaryDirectory(prefix="hyperion-agents-") as made:
        directory = Path(made)
        make_world(directory)
        server = "floor" if options.floor else "scheduler"
        with child("--process", server, "--directory", made) as scheduler:
            port = heard(scheduler).port
            empty_mib = pss_mib(scheduler.pid)
            to = ("--directory", made, "--port", port, *flags)
            began, cpu = time.monotonic(), sum(cpu_s(scheduler.pid))
            with child("--process", "load", "--agents", many, *to) as load:
                assert heard(load).attached == many
                attach_s = time.monotonic() - began
                attach_cpu = sum(cpu_s(scheduler.pid)) - cpu
                probe_to = ("--agents", many, "--rate", options.rate, *to)
                with (
                    child("--process", "probe", *probe_to)
                    if not options.floor
                    else contextlib.nullcontext()
                ) as probe:
                    if probe is not None:
                        heard(probe)
                    if options.realtime:
                        for process, rank in ((scheduler, SCHEDULER), (probe, PROBE), (load, LOAD)):
                            if process is not None:
                                hasten(process, rank)
                    time.sleep(3)
                    beats = told(scheduler).beats
                    began, cpu = time.monotonic(), sum(cpu_s(scheduler.pid))
                    time.sleep(options.seconds)
                    spent = sum(cpu_s(scheduler.pid)) - cpu
                    took = time.monotonic() - began
                    beats = told(scheduler).beats - beats
                    full_mib = pss_mib(scheduler.pid)
                    seen = told(probe) if probe is not None else Said()
                    counted = told(load)
    assert not counted.lost, f"{counted.lost} of {many} agents lost their stream"
    assert not counted.late, f"{counted.late} heartbeats found the lease ended"
    return {
        "cores": spent / took,
        "us": 1e6 * spent / beats,
        "kib": 1024 * (full_mib - empty_mib) / options.agents,
        "attach_ms": 1e3 * attach_cpu / many,
        "attach_s": attach_s,
        "beats": beats / took,
        "leases": counted.leases / counted.beats,
        "load": counted.cpu_s,
        "p50": percentile(seen.waits_ms, 0.5) if seen.waits_ms else 0.0,
        "p99": percentile(seen.waits_ms, 0.99) if seen.waits_ms else 0.0,
        "accepted_p99": percentile(seen.accepted_ms, 0.99) if seen.accepted_ms else 0.0,
        "held_up_p99": percentile(seen.held_up_ms, 0.99) if seen.held_up_ms else 0.0,
    }


def rows_of(
    runs: list[dict[str, float]], options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    def row(figure: str, key: str, unit: str, digits: int = 2, **goal: float) -> dict[str, object]:
        value = median([run[key] for run in runs], digits)
        return {"figure": figure, "value": value, "unit": unit, **goal}

    many = f"{options.agents} agents at 1 Hz"
    yield row(f"CPU of the scheduler, {many}", "cores", "cores", goal=1.0)
    yield row("CPU of a heartbeat with its reading, all in all", "us", "µs", 1)
    if not options.floor:
        yield row("submit → on its agent's stream meanwhile, p50", "p50", "ms", 1)
        yield row("submit → on its agent's stream meanwhile, p99", "p99", "ms", 1, goal=10.0)
        yield row("submit → answered (durable) meanwhile, p99", "accepted_p99", "ms", 1)
        yield row("of it before it left the submitting process, p99", "held_up_p99", "ms", 1)
    yield row("memory of an attached agent (PSS)", "kib", "KiB", 0)
    yield row(
        "CPU of an agent until all had attached, heartbeats and TLS included", "attach_ms", "ms", 1
    )
    yield row("heartbeats taken per second", "beats", "1/s", 0)
    yield row("leases per heartbeat", "leases", "", 2)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--agents", type=int, default=5000)
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    arguments.add_argument("--floor", action="store_true")
    arguments.add_argument(
        "--separately", action="store_true", help="heartbeat and reading apart, each answered"
    )
    arguments.add_argument(
        "--ordinary", action="store_true", help="nothing in real time, even where that is permitted"
    )
    arguments.add_argument("--process", choices=["scheduler", "floor", "load", "probe"])
    arguments.add_argument("--directory", type=Path)
    arguments.add_argument("--port", type=int, default=0)
    options = arguments.parse_args()
    match options.process:
        case "scheduler":
            scheduler_process(options.directory)
        case "floor":
            asyncio.run(floor_process(options.directory))
        case "load":
            load_process(options.directory, options.port, options.agents, options.separately)
        case "probe":
            asyncio.run(
                probe_process(
                    options.directory,
                    options.port,
                    options.agents,
                    options.rate,
                    options.separately,
                )
            )
    options.realtime = not options.ordinary and realtime_permitted()
    runs = []
    for n in range(options.repeat):
        progress(f"run {n + 1} of {options.repeat}")
        runs.append(one_run(options))
    method = METHOD.format(
        probes=PROBES,
        rate=options.rate,
        seconds=options.seconds,
        priority=REALTIME if options.realtime else ORDINARY,
    )
    report("agents", method, list(rows_of(runs, options)), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
