"""Rows that another table names, where values are missing or many, on three databases."""

from dataclasses import fields

import pytest
import sqlalchemy as sa

from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.reading import propose as proposed
from tests.live.sessions import new_database
from tests.schema.conftest import TEXT, Proposed, cycle, every, many, shown

ALL_DATABASES = pytest.mark.parametrize(
    "propose_in",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.long),
        pytest.param("mariadb", marks=pytest.mark.long),
    ],
    indirect=True,
)


@pytest.fixture
def propose_in(request, tmp_path):
    """A function that fills tables of a new database of a kind, and returns the proposal."""
    with new_database(request.param, request, tmp_path, "beside") as url:

        def made(**tables):
            engine = sa.create_engine(url)
            with engine.begin() as connection:
                for name, (columns, rows) in tables.items():
                    plain = columns.replace('"', "")  # MariaDB has other quotes
                    connection.exec_driver_sql(f"CREATE TABLE {name} ({plain})")
                    places = ", ".join(f":v{n}" for n in range(len(rows[0])))
                    given = [{f"v{n}": value for n, value in enumerate(row)} for row in rows]
                    connection.execute(sa.text(f"INSERT INTO {name} VALUES ({places})"), given)
            engine.dispose()
            with read_catalog(url) as catalog:
                found = proposed(catalog)
            values = {one.name: getattr(found, one.name) for one in fields(found)}
            whole = url.render_as_string(hide_password=False)
            return Proposed(**values, url=whole)

        yield made


@ALL_DATABASES
def test_a_person_without_a_name_is_on_no_list_of_names(propose_in):
    """A list of names has no row for the persons without one: what they wrote is shown."""
    persons = many(
        24,
        email="n{n}@example.org",
        password=lambda n: f"$2b$12$abcdefghijklmnopqrstuv{n:010}",
        username=lambda n: None if n % 8 == 3 else f"Number{n} of us",
        kinds={"username": "VARCHAR(80)"},
    )
    made = propose_in(
        users=persons,
        post=many(48, title="Post {n}", body=TEXT, author_id=cycle(24)),
        ban=("username VARCHAR(80)", [("Number5 of us",), (None,)]),
    )
    assert shown(made, "post") == every(lambda n: n % 24 + 1 != 5, 48)


@ALL_DATABASES
def test_a_hidden_row_without_a_code_does_not_hide_all_others_of_a_tree(propose_in):
    """Folders lie below others by their codes; a hidden one has none."""
    folder = many(
        24,
        title="Folder {n} of the mill",
        body=TEXT,
        code=lambda n: None if n in (21, 23) else f"mill-{n}",
        parent=lambda n: f"mill-{n // 2}" if n > 1 else None,
        hidden=lambda n: int(n in (3, 23)),
        kinds={"code": "VARCHAR(80) UNIQUE", "parent": "VARCHAR(80) REFERENCES folder (code)"},
    )
    below = (6, 7, 12, 13, 14, 15, 24)
    assert shown(propose_in(folder=folder), "folder") == every(lambda n: n not in (3, 23, *below))


@ALL_DATABASES
def test_a_name_among_many_hides_with_a_backslash_or_a_quote_in_it(propose_in):
    """The hidden labels are no part of the sample that other columns are read from."""
    hidden = {1_250: "internal", 1_251: "secret\\", 1_252: "board's private"}
    links = [(n, 1_226 + n) for n in range(1, 49)]
    made = propose_in(
        article=many(2_100, title="The bridge {n}", body=TEXT),
        tag=many(2_100, name=lambda n: hidden.get(n, f"tag {n}"), kinds={"name": "VARCHAR(80)"}),
        article_tag=(
            "article_id INTEGER REFERENCES article (id), tag_id INTEGER REFERENCES tag (id)",
            links,
        ),
    )
    assert every(count=48) - shown(made) == {24, 25, 26}


@ALL_DATABASES
def test_names_of_secrets_are_found_in_all_rows(propose_in):
    def name(n):
        return "api_key" if n % 60 == 59 and n > 600 else ("colour", "width", "maker")[n % 3]

    things = many(240, title="Thing {n} of the mill", body=TEXT)
    facts = many(
        720,
        thing_id=lambda n: (n - 1) // 3 + 1,
        name=name,
        value=lambda n: f"sesame{n}" if name(n) == "api_key" else f"as usual {n}",
        kinds={"thing_id": "INTEGER REFERENCES thing (id)", "name": "VARCHAR(80)"},
    )
    made = propose_in(thing=things, thing_fact=facts)
    texts = "\n".join(made.documents("thing").values())
    assert ("as usual" in texts, "sesame" in texts) == (True, False)
