"""A watch follows its settings file, and no writer writes by settings that others have replaced."""

from contextlib import closing, contextmanager, suppress
from functools import partial

import pytest

from rag_index.components.ledger import Ledger
from rag_index.core.settings import load_settings
from rag_index.errors import SettingsError, SettingsReplaced
from rag_index.etl.changed import BatchIndexer
from rag_index.etl.opened import RunOptions, open_index
from rag_index.watch import follow
from rag_index.watch.loop import Stop
from tests.etl.plain import Died, run_plain
from tests.project import Project
from tests.waiting import eventually
from tests.watch.feeds import in_a_thread
from tests.watch.test_real_feed import ALIAS, QUEUE, followed

HIDING = QUEUE.replace('key = "id"', 'key = "id"\nwhere = "priority <> 1"')
"""Notes whose number leaves 1 when divided by three are hidden."""


@pytest.fixture
def project(tmp_path) -> Project:
    project = followed(tmp_path / "project")
    run_plain(project)
    return project


def batch(settings, *ids):
    """Index these documents as a watch with these settings would, and return how that ended."""
    with closing(Ledger(settings.ledger_url)) as ledger, closing(BatchIndexer(settings)) as indexer:
        ledger.put_changes((ALIAS, one, 1.0) for one in ids)
        return indexer.index("notes").error


def test_a_batch_writes_nothing_by_settings_that_a_run_or_the_file_has_replaced(project):
    old, text = project.settings, project.config.read_text()
    project.execute("UPDATE note SET body = 'secret' WHERE id = 4")
    project.write_settings(HIDING)
    assert isinstance(batch(old, "4"), SettingsReplaced), "the file says something else"
    with suppress(Died):
        run_plain(project, delete=False)
    with closing(Ledger(old.ledger_url)) as ledger:
        assert ledger.watch(ALIAS).full_number is not None, "until a run is complete, nobody knows what it holds"
    run_plain(project)
    project.write_settings(text)
    assert isinstance(batch(project.settings, "4"), SettingsReplaced), "a run with another file has written it"
    assert "4" not in project.texts()
    project.write_settings(f"{HIDING}\n[run]\nkeep_days = 3\n")
    assert batch(project.settings, "4") is None, "what decides nothing of documents is no other setting"
    project.write_settings("[[[")
    assert isinstance(batch(old, "4"), SettingsError)


def test_a_run_that_read_its_settings_before_a_change_does_not_begin(project):
    old = project.settings
    project.write_settings(HIDING)
    with pytest.raises(SettingsReplaced, match=r"rag-index.toml has changed since this run read it"):
        open_index(old, "notes", RunOptions(), run_id="late").__enter__()


@contextmanager
def following(project, config):
    """Watch a project with the settings of a file, which may change, for the time of the block; yield the ledger."""
    stop = Stop()
    follows = partial(follow, lambda: load_settings(config), None, stop)
    with closing(Ledger(project.settings.ledger_url)) as ledger, in_a_thread(follows, stop):
        eventually(lambda: (one := ledger.watch(ALIAS)) and one.caught_up_at and one.full_number is None)
        yield ledger


def test_a_watch_goes_on_with_changed_settings_and_has_all_written_by_them(project):
    with following(project, project.config) as ledger:
        assert "4" in project.texts()
        project.write_settings("[[[")
        project.execute("UPDATE note SET body = 'changed' WHERE id < 7")
        eventually(lambda: ledger.watch(ALIAS).state == "failing")
        project.write_settings(HIDING)
        eventually(lambda: ledger.watch(ALIAS).state == "running" and not ledger.count_waiting(ALIAS))
        [collection] = ledger.collections(ALIAS)
        assert ledger.totals(collection.id).documents == 20
        project.write_settings(QUEUE)
        eventually(lambda: ledger.totals(collection.id).documents == 30)  # though nothing changes in the source
        project.write_settings(HIDING)
        eventually(lambda: ledger.totals(collection.id).documents == 20)
    texts = project.texts()
    assert ("4" in texts, texts["5"]) == (False, ["Note 5\nchanged"])


def test_a_watch_with_an_older_file_than_the_last_run_waits_and_says_so(project):
    """As on a second machine, whose file nobody has changed."""
    other = project.folder / "other.toml"
    other.write_text(project.config.read_text())
    with following(project, other) as ledger:
        project.write_settings(HIDING)
        run_plain(project)
        project.execute("UPDATE note SET body = 'changed' WHERE id = 4")
        eventually(lambda: ledger.watch(ALIAS).state == "failing")
        assert "was last written by other settings" in ledger.watch(ALIAS).message
    assert "4" not in project.texts()
