"""Moved indexes: bit-equal, explained by the same ledger, live only when complete, and owned by one store at a time. An
export holds every point exactly, in order of id, and replaces its file as a whole."""

import json
import tracemalloc
import uuid
from contextlib import closing

import numpy as np
import pytest

from rag_index.care.doctor import examine, repair
from rag_index.care.transfer import export, move, target_settings
from rag_index.components.stores import open_store
from rag_index.components.stores.protocol import PointReader
from rag_index.core.documents.batches import PointBatch
from rag_index.errors import SettingsError, StoreError, StoreMismatch
from tests.etl.plain import printed
from tests.fakes.qdrant import FakeQdrant
from tests.project import SETTINGS, Project, run_here
from tests.twin import lose_ledger, twin

DOCUMENTS = 60
UPSERT = "PUT /collections/test_notes__2/points"
EMPTY = '\n[[indexes]]\nname = "none_yet"\ntable = "note"\nkey = "id"\ntext = "body"\n'


@pytest.fixture(scope="module")
def moved_from(tmp_path_factory) -> Project:
    """A project that was indexed and rebuilt, so that there is a collection to roll back to."""
    project = Project(tmp_path_factory.mktemp("move") / "project").fill(DOCUMENTS)
    project.execute("UPDATE note SET author = 'Zoë “Z” \U0001f600\n' WHERE id = 3")
    assert (project.run().state, project.run(full=True).state) == ("completed", "completed")
    return project


@pytest.fixture
def project(moved_from, tmp_path) -> Project:
    return twin(moved_from, tmp_path / "project")


@pytest.fixture
def qdrant():
    """A fake that keeps unit vectors bit by bit, as a real server does. The in-memory client behind the other fake
    divides them by their length once more, in float32."""

    def exact(name, points, **how):
        result = upsert(name, points, **how)
        kept = fake.client._client.collections[name]
        for point in filter(lambda one: one.vector, points):
            kept.vectors[""][kept.ids[point.id]] = np.asarray(point.vector[""], dtype=np.float32)
        return result

    with FakeQdrant() as fake:
        upsert, fake.client.upsert = fake.client.upsert, exact
        yield fake


def exported(project: Project) -> bytes:
    file = project.folder / "out.jsonl"
    export(project.settings, "notes", str(file))
    return file.read_bytes()


def use(project: Project, line: str) -> None:
    """Edit the settings file as `move` tells the user to."""
    text = project.config.read_text().split("[store]")[0]
    project.write_settings(f"{text}\n[store]\n{line}\n")


def owners(project: Project, qdrant: FakeQdrant) -> tuple[bool, bool]:
    """Return whether the collection has the ledger's id in the old store, and whether in the new one."""
    with project.ledger() as ledger:
        wanted = ledger.collection("test_notes__2").store_id
    with project.store() as old:
        in_old = old.collections()["test_notes__2"].get("store_id") == wanted
    names = {one.name for one in qdrant.client.get_collections().collections}
    metadata = qdrant.client.get_collection("test_notes__2").config.metadata if "test_notes__2" in names else {}
    return in_old, (metadata or {}).get("store_id") == wanted


def test_after_a_move_and_a_lost_ledger_each_message_leads_to_the_next_and_out(project, tmp_path):
    before, place = exported(project), tmp_path / "new"
    move(project.settings, target_settings(project.settings, str(place)))
    lose_ledger(project)
    assert f"was moved to {place.resolve()}: name that store in [store]" in project.run().indexes[0].message
    [finding] = examine(project.settings).findings
    assert f"was moved to {place.resolve()}" in finding.message

    use(project, f'path = "{place}"')
    assert "`rag-index doctor --repair` make its rows from the store" in project.run().indexes[0].message
    assert repair(project.settings).findings == []
    assert (project.run().indexes[0].unchanged, exported(project)) == (DOCUMENTS, before)


