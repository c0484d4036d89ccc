"""The file that tells what stands still: lines, limits, and what a death at any moment leaves."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.adapters.checkpoint import held


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "held")


def made(path):
    it = held.Held(path)
    it.publish()
    return it


def test_a_line_tells_until_when_and_what(path):
    file = made(path)
    one = file.add(2, "/sys/fs/cgroup/a b")
    two = file.add(0, "17 18")
    assert held.read(path) == []
    file.mark(one, 5000)
    file.mark(two, 6000)
    assert held.read(path) == [(5000, 2, "/sys/fs/cgroup/a b"), (6000, 0, "17 18")]
    file.mark(one, 0)
    file.drop(two)
    assert held.read(path) == []
    assert file.add(1, "/c") == two  # a line that is free is used again
    file.close()


def test_nothing_is_seen_of_a_file_until_it_is_published(path):
    old = made(path)
    old.mark(old.add(2, "/a"), 5000)
    fresh = held.Held(path)
    fresh.mark(fresh.add(2, "/b"), 7000)
    assert held.read(path) == [(5000, 2, "/a")]
    fresh.publish()
    assert held.read(path) == [(7000, 2, "/b")]
    fresh.unpublish()
    assert held.read(path) == []
    old.close()
    fresh.close()


def test_what_stood_before_this_boot_does_not_stand(path, monkeypatch):
    file = made(path)
    file.mark(file.add(2, "/a"), 5000)
    monkeypatch.setattr(held, "boot_id", lambda: "another")
    assert held.read(path) == []
    file.close()


def test_limits(path, monkeypatch):
    monkeypatch.setattr(held, "MAX_LINES", 3)
    file = made(path)
    with pytest.raises(OSError, match="too long"):
        file.add(2, "/" + "x" * held.LINE)
    with pytest.raises(OSError, match="too long"):
        file.add(2, "/" + "ü" * (held.LINE // 2))
    longest = "/" + "x" * (held.LINE - 33)
    file.mark(file.add(2, longest), 1)
    file.mark(file.add(2, "/b"), 1)
    with pytest.raises(OSError, match="too many"):
        file.add(2, "/c")
    assert held.read(path) == [(1, 2, longest), (1, 2, "/b")]
    assert os.stat(path).st_size == 3 * held.LINE
    file.close()


@given(junk=st.binary(max_size=4000))
def test_a_file_that_is_none_tells_nothing_wrong(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "held"
    path.write_bytes(junk)
    assert held.read(str(path)) == []
    path.write_bytes(held.boot_id().encode() + b"\n" + junk)
    for until, version, members in held.read(str(path)):
        assert until > 0
        assert version in (0, 1, 2)
        assert members


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["mark", "drop", "add"]), st.integers(0, 9**9))
    )
)
def test_it_equals_a_plain_dictionary(tmp_path_factory, changes):
    path = str(tmp_path_factory.mktemp("model") / "held")
    file, lines, model = made(path), {}, {}
    for n, what, until in changes:
        if what == "add" and n not in lines:
            lines[n], model[n] = file.add(2, f"/g{n}"), 0
        elif what == "mark" and n in lines:
            file.mark(lines[n], until)
            model[n] = until
        elif what == "drop" and n in lines:
            file.drop(lines.pop(n))
            del model[n]
        expected = sorted((until, 2, f"/g{n}") for n, until in model.items() if until)
        assert sorted(held.read(path)) == expected
    file.close()
