"""Output of replicas: kept in bounds, followed to its end; workdirs; what is kept of the ended."""

import asyncio
import hashlib
import io
import os
import tarfile
import time

import pytest
from runtime_watched import Watched, await_file, order

from hyperion.adapters.runtime import logs, retention, workdir
from hyperion.adapters.runtime.rendezvous import FreePorts
from hyperion.model.ids import AllocationId


def test_follow_delivers_all_and_ends_with_the_replica(tmp_path):
    async def story():
        async with Watched(tmp_path) as w:
            script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done; echo last"
            await w.runtime.launch(order(run=script))
            text = await w.output(follow=True)
            assert text == "".join(f"line {i}\n" for i in range(1, 6)) + "last\n"
            assert await w.output(follow=True, tail_lines=1) == "last\n"

    asyncio.run(story())


def test_follow_waits_for_what_has_only_been_prepared(tmp_path):
    async def story():
        from hyperion.control.messages import Prepare

        async with Watched(tmp_path) as w:
            await w.runtime.prepare(order(kind=Prepare, command=("true",)))
            reader = asyncio.create_task(w.output(follow=True))
            await asyncio.sleep(0)
            await w.runtime.launch(order(command=("echo", "here")))
            assert await reader == "here\n"
            await w.runtime.drop(AllocationId("job.1-1.0"))
            assert await w.output(follow=True) == "here\n"
            with pytest.raises(FileNotFoundError):
                await w.output("other.1-1.0", follow=True)

    asyncio.run(story())


def test_a_long_log_is_cut_at_its_head_while_it_is_followed(tmp_path):
    async def story():
        limit = 64 * 1024
        async with Watched(tmp_path, log_limit_bytes=limit, log_files=2) as w:
            more, done = tmp_path / "more", tmp_path / "done"
            script = (
                f"i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo x > {done};"
                f"while [ ! -e {more} ]; do sleep 0.01; done; echo end"
            )
            await w.runtime.launch(order(run=script))
            reader = asyncio.create_task(w.output(follow=True))
            await await_file(done)
            log = tmp_path / "replicas/job.1-1.0/log"
            async with asyncio.timeout(20):
                while log.stat().st_blocks * 512 > 2 * limit:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            more.touch()
            followed = (await reader).replace(logs.CUT.decode(), "")
            assert followed.endswith("line 19999\nend\n")
            kept = await w.output()
            assert kept.startswith(logs.CUT.decode())
            assert kept.endswith("line 19999\nend\n")
            assert limit <= len(kept) <= 2 * limit + 4096
            assert await w.output(tail_lines=2) == "line 19999\nend\n"

    asyncio.run(story())


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 10, 5000])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_tail_counts_lines_as_people_do(tmp_path, lines, ending):
    text = [f"{i} " + "x" * (i % 200) for i in range(3000)]
    (tmp_path / "log").write_text("\n".join(text) + ending)

    async def story():
        path = str(tmp_path / "log")
        return b"".join([c async for c in logs.read(lambda: path, lambda: True, False, lines)])

    wanted = "\n".join(text[-lines:]) + ending if lines else ""
    assert asyncio.run(story()).decode() == wanted


def test_an_emptied_log_is_read_on_from_its_start(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"long enough\n")

    async def story():
        over = [False]
        chunks = []
        async for chunk in logs.read(lambda: str(path), lambda: over[-1], True, None):
            chunks.append(chunk)
            if len(chunks) == 1:
                path.write_bytes(b"new\n")
            over.append(len(chunks) == 3)
        return chunks

    assert asyncio.run(story()) == [b"long enough\n", logs.CUT, b"new\n"]


# -- bundles ------------------------------------------------------------------------------------


