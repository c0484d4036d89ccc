"""Reads what a peer must know of its own certificate, without the 20 MiB a crypto library takes.

Only for certificates from this machine's own files: whom to trust is decided by TLS, not here.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NoReturn

from msgspec import Struct

from hyperion.adapters.link.errors import Invalid
from hyperion.adapters.link.identity import Identity, parse_identity

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SEQUENCE, _UTC_TIME, _OID, _OCTETS, _EXTENSIONS, _URI = 0x30, 0x17, 0x06, 0x04, 0xA3, 0x86
_ALTERNATIVE_NAME = bytes.fromhex("551d11")  # 2.5.29.17, RFC 5280 section 4.2.1.6


class Certificate(Struct, frozen=True):
    """What stands in a certificate, as far as its owner needs it."""

    issuer: bytes
    """DER of the name; equal to the subject of whoever issued it."""
    subject: bytes
    begins_s: int
    """Seconds since the epoch, here and below."""
    ends_s: int
    uris: tuple[str, ...]

    def identity(self) -> Identity:
        """Invalid when it names none, or several."""
        names = [uri for uri in self.uris if uri.startswith("spiffe://")]
        if len(names) != 1:
            raise Invalid(f"the certificate names {len(names)} SPIFFE identities; expected one")
        return parse_identity(names[0])


def read_certificate(pem: bytes) -> Certificate:
    """The first certificate of a PEM text; Invalid when there is none or it cannot be read."""
    try:
        return _read_der(_der(pem))
    except (IndexError, ValueError, StopIteration, RuntimeError) as error:
        raise Invalid("this is no X.509 certificate, or one of an unknown form") from error


def fingerprint_of(pem: bytes) -> str:
    """SHA-256 of the first certificate (DER) of a PEM text, hex: what a join token pins."""
    return hashlib.sha256(_der(pem)).hexdigest()


def renew_due(cert_pem: bytes, now_s: int) -> bool:
    """Whether two thirds of its life are over, so that it is time to fetch another."""
    certificate = read_certificate(cert_pem)
    life_s = certificate.ends_s - certificate.begins_s
    return now_s >= certificate.begins_s + life_s * 2 // 3


def _der(pem: bytes) -> bytes:
    match = _PEM.search(pem)
    try:
        return base64.b64decode(match.group(1) if match else b"", validate=False) or _no_pem()
    except binascii.Error:
        return _no_pem()


def _no_pem() -> NoReturn:
    raise Invalid("this is no certificate in PEM")


def _read_der(der: bytes) -> Certificate:
    # RFC 5280 section 4.1: [version] serial signature issuer validity subject key … [extensions]
    signed = next(_items(_only(der, _SEQUENCE)))[1]
    parts = list(_items(signed))
    if parts[0][0] == 0xA0:
        del parts[0]
    begins, ends = (_seconds(tag, value) for tag, value in _items(parts[3][1]))
    extensions = next((value for tag, value in parts if tag == _EXTENSIONS), b"")
    return Certificate(parts[2][1], parts[4][1], begins, ends, tuple(_uris(extensions)))


def _uris(extensions: bytes) -> Iterator[str]:
    if not extensions:
        return
    for _, extension in _items(_only(extensions, _SEQUENCE)):
        fields = list(_items(extension))
        if fields[0] == (_OID, _ALTERNATIVE_NAME):
            names = next(value for tag, value in fields if tag == _OCTETS)
            for tag, value in _items(_only(names, _SEQUENCE)):
                if tag == _URI:
                    yield value.decode("ascii")


def _seconds(tag: int, value: bytes) -> int:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 and later are the last century's
        text = ("19" if text[:2] >= "50" else "20") + text
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())


def _only(der: bytes, tag: int) -> bytes:
    """The content of the one item that ``der`` consists of."""
    items = list(_items(der))
    if len(items) != 1 or items[0][0] != tag:
        raise ValueError
    return items[0][1]


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of the items that ``der`` is a row of."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            width = length & 0x7F
            length = int.from_bytes(der[at : at + width])
            at += width
        if at + length > len(der):
            raise ValueError
        yield tag, der[at : at + length]
        at += length
