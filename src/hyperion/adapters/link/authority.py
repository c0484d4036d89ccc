"""The federation's own certificate authority: made at first start, signs short-lived certificates.

Loads ``cryptography`` (about 20 MiB), so import it only where certificates are made; those who
merely use theirs need ``credentials`` alone.
"""

import ipaddress
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hyperion.adapters.link.errors import Conflict, Invalid
from hyperion.adapters.link.files import locked, write_whole
from hyperion.adapters.link.identity import SERVING, Identity, Role, parse_role, role_host
from hyperion.adapters.link.tokens import TokenStore, parse_token

CERTIFICATE_TTL_S = 30 * 24 * 3600
MAX_TTL_S = 366 * 24 * 3600
MAX_HOSTS = 64
MAX_REQUEST_BYTES = 16 * 1024
_AUTHORITY_LIFE = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
"""Certificates begin this much earlier, for peers whose clocks are behind."""
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*")

Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authority:
    """Key, certificate and join tokens of one trust domain, in one directory of mode 0700."""

    def __init__(
        self,
        directory: Path,
        trust_domain: str,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        now: Clock,
    ) -> None:
        self.trust_domain = trust_domain
        self.ca_pem = certificate.public_bytes(Encoding.PEM)
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        self._key = key
        self._certificate = certificate
        self._now = now
        self._tokens = TokenStore(directory / "tokens", lambda: int(now().timestamp()))

    @classmethod
    def open(cls, directory: Path, trust_domain: str, now: Clock = _utc_now) -> "Authority":
        """The authority kept in ``directory``, made there at the first call.

        Of several processes that start at once one makes it. Conflict when the directory holds
        another trust domain's, or when its key or certificate is gone or does not fit.
        """
        Identity(trust_domain, Role.FEDERATION, "check")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_path, certificate_path = directory / "ca.key", directory / "ca.pem"
        with locked(directory / ".lock"):
            if certificate_path.exists() and not key_path.exists():
                raise Conflict(
                    f"{certificate_path} has lost its key {key_path}; restore the key, or remove"
                    " the certificate to begin anew (every peer must then join again)"
                )
            if not key_path.exists():
                write_whole(key_path, _key_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
            key = _load_key(key_path)
            if not certificate_path.exists():
                made = _self_signed(key, trust_domain, now())
                write_whole(certificate_path, made.public_bytes(Encoding.PEM), 0o644)
        certificate = _load_certificate(certificate_path)
        _check_authority(certificate_path, certificate, key, trust_domain, now())
        return cls(directory, trust_domain, key, certificate, now)

    def sign(
        self,
        csr_pem: bytes,
        identity: Identity,
        hosts: Sequence[str] = (),
        ttl_s: int = CERTIFICATE_TTL_S,
    ) -> bytes:
        """A certificate (PEM) for the request's key. Nothing else of the request is believed."""
        return self._certify(_request_key(csr_pem), identity, hosts, ttl_s)

    def issue(
        self, identity: Identity, hosts: Sequence[str] = (), ttl_s: int = CERTIFICATE_TTL_S
    ) -> tuple[bytes, bytes]:
        """(key PEM, certificate PEM) for a peer on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _key_pem(key), self._certify(key.public_key(), identity, hosts, ttl_s)

    def new_token(self, role: str, name: str, ttl_s: int = 3600, hosts: Sequence[str] = ()) -> str:
        """A one-time token with which a peer of that role and name can join within ``ttl_s``."""
        identity = Identity(self.trust_domain, parse_role(role), name)
        _alternative_names(identity, hosts)
        return self._tokens.add(self.fingerprint, identity, tuple(hosts), ttl_s).text

    def redeem(self, token: str, csr_pem: bytes) -> tuple[bytes, bytes]:
        """(certificate PEM, CA PEM) for a token, which is used up.

        Denied when it is unknown, used or expired. A malformed request (Invalid) leaves it unused.
        """
        parsed = parse_token(token)
        kept = self._tokens.look(parsed)
        key = _request_key(csr_pem)
        self._tokens.consume(parsed)
        identity = Identity(self.trust_domain, parse_role(kept.role), kept.name)
        return self._certify(key, identity, kept.hosts, CERTIFICATE_TTL_S), self.ca_pem

    def _certify(
        self, key: CertificatePublicKeyTypes, identity: Identity, hosts: Sequence[str], ttl_s: int
    ) -> bytes:
        if identity.trust_domain != self.trust_domain:
            raise Invalid(f"{identity} is not of trust domain {self.trust_domain}")
        if not 0 < ttl_s <= MAX_TTL_S:
            raise Invalid(f"a certificate lives 1 to {MAX_TTL_S} s; found {ttl_s}")
        now = self._now()
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.role in SERVING:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        until = min(now + timedelta(seconds=ttl_s), self._certificate.not_valid_after_utc)
        builder = (
            _builder(_subject(identity), self._certificate.subject, now, until)
            .public_key(key)
            .add_extension(_alternative_names(identity, hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def new_request() -> tuple[bytes, bytes]:
    """(key PEM, request PEM) for whoever joins; the key never leaves the machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return _key_pem(key), request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _self_signed(
    key: ec.EllipticCurvePrivateKey, trust_domain: str, now: datetime
) -> x509.Certificate:
    # A random part in the name tells two authorities of one trust domain apart.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hyperion-X"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"CA {secrets.token_hex(8)}"),
        ]
    )
    domain = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    public = key.public_key()
    builder = (
        _builder(name, name, now, now + _AUTHORITY_LIFE)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([domain]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(until)
    )


def _subject(identity: Identity) -> x509.Name:
    # Common names end at 64 characters (RFC 5280, upper bound ub-common-name); peers read the URI.
    common = f"{identity.role.value}/{identity.name}"[:64]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative_names(identity: Identity, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    if len(hosts) > MAX_HOSTS:
        raise Invalid(f"a certificate names at most {MAX_HOSTS} hosts; found {len(hosts)}")
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity.uri),
        x509.DNSName(role_host(identity.role)),
    ]
    return x509.SubjectAlternativeName([*names, *map(_host_name, dict.fromkeys(hosts))])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    # The internal names say which role a peer has: they are given by role alone, never on request.
    if not _HOST.fullmatch(host) or host.lower().endswith("hyperion.internal"):
        raise Invalid(f"host {host[:80]!r} is neither an IP address nor a DNS name of your own")
    return x509.DNSName(host)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _request_key(csr_pem: bytes) -> CertificatePublicKeyTypes:
    """The key of a request that proves it holds it, and is strong enough."""
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise Invalid(f"the certificate request is longer than {MAX_REQUEST_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise Invalid("this is no certificate request in PEM (PKCS #10)") from None
    if not valid:
        raise Invalid("the certificate request is not signed by its own key")
    strong = (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256) or (
        isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192
    )
    if not strong:
        raise Invalid("the request's key must be ECDSA (256 bits or more) or RSA (2048 to 8192)")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.stat().st_mode & 0o077:
        raise Conflict(f"{path} can be read by others; correct it with: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Conflict(f"{path} is no ECDSA key in PEM; restore it from a copy")
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return _parse_certificate(path.read_bytes())
    except Invalid as error:
        raise Conflict(f"{path}: {error}; restore it from a copy") from None


def _parse_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Invalid("this is no certificate in PEM") from None


def _check_authority(
    path: Path,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    trust_domain: str,
    now: datetime,
) -> None:
    if certificate.public_key() != key.public_key():
        raise Conflict(f"{path} does not belong to the key beside it; restore the pair from a copy")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domains = names.get_values_for_type(x509.UniformResourceIdentifier)
    if domains != [f"spiffe://{trust_domain}"]:
        found = domains[0] if domains else "none"
        raise Conflict(
            f"{path} is of trust domain {found}, expected spiffe://{trust_domain}; correct the"
            " setting or choose another directory"
        )
    if certificate.not_valid_after_utc <= now:
        raise Conflict(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; begin anew")
