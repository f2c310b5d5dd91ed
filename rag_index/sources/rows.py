"""Converts rows of a database to documents, a column at a time, because every document of every run passes here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rag_index.documents.access import access_part
from rag_index.documents.batches import RESERVED_KEY, DocumentBatch, Failure
from rag_index.documents.canonical import encode_payloads, hash_bytes, hash_text
from rag_index.documents.keys import encode_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings


class RowReader:
    """Converts rows of (key columns, text columns, payload columns, …) as the settings of an index say."""

    def __init__(self, index: IndexSettings) -> None:
        self._text_names = index.text_columns
        self._text_start = len(index.key_columns)
        self._payload_start = self._text_start + len(self._text_names)
        self._payload_names = index.payload
        self._payload_end = self._payload_start + len(self._payload_names)
        self._template: list[tuple[str, int | None]] | None = None
        """Pairs of a literal text and the number of the text column after it."""
        if (template := index.template) is not None:
            numbers = {name: number for number, name in enumerate(self._text_names)}
            self._template = [(literal, numbers[name] if name else None) for literal, name in template]

    def read(
        self, rows: Sequence[Sequence[Any]], groups: Sequence[Sequence[str]] | None = None
    ) -> tuple[DocumentBatch, list[Failure]]:
        """Return the documents of these rows, in order, and the failures of those whose text is not text.

        `groups` are those of each row, for an index with `access`: they become a part of the payload.

        Raises:
            SourceError: a value cannot be a key.
        """
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * self._payload_end
        keys = encode_keys(columns[: self._text_start])
        texts = self._texts(columns[self._text_start : self._payload_start])
        names, values = self._payload_names, columns[self._payload_start : self._payload_end]
        if groups is not None:
            names, values = [*names, RESERVED_KEY], [*values, [access_part(some) for some in groups]]
        payloads = encode_payloads(names, values, len(rows))
        unreadable: list[Failure] = []
        if None in texts:
            bad = [number for number, text in enumerate(texts) if text is None]
            unreadable = [Failure(keys[n], self._reason(rows[n][self._text_start : self._payload_start])) for n in bad]
            good = [number for number, text in enumerate(texts) if text is not None]
            keys, payloads = [keys[n] for n in good], [payloads[n] for n in good]
        readable = [text for text in texts if text is not None]
        hashes = list(map(hash_text, readable)), list(map(hash_bytes, payloads))
        return DocumentBatch(keys, readable, payloads, *hashes), unreadable

    def _texts(self, columns: Sequence[Sequence[Any]]) -> list[str | None]:
        """Return the text of each row, None if a value is not text. The usual case, one column of texts, is fast."""
        if len(columns) > 1 or self._template is not None or not set(map(type, columns[0])) <= {str, type(None)}:
            return [self._text(values) for values in zip(*columns, strict=True)]
        return [_clean(value) if value else "" for value in columns[0]]

    def _text(self, values: Sequence[Any]) -> str | None:
        """Return the text of one row; None if a value is not text."""
        parts: list[str] = []
        for value in values:
            if type(value) is str:
                parts.append(value)
            elif value is None:
                parts.append("")
            elif isinstance(value, dict | list):
                parts.append(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))
            else:
                return None
        if self._template is not None:
            text = self._fill_template(parts) if any(part and not part.isspace() for part in parts) else ""
        elif len(parts) == 1:
            text = parts[0]
        else:
            text = "\n".join(part for part in parts if part)
        return _clean(text)

    def _fill_template(self, parts: Sequence[str]) -> str:
        """Return the template filled with the values of the columns. Braces within a value have no meaning."""
        template = self._template or []
        return "".join(literal if number is None else literal + parts[number] for literal, number in template)

    def _reason(self, values: Sequence[Any]) -> str:
        for name, value in zip(self._text_names, values, strict=True):
            if value is not None and not isinstance(value, str | dict | list):
                return f"column {name!r} holds {type(value).__name__} ({value!r:.40}), not text; cast it in a query"
        return "the text cannot be read"


def _clean(text: str) -> str:
    """Replace NUL characters, at which tokenizers written in C end a text; return "" for white space alone."""
    if "\0" in text:
        text = text.replace("\0", " ")
    return text if not text.isspace() else ""
