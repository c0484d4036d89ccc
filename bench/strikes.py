"""Plays a training run and strikes it at random instants: frozen in place, or stopped and started
again. Nothing of it is left behind, however this ends."""

import asyncio
import contextlib
import mmap
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from training.train import ENDED, PAGE_BYTES, PHASES, STARTING, STOPPED, UNBORN, saved

import hyperion.workload
from hyperion.adapters.checkpoint.cooperative import Cooperative
from hyperion.adapters.checkpoint.freezer import Freezer, Group
from hyperion.adapters.runtime import aside, tree
from hyperion.adapters.runtime.cgroup import Cgroups
from hyperion.workload import page

PROGRAM = Path(__file__).with_name("training") / "train.py"
JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
NAME = "run"
LATE = "not confirmed within 50 ms"
SITE = Path(hyperion.workload.__file__).parent / "sitecustomize"
SOURCE = Path(hyperion.workload.__file__).parents[2]
HOLD_ENDS = 1 / 8
"""Part of the stands at the end of a step that end by being killed there, once that is saved."""
PAUSE_S = 0.005
REST_S = 0.024
"""Between two strikes at the most; half of it in the middle."""
START_REST_S = 1.0
"""Likewise while it starts, which would else draw most of the strikes: imports take seconds."""
LIFE_S = 0.5
"""How long after its first step a run is stopped, at the most."""
EARLY = 1 / 8
"""Part of the stops that come while it starts."""
GRACE_S = 60.0
LIMIT_S = 600.0
"""For one life of a run."""
GONE_S = 10.0


@dataclass
class Tally:
    """What the strikes met. ``told`` is called after each."""

    phases: Counter[str] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    told: Callable[[], None] = field(default=lambda: None)

    def strike(self, phase, took_ns):
        self.phases[phase] += 1
        self.took_ms.append(took_ns / 1e6)
        self.told()

    @property
    def done(self):
        return self.phases.total()


class Page:
    """What a run tells of itself while it runs or stands."""

    def __init__(self, path):
        self.path = path
        path.write_bytes(bytes(PAGE_BYTES))
        with path.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), PAGE_BYTES)).cast("Q")

    def clear(self):
        self._words[0] = self._words[1] = 0

    @property
    def phase(self):
        return self._words[0]

    @property
    def steps(self):
        """Committed in this life."""
        return self._words[1]


