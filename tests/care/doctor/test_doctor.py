"""The doctor: damage done by real means is found by kind and count, and a repair leaves what a
clean run leaves."""

import json
import re
import shutil
import sqlite3
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from rag_index.care.doctor import examine, repair
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.ledger.tables import LEDGER_VERSION, documents, schema_version
from rag_index.core.documents.batches import RESERVED_KEY, Failure, PointBatch
from rag_index.errors import IndexLocked, StoreBusy
from tests.etl.plain import printed
from tests.project import Project, run_here
from tests.twin import lose_ledger, twin

DOCUMENTS = 60
NAME = "test_notes__1"
WAY = {
    "sqlite": (
        "move the file away, or name another one in .ledger. url, and `rag-index doctor --repair`"
    ),
    "postgresql": "name another database in .ledger. url, and `rag-index doctor --repair`",
}
"""What to do with the ledger of an older version."""
REFUSED = [("plan",), ("status",), ("doctor", "--repair")]


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


def set_version(ledger: sa.URL, version: int) -> None:
    engine = sa.create_engine(ledger)
    with engine.begin() as connection:
        connection.execute(schema_version.update().values(version=version))
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_ledger_of_another_version_is_refused_with_the_way_to_a_new_one(
    project, points, kind, request
):
    """The way embeds nothing. It leads to another file, or to another database of a PostgreSQL
    server."""
    ledgers = [sa.make_url(f"sqlite:///{project.folder / name}.db") for name in ("old", "new")]
    with ExitStack() as stack:
        if kind == "postgresql":
            server = request.getfixturevalue("postgres")
            ledgers = [server.url(stack.enter_context(server.database())) for _ in ledgers]
        settings = project.config.read_text()

        def name_ledger(url: sa.URL) -> None:
            section = f'[ledger]\nurl = "{url.render_as_string(hide_password=False)}"\n'
            project.write_settings(settings.replace("[source]", f"{section}[source]"))

        old, new = ledgers
        name_ledger(old)
        lose_ledger(project)
        run_here(project.config, "doctor", "--repair")
        for version, said in (
            (LEDGER_VERSION + 1, "a newer rag-index wrote it, so upgrade this one"),
            (12, WAY[kind]),
        ):
            set_version(old, version)
            refused = [run_here(project.config, *command, code=1)[1] for command in REFUSED]
            refused.append(project.run().indexes[0].message)
            assert all(re.search(f"has version {version}, .*{said}", one) for one in refused), (
                refused
            )
            assert printed(project, "search", "the pump")["hits"]
        name_ledger(new)
        run_here(project.config, "doctor", "--repair")
        assert (project.points(), project.run().indexes[0].chunks_embedded) == (points, 0)


def ledger_rows(project) -> dict[str, tuple[Any, ...]]:
    with project.ledger() as ledger:
        return {
            key: tuple(known) for key, known in ledger.rows(ledger.collections("test_notes")[-1].id)
        }


def found(project) -> dict[str, int]:
    """Return the count of each kind of finding."""
    return {finding.kind: finding.count for finding in examine(project.settings).findings}


def repair_all(project) -> dict[str, int]:
    """Repair, and let the next run do the rest; return what was repaired. Nothing is found after
    either."""
    diagnosis = repair(project.settings)
    assert diagnosis.findings == [] == examine(project.settings).findings
    report = project.run()
    assert report.state == "completed", report.sentence()
    last = examine(project.settings)
    assert (last.findings, [one for one in last.advice if "pending" in one.message]) == ([], [])
    return {finding.kind: finding.count for finding in diagnosis.repaired}


def ids_of(points: dict[str, Any], *numbers: int) -> list[str]:
    wanted = {str(number) for number in numbers}
    return [
        i for i, (payload, _) in points.items() if payload[RESERVED_KEY]["document_id"] in wanted
    ]


