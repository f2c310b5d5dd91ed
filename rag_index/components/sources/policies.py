"""Row level security of PostgreSQL: the policies that determine which rows an index has.

Which documents a role may see, PostgreSQL decides itself: `RowRights` queries it under the role, for
the keys of candidates.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.components.sources.decisions import decided
from rag_index.components.sources.engine import (
    begin_snapshot,
    errors_as_ours,
    limited,
    open_read_only,
)
from rag_index.components.sources.source_tables import (
    documents_from,
    equals_any,
    part_from,
    relation,
)
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import decode_values, encode_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.core.settings import IndexSettings

REMEDY = (
    'set access, such as access = "database", or read as a role that is subject to the policies'
)
"""What a person can do if the policies do not hold for the index."""
_RELATION = re.compile(r'(?:"(?:[^"]|"")+"|\w+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|\w+))?')
"""A table, perhaps with its schema. PostgreSQL refuses a name of more parts as one of another
database."""

_POLICIES = sa.text(r"""
WITH RECURSIVE reads (asked, oid, reader) AS (
    SELECT name, to_regclass(name)::oid, (SELECT oid FROM pg_roles WHERE rolname = current_user)
    FROM unnest(CAST(:names AS text[])) AS name
  UNION  -- a view reads as its owner, unless it says otherwise
    SELECT reads.asked, depend.refobjid, CASE
        WHEN view.relkind = 'v' AND array_to_string(view.reloptions, ',') ~* 'security_invoker=(t|on|y|1)'
        THEN reads.reader ELSE view.relowner END
    FROM reads JOIN pg_class view ON view.oid = reads.oid AND view.relkind IN ('v', 'm')
    JOIN pg_rewrite rule ON rule.ev_class = view.oid
    JOIN pg_depend depend ON depend.classid = 'pg_rewrite'::regclass AND depend.objid = rule.oid
        AND depend.refclassid = 'pg_class'::regclass AND depend.refobjid <> view.oid
)
SELECT reads.asked, t.oid::regclass::text, who.rolname::text, CASE
    WHEN who.rolsuper THEN 'is a superuser' WHEN who.rolbypassrls THEN 'has BYPASSRLS'
    WHEN NOT t.relforcerowsecurity AND pg_has_role(who.oid, t.relowner, 'USAGE') THEN 'owns the table' ELSE '' END,
    policy.polname::text, policy.polpermissive, concat_ws(' ', made.rule, (
        SELECT string_agg(concat(found[1], '=', current_setting(found[1], true)), ' ' ORDER BY found[1])
        FROM regexp_matches(made.rule, 'current_setting\(\s*''([^'']+)''', 'g') AS found))
FROM reads JOIN pg_class t ON t.oid = reads.oid AND t.relrowsecurity
JOIN pg_roles who ON who.oid = reads.reader
LEFT JOIN pg_policy policy ON policy.polrelid = t.oid AND policy.polcmd IN ('r', '*') AND EXISTS (
    SELECT 1 FROM unnest(policy.polroles) AS role
    WHERE CASE role WHEN 0 THEN true ELSE pg_has_role(who.oid, role, 'USAGE') END)
LEFT JOIN LATERAL (SELECT concat_ws(' ', policy.polpermissive, pg_get_expr(policy.polqual, policy.polrelid), (
    SELECT string_agg(pg_get_functiondef(f.oid), ' ' ORDER BY f.oid) FROM pg_depend d JOIN pg_proc f
    ON f.oid = d.refobjid AND f.prokind = 'f' AND f.oid >= 16384 WHERE d.classid = 'pg_policy'::regclass
    AND d.objid = policy.oid AND d.refclassid = 'pg_proc'::regclass)) AS rule) AS made ON true
ORDER BY 1, 2, 3, 5
""")
"""Each table with row level security that is read, the role whose policies count, and its policies.

A rule contains the text of its functions and the settings that it reads, so that a change of these
changes the rule, too."""
MIN_TIME_LIMIT = 0.001
"""Seconds of the shortest time limit: 0 would be none for PostgreSQL."""
_BEGIN = sa.text("""
    SELECT set_config('statement_timeout', :timeout, true),
        (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(:relation))
