"""Whole documents as they would be embedded, before anything is: to see what an index would hold."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.documents.access import document_part
from rag_index.documents.batches import RESERVED_KEY, ChunkedDocument
from rag_index.documents.canonical import decode_payload
from rag_index.documents.keys import document_id
from rag_index.documents.layout import LINK, PART, TITLE
from rag_index.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import DocumentBatch
    from rag_index.settings import IndexSettings, Settings

LOOKED_AT = 200
"""Documents at the beginning of a source of which some are shown."""


@dataclass(frozen=True, slots=True)
class ShownChunk:
    """A chunk: the text that would be embedded, and the name and id of the part that it is of ("" if of none)."""

    text: str
    part: str


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document as an index would hold it. `payload` has what hits return, those of parts left out."""

    index: str
    document_id: str
    title: str
    link: str
    payload: dict[str, Any]
    chunks: list[ShownChunk]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `plan --show --json` prints."""
        chunks = [{"text": one.text, **({"part": one.part} if one.part else {})} for one in self.chunks]
        named = {name: value for name, value in ((TITLE, self.title), (LINK, self.link)) if value}
        given = {"index": self.index, "document_id": self.document_id, **named}
        return {**given, "payload": self.payload, "chunks": chunks}


def show_documents(settings: Settings, index: IndexSettings, count: int) -> list[ShownDocument]:
    """Return some documents of an index, without contexts that a model would write.

    They are spread over the first `LOOKED_AT` documents that have text. Raises as a source does.
    """
    with closing(open_source(settings, index)) as source:
        source.check()
        documents = source.page(None, LOOKED_AT).documents
    with_text = [row for row, text in enumerate(documents.texts) if text]
    step = max(1, len(with_text) // max(1, count))
    chosen = documents.take(with_text[::step][:count])
    chunked = open_chunker(settings, index, contexts=False).chunk(chosen)
    return [
        _shown(index.name, chosen, row, document)
        for row, document in enumerate(chunked)
        if isinstance(document, ChunkedDocument)
    ]


def _shown(index: str, documents: DocumentBatch, row: int, document: ChunkedDocument) -> ShownDocument:
    payload = decode_payload(documents.payloads[row])
    ours = document_part(payload)
    payload.pop(RESERVED_KEY, None)
    own: Sequence[bytes] = document.payloads or [b"{}"] * len(document.chunks)
    parts = [decode_payload(one).get(RESERVED_KEY, {}).get(PART, {}) for one in own]
    names = [" ".join(filter(None, [part.get("name"), part.get("id")])) for part in parts]
    chunks = [ShownChunk(*one) for one in zip(document.texts_to_embed(), names, strict=True)]
    title, link = ours.get(TITLE, ""), ours.get(LINK, "")
    return ShownDocument(index, document_id(documents.keys[row]), title, link, payload, chunks)
