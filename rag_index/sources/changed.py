"""A SQL source with a column of modification times: on most pages, only the changed rows are read in full.

Each page is read in two steps: first the keys, each with a flag that says whether its row changed since a time, and
then the rows that have to be read. A page is read in full if it has a key that the ledger does not know or that has to
be tried again. So a row that is inserted with an old time is found, too. The only change that is missed is one of a
known row whose time does not rise above `since`.

`since` is computed from the rows themselves at the start of a scan. It is the latest time that is not later than the
database's own clock, since a row dated 2099 would hide all changes until then. `changed_overlap` is subtracted for rows
that are committed later than they are dated. Times without a zone may be in any zone, so half a day more is subtracted.
Times that are text (SQLite) are compared as text, and by the day.

Who may see a document can change without any time: the groups of all rows are read each time, and a page with a row
whose groups are not those of its committed state (a stamp in the ledger) is read in full.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.documents.access import access_stamp, groups_in
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError
from rag_index.sources.pages import stream_rows
from rag_index.sources.sql import TIMEOUT, SqlSource
from rag_index.sources.tables import single_select, untyped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState, SourcePage

ANY_ZONE = dt.timedelta(hours=12)
DAY = dt.timedelta(days=1)
_ROOTS = sa.text("""
    SELECT part.relname, root.relname FROM pg_class part JOIN pg_class root ON root.oid = pg_partition_root(part.oid)
    WHERE part.relispartition AND part.relname = ANY(:names)
