"""First on PYTHONPATH of a replica: a program that uses torch pauses without a line of its own.

Python imports one module of this name at start; the one that this hides is run as well. Torch is
not imported here: the hooks are set when the program has imported it. They return None, so torch
takes nothing from them. Full backward hooks are left out: torch then refuses to change a
module's output in place, which would break programs that do. JAX has no such global hooks.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

HERE = os.path.dirname(os.path.abspath(__file__))


def run_hidden() -> None:
    """What another sitecustomize raises is its own affair: Python reports it and goes on."""
    rest = [path for path in sys.path if os.path.abspath(path) != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def hook_torch() -> None:
    try:
        from torch.nn.modules.module import register_module_forward_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from hyperion import workload

        working = True

        def attempt(what: str) -> None:
            nonlocal working
            if not working:
                return
            try:
                (workload.step if what == "step" else workload.point)()
            except Exception as error:
                working = False
                warn(error)

        def after_step(*_: object) -> None:
            attempt("step")

        def after_module(*_: object) -> None:
            attempt("point")

        register_optimizer_step_post_hook(after_step)
        register_module_forward_hook(after_module)
    except Exception as error:
        warn(error)


def warn(error: Exception) -> None:
    print(f"hyperion: this process does not pause by itself: {error!r}", file=sys.stderr)


class AfterTorch(importlib.abc.MetaPathFinder):
    """Finds torch as the others do, and sets the hooks once it has been run."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the interface of finders
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                hook_torch()

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("HYPERION_WORKLOAD_PAGE"):
    sys.meta_path.insert(0, AfterTorch())
run_hidden()
