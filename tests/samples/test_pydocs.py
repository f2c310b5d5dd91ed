"""The sample of Python's own documentation."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.errors import SourceError
from rag_index.samples import pydocs
from rag_index.settings import load_settings

ROOT = Path(__file__).parents[2]


def rows(path: Path) -> dict[str, list[tuple[str | None, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f'SELECT * FROM "{table}" ORDER BY name').fetchall() for table in pydocs.TABLES
        }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    path = tmp_path_factory.mktemp("pydocs") / "not" / "there" / "yet" / "pydocs.db"
    return path, pydocs.write(path)


@pytest.mark.parametrize(
    ("table", "name", "words"),
    [
        ("module", "json.decoder", "JSONDecoder"), ("module", "math", "mathematical functions"),
        ("class", "io.BytesIO", "in-memory bytes buffer"), ("class", "collections.OrderedDict", "remembers"),
        ("class", "collections.deque", "list-like sequence"), ("function", "json.dumps", "JSON formatted"),
        ("function", "os.listdir", "files in the directory"), ("function", "builtins.print", "Prints the values"),
        ("method", "pathlib.Path.exists", "exists"), ("method", "builtins.str.split", "list of the substrings"),
        ("topic", "class", "Class definitions"),
    ],
)  # fmt: skip
def test_well_known_names_are_found(written: tuple[Path, dict[str, int]], table: str, name: str, words: str) -> None:
    found = {row[0]: f"{row[1]} {row[2]}" for row in rows(written[0])[table]}
    assert words in found[name]


def test_another_process_writes_the_same_and_nothing_else(written: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    """The process prints nothing, writes only the database and runs no module, even if it was modified before."""
    for name in ("winsound", "antigravity", "this", "readline"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w'); print('{name}')\n")
    before = set(tmp_path.iterdir())
    program = (
        "import pathlib, sys\n"
        "sys.excepthook = print\n"
        "from rag_index.samples import pydocs\n"
        "pydocs.write(pathlib.Path('out.db'))\n"
        "bad = {'antigravity', 'this', 'idlelib', 'tkinter', 'turtle', 'test', 'readline'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out.db"}
    assert rows(tmp_path / "out.db") == rows(written[0])


@pytest.mark.parametrize("place", [".", "file/pydocs.db"])
def test_an_unwritable_path_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SourceError, match=r"cannot write .*; name another file"):
        pydocs.write(tmp_path / place)


def test_the_settings_load_and_fit_the_tables(written: tuple[Path, dict[str, int]]) -> None:
    path, _ = written
    config = path.with_name("rag-index.toml")
    config.write_text(pydocs.scaffold(path.name), encoding="utf-8")
    settings = load_settings(config)
    assert settings.source_url.database == str(path)
    assert [index.name for index in settings.indexes] == ["modules", "classes", "functions", "methods", "topics"]
    with closing(sqlite3.connect(path)) as connection:
        for index in settings.indexes:
            columns = {row[1] for row in connection.execute(f'PRAGMA table_info("{index.table}")')}
            assert columns >= {*index.key_columns, *index.text_columns, *index.payload}


SOURCE = '''"""A module.

More about it.
"""
import sys

if sys.platform == "win32":
    def branch(x): "On Windows."
else:
    def branch(x, *, y=1) -> int: "Elsewhere."

class Thing(ValueError):
    """A thing
    that fails."""
    def __init__(self, a, b=2): "Begins."
    @property
    def size(self):
        """Its size."""
    @size.setter
    def size(self, value):
        """Not told twice."""
    @classmethod
    async def make(cls): "Makes one."
    class Inner:
        "Inside."
        def method(self): "Deep."
    def _private(self): "Not told."
    def bare(self): ...

def _private(): "Not told."
def blank(): "   "
'''


def test_a_source_file_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "mod.py"
    path.write_text(SOURCE + "\nraise SystemExit('was run')\n")
    entries = pydocs.read_module("pkg.mod", path)
    assert [(e.table, e.name, e.summary, e.signature) for e in entries] == [
        ("module", "pkg.mod", "A module.", None),
        ("function", "pkg.mod.branch", "On Windows.", "(x)"),
        ("function", "pkg.mod.branch", "Elsewhere.", "(x, *, y=1) -> int"),
        ("class", "pkg.mod.Thing", "A thing that fails.", "(a, b=2)"),
        ("method", "pkg.mod.Thing.__init__", "Begins.", "(self, a, b=2)"),
        ("method", "pkg.mod.Thing.size", "Its size.", "(self)"),
        ("method", "pkg.mod.Thing.size", "Not told twice.", "(self, value)"),
        ("method", "pkg.mod.Thing.make", "Makes one.", "(cls)"),
        ("class", "pkg.mod.Thing.Inner", "Inside.", None),
        ("method", "pkg.mod.Thing.Inner.method", "Deep.", "(self)"),
    ]
    assert (entries[0].body, entries[0].module) == ("More about it.", "pkg")
