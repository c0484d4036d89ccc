"""What is wrong with where replicas are to be: topology, spread, near to and away from others."""

from collections.abc import Iterator

from hyperion.model.bounds import MAX_ENTRIES, MAX_SKEW, MAX_TERM_WEIGHT, MAX_TERMS
from hyperion.model.constraints import LEVELS, Packing, ReplicaTerm, Spread
from hyperion.model.faults import Fault, pair_faults, quoted, range_faults
from hyperion.model.job import Job


def place_faults(job: Job) -> Iterator[Fault]:
    """Of ``topology``, ``spread``, ``near`` and ``away_from``, and of what they are together."""
    if job.packing is not None:
        yield from _level("/topology", job.packing.level)
    if job.spread:
        yield from _spread(job)
    if job.replica_affinity:
        yield from _terms(job)


def pointers(terms: tuple[ReplicaTerm, ...]) -> Iterator[str]:
    """Where each term stands in a spec, which has two lists for them."""
    counts = {"near": 0, "away_from": 0}
    for term in terms:
        name = "away_from" if term.anti else "near"
        yield f"/{name}/{counts[name]}"
        counts[name] += 1


def _level(at: str, level: str) -> Iterator[Fault]:
    if level not in LEVELS:
        yield Fault(at, f"found {quoted(level)}, expected one of {', '.join(LEVELS)}{_near(level)}")


def _near(wrong: str) -> str:
    from difflib import get_close_matches  # 2 ms that only a typo pays for

    near = get_close_matches(wrong[:64].lower(), LEVELS, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _spread(job: Job) -> Iterator[Fault]:
    if len(job.spread) > len(LEVELS):
        yield Fault("/spread", f"found {len(job.spread)} entries, expected at most {len(LEVELS)}")
        return
    seen: set[str] = set()
    for index, spread in enumerate(job.spread):
        at = f"/spread/{index}"
        yield from _level(at + "/level", spread.level)
        yield from range_faults(at + "/max_skew", spread.max_skew, 1, MAX_SKEW)
        if spread.level in seen:
            yield Fault(at, f"found the level {quoted(spread.level)} twice; keep one of them")
        seen.add(spread.level)
        if job.packing is not None and _contradict(job, job.packing, spread):
            yield Fault(
                at,
                f"wants replicas in several parts of level {spread.level}, while topology requires"
                f" all in one {job.packing.level}; make one of them preferred, or spread over a"
                " narrower level",
            )


def _contradict(job: Job, packing: Packing, spread: Spread) -> bool:
    return (
        packing.required
        and spread.required
        and _not_narrower(spread.level, packing.level)
        and job.least_replicas > spread.max_skew
    )


def _not_narrower(level: str, than: str) -> bool:
    """Whether one part of ``than`` is always within one part of ``level``."""
    known = level in LEVELS and than in LEVELS
    return known and LEVELS.index(level) <= LEVELS.index(than)


def _terms(job: Job) -> Iterator[Fault]:
    terms = job.replica_affinity
    if len(terms) > MAX_TERMS:
        at = "/away_from" if all(term.anti for term in terms) else "/near"
        yield Fault(at, f"found {len(terms)} terms, expected at most {MAX_TERMS}")
        return
    near = [term for term in terms if not term.anti and not term.weight]
    for at, term in zip(pointers(terms), terms, strict=True):
        yield from _level(at + "/level", term.level)
        if not term.labels:
            yield Fault(at, "names no labels; expected the metadata of the jobs that are meant")
        yield from pair_faults(at + "/labels", dict(term.labels), MAX_ENTRIES, 256)
        if len({key for key, _ in term.labels}) != len(term.labels):
            yield Fault(at + "/labels", "has a key twice; keep one of them")
        if not 0 <= term.weight <= MAX_TERM_WEIGHT:
            yield Fault(
                at + "/weight",
                f"found {term.weight}, expected 1 to {MAX_TERM_WEIGHT}, or 0 for what is required",
            )
        if term.anti and not term.weight:
            yield from _against(job, at, term, near)


def _against(job: Job, at: str, term: ReplicaTerm, near: list[ReplicaTerm]) -> Iterator[Fault]:
    """What else the job wants that a required ``away_from`` makes impossible."""
    if any(n.labels == term.labels and _not_narrower(term.level, n.level) for n in near):
        yield Fault(
            at, "wants to be away from the very replicas that near wants it at; drop one of them"
        )
    own = all(job.metadata.get(key) == value for key, value in term.labels)
    if own and term.labels and _keeps_apart(job, term):
        assert job.packing is not None
        yield Fault(
            at,
            f"keeps the job's own replicas in different parts of level {term.level}, while"
            f" topology requires all in one {job.packing.level}; make one of them preferred",
        )


def _keeps_apart(job: Job, term: ReplicaTerm) -> bool:
    packing = job.packing
    return (
        packing is not None
        and packing.required
        and job.least_replicas > 1
        and _not_narrower(term.level, packing.level)
    )
