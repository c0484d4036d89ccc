"""``federation``, ``scheduler`` and ``agent``: one daemon in the foreground, until SIGTERM."""

from pathlib import Path

import click

from hyperion.cli.asking import examples
from hyperion.cli.settings_options import explained, loaded, settings_options


@click.command(
    help=explained(
        "Run the federation: it takes jobs over REST and gRPC and chooses clusters for them.",
        "FEDERATION",
    ),
    epilog=examples("hyperion federation --listen 0.0.0.0:7070 --trust-domain example.org"),
)
@settings_options("federation")
def federation(config: Path | None, **flags: object) -> int:
    from hyperion.daemon.settings import FederationSettings

    settings = loaded(FederationSettings, config, flags)
    from hyperion.daemon.federation import main

    return main(settings)


@click.command(
    help=explained(
        "Run a cluster's scheduler: it places jobs on the nodes whose agents attach to it.",
        "SCHEDULER",
    ),
    epilog=examples("hyperion scheduler --cluster lab --region edge/home --federation fed:7070"),
)
@settings_options("scheduler")
def scheduler(config: Path | None, **flags: object) -> int:
    from hyperion.daemon.settings import SchedulerSettings

    settings = loaded(SchedulerSettings, config, flags)
    from hyperion.daemon.scheduler import main

    return main(settings)


@click.command(
    help=explained("Run a node's agent: it measures the machine and runs replicas on it.", "AGENT"),
    epilog=examples(
        "hyperion agent --cluster lab --scheduler head:7080", "hyperiond --labels disk=ssd"
    ),
)
@settings_options("agent")
def agent(config: Path | None, **flags: object) -> int:
    from hyperion.daemon.settings import AgentSettings

    settings = loaded(AgentSettings, config, flags)
    from hyperion.daemon.agent import main

    return main(settings)
