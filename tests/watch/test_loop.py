"""A watch is the run, repeated: what changed is found, nothing is claimed too early, and no index
holds another up."""

import datetime as dt
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import sqlalchemy as sa

from rag_index import watch as watch_package
from rag_index.components.embedders import servers
from rag_index.components.embedders.local import LocalEmbedder
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import CHECK_UP, WATCH, IndexLease, lease_name
from rag_index.components.ledger.tables import runs as history
from rag_index.components.sources import digest
from rag_index.components.sources.sql import SqlSource
from rag_index.components.stores import open_reader
from rag_index.core.machine import in_thread
from rag_index.errors import IndexLocked, SettingsReplaced, StoreError, TerminalError
from rag_index.etl.opened import RunOptions, open_index
from rag_index.search import Retriever
from rag_index.watch import kept_runs, pace
from rag_index.watch.kept_runs import KeptRuns
from tests.etl.plain import run_plain, watched_run
from tests.live.sessions import Session
from tests.project import SETTINGS, Project, run_here
from tests.waiting import eventually, when
from tests.watch.following import ALIAS, embed_here, following

__all__ = ["embed_here"]

OTHER = """
[[indexes]]
name = "others"
table = "other"
key = "id"
text = "body"
"""
SHOWING = """\
project = "test"
[source]
url = "sqlite:///source.db"
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = "{title}: {body} for {who.name}"
access = "SELECT note_id, team FROM reader"
[indexes.joins.who]
table = "person"
on = {id = "priority"}
[[indexes.parts]]
table = "remark"
on = "note_id"
text = "said"
[[indexes]]
name = "words"
table = "word"
key = "rowid"
text = "body"
"""
HIDING = SETTINGS.format(extra="").replace('key = "id"', 'key = "id"\nwhere = "priority <> 1"')
"""Notes whose number leaves 1 when divided by three are hidden."""


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project").fill(30)


def texts(project, index="notes"):
    """Return the first text of each document, as a reader finds it beside the watch."""
    with suppress(StoreError), closing(open_reader(project.settings.store, wait=10)) as reader:
        points = [
            point.payload["_rag"] for point in reader.points(project.settings.alias(index)).scroll()
        ]
        return {ours["document_id"]: ours["text"] for ours in points if ours["chunk"] == 0}
    return {}


def shown(project, document):
    return texts(project).get(str(document))


def test_what_changes_is_found_and_an_index_is_complete_by_each_look_that_finds_nothing(project):
    with following(project) as watch:
        watch.settled()
        before = watch.at()
        eventually(lambda: watch.at() > before)
        project.fill(1, first=31)
        project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
        project.execute("UPDATE note SET author = 'somebody else' WHERE id = 6")
        project.execute("UPDATE note SET title = '', body = NULL WHERE id = 7")
        project.execute("DELETE FROM note WHERE id = 8")
        written = time.time()
        eventually(lambda: watch.at() > written)
    found = texts(project)
    assert (found["5"], "7" in found, "8" in found, "31" in found) == (
        "Note 5\nthe pump is mended",
        False,
        False,
        True,
    )
    assert run_plain(project).nothing_to_do


def test_a_watch_is_one_row_of_history_however_many_runs_it_makes(project, ledger):
    with following(project) as watch:
        for number in range(3):
            watch.settled()
            project.execute("UPDATE note SET body = ? WHERE id = 5", f"version {number}")
            written = time.time()
            eventually(lambda written=written: watch.at() > written)
    assert [row.id for row in ledger._select(sa.select(history))] == [f"{WATCH}{ALIAS}"]
    assert ledger.last_run(ALIAS).state == "completed"
    run_plain(project)
    assert ledger.last_run(ALIAS).id != f"{WATCH}{ALIAS}", (
        "a run of a watch does not hide how the night went"
    )


def test_a_project_is_watched_by_one_process_at_a_time(project, ledger):
    already = pytest.raises(IndexLocked, match="project test is watched already, by process")
    with IndexLease(ledger, lease_name("test"), "watch"), already, following(project):
        pass


