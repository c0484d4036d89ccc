"""The ``hyperion`` command: a list of commands, each imported only when it is the one that runs."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from hyperion.cli.exits import BAD_USAGE, INTERRUPTED, Failure, code_of, told

#: command → (module, attribute, what it does). In the order in which the help lists them.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run", "Submit a job and follow it."),
    "plan": ("plan", "plan", "Where would it run, at what cost, and why not elsewhere?"),
    "ps": ("jobs", "ps", "List jobs."),
    "show": ("jobs", "show", "Everything about one job."),
    "why": ("jobs", "why", "Why is it there, or why does it wait?"),
    "logs": ("logs", "logs", "Output of a job."),
    "wait": ("jobs", "wait", "Wait until jobs have ended."),
    "cancel": ("jobs", "cancel", "End jobs."),
    "checkpoints": ("checkpoints", "checkpoints", "From where would a job go on?"),
    "activate": ("standbys", "activate", "Want a standby: others stand still for it."),
    "sim": ("sim", "sim", "Run a cluster in simulated time, and compare policies."),
    "replay": ("replay", "replay", "Run a scheduler's past again under another policy."),
    "cost": ("cost", "cost", "What jobs have cost, and what home would have."),
    "budgets": ("cost", "budgets", "What users and queues may spend."),
    "datasets": ("datasets", "datasets", "Where data lie, and which copies would pay."),
    "advise": ("advise", "advise", "What would placement have saved another cluster?"),
    "nodes": ("fleet", "nodes", "List nodes."),
    "clusters": ("fleet", "clusters", "List clusters."),
    "offers": ("fleet", "offers", "What could be had in the clouds."),
    "market": ("market", "market", "Live quotes, their feeds, and a server to rehearse them."),
    "queues": ("queues", "queues", "List and change queues and their quotas."),
    "reserve": ("windows", "reserve", "Keep nodes for some in a span of time."),
    "maintenance": ("windows", "maintenance", "Keep nodes free of jobs in a span of time."),
    "policies": ("policies", "policies", "What ranks places, and what it did wrong."),
    "slo": ("slo", "slo", "How long it takes to make room for urgent jobs."),
    "bench": ("bench", "bench", "Measure here what is promised of preemption."),
    "top": ("top", "top", "How busy the nodes are."),
    "cordon": ("fleet", "cordon", "Place nothing new on a node."),
    "uncordon": ("fleet", "uncordon", "Use a node again."),
    "drain": ("fleet", "drain", "Empty a node."),
    "up": ("local", "up", "Start a federation on this machine."),
    "down": ("local", "down", "Stop it."),
    "join": ("joining", "join", "Fetch a certificate for a one-time token."),
    "token": ("joining", "token", "Make one-time tokens."),
    "federation": ("daemons", "federation", "Run the federation in the foreground."),
    "scheduler": ("daemons", "scheduler", "Run a cluster's scheduler in the foreground."),
    "agent": ("daemons", "agent", "Run a node's agent in the foreground (also: hyperiond)."),
    "version": ("about", "version", "Print versions."),
    "completion": ("about", "completion", "Print a completion script for a shell."),
}

HELP = """Run AI jobs at the best place: price, egress, carbon and latency in one plan.

\b
  hyperion up                          a federation on this machine
  hyperion run -- python train.py      a job from a command
  hyperion plan train.yaml             where would it go, and why?
"""
EPILOG = """\b
Exit codes: 0 done; 1 a job failed, or there is no such job, node or cluster; 2 wrong usage or a
bad spec; 3 the federation cannot be reached; 4 it refused or failed; 5 time-out; 130 Ctrl-C.
An attached 'run' ends with the exit code of its job.
\b
Environment: HYPERION_SERVER (http(s)://HOST:PORT or unix:PATH), HYPERION_TOKEN or
HYPERION_TOKEN_FILE, HYPERION_CA, HYPERION_HOME (~/.hyperion), NO_COLOR.
"""


class LazyGroup(click.Group):
    """Knows its commands by name; imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"hyperion.cli.{entry[0]}")
        command: click.Command = getattr(module, entry[1])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = nearest(args[0], list(COMMANDS))
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--server", metavar="URL", help="The federation, instead of HYPERION_SERVER.")
@click.version_option(package_name="hyperion-x", prog_name="hyperion")
@click.pass_context
def cli(ctx: click.Context, server: str | None) -> None:
    if server:
        ctx.meta["hyperion.server"] = server


def nearest(word: str, words: Sequence[str]) -> str:
    """The most similar word, or nothing."""
    import difflib

    return next(iter(difflib.get_close_matches(word, words, n=1)), "")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point ``hyperion``."""
    sys.exit(execute(cli, argv, "hyperion"))


def hyperiond(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point ``hyperiond``: the agent."""
    from hyperion.cli.daemons import agent

    sys.exit(execute(agent, argv, "hyperiond"))


def execute(command: click.Command, argv: Sequence[str] | None, name: str) -> int:
    """Run a command; errors become one line, a remedy and an exit code."""
    try:
        code = command.main(args=argv, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return BAD_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit:
        # click's own way out where it meets the broken pipe first: code 1, as if a job had failed.
        if type(sys.stdout).__name__ != "PacifyFlushWrapper":
            raise
        return 0
    except Exception as error:
        code = code_of(error)
        if code is None:
            raise
        click.echo(told(error), err=True)
        return code
    return code if isinstance(code, int) else 0


__all__ = ["Failure", "cli", "execute", "hyperiond", "main"]
