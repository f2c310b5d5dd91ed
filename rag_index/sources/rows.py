"""From rows of a database to a page of documents, a column at a time: every document of every night passes here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import DocumentBatch, Failure
from rag_index.documents.canonical import encode_payloads, hash_bytes, hash_text
from rag_index.documents.keys import encode_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings

__all__ = ["RowReader"]


class RowReader:
    """Reads rows of (key columns, text columns, payload columns) as an index's settings say."""

    def __init__(self, index: IndexSettings) -> None:
        self._keys = len(index.key_columns)
        self._text_names = index.text_columns
        self._texts = self._keys + len(self._text_names)
        self._payload_names = index.payload
        self._template: list[tuple[str, int | None]] | None = None
        if (template := index.template) is not None:
            place = {name: number for number, name in enumerate(self._text_names)}
            self._template = [(literal, place[name] if name else None) for literal, name in template]

    def read(self, rows: Sequence[Sequence[Any]]) -> tuple[DocumentBatch, list[Failure]]:
        """The documents of these rows, in order, and those whose text is not text.

        Raises:
            SourceError: a key cannot be one.
        """
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * (self._texts + len(self._payload_names))
        keys = encode_keys(columns[: self._keys])
        texts = self._all_texts(columns[self._keys : self._texts])
        payloads = encode_payloads(self._payload_names, columns[self._texts :], len(rows))
        unreadable: list[Failure] = []
        if None in texts:
            bad = [number for number, text in enumerate(texts) if text is None]
            unreadable = [Failure(keys[n], self._reason(rows[n][self._keys : self._texts])) for n in bad]
            good = [number for number, text in enumerate(texts) if text is not None]
            keys, payloads = [keys[n] for n in good], [payloads[n] for n in good]
        readable = [text for text in texts if text is not None]
        hashes = list(map(hash_text, readable)), list(map(hash_bytes, payloads))
        return DocumentBatch(keys, readable, payloads, *hashes), unreadable

    def _all_texts(self, columns: Sequence[Sequence[Any]]) -> list[str | None]:
        """Of each row the document's text. One column that holds nothing but text, the usual case, costs least."""
        if len(columns) > 1 or self._template is not None or not set(map(type, columns[0])) <= {str, type(None)}:
            return [self._text(values) for values in zip(*columns, strict=True)]
        return [_tidied(value) if value else "" for value in columns[0]]

    def _text(self, values: Sequence[Any]) -> str | None:
        """The document's text; None where a value is not text."""
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
            text = self._filled(parts) if any(part and not part.isspace() for part in parts) else ""
        elif len(parts) == 1:
            text = parts[0]
        else:
            text = "\n".join(part for part in parts if part)
        return _tidied(text)

    def _filled(self, parts: Sequence[str]) -> str:
        """The template with the columns' values; what stands in braces inside a value is only text."""
        template = self._template or []
        return "".join(literal if place is None else literal + parts[place] for literal, place in template)

    def _reason(self, values: Sequence[Any]) -> str:
        for name, value in zip(self._text_names, values, strict=True):
            if value is not None and not isinstance(value, str | dict | list):
                return f"column {name!r} holds {type(value).__name__} ({value!r:.40}), not text; cast it in a query"
        return "the text cannot be read"


def _tidied(text: str) -> str:
    """Without what tokenizers written in C take for the end of a text; nothing where there is only white space."""
    if "\0" in text:
        text = text.replace("\0", " ")
    return text if not text.isspace() else ""
