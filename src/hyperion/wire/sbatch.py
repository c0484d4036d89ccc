"""From a batch script with ``#SBATCH`` lines to a job. What would change its meaning is refused."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct, structs

from hyperion.model.accelerators import canonical
from hyperion.model.bounds import NAME_PATTERN
from hyperion.model.checks import check
from hyperion.model.faults import quoted
from hyperion.model.ids import JobId, UserId
from hyperion.model.job import SIGNALS, Checkpoint, Job, Restart
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.wire.api import Problem
from hyperion.wire.sbatch_options import FLAGS, NOTED, REFUSED, SHORT
from hyperion.wire.slurm_words import array_of, begin_s, dependencies_of
from hyperion.wire.spec_kinds import did_you_mean
from hyperion.wire.spec_tree import MAX_PROBLEMS, MAX_TEXT_BYTES, SpecError

NOTE_PREFIX = "sbatch/"
"""Metadata keys of options that were kept as notes only."""

_directive = re.compile(r"#SBATCH(\s+(.*))?").fullmatch
_head = re.compile(r"#![^\n]*\n(?:[ \t]*#[^\n]*\n|[ \t]*\n)*?#SBATCH\b").match
_clock = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?").fullmatch
_memory = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE).fullmatch
_not_name = re.compile(r"[^A-Za-z0-9._-]+").sub
_is_name = re.compile(NAME_PATTERN).fullmatch
_is_shell = re.compile(r"#!\s*(\S*/)?(env\s+)?(ba|da|z|k)?sh\b.*").fullmatch
_uses_srun = re.compile(r"^[^#\n]*\bsrun\b", re.MULTILINE).search

_SRUN = """\
srun() { # each replica is one task already: skip srun's options, run the command
  while [ $# -gt 1 ]; do
    case $1 in
      --*=* | -[a-zA-Z]?* | -[lukvQOKsEZ]) shift ;;
      --exclusive | --overlap | --unbuffered | --label | --no-kill | --exact) shift ;;
      --verbose | --quiet | --overcommit | --kill-on-bad-exit | --pty | --oversubscribe) shift ;;
      -*) shift 2 ;;
      *) break ;;
    esac
  done
  "$@"
}
"""


class _Option(Struct, frozen=True):
    name: str
    value: str
    line: int
    column: int


class _Script:
    """The options as they are read, and the job that they make."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[Problem] = []
        self.counts: dict[str, int] = {}
        self.job: dict[str, Any] = {}
        self.request: dict[str, Any] = {}
        self.envs: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.lines: dict[str, _Option] = {}

    def refuse(self, option: _Option, message: str) -> None:
        text = f"--{option.name}: {message}"
        self.faults.append(
            Problem(pointer=f"/{option.name}", message=text, line=option.line, column=option.column)
        )


def looks_like_sbatch(text: str) -> bool:
    """Whether it is a script whose head has ``#SBATCH`` lines."""
    return _head(text[:MAX_TEXT_BYTES]) is not None


def job_from_sbatch(
    text: str,
    *,
    source: str,
    job_id: str,
    environ: Mapping[str, str] | None = None,
    user: str = "",
) -> Job:
    """The job that ``sbatch`` would make of the script, as far as the two agree.

    A replica is a Slurm task; but the script, which Slurm runs on the first node alone, runs in
    every replica, and ``srun COMMAND`` in it runs the command there. ``--time`` becomes
    ``expected``, ``--partition`` the queue.
    Options without a meaning here are kept in ``metadata`` as ``sbatch/NAME``. Null variables of
    ``--export`` come from ``environ``. Raises SpecError with every problem at once.
    """
    if len(text) > MAX_TEXT_BYTES:
        problem = Problem(
            pointer="", message=f"the script has {len(text)} characters, at most {MAX_TEXT_BYTES}"
        )
        raise SpecError((problem,), source)
    script = _Script(environ or {})
    for option in _options(text, script):
        _take(option, script)
    job = _built(text, script, job_id, user)
    for fault in check(job):
        at = _line_of(fault.pointer, script)
        message = f"{fault.pointer.strip('/').replace('/', '.')}: {fault.message}"
        script.faults.append(
            Problem(pointer=fault.pointer, message=message, line=at.line, column=at.column)
        )
    if script.faults:
        script.faults.sort(key=lambda problem: (problem.line, problem.column))
        raise SpecError(tuple(script.faults[:MAX_PROBLEMS]), source)
    return job


