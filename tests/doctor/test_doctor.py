"""The doctor: damage done by real means is found by kind and count, and a repair leaves what a clean run leaves."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rag_index.doctor import examine, repair, settings_advice
from rag_index.documents.batches import RESERVED_KEY, Failure, PointBatch
from rag_index.errors import IndexLocked, UnknownIndex
from rag_index.indexing.diff import MAX_TRIES
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.ledger.tables import documents
from rag_index.settings import load_settings
from rag_index.sources import open_source
from rag_index.stores import open_store
from tests.project import Project
from tests.twin import twin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.doctor import Diagnosis
    from rag_index.stores import Store

DOCUMENTS = 60
NAME = "test_notes__1"


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Project:
    """Return a project that was indexed once; tests damage copies of it."""
    project = Project(tmp_path_factory.mktemp("doctor") / "project").fill(DOCUMENTS)
    project.execute("INSERT INTO note VALUES (900, NULL, '', 'nobody', 1)")
    assert project.run().state == "completed"
    return project


@pytest.fixture(scope="module")
def points(clean) -> dict[str, Any]:
    return clean.points()


@pytest.fixture
def project(clean, tmp_path) -> Project:
    return twin(clean, tmp_path / "project")


@contextmanager
def store_of(project: Project) -> Iterator[Store]:
    with closing(open_store(project.settings.store)) as store:
        yield store


@contextmanager
def ledger_of(project: Project) -> Iterator[Ledger]:
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        yield ledger


def ledger_rows(project: Project) -> dict[str, tuple[Any, ...]]:
    with ledger_of(project) as ledger:
        cid = ledger.collections("test_notes")[-1].id
        return {key: tuple(known) for key, known in ledger.rows(cid)}


def counts_by_kind(diagnosis: Diagnosis) -> dict[str, int]:
    return {finding.kind: finding.count for finding in diagnosis.findings}


def repair_all(project: Project) -> tuple[Diagnosis, list[Any]]:
    """Repair; return what was repaired, and the runs that it asked for: names, and whether to rebuild."""
    runs: list[tuple[tuple[str, ...], bool]] = []

    def run(names: list[str], rebuild: bool) -> None:
        runs.append((tuple(names), rebuild))
        report = project.run(*names, full=rebuild, retry_failed=True)
        assert report.state == "completed", report.sentence()

    diagnosis = repair(project.settings, None, run)
    assert counts_by_kind(diagnosis) == {}, "a second check-up finds nothing"
    return diagnosis, runs


def key_of(document: int) -> str:
    return str(document)


def ids_of(points: dict[str, Any], *numbers: int) -> list[str]:
    wanted = {str(number) for number in numbers}
    return [i for i, (payload, _) in points.items() if payload[RESERVED_KEY]["document_id"] in wanted]


def test_a_clean_project_has_no_findings(clean):
    diagnosis = examine(clean.settings)
    assert diagnosis.findings == []
    assert diagnosis.advice == []
    assert diagnosis.exit_code == 0


def test_floats_of_any_bits_are_no_damage(tmp_path):
    """Qdrant's parser changes the last bit of one in ten: what is stored has to be what comes back."""
    project = Project(tmp_path / "project").fill(DOCUMENTS)
    project.execute("ALTER TABLE note ADD COLUMN score REAL")
    project.execute("UPDATE note SET score = abs(random() / 9223372036854775807.0) / (id % 7 + 1)")
    project.write_settings(project.config.read_text().replace("payload = [", 'payload = ["score", '))
    assert project.run().state == "completed"
    assert len({payload["score"] for payload, _ in project.points().values()}) == DOCUMENTS
    assert examine(project.settings).findings == []
    for file in (project.folder / ".rag-index").glob("ledger.db*"):
        file.unlink()
    _, runs = repair_all(project)
    assert not runs, "a lost ledger is rebuilt from the store, and nothing is embedded"


