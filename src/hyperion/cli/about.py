"""``version`` and ``completion``."""

import platform
from typing import Any

import click
from msgspec import Struct

from hyperion import __version__
from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.wire.api import VersionView


class Versions(Struct, frozen=True, kw_only=True):
    """What ``version -o json`` prints; ``server`` is null where none answers."""

    client: str
    python: str
    server: VersionView | None


@click.command(epilog=examples("hyperion version", "hyperion version --client -o json"))
@click.option("--client", "only_client", is_flag=True, help="Do not ask the federation.")
@output_option
@server_option
def version(only_client: bool, output: str) -> None:
    """Print the version of this command, and of the federation where one answers."""
    server = None
    if not only_client:
        from hyperion.client.errors import HyperionError

        try:
            with client() as connection:
                server = connection.version()
        except HyperionError as error:
            click.echo(f"(server: {error})", err=True)
    answer = Versions(client=__version__, python=platform.python_version(), server=server)
    out.emit(answer, output, lambda _: _lines(answer))


def _lines(answer: Versions) -> str:
    lines = [f"hyperion {answer.client} (Python {answer.python})"]
    if answer.server is not None:
        server = answer.server
        lines.append(f"server   {server.version} (API {server.api}, Python {server.python})")
    return "\n".join(lines)


@click.command(
    epilog=examples(
        'eval "$(hyperion completion bash)"',
        "hyperion completion zsh > ~/.zfunc/_hyperion",
        "hyperion completion fish > ~/.config/fish/completions/hyperion.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that makes SHELL complete commands and options."""
    from click.shell_completion import get_completion_class

    from hyperion.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the three above are click's own
    arguments: dict[str, Any] = {}
    script = kind(cli, arguments, "hyperion", "_HYPERION_COMPLETE")
    # source() of bash would run bash to ask for its version; the script itself needs none of that.
    click.echo(script.source_template % script.source_vars())
