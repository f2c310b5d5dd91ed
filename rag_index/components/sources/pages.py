"""Pages of a source: rows of a result, read until they are a page or as a stream, and the documents
that rows become. No table of long texts is held whole. A document has a key, a text, a payload, a
title, a link, and parts. A text that is not valid in the charset of its database is read as
`undecoded` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote
from uuid import UUID

import attrs
from sqlalchemy import func

from rag_index.components.chunking.text_chunker import shortened
from rag_index.components.sources.attachments import BETWEEN_FILES, FileReader, join_parts
from rag_index.components.sources.markup import visible, without_data
from rag_index.components.sources.secret_values import without_secrets
from rag_index.components.sources.text import NotText, is_rtf, read_text
from rag_index.components.sources.undecoded import Undecoded, readable
from rag_index.core.documents import batches
from rag_index.core.documents.canonical import (
    comparable_time,
    encode_payloads,
    hash_bytes,
    hash_text,
)
from rag_index.core.documents.groups import access_part
from rag_index.core.documents.keys import encode_keys
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.documents.text_languages import language_named
from rag_index.core.settings.parts import (
    ADDRESS,
    TEXT_FORMATS,
    JoinSettings,
    file_columns,
    read_template,
    split_name,
    template_columns,
)
from rag_index.errors import SourceError, SourceUnavailable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, CursorResult
    from sqlalchemy.sql.selectable import Select

    from rag_index.components.sources.buckets import PageBuckets
    from rag_index.core.documents.batches import DocumentBatch, Failure
    from rag_index.core.settings import IndexSettings

Row: TypeAlias = Sequence[Any]
"""The values of a row, in the order of the columns that were asked for."""
PAGE_CHARS = 4_000_000
"""A page ends with the row that brings it to this many characters. A page is in memory several
times (as rows, as documents, in shards), which is most of what the flow's process takes."""
FIRST_FETCHED = 8
FETCH_ROWS = 100
"""The most rows that are fetched at a time: long texts may follow short ones."""

STREAMED = {"stream_results": True, "max_row_buffer": FETCH_ROWS}
"""Rows are fetched from a server as they are read. SQLite does so anyway."""
MAX_LANGUAGE = 40
"""Characters of what a column says of a language that is not known."""
MAX_INLINE = 80
"""Inline parts of more characters stand in lines of their own."""
INVALID_TEXT = "holds a text that is not valid in the charset of its database: correct it there"
HEADING_CHARS = 100
"""How much of the first text of a document with parts is its title, if it has none."""


def read_page(
    result: CursorResult[Any], rows: int, fetch_rows: int = FETCH_ROWS
) -> tuple[list[Row], Row | None]:
    """Return the first rows, at most `rows`, and the row after them, which begins the next page;
    None at the end. At most `fetch_rows` rows are fetched at a time."""
    page: list[Row] = []
    chars, size = 0, min(FIRST_FETCHED, fetch_rows, rows + 1)
    while some := result.fetchmany(size):
        for row in some:
            if len(page) >= rows or chars >= PAGE_CHARS:
                return page, row
            page.append(row)
            chars += sum([len(value) for value in row if isinstance(value, str | bytes)])
        room = (PAGE_CHARS - chars) * len(page) // max(1, chars)  # rows of this mean length
        size = max(1, min(fetch_rows, room, rows + 1 - len(page)))
    return page, None


def stream_rows(
    connection: Connection, statement: Select[Any], fetch_rows: int = FETCH_ROWS
) -> Iterator[Row]:
    """Yield the rows of a statement as they are fetched. Raises the driver's errors, as
    `require_all`. The connection has to see one state of the database."""
    read = 0
    with connection.execute(statement, execution_options=STREAMED) as result:
        while some := result.fetchmany(fetch_rows):
            read += len(some)
            yield from some
    require_all(connection, statement, read)


def require_all(connection: Connection, statement: Select[Any], read: int) -> None:
    """Raise SourceUnavailable if a statement gave fewer rows than the database counts: they must
    not be taken for gone. A proxy, or a limit that is set for everybody, cuts results off without a
    word. Nothing does so within this process."""
    if connection.dialect.name == "sqlite":
        return
    if read < (counted := count_rows(connection, statement)):
        raise SourceUnavailable(
            f"the source gave {read:,} rows of a query that has {counted:,}, so nothing is"
            " concluded from it; look for a proxy, or a setting of the server or of the user, that"
            " limits results"
        )


