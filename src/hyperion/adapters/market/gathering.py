"""Many small requests as one fetch: a few at a time, and a failed part does not fail the rest."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from hyperion.adapters.market.fetch import FeedError
from hyperion.model.quotes import MOST_QUOTES, Fetched, Quote

TOGETHER = 4
MOST_FAILED = 50
"""So many sentences are kept of what failed; the rest is counted."""

P = TypeVar("P")


async def gathered(
    parts: Iterable[P],
    fetch: Callable[[P], Awaitable[Sequence[Quote]]],
    what: str,
    together: int = TOGETHER,
) -> Fetched:
    """The quotes of all parts. ``FeedError`` where none came: then nothing is known at all."""
    gate = asyncio.Semaphore(together)

    async def one(part: P) -> Sequence[Quote] | str:
        async with gate:
            try:
                return await fetch(part)
            except OSError as error:
                return str(error)

    answers = await asyncio.gather(*(one(part) for part in parts))
    failed = [answer for answer in answers if isinstance(answer, str)]
    if failed and len(failed) == len(answers):
        raise FeedError(failed[0])
    quotes = [quote for answer in answers if not isinstance(answer, str) for quote in answer]
    if len(quotes) > MOST_QUOTES:
        raise FeedError(f"{what}: {len(quotes):,} quotes at once, at most {MOST_QUOTES:,}")
    if len(failed) > MOST_FAILED:
        failed[MOST_FAILED:] = [f"{what}: and {len(failed) - MOST_FAILED} more parts failed"]
    return Fetched(tuple(quotes), tuple(failed))


def number(text: str | float) -> float:
    """NaN for what is none: such a quote is quarantined, where an exception would hide it."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