""")
"""Set the time limit, and return whether a relation is a table: the policies of a table can hide only
complete rows."""
_AS_CALLER = sa.text("""
    SELECT set_config('search_path', coalesce((
        SELECT string_agg(quote_ident(name), ', ') FROM unnest(current_schemas(false)) AS name), ''), true),
        (SELECT count(set_config(key, value, true)) FROM json_each_text(CAST(:settings AS json))),
        set_config('role', :role, true)
""")
"""Set the role, and its settings. The search path stays that of the reader, so that a name is the
same table: `"$user"` would be a schema of the role."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that determines which rows of a table a reader sees."""

    name: str
    permissive: bool
    """Whether it shows rows; otherwise it hides some of those that others show."""
    rule: str


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """A table with row level security."""

    relation: str
    """The relation by which it is read: itself, or a view."""
    name: str
    reader: str
    """The role whose rights count: that of the connection, or the owner of a view."""
    sees_all: str
    """The reason why the policies do not hold for the reader, who sees all rows; "" if they do."""
    policies: tuple[Policy, ...]

    def sentence(self) -> str:
        """Return a sentence on the policies that hold for the reader."""
        if not any(policy.permissive for policy in self.policies):
            return (
                f"row level security of {self.name} shows no row to {self.reader}: no policy is for"
                " this role"
            )
        names = ", ".join(policy.name for policy in self.policies)
        return (
            f"{self.reader} sees only the rows of {self.name} that row level security shows"
            f" ({names})"
        )


@dataclass(frozen=True, slots=True)
class RowPolicies:
    """The tables with row level security among those that are read."""

    tables: tuple[PolicyTable, ...] = ()

    def of(self, names: Iterable[str]) -> RowPolicies:
        """Return the tables that are read by these relations."""
        wanted = set(names)
        tables = [table for table in self.tables if table.relation in wanted]
        return RowPolicies(tuple(tables))

    @property
    def digest(self) -> str:
        """A hash that changes when other rows may be shown; "" if the reader sees all rows."""
        limited_to: set[tuple[str, str, tuple[Policy, ...]]] = set()
        for table in self.tables:
            if not table.sees_all:
                limited_to.add((table.name, table.reader, table.policies))
        if not limited_to:
            return ""
        # Runs compare the digest with that of earlier runs, so its form must stay. The name of a
        # policy does not count.
        rules: list[tuple[str, str, list[tuple[bool, str]]]] = []
        for name, reader, policies in sorted(limited_to, key=repr):
            rules.append((name, reader, [(policy.permissive, policy.rule) for policy in policies]))
        return hash_text(repr(rules)).hex()

    def warning(self, *, access: bool) -> str:
        """Return a warning about tables whose restricted rows every caller could read; "" if there
        are none.

        Args:
            access: Whether the index has groups of its own, or lets the database decide.
        """
        if access:
            return ""
        ignored: dict[str, str] = {}
        for table in self.tables:
            if table.sees_all:
                ignored[table.name] = f"{table.reader} {table.sees_all}"
        if not ignored:
            return ""
        names = ", ".join(ignored)
        reasons = ", ".join(dict.fromkeys(ignored.values()))
        return (
            f"searches show the rows of {names} to everybody: the row level security"
            f" there does not hold for the index, since {reasons}; {REMEDY}"
        )

    def notes(self) -> list[str]:
        """Return a sentence for each table in which the reader sees only some rows."""
        sentences = [table.sentence() for table in self.tables if not table.sees_all]
        return list(dict.fromkeys(sentences))


def read_policies(connection: Connection, names: Iterable[str]) -> RowPolicies:
    """Return the tables with row level security among these relations and below their views. Only
    PostgreSQL has any.

    Args:
        names: The relations, as `relation` quotes them.
    """
    relations = [name for name in dict.fromkeys(names) if _RELATION.fullmatch(name)]
    if connection.dialect.name != "postgresql" or not relations:
        return RowPolicies()
    try:
        rows = connection.execute(_POLICIES, {"names": relations}).fetchall()
    except exc.ProgrammingError:
        # A database that only has the protocol of PostgreSQL.
        connection.rollback()
        return RowPolicies()
    policies_of: dict[tuple[str, str, str, str], list[Policy]] = {}
    for read_by, table, reader, sees_all, name, permissive, rule in rows:
        policies = policies_of.setdefault((read_by, table, reader, sees_all), [])
        # NULL: no policy is for the reader.
        if name is not None:
            policies.append(Policy(name, permissive, rule))
    tables: list[PolicyTable] = []
    for (read_by, table, reader, sees_all), policies in policies_of.items():
        tables.append(PolicyTable(read_by, table, reader, sees_all, tuple(policies)))
    return RowPolicies(tuple(tables))