def count_rows(connection: Connection, statement: Select[Any]) -> int:
    """Return how many rows a statement has, whatever its limit."""
    every = (
        statement.with_only_columns(func.count(), maintain_column_froms=True)
        .order_by(None)
        .limit(None)
    )
    return int(connection.scalar(every) or 0)


def read_columns(index: IndexSettings) -> list[str]:
    """Return the columns of a document that are read after its key, in the order in which rows have
    them."""
    known = [*index.text_columns, *index.payload]
    link = template_columns(index.link, "link")
    on = [column for part in index.parts for _, column in part.pairs(index.key_columns)]
    more = dict.fromkeys([*index.title_columns, *link, *on, *filter(None, [index.language_column])])
    return [*known, *[name for name in more if name not in known and name not in index.key_columns]]


class Composer:
    """Makes a text of the values of columns, as a setting says: one column, a list of columns, or a
    template."""

    def __init__(
        self,
        text: str | Sequence[str] | None,
        formats: Mapping[str, str] | None = None,
        *,
        strict: bool = False,
        without: str | None = None,
        not_secret: Sequence[str] = (),
    ) -> None:
        """Make a text as a setting says; a list leaves out the column `without`. If `strict`, a
        value of a column without a format has to be text. Secrets are masked, unless one of the
        columns is `not_secret`."""
        template = read_template(text)
        self.columns = [
            name for name in template_columns(text) if template is not None or name != without
        ]
        self._formats = [None if formats is None else formats.get(name) for name in self.columns]
        self._strict = strict
        self._masks = not {*self.columns} & {*not_secret}
        self._template = template
        self.is_plain = template is None and len(self.columns) == 1 and not any(self._formats)
        """Whether a text is the value of one column as it is."""

    def compose(self, values: Sequence[Any]) -> str:
        """Return the text of these values, without NUL characters; "" for white space alone. Raises
        NotText."""
        parts = [
            (
                value
                if form is None and type(value) is str and not is_rtf(value)
                else self._part(value, form, name)
            )
            for value, form, name in zip(values, self._formats, self.columns, strict=True)
        ]
        if self._template is None:
            return self.clean("\n".join(part for part in parts if part))
        if not any(part and not part.isspace() for part in parts):
            return ""
        found = dict(zip(self.columns, parts, strict=True))  # braces within a value have no meaning
        return self.clean(
            "".join(literal + found[name] if name else literal for literal, name in self._template)
        )

    def clean(self, text: str) -> str:
        """Return a text without invisible signs, addresses that are files, and secrets."""
        text = without_data(text)
        return clean(without_secrets(text) if self._masks else text)

    def _part(self, value: Any, form: str | None, name: str) -> str:
        if value is None or (form is not None and form not in TEXT_FORMATS):
            return ""
        if form is None and self._strict and not isinstance(value, dict | list | UUID):
            raise NotText(
                f"column {name!r} holds {type(value).__name__}, not text; cast it in a query, or"
                " give it a format"
            )
        try:
            return read_text(value, form or "plain")
        except NotText as error:
            raise NotText(f"column {name!r} {error}") from error


class LinkComposer:
    """Makes addresses of the values of columns."""

    def __init__(self, link: str | None) -> None:
        self.columns = template_columns(link, "link")
        self._template = read_template(link, "link") or []

    def compose(self, values: Sequence[Any]) -> str:
        """Return the address for these values of the columns; "" if there is none, or a value is
        missing. A value at the beginning is an address itself; one that is not of http or https
        makes none."""
        if any(value is None for value in values):
            return ""
        found = dict(zip(self.columns, map(str, values), strict=True))
        address = "".join(
            (
                literal + (quote(found[name], safe="") if literal or number else found[name])
                if name
                else literal
            )
            for number, (literal, name) in enumerate(self._template)
        )
        return address if ADDRESS.fullmatch(address) else ""


