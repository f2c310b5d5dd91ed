"""A source of another distribution: the example of docs/sources.md."""

import json
import sys

import pytest

from rag_index.components.sources import open_source
from rag_index.errors import SettingsError
from tests.docs.pages import blocks, page
from tests.plugin_site import install_as_written
from tests.project import Project

SECTION = page("sources").split("\n## A source of your own\n")[1].split("\n## ")[0]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """A project with the settings of the example, whose package is installed."""
    site = tmp_path / "site"
    install_as_written(blocks(SECTION, "text")[0], site, {"notes.py": blocks(SECTION, "python")[0]})
    monkeypatch.syspath_prepend(str(site))
    made = Project(tmp_path / "project")
    made.write_settings('project = "test"\n' + blocks(SECTION, "toml")[0])
    sys.modules.pop("notes", None)
    return made


def write(project: Project, notes: dict[int, str]) -> None:
    lines = [json.dumps({"id": key, "text": text, "author": "kim"}) for key, text in notes.items()]
    (project.folder / "notes.jsonl").write_text("".join(f"{line}\n" for line in lines))


def counts(project: Project) -> dict[str, int]:
    outcome = project.run().indexes[0]
    assert outcome.state == "completed", outcome.message
    return {name: getattr(outcome, name) for name in ("new", "changed", "unchanged", "deleted")}


def test_the_example_is_indexed_and_kept_up_to_date(project):
    notes = {number: f"The printer of room {number} is broken." for number in range(50)}
    write(project, notes)
    assert counts(project) == {"new": 50, "changed": 0, "unchanged": 0, "deleted": 0}
    assert {payload["author"] for payload, _ in project.points().values()} == {"kim"}
    write(project, {**{key: text for key, text in notes.items() if key != 7}, 8: "It is the keyboard."})
    assert counts(project) == {"new": 0, "changed": 1, "unchanged": 48, "deleted": 1}
    assert project.texts()["8"] == ["It is the keyboard."]


def test_a_kind_that_is_not_installed(tmp_path):
    project = Project(tmp_path / "project")
    project.write_settings('[[indexes]]\nname = "mails"\nkind = "mails"\n')
    with pytest.raises(SettingsError, match=r"there is no 'mails' \(there are: sql, code.* install the package"):
        open_source(project.settings, project.settings.indexes[0])
