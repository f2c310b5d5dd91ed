"""Contexts for chunks: a generating model says of each chunk where it stands in its document. The chunker here adds
contexts to the chunks of another. `writer` takes them from the ledger, or asks servers and reads the answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.components.chunking.context.writer import DocumentContexts, Recipe, check_model, process_writer
from rag_index.core.documents.batches import ChunkedDocument, ContextCounts, DocumentBatch
from rag_index.core.settings import EmbedderSettings, Settings
from rag_index.core.settings.parts import Secret

if TYPE_CHECKING:
    from rag_index.components.chunking.text_chunker import Chunker
    from rag_index.core.settings.sections import ContextSettings
    from rag_index.errors import RagIndexError

DEFAULT_HOST = "http://127.0.0.1:11434"
CONCURRENCY = 10
"""Contexts that a worker asks for at once, over all hosts. An overloaded server gets fewer."""


@dataclass(frozen=True, slots=True)
class ContextChunker:
    """The chunks of `inner`, with a context for each chunk of a document that has several. A chunk without a usable
    context is embedded without one, and its document is incomplete. The connections belong to the process that does the
    chunking."""

    inner: Chunker
    servers: EmbedderSettings
    recipe: Recipe
    ledger: Secret
    """The URL of the ledger, which keeps contexts."""

    @classmethod
    def open(cls, settings: Settings, context: ContextSettings, inner: Chunker) -> ContextChunker:
        """Ask the servers which model they have, and check that it writes. Raises as `check_model`."""
        embedder = settings.embedder
        servers = EmbedderSettings(
            kind="ollama",
            hosts=context.hosts or (embedder.hosts if embedder.kind == "ollama" else [DEFAULT_HOST]),
            model=context.model,
            timeout=context.timeout,
            requests_in_flight=CONCURRENCY,
            num_thread=embedder.num_thread,
        )
        ledger = settings.ledger_url.render_as_string(hide_password=False)
        return cls(inner, servers, check_model(servers), Secret(ledger))

    @property
    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint}/context-{self.recipe.fingerprint}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """Split each document and add contexts. Equal documents get equal contexts as far as the cache has them."""
        chunked = self.inner.chunk(documents)
        several = [
            (row, document)
            for row, document in enumerate(chunked)
            if isinstance(document, ChunkedDocument) and len(document.chunks) > 1
        ]
        if several:
            writer = process_writer(self.servers, self.recipe, self.ledger)
            hashes, texts = documents.text_hashes, documents.texts
            contexts = writer.write([(hashes[row], texts[row], document.chunks) for row, document in several])
            for (row, document), document_contexts in zip(several, contexts, strict=True):
                chunked[row] = self._add_contexts(document, document_contexts)
        return chunked

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        return self.inner.split_chunk(document, number)

    def _add_contexts(self, document: ChunkedDocument, written: DocumentContexts) -> ChunkedDocument:
        missing = Counter(filter(None, written.reasons))
        message = ""
        if missing:
            reasons = "; ".join(reason for reason, _ in missing.most_common(3))
            message = f"{missing.total()} of {len(document.chunks)} chunks have no context: {reasons}"
        inner_contexts = document.contexts or [""] * len(document.chunks)
        contexts = ["\n".join(filter(None, pair)) for pair in zip(written.contexts, inner_contexts, strict=True)]
        made = len(document.chunks) - written.cached - missing.total()
        return replace(
            document,
            contexts=contexts,
            incomplete="; ".join(filter(None, [document.incomplete, message])),
            context_counts=ContextCounts(made, written.cached, missing.total()),
        )
