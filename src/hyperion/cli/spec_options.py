"""From the command line to a job: a spec, a batch script or a command, and the flags over it."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.output import now_ms

if TYPE_CHECKING:
    from hyperion.model.job import Job

F = TypeVar("F", bound=Callable[..., Any])
MAX_SPEC_BYTES = 1 << 20
STDIN = Path("-")
_POLICY_PLACES = ("/policy", "/objective")
_COMMAND_KEY = "hyperion.command"

_RESOURCES = {
    "gpus": "accelerators", "cpus": "cpus", "memory": "memory", "disk": "disk", "infra": "infra",
    "spot": "use_spot",
}  # fmt: skip
_REQUEST_FIELDS = {
    "gpus": ("gpus_milli", "gpu_type"), "cpus": ("cpus_milli",), "memory": ("memory_mib",),
    "disk": ("disk_mib",), "infra": ("infra",), "spot": ("use_spot",), "label": ("labels",),
}  # fmt: skip
_PLAIN = {
    "name": "name", "replicas": "replicas", "priority": "priority", "framework": "framework",
    "policy": "policy", "setup": "setup", "workdir": "workdir", "expected": "expected",
    "deadline": "deadline", "users_in": "users_in", "queue": "queue", "nice": "nice",
    "begin": "begin", "array": "array", "reservation": "reservation",
}  # fmt: skip
_JOB_FIELDS = {
    "name": "name", "replicas": "replicas", "priority": "priority", "framework": "framework",
    "policy": "policy", "setup": "setup", "workdir": "workdir", "expected": "expected_s",
    "deadline": "deadline_s", "users_in": "users_in", "max_usd": "budget",
    "max_usd_per_hour": "budget", "max_kg_co2e": "budget", "only_in": "regions",
    "not_in": "regions",
    "restarts": "restart", "data": "data", "reads": "reads", "writes": "writes", "queue": "queue",
    "nice": "nice", "begin": "begin_s", "array": "array", "reservation": "reservation",
    "after": "after", "min_replicas": "elastic",
}  # fmt: skip

_OPTIONS = (
    click.argument("spec", required=False, type=click.Path(path_type=Path)),
    click.option("--name", help="What to call it."),
    click.option("-n", "--replicas", type=int, help="Identical copies; all run, or none."),
    click.option("--min-replicas", type=int, help="Run with as few of them as this, too."),
    click.option("--array", metavar="RANGE", help="So many tasks as one job, such as 0-99%10."),
    click.option("--after", multiple=True, metavar="JOB", help="Wait for it; afterany:JOB, too."),
    click.option("--begin", metavar="TIME", help="Not before this long after submission."),
    click.option("--queue", metavar="NAME", help="Where it waits: hyperion queues."),
    click.option("--nice", type=int, help="Among jobs of a queue the least nice comes first."),
    click.option("--reservation", metavar="NAME", help="Run in it: hyperion reserve."),
    click.option("--gpus", "--accelerators", metavar="TYPE:N", help="Such as A100:8, 2 or L4:0.5."),
    click.option("--cpus", metavar="N", help="Per replica."),
    click.option("--memory", metavar="GIB", help="Per replica; GiB, or with a suffix: 512Mi."),
    click.option("--disk", metavar="GIB", help="Per replica."),
    click.option("--infra", metavar="PLACE", help="A cloud, cloud/region, or a cluster."),
    click.option("--spot/--no-spot", default=None, help="Only spot machines, or none."),
    click.option("--label", multiple=True, metavar="K=V", help="A label a node must have."),
    click.option("--priority", metavar="WORD", help="BATCH, LATENCY_CRITICAL, ULTRA_LOW_LATENCY."),
    click.option("--framework", metavar="WORD", help="pytorch, jax, tensorflow, mpi or custom."),
    click.option("--policy", metavar="NAME", help="How places are ranked, such as greenest."),
    click.option("--env", multiple=True, metavar="K[=V]", help="Without V: this shell's value."),
    click.option("--secret", multiple=True, metavar="K[=V]", help="Like --env, never shown."),
    click.option("--data", multiple=True, metavar="URI[,GIB[,REGION]]", help="A dataset it reads."),
    click.option("--region-of-data", metavar="REGION", help="Where all its datasets lie."),
    click.option(
        "--reads",
        multiple=True,
        metavar="NAME[=FRACTION]",
        help="A dataset it reads: hyperion datasets.",
    ),
    click.option("--writes", multiple=True, metavar="NAME=GIB", help="A dataset it writes to."),
    click.option("--users-in", multiple=True, metavar="REGION", help="Where its users are."),
    click.option("--workdir", metavar="DIR", help="The directory it starts in."),
    click.option("--setup", metavar="SCRIPT", help="Run once per replica before the command."),
    click.option("--expected", metavar="TIME", help="How long it should run, such as 3h."),
    click.option("--deadline", metavar="TIME", help="Stop it this long after submission."),
    click.option("--max-usd", type=float, help="Stop it when it has cost this much."),
    click.option("--max-usd-per-hour", type=float, help="No place that costs more."),
    click.option("--max-kg-co2e", type=float, help="No place where it would emit more."),
    click.option("--only-in", multiple=True, metavar="PLACE", help="Such as aws/eu-*; no other."),
    click.option("--not-in", multiple=True, metavar="PLACE", help="Whatever --only-in says."),
    click.option("--restarts", type=int, help="How often it is tried again when it fails."),
)


class SpecCommand(click.Command):
    """Takes ``[SPEC] [-- COMMAND…]``; what follows ``--`` is the job's, not ours to parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_COMMAND_KEY] = ()
        if "--" in args:
            place = args.index("--")
            ctx.meta[_COMMAND_KEY] = tuple(args[place + 1 :])
            args = args[:place]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def job_options(function: F) -> F:
    """SPEC, and a flag for each common field of a spec; flags win over the spec."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def job_to_run(spec: Path | None, flags: Mapping[str, Any]) -> "Job":
    """The job of the command line, checked, its workdir absolute. Raises Failure."""
    from hyperion.wire.rest import new_job_id
    from hyperion.wire.spec_tree import SpecError

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    words: tuple[str, ...] = click.get_current_context().meta[_COMMAND_KEY]
    if spec is not None and words:
        raise click.UsageError(f"give either the spec {spec} or a command after '--', not both")
    if spec is None and not words:
        raise click.UsageError("give a spec file, '-' for standard input, or: -- COMMAND...")
    job_id = new_job_id()

    def read() -> "Job":
        if spec is None:
            job = _from_command(words, job_id)
        else:
            job = _from_file(spec, job_id, _variables(given))
        return _flagged(job, dict(given))

    try:
        try:
            return read()
        except SpecError as error:
            if spec == STDIN or not any(p.pointer in _POLICY_PLACES for p in error.problems):
                raise
            from hyperion.daemon.plugins import discover

            discover()  # it may be the policy of a package that is installed here
            return read()
    except SpecError as error:
        raise Failure(str(error), "correct the spec", BAD_USAGE) from None


def _from_command(words: tuple[str, ...], job_id: str) -> "Job":
    from hyperion.wire.spec import job_from_command

    return job_from_command(words, job_id=job_id)


def _variables(given: Mapping[str, Any]) -> Mapping[str, str]:
    """What null variables of a spec are taken from: the flags, else this shell's environment."""
    flags = dict(_variable(text) for text in (*given.get("env", ()), *given.get("secret", ())))
    return {**os.environ, **{name: value for name, value in flags.items() if value is not None}}