def test_damaged_points_and_rows_are_repaired(project, points):
    with store_of(project) as store:
        store.delete_points(NAME, ids_of(points, 7, 8, 9))
        long = ids_of(points, 10)
        assert len(long) > 2
        store.delete_points(NAME, long[:1])
        changed = [(i, {**points[i][0], "author": "a stranger"}) for i in ids_of(points, 20, 21)]
        store.update_payloads(NAME, changed)
        [hashed] = ids_of(points, 33)
        ours = {**points[hashed][0][RESERVED_KEY], "text_hash": "00" * 16}
        store.update_payloads(NAME, [(hashed, {**points[hashed][0], RESERVED_KEY: ours})])
        store.flush(NAME)
    with ledger_of(project) as ledger, ledger.transaction() as connection:
        row = documents.update().where(documents.c.key == key_of(30))
        connection.execute(row.values(chunks=2))  # it has more
        connection.execute(documents.update().where(documents.c.key == key_of(44)).values(chunks=0))
        connection.execute(documents.delete().where(documents.c.key.in_([key_of(51), key_of(52)])))
        ledger.mark_pending(1, [key_of(3), key_of(4)])
    surplus = len(ids_of(points, 30)) - 2
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {
        "missing_documents": 3 + 1,  # and the one that the ledger has as empty
        "wrong_chunks": 2,
        "wrong_payloads": 3,
        "unknown_documents": 2,
        "orphan_points": surplus + 1,
        "pending_documents": 2,
    }
    examples = {finding.kind: set(finding.examples) for finding in diagnosis.findings}
    assert examples["missing_documents"] == {"7", "8", "9", "44"}
    assert examples["wrong_chunks"] == {"10", "30"}
    assert examples["wrong_payloads"] == {"20", "21", "33"}
    assert examples["unknown_documents"] == {"51", "52"}
    assert examples["pending_documents"] == {"3", "4"}
    assert all(finding.remedy and finding.index == "notes" for finding in diagnosis.findings)
    assert diagnosis.exit_code == 3

    diagnosis, runs = repair_all(project)
    assert {finding.kind for finding in diagnosis.repaired} == examples.keys()
    assert runs == [(("notes",), False)]
    assert project.points() == points


def test_points_that_lack_their_words_get_them_again(project, points):
    with store_of(project) as store:
        ids = ids_of(points, 7, 8)
        stored = store.retrieve(NAME, ids, vectors=True)
        assert all(point.sparse for point in stored)
        vectors = np.asarray([point.vector for point in stored], dtype=np.float32)
        store.upsert(NAME, PointBatch([p.id for p in stored], vectors, [p.payload for p in stored]))
        store.flush(NAME)
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {"missing_words": 2}
    assert set(diagnosis.findings[0].examples) == {"7", "8"}
    repair_all(project)
    assert examine(project.settings).findings == []
    with store_of(project) as store:
        assert {p.id: p.sparse for p in store.retrieve(NAME, ids, vectors=True)} == {p.id: p.sparse for p in stored}


def lose_points(project, points):
    with store_of(project) as store:
        store.delete_points(NAME, list(points))


def lose_store(project, points):
    shutil.rmtree(project.folder / ".rag-index" / "qdrant")


def lose_folder(project, points):
    shutil.rmtree(project.folder / ".rag-index" / "qdrant" / "collections" / NAME)


def change_maker(project, points):
    with store_of(project) as store:
        store.set_metadata(NAME, {"embedder_fingerprint": "0123456789abcdef", "embedder": "something else"})


def die_while_publishing(project, points):
    with ledger_of(project) as ledger:
        ledger.update_collection(1, state="building")


def fail_documents(project, points):
    with ledger_of(project) as ledger:
        for _ in range(6):
            ledger.fail(1, [Failure(key_of(5), "the embedder did not like it", b"x"), Failure(key_of(6), "nor this")])


RUN, REBUILD = [(("notes",), False)], [(("notes",), True)]


