"""Processes that search an embedded store while another one writes it: what they see, and what
nobody damages. A writer that stays, as a watch does, keeps its shard open between writes, and is in
nobody's way."""

import hashlib
import os
import shutil
import signal
import threading
from contextlib import closing

import numpy as np
import pytest

from rag_index.components.stores.edge import reader as reader_module
from rag_index.components.stores.edge.folder import MIN_LINKED, Catalog, link_shard
from rag_index.components.stores.edge.reader import EdgeReader, View
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import PayloadCondition, VectorQuery
from rag_index.core.documents.batches import CommitMark
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import StoreBusy, StoreError
from tests.components.stores.edge_process import DIMENSION, WIDE, fill, numbers, points, writer
from tests.waiting import eventually, when

WRITES_AND_DELETES = """
store.points("c").upsert(points(range(2000, 3000), WIDE))
store.points("c").delete_points(points(range(2000, 3000), WIDE).ids)
store.points("c").upsert(points(range(3000, 3010), WIDE))
store.hand_over()
print("handed over", flush=True)
input()
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Searches wait for the newest state, however slow the machine is."""
    monkeypatch.setattr(reader_module, "FRESH_SECONDS", 100.0)


@pytest.fixture
def store(tmp_path):
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def reader(store):
    with closing(EdgeReader(store)) as reader:
        yield reader


def views(path) -> list:
    return list((path / "readers").iterdir())


