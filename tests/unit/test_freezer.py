"""Freezing without a kernel's help: files that look like a control group's, and no processes."""

import os

import pytest

from hyperion.adapters.checkpoint.freezer import Freezer, Group

PATIENT_NS = 10_000_000_000
"""A thread of its own does the writing, which may get its turn late."""


@pytest.fixture
def group(tmp_path):
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    (tmp_path / "cgroup.threads").write_text("")
    made = Group(str(tmp_path))
    assert made.version == 2
    return made


def state(group):
    with open(f"{group.path}/cgroup.freeze") as file:
        return file.read()


def test_the_kernel_is_asked_in_its_words(group):
    freezer = Freezer(PATIENT_NS)
    stop = freezer.freeze([group])
    assert (stop.how, stop.threads, stop.stragglers) == ("freezer", 0, [])
    assert stop.called_ns <= stop.stopped_ns <= stop.confirmed_ns
    assert state(group) == "1"
    freezer.go_on([group])
    assert state(group) == "0"
    freezer.retire([group])
    freezer.close()


def test_files_of_the_group_are_closed_once(group):
    before = len(os.listdir("/proc/self/fd"))
    group.close()
    group.close()
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_group_that_is_none_is_refused_and_leaves_nothing_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    (tmp_path / "cgroup.freeze").write_text("0")
    with pytest.raises(OSError, match=r"cgroup\.events"):
        Group(str(tmp_path))
    with pytest.raises(OSError, match=r"cgroup\.procs"):
        Group("/proc")
    assert os.listdir("/proc/self/fd") == before


def test_an_order_that_the_kernel_refuses_is_carried_out_by_signals(group, monkeypatch):
    monkeypatch.setattr(Group, "_write", lambda self, still: False)
    freezer = Freezer()
    assert freezer.freeze([group]).how == "hedged"
    freezer.close()


def test_processes_that_are_gone_stand_still():
    freezer, gone = Freezer(), Group("", (4_000_000,))
    stop = freezer.freeze([gone])
    assert (stop.how, bool(stop.confirmed_ns), stop.threads) == ("signals", True, 0)
    freezer.go_on([gone])
    freezer.close()


def test_whose_processes_they_are(tmp_path, group):
    assert group.shares([str(tmp_path)], ())
    assert not group.shares(["/other"], (5,))
    assert Group("", (4, 5)).shares([], {5, 6})
    assert not Group("", (4, 5)).shares(["/x"], {6})
