"""A cutter that adds contexts to the chunks of another; and how one is made from settings."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import SecretStr

from rag_index.chunking.context.cache import cache_url
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.chunking.context.service import Recipe, Servers, look, room_of
from rag_index.chunking.context.writer import process_writer
from rag_index.documents.batches import ChunkedDocument, ContextCounts
from rag_index.errors import ContextMissing

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.chunking.context.writer import Written
    from rag_index.documents.batches import DocumentBatch
    from rag_index.errors import RagIndexError
    from rag_index.settings import Settings
    from rag_index.settings.context import ContextSettings

__all__ = ["ContextChunker"]

DEFAULT_HOST = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class ContextChunker:
    """Cuts as `inner` does, and gives each chunk of a document with several a context.

    A chunk that gets none is left without, and its document is incomplete; with `required` it is a failure. Connections
    are those of the process that cuts.
    """

    inner: Chunker
    servers: Servers
    recipe: Recipe
    cache: SecretStr
    """The database of contexts, as a URL."""
    required: bool

    @classmethod
    def open(cls, settings: Settings, context: ContextSettings, inner: Chunker) -> ContextChunker:
        """Ask the servers what their model is, and whether it writes. Raises as `service.look`."""
        embedder = settings.embedder if settings.embedder.kind == "ollama" else None
        servers = Servers(
            hosts=tuple(context.hosts or (embedder.hosts if embedder else [DEFAULT_HOST])),
            model=context.model,
            timeout=context.timeout,
            keep_alive=context.keep_alive,
            requests_in_flight=context.concurrency,
            num_thread=embedder.num_thread if embedder else None,
            patience=settings.embedder.wait_for_recovery,
            num_ctx=context.num_ctx,
        )
        model = look(servers)
        room = room_of(model, context.num_ctx)
        recipe = Recipe(model.digest, context.prompt or DEFAULT_PROMPT, context.max_chars, room)
        cache = cache_url(settings.ledger_url).render_as_string(hide_password=False)
        return cls(inner, servers, recipe, SecretStr(cache), context.required)

    @property
    def fingerprint(self) -> str:
        """As `Cutter.fingerprint`."""
        return f"{self.inner.fingerprint}/context-{self.recipe.fingerprint}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """As `Cutter.cut`. Equal documents give equal chunks, and contexts that are equal where the cache has them."""
        chunked = self.inner.chunk(documents)
        several = [
            (row, document)
            for row, document in enumerate(chunked)
            if isinstance(document, ChunkedDocument) and len(document.chunks) > 1
        ]
        if several:
            writer = process_writer(self.servers, self.recipe, self.cache, home=os.getpid())
            written = writer.write([(documents.texts[row], document.chunks) for row, document in several])
            for (row, document), contexts in zip(several, written, strict=True):
                chunked[row] = self._with(document, contexts)
        return chunked

    def halved(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """As `Cutter.halved`; both halves keep the context."""
        return self.inner.halved(document, number)

    def _with(self, document: ChunkedDocument, written: Written) -> ChunkedDocument | RagIndexError:
        missing = Counter(filter(None, written.reasons))
        said = ""
        if missing:
            reasons = "; ".join(reason for reason, _ in missing.most_common(3))
            said = f"{missing.total()} of {len(document.chunks)} chunks have no context: {reasons}"
            if self.required:
                return ContextMissing(said)
        own = document.contexts or [""] * len(document.chunks)
        contexts = ["\n".join(filter(None, both)) for both in zip(written.contexts, own, strict=True)]
        made = len(document.chunks) - written.cached - missing.total()
        return replace(
            document,
            contexts=contexts,
            incomplete="; ".join(filter(None, [document.incomplete, said])),
            context_counts=ContextCounts(made, written.cached, missing.total()),
        )
