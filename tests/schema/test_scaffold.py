"""The scaffold: it loads, fits its source, states the right defaults, holds no password."""

import re
import sqlite3
import tomllib
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from rag_index.components.sources import open_source
from rag_index.core.settings import SECTIONS, IndexSettings, Settings, load_settings
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.first_run.schema import Answers, scaffold
from tests.schema.conftest import TEXT, many

NUMBERS = count()

PROSE = "The printer on the third floor does not answer any more, please help us."
WORDS = (
    "miller baker smith sexton ferryman wheel oven bell boat sluice key river garden kitchen ladder"
    " window".split()
)


def prose(number):
    """Return a text that differs from others by more than a number, as texts of programs do not."""
    return f"{PROSE} {' '.join(Random(number).sample(WORDS, 8))}. {number}"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A database with typical and odd tables, in the current folder, which is returned."""
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("desk.db") as db:
        db.executescript("""
            CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, author TEXT, created TEXT, raw BLOB,
                                 is_private INTEGER NOT NULL, deleted_at TEXT, api_token TEXT, email TEXT);
            CREATE TABLE comment (id INTEGER PRIMARY KEY, ticket_id INTEGER, body TEXT, internal BOOLEAN NOT NULL);
            CREATE TABLE "Visit Report" ("log id" TEXT, line INTEGER, "the ""text" TEXT, PRIMARY KEY ("log id", line));
            CREATE TABLE "__odd__name__" (id INTEGER PRIMARY KEY, body TEXT);
            CREATE TABLE "größe" (id INTEGER PRIMARY KEY, "Größe" TEXT);
            CREATE TABLE "no
