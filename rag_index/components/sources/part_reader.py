"""What belongs to documents beside their row: parts, such as the comments of tickets, and the groups
that may see them.

There is one query for each table of parts and page of documents. Its rows are read as a stream and
matched with the documents. If the parts of a page have more characters than a page may have, the
page gets fewer documents. So the memory in use is bounded, unless one document alone has more.
"""

from __future__ import annotations

import decimal
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.sources.attachments import FileReader, start_of
from rag_index.components.sources.pages import (
    FETCH_ROWS,
    INVALID_TEXT,
    Composer,
    DocumentParts,
    LinkComposer,
    PayloadMaker,
    read_columns,
    stream_rows,
)
from rag_index.components.sources.source_tables import (
    batches,
    equals_any,
    first_rows,
    part_from,
    single_select,
)
from rag_index.components.sources.text import NotText
from rag_index.components.sources.undecoded import Undecoded, readable
from rag_index.core.documents.batches import AttachedFile, TextPart
from rag_index.core.documents.canonical import plain_decimal
from rag_index.core.documents.groups import groups_of
from rag_index.core.documents.keys import document_id, encode_key
from rag_index.core.settings.parts import TEXT_FORMATS, PartSettings, file_columns
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.components.sources.pages import Row
    from rag_index.core.settings import IndexSettings

MAX_PARAMETERS = 30_000
"""Values that one query compares with. SQLite allows 32,766 parameters, PostgreSQL 65,535."""


class RowsBeside:
    """The rows of another table that belong to documents, by columns that have the same values."""

    def __init__(
        self,
        rows: FromClause,
        on: Sequence[str],
        of_document: Sequence[str],
        read_columns: Sequence[sa.ColumnElement[Any]],
    ) -> None:
        """Take the rows of a table.

        Args:
            on: The columns that are compared: the first of `read_columns`.
            of_document: The columns of documents that have the same values.
            read_columns: The columns that are read.
        """
        self.rows = rows
        self.on = list(on)
        self.of_document = list(of_document)
        self.read_columns = list(read_columns)

    def select(self, *more: sa.ColumnElement[Any]) -> Select[Any]:
        """Return the query of the rows whose compared values are not NULL, with more columns."""
        statement = sa.select(*self.read_columns, *more)
        known = [self.rows.c[name].is_not(None) for name in self.on]
        return statement.where(*known)


def no_columns(_table: RowsBeside) -> list[sa.ColumnElement[Any]]:
    """Return no columns: those that a source without digests reads in addition."""
    return []