class Stage:
    """Where one run at a time is played: a directory, a control group, the dice."""

    def __init__(self, framework, steps, python, directory, seed):
        self._command = [python, str(PROGRAM), framework, str(steps)]
        self._directory = Path(directory)
        self._checkpoints = self._directory / "checkpoints"
        self._checkpoints.mkdir()
        self._page = Page(self._directory / "page")
        self._dice = random.Random(seed)
        self._cgroups = Cgroups(f"hyperion-lost-{os.getpid()}")
        self._freezer = Freezer()
        self._out = self._directory / "out"

    def close(self):
        self._freezer.close()
        self._cgroups.close()

    @property
    def how(self):
        return self._cgroups.abilities()["freeze"]

    # -- one life ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _life(self, tally, resume_from=None, own_page=None, stderr=None):
        paths = []
        if (
            self._cgroups.holds
        ):  # no group of cpu v1: it rations the boost to some 5 strikes a second
            paths = self._cgroups.create(NAME, cpus_milli=0, memory_mib=0)
        self._page.clear()
        words = ["sh", "-c", JOIN, "sh", *paths, "--", *self._command, str(self._page.path)]
        surroundings = self._surroundings(resume_from, own_page)
        process = None
        try:
            with self._out.open("ab") as out:  # a session of its own: Ctrl-C is for us
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=None if stderr is None else stderr.open("ab"),
                    env=surroundings,
                    start_new_session=True,
                )
            yield process
        finally:
            self._end(process, tally)

    def _surroundings(self, resume_from, own_page=None):
        """One thread, and for JAX a place where it keeps what it has compiled."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION_")}
        single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        jax = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self._directory / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        told = {"HYPERION_CHECKPOINT_DIR": str(self._checkpoints)}
        if resume_from is not None:
            told["HYPERION_RESUME_FROM"] = str(resume_from)
        if own_page is not None:
            told |= {"HYPERION_WORKLOAD_PAGE": str(own_page), "PYTHONPATH": f"{SITE}:{SOURCE}"}
        return kept | single | jax | told

    def _end(self, process, tally):
        """Whatever still runs of it is killed, and its group removed."""
        if process is not None:
            if process.poll() is None:
                self._kill(process)
            process.wait()
        gives_up = time.monotonic() + GONE_S
        while self._cgroups.holds and not self._cgroups.remove(
            NAME
        ):  # a loader's process is slower
            if time.monotonic() > gives_up:
                tally.faults.append("processes of it were left")
                self._kill(process)
                gives_up += GONE_S
            time.sleep(0.01)

    def _kill(self, process):
        if self._cgroups.holds:
            self._cgroups.kill(NAME)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    # -- five ways to play it -----------------------------------------------------------------

    def undisturbed(self):
        """The lines of it."""
        tally = Tally()
        self._anew()
        with self._life(tally) as process:
            code = process.wait(LIMIT_S)
        assert code == 0, f"the undisturbed run ended with {code}"
        return self._lines()

    def paused(self, left, tally):
        """Play it once, stopped at random instants; the lines of it."""
        ends = tally.done + left
        self._anew()
        with self._life(tally) as process:
            path = self._cgroups.group(NAME) if self._cgroups.holds else ""
            group = Group(path) if path else Group("", (process.pid,))
            try:
                while process.poll() is None and tally.done < ends:
                    is_early = self._page.phase <= STARTING
                    time.sleep(self._dice.random() * (START_REST_S if is_early else REST_S))
                    if self._page.phase != UNBORN:
                        self._pause(group, tally)
                code = process.wait(LIMIT_S)
            finally:
                self._freezer.retire([group])
        if code != 0:
            tally.faults.append(f"a paused run ended with {code}")
        return self._lines()

    def _pause(self, group, tally):
        try:
            stop = self._freezer.freeze([group])
            phase = self._page.phase
            if phase != ENDED:
                took_ns = (stop.confirmed_ns or time.monotonic_ns()) - stop.called_ns
                tally.strike(PHASES[phase] if stop.confirmed_ns else LATE, took_ns)
                time.sleep(self._dice.random() * PAUSE_S)
        finally:
            self._freezer.go_on([group])

    def stood(self, left, tally):
        """Play it once, in as many lives as it takes: asked at random instants to come to a stand
        at the end of its step. Now and then its hold ends there, and it is killed; the lines."""
        ends = tally.done + left
        self._anew()
        while True:
            own_page = self._directory / "own-page"
            own_page.unlink(missing_ok=True)
            agent = Cooperative(str(own_page))
            try:
                with self._life(tally, own_page=own_page) as process:
                    if self._stand_at_random(process, agent, ends, tally):
                        continue
                    code = process.wait(LIMIT_S)
            finally:
                agent.close()
            if code != 0:
                tally.faults.append(f"a run that stood by itself ended with {code}")
            return self._lines()

    def _stand_at_random(self, process, agent, ends, tally):
        """Until it has ended, or is killed where it stands; whether that."""
        path = self._cgroups.group(NAME) if self._cgroups.holds else ""
        group = Group(path) if path else Group("", (process.pid,))
        try:
            while process.poll() is None and tally.done < ends:
                time.sleep(self._dice.random() * REST_S)
                if not agent.read().capabilities & page.SNAPSHOTS:
                    continue
                phase, asked_ns = self._page.phase, time.monotonic_ns()
                request = agent.ask(page.STEP_PAUSE, asked_ns + int(LIMIT_S * 1e9))
                while not agent.wait(request, 0.1) and process.poll() is None:
                    pass
                if agent.read().acknowledged < request:
                    return False  # it has ended before
                tally.strike(PHASES[phase], agent.read().acknowledged_at_ns - asked_ns)
                if self._dice.random() < HOLD_ENDS and self._is_saved(agent, tally):
                    return True
                self._freezer.freeze([group])
                time.sleep(self._dice.random() * PAUSE_S)
                agent.resume()
                self._freezer.go_on([group])
        finally:
            self._freezer.retire([group])
        return False

    def _is_saved(self, agent, tally):
        gives_up = time.monotonic() + GRACE_S
        while agent.read().state == page.SETTLING and time.monotonic() < gives_up:
            time.sleep(0.001)
        answer = agent.read()
        if answer.snapshot_step != answer.committed_step:
            tally.faults.append(f"step {answer.committed_step} was not saved where it stands")
        return answer.snapshot_step == answer.committed_step

    def laid_aside(self, left, tally):
        """Play it once, written to disk by CRIU and brought back at random instants; its lines."""
        ends = tally.done + left
        self._anew()
        with self._life(tally, stderr=self._directory / "err") as process:
            while _lives(process.pid) and tally.done < ends and not tally.faults:
                is_early = self._page.phase <= STARTING
                time.sleep(self._dice.random() * (START_REST_S if is_early else LIFE_S))
                if self._page.phase not in (UNBORN, ENDED):
                    self._lay_aside(process, tally)
            gives_up = time.monotonic() + LIMIT_S
            while _lives(process.pid) and time.monotonic() < gives_up:
                time.sleep(0.01)
        return self._lines()

    def _lay_aside(self, process, tally):
        phase, called_ns = self._page.phase, time.monotonic_ns()
        members = self._cgroups.members(NAME) if self._cgroups.holds else [process.pid]
        own = str(self._directory)
        try:
            asyncio.run(aside.write(process.pid, members, own))
        except OSError as fault:
            if self._page.phase != ENDED:
                tally.faults.append(f"not set aside: {fault}")
            return
        tally.strike(PHASES[phase], time.monotonic_ns() - called_ns)
        process.poll()  # the first time it is our child, and its number must be free
        try:
            asyncio.run(aside.read(own, self._cgroups.places(NAME)))
        except OSError as fault:
            tally.faults.append(f"not brought back: {fault}")

    def killed(self, left, tally):
        """Play it once, in as many lives as it takes; the lines of it."""
        ends = tally.done + left
        self._anew()
        while True:
            newest = next(reversed(saved(self._checkpoints)), None)
            with self._life(tally, newest) as process:
                struck = self._at_random(process) if tally.done < ends else None
                called_ns = time.monotonic_ns()
                if struck is not None:
                    self._terminate(process)
                code = self._code(process, GRACE_S if struck is not None else LIMIT_S)
                took_ns = time.monotonic_ns() - called_ns
            if code == STOPPED and struck is not None:
                tally.strike(PHASES[struck], took_ns)
                continue
            if code != 0:
                tally.faults.append(f"a run that was told to stop ended with {code}")
            return self._lines()

    def _at_random(self, process):
        """Wait for a random instant; the phase that it is in then, None: it has ended before."""
        is_early = self._dice.random() < EARLY
        while process.poll() is None:
            if self._page.phase != UNBORN and (is_early or self._page.steps):
                time.sleep(self._dice.random() * (START_REST_S if is_early else LIFE_S))
                phase = self._page.phase
                return phase if phase != ENDED and process.poll() is None else None
            time.sleep(0.001)
        return None

    def _terminate(self, process):
        """As an agent does it: all of its processes are told."""
        members = self._cgroups.members(NAME) if self._cgroups.holds else []
        if members:
            tree.signal_all(members, signal.SIGTERM)
        else:
            tree.signal_group(process.pid, signal.SIGTERM)

    def _code(self, process, within_s):
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            return f"nothing within {within_s:.0f} s"

    def _anew(self):
        self._out.write_bytes(b"")
        for path in self._checkpoints.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _lines(self):
        return self._out.read_text().splitlines()


def _lives(pid):
    """Whether it runs; after it was brought back it is nobody's child here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
