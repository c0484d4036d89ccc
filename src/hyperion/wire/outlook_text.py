"""What a cluster tells of a waiting job, in sentences with their numbers. Pure text."""

import time
from collections.abc import Iterator, Sequence

from hyperion.model.ids import QueueName
from hyperion.placement.quota import QuotaRefusal, refusal_text
from hyperion.wire.api import OutlookView, QuotaView

NAMED = 4
"""Jobs that a sentence names; the rest is counted."""
SOON_MS = 1000


def outlook_sentences(view: OutlookView, now_ms: int) -> tuple[str, ...]:
    """From what holds it up now to when it would start."""
    return tuple(_sentences(view, now_ms))


def _sentences(v: OutlookView, now_ms: int) -> Iterator[str]:
    if v.position is not None:
        yield _position(v)
    if v.awaits:
        yield f"It waits for the end of {jobs(v.awaits)}."
    if v.not_before_ms > now_ms:
        yield f"It is not started before {moment(v.not_before_ms)}."
    if v.quota is not None:
        yield _quota(v.quota)
    if v.reasons:
        yield _nodes(v)
    if v.pauses:
        yield f"{jobs(v.pauses).capitalize()} would stand still for it."
    if v.preempts:
        verb = _are(len(v.preempts)) if v.position is not None else "would be"
        being = "being " if v.position is not None else ""
        yield f"{jobs(v.preempts).capitalize()} {verb} {being}stopped for it."
    if v.never:
        yield "It would not fit even if all nodes were empty."
    elif v.starts_at_ms is not None:
        yield _start(v, v.starts_at_ms, now_ms)
    if 0 < v.replicas_now < v.replicas:
        yield f"It would start now with {count(v.replicas_now, 'replica')} instead of {v.replicas}."


def _position(v: OutlookView) -> str:
    position = v.position or 0
    before = "No job is" if not position else f"{count(position, 'job')} {_are(position)}"
    text = f"{before} before it in {v.cluster}"
    if v.position_in_queue is not None and v.queue and position:
        text += f", {v.position_in_queue} of its queue {v.queue}"
    return text + "."


def _quota(quota: QuotaView) -> str:
    text = refusal_text(
        QuotaRefusal(QueueName(quota.queue), quota.resource, quota.used, quota.limit, quota.asked)
    )
    return f"{text[0].upper()}{text[1:]}."


def _nodes(v: OutlookView) -> str:
    reasons = "; ".join(f"{reason.nodes}: {reason.text}" for reason in v.reasons)
    have = "has" if v.nodes == 1 else "have"
    return f"Now {v.nodes_with_room} of {count(v.nodes, 'node')} {have} room: {reasons}."


def _start(v: OutlookView, at_ms: int, now_ms: int) -> str:
    if at_ms <= now_ms + SOON_MS and not v.because:
        return "It would start at once." if v.position is None else "It can start at once."
    text = f"It would start at {moment(at_ms)}"
    if v.because:
        ends = "ends" if len(v.because) == 1 else "end"
        text += f" when {jobs(v.because)} {ends}"
    return f"{text} (in {span(at_ms - now_ms)}, {v.confidence * 100:.0f} % sure)."


def jobs(names: Sequence[str]) -> str:
    """``job a``, ``jobs a and b``, ``jobs a, b, c, d and 3 more``."""
    if len(names) == 1:
        return f"job {names[0]}"
    more = len(names) - NAMED
    if more > 0:
        return f"jobs {', '.join(names[:NAMED])} and {more} more"
    return f"jobs {', '.join(names[:-1])} and {names[-1]}"


def moment(at_ms: int) -> str:
    """In UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(at_ms / 1000))


def span(ms: int) -> str:
    """``45s``, ``12m``, ``3h20m``, ``2d04h``."""
    seconds = max(0, ms // 1000)
    if seconds < 90:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h{minutes % 60:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