class PartRows(RowsBeside):
    """Reads the rows of one table of parts, and adds them to documents."""

    def __init__(
        self, part: PartSettings, index: IndexSettings, files: FileReader | None = None
    ) -> None:
        """Read the rows of a part. Its files are read by `files`."""
        self._part = part
        self.label = part.label
        pairs = part.pairs(index.key_columns)
        on = [own for own, _ in pairs]
        of_document = [other for _, other in pairs]
        rows = part_from(part, index)
        named = [name.removeprefix(f"{part.label}.") for name in index.not_secret]
        self.format = part.format
        self.composer = Composer(part.text, part.format, not_secret=named)
        self._link = LinkComposer(part.link)
        self._payload = PayloadMaker(part.payload, part.joins)
        self.columns: list[str] = []
        """The columns that are read, those of `on` first."""
        self._add_columns(on)
        self._key = self._add_columns(part.key_columns)
        self._text = self._add_columns(self.composer.columns)
        self._fields = self._add_columns(part.payload)
        self._links = self._add_columns(self._link.columns)
        self._add_columns([name for name, _ in part.order])
        self._files = files
        file_names = file_columns(part.format)
        self._as_bytes = file_names if index.files is None else []
        """The columns with files, unless they have the names of files."""
        self.fetch_rows = 1 if file_names else FETCH_ROWS
        read: list[sa.ColumnElement[Any]] = []
        for name in self.columns:
            column = rows.c[name]
            read.append(start_of(column) if name in file_names else column)
        super().__init__(rows, on, of_document, read)

    def _add_columns(self, names: Sequence[str]) -> slice:
        """Read these columns, too. Return where a row has them."""
        start = len(self.columns)
        self.columns += names
        return slice(start, len(self.columns))

    def order(self) -> list[sa.ColumnElement[Any]]:
        """Return the order of the rows: by document, and then as the settings say, with NULL last.

        Rows without an order in the settings are ordered by their key, or by all columns that are
        read.
        """
        columns = self.rows.c
        order: list[sa.ColumnElement[Any]] = [columns[name] for name in self.on]
        for name, descending in self._part.order:
            column = columns[name]
            order.append(column.is_(None))
            order.append(column.desc() if descending else column)
        if self._part.key_columns:
            order += [columns[name] for name in self._part.key_columns]
        else:
            order += [sa.cast(columns[name], sa.Text) for name in dict.fromkeys(self.columns)]
        return order

    def add(self, row: Row, documents: Iterable[DocumentParts], *, any_text: bool = False) -> int:
        """Add a row to the documents that it belongs to. Return how many characters it adds.

        Args:
            any_text: Whether texts may be `Undecoded`.
        """
        # The id of the part; "" without a key, or if a column of it is NULL.
        key = row[self._key]
        row_id = document_id(encode_key(key)) if key and None not in key else ""
        try:
            if any_text:
                row = self._readable_row(row)
            text = self.composer.compose(row[self._text]).strip()
        except NotText as error:
            # Such as: part remark 7: column 'body' is no JSON
            names = " ".join(filter(None, ["part", self.label, row_id]))
            for document in documents:
                document.failure = document.failure or f"{names}: {error}"
            return 0
        link = self._link.compose(row[self._links])
        payload = self._payload.payload(row[self._fields])
        part = TextPart(0, 0, self.label, row_id, link, payload)
        chars = 0
        files: list[AttachedFile] = []
        for name, value in zip(self.composer.columns, row[self._text], strict=True):
            form = self._part.format.get(name, "plain")
            if self._files is None or form in TEXT_FORMATS:
                continue
            if isinstance(value, bytes | str):
                chars += len(value)
            taken = self._files.take(value, form, part)
            if taken is not None:
                files.append(taken)
        for document in documents:
            document.files += files
            chars += len(text)
            if self._part.inline:
                # One of the tags of a ticket: its text and fields become those of the document.
                _gather(document.fields.setdefault(self.label, {}), payload)
                if text:
                    document.inline.setdefault(self._part.name, []).append(text)
            elif text:
                # A comment of a ticket, which is chunked by itself.
                document.parts.append((text, part))
        return chars

    def _readable_row(self, row: Row) -> Row:
        """Return a row with its texts decoded.

        Raises:
            NotText: A text cannot be decoded.
        """
        values = list(row)
        for place, name in enumerate(self.columns):
            # The values that are compared with the document stay as they are, and so do files.
            if place < len(self.on) or name in self._as_bytes:
                continue
            values[place] = readable(values[place])
            if isinstance(values[place], Undecoded):
                raise NotText(f"column {name!r} {INVALID_TEXT}")
        return values


