"""Runs a program by mpirun over the gang: ``python gang.py PROGRAM ARGUMENT...`` in each replica.

Rank 0 calls mpirun, which knows hosts and slots from the hostfile that Hyperion wrote. The other
replicas hold their place until rank 0 tells them, over MASTER_PORT, how it ended.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

ADDRESS = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
TIMEOUT_S = 60.0


def lead(program: list[str]) -> int:
    # As root, mpirun wants to be told that this is meant.
    allowed = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    # As others may be bound to the same cores, binding is left to the kernel.
    mpirun = ["mpirun", *allowed, "-n", str(SIZE), "--bind-to", "none", *program]
    others: list[socket.socket] = []
    with socket.create_server(("", ADDRESS[1])) as door:
        door.settimeout(TIMEOUT_S)
        job = subprocess.Popen(mpirun)
        signal.signal(signal.SIGTERM, lambda number, _: job.send_signal(number))
        meeting = threading.Thread(target=_meet, args=(door, others))
        meeting.start()
        code = job.wait()
        meeting.join()
    code = 128 - code if code < 0 else code
    for other in others:
        other.sendall(f"{code}\n".encode())
        other.close()
    return code if len(others) == SIZE - 1 else code or 1


def _meet(door: socket.socket, others: list[socket.socket]) -> None:
    try:
        while len(others) < SIZE - 1:
            others.append(door.accept()[0])
    except TimeoutError:
        print(f"only {len(others) + 1} of {SIZE} replicas came", file=sys.stderr, flush=True)


def follow() -> int:
    """Rank 0's exit code; 1 when it is gone without a word."""
    with _knock() as link:
        link.settimeout(None)  # as long as the program runs; the keep-alive notices a dead machine
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            said = link.makefile("rb").readline(16)
        except OSError:
            said = b""
    return int(said) if said.strip().isdigit() else 1


def _knock() -> socket.socket:
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(ADDRESS, timeout=TIMEOUT_S)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                sys.exit("rank 0 did not come")
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(follow() if RANK else lead(sys.argv[1:]))
