"""Runs of an index whose source has digests: nothing is lost by what they leave unread."""

import shutil
import sqlite3
from contextlib import closing
from unittest import mock

import pytest

from rag_index.care.doctor import repair
from rag_index.care.plan import plan_runs
from rag_index.components.ledger import tables
from rag_index.components.sources.digest import DigestSource
from rag_index.core.documents.keys import encode_key
from rag_index.errors import SourceError
from rag_index.etl.changed import index_documents
from rag_index.etl.commit import Committer
from tests.etl.plain import Died, counts, run_plain
from tests.project import Project

DOCUMENTS = 400


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(DOCUMENTS)
    assert figures(project) == {"new": DOCUMENTS}
    return project


@pytest.fixture(autouse=True)
def rows_read(monkeypatch) -> list[int]:
    """The rows that each page of the source had."""
    found: list[int] = []
    page = DigestSource.page

    def counted(self, cursor, rows):
        read = page(self, cursor, rows)
        found.append(len(read.documents) + len(read.unreadable))
        return read

    monkeypatch.setattr(DigestSource, "page", counted)
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    return found


def figures(project, **parameters) -> dict:
    return counts(project.run(**parameters).indexes[0])


def read(project, rows_read) -> tuple[dict, int]:
    """Run, and return what was done and how many rows were read."""
    rows_read.clear()
    return figures(project), sum(rows_read)


def change(project, number: int, body: str = "Another story.") -> None:
    project.execute("UPDATE note SET body = ? WHERE id = ?", body, number)


def ledger_of(project) -> closing[sqlite3.Connection]:
    return closing(
        sqlite3.connect(project.folder / ".rag-index" / "ledger.db", isolation_level=None)
    )


def compare_all(project) -> None:
    """Let the last complete comparison be long ago."""
    with ledger_of(project) as db:
        db.execute("UPDATE rag_index_scan_states SET full_at = full_at - 7 * 86400")


def test_changes_of_every_kind_are_found_little_is_read_and_a_plan_says_so(project, rows_read):
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS}, 0)
    change(project, 7)
    project.execute("DELETE FROM note WHERE id IN (40, 41)")
    project.execute(
        "INSERT INTO note VALUES (901, 'New', 'came later', 'a', 1), (902, 'Two', 'came later',"
        " 'a', 1)"
    )
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 50")
    project.execute("UPDATE note SET author = 'nobody' WHERE id = 60")
    project.execute("UPDATE note SET id = 77000 WHERE id = 77")
    [plan] = plan_runs(project.settings, project.settings.indexes)
    assert (plan.documents, plan.new, plan.changed, plan.payload_only, plan.gone) == (
        400,
        3,
        1,
        1,
        3,
    )
    assert figures(project) == {
        "new": 3,
        "changed": 1,
        "payload_only": 1,
        "unchanged": 394,
        "empty": 1,
        "deleted": 4,
    }
    assert 0 < sum(rows_read) < 80
    assert project.texts()["7"] == ["Note 7\nAnother story."]
    assert not {"40", "41", "50", "77"} & project.texts().keys()
    assert figures(project) == {"unchanged": 399, "empty": 1}
    project.execute("DELETE FROM note WHERE id = 50")
    assert figures(project) == {"unchanged": 399}, "it had no points, as the plan says"


def test_single_documents_that_were_indexed_and_are_as_before_are_read_again(project):
    before = project.texts()["7"]
    change(project, 7)
    project.execute("INSERT INTO note VALUES (901, 'New', 'came later', 'a', 1)")
    assert index_documents(project.settings, "notes", ["7", "901"]).state == "completed"
    assert project.texts()["7"] == ["Note 7\nAnother story."]
    change(project, 7, before[0].split("\n", 1)[1])
    project.execute("DELETE FROM note WHERE id = 901")
    assert figures(project) == {"changed": 1, "unchanged": DOCUMENTS - 1, "deleted": 1}
    assert project.texts()["7"] == before


def test_what_the_guard_holds_back_stays_held_back_until_the_source_has_it_again(project):
    lost = project.folder / "whole.db"
    shutil.copy(project.folder / "source.db", lost)
    project.execute("DELETE FROM note WHERE id > 250")
    assert project.run().indexes[0].held_back == 150
    change(project, 7)
    assert project.run().indexes[0].held_back == 150
    shutil.copy(lost, project.folder / "source.db")
    outcome = project.run().indexes[0]
    assert (outcome.state, outcome.held_back, outcome.unchanged, outcome.changed) == (
        "completed",
        0,
        399,
        1,
    )
    assert (figures(project), len(project.texts())) == ({"unchanged": DOCUMENTS}, DOCUMENTS)


