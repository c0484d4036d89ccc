"""What the workload library writes and reads: trees, files, places; without any process."""

import ast
import math
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperion.workload
from hyperion.adapters.checkpoint import journal
from hyperion.adapters.checkpoint.journal import Journal
from hyperion.workload import dice, files, page, tree

Pair = namedtuple("Pair", "left right")


def written(path: Path, state: object) -> tree.Decoder:
    encoder = tree.Encoder()
    header = {"state": encoder.tree(state), "size": encoder.size}
    files.write(str(path), header, encoder)
    return tree.Decoder(str(path))


def there_and_back(path: Path, state: object) -> object:
    decoder = written(path, state)
    return decoder.tree(decoder.header["state"])


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=50)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.just("@"), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(state=trees)
def test_what_is_written_is_read_again(tmp_path_factory, state):
    back = there_and_back(tmp_path_factory.mktemp("t") / "x" / "rank-0.ckpt", state)
    assert back == state
    assert repr(back) == repr(state)


@given(bits=st.integers(0, 2**64 - 1))
def test_floats_keep_their_bits(tmp_path_factory, bits):
    [value] = np.frombuffer(bits.to_bytes(8, "little"), dtype=np.float64)
    path = tmp_path_factory.mktemp("f") / "x" / "rank-0.ckpt"
    plain = there_and_back(path, float(value))
    assert math.isnan(plain) if math.isnan(value) else plain.hex() == float(value).hex()
    array = there_and_back(path, np.array([value]))
    assert array.tobytes() == np.array([value]).tobytes()


@pytest.mark.parametrize("kind", ["<f4", ">i8", "|b1", "<c16", "<M8[ns]", "<U3"])
def test_arrays_of_any_kind_and_shape(tmp_path, kind):
    array = np.arange(12).astype(kind).reshape(3, 4)[:, ::2]
    back = there_and_back(
        tmp_path / "s" / "x", {"a": array, "empty": array[:0], "one": array[0, 0]}
    )
    assert back["a"].dtype == array.dtype
    assert (back["a"] == array).all()
    assert back["empty"].shape == (0, 2)
    assert back["one"] == array[0, 0]
    back["a"][0, 0] = back["a"][1, 1]  # what comes back may be written to


def test_what_cannot_be_saved_is_named_with_its_place():
    with pytest.raises(tree.Unsaveable, match=r"state\['model'\]\[1\] is a builtins.object"):
        tree.Encoder().tree({"model": [1, object()]})
    with pytest.raises(tree.Unsaveable, match="Python objects"):
        tree.Encoder().tree(np.array([object()]))


@pytest.mark.parametrize("cut", [0, 4, 12, 40, -1])
def test_a_file_that_was_cut_off_is_no_checkpoint(tmp_path, cut):
    path = tmp_path / "s" / "x"
    written(path, {"a": np.arange(100)})
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=str(path)):
        tree.Decoder(str(path))
    path.write_bytes(whole + b"!")
    with pytest.raises(ValueError, match="damaged"):
        tree.Decoder(str(path))


def test_what_was_restored_has_the_form_of_what_was_given(tmp_path):
    state = {"pair": Pair(1, [2.5, None]), "array": np.zeros(3)}
    back = there_and_back(tmp_path / "s" / "x", state)
    got = tree.restore({"pair": Pair(0, [0.0, 1]), "array": np.ones(3)}, back)
    assert got["pair"] == Pair(1, [2.5, None])
    assert got["array"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"state\['pair'\] has another form"):
        tree.restore({"pair": (1, 2, 3), "array": 0}, back)


def test_the_generators_throw_the_same_again():
    import random

    random.gauss(0, 1)
    np.random.normal()
    state = dice.capture()
    first = (random.random(), random.gauss(0, 1), np.random.normal(size=3).tolist())
    dice.throw_again(state)
    assert first == (random.random(), random.gauss(0, 1), np.random.normal(size=3).tolist())


def test_only_the_newest_few_of_ones_own_rank_are_kept(tmp_path):
    here = {"HYPERION_CHECKPOINT_DIR": str(tmp_path), "HYPERION_JOB_ID": "j", "WORLD_SIZE": "2"}
    for rank in ("0", "1"):
        place = files.Place({**here, "RANK": rank})
        for step in range(1, 6 if rank == "0" else 8):
            encoder = tree.Encoder()
            files.write(place.file(place.step_directory(step)), {"size": 0}, encoder)
            place.prune()
    assert files.Place(here).steps() == [3, 4, 5, 6, 7]
    assert os.listdir(tmp_path / "j" / "step-4") == ["rank-0.ckpt"]


