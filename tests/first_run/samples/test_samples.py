"""The samples: Python's own documentation, and a workshop that `init` understands and shows nothing
hidden of."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.components.sources import open_source
from rag_index.core.settings import load_settings
from rag_index.first_run.samples import pydocs, workshop

SOURCE = '''"""A module.

More about it.
"""
if "windows":
    def branch(x, *, y=1) -> int: "On Windows."

class Thing(ValueError):
    """A thing
    that fails."""
    def __init__(self): "Begins."
    async def make(cls): "Makes one."
    def _private(self): "Not told."
    def bare(self): ...

def _private(): "Not told."
raise SystemExit("was run")
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pydocs") / "not" / "there" / "yet" / "pydocs.db"
    pydocs.write(path)
    return path


@pytest.mark.long
def test_well_known_names_are_found(written):
    for table, name, words in (
        ("module", "json.decoder", "JSONDecoder"),
        ("class", "collections.OrderedDict", "remembers"),
        ("function", "json.dumps", "JSON formatted"),
        ("method", "pathlib.Path.exists", "exists"),
        ("topic", "class", "Class definitions"),
    ):
        with closing(sqlite3.connect(written)) as connection:
            found = connection.execute(
                f'SELECT summary, body FROM "{table}" WHERE name = ?', [name]
            ).fetchone()
        assert words in "".join(map(str, found)), table


def test_the_settings_load_and_fit_the_tables(written: Path) -> None:
    config = written.with_name("rag-index.toml")
    config.write_text(pydocs.scaffold(written.name), encoding="utf-8")
    settings = load_settings(config)
    assert settings.source_url.database == str(written)
    assert [index.name for index in settings.indexes] == [
        "modules",
        "classes",
        "functions",
        "methods",
        "topics",
    ]
    for index in settings.indexes:
        with closing(open_source(settings, index)) as source:
            source.check()


def test_a_source_file_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "mod.py"
    path.write_text(SOURCE)
    entries = pydocs.read_module("pkg.mod", path)
    assert [(e.table, e.name, e.summary, e.signature) for e in entries] == [
        ("module", "pkg.mod", "A module.", None),
        ("function", "pkg.mod.branch", "On Windows.", "(x, *, y=1) -> int"),
        ("class", "pkg.mod.Thing", "A thing that fails.", None),
        ("method", "pkg.mod.Thing.__init__", "Begins.", "(self)"),
        ("method", "pkg.mod.Thing.make", "Makes one.", "(cls)"),
    ]
    assert (entries[0].body, entries[0].module) == ("More about it.", "pkg")


def test_the_workshop_is_the_same_each_time_and_can_be_searched_without_an_edit(project, tmp_path):
    assert workshop.write(tmp_path / "one.db") == workshop.write(tmp_path / "two.db")
    assert (tmp_path / "one.db").read_bytes() == (tmp_path / "two.db").read_bytes()
    project.config.unlink()
    assert (
        project.cli(
            "sample", "workshop", "--out", f"{project.folder}/workshop.db", "--settings"
        ).returncode
        == 0
    )
    assert 'url = "sqlite:///workshop.db"' in project.config.read_text()
    again = project.cli("sample", "workshop", "--out", f"{project.folder}/other.db", "--settings")
    assert f"Left {project.config} as it is" in again.stdout
    index = project.settings.index("repair")
    assert (index.title, [part.table for part in index.parts]) == ("title", ["remark"])
    project.run()
    texts = project.texts("repair")
    assert len(texts) == 57
    assert "As soon as it is switched on, the whole flat is dark.\nPiet Vos" in texts["5"][0]
    assert "Water had reached the terminal; dried for a day and sealed with silicone." in texts["5"]
    assert not any("Pays late" in text for chunks in texts.values() for text in chunks)
