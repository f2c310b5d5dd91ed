"""Embed a shard: chunk its documents, embed or reuse each distinct text once, and split what is too long."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import RESERVED_KEY, ChunkedDocument, EmbeddedShard, Failure, ShardStats, text_to_embed
from rag_index.documents.canonical import byte_count, decode_payload
from rag_index.documents.keys import document_id, point_id
from rag_index.documents.layout import TextLayout
from rag_index.embedders.bm25 import Bm25Encoder, definitions, key_words, names_of
from rag_index.errors import BadVectors, RagIndexError, StoreError, TextTooLong
from rag_index.machine.resources import peak_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import DocumentBatch, Shard
    from rag_index.documents.vectors import SparseVectors
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.embedders.bm25 import Bm25Model
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.settings import EmbedderSettings, IndexSettings, Settings
    from rag_index.stores import Store

NO_FIELDS = b"{}"
NOTHING_KNOWN: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
Vectors = dict[str, "NDArray[np.float32] | Exception"]
ChunkedDocuments = list[ChunkedDocument | RagIndexError]
MIN_SECONDS = 600.0
TIMES_SLOWER = 30.0
"""How many times slower than measured, or than assumed before anything was, a shard may be: machines get busy."""
MAX_TIMEOUTS = 4
"""Requests in a row that may use up their time limit before the wait for recovery begins: one, and three probes."""

logger = logging.getLogger("rag_index.indexing.embed")


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """A shard, and how to embed it."""

    shard: Shard
    chunker: Chunker
    embedder: EmbedderSettings
    identity: EmbedderIdentity
    """What the model has to be."""
    bm25: Bm25Model | None = None
    """How the sparse vectors are made; None if the index has none."""
    workers: int = 1
    known: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Vectors that need not be made, by text as it is embedded."""
    timeout: float | None = None
    """Seconds after which a process that is still at this shard is ended."""


def embed_shard(
    shard: Shard,
    chunker: Chunker,
    embedder: Embedder,
    *,
    bm25: Bm25Model | None = None,
    known: Mapping[str, NDArray[np.float32]] = NOTHING_KNOWN,
) -> EmbeddedShard:
    """Chunk and embed the shard's documents; texts in `known` take the vector given there.

    With `bm25`, each chunk also gets a sparse vector.

    If one chunk of a document cannot be embedded, the whole document fails, so that no half of it is ever searched.
    Raises EmbedderUnavailable (RateLimited), ModelMissing, ModelChanged or BadVectors if the service is the reason.
    """
    started = time.perf_counter()
    before = replace(embedder.stats, host_seconds=dict(embedder.stats.host_seconds))
    vectors: Vectors = dict(known)
    chunked = chunker.chunk(shard.documents)
    chunk_seconds = time.perf_counter() - started
    contexts = [document.context_counts for document in chunked if isinstance(document, ChunkedDocument)]
    chunked, sent = _embed(chunked, vectors, chunker, embedder)
    documents, whole, matrix, texts, failures = _gather(shard.documents, chunked, vectors)
    sparse = _sparse_vectors(bm25, documents, whole, texts) if bm25 else None
    after = embedder.stats
    made = [text for text in texts if text not in known]
    stats = ShardStats(
        seconds=time.perf_counter() - started,
        embed_seconds=after.busy_seconds - before.busy_seconds,
        texts=len(sent),
        sent_bytes=sum(map(byte_count, sent)),
        repeated=len(made) - len(set(made)),
        reused=len(texts) - len(made),
        requests=after.requests - before.requests,
        retries=after.retries - before.retries,
        splits=after.splits - before.splits,
        rate_limited=after.rate_limited - before.rate_limited,
        chars=shard.chars,
        chunk_seconds=chunk_seconds,
        contexts_made=sum(counts.made for counts in contexts),
        contexts_cached=sum(counts.cached for counts in contexts),
        contexts_missing=sum(counts.missing for counts in contexts),
        host_seconds={
            host: seconds - before.host_seconds.get(host, 0.0) for host, seconds in after.host_seconds.items()
        },
        worker=f"{socket.gethostname()}:{os.getpid()}",
        symbols=dict(sum((Counter(document.symbols) for document in whole if document.symbols), Counter())),
        peak_memory=peak_memory(),
    )
    return EmbeddedShard(shard.index, shard.number, documents, whole, matrix, failures, stats, sparse)


