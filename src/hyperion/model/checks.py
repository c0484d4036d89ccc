"""What a job must satisfy before anyone keeps it: one set of checks behind YAML, gRPC and REST."""

import re
from collections.abc import Collection, Iterator, Sequence

from hyperion.model.bounds import (
    BUNDLE_PATTERN,
    ID_PATTERN,
    KEY_PATTERN,
    MAX_ALTERNATIVES,
    MAX_BACKOFF_S,
    MAX_CARBON_PRICE,
    MAX_DATA_GIB,
    MAX_DATA_SOURCES,
    MAX_ENTRIES,
    MAX_GPU_QUEUE_S,
    MAX_GRACE_S,
    MAX_HOLD_S,
    MAX_ID_CHARS,
    MAX_KG,
    MAX_LATENCY_S,
    MAX_METADATA_BYTES,
    MAX_METADATA_ENTRIES,
    MAX_NAME_CHARS,
    MAX_RESTARTS,
    MAX_SECONDS,
    MAX_URI_BYTES,
    MAX_USD,
    MAX_VARIABLE_BYTES,
    MAX_VARIABLES,
    MAX_WEIGHT,
    MAX_WITHIN_S,
    NAME_PATTERN,
    PLACE_PATTERN,
    VARIABLE_PATTERN,
)
from hyperion.model.checks_datasets import dataset_faults
from hyperion.model.checks_gang import gang_faults
from hyperion.model.checks_places import place_faults
from hyperion.model.checks_resources import request_faults
from hyperion.model.checks_turn import turn_faults
from hyperion.model.checks_work import script_faults, work_faults
from hyperion.model.faults import (
    Fault,
    bad_key,
    line_faults,
    number_faults,
    pair_faults,
    path_faults,
    pointer_part,
    quoted,
    range_faults,
    region_faults,
    text_faults,
)
from hyperion.model.job import (
    PLACES_TO_STAND,
    SIGNALS,
    Budget,
    Checkpoint,
    Job,
    Objective,
    Pausing,
    Residency,
    Restart,
)
from hyperion.model.notice import EXPECTED as NOTICE_EXPECTED
from hyperion.model.notice import notice_url

POLICIES = (
    "balanced",
    "cheapest",
    "fair",
    "fragmentation",
    "greenest",
    "least-attained-service",
    "lowest-latency",
    "nearest-data",
    "optimal",
    "pack",
    "shortest-first",
    "spread",
)
"""The built-in ranking policies."""
KNOWN_POLICIES = set(POLICIES)
"""These and the ones that plug-ins have registered in this process."""

_OBJECTIVE, _BUDGET, _RESTART, _CHECKPOINT = Objective(), Budget(), Restart(), Checkpoint()
_PAUSING, _RESIDENCY = Pausing(), Residency()
_place = re.compile(PLACE_PATTERN).fullmatch
"""What most jobs have, and nothing is wrong with: most of what a check takes is saved by that."""

_name = re.compile(NAME_PATTERN).fullmatch
_id = re.compile(ID_PATTERN).fullmatch
_variable = re.compile(VARIABLE_PATTERN).fullmatch
_key = re.compile(KEY_PATTERN).fullmatch
_bundle = re.compile(BUNDLE_PATTERN).fullmatch


def check(job: Job, policies: Collection[str] = KNOWN_POLICIES) -> tuple[Fault, ...]:
    """Everything that is wrong with the job, empty when it may be kept. Never raises.

    Pointers are those of the spec. An alternative has its own (``/resources/any_of/1/cpus``) where
    there are several. Values of secrets are never quoted. ``policies`` are the ranking policies
    that the caller knows, plug-ins among them.
    """
    return tuple(_faults(job, policies))


def check_id(job_id: str) -> Fault | None:
    """What is wrong with a job's id, if anything."""
    if _id(job_id):
        return None
    return Fault(
        "/id",
        f"found {quoted(job_id)}, expected 1 to {MAX_ID_CHARS} letters, digits, '-' or '_',"
        " starting with a letter or digit",
    )


def _faults(job: Job, policies: Collection[str]) -> Iterator[Fault]:
    yield from _identity(job)
    yield from gang_faults(job)
    yield from _resources(job)
    yield from place_faults(job)
    yield from _work(job)
    if job.envs or job.secrets:
        yield from _variables(job)
    if job.data:
        yield from _sources(job)
    if job.reads or job.writes:
        yield from dataset_faults(job)
    yield from _wishes(job, policies)
    yield from turn_faults(job)
    yield from _limits(job)
    if job.tolerations or job.metadata:
        yield from _marks(job)


def _identity(job: Job) -> Iterator[Fault]:
    fault = check_id(job.id)
    if fault:
        yield fault
    if job.name and not _name(job.name):
        yield Fault(
            "/name",
            f"found {quoted(job.name)}, expected up to {MAX_NAME_CHARS} letters, digits, '.', '_'"
            " or '-', starting with a letter or digit",
        )
    yield from line_faults("/user", job.user, 256)


