"""Single documents at once: what they leave behind is what a whole run would."""

import pytest

from rag_index.care.index_status import failed, status
from rag_index.components.ledger.runs import IndexLease
from rag_index.errors import IndexLocked, SettingsError
from rag_index.etl.changed import index_documents
from tests.etl.plain import run_plain
from tests.project import Project, run_here


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(30)
    only(project, *map(str, range(1, 31)))
    return project


def only(project: Project, *ids: str):
    return index_documents(project.settings, "notes", ids)


def test_what_is_named_is_brought_up_to_date_and_nothing_else(project):
    assert status(project.settings).indexes[0].last_run is None, (
        "how the last whole run went is not hidden"
    )
    project.fill(2, first=31)
    project.execute("UPDATE note SET author = 'somebody else' WHERE id = 3")
    project.execute(
        "UPDATE note SET body = 'short' WHERE id IN (10, 20)"
    )  # they had several chunks
    project.execute("DELETE FROM note WHERE id = 11")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 12")
    outcome = only(project, "31", "32", "3", "10", "11", "12", "13", "13")
    assert (outcome.state, outcome.documents, outcome.new, outcome.payload_only) == (
        "completed",
        6,
        2,
        1,
    )
    assert (outcome.changed, outcome.deleted, outcome.empty, outcome.unchanged) == (1, 2, 1, 1)
    assert len(project.texts()["20"]) > 1
    found = run_plain(project)
    assert (found.changed, found.unchanged + found.empty) == (1, 30)
    with pytest.raises(SettingsError, match="neither the source nor the index has a document 11"):
        only(project, "11")


@pytest.mark.parametrize("given", ["999", "05", "5.0", " 5", "5b", "99999999999999999999999"])
def test_nothing_is_done_where_one_of_the_keys_is_nowhere(project, given):
    """A key is what people see of it and nothing like it."""
    project.execute("UPDATE note SET body = 'changed' WHERE id = 4")
    with pytest.raises(
        SettingsError, match=f"neither the source nor the index has a document {given}; nothing was"
    ):
        only(project, "4", given)
    assert "changed" not in project.texts()["4"][0]


def test_keys_of_several_columns_are_arrays(tmp_path):
    project = Project(tmp_path / "project")
    settings = (
        'project = "test"\n[source]\nurl = "sqlite:///source.db"\n[[indexes]]\nname ='
        ' "notes"\ntable = "part"\n'
    )
    project.write_settings(settings + 'key = ["site", "number"]\ntext = "body"\n')
    project.execute(
        "CREATE TABLE part (site TEXT, number INTEGER, body TEXT, PRIMARY KEY (site, number))"
    )
    project.execute(
        "INSERT INTO part VALUES ('north', 1, 'a pump'), ('north', 2, 'a valve'), ('1', 1, 'a"
        " lamp')"
    )
    assert only(project, '["north", 2]', '["north",2]', '["1",1]').new == 2
    project.execute("DELETE FROM part WHERE number = 2")
    assert (only(project, '["north",2]').deleted, project.texts()) == (1, {'["1",1]': ["a lamp"]})
    for given in ("north", '["north"]', '["north", "1"]'):
        with pytest.raises(SettingsError, match=r"JSON array of 2 values|neither"):
            only(project, given)


def test_a_failed_document_that_is_mended_or_gone_is_no_failure_any_more(project):
    project.execute("UPDATE note SET body = ? WHERE id IN (8, 9)", b"\x01")
    assert (
        only(project, "8", "9").state,
        len(failed(project.settings, project.settings.indexes)),
    ) == ("partial", 2)
    project.execute("UPDATE note SET title = '', body = '' WHERE id = 8")
    project.execute("DELETE FROM note WHERE id = 9")
    assert only(project, "8", "9").state == "completed"
    assert failed(project.settings, project.settings.indexes) == []


def test_it_waits_for_no_other_run_and_says_who_is_writing(project, ledger):
    with (
        IndexLease(ledger, "test_notes", "another"),
        pytest.raises(IndexLocked, match="being written by process"),
    ):
        only(project, "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--id is for documents of one index, and none is named: name one"),
        (("notes", "others"), "--id is for documents of one index, and 2 are named: name one"),
        (("notes", "--retry-failed"), "--id cannot be combined with --retry-failed: leave it out"),
    ],
)
def test_why_an_id_is_refused_is_the_true_reason(project, arguments, said):
    error = run_here(project.config, "index-all", *arguments, "--id", "1", code=2)[1]
    assert said in error
    assert error.count("--id") == 1