@pytest.mark.parametrize(
    ("damage", "kind", "count", "said", "runs"),
    [
        (lose_points, "missing_documents", DOCUMENTS, "`rag-index rebuild notes`", RUN),
        (lose_store, "lost_collection", 1, NAME, RUN),
        (lose_folder, "unreadable_collection", 1, "is gone", REBUILD),
        (change_maker, "metadata_differs", 1, "0123456789abcdef", REBUILD),
        (die_while_publishing, "unfinished_publish", 1, NAME, []),
        (fail_documents, "failed_documents", 2, "the embedder did not like it", RUN),
    ],
    ids=["points", "store", "folder", "maker", "publish", "failed"],
)
def test_damage_of_one_kind_is_named_and_repaired(project, points, damage, kind, count, said, runs):
    damage(project, points)
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {kind: count}
    assert said in f"{diagnosis.findings[0].message} {diagnosis.findings[0].remedy}"
    assert repair_all(project)[1] == runs
    assert project.points() == points


def test_a_lost_ledger_is_restored_from_the_payloads_without_embedding(project, points):
    before = ledger_rows(project)
    for file in (project.folder / ".rag-index").glob("ledger.db*"):
        file.unlink()
    assert counts_by_kind(examine(project.settings)) == {"unknown_collection": 1}
    assert repair_all(project)[1] == [], "nothing had to be embedded"
    assert ledger_rows(project) == {key: row for key, row in before.items() if row[2]}, "all but the empty document"
    report = project.run().indexes[0]
    assert (report.unchanged, report.new, report.empty, report.chunks_embedded) == (DOCUMENTS, 0, 1, 0)
    assert ledger_rows(project) == before
    assert project.points() == points


