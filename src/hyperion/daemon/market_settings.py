"""From settings to feeds: which are asked, where, how often, and with which key."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

import msgspec

from hyperion.daemon.market_watch import MarketWatch, Watched
from hyperion.daemon.running import CannotStart
from hyperion.daemon.settings import FederationSettings
from hyperion.model.market import MarketView
from hyperion.model.quotes import Wanted
from hyperion.placement.quotes import wanted
from hyperion.ports import Clock

EVERY_FEED = "all"
LEAST_S, MOST_S = 1.0, 30 * 86_400.0


def market_watch(
    settings: FederationSettings,
    view: MarketView,
    clock: Clock,
    tell: Callable[[MarketView], None],
) -> MarketWatch:
    """The watch over the feeds of the settings. Raises ``CannotStart`` with the remedy."""
    names = list(dict.fromkeys(settings.market_feeds))
    if not names:
        return MarketWatch(view, wanted(view, {}), (), clock, tell)
    from hyperion.adapters.market.feeds import FEEDS, KeyMissing, find_key, grid_zones, make_feed

    _check_names("market_feeds", names, FEEDS)
    _check_names("market_urls", settings.market_urls, FEEDS)
    _check_names("market_key_files", settings.market_key_files, FEEDS)
    _check_names("market_intervals", settings.market_intervals, {**FEEDS, EVERY_FEED: None})
    watched = []
    for name in names:
        url = settings.market_urls.get(name, "")
        _check_url(name, url)
        try:
            key = find_key(name, settings.market_key_files.get(name, ""))
            feed = make_feed(name, url, key)
        except KeyMissing as error:
            raise CannotStart(f"market_feeds: {error}") from None
        except (OSError, ValueError) as error:
            raise CannotStart(f"market_key_files: {name}: {error}") from None
        kind = FEEDS[name]
        every_s = _interval_s(settings.market_intervals, name, kind.interval_s)
        watched.append(Watched(feed, kind.about, url or kind.base_url, every_s))
    asked = _narrowed(wanted(view, grid_zones()), settings.market_regions)
    return MarketWatch(view, asked, watched, clock, tell)


def _narrowed(asked: Wanted, regions: tuple[str, ...]) -> Wanted:
    if not regions:
        return asked
    places = {p: at for p, at in asked.places.items() if p.startswith(regions)}
    unknown = [r for r in regions if not any(p.startswith(r) for p in places)]
    if unknown:
        raise CannotStart(
            f"market_regions: no region begins with {unknown[0]!r}; hyperion offers shows their"
            " names, such as aws/us-east-1"
        )
    return msgspec.structs.replace(asked, places=places)


def _check_names(
    setting: str, names: "list[str] | Mapping[str, str]", known: Mapping[str, object]
) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise CannotStart(f"{setting}: no feed {name!r}; {hint}")


def _check_url(name: str, url: str) -> None:
    """Keys go only over TLS, or to this machine; and never stand in a URL, which is shown."""
    if not url:
        return
    parts = urlsplit(url.replace("{region}", "region"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CannotStart(f"market_urls: {name}: expected http(s)://HOST…, found {parts.scheme!r}")
    if parts.username or parts.password or parts.query:
        raise CannotStart(f"market_urls: {name}: no user, password or query; use market_key_files")
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        raise CannotStart(f"market_urls: {name}: http only to this machine; elsewhere https")


def _interval_s(intervals: Mapping[str, str], name: str, usual_s: float) -> float:
    text = intervals.get(name, intervals.get(EVERY_FEED, ""))
    if not text:
        return usual_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not LEAST_S <= seconds <= MOST_S:
        raise CannotStart(
            f"market_intervals: {name}: found {text!r}, expected {LEAST_S:g} to {MOST_S:,.0f} s"
        )
    return seconds