class RowRights:
    """A small pool of connections to a database, which decides which documents a role may see. It
    may be used by several threads."""

    def __init__(self, url: URL) -> None:
        """Open no connection yet. Raises SettingsError if no driver is installed."""
        self._url = url
        self._engine = open_read_only(url)

    def permitted(
        self,
        index: IndexSettings,
        role: str,
        settings: Mapping[str, str],
        keys: Sequence[str],
        seconds: float,
    ) -> set[str]:
        """Return which of these typed keys belong to documents that a role sees as completely as
        the reader does.

        Args:
            settings: The settings that policies read, such as {"app.user": "7"}.
            seconds: The time limit.

        Raises:
            SourceUnavailable: The database does not answer.
            SourceError: The database refuses the query.
        """
        index = decided(index, self._engine.dialect)
        seconds = max(seconds, MIN_TIME_LIMIT)
        named = relation(index.db_schema, index.table) if index.table else None
        # Rows of other tables, and other versions of a row, may be hidden from the role as well.
        has_more = index.query is not None or bool(index.joins or index.parts)
        has_more = has_more or index.newest is not None
        with (
            errors_as_ours(self._url, f"index {index.name}, as role {role}"),
            self._engine.connect() as connection,
            limited(connection, seconds, f"index {index.name}"),
        ):
            begin_snapshot(connection)
            limit = {"timeout": f"{seconds * 1000:.0f}", "relation": named}
            _, is_table = connection.execute(_BEGIN, limit).one()
            # The rows of one table are visible completely, or not at all.
            compares = has_more or not is_table
            of_reader: dict[str, Any] = {}
            if compares:
                of_reader = _visible_rows(connection, index, keys, digests=True)
            caller = {"settings": json.dumps(dict(settings)), "role": role}
            connection.execute(_AS_CALLER, caller)
            of_role = _visible_rows(connection, index, keys, digests=compares)
        permitted: set[str] = set()
        for key in keys:
            if key not in of_role:
                continue
            if not compares or of_reader.get(key) == of_role[key]:
                permitted.add(key)
        return permitted

    def close(self) -> None:
        self._engine.dispose()


def _visible_rows(
    connection: Connection, index: IndexSettings, keys: Sequence[str], *, digests: bool
) -> dict[str, Any]:
    """Return the documents with these keys that the present role sees, by key: with a digest of
    their row and parts, or with ""."""
    rows = documents_from(index)
    # All columns are selected, so that the role must have the right to read them.
    shown = sa.select(*rows.c).subquery("shown")
    columns = [shown.c[name] for name in index.key_columns]
    values = [decode_values(key) for key in keys]
    seen: sa.ColumnElement[Any] = sa.literal_column("''")
    if digests:
        hashes = [_digest("shown")]
        for part in index.parts:
            pairs = part.pairs(index.key_columns)
            hashes.append(_digest_of_part(part_from(part, index), pairs, shown))
        seen = sa.func.concat(*hashes)
    is_wanted = equals_any(columns, values, "postgresql")
    statement = sa.select(*columns, seen).where(is_wanted)
    found = connection.execute(statement).fetchall()
    return {encode_key(row[:-1]): row[-1] for row in found}


def _digest_of_part(
    part: FromClause, pairs: Sequence[tuple[str, str]], shown: FromClause
) -> sa.ColumnElement[Any]:
    """Return the digest of the rows of a part that belong to a document, as an expression."""
    # Importing a dialect takes 20 ms.
    from sqlalchemy.dialects.postgresql import aggregate_order_by

    own = sa.select(*part.c).subquery("own")
    row_digest = _digest("own")
    in_order: Any = aggregate_order_by(sa.literal_column("''"), row_digest)
    every = sa.func.string_agg(row_digest, in_order)
    belongs = [own.c[name] == shown.c[other] for name, other in pairs]
    digest: Select[Any] = sa.select(sa.func.md5(every))
    return digest.select_from(own).where(*belongs).scalar_subquery()


def _digest(rows: str) -> sa.ColumnElement[Any]:
    """Return the digest of all columns of a row, as an expression."""
    row: sa.ColumnClause[Any] = sa.literal_column(rows)
    return sa.func.md5(sa.cast(row, sa.Text))
