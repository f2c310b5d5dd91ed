"""An export holds every point exactly, in order of id, and replaces its file as a whole."""

import json
import tracemalloc
import uuid
from contextlib import closing

import numpy as np
import pytest

from rag_index.care.export import export
from rag_index.components.stores import open_store
from rag_index.components.stores.protocol import PointReader
from rag_index.core.documents.batches import PointBatch
from rag_index.errors import SettingsError, StoreError
from tests.project import Project, run_here
from tests.twin import twin

DOCUMENTS = 60


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Project:
    """A project that was indexed and rebuilt, so that there is a collection that is not live,
    too."""
    project = Project(tmp_path_factory.mktemp("export") / "project").fill(DOCUMENTS)
    project.execute("UPDATE note SET author = 'Zoë “Z” \U0001f600\n' WHERE id = 3")
    assert (project.run().state, project.run(full=True).state) == ("completed", "completed")
    return project


@pytest.fixture
def project(indexed, tmp_path) -> Project:
    return twin(indexed, tmp_path / "project")


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_point_is_exported_sorted_and_exact(project, tmp_path):
    out = tmp_path / "out.jsonl"
    count = export(project.settings, "notes", str(out))
    found, points = lines(out), project.points()
    assert count == len(found) == len(points)
    assert [line["id"] for line in found] == sorted(points)
    for line in found:
        payload, vector = points[line["id"]]
        assert set(line) == {"id", "document_id", "payload", "vector", "sparse"}
        assert (line["payload"], line["document_id"]) == (payload, payload["_rag"]["document_id"])
        assert (
            np.asarray(line["vector"], np.float32).tobytes()
            == np.asarray(vector, np.float32).tobytes()
        )
    assert max(len(str(value)) for line in found for value in line["vector"]) <= 16, (
        "a float32 needs few digits"
    )
    before = out.read_bytes()
    export(project.settings, "notes", str(out))
    assert out.read_bytes() == before, "equal indexes make equal files"
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "project"}


@pytest.mark.long
def test_memory_does_not_grow_with_the_index(tmp_path):
    """Measure Python's own memory; the native part of the embedded store is not counted."""
    settings = Project(tmp_path / "project").settings
    peaks = []
    for number, points in enumerate((3000, 9000)):
        with closing(open_store(settings.store)) as store:
            store.create(f"test_notes__{number}", 4, {})
            store.point_alias("test_notes", f"test_notes__{number}")
            for _ in range(points // 1500):
                ids = [str(uuid.uuid4()) for _ in range(1500)]
                payloads = [{"_rag": {"key": "1", "chunk": 0}, "body": "text " * 100} for _ in ids]
                store.points(f"test_notes__{number}").upsert(
                    PointBatch(ids, np.ones((1500, 4), np.float32), payloads)
                )
        tracemalloc.start()
        try:
            assert export(settings, "notes", str(tmp_path / "out.jsonl")) == points
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0], [f"{peak:,} bytes" for peak in peaks]


def test_a_failed_export_keeps_the_existing_file(project, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    out.write_text("as before")
    scroll = PointReader.scroll

    def broken(self, **how):
        for number, point in enumerate(scroll(self, **how)):
            if number == 10:
                raise StoreError("the store broke")
            yield point

    monkeypatch.setattr(PointReader, "scroll", broken)
    with pytest.raises(StoreError, match="broke"):
        export(project.settings, "notes", str(out))
    assert out.read_text() == "as before"
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "project"}


def test_export_command(project, tmp_path):
    out = tmp_path / "out.jsonl"
    written = run_here(project.config, "export", "notes", "--out", out, "--no-vectors")[0]
    assert written == f"Wrote {len(project.points())} points to {out}\n"
    assert {frozenset(line) for line in lines(out)} == {frozenset({"id", "document_id", "payload"})}
    streamed = project.cli("export", "notes", "--out", "-", "--no-vectors")
    assert streamed.stdout == out.read_text(encoding="utf-8"), "nothing else is on standard output"
    assert (
        "did you mean 'notes'?"
        in run_here(project.config, "export", "nots", "--out", "-", code=2)[1]
    )
    with pytest.raises(SettingsError, match=r"nowhere/out\.jsonl cannot be written: No such file"):
        export(project.settings, "notes", str(tmp_path / "nowhere" / "out.jsonl"))
    with pytest.raises(StoreError, match="rag-index index notes"):
        export(Project(tmp_path / "empty").settings, "notes", "-")