def digests(folder) -> dict[str, str]:
    """Return the digest of each file's first megabytes: what follows in the engine's files is a
    hole."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != "wal")
    return {
        str(file.relative_to(folder)): hashlib.md5(file.open("rb").read(3_000_000)).hexdigest()
        for file in files
    }


def only_live_folder(path) -> bool:
    """Whether nothing is left but the folder that the catalog names."""
    folders = {folder.name for folder in (path / "collections").iterdir()}
    entry = Catalog(path).entry("c")
    return folders == {entry.folder} and not entry.writing and not any((path / "trash").iterdir())


def test_a_reader_of_a_collection_that_was_never_written_is_in_nobodys_way(tmp_path):
    """A service may wait for the first run, whose progress is then searched."""
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {}, sparse=True)
        store.point_alias("live", "c")
    vector, words = np.ones(DIMENSION, dtype=np.float32), SparseVector((1,), (1.0,))
    with closing(EdgeReader(tmp_path)) as reader:
        assert (reader.points("live").count(), list(reader.points("live").scroll())) == (0, [])
        assert reader.points("live").search(VectorQuery(vector, 5, words)) == []
        assert (
            reader.points("live").retrieve(points(range(1)).ids),
            reader.points("live").indexed(),
        ) == ([], True)
        assert reader.points("live").word_counts([1]).having == {1: 0}
        [view] = views(tmp_path)
        assert not [file for file in view.rglob("*") if file.is_file() and file.stat().st_nlink > 1]
        with closing(EdgeStore(tmp_path)) as store:
            store.points("live").upsert(points(range(10)))
            assert [folder.name for folder in (tmp_path / "collections").iterdir()] == ["c"], (
                "it is written in place"
            )
            store.points("live").flush()
            assert numbers(reader) == set(range(10))


def test_a_reader_needs_no_lock_and_leaves_nothing(store):
    with closing(EdgeStore(store)) as writer, closing(EdgeReader(store)) as reader:
        assert (reader.points("live").count(), writer.points("live").count()) == (997, 997)
        assert (reader.aliases(), reader.collections()) == ({"live": "c"}, {"c": {}})
        assert (reader.points("live").dimension(), reader.points("live").indexed()) == (WIDE, True)
        wanted = points(range(1000), WIDE)
        (hit,) = reader.points("live").search(
            VectorQuery(wanted.vectors[7], 1, conditions=[PayloadCondition("n", "eq", 7)])
        )
        assert (hit.id, hit.payload["n"]) == (wanted.ids[7], 7)
    assert views(store) == []
    with pytest.raises(StoreError, match="is closed"):
        reader.points("live").count()


def test_a_reader_of_an_empty_or_unknown_collection_says_so(tmp_path):
    with closing(EdgeReader(tmp_path / "none")) as reader:
        assert reader.aliases() == {}
        with pytest.raises(
            StoreError, match=r"no collection or alias 'live' in the store .it has: none.: run the"
        ):
            reader.points("live").count()


def test_reading_changes_no_byte_that_another_process_has(store):
    """Loading a shard corrects versions of deleted points, and closing it writes counters."""
    with closing(EdgeStore(store)) as writer:
        writer.create("c2", WIDE, {}, sparse=True)
        writer.points("c2").index_fields({"n": "integer"})
        writer.points("c2").upsert(points(range(1000), WIDE))
        writer.points("c2").delete_points(points(range(3)).ids)
    before = digests(store / "collections")
    for _ in range(2):
        with closing(EdgeReader(store)) as one, closing(EdgeReader(store)) as two:
            for reader in (one, two, one):
                for name in ("c", "c2"):
                    condition = PayloadCondition("n", "range", {"gte": 9})
                    assert reader.points(name).search(
                        VectorQuery(np.ones(WIDE, np.float32), 5, conditions=[condition])
                    )
                    assert reader.points(name).count() == 997
            assert len(views(store)) == 4
            for view in views(store):
                assert any(file.stat().st_nlink > 1 for file in view.rglob("*.mmap")), (
                    "vectors are not shared"
                )
                assert not list(view.glob("wal")), "the log reserves space"
        assert digests(store / "collections") == before


def test_what_is_written_beside_a_reader_is_found_once_the_writer_is_done(store, reader):
    assert numbers(reader) == set(range(3, 1000))
    seen = digests(views(store)[0])
    with closing(EdgeStore(store)) as writer:
        writer.points("c").set_commit_mark(CommitMark(6, "before the copy"))
        writer.points("live").upsert(points(range(1000, 3000), WIDE))
        writer.points("live").update_payloads([(points(range(5, 6)).ids[0], {"n": 5, "new": True})])
        writer.points("live").delete_points(points(range(500)).ids)
        writer.points("live").flush()
        assert writer.points("c").commit_mark().number == 6
        writer.points("c").set_commit_mark(CommitMark(7))
        assert numbers(writer) == set(range(500, 3000))
        assert numbers(reader) == set(range(3, 1000)), "the reader's files were written"
        assert reader.points("live").retrieve(points(range(5, 6)).ids)[0].payload.get("new") is None
        assert reader.points("live").seen_commits() == 6, "of which its files have all points"
        assert digests(views(store)[0]) == seen
    assert numbers(reader) == set(range(500, 3000))
    assert reader.points("live").seen_commits() == reader.points("live").commit_mark().number == 7
    with closing(EdgeStore(store)) as writer:
        writer.points("c").set_commit_mark(
            CommitMark(8, "of nothing, or of points that the reader has already")
        )
    assert (reader.points("live").count(), reader.points("live").seen_commits()) == (2500, 8)
    assert eventually(lambda: len(views(store)) == 1), "the old view stays"
    assert only_live_folder(store)


def test_searches_go_to_the_older_state_while_the_newest_is_loaded(store, reader, monkeypatch):
    may_load = threading.Event()
    load = View.load
    assert reader.points("live").count() == 997
    monkeypatch.setattr(reader_module, "FRESH_SECONDS", 0.01)
    monkeypatch.setattr(View, "load", lambda self: may_load.wait() and load(self))
    with closing(EdgeStore(store)) as writer:
        writer.points("live").delete_points(points(range(500)).ids)
    assert reader.points("live").count() == 997
    may_load.set()
    assert eventually(lambda: reader.points("live").count() == 500)
    may_load.clear()
    with closing(EdgeStore(store)) as writer:
        writer.drop("c")
        writer.create("c", DIMENSION, {})
    threading.Timer(0.3, may_load.set).start()
    assert reader.points("c").count() == 0, "what was dropped is searched"


def test_a_reader_that_comes_in_the_middle_of_a_run_is_let_in_between_two_flushes(store, reader):
    with closing(EdgeStore(store)) as writer, closing(EdgeReader(store)) as other:
        writer.points("live").upsert(points(range(1000, 1500), WIDE))
        assert [folder.name for folder in (store / "collections").iterdir()] == ["c"], (
            "it is written in place"
        )
        with when(lambda: reader._loading, lambda: writer.points("live").flush()):
            assert numbers(reader) == set(range(3, 1500))
        writer.points("live").upsert(points(range(1500, 2000), WIDE))
        writer.points("live").flush()
        assert numbers(reader) == numbers(other) == set(range(3, 1500))
        writer.close()
        assert numbers(reader) == numbers(other) == set(range(3, 2000))
    assert only_live_folder(store)


def test_rebuilds_and_rollbacks_are_followed(store, reader):
    assert reader.points("live").count() == 997
    with closing(EdgeStore(store)) as writer:
        writer.create("d", DIMENSION, {})
        writer.points("d").upsert(points(range(20)))
        writer.points("d").flush()
        assert reader.points("live").count() == 997
        writer.point_alias("live", "d")
        assert (reader.points("live").count(), reader.points("live").dimension()) == (20, DIMENSION)
        writer.point_alias("live", "c")
        assert reader.points("live").count() == 997
        writer.drop("c")
        with pytest.raises(StoreError, match="no collection or alias"):
            reader.points("live").count()
        assert (reader.points("d").count(), len(views(store))) == (
            20,
            1,
        ), "the view of what was dropped stays"
        writer.create("c", DIMENSION, {})
        writer.points("c").upsert(points(range(5)))
        writer.points("c").flush()
        assert reader.points("c").count() == 5


def test_a_scroll_that_began_ends_with_what_it_began_with(store, reader):
    pages = reader.points("live").scroll(page=10)
    next(pages)
    with closing(EdgeStore(store)) as writer:
        writer.points("live").delete_points(points(range(500)).ids)
    assert (reader.points("live").count(), len(list(pages))) == (500, 996)


def test_points_stay_as_they_are_and_their_view_until_they_are_dropped(store, reader):
    points_before = reader.points("live")
    assert points_before.count() == 997
    with closing(EdgeStore(store)) as writer:
        writer.points("live").delete_points(points(range(500)).ids)
    assert reader.points("live").count() == 500
    assert (points_before.count(), len(views(store))) == (997, 2), "what is read was closed"
    assert points_before.retrieve(points(range(9, 10)).ids)[0].payload["n"] == 9
    del points_before
    assert len(views(store)) == 1, "nobody reads it"
    kept = reader.points("live")
    assert kept.count() == 500
    reader.close()
    assert views(store) == []
    with pytest.raises(StoreError, match="was closed or dropped"):
        kept.count()


def test_points_do_not_become_those_of_another_collection_of_the_same_name(store):
    with closing(EdgeStore(store)) as writer:
        points_before = writer.points("c")
        assert points_before.count() == 997
        writer.drop("c")
        writer.create("c", WIDE, {})
        for use in (points_before.count, lambda: points_before.upsert(points(range(3), WIDE))):
            with pytest.raises(StoreError, match="was closed or dropped"):
                use()
        assert writer.points("c").count() == 0


def test_a_forked_child_closes_no_view_of_its_parent(store, reader):
    assert reader.points("live").count() == 997
    child = os.fork()
    if not child:
        engines = [
            view._engine for view in reader._views.values()
        ]  # whose threads the child does not have
        reader._views.clear()
        os._exit(0 if engines else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(views(store)) == 1
    with closing(EdgeStore(store)) as writer:
        writer.points("live").delete_points(points(range(500)).ids)
        assert len(list((store / "collections").iterdir())) == 2, "its files were written in place"
    assert numbers(reader) == set(range(500, 1000))


def test_a_copy_that_the_disk_has_no_room_for_is_refused_and_the_reader_goes_on(store, reader):
    assert reader.points("live").count() == 997
    disk = os.statvfs(store)
    with closing(EdgeStore(store, min_free=disk.f_blocks * disk.f_frsize)) as writer:
        with pytest.raises(StoreError, match="no space left for the store at"):
            writer.points("live").upsert(points(range(5000, 5001), WIDE))
        assert writer.points("live").count() == 997
    assert numbers(reader) == set(range(3, 1000))
    assert only_live_folder(store)


def test_a_writer_that_does_not_let_readers_in_is_named(store, monkeypatch):
    monkeypatch.setattr(reader_module, "WRITE_SECONDS", 0.3)
    code = (
        "store.points('c').upsert(points(range(1000, 1010), WIDE)); print(1, flush=True); input()"
    )
    with writer(store, f"{code}; store.points('c').flush(); input()") as process:
        process.says()
        message = rf"c of the store at .* is being written by process {process.pid} .*--wait"
        with closing(EdgeReader(store)) as reader, pytest.raises(StoreBusy, match=message):
            reader.points("live").count()
        with (
            closing(EdgeReader(store, wait=100)) as reader,
            when(lambda: reader._loading, process.goes_on),
        ):
            assert reader.points("live").count() == 1007
        process.popen.send_signal(signal.SIGSTOP)
        with closing(EdgeReader(store)) as reader:
            assert reader.points("live").count() == 1007, (
                "a process that hangs outside of a write is in nobody's way"
            )


def test_what_a_killed_writer_left_and_cannot_be_loaded_is_named_and_not_published(store):
    whole = store / "collections" / "c"
    shutil.copytree(whole, store / "collections" / "c~1")
    (store / "collections" / "c~1" / "edge_config.json").write_text("{")
    Catalog(store).set_folders("c", folder="c", writing="c~1")
    with (
        closing(EdgeStore(store)) as writing,
        pytest.raises(StoreError, match=r"failed on c at .*c~1"),
    ):
        writing.points("c").count()
    assert Catalog(store).entry("c").folder == "c"
    Catalog(store).set_folders("c", folder="c", writing="")
    (whole / "unflushed").touch()
    (whole / "edge_config.json").write_text("{")
    with (
        closing(EdgeReader(store)) as reader,
        pytest.raises(StoreError, match=r"failed on c at .*collections/c:"),
    ):
        reader.points("live").count()


def test_a_killed_reader_leaves_nothing_for_long(store):
    code = (
        "reader = EdgeReader(Path(sys.argv[1])); print(reader.points('c').count(), flush=True);"
        " input()"
    )
    for _ in range(2):
        with writer(store, code) as process:
            assert process.says() == "997"
    assert len(views(store)) == 1, "a reader removes what dead ones left"
    with closing(EdgeStore(store)) as writing:
        assert views(store) == []
        writing.points("live").upsert(points(range(1000, 1010), WIDE))
    assert [folder.name for folder in (store / "collections").iterdir()] == ["c"], "nobody reads it"


@pytest.mark.parametrize("beside", [False, True], ids=["in place", "in a copy"])
def test_a_killed_writer_loses_nothing_and_leaves_nothing(store, reader, beside):
    code = """
