"""The spec that reads back as a job: for ``show``, REST, and whoever wants to submit it again."""

from typing import Any

from msgspec import Struct, structs

from hyperion.model.job import (
    Condition,
    DatasetRead,
    Dependency,
    Framework,
    Job,
    Objective,
    Priority,
    Role,
)
from hyperion.wire import units
from hyperion.wire.spec_resources import request_mapping, resources_mapping


def job_to_mapping(job: Job) -> dict[str, Any]:
    """The spec that reads back as this job, defaults left out; secrets are ``***``."""
    out: dict[str, Any] = {}
    if job.name:
        out["name"] = job.name
    if job.framework is not Framework.CUSTOM:
        out["framework"] = job.framework.value
    if job.priority is not Priority.BATCH:
        out["priority"] = job.priority.name
    if job.replicas != 1 and not job.roles and job.elastic is None:
        out["replicas"] = job.replicas
    resources = {} if job.roles else resources_mapping(job.alternatives)
    if resources:
        out["resources"] = resources
    out |= _form_mapping(job) | _places_mapping(job)
    for name in ("image", "workdir", "setup"):
        if value := getattr(job, name):
            out[name] = value
    if job.run or job.command:
        out["run"] = job.run or list(job.command)
    if job.envs:
        out["envs"] = dict(job.envs)
    if job.secrets:
        out["secrets"] = dict.fromkeys(job.secrets, "***")
    return out | _wishes_mapping(job)


def _form_mapping(job: Job) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if job.roles:
        names = [role.name for role in job.roles]
        if names == sorted(names):
            out["roles"] = {role.name: _role_mapping(role) for role in job.roles}
        else:  # a writer that sorts the keys would deal the ranks anew
            out["roles"] = [{"name": role.name} | _role_mapping(role) for role in job.roles]
    if job.elastic is not None:
        out["elastic"] = {"min": job.elastic.min, "max": job.replicas}
        if not job.elastic.restart:
            out["elastic"]["restart"] = False
    if job.array is not None:
        out["array"] = _without_defaults(job.array)
    return out


def _role_mapping(role: Role) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if role.replicas != 1:
        out["replicas"] = role.replicas
    resources = request_mapping(role.resources)
    if resources:
        out["resources"] = resources
    if role.run or role.command:
        out["run"] = role.run or list(role.command)
    return out


def _places_mapping(job: Job) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if job.packing is not None:
        out["topology"] = {"required" if job.packing.required else "preferred": job.packing.level}
    if job.spread:
        out["spread"] = [_without_defaults(spread) or spread.level for spread in job.spread]
    for term in job.replica_affinity:
        mapping = _without_defaults(term) | {"labels": dict(term.labels)}
        mapping.pop("anti", None)
        out.setdefault("away_from" if term.anti else "near", []).append(mapping)
    return out


def _dependency(dependency: Dependency) -> object:
    if dependency.condition is Condition.OK:
        return dependency.job
    return {dependency.condition.value: dependency.job}


def _read(read: DatasetRead) -> object:
    return read.dataset if read == DatasetRead(read.dataset) else _without_defaults(read)


def _wishes_mapping(job: Job) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if job.data:
        out["data"] = [_without_defaults(source) for source in job.data]
        for entry in out["data"]:
            if "size_gib" in entry:
                entry["size_gb"] = units.tidy(entry.pop("size_gib"))
    if job.reads:
        out["reads"] = [_read(read) for read in job.reads]
    if job.writes:
        out["writes"] = [_renamed(write, size_gib="size_gb") for write in job.writes]
    if job.objective != Objective():
        out["objective"] = _renamed(
            job.objective, carbon_usd_per_tonne="carbon_price", waiting_usd_per_hour="waiting"
        )
    if job.policy:
        out["policy"] = job.policy
    rest = {
        "users_in": list(job.users_in),
        "latency_target": units.tidy(job.latency_target_s),
        "queue": job.queue,
        "nice": job.nice,
        "expected": units.tidy(job.expected_s),
        "deadline": units.tidy(job.deadline_s),
        "begin": units.tidy(job.begin_s),
        "start": "now" if job.start_now else "",
        "after": [_dependency(dependency) for dependency in job.after],
        "reservation": job.reservation,
        "min_runtime": units.tidy(job.min_runtime_s),
        "budget": _without_defaults(job.budget),
        "regions": {name: list(places) for name, places in _without_defaults(job.regions).items()},
        "restart": _renamed(job.restart, backoff_s="backoff"),
        "checkpoint": _renamed(
            job.checkpoint, grace_s="grace", every_s="every", restore_s="restore"
        ),
        "migrate": job.migrate,
        "pausing": _renamed(job.pausing, hold_s="hold", within_s="within", gpu_queue_s="gpu_queue"),
        "tolerations": [_without_defaults(toleration) for toleration in job.tolerations],
        "metadata": dict(job.metadata),
    }
    out |= {name: value for name, value in rest.items() if value}
    if job.standby is not None:
        out["standby"] = _renamed(job.standby, quiet_s="quiet")
    return out


def _without_defaults(value: Struct) -> dict[str, Any]:
    """The attributes of a Struct that differ from its defaults, or have none."""
    kept = {}
    for field in structs.fields(value):
        own = getattr(value, field.name)
        if field.required or own != field.default:
            kept[field.name] = units.tidy(own) if isinstance(own, float) else own
    return kept


def _renamed(value: Struct, **names: str) -> dict[str, Any]:
    return {names.get(key, key): own for key, own in _without_defaults(value).items()}
