"""Known items of documents that consist of several tables: a query must not find itself in a title."""

import sqlite3

import pytest
from sqlalchemy.engine import URL

from rag_index.errors import SettingsError
from rag_index.evaluation.known_items import column_queries, in_text, with_column
from rag_index.settings import IndexSettings
from rag_index.sources.sql import SqlSource


def queries(path, index, column):
    source = SqlSource(URL.create("sqlite", database=str(path)), changed := with_column(index, column))
    source.check()
    documents = source.page(None, 10).documents
    source.close()
    found = {one.query: set(one.relevant) for one in column_queries(changed, column, documents, 10)}
    return found, documents.texts


def test_queries_are_made_of_titles_and_of_joined_columns(tmp_path):
    path = tmp_path / "source.db"
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE note (id INTEGER PRIMARY KEY, subject TEXT, body TEXT, author_id INTEGER);"
            "CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT);"
            "INSERT INTO note VALUES (1, 'Printer', 'no paper', 1), (2, 'Screen', 'dark', 1);"
            "INSERT INTO author VALUES (1, 'Kim')"
        )
    index = IndexSettings(
        name="notes", table="note", key="id", title="subject", text=["subject", "body"],
        joins={"author": {"table": "author", "on": "author_id"}},
    )  # fmt: skip
    assert in_text(index, "subject")
    assert queries(path, index, "subject") == ({"Printer": {"1"}, "Screen": {"2"}}, ["no paper", "dark"])
    assert queries(path, index, "author.name")[0] == {"Kim": {"1", "2"}}
    with pytest.raises(SettingsError, match="nothing is left to be found"):
        with_column(index.model_copy(update={"text": None}), "subject")