for start in range(1000, 1_000_000, 100):
    store.points('c').upsert(points(range(start, start + 100), WIDE))
    print(start + 100, flush=True)
"""
    if beside:
        assert reader.points("live").count() == 997
    with writer(store, code) as process:
        seen = [process.says() for _ in range(5)]
        written = int((seen + process.kill().split())[-1])
    expected = set(range(3, 1000 if beside else written))
    assert numbers(reader) >= expected
    assert beside <= (numbers(reader) == expected)
    with closing(EdgeStore(store)) as found:
        assert numbers(found) >= set(range(3, written))
    assert numbers(reader) >= set(range(3, written))
    assert only_live_folder(store)


def test_a_reader_waits_for_a_process_that_completes_what_a_killed_writer_wrote(store):
    """Two services may start after a kill. The second one does not take for damage what the first
    one works at."""
    (store / "collections" / "c" / "unflushed").touch()
    code = "import rag_index.components.stores.edge.shard as c; load = c.WritableShardFolder._claim"
    code += (
        "; c.WritableShardFolder._claim = lambda self: (print(1, flush=True), input(), load(self))"
    )
    with writer(store, "", before=code) as process:
        process.says()
        with closing(EdgeReader(store)) as reader, when(lambda: reader._loading, process.goes_on):
            assert numbers(reader) == set(range(3, 1000))


def test_a_writer_that_is_killed_while_it_copies_leaves_no_copy(store, reader):
    assert reader.points("live").count() == 997
    code = """
