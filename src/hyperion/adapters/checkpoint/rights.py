"""What the fast path's process may do on this host, and the script that watches over it.

Standard library only, like all of the fast path.
"""

import contextlib
import ctypes
import os
import resource
from typing import Any

PRIORITY = 40
_CURRENT, _FUTURE = 1, 2
"""Flags of mlockall(2)."""


def claim_rights() -> dict[str, Any]:
    """Become real-time and lock all memory, as far as this host lets us; what came of it."""
    rights: dict[str, Any] = {"realtime": False, "locked": False}
    with contextlib.suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    with contextlib.suppress(OSError, AttributeError):
        # With a limit only what is there now: beyond it every new page would be refused.
        what = _CURRENT | (_FUTURE if unlimited else 0)
        rights["locked"] = ctypes.CDLL(None).mlockall(what) == 0
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        rights["realtime"] = True
    except OSError as error:
        rights["why_not"] = os.strerror(error.errno or 0)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            rights["nice"] = -20
    return rights


def watch(directory: str) -> int:
    """Start the dead-man's script, which lets go what stands still when this process has died; its
    pid."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "letgo.sh")
    return os.posix_spawn(
        "/bin/sh",
        ["sh", script, directory],
        {"PATH": os.environ.get("PATH", os.defpath)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        scheduler=(os.SCHED_OTHER, os.sched_param(0)),  # or it would inherit ours
    )
