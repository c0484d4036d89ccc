"""A peer's key, certificate and authority, from three files; and who the other side is.

Needs no crypto library: gRPC and ``ssl`` bring their own TLS.
"""

import os
import ssl
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import grpc
from msgspec import Struct

from hyperion.adapters.link.certificate import Certificate, fingerprint_of, read_certificate
from hyperion.adapters.link.errors import Denied, Invalid
from hyperion.adapters.link.files import write_whole
from hyperion.adapters.link.identity import Identity, Role, parse_identity, role_host
from hyperion.adapters.link.tokens import parse_token

KEY, CERTIFICATE, AUTHORITY = "key.pem", "cert.pem", "ca.pem"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_JOIN = "join again with: hyperion join"
_SKEW_S = 300


class CredentialsError(Exception):
    """The files do not make an identity; the message names the file and the remedy."""


class Credentials(Struct, frozen=True):
    """Who this process is, with the proof. Its repr hides the key."""

    directory: Path
    identity: Identity
    ends_s: int
    """When the certificate expires, seconds since the epoch."""
    key_pem: bytes
    cert_pem: bytes
    ca_pem: bytes

    def __repr__(self) -> str:
        return f"Credentials({self.identity.uri!r}, {str(self.directory)!r})"

    @classmethod
    def load(cls, directory: Path, now_s: int) -> "Credentials":
        """CredentialsError when a file is missing, open to others, expired or does not fit."""
        _check_private(directory / KEY)
        key, cert, ca = (_read(directory / name) for name in (KEY, CERTIFICATE, AUTHORITY))
        certificate = _parse(directory / CERTIFICATE, cert)
        authority = _parse(directory / AUTHORITY, ca)
        _check_times(directory / CERTIFICATE, certificate, now_s)
        _check_times(directory / AUTHORITY, authority, now_s)
        if certificate.issuer != authority.subject:
            raise CredentialsError(
                f"{directory / CERTIFICATE} was not issued by {directory / AUTHORITY}; {_JOIN}"
            )
        _check_pair(directory)
        try:
            identity = certificate.identity()
        except Invalid as error:
            raise CredentialsError(f"{directory / CERTIFICATE}: {error}; {_JOIN}") from None
        return cls(directory, identity, certificate.ends_s, key, cert, ca)

    def server(self) -> grpc.ServerCredentials:
        """For a gRPC server: a caller without a certificate of our authority is refused."""
        return grpc.ssl_server_credentials(
            [(self.key_pem, self.cert_pem)], self.ca_pem, require_client_auth=True
        )

    def channel(self) -> grpc.ChannelCredentials:
        """For a gRPC channel; give it ``pin(role)`` as an option too."""
        return grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.cert_pem)

    def server_context(self, ask_certificate: bool = False) -> ssl.SSLContext:
        """For the REST server: TLS 1.2 or later; callers must show a certificate if asked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.directory / CERTIFICATE, self.directory / KEY)
        if ask_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.ca_pem.decode())
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a REST client that shows its certificate; connect with ``role_host`` as the name."""
        context = trusting(self.ca_pem)
        context.load_cert_chain(self.directory / CERTIFICATE, self.directory / KEY)
        return context


def trusting(ca_pem: bytes) -> ssl.SSLContext:
    """For a client without a certificate that trusts one authority and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode())
    return context


def pinned(token: str, ca_pem: bytes) -> ssl.SSLContext:
    """For a joiner: ``trusting`` the authority that its token names, whoever handed out ``ca_pem``.

    Denied when it is another one: then the token must not be shown to that server.
    """
    expected, found = parse_token(token).fingerprint, fingerprint_of(ca_pem)
    if found != expected:
        raise Denied(
            f"the server's authority {found[:16]}… is not the authority of the join token"
            f" ({expected[:16]}…); check the address, or ask for a token of that federation"
        )
    return trusting(ca_pem)


def certificate_ends_s(context: "Context") -> int | None:
    """When the caller's certificate expires, seconds since the epoch."""
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return read_certificate(pem).ends_s
    return None


