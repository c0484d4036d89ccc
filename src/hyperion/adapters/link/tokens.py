"""One-time join tokens: made by the authority, kept only as hashes, good for one redemption."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.adapters.link.errors import Denied, Exhausted, Invalid
from hyperion.adapters.link.files import locked, sync_directory, write_whole
from hyperion.adapters.link.identity import Identity

_TOKEN = re.compile(r"hx1\.([0-9a-f]{64})\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)
_REFUSED = (
    "the join token is unknown, used or expired; an admin makes one with: hyperion token create"
)
MAX_TTL_S = 7 * 24 * 3600


class Token(Struct, frozen=True):
    """A token taken apart. Its repr hides the secret."""

    fingerprint: str
    """SHA-256 of the authority's certificate (DER), hex: the joiner pins the authority by it."""
    id: str
    secret: str

    @property
    def text(self) -> str:
        return f"hx1.{self.fingerprint}.{self.id}.{self.secret}"

    def __repr__(self) -> str:
        return f"Token(id={self.id!r})"


class KeptToken(Struct, frozen=True):
    """What the authority remembers: everything but the secret."""

    secret_sha256: str
    role: str
    name: str
    hosts: tuple[str, ...]
    expires_at_s: int


def parse_token(text: str) -> Token:
    """Invalid, without repeating the text, when it is no token of ours."""
    match = _TOKEN.fullmatch(text.strip()) if len(text) < 256 else None
    if match is None:
        raise Invalid("this is no join token; expected hx1.<64 hex>.<16 hex>.<43 characters>")
    return Token(*match.groups())


class TokenStore:
    """A directory with one small file per outstanding token; the file's removal is redemption."""

    def __init__(self, directory: Path, now_s: Callable[[], int], limit: int = 10_000) -> None:
        self._directory = directory
        self._now_s = now_s
        self._limit = limit
        directory.mkdir(mode=0o700, exist_ok=True)

    def add(
        self, fingerprint: str, identity: Identity, hosts: tuple[str, ...], ttl_s: int
    ) -> Token:
        """A fresh token, durable on return. Exhausted when too many are outstanding."""
        if not 0 < ttl_s <= MAX_TTL_S:
            raise Invalid(f"a join token lives 1 to {MAX_TTL_S} s; found {ttl_s}")
        token = Token(fingerprint, secrets.token_hex(8), secrets.token_urlsafe(32))
        kept = KeptToken(
            _digest(token.secret), identity.role.value, identity.name, hosts, self._now_s() + ttl_s
        )
        with locked(self._directory / ".lock"):
            if sum(1 for _ in self._purged()) >= self._limit:
                raise Exhausted(
                    f"{self._limit} join tokens are outstanding; let some be used or expire first"
                )
            write_whole(self._path(token.id), msgspec.json.encode(kept), 0o600)
        return token

    def look(self, token: Token) -> KeptToken:
        """What the token stands for, without using it up; Denied when it stands for nothing."""
        try:
            kept = msgspec.json.decode(self._path(token.id).read_bytes(), type=KeptToken)
        except FileNotFoundError:
            raise Denied(_REFUSED) from None
        good = hmac.compare_digest(kept.secret_sha256, _digest(token.secret))
        if not good or kept.expires_at_s <= self._now_s():
            raise Denied(_REFUSED)
        return kept

    def consume(self, token: Token) -> None:
        """Use it up: of any number of callers in any number of processes, one succeeds."""
        try:
            self._path(token.id).unlink()
        except FileNotFoundError:
            raise Denied(_REFUSED) from None
        sync_directory(self._directory)

    def _purged(self) -> Iterator[Path]:
        """Outstanding tokens; expired and unreadable ones are removed on the way."""
        for path in self._directory.glob("*.json"):
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=KeptToken)
            except FileNotFoundError:
                continue
            except msgspec.MsgspecError:
                kept = None
            if kept is None or kept.expires_at_s <= self._now_s():
                path.unlink(missing_ok=True)
            else:
                yield path

    def _path(self, token_id: str) -> Path:
        return self._directory / f"{token_id}.json"


def _digest(secret: str) -> str:
    # A plain hash is enough: the secret is 256 random bits, there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
