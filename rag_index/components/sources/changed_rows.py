"""A SQL source with a column of modification times: on most pages, only the changed rows are read in full.

Each page is read in two steps: first the keys, each with a flag that says whether its row changed since a time, and
then the rows that have to be read. A page is read in full if it has a key that the ledger does not know or that has to
be tried again. So a row that is inserted with an old time is found, too. The only change that is missed is one of a
known row whose time does not rise above `since`.

`since` is computed from the rows themselves at the start of a scan. It is the latest time that is not later than the
database's own clock, since a row dated 2099 would hide all changes until then. `OVERLAP` is subtracted for rows
that are committed later than they are dated. Times without a zone may be in any zone, so half a day more is subtracted.
Times that are text (SQLite) are compared as text, and by the day, and numbers as seconds, milliseconds and so on since
1970. The watermark also has a hash of the newest row's key: if that row is older at the next scan, or gone, the source
may have been put back to an older copy, and everything is read.

Who may see a document can change without any time: the groups of all rows are read each time, and a page with a row
whose groups are not those of its committed state (a stamp in the ledger) is read in full.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import evolve

from rag_index.components.sources.pages import stream_rows
from rag_index.components.sources.source_tables import untyped
from rag_index.components.sources.sql import SqlSource
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.groups import access_stamp, groups_in
from rag_index.core.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.components.sources import SourcePage
    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings

ANY_ZONE = dt.timedelta(hours=12)
ONE_DAY = dt.timedelta(days=1)
EPOCH_UNITS = (1, 10**3, 10**6, 10**9)
"""Numbers count seconds, milliseconds, microseconds or nanoseconds since 1970."""


OVERLAP = dt.timedelta(hours=1)
"""How much later than its own time a change may be committed."""


class ChangedSource(SqlSource):
    """A `SqlSource` that reads all rows, unless a scan state says which may stay unread."""

    def __init__(self, url: URL, index: IndexSettings, **how: Any) -> None:
        super().__init__(url, index, **how)
        self._time = self._from.c[str(index.changed_since)]
        self._unit: int | None = None
        """How many units of the column are a second, if it has numbers."""
        self.now = dt.datetime.fromtimestamp(0, dt.UTC)
        """The database's clock, when a watermark was last asked for."""
        self._state: ScanState | None = None
        """The state of the last scan, if rows that are older than its watermark may stay unread."""

    def use_scan_state(self, state: ScanState) -> None:
        """Set the watermark of the next scan, and leave rows unread that are older than that of the last one. Pages for
        which `must_read(keys)` of the state is true are read in full; with `access`, so are pages with a row whose key
        `unchanged(stamps)` does not have: its groups have changed."""
        watermark = self.watermark()  # before the first page, so that later changes are above it
        if watermark is None:
            return
        state.set_watermark(watermark)
        index = self._index  # the time of a row tells nothing of rows of other tables, nor of older versions
        if state.watermark is None or index.parts or index.joins or index.newest or self._was_put_back(state.watermark):
            return
        self._state = state

    def watermark(self) -> str | None:
        """Return the watermark for the scan after the one that begins now; None if that must read all. It names the
        newest row, too. Raises SourceUnavailable, SourceError, and SettingsError if the column does not hold times."""
        with self._connect() as connection:
            sample = connection.scalar(sa.select(self._time).where(self._time.is_not(None)).limit(1))
            if isinstance(sample, int | float | decimal.Decimal):
                sample = connection.scalar(sa.select(sa.func.max(self._time)))
            if sample is None:
                return None
            credible, possible = self._latest_times(sample, connection)
            latest = connection.scalar(sa.select(sa.func.max(self._time)).where(self._time <= untyped(credible)))
            if latest is None:
                return None
            newest = sa.select(*self._keys, self._time).where(*self._keys_not_null(), self._time <= untyped(possible))
            row = connection.execute(newest.order_by(self._time.desc()).limit(1)).first()
        watermark = _encode_time(_earlier(latest, OVERLAP * (self._unit or 1)))
        if row is not None:
            watermark |= {"newest": [hash_text(encode_key(row[:-1])).hex(), _encode_time(row[-1])]}
        return json.dumps(watermark)

    def _was_put_back(self, watermark: str) -> bool:
        """Return whether the newest row of a watermark is older now, or gone: the source may be an older copy."""
        newest, time = json.loads(watermark).get("newest", ("", None))
        try:
            rows = self.changed_keys(json.dumps(time))
            return bool(newest) and all(hash_text(key).hex() != newest for key, _ in rows)
        except SourceError:  # the column has another type
            return True

    def changed_keys(self, watermark: str | None) -> Iterator[tuple[str, Any]]:
        """Yield typed key and time of each row that changed since a watermark, if there is one. Rows without a time are
        left out. The others are fetched as they are consumed. Raises SourceUnavailable or SourceError."""
        statement = sa.select(*self._keys, self._time).where(*self._keys_not_null(), self._time.is_not(None))
        if watermark is not None:
            statement = statement.where(self._time >= untyped(_decode_time(watermark)))
        with self._connect() as connection:
            for row in stream_rows(connection, statement):
                time = row[-1]
                if (unit := _unit(time)) is not None:
                    time = dt.datetime.fromtimestamp(float(time) / unit, dt.UTC)
                yield encode_key(row[:-1]), time

    def documents(self, ids: Sequence[str]) -> SourcePage:
        return self._with_stamps(super().documents(ids))

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows; the keys of those that stay unread are in `unread`."""
        page = None if self._state is None else self._page_of_changed(self._state, cursor, rows)
        return self._with_stamps(page if page is not None else super().page(cursor, rows))

    def _page_of_changed(self, state: ScanState, cursor: Any, rows: int) -> SourcePage | None:
        since = _decode_time(str(state.watermark))
        has_changed = sa.or_(self._time.is_(None), self._time >= untyped(since))
        flag, width = sa.case((has_changed, 1), else_=0), len(self._keys)
        with self._connect() as connection:
            statement = self._in_order(connection, self._select_keys(flag), cursor).limit(rows + 1)
            found, following = self._fetch(connection, statement, rows)
            end = self._end(connection, cursor, found, following)
            keys = self._unique([encode_key(row[:width]) for row in found])
            unchanged = [key for key, row in zip(keys, found, strict=True) if not row[width]]
            if state.must_read(unchanged):
                return None
            stamps = self._stamps(connection, [row for row in found if not row[width]])
            if not stamps.keys() <= state.unchanged(stamps):
                return None
            statement = self._in_order(connection, self._select(), cursor).where(has_changed)
            if end is not None:
                statement = statement.where(sa.not_(self._after(end.key)))
            changed, too_long = self._fetch(connection, statement) if len(unchanged) < len(keys) else ([], None)
            parts = self._read_parts(connection, changed)
        if too_long is not None:  # too many characters for one page
            return self._page_of_changed(state, cursor, len(changed))
        page = self._read(changed, end, parts)
        read = {*page.documents.keys, *(failure.key for failure in page.unreadable)}
        return evolve(page, unread=[key for key in unchanged if key not in read])

    def _select_keys(self, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
        access = [self._from.c[name] for name in filter(None, [self._index.access_column])]
        return sa.select(*self._keys, *more, *access).where(*self._keys_not_null())

    def _stamps(self, connection: Connection, rows: Sequence[Row]) -> dict[str, str]:
        """Return the stamps of the groups of rows by key; none without `access`."""
        groups = self._groups(connection, rows) or ()
        return {encode_key(row[: len(self._keys)]): access_stamp(some) for row, some in zip(rows, groups, strict=False)}

    def _with_stamps(self, page: SourcePage) -> SourcePage:
        """Return the page with stamps of its documents' groups, so that a change of these is found without a time."""
        if self._index.access is None:
            return page
        pairs = zip(page.documents.keys, map(groups_in, page.documents.payloads), strict=True)
        return evolve(page, stamps={key: access_stamp(groups or ()) for key, groups in pairs})

    def _latest_times(self, sample: Any, connection: Connection) -> tuple[Any, Any]:
        """Return the latest time that is certainly over, and the latest that may be, as the type of `sample`. `sample`
        is a value of the column. The clock is the database's."""
        mysql = self._url.get_backend_name() in ("mysql", "mariadb")
        now: Any = connection.scalar(sa.select(sa.func.utc_timestamp() if mysql else sa.func.current_timestamp()))
        now = dt.datetime.fromisoformat(now) if isinstance(now, str) else now
        self.now = utc = now.replace(tzinfo=dt.UTC) if now.tzinfo is None else now.astimezone(dt.UTC)
        plain, days = utc.replace(tzinfo=None), (utc.date() - ONE_DAY, utc.date() + ONE_DAY)
        if isinstance(sample, dt.datetime):
            return (utc, utc) if sample.tzinfo is not None else (plain - ANY_ZONE, plain + ANY_ZONE)
        if isinstance(sample, dt.date):
            return days
        if isinstance(sample, str):
            with suppress(ValueError):
                dt.date.fromisoformat(sample[:10])
                return days[0].isoformat(), days[1].isoformat()
        self._unit = _unit(sample)
        if self._unit is not None:
            return (int(utc.timestamp() * self._unit),) * 2
        raise SettingsError(
            f"index {self._index.name}: changed_since {self._index.changed_since!r} holds {type(sample).__name__} "
            f"({sample!r:.40}), not times; name a column of dates, timestamps or seconds since 1970, or of texts that "
            "begin with a date such as 2026-01-31, or leave changed_since out"
        )


