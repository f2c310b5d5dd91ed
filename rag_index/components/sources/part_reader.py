"""What documents have beside their row: parts, such as the comments of tickets, and the groups that
may see them. There is one query for each table of parts and page of documents. Rows are read as a
stream, and matched with documents here. If the parts of a page have more characters than a page may
have, the page gets fewer documents. So what is in memory is bounded, unless one document alone has
more."""

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
from rag_index.core.documents.batches import TextPart
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
"""The values that one query compares with: databases limit them."""


class RowsBeside:
    """The rows of another table that belong to documents, by columns that have the same values."""

    def __init__(
        self,
        rows: FromClause,
        on: Sequence[str],
        of_document: Sequence[str],
        read_columns: Sequence[sa.ColumnElement[Any]],
    ) -> None:
        """`on` are the columns that are compared, the first of those that are read; `of_document`
        those of documents with the same values."""
        self.rows, self.on, self.of_document, self.read_columns = (
            rows,
            list(on),
            list(of_document),
            list(read_columns),
        )

    def select(self, *more: sa.ColumnElement[Any]) -> Select[Any]:
        """Return the rows, and more columns of them; none whose value to compare with is NULL."""
        known = [self.rows.c[name].is_not(None) for name in self.on]
        return sa.select(*self.read_columns, *more).where(*known)


def no_columns(_table: RowsBeside) -> list[sa.ColumnElement[Any]]:
    """Return what is read beside the columns of a table that has no digests: nothing."""
    return []


