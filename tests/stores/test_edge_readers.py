"""Processes that search an embedded store while another one writes it: what they see, and what nobody damages."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rag_index.documents.commits import CommitMark
from rag_index.documents.vectors import SparseVector
from rag_index.errors import StoreBusy, StoreError
from rag_index.stores import Condition, VectorQuery
from rag_index.stores.edge import reader as edge_reader
from rag_index.stores.edge import reader as reader_module
from rag_index.stores.edge import store as edge_store
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.collection import EdgeCollection
from rag_index.stores.edge.collection_reader import CollectionReader
from rag_index.stores.edge.reader import EdgeReader
from rag_index.stores.edge.shard_files import MIN_LINKED, link_shard
from rag_index.stores.edge.store import EdgeStore
from tests.stores.test_edge import DIMENSION, PROCESS, clustered, points, run
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["clustered", "run"]

WIDE = 256
"""With a thousand vectors of this dimension the engine's large files are large enough to be linked."""

READ = """
import sys
from pathlib import Path
import numpy as np
from rag_index.stores.edge.reader import EdgeReader
reader = EdgeReader(Path(sys.argv[1]))
print(reader.count("c"), flush=True)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches wait for the newest state, however slow the machine is."""
    monkeypatch.setattr(reader_module, "FRESH_SECONDS", 100.0)


def fill(path: Path, count: int = 1000, dimension: int = WIDE) -> None:
    with closing(EdgeStore(path)) as store:
        store.create("c", dimension, {})
        store.upsert("c", points(range(count), dimension))
        store.delete_points("c", points(range(3)).ids)
        store.point_alias("live", "c")


def numbers(store: EdgeReader | EdgeStore) -> set[int]:
    return {point.payload["n"] for point in store.scroll("live")}


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file's first megabytes: what follows in the engine's files is a hole."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != "wal")
    return {str(file.relative_to(folder)): hashlib.md5(file.open("rb").read(3_000_000)).hexdigest() for file in files}


def live_folder(path: Path) -> Path:
    return path / "collections" / Catalog(path / "catalog.json").entry("c").folder


def only_live_folder(path: Path) -> bool:
    """Whether nothing is left but the folder that the catalog names."""
    folders = {folder.name for folder in (path / "collections").iterdir()}
    return folders == {live_folder(path).name} and not any((path / "trash").iterdir())


# Reading


def test_a_collection_that_was_never_written_is_read_without_opening_it(tmp_path: Path) -> None:
    """Loading one takes 30 ms of processor time, and the tables of a new database are mostly empty."""
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {}, sparse=True)
        store.point_alias("live", "c")
    vector, words = np.ones(DIMENSION, dtype=np.float32), SparseVector((1,), (1.0,))
    with closing(EdgeReader(tmp_path)) as reader:
        assert (reader.count("live"), reader.count_sparse("live"), list(reader.scroll("live"))) == (0, 0, [])
        assert (
            reader.search("live", VectorQuery(vector, 5)) == reader.search("live", VectorQuery(vector, 5, words)) == []
        )
        assert (reader.retrieve("live", points(range(1)).ids), reader.indexed("live")) == ([], True)
        assert not (tmp_path / "readers").exists(), "no view was made"
        with closing(EdgeStore(tmp_path)) as store:
            store.upsert("live", points(range(10)))
        assert numbers(reader) == set(range(10))
        assert len(reader.search("live", VectorQuery(vector, 5))) == 5


def test_a_reader_needs_no_lock_and_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeStore(tmp_path)) as writer, closing(EdgeReader(tmp_path)) as reader:
        assert (reader.count("live"), writer.count("live")) == (997, 997)
        assert (reader.aliases(), reader.collections()) == ({"live": "c"}, {"c": {}})
        assert (reader.dimension("live"), reader.has_sparse("live"), reader.indexed("live")) == (WIDE, False, True)
        wanted = points(range(1000), WIDE)
        (hit,) = reader.search("live", VectorQuery(wanted.vectors[7], 1, conditions=[Condition("n", "eq", 7)]))
        assert (hit.id, hit.payload["n"]) == (wanted.ids[7], 7)
        assert [point.id for point in reader.retrieve("live", [wanted.ids[7]])] == [wanted.ids[7]]
    assert list((tmp_path / "readers").iterdir()) == []
    with pytest.raises(StoreError, match="is closed"):
        reader.count("live")


