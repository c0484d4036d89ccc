"""Asks the feeds, judges what they say, and tells the machine when the market has changed.

All of it is beside the event path: the machine only ever gets a finished view. What is held is
soft: after a restart the catalogue counts until the feeds have answered.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hyperion.model.market import MarketView
from hyperion.model.quotes import Fetched, Quarantined, Quote, Slot, Wanted
from hyperion.placement import quotes as q
from hyperion.ports import Clock, QuoteFeed
from hyperion.wire.market_api import (
    FeedView,
    ForecastView,
    MarketStatusView,
    QuarantinedView,
    QuoteView,
)

_log = logging.getLogger("hyperion.market")

POLL_S = 1200.0
"""The longest that one poll may take, whatever the feed does."""
AGEING_S = 60.0
"""Quotes grow old without a poll: so often is looked which of them count."""
FIRST_PAUSE_S = 5.0
"""After a failed poll, doubling up to the feed's interval."""
QUARANTINED_KEPT = 200
"""Of each feed; the rest is counted."""


@dataclass
class Watched:
    """A feed, and what came of asking it."""

    feed: QuoteFeed
    about: str
    base_url: str
    interval_s: float
    book: q.Book = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    failed: tuple[str, ...] = ()
    fault: str = ""
    polls: int = 0
    good_at_ms: int | None = None
    failures: int = 0
    """In a row."""