def _embed(
    chunked: ChunkedDocuments, vectors: Vectors, chunker: Chunker, embedder: Embedder
) -> tuple[ChunkedDocuments, list[str]]:
    """Embed the texts that have no vector yet, and split those that are too long.

    Returns the documents as they are chunked then, and the texts that were sent.
    """
    sent: list[str] = []
    too_long: set[str] = set()
    texts = {
        text for document in chunked if isinstance(document, ChunkedDocument) for text in document.texts_to_embed()
    }
    while new := sorted(texts - vectors.keys()):
        found = embedder.embed_documents(new)
        if len(found) != len(new):
            raise BadVectors(f"the embedder gave {len(found)} vectors for {len(new)} texts")
        sent += new
        vectors.update(zip(new, found, strict=True))
        too_long.update(text for text in new if isinstance(vectors[text], TextTooLong))
        texts = set()
        for i, document in enumerate(chunked if too_long else ()):
            if isinstance(document, ChunkedDocument) and not too_long.isdisjoint(document.texts_to_embed()):
                chunked[i] = shorter = _split_long(document, too_long, chunker)
                texts.update(shorter.texts_to_embed() if isinstance(shorter, ChunkedDocument) else ())
    return chunked, sent


def _split_long(document: ChunkedDocument, too_long: set[str], chunker: Chunker) -> ChunkedDocument | RagIndexError:
    """Return the document with each of these texts split in two, and split again if a half is among them."""
    while numbers := [i for i, text in enumerate(document.texts_to_embed()) if text in too_long]:
        for number in reversed(numbers):
            shorter = chunker.split_chunk(document, number)
            if shorter is None:
                return RagIndexError(f"one character is too long for the embedder ({document.chunks[number]!r:.20})")
            document = shorter
    return document


def _gather(
    documents: DocumentBatch, chunked: ChunkedDocuments, vectors: Vectors
) -> tuple[DocumentBatch, list[ChunkedDocument], NDArray[np.float32], list[str], list[Failure]]:
    """Return the documents all of whose chunks have vectors, with chunks, vectors and embedded texts; and failures."""
    done: list[int] = []
    whole: list[ChunkedDocument] = []
    texts: list[str] = []
    failures: list[Failure] = []
    for i, document in enumerate(chunked):
        sent = document.texts_to_embed() if isinstance(document, ChunkedDocument) else []
        reason = _reason(document, sent, vectors)
        if reason or not isinstance(document, ChunkedDocument):
            failures.append(Failure(documents.keys[i], reason, documents.text_hashes[i]))
            continue
        if document.incomplete:
            failures.append(Failure(documents.keys[i], document.incomplete, documents.text_hashes[i], "incomplete"))
        done.append(i)
        whole.append(document)
        texts.extend(sent)
    rows = [vectors[text] for text in texts]
    matrix = np.asarray(rows, dtype=np.float32) if rows else np.empty((0, 0), dtype=np.float32)
    return documents.take(done) if len(done) < len(documents) else documents, whole, matrix, texts, failures


def _sparse_vectors(
    bm25: Bm25Model, documents: DocumentBatch, chunked: list[ChunkedDocument], texts: list[str]
) -> SparseVectors:
    """Return a sparse vector for each chunk, of what is embedded, and of the document's key or the code's names."""
    if bm25.identifiers:
        payloads = [
            {**decode_payload(payload), **decode_payload(own)}
            for payload, document in zip(documents.payloads, chunked, strict=True)
            for own in document.payloads or [NO_FIELDS] * len(document.chunks)
        ]
        texts = [
            f"{names_of(payload)}\n{definitions(str(payload.get('name', '')))}\n{text}"
            for payload, text in zip(payloads, texts, strict=True)
        ]
    else:
        keys = [
            key_words(document_id(key))
            for key, document in zip(documents.keys, chunked, strict=True)
            for _ in document.chunks
        ]
        texts = [f"{key}\n{text}" if key else text for key, text in zip(keys, texts, strict=True)]
    encoder = Bm25Encoder(bm25)
    if len(encoder.languages) == 1 or not documents.layouts:
        return encoder.documents(texts)
    languages = [
        TextLayout.decode(layout).language if layout else ""
        for layout, document in zip(documents.layouts, chunked, strict=True)
        for _ in document.chunks
    ]
    return encoder.documents(texts, languages)


