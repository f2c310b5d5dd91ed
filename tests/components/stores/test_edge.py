"""The embedded store among processes, on damaged or unusable folders, and after a kill or a power
cut. A kill leaves the files as they are at that moment. A power cut leaves of each page either what
the last flush wrote or something newer, and of a new file all, a part or nothing: here chance
decides."""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from operator import ge, gt, le, lt

import numpy as np
import psutil
import pytest

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.components.stores.edge import store as edge_store
from rag_index.components.stores.edge.folder import Catalog, FileLock, WriterLock
from rag_index.components.stores.edge.reader import EdgeReader
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import PayloadCondition, VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.documents.canonical import comparable_time, decode_payload, encode_payload
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.errors import StoreBusy, StoreError
from tests.components.stores.edge_process import DIMENSION, fill, points, writer
from tests.waiting import eventually, when

DAMAGED = r"catalog\.json cannot be read.*restore"
LARGE = [2**53, 2**54, 2**60, 2**63 - 1, 10**16]
NUMBERS = [0, -1, 0.5, 1e300, 2**53 + 1, -(2**63), -(2**63) + 1]
WIDTH, POINTS, PAGE = 16, 400, 4096


def test_a_second_writer_of_a_collection_is_told_who_holds_it_and_may_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(edge_store, "WRITER_PATIENCE", 0.3)
    with closing(EdgeStore(tmp_path)) as store:
        store.create("c", DIMENSION, {})
    code = "store.points('c').count(); print('ready', flush=True); input(); store.close(); input()"
    with writer(tmp_path, code, "sys.argv.append('postgresql://u:s3cret@h/d')") as holder:
        assert holder.says() == "ready"
        with closing(EdgeStore(tmp_path, wait=0.3)) as store:
            with pytest.raises(StoreBusy) as busy:
                store.points("c").count()
            assert store.collections() == {"c": {}}, "nothing else is locked"
        message = str(busy.value)
        assert (
            f"collection c of the store at {tmp_path} is open in process {holder.pid} (-c "
            in message
        )
        assert time.strftime("since %Y-%m-%dT", time.gmtime()) in message
        assert "wait for it (--wait SECONDS) or use a Qdrant server" in message
        assert "s3cret" not in (tmp_path / "writers" / "c").read_text(), (
            "`try URL` is seen by other commands"
        )
        (tmp_path / "writers" / "c").write_bytes(b'{"pid": ')
        with pytest.raises(StoreBusy, match="another process"):
            EdgeStore(tmp_path).points("c").count()
        with closing(EdgeStore(tmp_path, wait=100)) as store, when(lambda: True, holder.goes_on):
            assert store.points("c").count() == 0
        assert holder.popen.poll() is None


def test_writers_of_different_collections_do_not_wait_for_each_other_and_neither_loses_anything(
    tmp_path,
):
    with closing(EdgeStore(tmp_path)) as one, closing(EdgeStore(tmp_path)) as two:
        for number in range(3):
            for store, name in ((one, "a"), (two, "b")):
                store.create(name, DIMENSION, {"number": number})
                store.points(name).upsert(points(range(10 * number, 10 * number + 10)))
                store.points(name).set_metadata({f"{number}": name})
                store.point_alias(f"live_{name}", name)
        assert one.aliases() == two.aliases() == {"live_a": "a", "live_b": "b"}
        two.create("c", DIMENSION, {})
        one.drop("c")
        with pytest.raises(StoreError, match="no collection or alias 'c'"):
            two.points("c").count()
    with closing(EdgeStore(tmp_path)) as store:
        for name in ("a", "b"):
            assert store.points(f"live_{name}").count() == 30
            assert store.points(name).metadata() == {"number": 2, "0": name, "1": name, "2": name}