def _unit(sample: Any) -> int | None:
    """Return how many of its units a number of the years 1973 to 5138 since 1970 has in a second; None for no such."""
    if isinstance(sample, bool) or not isinstance(sample, int | float | decimal.Decimal):
        return None
    return next((unit for unit in EPOCH_UNITS if 10**8 <= sample / unit < 10**11), None)


def _earlier(latest: Any, overlap: dt.timedelta) -> Any:
    """Return an earlier time of the same type. A text is compared by the day."""
    if isinstance(latest, dt.datetime):
        return latest - overlap
    if isinstance(latest, str):
        return (dt.date.fromisoformat(latest[:10]) - overlap - ONE_DAY).isoformat()
    if isinstance(latest, dt.date):
        return latest - overlap - ONE_DAY
    return math.floor(latest) - math.ceil(overlap.total_seconds())


def _encode_time(value: Any) -> dict[str, Any]:
    if isinstance(value, dt.date):
        return {"time" if isinstance(value, dt.datetime) else "date": value.isoformat()}
    return {"text": value} if isinstance(value, str) else {"number": math.floor(value)}


def _decode_time(watermark: str) -> Any:
    kind, value = next(iter(json.loads(watermark).items()))
    if kind in ("text", "number"):
        return value
    return dt.datetime.fromisoformat(value) if kind == "time" else dt.date.fromisoformat(value)