def _resources(job: Job) -> Iterator[Fault]:
    if job.roles:
        return  # each has its own, and the first role's stand in for the job's
    count = len(job.alternatives)
    if not count:
        yield Fault("/resources/any_of", "is empty; give at least one alternative")
    elif count > MAX_ALTERNATIVES:
        yield Fault(
            "/resources/any_of", f"found {count} alternatives, expected at most {MAX_ALTERNATIVES}"
        )
    for index, request in enumerate(job.alternatives[:MAX_ALTERNATIVES]):
        at = f"/resources/any_of/{index}" if count > 1 else "/resources"
        yield from request_faults(at, request)


def _work(job: Job) -> Iterator[Fault]:
    if not job.command and not job.run.strip():
        idle = [role.name for role in job.roles if not role.command and not role.run.strip()]
        if not job.roles:
            yield Fault("/run", "is missing; say what to run, such as: run: python train.py")
        elif idle:
            yield Fault(
                "/run", f"is missing, and the role {quoted(idle[0])} has none of its own; add one"
            )
    yield from work_faults("/run", job.run, job.command)
    if job.setup:
        yield from script_faults("/setup", job.setup)
    if job.image:
        yield Fault(
            "/image",
            "container images are not supported yet; remove the field and install what the job"
            " needs in setup",
        )
    if job.workdir:
        yield from _workdir(job.workdir)


def _workdir(workdir: str) -> Iterator[Fault]:
    if workdir.startswith("bundle:"):
        if not _bundle(workdir):
            yield Fault(
                "/workdir",
                f"found {quoted(workdir)}, expected bundle:sha256: and 64 hexadecimal digits",
            )
        return
    if not workdir.startswith("/"):
        yield Fault(
            "/workdir",
            f"found {quoted(workdir)}, expected an absolute directory, or bundle:sha256:<digest> of"
            " an uploaded one",
        )
    yield from path_faults("/workdir", workdir)


def _variables(job: Job) -> Iterator[Fault]:
    count = len(job.envs) + len(job.secrets)
    if count > MAX_VARIABLES:
        yield Fault("/envs", f"found {count} variables, expected at most {MAX_VARIABLES}")
        return
    total = 0
    for name, value in job.envs.items():
        total += len(name) + len(value.encode(errors="surrogatepass")) + 2
        yield from _variable_faults(f"/envs/{pointer_part(name)}", name, value)
    for name, secret in job.secrets.items():
        at = f"/secrets/{pointer_part(name)}"
        total += len(name) + len(secret.value.encode(errors="surrogatepass")) + 2
        yield from _variable_faults(at, name, secret.value)
        if name in job.envs:
            yield Fault(at, "is in envs too; keep one of them")
    if total > MAX_VARIABLE_BYTES:
        yield Fault(
            "/envs",
            f"found {total} bytes in envs and secrets together, expected at most"
            f" {MAX_VARIABLE_BYTES}; put large values into a file in workdir",
        )


def _variable_faults(at: str, name: str, value: str) -> Iterator[Fault]:
    if not _variable(name):
        yield Fault(
            at,
            f"found the name {quoted(name)}, expected letters, digits and '_', not starting with"
            " a digit",
        )
    yield from text_faults(at, value)


def _sources(job: Job) -> Iterator[Fault]:
    if len(job.data) > MAX_DATA_SOURCES:
        yield Fault("/data", f"found {len(job.data)} entries, expected at most {MAX_DATA_SOURCES}")
        return
    for index, source in enumerate(job.data):
        at = f"/data/{index}"
        if not source.uri:
            yield Fault(at + "/uri", "is empty; expected an address such as s3://bucket/path")
        yield from line_faults(at + "/uri", source.uri, MAX_URI_BYTES)
        yield from number_faults(at + "/size_gb", source.size_gib, MAX_DATA_GIB)
        if source.region:
            yield from region_faults(at + "/region", source.region)


def _wishes(job: Job, policies: Collection[str]) -> Iterator[Fault]:
    if job.objective != _OBJECTIVE:
        yield from _weights(job.objective)
    if job.policy and job.policy not in policies:
        yield Fault(
            "/policy",
            f"found {quoted(job.policy)}, expected one of {_policies(job.policy, policies)}",
        )
    if len(job.users_in) > MAX_ENTRIES:
        yield Fault(
            "/users_in", f"found {len(job.users_in)} regions, expected at most {MAX_ENTRIES}"
        )
    for index, region in enumerate(job.users_in[:MAX_ENTRIES]):
        yield from region_faults(f"/users_in/{index}", region)
    if job.latency_target_s:
        yield from number_faults("/latency_target", job.latency_target_s, MAX_LATENCY_S, "s")


def _weights(weights: Objective) -> Iterator[Fault]:
    for name in ("cost", "latency", "egress", "carbon", "interruption"):
        yield from number_faults(f"/objective/{name}", getattr(weights, name), MAX_WEIGHT)
    price, waiting = weights.carbon_usd_per_tonne, weights.waiting_usd_per_hour
    yield from number_faults("/objective/carbon_price", price, MAX_CARBON_PRICE)
    yield from number_faults("/objective/waiting", waiting, MAX_USD)
    if not any((weights.cost, weights.latency, weights.egress, weights.carbon)):
        yield Fault("/objective", "every weight is 0; give at least one term a weight above 0")