def test_a_gang_goes_on_from_what_it_is_told_and_a_single_process_from_its_newest(tmp_path):
    here = {"HYPERION_CHECKPOINT_DIR": str(tmp_path), "HYPERION_JOB_ID": "j"}
    for step in (9, 10):
        place = files.Place(here)
        files.write(place.file(place.step_directory(step)), {"size": 0}, tree.Encoder())
    told = {**here, "HYPERION_RESUME_FROM": "/elsewhere/step-8"}
    assert files.Place(told).resume_from() == str(tmp_path / "j" / "step-10")
    assert files.Place({**told, "WORLD_SIZE": "2"}).resume_from() == "/elsewhere/step-8"
    assert files.Place({"HYPERION_RESUME_FROM": "/x"}).resume_from() == "/x"
    assert files.Place({}).resume_from() == ""


def test_torchruns_workers_are_parts_of_a_replica_and_replicas_of_a_node_are_not():
    replica = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place = files.Place(replica)
    assert (place.rank, place.ranks, place.part, place.parts) == (3, 4, 0, 1)
    place = files.Place({**replica, "TORCHELASTIC_RUN_ID": "x"})
    assert (place.part, place.parts) == (1, 2)


def line(step: int, part: int = 0, parts: int = 1, whole: bool = False, path: str = "/c") -> bytes:
    return page.journal_line(
        step=step, path=path, at_ms=step, size_bytes=10, part=part, parts=parts, whole=whole
    )


def test_a_step_is_told_once_all_processes_of_the_replica_have_written_it(tmp_path):
    path = tmp_path / "page.saved"
    reader = Journal(str(tmp_path / "page"))
    assert reader.read() == []
    path.write_bytes(line(1, 0, 2) + line(2, 0, 2) + line(2, 1, 2))
    [saved] = reader.read()
    assert (saved.step, saved.size_bytes, saved.whole) == (2, 20, False)
    with path.open("ab") as file:
        file.write(line(1, 1, 2) + line(7, whole=True)[:-5])
    assert [saved.step for saved in reader.read()] == [1]
    with path.open("ab") as file:
        file.write(line(7, whole=True)[-5:])
    [saved] = reader.read()
    assert (saved.step, saved.whole) == (7, True)


def test_nonsense_in_a_journal_is_counted_and_left_out(tmp_path):
    bad = [b"no json\n", b"{}\n", b"\xff\xfe\n", line(-1), line(1, 2, 2), line(2**60)]
    bad.append(b'{"step": 1, "path": "", "at_ms": 1}\n')
    (tmp_path / "page.saved").write_bytes(b"".join(bad) + line(3))
    reader = Journal(str(tmp_path / "page"))
    assert [saved.step for saved in reader.read()] == [3]
    assert reader.faults == len(bad)


def test_a_long_journal_is_put_aside_and_nothing_of_it_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MOST_KEPT_BYTES", 500)
    reader, path = Journal(str(tmp_path / "page")), tmp_path / "page.saved"
    seen: list[int] = []
    for step in range(100):
        with path.open("ab") as file:
            file.write(line(step))
        if step % 7 == 0:
            seen += [saved.step for saved in reader.read()]
    while more := reader.read():
        seen += [saved.step for saved in more]
    assert seen == list(range(100))
    assert path.stat().st_size < 2000


def test_a_journal_that_was_put_aside_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MOST_KEPT_BYTES", 500)
    monkeypatch.setattr(journal, "MOST_READ_BYTES", 1000)
    (tmp_path / "page.saved").write_bytes(b"".join(line(step) for step in range(50)))
    reader = Journal(str(tmp_path / "page"))
    seen = [saved.step for saved in reader.read()]
    with (tmp_path / "page.saved").open("ab") as file:
        file.write(line(50))
    while more := reader.read():
        seen += [saved.step for saved in more]
    assert seen == list(range(51))


def test_the_page_is_not_followed_to_elsewhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(line(1))
    (tmp_path / "page.saved").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        Journal(str(tmp_path / "page")).read()


def test_old_pythons_can_read_the_library():
    """Users' programs need not run under ours: 3.9 is the oldest that has everything used here."""
    for path in Path(hyperion.workload.__file__).parent.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        assert "from __future__ import annotations" in path.read_text(encoding="utf-8") or (
            path.name == "__init__.py" and "|" not in path.read_text(encoding="utf-8")
        )