""")


class ChangedSource(SqlSource):
    """A `SqlSource` that reads all rows, unless a scan state says which may stay unread."""

    def __init__(self, url: URL, index: IndexSettings, *, timeout: float = TIMEOUT) -> None:
        super().__init__(url, index, timeout=timeout)
        self._time = self._from.c[str(index.changed_since)]
        self._overlap = dt.timedelta(seconds=index.changed_overlap)
        self._state: ScanState | None = None
        """The state of the last scan, if rows that are older than its watermark may stay unread."""

    def use_scan_state(self, state: ScanState) -> None:
        """Set the watermark of the next scan, and leave rows unread that are older than that of the last one.

        Pages for which `must_read(keys)` of the state is true are read in full; with `access`, so are pages with a row
        whose key `unchanged(stamps)` does not have: its groups have changed.
        """
        watermark = self.watermark()  # before the first page, so that later changes are above it
        if watermark is None:
            return
        state.set_watermark(watermark)
        index = self._index  # the time of a row tells nothing of rows of other tables, nor of older versions
        if state.watermark is not None and not (index.parts or index.joins or index.newest):
            self._state = state

    def watermark(self) -> str | None:
        """Return the watermark for the scan after the one that begins now; None if that must read all.

        Raises SourceUnavailable, SourceError, and SettingsError if the column does not hold times.
        """
        with self._connect() as connection:
            sample = connection.scalar(sa.select(self._time).where(self._time.is_not(None)).limit(1))
            if sample is None:
                return None
            credible = self._time <= untyped(self._latest_credible_time(sample, connection))
            latest = connection.scalar(sa.select(sa.func.max(self._time)).where(credible))
        return None if latest is None else _encode_time(_earlier(latest, self._overlap))

    def changed_keys(self, watermark: str | None) -> Iterator[tuple[str, Any]]:
        """Yield typed key and time of each row that changed since a watermark, if there is one.

        Rows without a time are left out. The others are fetched as they are consumed. Raises SourceUnavailable or
        SourceError.
        """
        statement = sa.select(*self._keys, self._time).where(*self._keys_not_null(), self._time.is_not(None))
        if watermark is not None:
            statement = statement.where(self._time >= untyped(_decode_time(watermark)))
        with self._connect() as connection:
            for row in stream_rows(connection, statement):
                yield encode_key(row[:-1]), row[-1]

    def access_stamps(self, cursor: Any, rows: int) -> tuple[dict[str, str], Any]:
        """Return stamps of the groups of at most `rows` documents after `cursor` by key, and the next cursor, or None.

        Raises SourceUnavailable or SourceError.
        """
        with self._connect() as connection:
            found = self._fetch_all(connection, self._in_order(self._select_keys(), cursor).limit(rows))
            groups = self._groups(connection, found) or []
        keys = [row[: len(self._keys)] for row in found]
        stamps = {encode_key(key): access_stamp(some) for key, some in zip(keys, groups, strict=True)}
        return stamps, tuple(keys[-1]) if len(found) == rows else None

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """Return the documents with these ids, with stamps of their groups."""
        return self._with_stamps(super().documents(ids))

    def watermark_at(self, time: Any, overlap: float) -> str:
        """Return the watermark that lies `overlap` seconds before a time of the column."""
        return _encode_time(_earlier(time, dt.timedelta(seconds=overlap), whole_days=False))

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows; the keys of those that stay unread are in `unread`."""
        page = None if self._state is None else self._page_of_changed(self._state, cursor, rows)
        return self._with_stamps(page if page is not None else super().page(cursor, rows))

    def _page_of_changed(self, state: ScanState, cursor: Any, rows: int) -> SourcePage | None:
        """Return the changed rows of a page; None if it has to be read in full."""
        since = _decode_time(str(state.watermark))
        has_changed = sa.or_(self._time.is_(None), self._time >= untyped(since))
        flag, width = sa.case((has_changed, 1), else_=0), len(self._keys)
        with self._connect() as connection:
            statement = self._in_order(self._select_keys(flag), cursor).limit(rows + 1)
            found, following = self._fetch(connection, statement, rows)
            end = self._end(connection, found, following)
            keys = self._unique([encode_key(row[:width]) for row in found])
            unchanged = [key for key, row in zip(keys, found, strict=True) if not row[width]]
            if state.must_read(unchanged):
                return None
            if (groups := self._groups(connection, found)) is not None:
                pairs = zip(keys, groups, found, strict=True)
                stamps = {key: access_stamp(some) for key, some, row in pairs if not row[width]}
                if not stamps.keys() <= state.unchanged(stamps):
                    return None
            statement = self._in_order(self._select(), cursor).where(has_changed)
            if end is not None:
                statement = statement.where(sa.not_(self._after(end)))
            changed, too_long = self._fetch(connection, statement) if len(unchanged) < len(keys) else ([], None)
            groups = self._groups(connection, changed)
        if too_long is not None:  # too many characters for one page
            return self._page_of_changed(state, cursor, len(changed))
        page = self._read(changed, end, groups)
        read = {*page.documents.keys, *(failure.key for failure in page.unreadable)}
        return replace(page, unread=[key for key in unchanged if key not in read])

    def _select_keys(self, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
        access = [self._from.c[name] for name in filter(None, [self._index.access_column])]
        return sa.select(*self._keys, *more, *access).where(*self._keys_not_null())

    def _with_stamps(self, page: SourcePage) -> SourcePage:
        """Return the page with stamps of its documents' groups, so that a change of these is found without a time."""
        if self._index.access is None:
            return page
        pairs = zip(page.documents.keys, map(groups_in, page.documents.payloads), strict=True)
        return replace(page, stamps={key: access_stamp(groups or ()) for key, groups in pairs})

    def _latest_credible_time(self, sample: Any, connection: Connection) -> Any:
        """Return the time of the database's clock, as the type of `sample`, a value of the column."""
        mysql = self._url.get_backend_name() in ("mysql", "mariadb")
        now: Any = connection.scalar(sa.select(sa.func.utc_timestamp() if mysql else sa.func.current_timestamp()))
        now = dt.datetime.fromisoformat(now) if isinstance(now, str) else now
        utc = now.replace(tzinfo=dt.UTC) if now.tzinfo is None else now.astimezone(dt.UTC)
        if isinstance(sample, dt.datetime):
            return utc if sample.tzinfo is not None else utc.replace(tzinfo=None) - ANY_ZONE
        if isinstance(sample, dt.date):
            return utc.date() - DAY
        if isinstance(sample, str):
            with suppress(ValueError):
                dt.date.fromisoformat(sample[:10])
                return (utc.date() - DAY).isoformat()
        raise SettingsError(
            f"index {self._index.name}: changed_since {self._index.changed_since!r} holds {type(sample).__name__} "
            f"({sample!r:.40}), not times; name a column of dates or timestamps, or of texts that begin with a date "
            "such as 2026-01-31, or leave changed_since out"
        )


def _earlier(latest: Any, overlap: dt.timedelta, *, whole_days: bool = True) -> Any:
    """Return an earlier time of the same type. A text is compared by the day, or by its form if that tells the time."""
    if isinstance(latest, dt.datetime):
        return latest - overlap
    if isinstance(latest, str):
        if not whole_days and len(latest) >= len("2026-01-31 12:00:00"):
            with suppress(ValueError):
                return (dt.datetime.fromisoformat(latest) - overlap).isoformat(latest[10], "seconds")
        return (dt.date.fromisoformat(latest[:10]) - overlap - DAY).isoformat()
    return latest - overlap - DAY


def _encode_time(value: Any) -> str:
    kind = "time" if isinstance(value, dt.datetime) else "date" if isinstance(value, dt.date) else "text"
    return json.dumps({kind: value if kind == "text" else value.isoformat()})


def _decode_time(watermark: str) -> Any:
    ((kind, value),) = json.loads(watermark).items()
    if kind == "text":
        return value
    return dt.datetime.fromisoformat(value) if kind == "time" else dt.date.fromisoformat(value)


def tables_read(connection: Connection, index: IndexSettings, query: str | None = None) -> set[str]:
    """Return the names, without schemas, of the tables that a query of the index reads; by default its own.

    The result is empty where the database cannot say: only SQLite, PostgreSQL, MySQL and MariaDB are asked.
    """
    if query is None and index.table is not None:
        inner: Any = sa.select(sa.text("*")).select_from(sa.table(index.table, schema=index.db_schema))
        query = str(inner.compile(dialect=connection.dialect))
    else:
        query = str(single_select(str(query or index.query), index.name)).replace("\\:", ":")
    query = f"SELECT * FROM ({query}) AS _query"
    readers = {"sqlite": _in_sqlite, "postgresql": _in_postgresql, "mysql": _in_mysql, "mariadb": _in_mysql}
    reader = readers.get(connection.dialect.name)
    if reader is None:
        return set()
    try:
        return reader(connection, query)
    except exc.DBAPIError:  # the check of the source says what is wrong with the query
        connection.rollback()
        return set()


def _in_sqlite(connection: Connection, query: str) -> set[str]:
    found: set[str] = set()

    def note(action: int, table: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_READ and table and not table.startswith("sqlite_"):
            found.add(table)
        return sqlite3.SQLITE_OK

    driver: Any = connection.connection.driver_connection
    views = set(sa.inspect(connection).get_view_names())
    driver.set_authorizer(note)
    try:
        connection.exec_driver_sql(f"EXPLAIN {query}").close()
    finally:
        driver.set_authorizer(None)
    return found - views


def _in_postgresql(connection: Connection, query: str) -> set[str]:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query}").scalar()
    found = set(_values(plan, "Relation Name"))
    roots = dict(map(tuple, connection.execute(_ROOTS, {"names": list(found)})))  # a plan names partitions
    return {roots.get(name, name) for name in found}


def _in_mysql(connection: Connection, query: str) -> set[str]:
    plan = json.loads(str(connection.exec_driver_sql(f"EXPLAIN FORMAT=JSON {query.replace('%', '%%')}").scalar()))
    existing = set(sa.inspect(connection).get_table_names())
    return set(_values(plan, "table_name")) & existing  # an alias of the query is shown in place of its table


def _values(plan: Any, name: str) -> Iterator[str]:
    if isinstance(plan, dict):
        if isinstance(plan.get(name), str):
            yield plan[name]
        plan = list(plan.values())
    for inner in plan if isinstance(plan, list) else []:
        yield from _values(inner, name)
