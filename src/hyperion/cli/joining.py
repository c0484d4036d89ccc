"""``join`` and ``token``: how a machine gets its certificate."""

from pathlib import Path

import click
from msgspec import Struct

from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.exits import BAD_USAGE, Failure
from hyperion.cli.output import emit
from hyperion.client.address import home

ROLES = ("agent", "scheduler", "client")


class Joined(Struct, frozen=True, kw_only=True):
    """What ``join -o json`` prints."""

    key_path: str
    certificate_path: str
    ca_path: str


class NewToken(Struct, frozen=True, kw_only=True):
    """What ``token create -o json`` prints."""

    token: str
    role: str
    name: str
    ttl_s: int


@click.group(epilog=examples("hyperion token create agent n7"))
def token() -> None:
    """One-time tokens, with which agents, schedulers and clients join."""


@token.command(epilog=examples("hyperion token create agent n7 --ttl 10m"))
@click.argument("role", type=click.Choice(ROLES))
@click.argument("name")
@click.option("--ttl", default="1h", show_default=True, metavar="TIME", help="How long it is good.")
@output_option
@server_option
def create(role: str, name: str, ttl: str, output: str) -> None:
    """Make a one-time token that lets NAME join as ROLE."""
    from hyperion.cli.jobs import duration_s

    ttl_s = int(duration_s(ttl))
    with client() as connection:
        text = connection.new_join_token(role, name, ttl_s)
    answer = NewToken(token=text, role=role, name=name, ttl_s=ttl_s)
    emit(answer, output, lambda _: text)


@click.command(epilog=examples("hyperion join TOKEN --server https://federation.example:7443"))
@click.argument("token")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where key and certificate are put.  [default: where the daemon of that role looks]",
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@output_option
@server_option
def join(token: str, directory: Path | None, force: bool, output: str) -> None:
    """Fetch a certificate for a one-time TOKEN. The private key is made here and stays here.

    The token also names the federation's authority: another server gets nothing from it."""
    from hyperion.adapters.link.authority import new_request
    from hyperion.adapters.link.credentials import AUTHORITY, CERTIFICATE, KEY, save
    from hyperion.client.reach import pinned
    from hyperion.client.sync import Client

    if directory and (directory / KEY).exists() and not force:
        raise Failure(
            f"{directory} holds an identity", "use --force, or another --directory", BAD_USAGE
        )
    key_pem, request_pem = new_request()
    with client() as connection, Client.at(pinned(connection.address, token)) as trusted:
        certificate, authority = trusted.join(token, request_pem)
    target = directory or _usual_place(certificate)
    if (target / KEY).exists() and not force:
        # The token is used up by now, so what it bought is kept beside what was there.
        target = target.with_name(target.name + ".new")
        click.echo(f"there is an identity already; the new one is in {target}", err=True)
    try:
        save(target, key_pem, certificate, authority)
    except OSError as error:
        raise Failure(f"{target}: {error.strerror}", "use --directory and a new token") from None
    answer = Joined(
        key_path=str(target / KEY),
        certificate_path=str(target / CERTIFICATE),
        ca_path=str(target / AUTHORITY),
    )
    emit(answer, output, lambda _: f"joined; key and certificate are in {target}")


def _usual_place(certificate: bytes) -> Path:
    """Where the daemon of the certificate's role looks for it, if it is not told otherwise."""
    from hyperion.adapters.link.certificate import read_certificate
    from hyperion.adapters.link.errors import LinkError

    try:
        role = read_certificate(certificate).identity().role.value
    except LinkError as error:
        raise Failure(f"the federation sent no certificate: {error}", "ask its operator") from None
    return home() / role / "credentials"
