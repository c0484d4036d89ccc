"""Tables on terminals of any width: cut where that is enough, folded where it is not."""

import pytest

from hyperion.cli import output
from hyperion.cli.output import Column, table

ROWS = [("alpha", "aws/us-east-1", 12.5, "the cheapest of those that have what it needs")]
COLUMNS = [
    Column("NAME", lambda row: row[0]),
    Column("REGION", lambda row: row[1]),
    Column("$/h", lambda row: row[2], right=True),
    Column("REASON", lambda row: row[3], shrink=True),
]


@pytest.fixture
def terminal(monkeypatch):
    return lambda columns: monkeypatch.setattr(output, "room", lambda: columns)


def test_a_wide_terminal_shows_all_of_it_in_a_line(terminal):
    terminal(200)
    assert table(COLUMNS, ROWS).splitlines()[1] == (
        "alpha  aws/us-east-1  12.5  the cheapest of those that have what it needs"
    )


def test_a_narrower_one_cuts_what_may_be_cut(terminal):
    terminal(50)
    assert (
        table(COLUMNS, ROWS).splitlines()[1] == "alpha  aws/us-east-1  12.5  the cheapest of those…"
    )


def test_a_narrow_one_folds_titles_and_rows_alike(terminal):
    terminal(32)
    assert table(COLUMNS, ROWS).splitlines() == [
        "NAME   REGION          $/h",
        "    REASON",
        "alpha  aws/us-east-1  12.5",
        "    the cheapest of those that …",
    ]


@pytest.mark.parametrize("columns", range(1, 90))
def test_no_line_is_longer_than_a_terminal_that_can_hold_a_column(terminal, columns):
    terminal(columns)
    longest = max(map(len, table(COLUMNS, ROWS).splitlines()))
    assert longest <= max(columns, 17)
