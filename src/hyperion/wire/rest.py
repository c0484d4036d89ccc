"""What REST says beside the views of ``wire.api``: problems, joins, bundles and pieces of logs."""

import random

from msgspec import Struct

from hyperion.wire.api import Problem

API_PREFIX = "/v1"
PROBLEM_TYPE = "application/problem+json"
JOBS_TYPE = "application/vnd.hyperion.jobs+json"
"""A list of jobs in the model's own form, as our clients send them: parsed and checked already,
and checked again by the federation."""
USER_HEADER = "hyperion-user"
"""Names the caller where the transport does not: a word for tables, no proof of identity."""


class ProblemDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 has it, with the remedy and, for a spec, each fault in it."""

    type: str
    """``urn:hyperion:problem:`` and a word that programs may rely on, such as ``not-found``."""
    title: str
    status: int
    detail: str
    remedy: str = ""
    problems: tuple[Problem, ...] = ()


class JoinRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A one-time token and a certificate request (PEM, PKCS #10)."""

    token: str
    request_pem: str


class JoinAnswer(Struct, frozen=True, kw_only=True):
    """The certificate asked for and the authority that signed it, both PEM."""

    certificate_pem: str
    ca_pem: str


class AuthorityAnswer(Struct, frozen=True, kw_only=True):
    """The federation's authority, PEM; whoever joins compares it with the pin in the token."""

    ca_pem: str


class TokenRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for a one-time token that lets ``name`` join as ``role``."""

    role: str
    """``agent``, ``scheduler`` or ``client``."""
    name: str
    ttl_s: int = 3600


class TokenAnswer(Struct, frozen=True, kw_only=True):
    token: str


class WindowRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep nodes of a cluster free for a while: for maintenance, or for some queues and users."""

    cluster: str = ""
    """Empty: the only one that has joined."""
    id: str
    begins_at_ms: int = 0
    """0: now."""
    ends_at_ms: int
    nodes: tuple[str, ...] = ()
    """By name; or:"""
    count: int = 0
    """Any so many, those with the least on them."""
    gpu_type: str = ""
    """Of those that ``count`` may choose."""
    queues: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """With ``queues`` empty too it is maintenance."""
    reason: str = ""


class BundleAnswer(Struct, frozen=True, kw_only=True):
    """The name a spec's ``workdir`` may use: ``bundle:sha256:…``."""

    workdir: str


class Health(Struct, frozen=True, kw_only=True):
    status: str


class LogChunk(Struct, frozen=True, kw_only=True):
    """A piece of one replica's output; bytes that are no UTF-8 are replaced."""

    rank: int
    text: str


def new_job_id() -> str:
    """Ten characters that are hard to confuse: 50 bits of chance, safe in every shell."""
    return _chance.choice(_LETTERS) + "".join(_chance.choices(_ALPHABET, k=9))


_chance = random.SystemRandom()
_LETTERS = "abcdefghijkmnpqrstuvwxyz"
_ALPHABET = _LETTERS + "23456789"