def test_once_ends_when_nothing_is_left(project):
    run_here(project.config, "watch", "--once")
    project.execute("UPDATE note SET body = ? WHERE id = 5", b"\x01")  # no text
    run_here(project.config, "watch", "--once", code=1)
    assert len(project.texts()) == 30


def test_rows_of_other_tables_rights_and_full_text_tables_are_followed(project):
    for statement in (
        "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)",
        "INSERT INTO person VALUES (0, 'Ann'), (1, 'Bo')",
        "CREATE TABLE remark (note_id INTEGER, said TEXT)",
        "INSERT INTO remark VALUES (5, 'first')",
        "CREATE TABLE reader (note_id INTEGER, team TEXT)",
        "INSERT INTO reader SELECT id, 'staff' FROM note",
        "CREATE VIRTUAL TABLE word USING fts5 (body)",
        "INSERT INTO word VALUES ('one')",
    ):
        project.execute(statement)
    project.write_settings(SHOWING)
    with following(project) as watch:
        for alias in (ALIAS, "test_words"):
            watch.settled(alias)
        project.execute("UPDATE person SET name = 'Cleo' WHERE id = 0")
        eventually(lambda: "Cleo" in shown(project, 3), every=0.1)
        project.execute("UPDATE remark SET said = 'second'")
        project.execute("UPDATE reader SET team = 'board' WHERE note_id = 6")
        project.execute("UPDATE word SET body = 'two'")
        written = time.time()
        eventually(lambda: min(watch.at(), watch.at("test_words")) > written)
    assert project.texts("words") == {"1": ["two"]}
    assert project.texts()["5"][-1].endswith("second")
    groups = {
        payload["_rag"]["document_id"]: payload["_rag"]["groups"]
        for payload, _ in project.points().values()
    }
    assert (groups["6"], groups["7"]) == (["board"], ["staff"])


def test_what_is_written_while_a_run_reads_is_found(project, monkeypatch):
    whole, ends = KeptRuns.run, []

    def run(runs, looked_at):
        ends.append(whole(runs, looked_at))
        if len(ends) == 1:  # it has read the row
            project.execute("UPDATE note SET body = 'written meanwhile' WHERE id = 5")
        return ends[-1]

    monkeypatch.setattr(KeptRuns, "run", run)
    with following(project) as watch:
        eventually(lambda: shown(project, 5) == "Note 5\nwritten meanwhile", every=0.1)
        watch.settled()


