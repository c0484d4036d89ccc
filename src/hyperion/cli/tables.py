"""Writes the results of simulated runs: Parquet where pyarrow is there, else CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperion.cli.exits import BAD_USAGE, Failure

if TYPE_CHECKING:
    from hyperion.sim.results import Run

Columns = Mapping[str, list[Any]]


def write_tables(runs: "Sequence[Run]", directory: Path) -> list[Path]:
    """``jobs``, ``samples``, ``scores`` and ``waits``; the files written."""
    from hyperion.sim import results

    tables: dict[str, Columns] = {
        "scores": results.score_columns(runs),
        "waits": results.wait_columns(runs),
        "samples": results.sample_columns(runs),
        "jobs": results.job_columns(runs),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [_write(directory / name, columns) for name, columns in tables.items()]
    except OSError as error:
        raise Failure(f"cannot write to {directory}: {error}", "--out DIR", BAD_USAGE) from None


def _write(path: Path, columns: Columns) -> Path:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        _say_once()
        return _write_csv(path.with_suffix(".csv"), columns)
    file = path.with_suffix(".parquet")
    parquet.write_table(pyarrow.table(columns), file, compression="zstd")
    return file


def _write_csv(path: Path, columns: Columns) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


_said: list[bool] = []


def _say_once() -> None:
    if not _said:
        _said.append(True)
        click.echo(
            "without pyarrow the tables are CSV; pip install 'hyperion-x[sim]' for Parquet",
            err=True,
        )