import os, signal
from rag_index.components.stores.edge import shard
def copy(source, target):
    target.mkdir()
    (target / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
shard.copy_shard = copy
store.points('c').upsert(points(range(1000, 1100), WIDE))
"""
    with writer(store, code) as process:
        process.popen.wait()
    assert (len(list((store / "collections").iterdir())), numbers(reader)) == (
        2,
        set(range(3, 1000)),
    )
    with closing(EdgeStore(store)) as found:
        assert numbers(found) == set(range(3, 1000))
    assert only_live_folder(store)


def test_a_view_shares_no_file_that_loading_may_correct(tmp_path):
    """Only with tens of thousands of points these files are as large as those that are linked."""
    shard = tmp_path / "shard" / "segments" / "one"
    shard.mkdir(parents=True)
    (tmp_path / "shard" / "edge_config.json").write_text("{}")
    for name in ("id_tracker.versions", "matrix.mmap"):
        (shard / name).write_bytes(os.urandom(MIN_LINKED))
    before = digests(tmp_path / "shard")
    link_shard(tmp_path / "shard", tmp_path / "view")
    view = tmp_path / "view" / "segments" / "one"
    assert (view / "matrix.mmap").samefile(shard / "matrix.mmap")
    with (view / "id_tracker.versions").open("r+b") as file:
        file.write(b"corrected")
    assert digests(tmp_path / "shard") == before


def test_a_writer_that_stays_hands_over_what_it_has_written_and_lets_go_when_asked(store):
    with closing(EdgeStore(store)) as kept, closing(EdgeReader(store)) as reader:
        for first in (
            2000,
            2010,
            2020,
        ):  # in place, and twice in a copy, since the reader has a view
            kept.points("c").upsert(points(range(first, first + 10), WIDE))
            kept.hand_over()
            assert reader.wanted() or first == 2000, (
                "an idle reader lets go, so that no copy is made"
            )
            assert numbers(reader) == {*range(3, 1000), *range(2000, first + 10)}
            assert not reader.wanted()
        kept.let_go()
        with writer(
            store, "store._wait = 0\nstore.points('c').count(); print('wrote', flush=True)"
        ) as other:
            eventually(lambda: list((store / "writers").glob("*wanted")))
            kept.let_go()
            assert other.says() == "wrote"
        assert not list((store / "writers").glob("*wanted")), "whoever was let in waits no more"
        kept.points("c").delete_points(points(range(2000, 2030), WIDE).ids)
        kept.hand_over()
        assert numbers(reader) == set(range(3, 1000))


def test_what_a_killed_writer_has_handed_over_is_written_no_more(store):
    """The log of a shard that stays open has texts that were deleted since. Loading it does not
    bring them back, nor change a file that a reader has."""
    with writer(store, WRITES_AND_DELETES) as process:
        assert process.says() == "handed over"
        with closing(EdgeReader(store)) as reader:
            assert numbers(reader) == {*range(3, 1000), *range(3000, 3010)}
            (view,) = (store / "readers").iterdir()
            before = digests(view)
            with closing(EdgeStore(store)) as next_one:
                process.kill()
                assert next_one.points("c").count() == 1007
                assert numbers(next_one) == {*range(3, 1000), *range(3000, 3010)}
            assert (digests(view), numbers(reader)) == (
                before,
                {*range(3, 1000), *range(3000, 3010)},
            )
    with closing(EdgeStore(store)) as whole:
        assert numbers(whole) == {*range(3, 1000), *range(3000, 3010)}
