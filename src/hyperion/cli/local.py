"""``up`` and ``down``: a federation on this machine, its daemons supervised."""

from pathlib import Path

import click

from hyperion.cli.asking import examples
from hyperion.cli.settings_options import loaded, settings_options


@click.command(
    epilog=examples(
        "hyperion up",
        "hyperion up --detach --world three-regions",
        "hyperion up --declare accelerators=A100:8",
    )
)
@settings_options("up")
def up(config: Path | None, **flags: object) -> int:
    """Start federation, scheduler and agent on this machine and watch over them.

    They are processes of their own, talk gRPC with mutual TLS, and keep their state in one
    directory. In the foreground until Ctrl-C, or with --detach until 'hyperion down'.
    """
    from hyperion.daemon.settings import UpSettings

    settings = loaded(UpSettings, config, flags)
    from hyperion.daemon.supervisor import up as start

    return start(settings)


@click.command(epilog=examples("hyperion down", "hyperion down --state-dir /srv/hyperion"))
@settings_options("up", leave_out=frozenset({"world", "listen", "rest_listen", "trust_domain",
    "declare", "policy", "detach", "ready_timeout_s", "restarts_per_minute", "log_limit_mib",
    "log_level"}))  # fmt: skip
def down(config: Path | None, **flags: object) -> int:
    """Stop the federation that 'hyperion up' started. Its state stays; 'up' takes it up again."""
    from hyperion.daemon.settings import UpSettings

    settings = loaded(UpSettings, config, flags)
    from hyperion.daemon.supervisor import down as stop

    return stop(settings)
