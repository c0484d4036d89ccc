"""What every store must do, checked against a dict."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hyperion.adapters.store.memory import MemoryStore
from hyperion.adapters.store.retention import DAY_MS, Retention
from hyperion.adapters.store.sqlite import SqliteStore
from hyperion.ports import JournalEntry, Store

KINDS = ["memory", "sqlite"]


def make(kind: str, directory: Path, retention: Retention | None = None) -> Store:
    if kind == "memory":
        return MemoryStore(retention)
    return SqliteStore(directory / "store.sqlite", retention)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def store(kind, tmp_path):
    opened = make(kind, tmp_path)
    yield opened
    opened.close()


def test_an_empty_store_has_nothing(store):
    assert list(store.load()) == []
    assert list(store.journal()) == []
    assert store.last_sequence == 0


def test_keys_come_in_order_and_deletions_hold(store):
    store.commit({"/b": b"2", "/a": b"1", "/é": b'"\xc3\xa9"', "/c": b"3"}, [], 1)
    store.commit({"/b": None, "/never": None, "/a": b"11"}, [], 2)
    assert list(store.load()) == [("/a", b"11"), ("/c", b"3"), ("/é", b'"\xc3\xa9"')]


def test_the_journal_counts_from_one_and_can_be_read_in_pages(store):
    store.commit({}, [b"1", b"2"], 10)
    store.commit({}, [b"3"], 20)
    assert list(store.journal()) == [
        JournalEntry(1, 10, b"1"),
        JournalEntry(2, 10, b"2"),
        JournalEntry(3, 20, b"3"),
    ]
    assert [e.sequence for e in store.journal(after=1, limit=1)] == [2]
    assert store.last_sequence == 3


def test_a_commit_with_a_fault_in_it_leaves_nothing(store):
    store.commit({"/a": b"1"}, [b"1"], 1)
    for writes, records in (({"/a": b"2", "/b": b"\xff"}, []), ({"/a": b"2"}, [b"2", b"\xff"])):
        with pytest.raises(ValueError, match="utf-8"):
            store.commit(writes, records, 2)
    assert list(store.load()) == [("/a", b"1")]
    assert store.last_sequence == 1
    assert len(list(store.journal())) == 1


def test_what_is_staged_is_kept_when_it_is_called_for(store):
    keep = store.stage({"/a": b"1", "/b": b"2"}, [b"1"], 1)
    assert store.last_sequence == 0
    keep()
    assert list(store.load()) == [("/a", b"1"), ("/b", b"2")]
    assert store.last_sequence == 1
    with pytest.raises(ValueError, match="utf-8"):
        store.stage({"/a": b"\xff"}, [], 2)
    store.stage({}, [], 3)()
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(store.stage({"/a": None}, [b"2"], 4)).result()
    assert list(store.load()) == [("/b", b"2")]
    assert [e.sequence for e in store.journal()] == [1, 2]


def test_what_is_staged_and_not_called_for_is_not_there_after_a_restart(tmp_path):
    store = make("sqlite", tmp_path)
    store.commit({"/a": b"1"}, [b"1"], 1)
    store.stage({"/a": b"2"}, [b"2"], 2)
    store.close()
    again = make("sqlite", tmp_path)
    assert list(again.load()) == [("/a", b"1")]
    assert again.last_sequence == 1
    again.close()


def test_a_closed_store_says_so(kind, tmp_path):
    store = make(kind, tmp_path)
    store.close()
    store.close()
    with pytest.raises(OSError, match="closed"):
        store.commit({"/a": b"1"}, [], 1)
    with pytest.raises(OSError, match="closed"):
        list(store.load())


def test_the_journal_keeps_so_many_records(kind, tmp_path):
    store = make(kind, tmp_path, Retention(records=80))
    for n in range(1, 501):
        store.commit({}, [b"%d" % n], 1)
        held = [e.sequence for e in store.journal()]
        assert held == list(range(n - len(held) + 1, n + 1))
        assert min(n, 80) <= len(held) <= 90
    store.close()


def test_the_journal_keeps_records_so_long(kind, tmp_path):
    store = make(kind, tmp_path, Retention(age_ms=DAY_MS))
    for hour in range(100):
        store.commit({}, [b"%d" % hour], hour * 3_600_000)
    assert [e.record for e in store.journal()] == [b"%d" % hour for hour in range(75, 100)]
    assert store.last_sequence == 100
    store.close()


@pytest.mark.parametrize("bad", [{"records": 0}, {"age_ms": 0}])
def test_retention_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        Retention(**bad)


WRITES = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=3),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=5).map(str.encode),
    max_size=5,
)
RECORDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=4).map(str.encode), max_size=4)


class _StoreAgainstDict(RuleBasedStateMachine):
    kind = ""

    @initialize()
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        self.store = make(self.kind, Path(self.directory.name))
        self.entities: dict[str, bytes] = {}
        self.records: list[bytes] = []

    @rule(writes=WRITES, records=RECORDS)
    def commit(self, writes, records):
        self.store.commit(writes, records, 5)
        self.records += records
        for key, value in writes.items():
            if value is None:
                self.entities.pop(key, None)
            else:
                self.entities[key] = value

    @rule(writes=WRITES, records=RECORDS)
    def refuse(self, writes, records):
        with pytest.raises(ValueError, match="utf-8"):
            self.store.commit(writes, [*records, b"\xff"], 5)

    @rule()
    def reopen(self):
        if self.kind != "memory":
            self.store.close()
            self.store = make(self.kind, Path(self.directory.name))

    @invariant()
    def is_the_same(self):
        assert list(self.store.load()) == sorted(self.entities.items())
        assert [e.record for e in self.store.journal()] == self.records
        assert self.store.last_sequence == len(self.records)

    def teardown(self):
        self.store.close()
        self.directory.cleanup()


def _case(kind: str) -> type:
    machine = type(f"Store_{kind}", (_StoreAgainstDict,), {"kind": kind})
    case = machine.TestCase
    case.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
    return case


TestMemoryAgainstDict = _case("memory")
TestSqliteAgainstDict = _case("sqlite")
