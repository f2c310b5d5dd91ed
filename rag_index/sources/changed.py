"""A source with a column that says when a row was changed: of most pages, only the changed rows are read whole.

Each page is read in two steps: the keys with one word each (changed since, or not), then the rows that have to be read.
A page with a key that the caller does not know, or has to look at again, is read whole: a row that was inserted with
an old time is found, too. What is missed is a change of a known row by which its time did not rise above `since`.

`since` is worked out from the rows themselves. Of the times that are not later than the database's own clock says (a
row dated 2099 would hide all changes until then), the latest is taken as a scan begins, less `changed_overlap` for
what is committed later than it is dated. Times without a zone may be of any: half a day less is taken. Times that are
text (SQLite) are compared as text, and by the day.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import NullType

from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError
from rag_index.sources.sql import SqlSource, not_unique

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState, SourcePage

__all__ = ["ChangedSource"]

ANY_ZONE = dt.timedelta(hours=12)
DAY = dt.timedelta(days=1)


class ChangedSource(SqlSource):
    """Reads all rows, as `SqlSource`, until `read_since` says which may be left unread."""

    def __init__(self, url: URL, index: IndexSettings) -> None:
        super().__init__(url, index)
        self._time = self._from.c[str(index.changed_since)]
        self._overlap = dt.timedelta(seconds=index.changed_overlap)
        self._since: Any = None
        self._needed: Callable[[Sequence[str]], bool] = lambda keys: True

    def use_scan_state(self, state: ScanState) -> None:
        """As `Source.follow`."""
        watermark = self.watermark()  # before the first page: what is changed later is above it
        if watermark is None:
            return
        state.set_watermark(watermark)
        if state.watermark is not None:
            self.read_since(state.watermark, state.must_read)

    def watermark(self) -> str | None:
        """What to give `read_since` at the next scan, if that which begins now comes to its end; None: read all.

        Raises SourceUnavailable, SourceError, and SettingsError where the column holds no times.
        """
        with self._connect() as connection:
            sample = connection.scalar(sa.select(self._time).where(self._time.is_not(None)).limit(1))
            if sample is None:
                return None
            latest = connection.scalar(
                sa.select(sa.func.max(self._time)).where(self._time <= _bound(self._limit(sample, connection)))
            )
        return None if latest is None else _encoded(_earlier(latest, self._overlap))

    def read_since(self, watermark: str, needed: Callable[[Sequence[str]], bool]) -> None:
        """Leave rows older than `watermark` unread from now on, except on pages where `needed(keys)` is true."""
        self._since = _decoded(watermark)
        self._needed = needed

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """As `Source.page`; keys that were left unread are in `unread`."""
        if self._since is None:
            return super().page(cursor, rows)
        width = len(self._keys)
        changed = sa.case((sa.or_(self._time.is_(None), self._time >= _bound(self._since)), 1), else_=0)
        statement = self._in_order(sa.select(*self._keys, changed), cursor).limit(rows + 1)
        with self._connect() as connection:
            found = [tuple(row) for row in connection.execute(statement)]
            following = found[rows][:width] if len(found) > rows else None
            found = found[:rows]
            last = found[-1][:width] if found else None
            if following is not None and last is not None and (last == following or self._several(connection, last)):
                raise not_unique(self._index, encode_key(last))
            keys = {encode_key(row[:width]): bool(row[width]) for row in found}
            if len(keys) < len(found):
                names = [encode_key(row[:width]) for row in found]
                raise not_unique(self._index, next(key for i, key in enumerate(names) if key in names[:i]))
            whole = self._needed([key for key, new in keys.items() if not new])
            read = self._changed(connection, keys, whole, cursor, last if following is not None else None)
        documents = {*read.documents.keys, *(failure.key for failure in read.unreadable)}
        unread = [] if whole else [key for key, new in keys.items() if not new and key not in documents]
        return replace(read, cursor=last if following is not None else None, unread=unread)

    def _changed(self, connection: Connection, keys: dict[str, bool], whole: bool, first: Any, last: Any) -> SourcePage:
        """The rows of a page that have to be read: from after `first` to `last`, without end where that is None."""
        if not whole and not any(keys.values()):
            return self._read([], None)
        statement = self._in_order(self._select(), first)
        if last is not None:
            statement = statement.where(sa.not_(self._after(last)))
        if not whole:
            statement = statement.where(sa.or_(self._time.is_(None), self._time >= _bound(self._since)))
        return self._read(self._fetch(connection, statement), None)

    def _in_order(self, statement: Select[Any], cursor: Any) -> Select[Any]:
        statement = statement.where(*self._have_keys()).order_by(*self._order)
        return statement if cursor is None else statement.where(self._after(cursor))

    def _limit(self, sample: Any, connection: Connection) -> Any:
        """What times may be taken for true: those up to the database's clock, in the kind of value that they are."""
        mysql = self._url.get_backend_name() in ("mysql", "mariadb")
        now: Any = connection.scalar(sa.select(sa.func.utc_timestamp() if mysql else sa.func.current_timestamp()))
        now = dt.datetime.fromisoformat(now) if isinstance(now, str) else now
        utc = now.replace(tzinfo=dt.UTC) if now.tzinfo is None else now.astimezone(dt.UTC)
        if isinstance(sample, dt.datetime):
            return utc if sample.tzinfo is not None else utc.replace(tzinfo=None) - ANY_ZONE
        if isinstance(sample, dt.date):
            return utc.date() - DAY
        if isinstance(sample, str):
            _day(sample, self._index)
            return (utc.date() - DAY).isoformat()
        raise SettingsError(
            f"index {self._index.name}: changed_since {self._index.changed_since!r} holds {type(sample).__name__} "
            f"({sample!r:.40}), not times; name a column of dates or timestamps, or leave changed_since out"
        )


def _day(text: str, index: IndexSettings) -> dt.date:
    try:
        return dt.date.fromisoformat(text[:10])
    except ValueError:
        raise SettingsError(
            f"index {index.name}: changed_since {index.changed_since!r} holds {text!r:.40}, which does not begin with "
            "a date as 2026-01-31; name another column, or leave changed_since out"
        ) from None


def _earlier(latest: Any, overlap: dt.timedelta) -> Any:
    if isinstance(latest, dt.datetime):
        return latest - overlap
    if isinstance(latest, str):
        return (dt.date.fromisoformat(latest[:10]) - overlap - DAY).isoformat()
    return latest - overlap - DAY


def _encoded(value: Any) -> str:
    kind = "time" if isinstance(value, dt.datetime) else "date" if isinstance(value, dt.date) else "text"
    return json.dumps({kind: value if kind == "text" else value.isoformat()})


def _decoded(watermark: str) -> Any:
    ((kind, value),) = json.loads(watermark).items()
    if kind == "text":
        return value
    return dt.datetime.fromisoformat(value) if kind == "time" else dt.date.fromisoformat(value)


def _bound(value: Any) -> sa.ColumnElement[Any]:
    """Without a type, so that the database takes the column's."""
    return sa.literal(value, NullType())
