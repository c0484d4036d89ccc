"""Runs the replay server until it is told to end."""

import socket
from collections.abc import Callable
from pathlib import Path

from hyperion.adapters.market.feeds import FEEDS, key_variable
from hyperion.daemon.market_replay.recorded import RecordedSeries, RecordingError
from hyperion.daemon.market_replay.series import Series
from hyperion.daemon.market_replay.server import MAKERS, ReplayServer, base_url


class CannotReplay(Exception):
    """An address or a folder is not as needed; the message has the remedy."""


def main(
    listen: str,
    data: Path | None,
    begins_ms: int | None,
    speed: float,
    say: Callable[[str], object],
) -> int:
    """Serve at HOST:PORT (port 0: any free one). Raises ``CannotReplay``."""
    import uvicorn

    series = Series()
    if data is not None:
        try:
            recorded = RecordedSeries(data, series.machines)
        except RecordingError as error:
            raise CannotReplay(str(error)) from None
        series = Series((recorded,))
        begins_ms = recorded.begins_ms if begins_ms is None else begins_ms
    app = ReplayServer(series, begins_ms, speed)
    host, _, port = listen.rpartition(":")
    try:
        listening = socket.create_server((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise CannotReplay(f"--listen {listen}: {error}; give HOST:PORT of this machine") from None
    with listening:
        address = "{}:{}".format(*listening.getsockname()[:2])
        say(instructions(address))
        config = uvicorn.Config(
            app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2
        )
        uvicorn.Server(config).run([listening])
    return 0


def instructions(address: str) -> str:
    """Settings that make the feeds of a federation, or of ``hyperion up``, ask this server."""
    feeds = ", ".join(f'"{name}"' for name in MAKERS)
    urls = "\n".join(f'{name} = "{base_url(name, address)}"' for name in MAKERS)
    keys = " ".join(f"{key_variable(k.name)}=any:key" for k in FEEDS.values() if k.needs)
    return (
        f"# replaying at http://{address}; steer it at http://{address}/replay\n"
        f"# any key will do: export {keys}\n"
        f"[all]\nmarket_feeds = [{feeds}]\n"
        f'market_intervals = {{ all = "10" }}\n\n[all.market_urls]\n{urls}\n'
    )
