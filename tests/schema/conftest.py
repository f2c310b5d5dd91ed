"""What the tests of proposals share: a database that a test fills, its proposal, and the documents
that it gives."""

from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.settings import Settings
from rag_index.first_run.schema.answers import Answers
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.proposed import Proposal
from rag_index.first_run.schema.reading import propose as proposed
from tests.live.mariadb import mariadb

__all__ = ["mariadb"]

PROSE = (
    "The pump behind the mill stopped when the water froze, and nobody noticed it before the bakers"
    " came to work"
)
TEXT = f"{PROSE} {{n}}"


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
        found = documents_of(str(self.url), self.index(table))
        return dict(zip(found.keys, found.texts, strict=True))

    def shown(self, table):
        return self.documents(table).keys()


def documents_of(url, settings):
    """Return the documents that an index with these settings has."""
    made = Settings(source={"url": url}, indexes=[{"name": "one", **settings}])
    with closing(open_source(made, made.indexes[0])) as source:
        source.check()
        return source.page(None, 500).documents


@pytest.fixture
def propose(tmp_path):
    """A function that fills tables of a new database, given as columns and rows, and returns the
    proposal, with `answers` if there are any."""
    url = sa.make_url(f"sqlite:///{tmp_path}/source.db")

    def made(answers=None, **tables):
        Path(url.database).unlink(missing_ok=True)
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for name, (columns, rows) in tables.items():
                connection.exec_driver_sql(f'CREATE TABLE "{name}" ({columns})')
                for row in rows:
                    connection.exec_driver_sql(
                        f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})', tuple(row)
                    )
        engine.dispose()
        with read_catalog(url) as catalog:
            first = proposed(catalog)
            found = proposed(catalog, Answers.parse(answers).decisions(first)) if answers else first
        return Proposed(**{one.name: getattr(found, one.name) for one in fields(found)}, url=url)

    made.url = url
    return made


def many(count, key="id", /, *, kinds=None, **columns):
    """Return a table with rows numbered from 1.

    A column has texts with the number `{n}`, a function of it, or one value. `kinds` are types in
    SQL, for columns that have another one than their values.
    """

    def value(given, n):
        return (
            given(n) if callable(given) else given.format(n=n) if isinstance(given, str) else given
        )

    rows = [(n, *[value(given, n) for given in columns.values()]) for n in range(1, count + 1)]
    types = {
        name: "INTEGER" if isinstance(value(given, 1), int) else "TEXT"
        for name, given in columns.items()
    }
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


def few(n, every=6):
    """Return whether a row is one of few."""
    return n % every == 2


def article(column, kind, value, count=24):
    """Return a table of articles with one more column."""
    columns, rows = many(
        count, title="The bridge {n} of the river", body=TEXT, email="a{n}@example.org", comments=0
    )
    return f'{columns}, "{column}" {kind}', [(*row, value(row[0])) for row in rows]


def shown(proposed, table="article"):
    """Return the numbers of the rows that a search reaches."""
    return {int(key) for key in proposed.shown(table)}


def every(rule=lambda n: True, count=24):
    """Return the numbers of the rows of a table that meet a rule."""
    return {n for n in range(1, count + 1) if rule(n)}
