"""Finds, reads and prepares what ``sim`` runs: rows of a trace file, and the machines."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from hyperion.cli.exits import BAD_USAGE, Failure

if TYPE_CHECKING:
    from hyperion.model.node import Node
    from hyperion.sim.trace import Trace
    from hyperion.sim.traces.cells import Reading, Rows

NODES = 64
GENERATED_JOBS = 1000
NODES_MAX = 200_000
LONGEST_CELL_BYTES = 16 << 20
WITHOUT_PYARROW = "pip install 'hyperion-x[sim]' brings pyarrow; or give the trace as CSV"


class Wish(Struct, frozen=True, kw_only=True):
    """What was asked for on the command line."""

    trace: str
    generator: str
    data: Path | None
    nodes: str
    gpus_per_node: int
    gpu_type: str
    usd_per_gpu_hour: float | None
    jobs: int | None
    load: float | None
    estimates: str
    seed: int
    queues: bool = True
    every: int = 1
    since_s: float = 0.0


def prepared(wish: Wish) -> "tuple[Trace, list[Node]]":
    """The workload and the machines; what is wrong is a ``Failure`` with its place and remedy."""
    from hyperion.sim import trace as traces
    from hyperion.sim.generators import generate
    from hyperion.sim.traces.cells import Reading

    reading = Reading(gpus_per_node=wish.gpus_per_node, gpu_type="")
    try:
        if wish.generator:
            made = generate(wish.generator, wish.jobs or GENERATED_JOBS, wish.seed, reading)
            nodes = _nodes(wish, "")
        else:
            made, listed = read_trace(wish.trace, wish.data, reading)
            nodes = _nodes(wish, listed)
        if wish.since_s:
            made = traces.since(made, int(1000 * wish.since_s))
        if wish.every > 1:
            made = traces.every(made, wish.every)
        if wish.jobs:
            made = traces.first_jobs(made, wish.jobs)
        if not made.jobs:
            worst = made.bad[0].message if made.bad else "it has no rows"
            raise traces.TraceError(f"{made.name}: no row is a job; the first: {worst}")
        if not wish.queues:
            made = traces.one_queue(made)
        if wish.load:
            made = traces.at_load(made, nodes, wish.load)
        return traces.with_estimates(made, wish.estimates), nodes
    except traces.TraceError as error:
        raise Failure(str(error), "", BAD_USAGE) from None


def read_trace(name: str, data: Path | None, reading: "Reading") -> "tuple[Trace, str]":
    """(the trace of this name or file, the path of the list of its nodes where there is one)."""
    from hyperion.sim.traces import catalogue

    path = Path(name)
    if path.is_file():
        rows, columns = read_rows(path)
        _, source = catalogue.recognised(str(path), columns)
        return source.reader(rows, reading), ""
    if "/" in name or path.suffix:
        raise Failure(f"no file {name}", "name a file that is there, or a trace", BAD_USAGE)
    source = catalogue.source(name)
    if not source.file:
        raise Failure(f"{name} has no published file", f"--trace FILE ({source.about})", BAD_USAGE)
    rows, columns = read_rows(_find(source.file, data))
    from hyperion.sim.traces.cells import check_columns

    check_columns(source.file, columns, source.columns)
    nodes_file = _found(source.nodes_file, data) if source.nodes_file else None
    return source.reader(rows, reading), str(nodes_file or "")


def read_rows(path: Path) -> "tuple[Rows, Sequence[str]]":
    """(rows with their line numbers, names of the columns) of Parquet, CSV, TSV or sacct's bars."""
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        lines = _lines(path)
        reader = csv.DictReader(lines, delimiter=_delimiter(path))
        columns = [c.strip() for c in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"{path} cannot be read: {error}", "", BAD_USAGE) from None
    reader.fieldnames = columns
    return _numbered(path, reader), columns


def _parquet(path: Path) -> "tuple[Rows, Sequence[str]]":
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Failure(f"{path} needs pyarrow", WITHOUT_PYARROW, BAD_USAGE) from None
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise Failure(f"{path} is no Parquet file: {error}", "", BAD_USAGE) from None
    batches = (row for batch in table.to_batches(10_000) for row in batch.to_pylist())
    return enumerate(batches, 1), table.column_names


def _lines(path: Path) -> Iterator[str]:
    csv.field_size_limit(LONGEST_CELL_BYTES)
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from file


def _delimiter(path: Path) -> str:
    """What stands most often in the first line: a comma, a bar, a tab or a semicolon."""
    with open(path, encoding="utf-8-sig") as file:
        first = file.readline(1 << 20)
    return max(",|\t;", key=first.count)


def _numbered(
    path: Path, reader: "csv.DictReader[str]"
) -> "Iterator[tuple[int, Mapping[str, object]]]":
    try:
        for row in reader:
            yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        where = f"{path}, line {reader.line_num + 1}"
        raise Failure(f"{where}: {error}", "is it text in UTF-8?", BAD_USAGE) from None


def _find(file: str, data: Path | None) -> Path:
    if data is None:
        raise Failure(
            f"where is {file}?", "name its directory: --data DIR, or HYPERION_DATA", BAD_USAGE
        )
    found = _found(file, data)
    if found is None:
        raise Failure(f"no {file} in {data}", "give another --data, or --trace FILE", BAD_USAGE)
    return found


def _found(file: str, data: Path | None) -> Path | None:
    """In the directory, up to two below it, or beside it under another subdirectory."""
    if data is None:
        return None
    patterns = (file, f"*/{file}", f"*/*/{file}", f"../*/{file}", f"../../*/{file}")
    return next((path for p in patterns for path in sorted(data.glob(p))), None)


def _nodes(wish: Wish, listed: str) -> "list[Node]":
    from hyperion.sim import machines

    text = wish.nodes or listed or str(NODES)
    if text.isdecimal():
        count = int(text)
        if not 1 <= count <= NODES_MAX:
            raise Failure(f"--nodes {count}", f"1 to {NODES_MAX:,}", BAD_USAGE)
        usd = wish.usd_per_gpu_hour
        if usd is None:
            usd = prices().get(wish.gpu_type, 0.0) if wish.gpus_per_node else 0.0
        return machines.uniform(count, wish.gpus_per_node, wish.gpu_type, usd)
    path = Path(text)
    if not path.is_file():
        raise Failure(f"--nodes {text}: neither a number nor a file", "", BAD_USAGE)
    from hyperion.sim.traces.cells import check_columns

    rows, columns = read_rows(path)
    check_columns(text, columns, ("sn", "cpu_milli", "memory_mib", "gpu"))
    return machines.listed((row for _, row in rows), prices(wish.usd_per_gpu_hour))


def prices(everywhere: float | None = None) -> Mapping[str, float]:
    """USD for a GPU and hour by type: the lowest on-demand price of the shipped catalogue."""
    from collections import defaultdict

    from hyperion.adapters.market.catalogue import read_catalogue
    from hyperion.model.market import Market

    if everywhere is not None:
        return defaultdict(lambda: everywhere)
    found: dict[str, float] = {}
    for offer in read_catalogue().offers:
        if offer.gpus and offer.market is Market.ON_DEMAND:
            usd = offer.usd_per_hour / offer.gpus
            found[offer.gpu_type] = min(usd, found.get(offer.gpu_type, usd))
    return found
