"""The contexts of chunks that a model wrote, by the hashes of document and chunk, and by the recipe that decides them.

Workers write each as its answer arrives. Losing them costs time and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.tables import collections, contexts, documents, failed_documents

c = contexts.c


def recipe_in(chunking: str) -> str:
    """Return the fingerprint of the recipe that the fingerprint of a chunker names; "" if no model writes contexts."""
    found = re.search(r"/context-([0-9a-f]{16})(?=/|$)", chunking)
    return found[1] if found else ""


class ContextRows(LedgerConnection):
    """The contexts of all collections."""

    def contexts(self, recipe: str, document_hashes: Collection[bytes]) -> dict[bytes, dict[bytes, str]]:
        """Return the contexts of each document's chunks, by the hash of the chunk."""
        rows = sa.select(c.chunk, c.context).where(c.document == sa.bindparam("wanted"), c.recipe == recipe)
        with self.transaction() as connection:
            return {
                one: {bytes(chunk): text for chunk, text in connection.execute(rows, {"wanted": one})}
                for one in document_hashes
            }

    def put_context(self, recipe: str, document: bytes, chunk: bytes, context: str) -> None:
        """Record a context, unless there is one for this chunk already."""
        row = {"document": document, "chunk": chunk, "recipe": recipe, "context": context, "made_at": self.clock()}
        self._write(self._insert(contexts).values(**row).on_conflict_do_nothing())

    def prune_contexts(self, before: float) -> int:
        """Delete contexts that were written before a time and that no document of a collection needs; count them."""
        with self.transaction():
            if self._value(sa.select(c.document).where(c.made_at < before).limit(1)) is None:
                return 0
            known = self._select(sa.select(collections.c.id, collections.c.chunking))
            needed = sa.union(
                *(
                    sa.select(sa.literal(recipe).label("recipe"), table.c.text_hash).where(table.c.collection_id == id_)
                    for id_, chunking in known
                    if (recipe := recipe_in(chunking))
                    for table in (documents, failed_documents)
                ),
                sa.select(sa.literal("").label("recipe"), sa.literal(b"").label("text_hash")),
            ).subquery()
            same = (needed.c.recipe == c.recipe) & (needed.c.text_hash == c.document)
            old = sa.select(*contexts.primary_key).outerjoin_from(contexts, needed, same)
            old = old.where(c.made_at < before, needed.c.recipe.is_(None))
            return self._write(contexts.delete().where(sa.tuple_(*contexts.primary_key).in_(old)))
