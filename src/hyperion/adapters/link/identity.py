"""Who a peer is: a SPIFFE name made of trust domain, role and name, and the strict text of it.

The form follows the SPIFFE ID standard: https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/
(read 2025-08): lower-case trust domain, path segments of letters, digits, dots, dashes and
underscores, at most 2048 bytes, no query, no fragment, no escapes.
"""

import re
from enum import StrEnum

from msgspec import Struct

from hyperion.adapters.link.errors import Invalid

DNS_SUFFIX = "hyperion.internal"


class Role(StrEnum):
    """What a peer is allowed to be; docs/security.md says what each may call."""

    FEDERATION = "federation"
    SCHEDULER = "scheduler"
    AGENT = "agent"
    CLIENT = "client"
    ADMIN = "admin"


SERVING = frozenset({Role.FEDERATION, Role.SCHEDULER})
"""Roles whose certificates may be shown by a server; the others only ever dial."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", re.ASCII)
_SEGMENT_RULE = (
    "1 to 128 letters, digits, '.', '-' and '_', beginning and ending with one of the first two"
)


class Identity(Struct, frozen=True):
    """``spiffe://<trust_domain>/<role>/<name>``.

    An agent's name is ``<cluster>/<node>``, so that nodes of two clusters may be called the same
    and a scheduler can refuse the agents of another cluster. All other names are one segment.
    """

    trust_domain: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise Invalid(
                f"trust domain {_shown(self.trust_domain)} is not a name of 1 to 128 lower-case"
                " letters, digits, '.', '-' and '_'; example: hyperion.example.org"
            )
        _check_name(self.role, self.name)

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.role.value}/{self.name}"

    def __str__(self) -> str:
        return self.uri


def parse_identity(uri: str) -> Identity:
    """The identity a URI stands for; Invalid says what is wrong with it."""
    scheme, separator, rest = uri[:2048].partition("://")
    if scheme != "spiffe" or not separator or len(uri) > 2048:
        raise Invalid(f"{_shown(uri)} is no SPIFFE name; expected spiffe://<domain>/<role>/<name>")
    parts = rest.split("/", 2)
    if len(parts) != 3:
        raise Invalid(
            f"{_shown(uri)} lacks a role or a name; expected spiffe://<domain>/<role>/<name>"
        )
    return Identity(parts[0], parse_role(parts[1]), parts[2])


def parse_role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        known = ", ".join(Role)
        raise Invalid(f"role {_shown(text)} is unknown; expected one of {known}") from None


def role_host(role: Role) -> str:
    """The DNS name in every certificate of the role: a caller pins the role of whom it calls."""
    return f"{role.value}.{DNS_SUFFIX}"


def _check_name(role: Role, name: str) -> None:
    segments = name.split("/")
    expected = 2 if role is Role.AGENT else 1
    if len(segments) != expected:
        form = "<cluster>/<node>" if role is Role.AGENT else "one segment without '/'"
        raise Invalid(f"name {_shown(name)} does not fit role {role.value}; expected {form}")
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            raise Invalid(f"name {_shown(name)}: {_shown(segment)} is not {_SEGMENT_RULE}")


def _shown(text: str) -> str:
    """Text from outside, short and printable."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
