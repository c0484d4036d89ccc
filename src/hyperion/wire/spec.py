"""From what a user writes to a checked job, and back: the way in for YAML, JSON and commands."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from msgspec import structs

from hyperion.model.checks import check, check_id
from hyperion.model.faults import Fault
from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.wire.api import Problem
from hyperion.wire.spec_fields import SPEC
from hyperion.wire.spec_gang import elastic_of, roles_of
from hyperion.wire.spec_kinds import Place, Reading, shown_key
from hyperion.wire.spec_mapping import job_to_mapping
from hyperion.wire.spec_resources import alternatives
from hyperion.wire.spec_tree import MAX_PROBLEMS, Node, SpecError, tree_of

__all__ = [
    "SpecError",
    "job_from_command",
    "job_from_mapping",
    "job_from_yaml",
    "job_to_mapping",
    "problems",
    "refusal",
]


def job_from_yaml(
    text: str | bytes,
    *,
    source: str,
    job_id: str,
    environ: Mapping[str, str],
    now_ms: int,
    user: str = "",
    local: bool = True,
) -> Job:
    """The job that one YAML document asks for; ``source`` is its name in messages.

    Null ``envs`` and ``secrets`` are taken from ``environ``. With ``local``, ``workdir`` may be
    relative, and the caller resolves or uploads it; a server, which cannot, says ``local=False``.
    Raises SpecError with every problem of the spec at once.
    """
    from hyperion.wire.spec_yaml import parse  # PyYAML: 20 ms that only a YAML spec pays for

    tree = parse(text, source)
    return _job(tree, source, job_id, user, Reading(environ, now_ms), local=local)


def job_from_mapping(
    obj: object,
    *,
    job_id: str,
    environ: Mapping[str, str],
    now_ms: int,
    user: str = "",
    source: str = "spec",
) -> Job:
    """The job that a decoded JSON object with the same field names asks for. Raises SpecError."""
    tree = tree_of(obj, source)
    return _job(tree, source, job_id, user, Reading(environ, now_ms), local=False)


def job_from_command(argv: Sequence[str], *, job_id: str, **overrides: object) -> Job:
    """The job behind ``hyperion run -- command``; ``overrides`` are attributes of Job.

    Named after the program unless told otherwise. Raises SpecError.
    """
    name = "".join(c for c in (argv[0] if argv else "").rpartition("/")[2] if _fits(c))
    job = Job(id=JobId(job_id), command=tuple(argv), name=name.lstrip("._-")[:63])
    job = structs.replace(job, **overrides)
    faults = check(job)
    if faults:
        raise SpecError(problems(faults), "command")
    return job


def problems(faults: Iterable[Fault]) -> tuple[Problem, ...]:
    """Faults of a job that did not come from a text, as the APIs answer them."""
    return tuple(
        Problem(pointer=fault.pointer, message=f"{_name(fault.pointer)}: {fault.message}")
        for fault in faults
    )[:MAX_PROBLEMS]


def refusal(job: Job, faults: Iterable[Fault]) -> SpecError:
    """For a job that came over an API. What is no id is not used as a name in the messages."""
    return SpecError(problems(faults), "job" if check_id(job.id) else str(job.id))


def _job(tree: Node, source: str, job_id: str, user: str, reading: Reading, *, local: bool) -> Job:
    root = Place(line=tree.line, column=tree.column)
    values = cast("dict[str, Any] | None", SPEC.read(tree, root, reading))
    if values is None:
        raise SpecError((_problem(root, reading.faults[0][1]),), source)
    job, origins = _built(values, job_id, user, reading)
    faults = list(check(job))
    if local:
        faults = [f for f in faults if not _is_local_workdir(f, job)]
    found = _all_problems(root, reading, faults, origins)
    if found:
        raise SpecError(found, source)
    return job


def _built(
    values: dict[str, Any], job_id: str, user: str, reading: Reading
) -> tuple[Job, tuple[int | None, ...]]:
    """The job as far as it could be read: what was refused has its default, for more checks."""
    resources = values.pop("resources", None)
    run = values.pop("run", "")
    values["command" if isinstance(run, tuple) else "run"] = run
    objective = values.get("objective")
    if isinstance(objective, str):
        del values["objective"]
        if values.setdefault("policy", objective) != objective:
            reading.refuse(
                reading.places["/objective"], "found a policy here and another in policy; keep one"
            )
    near, away = values.pop("near", ()), values.pop("away_from", ())
    away = tuple(structs.replace(term, anti=True) for term in away)
    if near or away:
        values["replica_affinity"] = (*near, *away)
    if "topology" in values:
        values["packing"] = values.pop("topology")
    if "elastic" in values:
        values["elastic"] = elastic_of(values["elastic"], values, reading)
    origins: tuple[int | None, ...] = (None,)
    if "roles" in values:
        values["roles"] = roles = roles_of(values["roles"], resources or {}, reading)
        values.setdefault("replicas", sum(role.replicas for role in roles))
        reading.places.setdefault("/replicas", reading.places["/roles"])
        requests: tuple[ResourceRequest, ...] = (roles[0].resources,)
    else:
        requests, origins = alternatives(resources)
    job = Job(id=JobId(job_id), user=UserId(user), alternatives=requests, **values)
    return job, origins


def _is_local_workdir(fault: Fault, job: Job) -> bool:
    relative = not job.workdir.startswith(("/", "bundle:")) and bool(job.workdir.strip())
    return fault.pointer == "/workdir" and relative and "absolute directory" in fault.message


def _all_problems(
    root: Place, reading: Reading, faults: Iterable[Fault], origins: tuple[int | None, ...]
) -> tuple[Problem, ...]:
    found = [(place, message) for place, message in reading.faults]
    refused = {place.canonical for place, _ in reading.faults}
    for fault in faults:
        pointer = _original(fault.pointer, origins, reading)
        place = _place(pointer, root, reading)
        known = any(pointer == r or pointer.startswith(r + "/") for r in refused if r)
        if not known and (place, fault.message) not in found:
            found.append((place, fault.message))
    found.sort(key=lambda pair: (pair[0].line, pair[0].column))
    out = [_problem(place, message) for place, message in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        rest = len(found) - MAX_PROBLEMS
        out.append(Problem(pointer="", message=f"and {rest} more problems"))
    return tuple(out)


def _original(pointer: str, origins: tuple[int | None, ...], reading: Reading) -> str:
    """The pointer into the spec as written, for one into the job that was made of it."""
    if pointer.startswith("/roles/") and pointer not in reading.places:
        _, _, rest = pointer.partition("/resources/")
        if rest and f"/resources/{rest}" in reading.places:
            return f"/resources/{rest}"  # inherited
    if pointer.startswith("/resources/"):
        pointer = _original_resource(pointer, origins, reading)
    for now, before in reading.moved.items():
        if pointer == now or pointer.startswith(now + "/"):
            return before + pointer[len(now) :]
    return pointer


def _original_resource(pointer: str, origins: tuple[int | None, ...], reading: Reading) -> str:
    parts = pointer.split("/")[2:]
    index = 0
    if parts[0] == "any_of" and len(parts) > 2:
        index, parts = int(parts[1]), parts[2:]
    rest = "/" + "/".join(parts)
    origin = origins[index] if index < len(origins) else None
    if origin is not None:
        inner = f"/resources/any_of/{origin}"
        inner = reading.moved.get(inner, inner)
        if any(p.startswith(inner + "/" + parts[0]) for p in reading.places):
            return inner + rest
    return "/resources" + rest


def _place(pointer: str, root: Place, reading: Reading) -> Place:
    """Where a pointer stands in the text: itself, or the nearest thing around it that does."""
    known, rest = pointer, ""
    while known:
        place = reading.places.get(known)
        if place is not None:
            if not rest:
                return place
            name = place.name + "".join(_part(part) for part in rest.split("/")[1:])
            return structs.replace(
                place, written=place.written + rest, canonical=pointer, name=name
            )
        known, _, last = known.rpartition("/")
        rest = f"/{last}{rest}"
    return structs.replace(root, written=pointer, canonical=pointer, name=_name(pointer))


def _problem(place: Place, message: str) -> Problem:
    return Problem(
        pointer=place.written,
        message=f"{place.name or 'the spec'}: {message}",
        line=place.line,
        column=place.column,
    )


def _name(pointer: str) -> str:
    return "".join(_part(part) for part in pointer.split("/")[1:]).lstrip(".") or "the spec"


def _part(part: str) -> str:
    part = part.replace("~1", "/").replace("~0", "~")
    return f"[{part}]" if part.isdigit() else f".{shown_key(part)}"


def _fits(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "._-")
