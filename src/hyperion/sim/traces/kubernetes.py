"""Reads Kubernetes' past: what ``kubectl get pods -o json`` and ``get events -o json`` print.

A pod is a job. Its requests, and the times of its containers, come from the pods; of a pod whose
containers tell no times, the events *Started* and *Killing* do. Events are kept an hour by default.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from hyperion.model.accelerators import from_device_name
from hyperion.model.ids import JobId, UserId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.sim.trace import BadRow, Trace, TraceError, TraceJob, assembled, queue_name

GPUS = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi")
TYPE_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "accelerator")
"""Labels of nodes by which pods ask for a type, in ``nodeSelector`` or required node affinity."""
STOPPED = ("Killing", "Preempted", "Evicted", "Preempting", "TaintManagerEviction")
TAKEN_AWAY = ("Preempted", "Evicted", "Preempting", "TaintManagerEviction")
_SIZE = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]i?)?")
_UNITS = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "P": 1e15, "E": 1e18, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
    "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


class _Run(Struct):
    """When a pod's containers ran, and how they ended."""

    spans: list[tuple[float, float | None]]
    """Seconds since the epoch; no end: it runs."""
    failed: bool = False


class _Events(Struct):
    """What the events tell of each pod, by namespace and name."""

    started_s: dict[str, float] = {}
    stopped_s: dict[str, float] = {}
    taken_away: int = 0
    newest_s: float = 0.0


def kubernetes(texts: Iterable[tuple[str, bytes]]) -> Trace:
    """The pods of some files (name, content), one after another in the order of their begins."""
    pods: list[Mapping[str, Any]] = []
    events: list[Mapping[str, Any]] = []
    for name, text in texts:
        for item in _items(name, text):
            (pods if item.get("kind") == "Pod" else events).append(item)
    told = _told(events)
    as_of_s = max([told.newest_s, *(_newest_s(pod) for pod in pods)], default=0.0)
    jobs: list[TraceJob] = []
    running = 0
    bad: list[BadRow] = []
    seen: set[str] = set()
    for n, pod in enumerate(pods, 1):
        seen.add(_name(pod.get("metadata", {})))
        try:
            job, runs_still = _job(pod, n, told, as_of_s)
            jobs.append(job)
            running += runs_still
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            bad.append(BadRow(n, "pod", f"{_name(pod.get('metadata', {}))}: {error}"[:200]))
    gone = set(told.started_s) - seen
    return assembled("kubernetes", jobs, bad, _notes(running, len(gone), told))


def _notes(running: int, gone: int, told: _Events) -> list[str]:
    notes = ["a pod is a job of its own, and needs what it requests"]
    if running:
        notes.append(f"{running} pods run still: they count up to the newest time in the files")
    if gone:
        notes.append(f"{gone} pods are known from events only, without requests: left out")
    if told.taken_away:
        notes.append(f"{told.taken_away} pods were evicted or preempted, by the events")
    return notes


def _items(name: str, text: bytes) -> list[Mapping[str, Any]]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise TraceError(f"{name} is no JSON ({error}): kubectl get pods -A -o json") from None
    items = found.get("items", [found]) if isinstance(found, dict) else found
    kinds = [x for x in items if isinstance(x, dict)] if isinstance(items, list) else []
    good: list[Mapping[str, Any]] = [x for x in kinds if x.get("kind") in {"Pod", "Event"}]
    if not good:
        raise TraceError(f"{name} has no Pod and no Event: kubectl get pods -A -o json")
    return good


def _job(pod: Mapping[str, Any], n: int, events: _Events, as_of_s: float) -> tuple[TraceJob, bool]:
    """The pod as a job, and whether it runs still."""
    meta, spec = pod["metadata"], pod["spec"]
    name = _name(meta)
    run = _run(pod.get("status", {}))
    if not run.spans and name in events.started_s:
        run.spans.append((events.started_s[name], events.stopped_s.get(name)))
    if not run.spans:
        raise ValueError("no container of it has a time of start")
    runs_still = any(end is None for _, end in run.spans)
    ran_s = sum(max(0.0, (as_of_s if end is None else end) - begin) for begin, end in run.spans)
    labels = meta.get("labels", {})
    user = labels.get("user") or labels.get("app.kubernetes.io/created-by") or meta["namespace"]
    id = re.sub(r"[^A-Za-z0-9_-]+", "-", f"k8s-{n}-{meta['name']}").strip("-")
    job = TraceJob(
        at_ms=int(1000 * min(begin for begin, _ in run.spans)),
        job=Job(
            id=JobId(id[:64]),
            name=meta["name"][:63],
            user=UserId(re.sub(r"[^A-Za-z0-9._@-]", "-", user)[:64]),
            queue=queue_name(meta["namespace"]),
            command=("true",),
            alternatives=(_request(spec),),
        ),
        runs_ms=max(1, int(1000 * ran_s)),
        exit_codes=(1 if run.failed else 0,),
    )
    return job, runs_still