def bundle(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content, change in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            for field, value in change.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return path


def test_a_bundle_is_unpacked_where_the_replica_runs(tmp_path):
    archive = bundle(tmp_path / "b.tar.gz", [("d/run.sh", b"#!/bin/sh\necho in bundle\n", {})])
    digest = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    asked = []

    async def fetch(wanted):
        asked.append(wanted)
        return archive

    async def story():
        async with Watched(tmp_path / "state", fetch=fetch) as w:
            ended = await w.run(command=("d/run.sh",), workdir=f"bundle:{digest}")
            assert (ended.exit_code, await w.output()) == (0, "in bundle\n")
            assert asked == [digest]

    asyncio.run(story())


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc"}


@pytest.mark.parametrize(
    "members",
    [
        [("../out", b"x", {})],
        [("a/../../out", b"x", {})],
        [("in", b"", LINK), ("in/out", b"x", {})],
        [("hard", b"", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"})],
        [("null", b"", {"type": tarfile.CHRTYPE})],
    ],
)
def test_a_bundle_that_leads_out_is_refused_and_leaves_nothing(tmp_path, members):
    archive = bundle(tmp_path / "b.tar.gz", members)
    (tmp_path / "place").mkdir()
    with pytest.raises(workdir.Unusable, match=r"b\.tar\.gz"):
        workdir.unpack(archive, tmp_path / "place" / "work")
    assert os.listdir(tmp_path / "place") == []
    assert not (tmp_path / "out").exists()


def test_a_bundle_too_large_or_torn_is_refused(tmp_path):
    archive = bundle(tmp_path / "b.tar.gz", [("a", b"x" * 100_000, {}), ("b", b"y" * 10, {})])
    target = tmp_path / "work"
    with pytest.raises(workdir.Unusable, match="too large"):
        workdir.unpack(archive, target, max_bytes=100_000)
    with pytest.raises(workdir.Unusable, match="too large"):
        workdir.unpack(archive, target, max_members=1)
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(workdir.Unusable, match="could not be unpacked"):
        workdir.unpack(archive, target)
    archive.write_bytes(b"no archive at all")
    with pytest.raises(workdir.Unusable, match="could not be unpacked"):
        workdir.unpack(archive, target)
    assert not target.exists()


def test_stop_while_the_bundle_comes_means_it_never_runs(tmp_path):
    async def story():
        coming, arrived = asyncio.Event(), asyncio.Event()

        async def fetch(_):
            coming.set()
            await arrived.wait()
            return bundle(tmp_path / "b.tar.gz", [("a", b"", {})])

        async with Watched(tmp_path / "state", fetch=fetch) as w:
            launch = order(command=("touch", str(tmp_path / "ran")), workdir="bundle:sha256:1")
            task = asyncio.create_task(w.runtime.launch(launch))
            await coming.wait()
            await w.runtime.kill(AllocationId("job.1-1.0"), 1000)
            assert (await w.exited("job.1-1.0")).never_ran
            arrived.set()
            await task
            assert len(w.events) == 1
            assert not (tmp_path / "ran").exists()

    asyncio.run(story())


# -- what is kept -------------------------------------------------------------------------------


def kept(ended):
    return sorted(os.listdir(ended), key=int)


def test_retention_lets_go_of_the_old_and_of_the_many(tmp_path):
    for i in range(6):
        (tmp_path / str(i) / "work").mkdir(parents=True)
        (tmp_path / str(i) / "log").write_bytes(b"x" * 4096)
        os.utime(tmp_path / str(i))
        time.sleep(0.002)  # the order is that of the files' change times, which have a grain
    assert retention.remove(tmp_path, retention.Bounds()) == 0
    assert retention.remove(tmp_path, retention.Bounds(replicas=4)) == 2
    assert kept(tmp_path) == ["2", "3", "4", "5"]
    assert retention.remove(tmp_path, retention.Bounds(total_bytes=9000)) == 2
    assert kept(tmp_path) == ["4", "5"]
    assert retention.remove(tmp_path, retention.Bounds(days=0)) == 2


def test_ports_are_not_given_out_twice():
    ports = FreePorts()
    given = [ports.take() for _ in range(300)]
    assert len(set(given)) == 300
    assert all(1024 <= port < 65536 for port in given)


def test_what_has_not_begun_has_said_nothing_and_what_never_was_is_named(tmp_path):
    path = str(tmp_path / "j1.1-1.0" / "log")

    async def story(is_over):
        return [c async for c in logs.read(lambda: path, lambda: is_over, False, None)]

    assert asyncio.run(story(False)) == []
    with pytest.raises(FileNotFoundError, match=r"^no output of j1\.1-1\.0 is kept here$"):
        asyncio.run(story(True))
