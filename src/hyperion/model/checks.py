"""What a job must satisfy before anyone keeps it: one set of checks behind YAML, gRPC and REST."""

import math
import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from hyperion.model.accelerators import ACCELERATORS, canonical
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest

MAX_REPLICAS = 10_000
MAX_ALTERNATIVES = 32
MAX_GPUS = 1024
"""Per replica; the largest single-image machines have far fewer."""
MAX_CPUS = 4096
MAX_MEMORY_MIB = 64 << 20
MAX_DISK_MIB = 1 << 30
MAX_NAME_CHARS = 63
MAX_ID_CHARS = 64
MAX_SCRIPT_BYTES = 256 << 10
MAX_ARGUMENTS = 4096
MAX_ARGUMENT_BYTES = 96 << 10
"""Linux takes at most 128 KiB for one argument (MAX_ARG_STRLEN, execve(2))."""
MAX_VARIABLES = 1024
MAX_VARIABLE_BYTES = 128 << 10
"""All names and values of ``envs`` and ``secrets`` together."""
MAX_PATH_BYTES = 4095
MAX_ENTRIES = 64
"""In each of ``labels``, ``users_in`` and ``tolerations``."""
MAX_DATA_SOURCES = 256
MAX_DATA_GIB = 1e9
MAX_URI_BYTES = 2048
MAX_METADATA_ENTRIES = 256
MAX_METADATA_BYTES = 64 << 10
MAX_WEIGHT = 1000.0
MAX_USD = 1e9
MAX_SECONDS = 10 * 366 * 86400.0
MAX_RESTARTS = 1000
MAX_BACKOFF_S = 86400.0
MAX_GRACE_S = 3600.0

POLICIES = (
    "balanced",
    "cheapest",
    "fair",
    "fragmentation",
    "greenest",
    "least-attained-service",
    "lowest-latency",
    "nearest-data",
    "pack",
    "shortest-first",
    "spread",
)
"""The built-in ranking policies."""
KNOWN_POLICIES = set(POLICIES)
"""These and the ones that plug-ins have registered in this process."""

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
VARIABLE_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,254}"
ACCELERATOR_PATTERN = r"[A-Za-z][A-Za-z0-9._-]{0,62}"
KEY_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,252}"
REGION_PATTERN = r"[a-z][a-z0-9-]{0,31}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
INFRA_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})?"
BUNDLE_PATTERN = r"bundle:sha256:[0-9a-f]{64}"

_name = re.compile(NAME_PATTERN).fullmatch
_id = re.compile(ID_PATTERN).fullmatch
_variable = re.compile(VARIABLE_PATTERN).fullmatch
_accelerator = re.compile(ACCELERATOR_PATTERN).fullmatch
_key = re.compile(KEY_PATTERN).fullmatch
_region = re.compile(REGION_PATTERN).fullmatch
_infra = re.compile(INFRA_PATTERN).fullmatch
_bundle = re.compile(BUNDLE_PATTERN).fullmatch
_unprintable = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_surrogate = re.compile(r"[\ud800-\udfff]").search


class Fault(Struct, frozen=True):
    """One thing wrong with a job."""

    pointer: str
    """JSON pointer into the job's spec form, such as ``/resources/accelerators``."""
    message: str
    """What was found, what was expected, and the remedy; it does not repeat the field's name."""


def check(job: Job) -> tuple[Fault, ...]:
    """Everything that is wrong with the job, empty when it may be kept. Never raises.

    Pointers are those of the spec. An alternative has its own (``/resources/any_of/1/cpus``) where
    there are several. Values of secrets are never quoted.
    """
    return tuple(_faults(job))


def check_id(job_id: str) -> Fault | None:
    """What is wrong with a job's id, if anything."""
    if _id(job_id):
        return None
    return Fault(
        "/id",
        f"found {quoted(job_id)}, expected 1 to {MAX_ID_CHARS} letters, digits, '-' or '_',"
        " starting with a letter or digit",
    )