def test_a_reader_of_an_empty_or_unknown_collection_says_so(tmp_path: Path) -> None:
    with closing(EdgeReader(tmp_path / "none")) as reader:
        assert reader.aliases() == {}
        with pytest.raises(StoreError, match=r"no collection or alias 'live' in the store .it has: none.: run the"):
            reader.count("live")


def test_reading_changes_no_byte_that_another_process_has(tmp_path: Path) -> None:
    """Loading a shard corrects versions of deleted points, and closing it writes counters."""
    fill(tmp_path)
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c2", WIDE, {}, sparse=True)
        store.index_fields("c2", {"n": "integer"})
        store.upsert("c2", points(range(1000), WIDE))
        store.delete_points("c2", points(range(3)).ids)
    before = digests(tmp_path / "collections")
    for _ in range(2):
        with closing(EdgeReader(tmp_path)) as one, closing(EdgeReader(tmp_path)) as two:
            for reader in (one, two, one):
                for name in ("c", "c2"):
                    condition = Condition("n", "range", {"gte": 9})
                    assert reader.search(name, VectorQuery(np.ones(WIDE, np.float32), 5, conditions=[condition]))
                    assert reader.count(name) == 997
            views_folder = next((tmp_path / "readers").glob("*/views/c"))
            assert any(file.stat().st_nlink > 1 for file in views_folder.rglob("*.mmap")), "vectors are not shared"
            assert not list(views_folder.glob("wal")), "the log reserves space"
        assert digests(tmp_path / "collections") == before


# Writing beside readers