def save(directory: Path, key_pem: bytes, cert_pem: bytes, ca_pem: bytes) -> None:
    """Keep an identity. The key goes first: a crash on the way leaves no certificate without."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(directory / KEY, key_pem, 0o600)
    write_whole(directory / AUTHORITY, ca_pem, 0o644)
    write_whole(directory / CERTIFICATE, cert_pem, 0o644)


def pin(role: Role) -> tuple[str, str]:
    """Channel option: only a server whose certificate says this role will do, whatever its host."""
    return ("grpc.ssl_target_name_override", role_host(role))


def peer_identity(context: "Context") -> Identity:
    """Who calls, from the certificate that TLS has checked; Denied when there is none."""
    names: Iterable[bytes] = context.auth_context().get("x509_subject_alternative_name", ())
    # DNS names cannot hold "://", so an entry of this form is a URI the authority has signed.
    found = [name for name in names if name.startswith(b"spiffe://")]
    if len(found) != 1:
        raise Denied(f"the caller's certificate names {len(found)} identities; expected one")
    try:
        return parse_identity(found[0].decode("ascii", "replace"))
    except Invalid as error:
        raise Denied(f"the caller's certificate: {error}") from None


def admit(context: "Context", trust_domain: str, roles: Collection[Role]) -> Identity:
    """Who calls, if it is of our trust domain and one of the roles; else Denied."""
    identity = peer_identity(context)
    if identity.trust_domain != trust_domain:
        raise Denied(f"{identity} is not of trust domain {trust_domain}")
    if identity.role not in roles:
        expected = " or ".join(sorted(role.value for role in roles))
        raise Denied(f"{identity} has role {identity.role.value}; this call is for {expected}")
    return identity


async def require(context: "Context", trust_domain: str, roles: Collection[Role]) -> Identity:
    """``admit``, ending the call with PERMISSION_DENIED when it refuses."""
    try:
        return admit(context, trust_domain, roles)
    except Denied as error:
        await _refuse(context, str(error))


async def _refuse(context: "Context", why: str) -> NoReturn:
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
    raise AssertionError  # abort raises


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise CredentialsError(f"{path} is missing; {_JOIN}") from None
    if mode & 0o077:
        raise CredentialsError(f"{path} can be read by others; correct it with: chmod 600 {path}")


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CredentialsError(f"{path} is missing; {_JOIN}") from None
    except PermissionError:
        raise CredentialsError(
            f"{path} cannot be read by user {os.getuid()}; run as its owner, or chown it"
        ) from None
    if len(content) > 1 << 20:
        raise CredentialsError(f"{path} is longer than 1 MiB; {_JOIN}")
    return content


def _parse(path: Path, pem: bytes) -> Certificate:
    try:
        return read_certificate(pem)
    except Invalid as error:
        raise CredentialsError(f"{path}: {error}; {_JOIN}") from None


def _check_times(path: Path, certificate: Certificate, now_s: int) -> None:
    if certificate.ends_s <= now_s:
        days = (now_s - certificate.ends_s) // 86400
        raise CredentialsError(f"{path} expired {days} days ago; {_JOIN}")
    if certificate.begins_s > now_s + _SKEW_S:
        raise CredentialsError(f"{path} is not valid yet; set this machine's clock right")


def _check_pair(directory: Path) -> None:
    """That the key is the certificate's. ssl reads both from their files only."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            directory / CERTIFICATE, directory / KEY, password=_no_password
        )
    except (ssl.SSLError, ValueError):
        raise CredentialsError(
            f"{directory / KEY} is not the key of {directory / CERTIFICATE}; {_JOIN}"
        ) from None


_no_password: Callable[[], str] = str
"""An encrypted key fails instead of asking at the terminal."""
