"""The site's own command that brings copies of datasets, and drops them: run without a shell.

It finds what it is to do in its environment: ``HYPERION_HOOK`` is ``copy`` or ``drop``,
``HYPERION_DATASET`` the name, ``HYPERION_SOURCE`` and ``HYPERION_TARGET`` regions,
``HYPERION_SIZE_GIB`` the size. It may be asked again for what it has done, and then does nothing.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from signal import SIGKILL, SIGTERM

from hyperion.control.messages import CopyReported, HaulCopy

ATTEMPTS = 3
PAUSE_S = 5.0
"""Before the second attempt; doubled before the third."""
AT_ONCE = 4
MOST_ASKED = 128
"""Asked for and not done; what comes beyond is refused, and asked for again in its time."""
STOP_S = 5.0
"""Between SIGTERM and SIGKILL of one that takes too long."""
MAX_SAID_BYTES = 2000
"""Of its standard error, the end is told."""

_log = logging.getLogger("hyperion.datasets")


class DatasetHook:
    def __init__(
        self,
        command: Sequence[str],
        timeout_s: float,
        report: Callable[[CopyReported], None],
        pause_s: float = PAUSE_S,
    ) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._report = report
        self._pause_s = pause_s
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asked: dict[tuple[str, str], asyncio.Task[None]] = {}

    def ask(self, wish: HaulCopy) -> None:
        """Begin with it; what is being done already is not begun again."""
        key = wish.dataset, wish.region
        if key in self._asked:
            return
        if len(self._asked) >= MOST_ASKED:
            self._tell(wish, f"{MOST_ASKED} are being done already")
            return
        task = asyncio.get_running_loop().create_task(self._do(wish))
        self._asked[key] = task
        task.add_done_callback(lambda _: self._asked.pop(key, None))

    async def close(self) -> None:
        """End what runs. It is asked for again after the next start."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, wish: HaulCopy) -> None:
        async with self._slots:
            error = ""
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(self._pause_s * 2 ** (attempt - 1))
                error = await self._once(wish)
                if not error:
                    break
        self._tell(wish, error)

    async def _once(self, wish: HaulCopy) -> str:
        """What went wrong, in words; empty: it is done."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **_environment(wish)},
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot run {self._command[0]}: {error.strerror or error}"
        assert process.stderr is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                said = await _tail(process.stderr)
                code = await process.wait()
        except TimeoutError:
            return f"took longer than {self._timeout_s:g} s"
        finally:
            await _end(process)
        return "" if code == 0 else f"ended with {code}: {said or 'without a word'}"

    def _tell(self, wish: HaulCopy, error: str) -> None:
        what = f"{wish.wanted} of {wish.dataset}: {wish.source} to {wish.region}"
        if error:
            _log.warning("%s failed: %s", what, error)
        else:
            _log.info("%s done", what)
        self._report(CopyReported(wish.dataset, wish.region, wish.wanted, error))


def _environment(wish: HaulCopy) -> dict[str, str]:
    return {
        "HYPERION_HOOK": wish.wanted,
        "HYPERION_DATASET": wish.dataset,
        "HYPERION_SOURCE": wish.source,
        "HYPERION_TARGET": wish.region,
        "HYPERION_SIZE_GIB": f"{wish.gib:.3f}",
    }


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what it says, in one line."""
    kept = b""
    while piece := await stream.read(65_536):
        kept = (kept + piece)[-MAX_SAID_BYTES:]
    return " ".join(kept.decode("utf-8", "replace").split())


async def _end(process: asyncio.subprocess.Process) -> None:
    """With all that it has started: it leads a session of its own."""
    if process.returncode is None:
        _signal(process.pid, SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await process.wait()
    _signal(process.pid, SIGKILL)
    await process.wait()


def _signal(group: int, signal: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal)
