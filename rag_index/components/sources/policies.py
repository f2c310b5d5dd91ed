"""Row level security of PostgreSQL: whose policies decide which rows an index has, and what that
means for it. Which documents a role may see, PostgreSQL says itself: it is asked under the role,
for the keys of candidates."""

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

_RELATION = re.compile(r'(?:"(?:[^"]|"")+"|\w+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|\w+))?')
"""A table, perhaps with its schema: of what has more parts, PostgreSQL says that it is in another
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
"""Each table with row level security that is read, the role whose policies count, and those for
what it reads. A rule has the text of its functions and the settings that it reads: a change of
these changes it."""
MIN_TIME_LIMIT = 0.001
_BEGIN = sa.text("""
    SELECT set_config('statement_timeout', :timeout, true),
        (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass(:relation))
""")
"""Set the time limit, and say whether a relation is a table: a policy can hide only whole rows of a
table."""
_AS_CALLER = sa.text("""
    SELECT set_config('search_path', coalesce((
        SELECT string_agg(quote_ident(name), ', ') FROM unnest(current_schemas(false)) AS name), ''), true),
        (SELECT count(set_config(key, value, true)) FROM json_each_text(CAST(:settings AS json))),
        set_config('role', :role, true)
""")
"""The names of tables mean what they mean to the reader: `"$user"` would lead into a schema of the
role."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that decides which rows of a table a reader sees."""

    name: str
    permissive: bool
    rule: str


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """A table with row level security."""

    asked: str
    """The relation by which it is read: itself, or a view."""
    name: str
    reader: str
    """The role whose rights count: that of the connection, or the owner of a view."""
    sees_all: str
    """Why the reader sees all rows, whatever the policies say; "" if he does not."""
    policies: tuple[Policy, ...]

    def sentence(self) -> str:
        """Return what a reader who does not see all rows is subject to."""
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
        """Return those of the tables that are read by these relations."""
        wanted = set(names)
        return RowPolicies(tuple(table for table in self.tables if table.asked in wanted))

    @property
    def digest(self) -> str:
        """Return what changes when other rows may be shown; "" if the reader sees all rows."""
        said = sorted(
            {(one.name, one.reader, one.policies) for one in self.tables if not one.sees_all},
            key=repr,
        )
        rules = [
            (name, reader, [(p.permissive, p.rule) for p in policies])
            for name, reader, policies in said
        ]
        return hash_text(repr(rules)).hex() if rules else ""

    def warning(self, *, access: bool) -> str:
        """Return what everybody would see for whom it is not; "" if there is `access`, or no such
        table."""
        ignored: dict[str, str] = (
            {}
            if access
            else {t.name: f"{t.reader} {t.sees_all}" for t in self.tables if t.sees_all}
        )
        if not ignored:
            return ""
        why = ", ".join(dict.fromkeys(ignored.values()))
        return (
            f"searches show the rows of {', '.join(ignored)} to everybody: the row level security"
            f" there does not hold for the index, since {why}; {REMEDY}"
        )

    def notes(self) -> list[str]:
        """Return a sentence for each table in which the reader sees only some rows."""
        return list(dict.fromkeys(table.sentence() for table in self.tables if not table.sees_all))


def read_policies(connection: Connection, names: Iterable[str]) -> RowPolicies:
    """Return what the database says of these relations, as `relation` names them, and of those
    below views. No other database than PostgreSQL has policies."""
    asked = [name for name in dict.fromkeys(names) if _RELATION.fullmatch(name)]
    if connection.dialect.name != "postgresql" or not asked:
        return RowPolicies()
    try:
        rows = connection.execute(_POLICIES, {"names": asked}).fetchall()
    except exc.ProgrammingError:  # a database that only speaks as PostgreSQL does
        connection.rollback()
        return RowPolicies()
    found: dict[tuple[str, str, str, str], list[Policy]] = {}
    for asked_for, table, reader, sees_all, name, permissive, rule in rows:
        policies = found.setdefault((asked_for, table, reader, sees_all), [])
        if name is not None:
            policies.append(Policy(name, permissive, rule))
    return RowPolicies(
        tuple(PolicyTable(*table, tuple(policies)) for table, policies in found.items())
    )


class RowRights:
    """A small pool of connections to a database that answers for its callers. Safe to use from
    several threads."""

    def __init__(self, url: URL) -> None:
        """Raise SettingsError if no driver is installed. Nothing is connected yet."""
        self._url, self._engine = url, open_read_only(url)

    def permitted(
        self,
        index: IndexSettings,
        role: str,
        settings: Mapping[str, str],
        keys: Sequence[str],
        seconds: float,
    ) -> set[str]:
        """Return which of these typed keys belong to documents that a role sees as completely as
        the reader does. `settings` are what policies read. Raises SourceUnavailable and
        SourceError."""
        index = decided(index, self._engine.dialect)
        seconds, compared = (
            max(seconds, MIN_TIME_LIMIT),
            index.query is not None or bool(index.joins or index.parts),
        )
        named = relation(index.db_schema, index.table) if index.table else None
        with (
            errors_as_ours(self._url, f"index {index.name}, as role {role}"),
            self._engine.connect() as connection,
            limited(connection, seconds, f"index {index.name}"),
        ):
            begin_snapshot(connection)
            begun = connection.execute(
                _BEGIN, {"timeout": f"{seconds * 1000:.0f}", "relation": named}
            )
            plain = begun.one()[1] and not compared and index.newest is None
            whole = None if plain else _shown(connection, index, keys, digests=True)
            connection.execute(_AS_CALLER, {"settings": json.dumps(dict(settings)), "role": role})
            seen = _shown(connection, index, keys, digests=not plain)
        return {
            key for key in keys if key in seen and (whole is None or whole.get(key) == seen[key])
        }

    def close(self) -> None:
        self._engine.dispose()


def _shown(
    connection: Connection, index: IndexSettings, keys: Sequence[str], *, digests: bool
) -> dict[str, Any]:
    rows = documents_from(index)
    shown = sa.select(*rows.c).subquery(
        "shown"
    )  # all its columns, so that the role must be allowed to read them
    columns = [shown.c[name] for name in index.key_columns]
    values = [decode_values(key) for key in keys]
    seen: list[sa.ColumnElement[Any]] = [_digest("shown")] if digests else []
    seen += [
        _of_part(part_from(one, index), one.pairs(index.key_columns), shown) for one in index.parts
    ]
    statement = sa.select(
        *columns, sa.func.concat(*seen) if digests else sa.literal_column("''")
    ).where(equals_any(columns, values, "postgresql"))
    found = connection.execute(statement).fetchall()
    return {encode_key(row[:-1]): row[-1] for row in found}


def _of_part(
    part: FromClause, pairs: Sequence[tuple[str, str]], shown: FromClause
) -> sa.ColumnElement[Any]:
    from sqlalchemy.dialects.postgresql import (
        aggregate_order_by,
    )  # here: importing a dialect takes 20 ms

    own = sa.select(*part.c).subquery("own")
    one = _digest("own")
    every = sa.func.string_agg(one, aggregate_order_by(sa.literal_column("''"), one))
    together: Select[Any] = sa.select(sa.func.md5(every))
    return (
        together.select_from(own)
        .where(*[own.c[name] == shown.c[other] for name, other in pairs])
        .scalar_subquery()
    )


def _digest(rows: str) -> sa.ColumnElement[Any]:
    return sa.func.md5(sa.cast(sa.literal_column(rows), sa.Text))
