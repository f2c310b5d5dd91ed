"""Moved indexes: bit-equal, explained by the same ledger, live only when complete, and owned by one store at a time."""

import uuid
from contextlib import closing

import numpy as np
import pytest

from rag_index.care.doctor import examine, repair
from rag_index.care.transfer import export, move, target_settings
from rag_index.components.ledger import Ledger
from rag_index.components.stores import open_store
from rag_index.core.documents.batches import PointBatch
from rag_index.errors import SettingsError, StoreError, StoreMismatch
from tests.etl.plain import printed
from tests.fakes.qdrant import FakeQdrant, Fault
from tests.project import SETTINGS, Project, run_here
from tests.twin import twin

DOCUMENTS = 60
UPSERT = "PUT /collections/test_notes__2/points"


EMPTY = """
[[indexes]]
name = "none_yet"
table = "note"
key = "id"
text = "body"
"""


@pytest.fixture(scope="module")
def moved_from(tmp_path_factory) -> Project:
    """A project that was indexed and rebuilt, so that there is a collection to roll back to."""
    project = Project(tmp_path_factory.mktemp("move") / "project").fill(DOCUMENTS)
    assert project.run().state == "completed"
    assert project.run(full=True).state == "completed"
    return project


@pytest.fixture
def project(moved_from, tmp_path) -> Project:
    return twin(moved_from, tmp_path / "project")


@pytest.fixture
def qdrant():
    with StoppableQdrant() as fake:
        yield fake


class StoppableQdrant(FakeQdrant):
    """A fake that permanently refuses requests of one kind (`stop_on`) after the first few.

    It keeps unit vectors bit by bit, as a real server does; the in-memory client behind the other fake divides them by
    their length once more, in float32.
    """

    stop_on, after = "", 0

    def __init__(self) -> None:
        super().__init__()
        upsert = self.client.upsert

        def exact(name, points, **how):
            result = upsert(name, points, **how)
            kept = self.client._client.collections[name]
            for point in filter(lambda one: one.vector, points):
                kept.vectors[""][kept.ids[point.id]] = np.asarray(point.vector[""], dtype=np.float32)
            return result

        self.client.upsert = exact

    def take_fault(self, request: str) -> Fault:
        if self.stop_on and self.stop_on in request:
            self.after -= 1
            if self.after < 0:
                return Fault(status=403, error="killed here")
        return super().take_fault(request)


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
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        wanted = ledger.collection("test_notes__2").store_id
    with project.store() as old:
        in_old = old.collections()["test_notes__2"].get("store_id") == wanted
    names = {one.name for one in qdrant.client.get_collections().collections}
    metadata = qdrant.client.get_collection("test_notes__2").config.metadata if "test_notes__2" in names else {}
    return in_old, (metadata or {}).get("store_id") == wanted


def test_after_a_move_and_a_lost_ledger_each_message_leads_to_the_next_and_out(project, tmp_path):
    before, place = exported(project), tmp_path / "new"
    move(project.settings, target_settings(project.settings, str(place)))
    for file in (project.folder / ".rag-index").glob("ledger.db*"):
        file.unlink()
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
        pytest.param(UPSERT, 1, marks=pytest.mark.long),
        ("PATCH /collections/test_notes__1", 0),  # the hand-over: the first id
        pytest.param("PATCH /collections/test_notes__2", 0, marks=pytest.mark.long),
        ("POST /collections/aliases", 0),
    ],
)
def test_a_stopped_move_is_resumed(project, qdrant, stop_on, after):
    before = exported(project)
    target = target_settings(project.settings, qdrant.url)
    qdrant.stop_on, qdrant.after = stop_on, after
    with pytest.raises(StoreError, match="killed here"):
        move(project.settings, target)
    assert qdrant.client.get_aliases().aliases == [], "no incomplete collection is live"
    assert owners(project, qdrant) != (True, True), "the ledger never has two stores"
    qdrant.stop_on = ""
    [moved] = move(project.settings, target)
    assert owners(project, qdrant) == (False, True)
    if stop_on == UPSERT:
        assert moved.copied < 2 * moved.points, "points that were there are not sent again"
    elif stop_on.startswith(("PATCH", "POST")):
        assert moved.copied == 0
    use(project, f'url = "{qdrant.url}"')
    assert exported(project) == before
    assert examine(project.settings).findings == []


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
        vector = np.ones((1, 256), dtype=np.float32)
        store.upsert("test_notes__2", PointBatch([str(uuid.uuid4())], vector, [{"a": 1}]))
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
    missing = run_here(project.config, "move", "--to", qdrant.url, "--api-key-env", "NOT_SET", code=2)[1]
    assert "NOT_SET" in missing
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
    assert answer["store"] == f'path = "{folder}"'
    assert answer["indexes"][0]["documents"] == DOCUMENTS
    use(project, answer["store"])
    assert exported(project) == before
