"""The scaffold: it loads, fits its source, states the right defaults, and holds no password."""

from __future__ import annotations

import re
import sqlite3
import tomllib
from pathlib import Path

import pytest

from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.settings import SECTIONS, IndexSettings, Settings, load_settings
from rag_index.sources import open_source
from rag_index.sources.scaffold import scaffold
from tests.project import Project

PROSE = "The printer on the third floor does not answer any more, please help us."


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A database with typical and odd tables, in the current folder, which is returned."""
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("desk.db") as db:
        db.executescript(
            """
            CREATE TABLE comment
                (id INTEGER PRIMARY KEY, ticket INTEGER, body TEXT, author TEXT, created TEXT, raw BLOB);
            CREATE TABLE "Work Log" ("log id" TEXT, line INTEGER, "the ""text" TEXT, PRIMARY KEY ("log id", line));
            CREATE TABLE "work-log" (id INTEGER PRIMARY KEY, note VARCHAR(2000), code VARCHAR(10), _rag TEXT);
            CREATE TABLE "__odd__name__" (id INTEGER PRIMARY KEY, body TEXT);
            CREATE TABLE "größe" (id INTEGER PRIMARY KEY, "Größe" TEXT);
            CREATE TABLE "no
key" (body TEXT);
            CREATE TABLE no_key_and_no_text (value REAL);
            CREATE VIEW latest AS SELECT id, body FROM comment;
            CREATE TABLE numbers (id INTEGER PRIMARY KEY, value REAL, state VARCHAR(20));
            CREATE TABLE hashes (id INTEGER PRIMARY KEY, digest TEXT);
            """
        )
        for i in range(30):
            db.execute("INSERT INTO comment VALUES (?, 1, ?, ?, '2024-01-02 10:00', x'00')", (i, PROSE, f"Ann {i}th"))
            db.execute("INSERT INTO hashes VALUES (?, ?)", (i, "0123456789abcdef" * 4))
            db.execute('INSERT INTO "größe" VALUES (?, ?)', (i, "打印机坏了无法打印请尽快修理它谢谢你们大家"))
    db.close()
    return tmp_path


def load(text, folder):
    (folder / "rag-index.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "rag-index.toml")


def test_every_table_with_text_becomes_an_index_that_fits(desk):
    settings = load(scaffold("sqlite:///desk.db").text, desk)
    assert {index.table: index.name for index in settings.indexes} == {
        "Work Log": "work-log",
        "__odd__name__": "odd_name",
        "comment": "comment",
        "größe": "gr-e",
        "work-log": "work-log-2",
    }
    for index in settings.indexes:
        source = open_source(settings, index)
        source.check()
        assert source.page(None, 10).unreadable == []
        source.close()


def test_tables_and_views_without_a_key_are_named_in_the_file_and_by_the_command(desk):
    made = scaffold("sqlite:///desk.db")
    assert [sentence.partition(" has text but no primary key: ")[0] for sentence in made.left_out] == [
        '"latest"',
        '"no\\nkey"',
    ]
    assert all(f"\n# {sentence}\n" in made.text for sentence in made.left_out)
    with sqlite3.connect("loose.db") as db:
        db.executescript("CREATE TABLE loose (body TEXT)")
    with pytest.raises(SettingsError, match='no table with a primary key and a text column; "loose" has text but no'):
        scaffold("sqlite:///loose.db")


def test_words_are_text_and_codes_names_and_dates_are_payload(desk):
    settings = load(scaffold("sqlite:///desk.db").text, desk)
    comment, log, again = (settings.index(name) for name in ("comment", "work-log", "work-log-2"))
    assert (comment.key, comment.text, comment.payload) == ("id", ["body"], ["ticket", "author", "created"])
    assert (log.key, log.text) == (["log id", "line"], ['the "text'])
    assert (again.text[0], again.payload) == ("note", ["code"])
    assert settings.index("gr-e").text == ["Größe"]


def test_secrets_are_left_out_by_their_names_and_plan_warns_of_those_that_are_written_in(tmp_path):
    project = Project(tmp_path / "project")
    project.execute("CREATE TABLE user (id INTEGER PRIMARY KEY, about TEXT, password_hash TEXT, apiKey TEXT, pin INT)")
    project.execute("CREATE TABLE session (session_key TEXT PRIMARY KEY, note TEXT)")
    project.execute("INSERT INTO user VALUES (1, ?, '$2b$12$ a hash with words', 'k e y', 1234)", PROSE)
    project.config.unlink()
    said = project.cli("init", "--source", f"sqlite:///{project.folder}/source.db").stdout
    user = project.settings.index("user")
    assert (user.text, user.payload) == (["about"], [])
    assert '"user" has columns named like secrets, which are left out (password_hash, apiKey, pin): if one' in said
    assert '"session" is left out, because its key is named like a secret (session_key): if one holds none' in said
    assert all(f"\n# {line}\n" in project.config.read_text() for line in said.splitlines() if line.startswith('"'))
    assert "message" not in project.json("plan", "user")["indexes"][0]

    written = project.config.read_text().replace('text = ["about"]', 'text = ["about", "password_hash"]')
    project.write_settings(written.replace("payload = []", 'payload = ["pin"]\nnot_secret = ["pin"]', 1))
    said = "user: searches would show password_hash, named like secrets: leave out what is one, and name the rest"
    assert said in project.cli("plan", "user").stdout


def test_the_file_may_be_in_another_folder_than_the_current_one(desk):
    other = desk / "etc"
    other.mkdir()
    settings = load(scaffold("sqlite:///desk.db", other).text, other)
    assert Path(str(settings.source_url.database)).resolve() == desk / "desk.db"
    absolute = load(scaffold(f"sqlite:///{desk}/desk.db", other).text, other)
    assert absolute.source_url.database == f"{desk}/desk.db"


def test_without_a_source_the_scaffold_holds_an_example(tmp_path):
    settings = load(scaffold(None).text, tmp_path)
    assert settings.source_url.drivername == "postgresql+psycopg"
    assert settings.indexes[0].text == ["subject", "body"]


def test_each_commented_line_is_a_key_and_most_show_the_default():
    section, seen, models = "", {}, {"": Settings, **SECTIONS, "indexes": IndexSettings}
    for line in scaffold(None).text.splitlines():
        if line.removeprefix("# ").startswith("["):
            section = line.removeprefix("# ").strip("[]")
        elif match := re.fullmatch(r"# (\w+ = .*)", line):
            ((key, value),) = tomllib.loads(match[1]).items()
            assert key in models[section].model_fields, f"[{section}] has no key {key}"
            seen.setdefault((section, key), value)
    for section, key in [("embedder", "kind"), ("parallel", "workers"), ("parallel", "shard_documents")]:
        assert seen[section, key] == SECTIONS[section].model_fields[key].default
    for key in ("delete_guard", "tolerate_failed"):
        assert seen["run", key] == SECTIONS["run"].model_fields[key].default
    assert Path(seen["store", "path"]) == SECTIONS["store"].model_fields["path"].default
    assert seen["ledger", "url"] == SECTIONS["ledger"].model_fields["url"].default.get_secret_value()


def test_tables_that_the_documentation_shows_can_be_pasted_in(desk):
    """An empty table in the file would be declared twice."""
    text = scaffold("sqlite:///desk.db").text
    tables = [name for name in SECTIONS if name != "source"]
    pasted = text.replace("\n[[indexes]]", "".join(f"\n[{name}]" for name in tables) + "\n[[indexes]]", 1)
    assert [index.name for index in load(pasted, desk).indexes] == [i.name for i in load(text, desk).indexes]
    with pytest.raises(SettingsError, match=r"has a second \[source\] at line \d+, column 8: move its keys to"):
        load(text + '[source]\nchanges = "queue"\n', desk)


def test_a_password_is_left_to_the_environment(desk):
    text = scaffold("sqlite:///desk.db?timeout=5&sslpassword=s3cret").text
    assert "s3cret" not in text
    assert "# This URL has no password: set RAG_INDEX_SOURCE__URL to the complete URL." in text
    assert "timeout=5" in text
    assert "password" not in scaffold("sqlite:///desk.db").text.split("[source]")[1].split("[embedder]")[0]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("s3cret", SettingsError, "--source is not a database URL; write it as sqlite:///file.db"),
        ("sqlite:///nothing.db", SettingsError, "there is no file"),
        ("sqlite:///empty.db", SettingsError, "empty.db has no table with a primary key and a text column"),
        ("sqlite:///text.db", SourceError, "file is not a database"),
        ("postgresql://u:s3cret@127.0.0.1:1/d", SourceUnavailable, "u@127.0.0.1:1/d does not answer"),
        (f"sqlite://u:s3cret%40@h/{__file__}?sslpassword=s3cret2", SettingsError, "the driver refuses the URL"),
        ("mysql+nothing://u:s3cret@h/d", SettingsError, "no driver for 'mysql+nothing' is installed"),
    ],
)
def test_sources_that_cannot_be_read(desk, source, kind, message):
    sqlite3.connect("empty.db").executescript("CREATE TABLE number (id INTEGER PRIMARY KEY)")
    Path("text.db").write_text("no database at all " * 100)
    with pytest.raises(kind) as caught:
        scaffold(source)
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