def test_a_damaged_ledger_is_renamed_and_restored(project, points):
    file = project.folder / ".rag-index" / "ledger.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    assert counts_by_kind(examine(project.settings)) == {"damaged_ledger": 1}
    repair_all(project)
    aside = [f.name for f in file.parent.glob("ledger.db.damaged-*") if not f.name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1
    assert project.points() == points

    file.write_bytes(b"this is no database at all, whatever it was before" * 100)
    assert counts_by_kind(examine(project.settings)) == {"damaged_ledger": 1}


@pytest.mark.long
def test_the_ledger_of_another_project_is_replaced_from_the_store(project, points, clean, tmp_path):
    other = Project(tmp_path / "other").fill(25)
    other.run()  # it has a collection of the same name
    for file in (other.folder / ".rag-index").glob("ledger.db*"):
        shutil.copy(file, project.folder / ".rag-index" / file.name)
    assert counts_by_kind(examine(project.settings)) == {"other_store": 1}
    assert repair_all(project)[1] == []
    assert project.run().indexes[0].unchanged == DOCUMENTS
    assert project.points() == points


def test_a_missing_alias_is_set_again(project, points):
    catalog = project.folder / ".rag-index" / "qdrant" / "catalog.json"
    document = json.loads(catalog.read_text())
    document["aliases"] = {}
    catalog.write_text(json.dumps(document))
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {"missing_alias": 1}
    assert diagnosis.findings[0].examples == (NAME,)
    repair_all(project)
    assert project.points() == points

    document["aliases"] = {}
    catalog.write_text(json.dumps(document))
    (project.folder / ".rag-index" / "ledger.db").unlink()
    assert counts_by_kind(examine(project.settings)) == {"missing_alias": 1}, "the ledger is lost too"
    repair_all(project)
    assert project.points() == points


def test_lost_metadata_is_written_again(project, points):
    with store_of(project) as store:
        before = store.collections()[NAME]
        store.set_metadata(NAME, dict.fromkeys(before))
        assert store.collections()[NAME] == {}
    assert counts_by_kind(examine(project.settings)) == {"lost_metadata": 1}
    assert repair_all(project)[1] == []
    with store_of(project) as store:
        after = store.collections()[NAME]
    assert {key: before[key] for key in after} == after, "with the values that the ledger knows"
    assert after.keys() >= {"store_id", "alias", "embedder_fingerprint", "embedder", "chunking"}
    assert project.points() == points


@pytest.mark.long
def test_another_chunk_size_leads_to_a_rebuild(project):
    project.write_settings(project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 100"))
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {"other_fingerprint": 1}
    assert "rag-index rebuild notes" in diagnosis.findings[0].remedy
    assert repair_all(project)[1] == [(("notes",), True)]
    assert all(len(payload[RESERVED_KEY]["text"]) <= 100 for payload, _ in project.points().values())

    with ledger_of(project) as ledger, store_of(project) as store:
        store.point_alias("test_notes", NAME)  # like a rollback
        assert len(ledger.collections("test_notes")) == 2
    diagnosis = repair(project.settings, None, lambda names, rebuild: pytest.fail("a person rolled it back"))
    assert counts_by_kind(diagnosis) == {"other_fingerprint": 1}


def test_only_unneeded_collections_are_dropped(project, points):
    with store_of(project) as store, ledger_of(project) as ledger:
        known = ledger.collection(NAME)
        values = {name: getattr(known, name) for name in ("alias", "embedder_fingerprint", "embedder", "chunking")}
        for number, state in ((2, "ready"), (3, "ready"), (4, "building"), (5, "building"), (6, None), (7, None)):
            name, store_id = f"test_notes__{number}", str(uuid.uuid4())
            made_by = {**values, "chunking": "other"} if number == 5 else values
            if number != 7:
                store.create(name, 256, {**made_by, "store_id": store_id})
            if state:
                row = {**made_by, "name": name, "store_id": store_id, "dimension": 256, "state": state}
                ledger.add_collection(**row)
        store.create("somebody_elses", 4, {})
        ledger.add_collection(**values, name="test_notes__9", store_id="gone", dimension=256, state="ready")
    diagnosis = examine(project.settings)
    assert counts_by_kind(diagnosis) == {"unneeded_collection": 3, "lost_collection": 1}
    unneeded = next(f for f in diagnosis.findings if f.kind == "unneeded_collection")
    assert set(unneeded.examples) == {"test_notes__2", "test_notes__5", "test_notes__6"}
    assert any("test_notes__4 is not finished" in advice.message for advice in diagnosis.advice)
    assert repair_all(project)[1] == []
    with store_of(project) as store, ledger_of(project) as ledger:
        left = {NAME, "test_notes__3", "test_notes__4"}
        assert set(store.collections()) == {*left, "somebody_elses"}
        assert {c.name for c in ledger.collections("test_notes")} == left
    assert project.points() == points


@pytest.mark.parametrize("content", [None, '{"query": "printer"}'], ids=["missing", "broken"])
def test_a_golden_file_that_the_gate_cannot_use_is_a_finding(project, content):
    project.write_settings(f"{project.config.read_text()}[indexes.gate]\nqueries = 'golden.jsonl'\n")
    if content is not None:
        (project.folder / "golden.jsonl").write_text(content)
    [finding] = examine(project.settings).findings
    assert (finding.kind, finding.index) == ("unusable_gate", "notes")
    assert "golden.jsonl" in finding.message


def test_a_gate_with_too_few_queries_is_advised_against(project):
    project.write_settings(f"{project.config.read_text()}[indexes.gate]\nqueries = 'golden.jsonl'\n")
    (project.folder / "golden.jsonl").write_text('{"query": "printer", "relevant": ["1"]}')
    diagnosis = examine(project.settings)
    assert diagnosis.findings == []
    assert [one.message for one in diagnosis.advice if "1 golden query for the gate" in one.message]


def test_an_unreadable_source_is_a_finding_and_nothing_is_deleted(project, points):
    with ledger_of(project) as ledger, ledger.transaction() as connection:
        connection.execute(documents.delete().where(documents.c.key == key_of(51)))
    project.write_settings(project.config.read_text().replace('table = "note"', 'table = "nope"'))
    diagnosis = repair(project.settings, None, lambda names, rebuild: pytest.fail("no run can read it"))
    assert counts_by_kind(diagnosis) == {"unreadable_source": 1, "orphan_points": 1}
    assert "table 'nope' cannot be read" in diagnosis.findings[0].message
    assert project.points() == points


def test_changes_in_the_source_are_advice(project):
    project.execute("UPDATE note SET body = 'changed' WHERE id = 3")
    project.execute("DELETE FROM note WHERE id = 4")
    project.fill(2, first=2000)
    diagnosis = examine(project.settings)
    assert diagnosis.findings == []
    assert [advice.message for advice in diagnosis.advice] == [
        "2 new, 1 changed, 1 gone since the last run; the next run indexes that, or `rag-index index notes` does now"
    ]


def test_a_document_that_was_given_up_is_not_what_the_next_run_indexes(project):
    project.execute("UPDATE note SET body = 'refused' WHERE id = 3")
    project.execute("INSERT INTO note VALUES (2000, 'new', 'refused too', 'a', 1)")
    source = closing(open_source(project.settings, project.settings.index("notes")))
    with source as opened, ledger_of(project) as ledger:
        documents = opened.page(None, DOCUMENTS + 10).documents
        hashes = dict(zip(documents.keys, documents.text_hashes, strict=True))
        for _ in range(MAX_TRIES):
            ledger.fail(1, [Failure(key_of(one), "too long", hashes[key_of(one)]) for one in (3, 2000)])
    diagnosis = examine(project.settings)
    assert (counts_by_kind(diagnosis), diagnosis.advice) == ({"failed_documents": 2}, [])
    project.execute("UPDATE note SET body = 'shorter' WHERE id = 3")
    assert [advice.message.partition(" since")[0] for advice in examine(project.settings).advice] == ["1 changed"]


@pytest.mark.long
def test_a_ledger_on_postgresql(tmp_path, postgres):
    with postgres.database() as first, postgres.database() as second:
        ledger = f'[ledger]\nurl = "{postgres.url(first).render_as_string(hide_password=False)}"'
        project = Project(tmp_path / "project", extra=ledger).fill(DOCUMENTS)
        project.run()
        points = project.points()
        with store_of(project) as store:
            store.delete_points(NAME, [*ids_of(points, 7), ids_of(points, 10)[0]])
            store.upsert(NAME, PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}]))
        with ledger_of(project) as database, database.transaction() as connection:
            connection.execute(documents.delete().where(documents.c.key == key_of(51)))
        kinds = {"missing_documents": 1, "wrong_chunks": 1, "unknown_documents": 1, "orphan_points": 1}
        assert counts_by_kind(examine(project.settings)) == kinds
        assert repair_all(project)[1] == [(("notes",), False)]
        assert project.points() == points
        before = ledger_rows(project)
        project.write_settings(project.config.read_text().replace(f"/{first}", f"/{second}"))
        assert counts_by_kind(examine(project.settings)) == {"unknown_collection": 1}
        assert repair_all(project)[1] == []
        assert ledger_rows(project) == before


