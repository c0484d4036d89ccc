"""The page that a workload shares with its node's agent: 4,096 bytes in a file, both sides map it.

Little-endian words of 8 bytes, each written by one side only, so that every word is read whole:

====== ================= ========== ==========================================================
offset name              written by meaning
====== ================= ========== ==========================================================
0      MAGIC             agent      the bytes ``HYPXPAGE``
8      VERSION           agent      1
64     ORDER             agent      request number * 256 + what is wanted (RUN ... STEP_PAUSE)
72     DEADLINE          agent      a pause ends by itself here: CLOCK_MONOTONIC in ns
80     NOTICE            agent      it is to end by then: CLOCK_MONOTONIC in ns; 0: it is not
128    CAPABILITIES      workload   bits POINTS, STEPS, SNAPSHOTS
136    PID               workload   who answers; 0: nobody has mapped the page
144    STEP              workload   step boundaries passed by this process
152    COMMITTED         workload   the last step that is done for good
160    STATE             workload   RUNNING ... SETTLING
168    ACKNOWLEDGED      workload   the last request number that was carried out
176    ACKNOWLEDGED_AT   workload   when: CLOCK_MONOTONIC in ns
184    SNAPSHOT_BYTES    workload   size of the last snapshot
192    SNAPSHOT_STEP     workload   its step
200    FREED_BYTES       workload   memory given back in the last pause at the end of a step
====== ================= ========== ==========================================================

Request number and what is wanted share a word: no reader sees the one without the other. A pause
is acknowledged as soon as the workload computes no more. In a STEP_PAUSE it then takes its snapshot
and gives back memory aside, in STATE SETTLING, and stands AT_STEP when that is over. A
snapshot that failed, or that the workload cannot take, leaves SNAPSHOT_STEP and SNAPSHOT_BYTES as
they were, so ask whether they moved before counting on it. SNAPSHOT alone is acknowledged once it
is taken. Beside the
page lie a FIFO, ``<page>.wake``, in which a byte wakes a workload that waits; and the journal
``<page>.saved``, to which every process of the workload adds a line of JSON for each checkpoint
that it has written (see ``journal_line``).
"""

from __future__ import annotations

import json

SIZE = 4096
MAGIC_BYTES = b"HYPXPAGE"
VERSION_NUMBER = 1

# Indices of 8-byte words.
VERSION, ORDER, DEADLINE, NOTICE = 1, 8, 9, 10
CAPABILITIES, PID, STEP, COMMITTED, STATE = 16, 17, 18, 19, 20
ACKNOWLEDGED, ACKNOWLEDGED_AT, SNAPSHOT_BYTES, SNAPSHOT_STEP, FREED_BYTES = 21, 22, 23, 24, 25

# What is wanted.
RUN, PAUSE, SNAPSHOT, STEP_PAUSE = range(4)
# What the workload can do.
POINTS, STEPS, SNAPSHOTS = 1, 2, 4
# What it does.
RUNNING, AT_POINT, AT_STEP, SETTLING = range(4)

MOST_LINE_BYTES = 8192
"""Of the journal. PIPE_BUF or not: a line that is appended by one write stays whole in a file."""


def wake_path(page: str) -> str:
    return f"{page}.wake"


def journal_path(page: str) -> str:
    return f"{page}.saved"


def journal_line(
    *, step: int, path: str, at_ms: int, size_bytes: int, part: int, parts: int, whole: bool
) -> bytes:
    """One checkpoint of the journal. ``part`` of ``parts``: which of the replica's processes wrote
    it. ValueError where the path is too long to be told."""
    line = json.dumps(
        {
            "step": step,
            "path": path,
            "at_ms": at_ms,
            "size_bytes": size_bytes,
            "part": part,
            "parts": parts,
            "whole": whole,
        }
    )
    encoded = line.encode() + b"\n"
    if len(encoded) > MOST_LINE_BYTES:
        raise ValueError(f"the path of a checkpoint is too long: {path[:80]}...")
    return encoded
