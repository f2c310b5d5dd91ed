"""A table or a query of any database that SQLAlchemy supports, read-only and in keyset pages.
Keyset paging is `WHERE key > :last ORDER BY key LIMIT n` (Markus Winand, "We need tool support for
keyset pagination"). If that would sort everything again for each page (a query on a server), all
rows are copied into a file first."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
import sys
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import sqlalchemy as sa
from attrs import evolve

from rag_index.components.sources import engine, pages
from rag_index.components.sources.attachments import start_of
from rag_index.components.sources.decisions import (
    check_decisions,
    decided,
    undecided_keys,
    undecided_values,
)
from rag_index.components.sources.pages import SourcePage
from rag_index.components.sources.part_reader import AccessReader, PartsReader
from rag_index.components.sources.policies import RowPolicies, read_policies
from rag_index.components.sources.row_file import RowFile
from rag_index.components.sources.source_tables import (
    CHECKED_ROWS,
    batches,
    check_columns,
    documents_from,
    equals_any,
    exact_text,
    first_rows,
    not_unique,
    relations_read,
    single_select,
    untyped,
)
from rag_index.components.sources.undecoded import DRIVERS, Undecoded, readable
from rag_index.core.database import redacted_url
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.keys import document_id, encode_key, key_parts, values_of
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.recovery import asking
from rag_index.core.settings.parts import TEXT_FORMATS, file_columns
from rag_index.errors import InvalidText, SettingsError, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.selectable import Select

    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.reports.outcome import UndecidedValue
    from rag_index.core.settings import IndexSettings

T = TypeVar("T")
USUAL_SECONDS = 10.0
"""Seconds after which the progress says that the database does not answer."""
_BEYOND_PYTHON = re.compile(
    r"-?infinity|(?:\d{5,}|0000)-\d\d-\d\d[\d :.+-]*|\d{4,}-\d\d-\d\d[\d :.+-]* BC"
)
"""A date or a time that Python cannot hold, as drivers give it: as a text."""
INT64 = 2**63
KEYS_AT_ONCE = 1000


@shows_sizes("rows", "size")
class Cursor(NamedTuple):
    """Where a page begins: after the row with this key. So many rows were read until there, the
    last ones as a page."""

    key: tuple[Any, ...]
    rows: int = 0
    size: int = 0


class SqlSource:
    """The table or the query of an index, as a `Source`."""

    def __init__(
        self,
        url: URL,
        index: IndexSettings,
        *,
        timeout: float,
        folder: Path | None = None,
        first: int | None = None,
    ) -> None:
        """`folder` is for the rows of a query. A caller that reads no more than the `first` rows
        says so."""
        self._declared, self._folder, self._first = index, folder, first
        self._url = url
        self._timeout = timeout
        self._name = f"source {redacted_url(url)}"
        self._engine = self._new_engine()
        self._index = index = decided(index, self._engine.dialect)
        self._any_text: Engine | None = None
        """The engine in use where a text is not valid in its charset (`_reading_any_text`)."""
        self._reader = pages.RowReader(index)
        self._access = None if index.access is None else AccessReader(index)
        self._parts = PartsReader(index, self._reader.positions, self._reader.files)
        self._fetch_rows = 1 if index.has_files else pages.FETCH_ROWS
        self._fitting = sys.maxsize
        """The documents whose parts are expected to fit into a page."""
        self._from = documents_from(index)
        self._keys: list[sa.ColumnElement[Any]] = [self._from.c[name] for name in index.key_columns]
        self._key_types: list[set[type]] = []
        """The types of values that the first rows have in each key column; empty until a row was
        seen."""
        self._copy_has_any_text = False
        """Whether the rows of the copy were read by `_any_text`."""
        backend = url.get_backend_name()
        self._copies = index.query is not None and backend != "sqlite"
        self._row_values = backend in ("sqlite", "postgresql")
        self._exact = backend == "sqlite"
        self._order: list[sa.ColumnElement[Any]] = []
        """What rows are ordered by and compared with, key column by key column (`_learn_order`)."""
        self._counted: int | None = None
        self._scanned: Cursor | None = None
        """How far the last scan in pages came, at its end."""
        self._copy: RowFile | None = None

    def _new_engine(self, *, any_text: bool = False) -> Engine:
        return engine.open_read_only(self._url, any_text=any_text)

    def check(self) -> None:
        if self._reader.files:
            self._reader.files.check()
        nulls = self._with_any_text(self._check)
        if nulls:
            raise SourceError(
                f"index {self._index.name}: {nulls} row{'s have' if nulls > 1 else ' has'} NULL in"
                f" the key ({', '.join(self._index.key_columns)}); name another key, or exclude"
                " them with a query"
            )

    def _check(self) -> int:
        """Check what the settings name, and return how many rows have no key."""
        index = self._index
        with self._connect() as connection:
            check_decisions(connection, self._declared)
            check_columns(connection, index)
            if index.joins or index.parts or index.where is not None or index.newest is not None:
                _, rows = first_rows(
                    connection, index, self._select(), "the query of its documents"
                )
                self._parts.check(connection, index, rows)
            self._learn_order(connection)
            nulls = self._count_without_key(connection)
            if self._access is not None:
                self._access.check(connection, next(iter(self._first_keys(connection)), None))
        return nulls

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: everything is read each time."""

    def count(self) -> int:
        with self._connect() as connection:
            self._counted = pages.count_rows(connection, self._select())
        return self._counted

    def count_parts(self) -> dict[str, int]:
        """Return how many rows each table of parts has now, by the name of the part. Raises as
        `page`.

        Rows that are hidden because nobody decided on them count: the source has them.
        """
        if not self._parts.tables:
            return {}
        there = decided(self._declared, self._engine.dialect, undecided=True)
        tables = PartsReader(there, self._reader.positions).tables
        with self._connect(patience=self._timeout) as connection:
            return {table.label: pages.count_rows(connection, table.select()) for table in tables}

    def undecided_values(self) -> list[UndecidedValue]:
        """Return the values that nobody decided on, with their rows. Raises as `page`."""
        if not self._declared.visible:
            return []

        def read() -> list[UndecidedValue]:
            with self._connect(patience=self._timeout) as connection:
                return undecided_values(connection, self._declared)

        return self._with_any_text(read)

    def undecided_keys(self) -> Iterator[list[str]]:
        """Yield the typed keys of the documents that are hidden because of such a value alone.
        Raises as `page`."""
        with self._connect(patience=self._timeout) as connection:
            statement = undecided_keys(self._declared, connection.dialect)
            result = connection.execute(statement, execution_options=pages.STREAMED)
            for rows in result.partitions(KEYS_AT_ONCE):
                yield [encode_key(tuple(row)) for row in rows]

    def sample(self, rows: int) -> Iterator[tuple[str, str, Sequence[Any]]]:
        """Yield the columns of titles, texts and parts that no file is in: name, format, and values
        of the first rows. Raises as `page`."""
        yield from self._with_any_text(partial(self._sample, rows))

    def _sample(self, rows: int) -> list[tuple[str, str, Sequence[Any]]]:
        index = self._index
        samples: list[tuple[str, str, Sequence[Any]]] = []
        tables = [("", self._select(), [*index.title_columns, *index.text_columns], index.format)]
        tables += [
            (f"{one.label}.", one.select(), one.composer.columns, one.format)
            for one in self._parts.tables
        ]
        with self._connect() as connection:
            for before, statement, columns, formats in tables:
                read, found = first_rows(
                    connection, index, statement, "what plan looks at", limit=rows
                )
                for name in dict.fromkeys(columns):
                    form = formats.get(name, "plain")
                    if name in read and form in TEXT_FORMATS:
                        values = [readable(row[read.index(name)]) for row in found]
                        samples.append((f"{before}{name}", form, values))
        return samples

    def row_policies(self) -> RowPolicies:
        """Return the row level security of all tables that the index reads. Raises as `page`."""
        if self._url.get_backend_name() != "postgresql":  # no other database has any
            return RowPolicies()
        with self._connect() as connection:
            return read_policies(
                connection, relations_read(self._declared.model_dump(by_alias=True), doubtful=True)
            )

    def page(self, cursor: Any, rows: int) -> SourcePage:
        rows = min(rows, self._fitting)
        if self._copies:
            return self._page_of_copy(cursor, rows)
        begins_undecoded = cursor is not None and any(
            isinstance(value, Undecoded) for value in cursor.key
        )
        return self._with_any_text(partial(self._page, cursor, rows), at_once=begins_undecoded)

    def _page(self, cursor: Cursor | None, rows: int) -> SourcePage:
        with self._connect() as connection:
            statement = self._in_order(connection, self._select_scanned(), cursor).limit(rows + 1)
            found, following = self._fetch(connection, statement, rows)
            parts = self._read_parts(connection, found, pages.PAGE_CHARS)
            if len(parts) < len(found):
                found, following = found[: len(parts)], found[len(parts)]
            end = self._end(connection, cursor, found, following)
        return self._read_scanned(found, end, parts)

    def documents(self, ids: Sequence[str]) -> SourcePage:
        page = self._with_any_text(partial(self._documents, ids))
        found = {
            document_id(key)
            for key in (*page.documents.keys, *(failure.key for failure in page.unreadable))
        }
        invalid = self._with_invalid_keys([given for given in ids if given not in found])
        unreadable, groups = (
            [*page.unreadable, *invalid.unreadable],
            {**page.groups, **invalid.groups},
        )
        return evolve(page, unreadable=unreadable, groups=groups)

    def _documents(self, ids: Sequence[str], *, invalid: bool = False) -> SourcePage:
        with self._connect() as connection:
            found = self._find(connection, ids, invalid=invalid)
            return self._read(found, None, self._read_parts(connection, found))

    def _with_invalid_keys(self, ids: Iterable[str]) -> SourcePage:
        """Return the documents with these ids that show the bytes of a key. Such a document has
        failed."""
        columns = self._index.key_columns
        shown = [
            given
            for given in ids
            if any(_undecoded_of(part) is not None for part in key_parts(given, columns))
        ]
        # a database in UTF-8 has no such keys, and refuses to look for one
        with suppress(SourceError), self._reading_any_text():
            if shown:
                return self._documents(shown, invalid=True)
        return SourcePage(DocumentBatch.empty(), None)

    def has(self, given: str) -> bool:
        """Return whether there is a row with this id, or are several. Raises as `page`."""

        def read() -> bool:
            with self._connect() as connection:
                return bool(self._find(connection, [given]))

        return self._with_any_text(read) or bool(self._with_invalid_keys([given]).unreadable)

    def whole_row(self, given: str) -> dict[str, Any]:
        """Return all columns of the row with this id, also those that the index does not have.
        Raises as `page`."""
        index = self._index
        names: list[sa.ColumnClause[Any]] = [sa.column(name) for name in index.key_columns]
        if index.query is not None:
            rows: Any = single_select(index.query, index.name).columns(*names).subquery("whole")
        else:
            rows = sa.table(str(index.table), *names, schema=index.db_schema)
        every: Any = sa.select(sa.literal_column("*")).select_from(rows)

        def read() -> dict[str, Any]:
            with self._connect() as connection:
                values = self._key_values(
                    connection, [key_parts(given, index.key_columns)], invalid=False
                )
                same = equals_any(
                    [rows.c[name] for name in index.key_columns], values, connection.dialect.name
                )
                row: Any = next(iter(connection.execute(every.where(same)).mappings()), {})
                return {name: readable(value) for name, value in row.items()}

        return self._with_any_text(read)

    def close(self) -> None:
        self._remove_copy()
        if self._reader.files:
            self._reader.files.close()
        self._engine.dispose()

    def _select(self) -> Select[Any]:
        names = [*pages.read_columns(self._index), *filter(None, [self._index.access_column])]
        files = file_columns(self._index.format)
        columns = [
            start_of(self._from.c[name]) if name in files else self._from.c[name] for name in names
        ]
        return sa.select(*self._keys, *columns).where(*self._keys_not_null())

    def _select_scanned(self) -> Select[Any]:
        """Return the rows that a scan reads."""
        return self._select()

    def _keys_not_null(self) -> list[sa.ColumnElement[bool]]:
        return [key.is_not(None) for key in self._keys]

    def _learn_order(self, connection: Connection) -> None:
        """Choose the expressions by which rows are ordered and compared. Raises SettingsError for a
        FLOAT of MySQL. SQLite's "a" and "A" may be one key for the column's own collation. MySQL
        orders an ENUM or a SET by numbers and compares it as text, and writes a FLOAT with six
        digits."""
        if self._order:
            return
        if self._exact:
            self._order = [sa.collate(key, "BINARY") for key in self._keys]
            return
        kinds = engine.column_kinds(connection, sa.select(*self._keys)) or [""] * len(self._keys)
        if "float" in kinds:
            name = self._index.key_columns[kinds.index("float")]
            raise SettingsError(
                f"index {self._index.name}: key column {name!r} is a FLOAT; the database shows six"
                " of its digits and finds no value again; cast it to DOUBLE in a query, or name"
                " another key"
            )
        self._order = [
            exact_text(key) if kind == "enum" else key
            for key, kind in zip(self._keys, kinds, strict=True)
        ]

    def _in_order(
        self, connection: Connection, statement: Select[Any], cursor: Cursor | None
    ) -> Select[Any]:
        self._learn_order(connection)
        statement = statement.order_by(*self._order)
        return statement if cursor is None else statement.where(self._after(cursor.key))

    def _after(self, key: Sequence[Any]) -> sa.ColumnElement[bool]:
        values = [untyped(value) for value in key]
        if len(values) == 1:
            return self._order[0] > values[0]
        if self._row_values:
            return sa.tuple_(*self._order) > sa.tuple_(*values)
        condition = self._order[-1] > values[-1]
        for column, value in reversed(list(zip(self._order[:-1], values[:-1], strict=True))):
            condition = sa.and_(
                column >= value, sa.or_(column > value, condition)
            )  # the first can use an index
        return condition

    def _end(
        self,
        connection: Connection,
        cursor: Cursor | None,
        rows: Sequence[Row],
        following: Row | None,
    ) -> Cursor | None:
        """Return the cursor of the page after these rows of the page at `cursor`; None without a
        row that follows. Raises SourceError if several rows have the last key, for the database
        perhaps ("a" and "A") and not for Python, and if rows were lost between pages."""
        read = len(rows) + (cursor.rows if cursor is not None else 0)
        if following is None:
            self._scanned = Cursor((), read, max(1, len(rows)) if cursor is None else cursor.size)
            if cursor is not None and read != self._counted:
                for _ in self.keys_now():
                    pass
            return None
        width = len(self._keys)
        last = tuple(rows[-1][:width])
        shared = last == tuple(following[:width])
        if not shared and not self._exact and any(isinstance(value, str) for value in last):
            same = [key == untyped(value) for key, value in zip(self._keys, last, strict=True)]
            count = connection.scalar(
                sa.select(sa.func.count()).select_from(self._from).where(*same)
            )
            shared = int(count or 0) > 1  # 0 if it was deleted meanwhile
        if shared:
            raise not_unique(self._index, encode_key(last))
        return Cursor(last, read, len(rows))

    def _count_without_key(self, connection: Connection) -> int:
        """Return how many rows have NULL in the key. For MySQL, `IS NULL` is true of the date
        0000-00-00, too."""
        rows = sa.select(sa.func.count()).select_from(self._from)
        nulls = int(
            connection.scalar(rows.where(sa.or_(*[key.is_(None) for key in self._keys]))) or 0
        )
        if nulls and connection.dialect.name in ("mysql", "mariadb"):
            known = sa.case((sa.and_(*self._keys_not_null()), 1))
            counts = sa.select(sa.func.count(), sa.func.count(known)).select_from(self._from)
            every, with_key = connection.execute(counts).one()
            return int(every - with_key)
        return nulls

    def keys_now(self) -> Iterator[list[str]]:
        """Yield all typed keys, page by page in one snapshot, if the last scan read more or fewer
        rows than there are. No document of these may be deleted because the scan did not see it.
        Raises SourceError if keys are missing that no writer explains, and as `page`."""
        with suppress(InvalidText):
            yield from self._keys_now()
            return
        with self._reading_any_text():  # some keys are yielded a second time
            yield from self._keys_now()

    def _keys_now(self) -> Iterator[list[str]]:
        if self._scanned is None:
            return
        with self._connect(patience=self._timeout, snapshot=True) as connection:
            there, read = pages.count_rows(connection, self._select_scanned()), 0
            if there == self._scanned.rows:
                return
            keys = self._select_scanned().with_only_columns(*self._keys, maintain_column_froms=True)
            statement = self._in_order(connection, keys, None).limit(self._scanned.size)
            while found := connection.execute(statement).fetchall():
                yield list(map(encode_key, found))
                read += len(found)
                statement = self._in_order(connection, keys, Cursor(tuple(found[-1]))).limit(
                    self._scanned.size
                )
        if read != there:
            raise SourceError(
                f"index {self._index.name}: {there:,} rows are there, and {read:,} are found by"
                f" their key ({', '.join(self._index.key_columns)}), which the database orders in"
                " another way than it compares: name another key, or cast it to text in a query"
            )

    def _first_keys(self, connection: Connection) -> Sequence[Row]:
        statement = sa.select(*self._keys).where(*self._keys_not_null()).limit(CHECKED_ROWS)
        return connection.execute(statement).fetchall()

    def _key_values(
        self, connection: Connection, wanted: Iterable[list[Any]], *, invalid: bool
    ) -> list[tuple[Any, ...]]:
        if not self._key_types:
            columns = zip(*self._first_keys(connection), strict=True)
            self._key_types = [{_type_of(value) for value in column} for column in columns]
        values: list[tuple[Any, ...]] = []
        for parts in wanted if self._key_types else ():
            kinds = zip(parts, self._key_types, strict=False)
            values += itertools.product(
                *[self._candidates(part, types, invalid=invalid) for part, types in kinds]
            )
        return values

    def _find(
        self, connection: Connection, ids: Sequence[str], *, invalid: bool = False
    ) -> list[Row]:
        """Return the rows of the documents with these ids, which show bytes of a key if they are
        `invalid`. An id does not tell the type of the key. In SQLite, where a column may hold
        several, all values are asked for that it may stand for, and elsewhere those of the type
        that the column has."""
        wanted: dict[str, list[Any]] = {}
        for given in ids:
            parts = key_parts(given, self._index.key_columns)
            wanted[given if len(parts) == 1 else document_id(encode_key(parts))] = parts
        found: list[Row] = []
        for some in batches(list(wanted.values())):
            if values := self._key_values(connection, some, invalid=invalid):
                statement = self._select().where(
                    equals_any(self._keys, values, connection.dialect.name)
                )
                found += self._fetch_all(connection, statement)
        return [row for row in found if document_id(encode_key(row[: len(self._keys)])) in wanted]

    def _candidates(self, part: Any, kinds: set[type], *, invalid: bool) -> list[Any]:
        undecoded = _undecoded_of(part) if invalid and str in kinds else None
        if undecoded is not None:
            return [undecoded]
        if self._url.get_backend_name() != "sqlite":
            is_text = (
                _BEYOND_PYTHON.fullmatch(str(part))
                if kinds & {dt.date, dt.datetime}
                else str in kinds
            )
            kinds = {*kinds, str} if is_text else kinds - {str}
            return [value for value in values_of(part) if type(value) in kinds]
        found = [value for value in values_of(part) if isinstance(value, str | int | float | bytes)]
        return [value for value in found if not isinstance(value, int) or -INT64 <= value < INT64]

    def _read(
        self, rows: Sequence[Row], cursor: Cursor | int | None, parts: Sequence[pages.DocumentParts]
    ) -> SourcePage:
        any_text = self._any_text is not None
        documents, unreadable = self._reader.read(rows, parts, any_text=any_text)
        keys = [*documents.keys, *(failure.key for failure in unreadable)]
        if len(set(keys)) < len(keys):
            raise not_unique(
                self._index, next(key for number, key in enumerate(keys) if key in keys[:number])
            )
        page = SourcePage(documents, cursor, unreadable)
        if self._access is None or not unreadable:
            return page
        groups = {
            encode_key(row[: len(self._keys)]): one.groups or ()
            for row, one in zip(rows, parts, strict=True)
        }
        return evolve(page, groups={failure.key: groups[failure.key] for failure in unreadable})

    def _read_scanned(
        self, rows: Sequence[Row], cursor: Cursor | int | None, parts: Sequence[pages.DocumentParts]
    ) -> SourcePage:
        """Return the page of rows of `_select_scanned`."""
        return self._read(rows, cursor, parts)

    def _read_parts(
        self, connection: Connection, rows: Sequence[Row], max_chars: float = math.inf
    ) -> Sequence[pages.DocumentParts]:
        """Return what is read beside the first of these rows, of as many as have parts of at most
        `max_chars`."""
        if not self._parts.tables and self._access is None:
            return [pages.NO_PARTS] * len(rows)
        any_text = self._any_text is not None
        parts = self._parts.read(connection, rows, max_chars, any_text=any_text)
        # the next page does not ask for rows whose parts would not fit
        self._fitting = (
            min(2 * self._fitting, sys.maxsize) if len(parts) == len(rows) else len(parts)
        )
        if self._access is not None:
            self._access.add(connection, rows[: len(parts)], parts)
        return parts

    def _fetch(
        self, connection: Connection, statement: Select[Any], rows: int = sys.maxsize
    ) -> tuple[list[Row], Row | None]:
        with connection.execute(statement, execution_options=pages.STREAMED) as result:
            page, following = pages.read_page(result, rows, self._fetch_rows)
        if following is None:  # also where a limit of this page would allow for more
            pages.require_all(connection, statement, len(page))
        return page, following

    def _fetch_all(self, connection: Connection, statement: Select[Any]) -> list[Row]:
        rows = pages.stream_rows(connection, statement, self._fetch_rows)
        return list(map(self._reader.keep_files, rows))

    def _page_of_copy(self, position: int | None, rows: int) -> SourcePage:
        if position is None:
            self._with_any_text(self._copy_rows)
        if self._copy is None:
            raise SourceUnavailable(
                f"index {self._index.name}: the rows of its query were not kept; run it again"
            )
        read = partial(self._read_copy, self._copy, position or 0, rows)
        return self._with_any_text(read, at_once=self._copy_has_any_text)

    def _read_copy(self, copy: RowFile, position: int, rows: int) -> SourcePage:
        found, ends = copy.page(position, rows, pages.PAGE_CHARS)
        asks = self._parts.tables or self._index.access_query is not None
        connected: AbstractContextManager[Any] = self._connect() if asks else nullcontext()
        with connected as connection:
            parts = self._read_parts(connection, found, pages.PAGE_CHARS)
        end = ends[len(parts) - 1] if parts else copy.size
        page = self._read_scanned(found[: len(parts)], end if end < copy.size else None, parts)
        if page.cursor is None:
            self._remove_copy()
        return page

    def _copy_rows(self) -> None:
        self._remove_copy()
        self._copy_has_any_text = self._any_text is not None
        self._copy = RowFile(self._folder)
        with closing(self._all_rows()) as rows:
            self._copy.write(rows, self._counted)

    def _all_rows(self) -> Generator[Row, None, None]:
        """Yield the rows of one transaction. Each answer of the database has the time of a
        query."""
        statement, read = self._select_scanned().limit(self._first), 0
        with (
            self._errors_as_ours(),
            asking(self._name, patience=USUAL_SECONDS) as call,
            (self._any_text or self._engine).connect() as connection,
        ):
            engine.begin_snapshot(connection)
            with self._limited(connection):
                engine.limit_on_server(connection, self._timeout, streams=True)
                result = connection.execute(statement, execution_options=pages.STREAMED)
            while True:
                with self._limited(connection):
                    some = result.fetchmany(self._fetch_rows)
                call.answered()
                if not some:
                    break
                read += len(some)
                yield from some
            if read not in (self._counted, self._first):
                with self._limited(connection):
                    pages.require_all(connection, statement, read)

    def _limited(self, connection: Connection) -> AbstractContextManager[None]:
        return engine.limited(connection, self._timeout, self._name)

    def _remove_copy(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._copy = None

    @contextmanager
    def _connect(
        self, *, patience: float = USUAL_SECONDS, snapshot: bool = False
    ) -> Iterator[Connection]:
        """Yield a connection, whose statements all see one state if asked so, and raise its errors
        as ours."""
        used = self._any_text or self._engine
        with (
            self._errors_as_ours(),
            asking(self._name, patience=patience),
            used.connect() as connection,
        ):
            if snapshot or connection.dialect.name != "sqlite":
                engine.begin_snapshot(connection)
            with self._limited(connection):
                engine.limit_on_server(connection, self._timeout, streams=False)
                yield connection

    def _with_any_text(self, read: Callable[[], T], *, at_once: bool = False) -> T:
        """Return what `read` returns: once more without conversion, or `at_once`, if a text is not
        valid."""
        if not at_once:
            with suppress(InvalidText):
                return read()
        with self._reading_any_text():
            return read()

    @contextmanager
    def _reading_any_text(self) -> Iterator[None]:
        """Read without conversion within the block, where a text that is not valid in its charset
        is an `Undecoded`."""
        if self._any_text is not None or self._engine.dialect.driver not in DRIVERS:
            yield
            return
        self._engine.dispose()  # a user may have the right to one connection
        self._any_text = self._new_engine(any_text=True)
        try:
            yield
        finally:
            self._any_text.dispose()
            self._any_text = None

    def _errors_as_ours(self) -> AbstractContextManager[None]:
        return engine.errors_as_ours(self._url, f"index {self._index.name}")


def _type_of(value: Any) -> type:
    return str if isinstance(value, Undecoded) else type(value)


def _undecoded_of(part: Any) -> Undecoded | None:
    """Return the text whose bytes this part of a document id shows, such as "4bf66c6e"; None if it
    may show none."""
    try:
        raw = bytes.fromhex(part) if isinstance(part, str) else b""
    except ValueError:
        return None
    is_shown = raw.hex() == part and not raw.isascii()
    return Undecoded(raw) if is_shown else None


def policy_digest(source: object) -> str:
    """Return the digest of the policies by which the database shows rows of a source; "" if it
    shows all."""
    return source.row_policies().digest if isinstance(source, SqlSource) else ""
