"""The source changes during the run: it never fails and misses no lasting row, and the next run
sees the rest."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import closing
from unittest import mock

import pytest

from rag_index.components.sources.sql import SqlSource
from tests.project import Project
from tests.reliability.scenario import make_project
from tests.reliability.victim import assert_equals_clean_index

DOCUMENTS = 400


class Writer:
    """A thread that inserts, updates, moves and deletes rows in small transactions until the block
    ends."""

    def __init__(self, project: Project, seed: int) -> None:
        self._project, self._random, self._stop = project, random.Random(seed), threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.error: BaseException | None = None
        self.transactions = 0
        with project.source() as db:
            rows = db.execute("SELECT id, body FROM note").fetchall()
        self.throughout = {row[0] for row in rows}
        """Rows that existed before, and that are not deleted."""
        self._present = set(self.throughout)
        self.versions = defaultdict(set, {row[0]: {(row[1] or "").strip()} for row in rows})

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        try:
            with closing(sqlite3.connect(self._project.folder / "source.db", timeout=30)) as db:
                while not self._stop.is_set():
                    with db:
                        for _ in range(5):
                            self._change(db)
                    self.transactions += 1
                    time.sleep(0.003)
        except BaseException as error:  # the test checks it
            self.error = error

    def _change(self, db: sqlite3.Connection) -> None:
        kind = self._random.choice(
            ("insert", "insert", "update", "update", "update", "delete", "move")
        )
        i = self._random.choice(sorted(self._present))
        if kind in ("delete", "move"):
            self._present.discard(i)
            self.throughout.discard(i)
        if kind == "delete":
            db.execute("DELETE FROM note WHERE id = ?", (i,))
            return
        if (
            kind == "move"
        ):  # from behind the scan to before it or back: one run may miss it, but not the next
            old, i = i, -i if -i not in self._present else max(self._present) + 1
            self._present.add(i)
            db.execute("UPDATE note SET id = ? WHERE id = ?", (i, old))
        if kind == "insert":
            i = (
                max(self._present) + 1
                if self._random.random() < 0.7
                else -self._random.randrange(1, 10**9)
            )
            self._present.add(i)
            db.execute(
                "INSERT OR REPLACE INTO note (id, author, priority) VALUES (?, 'writer', 1)", (i,)
            )
        body = f"version {self._random.random()} of {i} " + "again " * self._random.choice((2, 90))
        self.versions[i].add(body.strip())
        db.execute("UPDATE note SET title = 'edited', body = ? WHERE id = ?", (body, i))


@pytest.mark.long
@pytest.mark.parametrize("digests", [False, True], ids=["rollback journal", "digests"])
def test_a_run_misses_no_row_while_the_source_is_written_to(tmp_path, monkeypatch, digests):
    monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 40)
    project = make_project(tmp_path / "p", DOCUMENTS, extra="[parallel]\nshard_documents = 100")
    if digests:
        project.execute("PRAGMA journal_mode = wal")
        monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
        assert project.run().state == "completed"
    earlier = defaultdict(set)
    for seed in (1, 2):
        with Writer(project, seed) as writer:
            report = project.run(allow_deletes=True)
        assert writer.error is None
        assert report.state == "completed", report.sentence()
        assert writer.transactions > 20, "the writer did nothing during the run"
        found = defaultdict(list)
        for payload, _ in project.points().values():
            found[int(payload["_rag"]["document_id"])].append(payload["_rag"])
        missed = [i for i in writer.throughout if i not in found and "" not in writer.versions[i]]
        assert not missed, "these rows existed throughout the run"
        for i, parts in found.items():
            parts.sort(key=lambda part: part["chunk"])
            assert len({part["text_hash"] for part in parts}) == 1, "chunks of one version"
            assert [part["chunk"] for part in parts] == list(range(parts[0]["chunks"]))
            text = " ".join(part["text"] for part in parts)
            before = (
                set() if i in writer.throughout else earlier[i]
            )  # a run may miss a row that moves
            heads = [version[:30] for version in writer.versions[i] | before if version]
            assert any(head in text for head in heads), (i, text, heads)
        for i, versions in writer.versions.items():
            earlier[i] |= versions
    report = project.run(allow_deletes=True)
    assert report.state == "completed"
    assert_equals_clean_index(project, tmp_path / "clean")


@pytest.mark.long
@pytest.mark.parametrize("when", ["check", "page"])
def test_a_run_waits_for_a_writer_for_longer_than_sqlite_does(tmp_path, monkeypatch, when):
    """SQLite waits for 5 s by default; every access of a run must wait for a writer that takes 7
    s."""
    project = make_project(tmp_path / "p", 100)
    begun = threading.Event()
    original = getattr(SqlSource, when)

    def held(self, *arguments):
        if not begun.is_set():
            holder.start()
            begun.wait()
        return original(self, *arguments)

    def hold() -> None:
        db = sqlite3.connect(project.folder / "source.db", isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        begun.set()
        time.sleep(7)
        db.execute("COMMIT")
        db.close()

    holder = threading.Thread(target=hold)
    monkeypatch.setattr(SqlSource, when, held)
    report = project.run()
    holder.join()
    assert report.state == "completed", report.sentence()
    assert_equals_clean_index(project, tmp_path / "clean")


def test_a_row_that_the_scan_missed_is_not_deleted_if_the_source_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 10)
    project = Project(tmp_path / "p").fill(40)
    assert project.run().state == "completed"
    project.execute("DELETE FROM note WHERE id IN (5, 7)")
    original = SqlSource.page

    def page(self, cursor, rows):
        read = original(self, cursor, rows)
        if cursor is None:  # a row comes back behind the scan, and another one goes
            project.execute("INSERT INTO note (id, title, body) VALUES (5, 'back', 'again')")
            project.execute("DELETE FROM note WHERE id = 38")
        return read

    with mock.patch.object(SqlSource, "page", page):
        assert project.run().indexes[0].deleted == 2, "7 and 38"
    assert project.run().indexes[0].deleted == 0
    assert_equals_clean_index(project, tmp_path / "clean")
