"""Which documents a role may see, as PostgreSQL itself says: asked under the role, for the keys of candidates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from rag_index.documents.keys import decode_values, encode_key
from rag_index.sources.engine import begin_snapshot, errors_as_ours, limited, open_read_only
from rag_index.sources.source_tables import documents_from, equals_any, part_from, relation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings

MIN_SECONDS = 0.001
_BEGIN = sa.text("""
    SELECT set_config('statement_timeout', :timeout, true),
        (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(:relation))
""")
"""The limit, and whether a relation is a table, of which nothing but whole rows can be hidden."""
_AS_CALLER = sa.text("""
    SELECT set_config('search_path', coalesce((
        SELECT string_agg(quote_ident(name), ', ') FROM unnest(current_schemas(false)) AS name), ''), true),
        (SELECT count(set_config(key, value, true)) FROM json_each_text(CAST(:settings AS json))),
        set_config('role', :role, true)
""")
"""The names of tables mean what they mean to the reader: `"$user"` would lead into a schema of the role."""


class RowRights:
    """A small pool of connections to a database that answers for its callers. Safe to use from several threads."""

    def __init__(self, url: URL) -> None:
        """Raise SettingsError if no driver is installed. Nothing is connected yet."""
        self._url, self._engine = url, open_read_only(url)

    def permitted(
        self, index: IndexSettings, role: str, settings: Mapping[str, str], keys: Sequence[str], seconds: float
    ) -> set[str]:
        """Return which of these typed keys belong to documents of which a role sees all that the reader sees.

        `settings` are what policies read. Raises SourceUnavailable and SourceError.
        """
        seconds, compared = max(seconds, MIN_SECONDS), index.query is not None or bool(index.joins or index.parts)
        named = relation(index.db_schema, index.table) if index.table else None
        with (
            errors_as_ours(self._url, f"index {index.name}, as role {role}"),
            self._engine.connect() as connection,
            limited(connection, seconds, f"index {index.name}"),
        ):
            begin_snapshot(connection)
            begun = connection.execute(_BEGIN, {"timeout": f"{seconds * 1000:.0f}", "relation": named})
            plain = begun.one()[1] and not compared and index.newest is None
            whole = None if plain else _shown(connection, index, keys, digests=True)
            connection.execute(_AS_CALLER, {"settings": json.dumps(dict(settings)), "role": role})
            seen = _shown(connection, index, keys, digests=not plain)
        return {key for key in keys if key in seen and (whole is None or whole.get(key) == seen[key])}

    def close(self) -> None:
        self._engine.dispose()


def _shown(connection: Connection, index: IndexSettings, keys: Sequence[str], *, digests: bool) -> dict[str, Any]:
    """Return the documents that are seen now, by their typed keys; with a digest of all that is seen of each."""
    rows = documents_from(index)
    shown = sa.select(*rows.c).subquery("shown")  # all its columns, so that the role must be allowed to read them
    columns = [shown.c[name] for name in index.key_columns]
    values = [decode_values(key) for key in keys]
    seen: list[sa.ColumnElement[Any]] = [_digest("shown")] if digests else []
    seen += [_of_part(part_from(one, index), one.pairs(index.key_columns), shown) for one in index.parts]
    statement = sa.select(*columns, sa.func.concat(*seen) if digests else sa.literal_column("''")).where(
        equals_any(columns, values, "postgresql")
    )
    found = connection.execute(statement).fetchall()
    return {encode_key(row[:-1]): row[-1] for row in found}


def _of_part(part: FromClause, pairs: Sequence[tuple[str, str]], shown: FromClause) -> sa.ColumnElement[Any]:
    """Return the digest of the rows of a part that belong to a document."""
    own = sa.select(*part.c).subquery("own")
    one = _digest("own")
    every = sa.func.string_agg(one, aggregate_order_by(sa.literal_column("''"), one))
    together: Select[Any] = sa.select(sa.func.md5(every))
    return together.select_from(own).where(*[own.c[name] == shown.c[other] for name, other in pairs]).scalar_subquery()


def _digest(rows: str) -> sa.ColumnElement[Any]:
    return sa.func.md5(sa.cast(sa.literal_column(rows), sa.Text))
