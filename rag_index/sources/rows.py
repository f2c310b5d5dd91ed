"""Rows become documents: their keys, texts, payloads, titles and links, and the parts that belong to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rag_index.chunking.text import shortened
from rag_index.documents.access import access_part
from rag_index.documents.batches import RESERVED_KEY, DocumentBatch, Failure
from rag_index.documents.canonical import encode_payloads, hash_bytes, hash_text
from rag_index.documents.keys import encode_keys
from rag_index.documents.languages import language_of
from rag_index.documents.layout import BETWEEN, LINK, NO_LAYOUT, TITLE, TextLayout, TextPart
from rag_index.settings.parts import read_template, split_name, template_columns
from rag_index.sources.text import NotText, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.settings import IndexSettings
    from rag_index.settings.parts import JoinSettings, PartSettings
    from rag_index.sources.parts import DocumentParts


MAX_INLINE = 80
"""Inline parts of more characters stand in lines of their own."""
HEADING_CHARS = 100
"""How much of the first text of a document with parts is its title, if it has none."""


def read_columns(index: IndexSettings) -> list[str]:
    """Return the columns of a document that are read after its key, in the order in which rows have them."""
    known = [*index.text_columns, *index.payload]
    link = template_columns(index.link, "link")
    on = [column for part in index.parts for _, column in part.pairs(index.key_columns)]
    more = dict.fromkeys([*index.title_columns, *link, *on, *filter(None, [index.language_column])])
    return [*known, *[name for name in more if name not in known and name not in index.key_columns]]


class Composer:
    """Makes a text of the values of columns, as a setting says: one column, a list of columns, or a template."""

    def __init__(
        self,
        text: str | Sequence[str] | None,
        formats: Mapping[str, str] | None = None,
        *,
        strict: bool = False,
        without: str | None = None,
    ) -> None:
        """Make a text as a setting says; a list leaves out the column `without`.

        If `strict`, a value of a column without a format has to be text.
        """
        template = read_template(text)
        self.columns = template_columns(text)
        if template is None:
            self.columns = [name for name in self.columns if name != without]
        self._formats = [None if formats is None else formats.get(name) for name in self.columns]
        self._any_format = any(self._formats)
        self._strict = strict
        numbers = {name: number for number, name in enumerate(self.columns)}
        self._template = None if template is None else [(literal, numbers[n] if n else None) for literal, n in template]
        """Pairs of a literal text and the number of the column after it."""

    @property
    def is_plain(self) -> bool:
        """Whether a text is the value of one column as it is."""
        return self._template is None and len(self.columns) == 1 and self._formats[0] is None

    def compose(self, values: Sequence[Any]) -> str:
        """Return the text of these values, without NUL characters; "" for white space alone. Raises NotText."""
        if self._any_format:
            parts = [self._part(number, value) for number, value in enumerate(values)]
        else:
            parts = [v if type(v) is str else self._part(number, v) for number, v in enumerate(values)]
        if self._template is not None:
            text = self._fill_template(parts) if any(part and not part.isspace() for part in parts) else ""
        else:
            text = "\n".join(part for part in parts if part)
        return clean(text)

    def _part(self, number: int, value: Any) -> str:
        form = self._formats[number]
        if form is None:
            if type(value) is str:
                return value
            if value is None:
                return ""
            if isinstance(value, dict | list):
                return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
            if self._strict:
                raise NotText(
                    f"column {self.columns[number]!r} holds {type(value).__name__} ({value!r:.40}), not text; "
                    "cast it in a query, or give it a format"
                )
        try:
            return read_text(value, form or "plain")
        except NotText as error:
            raise NotText(f"column {self.columns[number]!r} {error}") from error

    def _fill_template(self, parts: Sequence[str]) -> str:
        """Return the template filled with the values of the columns. Braces within a value have no meaning."""
        template = self._template or []
        return "".join(literal if number is None else literal + parts[number] for literal, number in template)


class LinkComposer:
    """Makes addresses of the values of columns."""

    def __init__(self, link: str | None) -> None:
        self.columns = template_columns(link, "link")
        self._template = read_template(link, "link") or []

    def compose(self, values: Mapping[str, Any]) -> str:
        """Return the address for these values by column; "" if there is none, or a value is missing."""
        found = [(literal, name, values[name] if name else "") for literal, name in self._template]
        if any(value is None for _, _, value in found):
            return ""
        return "".join(literal + quote(str(value), safe="") for literal, _, value in found)


class PayloadMaker:
    """Puts the values of payload columns in their places: those of a join below its name."""

    def __init__(self, names: Sequence[str], joins: Mapping[str, JoinSettings]) -> None:
        self._places = [split_name(name, joins) for name in names]
        self._any_joins = any(join is not None for join, _ in self._places)

    def payload(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the payload of one row."""
        payload: dict[str, Any] = {}
        for (join, column), value in zip(self._places, values, strict=True):
            (payload if join is None else payload.setdefault(join, {}))[column] = value
        return payload

    def columns(self, columns: Sequence[Sequence[Any]]) -> tuple[list[str], list[Sequence[Any]]]:
        """Return the names and the columns of payloads, from the columns that were read."""
        if not self._any_joins:
            return [name for _, name in self._places], list(columns)
        found: dict[str, Sequence[Any]] = {}
        of_joins: dict[str, dict[str, Sequence[Any]]] = {}
        for (join, column), values in zip(self._places, columns, strict=True):
            if join is None:
                found[column] = values
            else:
                of_joins.setdefault(join, {})[column] = values
        for join, inner in of_joins.items():
            found[join] = [dict(zip(inner, values, strict=True)) for values in zip(*inner.values(), strict=True)]
        return list(found), list(found.values())


