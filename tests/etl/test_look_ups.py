"""Documents that show a changed row of another table are found, whatever was being written when the change arrived."""

from contextlib import closing
from unittest import mock

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.sources.sql import SqlSource
from rag_index.core.documents.keys import encode_key
from rag_index.errors import SourceUnavailable
from rag_index.etl import run as pipeline
from tests.etl.plain import batch, run_plain
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
def project(tmp_path):
    return desk(tmp_path / "desk")


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


def test_documents_that_show_the_row_are_read_again_deleted_and_added(project, ledger):
    project.execute("UPDATE customer SET name = 'anna' WHERE id = 0")
    changed_customer(ledger, 0, 99)
    assert ledger.count_waiting(ALIAS) == 2
    assert batch(project).outcome.changed == 3
    assert ledger.count_waiting(ALIAS) == 0
    assert {number for number, name in shown(project).items() if name == "anna"} == {"4", "8", "12"}
    project.execute("DELETE FROM customer WHERE id = 1")
    project.execute("INSERT INTO customer VALUES (3, 'dee')")
    changed_customer(ledger, 1, 3)
    follow(project, ledger)
    assert set(shown(project)) == {"2", "3", "4", "6", "7", "8", "10", "11", "12"}


@pytest.mark.parametrize("whole", [False, True], ids=["a batch", "a run over all documents"])
def test_a_row_that_goes_while_its_documents_are_being_written_takes_them_along(project, ledger, whole):
    """What writes them has read tickets of a customer, and not written them when the customer is deleted."""
    project.execute("INSERT INTO customer VALUES (3, 'dee')")
    changed_customer(ledger, 3)
    index, done = pipeline.index_pages, []

    def delete_meanwhile(opened, scan, steps, record, documents):
        pages = list(documents.pages(opened, steps, record))
        documents.pages = lambda *_: iter(pages)
        if not done:
            project.execute("DELETE FROM customer WHERE id = 3")
            changed_customer(ledger, 3)
        done.append(1)
        return index(opened, scan, steps, record, documents)

    with mock.patch.object(pipeline, "index_pages", delete_meanwhile):
        if whole:
            run_plain(project)
        else:
            batch(project)
    assert set(shown(project)) >= {"3", "7", "11"}  # they were read before
    follow(project, ledger)
    assert set(shown(project)) == {"1", "2", "4", "5", "6", "8", "9", "10", "12"}
    assert run_plain(project).nothing_to_do


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


@pytest.mark.parametrize(
    ("most", "column", "whole"), [(3, "customer_id", False), (2, "customer_id", True), (3, "of_old", True)]
)
def test_what_is_more_than_a_burst_or_cannot_be_looked_up_is_left_to_an_ordinary_run(tmp_path, most, column, whole):
    """The settings may have changed since the look-up arrived."""
    project = desk(tmp_path / "desk", f"[watch]\nburst_documents = {most}\n")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.put_look_ups([(ALIAS, column, encode_key([0]), 1.0)])
        assert batch(project).error is None
        assert (ledger.watch(ALIAS).full_number is not None) == whole
        assert ledger.count_waiting(ALIAS) == 0
