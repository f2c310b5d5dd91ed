"""A query that hangs ends by its time limit, with the value and the remedy."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.engine import make_url

from rag_index.errors import SourceTimedOut
from rag_index.settings import IndexSettings
from rag_index.sources.sql import SqlSource
from tests.project import Project

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS id, 'x' AS text FROM n"


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source.db"
    sqlite3.connect(file).close()
    index = IndexSettings(name="n", query=ENDLESS, key="id", text="text")
    made = SqlSource(make_url(f"sqlite:///{file}"), index, timeout=0.5)
    yield made
    made.close()


@pytest.mark.parametrize("ask", [SqlSource.check, SqlSource.count, lambda source: source.page(None, 10)])
def test_a_query_that_never_ends_is_interrupted(source, ask):
    with pytest.raises(SourceTimedOut, match=r"did not answer a query within 0\.5 s.*raise \[source\] timeout"):
        ask(source)


def test_a_run_whose_query_hangs_ends_in_words(tmp_path, prefect_server):
    project = Project(tmp_path / "p").fill(3)
    columns = "max(i) AS id, 'x' AS title, 'y' AS body, 'z' AS author, 1 AS priority"
    query = ENDLESS.replace("max(i) AS id, 'x' AS text", columns)
    text = project.config.read_text().replace('table = "note"', f'query = "{query}"')
    project.write_settings(text.replace('source.db"', 'source.db"\ntimeout = 1'))
    report = project.index(serial=True)
    assert (report.state, report.exit_code) == ("failed", 1)
    assert "did not answer a query within 1 s" in report.indexes[0].message
