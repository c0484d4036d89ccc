"""What is wrong with what one replica asks for: sizes, accelerators, countables, terms on nodes."""

import re
from collections.abc import Iterator

from hyperion.model.accelerators import ACCELERATORS, canonical
from hyperion.model.bounds import (
    ACCELERATOR_PATTERN,
    INFRA_PATTERN,
    KEY_PATTERN,
    MAX_CPUS,
    MAX_CUSTOM_AMOUNT,
    MAX_DISK_MIB,
    MAX_ENTRIES,
    MAX_GPUS,
    MAX_MEMORY_MIB,
    MAX_TERM_NUMBER,
    MAX_TERM_VALUES,
    MAX_TERM_WEIGHT,
    MAX_TERMS,
)
from hyperion.model.constraints import NodeTerm, Operator
from hyperion.model.faults import (
    Fault,
    bad_key,
    line_faults,
    pair_faults,
    pointer_part,
    quoted,
    range_faults,
    short,
)
from hyperion.model.resources import MILLI, ResourceRequest

_accelerator = re.compile(ACCELERATOR_PATTERN).fullmatch
_infra = re.compile(INFRA_PATTERN).fullmatch
_key = re.compile(KEY_PATTERN).fullmatch
_whole = re.compile(r"-?\d{1,16}", re.ASCII).fullmatch

OWN_NAMES = {
    "gpu": "accelerators",
    "gpus": "accelerators",
    "gpus_milli": "accelerators",
    "accelerators": "accelerators",
    "cpu": "cpus",
    "cpus": "cpus",
    "cpus_milli": "cpus",
    "memory": "memory",
    "memory_mib": "memory",
    "disk": "disk",
    "disk_mib": "disk",
}
"""What is no countable of a site's own, with the field that asks for it."""


def request_faults(at: str, request: ResourceRequest) -> Iterator[Fault]:
    """What is wrong with one request; ``at`` is the pointer to it."""
    if request.gpus_milli or request.gpu_type:
        yield from _accelerators(at + "/accelerators", request)
    yield from _thousandths(at + "/cpus", request.cpus_milli, MAX_CPUS)
    if request.memory_mib or request.disk_mib:
        yield from _mebibytes(at + "/memory", request.memory_mib, MAX_MEMORY_MIB)
        yield from _mebibytes(at + "/disk", request.disk_mib, MAX_DISK_MIB)
    if request.labels:
        yield from pair_faults(at + "/labels", request.labels, MAX_ENTRIES, 256)
    if request.infra and not _infra(request.infra):
        yield Fault(
            at + "/infra",
            f"found {quoted(request.infra)}, expected a cloud (aws), a region (aws/us-east-1) or"
            " the name of a cluster",
        )
    if request.custom:
        yield from _custom(at + "/custom", request.custom)
    if request.affinity:
        yield from _terms(at + "/node_affinity", request)


def _accelerators(at: str, request: ResourceRequest) -> Iterator[Fault]:
    milli, name = request.gpus_milli, request.gpu_type
    if milli > MILLI and milli % MILLI:
        yield Fault(
            at,
            f"found {milli / MILLI:g} GPUs, expected a whole number of them, or a fraction below"
            f" one; write {max(1, milli // MILLI)} or {-(-milli // MILLI)}",
        )
    elif milli > MAX_GPUS * MILLI:
        yield Fault(at, f"found {milli // MILLI} GPUs, expected at most {MAX_GPUS} for one replica")
    elif milli < 0:
        yield Fault(at, f"found {milli / MILLI:g} GPUs, expected none or more")
    elif name and not milli:
        yield Fault(
            at, f"found 0 of {quoted(name)}, expected at least 0.001; or remove accelerators"
        )
    if name and not _accelerator(name):
        yield Fault(
            at,
            f"found the accelerator {quoted(name)}, expected a name such as A100 or H100",
        )
    elif name and (right := _meant(name)):
        yield Fault(at, f'found the unknown accelerator {quoted(name)}; did you mean "{right}"?')


