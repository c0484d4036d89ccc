"""What every daemon does before it serves: its certificate, its store, its port, its ready mark."""

import time
from collections.abc import Mapping
from pathlib import Path

from hyperion.adapters.link import errors
from hyperion.adapters.link.credentials import Credentials, CredentialsError
from hyperion.adapters.link.server import LinkServer
from hyperion.adapters.store.retention import Retention
from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.daemon import application
from hyperion.daemon.driver import Pace
from hyperion.daemon.running import CannotStart
from hyperion.daemon.settings import DaemonSettings

TRANSLATION: Mapping[type[Exception], type[errors.LinkError]] = {
    **errors.STANDARD,
    application.NotFound: errors.NotFound,
    application.Conflict: errors.Conflict,
    application.Exhausted: errors.Exhausted,
    application.Unavailable: errors.Unavailable,
}


def load_credentials(directory: Path, role: str) -> Credentials:
    """This daemon's certificate. Raises CannotStart with the remedy."""
    try:
        return Credentials.load(directory, int(time.time()))  # noqa: TID251 - certificates are dated
    except CredentialsError as error:
        raise CannotStart(f"this {role} needs a certificate: {error}") from None


def open_store(path: Path, settings: DaemonSettings) -> SqliteStore:
    """The daemon's own store. Raises CannotStart when another process has it, or it is damaged."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SqliteStore(
            path, Retention(records=settings.journal_records, age_ms=settings.journal_age_ms)
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CannotStart(str(error)) from None


async def listen(server: LinkServer, address: str) -> int:
    """Start serving at ``host:port``; the port bound."""
    host, _, port = address.rpartition(":")
    try:
        return await server.start(host.strip("[]"), int(port))
    except (errors.Unavailable, ValueError) as error:
        raise CannotStart(f"listen: {error}") from None


def pace(settings: DaemonSettings, round_ms: float = 2.0) -> Pace:
    """The driver's bounds, from the settings."""
    return Pace(
        batch=settings.batch,
        inbox_limit=settings.inbox_limit,
        round_ms=round_ms,
        tick_ms=settings.tick_ms,
    )
