"""The embedded store among processes, after crashes, and on damaged or unusable folders."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from rag_index.documents.batches import RESERVED_KEY, PointBatch
from rag_index.errors import StoreBusy, StoreError
from rag_index.stores import VectorQuery
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.store import EdgeStore
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

DIMENSION = 4

PROCESS = """
import sys
from pathlib import Path
import numpy as np
from rag_index.documents.batches import PointBatch
from rag_index.stores.edge.store import EdgeStore
from tests.stores.test_edge import points
store = EdgeStore(Path(sys.argv[1]))
"""


class Process:
    """Another Python process that uses the store; `says` waits for its next line."""

    def __init__(self, code: str, *args: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def says(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def kill(self) -> str:
        """Kill with SIGKILL, and return the output that nobody has read yet."""
        assert self.popen.stdout is not None
        self.popen.kill()
        rest = self.popen.stdout.read()  # communicate() would lose lines that a readline() has buffered
        self.popen.communicate()
        return rest


@pytest.fixture
def run() -> Iterator[Any]:
    started: list[Process] = []

    def start(code: str, *args: object) -> Process:
        started.append(Process(code, *args))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.kill()


def points(rows: range, dimension: int = DIMENSION) -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in rows]
    vectors = np.random.default_rng(rows.start).normal(size=(len(rows), dimension)).astype(np.float32)
    return PointBatch(ids, vectors, [{RESERVED_KEY: {"key": str(n), "chunk": 0}, "n": n} for n in rows])


# The lock


def test_a_second_process_is_told_who_holds_the_store(tmp_path: Path, run: Any) -> None:
    holder = run(PROCESS + "print('ready', flush=True); input()", tmp_path)
    assert holder.says() == "ready"
    began = time.monotonic()
    with pytest.raises(StoreBusy) as busy:
        EdgeStore(tmp_path, wait=0.3)
    assert time.monotonic() - began >= 0.3
    message = str(busy.value)
    assert f"the store at {tmp_path} is open in process {holder.pid} (-c " in message
    assert time.strftime("since %Y-%m-%dT", time.gmtime()) in message
    assert "wait for it (--wait SECONDS) or use a Qdrant server" in message


def test_waiting_gets_the_store_once_it_is_released(tmp_path: Path, run: Any) -> None:
    holder = run(PROCESS + "print('ready', flush=True); input(); store.close(); input()", tmp_path)
    holder.says()
    threading.Timer(0.3, lambda: holder.popen.stdin.write("\n") and holder.popen.stdin.flush()).start()
    with closing(EdgeStore(tmp_path, wait=100)) as store:
        assert store.collections() == {}
    assert holder.popen.poll() is None


def test_a_damaged_lock_file_says_another_process(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)):
        (tmp_path / ".lock").write_bytes(b'{"pid": ')
        with pytest.raises(StoreBusy, match="another process"):
            EdgeStore(tmp_path)


# Durability


def test_the_catalog_survives_kills_during_changes(tmp_path: Path, run: Any) -> None:
    code = """
import sys
from pathlib import Path
from rag_index.stores.edge.catalog import Catalog
catalog = Catalog(Path(sys.argv[1]))
start = int(sys.argv[2])
if "c" not in catalog:
    catalog.add("c", 4, {})
    catalog.add("d", 4, {})
for n in range(start, 1_000_000):
    catalog.merge_metadata("c", {"n": n, "filler": "x" * (n % 7) * 10_000})
    catalog.point_alias("live", "cd"[n % 2])
    print(n, flush=True)