def _run(status: Mapping[str, Any]) -> _Run:
    """One span for the newest run of the containers together, one for the run before it."""
    out = _Run([])
    for state in ("lastState", "state"):
        begins: list[float] = []
        ends: list[float | None] = []
        for container in status.get("containerStatuses", ()):
            told = container.get(state, {})
            ended, runs = told.get("terminated"), told.get("running")
            if ended and ended.get("startedAt"):
                begins.append(_moment_s(ended["startedAt"]))
                ends.append(_moment_s(ended.get("finishedAt") or ended["startedAt"]))
                out.failed = bool(ended.get("exitCode")) if state == "state" else out.failed
            elif runs and runs.get("startedAt"):
                begins.append(_moment_s(runs["startedAt"]))
                ends.append(None)
        if begins:
            known = [end for end in ends if end is not None]
            out.spans.append((min(begins), None if None in ends else max(known)))
    return out


def _request(spec: Mapping[str, Any]) -> ResourceRequest:
    """What all containers of a pod ask for together; a limit stands for a request not made."""
    asked: dict[str, float] = {}
    for container in spec["containers"]:
        resources = container.get("resources", {})
        for name, text in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            asked[name] = asked.get(name, 0.0) + _amount(str(text))
    gpus = next((int(asked[name]) for name in GPUS if asked.get(name)), 0)
    return ResourceRequest(
        gpus_milli=gpus * MILLI,
        gpu_type=_gpu_type(spec) if gpus else "",
        cpus_milli=max(1, int(MILLI * asked.get("cpu", 0.0))),
        memory_mib=int(asked.get("memory", 0.0) / (1 << 20)),
    )


def _gpu_type(spec: Mapping[str, Any]) -> str:
    wanted = dict(spec.get("nodeSelector") or {})
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms", ()):
        for expression in term.get("matchExpressions", ()):
            if expression.get("operator") == "In" and expression.get("values"):
                wanted.setdefault(expression["key"], expression["values"][0])
    found = next((wanted[label] for label in TYPE_LABELS if wanted.get(label)), "")
    return from_device_name(found.replace("-", " ")) if found else ""


def _told(events: Iterable[Mapping[str, Any]]) -> _Events:
    out = _Events({}, {})
    for event in events:
        times = (event.get(k) for k in ("lastTimestamp", "eventTime", "firstTimestamp"))
        text = next((t for t in times if t), None)
        about = event.get("involvedObject", event.get("regarding", {}))
        if text is None or about.get("kind") != "Pod":
            continue
        try:
            at_s = _moment_s(text)
        except ValueError:
            continue
        name, reason = _name(about), event.get("reason")
        out.newest_s = max(out.newest_s, at_s)
        out.taken_away += reason in TAKEN_AWAY
        if reason == "Started":
            out.started_s[name] = min(at_s, out.started_s.get(name, at_s))
        elif reason in STOPPED:
            out.stopped_s[name] = max(at_s, out.stopped_s.get(name, at_s))
    return out


def _newest_s(pod: Mapping[str, Any]) -> float:
    """The newest time that a pod's containers tell."""
    try:
        spans = _run(pod.get("status", {})).spans
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0.0
    return max((moment for span in spans for moment in span if moment is not None), default=0.0)


def _name(meta: Mapping[str, Any]) -> str:
    return f"{meta.get('namespace', 'default')}/{meta.get('name', '?')}"


def _amount(text: str) -> float:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"found the quantity {text[:40]!r}, expected such as 500m or 16Gi")
    return float(found[1]) * _UNITS[found[2] or ""]


def _moment_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
