"""Compiled inner loops of the planner, loaded beside a daemon that serves already."""

import logging
import threading
from collections.abc import Callable

from hyperion.placement import kernels

_log = logging.getLogger("hyperion.daemon")
WORTH_IT_NODES = 200
"""Below that NumPy plans as fast, and needs 100 MiB less."""


class Warming:
    """Loads them once, in a thread, when there are nodes enough.

    Without numba nothing happens, and planning goes on in NumPy, about three times slower. The
    first time on a machine they are compiled, which may take half a minute; a daemon that ends
    meanwhile does not wait for that.
    """

    def __init__(self, load: Callable[[], object] = kernels.warm) -> None:
        self._load = load
        self._begun = False

    def look(self, nodes: int) -> None:
        """So many nodes are there now."""
        if not self._begun and nodes >= WORTH_IT_NODES:
            self._begun = True
            threading.Thread(target=self._warm, name="warming", daemon=True).start()

    def _warm(self) -> None:
        try:
            self._load()
        except Exception:
            _log.exception("planning goes on without compiled loops")
