"""One function knows which dialect's INSERT can handle a conflict."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rag_index.database.sqlite import insert_for

TABLE = sa.Table("t", sa.MetaData(), sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text))


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=lambda dialect: dialect.name)
def test_a_conflict_updates_the_row(dialect):
    insert = insert_for(dialect)(TABLE)
    statement = insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded.value})
    assert "ON CONFLICT (key) DO UPDATE SET value = excluded.value" in str(statement.compile(dialect=dialect)).replace(
        '"', ""
    )
