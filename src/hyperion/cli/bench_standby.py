"""The trials of ``hyperion bench standby``: a connection, or an order, until the first answer."""

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hyperion.cli import bench_world as lab
from hyperion.cli.exits import FAILED, Failure

if TYPE_CHECKING:
    from hyperion.client.sync import Client

METHOD = (
    "`hyperion up` on this machine: federation, scheduler and agent as processes of their own,"
    " mutual TLS between them. A standby that has all CPUs waits on the socket that its agent has"
    " opened ({what}); a batch job of {victims} processes with {threads} threads each has borrowed"
    " its CPUs and computes all the time. Trials in turns: a client connects and reads the answer;"
    " the API is asked to activate it, and then the client connects. Who measures is real-time"
    " where this host allows it. Overload: {overload} further processes that spin, outside of"
    " hyperion"
)
WARM_UP = 5
QUIET_S = 0.1
TRIES = 3
REST_S = 0.1
"""From when the batch job goes on until the next trial."""

SERVER = """
import os, socket, sys
try:
    import torch
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 16))
    x = torch.ones(1, 256)
    def answer():
        with torch.no_grad():
            return float(net(x).sum())
    what = f"torch {torch.__version__}, a net of two layers"
except ImportError:
    import numpy
    a, b, x = (numpy.ones(shape) for shape in ((256, 512), (512, 16), (1, 256)))
    def answer():
        return float((numpy.maximum(x @ a, 0) @ b).sum())
    what = f"numpy {numpy.__version__}, two matrices; torch is not installed"
answer()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(what)
os.rename(sys.argv[1] + ".new", sys.argv[1])
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(str(answer()).encode())
"""


def run(
    client: "Client", place: Path, python: str, trials: int, scene: lab.Scene
) -> tuple[dict[str, list[float]], str]:
    """(durations in ms, by step; what the standby is made of)."""
    from hyperion.daemon.urgency import hurry

    [node] = client.nodes()
    cpus, port = int(node.cpus), _free_port()
    serve = client.submit({
        "name": "serve",
        "run": [python, "-c", SERVER, str(place / "what")],
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": cpus},
        "envs": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        "standby": {"port": port, "quiet": QUIET_S},
    })  # fmt: skip
    lab.wait_until((place / "what").exists, "the standby to be ready")
    lab.wait_until(lambda: "lent" in client.get(serve).reason, "the standby to lend its CPUs")
    batch, beats = lab.batch(client, place, cpus, scene)
    hurry()
    took: dict[str, list[float]] = {"connect → first answer": [], "activate (API) → frozen": [],
                                    "activate (API) → first answer": []}  # fmt: skip
    told = time.monotonic()
    for n in range(trials + WARM_UP):
        step, found = _trial(client, serve, batch, port, by_order=n % 2 == 1)
        if n >= WARM_UP:
            for name, ms in zip(step, found, strict=True):
                took[name].append(ms)
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            lab.progress(f"{max(0, n + 1 - WARM_UP):,} of {trials:,} trials")
        _goes_on(beats[0])
        time.sleep(REST_S)
    lab.progress("")
    job = client.get(batch)
    if job.phase != "running" or job.preemptions or job.restarts:
        raise Failure(f"the batch job was stopped: {job.phase}, {job.reason}", "", FAILED)
    client.cancel(batch)
    client.cancel(serve)
    return took, (place / "what").read_text()


def _trial(
    client: "Client", serve: str, batch: str, port: int, *, by_order: bool
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    began = time.perf_counter()
    if not by_order:
        _ask(port)
        return ("connect → first answer",), (1e3 * (time.perf_counter() - began),)
    for _ in range(TRIES):
        began = time.perf_counter()
        [row] = client.activate(serve)
        frozen = time.perf_counter()
        if batch in row.stands_still:
            break
        client.release(serve)  # it was still active, so there was nobody to stop
        time.sleep(REST_S)
    else:
        raise Failure(f"the batch job does not stand still: {row}", "", FAILED)
    _ask(port)
    answered = time.perf_counter()
    return (
        ("activate (API) → frozen", "activate (API) → first answer"),
        (1e3 * (frozen - began), 1e3 * (answered - began)),
    )


def _ask(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=lab.PATIENCE_S) as connection:
        if not connection.recv(64):
            raise Failure("the standby has not answered", "", FAILED)


def _goes_on(beat: Path) -> None:
    """The batch job stood still, and computes again: its file is written."""
    time.sleep(QUIET_S)
    before = beat.stat().st_mtime_ns
    lab.wait_until(lambda: beat.stat().st_mtime_ns > before, "the batch job to go on")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