class PartsReader:
    """Reads all parts of the documents of a page."""

    def __init__(
        self, index: IndexSettings, positions: Mapping[str, int], files: FileReader | None = None
    ) -> None:
        """Prepare to read parts.

        Args:
            positions: Where in a document's row its columns are.
            files: Reads the files of parts.
        """
        self.tables = [PartRows(part, index, files) for part in index.parts]
        self._positions = positions
        self.digest_columns: Callable[[RowsBeside], list[sa.ColumnElement[Any]]] = no_columns
        """Returns the columns that are read in addition to those of a part, for `digest`."""
        self.digest: Callable[[Sequence[Any]], tuple[int, int]] | None = None
        """Returns both halves of the digest of a row."""

    def check(self, connection: Connection, index: IndexSettings, rows: Sequence[Row]) -> None:
        """Check that the queries of parts run, also for the values of some documents.

        Args:
            rows: The rows of these documents.

        Raises:
            SettingsError: A query cannot be run.
        """
        for table in self.tables:
            what = f"the query of part {table.label!r}"
            first_rows(connection, index, table.select(), what)
            compared = self._compared_values(table, rows)
            known = [values for values in compared if None not in values]
            for statement in self._statements(connection, table, known):
                first_rows(connection, index, statement, what)

    def read(
        self,
        connection: Connection,
        rows: Sequence[Row],
        max_chars: float,
        *,
        any_text: bool = False,
    ) -> list[DocumentParts]:
        """Return the parts of the first rows: of as many as have at most `max_chars` characters, or
        of one. Raises the driver's errors.

        Args:
            any_text: Whether texts may be `Undecoded`.
        """
        documents = [DocumentParts() for _ in rows]
        chars = 0
        for table in self.tables:
            owners = self._owners(table, rows, documents, any_text=any_text)
            for statement in self._statements(connection, table, owners.values):
                for row in stream_rows(connection, statement, table.fetch_rows):
                    # Several documents may have the values of the row, such as one author.
                    key = comparable_key(row[: len(table.on)])
                    found = [documents[position] for position in owners.find(key)]
                    chars += table.add(row, found, any_text=any_text)
                    if self.digest is not None:
                        first, second = self.digest(row)
                        for document in found:
                            document.add_digest(first, second)
                    # Too much for a page: begin again with half of the documents.
                    if chars > max_chars and len(rows) > 1:
                        fewer = rows[: len(rows) // 2]
                        return self.read(connection, fewer, max_chars, any_text=any_text)
        return documents

    def _owners(
        self,
        table: PartRows,
        rows: Sequence[Row],
        documents: Sequence[DocumentParts],
        *,
        any_text: bool,
    ) -> _Owners:
        """Return the documents by the values with which a table is compared. A document with an
        invalid value fails, and gets no parts."""
        compared = self._compared_values(table, rows)
        if not any_text:
            return _Owners(compared)
        for document, values in zip(documents, compared, strict=True):
            for number, name in enumerate(table.of_document):
                if not isinstance(values[number], Undecoded):
                    continue
                reason = f"part {table.label}: column {name!r} {INVALID_TEXT}"
                document.failure = document.failure or reason
                values[number] = None
        return _Owners(compared)

    def _compared_values(self, table: PartRows, rows: Sequence[Row]) -> list[list[Any]]:
        """Return the values of documents with which the rows of a table are compared."""
        places = [self._positions[name] for name in table.of_document]
        return [[row[place] for place in places] for row in rows]

    def _statements(
        self, connection: Connection, table: PartRows, values: Sequence[Row]
    ) -> Iterator[Select[Any]]:
        """Yield the queries of the rows with these values: one, or several if one would have too many
        parameters."""
        statement = table.select(*self.digest_columns(table)).order_by(*table.order())
        columns = [table.rows.c[name] for name in table.on]
        size = MAX_PARAMETERS // len(columns)
        dialect = connection.dialect.name
        for first in range(0, len(values), size):
            wanted = values[first : first + size]
            # PostgreSQL reads a text as the type of the column, but no number.
            if dialect == "postgresql":
                wanted = list(map(_integers_as_text, wanted))
            yield statement.where(equals_any(columns, wanted, dialect))


def _integers_as_text(values: Row) -> list[Any]:
    texts: list[Any] = []
    for value in values:
        texts.append(str(value) if type(value) is int else value)
    return texts


class _Owners:
    """Finds the documents that have some values, as the database compares them."""

    def __init__(self, values: Sequence[Row]) -> None:
        """Take the compared values of each document. A document with a NULL among them has no
        parts."""
        self._exact: dict[tuple[str, ...], list[int]] = {}
        self._folded: dict[tuple[str, ...], list[int]] = {}
        distinct: dict[tuple[str, ...], Sequence[Any]] = {}
        for number, compared in enumerate(values):
            if None in compared:
                continue
            key = comparable_key(compared)
            distinct.setdefault(key, compared)
            self._exact.setdefault(key, []).append(number)
            self._folded.setdefault(_folded(key), []).append(number)
        self.values = list(distinct.values())
        """The distinct values."""

    def find(self, key: tuple[str, ...]) -> list[int]:
        """Return the numbers of the documents with these values. If there are none, of those whose
        values differ in case, accents or trailing spaces: the database has compared so."""
        found = self._exact.get(key)
        return found if found else self._folded.get(_folded(key), [])


def _gather(lists: dict[str, Any], payload: Mapping[str, Any]) -> None:
    """Append the values of a payload to the lists of its fields; those of a join below its name."""
    for name, value in payload.items():
        # {"customer": {"name": "Ann"}} is added to {"customer": {"name": [...]}}.
        inner = lists.setdefault(name, {}) if isinstance(value, dict) else None
        if isinstance(inner, dict):
            _gather(inner, value)
        else:
            lists.setdefault(name, []).append(value)


def comparable_key(values: Sequence[Any]) -> tuple[str, ...]:
    """Return values in a form that is equal if a database compares the values as equal, whatever
    their types."""
    return tuple(map(_comparable, values))


def _comparable(value: Any) -> str:
    # 1.0 equals 1.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # 1.50 equals 1.5.
    if isinstance(value, decimal.Decimal):
        return plain_decimal(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    return str(value)


def _folded(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key without case, accents and trailing spaces, as many collations compare it."""
    return tuple(map(_folded_text, key))


def _folded_text(text: str) -> str:
    if not text.isascii():
        # "É" becomes "E" and an accent.
        letters = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return text.casefold().rstrip(" ")


class AccessReader:
    """Reads the groups of documents, as `access` of an index says. The index must have it."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._place = self._width + len(read_columns(index))
        self._pairs: RowsBeside | None = None
        self.digest_columns: Callable[[RowsBeside], list[sa.ColumnElement[Any]]] = no_columns
        """Returns the columns that are read in addition to those of a pair, for `digest`."""
        self.digest: Callable[[Sequence[Any]], tuple[int, int]] | None = None
        """Returns both halves of the digest of a pair."""

    def check(self, connection: Connection, key: Row | None) -> None:
        """Check that the query of pairs runs, and that its keys can be compared with those of
        documents.

        Args:
            key: The key of a document; None if there is none.

        Raises:
            SettingsError: The query cannot be run, or its keys have another type.
        """
        pairs = self.pairs(connection)
        if pairs is None:
            return
        what = "the query of access"
        _, rows = first_rows(connection, self._index, sa.select(*pairs.rows.c), what, limit=1)
        if key is None:
            return
        first_rows(connection, self._index, self._select(connection, pairs, [key]), what, limit=1)
        first_pair = rows[0] if rows else ()
        for own, other, name in zip(first_pair, key, self._index.key_columns, strict=False):
            self._check_type(own, other, name)

    def _check_type(self, own: Any, other: Any, name: str) -> None:
        """Raise SettingsError if a value of the query cannot equal that of a key column."""
        # Texts that are not valid, and NULL, have no type to compare.
        if isinstance(own, Undecoded) or isinstance(other, Undecoded) or own is None:
            return
        if _kind(own) == _kind(other):
            return
        own_type = type(own).__name__
        other_type = type(other).__name__
        raise SettingsError(
            f"index {self._index.name}: access gives keys of type {own_type} ({own!r:.40}), but"
            f" {name} is {other_type} ({other!r:.40}); cast one of them in its query"
        )

    def add(
        self, connection: Connection, rows: Sequence[Row], documents: Sequence[DocumentParts]
    ) -> None:
        """Add the groups of each row to its document. Raises the driver's errors.

        Args:
            rows: The key, the columns, and the column of groups, if any.
        """
        if self._index.asks_database:
            # Each search requests the rights from the database. Other callers see no document.
            for document in documents:
                document.groups = []
            return
        pairs = self.pairs(connection)
        if pairs is not None:
            self._add_pairs(connection, pairs, rows, documents)
            return
        # A column of groups, such as "sales,support"
        for row, document in zip(rows, documents, strict=True):
            document.groups = groups_of(row[self._place], self._index.access_separator)

    def _add_pairs(
        self,
        connection: Connection,
        pairs: RowsBeside,
        rows: Sequence[Row],
        documents: Sequence[DocumentParts],
    ) -> None:
        """Add the groups that a query of pairs, such as (7, "sales"), has for each row."""
        by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        keys = [row[: self._width] for row in rows]
        for some_keys in batches(keys):
            for pair in stream_rows(connection, self._select(connection, pairs, some_keys)):
                by_key[_typed_key(pair[: self._width])].append(pair)
        for key, document in zip(keys, documents, strict=True):
            of_document = by_key.get(_typed_key(key), [])
            document.groups = groups_of([pair[self._width] for pair in of_document])
            if self.digest is not None:
                for pair in of_document:
                    document.add_digest(*self.digest(pair))

    def _select(
        self, connection: Connection, pairs: RowsBeside, keys: Sequence[Row]
    ) -> Select[Any]:
        """Return the query of the pairs with these keys."""
        columns = [pairs.rows.c[name] for name in pairs.on]
        is_wanted = equals_any(columns, keys, connection.dialect.name)
        more = self.digest_columns(pairs)
        return sa.select(*pairs.read_columns, *more).where(is_wanted)

    def pairs(self, connection: Connection) -> RowsBeside | None:
        """Return the pairs of key and group; None without a query of groups.

        Raises:
            SettingsError: The query has other columns.
        """
        index = self._index
        if index.access_query is None or index.asks_database:
            return None
        if self._pairs is not None:
            return self._pairs
        query = single_select(str(index.access_query), index.name)
        # The query runs once without rows, for the names of its columns.
        every: Select[Any] = sa.select(sa.literal_column("*"))
        every = every.select_from(query.columns().subquery("pairs"))
        names, _ = first_rows(connection, index, every, "the query of access", limit=0)
        if len(set(names)) != self._width + 1:
            wanted = ", ".join([*index.key_columns, "group"])
            raise SettingsError(
                f"index {index.name}: the query of access gives {len(names)} columns"
                f" ({', '.join(names)}); it should give {wanted}, each under a name of its own"
            )
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in names]
        rows = query.columns(*columns).subquery("pairs")
        self._pairs = RowsBeside(rows, names[:-1], index.key_columns, list(rows.c))
        return self._pairs


def _typed_key(key: Sequence[Any]) -> tuple[Any, ...]:
    """Return a key in a form that is equal for equal keys, whatever the types of numbers. A number
    never equals a text."""
    kinds = map(_kind, key)
    return tuple(zip(kinds, comparable_key(key), strict=True))


def _kind(value: Any) -> str:
    if isinstance(value, int | float | decimal.Decimal):
        return "number"
    if isinstance(value, bytearray | memoryview):
        return "bytes"
    return type(value).__name__