def test_an_empty_index_is_advice(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    diagnosis = examine(project.settings)
    assert diagnosis.findings == []
    assert "nothing is indexed yet" in diagnosis.advice[0].message


def test_a_locked_index_names_the_holder(project):
    with (
        ledger_of(project) as ledger,
        IndexLease(ledger, "test_notes", "a run"),
        pytest.raises(IndexLocked, match="process"),
    ):
        examine(project.settings)
    with pytest.raises(UnknownIndex):
        examine(project.settings, ["note"])


def test_advice_about_harmful_settings(project, monkeypatch):
    hosts = '["http://127.0.0.1:1", "http://localhost:2", "http://elsewhere:3"]'
    project.write_settings(
        project.config.read_text()
        + "[run]\ntolerate_failed = 0.6\ndelete_guard = 1\n[store]\nkeep_previous = 0\n"
        + f'[embedder]\nkind = "ollama"\nmodel = "x"\nhosts = {hosts}\n'
    )
    monkeypatch.setattr(settings_advice, "_filesystem", lambda path: "nfs4")
    monkeypatch.setattr(settings_advice, "_context_length", lambda settings: 40)
    messages = [
        advice.message for advice in settings_advice.settings_advice(project.settings, project.settings.indexes)
    ]
    for part in (
        "2 Ollama servers on this machine", "tolerate_failed = 0.6", "delete_guard = 1", "keep_previous = 0",
        "[store] path", "[ledger] url", "about 50 tokens",
    ):  # fmt: skip
        assert sum(part in message for message in messages) == 1, (part, messages)
    assert len(messages) == 7


def test_advice_about_digests_that_do_not_serve_an_index(project):
    def messages(more):
        text = project.config.read_text().replace("[source]", "[source]\ndigest = true") + more
        settings_file = project.folder / "other.toml"
        settings_file.write_text(text)
        settings = load_settings(settings_file)
        return [advice.message for advice in settings_advice.settings_advice(settings, settings.indexes)]

    assert not any("digest" in message for message in messages(""))
    assert sum("runs do not use changed_since" in one for one in messages('changed_since = "at"\n')) == 1
    assert sum("no effect here" in one for one in messages('access = "SELECT id, team FROM rights"\n')) == 1


def test_an_embedder_that_does_not_answer_is_advice(project):
    text = project.config.read_text()
    project.write_settings(text + '[embedder]\nkind = "ollama"\nmodel = "x"\nhosts = ["http://127.0.0.1:9"]\n')
    diagnosis = examine(project.settings)
    assert diagnosis.findings == []
    assert any("the embedder does not answer" in advice.message for advice in diagnosis.advice)


def test_doctor_command(project, points, prefect_server):
    with store_of(project) as store:
        store.delete_points(NAME, ids_of(points, 7))
        store.upsert(NAME, PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}]))
    ended = project.cli("doctor")
    assert ended.returncode == 3
    assert "notes: missing_documents: 1 document (7)" in ended.stdout
    assert "2 findings." in ended.stdout
    answer = project.json("doctor", "notes", "--repair")
    assert answer["findings"] == []
    assert {finding["kind"] for finding in answer["repaired"]} == {"missing_documents", "orphan_points"}
    again = project.json("doctor")
    assert (again["findings"], again["repaired"], again["advice"]) == ([], [], [])
    assert project.points() == points
    assert "did you mean 'notes'?" in project.json("doctor", "nots", code=2)["error"]


