"""Readers of published job traces, one function each; ``catalogue`` knows them by name.

A reader takes rows (with their line numbers) and gives jobs; rows that make no sense are counted.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from msgspec.structs import replace

from hyperion.model.accelerators import canonical
from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Elastic, Job, Priority
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.sim.trace import BadRow, Trace, TraceJob, assembled, gang, queue_name
from hyperion.sim.traces.cells import BadCell, Cells, Reading, Rows

Reader = Callable[[Rows, Reading], Trace]


def philly(rows: Rows, reading: Reading) -> Trace:
    """Microsoft's Philly, 2017: ``submit_ts``, ``vc``, ``num_gpus``, ``duration_s``."""

    def one(cells: Cells) -> TraceJob:
        request, replicas = gpu_request(cells.whole("num_gpus", least=1), reading)
        vc = cells.text("vc", "default")
        return _job(
            f"philly-{cells.line}",
            at_s=_when_s(cells, "submit_ts"),
            runs_s=cells.number("duration_s", least=0.001),
            request=request,
            replicas=replicas,
            user=vc,
            queue=vc,
        )

    return _read("philly", rows, one, ("virtual clusters count as both queue and user",))


def pai(rows: Rows, reading: Reading) -> Trace:  # noqa: ARG001 - no GPUs in it
    """Alibaba's PAI, 2020, as sampled by GAIA: ``arrival_s``, ``duration_s``, ``cpus``."""

    def one(cells: Cells) -> TraceJob:
        size = cells.whole("cpus", least=1)
        replicas, each = gang(size, 64)
        request = ResourceRequest(cpus_milli=each * MILLI, memory_mib=each * 1024)
        return _job(
            f"pai-{cells.line}",
            at_s=cells.number("arrival_s"),
            runs_s=cells.number("duration_s", least=0.001),
            request=request,
            replicas=replicas,
        )

    notes = ("this sample keeps a size in CPUs only: jobs ask for no GPU",)
    return _read("pai", rows, one, notes)


def openb(rows: Rows, reading: Reading) -> Trace:  # noqa: ARG001 - pods say all themselves
    """Alibaba's GPU-sharing pods, 2023: ``num_gpu``, ``gpu_milli``, ``cpu_milli``, times, QoS."""

    def one(cells: Cells) -> TraceJob:
        began = cells.number("creation_s")
        ended = cells.number("deletion_s")
        if ended <= began:
            raise cells.wrong("deletion_s", f"found {ended:g}, not after the creation {began:g}")
        count = cells.whole("num_gpu", default=0)
        milli = cells.whole("gpu_milli", default=1000 * bool(count))
        types = _types(cells.text("gpu_spec_33pct", ""))
        request = ResourceRequest(
            gpus_milli=milli if count == 1 else count * MILLI,
            cpus_milli=cells.whole("cpu_milli"),
            memory_mib=cells.whole("memory_mib", default=0),
        )
        qos = cells.text("qos", "LS")
        return _job(
            cells.text("name", f"openb-{cells.line}"),
            at_s=began,
            runs_s=ended - began,
            request=request,
            types=types if request.gpus_milli else (),
            queue=qos,
            user=qos,
        )

    return _read("openb", rows, one, ("a pod's quality of service counts as its queue and user",))


def chronus(rows: Rows, reading: Reading) -> Trace:
    """Chronus' mix of jobs with and without wanted ends: ``submit_s``, ``expect_time_list``."""

    def one(cells: Cells) -> TraceJob:
        request, replicas = gpu_request(cells.whole("num_gpu", least=1), reading)
        at_s = cells.number("submit_s")
        due_s = 0.0
        if cells.text("job_type", "best") != "best":
            due_s = _first_number(cells, "expect_time_list") - at_s
        user = cells.text("user", "default")
        return _job(
            f"chronus-{cells.line}",
            at_s=at_s,
            runs_s=cells.number("duration_s", least=0.001),
            request=request,
            replicas=replicas,
            user=user,
            queue=user,
            due_s=max(0.0, due_s),
        )

    notes = ("wanted ends are only scored: a late job still runs to its end",)
    return _read("chronus", rows, one, notes)


def gavel(rows: Rows, reading: Reading) -> Trace:
    """Gavel's and Shockwave's job types with steps: ``job_type``, ``total_steps``, ``arrival_s``,
    ``scale_factor``."""

    def one(cells: Cells) -> TraceJob:
        request, replicas = gpu_request(cells.whole("scale_factor", least=1), reading)
        kind = cells.text("job_type")
        per_s = STEPS_PER_S.get(kind.partition(" (")[0])
        if per_s is None:
            known = ", ".join(sorted(STEPS_PER_S))
            raise cells.wrong("job_type", f'found "{kind}", expected one of {known}')
        batch = re.search(r"\(batch size (\d+)\)", kind)
        reference, rate = per_s
        rate *= reference / int(batch[1]) if batch and reference else 1.0
        vc = cells.text("vc", "default")
        return _job(
            f"gavel-{cells.line}",
            at_s=cells.number("arrival_s"),
            runs_s=max(1.0, cells.number("total_steps", least=1) / rate),
            request=request,
            replicas=replicas,
            user=vc,
            queue=vc,
        )

    notes = (
        "steps became seconds by one rounded rate for each kind of job, inversely proportional to"
        " its batch size",
    )
    return _read("gavel", rows, one, notes)


