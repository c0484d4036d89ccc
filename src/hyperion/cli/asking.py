"""What the commands that ask the federation share: options, the client, exact words on failure."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hyperion.cli.exits import FAILED, Failure

if TYPE_CHECKING:
    from hyperion.client.sync import Client

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "wide", "json", "yaml")


def output_option(function: F) -> F:
    """``-o``; json and yaml print exactly what the API answers."""
    return click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="table", help="How to print it."
    )(function)


def server_option(function: F) -> F:
    """``--server`` after the command, too."""
    return click.option(
        "--server",
        metavar="URL",
        expose_value=False,
        callback=_remember,
        help="The federation, instead of HYPERION_SERVER.",
    )(function)


def examples(*lines: str) -> str:
    """An epilog with command lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def client() -> "Client":
    """A client of the federation that the command line and the environment name."""
    from hyperion.client.sync import Client

    return Client(click.get_current_context().meta.get("hyperion.server", ""))


def no_such_job(connection: "Client", wanted: str) -> Failure:
    """A failure that names the job most like the wanted one."""
    from hyperion.cli.main import nearest

    known = {name for job in connection.list(ended=True) for name in (job.id, job.name) if name}
    near = nearest(wanted, sorted(known))
    hint = f"did you mean {near}? " if near else ""
    return Failure(f"no job {wanted}", f"{hint}hyperion ps -a lists them", FAILED)


class naming_jobs:  # noqa: N801  reads as words where it is used
    """``with naming_jobs(client, id):`` tells of a job that is not there with the nearest name."""

    def __init__(self, connection: "Client", wanted: str) -> None:
        self._connection = connection
        self._wanted = wanted

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from hyperion.client.errors import NotFound

        if isinstance(error, NotFound) and str(error).startswith("no job"):
            raise no_such_job(self._connection, self._wanted) from None


def _remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value:
        ctx.meta["hyperion.server"] = value
