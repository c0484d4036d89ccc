"""The directory a replica works in: its own, one on the node, or an unpacked bundle."""

import asyncio
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from hyperion.model.job import Job

BUNDLE = "bundle:"
MAX_UNPACKED_BYTES = 8 << 30
MAX_MEMBERS = 200_000

Fetch = Callable[[str], Awaitable[Path]]
"""``sha256:…`` → where its tar.gz lies on this machine. Raises when it cannot be had."""


class Unusable(Exception):
    """The replica can not run here; the message says why, in words for its user."""


async def ready(job: Job, work: Path, fetch: Fetch | None, node: str) -> str:
    """Make the working directory ready and return it; ``work`` is the replica's own.

    Idempotent: what has been made before is used. Raises ``Unusable``.
    """
    workdir = job.workdir
    if job.image:
        raise Unusable(f"image {job.image!r}: node {node} runs plain processes, not containers")
    if not workdir.startswith(BUNDLE):
        return _existing(workdir, node) if workdir else _own(work)
    if os.access(work, os.X_OK):
        return str(work)
    digest = workdir.removeprefix(BUNDLE)
    if fetch is None:
        raise Unusable(f"workdir {workdir}: this node has no way to fetch bundles")
    try:
        archive = await fetch(digest)
    except Exception as error:  # whatever it is, the replica must be told of as ended
        raise Unusable(f"workdir {workdir} could not be fetched to node {node}: {error}") from error
    await asyncio.to_thread(unpack, archive, work)
    return str(work)


def unpack(
    archive: Path,
    target: Path,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_members: int = MAX_MEMBERS,
) -> None:
    """Unpack a tar.gz into ``target``, which appears only when complete. Raises ``Unusable``.

    Links and names that lead out of it, devices and set-uid bits are refused.
    """
    if not hasattr(tarfile, "data_filter"):
        raise Unusable(
            "bundles need Python 3.11.4 or newer on the node: older ones unpack unsafely"
        )
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        _extract(archive, draft, max_bytes, max_members)
        if not target.is_dir():  # else somebody else was quicker
            os.replace(draft, target)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise Unusable(f"bundle {archive.name} could not be unpacked: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(archive: Path, draft: Path, max_bytes: int, max_members: int) -> None:
    total = 0
    with tarfile.open(archive, "r|gz") as tar:
        for count, member in enumerate(tar, 1):
            total += member.size
            if total > max_bytes or count > max_members:
                raise Unusable(
                    f"bundle {archive.name} is too large: more than {max_bytes} bytes or "
                    f"{max_members} files unpacked; put data under `data` instead"
                )
            tar.extract(member, draft, filter="data")


def _own(work: Path) -> str:
    work.mkdir(exist_ok=True)
    return str(work)


def _existing(workdir: str, node: str) -> str:
    if not workdir.startswith("/"):
        raise Unusable(f"workdir {workdir!r} is neither an absolute path nor a bundle")
    if not os.path.isdir(workdir):
        raise Unusable(f"workdir {workdir} is not a directory on node {node}")
    if not os.access(workdir, os.X_OK):
        raise Unusable(f"workdir {workdir} on node {node} may not be entered by the agent's user")
    return workdir