class MarketWatch:
    """``tell`` gets each view that differs from the last one in a figure."""

    def __init__(
        self,
        view: MarketView,
        wanted: Wanted,
        watched: Sequence[Watched],
        clock: Clock,
        tell: Callable[[MarketView], None],
    ) -> None:
        self._view, self._wanted, self._watched = view, wanted, list(watched)
        self._clock, self._tell = clock, tell
        self._shapes = q.wanted(view, {}).machines
        self._yardsticks = q.yardsticks(view, self._shapes)
        self._figures: Mapping[Slot, object] = {}
        self._told = 0
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled, also where there is no feed."""
        try:
            async with asyncio.TaskGroup() as group:
                for watched in self._watched:
                    group.create_task(self._poll_for_ever(watched))
                group.create_task(self._age_for_ever())
        finally:
            await asyncio.gather(*(w.feed.close() for w in self._watched), return_exceptions=True)

    async def poll(self, watched: Watched) -> None:
        """Ask once, and take in what is good of the answer."""
        watched.polls += 1
        try:
            async with asyncio.timeout(POLL_S):
                fetched = await watched.feed.fetch(self._wanted, self._clock.now_ms())
        except (OSError, TimeoutError) as error:
            self._failed(watched, str(error) or f"no answer within {POLL_S:g} s")
            return
        except Exception as error:  # a fault in one feed must not end the federation
            _log.exception("feed %s failed", watched.feed.name)
            self._failed(watched, f"{type(error).__name__}; the log has more")
            return
        await self._take_in(watched, fetched)
        await self._tell_if_changed()

    def status(self) -> MarketStatusView:
        """What became of each feed, and what is in quarantine."""
        now_ms = self._clock.now_ms()
        in_force = self._in_force(now_ms)
        return MarketStatusView(
            feeds=tuple(_feed_view(w, in_force, now_ms) for w in self._watched),
            quarantined=tuple(
                _quarantined_view(x)
                for w in self._watched
                for x in w.quarantined[:QUARANTINED_KEPT]
            ),
            views_told=self._told,
        )

    def quotes(self, kind: str, place: str, source: str, limit: int) -> list[QuoteView]:
        """The last good ones; ``place`` may be the beginning of one."""
        now_ms = self._clock.now_ms()
        in_force = self._in_force(now_ms)
        held = (quote for w in self._watched for quote in w.book.values())
        found = [
            quote
            for quote in held
            if kind in ("", quote.kind.value)
            and quote.place.startswith(place)
            and source in ("", quote.source)
        ]
        found.sort(key=lambda x: (x.kind.value, x.place, x.subject, x.source))
        return [_quote_view(x, in_force.get(x.slot) is x, now_ms) for x in found[:limit]]

    def _in_force(self, now_ms: int) -> dict[Slot, Quote]:
        return q.best({k: v for w in self._watched for k, v in w.book.items()}, now_ms)

    async def _poll_for_ever(self, watched: Watched) -> None:
        while True:
            await self.poll(watched)
            pause_s = watched.interval_s
            if watched.failures:
                pause_s = min(pause_s, FIRST_PAUSE_S * 2.0 ** min(watched.failures - 1, 20))
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.1))  # so that not all ask at once

    async def _age_for_ever(self) -> None:
        while True:
            await asyncio.sleep(AGEING_S)
            await self._tell_if_changed()

    def _failed(self, watched: Watched, fault: str) -> None:
        watched.failures += 1
        if watched.fault != fault:
            _log.warning("feed %s: %s; its last good quotes count on", watched.feed.name, fault)
        watched.fault = fault

    async def _take_in(self, watched: Watched, fetched: Fetched) -> None:
        now_ms = self._clock.now_ms()
        found = await asyncio.to_thread(
            q.judge, fetched.quotes, watched.book, now_ms, self._yardsticks, self._shapes
        )
        if found.quarantined and not watched.quarantined:
            first = found.quarantined[0]
            _log.warning(
                "feed %s: %d of %d quotes quarantined, the first one %s %s %s: %s: %s",
                watched.feed.name, len(found.quarantined), len(fetched.quotes),
                first.quote.kind.value, first.quote.place, first.quote.subject[:60],
                first.reason, first.why[:200],
            )  # fmt: skip
        watched.book, watched.quarantined = found.book, found.quarantined
        watched.failed, watched.fault, watched.failures = fetched.failed, "", 0
        watched.good_at_ms = now_ms

    async def _tell_if_changed(self) -> None:
        async with self._lock:  # two feeds at once must not tell the older view last
            now_ms = self._clock.now_ms()
            in_force = await asyncio.to_thread(self._in_force, now_ms)  # thousands of quotes
            figures = q.figures(in_force)
            if figures == self._figures:
                return
            view = await asyncio.to_thread(q.lay_quotes, self._view, in_force, self._wanted)
            self._figures = figures
            self._told += 1
            self._tell(view)


def _feed_view(watched: Watched, in_force: Mapping[Slot, Quote], now_ms: int) -> FeedView:
    good_at_ms = watched.good_at_ms
    return FeedView(
        name=watched.feed.name,
        about=watched.about,
        base_url=watched.base_url,
        interval_s=watched.interval_s,
        polls=watched.polls,
        good_ms_ago=None if good_at_ms is None else max(0, now_ms - good_at_ms),
        quotes=len(watched.book),
        in_force=sum(in_force.get(x.slot) is x for x in watched.book.values()),
        quarantined=len(watched.quarantined),
        fault=watched.fault,
        failed=watched.failed,
    )


def _quote_view(quote: Quote, in_force: bool, now_ms: int) -> QuoteView:
    age_ms = max(0, now_ms - quote.as_of_ms)
    return QuoteView(
        kind=quote.kind.value,
        place=quote.place,
        subject=quote.subject,
        value=quote.value,
        unit=quote.unit,
        source=quote.source,
        as_of_ms=quote.as_of_ms,
        age_ms=age_ms,
        ttl_ms=quote.ttl_ms,
        stale=age_ms > quote.ttl_ms,
        confidence=quote.confidence,
        uncertainty=round(q.uncertainty(quote, now_ms), 4),
        in_force=in_force,
        forecast=tuple(ForecastView(at_ms=p.at_ms, value=p.value) for p in quote.forecast),
        note=quote.note,
    )


def _quarantined_view(found: Quarantined) -> QuarantinedView:
    quote = found.quote
    return QuarantinedView(
        kind=quote.kind.value,
        place=quote.place,
        subject=quote.subject[:100],
        value=quote.value if abs(quote.value) < float("inf") else None,
        unit=quote.unit[:60],
        source=quote.source,
        reason=found.reason,
        why=found.why[:300],
        at_ms=found.at_ms,
    )
