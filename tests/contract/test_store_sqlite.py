"""What can happen to a store in a file: crashes, damage, rivals, a full disk, newer versions."""

import random
import sqlite3
import subprocess
import sys

import pytest

from hyperion.adapters.store.sqlite import (
    SqliteStore,
    StoreDamaged,
    StoreInUse,
    StoreTooNew,
)

COMMIT_FOR_EVER = """
import sys
from hyperion.adapters.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
n = store.last_sequence
while True:
    n += 1
    store.commit({"/counter": b"%d" % n, "/n/%d" % n: b"%d" % n}, [b"%d" % n], n)
    print(n, flush=True)
"""

FILL_A_SMALL_DISK = """
import resource, sys
from hyperion.adapters.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.commit({"/a": b"1"}, [b"1"], 1)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    store.commit({"/a": b"2", "/big": b"x" * 1_000_000}, [b"2"], 2)
except OSError as fault:
    print(type(fault).__name__, fault.errno, fault)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert dict(store.load()) == {"/a": b"1"}, "something was half-kept"
assert store.last_sequence == 1
store.commit({"/a": b"3"}, [b"3"], 3)
store.close()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "store.sqlite"


def test_whatever_was_acknowledged_survives_sigkill(path):
    dice = random.Random(7)
    acknowledged = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", COMMIT_FOR_EVER, str(path)], stdout=subprocess.PIPE
        ) as writer:
            for _ in range(dice.randint(1, 40)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split(b"\n")[:-1])])
    store = SqliteStore(path)
    entities = dict(store.load())
    last = store.last_sequence
    assert acknowledged <= last
    assert entities == {"/counter": b"%d" % last} | {
        f"/n/{n}": b"%d" % n for n in range(1, last + 1)
    }
    assert [e.sequence for e in store.journal(limit=10**6)] == list(range(1, last + 1))
    store.close()


def test_a_second_owner_is_refused_and_told_whom_to_stop(path):
    first = SqliteStore(path)
    with pytest.raises(StoreInUse, match=r"in use by process \d+; stop it"):
        SqliteStore(path)
    first.close()
    SqliteStore(path).close()


def test_only_its_owner_may_read_it(path):
    store = SqliteStore(path)
    store.commit({"/a": b"1"}, [], 1)
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert path.parent.stat().st_mode & 0o077 == 0
    store.close()


def test_sqlites_own_tools_can_read_it(path):
    store = SqliteStore(path)
    store.commit({"/hyperion/v1/job/a": b'{"name":"x"}'}, [b'{"type":"JobAccepted"}'], 1)
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT value ->> 'name' FROM entities").fetchone() == ("x",)
    assert connection.execute("SELECT record ->> 'type' FROM journal").fetchone()
    connection.close()


def test_a_newer_schema_is_left_alone(path):
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreTooNew, match=r"schema 99.*start the newer"):
        SqliteStore(path)


def test_somebody_elses_database_is_left_alone(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreDamaged, match="not a Hyperion-X store"):
        SqliteStore(path)


def test_a_file_of_noise_is_no_store(path):
    path.parent.mkdir()
    path.write_bytes(random.Random(1).randbytes(8192))
    with pytest.raises(StoreDamaged, match=r"stop the daemon.*restore a backup"):
        SqliteStore(path)


def test_a_torn_page_is_found_at_the_start(path):
    store = SqliteStore(path)
    store.commit({f"/{n}": b"x" * 500 for n in range(200)}, [], 1)
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 512] = b"\xee" * 512
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match="damaged"):
        SqliteStore(path)


def test_a_full_disk_keeps_nothing_by_halves(path):
    done = subprocess.run(
        [sys.executable, "-c", FILL_A_SMALL_DISK, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OSError"), done.stdout
    assert "store" in done.stdout
    store = SqliteStore(path)
    assert dict(store.load()) == {"/a": b"3"}
    store.close()
