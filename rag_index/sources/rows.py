"""From rows of a database to a page of documents: the one loop that every document passes through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rag_index.canonical import encode_key, encode_payload, hash_bytes, hash_text
from rag_index.documents import Failure, Page

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

    def read(self, rows: Sequence[Sequence[Any]]) -> tuple[Page, list[Failure]]:
        """The documents of these rows, in order, and those whose text is not text.

        Raises:
            SourceError: a key cannot be one.
        """
        page = Page([], [], [], [], [])
        unreadable: list[Failure] = []
        keys, texts = self._keys, self._texts
        names = self._payload_names
        add_key, add_text, add_payload = page.keys.append, page.texts.append, page.payloads.append
        for row in rows:
            key = encode_key(row[:keys])
            text = self._text(row[keys:texts])
            if text is None:
                unreadable.append(Failure(key, self._reason(row[keys:texts])))
                continue
            add_key(key)
            add_text(text)
            add_payload(encode_payload(dict(zip(names, row[texts:], strict=True))) if names else b"{}")
        page.text_hashes.extend(map(hash_text, page.texts))
        page.payload_hashes.extend(map(hash_bytes, page.payloads))
        return page, unreadable

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
        if "\0" in text:
            text = text.replace("\0", " ")  # tokenizers written in C end a text there
        return text if not text.isspace() else ""

    def _filled(self, parts: Sequence[str]) -> str:
        """The template with the columns' values; what stands in braces inside a value is only text."""
        template = self._template or []
        return "".join(literal if place is None else literal + parts[place] for literal, place in template)

    def _reason(self, values: Sequence[Any]) -> str:
        for name, value in zip(self._text_names, values, strict=True):
            if value is not None and not isinstance(value, str | dict | list):
                return f"column {name!r} holds {type(value).__name__} ({value!r:.40}), not text; cast it in a query"
        return "the text cannot be read"