def quoted(text: str) -> str:
    """The text as it may stand in a message: one line, printable, short."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut) + '"'


def pointer_part(key: str) -> str:
    """A key as it stands in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _faults(job: Job) -> Iterator[Fault]:
    yield from _identity(job)
    yield from _within("/replicas", job.replicas, 1, MAX_REPLICAS)
    yield from _resources(job)
    yield from _work(job)
    yield from _variables(job)
    yield from _sources(job)
    yield from _wishes(job)
    yield from _limits(job)
    yield from _marks(job)


def _identity(job: Job) -> Iterator[Fault]:
    fault = check_id(job.id)
    if fault:
        yield fault
    if job.name and not _name(job.name):
        yield Fault(
            "/name",
            f"found {quoted(job.name)}, expected up to {MAX_NAME_CHARS} letters, digits, '.', '_'"
            " or '-', starting with a letter or digit",
        )
    yield from _line("/user", job.user, 256)


def _resources(job: Job) -> Iterator[Fault]:
    count = len(job.alternatives)
    if not count:
        yield Fault("/resources/any_of", "is empty; give at least one alternative")
    elif count > MAX_ALTERNATIVES:
        yield Fault(
            "/resources/any_of", f"found {count} alternatives, expected at most {MAX_ALTERNATIVES}"
        )
    for index, request in enumerate(job.alternatives[:MAX_ALTERNATIVES]):
        at = f"/resources/any_of/{index}" if count > 1 else "/resources"
        yield from _request(at, request)


def _request(at: str, request: ResourceRequest) -> Iterator[Fault]:
    yield from _accelerators(at + "/accelerators", request)
    yield from _thousandths(at + "/cpus", request.cpus_milli, MAX_CPUS)
    yield from _mebibytes(at + "/memory", request.memory_mib, MAX_MEMORY_MIB)
    yield from _mebibytes(at + "/disk", request.disk_mib, MAX_DISK_MIB)
    yield from _pairs(at + "/labels", request.labels, MAX_ENTRIES, 256)
    if request.infra and not _infra(request.infra):
        yield Fault(
            at + "/infra",
            f"found {quoted(request.infra)}, expected a cloud (aws), a region (aws/us-east-1) or"
            " the name of a cluster",
        )


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
        yield Fault(at, f"found {_short(milli / MILLI)}, expected 0 to {most}")


def _mebibytes(at: str, mib: int, most: int) -> Iterator[Fault]:
    if not 0 <= mib <= most:
        yield Fault(at, f"found {_short(mib / 1024)} GiB, expected 0 to {most >> 10} GiB")


def _work(job: Job) -> Iterator[Fault]:
    if job.run and job.command:
        yield Fault("/run", "found both a script and an argument vector; give one of them")
    elif not job.command and not job.run.strip():
        yield Fault("/run", "is missing; say what to run, such as: run: python train.py")
    yield from _script("/run", job.run)
    yield from _script("/setup", job.setup)
    yield from _command(job.command)
    if job.image:
        yield Fault(
            "/image",
            "container images are not supported yet; remove the field and install what the job"
            " needs in setup",
        )
    if job.workdir:
        yield from _workdir(job.workdir)


def _script(at: str, text: str) -> Iterator[Fault]:
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if size > MAX_SCRIPT_BYTES:
        yield Fault(
            at,
            f"found {size} bytes, expected at most {MAX_SCRIPT_BYTES}; put the script into workdir"
            " and run it from there",
        )
    yield from _characters(at, text)


def _command(command: tuple[str, ...]) -> Iterator[Fault]:
    if len(command) > MAX_ARGUMENTS:
        yield Fault(
            "/run", f"found {len(command)} arguments, expected at most {MAX_ARGUMENTS}; use a file"
        )
        return
    if command and not command[0]:
        yield Fault("/run/0", "found an empty text, expected the program to run")
    total = 0
    for index, argument in enumerate(command):
        size = len(argument.encode(errors="surrogatepass"))
        total += size
        if size > MAX_ARGUMENT_BYTES:
            yield Fault(
                f"/run/{index}",
                f"found an argument of {size} bytes, expected at most {MAX_ARGUMENT_BYTES};"
                " use a file",
            )
        yield from _characters(f"/run/{index}", argument)
    if total > MAX_SCRIPT_BYTES:
        yield Fault(
            "/run", f"found {total} bytes of arguments, expected at most {MAX_SCRIPT_BYTES}"
        )


