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
from rag_index.documents.batches import ContextCounts, Cut
from rag_index.errors import ContextMissing

if TYPE_CHECKING:
    from rag_index.chunking import Cutter
    from rag_index.chunking.context.writer import Written
    from rag_index.documents.batches import Page
    from rag_index.errors import RagIndexError
    from rag_index.settings import Settings
    from rag_index.settings.context import ContextSettings

__all__ = ["ContextCutter"]

DEFAULT_HOST = "http://127.0.0.1:11434"


@dataclass(frozen=True, slots=True)
class ContextCutter:
    """Cuts as `inner` does, and gives each chunk of a document with several a context.

    A chunk that gets none is left without, and its document is incomplete; with `required` it is a failure. Connections
    are those of the process that cuts.
    """

    inner: Cutter
    servers: Servers
    recipe: Recipe
    cache: SecretStr
    """The database of contexts, as a URL."""
    required: bool

    @classmethod
    def open(cls, settings: Settings, context: ContextSettings, inner: Cutter) -> ContextCutter:
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

    def cut(self, documents: Page) -> list[Cut | RagIndexError]:
        """As `Cutter.cut`. Equal documents give equal chunks, and contexts that are equal where the cache has them."""
        cuts = self.inner.cut(documents)
        several = [(row, cut) for row, cut in enumerate(cuts) if isinstance(cut, Cut) and len(cut.chunks) > 1]
        if several:
            writer = process_writer(self.servers, self.recipe, self.cache, home=os.getpid())
            written = writer.write([(documents.texts[row], cut.chunks) for row, cut in several])
            for (row, cut), contexts in zip(several, written, strict=True):
                cuts[row] = self._with(cut, contexts)
        return cuts

    def halved(self, cut: Cut, number: int) -> Cut | None:
        """As `Cutter.halved`; both halves keep the context."""
        return self.inner.halved(cut, number)

    def _with(self, cut: Cut, written: Written) -> Cut | RagIndexError:
        missing = Counter(filter(None, written.reasons))
        said = ""
        if missing:
            reasons = "; ".join(reason for reason, _ in missing.most_common(3))
            said = f"{missing.total()} of {len(cut.chunks)} chunks have no context: {reasons}"
            if self.required:
                return ContextMissing(said)
        own = cut.contexts or [""] * len(cut.chunks)
        contexts = ["\n".join(filter(None, both)) for both in zip(written.contexts, own, strict=True)]
        made = len(cut.chunks) - written.cached - missing.total()
        return replace(
            cut,
            contexts=contexts,
            incomplete="; ".join(filter(None, [cut.incomplete, said])),
            context_counts=ContextCounts(made, written.cached, missing.total()),
        )
