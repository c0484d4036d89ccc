"""Jobs that leave a trace run while daemons are killed at random; then the laws are checked.

Every replica appends lines to one file outside the daemons' directories: ``start`` when it begins,
``end`` when it has done all it had to. What that file, the watched changes, the kept records and
the final views say must agree.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import msgspec
from daemons import until

from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.client.calls import as_job
from hyperion.client.errors import HyperionError, NotFound
from hyperion.client.sync import Client
from hyperion.model.job import JobPhase

ENDS = frozenset(phase.value for phase in JobPhase if phase.is_terminal)
PAUSE_S = (0.05, 0.5)
"""Between a daemon's death and its next start."""
STARTING_S = (0.02, 0.8)
"""From a daemon's start until it is killed, for those that are to die before they serve …"""
STARTING_SHARE = 0.3
"""… which are so many of all."""
SERVING_S = (0.0, 1.0)
"""From the moment that a daemon serves until it is killed, for the others."""
PATIENCE_S = 60.0
_TRACE = 'echo "$1 $HYPERION_ALLOCATION" >>"$TRACE"'


@dataclass
class Wish:
    """One job, and what it deserves."""

    job: object
    kind: str
    phases: frozenset[str]
    """One of these must be its end."""
    submit_s: float
    """After the beginning."""
    cancel_s: float | None = None

    @property
    def id(self):
        return str(self.job.id)