key" (body TEXT);
            CREATE VIEW latest AS SELECT id, body FROM comment;
            CREATE TABLE numbers (id INTEGER PRIMARY KEY, value REAL, state VARCHAR(20));
            CREATE TABLE hashes (id INTEGER PRIMARY KEY, digest TEXT);
            CREATE TABLE user_audits (id INTEGER PRIMARY KEY, note TEXT);
            CREATE TABLE nothing_yet (id INTEGER PRIMARY KEY, body TEXT);
            """)
        for i in range(1, 31):
            author, gone = f"Ann {i}th", "2024-05-01" if i == 7 else None
            ticket = [
                i,
                f"Printer {i} is <b>offline</b>",
                author,
                "2024-01-02",
                b"\x89PNG",
                i == 3,
                gone,
                f"tok{i}",
            ]
            db.execute(
                "INSERT INTO ticket VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'a@example.org')", ticket
            )
            db.execute("INSERT INTO comment VALUES (?, ?, ?, ?)", (i, i, prose(i), i == 5))
            db.execute("INSERT INTO hashes VALUES (?, ?)", (i, "0123456789abcdef" * 4))
            chinese = "".join(Random(i).sample("打印机坏了无法打印请尽快修理它谢谢你们大家", 18))
            db.execute('INSERT INTO "größe" VALUES (?, ?)', (i, f"{chinese}。无法打印。"))
            db.execute(
                'INSERT INTO "Visit Report" VALUES (?, ?, ?)',
                (f"a{i}", 1, f"{prose(-i)} {prose(i)}"),
            )
            db.execute('INSERT INTO "__odd__name__" VALUES (?, ?)', (i, prose(i)))
            db.execute("INSERT INTO user_audits VALUES (?, ?)", (i, PROSE))
            db.execute('INSERT INTO "no\nkey" VALUES (?)', (PROSE,))
    db.close()
    return tmp_path


def load(text, folder):
    (folder / "rag-index.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "rag-index.toml")


def test_what_people_look_for_becomes_an_index_that_fits_with_title_parts_and_conditions_and_no_secret(
    desk,
):
    settings = load(scaffold("sqlite:///desk.db").text, desk)
    assert {index.table: index.name for index in settings.indexes} == {
        "ticket": "ticket",
        "Visit Report": "visit-report",
        "__odd__name__": "odd-name",
        "größe": "grosse",
    }
    for index in settings.indexes:
        with closing(open_source(settings, index)) as source:
            source.check()
            assert source.page(None, 10).unreadable == []
    ticket = settings.index("ticket")
    (part,) = ticket.parts
    assert (ticket.key, ticket.title, ticket.format) == ("id", "subject", {"subject": "html"})
    assert {name: (one.show, one.hide) for name, one in ticket.visible.items()} == {
        "is_private": (["0"], ["1"]),
        "deleted_at": (["empty"], ["past", "future"]),
        "comment.internal": (["0"], ["1"]),
    }
    assert (part.table, part.on, part.text, part.where) == (
        "comment",
        "ticket_id",
        ["body"],
        "$visible(comment.internal)",
    )
    assert (ticket.text, ticket.payload) == (["author"], [])
    with closing(open_source(settings, ticket)) as source:
        documents = source.page(None, 50).documents
    assert (len(documents), [text for text in documents.texts if text.endswith(". 5")]) == (28, [])


def test_what_is_left_out_is_named_with_its_size_and_the_reason_the_largest_first(desk):
    comments = scaffold("sqlite:///desk.db").text.rpartition("\n\n")[2].splitlines()
    assert re.match(
        r"# \d+ of \d+ tables are searched: [\d.]+ kB of [\d.]+ kB of text\. Left out", comments[0]
    )
    said = "\n".join(comments)
    for name in ("user_audits (2.16 kB): ", "ticket.email (390 B): ", "ticket.api_token: "):
        assert f"# - {name}" in said, (name, said)
    assert re.search("# - (?:nothing_yet|latest)", said), said
    assert said.index("user_audits") < said.index("ticket.email") < said.index("nothing_yet")


def test_a_database_of_which_all_tables_are_left_out_gives_no_file(desk):
    documents = {index.table for index in scaffold("sqlite:///desk.db").proposal.indexes} | {
        "comment"
    }
    nothing = Answers.parse(dict.fromkeys(documents, "leave out"))
    assert scaffold("sqlite:///desk.db", answers=nothing).text == ""


def test_tables_become_documents_or_are_left_out_and_the_share_falls_with_what_is_left_out(desk):
    first = scaffold("sqlite:///desk.db")

    def answered(**answers):
        return first.answered(Answers.parse(answers)).proposal

    def tables(**answers):
        return {index.table for index in answered(**answers).indexes}

    def share(**answers):
        made = answered(**answers)
        return made.searched / made.chars

    assert share(ticket="leave out") < share() < share(user_audits="document")
    assert share(**{"comment.body": "leave out"}) < share()
    assert tables(ticket="leave out", größe="leave out") == {
        "__odd__name__",
        "comment",
        "Visit Report",
    }
    assert tables(user_audits="document") == tables() | {"user_audits"}
    with pytest.raises(SettingsError, match=r"there is no question tickets: near ones are ticket"):
        tables(tickets="document")
    with pytest.raises(SettingsError, match="the rows of numbers cannot be documents: it is empty"):
        tables(numbers="document")


def test_plan_warns_of_secrets_that_are_written_in_by_name_and_by_looks(project):
    project.execute(
        "CREATE TABLE member (id INTEGER PRIMARY KEY, about TEXT, password_hash TEXT, pin INT,"
        " badge TEXT)"
    )
    for i in range(9):
        project.execute(
            "INSERT INTO member VALUES (?, ?, 'x y', 1234, ?)",
            i,
            PROSE,
            f"$2b$12$KIXQ0{i}abcdefghijklm",
        )
    text = (
        '[source]\nurl = "sqlite:///source.db"\n[[indexes]]\nname = "member"\ntable = "member"\nkey'
        ' = "id"\n'
    )
    project.write_settings(
        text + 'text = ["about"]\npayload = ["pin", "badge"]\nnot_secret = ["pin"]\n'
    )
    said = project.cli("plan", "member").stdout
    assert (
        "member: values of badge look like password hashes, tokens or keys: leave such columns out"
        in said
    )
    project.write_settings(
        text + 'text = ["about", "password_hash"]\npayload = ["badge"]\nnot_secret = ["badge"]\n'
    )
    said = project.cli("plan", "member").stdout
    assert (
        "member: searches would show password_hash, named like secrets: leave out what is one"
        in said
    )
    project.write_settings(text + 'text = ["about", "badge"]\n')
    assert "values of text look like password hashes" in project.cli("plan", "member").stdout
    project.write_settings(text + 'text = ["about", "badge"]\nnot_secret = ["badge"]\n')
    assert "message" not in project.json("plan", "member")["indexes"][0]


def test_the_file_may_be_in_another_folder_than_the_current_one(desk):
    other = desk / "etc"
    other.mkdir()
    settings = load(scaffold("sqlite:///desk.db", other).text, other)
    assert Path(str(settings.source_url.database)).resolve() == desk / "desk.db"
    assert (
        load(scaffold(f"sqlite:///{desk}/desk.db", other).text, other).source_url.database
        == f"{desk}/desk.db"
    )


def test_without_a_source_the_scaffold_holds_an_example_and_most_commented_keys_have_their_default(
    tmp_path,
):
    settings = load(scaffold(None).text, tmp_path)
    assert (settings.source_url.drivername, settings.indexes[0].parts[0].text) == (
        "postgresql+psycopg",
        ["body"],
    )
    section, seen, models = "", {}, {"": Settings, **SECTIONS, "indexes": IndexSettings}
    for line in scaffold(None).text.splitlines():
        if line.removeprefix("# ").startswith("["):
            section = line.removeprefix("# ").strip("[]")
        elif match := re.fullmatch(r"# (\w+ = .*)", line):
            ((key, value),) = tomllib.loads(match[1]).items()
            assert key in models[section].model_fields, f"[{section}] has no key {key}"
            seen.setdefault((section, key), value)
    assert seen["embedder", "kind"] == SECTIONS["embedder"].model_fields["kind"].default
    assert Path(seen["store", "path"]) == SECTIONS["store"].model_fields["path"].default
    assert (
        seen["ledger", "url"] == SECTIONS["ledger"].model_fields["url"].default.get_secret_value()
    )


def test_tables_that_the_documentation_shows_can_be_pasted_in(desk):
    """An empty table in the file would be declared twice."""
    text = scaffold("sqlite:///desk.db").text
    tables = [name for name in SECTIONS if name != "source"]
    pasted = text.replace(
        "\n[[indexes]]", "".join(f"\n[{name}]" for name in tables) + "\n[[indexes]]", 1
    )
    assert [index.name for index in load(pasted, desk).indexes] == [
        i.name for i in load(text, desk).indexes
    ]
    with pytest.raises(
        SettingsError, match=r"Cannot declare \('source',\) twice \(at line \d+, column 8\)"
    ):
        load(text + "[source]\ntimeout = 5\n", desk)


def test_a_password_is_left_to_the_environment(desk):
    text = scaffold("sqlite:///desk.db?timeout=5&sslpassword=s3cret").text
    assert ("s3cret" in text, "timeout=5" in text) == (False, True)
    assert "# This URL has no password: set RAG_INDEX_SOURCE__URL to the complete URL." in text
    assert (
        "password"
        not in scaffold("sqlite:///desk.db").text.split("[source]")[1].split("[embedder]")[0]
    )


def test_sources_that_cannot_be_read(desk):
    Path("text.db").write_text("no database at all " * 100)
    for source, kind, message in (
        (
            "s3cret",
            SettingsError,
            "the source is not a database URL; write it as sqlite:///file.db",
        ),
        ("sqlite:///nothing.db", SettingsError, "there is no file"),
        ("sqlite:///text.db", SourceError, "file is not a database"),
        (
            "postgresql://u:s3cret@127.0.0.1:1/d",
            SourceUnavailable,
            "u@127.0.0.1:1/d does not answer",
        ),
        (
            f"sqlite://u:s3cret%40@h/{__file__}?sslpassword=s3cret2",
            SettingsError,
            "the driver refuses the URL",
        ),
        (
            "mysql+nothing://u:s3cret@h/d",
            SettingsError,
            "no driver for 'mysql+nothing' is installed",
        ),
    ):
        with pytest.raises(kind) as caught:
            scaffold(source)
        assert message in str(caught.value)
        assert not re.search("s3cret|\n", str(caught.value)), source


@pytest.mark.parametrize("column", ["code", "number", "sku", "logo"])
@pytest.mark.parametrize("value", [b"AB0001", b"\xde\xad\xbe\xef"])
def test_a_column_of_bytes_ends_nothing(propose, column, value):
    odd = {column: lambda n: value if n < 4 else None, "kinds": {column: "BLOB"}}
    assert (
        len(
            propose(note=many(30, title="Page {n} of the mill", body=TEXT, **odd)).documents("note")
        )
        == 30
    )


@hypothesis.settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
    ),
    st.text(st.sampled_from("a\n\r\t\"'\\\x1b\x7f\x85#]}{:%"), min_size=1, max_size=12),
)
def test_names_of_all_characters_give_a_valid_file(tmp_path, table, column):
    assume(not re.search("[A-Za-z]{2}", table))  # a table called Config or DM is left out
    file = tmp_path / f"{next(NUMBERS)}.db"
    with closing(sqlite3.connect(file)) as made:
        quoted = [
            '"' + name.replace('"', '""') + '"'
            for name in (table, f"title {column}", f"body {column}")
        ]
        made.execute(
            "CREATE TABLE {} (id INTEGER PRIMARY KEY, {} TEXT, {} TEXT, status TEXT)".format(
                *quoted
            )
        )
        rows = [(n, f"Page {n} of it", prose(n), ("draft", "published")[n % 2]) for n in range(30)]
        made.executemany(f"INSERT INTO {quoted[0]} VALUES (?, ?, ?, ?)", rows)
        made.commit()
    assert tomllib.loads(scaffold(f"sqlite:///{file}").text)["indexes"][0]["table"] == table


@pytest.mark.parametrize("odd", [b"\x00\xff", b"12", "unknown", float("inf")], ids=str)
def test_a_value_that_its_column_does_not_declare_ends_nothing(tmp_path, odd):
    """SQLite takes any value in any column. One of 400 rows changes nothing of what the column
    is."""
    columns = {
        "created": "datetime",
        "price": "numeric",
        "code": "int",
        "active": "boolean",
        "score": "real",
    }
    file = tmp_path / "odd.db"
    with closing(sqlite3.connect(file)) as db:
        declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        key = "id int PRIMARY KEY NOT NULL, body text, parent_id int REFERENCES note(id)"
        db.execute(f"CREATE TABLE note ({key}, {declared})")
        marks = ", ".join("?" * (3 + len(columns)))
        for number in range(1, 401):
            row = [
                number,
                prose(number),
                max(1, number // 2),
                "2024-01-05 10:00:00",
                number / 4,
                number,
                1,
                1.5,
            ]
            db.execute(
                f"INSERT INTO note VALUES ({marks})",
                row if number != 200 else [odd, PROSE, 1] + [odd] * 5,
            )
        db.commit()
    text = scaffold(f"sqlite:///{file}", tmp_path).text
    assert 'table = "note"' in text
    assert '"code"' not in text.partition("text = ")[2].partition("\n")[0], (
        "numbers are no text for one that is one"
    )


def test_ids_of_another_schema_and_of_names_with_dots_and_blanks_can_be_answered(
    postgres, tmp_path
):
    with postgres.database() as name:
        engine = sa.create_engine(postgres.url(name))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA press")
            for table in ("note", 'press."the note"'):
                columns = 'id int PRIMARY KEY, title text, body text, "is.odd" boolean, extra jsonb'
                connection.exec_driver_sql(f"CREATE TABLE {table} ({columns})")
                extra = "jsonb_build_object('held', mod(n, 9) = 0)"
                row = f"n, 'Page ' || n || ' of us', '{PROSE} ' || n, mod(n, 12) = 0, {extra}"
                connection.exec_driver_sql(
                    f"INSERT INTO {table} SELECT {row} FROM generate_series(1, 60) AS n"
                )
        engine.dispose()
        url = postgres.url(name).render_as_string(hide_password=False)
        first = scaffold(url, tmp_path)
        odd, held = 'press."the note"."is.odd"', 'press."the note".extra.held'
        assert {'note."is.odd"', "note.extra.held", odd, held} <= {
            one.id for one in first.proposal.candidates
        }
        answers = Answers.parse(
            {odd: {"show": ["yes"]}, held: {"hide": ["no"], "show": [True]}, "note": "leave out"}
        )
        (index,) = load(first.answered(answers).text, tmp_path).indexes
    assert (index.db_schema, index.table) == ("press", "the note")
    assert {name: (one.shown, one.hidden) for name, one in index.visible.items()} == {
        '"is.odd"': (("false", "true", ""), ()),
        "extra.held": (("true", ""), ("false",)),
    }