class PartRows(RowsBeside):
    """Reads the rows of one table of parts, and adds them to documents."""

    def __init__(
        self, part: PartSettings, index: IndexSettings, files: FileReader | None = None
    ) -> None:
        """Read the rows of a part; `files` takes its files."""
        self._part = part
        self.label = part.label
        on, of_document = map(list, zip(*part.pairs(index.key_columns), strict=True))
        rows = part_from(part, index)
        named = [name.removeprefix(f"{part.label}.") for name in index.not_secret]
        self.format = part.format
        self.composer = Composer(part.text, part.format, not_secret=named)
        self._link = LinkComposer(part.link)
        self._payload = PayloadMaker(part.payload, part.joins)
        order = [name for name, _ in part.order]
        groups = [
            on,
            part.key_columns,
            self.composer.columns,
            part.payload,
            self._link.columns,
            order,
        ]
        self.columns = [name for group in groups for name in group]
        """The columns that are read, those of `on` first."""
        self._files = files
        file_names = file_columns(part.format)
        self._as_bytes = file_names if index.files is None else []
        """The columns with files, unless they have the names of files."""
        self.fetch_rows = 1 if file_names else FETCH_ROWS
        read = [
            start_of(rows.c[name]) if name in file_names else rows.c[name] for name in self.columns
        ]
        super().__init__(rows, on, of_document, read)
        ends = [sum(map(len, groups[: number + 1])) for number in range(len(groups))]
        _, self._key, self._text, self._fields, self._links, _ = (
            slice(end - len(group), end) for end, group in zip(ends, groups, strict=True)
        )

    def order(self) -> list[sa.ColumnElement[Any]]:
        """Return the order of the rows: that of the settings within each document, with the least
        first, NULL last. Rows that the settings leave without an order are ordered by all that is
        read of them."""
        columns = self.rows.c
        order: list[sa.ColumnElement[Any]] = [columns[name] for name in self.on]
        for name, descending in self._part.order:
            order += [
                columns[name].is_(None),
                columns[name].desc() if descending else columns[name],
            ]
        if self._part.key_columns:
            return order + [columns[name] for name in self._part.key_columns]
        return order + [sa.cast(columns[name], sa.Text) for name in dict.fromkeys(self.columns)]

    def add(self, row: Row, documents: Iterable[DocumentParts], *, any_text: bool = False) -> int:
        """Add a row to the documents that it belongs to, and return how many characters that are.
        With `any_text`, its texts may be `Undecoded`."""
        key = row[self._key]
        row_id = document_id(encode_key(key)) if key and None not in key else ""
        try:
            if any_text:
                row = self._readable_row(row)
            text = self.composer.compose(row[self._text]).strip()
        except NotText as error:
            reason = f"{' '.join(filter(None, ['part', self.label, row_id]))}: {error}"
            for document in documents:
                document.failure = document.failure or reason
            return 0
        link, payload = (
            self._link.compose(row[self._links]),
            self._payload.payload(row[self._fields]),
        )
        part, chars, files = TextPart(0, 0, self.label, row_id, link, payload), 0, []
        for name, value in zip(self.composer.columns, row[self._text], strict=True):
            form = self._part.format.get(name, "plain")
            if self._files is not None and form not in TEXT_FORMATS:
                chars += len(value) if isinstance(value, bytes | str) else 0
                files.append(self._files.take(value, form, part))
        for document in documents:
            document.files += filter(None, files)
            chars += len(text)
            if self._part.inline:
                _gather(document.fields.setdefault(self.label, {}), payload)
            if text and self._part.inline:
                document.inline.setdefault(self._part.name, []).append(text)
            elif text:
                document.parts.append((text, part))
        return chars

    def _readable_row(self, row: Row) -> Row:
        """Return a row with its texts decoded. Raises NotText for one that cannot be."""
        values = list(row)
        for place, name in enumerate(self.columns):
            if place < len(self.on) or name in self._as_bytes:  # what is compared stays as it is
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
        """Read the parts of rows that have the columns of documents at these positions; `files`
        takes the files."""
        self.tables = [PartRows(part, index, files) for part in index.parts]
        self._positions = positions
        self.digest_columns: Callable[[RowsBeside], list[sa.ColumnElement[Any]]] = no_columns
        """What is read beside the columns of a part, for `digest`."""
        self.digest: Callable[[Sequence[Any]], tuple[int, int]] | None = None

    def check(self, connection: Connection, index: IndexSettings, rows: Sequence[Row]) -> None:
        """Check that the queries of parts run, also for the values of some documents. Raises
        SettingsError."""
        for table in self.tables:
            what = f"the query of part {table.label!r}"
            first_rows(connection, index, table.select(), what)
            values = [[row[self._positions[name]] for name in table.of_document] for row in rows]
            for statement in self._statements(
                connection, table, [some for some in values if None not in some]
            ):
                first_rows(connection, index, statement, what)

    def read(
        self,
        connection: Connection,
        rows: Sequence[Row],
        max_chars: float,
        *,
        any_text: bool = False,
    ) -> list[DocumentParts]:
        """Return the parts of the first rows, of so few that they have at most `max_chars`, unless
        one alone has more. With `any_text`, texts may be `Undecoded`. Raises the driver's
        errors."""
        documents = [DocumentParts() for _ in rows]
        chars = 0
        for table in self.tables:
            owners = self._owners(table, rows, documents, any_text=any_text)
            for statement in self._statements(connection, table, owners.values):
                for row in stream_rows(connection, statement, table.fetch_rows):
                    key = comparable_key(row[: len(table.on)])
                    found = [documents[position] for position in owners.find(key)]
                    chars += table.add(row, found, any_text=any_text)
                    if self.digest is not None:
                        first, second = self.digest(row)
                        for one in found:
                            one.add_digest(first, second)
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
        """Return the documents by the values that a table is compared with. Those of which one is
        not valid lack their parts."""
        places = [self._positions[name] for name in table.of_document]
        values = [[row[place] for place in places] for row in rows]
        for document, compared in zip(documents, values, strict=True) if any_text else ():
            for number, name in enumerate(table.of_document):
                if isinstance(compared[number], Undecoded):
                    document.failure = (
                        document.failure or f"part {table.label}: column {name!r} {INVALID_TEXT}"
                    )
                    compared[number] = None
        return _Owners(values)

    def _statements(
        self, connection: Connection, table: PartRows, values: Sequence[Row]
    ) -> Iterator[Select[Any]]:
        """Yield the queries for the rows with these values: one, unless the database would refuse
        as many values."""
        statement = table.select(*self.digest_columns(table)).order_by(*table.order())
        columns = [table.rows.c[name] for name in table.on]
        size = MAX_PARAMETERS // len(columns)
        for first in range(0, len(values), size):
            some = values[first : first + size]
            if (
                connection.dialect.name == "postgresql"
            ):  # it reads a text as the type of the column, but no number
                some = [
                    [str(value) if type(value) is int else value for value in one] for one in some
                ]
            yield statement.where(equals_any(columns, some, connection.dialect.name))


class _Owners:
    """Finds the documents that have some values, as the database compares them."""

    def __init__(self, values: Sequence[Row]) -> None:
        """Find documents by their values; those with a NULL among them have no parts."""
        self._exact: dict[tuple[str, ...], list[int]] = {}
        self._folded: dict[tuple[str, ...], list[int]] = {}
        distinct: dict[tuple[str, ...], Sequence[Any]] = {}
        for number, some in enumerate(values):
            if None not in some:
                key = comparable_key(some)
                distinct.setdefault(key, some)
                self._exact.setdefault(key, []).append(number)
                self._folded.setdefault(_folded(key), []).append(number)
        self.values = list(distinct.values())

    def find(self, key: tuple[str, ...]) -> list[int]:
        """Return the documents with these values; where none is equal, with those that differ in
        case or accents."""
        return self._exact.get(key) or self._folded.get(_folded(key), [])


def _gather(lists: dict[str, Any], payload: Mapping[str, Any]) -> None:
    for name, value in payload.items():
        if isinstance(value, dict) and isinstance(inner := lists.setdefault(name, {}), dict):
            _gather(inner, value)
        else:
            lists.setdefault(name, []).append(value)


def comparable_key(values: Sequence[Any]) -> tuple[str, ...]:
    """Return values in a form that is equal for values that a database takes for equal, whatever
    their types."""
    return tuple(map(_comparable, values))


