"""Packs a workdir into a tar.gz that is the same for the same files, ignored ones left out."""

import fnmatch
import gzip
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hyperion.client.errors import HyperionError

MAX_FILES = 50_000
MAX_BYTES = 200 << 20
"""Packed."""
IGNORE_FILES = (".skyignore", ".gitignore")
"""The first one found in the top directory counts, as SkyPilot does it."""
ALWAYS_LEFT_OUT = (".git/", "__pycache__/", ".venv/")


def pack(directory: Path) -> bytes:
    """The archive. Times, owners and order do not matter to it. Raises HyperionError."""
    patterns = _patterns(directory)
    packed = io.BytesIO()
    count = 0
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, name in _files(directory, patterns):
            count += 1
            if count > MAX_FILES:
                raise _too_much(directory, f"more than {MAX_FILES} files")
            _add(archive, path, name)
            if packed.tell() > MAX_BYTES:
                raise _too_much(directory, f"more than {MAX_BYTES >> 20} MiB, packed")
    if packed.tell() > MAX_BYTES:
        raise _too_much(directory, f"more than {MAX_BYTES >> 20} MiB, packed")
    return packed.getvalue()


def _patterns(directory: Path) -> list[str]:
    patterns = list(ALWAYS_LEFT_OUT)
    for name in IGNORE_FILES:
        try:
            text = (directory / name).read_text(errors="replace")
        except OSError:
            continue
        lines = (line.strip() for line in text.splitlines())
        return patterns + [line for line in lines if line and not line.startswith("#")]
    return patterns


def _files(directory: Path, patterns: list[str]) -> Iterator[tuple[Path, str]]:
    """Everything to be packed in the order of the names, directories before what they hold."""
    for root, directories, files in os.walk(directory, onerror=_raise):
        inside = Path(root).relative_to(directory)
        kept = [d for d in sorted(directories) if not ignored(str(inside / d), True, patterns)]
        directories[:] = [d for d in kept if not (Path(root) / d).is_symlink()]
        for name in sorted([*kept, *files]):
            relative = str(inside / name)
            if name in kept or not ignored(relative, False, patterns):
                yield Path(root) / name, relative


def ignored(path: str, is_directory: bool, patterns: list[str]) -> bool:
    """A plain reading of .gitignore: ``*``, ``dir/``, ``/anchored``, ``!again``."""
    verdict = False
    name = path.rpartition("/")[2]
    for line in patterns:
        negated = line.startswith("!")
        pattern = line.removeprefix("!")
        if pattern.endswith("/"):
            if not is_directory:
                continue
            pattern = pattern[:-1]
        pattern = pattern.removeprefix("**/")
        subject = path if "/" in pattern else name
        if _matches(subject.split("/"), pattern.removeprefix("/").split("/")):
            verdict = not negated
    return verdict


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Part by part, for an asterisk does not match a slash."""
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    try:
        entry = archive.gettarinfo(path, arcname=name)
        if entry is None or not (entry.isreg() or entry.isdir() or entry.issym()):
            return  # a socket, a pipe or a device has no business on another machine
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        executable = entry.isdir() or bool(entry.mode & stat.S_IXUSR)
        entry.mode = 0o755 if executable else 0o644
        if entry.islnk():
            entry.type = tarfile.REGTYPE
        if entry.isreg():
            with path.open("rb") as file:
                archive.addfile(entry, file)
        else:
            archive.addfile(entry)
    except OSError as error:
        raise HyperionError(f"{path} cannot be packed: {error}", "see its permissions") from None


def _raise(error: OSError) -> None:
    raise HyperionError(
        f"{error.filename} cannot be read: {error.strerror}", "see its permissions"
    ) from None


def _too_much(directory: Path, what: str) -> HyperionError:
    return HyperionError(
        f"workdir {directory} holds {what}",
        "leave things out with .skyignore, and take data from where it lies",
    )
