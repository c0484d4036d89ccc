"""``logs``: a job's output, of one rank or of all."""

import sys

import click

from hyperion.cli.asking import client, examples, naming_jobs, server_option
from hyperion.cli.output import wants_colour

RANK_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


class LineWriter:
    """Writes output as it comes; of several ranks whole lines, each behind its rank."""

    def __init__(self, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._rest: dict[int, str] = {}
        self._colours = wants_colour()

    def write(self, rank: int, text: str) -> None:
        if not self._prefixed:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        *lines, self._rest[rank] = (self._rest.get(rank, "") + text).split("\n")
        if len(self._rest[rank]) > 1 << 16:
            lines.append(self._rest.pop(rank))
        for line in lines:
            self._line(rank, line)
        sys.stdout.flush()

    def finish(self) -> None:
        for rank, text in sorted(self._rest.items()):
            if text:
                self._line(rank, text)
        self._rest.clear()
        sys.stdout.flush()

    def _line(self, rank: int, line: str) -> None:
        mark = f"{rank}|"
        if self._colours:
            mark = click.style(mark, fg=RANK_COLOURS[rank % len(RANK_COLOURS)])
        sys.stdout.write(f"{mark} {line}\n")


@click.command(
    epilog=examples(
        "hyperion logs train", "hyperion logs -f train --rank 0", "hyperion logs k3 --tail 20"
    )
)
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=click.IntRange(0), help="Only this replica's, byte for byte.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@server_option
def logs(job: str, follow: bool, rank: int | None, tail: int | None) -> None:
    """Print the output of JOB. Lines of several replicas begin with their rank."""
    with client() as connection, naming_jobs(connection, job):
        view = connection.get(job)
        if follow:
            writer = LineWriter(prefixed=view.replicas > 1 and rank is None)
            for chunk in connection.logs(view.id, rank, True, tail):
                writer.write(chunk.rank, chunk.text)
            writer.finish()
            return
        for piece in connection.log_bytes(view.id, rank, tail):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
