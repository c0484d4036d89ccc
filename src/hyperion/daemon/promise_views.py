"""The rows of ``hyperion slo``: what pausing took, by step, and on each node by how it was done."""

from collections.abc import Iterable, Iterator, Sequence

from hyperion.control.promise import PROMISED_MS, Miss, Promise, Trace
from hyperion.model.allocation import Freeze
from hyperion.wire.api import MissView, PromiseView, Quantiles

NODES_SHOWN = 1000


def promise_views(promise: Promise, cluster: str) -> list[PromiseView]:
    """Of the newest pauses that the scheduler remembers."""
    steps = _steps(promise.traces, promise.misses, cluster)
    return [*steps, *_nodes(promise, cluster), *_saved(promise, cluster)]


def _steps(traces: Iterable[Trace], misses: Iterable[Miss], cluster: str) -> Iterator[PromiseView]:
    known = list(traces)
    if not known:
        return
    free = [t for t in known if t.free_at_ms]
    ran = [t for t in known if t.running_at_ms]
    steps: tuple[tuple[str, float, int, list[float]], ...] = (
        ("submitted → ordered", 0.0, 0, [t.ordered_at_ms - t.submitted_at_ms for t in known]),
        (
            "ordered → free",
            PROMISED_MS,
            sum(t.missed for t in known),
            [t.free_at_ms - t.ordered_at_ms for t in free],
        ),
        ("ordered → running", 0.0, 0, [t.running_at_ms - t.ordered_at_ms for t in ran]),
        ("submitted → running", 0.0, 0, [t.running_at_ms - t.submitted_at_ms for t in ran]),
    )
    for step, promised_ms, missed, took in steps:
        yield PromiseView(
            cluster=cluster,
            node="",
            step=step,
            promised_ms=promised_ms,
            missed=missed,
            took=quantiles(took),
            misses=_misses(misses, "", "", "") if promised_ms else (),
        )


def _misses(misses: Iterable[Miss], node: str, word: str, how: str) -> tuple[MissView, ...]:
    return tuple(
        MissView(
            at_ms=miss.at_ms,
            job=miss.job,
            took_ms=miss.took_ms,
            why=miss.why,
            stragglers=miss.stragglers,
        )
        for miss in reversed(list(misses))
        if miss.node == node and miss.word == word and (not word or miss.why == how)
    )


def _nodes(promise: Promise, cluster: str) -> Iterator[PromiseView]:
    """``called``: an order to pause has reached the fast path. ``wanted``: it was known there
    that a standby is, by a connection or an order; that is promised as well."""
    for word, promised_ms, freezes in (
        ("called", 0.0, promise.freezes),
        ("wanted", PROMISED_MS, promise.activations),
    ):
        by: dict[tuple[str, str], list[Freeze]] = {}
        for x in freezes:
            by.setdefault((x.node, x.freeze.how), []).append(x.freeze)
        for (node, how), found in sorted(by.items())[:NODES_SHOWN]:
            confirmed = [x.confirmed_us / 1000 for x in found if x.confirmed_us]
            late = sum(ms > PROMISED_MS for ms in confirmed) + len(found) - len(confirmed)
            for step, promised, missed, took in (
                ("stopped", 0.0, 0, [x.stopped_us / 1000 for x in found]),
                ("frozen", promised_ms, late if promised_ms else 0, confirmed),
            ):
                yield PromiseView(
                    cluster=cluster,
                    node=node,
                    step=f"{word} → {step} ({how})",
                    promised_ms=promised,
                    missed=missed,
                    took=quantiles(took),
                    misses=_misses(promise.misses, node, word, how) if step == "frozen" else (),
                )


def _saved(promise: Promise, cluster: str) -> Iterator[PromiseView]:
    """Until the step was written at whose end a program stands: nothing of it can be lost then."""
    by: dict[str, list[float]] = {}
    for x in promise.settlings:
        by.setdefault(x.node, []).append(x.freeze.saved_us / 1000)
    for node, took in sorted(by.items())[:NODES_SHOWN]:
        yield PromiseView(
            cluster=cluster,
            node=node,
            step="called → saved (step)",
            promised_ms=0.0,
            missed=0,
            took=quantiles(took),
        )


def quantiles(took_ms: Sequence[float]) -> Quantiles:
    """Nearest rank: each is a duration that was really seen."""
    ordered = sorted(took_ms)
    if not ordered:
        return Quantiles(count=0)

    def at(part: float) -> float:
        return float(ordered[min(len(ordered) - 1, int(part * len(ordered)))])

    return Quantiles(count=len(ordered), p50=at(0.5), p99=at(0.99), p999=at(0.999), max=ordered[-1])
