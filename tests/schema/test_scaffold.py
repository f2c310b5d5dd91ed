"""The scaffold: it loads, fits its source, states the right defaults, holds no password; and its screen."""

import re
import sqlite3
import tomllib
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import hypothesis
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from rag_index.cli.settings import screen_lines
from rag_index.components.sources import open_source
from rag_index.core.settings import SECTIONS, IndexSettings, Settings, load_settings
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.first_run.schema import scaffold
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, TableUse
from rag_index.first_run.schema.screen import answer, change, left_out, lines, share_sentence, size
from tests.schema.conftest import TEXT, many

NUMBERS = count()

PROSE = "The printer on the third floor does not answer any more, please help us."
WORDS = "miller baker smith sexton ferryman wheel oven bell boat sluice key river garden kitchen ladder window".split()
SECRET = "is named like a secret"


def prose(number):
    """Return a text that differs from others by more than a number, as texts of programs do not."""
    return f"{PROSE} {' '.join(Random(number).sample(WORDS, 8))}. {number}"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A database with typical and odd tables, in the current folder, which is returned."""
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("desk.db") as db:
        db.executescript(
            """
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
            """
        )
        for i in range(1, 31):
            author, gone = f"Ann {i}th", "2024-05-01" if i == 7 else None
            ticket = [i, f"Printer {i} is <b>offline</b>", author, "2024-01-02", b"\x89PNG", i == 3, gone, f"tok{i}"]
            db.execute("INSERT INTO ticket VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'a@example.org')", ticket)
            db.execute("INSERT INTO comment VALUES (?, ?, ?, ?)", (i, i, prose(i), i == 5))
            db.execute("INSERT INTO hashes VALUES (?, ?)", (i, "0123456789abcdef" * 4))
            chinese = "".join(Random(i).sample("打印机坏了无法打印请尽快修理它谢谢你们大家", 18))
            db.execute('INSERT INTO "größe" VALUES (?, ?)', (i, f"{chinese}。无法打印。"))
            db.execute('INSERT INTO "Visit Report" VALUES (?, ?, ?)', (f"a{i}", 1, f"{prose(-i)} {prose(i)}"))
            db.execute('INSERT INTO "__odd__name__" VALUES (?, ?)', (i, prose(i)))
            db.execute("INSERT INTO user_audits VALUES (?, ?)", (i, PROSE))
            db.execute('INSERT INTO "no\nkey" VALUES (?)', (PROSE,))
    db.close()
    return tmp_path


def load(text, folder):
    (folder / "rag-index.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "rag-index.toml")


def test_what_people_look_for_becomes_an_index_that_fits_with_title_parts_and_conditions_and_no_secret(desk):
    settings = load(scaffold("sqlite:///desk.db").text, desk)
    assert {index.table: index.name for index in settings.indexes} == {
        "ticket": "ticket", "Visit Report": "visit-report", "__odd__name__": "odd-name", "größe": "grosse",
    }  # fmt: skip
    for index in settings.indexes:
        with closing(open_source(settings, index)) as source:
            source.check()
            assert source.page(None, 10).unreadable == []
    ticket = settings.index("ticket")
    (part,) = ticket.parts
    assert (ticket.key, ticket.title, ticket.format) == ("id", "subject", {"subject": "html"})
    assert ticket.where == "is_private = 0 AND COALESCE(deleted_at, '') = ''"
    assert (part.table, part.on, part.text, part.where) == ("comment", "ticket_id", ["body"], "internal = false")
    assert (ticket.text, ticket.payload) == (["author"], [])
    with closing(open_source(settings, ticket)) as source:
        documents = source.page(None, 50).documents
    assert (len(documents), [text for text in documents.texts if text.endswith(". 5")]) == (28, [])


def test_what_is_left_out_is_named_with_its_size_and_the_reason_the_largest_first(desk):
    comments = scaffold("sqlite:///desk.db").text.rpartition("\n\n")[2].splitlines()
    assert re.match(r"# \d+ of \d+ tables are searched: [\d.]+ kB of [\d.]+ kB of text\. Left out", comments[0])
    said = "\n".join(comments)
    for name in ("user_audits (2.16 kB): ", "ticket.email (390 B): ", "ticket.api_token: "):
        assert f"# - {name}" in said, (name, said)
    assert re.search("# - (?:nothing_yet|latest)", said), said
    assert said.index("user_audits") < said.index("ticket.email") < said.index("nothing_yet")
    assert scaffold("sqlite:///desk.db", choices=Choices(exclude=("*",))).text == ""


def test_tables_are_included_and_excluded_by_name_and_the_share_falls_with_what_is_left_out(desk):
    def tables(**choices):
        return {index.table for index in scaffold("sqlite:///desk.db", choices=Choices(**choices)).proposal.indexes}

    def share(**choices):
        made = scaffold("sqlite:///desk.db", choices=Choices(**choices)).proposal
        return made.searched / made.chars

    assert share(exclude=("ticket",)) < share() < share(include=("user_audits",))
    assert share(hide=("comment.body",)) < share()
    assert tables(exclude=("*",), include=("tick*",)) == {"ticket"}
    assert tables(exclude=("ticket", "gr*")) == {"__odd__name__", "comment", "Visit Report"}
    assert tables(include=("user_audits",)) == tables() | {"user_audits"}
    with pytest.raises(SettingsError, match=r"there is no table tickets: ticket"):
        tables(include=("tickets",))
    with sqlite3.connect("desk.db") as db:
        db.executescript("CREATE TABLE seat (id INTEGER PRIMARY KEY); INSERT INTO seat VALUES (1)")
    db.close()
    with pytest.raises(SettingsError, match="the rows of seat cannot be documents: it has no text"):
        tables(include=("seat",))


def test_plan_warns_of_secrets_that_are_written_in_by_name_and_by_looks(project):
    project.execute("CREATE TABLE member (id INTEGER PRIMARY KEY, about TEXT, password_hash TEXT, pin INT, badge TEXT)")
    for i in range(9):
        project.execute("INSERT INTO member VALUES (?, ?, 'x y', 1234, ?)", i, PROSE, f"$2b$12$KIXQ0{i}abcdefghijklm")
    text = '[source]\nurl = "sqlite:///source.db"\n[[indexes]]\nname = "member"\ntable = "member"\nkey = "id"\n'
    project.write_settings(text + 'text = ["about"]\npayload = ["pin", "badge"]\nnot_secret = ["pin"]\n')
    said = project.cli("plan", "member").stdout
    assert "member: values of badge look like password hashes, tokens or keys: leave such columns out" in said
    project.write_settings(text + 'text = ["about", "password_hash"]\npayload = ["badge"]\nnot_secret = ["badge"]\n')
    said = project.cli("plan", "member").stdout
    assert "member: searches would show password_hash, named like secrets: leave out what is one" in said
    project.write_settings(text + 'text = ["about", "badge"]\n')
    assert "values of text look like password hashes" in project.cli("plan", "member").stdout
    project.write_settings(text + 'text = ["about", "badge"]\nnot_secret = ["badge"]\n')
    assert "message" not in project.json("plan", "member")["indexes"][0]


def test_the_file_may_be_in_another_folder_than_the_current_one(desk):
    other = desk / "etc"
    other.mkdir()
    settings = load(scaffold("sqlite:///desk.db", other).text, other)
    assert Path(str(settings.source_url.database)).resolve() == desk / "desk.db"
    assert load(scaffold(f"sqlite:///{desk}/desk.db", other).text, other).source_url.database == f"{desk}/desk.db"


def test_without_a_source_the_scaffold_holds_an_example_and_most_commented_keys_have_their_default(tmp_path):
    settings = load(scaffold(None).text, tmp_path)
    assert (settings.source_url.drivername, settings.indexes[0].parts[0].text) == ("postgresql+psycopg", ["body"])
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
    assert seen["ledger", "url"] == SECTIONS["ledger"].model_fields["url"].default.get_secret_value()


def test_tables_that_the_documentation_shows_can_be_pasted_in(desk):
    """An empty table in the file would be declared twice."""
    text = scaffold("sqlite:///desk.db").text
    tables = [name for name in SECTIONS if name != "source"]
    pasted = text.replace("\n[[indexes]]", "".join(f"\n[{name}]" for name in tables) + "\n[[indexes]]", 1)
    assert [index.name for index in load(pasted, desk).indexes] == [i.name for i in load(text, desk).indexes]
    with pytest.raises(SettingsError, match=r"Cannot declare \('source',\) twice \(at line \d+, column 8\)"):
        load(text + "[source]\ntimeout = 5\n", desk)


def test_a_password_is_left_to_the_environment(desk):
    text = scaffold("sqlite:///desk.db?timeout=5&sslpassword=s3cret").text
    assert ("s3cret" in text, "timeout=5" in text) == (False, True)
    assert "# This URL has no password: set RAG_INDEX_SOURCE__URL to the complete URL." in text
    assert "password" not in scaffold("sqlite:///desk.db").text.split("[source]")[1].split("[embedder]")[0]


def test_sources_that_cannot_be_read(desk):
    Path("text.db").write_text("no database at all " * 100)
    for source, kind, message in (
        ("s3cret", SettingsError, "the source is not a database URL; write it as sqlite:///file.db"),
        ("sqlite:///nothing.db", SettingsError, "there is no file"),
        ("sqlite:///text.db", SourceError, "file is not a database"),
        ("postgresql://u:s3cret@127.0.0.1:1/d", SourceUnavailable, "u@127.0.0.1:1/d does not answer"),
        (f"sqlite://u:s3cret%40@h/{__file__}?sslpassword=s3cret2", SettingsError, "the driver refuses the URL"),
        ("mysql+nothing://u:s3cret@h/d", SettingsError, "no driver for 'mysql+nothing' is installed"),
    ):
        with pytest.raises(kind) as caught:
            scaffold(source)
        assert message in str(caught.value)
        assert not re.search("s3cret|\n", str(caught.value)), source


@pytest.mark.parametrize("column", ["code", "number", "sku", "logo"])
@pytest.mark.parametrize("value", [b"AB0001", b"\xde\xad\xbe\xef"])
def test_a_column_of_bytes_ends_nothing(propose, column, value):
    odd = {column: lambda n: value if n < 4 else None, "kinds": {column: "BLOB"}}
    assert len(propose(note=many(30, title="Page {n} of the mill", body=TEXT, **odd)).documents("note")) == 30


@hypothesis.settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
    st.text(st.sampled_from("a\n\r\t\"'\\\x1b\x7f\x85#]}{:%"), min_size=1, max_size=12),
)
def test_names_of_all_characters_give_a_valid_file(tmp_path, table, column):
    assume(not re.search("[A-Za-z]{2}", table))  # a table called Config or DM is left out
    file = tmp_path / f"{next(NUMBERS)}.db"
    with closing(sqlite3.connect(file)) as made:
        quoted = ['"' + name.replace('"', '""') + '"' for name in (table, f"title {column}", f"body {column}")]
        made.execute("CREATE TABLE {} (id INTEGER PRIMARY KEY, {} TEXT, {} TEXT, status TEXT)".format(*quoted))
        rows = [(n, f"Page {n} of it", prose(n), ("draft", "published")[n % 2]) for n in range(30)]
        made.executemany(f"INSERT INTO {quoted[0]} VALUES (?, ?, ?, ?)", rows)
        made.commit()
    assert tomllib.loads(scaffold(f"sqlite:///{file}").text)["indexes"][0]["table"] == table


@pytest.mark.parametrize("odd", [b"\x00\xff", b"12", "unknown", float("inf")], ids=str)
def test_a_value_that_its_column_does_not_declare_ends_nothing(tmp_path, odd):
    """SQLite takes any value in any column. One of 400 rows changes nothing of what the column is."""
    columns = {"created": "datetime", "price": "numeric", "code": "int", "active": "boolean", "score": "real"}
    file = tmp_path / "odd.db"
    with closing(sqlite3.connect(file)) as db:
        declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        key = "id int PRIMARY KEY NOT NULL, body text, parent_id int REFERENCES note(id)"
        db.execute(f"CREATE TABLE note ({key}, {declared})")
        marks = ", ".join("?" * (3 + len(columns)))
        for number in range(1, 401):
            row = [number, prose(number), max(1, number // 2), "2024-01-05 10:00:00", number / 4, number, 1, 1.5]
            db.execute(f"INSERT INTO note VALUES ({marks})", row if number != 200 else [odd, PROSE, 1] + [odd] * 5)
        db.commit()
    text = scaffold(f"sqlite:///{file}", tmp_path).text
    assert 'table = "note"' in text
    assert '"code"' not in text.partition("text = ")[2].partition("\n")[0], "numbers are no text for one that is one"


def table(name, *, chars=1000, becomes="document", exact=True, **more):
    return TableUse(name, 10, chars, exact, becomes, **more)


def hidden(place, rows=9, of=821, *, state="open", out=True):
    values = (("no", of - rows, False), ("yes", rows, True))
    return HiddenRows(place, f"{place.partition('.')[2]} is yes", "x = 0", rows, of, state, out, values, False)


def said(made):
    return [(one.title, one.says, one.note) for one in lines(made, made)]


def test_sizes_have_three_digits():
    for chars, words in (
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (9_560, "9.56 kB"), (12_345, "12.3 kB"), (99_960, "100 kB"),
        (653_210, "653 kB"), (999_700, "1 MB"), (1_750_000, "1.75 MB"), (2_000_000_000, "2 GB"),
        (1_234_000_000_000, "1,234 GB"),
    ):  # fmt: skip
        assert size(chars) == words, chars


def test_the_share_counts_everything_and_says_whether_it_is_exact():
    made = Proposal((table("a", chars=653_000, searched=653_000), table("b", chars=1_097_000, becomes="out")))
    assert share_sentence(made) == "1 of 2 tables is searched: 653 kB of 1.75 MB of text"
    made = replace(made, tables=(*made.tables, table("c", chars=0, becomes="part", exact=False)))
    assert share_sentence(made) == "2 of 3 tables are searched: about 653 kB of 1.75 MB of text"


def test_a_line_of_rows_has_its_values_and_counts_and_says_what_is_left_out_and_names_of_any_characters_stay_on_it():
    waits = hidden("comment.muted", 90, state="asked", out=False)
    assert said(Proposal((), hidden=(waits, hidden("comment.held_for_review")))) == [
        ("comment.muted", "no 731 · yes 90", "shown, unless you hide yes (90 of 821)"),
        ("comment.held_for_review", "no 812 · yes 9", "left out: yes (9 of 821)"),
    ]
    odd = table("a\nb\x1b[2J <b>[red]", becomes="part", of=("x\ty",))
    assert said(Proposal((odd,))) == [("a b\ufffd[2J <b>[red]", "part of x y", "")]


def test_two_hundred_tables_have_at_most_forty_lines_and_what_is_folded_can_be_listed():
    tables = [table(f"t{n}", becomes=("document", "part", "label", "out")[n % 4], of=(f"t{n - 1}",), why=f"is {n % 7}",
                    left_out=(LeftOut(f"t{n}", "mail", "is personal", 9),)) for n in range(200)]  # fmt: skip
    rows = [hidden(f"t{n}.flag", n % 3, state=state) for n, state in enumerate(["open"] * 30 + ["known"] * 60)]
    made = Proposal(tuple(tables), hidden=tuple(rows))
    assert len([*screen_lines(made, made)]) <= 40
    assert [one.is_group for one in lines(made, made, all_of_it=True)] == [False] * (200 + 90 + 200)


def test_what_one_answer_decides_is_one_line_with_all_its_rows_and_conditions_that_hide_none_are_one():
    made = Proposal((), hidden=tuple(hidden(f"t{n}.is_deleted", 0, state="known") for n in range(27)))
    assert [(one.says, len(one.names)) for one in lines(made, made)] == [("hide no row today", 27)]
    listed = [replace(hidden("content.state", rows, 100, state="known"), values=()) for rows in (0, 7, 2)]
    assert said(Proposal(hidden=(*listed, hidden("note.mark")))) == [
        ("content.state", "", "left out: is yes (9 of 300)"),
        ("note.mark", "no 812 · yes 9", "left out: yes (9 of 821)"),
    ]


def test_a_line_that_was_changed_stays_and_changes_back_and_a_column_forgets_what_it_was_used_for():
    email = LeftOut("ticket", "email", "is personal", 120)
    first = Proposal((table("ticket", left_out=(email,)),), hidden=(hidden("ticket.is_deleted"),))
    rows, document, out = lines(first, first)
    choices = change(change(change(Choices(), document), rows), out)
    assert choices == Choices(exclude=("ticket",), show=("ticket.is_deleted", "ticket.email"))
    rows, document, out = lines(first, Proposal((table("ticket"),)))
    assert (rows.note, out.says) == ("shown, as you said", "120 B searched, before: is personal")
    back = change(change(choices, rows), out)
    assert (back.show, back.hide) == ((), ("ticket.is_deleted", "ticket.email"))
    out = lines(made := Proposal((table("t", left_out=(LeftOut("t", "c", "as you said", 1),)),)), made)[1]
    assert change(Choices(uses={"t.c": "out", "t.d": "title"}), out) == Choices(show=("t.c",), uses={"t.d": "title"})


def test_an_answer_names_values_and_takes_the_place_of_the_one_before():
    (line,) = lines(made := Proposal((), hidden=(hidden("comment.state"),)), made)
    choices = answer(Choices(show=("comment.state",)), line, show=False, values=["held", "taken down"])
    assert choices == Choices(hide=("comment.state=held", "comment.state=taken down"))
    assert answer(choices, line, show=True) == Choices(show=("comment.state",))
    folded = replace(line, names=("a.b", "a.c"))
    with pytest.raises(SettingsError, match=r"share a line: list them with \?"):
        answer(choices, folded, show=True)
    with pytest.raises(SettingsError, match="takes no value"):
        answer(choices, line, show=True, values=["held"])


def test_what_is_left_out_is_named_with_its_size_the_largest_first():
    tables = [
        table("small", chars=0, becomes="out", why="is empty"), table("log", chars=2000, becomes="out", why="is a log"),
        table("a", left_out=(LeftOut("a", "token", SECRET, 0), LeftOut("a", "mail", "is personal", 3000))),
    ]  # fmt: skip
    assert left_out(Proposal(tuple(tables))) == [
        "a.mail (3 kB): is personal", "log (2 kB): is a log", "small: is empty", f"a.token: {SECRET}",
    ]  # fmt: skip
