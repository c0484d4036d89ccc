"""Where a job is told over HTTP that it is to end: a URL on its own node, and nowhere else."""

import re

from msgspec import Struct

MAX_NOTICE_BYTES = 512
EXPECTED = (
    "http://127.0.0.1:PORT/PATH, with localhost or [::1] instead if need be, GET before it to ask"
    " instead of to post"
)
_FORM = re.compile(
    r"(?:(GET|POST) )?http://(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]):(\d{1,5})(/[!-~]*)?",
    re.ASCII,  # digits of other scripts would make a name of it
)


class NoticeUrl(Struct, frozen=True):
    method: str
    host: str
    """As it is dialled: a loopback address, never a name that somebody else could resolve."""
    port: int
    target: str
    """The path, with the query if there is one."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def notice_url(text: str) -> NoticeUrl | None:
    """None: it is none, or leads off the node."""
    found = _FORM.fullmatch(text) if len(text) <= MAX_NOTICE_BYTES else None
    if found is None:
        return None
    method, host, port, target = found.groups()
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    if not 1 <= int(port) <= 65535 or any(int(x) > 255 for x in host.split(".") if ":" not in host):
        return None
    return NoticeUrl(method or "POST", host, int(port), target or "/")
