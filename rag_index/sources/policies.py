"""Row level security of PostgreSQL: whose policies decide which rows an index has, and what that means for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.documents.canonical import hash_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

REMEDY = 'set access, such as access = "database", or read as a role that is subject to the policies'

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
"""Each table with row level security that is read, the role whose policies count, and those for what it reads.

A rule has the text of its functions and the settings that it reads: whoever changes these changes it.
"""


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
    """Those that hold for the reader."""

    def sentence(self) -> str:
        """Return what a reader who does not see all rows is subject to."""
        if not any(policy.permissive for policy in self.policies):
            return f"row level security of {self.name} shows no row to {self.reader}: no policy is for this role"
        names = ", ".join(policy.name for policy in self.policies)
        return f"{self.reader} sees only the rows of {self.name} that row level security shows ({names})"


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
        said = sorted({(one.name, one.reader, one.policies) for one in self.tables if not one.sees_all}, key=repr)
        rules = [(name, reader, [(p.permissive, p.rule) for p in policies]) for name, reader, policies in said]
        return hash_text(repr(rules)).hex() if rules else ""

    def warning(self, *, access: bool) -> str:
        """Return what everybody would see for whom it is not; "" if there is `access`, or no such table."""
        ignored: dict[str, str] = (
            {} if access else {t.name: f"{t.reader} {t.sees_all}" for t in self.tables if t.sees_all}
        )
        if not ignored:
            return ""
        why = ", ".join(dict.fromkeys(ignored.values()))
        return (
            f"searches show the rows of {', '.join(ignored)} to everybody: the row level security there does not hold "
            f"for the index, since {why}; {REMEDY}"
        )

    def notes(self) -> list[str]:
        """Return a sentence for each table of which the reader sees his rows alone."""
        return list(dict.fromkeys(table.sentence() for table in self.tables if not table.sees_all))


def read_policies(connection: Connection, names: Iterable[str]) -> RowPolicies:
    """Return what the database says of these relations, as `relation` names them, and of those below views.

    No other database than PostgreSQL has policies.
    """
    asked = list(dict.fromkeys(names))
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
    return RowPolicies(tuple(PolicyTable(*table, tuple(policies)) for table, policies in found.items()))
