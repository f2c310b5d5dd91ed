"""Batches of changed documents: what they leave is what a run would, and a death at any step loses nothing."""

import time
from contextlib import closing
from unittest import mock

import pytest

from rag_index.care.index_status import failed
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import BATCH, CHECK_UP, IndexLease
from rag_index.components.stores import open_store
from rag_index.errors import EmbedderUnavailable, IndexLocked, StoreBusy
from rag_index.etl import changed
from rag_index.etl import run as pipeline
from rag_index.etl.changed import BatchIndexer, index_documents
from tests.etl.plain import Died, Nights, batch, die, run_plain
from tests.project import Project
from tests.waiting import when

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(30)
    run_plain(project)
    return project


def put(ledger, *ids):
    ledger.put_changes([(ALIAS, one, time.time()) for one in ids])


def waiting(ledger):
    return [change.document_id for change in ledger.waiting_changes(ALIAS, 1000)]


def test_inserts_updates_deletes_and_what_came_and_went_are_as_a_run_leaves_them(project, ledger, tmp_path):
    project.fill(1, first=31)
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("UPDATE note SET author = 'somebody else' WHERE id = 6")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 7")
    project.execute("DELETE FROM note WHERE id = 8")
    put(ledger, "31", "5", "6", "7", "8", "999", "9")  # 999 came and went, and 9 is as it was
    outcome = batch(project).outcome
    assert (outcome.state, outcome.new, outcome.changed, outcome.payload_only) == ("completed", 1, 1, 1)
    assert (outcome.empty, outcome.deleted, outcome.unchanged) == (1, 2, 1)
    assert waiting(ledger) == []
    found = project.points()
    again = run_plain(project)
    assert again.nothing_to_do
    assert project.points() == found


def test_a_part_names_its_document_as_the_database_compares_keys(tmp_path):
    project = Project(tmp_path / "project")
    project.execute("DROP TABLE note")
    project.execute("CREATE TABLE note (id TEXT COLLATE NOCASE PRIMARY KEY, title TEXT, body TEXT, author, priority)")
    project.execute("CREATE TABLE remark (note TEXT COLLATE NOCASE, said TEXT)")
    project.execute("INSERT INTO note VALUES ('Pump', 'a', 'b', '', 1), ('Valve', 'c', 'd', '', 1)")
    project.execute("INSERT INTO remark VALUES ('pump', 'first')")
    part = '[[indexes.parts]]\ntable = "remark"\non = "note"\ntext = "said"\n'
    project.write_settings(project.config.read_text(encoding="utf-8") + part)
    run_plain(project)
    project.execute("UPDATE remark SET said = 'second'")
    project.execute("UPDATE note SET id = 'VALVE' WHERE id = 'Valve'")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        put(ledger, "pump", "Valve", "VALVE")
        outcome = batch(project).outcome
        assert (outcome.new, outcome.changed, outcome.deleted, waiting(ledger)) == (1, 1, 1, [])
    assert project.texts() == {"Pump": ["a\nb", "second"], "VALVE": ["c\nd"]}


@pytest.mark.parametrize("step", ["mark_pending", "record", "forget", "remove_changes", "finish_run"])
def test_a_death_at_any_step_loses_nothing(project, ledger, step):
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("DELETE FROM note WHERE id = 8")
    put(ledger, "5", "8")

    with mock.patch.object(Ledger, step, die), pytest.raises(Died):
        batch(project)
    if step != "finish_run":
        assert waiting(ledger) == ["5", "8"]
    assert batch(project).error is None
    assert waiting(ledger) == []
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert "8" not in project.texts()
    assert run_plain(project).nothing_to_do


def test_what_waits_stays_if_a_rebuild_that_read_it_is_not_published(project, ledger):
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    project.execute("UPDATE note SET body = ? WHERE id = 6", b"\x01")
    put(ledger, "5")
    refused = run_plain(project, full=True)
    assert (refused.state, "was not published" in refused.message) == ("partial", True)
    assert waiting(ledger) == ["5"]
    batch(project)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]


def test_a_document_that_changes_while_it_is_indexed_waits_for_the_next_batch(project, ledger):
    project.execute("UPDATE note SET body = 'first' WHERE id = 5")
    put(ledger, "5", "6")
    whole, done = pipeline.index_pages, []

    def change_meanwhile(*args):
        if not done:
            project.execute("UPDATE note SET body = 'second' WHERE id = 5")
            put(ledger, "5")
        done.append(1)
        return whole(*args)

    with mock.patch.object(pipeline, "index_pages", change_meanwhile):
        batch(project)
    assert waiting(ledger) == ["5"]
    batch(project)
    assert project.texts()["5"] == ["Note 5\nsecond"]


def test_what_waits_stays_while_the_embedder_is_down_and_leaves_the_inbox_if_it_fails(project, ledger):
    with project.source() as db:
        db.execute("UPDATE note SET body = ? WHERE id = 5", (b"\x01",))
    put(ledger, "5")
    with mock.patch.object(pipeline, "index_pages", side_effect=EmbedderUnavailable("it is down")):
        assert isinstance(batch(project).error, EmbedderUnavailable)
    assert waiting(ledger) == ["5"]
    assert batch(project).outcome.failed == 1
    assert waiting(ledger) == []
    assert [one.document_id for one in failed(project.settings, project.settings.indexes)] == ["5"]


def test_a_batch_waits_for_no_other_run(project, ledger):
    put(ledger, "5")
    with IndexLease(ledger, ALIAS, "a run"):
        assert isinstance(batch(project).error, IndexLocked)
    store = open_store(project.settings.store)
    store.count(f"{ALIAS}__1")
    assert isinstance(batch(project).error, StoreBusy)
    store.close()
    assert waiting(ledger) == ["5"]
    assert batch(project).error is None