def test_what_a_failed_run_did_not_write_is_found(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(kept_runs, "PATIENCE", 0.2)
    monkeypatch.setattr(servers, "PATIENCE", 0.2)
    project = Project(tmp_path / "project", extra=f"{fake.settings}").fill(30)
    with following(project) as watch:
        watch.settled()
        fake.stop_listening()
        project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
        eventually(lambda: watch.record().state == "backing off", watch.record)
        fake.listen()
        eventually(lambda: shown(project, 5) == "Note 5\nthe pump is mended", every=0.1)


def test_a_failed_document_is_tried_by_time_and_at_once_if_its_text_changed(project, ledger):
    project.execute("UPDATE note SET body = ? WHERE id = 5", b"\x01")
    began, end = ledger.clock(), watched_run(project)
    assert (end.outcome.failed, end.complete, end.is_index_complete) == (1, True, False)
    assert began + 60 <= end.next_try <= ledger.clock() + 60
    [collection] = ledger.collections(ALIAS)
    project.execute("UPDATE note SET body = 'mended' WHERE id = 5")
    end = watched_run(project)
    assert (end.outcome.failed, end.next_try, end.is_index_complete) == (0, None, True)
    assert not ledger.failures(collection.id)


def test_an_error_that_is_not_ours_ends_the_run_and_no_watch(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SqlSource, "page", lambda *_: 1 / 0)
        end = watched_run(project)
    assert (type(end.error), end.complete) == (TerminalError, False)
    assert "ZeroDivisionError" in str(end.error)
    assert watched_run(project).complete


def small_shards(project):
    project.write_settings(SETTINGS.format(extra="[parallel]\nshard_documents = 5"))


def test_a_burst_is_left_after_a_while_and_what_was_embedded_is_kept(project, monkeypatch):
    run_plain(project)
    monkeypatch.setattr(kept_runs, "EMBED_SECONDS", 0.0)
    small_shards(project)
    project.execute("UPDATE note SET body = body || ' again'")
    ends = []
    with closing(KeptRuns(project.settings, "notes", lambda: False)) as kept:
        while not ends or not ends[-1].complete:
            ends.append(kept.run(time.time()))
            assert len(ends) < 20
    assert len(ends) > 2
    assert sum(end.outcome.changed for end in ends) == 30
    assert all(chunks[-1].endswith("again") for chunks in project.texts().values())


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A project whose small table has digests, too, and which a run has indexed."""
    monkeypatch.setattr(digest, "MIN_ROWS", 0)
    project = Project(tmp_path / "large", extra="[parallel]\nshard_documents = 20\n").fill(300)
    run_plain(project)
    return project


@pytest.mark.long
@pytest.mark.parametrize("rows", [60, 240], ids=["some rows", "nearly all rows"])
def test_what_changes_during_a_burst_is_found_before_the_burst_is_embedded(
    large, monkeypatch, rows
):
    project = large
    project.execute("UPDATE note SET body = body || ' again' WHERE id <= ?", rows)
    with closing(KeptRuns(project.settings, "notes", lambda: False)) as kept:
        with monkeypatch.context() as hurried:
            hurried.setattr(kept_runs, "EMBED_SECONDS", 0.0)
            assert not kept.run(time.time()).complete
        project.fill(1, first=301)
        project.execute("DELETE FROM note WHERE id = 290")
        project.execute("UPDATE note SET body = 'mended' WHERE id = 295")
        end = kept.run(looked := time.time())
        assert (end.complete, end.is_index_complete, end.outcome.deleted) == (False, False, 1)
        found = texts(project)
        assert ("301" in found, "290" in found, found["295"]) == (True, False, "Note 295\nmended")
        assert sum(text.endswith("again") for text in found.values()) < rows
        with closing(Ledger(project.settings.ledger_url)) as ledger:
            assert ledger.reached()[ALIAS].at < looked, "the index is not complete"
            assert kept.run(looked := time.time()).complete
            assert ledger.reached()[ALIAS].at == looked, "as it was before the run read"
    assert sum(chunks[-1].endswith("again") for chunks in project.texts().values()) == rows
    assert run_plain(project).nothing_to_do


def test_a_run_of_what_just_changed_deletes_nothing_that_a_run_over_all_held_back(
    large, monkeypatch
):
    project = large
    project.execute("DELETE FROM note WHERE id > 160")
    with closing(KeptRuns(project.settings, "notes", lambda: False)) as kept:
        assert kept.run(time.time()).outcome.held_back == 140
        with monkeypatch.context() as hurried:
            hurried.setattr(kept_runs, "EMBED_SECONDS", 0.0)
            project.execute("UPDATE note SET body = body || ' again' WHERE id <= 80")
            assert not kept.run(time.time()).complete
            held_back = []
            for number in (150, 149, 148):
                project.execute("DELETE FROM note WHERE id = ?", number)
                end = kept.run(time.time())
                assert (end.complete, end.outcome.deleted) == (False, 0)
                held_back.append(end.outcome.held_back)
        # The second one was paused before it could delete anything.
        assert held_back == [140, 0, 140]
        assert len(texts(project)) == 300
        with closing(Ledger(project.settings.ledger_url)) as ledger:
            assert ledger.collections(ALIAS)[0].held == 140


def test_a_first_run_is_not_cut(project, monkeypatch):
    monkeypatch.setattr(kept_runs, "EMBED_SECONDS", 0.0)
    small_shards(project)
    end = watched_run(project)
    assert (end.complete, end.outcome.new) == (True, 30)


def test_an_index_that_is_another_one_each_time_is_left_to_the_night(project, caplog):
    query = "SELECT id, title, body, author, priority, random() AS seen FROM note"
    text = project.config.read_text().replace('table = "note"', f'query = "{query}"')
    project.write_settings(text.replace('"priority"]', '"priority", "seen"]'))
    with following(project) as watch:
        number = 0
        while watch.record() is None or watch.record().state != "failing":
            number += 1
            project.execute("UPDATE note SET body = ? WHERE id = 5", f"version {number}")
            watch.looked(2)
            assert number < 2000
        assert "two runs in a row changed more than half of its documents" in watch.record().message


def test_a_run_rests_by_what_it_spent_without_embedding_and_writing(project, monkeypatch):
    embed, page, slow = LocalEmbedder.embed_documents, SqlSource.page, 0.5

    def seconds():
        began = time.monotonic()
        end = watched_run(project)
        return time.monotonic() - began, end.spent

    with monkeypatch.context() as patch:
        patch.setattr(
            LocalEmbedder, "embed_documents", lambda *given: time.sleep(slow) or embed(*given)
        )
        took, spent = seconds()
        assert took - spent >= slow
    with monkeypatch.context() as patch:
        patch.setattr(SqlSource, "page", lambda *given: time.sleep(slow) or page(*given))
        _, spent = seconds()
        assert spent >= slow


def test_an_index_rests_after_a_run(project, monkeypatch):
    run = KeptRuns.run
    monkeypatch.setattr(KeptRuns, "run", lambda *given: replace(run(*given), spent=1000.0))
    with following(project) as watch:
        watch.settled()
        before = watch.at()
        eventually(
            lambda: watch.at() > before
        )  # by a look, so that the first run has ended, whose pace was another
        with mock.patch.object(pace, "REST_FACTOR", 4.0):
            project.execute("UPDATE note SET body = 'first' WHERE id = 5")
            eventually(lambda: shown(project, 5) == "Note 5\nfirst", every=0.1)
            project.execute("UPDATE note SET body = 'second' WHERE id = 5")
            watch.looked(10)
        assert shown(project, 5) == "Note 5\nfirst"
        assert watch.record().state == "running"


@pytest.mark.long
def test_a_standby_is_followed_and_a_restored_database_too(tmp_path, postgres):
    project = Project(tmp_path / "project")
    with postgres.database() as name, postgres.standby() as standby:
        session = Session(postgres.url(name))
        session.run(
            "CREATE TABLE note (id int PRIMARY KEY, title text, body text, author text, priority"
            " int)"
        )
        session.run(
            "INSERT INTO note SELECT n, 'Note', 'first ' || n, 'a', 1 FROM generate_series(1, 30)"
            " AS n"
        )
        url = standby.url(name).render_as_string(hide_password=False)
        project.write_settings(SETTINGS.replace("sqlite:///source.db", url).format(extra=""))
        with following(project) as watch:
            eventually(lambda: len(texts(project)) == 30, watch.record)
            session.run("UPDATE note SET body = 'second' WHERE id = 5")
            session.run("DELETE FROM note WHERE id = 6")
            eventually(
                lambda: (shown(project, 5), shown(project, 6)) == ("Note\nsecond", None),
                watch.record,
            )
            with postgres.connect() as owner:  # a backup of this moment
                session.close()
                owner.execute(f"CREATE DATABASE {name}_kept TEMPLATE {name}")
            session = Session(postgres.url(name))
            session.run("UPDATE note SET body = 'lost' WHERE id > 20")
            session.run("INSERT INTO note VALUES (31, 'Note', 'lost', 'a', 1)")
            eventually(lambda: shown(project, 31), watch.record)
            session.close()
            with postgres.connect() as owner:
                owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
                owner.execute(f"ALTER DATABASE {name}_kept RENAME TO {name}")
            eventually(
                lambda: shown(project, 31) is None and shown(project, 30) == "Note\nfirst 30",
                watch.record,
            )
        assert (shown(project, 5), len(texts(project))) == ("Note\nsecond", 29)


@pytest.mark.long
def test_a_long_run_of_one_index_holds_no_other_up(tmp_path, postgres):
    project = Project(tmp_path / "project")
    with postgres.database() as name:
        url = postgres.url(name)
        session = Session(url)
        for table in ("note", "other"):
            session.run(
                f"CREATE TABLE {table} (id int PRIMARY KEY, title text, body text, author text,"
                " priority int)"
            )
            session.run(f"INSERT INTO {table} VALUES (1, 'one', 'first', 'a', 1)")
        text = SETTINGS.replace("sqlite:///source.db", url.render_as_string(hide_password=False))
        project.write_settings(text.format(extra="") + OTHER)
        holding = Session(url)
        holding.run("BEGIN")
        holding.run("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        with following(project) as watch:
            watch.settled("test_others")
            session.run("UPDATE other SET body = 'second'")
            eventually(lambda: texts(project, "others") == {"1": "second"}, every=0.2)
            assert not watch.at(), "the other run still waits for its table"
            holding.run("COMMIT")
            watch.settled()
        left = session.run("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        assert (left, session.run("SELECT count(*) FROM pg_replication_slots")) == ([(0,)], [(0,)])
        session.close()
        holding.close()


def test_what_is_wrong_with_one_index_stops_no_other_and_is_tried_again(project):
    project.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, body TEXT)")
    project.execute("INSERT INTO other VALUES (1, 'first')")
    project.write_settings(project.config.read_text() + OTHER)
    with following(project) as watch:
        watch.settled()
        watch.settled("test_others")
        project.execute("ALTER TABLE other RENAME TO gone")
        eventually(
            lambda: watch.record("test_others").state == "failing",
            lambda: watch.record("test_others"),
        )
        project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
        eventually(lambda: shown(project, 5) == "Note 5\nthe pump is mended", every=0.1)
        project.execute("ALTER TABLE gone RENAME TO other")
        project.execute("UPDATE other SET body = 'second'")
        eventually(lambda: texts(project, "others") == {"1": "second"}, every=0.1)


def test_a_watch_waits_for_another_run_and_another_run_for_a_watch(project, ledger):
    run_plain(project)
    lease = IndexLease(ledger, ALIAS, "a night")
    with following(project) as watch:
        watch.settled()
        with lease:
            project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
            eventually(lambda: watch.record().state == "waiting", watch.record)
        eventually(lambda: shown(project, 5) == "Note 5\nthe pump is mended", every=0.1)
        watch.settled()  # it has the embedded store open
        project.execute("DELETE FROM note WHERE id = 6")
        run_plain(project)
        assert shown(project, 6) is None
        project.execute("UPDATE note SET body = 'and tested' WHERE id = 5")
        eventually(lambda: shown(project, 5) == "Note 5\nand tested", every=0.1)


@pytest.mark.parametrize("holder", [f"{WATCH}{ALIAS}", f"{CHECK_UP}1"])
def test_a_run_waits_for_a_run_of_a_watch_or_a_check_up_to_end(project, ledger, holder):
    with closing(Ledger(project.settings.ledger_url)) as other:
        lease, asked, row = IndexLease(other, ALIAS, holder), [], Ledger.transaction
        lease.__enter__()

        def count(self):
            asked.append(self)
            return row(self)

        with (
            mock.patch.object(Ledger, "transaction", count),
            when(lambda: len(asked) > 10, lambda: lease.__exit__(None, None, None)),
            IndexLease(ledger, ALIAS, "a run"),
        ):
            pass


def test_what_another_process_forgot_is_not_claimed(project, ledger):
    with following(project) as watch:
        watch.settled()
        before = watch.at()
        eventually(
            lambda: watch.at() > before
        )  # by a look, so that its run has ended and knows what it claims
        ledger.drop_position(ALIAS)  # as a repair does
        watch.settled()  # since a run comes, although nothing was written


def test_an_answer_claims_a_time_after_a_commit_once_it_has_it(project):
    with following(project) as watch, Retriever.from_settings(project.settings) as retriever:
        watch.settled()
        project.execute("UPDATE note SET body = 'a green frog sits' WHERE id = 5")
        committed = dt.datetime.now(dt.UTC).isoformat()

        def complete_since():
            found = retriever.search_sync("green frog", timeout=200)
            return found if found.as_of["notes"].at >= committed else None

        result = eventually(complete_since, every=0.1)
        assert result.hits[0].document_id == "5"
        assert (result.as_of["notes"].known_by, result.as_of["notes"].not_seen) == ("watch", "")
        assert (
            retriever.search_sync("green frog", max_age="1 h", timeout=200)
            .as_of["notes"]
            .seconds_behind
            <= 3600
        )


def test_a_run_that_read_its_settings_before_a_change_does_not_begin(project):
    old = project.settings
    run_plain(project)
    project.write_settings(HIDING)
    with pytest.raises(
        SettingsReplaced, match=r"rag-index.toml has changed since this run read it"
    ):
        open_index(old, "notes", RunOptions(), run_id="late").__enter__()


def test_a_changed_settings_file_is_read_once_it_is_unchanged_whatever_thread_asks(
    project, monkeypatch
):
    """The thread of a run asks while the loop has seen the change, and has not set the delay yet."""
    load = mock.Mock(return_value=project.settings)
    reload = watch_package._Reload(project.settings, load)
    project.write_settings(HIDING)
    is_between, goes_on = threading.Event(), threading.Event()

    def late_clock():
        if not is_between.is_set():
            is_between.set()
            goes_on.wait(60)
        return time.monotonic()

    monkeypatch.setattr(watch_package, "time", SimpleNamespace(monotonic=late_clock))
    loop = in_thread(reload, "loop")
    assert is_between.wait(60)
    assert reload() is False
    assert load.call_count == 0
    goes_on.set()
    assert loop.result(60) is False
    eventually(reload)
    assert load.call_count == 1


@pytest.mark.long
def test_a_watch_goes_on_with_changed_settings_and_has_all_written_by_them(project):
    text = project.config.read_text()
    with following(project) as watch:
        watch.settled()
        project.write_settings("[[[")
        project.execute("UPDATE note SET body = 'changed' WHERE id < 7")
        eventually(lambda: watch.record().state == "failing", watch.record)
        assert watch.at() < time.time()
        project.write_settings(HIDING)
        [collection] = watch.ledger.collections(ALIAS)
        eventually(lambda: watch.ledger.totals(collection.id).documents == 20, watch.record)
        project.write_settings(text)
        eventually(
            lambda: watch.ledger.totals(collection.id).documents == 30
        )  # though nothing changes in the source
        project.write_settings(HIDING)
        eventually(lambda: watch.ledger.totals(collection.id).documents == 20)
    found = texts(project)
    assert ("4" in found, found["5"]) == (False, "Note 5\nchanged")


def test_a_watch_with_an_older_file_than_the_last_run_waits_and_says_so(project):
    """As on a second machine, whose file nobody has changed."""
    other = project.folder / "other.toml"
    other.write_text(project.config.read_text())
    with following(project, other) as watch:
        watch.settled()
        project.write_settings(HIDING)
        run_plain(project)
        project.execute("UPDATE note SET body = 'changed' WHERE id = 4")
        eventually(
            lambda: "was last written by other settings" in watch.record().message, watch.record
        )
        assert watch.record().state == "waiting"
    assert "4" not in project.texts()
