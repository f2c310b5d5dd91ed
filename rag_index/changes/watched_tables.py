"""Which tables of a database have to be watched for which indexes, and which documents show a row of them."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes import DocumentChange, LookUp, Received
from rag_index.changes.rows import WatchedTable
from rag_index.documents.keys import document_id, encode_key
from rag_index.errors import SourceError
from rag_index.settings.index import SQL
from rag_index.sources.changed import tables_read
from rag_index.sources.engine import open_read_only, source_error
from rag_index.sources.statement import single_select
from rag_index.sources.tables import documents_from, part_from, source_tables, table_routes, used_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import ReceivedRows, RowChange, RowFeed
    from rag_index.errors import RagIndexError
    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources.tables import SourceTable

CLOCK = re.compile(
    r"\b(now|curdate|curtime|sysdate|getdate|utc_timestamp|utc_date|unix_timestamp|random|rand)\s*\("
    r"|\b(current_date|current_time|current_timestamp|localtimestamp)\b"
    r"|\b(date|time|datetime|julianday|strftime)\s*\(([^()]*,)?\s*'now'",
    re.IGNORECASE,
)
"""What makes a query give something else although no row has changed."""

NAME = r'(?:"[^"]+"|`[^`]+`|\w+)'
PAIRS = re.compile(
    rf"\s*SELECT\s+(?:DISTINCT\s+)?(?P<columns>.+?)\s+FROM\s+(?:(?P<schema>{NAME})\.)?(?P<table>{NAME})"
    rf"(?:\s+(?:AS\s+)?(?P<alias>{NAME}))??"
    r"(?P<rest>\s*,.*|\s+(?:JOIN|INNER|LEFT|CROSS|NATURAL|WHERE|GROUP|ORDER|LIMIT)\b.*)?\s*",
    re.IGNORECASE | re.DOTALL,
)
"""A query of pairs that says plainly which table has the keys: the first one that it reads."""

COLUMN = re.compile(rf"\s*(?:(?P<table>{NAME})\.)?(?P<name>{NAME})(?:\s+(?:AS\s+)?{NAME})?\s*", re.IGNORECASE)
MAX_NAME = 60
"""PostgreSQL cuts names at 63 bytes, and MariaDB refuses more than 64."""


@dataclass(frozen=True, slots=True)
class RowRoute:
    """What rows of a table mean for the documents of one index."""

    index: IndexSettings
    table: WatchedTable
    keys: tuple[str, ...]
    """The columns of the table whose values make the document id, or the value of `column`."""
    column: str | None = None
    """The column of the index to look up; None if the values of `keys` are the document's key."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What changed rows mean: documents, and look-ups of documents; each once, with the time of the first change."""

    changes: Sequence[DocumentChange]
    look_ups: Sequence[LookUp]
    overflow: Sequence[str]
    """The indexes whose documents cannot be looked up by these rows."""


class Router:
    """Finds the documents that show changed rows, or what to look them up by.

    A row of an index's own table is the document of its key. For a row of a table in `depends_on`, the documents that
    show it have the same value in `column`. If that column is the key, the value is the id. Otherwise it becomes a
    look-up.
    """

    def __init__(self, routes: Sequence[RowRoute]) -> None:
        self._routes: dict[WatchedTable, list[RowRoute]] = {}
        for route in routes:
            self._routes.setdefault(route.table, []).append(route)

    def indexes(self, tables: Sequence[WatchedTable]) -> list[str]:
        """Return the names of the indexes that show rows of these tables."""
        return sorted({route.index.name for table in tables for route in self._routes.get(table, ())})

    def all_indexes(self) -> list[str]:
        """Return the names of all indexes."""
        return self.indexes(list(self._routes))

    def route(self, rows: Sequence[RowChange]) -> Routed:
        """Return what these rows mean."""
        documents: dict[tuple[str, str], float] = {}
        look_ups: dict[tuple[str, str, str], float] = {}
        overflow: dict[str, None] = {}
        for row in rows:
            for route in self._routes.get(row.table, ()):
                values, name, at = [row.values[key] for key in route.keys], route.index.name, row.changed_at
                if None in values:  # a document has a whole key, and NULL joins with nothing
                    continue
                try:
                    key = encode_key(values)
                except SourceError:  # a value of a type that no key has
                    overflow[name] = None
                    continue
                if route.column is None:
                    given = document_id(key)
                    documents[name, given] = min(at, documents.get((name, given), at))
                else:
                    sought = (name, route.column, key)
                    look_ups[sought] = min(at, look_ups.get(sought, at))
        return Routed(
            [DocumentChange(*one, at) for one, at in documents.items()],
            [LookUp(*one, at) for one, at in look_ups.items()],
            list(overflow),
        )