def _from_file(path: Path, job_id: str, environ: Mapping[str, str]) -> "Job":
    from hyperion.wire.sbatch import job_from_sbatch, looks_like_sbatch
    from hyperion.wire.spec import job_from_yaml

    text = text_of(path)
    source = "standard input" if path == STDIN else str(path)
    if looks_like_sbatch(text):
        job = job_from_sbatch(text, source=source, job_id=job_id, environ=environ)
    else:
        if text.startswith("#!"):
            raise Failure(
                f"{source} is a script without #SBATCH lines",
                f"run it as a command: hyperion run -- {path}",
                BAD_USAGE,
            )
        job = job_from_yaml(text, source=source, job_id=job_id, environ=environ, now_ms=now_ms())
    return _placed(job, Path.cwd() if path == STDIN else path.resolve().parent)


def text_of(path: Path) -> str:
    """The text of a file, or of standard input. Raises Failure."""
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(MAX_SPEC_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        remedy = "give a spec file, '-', or a command: hyperion run -- COMMAND"
        raise Failure(f"{path}: {error.strerror}", remedy, BAD_USAGE) from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure(
            f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8 text", BAD_USAGE
        ) from None


def _placed(job: "Job", directory: Path) -> "Job":
    from msgspec import structs

    if not job.workdir or job.workdir.startswith("bundle:"):
        return job
    place = (directory / Path(job.workdir).expanduser()).resolve()
    if not place.is_dir():
        raise Failure(f"workdir: {place} is no directory", "correct workdir", BAD_USAGE)
    return structs.replace(job, workdir=str(place))


def _flagged(job: "Job", given: dict[str, Any]) -> "Job":
    """The flags as a small spec, read by the same reader, laid over the job."""
    from msgspec import structs

    from hyperion.model.checks import check
    from hyperion.wire.spec import SpecError, job_from_mapping, problems

    if not given:
        return job
    workdir = given.get("workdir")
    if workdir is not None:
        given["workdir"] = str((Path.cwd() / Path(workdir).expanduser()).resolve())
    small = job_from_mapping(
        _mapping(job, given), source="flags", job_id=job.id, environ=os.environ, now_ms=now_ms()
    )
    changes: dict[str, Any] = {
        field: getattr(small, field) for flag, field in _JOB_FIELDS.items() if flag in given
    }
    changes["envs"] = {**job.envs, **small.envs}
    changes["secrets"] = {**job.secrets, **small.secrets}
    changes["alternatives"] = _requests(job, small, given)
    merged = structs.replace(job, **changes)
    if "region_of_data" in given:
        region = given["region_of_data"]
        merged = structs.replace(
            merged, data=tuple(structs.replace(d, region=region) for d in merged.data)
        )
    faults = check(merged)
    if faults:
        raise SpecError(problems(faults), "spec with flags")
    return _placed(merged, Path.cwd())


def _requests(job: "Job", small: "Job", given: Mapping[str, Any]) -> tuple[Any, ...]:
    from msgspec import structs

    fields = [field for flag in given for field in _REQUEST_FIELDS.get(flag, ())]
    asked = small.alternatives[0]
    changes = {field: getattr(asked, field) for field in fields}
    return tuple(structs.replace(request, **changes) for request in job.alternatives)


def _mapping(job: "Job", given: Mapping[str, Any]) -> dict[str, Any]:
    mapping: dict[str, Any] = {"run": ["true"]}
    for flag, field in _PLAIN.items():
        if flag in given:
            value = given[flag]
            mapping[field] = list(value) if isinstance(value, tuple) else value
    resources = {field: given[flag] for flag, field in _RESOURCES.items() if flag in given}
    if "label" in given:
        resources["labels"] = dict(_pair(text, "--label") for text in given["label"])
    if resources:
        mapping["resources"] = resources
    for flag, field in (("env", "envs"), ("secret", "secrets")):
        if flag in given:
            mapping[field] = dict(_variable(text) for text in given[flag])
    if "data" in given:
        mapping["data"] = [_dataset(text) for text in given["data"]]
    mapping |= _datasets(given)
    limits = ("max_usd", "max_usd_per_hour", "max_kg_co2e")
    budget = {name: given[name] for name in limits if name in given}
    if budget:
        mapping["budget"] = budget
    residency = (("allow", "only_in"), ("deny", "not_in"))
    regions = {name: list(given[flag]) for name, flag in residency if flag in given}
    if regions:
        mapping["regions"] = regions
    if "after" in given:
        mapping["after"] = [_dependency(text) for text in given["after"]]
    if "min_replicas" in given:
        mapping["replicas"] = given.get("replicas", job.replicas)
        mapping["elastic"] = {"min": given["min_replicas"]}
    if "restarts" in given:
        mapping["restart"] = {"max": given["restarts"]}
    return mapping


def _dependency(text: str) -> str | dict[str, str]:
    condition, colon, job = text.rpartition(":")
    return {condition: job} if colon else job


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{option} {text!r}: expected NAME=VALUE")
    return name, value


def _variable(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _datasets(given: Mapping[str, Any]) -> dict[str, Any]:
    """``reads`` and ``writes``, of ``NAME`` and ``NAME=AMOUNT``."""
    from hyperion.wire.units import number

    found: dict[str, Any] = {}
    for flag, field in (("reads", "fraction"), ("writes", "size_gb")):
        for text in given.get(flag, ()):
            name, equals, rest = text.partition("=")
            plain = number(rest)
            amount = {field: rest if plain is None else plain} if equals else {}
            found.setdefault(flag, []).append({"dataset": name, **amount})
    return found


def _dataset(text: str) -> dict[str, str]:
    uri, _, rest = text.partition(",")
    size, _, region = rest.partition(",")
    parts = {"uri": uri, "size_gb": size, "region": region}
    return {name: value for name, value in parts.items() if value}