def _line_of(pointer: str, script: _Script) -> _Option:
    """The option behind a fault: of its very field, or of what is around it."""
    while pointer:
        if pointer in script.lines:
            return script.lines[pointer]
        pointer = pointer.rpartition("/")[0]
    return _Option("", "", 1, 1)


def notes_of(job: Job) -> dict[str, str]:
    """The options that were kept as notes, for a caller that wants to tell the user."""
    return {
        key.removeprefix(NOTE_PREFIX): value
        for key, value in job.metadata.items()
        if key.startswith(NOTE_PREFIX)
    }


def _options(text: str, script: _Script) -> Iterator[_Option]:
    """Every option of the head: Slurm stops reading at the first line that is a command."""
    for number, line in enumerate(text.splitlines(), 1):
        match = _directive(line)
        if match:
            yield from _of_line(match[2] or "", number, match.start(2) + 1, script)
        elif line.strip() and not line.lstrip().startswith("#"):
            return


def _of_line(line: str, number: int, column: int, script: _Script) -> Iterator[_Option]:
    if line.strip() == "hetjob":
        script.refuse(_Option("hetjob", "", number, column), _refusal("hetjob"))
        return
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        script.refuse(_Option(line[:20], "", number, column), "found a quote that is not closed")
        return
    while words:
        yield from _of_word(words, number, column, script)


def _of_word(words: list[str], number: int, column: int, script: _Script) -> Iterator[_Option]:
    word = words.pop(0)
    if word.startswith("--") and len(word) > 2:
        name, equals, value = word[2:].partition("=")
    elif word.startswith("-") and len(word) > 1:
        name, equals, value = SHORT.get(word[1], word[1]), word[2:], word[2:].removeprefix("=")
    else:
        at = _Option(word[:40], "", number, column)
        script.refuse(at, f"found {quoted(word)}, expected an option such as --nodes=2")
        return
    if not equals and name not in FLAGS and words and not words[0].startswith("-"):
        value = words.pop(0)
    option = _Option(name, value, number, column)
    if not value and name not in FLAGS and name not in REFUSED:
        script.refuse(option, "has no value")
        return
    yield option


def _take(option: _Option, script: _Script) -> None:
    take = _TAKEN.get(option.name)
    if take is not None:
        take(option, script)
    elif option.name in NOTED:
        script.notes[NOTE_PREFIX + option.name] = option.value or "yes"
    elif option.name in REFUSED:
        script.refuse(option, _refusal(option.name))
    else:
        known = {*_TAKEN, *NOTED, *REFUSED}
        near = did_you_mean(option.name, known).replace('"', "")
        script.refuse(option, "is no option known here" + (near or "; remove it"))


def _refusal(name: str) -> str:
    return f"is not supported; {REFUSED[name]}"


def _name(option: _Option, script: _Script) -> None:
    name = option.value
    if not _is_name(name):
        script.notes[NOTE_PREFIX + "job-name"] = name
        name = _not_name("-", name).strip("-._")[:63]
    script.job["name"] = name
    script.lines["/name"] = option


def _count(option: _Option, script: _Script) -> None:
    text = option.value
    if option.name == "nodes" and "-" in text:
        script.refuse(option, f"found the range {quoted(text)}; give one number of nodes")
    elif text.isascii() and text.isdigit() and 0 < int(text[:12]) <= 10_000_000:
        script.counts[option.name] = int(text[:12])
        script.lines["/replicas"] = option
    else:
        script.refuse(option, f"found {quoted(text)}, expected a whole number above 0")


