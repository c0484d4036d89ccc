"""What is wrong with the datasets that a job reads or writes."""

import re
from collections.abc import Iterator

from hyperion.model.bounds import (
    MAX_DATA_GIB,
    MAX_DATASETS_NAMED,
    MAX_FRACTION,
    MAX_NAME_CHARS,
    NAME_PATTERN,
)
from hyperion.model.faults import Fault, number_faults, quoted
from hyperion.model.job import Job


def dataset_faults(job: Job) -> Iterator[Fault]:
    """Of ``reads`` and ``writes``. Whether the federation knows such datasets, it alone can say."""
    read, written = [r.dataset for r in job.reads], [w.dataset for w in job.writes]
    for field, named in (("reads", read), ("writes", written)):
        if len(named) > MAX_DATASETS_NAMED:
            yield Fault(
                f"/{field}", f"found {len(named)} entries, expected at most {MAX_DATASETS_NAMED}"
            )
            return
        seen: set[str] = set()
        for index, name in enumerate(named):
            at = f"/{field}/{index}/dataset"
            yield from name_faults(at, name)
            if name in seen:
                yield Fault(at, f"found {quoted(name)} a second time; name a dataset once")
            seen.add(name)
    for index, fraction in enumerate(r.fraction for r in job.reads):
        yield from number_faults(f"/reads/{index}/fraction", fraction, MAX_FRACTION)
    for index, size_gib in enumerate(w.size_gib for w in job.writes):
        yield from number_faults(f"/writes/{index}/size_gb", size_gib, MAX_DATA_GIB)


def name_faults(at: str, name: str) -> Iterator[Fault]:
    if not _name(name):
        yield Fault(
            at,
            f"found {quoted(name)}, expected up to {MAX_NAME_CHARS} letters, digits, '.', '_'"
            " or '-', starting with a letter or digit",
        )


_name = re.compile(NAME_PATTERN).fullmatch