def test_a_lock_that_is_released_is_free_although_a_forked_child_has_it_too(tmp_path):
    """A run forks processes that embed while it writes."""
    EdgeStore(tmp_path).close()
    folder, writing = FileLock(tmp_path), WriterLock(tmp_path, "c")
    assert folder.take()
    if not (child := os.fork()):
        signal.pause()
    try:
        folder.release()
        writing.release()
        assert FileLock(tmp_path).take()
        WriterLock(tmp_path, "c").release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_change_of_the_catalog_that_does_not_reach_the_disk_changes_nothing(
    tmp_path, monkeypatch
):
    catalog = Catalog(tmp_path)
    catalog.add("c", 4, {"n": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        catalog.merge_metadata("c", {"n": 2})
    for read in (catalog, Catalog(tmp_path)):
        assert read.entry("c").metadata == {"n": 1}
    with pytest.raises(StoreError, match="must be JSON"):
        catalog.merge_metadata("c", {"n": float("nan")})


def test_leftovers_of_a_crash_are_removed(tmp_path, monkeypatch):
    fill(tmp_path, 13, DIMENSION)
    folders = tmp_path / "collections"
    for name in ("made_but_not_entered", "c~half"):
        shutil.copytree(folders / "c", folders / name)
    (folders / "half").mkdir()
    (folders / "half" / "edge_config.json").write_text("{")
    (tmp_path / "trash" / "old-1" / "segments").mkdir(parents=True)
    (tmp_path / ".catalog.json.0a1b2c3d.tmp").write_text("{")
    with closing(EdgeStore(tmp_path)) as store:
        assert list((tmp_path / "trash").iterdir()) == []
        assert not list(tmp_path.glob(".catalog.json.*"))
        assert not (folders / "c~half").exists()
        assert store.collections() == {"c": {}}
        for name in ("made_but_not_entered", "half"):
            with pytest.raises(StoreError, match=name):
                store.points(name).count()
            store.create(name, 3, {})
            assert store.points(name).count() == 0
        assert store.points("c").count() == 10
        monkeypatch.setattr(
            EdgeStore, "_discard", lambda self, folder: None
        )  # it is killed before that
        store.drop("c")
    monkeypatch.undo()
    assert (folders / "c").exists()
    EdgeStore(tmp_path).close()
    assert not (folders / "c").exists()
    assert list((tmp_path / "trash").iterdir()) == []


def test_a_catalog_that_is_damaged_or_newer_is_named(tmp_path):
    EdgeStore(tmp_path).close()
    newer = ('{"version": 3, "collections": []}', r"newer rag-index .version 3.: upgrade")
    odd = '{"version": 2, "collections": 3, "aliases": {}}'
    older = (
        '{"version": 1, "collections": {"c": {"dimension": 4, "metadata": {}, "sparse": true}},'
        ' "aliases": {}}'
    )
    for content, said in (*((one, DAMAGED) for one in ("", "{", "[]", odd, older)), newer):
        (tmp_path / "catalog.json").write_text(content)
        for _ in range(2):
            with pytest.raises(StoreError, match=said):
                EdgeStore(tmp_path)


def test_a_full_disk_is_noticed_before_it_is_written_to(tmp_path):
    fill(tmp_path, 13, DIMENSION)
    with closing(EdgeStore(tmp_path, min_free=2**60)) as store:
        for write in (
            lambda: store.points("c").upsert(points(range(20))),
            lambda: store.points("c").update_payloads([(points(range(1)).ids[0], {})]),
            lambda: store.create("d", DIMENSION, {}),
            lambda: store.points("c").optimize(),
        ):
            with pytest.raises(
                StoreError, match=rf"no space left.*{tmp_path}.*MB are free.*free some"
            ):
                write()
        assert (store.points("c").count(), set(store.collections())) == (10, {"c"})
        assert len(store.points("c").search(VectorQuery(np.ones(DIMENSION, np.float32), 20))) == 10


def test_a_collection_whose_folder_is_gone_or_damaged(tmp_path):
    with closing(EdgeStore(tmp_path)) as store:
        for name in ("gone", "damaged"):
            store.create(name, DIMENSION, {})
    shutil.rmtree(tmp_path / "collections" / "gone")
    (tmp_path / "collections" / "damaged" / "edge_config.json").write_text("{")
    with closing(EdgeStore(tmp_path)) as store:
        for use in (
            lambda name: store.points(name).count(),
            lambda name: store.points(name).upsert(points(range(1))),
        ):
            with pytest.raises(StoreError, match="gone, is gone: run `rag-index rebuild`"):
                use("gone")
            with pytest.raises(StoreError, match="the embedded Qdrant failed on damaged"):
                use("damaged")
        with pytest.raises(StoreError, match=r"index of damaged was not built .*xception"):
            store.points("damaged").optimize()
        for name in ("gone", "damaged"):
            store.drop(name)
            store.create(name, DIMENSION, {})
            assert store.points(name).count() == 0


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """A store without a search index, with 3,600 clustered points of 768 dimensions (11 MB: too
    many to scan)."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(50, 768))
    vectors = (centres[rng.integers(50, size=3600)] + 0.5 * rng.normal(size=(3600, 768))).astype(
        np.float32
    )
    path = tmp_path_factory.mktemp("clustered")
    with closing(EdgeStore(path)) as store:
        store.create("c", 768, {}, sparse=True)
        plain, words = (
            points(range(3600)),
            Bm25Encoder(Bm25Model("english")).documents(["word"] * 3600),
        )
        store.points("c").upsert(PointBatch(plain.ids, vectors, plain.payloads, words))
        assert not store.points("c").indexed(), "sparse vectors count as indexed ones"
    return path, vectors


@pytest.mark.long
def test_the_search_index_is_built_beside_readers_and_finds_what_a_scan_finds(clustered, tmp_path):
    made, vectors = clustered
    path = tmp_path / "store"
    subprocess.run(["cp", "-a", "--sparse=always", made, path], check=True)
    with closing(EdgeReader(path)) as reader:
        assert not reader.points("c").indexed()
        with closing(EdgeStore(path)) as store:
            store.points("c").optimize()
            hits = 0
            for query in vectors[:40] + 0.1:
                exact = {
                    point.id
                    for point in store.points("c").search(VectorQuery(query, 10, exact=True))
                }
                hits += len(
                    exact & {point.id for point in store.points("c").search(VectorQuery(query, 10))}
                )
            assert hits / 400 >= 0.95
        (folder,) = (path / "collections").iterdir()
        assert not (folder / "unflushed").exists(), (
            "a reader would load it once to complete it, and then again"
        )
        assert eventually(lambda: reader.points("c").indexed())
        assert reader.points("c").count() == 3600
    with closing(EdgeStore(path)) as store:
        new = points(range(5000, 5001), 768)
        store.points("c").upsert(new)
        assert store.points("c").search(VectorQuery(new.vectors[0], 1))[0].payload["n"] == 5000
        assert store.points("c").indexed()


def test_a_collection_stays_locked_while_an_orphan_builds(clustered, tmp_path, monkeypatch):
    monkeypatch.setattr(edge_store, "WRITER_PATIENCE", 0.0)
    path = tmp_path / "store"
    shutil.copytree(clustered[0], path)
    with writer(path, "print('ready', flush=True); store.points('c').optimize()") as builder:
        builder.says()
        children = eventually(psutil.Process(builder.pid).children, every=0.005)
        builder.kill()
        assert children[0].is_running()
        with pytest.raises(StoreBusy, match=f"open in process {builder.pid} "):
            EdgeStore(path).points("c").count()
        with closing(EdgeStore(path, wait=200)) as store:
            assert store.points("c").count() == 3600
            assert store.points("c").indexed()


def test_a_collection_can_be_dropped_while_it_is_searched(tmp_path):
    fill(tmp_path, 1000, DIMENSION)
    with closing(EdgeStore(tmp_path)) as store:
        pages = store.points("c").scroll(page=10)
        next(pages)
        store.drop("c")
        with pytest.raises(StoreError, match="c was closed or dropped"):
            list(pages)


@pytest.mark.parametrize("kind", [None, "integer", "float"])
def test_numbers_are_equal_as_in_python_and_compare_as_floats(tmp_path, kind):
    chance = random.Random(3)
    values = [
        min(one + step, 2**63 - 1) * sign
        for one in LARGE
        for step in (-1, 0, 1)
        for sign in (1, -1)
    ] + NUMBERS
    values = [value for value in values if kind != "integer" or isinstance(value, int)]
    stored = [decode_payload(encode_payload({"f": value})) for value in values]
    with closing(EdgeStore(tmp_path)) as store:
        fill_numbered(store, stored, {"f": kind})
        for bound in chance.sample(values, 15):
            equal = {n for n, value in enumerate(values) if value == bound}
            assert found(store, "eq", bound) == found(store, "any", [bound, "x"]) == equal
        for bound in (-1, 0, 0.5):
            for word, compare in (("gte", ge), ("gt", gt), ("lte", le), ("lt", lt)):
                wanted = {n for n, value in enumerate(values) if compare(value, bound)}
                assert found(store, "range", {word: bound}) == wanted, (word, bound)


def test_times_in_rows_compare_in_all_forms_in_which_they_are_bounds(tmp_path):
    forms = [
        "2024-05-01",
        "20240501",
        "2024-05-01T10",
        "2024-05-01T10:00",
        "2024-05-01 10:00Z",
        "20240501T100000Z",
    ]
    forms += [
        "2024-05-01T10:00+02:00",
        "2024-05-01T10:00:00,5",
        "2024-W18-3T10:00",
        "2024-05-01 10:00:00.5+02:00",
    ]
    with closing(EdgeStore(tmp_path)) as store:
        fill_numbered(store, [{"f": comparable_time(form)} for form in forms], {"f": "datetime"})
        for bound in forms:
            later = {number for number, form in enumerate(forms) if in_utc(form) >= in_utc(bound)}
            assert found(store, "range", {"gte": bound}) == later
            assert forms.index(bound) in found(store, "eq", bound)


def found(store: EdgeStore, op: str, value: object) -> set[int]:
    return {
        point.payload["number"]
        for point in store.points("c").scroll(conditions=[PayloadCondition("f", op, value)])
    }


def in_utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fill_numbered(store: EdgeStore, payloads: list, kinds: dict) -> None:
    store.create("c", 2, {})
    store.points("c").index_fields(kinds)
    reserved = {"_rag": {"key": "[1]", "chunk": 0}}
    numbered = [
        {**payload, **reserved, "number": number} for number, payload in enumerate(payloads)
    ]
    ids = [str(uuid.UUID(int=number)) for number in range(len(payloads))]
    store.points("c").upsert(PointBatch(ids, np.ones((len(ids), 2), np.float32), numbered))


def batch(numbers, version: int) -> PointBatch:
    """Return points whose vectors and payload depend on their number and version alone."""
    ids = [str(uuid.UUID(int=number + 1, version=5)) for number in numbers]
    chance = [np.random.default_rng([number, version]) for number in numbers]
    vectors = np.asarray([one.normal(size=WIDTH) for one in chance], dtype=np.float32)
    words = [
        sorted(one.choice(1000, int(one.integers(1, 30)), replace=False).tolist()) for one in chance
    ]
    sparse = SparseVectors.from_rows(
        [SparseVector(tuple(row), (float(version + 1),) * len(row)) for row in words]
    )
    payloads = [{"version": version, "text": "x" * int(one.integers(10, 2000))} for one in chance]
    for number, payload in zip(numbers, payloads, strict=True):
        payload[RESERVED_KEY] = {"key": str(number), "chunk": 0}
    return PointBatch(ids, vectors, payloads, sparse)


def assert_holds(store, numbers, version: int) -> None:
    wanted = batch(numbers, version)
    stored = {point.id: point for point in store.points("c").retrieve(wanted.ids, vectors=True)}
    assert stored.keys() == set(wanted.ids)
    for row, (i, vector, payload) in enumerate(
        zip(wanted.ids, wanted.vectors, wanted.payloads, strict=True)
    ):
        assert stored[i].payload == payload
        assert np.allclose(stored[i].vector, vector / np.linalg.norm(vector), atol=1e-6)
        assert stored[i].sparse == wanted.sparse.row(row)


def write_without_flush(store, chance: random.Random) -> set[int]:
    """Write new points, replace, change and delete others; return the numbers of the others."""
    touched: set[int] = set()
    for step in range(chance.randint(2, 5)):
        some = chance.sample(range(POINTS), chance.randint(1, POINTS // 4))
        touched.update(some)
        store.points("c").upsert(
            batch(range(10_000 * (step + 1), 10_000 * (step + 1) + chance.randint(1, 300)), 1)
        )
        store.points("c").upsert(batch(some, 1))
        store.points("c").delete_points(batch(some[::2], 1).ids)
        store.points("c").update_payloads(
            [(i, {"y": "y" * chance.randint(1, 3000)}) for i in batch(some[1::2], 1).ids]
        )
    return touched


def cut_power(flushed, now, chance: random.Random) -> None:
    """Change the files of `now` to what a power cut could leave of them."""
    for file in filter(lambda path: path.is_file(), sorted(now.rglob("*"))):
        old = flushed / file.relative_to(now)
        if not old.exists() and chance.random() < 0.5:
            file.unlink()
            continue
        before, after = old.read_bytes() if old.exists() else b"", file.read_bytes()
        size = chance.choice((len(before), len(after)))
        kept, mixed = chance.choice((0.0, 0.5, 1.0)), bytearray()
        for start in range(0, size, PAGE):
            mixed += (before if chance.random() < kept else after)[start : start + PAGE].ljust(
                PAGE, b"\0"
            )
        if before != after:
            file.write_bytes(mixed[:size])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ended_by", ["kill", "power cut"])
def test_what_was_flushed_is_whole_and_the_rest_can_be_written_again(tmp_path, ended_by, seed):
    chance = random.Random(seed)
    with closing(EdgeStore(tmp_path / "store")) as store:
        store.create("c", WIDTH, {}, sparse=True)
        store.points("c").upsert(batch(range(POINTS + 100), 0))
        store.points("c").delete_points(batch(range(POINTS, POINTS + 100), 0).ids)
        store.points("c").flush()
        shutil.copytree(tmp_path / "store", tmp_path / "flushed")
        touched = write_without_flush(store, chance)
        shutil.copytree(tmp_path / "store", tmp_path / "left")
    if ended_by == "power cut":
        cut_power(
            tmp_path / "flushed" / "collections" / "c",
            tmp_path / "left" / "collections" / "c",
            chance,
        )
    intact = sorted(set(range(POINTS)) - touched)
    with closing(EdgeStore(tmp_path / "left")) as store:
        assert_holds(store, intact, 0)
        store.points("c").upsert(batch(sorted(touched), 2))
        store.points("c").flush()
    with closing(EdgeStore(tmp_path / "left")) as store:
        assert_holds(store, intact, 0)
        assert_holds(store, sorted(touched), 2)
