"""What a kill or a power cut leaves of the embedded store: all that was flushed, and nothing that hinders writing.

A kill leaves the files as they are at that moment. A power cut leaves of each page either what the last flush wrote or
something newer, and of a new file all, a part or nothing: here chance decides.
"""

import random
import shutil
import uuid
from contextlib import closing

import numpy as np
import pytest

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.documents.vectors import SparseVector, SparseVectors

DIMENSION, POINTS, PAGE = 16, 400, 4096
CASES = 2


def batch(numbers, version: int) -> PointBatch:
    """Return points whose vectors and payload depend on their number and version alone."""
    ids = [str(uuid.UUID(int=number + 1, version=5)) for number in numbers]
    chance = [np.random.default_rng([number, version]) for number in numbers]
    vectors = np.asarray([one.normal(size=DIMENSION) for one in chance], dtype=np.float32)
    words = [sorted(one.choice(1000, int(one.integers(1, 30)), replace=False).tolist()) for one in chance]
    sparse = SparseVectors.from_rows([SparseVector(tuple(row), (float(version + 1),) * len(row)) for row in words])
    payloads = [
        {RESERVED_KEY: {"key": str(number), "chunk": 0}, "version": version, "text": "x" * int(one.integers(10, 2000))}
        for number, one in zip(numbers, chance, strict=True)
    ]
    return PointBatch(ids, vectors, payloads, sparse)


def assert_holds(store, numbers, version: int) -> None:
    wanted = batch(numbers, version)
    stored = {point.id: point for point in store.retrieve("c", wanted.ids, vectors=True)}
    assert stored.keys() == set(wanted.ids)
    for row, (i, vector, payload) in enumerate(zip(wanted.ids, wanted.vectors, wanted.payloads, strict=True)):
        assert stored[i].payload == payload
        assert np.allclose(stored[i].vector, vector / np.linalg.norm(vector), atol=1e-6)
        assert stored[i].sparse == wanted.sparse.row(row)


def write_without_flush(store, chance: random.Random) -> set[int]:
    """Write new points, replace, change and delete others; return the numbers of the others."""
    touched: set[int] = set()
    for step in range(chance.randint(2, 5)):
        some = chance.sample(range(POINTS), chance.randint(1, POINTS // 4))
        touched.update(some)
        store.upsert("c", batch(range(10_000 * (step + 1), 10_000 * (step + 1) + chance.randint(1, 300)), 1))
        store.upsert("c", batch(some, 1))
        store.delete_points("c", batch(some[::2], 1).ids)
        store.update_payloads("c", [(i, {"y": "y" * chance.randint(1, 3000)}) for i in batch(some[1::2], 1).ids])
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
        kept = chance.choice((0.0, 0.5, 1.0))
        pages = [
            (before if chance.random() < kept else after)[start : start + PAGE].ljust(PAGE, b"\0")
            for start in range(0, size, PAGE)
        ]
        if before != after:
            file.write_bytes(b"".join(pages)[:size])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("ended_by", ["kill", "power cut"])
def test_what_was_flushed_is_whole_and_the_rest_can_be_written_again(tmp_path, ended_by, seed):
    chance = random.Random(seed)
    with closing(EdgeStore(tmp_path / "store")) as store:
        store.create("c", DIMENSION, {}, sparse=True)
        store.upsert("c", batch(range(POINTS + 100), 0))
        store.delete_points("c", batch(range(POINTS, POINTS + 100), 0).ids)
        store.flush("c")
        shutil.copytree(tmp_path / "store", tmp_path / "flushed")
        touched = write_without_flush(store, chance)
        shutil.copytree(tmp_path / "store", tmp_path / "left")
    if ended_by == "power cut":
        folder = "collections/c"
        cut_power(tmp_path / "flushed" / folder, tmp_path / "left" / folder, chance)
    intact = sorted(set(range(POINTS)) - touched)
    with closing(EdgeStore(tmp_path / "left")) as store:
        assert_holds(store, intact, 0)
        store.upsert("c", batch(sorted(touched), 2))
        store.flush("c")
    with closing(EdgeStore(tmp_path / "left")) as store:
        assert_holds(store, intact, 0)
        assert_holds(store, sorted(touched), 2)
