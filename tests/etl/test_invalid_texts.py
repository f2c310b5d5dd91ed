"""Whole runs over databases with a text that is not valid in their charset, from the first run to
the mended text."""

import json

import pytest

from rag_index.care.index_status import failed
from rag_index.care.plan import plan_runs
from rag_index.etl.changed import index_documents
from tests.components.sources.test_undecoded import INVALID, NO_TEXT, bytes_desk
from tests.etl.plain import watched_run
from tests.project import Project, run_here

NOTES = 120
INDEX = """\
project = "test"
[source]
url = "{url}"
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = "body"
access = "grp"
"""


class Written:
    """A project over a database, and a way to write a value as bytes."""

    def __init__(self, project, run):
        self.project, self.run = project, run

    def put(self, key, column, value):
        """Give a note this value, of text or of bytes."""
        raw = value if isinstance(value, bytes) else value.encode("ascii")
        self.run(key, column, raw)


@pytest.fixture(params=["SQL_ASCII", "WIN1252", "sqlite"])
def written(request, postgres, tmp_path, monkeypatch):
    """A project over 120 notes for staff, with digests."""
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    project = Project(tmp_path / "project")
    if request.param == "sqlite":
        project.execute("DROP TABLE note")
        project.execute("CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, grp TEXT)")
        for number in range(NOTES):
            project.execute(
                "INSERT INTO note VALUES (?, ?, 'staff')",
                f"n{number}",
                f"The machine {number} is loud",
            )
        project.write_settings(INDEX.format(url="sqlite:///source.db"))
        change = "UPDATE note SET {} = CAST(? AS TEXT) WHERE id = ?"
        yield Written(
            project, lambda key, column, raw: project.execute(change.format(column), raw, key)
        )
        return
    with bytes_desk(postgres, request.param) as desk:
        desk.write(
            "CREATE TABLE note (id text PRIMARY KEY, body text, grp text)",
            "INSERT INTO note SELECT 'n' || i, 'The machine ' || i || ' is loud', 'staff' "
            f"FROM generate_series(0, {NOTES - 1}) i",
        )
        url = desk.url.render_as_string(hide_password=False)
        project.write_settings(INDEX.format(url=url))
        change = "UPDATE note SET {} = '%s' WHERE id = '%s'"
        yield Written(
            project,
            lambda key, column, raw: desk.write(
                change.format(column).encode() % (raw, key.encode())
            ),
        )


def counts(outcome):
    """Return what a run did with its documents: the numbers that are not 0."""
    assert outcome.state in ("completed", "partial"), outcome
    names = ("new", "changed", "payload_only", "unchanged", "deleted", "failed")
    return {name: number for name in names if (number := getattr(outcome, name))}


def figures(project):
    return counts(project.run().indexes[0])


def listed(project):
    """Return the reasons of the documents that are listed, by id."""
    return {
        one.document_id: one.reason for one in failed(project.settings, project.settings.indexes)
    }


def found(project, query, *groups):
    named = [part for group in groups for part in ("--group", group)]
    out, _ = run_here(project.config, "search", query, *named, "--limit", 3, "--json")
    return [hit["document_id"] for hit in json.loads(out)["hits"]]


def test_one_invalid_text_costs_its_document_alone(written):
    project = written.project
    written.put("n7", "body", NO_TEXT)
    assert figures(project) == {"new": NOTES - 1, "failed": 1}
    assert listed(project) == {"n7": f"column 'body' {INVALID}"}
    [plan] = plan_runs(project.settings, project.settings.indexes)
    assert (plan.error, plan.unchanged, plan.failed, plan.gone, plan.changed) == (
        "",
        NOTES - 1,
        1,
        0,
        0,
    )
    written.put("n7", "body", "A mended zebra")
    assert figures(project) == {"new": 1, "unchanged": NOTES - 1}
    assert listed(project) == {}
    assert found(project, "zebra", "staff")[0] == "n7"


def test_a_document_whose_text_becomes_invalid_keeps_its_points_for_those_who_may_see_it_now(
    written,
):
    project = written.project
    assert figures(project) == {"new": NOTES}
    written.put("n7", "body", NO_TEXT)
    written.put("n7", "grp", "other")
    written.put("n8", "body", "A striped zebra")
    assert figures(project) == {"changed": 1, "unchanged": NOTES - 2, "failed": 1}
    assert project.texts().keys() == {f"n{number}" for number in range(NOTES)}, "it counts as seen"
    assert found(project, "zebra", "staff")[0] == "n8"
    assert "n7" not in found(project, "The machine 7 is loud", "staff")
    assert found(project, "The machine 7 is loud", "other") == ["n7"]


def test_nobody_sees_a_document_with_an_invalid_group(written):
    project = written.project
    assert figures(project) == {"new": NOTES}
    written.put("n7", "grp", b"staff\x81\xff")
    figures(project)
    assert "n7" in project.texts()
    assert "n7" not in found(project, "The machine 7 is loud", "staff")
    written.put("n9", "body", NO_TEXT)
    written.put("n9", "grp", b"staff\x81\xff")
    figures(project)
    assert "n9" in project.texts()
    assert "n9" not in found(project, "The machine 9 is loud", "staff")


def test_one_document_alone_and_a_watch_do_as_a_run_does(written):
    project = written.project
    written.put("n7", "body", NO_TEXT)
    figures(project)
    assert counts(index_documents(project.settings, "notes", ["n7", "n8"])) == {
        "unchanged": 1,
        "failed": 1,
    }
    written.put("n8", "body", NO_TEXT)
    written.put("n7", "body", "A mended zebra")
    assert watched_run(project).error is None
    assert listed(project).keys() == {"n8"}
    written.put("n8", "body", "A mended giraffe")
    assert counts(index_documents(project.settings, "notes", ["n8"])) == {"changed": 1}
    assert listed(project) == {}


def test_why_names_the_column_of_a_document_that_is_not_indexed(written):
    project = written.project
    written.put("n7", "body", NO_TEXT)
    written.put("n8", "id", b"k\x81\xff")
    figures(project)
    said = {}
    for one in ("n7", "6b81ff"):
        out, _ = run_here(
            project.config, "search", "zebra", "--why", f"notes/{one}", "--all-groups", "--json"
        )
        said[one] = json.loads(out)
    assert [one["reason"] for one in said.values()] == ["failed", "failed"]
    assert f"column 'body' {INVALID}" in said["n7"]["message"]
    assert "the key shows its bytes in hexadecimal" in said["6b81ff"]["message"]