@pytest.mark.parametrize("holder", [f"{BATCH}{ALIAS}", f"{CHECK_UP}1"])
def test_a_run_waits_for_a_batch_or_a_check_up_to_end(project, ledger, holder):
    with closing(Ledger(project.settings.ledger_url)) as other:
        lease = IndexLease(other, ALIAS, holder)
        lease.__enter__()
        asked = []
        row = Ledger.transaction

        def count(self):
            asked.append(self)
            return row(self)

        with (
            mock.patch.object(Ledger, "transaction", count),
            when(lambda: len(asked) > 10, lambda: lease.__exit__(None, None, None)),
            IndexLease(ledger, ALIAS, "a run"),
        ):
            pass


@pytest.fixture
def sizes(project, ledger, monkeypatch):
    """A function that has 30 changes indexed by a process that takes so many seconds for each, and returns batches."""
    monkeypatch.setattr(changed, "FIRST_BATCH_DOCUMENTS", 4)
    monkeypatch.setattr(changed, "MIN_BATCH_DOCUMENTS", 1)
    whole = pipeline.index_pages

    def index(seconds, *, first=30):
        project.execute("UPDATE note SET title = ?, body = ''", f"{seconds} seconds")
        found = []

        def take_time(opened, scan, steps, record, documents):
            found.append(len(documents.page.documents))
            whole(opened, scan, steps, record, documents)
            record.stopwatch.seconds |= {"fetch": 0.0, "embed": found[-1] * seconds, "upsert": 60.0}

        put(ledger, *map(str, range(1, first + 1)))
        with mock.patch.object(pipeline, "index_pages", take_time), closing(BatchIndexer(project.settings)) as indexer:
            indexer.index("notes")
            put(ledger, *map(str, range(1, 31)))
            while waiting(ledger):
                assert indexer.index("notes").error is None
        return found

    return index


def test_a_batch_is_as_large_as_two_seconds_allow_at_the_pace_of_the_one_before(sizes):
    assert sizes(0.1) == [4, 16, 14]  # four times as many at most, and 20 in two seconds
    assert sizes(0.5) == [4, 4, 4, 4, 4, 4, 4, 4, 2]
    assert sizes(2.0)[:3] == [4, 1, 1]


@pytest.mark.long
def test_a_batch_that_is_not_full_says_nothing_of_larger_ones_unless_it_took_too_long(sizes, project):
    assert sizes(0.5, first=1) == [1, 4, 4, 4, 4, 4, 4, 4, 2]
    assert sizes(1.5, first=2)[:3] == [2, 1, 1]
    project.write_settings(project.config.read_text() + "\n[watch]\nbatch_documents = 6\n")
    assert sizes(0.001) == [4, 6, 6, 6, 6, 6], "no batch is larger than the settings allow"


def remove(project, ledger, first, last):
    project.execute("DELETE FROM note WHERE id BETWEEN ? AND ?", first, last)
    put(ledger, *map(str, range(first, last + 1)))


@pytest.fixture
def guarded(tmp_path):
    """A project, the clock of its ledger, and the ledger itself, which batches share."""
    project, clock = Project(tmp_path / "project").fill(700), Nights()
    run_plain(project, clock=clock)
    with (
        mock.patch.object(changed, "Ledger", lambda url: Ledger(url, clock=clock)),
        closing(Ledger(project.settings.ledger_url, clock=clock)) as ledger,
    ):
        yield project, clock, ledger


def test_small_batches_are_no_way_around_the_delete_guard(guarded):
    project, clock, ledger = guarded
    for first in range(1, 141, 35):  # 140 of 700 are as many as delete_guard (20 %) allows
        remove(project, ledger, first, first + 34)
        assert batch(project).outcome.state == "completed"
    remove(project, ledger, 141, 145)
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 700")
    put(ledger, "700")
    outcome = batch(project).outcome
    assert (outcome.state, outcome.held_back, outcome.deleted, outcome.changed) == ("partial", 5, 0, 1)
    assert "145 with those deleted" in outcome.message
    assert "--allow-deletes" in outcome.message
    assert (waiting(ledger), len(project.texts())) == ([], 560)
    [collection] = ledger.collections(ALIAS)
    assert ledger.count_held(collection.id) == 5
    project.execute("INSERT INTO note VALUES (141, 'Note 141', 'it is back', 'a', 1)")
    put(ledger, "141", "142")  # the latter is held back already
    assert batch(project).outcome.state == "completed"
    assert (ledger.count_held(collection.id), len(project.texts())) == (4, 560)
    assert index_documents(project.settings, "notes", ["142"]).deleted == 1, "naming a document allows its deletion"
    run_plain(project, allow_deletes=True, clock=clock)
    assert len(project.texts()) == 556


def test_what_was_added_during_the_day_is_guarded_too(guarded):
    """What came after the last whole run is not `whole`, and batches delete it little by little."""
    project, clock, ledger = guarded
    project.execute("DELETE FROM note WHERE id > 10")
    run_plain(project, allow_deletes=True, clock=clock)
    project.fill(590, first=11)
    put(ledger, *map(str, range(11, 601)))
    while ledger.count_waiting(ALIAS):
        batch(project)
    states = []
    for first in range(11, 211, 40):
        remove(project, ledger, first, first + 39)
        states.append(batch(project).outcome.state)
    assert states == 3 * ["completed"] + 2 * ["partial"]
    clock.sleep(1.1)
    remove(project, ledger, 300, 319)
    assert batch(project).outcome.state == "completed"  # a day later
