"""Bundles as the federation names them reach the node, and what cannot be had ends the replica."""

import asyncio
import hashlib
import tarfile

import pytest

from hyperion.adapters.runtime import workdir
from hyperion.daemon.application import NotFound
from hyperion.daemon.bundles import Bundles
from hyperion.model.ids import JobId
from hyperion.model.job import Job


def job_in(workdir):
    return Job(id=JobId("j"), run="true", workdir=workdir)


async def _chunks(content):
    yield content


def _archive(path):
    (path / "go.sh").write_text("echo hello\n")
    with tarfile.open(path / "b.tar.gz", "w:gz") as tar:
        tar.add(path / "go.sh", "go.sh")
    return (path / "b.tar.gz").read_bytes()


def test_a_bundle_goes_from_the_federation_by_the_scheduler_to_the_workdir(tmp_path):
    federation = Bundles(tmp_path / "federation")
    scheduler = Bundles(tmp_path / "scheduler", federation.read)
    agent = Bundles(tmp_path / "agent", scheduler.read)

    async def story():
        digest = await federation.keep(_chunks(_archive(tmp_path)))
        name = f"bundle:sha256:{digest}"
        return await workdir.ready(job_in(name), tmp_path / "work", agent.get, "n1")

    assert asyncio.run(story()) == str(tmp_path / "work")
    assert (tmp_path / "work" / "go.sh").read_text() == "echo hello\n"


@pytest.mark.parametrize("fault", [NotFound("no such bundle"), ValueError("damaged"), KeyError()])
def test_whatever_hinders_a_fetch_is_told_as_unusable(tmp_path, fault):
    async def fetch(_):
        raise fault

    with pytest.raises(workdir.Unusable, match="could not be fetched to node n1"):
        asyncio.run(workdir.ready(job_in("bundle:sha256:00"), tmp_path / "work", fetch, "n1"))


def test_what_a_killed_process_had_begun_is_removed(tmp_path):
    (tmp_path / "incoming-x").write_bytes(b"half")
    Bundles(tmp_path)
    assert not (tmp_path / "incoming-x").exists()


def test_a_name_that_is_no_digest_reaches_no_file(tmp_path):
    for name in ("../../etc/passwd", "sha256:../x", "A" * 64, hashlib.sha256().hexdigest()[:-1]):
        with pytest.raises(NotFound):
            asyncio.run(Bundles(tmp_path).get(name))
