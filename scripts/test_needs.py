"""Fetches what some tests need besides the core: Open MPI, PyTorch (CPU), JAX, numba. Never fails.

Prints one line per thing. What cannot be had is tried again after a day, or with ``--again``.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = Path(sys.prefix) / ".test-needs.json"
RETRY_AFTER_S = 24 * 3600
TIMEOUT_S = 170
"""For one attempt; a slow network shall cost tests, not the whole run."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

APT = {"mpirun": ("openmpi-bin", "libopenmpi-dev")}
"""Program that tells whether it is there → Debian packages."""
WHEELS = {
    "torch": "2.13.0+cpu",
    "jax": "0.10.2",
    "jaxlib": "0.10.2",
    "mpi4py": "4.1.2",
    "numba": "0.68.1",
}
"""``+cpu`` is a build that PyPI does not have, so no gigabytes of CUDA can come by mistake."""
BY_HAND = {
    "torch": f"pip install torch=={WHEELS['torch']} --extra-index-url {CPU_INDEX}",
    "mpirun": "apt-get install " + " ".join(APT["mpirun"]),
}


def main() -> int:
    tried = {} if "--again" in sys.argv[1:] else _tried()
    for program in APT:
        _tell(program, *_program(program, tried))
    for name, (said, why) in _wheels(tried).items():
        _tell(name, said, why)
    try:
        STAMP.write_text(json.dumps(tried), encoding="utf-8")
    except OSError as error:
        print(f"  {STAMP} cannot be written ({error.strerror}): the next run tries all again")
    return 0


def _tell(name: str, said: str, why: str) -> None:
    if not why:
        print(f"  {name:<8} {said}")
        return
    hand = BY_HAND.get(name, f"pip install {name}=={WHEELS.get(name, '')}")
    print(f"  {name:<8} not available: {why} -> its tests are skipped (by hand: {hand})")


def _tried() -> dict[str, str]:
    """What could not be had lately, and why."""
    try:
        fresh = time.time() - STAMP.stat().st_mtime < RETRY_AFTER_S  # noqa: TID251
        found = json.loads(STAMP.read_text(encoding="utf-8")) if fresh else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _program(program: str, tried: dict[str, str]) -> tuple[str, str]:
    """(have or installed, why not)."""
    if shutil.which(program):
        tried.pop(program, None)
        return "have", ""
    if program not in tried:
        why = _apt(APT[program])
        if not why and shutil.which(program):
            return "installed", ""
        tried[program] = why or f"{program} is not among its packages' programs"
    return "", tried[program]


def _apt(packages: Sequence[str]) -> str:
    """Install Debian packages; why not, if not."""
    if not shutil.which("apt-get"):
        return "this system has no apt-get"
    sudo: tuple[str, ...] = ()
    if os.geteuid() != 0:
        if not os.environ.get("CI") or not shutil.which("sudo"):
            return "only root may install packages"
        sudo = ("sudo", "-n")
    install = (*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y")
    command = (*install, "--no-install-recommends", "install", *packages)
    if not _attempt("apt-get install", command):
        return ""
    return _attempt("apt-get update", (*install, "update")) or _attempt("apt-get install", command)


def _wheels(tried: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Each package → (have or installed, why not). One call of pip if that goes well."""
    missing = [name for name, version in WHEELS.items() if not _has(name, version)]
    wanted = [name for name in missing if name not in tried]
    if wanted and (complaint := _pip(wanted)):
        for name in wanted:
            why = _pip([name]) if len(wanted) > 1 else complaint
            if why and name == "torch":
                why = _pip([name], "--extra-index-url", CPU_INDEX)
            if why:
                tried[name] = why
    for name in set(WHEELS) - set(missing):
        tried.pop(name, None)
    return {
        name: ("have", "") if name not in missing else ("installed", tried.get(name, ""))
        for name in WHEELS
    }


def _has(name: str, version: str) -> bool:
    try:
        return metadata.version(name).partition("+")[0] == version.partition("+")[0]
    except metadata.PackageNotFoundError:
        return False


def _pip(names: Sequence[str], *options: str) -> str:
    """Install wheels, never building any; why not, if not."""
    print(f"  fetching {', '.join(names)} …", flush=True)
    wheels = [f"{name}=={WHEELS[name]}" for name in names]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    limits = ("--only-binary", ":all:", "--constraint", str(ROOT / "constraints.txt"))
    return _attempt("pip", (*pip, *limits, *options, *wheels))


def _attempt(what: str, command: Sequence[str]) -> str:
    """Run it; the last line of its complaint, or nothing when it went well."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"{what} took longer than {TIMEOUT_S} s"
    except OSError as error:
        return f"{what} cannot be run ({error.strerror})"
    if done.returncode == 0:
        return ""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return f"{what}: {lines[-1].strip()[:200] if lines else f'exit code {done.returncode}'}"


if __name__ == "__main__":
    sys.exit(main())
