"""A table or a query of any database that SQLAlchemy supports, read-only and in keyset pages.

Keyset paging is `WHERE key > :last ORDER BY key LIMIT n` (Markus Winand, "We need tool support for
keyset pagination"). For a query on a server, that would sort all rows again for each page. So all
its rows are copied into a file first.
"""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
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
from rag_index.components.sources.key_candidates import KeyCandidates, undecoded_of
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
from rag_index.core.documents.keys import document_id, encode_key, key_parts
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.recovery import asking
from rag_index.core.settings.parts import TEXT_FORMATS, file_columns
from rag_index.errors import InvalidText, SettingsError, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.selectable import Select

    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.reports.outcome import UndecidedValue
    from rag_index.core.settings import IndexSettings

T = TypeVar("T")
USUAL_SECONDS = 10.0
"""Seconds after which the progress reports that the database does not answer. Chosen; nothing depends
on it."""
KEYS_AT_ONCE = 1000
"""Undecided keys that are fetched and yielded at a time. Chosen; nothing depends on it."""


@shows_sizes("rows", "size")
class Cursor(NamedTuple):
    """Where a page begins: after the row with this key."""

    key: tuple[Any, ...]
    rows: int = 0
    """How many rows were read up to this one."""
    size: int = 0
    """How many of them the last page had."""