@pytest.mark.long
@pytest.mark.parametrize(
    ("stop_on", "after"),
    [
        (UPSERT, 1),
        ("PATCH /collections/test_notes__1", 0),  # the hand-over: the first id
        ("PATCH /collections/test_notes__2", 0),
        ("POST /collections/aliases", 0),
    ],
)
def test_a_stopped_move_is_resumed(project, qdrant, stop_on, after):
    before = exported(project)
    target = target_settings(project.settings, qdrant.url)
    qdrant.break_next(stop_on, times=after)  # these are answered
    qdrant.break_next(stop_on, times=None, status=403, error="killed here")
    with pytest.raises(StoreError, match="killed here"):
        move(project.settings, target)
    assert qdrant.client.get_aliases().aliases == [], "no incomplete collection is live"
    assert owners(project, qdrant) != (True, True), "the ledger never has two stores"
    qdrant.faults.clear()
    [moved] = move(project.settings, target)
    assert owners(project, qdrant) == (False, True)
    if stop_on == UPSERT:
        assert moved.copied < 2 * moved.points, "points that were there are not sent again"
    else:
        assert moved.copied == 0
    use(project, f'url = "{qdrant.url}"')
    assert (exported(project), examine(project.settings).findings) == (before, [])


def test_what_would_mix_two_indexes_or_is_no_store_is_refused(project, qdrant, tmp_path):
    target = target_settings(project.settings, qdrant.url)
    with closing(open_store(target)) as store:
        store.create("test_notes__2", 256, {"store_id": "another", "alias": "test_notes"})
        with pytest.raises(StoreMismatch, match="has another collection test_notes__2, which this ledger did not make"):
            move(project.settings, target)
        store.drop("test_notes__2")
        store.create("test_notes__7", 256, {"store_id": "another", "alias": "test_notes"})
        store.point_alias("test_notes", "test_notes__7")
        with pytest.raises(StoreMismatch, match=r"an alias test_notes that points at test_notes__7, which"):
            move(project.settings, target)
    assert project.run().state == "completed", "nothing has changed here"
    with project.store() as store:
        store.points("test_notes__2").upsert(
            PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}])
        )
    with pytest.raises(StoreMismatch, match="doctor --repair"):
        move(project.settings, target)
    with pytest.raises(StoreError, match="is empty, there is nothing to move"):
        move(Project(tmp_path / "empty").settings, target)
    for to, message in (
        ("ftp://somewhere", "is not an address"),
        ("http://user:secret@somewhere", "must not hold a user"),
        (str(project.folder / ".rag-index/qdrant"), "the indexes are there already"),
    ):
        with pytest.raises(SettingsError, match=message) as raised:
            target_settings(project.settings, to)
        assert "\n" not in str(raised.value)


def test_move_command(project, qdrant, monkeypatch):
    before = exported(project)
    project.write_settings(SETTINGS.format(extra="") + EMPTY)
    assert "NOT_SET" in run_here(project.config, "move", "--to", qdrant.url, "--api-key-env", "NOT_SET", code=2)[1]
    monkeypatch.setenv("KEY", "s3cret")
    out, err = run_here(project.config, "move", "notes", "--to", qdrant.url, "--api-key-env", "KEY")
    assert f'url = "{qdrant.url}"' in out
    assert "RAG_INDEX_STORE__API_KEY" in out
    assert "Not moved, so missing from the new store: none_yet." in out
    assert "s3cret" not in out + err
    again = run_here(project.config, "move", "--to", qdrant.url)[0]
    assert "Not moved" not in again, "an index that nothing was indexed of has nothing to move"
    use(project, f'url = "{qdrant.url}"')
    assert exported(project) == before
    folder = project.folder / "elsewhere"
    answer = printed(project, "move", "--to", str(folder))
    assert (answer["store"], answer["indexes"][0]["documents"]) == (f'path = "{folder}"', DOCUMENTS)
    use(project, answer["store"])
    assert exported(project) == before


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
        assert np.asarray(line["vector"], np.float32).tobytes() == np.asarray(vector, np.float32).tobytes()
    assert max(len(str(value)) for line in found for value in line["vector"]) <= 16, "a float32 needs few digits"
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
                store.points(f"test_notes__{number}").upsert(PointBatch(ids, np.ones((1500, 4), np.float32), payloads))
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
    assert "did you mean 'notes'?" in run_here(project.config, "export", "nots", "--out", "-", code=2)[1]
    with pytest.raises(SettingsError, match=r"nowhere/out\.jsonl cannot be written: No such file"):
        export(project.settings, "notes", str(tmp_path / "nowhere" / "out.jsonl"))
    with pytest.raises(StoreError, match="rag-index index notes"):
        export(Project(tmp_path / "empty").settings, "notes", "-")
