"""Pages of a source: rows of a result, and the documents that rows become.

Rows are read until they make up a page, or as a stream, so that no table of long texts is in memory
at once. A document has a key, a text, a payload, a title, a link, and parts. A text that is not
valid in the charset of its database is read as `undecoded` describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
"""The values of a row, in the order of the selected columns."""
PAGE_CHARS = 4_000_000
"""A page ends with the row that brings it to this many characters. A page is in memory several
times (as rows, as documents, in shards), which is most of the memory of the flow's process."""
FIRST_FETCHED = 8
"""Rows that are fetched first, to learn their length. Chosen; nothing depends on it."""
FETCH_ROWS = 100
"""The most rows that are fetched at a time: long texts may follow short ones. Chosen; nothing
depends on it."""
STREAMED = {"stream_results": True, "max_row_buffer": FETCH_ROWS}
"""Rows are fetched from a server as they are read. SQLite does so anyway."""
MAX_LANGUAGE = 40
"""Characters of an unknown value of the language column that are stored. Chosen; nothing depends on
it."""
MAX_INLINE = 80
"""Inline parts of more characters stand in lines of their own. Chosen; nothing depends on it."""
INVALID_TEXT = "holds a text that is not valid in the charset of its database: correct it there"
HEADING_CHARS = 100
"""Characters of the first text of a document with parts that become its title, if it has none.
Chosen; nothing depends on it."""


def read_page(
    result: CursorResult[Any], rows: int, fetch_rows: int = FETCH_ROWS
) -> tuple[list[Row], Row | None]:
    """Return the rows of a page, at most `rows`, and the row after them, with which the next page
    begins; None at the end. At most `fetch_rows` rows are fetched at a time."""
    page: list[Row] = []
    chars = 0
    size = min(FIRST_FETCHED, fetch_rows, rows + 1)
    while fetched := result.fetchmany(size):
        for row in fetched:
            if len(page) >= rows or chars >= PAGE_CHARS:
                return page, row
            page.append(row)
            chars += sum([len(value) for value in row if isinstance(value, str | bytes)])
        # How many rows still fit into the page, if they have the mean length of those so far.
        fitting_rows = (PAGE_CHARS - chars) * len(page) // max(1, chars)
        size = max(1, min(fetch_rows, fitting_rows, rows + 1 - len(page)))
    return page, None


def stream_rows(
    connection: Connection, statement: Select[Any], fetch_rows: int = FETCH_ROWS
) -> Iterator[Row]:
    """Yield the rows of a statement as they are fetched.

    The connection must see one state of the database. Raises the driver's errors, and as
    `require_all`.
    """
    read = 0
    with connection.execute(statement, execution_options=STREAMED) as result:
        while fetched := result.fetchmany(fetch_rows):
            read += len(fetched)
            yield from fetched
    require_all(connection, statement, read)


def require_all(connection: Connection, statement: Select[Any], read: int) -> None:
    """Check that a statement returned as many rows as the database counts.

    A proxy, or a limit of the server for everybody, may cut results off without an error. The
    missing rows must not count as deleted.

    Raises:
        SourceUnavailable: There were fewer.
    """
    # SQLite runs within this process, where nothing cuts results off.
    if connection.dialect.name == "sqlite":
        return
    counted = count_rows(connection, statement)
    if read < counted:
        raise SourceUnavailable(
            f"the source gave {read:,} rows of a query that has {counted:,}, so nothing is"
            " concluded from it; look for a proxy, or a setting of the server or of the user, that"
            " limits results"
        )


def count_rows(connection: Connection, statement: Select[Any]) -> int:
    """Return how many rows a statement has, whatever its limit."""
    count = statement.with_only_columns(func.count(), maintain_column_froms=True)
    count = count.order_by(None).limit(None)
    return int(connection.scalar(count) or 0)