"""
    file = tmp_path / "catalog.json"
    done = 0
    for attempt in range(8):
        writer = run(code, file, done)
        seen = [int(writer.says()) for _ in range(1 + 3 * attempt)]  # then it is in the middle of the next change
        done = max([*seen, *map(int, writer.kill().split())])
        found = Catalog(file)
        assert found.entry("c").metadata["n"] in (done, done + 1)
        assert found.aliases()["live"] in ("c", "d")
    assert done > 20


def test_a_change_of_the_catalog_that_does_not_reach_the_disk_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """It is replaced as a whole: a kill or a full disk never leaves half of it."""
    file = tmp_path / "catalog.json"
    catalog = Catalog(file)
    catalog.add("c", 4, {"n": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        catalog.merge_metadata("c", {"n": 2})
    for read in (catalog, Catalog(file)):
        assert read.entry("c").metadata == {"n": 1}


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {})
        store.upsert("c", points(range(10)))
    shutil.copytree(tmp_path / "collections" / "c", tmp_path / "collections" / "made_but_not_entered")
    (tmp_path / "collections" / "half").mkdir()
    (tmp_path / "collections" / "half" / "edge_config.json").write_text("{")
    (tmp_path / "trash" / "old-1" / "segments").mkdir(parents=True)
    (tmp_path / ".catalog.json.0a1b2c3d.tmp").write_text("{")
    with closing(EdgeStore(tmp_path)) as store:
        assert list((tmp_path / "trash").iterdir()) == []
        assert not list(tmp_path.glob(".catalog.json.*"))
        assert store.collections() == {"c": {}}
        for name in ("made_but_not_entered", "half"):
            with pytest.raises(StoreError, match=name):
                store.count(name)
            store.create(name, 3, {})
            assert store.count(name) == 0
        assert store.count("c") == 10
        store.drop("c")
        assert not (tmp_path / "collections" / "c").exists()
        assert list((tmp_path / "trash").iterdir()) == []


# Damaged and unusable folders


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"not a folder.*\[store\] path"):
            EdgeStore(path)


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder of an ordinary user. The test runs as that user, since root may write everywhere."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written(folder_of_nobody: Path) -> None:
    store, new = folder_of_nobody / "store", folder_of_nobody / "new"
    EdgeStore(store).close()
    for folder in (store, folder_of_nobody):
        folder.chmod(0o555)
    try:
        (store / ".lock").chmod(0o444)
        for path in (store, new):
            with pytest.raises(StoreError, match=r"cannot write to the store at .*make it writable.*\[store\] path"):
                EdgeStore(path)
    finally:
        folder_of_nobody.chmod(0o755)
        store.chmod(0o755)


def test_a_full_disk_is_noticed_before_it_is_written_to(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {})
        store.upsert("c", points(range(10)))
    with closing(EdgeStore(tmp_path, min_free=2**60)) as store:
        for write in (
            lambda: store.upsert("c", points(range(20))),
            lambda: store.update_payloads("c", [(points(range(1)).ids[0], {})]),
            lambda: store.create("d", DIMENSION, {}),
        ):
            with pytest.raises(StoreError, match=rf"no space left.*{tmp_path}.*MB are free.*free some"):
                write()
        assert store.count("c") == 10
        assert set(store.collections()) == {"c"}
        assert len(store.search("c", VectorQuery(np.ones(DIMENSION, np.float32), 20))) == 10


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "collections": 3, "aliases": {}}']
)
def test_a_damaged_catalog_is_named(tmp_path: Path, content: str) -> None:
    EdgeStore(tmp_path).close()
    (tmp_path / "catalog.json").write_text(content)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"catalog\.json cannot be read.*restore"):
            EdgeStore(tmp_path)


def test_a_catalog_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    EdgeStore(tmp_path).close()
    (tmp_path / "catalog.json").write_text(json.dumps({"version": 3, "collections": []}))
    with pytest.raises(StoreError, match=r"newer rag-index .version 3.: upgrade"):
        EdgeStore(tmp_path)


def test_a_collection_whose_folder_is_gone_or_damaged(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)) as store:
        store.create("gone", DIMENSION, {})
        store.create("damaged", DIMENSION, {})
    shutil.rmtree(tmp_path / "collections" / "gone")
    (tmp_path / "collections" / "damaged" / "edge_config.json").write_text("{")
    with closing(EdgeStore(tmp_path)) as store:
        with pytest.raises(StoreError, match="gone, is gone: run `rag-index rebuild`"):
            store.count("gone")
        with pytest.raises(StoreError, match="the embedded Qdrant failed on damaged"):
            store.count("damaged")
        for name in ("gone", "damaged"):
            store.drop(name)
            store.create(name, DIMENSION, {})
            assert store.count(name) == 0


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", ".hidden", "a b", "ü", "x" * 201])
def test_names_that_are_not_folder_names(tmp_path: Path, name: str) -> None:
    with closing(EdgeStore(tmp_path)) as store, pytest.raises(StoreError, match="cannot name a collection"):
        store.create(name, DIMENSION, {})


# Searching


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A store without a search index, with 3,600 clustered points of 768 dimensions (11 MB: too many to scan)."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(50, 768))
    vectors = (centres[rng.integers(50, size=3600)] + 0.5 * rng.normal(size=(3600, 768))).astype(np.float32)
    path = tmp_path_factory.mktemp("clustered")
    with closing(EdgeStore(path)) as store:
        store.create("c", 768, {})
        plain = points(range(3600))
        store.upsert("c", PointBatch(plain.ids, vectors, plain.payloads))
        assert not store.indexed("c")
    return path, vectors


def test_the_search_index_finds_what_a_scan_finds(clustered: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    made, vectors = clustered
    path = tmp_path / "store"
    shutil.copytree(made, path)
    with closing(EdgeStore(path)) as store:
        store.optimize("c")
        assert store.indexed("c")
        assert store.count("c") == 3600
        hits = 0
        for query in vectors[:40] + 0.1:
            exact = {point.id for point in store.search("c", VectorQuery(query, 10, exact=True))}
            hits += len(exact & {point.id for point in store.search("c", VectorQuery(query, 10))})
        assert hits / 400 >= 0.95
        store.upsert("c", points(range(5000, 5001), 768))
        assert store.search("c", VectorQuery(points(range(5000, 5001), 768).vectors[0], 1))[0].payload["n"] == 5000
        assert store.indexed("c")


def test_the_store_stays_locked_while_an_orphan_builds(
    clustered: tuple[Path, np.ndarray], tmp_path: Path, run: Any
) -> None:
    path = tmp_path / "store"
    shutil.copytree(clustered[0], path)
    builder = run(PROCESS + "print('ready', flush=True); store.optimize('c')", path)
    builder.says()
    children = eventually(psutil.Process(builder.pid).children, every=0.005)
    builder.kill()
    assert children[0].is_running()
    with pytest.raises(StoreBusy, match=f"a child of process {builder.pid} .*which has ended"):
        EdgeStore(path)
    with closing(EdgeStore(path, wait=200)) as store:
        assert store.count("c") == 3600
        assert store.indexed("c")


def test_an_index_that_cannot_be_built_says_why(clustered: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "store"
    shutil.copytree(clustered[0], path)
    (path / "collections" / "c" / "edge_config.json").write_text("{")
    with closing(EdgeStore(path)) as store, pytest.raises(StoreError, match=r"index of c was not built .*xception"):
        store.optimize("c")
    with closing(EdgeStore(clustered[0], min_free=2**60)) as store, pytest.raises(StoreError, match="no space left"):
        store.optimize("c")


def test_searches_work_while_points_are_written(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", 64, {})
        store.upsert("c", points(range(1000), 64))
        wrong: list[BaseException] = []
        writes = 0  # odd while a write is under way
        searched_in_write: set[int] = set()
        stop = threading.Event()

        def search() -> None:
            try:
                while not stop.is_set():
                    began = writes
                    assert len(store.search("c", VectorQuery(np.ones(64, np.float32), 10))) == 10
                    assert store.count("c") >= 1000
                    if began % 2 and began == writes:
                        searched_in_write.add(began)
            except BaseException as exc:
                wrong.append(exc)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(1000, 10_000, 1500):
            batch = points(range(start, start + 1500), 64)
            writes += 1
            store.upsert("c", batch)
            writes += 1
            store.delete_chunks("c", {str(start): 0})
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert searched_in_write, "no search began and ended within a write: searches wait for writes"
        assert store.count("c") == 9_994


def test_a_collection_can_be_dropped_while_it_is_searched(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {})
        store.upsert("c", points(range(1000)))
        pages = store.scroll("c", page=10)
        next(pages)
        store.drop("c")
        with pytest.raises(StoreError, match="c was closed or dropped"):
            list(pages)


def test_writes_are_flushed_regularly(tmp_path: Path, run: Any) -> None:
    """The next open replays writes that were never flushed. The engine's log says where that begins."""
    code = f"""
store.create('c', {DIMENSION}, {{}})
log = Path(sys.argv[1]) / 'collections' / 'c' / 'wal' / 'first-index'
before = log.read_bytes()
store.upsert('c', points(range(9_000)))
print(log.read_bytes() == before, flush=True)
store.upsert('c', points(range(9_000, 12_000)))
print(log.read_bytes() == before, flush=True); input()
"""
    writer = run(PROCESS + code, tmp_path)
    assert [writer.says(), writer.says()] == ["True", "False"]
    writer.kill()
    with closing(EdgeStore(tmp_path)) as store:
        assert store.count("c") == 12_000


def test_a_flush_leaves_nothing_for_the_next_open_to_replay(tmp_path: Path) -> None:
    """What is flushed survives a power cut; the engine's log then begins behind it."""
    log = tmp_path / "collections" / "c" / "wal" / "first-index"
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {})
        for start in (0, 100):
            before = log.read_bytes()
            for first in range(start, start + 100, 10):
                store.upsert("c", points(range(first, first + 10)))
            assert log.read_bytes() == before
            store.flush("c")
            assert log.read_bytes() != before
