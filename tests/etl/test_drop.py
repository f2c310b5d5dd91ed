"""`rag-index drop`: an index is gone with all its texts, and what nobody wants any longer is named until then."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.care.transfer import move, target_settings
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores import open_names
from rag_index.errors import IndexLocked
from rag_index.etl.erase import drop_index
from tests.etl.plain import printed
from tests.project import Project, run_here

OLD = '[[indexes]]\nname = "old"\ntable = "secrets"\nkey = "id"\ntext = "body"\n'
TEXT = "the launch code of the rocket is Xylophone"
SAID = "rag-index.toml has no such index, but test_old__2 keeps its texts: `rag-index drop old` deletes them"


def with_leftovers(folder: Path, extra: str = "") -> Project:
    """Return a project that has indexed two indexes, one of them twice, and whose settings name the other alone."""
    project = Project(folder, extra=extra).fill(20)
    project.execute("CREATE TABLE secrets (id INTEGER PRIMARY KEY, body TEXT)")
    for number in range(30):
        project.execute("INSERT INTO secrets VALUES (?, ?)", number, f"{TEXT} {number}")
    both = project.config.read_text() + OLD
    project.write_settings(both)
    project.run()
    project.run("old", full=True)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.put_context("recipe", b"document", b"chunk", TEXT)
    project.write_settings(both.removesuffix(OLD))
    return project


def files_with_text(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"Xylophone" in path.read_bytes()]


def rows_of(project: Project, alias: str) -> int:
    """Count the ledger's rows about an alias and its collections."""
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        runs = ledger.last_run(alias) is not None
        return runs + sum(1 + ledger.totals(one.id).documents for one in ledger.collections(alias))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_an_index_that_no_setting_wants_is_named_and_dropped_with_all_its_texts(tmp_path, qdrant, kind):
    project = with_leftovers(tmp_path / "project", "" if kind == "embedded" else f'[store]\nurl = "{qdrant.url}"')
    assert printed(project, "status")["unwanted"] == {"old": SAID}
    assert run_here(project.config, "status")[0].splitlines()[-1] == f"old: {SAID}"
    assert {"index": "old", "message": SAID} in printed(project, "doctor")["advice"]
    kept = project.folder / ".rag-index"
    assert bool(files_with_text(kept / "qdrant")) == (kind == "embedded"), "otherwise this tests nothing"
    assert files_with_text(kept)

    asked = project.cli("drop", "old")  # nobody answers
    assert asked.returncode == 2
    assert "old: test_old__1 (30 documents), test_old__2 (30 documents)\n" in asked.stderr
    assert "--yes deletes without asking" in asked.stderr
    assert rows_of(project, "test_old") == 63

    assert printed(project, "drop", "old", "--yes")["dropped"] == ["test_old__1", "test_old__2"]
    with open_names(project.settings.store) as names:
        assert list(names.collections()) == ["test_notes__1"]
        assert names.aliases() == {"test_notes": "test_notes__1"}
    assert files_with_text(kept) == []
    assert rows_of(project, "test_old") == 0
    assert printed(project, "doctor")["findings"] == []
    assert (
        "nothing is kept of an index 'old'; the indexes are notes" in run_here(project.config, "drop", "old", code=2)[1]
    )


def test_an_index_that_the_settings_have_is_indexed_again_by_the_next_run(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.run()
    before = project.texts()
    with closing(Ledger(project.settings.ledger_url)) as ledger, IndexLease(ledger, "test_notes", "a run"):
        with pytest.raises(IndexLocked):
            drop_index(project.settings, "notes")
        said = run_here(project.config, "drop", "notes", code=2)[1]
        assert "so its next run indexes everything again" in said
    assert project.texts() == before
    drop_index(project.settings, "notes")
    assert (
        "nothing is kept of an index 'note', did you mean 'notes'?"
        in run_here(project.config, "drop", "note", code=2)[1]
    )
    assert (project.run().indexes[0].new, project.texts()) == (20, before)


def test_a_project_whose_name_begins_alike_is_not_named(tmp_path, qdrant):
    extra = f'[store]\nurl = "{qdrant.url}"'
    other = Project(tmp_path / "other", extra=extra).fill(5)
    other.write_settings(other.config.read_text().replace('project = "test"', 'project = "test_other"'))
    project = Project(tmp_path / "project", extra=extra).fill(5)
    assert (other.run().state, project.run().state) == ("completed", "completed")
    assert printed(project, "status")["unwanted"] == {}


def test_what_was_moved_is_dropped_where_it_was_and_the_ledger_stays(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.run()
    before = project.texts()
    move(project.settings, target_settings(project.settings, str(tmp_path / "new")))
    said = run_here(project.config, "drop", "notes", "--yes")[0]
    place = (tmp_path / "new").resolve()
    assert f"notes: deleted test_notes__1 (a copy of what was moved to {place})." in said
    with open_names(project.settings.store) as names:
        assert names.collections() == {}
    project.write_settings(
        project.config.read_text().replace("[[indexes]]", f"[store]\npath = {json.dumps(str(place))}\n[[indexes]]")
    )
    assert (project.texts(), printed(project, "doctor")["findings"]) == (before, [])