def test_damaged_points_and_rows_are_repaired(project, points):
    with project.store() as store:
        before = {point.id: point.sparse for point in store.points(NAME).scroll(vectors=True)}
        store.points(NAME).delete_points(ids_of(points, 7, 8, 9))
        long = ids_of(points, 10)
        assert len(long) > 2
        store.points(NAME).delete_points(long[:1])
        store.points(NAME).update_payloads(
            [(i, {**points[i][0], "author": "a stranger"}) for i in ids_of(points, 20, 21)]
        )
        wrong = [(i, points[i][0], {"text_hash": "00" * 16}) for i in ids_of(points, 33)]
        store.points(NAME).update_payloads(
            [(i, {**p, RESERVED_KEY: {**p[RESERVED_KEY], **other}}) for i, p, other in wrong]
        )
    with project.ledger() as ledger, ledger.transaction() as connection:
        connection.execute(
            documents.update().where(documents.c.key == "30").values(chunks=2)
        )  # it has more
        connection.execute(documents.update().where(documents.c.key == "44").values(chunks=0))
        connection.execute(documents.delete().where(documents.c.key.in_(["51", "52"])))
        ledger.mark_pending(1, ["3", "4"])
    with project.store() as store:
        store.points(NAME).upsert(
            PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}])
        )
    differing = {"7", "8", "9", "10", "20", "21", "30", "33", "44", "51", "52"}
    findings = {finding.kind: finding for finding in examine(project.settings).findings}
    expected = {"different_documents": len(differing), "orphan_points": 1}
    assert {kind: finding.count for kind, finding in findings.items()} == expected
    assert set(findings["different_documents"].examples) < differing
    assert all(finding.remedy and finding.index == "notes" for finding in findings.values())
    assert "2 pending documents" in str(examine(project.settings).advice)

    assert (repair_all(project), project.points()) == (expected, points)
    with project.store() as store:
        assert {
            point.id: point.sparse for point in store.points(NAME).scroll(vectors=True)
        } == before


def lose_points(project, points):
    with project.store() as store:
        store.points(NAME).delete_points(list(points))


def lose_store(project, points):
    shutil.rmtree(project.folder / ".rag-index" / "qdrant")


def change_text(project, points):
    """Change the text of one chunk of several: its vector is that of another text now."""
    point = next(one for one, (payload, _) in points.items() if payload[RESERVED_KEY]["chunks"] > 1)
    payload = points[point][0]
    with project.store() as store:
        store.points(NAME).update_payloads(
            [(point, {**payload, RESERVED_KEY: {**payload[RESERVED_KEY], "text": "PLANTED"}})]
        )


def point_alias_elsewhere(project, points):
    with project.store() as store:
        store.create("another_index__1", 4, {"alias": "another_index", "store_id": "s"})
        store.point_alias("test_notes", "another_index__1")
    assert "another_index__1" in run_here(project.config, "search", "note", code=1)[1]
    assert "was made for another_index" in project.run().indexes[0].message


def lose_alias(project, points):
    catalog = project.folder / ".rag-index" / "qdrant" / "catalog.json"
    catalog.write_text(json.dumps({**json.loads(catalog.read_text()), "aliases": {}}))


def lose_alias_and_ledger(project, points):
    lose_alias(project, points)
    lose_ledger(project)


def belong_to_another(project, points):
    with project.store() as store:
        store.points(NAME).set_metadata({"store_id": "another"})


@pytest.mark.parametrize(
    ("damage", "kind", "count", "said"),
    [
        (lose_points, "different_documents", DOCUMENTS, "the next run indexes them again"),
        (lose_store, "stray_collection", 1, NAME),
        (change_text, "different_documents", 1, "1 document ("),
        (lose_alias, "missing_alias", 1, NAME),
        (point_alias_elsewhere, "missing_alias", 1, "was made for another_index"),
        (lose_alias_and_ledger, "missing_alias", 1, NAME),
        (belong_to_another, "unknown_collection", 1, "(its id is another, not "),
    ],
)
def test_damage_of_one_kind_is_named_and_repaired(project, points, damage, kind, count, said):
    damage(project, points)
    [finding] = examine(project.settings).findings
    assert (finding.kind, finding.count) == (kind, count)
    assert said in f"{finding.message} {finding.remedy}"
    assert kind in repair_all(project)
    assert project.points() == points


def test_failed_documents_and_what_only_a_rebuild_can_do_are_left_to_the_person(project, points):
    with project.ledger() as ledger:
        for _ in range(6):
            ledger.fail(
                1, [Failure("5", "the embedder did not like it", b"x"), Failure("6", "nor this")]
            )
    [failed] = repair(project.settings).findings
    assert (failed.kind, failed.count) == ("failed_documents", 2)
    assert "the embedder did not like it" in failed.message
    assert project.run(retry_failed=True).state == "completed"
    shutil.rmtree(project.folder / ".rag-index" / "qdrant" / "collections" / NAME)
    [finding] = repair(project.settings).findings
    assert (finding.kind, "is gone" in finding.message) == ("needs_rebuild", True)
    assert "`rag-index rebuild notes`" in finding.remedy
    assert (project.run(full=True).state, project.points(), found(project)) == (
        "completed",
        points,
        {},
    )


