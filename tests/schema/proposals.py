"""What the tests of proposals share: a database that a test fills, its proposal, and the documents that it gives."""

from contextlib import closing
from dataclasses import dataclass, fields

import pytest
import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.settings import Settings
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.proposed import Choices, Proposal
from rag_index.first_run.schema.reading import propose as proposed

PROSE = "The pump behind the mill stopped when the water froze, and nobody noticed it before the bakers came to work"
TEXT = f"{PROSE} {{n}}"
DAY = "2024-01-01 00:00:00"


@dataclass(frozen=True)
class Proposed(Proposal):
    """A proposal, and what it proposes for one table."""

    url: sa.URL | None = None

    def index(self, table):
        return next(one for one in self.indexes if one.table == table).settings

    def parts(self, table):
        return [part["table"] for part in self.index(table).get("parts", ())]

    def documents(self, table):
        """Return the documents that the proposed settings give: their texts by key."""
        made = Settings(source={"url": str(self.url)}, indexes=[{"name": "one", **self.index(table)}])
        with closing(open_source(made, made.indexes[0])) as source:
            found = source.page(None, 500).documents
        return dict(zip(found.keys, found.texts, strict=True))

    def shown(self, table):
        return self.documents(table).keys()


@pytest.fixture
def propose(tmp_path):
    """A function that fills tables, given as columns and rows, and returns the proposal."""
    url = sa.make_url(f"sqlite:///{tmp_path}/source.db")

    def made(**tables):
        choices = {name: tuple(tables.pop(name)) for name in ("include", "exclude", "show", "hide") if name in tables}
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for name, (columns, rows) in tables.items():
                connection.exec_driver_sql(f'CREATE TABLE "{name}" ({columns})')
                for row in rows:
                    connection.exec_driver_sql(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})', tuple(row))
        engine.dispose()
        with read_catalog(url) as catalog:
            found = proposed(catalog, Choices(**choices))
        return Proposed(**{one.name: getattr(found, one.name) for one in fields(found)}, url=url)

    made.url = url
    return made


def many(count, key="id", /, *, kinds=None, **columns):
    """Return a table with rows numbered from 1.

    A column has texts with the number `{n}`, a function of it, or one value. `kinds` are types in SQL, for columns that
    have another one than their values.
    """

    def value(given, n):
        return given(n) if callable(given) else given.format(n=n) if isinstance(given, str) else given

    rows = [(n, *[value(given, n) for given in columns.values()]) for n in range(1, count + 1)]
    types = {name: "INTEGER" if isinstance(value(given, 1), int) else "TEXT" for name, given in columns.items()}
    types |= {key: "INTEGER PRIMARY KEY"} | (kinds or {})
    return ", ".join(f'"{name}" {types[name]}' for name in (key, *columns)), rows


def itself(n):
    return n


def cycle(length):
    """Return a function with a number from 1 to `length` for each row."""
    return lambda n: n % length + 1


def names(*called, key="id", name="name"):
    """Return a table with a name for each row."""
    return many(len(called), key, **{name: lambda n: called[n - 1]})


def pages(extra="x INTEGER", values=(0,), count=12):
    """Return a table of pages with a column that has these values, and then nothing but the last one."""
    columns, rows = many(count, title="Page {n} of the mill", body=TEXT)
    return f"{columns}, {extra}", [(*row, values[min(row[0], len(values)) - 1]) for row in rows]


def entities():
    """Return the tables of pages in two languages, each with its versions, in the way of Drupal."""
    data = [(n, n, code, f"Page {n} {code}") for n in range(1, 13) for code in ("en", "de") if code == "en" or n < 4]
    text = [(n, 0, n, code, 0, f"<p>{PROSE} {n} {code}</p>") for n, _, code, _ in data]
    columns = "entity_id INTEGER, deleted INTEGER, revision_id INTEGER, langcode TEXT, delta INTEGER, body_value TEXT"
    others = {f"{name}_data": ("id INTEGER PRIMARY KEY", [(1,)]) for name in ("menu", "file", "term", "user", "block")}
    return others | {
        "node": many(12, "nid", vid=itself, langcode="en"),
        "node_field_data": (
            "nid INTEGER, vid INTEGER, langcode TEXT, title TEXT, PRIMARY KEY (nid, langcode)", data),
        "node_field_revision": (
            "nid INTEGER, vid INTEGER, langcode TEXT, title TEXT, PRIMARY KEY (vid, langcode)",
            [*data, *[(n, n + 50, "en", f"Old page {n}") for n in range(1, 13)]]),
        "node__body": (f"{columns}, PRIMARY KEY (entity_id, deleted, delta, langcode)", text),
        "node_revision__body": (
            f"{columns}, PRIMARY KEY (entity_id, revision_id, deleted, delta, langcode)",
            [*text, *[(n, 0, n + 50, "en", 0, f"<p>Old {PROSE} {n}</p>") for n in range(1, 13)]]),
        "node__field_parts": (
            "entity_id INTEGER, delta INTEGER, field_parts_value TEXT, PRIMARY KEY (entity_id, delta)",
            [(n, delta, f"Wheel of oak {n}{delta}") for n in (6, 7) for delta in (0, 1, 2)]),
    }  # fmt: skip


def cms(*, kinds=1):
    """Return pages in a tree by path, whose texts are in tables of their kinds, and versions of them as JSON."""
    paths = {1: "0001", 2: "00010001", 3: "00010002", 4: "000100020001", **{n: f"0001{n:04}" for n in range(5, 31)}}
    page = {"title": "Page {n} of the mill", "draft_title": "Draft {n} of it"}
    versions = {"latest_revision_id": lambda n: n + 100, "live_revision_id": itself}
    said = [(n, "The text of the mill") for n in paths] + [(n + 100, "The latest text of the mill") for n in paths]
    tables = {
        "page": many(30, path=lambda n: paths[n], **page, **versions),
        "revision": ("id INTEGER PRIMARY KEY, content TEXT", [(n, f'{{"body": "{text} {n}"}}') for n, text in said]),
        "page_view_restriction": ("id INTEGER PRIMARY KEY, page_id INTEGER, password TEXT", [(1, 3, "s3cret")]),
        "search_index_entry": many(30, title="Page {n} of the mill", body=TEXT),
    }
    for kind in range(kinds):
        rows = [(n, f"{PROSE} {n}") for n in paths if n % kinds == kind]
        tables[f"kind{kind}_page"] = ("page_ptr_id INTEGER PRIMARY KEY REFERENCES page (id), body TEXT", rows)
    return tables
