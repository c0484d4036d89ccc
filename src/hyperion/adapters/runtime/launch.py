"""Starts the shim of a replica: its arguments, environment, files and output."""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyperion.adapters.runtime import gates, tree
from hyperion.control.messages import Run

_SHIM = str(Path(__file__).with_name("shim.sh"))
_OWN_FILES = frozenset({"claim", "exit", "stop", "log", "work"})

#: What of the agent's own environment a replica sees. The rest may hold secrets of the agent.
INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
    "XDG_RUNTIME_DIR",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)

#: Python ignores these in the agent; a replica begins with what every program expects.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def inherited() -> dict[str, str]:
    """The part of our own environment that replicas get."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def environment(
    inherit: Mapping[str, str], order: Run, variables: Mapping[str, str], runtime: str
) -> dict[str, str]:
    """The replica's environment: ours, the job's, its secrets, its surroundings, our marks."""
    secrets = {name: secret.value for name, secret in order.job.secrets.items()}
    marks = {tree.ALLOCATION: order.allocation, tree.RUNTIME: runtime}
    return {**inherit, **order.job.envs, **secrets, **variables, **marks}


def write_files(directory: str, files: Mapping[str, str]) -> None:
    """Write the surroundings' files beside ours. ``ValueError`` for a name that may not be."""
    for name, content in files.items():
        if "/" in name or name in _OWN_FILES or name in ("", ".", ".."):
            raise ValueError(f"a replica cannot have a file of its surroundings named {name!r}")
        _write(f"{directory}/{name}", content)


def arguments(directory: str, order: Run) -> tuple[list[str], str]:
    """(what the shim runs, the path of the setup script or empty)."""
    setup = ""
    if order.job.setup:
        setup = f"{directory}/setup.sh"
        _write(setup, order.job.setup)
    run, command = order.job.work(order.rank)
    if not run:
        return list(command), setup
    script = f"{directory}/run.sh"
    _write(script, run)
    return [shutil.which("bash") or "sh", script], setup


def spawn(
    directory: str,
    boot: str,
    cwd: str,
    groups: Sequence[str],
    order: Run,
    environment: Mapping[str, str],
    gate: int = -1,
) -> int:
    """Start the shim in a session of its own, writing to the log; its pid. Does not copy us.

    ``gate`` is the socket of a standby, or -1. ``OSError`` when the system refuses (too many
    processes, arguments too long); then nothing runs.
    """
    command, setup = arguments(directory, order)
    log = f"{directory}/log"
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    if gate >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, gate, gates.DESCRIPTOR))
        command, environment = gates.handing_over(command), {**environment, **gates.VARIABLES}
    return os.posix_spawn(
        "/bin/sh",
        ["sh", _SHIM, directory, boot, cwd, setup, str(len(groups)), *groups, *command],
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(content)
