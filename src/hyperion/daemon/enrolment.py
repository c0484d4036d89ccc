"""The federation's own authority, and certificates for daemons that share its machine.

The cryptography package costs 25 MB, so it is loaded only where a certificate is made.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hyperion.daemon.running import CannotStart

if TYPE_CHECKING:
    from hyperion.adapters.link.authority import Authority

LOCAL_HOSTS = ("localhost", "127.0.0.1")
MAKE_S = 60


@lru_cache(maxsize=1)
def authority(directory: Path, trust_domain: str) -> "Authority":
    """The authority in ``directory``, made at first use."""
    from hyperion.adapters.link.authority import Authority

    return Authority.open(directory, trust_domain)


def enrol(
    directory: Path,
    trust_domain: str,
    wanted: Sequence[tuple[str, str, Path]],
    hosts: Sequence[str] = (),
) -> None:
    """Certificates for (role, name, credentials directory), where there is none that still holds.

    ``hosts`` are further names under which those that serve can be reached.
    Made in a process of its own, whose memory goes with it. Raises CannotStart.
    """
    missing = [w for w in wanted if not (w[2] / "cert.pem").exists() or _is_due(w[2] / "cert.pem")]
    if not missing:
        return
    arguments = [part for role, name, where in missing for part in (role, name, str(where))]
    made = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", __name__, str(directory), trust_domain, ",".join(hosts), *arguments],
        capture_output=True,
        text=True,
        timeout=MAKE_S,
        check=False,
    )
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CannotStart(f"cannot make certificates under {directory}: {last[0]}")


def _is_due(certificate: Path) -> bool:
    import time

    from hyperion.adapters.link.certificate import renew_due

    return renew_due(certificate.read_bytes(), int(time.time()))  # noqa: TID251 - dated


def _main(arguments: Sequence[str]) -> None:
    from hyperion.adapters.link.credentials import save
    from hyperion.adapters.link.identity import SERVING, Identity, parse_role

    directory, trust_domain, more_hosts, *rest = arguments
    serving = (*LOCAL_HOSTS, *filter(None, more_hosts.split(",")))
    ours = authority(Path(directory), trust_domain)
    for role, name, where in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        identity = Identity(trust_domain, parse_role(role), name)
        hosts = serving if identity.role in SERVING else ()
        key_pem, cert_pem = ours.issue(identity, hosts)
        save(Path(where), key_pem, cert_pem, ours.ca_pem)


if __name__ == "__main__":
    _main(sys.argv[1:])