def _reason(document: ChunkedDocument | RagIndexError, sent: list[str], vectors: Vectors) -> str:
    """Return why a document cannot be indexed, or an empty text if it can."""
    if not isinstance(document, ChunkedDocument):
        return str(document)
    if not sent:
        return "no text is left after white space"
    return next((str(vectors[text]) for text in sent if isinstance(vectors[text], Exception)), "")


def hang_limit(settings: Settings, index: IndexSettings, *, chars: int, chars_per_second: float) -> float:
    """Return `process_timeout`; if it is `auto`, ten minutes beyond all that the settings allow a shard to wait.

    A process that is ended although it does not hang costs little: its shard is run again in parts, which have a limit
    each. So this only has to be long enough for any single document.
    """
    given = settings.parallel.process_timeout
    if given != "auto":
        return given
    embedder = settings.embedder
    waits = TIMES_SLOWER * chars / max(1.0, chars_per_second)
    if embedder.on_servers:
        waits += MAX_TIMEOUTS * embedder.timeout + embedder.wait_for_recovery
    if index.context is not None:
        waits += MAX_TIMEOUTS * index.context.timeout + embedder.wait_for_recovery
    return MIN_SECONDS + waits


class VectorReuse:
    """A lookup of vectors in `collection`, which holds `index` and was made by the embedder that is used now.

    A rebuild reuses vectors of the live collection, also for documents that have another key there. A run over source
    code reuses those of its own collection: of a changed file only the symbols whose text changed are embedded, and of
    a renamed file none. A vector is reused if the chunk's text and the embedder's fingerprint are the same, whatever
    became of payloads, chunk sizes or chunk numbers. The copy is equal bit by bit.

    A document whose text another document has is looked up under that one's key as well. With `own`, `collection` is
    the one that the run writes to: pending documents still have points there, each with the text of its vector.
    """

    def __init__(self, index: str, ledger: Ledger, store: Store, collection: Collection, *, own: bool = False) -> None:
        self._index = index
        self._ledger = ledger
        self._store = store
        self._collection = collection
        self._own = own

    def vectors(self, keys: Sequence[str], text_hashes: Sequence[bytes] = ()) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text, of all chunks that these documents (with these texts) have there."""
        known = self._ledger.known(self._collection.id, keys)
        if text_hashes:
            known |= self._renamed(keys, text_hashes, known)
        ids = [
            point_id(self._index, key, number)
            for key, row in known.items()
            if self._own or not row.pending
            for number in range(row.chunks)
        ]
        found: dict[str, NDArray[np.float32]] = {}
        for first in range(0, len(ids), 1000):
            try:
                stored = self._store.retrieve(self._collection.name, ids[first : first + 1000], vectors=True)
            except StoreError as error:  # an unreadable collection is what a rebuild is for
                logger.warning("vectors of %s cannot be reused: %s", self._collection.name, error)
                return found
            for point in stored:
                if point.vector is not None:
                    ours = point.payload[RESERVED_KEY]
                    text = text_to_embed(ours.get("context", ""), ours["text"])
                    found[text] = np.asarray(point.vector, dtype=np.float32)
        return found

    def _renamed(self, keys: Sequence[str], text_hashes: Sequence[bytes], known: dict[str, Known]) -> dict[str, Known]:
        """Return the ledger's rows of documents with the same text as one of the new documents, under another key."""
        texts = zip(keys, text_hashes, strict=True)
        new = {text for key, text in texts if key not in known or not known[key].chunks}
        return self._ledger.known(self._collection.id, self._ledger.keys_of_texts(self._collection.id, sorted(new)))


def reusable(index: str, ledger: Ledger, store: Store, alias: str, identity: EmbedderIdentity) -> VectorReuse | None:
    """Return the lookup for a rebuild of `index`: the live collection of `alias`, if the same embedder made it."""
    live = ledger.collection(store.aliases().get(alias, ""))
    if live is None:
        return None
    metadata = store.metadata(live.name)  # the ledger alone is not enough: its row may belong to another store
    if (metadata.get("store_id"), metadata.get("embedder_fingerprint")) != (live.store_id, identity.fingerprint):
        return None
    return VectorReuse(index, ledger, store, live)
