"""First on PYTHONPATH of a replica: a program that uses torch pauses without a line of its own.

Python imports one module of this name at start; the one that this hides is run as well. Torch is
not imported here: the hooks are set when the program has imported it. They return None, so torch
takes nothing from them. Full backward hooks are left out: torch then refuses to change a
module's output in place, which would break programs that do. JAX has no such global hooks.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from types import ModuleType

POINTS = "HYPERION_WORKLOAD_POINTS"
"""Set for jobs that may come to a stand by themselves."""
HOOKED = (POINTS, "HYPERION_GPU_QUEUE_MS", "HYPERION_GPU_SHARE")
HERE = os.path.dirname(os.path.abspath(__file__))


def run_hidden() -> None:
    """What another sitecustomize raises is its own affair: Python reports it and goes on."""
    rest = [path for path in sys.path if os.path.abspath(path) != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def hook_torch() -> None:
    """Steps are counted by the first optimizer that steps: a program with two does one of each."""
    try:
        from torch.nn.modules.module import register_module_forward_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from hyperion import workload
        from hyperion.workload import pacing

        pacing.install(sys.modules["torch"], os.environ)
        if not os.environ.get(POINTS):
            return
        session = workload.session()
        channel = session.channel
        if channel is None:
            return
        session.point()  # It can pause inside its steps from now on.
        point = channel.point
        counted: Callable[[], object] = lambda: None  # noqa: E731
        working = True

        def after_step(optimizer: object, *_: object) -> None:
            nonlocal counted, working
            if not working or session.is_explicit:
                return
            if counted() is None:
                counted = weakref.ref(optimizer)
            if counted() is optimizer:
                try:
                    session.end_step()
                except Exception as error:
                    working = False
                    warn(error)

        def after_module(*_: object) -> None:
            nonlocal working
            if working:
                try:
                    point()
                except Exception as error:
                    working = False
                    warn(error)

        register_optimizer_step_post_hook(after_step)
        register_module_forward_hook(after_module)
    except Exception as error:
        warn(error)


def warn(error: Exception) -> None:
    print(f"hyperion: this process does not pause by itself: {error!r}", file=sys.stderr)


class AfterTorch(importlib.abc.MetaPathFinder):
    """Finds torch as the others do, and sets the hooks once it has been run. A mere question
    whether torch is there (``importlib.util.find_spec``) changes nothing."""

    def __init__(self) -> None:
        self._asking = False
        self._hooked = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface of finders
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch" or self._asking or self._hooked:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                if not self._hooked:
                    self._hooked = True
                    hook_torch()

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class LastResort(importlib.abc.MetaPathFinder):
    """``import hyperion`` in an environment where it is not installed: the part that a program
    needs imports only the standard library. Where it is installed, that one is found first."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface of finders
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "hyperion":
            return None
        package = os.path.dirname(os.path.dirname(HERE))
        return importlib.util.spec_from_file_location(
            name, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
        )


if os.environ.get("HYPERION_WORKLOAD_PAGE"):
    if any(os.environ.get(name) for name in HOOKED):
        sys.meta_path.insert(0, AfterTorch())
    sys.meta_path.append(LastResort())
run_hidden()