def test_everything_is_read_after_some_days_and_with_other_settings_tables_and_buckets(
    project, ledger, rows_read
):
    compare_all(project)
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS}, DOCUMENTS)
    settings = project.config.read_text().replace('["title", "body"]', '["body", "title"]')
    project.write_settings(settings)
    assert read(project, rows_read) == ({"changed": DOCUMENTS}, DOCUMENTS)
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS}, 0)
    project.execute("CREATE TABLE copied AS SELECT * FROM note")
    project.execute("CREATE UNIQUE INDEX key_of_copied ON copied (id)")
    project.write_settings(settings.replace('table = "note"', 'table = "copied"'))
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS}, DOCUMENTS)
    project.execute("DELETE FROM copied WHERE id = 40")
    project.execute(
        "INSERT INTO copied VALUES (25000, 'New', 'came later', 'a', 1)"
    )  # the source has grown
    before = len(ledger.digests(1))
    compare_all(project)
    assert figures(project) == {"new": 1, "unchanged": 399, "deleted": 1}
    assert len(ledger.digests(1)) < before / 2
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS}, 0)


def test_what_changes_between_the_digests_and_the_rows_and_back_is_found(project):
    with project.source() as db:
        [(before,)] = db.execute("SELECT body FROM note WHERE id = 8").fetchall()
    change(project, 7)
    digests = DigestSource._digests

    def compute_and_change(self, connection):
        found = digests(self, connection)
        change(project, 8, "Only for this run.")
        return found

    with mock.patch.object(DigestSource, "_digests", compute_and_change):
        assert figures(project) == {"changed": 2, "unchanged": 398}
    change(project, 8, before)
    assert (figures(project), figures(project)) == (
        {"changed": 1, "unchanged": 399},
        {"unchanged": DOCUMENTS},
    )


@pytest.mark.long
@pytest.mark.parametrize("table", ["note", "named"])
def test_the_next_run_does_not_read_again_what_a_run_had_finished_when_it_died(
    tmp_path, rows_read, monkeypatch, table
):
    monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 40)
    project = Project(tmp_path / "project", extra="[parallel]\nshard_documents = 40").fill(
        DOCUMENTS
    )
    project.execute(
        "CREATE TABLE named AS SELECT 'n' || id AS id, title, body, author, priority FROM note"
    )
    project.execute("CREATE UNIQUE INDEX key_of_named ON named (id)")
    project.write_settings(
        project.config.read_text().replace('table = "note"', f'table = "{table}"')
    )
    commit, written = Committer.commit, []

    def commit_most(self, shard):
        written.extend(shard.keys)
        if len(written) > 0.8 * DOCUMENTS:
            raise Died
        return commit(self, shard)

    with mock.patch.object(Committer, "commit", commit_most), pytest.raises(Died):
        run_plain(project)
    with ledger_of(project) as db:
        [(done,)] = db.execute("SELECT sum(documents) FROM rag_index_buckets WHERE digest != ''")
    assert done > (0.6 * DOCUMENTS if table == "note" else 0)
    project.execute(f"DELETE FROM {table} WHERE id IN (7, 'n7', 390, 'n390')")
    rows_read.clear()
    found = figures(project)
    assert found["deleted"] <= 2
    assert found["new"] + found["unchanged"] == DOCUMENTS - 2
    assert sum(rows_read) <= DOCUMENTS - done + 20
    assert (len(project.texts()), figures(project)) == (DOCUMENTS - 2, {"unchanged": DOCUMENTS - 2})


def test_rows_at_the_end_of_a_table_that_are_deleted_with_their_buckets_are_found(
    project, rows_read
):
    project.execute("DELETE FROM note WHERE id > 310")
    rows_read.clear()
    assert figures(project) == {"unchanged": 310, "deleted": 90}
    assert sum(rows_read) < 20
    project.execute("DELETE FROM note WHERE id > 300")
    project.execute("INSERT INTO note VALUES (400, 'Note 400', 'is back', 'a', 1)")
    assert figures(project) == {"new": 1, "unchanged": 300, "deleted": 10}
    assert (figures(project), figures(project, full=True)["new"]) == ({"unchanged": 301}, 301)


