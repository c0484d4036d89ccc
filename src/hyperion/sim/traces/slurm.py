"""Reads Slurm's accounting: what ``sacct --parsable2 --allocations`` prints, from any version.

Needed are JobID and Submit, and either Elapsed, ElapsedRaw, or Start and End. All else is used
where it is there: User, Account, Partition, State, ExitCode, AllocTRES or ReqTRES, ReqCPUS,
AllocCPUS, ReqMem, NNodes or ReqNodes, Timelimit, Priority.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from hyperion.model.accelerators import canonical
from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.sim.trace import BadRow, Trace, TraceJob, assembled, queue_name
from hyperion.sim.traces.cells import BadCell, Cells, Reading, Rows, short

UNKNOWN = frozenset({"", "Unknown", "None", "N/A", "INVALID", "UNLIMITED", "Partition_Limit"})
"""What sacct prints where there is no time."""
NOT_STARTED = ("PENDING", "REQUEUED", "REVOKED")
ENDED_WELL = ("COMPLETED",)


def sacct(rows: Rows, reading: Reading) -> Trace:
    """Jobs of an accounting table. Steps (``12.batch``) are parts of their job, and passed over."""
    bad: list[BadRow] = []
    jobs: list[TraceJob] = []
    seen: dict[str, int] = {}
    steps = 0
    for line, row in rows:
        try:
            cells = Cells(line, row)
            name = cells.text("JobID")
            if "." in name:
                steps += 1
                continue
            jobs.append(_job(name, cells, reading, seen))
        except BadCell as fault:
            bad.append(fault.row)
    notes = [f"{steps} rows are steps of jobs and were passed over"] if steps else []
    notes.append("what a job ran is what it is taken to need; the time it waited is not used")
    return assembled("slurm", jobs, bad, notes)


def _job(name: str, cells: Cells, reading: Reading, seen: dict[str, int]) -> TraceJob:
    """A row that is a job. Tasks of arrays (``7_3``) stand in rows of their own."""
    state = cells.text("State", "COMPLETED").split()[0].rstrip("+").upper()
    submitted_s = _moment_s(cells, "Submit")
    if submitted_s is None:
        raise cells.wrong("Submit", "is unknown, so nobody can say when the job came")
    ran_s = _ran_s(cells)
    if ran_s is None or (ran_s <= 0 and state != "CANCELLED"):
        what = "never ran" if state in NOT_STARTED or ran_s is not None else "has no time of run"
        raise cells.wrong("Elapsed", f"the job ({state}) {what}")
    request, replicas = _needs(cells, reading)
    seen[name] = seen.get(name, 0) + 1  # sacct --duplicates lists each run of a requeued job
    id = re.sub(r"[^A-Za-z0-9_-]+", "-", f"slurm-{name}").strip("-")
    if seen[name] > 1:
        id = f"{id}-run{seen[name]}"
    cancelled_s = 0.0
    if state == "CANCELLED" and ran_s <= 0:
        ended_s = _moment_s(cells, "End")
        if ended_s is None or ended_s <= submitted_s:
            raise cells.wrong("End", "the job was cancelled before it ran, and nobody knows when")
        cancelled_s = ended_s - submitted_s
    limit_s = _span_s(cells, "Timelimit")
    job = Job(
        id=JobId(id[:64]),
        user=UserId(cells.text("User", cells.text("Account", "unknown"))),
        queue=queue_name(cells.text("Partition", "").split(",")[0]),
        command=("true",),
        replicas=replicas,
        alternatives=(request,),
        expected_s=limit_s or 0.0,
    )
    return TraceJob(
        at_ms=int(1000 * submitted_s),
        job=job,
        runs_ms=max(1, int(1000 * ran_s)) if ran_s > 0 else 3_600_000,
        exit_codes=(_exit_code(cells, state),),
        cancel_after_ms=int(1000 * cancelled_s),
    )


def _needs(cells: Cells, reading: Reading) -> tuple[ResourceRequest, int]:
    """(what each replica takes, replicas): one replica for each node of the job."""
    tres = _tres(cells.text("AllocTRES", "") or cells.text("ReqTRES", ""))
    nodes = cells.whole("NNodes", default=cells.text("ReqNodes", cells.text("AllocNodes", "1")))
    nodes = max(1, nodes, int(tres.get("node", 1)))
    cpus = float(tres.get("cpu", 0)) or cells.number(
        "AllocCPUS", default=cells.text("ReqCPUS", cells.text("NCPUS", "1"))
    )
    gpus, gpu_type = _gpus(tres)
    memory = tres.get("mem", "") or cells.text("ReqMem", "")
    memory_mib, per = _memory_mib(cells, str(memory))
    of_all = {"": memory_mib, "n": memory_mib * nodes, "c": memory_mib * cpus}[per]
    each = -(-gpus // nodes)
    while each > reading.gpus_per_node > 0:  # a bigger machine than ours: more of ours
        nodes *= 2
        each = -(-gpus // nodes)
    request = ResourceRequest(
        gpus_milli=each * MILLI,
        gpu_type=gpu_type,
        cpus_milli=max(1, int(MILLI * cpus / nodes)),
        memory_mib=int(of_all / nodes),
    )
    return request, nodes


def _tres(text: str) -> Mapping[str, str]:
    """``cpu=4,mem=16G,gres/gpu:a100=2`` as pairs."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _gpus(tres: Mapping[str, str]) -> tuple[int, str]:
    """(GPUs of the whole job, their type where it is told)."""
    count, gpu_type = 0, ""
    for name, value in tres.items():
        if name.startswith("gres/gpu") and value.isdecimal():
            count = max(count, int(value))
            kind = name.partition(":")[2]
            gpu_type = (canonical(kind) or kind) if kind else gpu_type
    return count, gpu_type