class RoutedFeed:
    """A feed of rows as a `ChangeFeed`."""

    def __init__(self, feed: RowFeed, router: Router) -> None:
        self._feed = feed
        self._router = router

    def check(self) -> Mapping[str, RagIndexError]:
        """Check that the feed is set up; return why changes of some indexes are not seen."""
        return {name: error for table, error in self._feed.check().items() for name in self._router.indexes([table])}

    def receive(self, limit: int) -> Received:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any."""
        received = self._feed.receive(limit)
        routed = self._router.route(received.changes)
        lost = dict.fromkeys([*self._router.indexes(received.overflow), *routed.overflow])
        behind = self._router.all_indexes() if received.behind else ()
        through = dict.fromkeys(self._router.all_indexes(), received.through) if received.through else {}
        return Received(routed.changes, received, received.more, tuple(lost), routed.look_ups, behind, through)

    def acknowledge(self, received: Received) -> None:
        """Let the source forget these changes, which are in the inbox now."""
        rows: ReceivedRows = received.position
        self._feed.acknowledge(rows)

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds."""
        self._feed.wait(seconds)

    def close(self) -> None:
        """Close what the feed holds open."""
        self._feed.close()


@dataclass(slots=True)
class TablePlan:
    """The tables to watch, and what their rows mean."""

    routes: list[RowRoute] = field(default_factory=list)
    unwatched: dict[str, str] = field(default_factory=dict)
    """Why an index cannot be watched by its tables, by its name."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, such as tables of a query that are not watched."""
    blind: dict[str, str] = field(default_factory=dict)
    """What is not seen of an index, in one sentence, by its name."""

    @property
    def tables(self) -> list[WatchedTable]:
        """Return each table once, sorted by its name."""
        return sorted({route.table for route in self.routes}, key=str)