def test_a_source_whose_digests_the_database_does_not_compute_is_read_whole(project, rows_read):
    change(project, 7)
    with mock.patch.object(DigestSource, "_digests", side_effect=SourceError("no such function")):
        assert read(project, rows_read) == ({"changed": 1, "unchanged": DOCUMENTS - 1}, DOCUMENTS)
    project.execute("DELETE FROM note WHERE id = 8")
    late = {"unchanged": DOCUMENTS - 1, "deleted": 1}
    assert read(project, rows_read) == (late, DOCUMENTS - 1), "it is not tried again for some days"
    compare_all(project)
    assert figures(project) == {"unchanged": DOCUMENTS - 1}
    assert read(project, rows_read) == ({"unchanged": DOCUMENTS - 1}, 0)


@pytest.mark.long
def test_files_that_rows_name_are_looked_at_though_their_rows_stay_unread(tmp_path, rows_read):
    project = Project(tmp_path / "project").fill(100)
    folder = project.folder / "files"
    folder.mkdir()
    for number in (3, 60):
        (folder / f"{number}.txt").write_text(f"file {number}")
    project.execute("ALTER TABLE note ADD COLUMN file TEXT")
    project.execute("UPDATE note SET file = id || '.txt' WHERE id IN (3, 60, 80)")
    settings = project.config.read_text().replace('["title", "body"]', '["title", "body", "file"]')
    project.write_settings(settings + 'files = "files"\nformat = {file = "file"}\n')
    assert figures(project)["new"] == 100
    rows_read.clear()
    assert figures(project)["unchanged"] + figures(project).get("incomplete", 0) >= 99
    assert sum(rows_read) < 20, "the document whose file is missing at most"
    (folder / "60.txt").write_text("another text")
    (folder / "80.txt").write_text("it is there now")
    figures(project)
    assert "another text" in " ".join(project.texts()["60"])
    assert "it is there now" in " ".join(project.texts()["80"])
    (folder / "60.txt").unlink()
    figures(project)
    assert "another text" not in " ".join(project.texts()["60"])


def test_doctor_repairs_what_digests_would_leave_unread(project):
    with ledger_of(project) as db:
        assert (
            db.execute(
                "DELETE FROM rag_index_documents WHERE key = ?", (encode_key((7,)),)
            ).rowcount
            == 1
        )
    assert repair(project.settings).findings == []
    run_plain(project)
    assert "7" in project.texts()
    assert figures(project) == {"unchanged": DOCUMENTS}


def test_a_source_that_loses_and_regains_everything_and_one_that_becomes_small_and_large(project):
    project.execute("ALTER TABLE note RENAME TO kept")
    project.execute("CREATE TABLE note AS SELECT * FROM kept WHERE 0")
    assert figures(project, allow_deletes=True) == {"deleted": DOCUMENTS}
    project.execute("DROP TABLE note")
    project.execute("ALTER TABLE kept RENAME TO note")
    assert figures(project) == {"new": DOCUMENTS}
    with mock.patch("rag_index.components.sources.digest.MIN_ROWS", 10_000):
        compare_all(project)
        change(project, 7)
        project.execute("INSERT INTO note VALUES (901, 'New', 'came later', 'a', 1)")
        assert figures(project) == {"new": 1, "changed": 1, "unchanged": 399}
    project.execute("DELETE FROM note WHERE id = 901")
    assert figures(project) == {"unchanged": DOCUMENTS, "deleted": 1}
    change(project, 7, "once more")
    assert figures(project) == {"changed": 1, "unchanged": 399}


@pytest.mark.long
def test_what_failed_is_tried_again_though_it_did_not_change(
    tmp_path, fake, rows_read, monkeypatch
):
    project = Project(tmp_path / "p", extra=fake.settings + "[run]\nwait_for_recovery = 5\n").fill(
        50
    )
    project.execute("UPDATE note SET body = 'POISON' WHERE id IN (17, 40)")
    project.write_settings(
        project.config.read_text().replace("[run]", "[run]\ntolerate_failed = 0.5")
    )
    fake.fault("status", code=400, marker="POISON")
    for _ in range(2):
        assert project.run().indexes[0].failed == 2
    rows_read.clear()
    monkeypatch.setattr(tables, "RETRY_PERIOD", 0.0)
    given_up = project.run().indexes[0]
    assert (given_up.failed, given_up.unchanged, sum(rows_read)) == (2, 48, 0)
    again = project.run(retry_failed=True).indexes[0]
    assert (again.failed, again.unchanged, sum(rows_read) > 0) == (
        2,
        48,
        True,
    ), "it reads what was given up"
    fake.clear()
    assert index_documents(project.settings, "notes", ["17"]).state == "completed"
    assert figures(project) == {
        "unchanged": 49,
        "failed": 1,
    }, "a document that had failed is not taken for gone"
    project.execute("DELETE FROM note WHERE id = 40")
    assert figures(project) == {"unchanged": 49}