def _meant(name: str) -> str:
    """The known accelerator that this is surely a slip of, or nothing.

    Unknown types are allowed, for nobody's list of them is complete, and real ones differ by one
    character (H20 and H200, A800 and A100). So only another way to write a known name, letters
    that look like digits, and two swapped neighbours count as slips.
    """
    known = canonical(name)
    if known:
        return known if known != name else ""
    return _LOOKS.get(_looks(name)) or next(
        (_UPPER[s] for s in _swaps(name.upper()) if s in _UPPER),
        "",
    )


def _looks(name: str) -> str:
    return name.upper().translate(_LOOK_ALIKE)


def _swaps(name: str) -> Iterator[str]:
    for i in range(len(name) - 1):
        yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]


_LOOK_ALIKE = str.maketrans("OQILSZB", "0011528", "-_ .")
_UPPER = {name.upper(): name for name in ACCELERATORS}
_LOOKS = {_looks(name): name for name in ACCELERATORS}


def _thousandths(at: str, milli: int, most: int) -> Iterator[Fault]:
    if not 0 <= milli <= most * MILLI:
        yield Fault(at, f"found {short(milli / MILLI)}, expected 0 to {most}")


def _mebibytes(at: str, mib: int, most: int) -> Iterator[Fault]:
    if not 0 <= mib <= most:
        yield Fault(at, f"found {short(mib / 1024)} GiB, expected 0 to {most >> 10} GiB")


def _custom(at: str, custom: tuple[tuple[str, int], ...]) -> Iterator[Fault]:
    if len(custom) > MAX_ENTRIES:
        yield Fault(at, f"found {len(custom)} countables, expected at most {MAX_ENTRIES}")
        return
    names = [name for name, _ in custom]
    if names != sorted(set(names)):
        yield Fault(at, "is not in order of the names, each once; sort it and join the same names")
    for name, amount in custom:
        place = f"{at}/{pointer_part(name)}"
        own = OWN_NAMES.get(name.partition("/")[0].lower())
        if own is not None:
            yield Fault(place, f"found {quoted(name)}, which is no countable; use {own} instead")
        elif not _key(name):
            yield Fault(place, bad_key(name))
        yield from range_faults(place, amount, 1, MAX_CUSTOM_AMOUNT)


def _terms(at: str, request: ResourceRequest) -> Iterator[Fault]:
    if len(request.affinity) > MAX_TERMS:
        yield Fault(at, f"found {len(request.affinity)} terms, expected at most {MAX_TERMS}")
        return
    needed = set(request.labels)
    needed.update(t.key for t in request.affinity if not t.weight and t.operator in _NEED_LABEL)
    for index, term in enumerate(request.affinity):
        place = f"{at}/{index}"
        if not _key(term.key):
            yield Fault(place, bad_key(term.key))
        elif term.operator is Operator.ABSENT and not term.weight and term.key in needed:
            yield Fault(
                place,
                f"wants no label {quoted(term.key)}, while another term or labels need it;"
                " no node can be both, so remove one",
            )
        yield from _values(place, term)
        if not 0 <= term.weight <= MAX_TERM_WEIGHT:
            yield Fault(
                place,
                f"found the weight {term.weight}, expected 1 to {MAX_TERM_WEIGHT}, or 0 for what is"
                " required",
            )


_NEED_LABEL = (Operator.IN, Operator.EXISTS, Operator.GREATER, Operator.LESS)


def _values(at: str, term: NodeTerm) -> Iterator[Fault]:
    values, word = term.values, term.operator.value
    if term.operator in (Operator.EXISTS, Operator.ABSENT):
        if values:
            yield Fault(at, f"found {len(values)} values, expected none with {word!r}; remove them")
    elif term.operator in (Operator.GREATER, Operator.LESS):
        if len(values) != 1 or not _whole(values[0]) or abs(int(values[0])) > MAX_TERM_NUMBER:
            found = quoted(values[0]) if len(values) == 1 else f"{len(values)} values"
            yield Fault(at, f"found {found}, expected one whole number with {word!r}")
    elif not 1 <= len(values) <= MAX_TERM_VALUES:
        yield Fault(
            at, f"found {len(values)} values, expected 1 to {MAX_TERM_VALUES} with {word!r}"
        )
    for value in values[:MAX_TERM_VALUES]:
        yield from line_faults(at, value, 256)
