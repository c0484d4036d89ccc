"""What both clients need to get to a server: the TLS context, the caller's name, plain errors."""

import getpass
import os
from typing import TYPE_CHECKING

from hyperion.client.address import Address
from hyperion.client.errors import HyperionError, Unauthorized, Unavailable

if TYPE_CHECKING:
    import ssl

CONNECT_S = 5.0
SILENCE_S = 60.0
"""The longest silence of a stream; a live server sends a comment every 15 s."""
CALL_S = 30.0
"""A call with all its attempts, unless the caller gives another time."""


def tls_context(address: Address) -> "ssl.SSLContext":
    """Verifies the server, by the system's authorities or those of ``HYPERION_CA``."""
    import ssl

    try:
        return ssl.create_default_context(cafile=address.ca_path or None)
    except OSError as error:
        raise HyperionError(
            f"the authorities in {address.ca_path} cannot be used: {error}", "correct HYPERION_CA"
        ) from None


def not_up(address: Address, error: OSError) -> HyperionError:
    """A server that could not be connected to."""
    if isinstance(error, PermissionError):
        return Unauthorized(
            f"{address} belongs to another user", "set HYPERION_SERVER or HYPERION_HOME"
        )
    if _is_certificate_fault(error):
        return Unauthorized(
            f"{address} has a certificate that is not trusted: {error}",
            "set HYPERION_CA to the federation's ca.pem",
        )
    reason = error.strerror or str(error) or "it did not answer in time"
    return Unavailable(f"no federation at {address} ({reason})", "is it up? try: hyperion up")


def broken(address: Address, reason: object) -> Unavailable:
    """A connection that ended before its answer did."""
    return Unavailable(f"the connection to {address} broke: {reason}", "try again")


def caller() -> str:
    """The user's name, as far as a header may carry it."""
    try:
        name = os.environ.get("HYPERION_USER") or getpass.getuser()
    except (KeyError, OSError):  # no such uid in passwd, as in some containers
        name = str(os.getuid())
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "._@-"))[:64]


def _is_certificate_fault(error: OSError) -> bool:
    return type(error).__name__ == "SSLCertVerificationError"
