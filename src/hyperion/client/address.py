"""Where the federation is, and what lets us in."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from hyperion.client.errors import HyperionError

SOCKET_NAME = "federation.sock"
MAX_TOKEN_BYTES = 4096


class Address(NamedTuple):
    """One federation's listener. ``repr`` does not show the token."""

    path: str = ""
    """Of the unix socket; empty for TCP."""
    host: str = ""
    port: int = 0
    tls: bool = False
    token: str = ""
    ca_path: str = ""
    """A file of authorities to trust instead of the system's, PEM."""
    ca_pem: str = ""
    """The same as text."""
    blind: bool = False
    """Believe any certificate: only to fetch an authority that is then compared with a pin."""

    @property
    def is_local(self) -> bool:
        """Whether the server sees this machine's files: only over the unix socket is that sure."""
        return bool(self.path)

    @property
    def authority(self) -> str:
        """For the Host header."""
        if self.path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def __repr__(self) -> str:
        return f"Address({self})"


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory: ``HYPERION_HOME``, or ``~/.hyperion``."""
    given = environment.get("HYPERION_HOME", "")
    return Path(given).expanduser() if given else Path.home() / ".hyperion"


def find(server: str = "", token: str = "", environment: Mapping[str, str] = os.environ) -> Address:
    """The argument, else ``HYPERION_SERVER``, else the socket in the state directory.

    ``server`` is ``http://…``, ``https://…`` or ``unix:PATH``. The token is the argument, else
    ``HYPERION_TOKEN``, else the content of ``HYPERION_TOKEN_FILE``; ``HYPERION_CA`` names a file of
    authorities to trust.
    """
    server = server or environment.get("HYPERION_SERVER", "")
    if not server:
        return Address(path=str(home(environment) / SOCKET_NAME))
    if server.startswith("unix:"):
        path = server.removeprefix("unix:").removeprefix("//")
        return Address(path=str(Path(path).expanduser()))
    parts = _split(server)
    token = token or environment.get("HYPERION_TOKEN", "") or _token_from_file(environment)
    tls = parts.scheme == "https"
    address = Address(
        host=parts.hostname or "",
        port=parts.port or (443 if tls else 80),
        tls=tls,
        token=_checked(token),
        ca_path=environment.get("HYPERION_CA", "") if tls else "",
    )
    if address.token and not tls and not _is_loopback(address.host):
        raise HyperionError(
            f"{address} would carry the token in the clear", "use https:// for another machine"
        )
    return address


def _split(server: str) -> SplitResult:
    remedy = "write http://HOST:PORT, https://HOST:PORT or unix:PATH (HYPERION_SERVER)"
    try:
        parts = urlsplit(server)
        _ = parts.port
    except ValueError as error:
        raise HyperionError(f"the server's address {server!r} is wrong: {error}", remedy) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise HyperionError(f"the server's address {server!r} is not understood", remedy)
    if parts.path.strip("/") or parts.query or parts.username:
        raise HyperionError(f"the server's address {server!r} says too much", remedy)
    return parts


def _token_from_file(environment: Mapping[str, str]) -> str:
    name = environment.get("HYPERION_TOKEN_FILE", "")
    if not name:
        return ""
    path = Path(name).expanduser()
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise HyperionError(
                f"{path} (HYPERION_TOKEN_FILE) can be read by others", f"chmod 600 {path}"
            )
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES + 1).decode("latin-1")
    except OSError as error:
        raise HyperionError(
            f"{path} (HYPERION_TOKEN_FILE) cannot be read: {error.strerror}",
            "correct HYPERION_TOKEN_FILE, or set HYPERION_TOKEN",
        ) from None


def _checked(token: str) -> str:
    token = token.strip()
    if len(token) > MAX_TOKEN_BYTES or not (token.isascii() and token.isprintable()):
        raise HyperionError(
            f"the token is no single line of at most {MAX_TOKEN_BYTES} printable characters",
            "look at HYPERION_TOKEN and HYPERION_TOKEN_FILE",
        )
    return token


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