def read_columns(index: IndexSettings) -> list[str]:
    """Return the columns of a document that are read after its key, in the order in which rows have
    them."""
    columns = [*index.text_columns, *index.payload]
    more = [*index.title_columns, *template_columns(index.link, "link")]
    for part in index.parts:
        more += [column for _, column in part.pairs(index.key_columns)]
    if index.language_column:
        more.append(index.language_column)
    # Texts and payload may name a column twice; the others are read only if nothing else has them.
    known = {*columns, *index.key_columns}
    for name in more:
        if name not in known:
            known.add(name)
            columns.append(name)
    return columns


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
        """Prepare to compose texts.

        Args:
            text: The setting.
            formats: The formats of columns, by name.
            strict: Whether the value of a column without a format must be text.
            without: A column that a list of columns leaves out.
            not_secret: Columns without secrets. If the text has one of them, nothing is masked.
        """
        self._template = template = read_template(text)
        self.columns = template_columns(text)
        if template is None:
            self.columns = [name for name in self.columns if name != without]
        self._formats = [None if formats is None else formats.get(name) for name in self.columns]
        self._strict = strict
        self._masks = set(self.columns).isdisjoint(not_secret)
        self.is_plain = template is None and len(self.columns) == 1 and not any(self._formats)
        """Whether a text is the value of one column as it is."""

    def compose(self, values: Sequence[Any]) -> str:
        """Return the text of these values, without NUL characters; "" for white space alone.

        Raises:
            NotText: A value is no text.
        """
        parts: list[str] = []
        for value, form, name in zip(values, self._formats, self.columns, strict=True):
            # The usual case, a text without a format, is fast.
            if form is None and type(value) is str and not is_rtf(value):
                parts.append(value)
            else:
                parts.append(self._part(value, form, name))
        # A column or a list of columns, each in a line of its own.
        if self._template is None:
            return self.clean("\n".join([part for part in parts if part]))
        # A template, such as "{name}: {body}". It has no text without a value.
        if not any(part and not part.isspace() for part in parts):
            return ""
        # The values are not parsed again: braces within one have no meaning.
        found = dict(zip(self.columns, parts, strict=True))
        text = ""
        for literal, column in self._template:
            text += literal
            if column:
                text += found[column]
        return self.clean(text)

    def clean(self, text: str) -> str:
        """Return a text without invisible characters, URLs that contain a file, and secrets."""
        text = without_data(text)
        return clean(without_secrets(text) if self._masks else text)

    def _part(self, value: Any, form: str | None, name: str) -> str:
        """Return the text of a value; "" for NULL and for a file, which is read by itself."""
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
    """Makes links of the values of columns."""

    def __init__(self, link: str | None) -> None:
        self.columns = template_columns(link, "link")
        self._template = read_template(link, "link") or []

    def compose(self, values: Sequence[Any]) -> str:
        """Return the link for these values of the columns.

        It is "" without a link in the settings, if a value is missing, and if the result is no URL
        of http or https.
        """
        if any(value is None for value in values):
            return ""
        found = dict(zip(self.columns, map(str, values), strict=True))
        link = ""
        for number, (literal, name) in enumerate(self._template):
            link += literal
            if not name:
                continue
            # A value at the beginning, as in "{url}", is a URL itself. Others are parts of one.
            is_first = number == 0 and not literal
            link += found[name] if is_first else quote(found[name], safe="")
        return link if ADDRESS.fullmatch(link) else ""


