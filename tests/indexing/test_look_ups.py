"""Documents that show a changed row of another table are found, whatever was being written when the change arrived."""

from __future__ import annotations

from contextlib import closing
from unittest import mock

import pytest

from rag_index.documents.keys import encode_key
from rag_index.errors import SourceUnavailable
from rag_index.indexing.changed import BatchIndexer
from rag_index.indexing.scan import Scan
from rag_index.ledger import Ledger
from rag_index.sources.sql import SqlSource
from tests.fakes.qdrant import FakeQdrant
from tests.indexing.plain import run_plain
from tests.project import Project

SETTINGS = """\
project = "desk"
[source]
url = "sqlite:///source.db"
{sections}
[[indexes]]
name = "notes"
query = "SELECT t.id, t.body, t.customer_id, c.name FROM ticket t JOIN customer c ON c.id = t.customer_id"
key = "id"
text = "{{name}}: {{body}}"
payload = ["customer_id"]
depends_on = [{{table = "customer", key = "id", column = "customer_id"}}]
"""
ALIAS = "desk_notes"


@pytest.fixture(params=["embedded", "server"])
def sections(request):
    """The settings of a store."""
    if request.param == "embedded":
        yield ""
        return
    with FakeQdrant() as server:
        yield f'[store]\nurl = "{server.url}"\n'


def desk(folder, sections=""):
    """Make tickets 1 to 12 of customers 0 to 3, all of them indexed but those of customer 3, which does not exist."""
    project = Project(folder)
    project.write_settings(SETTINGS.format(sections=sections))
    project.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
    project.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, body TEXT, customer_id INTEGER)")
    project.execute("INSERT INTO customer VALUES (0, 'ann'), (1, 'bob'), (2, 'cho')")
    for number in range(1, 13):
        project.execute("INSERT INTO ticket VALUES (?, 'it is broken', ?)", number, number % 4)
    run_plain(project)
    assert len(project.texts()) == 9
    return project


@pytest.fixture
def project(tmp_path, sections):
    return desk(tmp_path / "desk", sections)


@pytest.fixture
def ledger(project):
    with closing(Ledger(project.settings.ledger_url)) as opened:
        yield opened


def batch(project):
    with closing(BatchIndexer(project.settings)) as indexer:
        return indexer.index("notes")


def follow(project, ledger):
    """Index until nothing waits."""
    for _ in range(5):
        applied = batch(project)
        assert applied.error is None, applied.error
        if not ledger.count_waiting(ALIAS):
            return
    raise AssertionError(f"{ledger.count_waiting(ALIAS)} changes still wait")


def changed_customer(ledger, *ids):
    ledger.put_look_ups((ALIAS, "customer_id", encode_key([one]), 1.0) for one in ids)


def shown(project):
    return {number: text.split(":")[0] for number, [text] in project.texts().items()}


def test_documents_that_show_the_row_are_read_again(project, ledger):
    project.execute("UPDATE customer SET name = 'anna' WHERE id = 0")
    changed_customer(ledger, 0, 99)
    assert ledger.count_waiting(ALIAS) == 2
    assert batch(project).outcome.changed == 3
    assert ledger.count_waiting(ALIAS) == 0
    assert {number for number, name in shown(project).items() if name == "anna"} == {"4", "8", "12"}


def test_documents_that_a_join_no_longer_gives_are_deleted(project, ledger):
    project.execute("DELETE FROM customer WHERE id = 1")
    changed_customer(ledger, 1)
    follow(project, ledger)
    assert set(shown(project)) == {"2", "4", "6", "8", "10", "12"}


def test_documents_that_a_join_gives_again_are_added(project, ledger):
    project.execute("INSERT INTO customer VALUES (3, 'dee')")
    changed_customer(ledger, 3)
    follow(project, ledger)
    assert {number for number, name in shown(project).items() if name == "dee"} == {"3", "7", "11"}


def test_a_row_that_goes_while_its_documents_are_being_written_takes_them_along(project, ledger):
    """A batch has read tickets of a customer, and not written them when the customer is deleted."""
    project.execute("INSERT INTO customer VALUES (3, 'dee')")
    changed_customer(ledger, 3)
    whole = Scan.index

    def delete_meanwhile(*args):
        project.execute("DELETE FROM customer WHERE id = 3")
        changed_customer(ledger, 3)
        whole(*args)

    with mock.patch.object(Scan, "index", delete_meanwhile):
        batch(project)
    assert set(shown(project)) >= {"3", "7", "11"}  # they were read before
    follow(project, ledger)
    assert set(shown(project)) == {"1", "2", "4", "5", "6", "8", "9", "10", "12"}
    assert run_plain(project).nothing_to_do


def test_a_row_that_goes_while_a_run_writes_its_documents_takes_them_along(project, ledger):
    """The same with a run over all documents, which began before."""
    project.execute("INSERT INTO customer VALUES (3, 'dee')")
    read = SqlSource.page
    pages = []

    def delete_after_reading(self, *args):
        page = read(self, *args)
        if not pages:
            project.execute("DELETE FROM customer WHERE id = 3")
            changed_customer(ledger, 3)
        pages.append(page)
        return page

    with mock.patch.object(SqlSource, "page", delete_after_reading):
        run_plain(project)
    assert set(shown(project)) >= {"3", "7", "11"}
    follow(project, ledger)
    assert set(shown(project)) == {"1", "2", "4", "5", "6", "8", "9", "10", "12"}


def test_a_row_that_changes_again_while_its_documents_are_looked_up_waits(project, ledger):
    project.execute("UPDATE customer SET name = 'anna' WHERE id = 0")
    changed_customer(ledger, 0)
    find = SqlSource.keys_with

    def change_meanwhile(self, *args):
        yield from find(self, *args)
        changed_customer(ledger, 0)

    with mock.patch.object(SqlSource, "keys_with", change_meanwhile):
        batch(project)
    assert [one.value for one in ledger.waiting_look_ups(ALIAS, 10)] == ["0"]


def test_a_look_up_that_fails_waits(project, ledger):
    project.execute("UPDATE customer SET name = 'anna' WHERE id = 0")
    changed_customer(ledger, 0)
    with mock.patch.object(SqlSource, "keys_with", mock.Mock(side_effect=SourceUnavailable("it is down"))):
        assert isinstance(batch(project).error, SourceUnavailable)
    assert ledger.count_waiting(ALIAS) == 1
    follow(project, ledger)
    assert shown(project)["4"] == "anna"


def test_a_run_that_began_later_has_looked_everything_up(project, ledger):
    changed_customer(ledger, 0)
    run_plain(project)
    assert ledger.count_waiting(ALIAS) == 0


@pytest.mark.parametrize(("most", "whole"), [(3, False), (2, True)])
def test_more_documents_than_a_burst_are_left_to_an_ordinary_run(tmp_path, most, whole):
    project = desk(tmp_path / "desk", f"[watch]\nburst_documents = {most}\n")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        changed_customer(ledger, 0)
        assert batch(project).error is None
        assert (ledger.watch(ALIAS).full_number is not None) == whole
        assert ledger.count_waiting(ALIAS) == 0


def test_a_look_up_of_settings_that_were_changed_is_left_to_an_ordinary_run(tmp_path):
    project = desk(tmp_path / "desk")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.put_look_ups([(ALIAS, "of_old", "0", 1.0)])
        assert batch(project).error is None
        assert ledger.watch(ALIAS).full_number is not None
        assert ledger.count_waiting(ALIAS) == 0