def test_a_lost_ledger_is_filled_from_the_payloads_without_embedding(project, points):
    before = ledger_rows(project)
    lose_ledger(project)
    assert (found(project), repair(project.settings).findings) == ({"unknown_collection": 1}, [])
    report = project.run().indexes[0]
    assert (report.unchanged, report.new, report.empty, report.chunks_embedded) == (
        DOCUMENTS,
        0,
        1,
        0,
    )
    assert (ledger_rows(project), project.points()) == (before, points)


def test_a_collection_of_which_ledger_and_store_have_lost_the_maker_needs_a_rebuild(
    project, points
):
    with project.store() as store:
        store.points(NAME).set_metadata(dict.fromkeys(store.points(NAME).metadata()))
    lose_ledger(project)
    [finding] = repair(project.settings).findings
    assert (finding.kind, "nobody knows what made" in finding.message) == ("needs_rebuild", True)
    assert (project.run(full=True).state, project.points()) == ("completed", points)


def test_a_damaged_ledger_is_renamed_and_restored(project, points):
    file = project.folder / ".rag-index" / "ledger.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    assert found(project) == {"damaged_ledger": 1}
    repair_all(project)
    assert (
        len(
            [
                f.name
                for f in file.parent.glob("ledger.db.damaged-*")
                if not f.name.endswith(("-wal", "-shm"))
            ]
        )
        == 1
    )
    assert project.points() == points
    file.write_bytes(b"this is no database at all, whatever it was before" * 100)
    assert found(project) == {"damaged_ledger": 1}


def test_orphan_points_are_counted_by_what_is_listed(project, points):
    """Documents 10 and 20 have several points each. A point of another program has no document."""
    project.execute("DELETE FROM note WHERE id IN (10, 20)")
    with project.ledger() as ledger, ledger.transaction() as connection:
        connection.execute(documents.delete().where(documents.c.key.in_(["10", "20"])))
    foreign = str(uuid.uuid4())
    with project.store() as store:
        vectors = np.ones((1, 256), dtype=np.float32)
        store.points(NAME).upsert(PointBatch([foreign], vectors, [{"a": 1}]))
    [finding] = examine(project.settings).findings
    assert (finding.kind, finding.count) == ("orphan_points", 3)
    assert finding.examples == ("10", "20", foreign)
    listed = f"the points of 2 documents (10, 20) and 1 point ({foreign})"
    assert finding.message == f"{listed} in {NAME} that nothing explains"
    assert repair_all(project) == {"orphan_points": 3}


def damage_documents(file: Path) -> None:
    """Overwrite the ledger's first page of documents. Its other tables can still be read."""
    with closing(sqlite3.connect(file)) as connection:
        table = "SELECT rootpage FROM sqlite_master WHERE name = 'rag_index_documents'"
        [page] = connection.execute(table).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xa5" * size)


@pytest.mark.parametrize("holds", ["lease", "store"])
def test_a_damaged_ledger_is_left_to_the_run_that_writes_it(project, points, holds):
    file = project.folder / ".rag-index" / "ledger.db"
    damage_documents(file)
    assert found(project) == {"damaged_ledger": 1}
    with ExitStack() as stack:
        if holds == "lease":
            ledger = stack.enter_context(project.ledger())
            stack.enter_context(IndexLease(ledger, "test_notes", "a run"))
        else:
            store = stack.enter_context(project.store())
            store.points(NAME).count()
        with pytest.raises(IndexLocked if holds == "lease" else StoreBusy, match="process"):
            repair(project.settings)
        assert not list(file.parent.glob("ledger.db.damaged-*"))
    assert repair_all(project)["damaged_ledger"] == 1
    assert list(file.parent.glob("ledger.db.damaged-*"))
    assert project.points() == points


def test_a_mistyped_ledger_is_named_and_not_created(project):
    section = '[ledger]\nurl = "sqlite:///legder.db"\n[source]'
    project.write_settings(project.config.read_text().replace("[source]", section))
    said = "legder.db does not exist, although the store has test_notes__1: correct [ledger] url"
    before = sorted(project.folder.iterdir())
    assert said in run_here(project.config, "doctor", code=3)[0]
    assert said in run_here(project.config, "status", code=1)[1]
    assert said in printed(project, "status", code=1)["error"]
    assert run_here(project.config, "search", "printer")[0]
    assert sorted(project.folder.iterdir()) == before