class RowReader:
    """Converts rows of (key columns, `read_columns`, …) as the settings of an index say."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        names = [*index.key_columns, *read_columns(index)]
        self.positions = {name: number for number, name in reversed(list(enumerate(names)))}
        """Where in a row a column is."""
        plain_title = index.title if index.title in index.title_columns else None
        self._body = Composer(index.text, index.format, strict=True, without=plain_title)
        self._title = Composer(index.title, index.format)
        own = [name for name in index.text_columns if "." not in name]
        self._heads = index.title is None and any(not part.inline for part in index.parts)
        self._says_what = any(index.format.get(name) != "json" for name in own)
        self._link = LinkComposer(index.link)
        self._payload = PayloadMaker(index.payload, index.joins)
        self._payload_start = self._width + len(index.text_columns)
        self._end = self._payload_start + len(index.payload)
        self._divided = index.title is not None or bool(index.parts) or index.language_column is not None

    def read(
        self,
        rows: Sequence[Sequence[Any]],
        groups: Sequence[Sequence[str]] | None = None,
        parts: Sequence[DocumentParts] | None = None,
    ) -> tuple[DocumentBatch, list[Failure]]:
        """Return the documents of these rows, in order, and the failures of those whose text is not text.

        `groups` are those of each row, for an index with `access`: they become a part of the payload. `parts` are
        those of each row, for an index with parts.

        Raises:
            SourceError: a value cannot be a key.
        """
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(self.positions)
        keys = encode_keys(columns[: self._width])
        failures: dict[int, str] = {}
        texts = self._texts(self._body, columns, len(rows), failures)
        titles = self._texts(self._title, columns, len(rows), failures)
        if self._title.columns:
            titles = [" ".join(title.split()) for title in titles]
        elif parts is not None and self._heads:
            own_texts = texts if self._says_what else [""] * len(rows)
            titles = list(map(_heading, own_texts, parts))
        links = self._links(rows)
        payloads = self._payloads(columns, len(rows), groups, titles, links, parts)
        layouts: list[bytes] = []
        if self._divided:
            of_rows = parts if parts is not None else [None] * len(rows)
            divided = [_divide(*one) for one in zip(texts, titles, of_rows, self._languages(rows), strict=True)]
            texts, layouts = [text for text, _ in divided], [layout for _, layout in divided]
        hashed = map(_with_layout, texts, layouts) if layouts else texts
        hashes = list(map(hash_text, hashed)), list(map(hash_bytes, payloads))
        batch = DocumentBatch(keys, texts, payloads, *hashes, layouts)
        if not failures:
            return batch, []
        unreadable = [Failure(keys[number], reason) for number, reason in sorted(failures.items())]
        return batch.take([number for number in range(len(rows)) if number not in failures]), unreadable

    def _texts(
        self, composer: Composer, columns: Sequence[Sequence[Any]], rows: int, failures: dict[int, str]
    ) -> list[str]:
        """Return the text of each row, and note those that have none. The usual case, one column of texts, is fast."""
        if not composer.columns:
            return [""] * rows
        found = [columns[self.positions[name]] for name in composer.columns]
        if composer.is_plain and set(map(type, found[0])) <= {str, type(None)}:
            return [clean(value) if value else "" for value in found[0]]
        texts = []
        for number, values in enumerate(zip(*found, strict=True)):
            try:
                texts.append(composer.compose(values))
            except NotText as error:
                failures.setdefault(number, str(error))
                texts.append("")
        return texts

    def _languages(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Return the name of the language that each row says it is in; "" if it says none that is known."""
        if self._index.language_column is None:
            return [""] * len(rows)
        place = self.positions[self._index.language_column]
        return [language_of(row[place]) or "" for row in rows]

    def _links(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        if not self._link.columns:
            return [""] * len(rows)
        places = [(name, self.positions[name]) for name in self._link.columns]
        return [self._link.compose({name: row[place] for name, place in places}) for row in rows]

    def _payloads(
        self,
        columns: Sequence[Sequence[Any]],
        rows: int,
        groups: Sequence[Sequence[str]] | None,
        titles: Sequence[str],
        links: Sequence[str],
        parts: Sequence[DocumentParts] | None,
    ) -> list[bytes]:
        """Return the payload of each row, with our own part of it where there is one."""
        names, values = self._payload.columns(columns[self._payload_start : self._end])
        for part in self._index.parts if parts is not None else ():
            if part.inline and part.payload:
                names.append(part.label)
                values.append([one.fields.get(part.label) for one in parts or ()])
        if groups is not None or self._heads or self._index.title is not None or self._index.link is not None:
            given = groups if groups is not None else [None] * rows
            names.append(RESERVED_KEY)
            values.append([_our_part(*one) for one in zip(given, titles, links, strict=True)])
        return encode_payloads(names, values, rows)


def clean(text: str) -> str:
    """Replace NUL characters, at which tokenizers written in C end a text; return "" for white space alone."""
    if "\0" in text:
        text = text.replace("\0", " ")
    return text if not text.isspace() else ""


def part_composer(part: PartSettings) -> Composer:
    """Return what makes the text of a part."""
    return Composer(part.text, part.format)


def _with_layout(text: str, layout: bytes) -> str:
    """Return what the hash of a text covers."""
    return f"{text}\0{layout.decode()}" if layout else text


def _our_part(groups: Sequence[str] | None, title: str, link: str) -> dict[str, Any]:
    shown = {name: value for name, value in ((TITLE, title), (LINK, link)) if value}
    return shown if groups is None else {**access_part(groups), **shown}


def _heading(body: str, parts: DocumentParts) -> str:
    """Return the beginning of the first text of a document, for one without a title: its parts then say what of."""
    first = " ".join((body or parts.parts[0].text).split()) if parts.parts else ""
    return shortened(first, HEADING_CHARS)


def _divide(body: str, title: str, parts: DocumentParts | None, language: str) -> tuple[str, bytes]:
    """Return the whole text of a document, and its layout: its own text, inline parts, and then the other parts."""
    inline = [_inline(name, texts) for name, texts in parts.inline.items()] if parts is not None else []
    own = BETWEEN.join(filter(None, [body, *inline]))
    others = parts.parts if parts is not None else []
    if not own and not others:
        own = title
    pieces, found, position = [own] if own else [], [], len(own)
    for part in others:
        start = position + (len(BETWEEN) if pieces else 0)
        position = start + len(part.text)
        pieces.append(part.text)
        found.append(TextPart(start, position, part.name, part.id, part.link, part.payload))
    lacks = parts.failure if parts is not None else ""
    if not title and not found and not lacks and not (language and own):
        return own, NO_LAYOUT
    return BETWEEN.join(pieces), TextLayout(title, len(own), found, lacks, language).encode()


def _inline(name: str, texts: Sequence[str]) -> str:
    """Return texts in one line after their name, if they are short, and otherwise each in lines of its own."""
    long = any("\n" in text or len(text) > MAX_INLINE for text in texts)
    joined = ("\n" if long else ", ").join(texts)
    heading = f"{name}:\n" if long else f"{name}: "
    return heading + joined if name else joined
