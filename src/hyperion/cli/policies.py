"""``policies``: what ranks places and who waits, where each comes from, and what it did wrong."""

from typing import TYPE_CHECKING

import click

from hyperion.cli import output as out
from hyperion.cli.asking import client, examples, output_option, server_option
from hyperion.cli.output import Column, emit

if TYPE_CHECKING:
    from hyperion.client.sync import Client
    from hyperion.wire.api import PolicyView

POLICY_COLUMNS: list[Column["PolicyView"]] = [
    Column("POLICY", lambda policy: policy.name),
    Column("WHERE", lambda policy: policy.where),
    Column("IN FORCE", lambda policy: "yes" if policy.in_force else ""),
    Column("REPLACED", lambda policy: policy.rounds_replaced or "", right=True),
    Column("ORIGIN", lambda policy: policy.origin, shrink=True),
    Column("LAST FAULT", lambda policy: policy.fault, shrink=True),
]


@click.command(epilog=examples("hyperion policies", "hyperion policies -o json"))
@output_option
@server_option
def policies(output: str) -> None:
    """List the policies that rank places and order who waits.

    IN FORCE: it decides there (at the federation for jobs that name no policy). REPLACED: in so
    many rounds it raised, was late or answered nonsense, and balanced decided instead.
    """
    with client() as connection:
        found = connection.policies()
    emit(found, output, lambda wide: out.table(POLICY_COLUMNS, found, wide))


def tell_replaced(connection: "Client") -> None:
    """One line on standard error for each policy in force that has been replaced."""
    for policy in connection.policies():
        if policy.in_force and policy.rounds_replaced:
            rounds = f"{policy.rounds_replaced} round{'s' * (policy.rounds_replaced != 1)}"
            click.echo(
                f"{policy.where}: balanced decided {rounds} instead of {policy.name}, which"
                f" {out.printable(policy.fault)}",
                err=True,
            )