def _workdir(workdir: str) -> Iterator[Fault]:
    if workdir.startswith("bundle:"):
        if not _bundle(workdir):
            yield Fault(
                "/workdir",
                f"found {quoted(workdir)}, expected bundle:sha256: and 64 hexadecimal digits",
            )
        return
    if not workdir.startswith("/"):
        yield Fault(
            "/workdir",
            f"found {quoted(workdir)}, expected an absolute directory, or bundle:sha256:<digest> of"
            " an uploaded one",
        )
    yield from _path("/workdir", workdir)


def _variables(job: Job) -> Iterator[Fault]:
    count = len(job.envs) + len(job.secrets)
    if count > MAX_VARIABLES:
        yield Fault("/envs", f"found {count} variables, expected at most {MAX_VARIABLES}")
        return
    total = 0
    for name, value in job.envs.items():
        total += len(name) + len(value.encode(errors="surrogatepass")) + 2
        yield from _variable_faults(f"/envs/{pointer_part(name)}", name, value)
    for name, secret in job.secrets.items():
        at = f"/secrets/{pointer_part(name)}"
        total += len(name) + len(secret.value.encode(errors="surrogatepass")) + 2
        yield from _variable_faults(at, name, secret.value)
        if name in job.envs:
            yield Fault(at, "is in envs too; keep one of them")
    if total > MAX_VARIABLE_BYTES:
        yield Fault(
            "/envs",
            f"found {total} bytes in envs and secrets together, expected at most"
            f" {MAX_VARIABLE_BYTES}; put large values into a file in workdir",
        )


def _variable_faults(at: str, name: str, value: str) -> Iterator[Fault]:
    if not _variable(name):
        yield Fault(
            at,
            f"found the name {quoted(name)}, expected letters, digits and '_', not starting with"
            " a digit",
        )
    yield from _characters(at, value)


def _sources(job: Job) -> Iterator[Fault]:
    if len(job.data) > MAX_DATA_SOURCES:
        yield Fault("/data", f"found {len(job.data)} entries, expected at most {MAX_DATA_SOURCES}")
        return
    for index, source in enumerate(job.data):
        at = f"/data/{index}"
        if not source.uri:
            yield Fault(at + "/uri", "is empty; expected an address such as s3://bucket/path")
        yield from _line(at + "/uri", source.uri, MAX_URI_BYTES)
        yield from _finite(at + "/size_gb", source.size_gib, MAX_DATA_GIB)
        if source.region:
            yield from _region_faults(at + "/region", source.region)


def _wishes(job: Job) -> Iterator[Fault]:
    weights = job.objective
    for name in ("cost", "latency", "egress", "carbon"):
        yield from _finite(f"/objective/{name}", getattr(weights, name), MAX_WEIGHT)
    if not any((weights.cost, weights.latency, weights.egress, weights.carbon)):
        yield Fault("/objective", "every weight is 0; give at least one term a weight above 0")
    if job.policy and job.policy not in KNOWN_POLICIES:
        yield Fault(
            "/policy", f"found {quoted(job.policy)}, expected one of {_policies(job.policy)}"
        )
    if len(job.users_in) > MAX_ENTRIES:
        yield Fault(
            "/users_in", f"found {len(job.users_in)} regions, expected at most {MAX_ENTRIES}"
        )
    for index, region in enumerate(job.users_in[:MAX_ENTRIES]):
        yield from _region_faults(f"/users_in/{index}", region)


def _policies(wrong: str) -> str:
    from difflib import get_close_matches  # 2 ms that only a typo pays for

    near = get_close_matches(wrong[:64].lower(), KNOWN_POLICIES, n=1)
    return ", ".join(sorted(KNOWN_POLICIES)) + (f'; did you mean "{near[0]}"?' if near else "")