def _policies(wrong: str, known: Collection[str]) -> str:
    from difflib import get_close_matches  # 2 ms that only a typo pays for

    near = get_close_matches(wrong[:64].lower(), known, n=1)
    return ", ".join(sorted(known)) + (f'; did you mean "{near[0]}"?' if near else "")


def _places(at: str, patterns: Sequence[str]) -> Iterator[Fault]:
    if len(patterns) > MAX_ENTRIES:
        yield Fault(at, f"found {len(patterns)} places, expected at most {MAX_ENTRIES}")
    for index, pattern in enumerate(patterns[:MAX_ENTRIES]):
        if not _place(pattern):
            found = quoted(pattern)
            yield Fault(
                f"{at}/{index}",
                f"found {found}, expected a cloud, cloud/region or cluster, such as aws/eu-*",
            )


def _limits(job: Job) -> Iterator[Fault]:
    if job.budget != _BUDGET:
        yield from number_faults("/budget/max_usd", job.budget.max_usd, MAX_USD)
        yield from number_faults("/budget/max_usd_per_hour", job.budget.max_usd_per_hour, MAX_USD)
        yield from number_faults("/budget/max_kg_co2e", job.budget.max_kg_co2e, MAX_KG)
    if job.regions != _RESIDENCY:
        yield from _places("/regions/allow", job.regions.allow)
        yield from _places("/regions/deny", job.regions.deny)
    if job.restart != _RESTART:
        yield from range_faults("/restart/max", job.restart.max, 0, MAX_RESTARTS)
        yield from number_faults("/restart/backoff", job.restart.backoff_s, MAX_BACKOFF_S, "s")
    checkpoint = job.checkpoint
    if checkpoint != _CHECKPOINT:
        yield from number_faults("/checkpoint/grace", checkpoint.grace_s, MAX_GRACE_S, "s")
        yield from number_faults("/checkpoint/every", checkpoint.every_s, MAX_SECONDS, "s")
        yield from number_faults("/checkpoint/restore", checkpoint.restore_s, MAX_SECONDS, "s")
        yield from path_faults("/checkpoint/dir", checkpoint.dir)
        if checkpoint.signal and checkpoint.signal.removeprefix("B:") not in SIGNALS:
            found, known = quoted(checkpoint.signal), ", ".join(SIGNALS)
            yield Fault("/checkpoint/signal", f"found {found}, expected {known}, or B: and one")
        if checkpoint.notice and notice_url(checkpoint.notice) is None:
            found = quoted(checkpoint.notice)
            yield Fault("/checkpoint/notice", f"found {found}, expected {NOTICE_EXPECTED}")
    keeps = checkpoint.every_s > 0 or bool(checkpoint.dir)
    if job.migrate and not (keeps and job.expected_s > 0 and job.array is None):
        yield Fault(
            "/migrate",
            "needs expected, and checkpoint.every or checkpoint.dir, and is not for arrays:"
            " else nobody knows what a move would lose",
        )
    if job.pausing != _PAUSING:
        yield from number_faults("/pausing/hold", job.pausing.hold_s, MAX_HOLD_S, "s")
        yield from number_faults("/pausing/within", job.pausing.within_s, MAX_WITHIN_S, "s")
        queue_s = job.pausing.gpu_queue_s
        yield from number_faults("/pausing/gpu_queue", queue_s, MAX_GPU_QUEUE_S, "s")
        if job.pausing.criu and job.replicas > 1:
            found = f"found true with {job.replicas} replicas"
            said = "connections between them cannot be set aside; expected false, or one replica"
            yield Fault("/pausing/criu", f"{found}: {said}")
        if job.pausing.at not in ("", *PLACES_TO_STAND):
            found, known = quoted(job.pausing.at), ", ".join(PLACES_TO_STAND)
            yield Fault("/pausing/at", f"found {found}, expected {known}, or nothing")


def _marks(job: Job) -> Iterator[Fault]:
    if len(job.tolerations) > MAX_ENTRIES:
        yield Fault(
            "/tolerations", f"found {len(job.tolerations)} entries, expected at most {MAX_ENTRIES}"
        )
    for index, toleration in enumerate(job.tolerations[:MAX_ENTRIES]):
        if not _key(toleration.key):
            yield Fault(f"/tolerations/{index}/key", bad_key(toleration.key))
        yield from line_faults(f"/tolerations/{index}/value", toleration.value, 256)
    yield from pair_faults("/metadata", job.metadata, MAX_METADATA_ENTRIES, MAX_METADATA_BYTES)
    total = sum(
        len(key) + len(value.encode(errors="surrogatepass")) for key, value in job.metadata.items()
    )
    if total > MAX_METADATA_BYTES:
        yield Fault(
            "/metadata", f"found {total} bytes, expected at most {MAX_METADATA_BYTES} together"
        )