def _memory_mib(cells: Cells, text: str) -> tuple[float, str]:
    """(MiB, ``c`` for each CPU, ``n`` for each node, empty for all): ``4000Mc``, ``16G``."""
    if text in UNKNOWN or text == "0":
        return 0.0, ""
    found = re.fullmatch(r"([0-9.]+)([KMGTP]?)B?([cn]?)", text)
    if found is None:
        raise cells.wrong("ReqMem", f"found {short(text)}, expected a size such as 4000M or 16Gn")
    unit = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
    return float(found[1]) * unit[found[2]], found[3]


def _ran_s(cells: Cells) -> float | None:
    """How long it ran; None where nothing tells."""
    if "ElapsedRaw" in cells.row and cells.text("ElapsedRaw", ""):
        return cells.number("ElapsedRaw")
    if "Elapsed" in cells.row:
        elapsed_s = _span_s(cells, "Elapsed")
        if elapsed_s is not None:
            return elapsed_s
    began_s, ended_s = _moment_s(cells, "Start"), _moment_s(cells, "End")
    if began_s is None or ended_s is None:
        return None
    if ended_s < began_s:
        raise cells.wrong("End", "lies before Start")
    return ended_s - began_s


def _span_s(cells: Cells, column: str) -> float | None:
    """``[days-]hours:minutes:seconds``, ``minutes:seconds`` or minutes; None if it is unknown."""
    text = cells.text(column, "")
    if text in UNKNOWN:
        return None
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?(\.\d+)?", text)
    if found is None:
        raise cells.wrong(column, f"found {short(text)}, expected a time such as 1-02:30:00")
    parts = [int(part) for part in found.groups()[1:4] if part is not None]
    if found[1] is not None:  # days-hours[:minutes[:seconds]]
        parts += [0] * (3 - len(parts))
    elif len(parts) < 3:  # minutes[:seconds]
        parts = [0, *parts, *([0] * (2 - len(parts)))]
    hours, minutes, seconds = parts
    fraction = float(found[5] or 0)
    return int(found[1] or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds + fraction


def _moment_s(cells: Cells, column: str) -> float | None:
    text = cells.text(column, "")
    if text in UNKNOWN:
        return None
    if text.isdecimal():
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise cells.wrong(
            column, f"found {short(text)}, expected a time such as 2026-03-01T12:30:00"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _exit_code(cells: Cells, state: str) -> int:
    """0 if it did what it should; what it said itself, and not the signal, if it failed."""
    if state in ENDED_WELL:
        return 0
    code = cells.text("ExitCode", "1:0").partition(":")[0]
    return int(code) if code.isdecimal() and int(code) else 1