def _limits(job: Job) -> Iterator[Fault]:
    yield from _finite("/expected", job.expected_s, MAX_SECONDS, "s")
    yield from _finite("/deadline", job.deadline_s, MAX_SECONDS, "s")
    yield from _finite("/budget/max_usd", job.budget.max_usd, MAX_USD)
    yield from _finite("/budget/max_usd_per_hour", job.budget.max_usd_per_hour, MAX_USD)
    yield from _within("/restart/max", job.restart.max, 0, MAX_RESTARTS)
    yield from _finite("/restart/backoff", job.restart.backoff_s, MAX_BACKOFF_S, "s")
    yield from _finite("/checkpoint/grace", job.checkpoint.grace_s, MAX_GRACE_S, "s")
    yield from _path("/checkpoint/dir", job.checkpoint.dir)


def _marks(job: Job) -> Iterator[Fault]:
    if len(job.tolerations) > MAX_ENTRIES:
        yield Fault(
            "/tolerations", f"found {len(job.tolerations)} entries, expected at most {MAX_ENTRIES}"
        )
    for index, toleration in enumerate(job.tolerations[:MAX_ENTRIES]):
        if not _key(toleration.key):
            yield Fault(f"/tolerations/{index}/key", _bad_key(toleration.key))
        yield from _line(f"/tolerations/{index}/value", toleration.value, 256)
    yield from _pairs("/metadata", job.metadata, MAX_METADATA_ENTRIES, MAX_METADATA_BYTES)
    total = sum(
        len(key) + len(value.encode(errors="surrogatepass")) for key, value in job.metadata.items()
    )
    if total > MAX_METADATA_BYTES:
        yield Fault(
            "/metadata", f"found {total} bytes, expected at most {MAX_METADATA_BYTES} together"
        )


def _pairs(at: str, pairs: Mapping[str, str], most: int, value_bytes: int) -> Iterator[Fault]:
    if len(pairs) > most:
        yield Fault(at, f"found {len(pairs)} entries, expected at most {most}")
        return
    for key, value in pairs.items():
        place = f"{at}/{pointer_part(key)}"
        if not _key(key):
            yield Fault(place, _bad_key(key))
        size = len(value.encode(errors="surrogatepass"))
        if size > value_bytes:
            yield Fault(place, f"found {size} bytes, expected at most {value_bytes}")
        yield from _characters(place, value)


def _bad_key(key: str) -> str:
    return (
        f"found the key {quoted(key)}, expected letters, digits, '.', '_', '/' or '-', at most 253"
    )


def _region_faults(at: str, region: str) -> Iterator[Fault]:
    if not _region(region):
        yield Fault(
            at, f"found {quoted(region)}, expected cloud/region, such as aws/us-east-1 or edge/home"
        )


def _within(at: str, value: int, least: int, most: int) -> Iterator[Fault]:
    if not least <= value <= most:
        yield Fault(at, f"found {_short(value)}, expected {least} to {most}")


def _finite(at: str, value: float, most: float, unit: str = "") -> Iterator[Fault]:
    if not (math.isfinite(value) and 0 <= value <= most):
        unit = unit and " " + unit
        yield Fault(at, f"found {_short(value)}{unit}, expected 0 to {most:.12g}{unit}")


def _path(at: str, path: str) -> Iterator[Fault]:
    yield from _line(at, path, MAX_PATH_BYTES)


def _line(at: str, text: str, most_bytes: int) -> Iterator[Fault]:
    size = len(text.encode(errors="surrogatepass"))
    if size > most_bytes:
        yield Fault(at, f"found {size} bytes, expected at most {most_bytes}")
    if _unprintable(text):
        yield Fault(at, "holds a control character; expected one line of plain text")


def _characters(at: str, text: str) -> Iterator[Fault]:
    if "\0" in text:
        yield Fault(at, "holds a NUL character, which no process can be given; remove it")
    if not text.isascii() and _surrogate(text):
        yield Fault(at, "holds half of a surrogate pair, which is not Unicode text; remove it")


def _short(value: float) -> str:
    return f"{value:.12g}"