class PayloadMaker:
    """Puts the values of payload columns in their places: those of a join below its name."""

    def __init__(self, names: Sequence[str], joins: Mapping[str, JoinSettings]) -> None:
        self._places = [split_name(name, joins) for name in names]

    def payload(self, values: Sequence[Any]) -> dict[str, Any]:
        payload: dict[str, Any] = {}
        for (join, column), value in zip(self._places, values, strict=True):
            (payload if join is None else payload.setdefault(join, {}))[column] = value
        return payload

    def columns(self, columns: Sequence[Row]) -> tuple[list[str], list[Row]]:
        found: dict[str, Sequence[Any]] = {}
        of_joins: dict[str, dict[str, Sequence[Any]]] = {}
        for (join, column), values in zip(self._places, columns, strict=True):
            (found if join is None else of_joins.setdefault(join, {}))[column] = values
        for join, inner in of_joins.items():
            found[join] = [
                dict(zip(inner, values, strict=True))
                for values in zip(*inner.values(), strict=True)
            ]
        return list(found), list(found.values())


@shows_sizes()
@dataclass(slots=True)
class DocumentParts:
    """What is read of one document beside its row: all of its parts, in order, and who may see
    it."""

    parts: list[tuple[str, batches.TextPart]] = field(default_factory=list)
    """The text of each part that is chunked by itself, and what is known of it but its place."""
    files: list[batches.AttachedFile] = field(default_factory=list)
    inline: dict[str, list[str]] = field(default_factory=dict)
    """The texts that stand in that of the document, by what stands before them."""
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The values of payload columns of inline parts, by the name of the part and of the column."""
    failure: str = ""
    digest: tuple[int, int] = (0, 0)
    """The sums of both halves of the digests of the rows."""
    groups: Sequence[str] | None = None
    """The groups that may see the document; None for an index without `access`."""

    def add_digest(self, first: int, second: int) -> None:
        """Add the digest of a row of another table."""
        self.digest = self.digest[0] + first, self.digest[1] + second


NO_PARTS = DocumentParts()


class RowReader:
    """Converts rows of (key columns, `read_columns`, …) as the settings of an index say."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._key = f"index {index.name}: key {', '.join(index.key_columns)}"
        names = [*index.key_columns, *read_columns(index)]
        self.positions = {name: number for number, name in reversed(list(enumerate(names)))}
        """Where in a row a column is, for the first time if it is text and payload."""
        self._columns = len(names)
        plain_title = index.title if index.title in index.title_columns else None
        self._body = Composer(
            index.text, index.format, strict=True, without=plain_title, not_secret=index.not_secret
        )
        self._title = Composer(index.title, index.format, not_secret=index.not_secret)
        own = [name for name in index.text_columns if "." not in name]
        self._heads = index.title is None and any(not part.inline for part in index.parts)
        self._says_what = any(index.format.get(name) != "json" for name in own)
        self._link = LinkComposer(index.link)
        self._payload = PayloadMaker(index.payload, index.joins)
        self._payload_start = self._width + len(index.text_columns)
        self._end = self._payload_start + len(index.payload)
        self.files = FileReader(index) if index.has_files else None
        self._file_places = {name: self.positions[name] for name in file_columns(index.format)}
        self._shown_places = self._places_shown(names)
        """Where a row has the columns that become text, payload, title, link and language of a
        document."""
        self._divided = (
            index.title is not None or bool(index.parts) or index.language_column is not None
        )

    def _places_shown(self, names: Sequence[str]) -> dict[int, str]:
        """Return the names of the columns that a document shows, by their places in a row with
        these columns."""
        index = self._index
        shown = {
            *index.text_columns,
            *index.payload,
            *index.title_columns,
            *self._link.columns,
            index.language_column,
        }
        # a file is read as bytes, but its name is a text
        files = set(self._file_places) if index.files is None else set[str]()
        of_documents = list(enumerate(names))[self._width :]
        return {place: name for place, name in of_documents if name in shown - files}

    def read(
        self, rows: Sequence[Row], parts: Sequence[DocumentParts], *, any_text: bool = False
    ) -> tuple[batches.DocumentBatch, list[batches.Failure]]:
        """Return the documents of these rows, in order, and the failures of those whose text is not
        text. `parts` are those of each row; the groups among them become a part of the payload.
        With `any_text`, texts may be `Undecoded`. Raises SourceError if a value cannot be a key."""
        failures: dict[int, str] = {}
        if any_text:
            rows = [self._readable_row(number, row, failures) for number, row in enumerate(rows)]
        columns: list[Row] = list(zip(*rows, strict=True)) or [()] * self._columns
        try:
            keys = encode_keys(columns[: self._width])
        except SourceError as error:
            raise SourceError(f"{self._key}: {error}") from error
        texts = self._texts(self._body, columns, len(rows), failures)
        titles = self._texts(self._title, columns, len(rows), failures)
        if self._title.columns:
            titles = [" ".join(title.split()) for title in titles]
        elif self._heads:
            titles = [
                _heading(text if self._says_what else "", one)
                for text, one in zip(texts, parts, strict=True)
            ]
        payloads = self._payloads(columns, titles, self._links(rows), parts)
        layouts: list[bytes] = []
        if self._divided:
            divided = [
                _divide(*one)
                for one in zip(texts, titles, parts, self._languages(rows), strict=True)
            ]
            texts, layouts = [text for text, _ in divided], [layout for _, layout in divided]
        # the hash of a text covers how it is divided
        hashed = [
            f"{text}\0{layout.decode()}" if layout else text
            for text, layout in zip_longest(texts, layouts)
        ]
        files = (
            [self._files_of(row, one) for row, one in zip(rows, parts, strict=True)]
            if self.files
            else []
        )
        for number, some in enumerate(files):
            hashed[number] += "".join(f"\0{_all_of(file.part)} {file.stamp}" for file in some)
        hashes = list(map(hash_text, hashed)), list(map(hash_bytes, payloads))
        batch = batches.DocumentBatch(keys, texts, payloads, *hashes, layouts, files)
        if not failures:
            return batch, []
        unreadable = [
            batches.Failure(keys[number], reason) for number, reason in sorted(failures.items())
        ]
        return (
            batch.take([number for number in range(len(rows)) if number not in failures]),
            unreadable,
        )

    def _readable_row(self, number: int, row: Row, failures: dict[int, str]) -> Row:
        """Return a row with its texts decoded. A text that cannot be decoded is noted as the
        document's failure."""
        values = list(row)
        for place, name in enumerate(self._index.key_columns):
            if isinstance(values[place], Undecoded):  # the key becomes {"bytes": "4bf66c6e"}
                failures.setdefault(number, invalid_key(name))
        for place, name in self._shown_places.items():
            values[place] = readable(values[place])
            if isinstance(values[place], Undecoded):
                values[place] = None
                failures.setdefault(number, f"column {name!r} {INVALID_TEXT}")
        return values

    def _texts(
        self, composer: Composer, columns: Sequence[Row], rows: int, failures: dict[int, str]
    ) -> list[str]:
        """Return the text of each row, and note those that have none. The usual case, one column of
        texts, is fast."""
        if not composer.columns:
            return [""] * rows
        found = [columns[self.positions[name]] for name in composer.columns]
        if composer.is_plain and set(map(type, found[0])) <= {str, type(None)}:
            return [
                composer.clean(read_text(value) if is_rtf(value) else value) if value else ""
                for value in found[0]
            ]
        texts = []
        for number, values in enumerate(zip(*found, strict=True)):
            try:
                texts.append(composer.compose(values))
            except NotText as error:
                failures.setdefault(number, str(error))
                texts.append("")
        return texts

    def keep_files(self, row: Row) -> Sequence[Any]:
        places, files = self._file_places.values(), self.files
        return (
            [files.keep(one) if n in places else one for n, one in enumerate(row)]
            if files and places
            else row
        )

    def _files_of(self, row: Row, parts: DocumentParts) -> list[batches.AttachedFile]:
        own = [
            self.files.take(
                row[place], self._index.format[name], batches.TextPart(0, 0, name, "", "", {})
            )
            for name, place in self._file_places.items()
            if self.files
        ]
        return [*filter(None, own), *parts.files]

    def _languages(self, rows: Sequence[Row]) -> list[str]:
        place = self.positions.get(self._index.language_column or "")
        if place is None:
            return [""] * len(rows)
        values = [row[place] for row in rows]
        return [
            language_named(one) or str(one).strip()[:MAX_LANGUAGE] if one is not None else ""
            for one in values
        ]

    def _links(self, rows: Sequence[Row]) -> list[str]:
        places = [self.positions[name] for name in self._link.columns]
        return [
            self._link.compose([row[place] for place in places]) if places else "" for row in rows
        ]

    def _payloads(
        self,
        columns: Sequence[Row],
        titles: Sequence[str],
        links: Sequence[str],
        parts: Sequence[DocumentParts],
    ) -> list[bytes]:
        names, values = self._payload.columns(columns[self._payload_start : self._end])
        times = {name for name, kind in self._index.indexed_fields.items() if kind == "datetime"}
        values = [
            list(map(comparable_time, some)) if name in times else some
            for name, some in zip(names, values, strict=True)
        ]
        for part in self._index.parts:
            if part.inline and part.payload:
                names.append(part.label)
                values.append([one.fields.get(part.label) for one in parts])
        index = self._index
        if self._heads or any(one is not None for one in (index.access, index.title, index.link)):
            names.append(batches.RESERVED_KEY)
            ours = []
            for one, title, link in zip(parts, titles, links, strict=True):
                shown: dict[str, Any] = {
                    name: value
                    for name, value in ((batches.TITLE, title), (batches.LINK, link))
                    if value
                }
                ours.append(shown if one.groups is None else {**access_part(one.groups), **shown})
            values.append(ours)
        return encode_payloads(names, values, len(parts))