@dataclass(frozen=True, slots=True)
class ColumnSample:
    """Values of a column from the first rows."""

    name: str
    """The column, such as "body"; that of a part with its name: "remark.body"."""
    format: str
    values: Sequence[Any]


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
        """Open no connection yet.

        Args:
            timeout: Seconds after which a statement is ended.
            folder: Where the file with the rows of a query is made.
            first: How many rows the caller reads at most; None for all.
        """
        self._declared = index
        self._folder = folder
        self._first = first
        self._url = url
        self._timeout = timeout
        self._name = f"source {redacted_url(url)}"
        self._engine = self._new_engine()
        self._index = index = decided(index, self._engine.dialect)
        self._any_text: Engine | None = None
        """The engine in use while texts are read without conversion (`_reading_any_text`)."""
        self._reader = pages.RowReader(index)
        self._access = None if index.access is None else AccessReader(index)
        self._parts = PartsReader(index, self._reader.positions, self._reader.files)
        self._fetch_rows = 1 if index.has_files else pages.FETCH_ROWS
        self._fitting = sys.maxsize
        """The documents whose parts are expected to fit into a page."""
        self._from = documents_from(index)
        self._keys: list[sa.ColumnElement[Any]] = [self._from.c[name] for name in index.key_columns]
        self._copy_has_any_text = False
        """Whether the rows of the copy were read by `_any_text`."""
        backend = url.get_backend_name()
        self._key_candidates = KeyCandidates(backend)
        self._copies = index.query is not None and backend != "sqlite"
        self._row_values = backend in ("sqlite", "postgresql")
        self._exact = backend == "sqlite"
        self._order: list[sa.ColumnElement[Any]] = []
        """The expressions of the key columns by which rows are ordered and compared
        (`_learn_order`)."""
        self._counted: int | None = None
        self._scanned: Cursor | None = None
        """The end of the last scan in pages, if it got there."""
        self._copy: RowFile | None = None

    def _new_engine(self, *, any_text: bool = False) -> Engine:
        return engine.open_read_only(self._url, any_text=any_text)

    def check(self) -> None:
        if self._reader.files:
            self._reader.files.check()
        nulls = self._with_any_text(self._check)
        if nulls:
            have = "s have" if nulls > 1 else " has"
            keys = ", ".join(self._index.key_columns)
            raise SourceError(
                f"index {self._index.name}: {nulls} row{have} NULL in the key ({keys}); name"
                " another key, or exclude them with a query"
            )

    def _check(self) -> int:
        """Check what the settings name. Return the number of rows without a key."""
        index = self._index
        has_conditions = index.where is not None or index.newest is not None
        with self._connect() as connection:
            check_decisions(connection, self._declared)
            check_columns(connection, index)
            if index.joins or index.parts or has_conditions:
                what = "the query of its documents"
                _, rows = first_rows(connection, index, self._select(), what)
                self._parts.check(connection, index, rows)
            self._learn_order(connection)
            nulls = self._count_without_key(connection)
            if self._access is not None:
                first_keys = self._first_keys(connection)
                self._access.check(connection, first_keys[0] if first_keys else None)
        return nulls

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: everything is read each time."""

    def count(self) -> int:
        with self._connect() as connection:
            self._counted = pages.count_rows(connection, self._select())
        return self._counted

    def count_parts(self) -> dict[str, int]:
        """Return how many rows each table of parts has now, by the name of the part.

        Rows that are hidden because nobody decided on them count: the source has them. Raises as
        `page`.
        """
        if not self._parts.tables:
            return {}
        with_undecided = decided(self._declared, self._engine.dialect, undecided=True)
        tables = PartsReader(with_undecided, self._reader.positions).tables
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

    def sample(self, rows: int) -> Iterator[ColumnSample]:
        """Yield values of the columns of titles, texts and parts from the first rows, without
        columns that hold files. Raises as `page`."""
        yield from self._with_any_text(partial(self._sample, rows))

    def _sample(self, rows: int) -> list[ColumnSample]:
        index = self._index
        samples: list[ColumnSample] = []
        own = [*index.title_columns, *index.text_columns]
        with self._connect() as connection:
            found = self._first_values(connection, self._select(), own, index.format, rows)
            for name, values in found.items():
                samples.append(ColumnSample(name, index.format.get(name, "plain"), values))
            for table in self._parts.tables:
                columns = table.composer.columns
                found = self._first_values(connection, table.select(), columns, table.format, rows)
                for name, values in found.items():
                    form = table.format.get(name, "plain")
                    samples.append(ColumnSample(f"{table.label}.{name}", form, values))
        return samples

    def _first_values(
        self,
        connection: Connection,
        statement: Select[Any],
        columns: Sequence[str],
        formats: Mapping[str, str],
        rows: int,
    ) -> dict[str, list[Any]]:
        """Return the values of the first rows of a query, by column, without columns of files."""
        names, found = first_rows(
            connection, self._index, statement, "what plan looks at", limit=rows
        )
        values: dict[str, list[Any]] = {}
        for name in columns:
            if name in names and formats.get(name, "plain") in TEXT_FORMATS:
                place = names.index(name)
                values[name] = [readable(row[place]) for row in found]
        return values

    def row_policies(self) -> RowPolicies:
        """Return the row level security of all tables that the index reads. Raises as `page`."""
        # No other database has any.
        if self._url.get_backend_name() != "postgresql":
            return RowPolicies()
        declared = self._declared.model_dump(by_alias=True)
        with self._connect() as connection:
            return read_policies(connection, relations_read(declared, doubtful=True))

    def page(self, cursor: Any, rows: int) -> SourcePage:
        rows = min(rows, self._fitting)
        if self._copies:
            return self._page_of_copy(cursor, rows)
        # The page before ended with an undecodable key: this one has such keys, too.
        begins_undecoded = cursor is not None and any(
            isinstance(value, Undecoded) for value in cursor.key
        )
        return self._with_any_text(partial(self._page, cursor, rows), at_once=begins_undecoded)

    def _page(self, cursor: Cursor | None, rows: int) -> SourcePage:
        with self._connect() as connection:
            statement = self._in_order(connection, self._select_scanned(), cursor).limit(rows + 1)
            found, following = self._fetch(connection, statement, rows)
            parts = self._read_parts(connection, found, pages.PAGE_CHARS)
            # The parts of the last rows do not fit into the page: the next page begins with them.
            if len(parts) < len(found):
                following = found[len(parts)]
                found = found[: len(parts)]
            end = self._end(connection, cursor, found, following)
        return self._read_scanned(found, end, parts)

    def documents(self, ids: Sequence[str]) -> SourcePage:
        page = self._with_any_text(partial(self._documents, ids))
        found = {document_id(key) for key in page.documents.keys}
        found |= {document_id(failure.key) for failure in page.unreadable}
        invalid = self._with_invalid_keys([given for given in ids if given not in found])
        unreadable = [*page.unreadable, *invalid.unreadable]
        groups = {**page.groups, **invalid.groups}
        return evolve(page, unreadable=unreadable, groups=groups)

    def _documents(self, ids: Sequence[str], *, invalid: bool = False) -> SourcePage:
        with self._connect() as connection:
            found = self._find(connection, ids, invalid=invalid)
            return self._read(found, None, self._read_parts(connection, found))

    def _with_invalid_keys(self, ids: Iterable[str]) -> SourcePage:
        """Return the documents with these ids whose key is not valid in its charset.

        The id of such a document shows the bytes of its key, and the document has failed.
        """
        columns = self._index.key_columns
        shown: list[str] = []
        for given in ids:
            if any(undecoded_of(part) is not None for part in key_parts(given, columns)):
                shown.append(given)
        # A database in UTF-8 has no such keys, and refuses to search for one.
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

    def full_row(self, given: str) -> dict[str, Any]:
        """Return all columns of the row with this id, also those that the index does not read.
        Raises as `page`."""
        index = self._index
        names: list[sa.ColumnClause[Any]] = [sa.column(name) for name in index.key_columns]
        # The query or the table itself, without joins
        if index.query is not None:
            rows: Any = single_select(index.query, index.name).columns(*names).subquery("whole")
        else:
            rows = sa.table(str(index.table), *names, schema=index.db_schema)
        every: Any = sa.select(sa.literal_column("*")).select_from(rows)
        keys = [rows.c[name] for name in index.key_columns]

        def read() -> dict[str, Any]:
            with self._connect() as connection:
                parts = key_parts(given, index.key_columns)
                values = self._key_values(connection, [parts], invalid=False)
                same = equals_any(keys, values, connection.dialect.name)
                row: Any = connection.execute(every.where(same)).mappings().first() or {}
                return {name: readable(value) for name, value in row.items()}

        return self._with_any_text(read)

    def close(self) -> None:
        self._remove_copy()
        if self._reader.files:
            self._reader.files.close()
        self._engine.dispose()

    def _select(self) -> Select[Any]:
        """Return the query of the documents' rows: key, `read_columns`, and the groups' column."""
        names = pages.read_columns(self._index)
        if self._index.access_column:
            names.append(self._index.access_column)
        files = file_columns(self._index.format)
        columns: list[sa.ColumnElement[Any]] = []
        for name in names:
            column = self._from.c[name]
            columns.append(start_of(column) if name in files else column)
        return sa.select(*self._keys, *columns).where(*self._keys_not_null())

    def _select_scanned(self) -> Select[Any]:
        """Return the rows that a scan reads."""
        return self._select()

    def _keys_not_null(self) -> list[sa.ColumnElement[bool]]:
        return [key.is_not(None) for key in self._keys]

    def _learn_order(self, connection: Connection) -> None:
        """Choose the expressions by which rows are ordered and compared.

        Raises:
            SettingsError: A key column is a FLOAT of MySQL.
        """
        if self._order:
            return
        if self._exact:
            # SQLite: "a" and "A" may be one key for the collation of the column.
            self._order = [sa.collate(key, "BINARY") for key in self._keys]
            return
        kinds = engine.column_kinds(connection, sa.select(*self._keys)) or [""] * len(self._keys)
        if "float" in kinds:
            # MySQL writes a FLOAT with six digits, which equal no value.
            name = self._index.key_columns[kinds.index("float")]
            raise SettingsError(
                f"index {self._index.name}: key column {name!r} is a FLOAT; the database shows six"
                " of its digits and finds no value again; cast it to DOUBLE in a query, or name"
                " another key"
            )
        # MySQL orders an ENUM or a SET by numbers and compares it as text.
        order: list[sa.ColumnElement[Any]] = []
        for key, kind in zip(self._keys, kinds, strict=True):
            order.append(exact_text(key) if kind == "enum" else key)
        self._order = order

    def _in_order(
        self, connection: Connection, statement: Select[Any], cursor: Cursor | None
    ) -> Select[Any]:
        """Return a query in the order of the key, of the rows after a cursor."""
        self._learn_order(connection)
        statement = statement.order_by(*self._order)
        return statement if cursor is None else statement.where(self._after(cursor.key))

    def _after(self, key: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Return the condition for the rows that follow a key."""
        values = [untyped(value) for value in key]
        if len(values) == 1:
            return self._order[0] > values[0]
        if self._row_values:
            return sa.tuple_(*self._order) > sa.tuple_(*values)
        # a >= 1 AND (a > 1 OR b > 2): the first comparison can use an index.
        condition = self._order[-1] > values[-1]
        outer = list(zip(self._order[:-1], values[:-1], strict=True))
        for column, value in reversed(outer):
            condition = sa.and_(column >= value, sa.or_(column > value, condition))
        return condition

    def _end(
        self,
        connection: Connection,
        cursor: Cursor | None,
        rows: Sequence[Row],
        following: Row | None,
    ) -> Cursor | None:
        """Return the cursor of the next page; None after the last page.

        Args:
            cursor: Where this page begins.
            rows: The rows of this page.
            following: The row after them.

        Raises:
            SourceError: Several rows have the last key, or rows were lost between pages.
        """
        read = len(rows) + (cursor.rows if cursor is not None else 0)
        if following is None:
            size = max(1, len(rows)) if cursor is None else cursor.size
            self._scanned = Cursor((), read, size)
            # Some rows may have been lost: reading all keys finds out.
            if cursor is not None and read != self._counted:
                for _ in self.keys_now():
                    pass
            return None
        width = len(self._keys)
        last = tuple(rows[-1][:width])
        is_shared = last == tuple(following[:width])
        has_text = any(isinstance(value, str) for value in last)
        if not is_shared and not self._exact and has_text:
            # "a" and "A" are two texts for Python, and may be one for the database.
            same = [key == untyped(value) for key, value in zip(self._keys, last, strict=True)]
            statement = sa.select(sa.func.count()).select_from(self._from).where(*same)
            # The count is 0 if the row was deleted meanwhile.
            is_shared = int(connection.scalar(statement) or 0) > 1
        if is_shared:
            raise not_unique(self._index, encode_key(last))
        return Cursor(last, read, len(rows))

    def _count_without_key(self, connection: Connection) -> int:
        """Return how many rows have NULL in the key."""
        rows = sa.select(sa.func.count()).select_from(self._from)
        is_null = sa.or_(*[key.is_(None) for key in self._keys])
        nulls = int(connection.scalar(rows.where(is_null)) or 0)
        if not nulls or connection.dialect.name not in ("mysql", "mariadb"):
            return nulls
        # In MySQL, `IS NULL` is also true of the date 0000-00-00.
        known = sa.case((sa.and_(*self._keys_not_null()), 1))
        counts = sa.select(sa.func.count(), sa.func.count(known)).select_from(self._from)
        every, with_key = connection.execute(counts).one()
        return int(every - with_key)

    def keys_now(self) -> Iterator[list[str]]:
        """Yield all typed keys, page by page in one snapshot, if the last scan read more or fewer
        rows than there are.

        The scan may have missed the documents with these keys, so none of them may be deleted.
        Some keys may be yielded twice. Raises as `page`.

        Raises:
            SourceError: Keys are missing that no writer explains.
        """
        with suppress(InvalidText):
            yield from self._keys_now()
            return
        with self._reading_any_text():
            yield from self._keys_now()

    def _keys_now(self) -> Iterator[list[str]]:
        scanned = self._scanned
        if scanned is None:
            return
        with self._connect(patience=self._timeout, snapshot=True) as connection:
            expected = pages.count_rows(connection, self._select_scanned())
            if expected == scanned.rows:
                return
            keys = self._select_scanned().with_only_columns(*self._keys, maintain_column_froms=True)
            read = 0
            cursor: Cursor | None = None
            while True:
                statement = self._in_order(connection, keys, cursor).limit(scanned.size)
                found = connection.execute(statement).fetchall()
                if not found:
                    break
                yield list(map(encode_key, found))
                read += len(found)
                cursor = Cursor(tuple(found[-1]))
        if read != expected:
            columns = ", ".join(self._index.key_columns)
            raise SourceError(
                f"index {self._index.name}: {expected:,} rows are there, and {read:,} are found by"
                f" their key ({columns}), which the database orders in another way than it"
                " compares: name another key, or cast it to text in a query"
            )

    def _first_keys(self, connection: Connection) -> Sequence[Row]:
        statement = sa.select(*self._keys).where(*self._keys_not_null()).limit(CHECKED_ROWS)
        return connection.execute(statement).fetchall()

    def _key_values(
        self, connection: Connection, wanted: Iterable[list[Any]], *, invalid: bool
    ) -> list[tuple[Any, ...]]:
        """Return all values that keys may have whose ids consist of these parts."""
        if not self._key_candidates.types:
            self._key_candidates.learn_types(self._first_keys(connection))
        return self._key_candidates.values(wanted, invalid=invalid)

    def _find(
        self, connection: Connection, ids: Sequence[str], *, invalid: bool = False
    ) -> list[Row]:
        """Return the rows of the documents with these ids.

        Args:
            invalid: Whether the ids show the bytes of keys that are not valid in their charset.
        """
        wanted: dict[str, list[Any]] = {}
        for given in ids:
            parts = key_parts(given, self._index.key_columns)
            # A JSON array may be written with spaces: take the form of `document_id`.
            normal = given if len(parts) == 1 else document_id(encode_key(parts))
            wanted[normal] = parts
        found: list[Row] = []
        for batch in batches(list(wanted.values())):
            values = self._key_values(connection, batch, invalid=invalid)
            if not values:
                continue
            is_wanted = equals_any(self._keys, values, connection.dialect.name)
            found += self._fetch_all(connection, self._select().where(is_wanted))
        width = len(self._keys)
        return [row for row in found if document_id(encode_key(row[:width])) in wanted]

    def _read(
        self, rows: Sequence[Row], cursor: Cursor | int | None, parts: Sequence[pages.DocumentParts]
    ) -> SourcePage:
        """Return the page of these rows.

        Raises:
            SourceError: Two of them have the same key.
        """
        any_text = self._any_text is not None
        documents, unreadable = self._reader.read(rows, parts, any_text=any_text)
        seen = set[str]()
        for key in (*documents.keys, *[failure.key for failure in unreadable]):
            if key in seen:
                raise not_unique(self._index, key)
            seen.add(key)
        page = SourcePage(documents, cursor, unreadable)
        if self._access is None or not unreadable:
            return page
        # An earlier state of a failed document may be in the index, and gets its present groups.
        groups: dict[str, Sequence[str]] = {}
        for row, beside in zip(rows, parts, strict=True):
            groups[encode_key(row[: len(self._keys)])] = beside.groups or ()
        return evolve(page, groups={failure.key: groups[failure.key] for failure in unreadable})

    def _read_scanned(
        self, rows: Sequence[Row], cursor: Cursor | int | None, parts: Sequence[pages.DocumentParts]
    ) -> SourcePage:
        """Return the page of rows of `_select_scanned`."""
        return self._read(rows, cursor, parts)

    def _read_parts(
        self, connection: Connection, rows: Sequence[Row], max_chars: float = math.inf
    ) -> Sequence[pages.DocumentParts]:
        """Return what belongs to the first of these rows beside them: to as many rows as have parts
        of at most `max_chars` characters."""
        if not self._parts.tables and self._access is None:
            return [pages.NO_PARTS] * len(rows)
        any_text = self._any_text is not None
        parts = self._parts.read(connection, rows, max_chars, any_text=any_text)
        # The next page does not request rows whose parts would not fit.
        if len(parts) == len(rows):
            self._fitting = min(2 * self._fitting, sys.maxsize)
        else:
            self._fitting = len(parts)
        if self._access is not None:
            self._access.add(connection, rows[: len(parts)], parts)
        return parts

    def _fetch(
        self, connection: Connection, statement: Select[Any], rows: int = sys.maxsize
    ) -> tuple[list[Row], Row | None]:
        """Return the rows of a page, at most `rows`, and the row after them."""
        with connection.execute(statement, execution_options=pages.STREAMED) as result:
            page, following = pages.read_page(result, rows, self._fetch_rows)
        # The result has ended, even before the limit of this page: count what there is.
        if following is None:
            pages.require_all(connection, statement, len(page))
        return page, following

    def _fetch_all(self, connection: Connection, statement: Select[Any]) -> list[Row]:
        rows = pages.stream_rows(connection, statement, self._fetch_rows)
        return list(map(self._reader.keep_files, rows))

    def _page_of_copy(self, position: int | None, rows: int) -> SourcePage:
        # The first page
        if position is None:
            self._with_any_text(self._copy_rows)
        if self._copy is None:
            raise SourceUnavailable(
                f"index {self._index.name}: the rows of its query were not kept; run it again"
            )
        read = partial(self._read_copy, self._copy, position or 0, rows)
        return self._with_any_text(read, at_once=self._copy_has_any_text)

    def _read_copy(self, copy: RowFile, position: int, rows: int) -> SourcePage:
        """Return the page of the copy that begins at a position, in bytes."""
        found, ends = copy.page(position, rows, pages.PAGE_CHARS)
        needs_database = self._parts.tables or self._index.access_query is not None
        opened: AbstractContextManager[Any] = self._connect() if needs_database else nullcontext()
        with opened as connection:
            parts = self._read_parts(connection, found, pages.PAGE_CHARS)
        end = ends[len(parts) - 1] if parts else copy.size
        following = end if end < copy.size else None
        page = self._read_scanned(found[: len(parts)], following, parts)
        # The last page
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
        """Yield the rows of one transaction.

        The time limit holds for each answer of the database, not for all of them.
        """
        statement = self._select_scanned().limit(self._first)
        read = 0
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
                    rows = result.fetchmany(self._fetch_rows)
                call.record_answer()
                if not rows:
                    break
                read += len(rows)
                yield from rows
            # Not the number that was counted before: were rows cut off?
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
        """Yield a connection, and raise its errors as ours.

        Args:
            patience: Seconds after which the progress reports that the database does not answer.
            snapshot: Whether all statements must see one state of the database. Those of a server
                always do.
        """
        used = self._any_text or self._engine
        with (
            self._errors_as_ours(),
            asking(self._name, patience=patience),
            used.connect() as connection,
        ):
            # A snapshot of SQLite can delay writers.
            if snapshot or connection.dialect.name != "sqlite":
                engine.begin_snapshot(connection)
            with self._limited(connection):
                engine.limit_on_server(connection, self._timeout, streams=False)
                yield connection

    def _with_any_text(self, read: Callable[[], T], *, at_once: bool = False) -> T:
        """Return what `read` returns. If a text is not valid in its charset, it is called a second
        time, and reads texts without conversion; with `at_once`, the first time."""
        if not at_once:
            with suppress(InvalidText):
                return read()
        with self._reading_any_text():
            return read()

    @contextmanager
    def _reading_any_text(self) -> Iterator[None]:
        """Read texts without conversion within the block. One that is not valid in its charset is
        an `Undecoded` there."""
        if self._any_text is not None or self._engine.dialect.driver not in DRIVERS:
            yield
            return
        # A user may have the right to one connection only.
        self._engine.dispose()
        self._any_text = self._new_engine(any_text=True)
        try:
            yield
        finally:
            self._any_text.dispose()
            self._any_text = None

    def _errors_as_ours(self) -> AbstractContextManager[None]:
        return engine.errors_as_ours(self._url, f"index {self._index.name}")


def policy_digest(source: object) -> str:
    """Return the digest of the policies that decide which rows of a source the database shows; ""
    if it shows all rows."""
    return source.row_policies().digest if isinstance(source, SqlSource) else ""
