"""How every daemon lives and ends: its tasks stand or fall together; SIGTERM ends it cleanly."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from hyperion.daemon.application import Unavailable
from hyperion.daemon.driver import NotKept

_log = logging.getLogger("hyperion.daemon")

CRASHED = 70
"""EX_SOFTWARE of sysexits.h: something that cannot happen did."""
CANNOT_START = 78
"""EX_CONFIG: nothing a restart would mend."""


class CannotStart(Exception):
    """A setting, a file or an address is not as needed; the message has the remedy."""


def run(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run ``serve(stop)`` until it returns; ``stop`` is set by SIGTERM and SIGINT. An exit code."""
    try:
        asyncio.run(_with_signals(serve))
    except CannotStart as error:
        _log.error("%s", error)
        return CANNOT_START
    except NotKept as error:
        _log.critical("%s; stopping, since memory is ahead of the store", error)
        return CRASHED
    except Exception:
        _log.exception("stopping after a fault")
        return CRASHED
    return 0


async def _with_signals(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.freeze()  # what is loaded now stays; collections need not look at it
    gc.set_threshold(50_000, 20, 50)
    await serve(stop)


async def together(stop: asyncio.Event, *works: Awaitable[None]) -> None:
    """Run all until ``stop`` is set or one of them ends; then cancel the rest. Raises its fault."""
    tasks = [asyncio.ensure_future(work) for work in works]
    waiter = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not waiter:
                task.result()
    finally:
        for task in (waiter, *tasks):
            task.cancel()
        await asyncio.gather(waiter, *tasks, return_exceptions=True)


async def shielded(work: Awaitable[None], what: str) -> None:
    """Carry out one command's work: a fault in it must not end the daemon, nor pass unseen."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Unavailable as error:
        _log.warning("%s: %s", what, error)
    except Exception:
        _log.exception("%s failed", what)


class Tasks:
    """Work begun by commands: held until done, bounded by what the machine orders."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Awaitable[None], what: str) -> None:
        task = asyncio.ensure_future(shielded(work, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