def test_before_the_first_run_no_ledger_is_missed_or_created(tmp_path):
    project = Project(tmp_path).fill(3)
    [advice] = examine(project.settings).advice
    assert "nothing is indexed yet" in advice.message
    assert run_here(project.config, "status")[1] == ""
    assert not list(project.folder.rglob("ledger.db*"))


def test_lost_metadata_is_written_again(project, points):
    with project.store() as store:
        before = store.collections()[NAME]
        store.points(NAME).set_metadata(dict.fromkeys(before))
    assert (found(project), repair(project.settings).findings) == ({"unknown_collection": 1}, [])
    with project.store() as store:
        after = store.collections()[NAME]
    assert {key: before[key] for key in after} == after, "with the values that the ledger knows"
    assert after.keys() >= {
        "store_id",
        "alias",
        "embedder_fingerprint",
        "embedder",
        "chunking",
        "citation_seal",
    }
    assert (project.run().indexes[0].chunks_embedded, project.points()) == (0, points)


def test_only_stray_collections_are_dropped(project, points):
    with project.store() as store, project.ledger() as ledger:
        known = ledger.collection(NAME)
        values = {
            name: getattr(known, name)
            for name in ("alias", "embedder_fingerprint", "embedder", "chunking")
        }
        for number, state in ((2, "ready"), (3, "ready"), (4, "building"), (5, None), (6, "lost")):
            name, store_id = f"test_notes__{number}", str(uuid.uuid4())
            if state != "lost":
                store.create(name, 256, {**values, "store_id": store_id})
            if state is not None:
                row = {**values, "name": name, "store_id": store_id, "dimension": 256}
                ledger.add_collection(**row, state="ready" if state == "lost" else state)
        store.create("somebody_elses", 4, {})
    diagnosis = examine(project.settings)
    [strays] = diagnosis.findings
    assert (strays.kind, strays.count) == ("stray_collection", 2)
    assert set(strays.examples) == {"test_notes__5", "test_notes__6"}
    assert any("test_notes__4 is not finished" in advice.message for advice in diagnosis.advice)
    assert repair(project.settings).findings == []
    with project.store() as store, project.ledger() as ledger:
        left = {NAME, *(f"test_notes__{number}" for number in (2, 3, 4))}
        assert store.names() == {*left, "somebody_elses"}
        assert {c.name for c in ledger.collections("test_notes")} == left
    assert project.points() == points


def test_an_unreadable_source_is_a_finding_and_nothing_is_deleted(project, points):
    with project.ledger() as ledger, ledger.transaction() as connection:
        connection.execute(documents.delete().where(documents.c.key == "51"))
    project.write_settings(project.config.read_text().replace('table = "note"', 'table = "nope"'))
    with project.store() as store:
        store.points(NAME).upsert(
            PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}])
        )
        store.points(NAME).delete_points(ids_of(points, 7))
    damaged = project.points()
    assert found(project) == {"unreadable_source": 1, "different_documents": 2, "orphan_points": 1}
    findings = {finding.kind: finding for finding in repair(project.settings).findings}
    assert findings.keys() == {"unreadable_source", "orphan_points"}
    assert "table 'nope' cannot be read" in findings["unreadable_source"].message
    assert project.points() == damaged
    project.write_settings(project.config.read_text().replace('table = "nope"', 'table = "note"'))
    assert (repair_all(project), project.points()) == ({"orphan_points": 1}, points)


def test_doctor_command(project, points):
    with project.store() as store:
        store.points(NAME).delete_points(ids_of(points, 7))
        store.points(NAME).upsert(
            PointBatch([str(uuid.uuid4())], np.ones((1, 256), dtype=np.float32), [{"a": 1}])
        )
    out = run_here(project.config, "doctor", code=3)[0]
    assert "notes: different_documents: 1 document (7)" in out
    assert "2 findings." in out
    answer = printed(project, "doctor", "notes", "--repair")
    assert answer["findings"] == []
    assert {finding["kind"] for finding in answer["repaired"]} == {
        "different_documents",
        "orphan_points",
    }
    again = printed(project, "doctor")
    assert (again["findings"], again["repaired"]) == ([], [])
    assert "1 pending document: `rag-index index notes`" in again["advice"][0]["message"]
    assert (project.run().state, project.points()) == ("completed", points)
    assert "did you mean 'notes'?" in printed(project, "doctor", "nots", code=2)["error"]


def test_a_locked_index_names_the_holder(project, ledger):
    with IndexLease(ledger, "test_notes", "a run"), pytest.raises(IndexLocked, match="process"):
        examine(project.settings)