class _Name(NamedTuple):
    """A table, by its schema (None: the default one) and name."""

    schema: str | None
    table: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A route whose table is not complete yet: other indexes may need more of its columns."""

    index: IndexSettings
    name: _Name
    keys: tuple[str, ...]
    column: str | None
    used: frozenset[str] | None


def plan_tables(settings: Settings, indexes: Sequence[IndexSettings]) -> TablePlan:
    """Return the tables to watch for those of the indexes that are of kind sql.

    Whether they exist is what a feed checks. Raises SourceUnavailable, SourceError and SettingsError.
    """
    url = settings.source_url
    engine = open_read_only(url)
    try:
        with closing(engine.connect()) as connection:
            planner = _Planner(connection)
            for index in indexes:
                if index.kind == SQL:
                    planner.add(index)
            return planner.plan()
    except exc.SQLAlchemyError as error:
        raise source_error(error, url, "the tables of the source") from error
    finally:
        engine.dispose()


class _Planner:
    """Collects what the indexes need of the tables of one database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inspector: Any = sa.inspect(connection)
        self._views: dict[str | None, set[str]] = {}
        self._wanted: list[_Wanted] = []
        self._plan = TablePlan()

    def add(self, index: IndexSettings) -> None:
        """Add the tables of an index, or the reason why it cannot be watched by its tables."""
        own = None if index.table is None else self._name(index.db_schema, index.table)
        if (own is None or self._is_view(own)) and not index.depends_on:
            what = "query" if own is None else f"view {index.table}"
            self._plan.unwatched[index.name] = (
                f"list the tables that its {what} reads in depends_on, so that a change of them can be followed"
            )
            return
        for route in table_routes(index):
            name = self._name(route.table.schema, route.table.table)
            if not self._is_view(name):  # its tables are named, if depends_on does not list them
                used = frozenset(self._used_columns(index, route.table))
                self._wanted.append(_Wanted(index, name, route.keys, route.look_up, used))
        for entry in index.depends_on:
            schema, _, table = entry.table.rpartition(".")
            name = self._name(schema or None, table)
            is_key = index.key_columns == [entry.column]
            self._wanted.append(_Wanted(index, name, (entry.key,), None if is_key else entry.column, None))
        if index.access_query is not None and (pairs := self._table_of_pairs(index)) is not None:
            name, keys = pairs
            self._wanted.append(_Wanted(index, name, keys, None, None))
        self._note_blind_spots(index)

    def plan(self) -> TablePlan:
        """Return what was added, with each table once."""
        columns: dict[_Name, set[str]] = {}
        used: dict[_Name, frozenset[str] | None] = {}
        for wanted in self._wanted:
            columns.setdefault(wanted.name, set()).update(wanted.keys)
            so_far = used.setdefault(wanted.name, frozenset())
            used[wanted.name] = None if so_far is None or wanted.used is None else so_far | wanted.used
        tables = {}
        for name, names in columns.items():
            some = used[name]
            needed = None if some is None else frozenset(some | names)
            tables[name] = WatchedTable(name.table, name.schema, tuple(sorted(names)), needed)
        for w in self._wanted:
            self._plan.routes.append(RowRoute(w.index, tables[w.name], w.keys, w.column))
        return self._plan

    def _name(self, schema: str | None, table: str) -> _Name:
        return _Name(None if schema == self._inspector.default_schema_name else schema, table)

    def _table_of_pairs(self, index: IndexSettings) -> tuple[_Name, tuple[str, ...]] | None:
        """Return the table whose rows are pairs of key and group, and its columns that have the key.

        None if the query does not say it plainly: a wrong table would look as if nothing changed.
        """
        found = PAIRS.fullmatch(str(single_select(str(index.access_query), index.name)))
        rest = (found and found["rest"]) or ""
        if found is None or re.search(r"\b(UNION|INTERSECT|EXCEPT)\b", rest, re.IGNORECASE):
            return None
        if found["columns"].count("(") != found["columns"].count(")"):  # the table is that of a query within it
            return None
        joins = rest.lstrip().startswith(",") or re.search(r"\bJOIN\b", rest, re.IGNORECASE)
        parts = found["columns"].split(",")[: len(index.key_columns)]
        columns = [column for part in parts if (column := COLUMN.fullmatch(part)) is not None]
        own = {_plain(found["alias"] or found["table"])}
        if len(columns) < len(index.key_columns) or any(
            _plain(c["table"]) not in own if c["table"] else joins for c in columns
        ):
            return None
        schema = _plain(found["schema"]) if found["schema"] else None
        table = _known(_plain(found["table"]), self._inspector.get_table_names(schema=schema))
        there = [c["name"] for c in self._inspector.get_columns(table, schema=schema)] if table else []
        keys = [known for c in columns if (known := _known(_plain(c["name"]), there)) is not None]
        return (self._name(schema, table), tuple(keys)) if table and len(keys) == len(columns) else None

    def _used_columns(self, index: IndexSettings, table: SourceTable) -> set[str]:
        """Return the columns of a table whose update matters, those that its conditions name among them."""
        used = used_columns(index, table)
        if table.where:
            there = [column["name"] for column in self._inspector.get_columns(table.table, schema=table.schema)]
            conditions = " ".join(table.where)
            used |= {name for name in there if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", conditions, re.IGNORECASE)}
        return used

    def _is_view(self, name: _Name) -> bool:
        return name.table in self._views_of(name.schema)

    def _views_of(self, schema: str | None) -> set[str]:
        if schema not in self._views:
            found = set(self._inspector.get_view_names(schema=schema))
            if self._connection.dialect.name == "postgresql":
                found |= set(self._inspector.get_materialized_view_names(schema=schema))
            self._views[schema] = found
        return self._views[schema]

    def _tables_read(self, index: IndexSettings) -> set[str]:
        """Return the tables that documents and their parts are read from, views resolved."""
        if not (index.joins or index.parts or index.where or index.newest_among):
            return tables_read(self._connection, index)
        rows = [documents_from(index), *[part_from(part, index) for part in index.parts]]
        dialect = self._connection.dialect
        found: set[str] = set()
        for one in rows:
            text = str(sa.select(*one.c).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            found |= tables_read(self._connection, index, text.replace("%%", "%") if dialect.name != "sqlite" else text)
        return found

    def _note_blind_spots(self, index: IndexSettings) -> None:
        """Note what a watch of an index will not see."""
        blind: list[str] = []
        watched = {wanted.name.table for wanted in self._wanted if wanted.index is index}
        forgotten = sorted(self._tables_read(index) - watched)
        if forgotten:
            self._plan.notes.append(
                f"index {index.name}: depends_on does not list {', '.join(forgotten)}, which the documents show too: "
                "a change there is found by the next run"
            )
            blind.append(f"depends_on does not list {', '.join(forgotten)}")
        for entry in index.depends_on:
            if entry.column not in (*index.payload, *index.key_columns):
                self._plan.notes.append(
                    f"index {index.name}: column {entry.column!r} is not in payload, so a document that the join no "
                    f"longer gives after a change of {entry.table} is deleted by the next run"
                )
                blind.append(f"column {entry.column!r} of depends_on is not in payload")
        if index.access_query is not None:
            reads = tables_read(self._connection, index, index.access_query)
            if unseen := sorted(reads - watched) if reads else ["tables that the database does not name"]:
                self._plan.notes.append(
                    f"index {index.name}: its query of access reads {', '.join(unseen)}, too: a change there is found "
                    "by the next run; if a row belongs to one document, list the table in depends_on"
                )
                blind.append(f"its query of access reads {', '.join(unseen)}")
        asked = " ".join(filter(None, [index.query, *[one for table in source_tables(index) for one in table.where]]))
        if now := CLOCK.search(asked):
            blind.append(f"its query asks for the time ({now[0]}), so documents change without a change of a row")
        if blind:
            self._plan.blind[index.name] = "; ".join(blind)


def _plain(name: str) -> str:
    """Return a name of a query without its quotes."""
    return name[1:-1] if name[0] in '"`' else name


def _known(name: str, names: Sequence[str]) -> str | None:
    """Return the name as the database has it: most ignore the case of names that are not quoted."""
    return name if name in names else next((one for one in names if one.lower() == name.lower()), None)


def object_name(project: str, *parts: str) -> str:
    """Return a name of this project, which says whose it is and begins with `rag_index_`.

    It has only lower-case letters, digits and `_`, as the name of a slot must. Whatever is lost by that comes back as a
    digest at its end, so that names of different projects differ.
    """
    whole = "_".join(["rag_index", project, *parts])
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('_')}_{digest}"
