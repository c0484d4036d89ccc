"""AWS Signature Version 4 for GET requests, after Amazon's published algorithm."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from hyperion.model.job import Secret

_EMPTY = hashlib.sha256(b"").hexdigest()


class AwsKey(Struct, frozen=True):
    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None = None


def key_from_environment(environment: Mapping[str, str] = os.environ) -> AwsKey | None:
    """The variables that Amazon's own tools read; None where they are not set."""
    id, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not id or not secret:
        return None
    token = environment.get("AWS_SESSION_TOKEN")
    return AwsKey(Secret(id), Secret(secret), Secret(token) if token else None)


def signed(url: str, key: AwsKey, region: str, service: str, at_s: float) -> dict[str, str]:
    """The headers that make a GET of this URL ours; good for five minutes around ``at_s``."""
    parts = urlsplit(url)
    moment = datetime.fromtimestamp(at_s, UTC)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    headers = {"host": parts.netloc, "x-amz-date": stamp}
    if key.session_token is not None:
        headers["x-amz-security-token"] = key.session_token.value
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        [
            "GET",
            quote(unquote(parts.path), safe="/-_.~") or "/",
            _query(parts.query),
            *(f"{name}:{headers[name]}" for name in sorted(headers)),
            "",
            names,
            _EMPTY,
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, digest])
    secret = ("AWS4" + key.secret_access_key.value).encode()
    for step in (day, region, service, "aws4_request", to_sign):
        secret = hmac.digest(secret, step.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.access_key_id.value}/{scope}, "
        f"SignedHeaders={names}, Signature={secret.hex()}"
    )
    del headers["host"]  # the connection writes it
    return headers


def _query(query: str) -> str:
    """Sorted, and encoded as Amazon wants: everything but letters, digits and ``-_.~``."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    decoded = [
        (quote(unquote(name.replace("+", " ")), safe="-_.~"),
         quote(unquote(value.replace("+", " ")), safe="-_.~"))
        for name, _, value in pairs
    ]  # fmt: skip
    return "&".join(f"{name}={value}" for name, value in sorted(decoded))