def test_what_is_written_beside_a_reader_is_found_once_the_writer_is_done(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        assert numbers(reader) == set(range(3, 1000))
        seen = digests(next((tmp_path / "readers").glob("*/views/c")))
        with closing(EdgeStore(tmp_path)) as writer:
            writer.upsert("live", points(range(1000, 3000), WIDE))
            writer.update_payloads("live", [(points(range(5, 6)).ids[0], {"n": 5, "new": True})])
            writer.delete_points("live", points(range(500)).ids)
            writer.flush("live")
            assert numbers(writer) == set(range(500, 3000))
            assert numbers(reader) == set(range(3, 1000)), "the reader's files were written"
            assert reader.retrieve("live", points(range(5, 6)).ids)[0].payload.get("new") is None
            assert digests(next((tmp_path / "readers").glob("*/views/c"))) == seen
        assert numbers(reader) == set(range(500, 3000))
        assert eventually(lambda: len(list((tmp_path / "readers").glob("*/views/*"))) == 1), "the old view stays"
    assert only_live_folder(tmp_path)


def test_a_batch_loads_a_collection_once_beside_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    loaded: list[str] = []
    load = CollectionReader._loaded

    def note_load(self: CollectionReader) -> Any:
        if self._shard is None and isinstance(self, EdgeCollection):
            loaded.append(self.name)
        return load(self)

    monkeypatch.setattr(CollectionReader, "_loaded", note_load)
    with closing(EdgeReader(tmp_path)) as reader:
        assert numbers(reader) == set(range(3, 1000))
        for first in (1000, 2000):
            with closing(EdgeStore(tmp_path, brief=True)) as writer:
                before = writer.count("live")
                writer.upsert("live", points(range(first, first + 1000), WIDE))
                assert reader.count("live") == before, "the reader's files were written"
            assert eventually(lambda before=before: reader.count("live") == before + 1000)
    assert loaded == ["c", "c"]
    assert only_live_folder(tmp_path)


def test_the_mark_of_a_commit_follows_the_points_into_their_copy(tmp_path: Path) -> None:
    fill(tmp_path)
    mark = CommitMark(7, "2026-11-20T02:00:00+00:00")
    with closing(EdgeReader(tmp_path)) as reader:
        assert reader.count("c") == 997
        with closing(EdgeStore(tmp_path)) as store:
            store.set_commit_mark("c", CommitMark(6, "before the copy"))
            store.upsert("c", points(range(2000, 2001), WIDE))
            assert store.commit_mark("c").number == 6
            store.set_commit_mark("c", mark)
    with closing(EdgeStore(tmp_path)) as store:
        assert store.commit_mark("live") == mark


def test_searches_go_to_the_older_state_while_the_newest_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    may_load = threading.Event()
    load = CollectionReader.load
    with closing(EdgeReader(tmp_path)) as reader:
        assert reader.count("live") == 997
        monkeypatch.setattr(reader_module, "FRESH_SECONDS", 0.01)
        monkeypatch.setattr(CollectionReader, "load", lambda self: may_load.wait() and load(self))
        with closing(EdgeStore(tmp_path)) as writer:
            writer.delete_points("live", points(range(500)).ids)
        assert reader.count("live") == 997
        may_load.set()
        assert eventually(lambda: reader.count("live") == 500)
        may_load.clear()
        with closing(EdgeStore(tmp_path)) as writer:
            writer.drop("c")
            writer.create("c", DIMENSION, {})
        threading.Timer(0.3, may_load.set).start()
        assert reader.count("c") == 0, "what was dropped is searched"


def test_a_reader_that_comes_in_the_middle_of_a_run_is_let_in(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeStore(tmp_path)) as writer:
        writer.upsert("live", points(range(1000, 1500), WIDE))
        assert Catalog(tmp_path / "catalog.json").entry("c").in_place
        with closing(EdgeReader(tmp_path)) as reader, closing(EdgeReader(tmp_path)) as other:
            assert numbers(reader) == set(range(3, 1500))
            writer.upsert("live", points(range(1500, 2000), WIDE))
            assert numbers(reader) == numbers(other) == set(range(3, 1500))
            writer.close()
            assert numbers(reader) == numbers(other) == set(range(3, 2000))
    assert only_live_folder(tmp_path)


def test_rebuilds_and_rollbacks_are_followed(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        assert reader.count("live") == 997
        with closing(EdgeStore(tmp_path)) as writer:
            writer.create("d", DIMENSION, {})
            writer.upsert("d", points(range(20)))
            assert reader.count("live") == 997
            writer.point_alias("live", "d")
            assert (reader.count("live"), reader.dimension("live")) == (20, DIMENSION)
            writer.point_alias("live", "c")
            assert reader.count("live") == 997
            writer.drop("c")
            with pytest.raises(StoreError, match="no collection or alias"):
                reader.count("live")
            writer.create("c", DIMENSION, {})
            writer.upsert("c", points(range(5)))
            assert reader.count("c") == 5


def test_a_scroll_that_began_ends_with_what_it_began_with(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        pages = reader.scroll("live", page=10)
        next(pages)
        with closing(EdgeStore(tmp_path)) as writer:
            writer.delete_points("live", points(range(500)).ids)
        assert reader.count("live") == 500
        assert len(list(pages)) == 996


def test_the_search_index_is_built_beside_readers(clustered: tuple[Path, NDArray[np.float32]], tmp_path: Path) -> None:
    made, vectors = clustered
    path = tmp_path / "store"
    subprocess.run(["cp", "-a", "--sparse=always", made, path], check=True)
    with closing(EdgeReader(path)) as reader:
        assert not reader.indexed("c")
        with closing(EdgeStore(path)) as writer:
            writer.optimize("c")
            assert len(reader.search("c", VectorQuery(vectors[0], 3))) == 3
            writer.upsert("c", points(range(5000, 5001), 768))
        assert eventually(lambda: reader.indexed("c"))
        assert reader.count("c") == 3601


# What goes wrong


def test_a_filesystem_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with closing(EdgeReader(tmp_path)) as reader:
        assert numbers(reader) == set(range(3, 1000))


def test_a_copy_that_the_disk_has_no_room_for_is_refused_and_the_reader_goes_on(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        reader.count("live")
        with closing(EdgeStore(tmp_path)) as writer:
            disk = os.statvfs(tmp_path)
            writer.upsert("live", points(range(0), WIDE))
            writer._min_free = writer._get("c")._claim._min_free = disk.f_bavail * disk.f_frsize - 1000
            writer._get("c")._min_free = 0
            with pytest.raises(StoreError, match="no space left for the store at"):
                writer.upsert("live", points(range(5000, 5001), WIDE))
        assert numbers(reader) == set(range(3, 1000))
    assert only_live_folder(tmp_path)


def test_a_damaged_collection_is_named_and_a_missing_one(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "collections" / "c" / "edge_config.json").write_text("{")
    with closing(EdgeReader(tmp_path)) as reader:
        for _ in range(2):
            with pytest.raises(StoreError, match="the embedded Qdrant failed on c"):
                reader.count("live")
        (tmp_path / "collections" / "c").rename(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="c, is gone: run `rag-index rebuild`"):
            reader.count("live")


def test_a_writer_that_hangs_is_named(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_reader, "ASK_SECONDS", 0.3)
    fill(tmp_path)
    code = f"store.upsert('c', points(range(1000, 1010), {WIDE})); print('written', flush=True); input()"
    writer = run(PROCESS + code, tmp_path)
    assert writer.says() == "written"
    writer.popen.send_signal(signal.SIGSTOP)
    message = rf"c of the store at .* is being written by process {writer.pid} .*--wait"
    with closing(EdgeReader(tmp_path)) as reader, pytest.raises(StoreBusy, match=message):
        reader.count("live")
    monkeypatch.undo()
    writer.popen.send_signal(signal.SIGCONT)
    with closing(EdgeReader(tmp_path, wait=100)) as reader:
        assert reader.count("live") == 1007


# Batches beside a run


@pytest.mark.parametrize("beside", [False, True], ids=["in place", "in a copy"])
def test_a_batch_of_another_collection_is_let_in_while_a_run_writes_and_neither_loses_anything(
    tmp_path: Path, beside: bool
) -> None:
    fill(tmp_path)
    with ExitStack() as stack:
        reader = stack.enter_context(closing(EdgeReader(tmp_path)))
        threads = stack.enter_context(ThreadPoolExecutor())
        if beside:
            assert reader.count("live") == 997
        writer = stack.enter_context(closing(EdgeStore(tmp_path, lets_batches_in=True)))
        for number in range(3):
            writer.upsert("c", points(range(1000 + 10 * number, 1010 + 10 * number), WIDE))
            if beside and not number:
                writer.optimize("c")
            with closing(EdgeStore(tmp_path, brief=True)) as batch:
                batch.create("other", DIMENSION, {})
                written = threads.submit(writer.upsert, "c", points(range(2000 + number, 2001 + number), WIDE))
                batch.upsert("other", points(range(10 * number, 10 * number + 10)))
                with closing(EdgeReader(tmp_path)) as other:
                    assert numbers(other) >= set(range(3, 1000))
                assert not written.done(), "two processes write"
            written.result()
            assert reader.count("other") == 10 * number + 10
            writer.set_metadata("c", {"number": number})
        assert beside == (numbers(reader) == set(range(3, 1000))), "a copy that is not complete was published"
        writer.close()
        assert numbers(reader) == {*range(3, 1030), *range(2000, 2003)}
        assert reader.count("other") == 30
    assert len(list((tmp_path / "collections").iterdir())) == 2


def test_a_run_that_is_killed_while_a_batch_is_in_loses_nothing(tmp_path: Path, run: Any) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        assert reader.count("live") == 997
        code = f"store.upsert('c', points(range(1000, 1010), {WIDE})); print('written', flush=True); input()"
        writer = run(PROCESS.replace("[1]))", "[1]), lets_batches_in=True)") + code, tmp_path)
        assert writer.says() == "written"
        with closing(EdgeStore(tmp_path, brief=True)) as batch:
            batch.create("other", DIMENSION, {})
            writer.kill()
        with closing(EdgeStore(tmp_path)) as store:
            assert numbers(store) >= set(range(3, 1010))
            assert "other" in store.collections()
        assert numbers(reader) == set(range(3, 1010))
    assert len(list((tmp_path / "collections").iterdir())) == 2


def test_a_batch_that_hangs_is_named_and_nothing_is_written_beside_it(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_store, "BATCH_LIMIT", 1.0)
    fill(tmp_path)
    with closing(EdgeStore(tmp_path, lets_batches_in=True)) as writer, ThreadPoolExecutor() as threads:
        writer.upsert("c", points(range(1000, 1010), WIDE))
        batch = run(PROCESS.replace("[1]))", "[1]), brief=True)") + "print('in', flush=True); input()", tmp_path)
        assert batch.says() == "in"
        batch.popen.send_signal(signal.SIGSTOP)
        waiting = threads.submit(writer.upsert, "c", points(range(2000, 2010), WIDE))
        message = rf"given to a batch of process {batch.pid} .* let that process go on or end it"
        with pytest.raises(StoreBusy, match=message):
            waiting.result()
        with pytest.raises(StoreBusy, match=message):
            writer.flush("c")
    batch.kill()
    with closing(EdgeStore(tmp_path)) as store:
        assert numbers(store) == set(range(3, 1010))


# Kills


def test_a_killed_reader_leaves_nothing_for_long(tmp_path: Path, run: Any) -> None:
    fill(tmp_path)
    for _ in range(3):
        reader = run(READ + "input()", tmp_path)
        assert reader.says() == "997"
        reader.kill()
    assert len(list((tmp_path / "readers").iterdir())) == 1, "a reader removes what dead ones left"
    with closing(EdgeStore(tmp_path)) as writer:
        assert list((tmp_path / "readers").iterdir()) == []
        writer.upsert("live", points(range(1000, 1010), WIDE))
    assert live_folder(tmp_path).name == "c", "nobody reads it"


@pytest.mark.parametrize("beside", [False, True], ids=["in place", "in a copy"])
def test_a_killed_writer_loses_nothing_and_leaves_nothing(tmp_path: Path, run: Any, beside: bool) -> None:
    fill(tmp_path)
    code = f"""
for start in range(1000, 1_000_000, 100):
    store.upsert('c', points(range(start, start + 100), {WIDE}))
    print(start + 100, flush=True)
"""
    with closing(EdgeReader(tmp_path)) as reader:
        if beside:
            assert reader.count("live") == 997
        writer = run(PROCESS + code, tmp_path)
        seen = [writer.says() for _ in range(5)]
        written = int((seen + writer.kill().split())[-1])
        expected = set(range(3, 1000 if beside else written))
        assert numbers(reader) >= expected
        assert beside <= (numbers(reader) == expected)
        with closing(EdgeStore(tmp_path)) as store:
            assert numbers(store) >= set(range(3, written))
        assert numbers(reader) >= set(range(3, written))
    assert only_live_folder(tmp_path)
    assert not Catalog(tmp_path / "catalog.json").entry("c").writing


def test_a_writer_that_is_killed_while_it_copies_leaves_no_copy(tmp_path: Path, run: Any) -> None:
    fill(tmp_path)
    with closing(EdgeReader(tmp_path)) as reader:
        reader.count("live")
        code = f"""
import os, signal
from rag_index.stores.edge import shard_files
def copy(source, target):
    target.mkdir()
    (target / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
shard_files.copy_shard = copy
store.upsert('c', points(range(1000, 1100), {WIDE}))
"""
        writer = run(PROCESS + code, tmp_path)
        writer.popen.wait()
        assert len(list((tmp_path / "collections").iterdir())) == 2
        assert numbers(reader) == set(range(3, 1000))
        with closing(EdgeStore(tmp_path)) as store:
            assert numbers(store) == set(range(3, 1000))
    assert only_live_folder(tmp_path)


def test_a_view_shares_no_file_that_loading_may_correct(tmp_path: Path) -> None:
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