class PayloadMaker:
    """Puts the values of payload columns in their places: those of a join below its name."""

    def __init__(self, names: Sequence[str], joins: Mapping[str, JoinSettings]) -> None:
        self._places = [split_name(name, joins) for name in names]

    def payload(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the payload of one row, such as {"state": 1, "customer": {"name": "Ann"}}."""
        payload: dict[str, Any] = {}
        for (join, column), value in zip(self._places, values, strict=True):
            inside = payload if join is None else payload.setdefault(join, {})
            inside[column] = value
        return payload

    def columns(self, columns: Sequence[Row]) -> dict[str, Sequence[Any]]:
        """Return the values of all rows by the fields of their payloads; a join is one field."""
        found: dict[str, Sequence[Any]] = {}
        of_joins: dict[str, dict[str, Sequence[Any]]] = {}
        for (join, column), values in zip(self._places, columns, strict=True):
            inside = found if join is None else of_joins.setdefault(join, {})
            inside[column] = values
        for join, inner in of_joins.items():
            rows = zip(*inner.values(), strict=True)
            found[join] = [dict(zip(inner, values, strict=True)) for values in rows]
        return found


@shows_sizes()
@dataclass(slots=True)
class DocumentParts:
    """What belongs to one document beside its row: all of its parts, in order, and the groups that
    may see it."""

    parts: list[tuple[str, batches.TextPart]] = field(default_factory=list)
    """The text of each part that is chunked by itself, and its fields; their place in the document
    is not known yet."""
    files: list[batches.AttachedFile] = field(default_factory=list)
    inline: dict[str, list[str]] = field(default_factory=dict)
    """The texts of parts that stand in the document's own text, by the name before them."""
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The values of payload columns of inline parts, by the name of the part and of the column."""
    failure: str = ""
    """Why the document fails; "" if it does not."""
    digest: tuple[int, int] = (0, 0)
    """The sums of both halves of the digests of the rows."""
    groups: Sequence[str] | None = None
    """The groups that may see the document; None for an index without `access`."""

    def add_digest(self, first: int, second: int) -> None:
        """Add the digest of a row of another table."""
        first_sum, second_sum = self.digest
        self.digest = first_sum + first, second_sum + second


NO_PARTS = DocumentParts()


class RowReader:
    """Converts rows of (key columns, `read_columns`, …) as the settings of an index say."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._key = f"index {index.name}: key {', '.join(index.key_columns)}"
        names = [*index.key_columns, *read_columns(index)]
        self.positions: dict[str, int] = {}
        """Where in a row a column is; the first place of one that is text and payload."""
        for place, name in enumerate(names):
            self.positions.setdefault(name, place)
        self._columns = len(names)
        plain_title = index.title if index.title in index.title_columns else None
        self._body = Composer(
            index.text, index.format, strict=True, without=plain_title, not_secret=index.not_secret
        )
        self._title = Composer(index.title, index.format, not_secret=index.not_secret)
        own = [name for name in index.text_columns if "." not in name]
        has_parts = any(not part.inline for part in index.parts)
        self._has_heading = index.title is None and has_parts
        """Whether the beginning of the text is the title: chunks of parts need one."""
        self._heading_of_text = any(index.format.get(name) != "json" for name in own)
        """Whether that is the document's own text. It is no title if all of it is JSON."""
        self._link = LinkComposer(index.link)
        self._payload = PayloadMaker(index.payload, index.joins)
        self._payload_start = self._width + len(index.text_columns)
        self._payload_end = self._payload_start + len(index.payload)
        self.files = FileReader(index) if index.has_files else None
        self._file_places = {name: self.positions[name] for name in file_columns(index.format)}
        self._shown_places = self._places_shown(names)
        """The names of the columns that become text, payload, title, link and language of a
        document, by their places in a row."""
        self._has_layout = (
            index.title is not None or bool(index.parts) or index.language_column is not None
        )

    def _places_shown(self, names: Sequence[str]) -> dict[int, str]:
        """Return the names of the columns that a document shows, by their places in a row with
        these columns."""
        index = self._index
        shown = {*index.text_columns, *index.payload, *index.title_columns, *self._link.columns}
        if index.language_column is not None:
            shown.add(index.language_column)
        # A file is read as bytes; the name of a file is a text.
        if index.files is None:
            shown -= self._file_places.keys()
        of_documents = list(enumerate(names))[self._width :]
        return {place: name for place, name in of_documents if name in shown}

    def read(
        self, rows: Sequence[Row], parts: Sequence[DocumentParts], *, any_text: bool = False
    ) -> tuple[batches.DocumentBatch, list[batches.Failure]]:
        """Return the documents of these rows, in order, and the failures of those whose text is not
        text.

        Args:
            parts: The parts and groups of each row. Groups become a part of the payload.
            any_text: Whether texts may be `Undecoded`.

        Raises:
            SourceError: A value cannot be a key.
        """
        failures: dict[int, str] = {}
        if any_text:
            rows = [self._readable_row(number, row, failures) for number, row in enumerate(rows)]
        columns: list[Row] = list(zip(*rows, strict=True)) or [()] * self._columns
        try:
            keys = encode_keys(columns[: self._width])
        except SourceError as error:
            raise SourceError(f"{self._key}: {error}") from error
        texts = self._texts(self._body, columns, len(rows), failures)
        titles = self._titles(columns, texts, parts, failures)
        payloads = self._payloads(columns, titles, self._links(rows), parts)
        layouts: list[bytes] = []
        hashed = texts
        if self._has_layout:
            texts, layouts = self._divided(texts, titles, parts, self._languages(rows))
            hashed = _with_layouts(texts, layouts)
        files: list[list[batches.AttachedFile]] = []
        if self.files is not None:
            for row, beside in zip(rows, parts, strict=True):
                files.append([*self._own_files(self.files, row), *beside.files])
            hashed = _with_files(hashed, files)
        text_hashes = list(map(hash_text, hashed))
        payload_hashes = list(map(hash_bytes, payloads))
        batch = batches.DocumentBatch(
            keys, texts, payloads, text_hashes, payload_hashes, layouts, files
        )
        if not failures:
            return batch, []
        unreadable: list[batches.Failure] = []
        for number, reason in sorted(failures.items()):
            unreadable.append(batches.Failure(keys[number], reason))
        readable_rows = [number for number in range(len(rows)) if number not in failures]
        return batch.take(readable_rows), unreadable

    def _readable_row(self, number: int, row: Row, failures: dict[int, str]) -> Row:
        """Return a row with its texts decoded. A text that cannot be decoded is recorded as the
        document's failure."""
        values = list(row)
        for place, name in enumerate(self._index.key_columns):
            # The key becomes {"bytes": "4bf66c6e"}.
            if isinstance(values[place], Undecoded):
                failures.setdefault(number, invalid_key(name))
        for place, name in self._shown_places.items():
            values[place] = readable(values[place])
            # Bytes that are no text in the charset, such as b"K\xf6ln" in UTF-8: the document fails.
            if isinstance(values[place], Undecoded):
                values[place] = None
                failures.setdefault(number, f"column {name!r} {INVALID_TEXT}")
        return values

    def _texts(
        self, composer: Composer, columns: Sequence[Row], rows: int, failures: dict[int, str]
    ) -> list[str]:
        """Return the text of each row, and record the failures of those that have none."""
        if not composer.columns:
            return [""] * rows
        found = [columns[self.positions[name]] for name in composer.columns]
        texts: list[str] = []
        # The usual case, one column of texts, is fast.
        if composer.is_plain and set(map(type, found[0])) <= {str, type(None)}:
            for value in found[0]:
                if not value:
                    texts.append("")
                    continue
                text = read_text(value) if is_rtf(value) else value
                texts.append(composer.clean(text))
            return texts
        for number, values in enumerate(zip(*found, strict=True)):
            try:
                texts.append(composer.compose(values))
            except NotText as error:
                failures.setdefault(number, str(error))
                texts.append("")
        return texts

    def _titles(
        self,
        columns: Sequence[Row],
        texts: Sequence[str],
        parts: Sequence[DocumentParts],
        failures: dict[int, str],
    ) -> list[str]:
        """Return the title of each row; "" without one."""
        titles = self._texts(self._title, columns, len(texts), failures)
        # The settings name columns. A title is one line.
        if self._title.columns:
            return [" ".join(title.split()) for title in titles]
        if not self._has_heading:
            return titles
        # A ticket without a title, and with comments: its text begins like a title.
        headings: list[str] = []
        for text, beside in zip(texts, parts, strict=True):
            headings.append(_heading(text if self._heading_of_text else "", beside))
        return headings

    def _divided(
        self,
        texts: Sequence[str],
        titles: Sequence[str],
        parts: Sequence[DocumentParts],
        languages: Sequence[str],
    ) -> tuple[list[str], list[bytes]]:
        """Return the text of each document with its parts, and its layout."""
        joined: list[str] = []
        layouts: list[bytes] = []
        for document in zip(texts, titles, parts, languages, strict=True):
            text, layout = _divide(*document)
            joined.append(text)
            layouts.append(layout)
        return joined, layouts

    def keep_files(self, row: Row) -> Sequence[Any]:
        """Return a row with its files kept aside, by stand-ins that `FileReader` gives."""
        if not self.files or not self._file_places:
            return row
        places = self._file_places.values()
        values = list(row)
        for place in places:
            values[place] = self.files.keep(values[place])
        return values

    def _own_files(self, reader: FileReader, row: Row) -> Iterator[batches.AttachedFile]:
        """Yield the files in the columns of a row."""
        for name, place in self._file_places.items():
            part = batches.TextPart(0, 0, name, "", "", {})
            taken = reader.take(row[place], self._index.format[name], part)
            if taken is not None:
                yield taken

    def _languages(self, rows: Sequence[Row]) -> list[str]:
        """Return the language of each row: its code, the beginning of an unknown value, or ""."""
        place = self.positions.get(self._index.language_column or "")
        if place is None:
            return [""] * len(rows)
        languages: list[str] = []
        for row in rows:
            value = row[place]
            if value is None:
                languages.append("")
            else:
                languages.append(language_named(value) or str(value).strip()[:MAX_LANGUAGE])
        return languages

    def _links(self, rows: Sequence[Row]) -> list[str]:
        places = [self.positions[name] for name in self._link.columns]
        if not places:
            return [""] * len(rows)
        return [self._link.compose([row[place] for place in places]) for row in rows]

    def _payloads(
        self,
        columns: Sequence[Row],
        titles: Sequence[str],
        links: Sequence[str],
        parts: Sequence[DocumentParts],
    ) -> list[bytes]:
        """Return the payload of each document: its columns, the fields of inline parts, and what is
        reserved (groups, title, link)."""
        index = self._index
        fields = self._payload.columns(columns[self._payload_start : self._payload_end])
        names = list(fields)
        values = list(fields.values())
        # Filters compare times in one form.
        for place, name in enumerate(names):
            if index.indexed_fields.get(name) == "datetime":
                values[place] = list(map(comparable_time, values[place]))
        # The fields of inline parts are a list below the name of the part.
        for part in index.parts:
            if part.inline and part.payload:
                names.append(part.label)
                values.append([beside.fields.get(part.label) for beside in parts])
        shows_more = index.access is not None or index.title is not None or index.link is not None
        if self._has_heading or shows_more:
            names.append(batches.RESERVED_KEY)
            reserved: list[dict[str, Any]] = []
            for beside, title, link in zip(parts, titles, links, strict=True):
                reserved.append(_reserved(beside, title, link))
            values.append(reserved)
        return encode_payloads(names, values, len(parts))


def invalid_key(name: str) -> str:
    """Return why a document with such a value in this column of its key is not indexed."""
    return f"key column {name!r} {INVALID_TEXT}; the key shows its bytes in hexadecimal"


def clean(text: str) -> str:
    """Return a text without invisible characters, and with a space for NUL, which ends a text in C;
    "" for white space alone."""
    text = visible(text.replace("\0", " "))
    return text if not text.isspace() else ""


def _reserved(parts: DocumentParts, title: str, link: str) -> dict[str, Any]:
    """Return the fields of a payload that are not columns: groups, title and link."""
    fields: dict[str, Any] = {}
    if parts.groups is not None:
        fields.update(access_part(parts.groups))
    if title:
        fields[batches.TITLE] = title
    if link:
        fields[batches.LINK] = link
    return fields


def _heading(body: str, parts: DocumentParts) -> str:
    """Return the beginning of a document's text, or else of its first part, as its title; "" for a
    document without parts."""
    if not parts.parts:
        return ""
    text = body
    if not text:
        text, _ = parts.parts[0]
    return shortened(" ".join(text.split()), HEADING_CHARS)


def _divide(body: str, title: str, parts: DocumentParts, language: str) -> tuple[str, bytes]:
    """Return the text of a document with its parts, and its layout.

    The text has the document's own text, then inline parts, and then the other parts.
    """
    paragraphs = [body] if body else []
    for name, texts in parts.inline.items():
        is_long = any("\n" in text or len(text) > MAX_INLINE for text in texts)
        if is_long:
            # Each text has lines of its own, below the name.
            heading, between = f"{name}:\n", "\n"
        else:
            # Short texts follow the name in its line, such as "tag: printer, ink".
            heading, between = f"{name}: ", ", "
        paragraphs.append((heading if name else "") + between.join(texts))
    own = BETWEEN_FILES.join(paragraphs)
    # A document with a title alone
    if not own and not parts.parts:
        own = title
    text, places = join_parts(own, parts.parts)
    has_language = bool(language and own)
    if not title and not places and not parts.failure and not has_language:
        return own, batches.NO_LAYOUT
    return text, batches.TextLayout(title, len(own), places, parts.failure, language).encode()


def _with_layouts(texts: Sequence[str], layouts: Sequence[bytes]) -> list[str]:
    """Return texts to be hashed: a hash covers how its text is divided, too."""
    hashed: list[str] = []
    for text, layout in zip(texts, layouts, strict=True):
        hashed.append(f"{text}\0{layout.decode()}" if layout else text)
    return hashed


def _with_files(texts: Sequence[str], files: Sequence[Sequence[batches.AttachedFile]]) -> list[str]:
    """Return texts to be hashed: a hash covers the stamps of files, too."""
    hashed: list[str] = []
    for text, attached in zip(texts, files, strict=True):
        stamps = [f"\0{_all_of(file.part)} {file.stamp}" for file in attached]
        hashed.append(text + "".join(stamps))
    return hashed


def _all_of(part: batches.TextPart) -> str:
    """Return the text for a part that is hashed with its document. It names every field, and its
    form must not change: all documents with files would be embedded again."""
    fields = zip(part._fields, part, strict=True)
    listed = ", ".join([f"{name}={value!r}" for name, value in fields])
    return f"TextPart({listed})"


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
