"""``federation``, ``scheduler`` and ``agent``: one daemon in the foreground, until SIGTERM."""

from pathlib import Path

import click

from hyperion.cli.asking import examples, output_option
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


@click.group(
    invoke_without_command=True,
    help=explained("Run a node's agent: it measures the machine and runs replicas on it.", "AGENT"),
    epilog=examples(
        "hyperion agent --cluster lab --scheduler head:7080",
        "hyperiond --labels disk=ssd",
        "hyperion agent check",
    ),
)
@settings_options("agent")
@click.pass_context
def agent(ctx: click.Context, /, config: Path | None, **flags: object) -> int:
    if ctx.invoked_subcommand is not None:
        return 0
    from hyperion.daemon.settings import AgentSettings

    settings = loaded(AgentSettings, config, flags)
    from hyperion.daemon.agent import main

    return main(settings)


@agent.command(epilog=examples("hyperion agent check", "hyperion agent check -o json"))
@output_option
def check(output: str) -> None:
    """Try what this host allows, and say which promises of preemption it can keep.

    Run it as the user, and in the unit or container, of the agent. It makes a control group and a
    process of its own, and removes both.
    """
    from hyperion.cli.checking import show

    show(output)
