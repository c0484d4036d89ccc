"""What follows for preemption from what a host allows; and that trying it leaves nothing behind."""

import os

import msgspec
import psutil
import pytest

from hyperion.adapters.checkpoint import promise
from hyperion.adapters.checkpoint.promise import Finding, Promises, probe, tiers
from hyperion.adapters.runtime.cgroup import Cgroups

TRIED = ("freezer", "real-time", "boost", "locked memory", "real-time share", "CRIU")


def found(*refused):
    return [Finding(what, what not in refused, f"{what} found") for what in TRIED]


def kept(findings, stop_ms=0.3):
    return {tier.tier: tier.kept for tier in tiers(findings, stop_ms)}


def test_the_promise_takes_a_freezer_and_real_time():
    at_once, sometime = "stand still, CPUs at once", "stand still, as soon as possible"
    assert kept(found())[at_once]
    for lacking in ("freezer", "real-time", "boost"):
        assert not kept(found(lacking))[at_once]
        assert kept(found(lacking))[sometime]
        (tier, *_) = tiers(found(lacking), 0.3)
        assert tier.why == f"{lacking}: {lacking} found"
    assert not kept(found(), stop_ms=0.0)[sometime]


def test_to_be_set_aside_on_disk_takes_criu():
    assert kept(found())["set aside on disk"]
    assert not kept(found("CRIU"))["set aside on disk"]
    [tier] = [tier for tier in tiers(found("CRIU"), 0.3) if tier.tier == "set aside on disk"]
    assert tier.why == "CRIU: CRIU found"


def test_of_jobs_with_gpus_only_those_that_say_so_stand_still():
    [tier] = [tier for tier in tiers(found(), 0.3) if tier.tier == "GPUs"]
    assert tier.kept
    assert "pausing.gpu_queue" in tier.promise
    assert "word" in tier.why
    assert not kept(found(), stop_ms=0.0)["GPUs"]


@pytest.mark.parametrize("enabled", [True, False], ids=["groups", "no groups"])
def test_trying_leaves_nothing_behind(enabled):
    policy, before = os.sched_getscheduler(0), {p.pid for p in psutil.Process().children()}
    name = f"hyperion-promise-{os.getpid()}"
    groups = Cgroups(name, enabled=enabled)
    said = probe(groups)
    assert [x.what for x in said.findings] == list(TRIED)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Promises) == said
    assert os.sched_getscheduler(0) == policy
    assert {p.pid for p in psutil.Process().children()} <= before
    assert Cgroups(name, enabled=enabled).replicas() == []
    Cgroups(name, enabled=enabled).close()


@pytest.mark.parametrize(
    ("version", "check", "works"),
    [
        ("Version: 3.17.1", "Looks good.", False),
        ("Version: 4.0", "Looks good.", False),
        ("Version: 4.1", "Looks good.", True),
        ("Version: 4.2", "Error: no userfaultfd", False),
        ("Version: 10.0", "Looks good.", True),
        ("what?", "Looks good.", False),
    ],
)
def test_criu_is_asked_itself(tmp_path, monkeypatch, version, check, works):
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\n[ $1 = check ] && echo '{check}' || echo '{version}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(promise.shutil, "which", lambda _: str(program))
    assert promise._criu().works == works
