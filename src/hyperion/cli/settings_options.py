"""Flags made from the daemons' settings, so that a setting is declared in one place only."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.daemon.settings import SETTINGS, Setting, SettingError, load

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")


def explained(what: str, daemon: str) -> str:
    """A daemon's help: what it does, and where its settings come from."""
    return (
        f"{what}\n\nEach setting comes from, a later one winning: its default, the TOML file of"
        f" --config or HYPERION_CONFIG, the environment (HYPERION_{daemon}_NAME), a flag."
    )


def settings_options(daemon: str, *, leave_out: frozenset[str] = frozenset()) -> Callable[[F], F]:
    """A flag for each setting of the daemon, with its unit, its default and its choices."""

    def add(function: F) -> F:
        for setting in reversed(SETTINGS[daemon]):
            if setting.name not in leave_out:
                function = _option(setting)(function)
        return click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            help="TOML file with settings.",
        )(function)

    return add


def loaded(struct: type[S], config: Path | None, flags: Mapping[str, object]) -> S:
    """The settings from all their sources. Raises Failure, which names the source at fault."""
    try:
        settings: S = load(  # type: ignore[type-var]  # any of the four settings structs
            struct, file=config, environment=os.environ, flags=flags
        )
    except SettingError as error:
        raise Failure(str(error), "docs/settings.md has all of them", BAD_USAGE) from None
    return settings


def _option(setting: Setting) -> Callable[[F], F]:
    text = setting.help[:1].upper() + setting.help[1:]
    if setting.shown_default and setting.kind != "switch":
        unit = f" {setting.unit}" if setting.unit and setting.unit[0].islower() else ""
        text = f"{text}  [default: {setting.shown_default}{unit}]"
    if setting.kind == "switch":
        both = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.option(both, setting.name, default=None, help=text)
    metavar = "|".join(setting.choices) if setting.choices else _metavar(setting)
    return click.option(setting.flag, setting.name, default=None, metavar=metavar, help=text)


def _metavar(setting: Setting) -> str:
    if setting.kind in {"integer", "number"} and setting.unit:
        return setting.unit.upper() if setting.unit.isalpha() else setting.unit
    return setting.kind.upper()
