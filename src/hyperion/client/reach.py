"""What both clients need to get to a server: the TLS context, the caller's name, plain errors."""

import getpass
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyperion.client.address import Address
from hyperion.client.errors import HyperionError, Refused, Unauthorized, Unavailable

if TYPE_CHECKING:
    import ssl

CONNECT_S = 5.0
SILENCE_S = 60.0
"""The longest silence of a stream; a live server sends a comment every 15 s."""
CALL_S = 30.0
"""A call with all its attempts, unless the caller gives another time."""


def tls_context(address: Address) -> "ssl.SSLContext":
    """Verifies the server, by the system's authorities or those of ``HYPERION_CA``.

    With authorities of our own ``check_name`` must follow: a federation's certificate names its
    role, and the host only where the operator told it one.
    """
    import ssl

    if address.blind:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(
            cafile=address.ca_path or None, cadata=address.ca_pem or None
        )
    except OSError as error:
        raise HyperionError(
            f"the authorities in {address.ca_path} cannot be used: {error}", "correct HYPERION_CA"
        ) from None
    context.check_hostname = not _is_private(address)
    return context


def check_name(address: Address, certificate: Mapping[str, Any] | None) -> None:
    """Raises Unauthorized where a private authority's certificate is not a federation's."""
    if not _is_private(address):
        return
    from hyperion.adapters.link.identity import Role, role_host

    names = {value for _, value in (certificate or {}).get("subjectAltName", ())}
    if not names & {address.host, role_host(Role.FEDERATION)}:
        raise Unauthorized(
            f"{address} shows a certificate for {', '.join(sorted(names)) or 'nobody'}",
            "look at the server's address (HYPERION_SERVER)",
        )


def pinned(address: Address, token: str) -> Address:
    """The same address, trusting exactly the authority whose fingerprint is in a join token."""
    import hashlib
    import ssl

    from hyperion.adapters.link.errors import Invalid
    from hyperion.adapters.link.tokens import parse_token
    from hyperion.client import calls
    from hyperion.client.sync import Client

    if not address.tls or address.ca_path:
        return address
    try:
        expected = parse_token(token).fingerprint
    except Invalid as error:
        raise Refused(str(error), "copy the whole token") from None
    with Client.at(address._replace(blind=True, token="")) as blind:
        pem = blind.ask(calls.authority()).ca_pem
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        found = ""
    if found != expected:
        raise Unauthorized(
            f"{address} is not the federation that this token is for",
            "look at the server's address; if it is right, somebody is in between",
        )
    return address._replace(ca_pem=pem)


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


def _is_private(address: Address) -> bool:
    return bool(address.ca_path or address.ca_pem)