def _amount(option: _Option, script: _Script) -> None:
    match = _memory(option.value)
    if match is None or len(option.value) > 15:
        script.refuse(option, f"found {quoted(option.value)}, expected a size such as 16G or 4096M")
        return
    # Slurm counts in MiB where no suffix says otherwise.
    kib = (
        int(match[1])
        * {"K": 1, "M": 1 << 10, "": 1 << 10, "G": 1 << 20, "T": 1 << 30}[match[2].upper()]
    )
    script.counts[option.name] = -(-kib // 1024)
    script.lines["/resources/disk" if option.name == "tmp" else "/resources/memory"] = option


def _gpus(option: _Option, script: _Script) -> None:
    kind, count = "", option.value
    parts = option.value.split(":")
    if option.name == "gres":
        if parts[0] != "gpu" or "," in option.value:
            found = quoted(option.value)
            script.refuse(option, f"found {found}, expected gpu:COUNT or gpu:TYPE:COUNT")
            return
        parts = parts[1:] or ["1"]
    if len(parts) == 2:
        kind, count = parts
    elif len(parts) == 1:
        kind, count = ("", parts[0]) if parts[0][:1].isdigit() else (parts[0], "1")
    if len(parts) > 2 or not (count.isascii() and count.isdigit()) or len(count) > 9:
        script.refuse(option, f"found {quoted(option.value)}, expected COUNT or TYPE:COUNT")
        return
    name = "gpus-per-node" if option.name == "gres" else option.name
    script.counts[name] = int(count)
    if kind:
        script.request["gpu_type"] = canonical(kind) or kind
    script.lines["/resources/accelerators"] = option


def _time(option: _Option, script: _Script) -> None:
    script.lines["/expected"] = option
    if option.value.upper() in ("UNLIMITED", "INFINITE", "0"):
        return
    match = _clock(option.value)
    if match is None or len(option.value) > 30:
        message = f"found {quoted(option.value)}, expected MINUTES, HH:MM:SS or DAYS-HH:MM:SS"
        script.refuse(option, message)
        return
    days, first, second, third = (int(part) if part else 0 for part in match.groups())
    if match[1] is not None or match[4] is not None:
        seconds = days * 86400 + first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    script.job["expected_s"] = float(seconds)


def _constraint(option: _Option, script: _Script) -> None:
    names = option.value.split("&")
    if any(not re.fullmatch(r"[A-Za-z0-9_.-]+(=[A-Za-z0-9_.-]+)?", name) for name in names):
        script.refuse(
            option,
            f"found {quoted(option.value)}, expected features joined by '&'; use a spec with any_of"
            " for alternatives",
        )
        return
    labels = (name.partition("=") for name in names)
    script.request["labels"] = {key: value or "true" for key, _, value in labels}
    script.lines["/resources/labels"] = option


def _export(option: _Option, script: _Script) -> None:
    for item in option.value.split(","):
        name, equals, value = item.partition("=")
        if item in ("ALL", "NIL", "NONE") or not item:
            continue
        if equals:
            script.envs[name] = value
        elif name in script.environ:
            script.envs[name] = script.environ[name]
        else:
            script.refuse(option, f"{quoted(name)} is not in your environment; export it first")
    script.lines["/envs"] = option
    if "ALL" in option.value.split(","):
        script.notes[NOTE_PREFIX + "export"] = "ALL (only named variables are handed over)"


def _chdir(option: _Option, script: _Script) -> None:
    script.job["workdir"] = option.value
    script.lines["/workdir"] = option


def _requeue(option: _Option, script: _Script) -> None:
    script.job["restart"] = Restart(max=3) if option.name == "requeue" else Restart()


def _worded(
    field: str, pointer: str, parse: Callable[[str], object]
) -> Callable[[_Option, _Script], None]:
    """One of Slurm's notations, which ``parse`` reads; its ValueError says what it expected."""

    def take(option: _Option, script: _Script) -> None:
        script.lines[pointer] = option
        try:
            script.job[field] = parse(option.value)
        except ValueError as error:
            script.refuse(option, f"found {quoted(option.value)}, expected {error}")

    return take


def _nice(option: _Option, script: _Script) -> None:
    script.lines["/nice"] = option
    text = option.value or "100"  # what Slurm takes for --nice alone
    if not re.fullmatch(r"[-+]?\d{1,10}", text, re.ASCII):
        script.refuse(option, f"found {quoted(text)}, expected a whole number")
        return
    script.job["nice"] = int(text)


def _partition(option: _Option, script: _Script) -> None:
    first, *others = option.value.split(",")
    script.job["queue"] = first
    script.lines["/queue"] = option
    if others:
        script.notes[NOTE_PREFIX + "partition"] = f"{option.value} (waits in queue {first} only)"


def _reservation(option: _Option, script: _Script) -> None:
    script.job["reservation"] = option.value
    script.lines["/reservation"] = option


def _signal(option: _Option, script: _Script) -> None:
    signal, _, seconds = option.value.partition("@")
    to, _, word = signal.rpartition(":")
    name = word.upper().removeprefix("SIG")
    name = _SIGNAL_NUMBERS.get(name, name)
    sound = set(to.upper()) <= set("BR") and (seconds or "60").isdigit()
    if name not in SIGNALS or not sound:
        found, known = quoted(option.value), ", ".join(SIGNALS)
        script.refuse(option, f"found {found}, expected [B:]SIGNAL@SECONDS with {known}")
        return
    wanted = f"B:{name}" if "B" in to.upper() else "" if name == "TERM" else name
    script.job["checkpoint"] = Checkpoint(grace_s=float((seconds or "60")[:9]), signal=wanted)
    script.lines["/checkpoint/grace"] = option


_SIGNAL_NUMBERS = {"1": "HUP", "2": "INT", "3": "QUIT", "10": "USR1", "12": "USR2", "15": "TERM"}
"""Those of x86 and ARM; Slurm takes numbers as well."""
_TAKEN: Mapping[str, Callable[[_Option, _Script], None]] = {
    "job-name": _name,
    "nodes": _count,
    "ntasks": _count,
    "ntasks-per-node": _count,
    "ntasks-per-gpu": _count,
    "cpus-per-task": _count,
    "cpus-per-gpu": _count,
    "mincpus": _count,
    "mem": _amount,
    "mem-per-cpu": _amount,
    "mem-per-gpu": _amount,
    "tmp": _amount,
    "gres": _gpus,
    "gpus": _gpus,
    "gpus-per-node": _gpus,
    "gpus-per-task": _gpus,
    "time": _time,
    "constraint": _constraint,
    "export": _export,
    "chdir": _chdir,
    "requeue": _requeue,
    "no-requeue": _requeue,
    "array": _worded("array", "/array", array_of),
    "dependency": _worded("after", "/after", dependencies_of),
    "begin": _worded("begin_s", "/begin", begin_s),
    "nice": _nice,
    "partition": _partition,
    "reservation": _reservation,
    "signal": _signal,
}


def _built(text: str, script: _Script, job_id: str, user: str) -> Job:
    replicas, per_node = _replicas(script)
    request = ResourceRequest(**script.request)
    request = structs.replace(request, cpus_milli=script.counts.get("cpus-per-task", 1) * MILLI)
    gpus = _gpus_per_replica(script, replicas, per_node)
    if gpus and "cpus-per-gpu" in script.counts:
        cpus = script.counts["cpus-per-gpu"] * gpus
        request = structs.replace(request, cpus_milli=max(request.cpus_milli, cpus * MILLI))
    memory = _memory_per_replica(script, request.cpus_milli // MILLI, gpus, per_node)
    request = structs.replace(
        request,
        gpus_milli=gpus * MILLI,
        memory_mib=memory,
        disk_mib=script.counts.get("tmp", 0),
    )
    return Job(
        id=JobId(job_id),
        user=UserId(user),
        replicas=replicas,
        alternatives=(request,),
        run=_with_srun(text),
        envs=script.envs,
        metadata=script.notes,
        **script.job,
    )


def _with_srun(text: str) -> str:
    """The script, with an ``srun`` that runs the command in its own replica, where it uses one."""
    first, _, rest = text.partition("\n")
    if not _is_shell(first) or not _uses_srun(text):
        return text
    return f"{first}\n{_SRUN}{rest}"


def _replicas(script: _Script) -> tuple[int, int]:
    """(replicas, replicas per node): Slurm's tasks, one per node where nobody says more."""
    counts = script.counts
    nodes = counts.get("nodes", 0)
    per_node = counts.get("ntasks-per-node", 0)
    tasks = counts.get("ntasks", 0) or max(1, nodes) * max(1, per_node)
    return tasks, per_node or -(-tasks // nodes) if nodes or per_node else 1


def _gpus_per_replica(script: _Script, replicas: int, per_node: int) -> int:
    counts = script.counts
    if "gpus-per-task" in counts:
        return counts["gpus-per-task"]
    option = script.lines.get("/resources/accelerators")
    if option is None:
        return 0
    name = "gpus" if "gpus" in counts else "gpus-per-node"
    total, among = counts.get(name, 0), replicas if name == "gpus" else per_node
    if total % among:
        script.refuse(
            option,
            f"{total} GPUs cannot be shared evenly by {among} tasks; use --gpus-per-task",
        )
    return total // among


def _memory_per_replica(script: _Script, cpus: int, gpus: int, per_node: int) -> int:
    counts = script.counts
    if "mem-per-cpu" in counts:
        return counts["mem-per-cpu"] * cpus
    if "mem-per-gpu" in counts:
        return counts["mem-per-gpu"] * gpus
    return -(-counts.get("mem", 0) // per_node)