@pytest.mark.long
def test_a_document_that_fails_again_stays_a_finding(project):
    project.execute("INSERT INTO note VALUES (70, 'a blob', ?, 'a', 1)", b"\x00\xff")
    project.run()
    diagnosis = repair(project.settings, None, lambda names, rebuild: project.run(*names))
    assert counts_by_kind(diagnosis) == {"failed_documents": 1}
    assert diagnosis.repaired == []
    assert diagnosis.exit_code == 3


@pytest.mark.long
def test_damaged_documents_are_pending_in_a_restored_ledger(project, points):
    with store_of(project) as store:
        store.delete_points(NAME, ids_of(points, 10)[:1])
        [plain] = ids_of(points, 33)
        store.update_payloads(NAME, [(plain, {**points[plain][0], "author": "a stranger"})])
        other = ids_of(points, 20)[0]  # a chunk of another version of its text
        ours = {**points[other][0][RESERVED_KEY], "text_hash": "00" * 16}
        store.update_payloads(NAME, [(other, {**points[other][0], RESERVED_KEY: ours})])
    (project.folder / ".rag-index" / "ledger.db").unlink()
    diagnosis, runs = repair_all(project)
    assert {f.kind: f.count for f in diagnosis.repaired} == {"unknown_collection": 1, "pending_documents": 3}
    assert runs == [(("notes",), False)]
    assert project.points() == points