@dataclass
class Seen:
    """What the outside saw."""

    phases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Per job, each phase that a watcher was shown, repetitions left out."""
    kills: dict[str, int] = field(default_factory=Counter)
    retries: int = 0
    """Calls that had to be made again."""
    wall_s: float = 0.0


def wishes(seed, count, trace, over_s):
    """``count`` jobs of all kinds, to be submitted within ``over_s``."""
    dice = random.Random(f"{seed}-jobs")
    kinds = [_KINDS[n % len(_KINDS)] for n in range(count)]
    dice.shuffle(kinds)
    moments = sorted(dice.uniform(0, over_s) for _ in kinds)
    return [
        _wish(kind, f"{kind}-{seed}-{n}", trace, dice, moment)
        for n, (kind, moment) in enumerate(zip(kinds, moments, strict=True))
    ]


_KINDS = ["instant", "short", "gang", "short", "instant", "cancelled", "gang", "retried", "short"]
_KINDS += ["failing", "gang", "instant", "short", "failing-gang", "cancelled-gang"]


def _wish(kind, job_id, trace, dice, moment):
    run, spec = f"note() {{ {_TRACE}; }}\nnote start\n", {"resources": {"cpus": 1}}
    phases, cancel_s = {"succeeded"}, None
    if kind == "short":
        run += f"sleep {dice.uniform(0.2, 3):.2f}\n"
    if "gang" in kind:
        spec["replicas"] = dice.randint(2, 3)
        run += f"sleep {dice.uniform(0.2, 2):.2f}\n"
    if kind == "retried":
        run += 'if mkdir "$TRACE.$HYPERION_JOB_ID" 2>/dev/null; then exit 7; fi\n'
    if kind == "failing":
        run += "exit 9\n"
    if kind == "failing-gang":
        run += 'if [ "$RANK" = 1 ]; then exit 9; fi\nsleep 30\n'
    if kind in ("retried", "failing", "failing-gang"):
        spec["restart"] = {"max": 1, "backoff": 0.3}
        phases = {"succeeded"} if kind == "retried" else {"failed"}
    if kind.startswith("cancelled"):
        cancel_s = moment + dice.uniform(0.0, 2.5)
        run += "sleep 60\n" if dice.random() < 0.7 else "sleep 1\n"
        phases = {"cancelled"} if "sleep 60" in run else {"cancelled", "succeeded"}
    spec |= {"name": kind, "run": run + "note end\n", "envs": {"TRACE": str(trace)}}
    return Wish(as_job(spec, job_id), kind, frozenset(phases), moment, cancel_s)


# -- acting ---------------------------------------------------------------------------------------


def run(world, wished, kills, seed, limit_s=150.0):
    """Kill each daemon ``kills`` times while the wishes are carried out; what was seen.

    Ends when all jobs have ended as a last listing says, or raises AssertionError.
    """
    seen, began = Seen(), time.monotonic()
    stop = threading.Event()
    watching = _thread(_watch, world, seen, stop)
    world.client.submit(wished[0].job)
    until(lambda: seen.phases, "the watcher to see the first job")
    threads = [
        _thread(_kill_again_and_again, daemon, kills, seed, seen, stop) for daemon in world.daemons
    ]
    try:
        _submit_and_cancel(world, wished, seen, began)
        for thread in threads:
            thread.join(limit_s)
        _await_ends(world, began + limit_s)
        _await_watcher(seen, wished)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    faults = [t.fault for t in [*threads, watching] if t.fault]
    assert not faults, faults
    seen.wall_s = time.monotonic() - began
    return seen


class _thread(threading.Thread):  # noqa: N801 - used as the function it stands for
    """Runs at once, and keeps the fault that ended it."""

    def __init__(self, act, *arguments):
        super().__init__(daemon=True)
        self.fault = None
        self._act = act, arguments
        self.start()

    def run(self):
        act, arguments = self._act
        try:
            act(*arguments)
        except BaseException as fault:
            self.fault = fault


def _kill_again_and_again(daemon, kills, seed, seen, stop):
    dice = random.Random(f"{seed}-{daemon.name}")
    for _ in range(kills):
        life_s = dice.uniform(*SERVING_S)
        if dice.random() < STARTING_SHARE:
            life_s = dice.uniform(*STARTING_S)
        else:
            daemon.ready(attached=False)
        if stop.wait(life_s):
            return
        assert daemon.alive, f"{daemon.name} ended by itself:\n{daemon.tail()}"
        daemon.kill()
        seen.kills[daemon.name] += 1
        stop.wait(dice.uniform(*PAUSE_S))
        daemon.start()


def _submit_and_cancel(world, wished, seen, began):
    """In the order of time; each again with the same id until it is answered."""
    acts = [(w.submit_s, "submit", w) for w in wished]
    acts += [(w.cancel_s, "cancel", w) for w in wished if w.cancel_s is not None]
    for at_s, what, wish in sorted(acts, key=lambda act: act[:2]):
        time.sleep(max(0.0, began + at_s - time.monotonic()))
        call = world.client.submit if what == "submit" else world.client.cancel
        _insist(
            lambda call=call, w=wish: call(w.job if call == world.client.submit else w.id), seen
        )


def _insist(call, seen):
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except NotFound:
            raise
        except HyperionError:
            if time.monotonic() > ends:
                raise
            seen.retries += 1
            time.sleep(0.05)


def _watch(world, seen, stop):
    """Every change that a watcher is shown, over all deaths of the federation."""
    after = 0
    with Client(str(world.client.address)) as client:
        while not stop.is_set():
            try:
                for change in client.watch(after=after):
                    after = max(after, change.sequence)
                    phases = seen.phases[change.job.id]
                    if not phases or phases[-1] != change.job.phase:
                        phases.append(change.job.phase)
                    if stop.is_set():
                        return
            except HyperionError:
                stop.wait(0.05)


def _await_watcher(seen, wished):
    """It may be a moment behind. Whom it never sees end is found by ``faults_of``."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        if all(ENDS.intersection(seen.phases.get(w.id, ())) for w in wished):
            return
        time.sleep(0.05)


def _await_ends(world, ends):
    while left := [v for v in views(world).values() if v.phase not in ENDS]:
        if time.monotonic() > ends:
            told = "\n".join(f"{v.id}: {v.phase} {v.reason} {v.ranks}" for v in left)
            raise AssertionError(f"{len(left)} jobs have not ended:\n{told}\n{world.logs()}")
        time.sleep(0.05)


def views(world):
    """Every job by id, as the federation tells it now."""
    return {v.id: v for v in _insist(lambda: world.client.list(ended=True), Seen())}


# -- judging --------------------------------------------------------------------------------------


def traces(path):
    """What replicas wrote: {"start": counts by allocation, "end": counts by allocation}."""
    found = {"start": Counter(), "end": Counter()}
    for line in path.read_text().splitlines() if path.exists() else ():
        what, allocation = line.split()
        found[what][allocation] += 1
    return found


