"""What is read of databases that are not plain: translations, persons, visits, missing rights, own collations."""

import sqlite3
from contextlib import closing, nullcontext

import pytest
import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.settings import Settings
from rag_index.first_run.schema import scaffold
from tests.live.mariadb import mariadb
from tests.live.postgres import postgres
from tests.schema.proposals import PROSE, TEXT, cycle, itself, many

__all__ = ["mariadb", "postgres"]
LANGUAGES = ("en", "de")


def both(**columns):
    """Return rows in two languages for each of 20 products."""
    return many(40, product_id=lambda n: (n - 1) // 2 + 1, lang=lambda n: LANGUAGES[n % 2], **columns)


def test_a_title_and_a_text_in_two_tables_of_translations_are_one_document(propose):
    made = propose(product=many(20, price=itself), product_name=both(name="The fine kettle {n}"),
                   product_text=both(body=TEXT))  # fmt: skip
    assert [one.table for one in made.indexes] == ["product_text"]
    settings = made.index("product_text")
    settings = Settings(source={"url": str(made.url)}, indexes=[{"name": "one", **settings}])
    with closing(open_source(settings, settings.indexes[0])) as source:
        found = source.page(None, 50).documents
    shown = zip(found.keys, found.payloads, found.layouts, strict=True)
    assert all(f"The fine kettle {key}" in f"{payload}{layout}" for key, payload, layout in shown)


def test_fname_and_lname_are_a_name(propose):
    made = propose(trainer=many(30, fname="Ada{n}", lname="Brandt{n}", bio=TEXT))
    assert made.index("trainer")["title"] == "{fname} {lname}"


def test_a_visit_of_a_category_with_a_person_and_a_reason_is_a_document(propose):
    def reason(n):
        where, when = "knee hip arm foot neck back hand".split()[n % 7], "walking sitting lying".split()[n % 3]
        return (
            f"The {where} hurts when {when}, since the fall on the ice {n * 7} days ago, and nothing has helped so far"
        )

    at = {"visited_at": lambda n: f"2024-03-{n % 28 + 1:02} 10:{n:02}:00", "kinds": {"visited_at": "DATETIME"}}
    made = propose(
        patient=many(30, fname="Ada{n}", lname="Brandt{n}", phone="+49 30 1234{n}"),
        visit_type=many(4, name="Kind {n}", description=TEXT),
        visit=many(60, visit_type_id=cycle(4), patient_id=cycle(30), reason=reason, **at),
    )
    assert {one.name: one.becomes for one in made.tables}["visit"] == "document"


def test_a_collation_of_the_application_is_left_out_of_comparisons_and_a_key_with_one_is_named(tmp_path):
    file = tmp_path / "own.db"
    with closing(sqlite3.connect(file)) as db:
        db.create_collation("uca", lambda one, other: (one > other) - (one < other))
        own = "teaser TEXT COLLATE uca, state TEXT COLLATE uca"
        db.execute(f"CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, {own})")
        db.execute("CREATE TABLE thing (code TEXT COLLATE uca PRIMARY KEY, body TEXT)")
        rows = [
            (n, f"Page {n} of us", f"{PROSE} {n}", f"{PROSE}! {n}", "draft" if n % 7 == 0 else "public")
            for n in range(1, 401)
        ]
        db.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO thing VALUES (?, ?)", [(f"c{row[0]}", row[2]) for row in rows])
        db.commit()
    made = scaffold(f"sqlite:///{file}", tmp_path)
    (index,) = made.proposal.indexes
    settings = Settings(source={"url": f"sqlite:///{file}"}, indexes=[{"name": "one", **index.settings}])
    with closing(open_source(settings, settings.indexes[0])) as source:
        assert len(source.page(None, 500).documents) == 400 - 400 // 7
    assert [one.column for table in made.proposal.tables for one in table.left_out] == ["teaser", "state"]
    assert "its key code needs the application" in {one.name: one.why for one in made.proposal.tables}["thing"]


def test_what_a_user_may_not_read_is_said_with_the_right_to_ask_for(postgres, tmp_path):
    with postgres.database() as name:
        engine = sa.create_engine(postgres.url(name))
        with engine.begin() as connection:
            for table in ("note", "hush"):
                connection.exec_driver_sql(
                    f"CREATE TABLE {table} (id int PRIMARY KEY, title text, body text, pay text)"
                )
                filled = f"INSERT INTO {table} SELECT n, 'Page ' || n || ' of us', '{PROSE} ' || n, 'x' FROM"
                connection.exec_driver_sql(f"{filled} generate_series(1, 60) AS n")
            connection.exec_driver_sql("CREATE ROLE partly LOGIN PASSWORD 'pw'")
            connection.exec_driver_sql("GRANT SELECT (id, title, body) ON note TO partly")
        url = postgres.url(name).set(username="partly", password="pw").render_as_string(hide_password=False)
        made = scaffold(url, tmp_path)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY partly")
            connection.exec_driver_sql("DROP ROLE partly")
        engine.dispose()
    assert [one.settings["text"] for one in made.proposal.indexes] == [["body"]]
    assert "GRANT SELECT (pay) ON note TO partly" in made.text
    assert {one.name: one.why for one in made.proposal.tables}["hush"].endswith("GRANT SELECT ON hush TO partly")
    assert "1 table cannot be read, and is not counted" in made.text


ACL = ("acl json", "'{}'", "'[3]'")
TYPES = {
    "postgres": [("mood mood_of_us", "NULL", "'sad'"), ACL, ("kept_at date", "now()", "NULL")],
    "mariadb": [("mood enum('glad', 'sad')", "'glad'", "'sad'"), ACL, ("mark bit", "b'0'", "b'1'")],
}


@pytest.mark.parametrize("server", TYPES)
def test_exceptions_are_left_out_whatever_the_type_of_a_server(request, server, tmp_path):
    running = request.getfixturevalue(server)
    with running.database() if server == "postgres" else nullcontext() as name:
        url = running.url(name) if server == "postgres" else running.url
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            if server == "postgres":
                connection.exec_driver_sql("CREATE TYPE mood_of_us AS ENUM ('glad', 'sad')")
            columns = ", ".join(column for column, _, _ in TYPES[server])
            connection.exec_driver_sql(f"CREATE TABLE held (id int PRIMARY KEY, title text, body text, {columns})")
            for n in range(1, 61):
                values = ", ".join(
                    other if n == 7 + at else usual for at, (_, usual, other) in enumerate(TYPES[server])
                )
                connection.exec_driver_sql(f"INSERT INTO held VALUES ({n}, 'Page {n} of us', '{PROSE} {n}', {values})")
        whole = url.render_as_string(hide_password=False)
        made = next(one for one in scaffold(whole, tmp_path).proposal.indexes if one.table == "held")
        settings = Settings(source={"url": whole}, indexes=[{"name": "one", **made.settings}])
        with closing(open_source(settings, settings.indexes[0])) as source:
            assert {*source.page(None, 100).documents.keys} == {str(n) for n in range(1, 61) if n not in (7, 8, 9)}
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE held")
        engine.dispose()


def test_arrays_and_uuids_are_read_and_say_who_may_see_a_row(postgres, tmp_path):
    """An array is text, tags or a state; none is a key. A file may name arrays and uuids as text without a format."""
    columns = "id uuid, parts text[], tags varchar(20)[], states text[], title text, path text[] PRIMARY KEY"
    with postgres.database() as name:
        engine, url = sa.create_engine(postgres.url(name)), postgres.url(name)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE story ({columns})")
            for n in range(1, 61):
                state, tag = "draft" if n == 7 else "published", ("mill", "river")[n % 2]
                parts, path = f"ARRAY['{PROSE} {n}', 'And so it ends']", f"ARRAY['a', '{n}']"
                row = f"gen_random_uuid(), {parts}, ARRAY['old', '{tag}'], ARRAY['{state}'], 'Page {n} of us', {path}"
                connection.exec_driver_sql(f"INSERT INTO story VALUES ({row})")
        engine.dispose()
        whole = url.render_as_string(hide_password=False)
        (index,) = scaffold(whole, tmp_path).proposal.indexes
        settings = Settings(source={"url": whole}, indexes=[{"name": "one", **index.settings}])
        with closing(open_source(settings, settings.indexes[0])) as source:
            texts = source.page(None, 100).documents.texts
        own = {"name": "own", "table": "story", "key": "id", "title": "path", "text": ["id", "tags"]}
        own = Settings(source={"url": whole}, indexes=[own])
        with closing(open_source(own, own.indexes[0])) as source:
            source.check()
            found = source.page(None, 100).documents
    assert all(text.split("\n")[0] in key for key, text in zip(found.keys, found.texts, strict=True))
    assert {text.split("\n")[1] for text in found.texts} == {"old, mill", "old, river"}
    assert (index.settings["key"], index.settings["text"]) == ("id", ["parts", "tags"])
    assert len(texts) == 59
    assert all("And so it ends\nold, " in text for text in texts)
