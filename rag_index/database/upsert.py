"""INSERT statements that say what to do on a conflict, which SQLAlchemy builds separately for each dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa


def insert_for(dialect: sa.Dialect) -> Callable[[sa.Table], Any]:
    """Return the `insert` of PostgreSQL or SQLite; its statements have `on_conflict_do_update` and `…_nothing`."""
    if dialect.name == "postgresql":  # importing a dialect takes 20 ms
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert
