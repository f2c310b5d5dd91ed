"""The parts of documents, such as the comments of tickets: one query for each of their tables and page of documents.

Rows are read as a stream, and matched with documents here. If the parts of a page have more characters than a page may
have, the page gets fewer documents. So what is in memory is bounded, unless one document alone has more.
"""

from __future__ import annotations

import decimal
import math
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.documents.keys import document_id, encode_key
from rag_index.settings.parts import split_name
from rag_index.sources.checks import check_rows
from rag_index.sources.lookup import VALUES
from rag_index.sources.pages import FETCH_ROWS, PAGE_CHARS, STREAMED
from rag_index.sources.rows import LinkComposer, PayloadMaker, part_composer
from rag_index.sources.statement import Untyped, any_untyped
from rag_index.sources.tables import looked_up, part_from
from rag_index.sources.text import NotText, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings
    from rag_index.settings.parts import PartSettings

MAX_PARAMETERS = 30_000
"""The values that one query compares with: databases limit them."""


class PartText(NamedTuple):
    """A part that is chunked by itself."""

    text: str
    name: str
    id: str
    link: str
    payload: dict[str, Any]


@dataclass(slots=True)
class DocumentParts:
    """All parts of one document, in order."""

    parts: list[PartText] = field(default_factory=list)
    inline: dict[str, list[str]] = field(default_factory=dict)
    """The texts that stand in that of the document, by what stands before them."""
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The values of payload columns of inline parts, by the name of the part and of the column."""
    failure: str = ""
    """Why a part of the document cannot be read; the first one that cannot."""
    digest: tuple[int, int] = (0, 0)
    """The sums of both halves of the digests of the rows."""


class TooLong(Exception):
    """The parts of some documents are too long for one page; the first `documents` of these may fit."""

    def __init__(self, documents: int) -> None:
        super().__init__(documents)
        self.documents = documents


class PartRows:
    """Reads the rows of one table of parts, and adds them to documents."""

    def __init__(self, part: PartSettings, index: IndexSettings, *, filtered: bool = True) -> None:
        self._part = part
        self.label = part.label
        pairs = part.pairs(index.key_columns)
        self.on = [column for column, _ in pairs]
        """The columns of the part that are compared."""
        self.of_document = [column for _, column in pairs]
        """The columns of the document that have the same values."""
        self.rows: FromClause = part_from(part, index, filtered=filtered)
        self._composer = part_composer(part)
        self._link = LinkComposer(part.link)
        self._payload = PayloadMaker(part.payload, part.joins)
        order = [name for name, _ in part.order]
        groups = [self.on, part.key_columns, self._composer.columns, part.payload, self._link.columns, order]
        self.columns = [name for group in groups for name in group]
        """The columns that are read."""
        ends = [sum(map(len, groups[: number + 1])) for number in range(len(groups))]
        self._on, self._key, self._text, self._fields, self._links, _ = (
            slice(end - len(group), end) for end, group in zip(ends, groups, strict=True)
        )

    def select(self, *more: sa.ColumnElement[Any]) -> Select[Any]:
        """Return the rows of the part, and more columns of them; none whose value to compare with is NULL."""
        known = [self.rows.c[name].is_not(None) for name in self.on]
        return sa.select(*[self.rows.c[name] for name in self.columns], *more).where(*known)

    def order(self) -> list[sa.ColumnElement[Any]]:
        """Return the order of the rows: that of the settings within each document, with the least first, NULL last.

        Rows that the settings leave without an order are ordered by all that is read of them.
        """
        columns = self.rows.c
        order: list[sa.ColumnElement[Any]] = [columns[name] for name in self.on]
        for name, descending in self._part.order:
            order += [columns[name].is_(None), columns[name].desc() if descending else columns[name]]
        last = self._part.key_columns or list(dict.fromkeys(self.columns))
        text = self._part.key_columns == []
        return order + [sa.cast(columns[name], sa.Text) if text else columns[name] for name in last]

    def add(self, row: Sequence[Any], documents: Iterable[DocumentParts]) -> int:
        """Add a row to the documents that it belongs to, and return how many characters that are."""
        chars = 0
        try:
            text = self._composer.compose(row[self._text])
        except NotText as error:
            for document in documents:
                document.failure = document.failure or f"{self._name(row)}: {error}"
            return 0
        payload = self._payload.payload(row[self._fields])
        if self._part.inline:
            for document in documents:
                self._add_inline(document, text, payload)
                chars += len(text)
            return chars
        if not text.strip():
            return 0
        link = self._link.compose(dict(zip(self._link.columns, row[self._links], strict=True)))
        found = PartText(text.strip(), self._part.label, self._id(row), link, payload)
        for document in documents:
            document.parts.append(found)
            chars += len(text)
        return chars

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of a row that are compared, in a form that is equal for equal ones."""
        return comparable_key(row[self._on])

    def _add_inline(self, document: DocumentParts, text: str, payload: Mapping[str, Any]) -> None:
        _gather(document.fields.setdefault(self._part.label, {}), payload)
        if text.strip():
            document.inline.setdefault(self._part.name, []).append(text.strip())

    def _id(self, row: Sequence[Any]) -> str:
        key = row[self._key]
        return document_id(encode_key(key)) if key and None not in key else ""

    def _name(self, row: Sequence[Any]) -> str:
        return " ".join(filter(None, ["part", self._part.label, self._id(row)]))


class PartsReader:
    """Reads all parts of the documents of a page."""

    def __init__(self, index: IndexSettings, positions: Mapping[str, int], digests: PartDigests | None = None) -> None:
        """Read the parts of rows that have the columns of documents at these positions."""
        self.tables = [PartRows(part, index) for part in index.parts]
        self._positions = positions
        self.digests = digests

    def check(self, connection: Connection, index: IndexSettings, row: Sequence[Any] | None) -> None:
        """Check that the queries of parts can be run, also for the values of a row of documents, if there is one.

        Raises:
            SettingsError: one cannot.
        """
        for table in self.tables:
            what = f"the query of part {table.label!r}"
            check_rows(connection, index, table.select(), what)
            values = [] if row is None else [row[self._positions[name]] for name in table.of_document]
            if values and None not in values:
                for statement in self._statements(connection, table, [values]):
                    check_rows(connection, index, statement, what)

    def read_fitting(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[DocumentParts]:
        """Return the parts of the first of these rows, of as many as are no longer than a page, and at least of one.

        Raises the driver's errors.
        """
        count = len(rows)
        while True:
            try:
                return self.read(connection, rows[:count], max_chars=PAGE_CHARS)
            except TooLong as error:
                count = max(1, min(error.documents, count - 1))

    def read(
        self, connection: Connection, rows: Sequence[Sequence[Any]], *, max_chars: int | None = None
    ) -> list[DocumentParts]:
        """Return the parts of each row. Those of a single row are read however long they are.

        Raises TooLong if they have more than `max_chars`, and the driver's errors.
        """
        documents = [DocumentParts() for _ in rows]
        chars, limit = 0, max_chars if len(rows) > 1 else None
        for table in self.tables:
            places = [self._positions[name] for name in table.of_document]
            owners = _Owners([[row[place] for place in places] for row in rows])
            statements = self._statements(connection, table, owners.values)
            for row in (row for statement in statements for row in stream_rows(connection, statement)):
                found = owners.find(table.key_of(row))
                chars += table.add(row, [documents[position] for position in found])
                if self.digests is not None:
                    for position in found:
                        documents[position].digest = self.digests.plus(documents[position].digest, row)
                if limit is not None and chars > limit:
                    raise TooLong(min(found))
        return documents

    def _statements(
        self, connection: Connection, table: PartRows, values: Sequence[Sequence[Any]]
    ) -> Iterator[Select[Any]]:
        """Yield the queries for the rows with these values: one, unless the database would refuse as many values."""
        more = [] if self.digests is None else self.digests.columns(table)
        statement = table.select(*more).order_by(*table.order())
        columns = [table.rows.c[name] for name in table.on]
        size = MAX_PARAMETERS // len(columns)
        for first in range(0, len(values), size):
            some = values[first : first + size]
            if connection.dialect.name == "postgresql":  # it reads a text as the type of the column, but no number
                some = [[str(value) if type(value) is int else value for value in one] for one in some]
            if len(columns) == 1:
                yield statement.where(columns[0].in_(any_untyped([value for [value] in some])))
            else:
                yield statement.where(sa.tuple_(*columns, types=[Untyped()] * len(columns)).in_(list(map(tuple, some))))


def owners_of(
    connection: Connection, part: PartSettings, index: IndexSettings, column: str, values: Sequence[Any]
) -> Iterator[Sequence[Any]]:
    """Yield which documents have, or may have had, a row of a part with one of these values in a column.

    These are values of the columns of documents that `part.pairs` names, and may occur several times. Where the row may
    be deleted, and a join says which document it belonged to, the row of the join is asked as well. Raises the driver's
    errors.
    """
    table = PartRows(part, index, filtered=False)
    places = [split_name(name, part.joins) for name in table.on]
    asked = [(table.rows, column, table.on, values)]
    [join, *others] = {join for join, _ in places}
    if join is not None and not others:
        settings, names = part.joins[join], [name for _, name in places]
        for (own, other), prefix in zip(settings.pairs, settings.prefixes, strict=True):
            if other == column:
                columns: list[sa.ColumnClause[Any]] = [sa.column(one) for one in dict.fromkeys([own, *names])]
                joined: FromClause = sa.table(settings.table, *columns, schema=settings.db_schema)
                asked.append((joined, own, names, _after(prefix, values) if prefix else values))
    for rows, name, wanted, some in asked:
        known = [rows.c[one].is_not(None) for one in wanted]
        for first in range(0, len(some), VALUES):
            condition = looked_up(rows, name).in_(any_untyped(some[first : first + VALUES]))
            yield from stream_rows(connection, sa.select(*[rows.c[one] for one in wanted]).where(condition, *known))


def _after(prefix: str, values: Sequence[Any]) -> list[int]:
    """Return the numbers that follow a text in those values that begin with it, as `number_after` does."""
    texts = [
        bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
        for value in values
    ]
    return [int(found[1]) for text in texts if (found := re.match(re.escape(prefix) + r"(\d{1,18})", text))]


class PartDigests(Protocol):
    """Computes the digests of parts; see `sources.digest`."""

    def columns(self, table: PartRows) -> list[sa.ColumnElement[Any]]:
        """Return the columns that are read beside those of the part."""

    def plus(self, digest: tuple[int, int], row: Sequence[Any]) -> tuple[int, int]:
        """Return a sum of digests with that of a row more."""


class _Owners:
    """Finds the documents that have some values, as the database compares them."""

    def __init__(self, values: Sequence[Sequence[Any]]) -> None:
        """Find documents by their values; those with a NULL among them have no parts."""
        self._exact: dict[tuple[Any, ...], list[int]] = {}
        self._folded: dict[tuple[Any, ...], list[int]] = {}
        distinct: dict[tuple[Any, ...], Sequence[Any]] = {}
        for number, some in enumerate(values):
            if None not in some:
                key = comparable_key(some)
                distinct.setdefault(key, some)
                self._exact.setdefault(key, []).append(number)
                self._folded.setdefault(_folded(key), []).append(number)
        self.values = list(distinct.values())

    def find(self, key: tuple[Any, ...]) -> list[int]:
        """Return the documents with these values; where none is equal, with those that differ in case alone."""
        return self._exact.get(key) or self._folded.get(_folded(key), [])


def _gather(lists: dict[str, Any], payload: Mapping[str, Any]) -> None:
    """Add the values of a payload to lists of values, those of joins below their names."""
    for name, value in payload.items():
        if isinstance(value, dict) and isinstance(inner := lists.setdefault(name, {}), dict):
            _gather(inner, value)
        else:
            lists.setdefault(name, []).append(value)


def comparable_key(values: Sequence[Any]) -> tuple[str, ...]:
    """Return values in a form that is equal for values that a database takes for equal, whatever their types."""
    return tuple(map(_comparable, values))


def _comparable(value: Any) -> str:
    if isinstance(value, float | decimal.Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _folded(key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value.casefold().rstrip(" ") for value in key)


def stream_rows(connection: Connection, statement: Select[Any]) -> Iterator[Sequence[Any]]:
    """Yield the rows of a statement as they are fetched. Raises the driver's errors.

    If a text of SQLite is not UTF-8, it is given as `replace_invalid` does.
    """
    count = 0
    try:
        with connection.execute(statement, execution_options=STREAMED) as result:
            while some := result.fetchmany(FETCH_ROWS):
                for row in some:
                    yield row
                    count += 1
        return
    except exc.OperationalError as error:
        if "decode to UTF-8" not in str(error.orig):
            raise
    with invalid_text(connection), connection.execute(statement) as result:
        for number, row in enumerate(result):
            if number >= count:
                yield tuple(map(replace_invalid, row))


@contextmanager
def invalid_text(connection: Connection) -> Iterator[None]:
    """Let SQLite give bytes that are not UTF-8 as surrogates, which `replace_invalid` replaces."""
    driver: Any = connection.connection.driver_connection
    driver.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = str


def replace_invalid(value: Any) -> Any:
    """Return a text of SQLite whose bytes are not UTF-8 as what it is in the charset that it looks like.

    If they are no text in any, the result is the bytes.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        with suppress(NotText):
            return read_text(raw)
        return raw