def sia(rows: Rows, reading: Reading) -> Trace:
    """Sia's adaptive jobs: ``time``, ``application``, ``num_replicas``; elastic from one GPU up."""

    def one(cells: Cells) -> TraceJob:
        application = cells.text("application")
        gpu_hours = SIA_GPU_HOURS.get(application)
        if gpu_hours is None:
            known = ", ".join(sorted(SIA_GPU_HOURS))
            raise cells.wrong("application", f'found "{application}", expected one of {known}')
        width = cells.whole("num_replicas", least=1)
        request, _ = gpu_request(1, reading)
        family = cells.text("family", "default")
        return _job(
            f"sia-{cells.line}",
            at_s=cells.number("time"),
            runs_s=3600 * gpu_hours / width,
            request=request,
            replicas=width,
            elastic=Elastic(min=1) if width > 1 else None,
            user=application,
            queue=family,
        )

    notes = (
        "the trace gives no run times: each application counts as the middle of its class of size"
        f" ({', '.join(f'{a} {h:g} GPU-hours' for a, h in SIA_GPU_HOURS.items())}), and as running"
        " in proportion to its width",
        "all workloads of the file arrive together; take a part with --jobs",
    )
    return _read("sia", rows, one, notes)


def acme(rows: Rows, reading: Reading) -> Trace:
    """A sample of Acme's Kalos: ``arrival_time``, ``num_iteration``, ``gpu_workers`` …"""

    def one(cells: Cells) -> TraceJob:
        workers = cells.whole("gpu_workers", least=1)
        each = cells.whole("gpu_per_worker", least=1, default=1)
        request, replicas = gpu_request(workers * each, reading)
        iteration_s = cells.number("iteration_computing_time") + cells.number(
            "iteration_networking_time", default=0.0
        )
        return _job(
            f"acme-{cells.text('job_id', str(cells.line))}",
            at_s=cells.number("arrival_time"),
            runs_s=max(1.0, cells.number("num_iteration", least=1) * iteration_s),
            request=request,
            replicas=replicas,
        )

    return _read("acme", rows, one, ("a job's GPUs are its workers times the GPUs of each",))


#: Reference batch size and steps a second at it, on one V100 and alone. Rounded by us from the
#: tables of Gavel (stanford-futuredata/gavel, MIT, simulation_throughputs.json).
STEPS_PER_S: dict[str, tuple[int, float]] = {
    "ResNet-18": (32, 32.0),
    "ResNet-50": (32, 6.0),
    "Transformer": (32, 25.0),
    "LM": (20, 40.0),
    "Recommendation": (2048, 13.0),
    "CycleGAN": (0, 1.7),
    "A3C": (0, 4.5),
}
#: Middles of the classes of size (by GPU time) into which the authors of Pollux sort these jobs.
SIA_GPU_HOURS: dict[str, float] = {
    "cifar10": 0.3,
    "deepspeech2": 3.0,
    "bert": 3.0,
    "yolov3": 30.0,
    "imagenet": 300.0,
}


def gpu_request(gpus: int, reading: Reading) -> tuple[ResourceRequest, int]:
    """(what one replica asks for, replicas) of a job that wants so many whole GPUs."""
    replicas, each = gang(gpus, reading.gpus_per_node)
    request = ResourceRequest(
        gpus_milli=each * MILLI,
        gpu_type=reading.gpu_type,
        cpus_milli=each * reading.cpus_milli_per_gpu,
        memory_mib=each * reading.memory_mib_per_gpu,
    )
    return request, replicas


def _job(
    name: str,
    *,
    at_s: float,
    runs_s: float,
    request: ResourceRequest,
    replicas: int = 1,
    user: str = "",
    queue: str = "",
    types: tuple[str, ...] = (),
    elastic: Elastic | None = None,
    due_s: float = 0.0,
) -> TraceJob:
    alternatives: tuple[ResourceRequest, ...] = (request,)
    if types:
        alternatives = tuple(replace(request, gpu_type=t) for t in types)
    return TraceJob(
        at_ms=int(1000 * at_s),
        job=Job(
            id=JobId(re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64]),
            user=UserId(user),
            queue=queue_name(queue),
            command=("true",),
            priority=Priority.BATCH,
            replicas=replicas,
            alternatives=alternatives,
            elastic=elastic,
        ),
        runs_ms=max(1, int(1000 * runs_s)),
        due_ms=int(1000 * due_s),
    )


def _read(
    name: str, rows: Rows, one: Callable[[Cells], TraceJob], notes: tuple[str, ...] = ()
) -> Trace:
    bad: list[BadRow] = []
    return assembled(name, _good(rows, one, bad), bad, notes)


def _good(rows: Rows, one: Callable[[Cells], TraceJob], bad: list[BadRow]) -> Iterator[TraceJob]:
    for line, row in rows:
        try:
            yield one(Cells(line, row))
        except BadCell as fault:
            bad.append(fault.row)


def _types(text: str) -> tuple[str, ...]:
    """``V100M16|V100M32`` → the names by which nodes have them."""
    by_memory = {"V100M16": "V100", "V100M32": "V100-32GB"}
    return tuple(by_memory.get(t) or canonical(t) or t for t in text.split("|") if t)


def _when_s(cells: Cells, column: str) -> float:
    """A moment: a datetime, seconds, or ISO 8601 (without a zone it is UTC)."""
    value = cells.row.get(column)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    text = cells.text(column)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise cells.wrong(
            column, f'found "{text}", expected a time such as 2017-10-01T12:30:00'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _first_number(cells: Cells, column: str) -> float:
    text = cells.text(column)
    try:
        return float(text.split("-")[0])
    except ValueError:
        raise cells.wrong(column, f'found "{text}", expected numbers joined by "-"') from None