def _comparable(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, decimal.Decimal):
        return plain_decimal(value)
    return (
        f"\\x{bytes(value).hex()}"
        if isinstance(value, bytes | bytearray | memoryview)
        else str(value)
    )


def _folded(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key as collations compare it that know neither case, accents nor spaces at the
    end."""
    plain = [value if value.isascii() else unicodedata.normalize("NFKD", value) for value in key]
    bare = ["".join(one for one in value if not unicodedata.combining(one)) for value in plain]
    return tuple(value.casefold().rstrip(" ") for value in bare)


class AccessReader:
    """Reads the groups of documents, as `access` of an index says. Not for an index without it."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._place = self._width + len(read_columns(index))
        self._pairs: RowsBeside | None = None
        self.digest_columns: Callable[[RowsBeside], list[sa.ColumnElement[Any]]] = no_columns
        """What is read beside the columns of a pair, for `digest`."""
        self.digest: Callable[[Sequence[Any]], tuple[int, int]] | None = None

    def check(self, connection: Connection, key: Row | None) -> None:
        """Check that the query of pairs runs, and that its keys can be compared with `key`, that of
        some document. Raises SettingsError if it does not, or they cannot."""
        if (pairs := self.pairs(connection)) is None:
            return
        what = "the query of access"
        _, rows = first_rows(connection, self._index, sa.select(*pairs.rows.c), what, limit=1)
        if key is None:
            return
        first_rows(connection, self._index, self._select(connection, pairs, [key]), what, limit=1)
        for own, other, name in zip(
            rows[0] if rows else (), key, self._index.key_columns, strict=False
        ):
            if isinstance(own, Undecoded) or isinstance(other, Undecoded):
                continue
            if own is not None and _kind(own) != _kind(other):
                raise SettingsError(
                    f"index {self._index.name}: access gives keys of type {type(own).__name__}"
                    f" ({own!r:.40}), but {name} is {type(other).__name__} ({other!r:.40}); cast"
                    " one of them in its query"
                )

    def add(
        self, connection: Connection, rows: Sequence[Row], documents: Sequence[DocumentParts]
    ) -> None:
        """Add the groups of each row of key, columns and the groups' column, if any, to its
        document. Raises the driver's errors."""
        if (
            self._index.asks_database
        ):  # which is asked in each search; a caller who does not ask it sees nothing
            found: list[list[Any]] = [[] for _ in rows]
        elif (pairs := self.pairs(connection)) is None:
            found = [groups_of(row[self._place], self._index.access_separator) for row in rows]
        else:
            by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
            keys = [row[: self._width] for row in rows]
            for some in batches(keys):
                for pair in stream_rows(connection, self._select(connection, pairs, some)):
                    by_key[_typed_key(pair[: self._width])].append(pair)
            theirs = [by_key.get(_typed_key(key), ()) for key in keys]
            found = [groups_of([pair[self._width] for pair in some]) for some in theirs]
            if self.digest is not None:
                for document, some in zip(documents, theirs, strict=True):
                    for pair in some:
                        document.add_digest(*self.digest(pair))
        for document, groups in zip(documents, found, strict=True):
            document.groups = groups

    def _select(
        self, connection: Connection, pairs: RowsBeside, keys: Sequence[Row]
    ) -> Select[Any]:
        columns = [pairs.rows.c[name] for name in pairs.on]
        wanted = equals_any(columns, keys, connection.dialect.name)
        return sa.select(*pairs.read_columns, *self.digest_columns(pairs)).where(wanted)

    def pairs(self, connection: Connection) -> RowsBeside | None:
        """Return the pairs of key and group; None if no query says who may see a document. Raises
        SettingsError if the query has other columns."""
        if self._index.access_query is None or self._index.asks_database:
            return None
        if self._pairs is None:
            query = single_select(str(self._index.access_query), self._index.name)
            every: Select[Any] = sa.select(sa.literal_column("*")).select_from(
                query.columns().subquery("pairs")
            )
            names, _ = first_rows(connection, self._index, every, "the query of access", limit=0)
            if len(set(names)) != self._width + 1:
                wanted = ", ".join([*self._index.key_columns, "group"])
                raise SettingsError(
                    f"index {self._index.name}: the query of access gives {len(names)} columns"
                    f" ({', '.join(names)}); it should give {wanted}, each under a name of its own"
                )
            rows = query.columns(*[sa.column(name) for name in names]).subquery("pairs")
            self._pairs = RowsBeside(rows, names[:-1], self._index.key_columns, list(rows.c))
        return self._pairs


def _typed_key(key: Sequence[Any]) -> tuple[Any, ...]:
    """Return a key in a form that is equal for equal keys whatever the type of number; a number
    never equals a text."""
    return tuple(zip(map(_kind, key), comparable_key(key), strict=True))


def _kind(value: Any) -> str:
    kind = "number" if isinstance(value, int | float | decimal.Decimal) else type(value).__name__
    return "bytes" if isinstance(value, bytearray | memoryview) else kind