def faults_of(world, wished, seen, trace):
    """Every law that was broken, in words; empty is good. All daemons must run."""
    now, found = views(world), traces(trace)
    faults = [f"{a} started {n} times" for a, n in found["start"].items() if n > 1]
    faults += [f"{a} ended without a start" for a in found["end"] if not found["start"][a]]
    expected, known = {w.id for w in wished}, set(now)
    faults += [f"{id} is lost" for id in expected - known]
    faults += [f"{id} was never asked for" for id in known - expected]
    for wish in wished:
        if wish.id in now:
            faults += [f"{wish.id}: {fault}" for fault in _job_faults(wish, now[wish.id], found)]
            faults += [f"{wish.id}: {fault}" for fault in _watched_faults(wish, now, seen)]
    return faults


def _job_faults(wish, view, found):
    """What one job's end and its traces have against each other."""
    starts = Counter(_rank(a) for a in found["start"] if _job(a) == wish.id)
    ends = Counter(_rank(a) for a in found["end"] if _job(a) == wish.id)
    ranks = range(wish.job.replicas)
    if view.phase not in wish.phases:
        yield f"is {view.phase} ({view.reason}), expected {' or '.join(wish.phases)}"
    if view.phase == "succeeded" and any(ends[rank] != 1 for rank in ranks):
        yield f"succeeded, but its ranks did all their work so often: {dict(ends)}"
    if wish.kind in ("instant", "short", "gang") and any(starts[rank] != 1 for rank in ranks):
        yield f"nothing happened to it, but its ranks started so often: {dict(starts)}"
    if wish.kind.startswith("cancelled") and any(starts[rank] > 1 for rank in ranks):
        yield f"was cancelled, but its ranks started so often: {dict(starts)}"
    if wish.kind in ("retried", "failing") and starts[0] != 2:
        yield f"fails and is tried once more, but started {starts[0]} times"
    if wish.kind == "failing-gang" and starts[1] != 2:
        yield f"fails and is tried once more, but rank 1 started {starts[1]} times"
    if view.restarts != (wish.kind in ("retried", "failing", "failing-gang")):
        yield f"says that it was started anew {view.restarts} times"


def _watched_faults(wish, now, seen):
    phases = seen.phases.get(wish.id, [])
    ends = [phase for phase in phases if phase in ENDS]
    if len(ends) != 1 or phases[-1] not in ENDS:
        yield f"a watcher saw {phases}"
    elif ends[0] != now[wish.id].phase:
        yield f"a watcher saw it {ends[0]}, now it is {now[wish.id].phase}"


def kept_faults(world, wished):
    """What the stores have against the laws. No daemon may run: each store is opened here."""
    faults = []
    ends = Counter()
    for kind, record in _journal(world.federation.state_dir / "federation.db"):
        if kind == "FederatedJobMoved" and record["status"].get("phase") in ENDS:
            ends[record["job"]] += 1
    faults += [f"{w.id} ended {ends[w.id]} times in the journal" for w in wished if ends[w.id] != 1]
    for daemon in world.daemons:
        if daemon is not world.federation:
            left = [k for k in _keys(daemon) if k.split("/")[3] in _PASSING]
            faults += [f"{daemon.name} still keeps {key}" for key in left]
    return faults


_PASSING = ("job", "allocation", "secret", "replica")
"""Entities that schedulers and agents forget once the federation knows the end."""


def _journal(path):
    store = SqliteStore(path)
    try:
        after = 0
        while entries := list(store.journal(after)):
            after = entries[-1].sequence
            for entry in entries:
                record = msgspec.json.decode(entry.record)
                yield record["type"], record
    finally:
        store.close()


def _keys(daemon):
    store = SqliteStore(daemon.state_dir / f"{daemon.kind}.db")
    try:
        return [key for key, _ in store.load()]
    finally:
        store.close()


def _job(allocation):
    return allocation.rpartition(".")[0].rpartition(".")[0]


def _rank(allocation):
    return int(allocation.rpartition(".")[2])