def invalid_key(name: str) -> str:
    """Return why a document with such a value in this column of its key is not indexed."""
    return f"key column {name!r} {INVALID_TEXT}; the key shows its bytes in hexadecimal"


def clean(text: str) -> str:
    """Return a text without invisible signs, with a space for NUL, which ends a text in C; "" for
    white space alone."""
    text = visible(text.replace("\0", " "))
    return text if not text.isspace() else ""


def _heading(body: str, parts: DocumentParts) -> str:
    first = " ".join((body or parts.parts[0][0]).split()) if parts.parts else ""
    return shortened(first, HEADING_CHARS)


def _divide(body: str, title: str, parts: DocumentParts, language: str) -> tuple[str, bytes]:
    """Return the whole text of a document, and its layout: its own text, inline parts, and then the
    other parts."""
    paragraphs = [body] if body else []
    for name, texts in parts.inline.items():  # in one line after their name, unless they are long
        long = any("\n" in text or len(text) > MAX_INLINE for text in texts)
        heading, between = (f"{name}:\n", "\n") if long else (f"{name}: ", ", ")
        paragraphs.append((heading if name else "") + between.join(texts))
    own = BETWEEN_FILES.join(paragraphs)
    if not own and not parts.parts:
        own = title
    whole, found = join_parts(own, parts.parts)
    if not title and not found and not parts.failure and not (language and own):
        return own, batches.NO_LAYOUT
    return whole, batches.TextLayout(title, len(own), found, parts.failure, language).encode()


def _all_of(part: batches.TextPart) -> str:
    """Return the words that stand for a part in the hash of its document. They never change, and
    name every field."""
    fields = ", ".join(f"{name}={value!r}" for name, value in zip(part._fields, part, strict=True))
    return f"TextPart({fields})"


@shows_sizes("documents")
@attrs.frozen
class SourcePage:
    """A page of documents, the cursor of the next page, and the documents whose text cannot be
    read."""

    documents: DocumentBatch
    cursor: Any
    """The argument for the next call of `page`; None after the last page."""
    unreadable: list[Failure] = attrs.Factory(list)
    unread: list[str] = attrs.Factory(list)
    """Keys of documents that the source has but did not read, because they have not changed (see
    `ScanState`)."""
    stamps: dict[str, str] = attrs.Factory(dict)
    """Stamps, by key, of the documents that were read. The next scan passes its stamps to
    `ScanState.unchanged`."""
    buckets: PageBuckets | None = None
    """The buckets of the rows that were read, of a source with digests (`sources.digest`)."""
    groups: Mapping[str, Sequence[str]] = attrs.Factory(dict)
    """The groups that may see the unreadable documents, by key: an earlier state of them may be in
    the index."""
